// The disk that MemStore pretends to be.
#include "storage/mem_store.h"

#include <gtest/gtest.h>

#include "samples.h"

namespace kinfs::test {
namespace {

/// Everything that a store shows, as one value.
std::string shown(const MemStore& store) {
  Bytes out;
  for (const Bytes p : {"p", "q"}) {
    const auto page = store.scan(kVolume, p, "", {});
    for (const auto& [name, row] : page->rows) out += p + "/" + name + "=" + row.versions[0].value + " ";
    out += std::to_string(store.stat(kVolume, p)->last_hlc.value) + " ";
  }
  const auto hints = store.hints(NodeId{2}, 0, 100);
  const auto block_hints = store.block_hints(NodeId{2}, 0, 100);
  for (const auto& h : *hints) out += h.key.sort_key + std::to_string(h.sequence) + " ";
  for (const auto& h : *block_hints) out += "b" + std::to_string(h.sequence) + " ";
  for (const Bytes block : {"x", "y"}) out += *store.has_block(block_key(block)) ? "1" : "0";
  const auto meta = *store.meta();
  return out + std::to_string(meta ? meta->boot : 0) + " " + std::to_string(store.usage().block_bytes);
}

Batch random_batch(std::mt19937_64& random, std::uint64_t i) {
  Batch batch;
  const RowKey key{kVolume, random() % 2 ? "p" : "q", std::to_string(random() % 4)};
  if (random() % 2) batch.rows.emplace_back(key, sample_row(i, std::to_string(i)));
  if (random() % 4 == 0) batch.erase_rows.push_back({kVolume, "p", std::to_string(random() % 4)});
  if (random() % 2) batch.add_hints.push_back({NodeId{2}, i, key});
  if (random() % 3 == 0) batch.add_block_hints.push_back({NodeId{2}, i + 100000, block_key(random() % 2 ? "x" : "y")});
  if (random() % 2) batch.drop_hints.push_back({NodeId{2}, i - random() % 4, key});
  if (random() % 8 == 0) batch.meta = NodeMeta{NodeId{1}, Bytes(16, 'c'), i, {i}, i};
  return batch;
}

TEST(MemStore, APowerCutTakesBackExactlyWhatWasNotSynced) {
  std::mt19937_64 random(4);
  for (int run = 0; run < 300; ++run) {
    MemStore store;
    std::vector<std::string> states{shown(store)};  // after each write since the last sync
    std::uint64_t i = 10;
    for (auto n = random() % 30; n > 0; --n) {
      if (random() % 8 == 0) {
        ASSERT_TRUE(store.sync().has_value());
        states = {shown(store)};
      } else if (random() % 4 == 0) {
        const Bytes bytes = random() % 2 ? "x" : "y";
        const bool fresh = !*store.has_block(block_key(bytes));
        ASSERT_TRUE(store.put_block(block_key(bytes), share(bytes)).has_value());
        if (fresh) states.push_back(shown(store));
      } else {
        ASSERT_TRUE(store.apply(random_batch(random, ++i)).has_value());
        states.push_back(shown(store));
      }
    }
    ASSERT_EQ(store.unsynced(), states.size() - 1);
    const std::size_t keep = random() % states.size();
    switch (random() % 3) {
      case 0:
        store.crash(false);
        ASSERT_EQ(shown(store), states.back());
        break;
      case 1:
        store.crash(true);
        ASSERT_EQ(shown(store), states.front());
        break;
      default:
        store.crash_keeping(keep);
        ASSERT_EQ(shown(store), states[keep]);
        ASSERT_EQ(store.unsynced(), 0u);
    }
  }
}

TEST(MemStore, AHintCountsAsSyncedOnceAPowerCutWouldLeaveIt) {
  MemStore store;
  const RowKey key{kVolume, "p", "a"}, other{kVolume, "p", "b"};
  const Hint hint{NodeId{7}, 1, key}, later{NodeId{7}, 2, key};
  EXPECT_FALSE(store.hinted(key, false));
  Batch add;
  add.add_hints.push_back(hint);
  ASSERT_TRUE(store.apply(add).has_value());
  EXPECT_TRUE(store.hinted(key, false));
  EXPECT_FALSE(store.hinted(key, true));
  EXPECT_FALSE(store.hinted(other, false));
  ASSERT_TRUE(store.sync().has_value());
  EXPECT_TRUE(store.hinted(key, true));

  Batch again;  // moves it to the end of the queue
  again.add_hints.push_back(later);
  ASSERT_TRUE(store.apply(again).has_value());
  EXPECT_TRUE(store.hinted(key, true));
  Batch drop;
  drop.drop_hints.push_back(later);
  ASSERT_TRUE(store.apply(drop).has_value());
  EXPECT_FALSE(store.hinted(key, false));
  EXPECT_FALSE(store.hinted(key, true));
}

TEST(MemStore, ADiskThatRefusesWritesChangesNothing) {
  MemStore store;
  std::mt19937_64 random(5);
  ASSERT_TRUE(store.apply(random_batch(random, 10)).has_value());
  const std::string before = shown(store);
  store.refuse_writes(Error{Errc::kNoSpace, "full"});
  Batch batch;
  batch.rows.emplace_back(RowKey{kVolume, "p", "new"}, sample_row(99, "n"));
  EXPECT_EQ(store.apply(batch).error().code, Errc::kNoSpace);
  EXPECT_EQ(store.put_block(block_key("x"), share("x")).error().code, Errc::kNoSpace);
  EXPECT_EQ(store.sync().error().code, Errc::kNoSpace);
  EXPECT_EQ(shown(store), before);
  store.refuse_writes(std::nullopt);
  EXPECT_TRUE(store.apply(batch).has_value());
}

}  // namespace
}  // namespace kinfs::test
