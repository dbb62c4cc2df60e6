// FileContent against a plain byte vector, and its bounds on memory, blocks under way, and trouble.
#include "fs/file_content.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "fake_client.h"
#include "fs/keys.h"

namespace kinfs::fs::test {
namespace {

constexpr std::size_t kCacheBytes = 8 << 20;
constexpr VolumeId kVolume = kVolumeHome;

struct FileContentTest : ::testing::Test {
  FakeCluster cluster{1};
  FakeClient client{cluster, 0, "host1", ClientId{1}};
  BlockCache cache{kCacheBytes};

  Entry fresh() {
    Entry e;
    e.file_id = file_id(client.next_event());
    return e;
  }
  FileContent open(const Entry& e) { return FileContent(client, cache, kVolume, e); }
  Bytes read_all(const Entry& e) {
    BlockCache empty(kCacheBytes);
    FileContent f(client, empty, kVolume, e);
    auto r = cluster.wait(f.read(0, e.size + 1));
    EXPECT_TRUE(r) << r.error().text;
    cluster.run();
    return r ? *r : Bytes("unreadable");
  }
  void write(FileContent& f, std::uint64_t at, Bytes data) {
    auto r = cluster.wait(f.write(at, std::move(data)));
    ASSERT_TRUE(r) << r.error().text;
  }
  void seal(FileContent& f, Entry& e, bool sync = false) {
    auto r = cluster.wait(f.seal(e, sync));
    ASSERT_TRUE(r) << r.error().text;
    ASSERT_TRUE(decode_entry(encode(e))) << decode_entry(encode(e)).error().text;
    EXPECT_EQ(f.dirty(), false);
  }
};

Bytes noise(std::mt19937_64& random, std::size_t length) {
  Bytes out(length, '\0');
  for (auto& c : out) c = static_cast<char>(random());
  return out;
}

TEST_F(FileContentTest, SmallStaysInTheRow) {
  Entry e = fresh();
  auto f = open(e);
  write(f, 0, "hello");
  EXPECT_TRUE(f.dirty());
  seal(f, e);
  EXPECT_EQ(e.content, "hello");
  EXPECT_FALSE(e.root);
  EXPECT_EQ(cluster.calls.blocks_put, 0u);
  write(f, kInlineBytes - 1, "x");
  seal(f, e);
  EXPECT_EQ(e.content.size(), kInlineBytes);
  write(f, kInlineBytes, "y");
  seal(f, e);
  EXPECT_TRUE(e.content.empty());
  ASSERT_TRUE(e.root);
  EXPECT_EQ(e.root->level, 0);
  EXPECT_EQ(cluster.calls.blocks_put, 1u);
  auto again = open(e);
  ASSERT_TRUE(cluster.wait(again.truncate(3)));
  seal(again, e);
  EXPECT_EQ(e.content, "hel");
  EXPECT_FALSE(e.root);
}

TEST_F(FileContentTest, EqualBytesHaveOneRootHoweverMade) {
  std::mt19937_64 random(1);
  const Bytes data = noise(random, 700'000);
  Entry a = fresh(), b = a;
  auto fa = open(a);
  write(fa, 0, data);
  seal(fa, a);
  auto fb = open(b);
  write(fb, 2'000'000, "x");
  for (std::size_t at = data.size(); at > 0;) {
    const std::size_t take = std::min<std::size_t>(at, 70'001);
    at -= take;
    write(fb, at, data.substr(at, take));
  }
  seal(fb, b);
  EXPECT_NE(content_digest(a), content_digest(b));
  ASSERT_TRUE(cluster.wait(fb.truncate(data.size())));
  seal(fb, b);
  EXPECT_EQ(content_digest(a), content_digest(b));
}

/// Random writes, truncates, reads, seals and reopenings, beside a vector.
void compare_with_twin(std::uint64_t seed, std::uint64_t limit, int steps) {
  FakeCluster cluster{1};
  cluster.answer_at_once(seed % 2 == 0);
  FakeClient client(cluster, 0, "host1", ClientId{1});
  BlockCache cache(1 << 20);
  std::mt19937_64 random(seed);
  const auto below = [&](std::uint64_t n) { return random() % n; };
  Entry e;
  e.file_id = file_id(client.next_event());
  auto f = std::make_unique<FileContent>(client, cache, kVolume, e);
  Bytes twin;
  for (int i = 0; i < steps; ++i) {
    const auto what = below(10);
    if (what < 5) {
      const auto at = below(3) == 0 ? twin.size() : below(limit);
      const auto length = below(4) == 0 ? below(3 * kBlockBytes) : below(5000);
      const Bytes data = below(5) == 0 ? Bytes(length, '\0') : noise(random, length);
      ASSERT_TRUE(cluster.wait(f->write(at, data)));
      if (!data.empty() && twin.size() < at + length) twin.resize(at + length);
      twin.replace(at, length, data);
    } else if (what < 6) {
      const auto to = below(4) == 0 ? below(kInlineBytes + 2) : below(2) == 0 ? below(limit) : below(twin.size() + 1);
      ASSERT_TRUE(cluster.wait(f->truncate(to)));
      twin.resize(to);
    } else if (what < 8) {
      const auto at = below(twin.size() + 10), length = below(2 * kBlockBytes);
      auto got = cluster.wait(f->read(at, length));
      ASSERT_TRUE(got);
      ASSERT_TRUE(*got == (at < twin.size() ? twin.substr(at, length) : Bytes{})) << seed << " step " << i;
    } else {
      auto sealed = cluster.wait(f->seal(e, below(4) == 0));
      ASSERT_TRUE(sealed) << sealed.error().text;
      ASSERT_EQ(e.size, twin.size());
      const auto decoded = decode_entry(encode(e));
      ASSERT_TRUE(decoded) << decoded.error().text;
      if (below(2) == 0) {
        if (below(2) == 0) cache = BlockCache(1 << 20);
        f = std::make_unique<FileContent>(client, cache, kVolume, *decoded);
      }
    }
    ASSERT_EQ(f->size(), twin.size());
  }
  ASSERT_TRUE(cluster.wait(f->seal(e, false)));
  BlockCache empty(1 << 20);
  FileContent last(client, empty, kVolume, e);
  auto got = cluster.wait(last.read(0, twin.size()));
  ASSERT_TRUE(got);
  EXPECT_TRUE(*got == twin) << seed;
  cluster.run();
}

TEST(FileContentTwin, SmallFiles) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) compare_with_twin(seed, 3 * kInlineBytes, 80);
}
TEST(FileContentTwin, SomeBlocks) {
  for (std::uint64_t seed = 100; seed < 120; ++seed) compare_with_twin(seed, 6 * kBlockBytes, 60);
}
TEST(FileContentTwin, AcrossSpans) {
  for (std::uint64_t seed = 200; seed < 204; ++seed) compare_with_twin(seed, 80ull << 20, 50);
}

TEST_F(FileContentTest, SparseTerabyte) {
  constexpr std::uint64_t kTebi = 1ull << 40;
  Entry e = fresh();
  auto f = open(e);
  write(f, 5, "a");
  write(f, kTebi - 1, "b");
  EXPECT_LT(f.held_bytes(), 1u << 20);
  seal(f, e);
  EXPECT_EQ(e.size, kTebi);
  EXPECT_EQ(e.root->level, 3);
  EXPECT_LE(cluster.blocks.size(), 7u);  // two data blocks, two nodes on levels 1 and 2, one on top
  BlockCache empty(kCacheBytes);
  FileContent again(client, empty, kVolume, e);
  EXPECT_EQ(*cluster.wait(again.read(0, 10)), Bytes("\0\0\0\0\0a\0\0\0\0", 10));
  EXPECT_EQ(*cluster.wait(again.read(kTebi / 2, 4)), Bytes(4, '\0'));
  EXPECT_EQ(*cluster.wait(again.read(kTebi - 2, 10)), Bytes("\0b", 2));
  ASSERT_TRUE(cluster.wait(again.truncate(kTebi - 1)));
  ASSERT_TRUE(cluster.wait(again.truncate(kMaxFileBytes)));
  seal(again, e);
  EXPECT_EQ(e.root->level, 4);
  BlockCache other(kCacheBytes);
  FileContent third(client, other, kVolume, e);
  EXPECT_EQ(*cluster.wait(third.read(kTebi - 2, 4)), Bytes(4, '\0'));
  EXPECT_EQ(*cluster.wait(third.read(5, 1)), "a");
  auto too_far = cluster.wait(third.write(kMaxFileBytes, "x"));
  ASSERT_FALSE(too_far);
  EXPECT_EQ(too_far.error().code, Errc::kTooLarge);
  EXPECT_EQ(cluster.wait(third.truncate(kMaxFileBytes + 1)).error().code, Errc::kTooLarge);
}

TEST_F(FileContentTest, StreamIsBoundedAndSentOnce) {
  Entry e = fresh();
  auto f = open(e);
  std::mt19937_64 random(7);
  const Bytes chunk = noise(random, 128 << 10);
  constexpr std::uint64_t kTotal = 256ull << 20;
  std::size_t most = 0;
  for (std::uint64_t at = 0; at < kTotal; at += chunk.size()) {
    Bytes data = chunk;
    data[0] = static_cast<char>(at >> 17);
    data[1] = static_cast<char>(at >> 25);
    write(f, at, data);
    most = std::max(most, f.held_bytes());
  }
  EXPECT_LE(most, (kBlocksInFlight + 2) * kBlockBytes + (1 << 20));
  EXPECT_GE(most, kBlocksInFlight * kBlockBytes);
  seal(f, e);
  EXPECT_EQ(cluster.max_blocks_under_way, kBlocksInFlight);
  EXPECT_EQ(cluster.calls.blocks_put, kTotal / kBlockBytes + kTotal / kSpanBytes + 1);
  EXPECT_EQ(cluster.calls.blocks_got, 0u);
  for (const auto& [key, bytes] : cluster.blocks) EXPECT_LE(key.span, kTotal / kSpanBytes);
  BlockCache empty(kCacheBytes);
  FileContent again(client, empty, kVolume, e);
  for (std::uint64_t at = 0; at < kTotal; at += 10 * chunk.size()) {
    auto got = cluster.wait(again.read(at, 3));
    ASSERT_TRUE(got);
    EXPECT_EQ(got->at(0), static_cast<char>(at >> 17));
    EXPECT_EQ(got->at(2), chunk[2]);
  }
}

TEST_F(FileContentTest, RandomWriterHoldsLittle) {
  Entry e = fresh();
  auto f = open(e);
  std::mt19937_64 random(3);
  std::map<std::uint64_t, char> twin;
  std::size_t most = 0;
  for (int i = 0; i < 3000; ++i) {
    const std::uint64_t at = random() % (64ull << 30);
    const char c = static_cast<char>(1 + random() % 200);
    write(f, at, Bytes(1, c));
    twin[at] = c;
    most = std::max(most, f.held_bytes());
  }
  EXPECT_LE(most, (64 + 1 + kBlocksInFlight + 5) * kBlockBytes);
  seal(f, e);
  BlockCache empty(kCacheBytes);
  FileContent again(client, empty, kVolume, e);
  for (const auto& [at, c] : twin) {
    auto got = cluster.wait(again.read(at, 1));
    ASSERT_TRUE(got);
    ASSERT_EQ(got->at(0), c);
  }
  EXPECT_LE(again.held_bytes(), 128u * 8192u);
}

TEST_F(FileContentTest, FailedBlocksAreKeptAndSealedAgain) {
  std::mt19937_64 random(5);
  const Bytes data = noise(random, 3 * kBlockBytes + 100);
  Entry e = fresh();
  auto f = open(e);
  cluster.fail_block_puts(Errc::kUnavailable, 6);
  write(f, 0, data);
  const Entry before = e;
  auto failed = cluster.wait(f.seal(e, false));
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Errc::kUnavailable);
  EXPECT_EQ(e, before);
  EXPECT_TRUE(f.dirty());
  EXPECT_EQ(*cluster.wait(f.read(0, data.size())), data);
  for (int tries = 0; tries < 3 && f.dirty(); ++tries) (void)cluster.wait(f.seal(e, false));
  EXPECT_FALSE(f.dirty());
  EXPECT_EQ(read_all(e), data);
}

TEST_F(FileContentTest, WriterStopsWhenNothingGetsThrough) {
  Entry e = fresh();
  auto f = open(e);
  cluster.fail_block_puts(Errc::kNoSpace, 1'000'000);
  std::mt19937_64 random(9);
  const Bytes chunk = noise(random, kBlockBytes);
  std::size_t written = 0;
  Result<Unit> last = Unit{};
  for (; written < 200 && last; ++written) {
    Bytes data = chunk;
    data[0] = static_cast<char>(written);
    last = cluster.wait(f.write(written * kBlockBytes, data));
    cluster.run();
  }
  ASSERT_FALSE(last);
  EXPECT_EQ(last.error().code, Errc::kNoSpace);
  EXPECT_LE(written, 2 * kBlocksInFlight);
  EXPECT_LE(f.held_bytes(), 3 * kBlocksInFlight * kBlockBytes);
  EXPECT_EQ(cluster.wait(f.read(5 * kBlockBytes, 1))->at(0), 5);
  cluster.fail_block_puts(Errc::kNoSpace, 0);
  seal(f, e);
  EXPECT_EQ(e.size, (written - 1) * kBlockBytes);
  EXPECT_EQ(read_all(e).substr(1, kBlockBytes - 1), chunk.substr(1));
}

TEST_F(FileContentTest, UnreadableBlockIsAnErrorNotZeros) {
  std::mt19937_64 random(11);
  const Bytes data = noise(random, 2 * kBlockBytes);
  Entry e = fresh();
  auto f = open(e);
  write(f, 0, data);
  seal(f, e);
  BlockCache empty(kCacheBytes);
  FileContent again(client, empty, kVolume, e);
  cluster.fail_block_gets(Errc::kUnavailable, 3);
  EXPECT_EQ(cluster.wait(again.read(0, 10)).error().code, Errc::kUnavailable);
  EXPECT_EQ(cluster.wait(again.write(10, "x")).error().code, Errc::kUnavailable);
  EXPECT_EQ(cluster.wait(again.truncate(100'000)).error().code, Errc::kUnavailable);
  EXPECT_FALSE(again.dirty());
  EXPECT_EQ(*cluster.wait(again.read(0, data.size())), data);
}

TEST_F(FileContentTest, SealWithSyncSyncsEveryBlock) {
  std::mt19937_64 random(13);
  Entry e = fresh();
  auto f = open(e);
  write(f, 0, noise(random, 5 * kBlockBytes));
  seal(f, e);
  EXPECT_EQ(cluster.calls.blocks_synced, 0u);
  seal(f, e, true);
  EXPECT_EQ(cluster.calls.blocks_synced, 6u);  // five and the node
  seal(f, e, true);
  EXPECT_EQ(cluster.calls.blocks_synced, 6u);
  const auto put = cluster.calls.blocks_put;
  write(f, 5 * kBlockBytes, noise(random, kBlockBytes));
  seal(f, e, true);
  EXPECT_EQ(cluster.calls.blocks_synced, 8u);
  EXPECT_EQ(cluster.calls.blocks_put - put, 2u);  // none sent twice
}

TEST_F(FileContentTest, WhatWasStreamedIsSyncedWithoutTravellingAgain) {
  std::mt19937_64 random(14);
  Entry e = fresh();
  auto f = open(e);
  const Bytes data = noise(random, 2 * kSpanBytes + 5);
  write(f, 0, data);
  const auto put = cluster.calls.blocks_put;
  seal(f, e, true);
  EXPECT_TRUE(e.blocks_synced);
  EXPECT_EQ(cluster.calls.blocks_put - put, 5u);  // the last block, and the nodes
  EXPECT_EQ(cluster.calls.sets_synced, 2u);       // one for each span that was streamed
  EXPECT_EQ(cluster.calls.blocks_synced, 2 * kFanOut + 5);
}

TEST_F(FileContentTest, WhatIsStreamedTakesLittleMemoryAndWhatIsChangedInPlacesIsNotFetchedAgain) {
  std::mt19937_64 random(16);
  Entry e = fresh();
  auto f = open(e);
  const Bytes data = noise(random, 64 * kBlockBytes);
  write(f, 0, data);
  seal(f, e);
  EXPECT_LE(cache.bytes(), kCacheBytes / 4 + 16384);  // and the tree's node
  for (std::size_t at = 0; at < data.size(); at += 100'000) {
    auto r = cluster.wait(f.read(at, std::min<std::size_t>(100'000, data.size() - at)));
    ASSERT_TRUE(r) << r.error().text;
    ASSERT_EQ(*r, data.substr(at, 100'000));
  }
  EXPECT_LE(cache.bytes(), kCacheBytes / 2);

  write(f, 7 * kBlockBytes + 1, "first");
  seal(f, e);
  const auto got = cluster.calls.blocks_got;
  write(f, 7 * kBlockBytes + 3, "again");
  seal(f, e);
  EXPECT_EQ(cluster.calls.blocks_got, got);
}

TEST_F(FileContentTest, WhatIsNotKnownToBeOnDiskTravelsAgain) {
  std::mt19937_64 random(15);
  Entry e = fresh();
  auto f = open(e);
  write(f, 0, noise(random, 4 * kBlockBytes));
  cluster.run();
  cluster.blocks.clear();
  seal(f, e, true);
  EXPECT_TRUE(e.blocks_synced);
  EXPECT_EQ(cluster.blocks.size(), 5u);
  EXPECT_EQ(cluster.calls.blocks_synced, 5u);
}

TEST_F(FileContentTest, MoreThanIsRememberedIsSyncedByWalkingTheTree) {
  Entry e = fresh();
  auto f = open(e);
  constexpr std::uint64_t kBlocks = 5000;
  for (std::uint64_t i = 0; i < kBlocks; ++i) write(f, i * kBlockBytes, "block " + std::to_string(i));
  seal(f, e);
  EXPECT_EQ(cluster.calls.blocks_synced, 0u);
  const auto put = cluster.calls.blocks_put;
  seal(f, e, true);
  EXPECT_TRUE(e.blocks_synced);
  EXPECT_GE(cluster.calls.blocks_synced, kBlocks);
  EXPECT_EQ(cluster.calls.blocks_put, put);
}

TEST_F(FileContentTest, ReadsOfOneReaderThatComeInAnyOrderAreAheadToo) {
  std::mt19937_64 random(18);
  const Bytes data = noise(random, 32 * kBlockBytes);
  Entry e = fresh();
  auto f = open(e);
  write(f, 0, data);
  seal(f, e);
  BlockCache empty(4 * kCacheBytes);
  FileContent again(client, empty, kVolume, e);
  const auto before = cluster.calls.blocks_got;
  for (const std::uint64_t block : {0, 1, 4, 2, 3, 6, 5, 9, 8, 7, 10}) {
    auto r = cluster.wait(again.read(block * kBlockBytes, kBlockBytes));
    ASSERT_TRUE(r) << r.error().text;
    ASSERT_EQ(*r, data.substr(block * kBlockBytes, kBlockBytes));
    cluster.run();
    if (block > 0) EXPECT_GE(cluster.calls.blocks_got - before, block + 5) << "read ahead at " << block;
  }
  EXPECT_LE(cluster.calls.blocks_got - before, 20u);  // with the tree's node

  BlockCache other(kCacheBytes);
  FileContent here_and_there(client, other, kVolume, e);
  const auto start = cluster.calls.blocks_got;
  for (const std::uint64_t block : {3, 20, 9, 30}) {
    auto r = cluster.wait(here_and_there.read(block * kBlockBytes + 100, 4096));
    ASSERT_TRUE(r) << r.error().text;
    cluster.run();
  }
  EXPECT_EQ(cluster.calls.blocks_got - start, 5u);
}

TEST_F(FileContentTest, SequentialReaderIsAheadAndWaitsForNothingTwice) {
  std::mt19937_64 random(17);
  const Bytes data = noise(random, 20 * kBlockBytes);
  Entry e = fresh();
  auto f = open(e);
  write(f, 0, data);
  seal(f, e);
  BlockCache empty(kCacheBytes);
  FileContent again(client, empty, kVolume, e);
  Bytes got = *cluster.wait(again.read(0, kBlockBytes));
  std::optional<Result<Bytes>> second;
  spawn(again.read(kBlockBytes, kBlockBytes), [&](Result<Bytes>&& r) { second.emplace(std::move(r)); });
  EXPECT_EQ(cluster.under_way(), 9u);  // its own and eight ahead
  cluster.run();
  ASSERT_TRUE(second && *second);
  got += **second;
  while (got.size() < data.size()) got += *cluster.wait(again.read(got.size(), 100'000));
  cluster.run();
  EXPECT_EQ(got, data);
  EXPECT_EQ(cluster.calls.blocks_got, 21u);
}

TEST_F(FileContentTest, ClosedHandleMayHaveBlocksUnderWay) {
  std::mt19937_64 random(19);
  {
    auto f = open(fresh());
    spawn(f.write(0, noise(random, 4 * kBlockBytes)));
    EXPECT_EQ(cluster.under_way(), 4u);
  }
  cluster.run();
  EXPECT_EQ(cluster.blocks.size(), 4u);
}

}  // namespace
}  // namespace kinfs::fs::test
