// What was removed is forgotten when all owners have the same, on their disks, and all horizons have passed it; and
// what comes back then is known to be dead.
#include <algorithm>

#include "core_fixture.h"
#include "storage/record_codec.h"

namespace kinfs::cluster {
namespace {

/// Node 1 of three, which all own all. The others have what it has, unless told otherwise.
class ReaperTest : public CoreTest {
 protected:
  void SetUp() override {
    config.reap_after_ms = 10'000;
    config.compare_interval_ms = 5000;
    start();
    for (int i = 0; partition_key.empty(); ++i) {
      const Bytes key = "p" + std::to_string(i);
      if (node->owners(partition_of(VolumeId{2}, key)).front() == config.self) partition_key = key;
    }
    tick(10);
    horizons = now.wall_ms;
  }
  std::uint16_t partition() const { return partition_of(VolumeId{2}, partition_key); }
  RowKey row_key(const Bytes& sort_key) const { return {VolumeId{2}, partition_key, sort_key}; }
  Row stored(const Bytes& sort_key) const { return *disk.MemStore::get(row_key(sort_key)); }
  static Row row_of(Version v, std::uint64_t counter, std::int64_t ms) {
    Row out;
    v.hlc = Hlc::from_ms(ms);
    add_version(out, std::move(v), {NodeId{2}, counter});
    return out;
  }
  Row grave(std::int64_t ms) {
    auto v = version({});
    v.tombstone = true;
    return row_of(std::move(v), 7, ms);
  }
  /// As a peer's coordinator sends it.
  void write(const Bytes& sort_key, const Row& row) {
    receive(NodeId{2}, 1'000'000 + ++events, WriteRows{VolumeId{2}, partition_key, {{sort_key, row}}, false, {}});
  }
  /// Time goes on for all, and the others' horizons stay where they are told to.
  void play(int seconds = 60) {
    for (int second = 0; second < seconds; ++second) {
      for (std::uint64_t n = 2; n <= 3; ++n) {
        peers_clock = Hlc::from_ms(now.wall_ms);
        const auto horizon = Hlc::from_ms(n == away ? 1 : std::max(horizons, now.wall_ms - 10'000));
        receive(NodeId{n}, 0, Gossip{{}, true, {}, {{NodeId{n}, horizon}}});
        receive(NodeId{n}, 0, Pong{});
      }
      for (int i = 0; i < 10; ++i) {
        tick(100);
        for (auto out = std::exchange(sent, {}); !out.empty(); out.pop_front()) answer(out.front());
      }
    }
  }
  void answer(const Message& m) {
    if (std::holds_alternative<SyncStore>(m.body)) {
      ++syncs_asked;
      receive(m.to, m.id, SyncStoreReply{restarts ? "start " + std::to_string(syncs_asked) : "one start"});
    } else if (const auto* sums = std::get_if<ComparePartitions>(&m.body)) {
      ComparePartitionsReply reply;
      for (std::uint32_t i = 0; (m.to == differs || refuses) && i < sums->sums.size(); ++i)
        reply.differing.push_back(i);
      receive(m.to, m.id, reply);
    } else if (const auto* reap = std::get_if<Reap>(&m.body)) {
      told.emplace_back(m.to, *reap);
    } else if (const auto* items = std::get_if<CompareItems>(&m.body)) {
      CompareItemsReply reply;
      for (std::uint32_t i = 0; refuses && i < items->buckets.size(); ++i) reply.differing.push_back(i);
      receive(m.to, m.id, reply);
    } else if (std::holds_alternative<WriteRows>(m.body)) {
      if (refuses) receive(m.to, m.id, Refusal{Error{Errc::kNoSpace, "the disk is full"}});
    }
  }
  Bytes partition_key;
  std::int64_t horizons = 0;  // of the others, at least
  std::uint64_t away = 0;     // whose horizon stays behind
  NodeId differs{};
  bool restarts = false, refuses = false;
  int syncs_asked = 0;
  std::vector<std::pair<NodeId, Reap>> told;
};

TEST_F(ReaperTest, WhatWasRemovedLongAgoGoesFromAllOwners) {
  write("k", grave(now.wall_ms));
  write("alive", row_of(version("value"), 8, now.wall_ms));
  play();
  EXPECT_TRUE(stored("k").empty());
  EXPECT_FALSE(stored("alive").empty());
  ASSERT_EQ(told.size(), 2u);
  for (const auto& [to, reap] : told) {
    EXPECT_EQ(reap.run, "one start");
    EXPECT_EQ(reap.partition, partition());
    ASSERT_EQ(reap.items.size(), 1u);
    EXPECT_EQ(reap.items[0].key, row_key_bytes(row_key("k")));
  }
  EXPECT_EQ(node->counters().rows_reaped, 1u);
}

TEST_F(ReaperTest, NotBeforeAllHorizonsHavePassedIt) {
  away = 3;
  write("k", grave(now.wall_ms));
  play();
  EXPECT_FALSE(stored("k").empty());
  away = 0;
  play();
  EXPECT_TRUE(stored("k").empty());
}

TEST_F(ReaperTest, NotBeforeItIsLongAgo) {
  write("k", grave(now.wall_ms + 3'600'000));
  play();
  EXPECT_FALSE(stored("k").empty());
}

TEST_F(ReaperTest, NotWhereAnOwnerHasSomethingElse) {
  differs = NodeId{2};
  write("k", grave(now.wall_ms));
  play();
  EXPECT_FALSE(stored("k").empty());
  EXPECT_TRUE(told.empty());
}

TEST_F(ReaperTest, NotWhereAnOwnerWasStartedAnewMeanwhile) {
  restarts = true;
  write("k", grave(now.wall_ms));
  play();
  EXPECT_GT(syncs_asked, 0);
  EXPECT_FALSE(stored("k").empty());
  EXPECT_TRUE(told.empty());
}

TEST_F(ReaperTest, ATombstoneThatTellsMoreStays) {
  auto v = version("moved to b");
  v.tombstone = true;
  write("k", row_of(std::move(v), 7, now.wall_ms));
  play();
  EXPECT_FALSE(stored("k").empty());
}

// One of two siblings was discarded later than the tombstone was made: who still has it must not bring it back.
TEST_F(ReaperTest, WhatWasGoneLaterKeepsTheRow) {
  auto row = grave(now.wall_ms);
  auto later = version("value");
  later.hlc = Hlc::from_ms(now.wall_ms + 3'600'000);
  add_version(row, later, {NodeId{2}, 9});
  row = superseding(row, {{NodeId{2}, 9}});
  ASSERT_EQ(row.versions.size(), 1u);
  write("k", row);
  play();
  EXPECT_FALSE(stored("k").empty());
}

TEST_F(ReaperTest, WhatComesBackIsDead) {
  const auto old = row_of(version("value"), 6, now.wall_ms - 1000);
  write("k", grave(now.wall_ms));
  play();
  ASSERT_TRUE(stored("k").empty());
  write("k", old);
  EXPECT_TRUE(stored("k").versions.empty());
  EXPECT_TRUE(stored("k").context.covers(old.versions.front().dot));  // so that who has it hears of it
  play();
  EXPECT_TRUE(stored("k").empty());
  start();  // it is on the disk too
  write("k", old);
  EXPECT_TRUE(stored("k").versions.empty());
}

// As what an open file was read as, long ago, beside what is written now.
TEST_F(ReaperTest, WhatAWriterLeavesIsDeadToo) {
  const auto old = row_of(version("value"), 6, now.wall_ms - 1000);
  write("k", grave(now.wall_ms));
  play();
  ASSERT_TRUE(stored("k").empty());
  auto v = version("new");
  v.hlc = Hlc::from_ms(now.wall_ms);
  PutRequest request{VolumeId{2}, partition_key, {RowPut{"k", old, {v}, {}}}, {}};
  receive(NodeId{2}, 1'000'000 + ++events, Forward{std::move(request)});
  ASSERT_EQ(stored("k").versions.size(), 1u);
  EXPECT_EQ(stored("k").versions.front().value, "new");
}

// It was tried for longer than what was removed is kept.
TEST_F(ReaperTest, AnOldPutGetsANewClock) {
  const auto long_ago = Hlc::from_ms(now.wall_ms);
  play();
  auto v = version("late");
  v.hlc = long_ago;
  PutRequest request{VolumeId{2}, partition_key, {RowPut{"k", {}, {v}, {}}}, {}};
  receive(NodeId{2}, 1'000'000 + ++events, Forward{std::move(request)});
  ASSERT_EQ(stored("k").versions.size(), 1u);
  const auto hlc = stored("k").versions.front().hlc;
  EXPECT_GT(hlc, Hlc::from_ms(now.wall_ms - 10'000));
  // And its writer is told, for what it keeps of the row.
  v.event.sequence = ++events;
  v.hlc = long_ago;
  for (std::uint64_t n = 2; n <= 3; ++n) receive(NodeId{n}, 0, Pong{});
  sent.clear();
  answers.clear();
  node->request(1, PutRequest{VolumeId{2}, partition_key, {RowPut{"own", {}, {v}, {}}}, {}}, 4000, now);
  run();
  for (const auto& m : std::exchange(sent, {})) {
    if (std::holds_alternative<WriteRows>(m.body)) receive(m.to, m.id, WriteRowsReply{});
  }
  ASSERT_EQ(answers.size(), 1u);
  const auto* done = std::get_if<PutResult>(&answers.front());
  ASSERT_NE(done, nullptr);
  EXPECT_EQ(done->rows.at(0).clocks, std::vector<Hlc>{stored("own").versions.front().hlc});
  EXPECT_GT(done->rows.at(0).clocks.front(), long_ago);
}

// A clock that was once a year ahead is for ever in the hybrid one; puts go by the wall clock all the same.
TEST_F(ReaperTest, AStartWithAClockThatWasAheadLeavesPutsAsTheyAre) {
  now.wall_ms += 365ll * 86'400'000;
  tick();
  now.wall_ms -= 365ll * 86'400'000;
  config.last_run = "another";  // as after a start of the machine
  start();
  auto v = version("value");
  v.hlc = Hlc::from_ms(now.wall_ms);
  PutRequest request{VolumeId{2}, partition_key, {RowPut{"k", {}, {v}, {}}}, {}};
  receive(NodeId{2}, 1'000'000 + ++events, Forward{std::move(request)});
  ASSERT_EQ(stored("k").versions.size(), 1u);
  EXPECT_EQ(stored("k").versions.front().hlc, v.hlc);
}

TEST_F(ReaperTest, ARowThatIsWrittenForLongDoesNotTellOfEachTime) {
  for (int i = 0; i < 5; ++i) {
    auto v = version("value");
    v.hlc = Hlc::from_ms(now.wall_ms);
    PutRequest request{VolumeId{2}, partition_key, {RowPut{"log", stored("log"), {v}, {}}}, {}};
    request.rows[0].base.versions.clear();
    for (std::uint64_t n = 2; n <= 3; ++n) receive(NodeId{n}, 0, Pong{});
    receive(NodeId{2}, 1'000'000 + ++events, Forward{std::move(request)});
    write("k", grave(now.wall_ms));
    play();
    ASSERT_TRUE(stored("k").empty());
  }
  EXPECT_EQ(stored("log").versions.size(), 1u);
  EXPECT_EQ(stored("log").context.nodes().size(), 1u);
}

TEST_F(ReaperTest, AsAnOwnerItKeepsWhatChangedSince) {
  Bytes key;
  for (int i = 0; key.empty(); ++i) {
    const Bytes name = "p" + std::to_string(i);
    if (node->owners(partition_of(VolumeId{2}, name)).front() == NodeId{2}) key = name;
  }
  partition_key = key;
  const auto row = grave(now.wall_ms);
  const auto name = row_key_bytes(row_key("k"));
  const Reap reap{partition(), "run", row.latest(), {{name, item_digest(name, row), {}}}};
  play();
  const auto tell = [&](NodeId from, Reap what) { receive(from, 1'000'000 + ++events, std::move(what)); };

  write("k", row);
  auto changed = reap;
  changed.items[0].digest = {};
  tell(NodeId{2}, changed);
  EXPECT_FALSE(stored("k").empty());
  tell(NodeId{3}, reap);  // who is not the first owner
  EXPECT_FALSE(stored("k").empty());
  auto earlier = reap;
  earlier.run = "an earlier start";
  tell(NodeId{2}, earlier);
  EXPECT_FALSE(stored("k").empty());
  auto absurd = reap;  // it is above the horizon of this member
  absurd.floor = Hlc{~0ull};
  tell(NodeId{2}, absurd);
  EXPECT_FALSE(stored("k").empty());
  tell(NodeId{2}, reap);
  EXPECT_TRUE(stored("k").empty());
}

TEST_F(ReaperTest, AHorizonAboveItsSendersClockIsNone) {
  peers_clock = Hlc::from_ms(now.wall_ms);
  receive(NodeId{2}, 0, Gossip{{}, true, {}, {{NodeId{2}, Hlc{~0ull}}, {NodeId{3}, Hlc{~0ull - 1}}}});
  write("k", grave(now.wall_ms));
  play();
  EXPECT_TRUE(stored("k").empty());
  auto v = version("value");
  v.hlc = Hlc::from_ms(now.wall_ms);
  PutRequest request{VolumeId{2}, partition_key, {RowPut{"k", {}, {v}, {}}}, {}};
  receive(NodeId{2}, 1'000'000 + ++events, Forward{std::move(request)});
  ASSERT_EQ(stored("k").versions.size(), 1u);
  EXPECT_EQ(stored("k").versions.front().hlc, v.hlc);  // and no put gets an absurd clock
}

// A row of which a peer says that it is dead up to the end of time.
TEST_F(ReaperTest, AFloorAboveTheOwnHorizonIsNone) {
  auto v = version("value");
  v.hlc = Hlc::from_ms(now.wall_ms);
  write("k", row_of(v, 7, now.wall_ms));
  for (std::uint64_t n = 2; n <= 3; ++n) receive(NodeId{n}, 0, Pong{});
  sent.clear();
  answers.clear();
  node->request(1, GetRequest{VolumeId{2}, partition_key, "k"}, 4000, now);
  run();
  const auto asked = std::exchange(sent, {});
  for (const auto& m : asked) {
    if (std::holds_alternative<ReadRow>(m.body)) receive(m.to, m.id, ReadRowReply{{}, {}, false, Hlc{~0ull}});
  }
  ASSERT_EQ(answers.size(), 1u);
  const auto* got = std::get_if<GetResult>(&answers.front());
  ASSERT_NE(got, nullptr);
  EXPECT_EQ(got->row.versions.size(), 1u);
}

/// Of four, where it does not own all: its horizon waits until it holds nothing that it does not own.
class HorizonTest : public ReaperTest {
 protected:
  void SetUp() override {
    config.members.push_back({NodeId{4}, "host4", "test", Bytes(32, '\4')});
    config.quorum = {2, 0, 0};
    ReaperTest::SetUp();
  }
  /// What this node says of itself.
  Hlc said() {
    for (std::uint64_t n = 2; n <= 4; ++n) receive(NodeId{n}, 0, Pong{});
    receive(NodeId{4}, 77, Gossip{});
    for (const auto& m : sent) {
      const auto* gossip = std::get_if<Gossip>(&m.body);
      if (gossip == nullptr) continue;
      for (const auto& [of, horizon] : gossip->horizons) {
        if (of == config.self) return horizon;
      }
    }
    return {};
  }
  void play_all(int seconds) {
    for (int second = 0; second < seconds; ++second) {
      peers_clock = Hlc::from_ms(now.wall_ms);
      receive(NodeId{4}, 0, Pong{});
      play(1);
    }
  }
};

TEST_F(HorizonTest, StaysBehindTheClocksOfAll) {
  play_all(60);
  const auto before = said();
  EXPECT_GT(before, Hlc::from_ms(now.wall_ms - 40'000));
  EXPECT_LE(before, Hlc::from_ms(now.wall_ms - 10'000));
  play(60);  // host 4 is not heard of
  EXPECT_LE(said(), Hlc::from_ms(now.wall_ms - 65'000));
}

TEST_F(HorizonTest, WaitsWhileItHoldsWhatItDoesNotOwn) {
  play_all(30);
  const auto before = said();
  ASSERT_GT(before, Hlc{});
  for (int i = 0;; ++i) {
    partition_key = "q" + std::to_string(i);
    const auto owners = node->owners(partition());
    if (std::find(owners.begin(), owners.end(), config.self) == owners.end()) break;
  }
  refuses = true;
  write("k", row_of(version("value"), 7, now.wall_ms));
  play_all(60);
  EXPECT_FALSE(stored("k").empty());
  EXPECT_LE(said(), Hlc::from_ms(now.wall_ms - 60'000));
}

}  // namespace
}  // namespace kinfs::cluster
