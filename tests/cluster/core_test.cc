// One node by itself, told what its peers and its disk say.
#include <algorithm>

#include "cluster/dot_source.h"
#include "cluster/layout.h"
#include "cluster/read.h"
#include "core_fixture.h"
#include "storage/record_codec.h"

namespace kinfs::cluster {
namespace {

using Keys = std::vector<Bytes>;

// --- Reads ask as few as they need, for no more than they need ---

class Reads : public CoreTest {
 protected:
  Reads() {
    Batch batch;
    add_version(row, version("value"), {NodeId{2}, 1});
    batch.rows.emplace_back(RowKey{VolumeId{2}, "p", "k"}, row);
    EXPECT_TRUE(disk.apply(batch));
    start();
  }
  /// The messages of a get that asks as many as the quorum takes: one in kAskAllOneIn asks all.
  std::vector<Message> get() {
    std::vector<Message> asked;
    for (int i = 0; i < 50 && asked.size() != 1; ++i) {
      for (const auto& message : asked) receive(message.to, message.id, ReadRowReply{{}, {}, true});
      answers.clear();
      sent.clear();
      node->request(1, GetRequest{VolumeId{2}, "p", "k"}, 4000, now);
      run();
      asked = reads();
    }
    EXPECT_EQ(asked.size(), 1u);
    return asked;
  }
  std::vector<Message> reads() {
    std::vector<Message> out;
    for (; !sent.empty(); sent.pop_front()) {
      if (std::holds_alternative<ReadRow>(sent.front().body)) out.push_back(sent.front());
    }
    return out;
  }
  Row answered() const {
    const auto* result = answers.empty() ? nullptr : std::get_if<GetResult>(&answers.front());
    return result == nullptr ? Row{} : result->row;
  }
  Row row;
};

TEST_F(Reads, OnePeerThatHasTheSameIsEnough) {
  const auto asked = get().at(0);
  EXPECT_EQ(std::get<ReadRow>(asked.body).known, row.fingerprint());
  receive(asked.to, asked.id, ReadRowReply{{}, {}, true});
  EXPECT_EQ(answered(), row);
  tick(100);
  EXPECT_TRUE(reads().empty());
}

TEST_F(Reads, WhatDiffersIsMergedAndTheThirdIsLookedAtToo) {
  const auto asked = get().at(0);
  Row other;
  add_version(other, version("another"), {NodeId{3}, 1});
  receive(asked.to, asked.id, ReadRowReply{other, {}, false});
  EXPECT_EQ(answered(), merge(row, other));
  const auto more = reads();
  ASSERT_EQ(more.size(), 1u);
  EXPECT_NE(more.front().to, asked.to);
  receive(more.front().to, more.front().id, ReadRowReply{{}, {}, true});
  // All three are brought up to date: this one at once, the others by a write each.
  EXPECT_EQ(*disk.get(RowKey{VolumeId{2}, "p", "k"}), merge(row, other));
  int repairs = 0;
  while (next<WriteRows>(0)) ++repairs;
  EXPECT_EQ(repairs, 2);
}

TEST_F(Reads, TheThirdIsAskedWhenTheSecondIsLate) {
  const auto asked = get().at(0);
  tick(10);
  EXPECT_TRUE(reads().empty());
  tick(10);
  const auto more = reads();
  ASSERT_EQ(more.size(), 1u);
  EXPECT_NE(more.front().to, asked.to);
  EXPECT_TRUE(answers.empty());
  receive(more.front().to, more.front().id, ReadRowReply{{}, {}, true});
  EXPECT_EQ(answered(), row);
  // Who was late is not asked first the next time.
  receive(asked.to, asked.id, ReadRowReply{{}, {}, true});
  EXPECT_EQ(get().at(0).to, more.front().to);
}

TEST_F(Reads, TheThirdIsAskedInTimeHoweverSlowAllAre) {
  for (int i = 0; i < 60; ++i) {  // each of both takes 600 ms
    node->request(1, GetRequest{VolumeId{2}, "p", "k"}, 4000, now);
    run();
    const auto asked = reads();
    for (int t = 0; t < 6; ++t) {
      hear_peers();
      tick(100);
    }
    auto all = asked;
    for (const auto& message : reads()) all.push_back(message);
    for (const auto& message : all) receive(message.to, message.id, ReadRowReply{{}, {}, true});
  }
  const auto asked = get().at(0);
  hear_peers();
  tick(config.request_timeout_ms / kLateShare);
  const auto more = reads();
  ASSERT_EQ(more.size(), 1u);
  EXPECT_NE(more.front().to, asked.to);
}

TEST_F(Reads, TheThirdIsAskedWhenTheSecondRefuses) {
  const auto asked = get().at(0);
  receive(asked.to, asked.id, Refusal{{Errc::kCorrupt, "damaged"}});
  const auto more = reads();
  ASSERT_EQ(more.size(), 1u);
  receive(more.front().to, more.front().id, ReadRowReply{{}, {}, true});
  EXPECT_EQ(answered(), row);
}

TEST_F(CoreTest, NoWriteMakesMoreVersionsThanPeopleCanResolve) {
  start();
  const RowKey key{VolumeId{2}, "p", "k"};
  const auto stored = [&] { return *disk.MemStore::get(key); };
  for (std::size_t i = 0; i < kMostSiblings; ++i) put("k", {}, {version("v")});
  EXPECT_EQ(stored().versions.size(), kMostSiblings);
  EXPECT_EQ(node->counters().puts_beside_many, kMostSiblings - kManySiblings + 1);
  EXPECT_EQ(code_of(put("k", {}, {version("one more")})), Errc::kTooLarge);
  // One of them is written over, and repair brings together what there is.
  put("k", superseding(stored(), {stored().versions.front().dot}), {version("v")});
  EXPECT_EQ(stored().versions.size(), kMostSiblings);
  Row others;
  for (std::uint64_t i = 1; i <= 5; ++i) add_version(others, version("theirs"), {NodeId{2}, i});
  receive(NodeId{2}, 5, WriteRows{VolumeId{2}, "p", {{"k", others}}});
  EXPECT_EQ(stored().versions.size(), kMostSiblings + 5);
  put("k", superseding(stored(), {stored().versions.front().dot}), {version("v")});
  EXPECT_EQ(stored().versions.size(), kMostSiblings + 5);
  put("k", superseding(stored(), {stored().versions.front().dot}), {});
  EXPECT_EQ(stored().versions.size(), kMostSiblings + 4);
  EXPECT_EQ(code_of(put("k", {}, {version("one more")})), Errc::kTooLarge);
  put("k", Row{stored().context, {}}, {version("v")});
  EXPECT_EQ(stored().versions.size(), 1u);
}

TEST_F(CoreTest, WhoHasNotLookedYetLooksWhenItIsAskedForSums) {
  hint_row("a", 1, "p");
  hint_row("b", 2, "q");
  start();
  const auto sum_of = [&](const Bytes& partition_key) {
    const auto partition = partition_of(VolumeId{2}, partition_key);
    PartitionSum sum{ItemKind::kRow, partition, 0, {}};
    const auto page = disk.items(ItemKind::kRow, partition, {}, 100);
    for (const auto& item : page->items) {
      for (std::size_t i = 0; i < sum.digest.size(); ++i) sum.digest[i] ^= item.digest[i];
      ++sum.items;
    }
    return sum;
  };
  auto wrong = sum_of("q");
  ++wrong.digest[0];
  const std::vector<PartitionSum> sums{sum_of("p"), wrong, sum_of("nothing is here"), sum_of("nor here")};
  ASSERT_EQ(sums[0].items, 1u);
  ASSERT_EQ(sums[2].items, 0u);
  receive(NodeId{2}, 77, ComparePartitions{sums});
  const auto reply = next<ComparePartitionsReply>(0);
  ASSERT_TRUE(reply);
  EXPECT_EQ(std::get<ComparePartitionsReply>(reply->body).differing, (std::vector<std::uint32_t>{1}));

  (void)put("c", {}, {version("new")});  // in "p"
  sent.clear();
  receive(NodeId{2}, 78, ComparePartitions{sums});
  const auto after = next<ComparePartitionsReply>(0);
  ASSERT_TRUE(after);
  EXPECT_EQ(std::get<ComparePartitionsReply>(after->body).differing, (std::vector<std::uint32_t>{0, 1}));
}

TEST_F(CoreTest, AReplicaSaysThatItHasTheSame) {
  hint_row("k", 1);
  start();
  const RowKey key{VolumeId{2}, "p", "k"};
  const Row row = *disk.get(key);
  receive(NodeId{2}, 77, ReadRow{key, row.fingerprint()});
  const auto same = next<ReadRowReply>(0);
  ASSERT_TRUE(same);
  EXPECT_TRUE(std::get<ReadRowReply>(same->body).same);
  EXPECT_TRUE(std::get<ReadRowReply>(same->body).row.empty());
  receive(NodeId{2}, 78, ReadRow{key, Row{}.fingerprint()});
  const auto other = next<ReadRowReply>(0);
  ASSERT_TRUE(other);
  EXPECT_FALSE(std::get<ReadRowReply>(other->body).same);
  EXPECT_EQ(std::get<ReadRowReply>(other->body).row, row);
}

// --- Blocks that cannot be read for a moment ---

TEST_F(CoreTest, AHintOutlivesABlockThatCannotBeReadForAMoment) {
  hint_block("block", 1);
  disk.block_error = Errc::kIo;
  start();
  EXPECT_FALSE(next<WriteBlock>(100));
  EXPECT_EQ(disk.hint_count(NodeId{2}), 1u);
  disk.block_error.reset();
  const auto message = next<WriteBlock>();
  ASSERT_TRUE(message);
  EXPECT_TRUE(std::get<WriteBlock>(message->body).sync);
  receive(NodeId{2}, message->id, WriteBlockReply{});
  EXPECT_EQ(disk.hint_count(NodeId{2}), 0u);
}

TEST_F(CoreTest, AReplicaThatCannotReadABlockDoesNotSayThatItHasNone) {
  start();
  const BlockKey key{VolumeId{2}, "file", 0, {}};
  receive(NodeId{2}, 77, ReadBlock{key});
  EXPECT_TRUE(next<ReadBlockReply>(0));
  disk.block_error = Errc::kIo;
  receive(NodeId{2}, 78, ReadBlock{key});
  EXPECT_TRUE(next<Refusal>(0));
}

// --- Blocks that are to be on disk, and do not travel ---

TEST_F(CoreTest, OwnersSayWhetherTheyHaveBlocksOnDisk) {
  start();
  const auto bytes = share("block");
  const BlockSet set{VolumeId{2}, "file", 0, {sha256(*bytes)}};
  receive(NodeId{2}, 77, SyncBlocks{set});
  auto reply = next<SyncBlocksReply>(0);
  ASSERT_TRUE(reply);
  EXPECT_FALSE(std::get<SyncBlocksReply>(reply->body).all);
  ASSERT_TRUE(disk.put_block(set.key(set.hashes[0]), bytes));
  syncs = false;
  receive(NodeId{2}, 78, SyncBlocks{set});
  EXPECT_FALSE(next<SyncBlocksReply>(0));
  syncs = true;
  receive(NodeId{2}, 79, SyncBlocks{set});
  reply = next<SyncBlocksReply>(0);
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->id, 79u);
  EXPECT_TRUE(std::get<SyncBlocksReply>(reply->body).all);
}

TEST_F(CoreTest, BlocksAreSyncedWhenWOwnersSaySo) {
  const auto bytes = share("block");
  const BlockSet set{VolumeId{2}, "file", 0, {sha256(*bytes)}};
  start();
  const auto ask = [&] {
    answers.clear();
    sent.clear();
    node->request(1, SyncBlocksRequest{set}, 4000, now);
    run();
    const auto message = next<SyncBlocks>(0);
    return message ? message->id : 0;
  };
  const auto said = [&] { return std::get<BlocksSynced>(answers.at(0)).all; };
  auto id = ask();  // it is not here: both others are needed
  receive(NodeId{2}, id, SyncBlocksReply{true});
  EXPECT_TRUE(answers.empty());
  receive(NodeId{3}, id, SyncBlocksReply{true});
  EXPECT_TRUE(said());
  id = ask();
  receive(NodeId{2}, id, SyncBlocksReply{true});
  receive(NodeId{3}, id, Refusal{{Errc::kIo, "its disk"}});
  EXPECT_FALSE(said());
  ASSERT_TRUE(disk.put_block(set.key(set.hashes[0]), bytes));
  id = ask();
  receive(NodeId{3}, id, SyncBlocksReply{false});
  EXPECT_TRUE(answers.empty());
  receive(NodeId{2}, id, SyncBlocksReply{true});
  EXPECT_TRUE(said());
  ask();
  for (int i = 0; i < 500 && answers.empty(); ++i) tick();  // they fall silent
  EXPECT_FALSE(said());
}

// --- The order of hints ---

TEST_F(CoreTest, AHintThatCannotGoDoesNotHoldUpTheOthers) {
  for (std::uint64_t i = 1; i <= 4; ++i) hint_row("k" + std::to_string(i), i);
  disk.corrupt = {"k1"};
  start();
  auto message = next<HandOver>();
  EXPECT_EQ(keys_of(message), (Keys{"k2", "k3", "k4"}));
  // One of them is refused: the owner does not say which.
  receive(NodeId{2}, message->id, Refusal{{Errc::kCorrupt, "k3 is damaged here"}});
  message = next<HandOver>();
  EXPECT_EQ(keys_of(message), (Keys{"k2"}));
  receive(NodeId{2}, message->id, WriteRowsReply{});
  message = next<HandOver>();
  EXPECT_EQ(keys_of(message), (Keys{"k3"}));
  receive(NodeId{2}, message->id, Refusal{{Errc::kCorrupt, "k3 is damaged here"}});
  message = next<HandOver>();
  EXPECT_EQ(keys_of(message), (Keys{"k4"}));
  receive(NodeId{2}, message->id, WriteRowsReply{});
  EXPECT_EQ(disk.hint_count(NodeId{2}), 2u);
  // They have their turn again.
  disk.corrupt.clear();
  EXPECT_EQ(keys_of(next<HandOver>()), (Keys{"k1", "k3"}));
}

TEST_F(CoreTest, RowsOfAnyPartitionsAreHandedOverTogether) {
  hint_row("a", 1, "p");
  hint_row("b", 2, "q");
  hint_row("c", 3, "p");
  start();
  const auto message = next<HandOver>();
  EXPECT_EQ(keys_of(message), (Keys{"a", "c", "b"}));
  EXPECT_TRUE(std::get<HandOver>(message->body).sync);
  receive(NodeId{2}, message->id, WriteRowsReply{});
  EXPECT_EQ(disk.hint_count(NodeId{2}), 0u);
}

TEST_F(CoreTest, SomeBlocksAreHandedOverAtATimeAndRowsBehindThem) {
  for (std::uint64_t i = 1; i <= 20; ++i) hint_block("block " + std::to_string(i), i);
  hint_row("a", 21);
  start();
  const auto under_way = [&] {
    std::vector<std::uint64_t> ids;
    while (auto message = next<WriteBlock>(3)) ids.push_back(message->id);
    return ids;
  };
  auto ids = under_way();
  ASSERT_EQ(ids.size(), 16u);
  const auto lost = ids[3];
  for (const auto id : ids) {
    if (id != lost) receive(NodeId{2}, id, WriteBlockReply{});
  }
  ids = under_way();
  ASSERT_EQ(ids.size(), 4u);
  for (const auto id : ids) receive(NodeId{2}, id, WriteBlockReply{});
  EXPECT_EQ(disk.hint_count(NodeId{2}), 2u);
  EXPECT_FALSE(next<HandOver>(10));
  // The one that was lost goes again, alone, and the row once it has arrived.
  const auto again = next<WriteBlock>(400);
  ASSERT_TRUE(again);
  EXPECT_EQ(std::get<WriteBlock>(again->body).key.hash, sha256("block 4"));
  EXPECT_FALSE(next<HandOver>(10));
  EXPECT_TRUE(sent.empty());
  receive(NodeId{2}, again->id, WriteBlockReply{});
  const auto row = next<HandOver>();
  EXPECT_EQ(keys_of(row), (Keys{"a"}));
}

// There is nobody to be asked: it is not all done in one tick, in which nothing else is answered.
TEST_F(CoreTest, HintsForAHostThatIsGoneAreWorkedOffSomeAtATime) {
  for (std::uint64_t i = 1; i <= 40; ++i) hint_block("block " + std::to_string(i), i);
  config.members.resize(1);
  start();
  tick();
  auto left = disk.hint_count(NodeId{2});
  EXPECT_GE(left, 24u);
  for (int i = 0; i < 20 && left > 0; ++i) {
    tick(200);
    EXPECT_LE(left - disk.hint_count(NodeId{2}), 16u);
    left = disk.hint_count(NodeId{2});
  }
  EXPECT_EQ(left, 0u);
}

TEST_F(CoreTest, BlocksUnderWayAreBoundedInBytes) {
  for (char c = 'a'; c <= 'e'; ++c) hint_block(Bytes(1 << 20, c), static_cast<std::uint64_t>(c));
  start();
  auto message = next<WriteBlock>();
  ASSERT_TRUE(message);
  EXPECT_TRUE(next<WriteBlock>(3));
  EXPECT_FALSE(next<WriteBlock>(3));
  receive(NodeId{2}, message->id, WriteBlockReply{});
  EXPECT_TRUE(next<WriteBlock>(3));
}

TEST_F(CoreTest, APeerHasAnsweredOnlyWhenItAnsweredUs) {
  start();
  tick();
  receive(NodeId{2}, 5, Ping{});
  receive(NodeId{3}, 0, Pong{});
  for (const auto& peer : node->peers()) {
    EXPECT_FALSE(peer.suspected);
    EXPECT_EQ(peer.last_heard_ms, now.mono_ms);
    EXPECT_EQ(peer.last_answered_ms, peer.member.node == NodeId{3} ? now.mono_ms : -1);
  }
}

TEST_F(CoreTest, HintsAreCountedWithoutALookAtThem) {
  for (std::uint64_t i = 1; i <= 3; ++i) hint_row("k" + std::to_string(i), i);
  start();
  disk.looks = 0;
  for (const auto& peer : node->peers()) EXPECT_EQ(peer.hints, peer.member.node == NodeId{2} ? 3u : 0u);
  EXPECT_FALSE(node->idle());
  EXPECT_EQ(disk.looks, 0);
}

// --- What an error promises ---

TEST_F(CoreTest, ASaveThatFailsIsAnsweredAlsoWhenOneOwnerIsEnough) {
  config.quorum = {3, 3, 1};
  start();
  disk.full = true;
  EXPECT_EQ(code_of(put("k", {}, {version("v")})), Errc::kNoSpace);
  EXPECT_FALSE(next<WriteRows>(0));
}

TEST_F(CoreTest, AHintThatCannotBeKeptLeavesTheOutcomeOpen) {
  config.quorum = {3, 1, 3};
  start();
  put("k", {}, {version("v")});
  EXPECT_TRUE(answers.empty());
  disk.full = true;
  for (int i = 0; i < 300 && answers.empty(); ++i) tick();  // nobody answers
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(code_of(answers.front()), Errc::kTimeout);
}

TEST_F(CoreTest, ADegradedSyncedPutIsAnsweredWhenItsHintsAreSynced) {
  start();
  put("k", {}, {version("v")}, {true});
  syncs = false;
  for (int i = 0; i < 300; ++i) tick();
  EXPECT_EQ(disk.hint_count(NodeId{2}), 1u);
  EXPECT_TRUE(answers.empty());
}

TEST_F(CoreTest, AnErrorAfterASilentOwnerLeavesTheOutcomeOpen) {
  config.quorum = {1, 1, 1};
  start();
  Bytes partition_key = "a";
  while (node->owners(partition_of(VolumeId{2}, partition_key)).front() == config.self) partition_key += "a";
  node->request(1, PutRequest{VolumeId{2}, partition_key, {RowPut{"k", {}, {version("v")}, {}}}, {}}, 20'000, now);
  run();
  EXPECT_TRUE(next<Forward>(0));
  disk.full = true;
  for (int i = 0; i < 500 && answers.empty(); ++i) tick();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(code_of(answers.front()), Errc::kTimeout);
}

TEST_F(CoreTest, WhatWasRefusedToAForwarderIsNotDoneWhenItArrivesAgain) {
  start();
  const Forward forward{PutRequest{VolumeId{2}, "p", {RowPut{"k", {}, {version("v")}, {}}}, {}}};
  disk.full = true;
  receive(NodeId{2}, 7, forward);
  const auto reply = next<ForwardReply>(0);
  ASSERT_TRUE(reply);
  EXPECT_EQ(code_of(std::get<ForwardReply>(reply->body).answer), Errc::kNoSpace);
  disk.full = false;
  receive(NodeId{2}, 7, forward);
  EXPECT_TRUE(disk.get({VolumeId{2}, "p", "k"})->versions.empty());
  receive(NodeId{3}, 7, forward);  // another host's, under the same number
  EXPECT_EQ(disk.get({VolumeId{2}, "p", "k"})->versions.size(), 1u);
}

TEST_F(CoreTest, ARowDoesNotGrowBeyondWhatCanBeSent) {
  config.quorum = {1, 1, 1};
  config.members.resize(1);
  start();
  Answer last;
  int puts = 0;
  while (puts < 20 && code_of(last = put("k", {}, {version(Bytes(900'000, 'v'))})) != Errc::kTooLarge) ++puts;
  EXPECT_EQ(puts, 4);
  const auto row = disk.get({VolumeId{2}, "p", "k"});
  EXPECT_EQ(row->versions.size(), 4u);
  // What makes it smaller goes through, and what others have is taken.
  std::vector<Dot> dots;
  for (const auto& v : row->versions) dots.push_back(v.dot);
  EXPECT_TRUE(std::holds_alternative<PutResult>(put("k", superseding(*row, dots), {version("small")})));
}

TEST_F(CoreTest, ARowOfAnySizeIsRepaired) {
  start();
  Row row;
  for (std::uint64_t i = 1; i <= 6; ++i) add_version(row, version(Bytes(900'000, 'v')), {NodeId{2}, i});
  receive(NodeId{2}, 5, WriteRows{VolumeId{2}, "p", {{"k", row}}, false, {}});
  EXPECT_TRUE(next<WriteRowsReply>(0));
}

// --- Numbers and clocks ---

TEST_F(CoreTest, AFreshDirectoryDoesNotUseTheNumbersOfAFormerOne) {
  config.quorum = {1, 1, 1};
  config.members.resize(1);
  start();
  const auto first = std::get<PutResult>(put("a", {}, {version("v")})).rows.front().added.front();
  EXPECT_GE(first.counter, DotSource::least_at(kWallMs));
  tick(1000);
  // Emptied, with the same key.
  Disk empty;
  Node again(config, empty, 1);
  ASSERT_TRUE(again.start(now));
  for (const auto& effect : again.take_effects()) {
    const auto* save = std::get_if<Save>(&effect.what);
    if (save == nullptr) continue;
    EXPECT_GT(save->batch.meta->counter_floor, first.counter);
  }
}

TEST_F(CoreTest, ADotOfOursThatWeDoNotKnowEndsWhatWeVouchFor) {
  config.quorum = {1, 1, 1};
  start();
  Bytes partition_key = "a";
  while (node->owners(partition_of(VolumeId{2}, partition_key)).front() != config.self) partition_key += "a";
  const auto put_here = [&](Row base) {
    answers.clear();
    RowPut row{"k", std::move(base), {version("v")}, {}};
    node->request(1, PutRequest{VolumeId{2}, partition_key, {std::move(row)}, {}}, 4000, now);
    run();
  };
  put_here({});
  const auto known = std::get<PutResult>(answers.front()).rows.front().added.front();
  // A client was shown a dot of our former life by another host; the one before it lives there, unseen.
  Row shown;
  shown.context.add(Dot{config.self, known.counter + 1'000'000});
  syncs = false;
  put_here(shown);
  EXPECT_EQ(code_of(answers.front()), Errc::kBusy);  // until it is on disk how far the numbers have gone
  tick();
  put_here({});
  EXPECT_EQ(code_of(answers.front()), Errc::kBusy);
  EXPECT_EQ(disk.meta()->value().counter_floor, known.counter + 1'000'001);
  syncs = true;
  start();
  put_here({});
  const auto& result = std::get<PutResult>(answers.front()).rows.front();
  EXPECT_GT(result.added.front().counter, known.counter + 1'000'000);
  EXPECT_TRUE(result.context.covers(known));
  EXPECT_FALSE(result.context.covers(Dot{config.self, known.counter + 999'999}));
  EXPECT_EQ(node->counters().dot_clashes, 0u);
}

TEST_F(CoreTest, AReservationThatCouldNotBeSavedIsTriedAgain) {
  start();
  Row shown;
  shown.context.add(Dot{config.self, DotSource::least_at(kWallMs) + 1'000'000});
  EXPECT_EQ(code_of(put("a", shown, {version("v")})), Errc::kBusy);
  disk.full = true;
  tick();
  disk.full = false;
  EXPECT_EQ(code_of(put("a", {}, {version("v")})), Errc::kBusy);
  tick(1000);
  tick();
  hear_peers();
  put("a", {}, {version("v")});
  EXPECT_TRUE(next<WriteRows>(0));
}

TEST_F(CoreTest, ALaterLifeOfThisHostUsesLaterIds) {
  const auto ids_of = [&](Node& life) {
    std::vector<std::uint64_t> ids;
    now.mono_ms += 1000;
    now.wall_ms += 1000;
    life.tick(now);
    for (const auto& effect : life.take_effects()) {
      if (const auto* send = std::get_if<Send>(&effect.what)) ids.push_back(send->message.id);
    }
    return ids;
  };
  start();
  const auto first = ids_of(*node);
  ASSERT_FALSE(first.empty());
  start();  // on the same disk
  const auto second = ids_of(*node);
  ASSERT_FALSE(second.empty());
  EXPECT_GT(second.front(), first.back());
  Disk empty;
  Node again(config, empty, 1);
  ASSERT_TRUE(again.start(now));
  const auto third = ids_of(again);
  ASSERT_FALSE(third.empty());
  EXPECT_GT(third.front(), second.back());
}

// One that holds the index entry of a block alone, as a power cut may leave it, or a row that this host cannot read.
TEST_F(CoreTest, WhatAPeerNamesAndDoesNotGiveIsLeftOver) {
  const BlockKey key{VolumeId{2}, Bytes(16, 'f'), 0, sha256("bytes")};
  const auto partition = partition_of(key.volume, block_partition_key(key));
  start();
  const auto reply_to = [&](const Message& m) {
    if (const auto* sums = std::get_if<ComparePartitions>(&m.body)) {
      ComparePartitionsReply reply;
      for (std::uint32_t i = 0; i < sums->sums.size(); ++i) {
        const auto& sum = sums->sums[i];
        if (sum.kind == ItemKind::kBlock && sum.partition == partition) reply.differing.push_back(i);
      }
      receive(m.to, m.id, reply);
    } else if (std::holds_alternative<CompareItems>(m.body)) {
      receive(m.to, m.id, CompareItemsReply{{0}, {Item{block_key_bytes(key), Digest128{1}}}, true});
    } else if (std::holds_alternative<ReadBlock>(m.body)) {
      receive(m.to, m.id, ReadBlockReply{});
    }
  };
  for (int i = 0; i < 1500; ++i) {
    hear_peers();
    tick();
    for (const auto& message : std::exchange(sent, {})) reply_to(message);
  }
  EXPECT_GE(node->counters().compare_passes, 2u);  // not one in ten minutes
}

TEST_F(CoreTest, WhatIsUnderWayIsBoundedInBytes) {
  config.max_bytes_under_way = 8 << 20;
  start();
  hear_peers();
  std::size_t taken = 0;
  // Nobody confirms: each put is kept until then. It is kept twice, as it waits to be sent too.
  while (code_of(put(Bytes(1, static_cast<char>('a' + taken)), {}, {version(Bytes(1 << 20, 'v'))})) != Errc::kBusy) {
    EXPECT_EQ(node->crowded(), ++taken >= 2);
    ASSERT_LT(taken, 10u);
  }
  EXPECT_EQ(taken, 4u);
  EXPECT_EQ(node->counters().refused_busy, 1u);
  const auto asked = sent;
  for (const auto& message : asked) receive(message.to, message.id, WriteRowsReply{});
  EXPECT_FALSE(node->crowded());
  EXPECT_EQ(node->bytes_under_way(), 0u);
  // What was read is kept until all owners have answered.
  for (int i = 0; i < 20 && !node->crowded(); ++i) {
    node->request(2, GetRequest{VolumeId{2}, "p", "a"}, 4000, now);
    run();
  }
  EXPECT_TRUE(node->crowded());
  tick(2000);
  EXPECT_EQ(node->bytes_under_way(), 0u);
}

TEST_F(CoreTest, APeerSaysWhetherItsDiskIsFull) {
  start();
  disk.refuse_writes(Error{Errc::kNoSpace, "as the test says"});
  receive(NodeId{2}, 7, Ping{});
  const auto pong = next<Pong>(0);
  ASSERT_TRUE(pong);
  EXPECT_TRUE(std::get<Pong>(pong->body).full);
  const auto full = [&] {
    const auto peers = node->peers();
    return std::find_if(peers.begin(), peers.end(), [](const auto& p) { return p.member.node == NodeId{2}; })->full;
  };
  EXPECT_FALSE(full());
  receive(NodeId{2}, 0, Pong{true, {}});
  EXPECT_TRUE(full());
  receive(NodeId{2}, 0, Pong{});
  EXPECT_FALSE(full());
}

TEST_F(CoreTest, StartsInARowDoNotDriveTheClockAhead) {
  for (int i = 0; i < 100; ++i) {
    const auto before = node ? node->hlc() : Hlc{};
    start();
    tick();
    EXPECT_GT(node->hlc(), before);
  }
  EXPECT_LT(node->hlc().physical_ms() - now.wall_ms, 62'000);
}

}  // namespace
}  // namespace kinfs::cluster
