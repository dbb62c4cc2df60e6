// Encoded records: the bytes of version 1 for ever, and whatever else may come from a disk or a peer.
#include "storage/record_codec.h"

#include <gtest/gtest.h>

#include <chrono>
#include <random>

#include "samples.h"

namespace kinfs::test {
namespace {

Bytes bytes_of(ByteView hex) { return from_hex(hex).value(); }

constexpr ByteView kGoldenRow =
    "0a1801000000000000000200000000000000ffffffffffffffff120c00e707feffffffffffffff3f1a0c01e807ffffffffffff"
    "ffff3f221009000000000000001032547698badcfe2a020103320300ab023a0301ac02421a0901000000000000001001190900"
    "00000000000020012801480142880109020000000000000010e807191032547698badcfe200328ac0231efcdab896745230139fb"
    "ffffffffffffff42036800ff5238090100000000000000100218032104000000000000002a20eeeeeeeeeeeeeeeeeeeeeeeeeeee"
    "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee5216090500000000000000100618072108000000000000005a03760080";
constexpr ByteView kGoldenVersion =
    "09020000000000000010e807191032547698badcfe200328ac0231efcdab896745230139fbffffffffffffff42036800ff523809"
    "0100000000000000100218032104000000000000002a20eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"
    "eeeeee5216090500000000000000100618072108000000000000005a03760080";
constexpr ByteView kGoldenMeta =
    "09887766554433221112106363636363636363636363636363636318800821630000000000000028033080043a04626f6f74";
constexpr ByteView kGoldenLocation = "080210ac0218808010";

const NodeMeta kMeta{NodeId{0x1122334455667788}, Bytes(16, 'c'), 1024, {99}, 3, 512, "boot"};
const BlockLocation kLocation{2, 300, 262144};

TEST(RecordCodec, WhatIsGoneAndFloorsComeBack) {
  auto row = rich_row();
  row.gone = Hlc{row.latest().value + 1};
  EXPECT_EQ(decode_row(encode_row(row)), row);
  row.gone = rich_row().latest();  // which a version has
  EXPECT_EQ(decode_row(encode_row(row)).error().code, Errc::kCorrupt);
  auto meta = kMeta;
  meta.horizon = Hlc{7};
  meta.floors.assign(kPartitions, Hlc{});
  meta.floors[5] = Hlc{9};
  EXPECT_EQ(decode_meta(encode_meta(meta)), meta);
  meta.floors.resize(3);
  EXPECT_EQ(decode_meta(encode_meta(meta)).error().code, Errc::kCorrupt);
}

TEST(RecordCodec, GoldenBytesOfVersion1) {
  EXPECT_EQ(to_hex(encode_row(rich_row())), kGoldenRow);
  EXPECT_EQ(to_hex(encode_version(rich_row().versions[1])), kGoldenVersion);
  EXPECT_EQ(to_hex(encode_meta(kMeta)), kGoldenMeta);
  EXPECT_EQ(to_hex(encode_location(kLocation)), kGoldenLocation);
  EXPECT_EQ(decode_row(bytes_of(kGoldenRow)), rich_row());
  EXPECT_EQ(decode_version(bytes_of(kGoldenVersion)), rich_row().versions[1]);
  EXPECT_EQ(decode_meta(bytes_of(kGoldenMeta)), kMeta);
  EXPECT_EQ(decode_location(bytes_of(kGoldenLocation)), kLocation);
}

Layouts two_layouts() {
  Layouts out;
  out.base.roles[NodeId{1}] = {Role::Part::kMember, {{5}, NodeId{1}}, 2, "attic", {{6}, NodeId{1}}};
  out.base.id = layout_id_of(1, out.base);
  auto record = out.base;
  record.roles[NodeId{2}] = {Role::Part::kExcused, {{7}, NodeId{1}}, 1, "", {{7}, NodeId{1}}};
  record.parents = {out.base.id};
  record.id = layout_id_of(2, record);
  out.records = {record};
  out.trackers[NodeId{1}] = {3, record.id, record.id, out.base.id};
  return out;
}

TEST(RecordCodec, LayoutsKeepWhatTheySayAndNothingElseIsTakenForThem) {
  EXPECT_EQ(decode_layouts(encode_layouts(two_layouts())), two_layouts());
  auto meta = kMeta;
  meta.layouts = two_layouts();
  meta.counter_erased = 77;
  meta.erased_in = Bytes(128, '\5');
  EXPECT_EQ(decode_meta(encode_meta(meta)), meta);
  auto changed = two_layouts();
  changed.records[0].roles[NodeId{2}].part = Role::Part::kMember;
  EXPECT_EQ(decode_layouts(encode_layouts(changed)).error().code, Errc::kCorrupt);
  // Of which the hash is right, and which nobody could compute with.
  auto heavy = two_layouts().base;
  heavy.roles[NodeId{1}].weight = kMaxWeight + 1;
  heavy.id = layout_id_of(1, heavy);
  EXPECT_EQ(decode_layouts(encode_layouts({heavy, {}, {}})).error().code, Errc::kCorrupt);
  const auto whole = encode_layouts(two_layouts());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const auto got = decode_layouts(ByteView(whole).substr(0, size));
    EXPECT_TRUE(!got || *got != two_layouts()) << size;
  }
}

// What a host that others may join keeps beside it, since version 1 too.
TEST(RecordCodec, GoldenBytesOfMembers) {
  auto meta = kMeta;
  meta.layout_number = 2;
  meta.members = {{NodeId{1}, "host1", "tcp://192.0.2.1:7946", Bytes(32, 'k'), 1, "attic", 9}};
  constexpr ByteView kGolden =
      "09887766554433221112106363636363636363636363636363636318800821630000000000000028033080043a04626f6f744002"
      "4a530901000000000000001205686f7374311a147463703a2f2f3139322e302e322e313a3739343622206b6b6b6b6b6b6b6b6b6b"
      "6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b2801320561747469633809";
  EXPECT_EQ(to_hex(encode_meta(meta)), kGolden);
  EXPECT_EQ(decode_meta(bytes_of(kGolden)), meta);
  meta.members[0].client_key = Bytes(32, 'c');
  EXPECT_EQ(decode_meta(encode_meta(meta)), meta);
  meta.members[0].client_key.pop_back();
  EXPECT_EQ(decode_meta(encode_meta(meta)).error().code, Errc::kCorrupt);
  meta.members[0].client_key.clear();
  meta.members[0].public_key.pop_back();
  EXPECT_EQ(decode_meta(encode_meta(meta)).error().code, Errc::kCorrupt);
}

TEST(RecordCodec, EmptyThingsAndLargeOnes) {
  EXPECT_EQ(encode_row(Row{}), "");
  EXPECT_EQ(decode_row(""), Row{});
  EXPECT_EQ(decode_context(encode_context(rich_row().context)), rich_row().context);
  const Row large = sample_row(1, Bytes(kMaxValueBytes, '\xff'));
  EXPECT_EQ(decode_row(encode_row(large)), large);
  Version undotted;
  EXPECT_EQ(decode_version(encode_version(undotted)), undotted);
}

Errc refusal(const Row& row) {
  const auto decoded = decode_row(encode_row(row));
  EXPECT_FALSE(decoded.has_value());
  if (decoded) return Errc::kInternal;
  EXPECT_FALSE(decoded.error().text.empty());
  return decoded.error().code;
}

TEST(RecordCodec, RefusesRowsThatBreakTheInvariants) {
  Row row = rich_row();
  std::swap(row.versions[0], row.versions[1]);
  EXPECT_EQ(refusal(row), Errc::kCorrupt);
  row = rich_row();
  row.versions.push_back(row.versions.back());
  EXPECT_EQ(refusal(row), Errc::kCorrupt);
  row = rich_row();
  row.context = {};
  EXPECT_EQ(refusal(row), Errc::kCorrupt);
  row = rich_row();
  row.versions[0].event.sequence = 999;
  EXPECT_EQ(refusal(row), Errc::kCorrupt);
  row = rich_row();
  row.versions[0].dot = {};
  EXPECT_EQ(refusal(row), Errc::kCorrupt);
  row = sample_row(1, Bytes(kMaxValueBytes + 1, 'x'));
  EXPECT_EQ(refusal(row), Errc::kCorrupt);
  row = rich_row();
  row.versions[1].host = std::string(256, 'h');
  EXPECT_EQ(refusal(row), Errc::kCorrupt);
  row = rich_row();
  row.versions[1].lineage.resize(kMaxLineage + 1);
  EXPECT_EQ(refusal(row), Errc::kCorrupt);
  row = rich_row();
  row.versions[1].lineage[0].root = Bytes(65, 'r');
  EXPECT_EQ(refusal(row), Errc::kCorrupt);
}

TEST(RecordCodec, NumbersThatNobodyCanHaveComeToAreRefused) {
  Row row;
  row.context.add(Dot{NodeId{1}, kMaxSequenceNumber - 1});
  row.context.add(EventId{ClientId{1}, 1, kMaxSequenceNumber - 1});
  EXPECT_EQ(decode_row(encode_row(row)), row);
  for (const std::uint64_t number : {kMaxSequenceNumber, ~std::uint64_t{0}}) {
    Row of_node, of_client;
    of_node.context.add(Dot{NodeId{1}, number});
    of_client.context.add(EventId{ClientId{1}, 1, number});
    EXPECT_EQ(refusal(of_node), Errc::kCorrupt);
    EXPECT_EQ(refusal(of_client), Errc::kCorrupt);
    Batch batch;
    batch.rows.emplace_back(RowKey{kVolume, "p", "s"}, of_node);
    EXPECT_FALSE(check_batch(batch));
  }
}

// Every second number of one node, up to the limit: as many as a message can carry must not keep a node busy.
TEST(RecordCodec, ManyIntervalsTakeLinearTime) {
  CausalContext odd, even, all;
  for (std::uint64_t i = 0; i < kMaxIntervals; ++i) {
    odd.append(Interval<NodeId>{NodeId{1}, 4 * i, 4 * i + 1});
    even.append(Interval<NodeId>{NodeId{1}, 4 * i + 2, 4 * i + 3});
  }
  const auto began = std::chrono::steady_clock::now();
  const auto back = decode_context(encode_context(odd));
  ASSERT_TRUE(back.has_value()) << back.error().text;
  EXPECT_EQ(*back, odd);
  all.merge(odd);
  all.merge(even);
  EXPECT_EQ(all.nodes().size(), 2 * kMaxIntervals);
  for (std::uint64_t i = 0; i < 8 * kMaxIntervals; ++i) {
    ASSERT_EQ(all.covers(Dot{NodeId{1}, i}), i % 2 == 1 && i < 4 * kMaxIntervals);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(20));
  EXPECT_FALSE(decode_context(encode_context(all)).has_value());  // too many
}

TEST(RecordCodec, OneDotWithTwoContentsIsReadInDigestOrderOnly) {
  Row clash = merge(sample_row(1, "x"), sample_row(1, "y"));
  ASSERT_EQ(clash.versions.size(), 2u);
  EXPECT_EQ(decode_row(encode_row(clash)), clash);
  std::swap(clash.versions[0], clash.versions[1]);
  EXPECT_EQ(refusal(clash), Errc::kCorrupt);
}

TEST(RecordCodec, FieldsOfANewerVersionAreRefusedNotDropped) {
  const Bytes field_1000 = bytes_of("c03e01");
  for (const auto& code : {decode_row(encode_row(rich_row()) + field_1000).error().code,
                           decode_version(encode_version(rich_row().versions[0]) + field_1000).error().code,
                           decode_meta(encode_meta(kMeta) + field_1000).error().code,
                           decode_location(encode_location(kLocation) + field_1000).error().code}) {
    EXPECT_EQ(code, Errc::kFormat);
  }
}

TEST(RecordCodec, RowKeysKeepTheirOrder) {
  const std::vector<Bytes> ascending{"",
                                     Bytes(1, '\0'),
                                     Bytes(2, '\0'),
                                     Bytes("\0a", 2),
                                     Bytes("\0\xff", 2),
                                     "\1",
                                     "a",
                                     Bytes("a\0", 2),
                                     Bytes("a\0b", 3),
                                     "a\1",
                                     "ab",
                                     "b",
                                     "\xff",
                                     "\xff\xff"};
  const auto tail = [](const Bytes& key) { return row_key_prefix(kVolume, key).substr(6); };
  for (std::size_t i = 0; i < ascending.size(); ++i) {
    for (std::size_t j = 0; j < ascending.size(); ++j) {
      const RowKey key{kVolume, ascending[i], ascending[j]};
      EXPECT_EQ(parse_row_key(row_key_bytes(key)), key);
      EXPECT_EQ(tail(ascending[i]) < tail(ascending[j]), i < j);
      EXPECT_EQ(tail(ascending[j]).starts_with(tail(ascending[i])), i == j);
    }
    const BlockKey block = block_key("x", ascending[i]);
    EXPECT_EQ(parse_block_key(block_key_bytes(block)), block);
  }
}

TEST(RecordCodec, RefusesKeysThatAreCutOrMisplaced) {
  const Bytes row = row_key_bytes({kVolume, Bytes("k\0", 2), ""});
  for (std::size_t n = 0; n < row.size(); ++n) EXPECT_FALSE(parse_row_key(row.substr(0, n)).has_value()) << n;
  const Bytes block = block_key_bytes(block_key("x"));
  for (std::size_t n = 0; n < block.size(); ++n) EXPECT_FALSE(parse_block_key(block.substr(0, n)).has_value()) << n;
  Bytes moved = row;
  moved[0] = static_cast<char>(moved[0] ^ 1);
  EXPECT_EQ(parse_row_key(moved).error().code, Errc::kCorrupt);
  EXPECT_FALSE(parse_hint_order_key(HintKind::kRow, "r123").has_value());
  EXPECT_FALSE(parse_hint_order_key(HintKind::kBlock, hint_order_key(HintKind::kRow, NodeId{1}, 2)).has_value());
  EXPECT_FALSE(decode_stat("short").has_value());
}

/// Decodes damaged bytes with everything. What is accepted must be what its own encoding says: no bytes are read
/// that are not there, and nothing that breaks an invariant gets through.
void expect_sane(ByteView bytes) {
  if (const auto row = decode_row(bytes)) {
    const auto again = decode_row(encode_row(*row));
    ASSERT_TRUE(again.has_value()) << again.error().text;
    ASSERT_EQ(*again, *row);
    ASSERT_EQ(merge(*row, *row), *row);
  }
  if (const auto v = decode_version(bytes)) {
    ASSERT_EQ(decode_version(encode_version(*v)), *v);
  }
  if (const auto c = decode_context(bytes)) {
    ASSERT_EQ(decode_context(encode_context(*c)), *c);
  }
  if (const auto m = decode_meta(bytes)) {
    ASSERT_EQ(decode_meta(encode_meta(*m)), *m);
  }
  if (const auto l = decode_location(bytes)) {
    ASSERT_EQ(decode_location(encode_location(*l)), *l);
  }
  if (const auto k = parse_row_key(bytes)) {
    ASSERT_EQ(row_key_bytes(*k), bytes);
  }
  if (const auto k = parse_block_key(bytes)) {
    ASSERT_EQ(block_key_bytes(*k), bytes);
  }
}

TEST(RecordCodec, DamagedBytesNeverCrashAndNeverBreakAnInvariant) {
  std::mt19937_64 random(20260101);
  const std::vector<Bytes> good{encode_row(rich_row()),
                                encode_row(merge(sample_row(1, "x"), sample_row(1, "y"))),
                                encode_version(rich_row().versions[1]),
                                encode_meta(kMeta),
                                encode_location(kLocation),
                                row_key_bytes({kVolume, Bytes("k\0z", 3), "s"}),
                                block_key_bytes(block_key("x"))};
  for (const Bytes& bytes : good) {
    for (std::size_t n = 0; n < bytes.size(); ++n) expect_sane(ByteView(bytes).substr(0, n));
    for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
      Bytes flipped = bytes;
      flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
      expect_sane(flipped);
    }
    for (int i = 0; i < 3000; ++i) {
      Bytes changed = bytes;
      for (auto n = 1 + random() % 8; n > 0; --n) changed[random() % changed.size()] = static_cast<char>(random());
      if (random() % 4 == 0) changed.resize(random() % (changed.size() + 1));
      if (random() % 4 == 0) changed += good[random() % good.size()];
      expect_sane(changed);
    }
  }
  for (int i = 0; i < 5000; ++i) expect_sane(random_bytes(random, random() % 200));
}

}  // namespace
}  // namespace kinfs::test
