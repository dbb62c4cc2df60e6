// What a node holds and does not own goes when all owners have it on their disks, and not before.
#include <map>

#include "core_fixture.h"
#include "storage/record_codec.h"

namespace kinfs::cluster {
namespace {

/// Node 1 of four; two own each partition. The others have all that they are asked about, unless told otherwise.
class SurrenderTest : public CoreTest {
 protected:
  void SetUp() override {
    config.members.push_back({NodeId{4}, "host4", "test", Bytes(32, '\4')});
    config.quorum = {2, 0, 0};
    start();
    for (int i = 0; partition_key.empty(); ++i) {
      const Bytes key = "p" + std::to_string(i);
      if (!owns(partition_of(VolumeId{2}, key))) partition_key = key;
    }
    for (int i = 0; file.empty(); ++i) {
      const BlockKey key{VolumeId{2}, "file" + std::to_string(i), 0, sha256("bytes")};
      if (!owns(partition_of(VolumeId{2}, block_partition_key(key)))) file = key.file_id;
    }
    store("old");
    ASSERT_TRUE(disk.put_block(block(), share("bytes")));
    tick(60'000);  // what the node looked at when it started was another disk
  }
  bool owns(std::uint16_t partition) const {
    const auto owners = node->owners(partition);
    return std::find(owners.begin(), owners.end(), config.self) != owners.end();
  }
  RowKey row(const Bytes& sort_key) const { return {VolumeId{2}, partition_key, sort_key}; }
  BlockKey block() const { return {VolumeId{2}, file, 0, sha256("bytes")}; }
  /// As an earlier write of this node's left it here.
  void store(const Bytes& sort_key) {
    Batch batch;
    Row made;
    add_version(made, version("value"), {config.self, 7});
    batch.rows.emplace_back(row(sort_key), std::move(made));
    ASSERT_TRUE(disk.apply(batch));
  }
  bool is_here(const Bytes& sort_key) const { return !disk.MemStore::get(row(sort_key))->empty(); }
  bool block_is_here() const { return disk.get_block(block()).has_value(); }

  /// Through more than one pass of surrender.
  void play() {
    for (int turn = 0; turn < 1000; ++turn) {
      for (std::uint64_t n = 2; n <= 4; ++n) receive(NodeId{n}, 0, Pong{});
      tick(1000);
      for (auto out = std::exchange(sent, {}); !out.empty(); out.pop_front()) answer(out.front());
    }
  }
  void answer(const Message& m) {
    if (std::holds_alternative<SyncStore>(m.body)) {
      if (hangs) return;
      const auto asked = ++syncs_of[m.to];
      if (between_syncs && asked == 1) between_syncs();
      receive(m.to, m.id, SyncStoreReply{restarts ? "start " + std::to_string(asked) : "one start"});
    } else if (const auto* sums = std::get_if<ComparePartitions>(&m.body)) {
      ComparePartitionsReply reply;
      for (std::uint32_t i = 0; lacks && i < sums->sums.size(); ++i) reply.differing.push_back(i);
      receive(m.to, m.id, reply);
    } else if (const auto* items = std::get_if<CompareItems>(&m.body)) {
      CompareItemsReply reply;
      for (std::uint32_t i = 0; i < items->buckets.size(); ++i) reply.differing.push_back(i);
      receive(m.to, m.id, reply);
    } else if (const auto* write = std::get_if<WriteRows>(&m.body)) {
      for (const auto& [key, state] : write->rows) given.emplace(m.to, key);
      if (!refuses) return receive(m.to, m.id, WriteRowsReply{});
      receive(m.to, m.id, Refusal{Error{Errc::kNoSpace, "the disk is full"}});
    } else if (std::holds_alternative<HandOver>(m.body)) {
      receive(m.to, m.id, WriteRowsReply{});
    } else if (std::holds_alternative<WriteBlock>(m.body)) {
      receive(m.to, m.id, WriteBlockReply{});
    }
  }

  Bytes partition_key, file;
  bool lacks = false, refuses = false, restarts = false, hangs = false;
  std::function<void()> between_syncs;
  std::map<NodeId, int> syncs_of;
  std::set<std::pair<NodeId, Bytes>> given;
};

TEST_F(SurrenderTest, WhatAllOwnersHaveGoes) {
  play();
  EXPECT_FALSE(is_here("old"));
  EXPECT_FALSE(block_is_here());
  EXPECT_TRUE(given.empty());
  EXPECT_EQ(node->counters().rows_surrendered, 1u);
  EXPECT_EQ(node->counters().blocks_surrendered, 1u);
}

TEST_F(SurrenderTest, WhatAnOwnerLacksItIsGivenFirst) {
  lacks = true;
  play();
  EXPECT_EQ(given.size(), 2u);
  EXPECT_FALSE(is_here("old"));
  EXPECT_FALSE(block_is_here());
}

TEST_F(SurrenderTest, WhatAnOwnerRefusesStays) {
  lacks = refuses = true;
  play();
  EXPECT_EQ(given.size(), 2u);
  EXPECT_TRUE(is_here("old"));
}

// Of the rows alone: the block is another matter, whoever owns it.
TEST_F(SurrenderTest, WhatAnOwnerRefusesKeepsNothingElse) {
  lacks = refuses = true;
  play();
  EXPECT_TRUE(is_here("old"));
  EXPECT_FALSE(block_is_here());
}

TEST_F(SurrenderTest, ADiskThatHangsKeepsNoPassFromItsEnd) {
  hangs = true;
  play();
  EXPECT_TRUE(is_here("old"));
  hangs = false;
  play();
  EXPECT_FALSE(is_here("old"));
}

TEST_F(SurrenderTest, AnOwnerThatStartedAnewMayHaveLostIt) {
  restarts = true;
  play();
  EXPECT_TRUE(is_here("old"));
  EXPECT_TRUE(block_is_here());
}

TEST_F(SurrenderTest, WhatIsDamagedHereStays) {
  lacks = true;
  disk.corrupt = {"old"};
  store("whole");
  play();
  EXPECT_TRUE(is_here("old"));
  EXPECT_TRUE(is_here("whole"));  // of the same partition
  EXPECT_FALSE(block_is_here());
}

TEST_F(SurrenderTest, WhatCameMeanwhileStays) {
  between_syncs = [this] {
    Row made;
    add_version(made, version("value"), {NodeId{2}, 8});
    receive(NodeId{2}, 1000 + events, WriteRows{VolumeId{2}, partition_key, {{"new" + std::to_string(events), made}}});
    syncs_of.clear();
  };
  play();
  EXPECT_TRUE(is_here("old"));
}

TEST_F(SurrenderTest, WhatCouldNotBeErasedIsTriedAgain) {
  disk.full = true;
  play();
  EXPECT_TRUE(is_here("old"));
  disk.full = false;
  play();
  EXPECT_FALSE(is_here("old"));
}

// Its owners have the version that is gone here; a later one must not say that it has seen that.
TEST_F(SurrenderTest, ALaterDotDoesNotCoverWhatIsGone) {
  const auto write = [&](const Bytes& sort_key) {
    for (std::uint64_t n = 2; n <= 4; ++n) receive(NodeId{n}, 0, Pong{});
    PutRequest request{VolumeId{2}, partition_key, {RowPut{sort_key, {}, {version("v")}, {}}}, {}};
    receive(NodeId{2}, 1'000'000 + ++events, Forward{std::move(request)});
    return *disk.MemStore::get(row(sort_key));
  };
  const auto first = write("k");
  ASSERT_EQ(first.versions.size(), 1u);
  play();
  ASSERT_FALSE(is_here("k"));
  EXPECT_FALSE(write("k").context.covers(first.versions.front().dot));

  play();
  ASSERT_FALSE(is_here("k"));
  start();  // in which partitions it was, nobody knows any more
  const auto later = write("k");
  ASSERT_EQ(later.versions.size(), 1u);
  EXPECT_FALSE(later.context.covers(first.versions.front().dot));
}

}  // namespace
}  // namespace kinfs::cluster
