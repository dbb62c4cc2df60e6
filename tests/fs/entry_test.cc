// Golden bytes, strict decoding, digests and keys: what may never change.
#include "fs/entry.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "fs/keys.h"
#include "storage/key.h"

namespace kinfs::fs::test {
namespace {

Digest128 id_from(std::uint8_t first) {
  Digest128 d;
  for (std::size_t i = 0; i < d.size(); ++i) d[i] = static_cast<std::uint8_t>(first + i);
  return d;
}

EventId event(std::uint64_t client, std::uint64_t sequence) { return {ClientId{client}, 3, sequence}; }

Entry small_file() {
  Entry e;
  e.mode = 0644;
  e.uid = 1000;
  e.gid = 100;
  e.mtime_ns = -5;
  e.atime_ns = 1'700'000'000'123'456'789;
  e.size = 5;
  e.file_id = id_from(1);
  e.content = Bytes("a\0b\xff\n", 5);
  e.generation = 2;
  e.branch = Branch{event(7, 9), Hlc{77}, "host1", event(8, 4)};
  return e;
}

Entry large_file() {
  Entry e;
  e.size = 70'000'000;
  e.file_id = id_from(2);
  e.root = TreeRoot{2, sha256("root")};
  return e;
}

Entry directory() {
  Entry e;
  e.type = FileType::kDirectory;
  e.directory_id = id_from(9);
  e.generation = 4;
  return e;
}

TEST(Entry, GoldenBytes) {
  EXPECT_EQ(to_hex(encode(small_file())),
            "080110a40318e807206429fbffffffffffffff3115cd853dfe9c9717380542100102030405060708090a0b0c0d0e0f104a05"
            "610062ff0a60026a2e0a0d09070000000000000010031809114d000000000000001a05686f737431220d0908000000000000"
            "0010031804");
  EXPECT_EQ(to_hex(encode(large_file())),
            "08013880bbb021421002030405060708090a0b0c0d0e0f10115224080212204813494d137e1631bba301d5acab6e7bb7aa74"
            "ce1185d456565ef51d737677b2");
  EXPECT_EQ(to_hex(encode(directory())), "08025a10090a0b0c0d0e0f1011121314151617186004");
  EXPECT_EQ(to_hex(encode(DirectoryAttributes{0750, 1, 2, 3, Hlc{4}, Hlc{5}, Hlc{6}})),
            "08e80310011802210300000000000000290400000000000000310500000000000000390600000000000000");
  EXPECT_EQ(to_hex(encode(Marker{"new", {event(1, 2)}, {{NodeId{5}, 6}}, 7})),
            "0a036e6577120d090100000000000000100318021a0b09050000000000000010062007");
}

TEST(Entry, RoundTrips) {
  Entry link;
  link.type = FileType::kSymlink;
  link.content = "../target";
  link.size = link.content.size();
  Entry fifo;
  fifo.type = FileType::kFifo;
  Entry hole;
  hole.size = 1ull << 40;
  hole.root = TreeRoot{3, {}};
  for (const auto& e : {small_file(), large_file(), directory(), link, fifo, hole, Entry{}}) {
    const auto back = decode_entry(encode(e));
    ASSERT_TRUE(back) << back.error().text;
    EXPECT_EQ(*back, e);
  }
  const Marker elsewhere{"", {}, {}, 0}, removed{};
  EXPECT_EQ(*decode_marker(encode(elsewhere)), elsewhere);
  EXPECT_EQ(*decode_marker(encode(removed)), removed);
  const DirectoryAttributes zero{0, 0, 0, 0, {}, {}, {}};
  EXPECT_EQ(*decode_attributes(encode(zero)), zero);
}

TEST(Entry, RefusesWhatIsNeverWritten) {
  const auto refused = [](auto change) {
    Entry e = small_file();
    change(e);
    const auto r = decode_entry(encode(e));
    return !r && r.error().code == Errc::kCorrupt && !r.error().text.empty();
  };
  EXPECT_TRUE(refused([](Entry& e) { e.type = static_cast<FileType>(0); }));
  EXPECT_TRUE(refused([](Entry& e) { e.type = static_cast<FileType>(6); }));
  EXPECT_TRUE(refused([](Entry& e) { e.mode = 010000; }));
  EXPECT_TRUE(refused([](Entry& e) { e.size = 4; }));
  EXPECT_TRUE(refused([](Entry& e) { e.root = TreeRoot{}; }));
  EXPECT_TRUE(refused([](Entry& e) { e.directory_id = id_from(1); }));
  EXPECT_TRUE(refused([](Entry& e) { e.branch->host = Bytes(256, 'x'); }));
  EXPECT_TRUE(refused([](Entry& e) {
    e.content = Bytes(kInlineBytes + 1, 'x');
    e.size = e.content.size();
  }));
  EXPECT_TRUE(refused([](Entry& e) { (e = large_file()).root->level = 1; }));
  EXPECT_TRUE(refused([](Entry& e) { (e = large_file()).size = kMaxFileBytes + 1; }));
  EXPECT_TRUE(refused([](Entry& e) { (e = directory()).directory_id = {}; }));
  EXPECT_TRUE(refused([](Entry& e) { (e = directory()).size = 1; }));
  EXPECT_TRUE(refused([](Entry& e) { e.type = FileType::kSocket; }));
  EXPECT_TRUE(refused([](Entry& e) { e.type = FileType::kSymlink; }));  // a zero byte in its target
  EXPECT_EQ(decode_entry("").error().code, Errc::kCorrupt);
  // Field 500, which nobody knows yet.
  EXPECT_EQ(decode_entry(encode(small_file()) + "\xa0\x1f\x01").error().code, Errc::kFormat);
  EXPECT_EQ(decode_marker(encode(Marker{}) + "\xa0\x1f\x01").error().code, Errc::kFormat);
  EXPECT_EQ(decode_attributes("\xa0\x1f\x01").error().code, Errc::kFormat);
  EXPECT_EQ(decode_attributes("\xff").error().code, Errc::kCorrupt);
}

TEST(Entry, AnyBytesAreRefusedOrReadAgain) {
  std::mt19937_64 random(1);
  std::size_t read = 0;
  for (int i = 0; i < 200'000; ++i) {
    Bytes bytes = i % 2 == 0 ? encode(small_file()) : encode(large_file());
    for (auto n = 1 + random() % 3; n > 0; --n) bytes[random() % bytes.size()] = static_cast<char>(random());
    if (random() % 4 == 0) bytes.resize(random() % bytes.size());
    const auto e = decode_entry(bytes);
    (void)decode_marker(bytes);
    (void)decode_attributes(bytes);
    if (!e) continue;
    ++read;
    ASSERT_EQ(*decode_entry(encode(*e)), *e);
  }
  EXPECT_GT(read, 1000u);
}

TEST(Entry, TreeLevels) {
  constexpr std::uint64_t kSpan = kBlockBytes * kFanOut;
  EXPECT_EQ(kSpan, kSpanBytes);
  EXPECT_EQ(tree_level(0), 0);
  EXPECT_EQ(tree_level(kBlockBytes), 0);
  EXPECT_EQ(tree_level(kBlockBytes + 1), 1);
  EXPECT_EQ(tree_level(kSpan), 1);
  EXPECT_EQ(tree_level(kSpan + 1), 2);
  EXPECT_EQ(tree_level(kMaxFileBytes), 4);
}

TEST(Entry, DigestLeavesAttributesOut) {
  Entry a = small_file(), b = a;
  b.mode = 0600;
  b.uid = 5;
  b.mtime_ns = 9;
  b.file_id = id_from(77);
  b.branch.reset();
  EXPECT_EQ(content_digest(a), content_digest(b));
  b.content[0] = 'x';
  EXPECT_NE(content_digest(a), content_digest(b));
  Entry link = a;
  link.type = FileType::kSymlink;
  EXPECT_NE(content_digest(a), content_digest(link));
  Entry d = directory(), same = d;
  same.generation = 9;
  EXPECT_EQ(content_digest(d), content_digest(same));
  same.directory_id = id_from(10);
  EXPECT_NE(content_digest(d), content_digest(same));
}

TEST(Entry, AttributesMergeFieldByField) {
  const auto version = [](std::uint64_t n, const DirectoryAttributes& a) {
    Version v;
    v.dot = {NodeId{n}, 1};
    v.event = event(n, 1);
    v.hlc = Hlc{n};
    v.value = encode(a);
    return v;
  };
  Row row;
  EXPECT_EQ(merge_attributes(row), DirectoryAttributes{});
  row.versions = {version(1, {0700, 1, 1, 10, Hlc{1}, Hlc{9}, Hlc{1}}),
                  version(2, {0755, 2, 3, 20, Hlc{8}, Hlc{2}, Hlc{2}})};
  Version broken = version(3, {});
  broken.value = "\xff";
  row.versions.push_back(broken);
  const DirectoryAttributes expected{0700, 2, 3, 20, Hlc{8}, Hlc{9}, Hlc{2}};
  EXPECT_EQ(merge_attributes(row), expected);
  std::swap(row.versions[0], row.versions[1]);
  EXPECT_EQ(merge_attributes(row), expected);
}

TEST(Keys, AreFixed) {
  EXPECT_EQ(to_hex(kinfs::view_of(root_directory())), "14ac577cdb2ef6d986078b4054cc9893");
  EXPECT_EQ(to_hex(kinfs::view_of(directory_id(root_directory(), "etc", 1))), "d3d62541803a8679717373dbbf2fc215");
  EXPECT_EQ(to_hex(kinfs::view_of(file_id(event(1, 2)))), "232a9743fdeae49494c036486fdaf488");
  EXPECT_EQ(to_hex(sort_key("report.txt")), "23e1be3e4d0507007265706f72742e747874");
  EXPECT_EQ(to_hex(partition_key(id_from(0))), "64000102030405060708090a0b0c0d0e0f");
}

TEST(Keys, NamesComeBack) {
  EXPECT_EQ(name_of(sort_key("report.txt")), "report.txt");
  EXPECT_EQ(sort_key(""), "");
  EXPECT_EQ(name_of(""), "");
  EXPECT_EQ(name_of("short"), "");
  for (int i = 0; i < 1000; ++i) {
    const auto hash = name_hash("name" + std::to_string(i));
    EXPECT_EQ(hash >> 63, 0u);
    EXPECT_EQ(hash & ((1u << kCookieBits) - 1), 0u);
    EXPECT_GE(hash, 1u << kCookieBits);
  }
}

TEST(Keys, NodeIdsDiffer) {
  EXPECT_EQ(node_id(root_directory()), kRootNode);
  const auto file = file_id(event(1, 2));
  const auto a = event(1, 3), b = event(1, 4);
  std::vector<std::uint64_t> all{node_id(file, nullptr), node_id(file, &a),   node_id(file, &b),
                                 node_id(file),          node_id(id_from(1)), kRootNode};
  std::sort(all.begin(), all.end());
  EXPECT_EQ(std::unique(all.begin(), all.end()), all.end());
  for (const auto id : all) EXPECT_TRUE(id >= 1 && id >> 63 == 0);
  EXPECT_NE(directory_id(root_directory(), "a", 1), directory_id(root_directory(), "a", 2));
}

}  // namespace
}  // namespace kinfs::fs::test
