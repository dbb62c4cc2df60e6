// Rows and versions by example: what each rule of version.h means, and the cases that no sound history reaches.
#include "storage/version.h"

#include <gtest/gtest.h>

#include "storage/key.h"

namespace kinfs {
namespace {

const Dot kA1{NodeId{1}, 1}, kA2{NodeId{1}, 2}, kB1{NodeId{2}, 1};

EventId event(std::uint64_t client, std::uint64_t sequence) { return {ClientId{client}, 1, sequence}; }

Version version(EventId e, Bytes value) {
  Version v;
  v.event = e;
  v.value = std::move(value);
  return v;
}

Row row_of(EventId e, Bytes value, Dot dot) {
  Row row;
  add_version(row, version(e, std::move(value)), dot);
  return row;
}

TEST(Merge, ConcurrentWritesAreSiblings) {
  const Row both = merge(row_of(event(1, 1), "x", kA1), row_of(event(2, 1), "y", kB1));
  ASSERT_EQ(both.versions.size(), 2u);
  EXPECT_EQ(both.versions[0].value, "x");
  EXPECT_EQ(both.versions[1].value, "y");
}

TEST(Merge, DiscardingOneSiblingOfANodeKeepsTheOther) {
  // What a dotted version vector set cannot do: the two come from one node.
  Row both = row_of(event(1, 1), "x", kA1);
  add_version(both, version(event(2, 1), "y"), kA2);
  const Row sent = superseding(both, {kA2});
  const Row after = merge(both, sent);
  ASSERT_EQ(after.versions.size(), 1u);
  EXPECT_EQ(after.versions[0].value, "x");
  EXPECT_EQ(merge(after, both), after);  // and it does not come back
}

TEST(Merge, ARetryThatGotASecondDotGoesWithItsEvent) {
  const Row first = row_of(event(1, 1), "x", kA1);
  Row replaced = superseding(first, {kA1});
  add_version(replaced, version(event(2, 1), "y"), kA2);
  const Row retried = row_of(event(1, 1), "x", kB1);  // by a replica that had seen nothing of it
  const Row after = merge(replaced, retried);
  ASSERT_EQ(after.versions.size(), 1u);
  EXPECT_EQ(after.versions[0].value, "y");
  EXPECT_TRUE(after.context.covers(kB1));
}

TEST(Merge, ARetryStaysBesideItsTwinWhileTheEventIsLive) {
  const Row both = merge(row_of(event(1, 1), "x", kA1), row_of(event(1, 1), "x", kB1));
  ASSERT_EQ(both.versions.size(), 2u);
  EXPECT_EQ(both.versions[0].digest(), both.versions[1].digest());
  EXPECT_FALSE(has_dot_clash(both));
}

TEST(Merge, OneDotWithTwoContentsKeepsBothAndIsReported) {
  const Row x = row_of(event(1, 1), "x", kA1);
  const Row y = row_of(event(2, 1), "y", kA1);
  const Row both = merge(x, y);
  EXPECT_EQ(both, merge(y, x));
  ASSERT_EQ(both.versions.size(), 2u);
  EXPECT_LT(both.versions[0].digest(), both.versions[1].digest());
  EXPECT_TRUE(has_dot_clash(both));
  EXPECT_FALSE(has_dot_clash(x));
  EXPECT_EQ(merge(both, x), both);
  EXPECT_EQ(merge(both, both), both);
}

TEST(Merge, ABlindPutOfTheSameClientHidesNothing) {
  // A later event of a client that was shown nothing: its context must not claim the earlier one.
  const Row earlier = row_of(event(1, 1), "x", kA1);
  const Row blind = row_of(event(1, 2), "y", kB1);
  EXPECT_EQ(merge(earlier, blind).versions.size(), 2u);
}

TEST(Merge, ANodeThatLostItsDiskHidesNothing) {
  const Row lost = row_of(event(1, 1), "x", kA1);  // lives on at a peer
  const Row since = row_of(event(2, 1), "y", {NodeId{1}, 100});
  EXPECT_EQ(merge(lost, since).versions.size(), 2u);
}

TEST(Merge, WhatIsBelowTheOtherSidesFloorAndNotThereIsDead) {
  auto v = version(event(1, 1), "x");
  v.hlc = Hlc{5};
  Row old;
  add_version(old, v, kA1);
  const Row none;
  EXPECT_EQ(merge({old, {}}, {none, Hlc{4}}), old);
  const Row dead = merge({old, {}}, {none, Hlc{5}});
  EXPECT_TRUE(dead.versions.empty());
  EXPECT_TRUE(dead.context.covers(kA1));
  EXPECT_EQ(dead.latest(), Hlc{5});
  EXPECT_TRUE(dead.is_grave());
  EXPECT_EQ(merge({old, Hlc{9}}, {old, Hlc{9}}), old);  // both have it: it lives
  EXPECT_EQ(merge(dead, old), dead);
}

TEST(Row, KnowsTheLatestClockOfWhatIsGone) {
  auto early = version(event(1, 1), "x"), late = version(event(2, 1), "y");
  early.hlc = Hlc{5};
  late.hlc = Hlc{7};
  Row row;
  add_version(row, late, kB1);
  EXPECT_EQ(row.gone, Hlc{});
  add_version(row, early, kA1);
  EXPECT_EQ(row.latest(), Hlc{7});
  const Row left = superseding(row, {kB1});
  EXPECT_EQ(left.gone, Hlc{7});
  EXPECT_NE(left.fingerprint(), [&] {
    auto other = left;
    other.gone = {};
    return other.fingerprint();
  }());
  EXPECT_EQ(merge(row, left), left);
  Row over = left;
  auto last = version(event(3, 1), "z");
  last.hlc = Hlc{9};
  add_version(over, last, kA2);
  EXPECT_EQ(over.gone, Hlc{});  // a version tells it
}

TEST(Row, IsAGraveWithNothingButPlainTombstones) {
  auto tombstone = version(event(1, 1), {});
  tombstone.tombstone = true;
  Row row;
  EXPECT_FALSE(row.is_grave());
  add_version(row, tombstone, kA1);
  EXPECT_TRUE(row.is_grave());
  auto telling = version(event(2, 1), "moved");
  telling.tombstone = true;
  add_version(row, telling, kB1);
  EXPECT_FALSE(row.is_grave());
  EXPECT_TRUE(superseding(row, {kB1}).is_grave());
  EXPECT_FALSE(row_of(event(1, 1), {}, kA1).is_grave());  // an empty value is a value
}

TEST(Context, CoversWhatWasSeenAndWhatWasVouchedFor) {
  const NodeId node{5};
  CausalContext c;
  EXPECT_TRUE(c.empty());
  c.add(Dot{node, 7});
  EXPECT_FALSE(c.covers(Dot{node, 6}));
  EXPECT_TRUE(c.covers(Dot{node, 7}));
  EXPECT_FALSE(c.covers(Dot{node, 8}));
  c.add(Dot{node, 5}, 2);
  EXPECT_FALSE(c.covers(Dot{node, 2}));
  EXPECT_TRUE(c.covers(Dot{node, 3}));
  EXPECT_FALSE(c.covers(Dot{node, 6}));
  EXPECT_EQ(c.nodes().size(), 2u);
  c.add(Dot{node, 6});
  EXPECT_EQ(c.nodes(), (std::vector<Interval<NodeId>>{{node, 2, 7}}));
  EXPECT_EQ(c.counter_of(node), 7u);
  EXPECT_EQ(c.counter_of(NodeId{6}), 0u);
  c.add(EventId{ClientId{1}, 2, 3}, 0);
  EXPECT_TRUE(c.covers(EventId{ClientId{1}, 2, 1}));
  EXPECT_FALSE(c.covers(EventId{ClientId{1}, 1, 1}));  // each start of a client counts for itself
  EXPECT_FALSE(c.covers(EventId{ClientId{1}, 2, 4}));
  EXPECT_FALSE(c.covers(EventId{ClientId{2}, 2, 1}));
}

TEST(Context, EventsDoNotCountInComparisons) {
  CausalContext a, b;
  a.add(Dot{NodeId{1}, 1});
  b.add(Dot{NodeId{1}, 1});
  b.add(event(1, 1));
  EXPECT_EQ(a.compare(b), std::partial_ordering::equivalent);
  b.add(Dot{NodeId{2}, 1});
  EXPECT_EQ(a.compare(b), std::partial_ordering::less);
  a.add(Dot{NodeId{3}, 1});
  EXPECT_EQ(a.compare(b), std::partial_ordering::unordered);
}

TEST(Lineage, IsTheBaseThenItsAncestorsCut) {
  Version base = version(event(1, 99), "x");
  base.hlc = {77};
  for (std::uint64_t i = 0; i < kMaxLineage; ++i) base.lineage.push_back({event(1, 98 - i), {76 - i}, "r"});
  const auto lineage = extend_lineage(base, "root");
  ASSERT_EQ(lineage.size(), kMaxLineage);
  EXPECT_EQ(lineage[0], (Ancestor{event(1, 99), {77}, "root"}));
  EXPECT_EQ(lineage[1], base.lineage[0]);
  EXPECT_EQ(lineage.back(), base.lineage[kMaxLineage - 2]);
}

TEST(Digest, LeavesOutTheDotAndNothingElse) {
  Version v = version(event(1, 1), "x");
  v.lineage.push_back({event(3, 4), {5}, "r"});
  const Digest256 d = v.digest();
  Version w = v;
  w.dot = kB1;
  EXPECT_EQ(w.digest(), d);
  const auto differs = [&](auto change) {
    Version changed = v;
    change(changed);
    return changed.digest() != d;
  };
  EXPECT_TRUE(differs([](Version& c) { c.event.client = ClientId{2}; }));
  EXPECT_TRUE(differs([](Version& c) { c.event.boot = 2; }));
  EXPECT_TRUE(differs([](Version& c) { c.event.sequence = 2; }));
  EXPECT_TRUE(differs([](Version& c) { c.hlc.value = 1; }));
  EXPECT_TRUE(differs([](Version& c) { c.time_ns = -1; }));
  EXPECT_TRUE(differs([](Version& c) { c.host = "h"; }));
  EXPECT_TRUE(differs([](Version& c) { c.tombstone = true; }));
  EXPECT_TRUE(differs([](Version& c) { c.value = "y"; }));
  EXPECT_TRUE(differs([](Version& c) { c.lineage.clear(); }));
  EXPECT_TRUE(differs([](Version& c) { c.lineage[0].root = "s"; }));
  EXPECT_TRUE(differs([](Version& c) { c.lineage[0].hlc.value = 6; }));
  EXPECT_TRUE(differs([](Version& c) { std::swap(c.host, c.value); }));
}

TEST(Digest, IsFixedForEver) {
  Version v = version(event(1, 2), Bytes("a\0b", 3));
  v.hlc = {3};
  v.time_ns = 4;
  v.host = "h";
  EXPECT_EQ(to_hex(view_of(v.digest())), "b8a41fa5d5dc92e323b1ccfddd310295abfc6ed4adf42020fcca4d50e51e64e8");
}

TEST(Bytes, HashesAreTheStandardOnes) {
  EXPECT_EQ(to_hex(view_of(md5("abc"))), "900150983cd24fb0d6963f7d28e17f72");
  EXPECT_EQ(to_hex(view_of(sha256("abc"))), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(to_hex(view_of(sha256(""))), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(Bytes, BigEndianAndBack) {
  Bytes out;
  append_be16(out, 0x0102);
  append_be32(out, 0x03040506);
  append_be64(out, 0xf708090a0b0c0d0e);
  EXPECT_EQ(to_hex(out), "010203040506f708090a0b0c0d0e");
  EXPECT_EQ(read_be64(out, 6), 0xf708090a0b0c0d0eu);
}

TEST(Placement, IsFixedForEver) {
  // MD5 over be64 volume, be64 length and the key; its top 10 bits.
  EXPECT_EQ(partition_of(VolumeId{1}, "a"), 192);
  EXPECT_EQ(partition_of(VolumeId{2}, "a"), 929);
  EXPECT_EQ(partition_of(VolumeId{1}, ""), 161);
  BlockKey key{VolumeId{1}, "id", 5, {}};
  EXPECT_EQ(block_partition_key(key), Bytes("id\0\0\0\0\0\0\0\5", 10));
}

TEST(Placement, SpreadsEvenly) {
  std::vector<int> hits(kPartitions);
  for (int i = 0; i < 102400; ++i) ++hits.at(partition_of(VolumeId{1}, std::to_string(i)));
  for (const int n : hits) {
    EXPECT_GT(n, 50);
    EXPECT_LT(n, 160);
  }
}

}  // namespace
}  // namespace kinfs
