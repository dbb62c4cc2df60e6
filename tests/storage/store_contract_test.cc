// The contract of store.h, over both stores.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <thread>

#include "samples.h"
#include "storage/record_codec.h"
#include "store_fixture.h"

namespace kinfs::test {
namespace {

class StoreContract : public ::testing::TestWithParam<HarnessMaker> {
 protected:
  void SetUp() override { harness_ = GetParam()(); }
  Store& store() { return harness_->store(); }
  void reopen() { harness_->reopen(); }

  void apply(const Batch& batch) {
    const auto done = store().apply(batch);
    ASSERT_TRUE(done.has_value()) << done.error().text;
  }
  void put(const Bytes& partition_key, const Bytes& sort_key, const Row& row) {
    Batch batch;
    batch.rows.emplace_back(RowKey{kVolume, partition_key, sort_key}, row);
    apply(batch);
  }
  Row get(const Bytes& partition_key, const Bytes& sort_key) {
    auto row = store().get({kVolume, partition_key, sort_key});
    EXPECT_TRUE(row.has_value()) << row.error().text;
    return row.value_or(Row{});
  }
  RowPage scan(const Bytes& partition_key, const Bytes& from = "", ScanLimit limit = {}) {
    auto page = store().scan(kVolume, partition_key, from, limit);
    EXPECT_TRUE(page.has_value()) << page.error().text;
    return page.value_or(RowPage{});
  }
  std::vector<Bytes> names(const RowPage& page) {
    std::vector<Bytes> out;
    for (const auto& [name, row] : page.rows) out.push_back(name);
    return out;
  }
  std::vector<std::uint64_t> pending(std::uint64_t target, std::uint64_t after = 0, std::size_t limit = 100) {
    std::vector<std::uint64_t> out;
    const auto hints = store().hints(NodeId{target}, after, limit);
    EXPECT_TRUE(hints.has_value());
    for (const Hint& h : *hints) out.push_back(h.sequence);
    return out;
  }

  std::unique_ptr<Harness> harness_;
};

using Sequences = std::vector<std::uint64_t>;

Hint hint(std::uint64_t target, std::uint64_t sequence, const Bytes& key) {
  return {NodeId{target}, sequence, {kVolume, key, "s"}};
}

TEST_P(StoreContract, AbsentIsEmpty) {
  EXPECT_TRUE(get("p", "s").empty());
  EXPECT_TRUE(scan("p").rows.empty());
  EXPECT_TRUE(scan("p").complete);
  EXPECT_EQ(store().stat(kVolume, "p"), PartitionStat{});
  EXPECT_EQ(store().meta().value(), std::nullopt);
  EXPECT_EQ(store().last_hint_sequence(), 0u);
  EXPECT_EQ(store().get_block(block_key("x")).error().code, Errc::kNotFound);
  EXPECT_EQ(store().has_block(block_key("x")), false);
  EXPECT_TRUE(store().apply({}).has_value());
}

TEST_P(StoreContract, HintsAreCounted) {
  Batch batch;
  batch.add_hints = {hint(2, 1, "a"), hint(2, 2, "b"), hint(2, 3, "a"), hint(3, 4, "a")};
  batch.add_block_hints = {{NodeId{2}, 5, block_key("x")}};
  apply(batch);
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(store().hint_count(NodeId{2}), 3u);
    EXPECT_EQ(store().hint_count(NodeId{3}), 1u);
    EXPECT_EQ(store().hint_count(NodeId{4}), 0u);
    EXPECT_EQ(store().hint_targets(), (std::vector<NodeId>{NodeId{2}, NodeId{3}}));
    reopen();
  }
  Batch drop;
  drop.drop_hints = {hint(2, 1, "a"), hint(2, 2, "b"), hint(2, 2, "b")};  // the first was replaced
  drop.drop_block_hints = {{NodeId{2}, 5, block_key("x")}};
  apply(drop);
  EXPECT_EQ(store().hint_count(NodeId{2}), 1u);
  reopen();
  EXPECT_EQ(store().hint_count(NodeId{2}), 1u);
}

TEST_P(StoreContract, RowsOfAnyBytesAndSizesComeBack) {
  std::mt19937_64 random(1);
  Bytes every(256, '\0');
  for (int i = 0; i < 256; ++i) every[static_cast<std::size_t>(i)] = static_cast<char>(i);
  const std::vector<std::pair<Bytes, Bytes>> keys{
      {"", ""},
      {every, every},
      {Bytes(kMaxKeyBytes, '\0'), Bytes(kMaxKeyBytes, '\xff')},
      {random_bytes(random, kMaxKeyBytes), random_bytes(random, kMaxKeyBytes)}};
  const std::vector<Row> rows{rich_row(), sample_row(1, ""), sample_row(2, Bytes(kMaxValueBytes, 'v')),
                              sample_row(3, random_bytes(random, 1000))};
  for (std::size_t i = 0; i < keys.size(); ++i) put(keys[i].first, keys[i].second, rows[i]);
  for (int round = 0; round < 2; ++round) {
    for (std::size_t i = 0; i < keys.size(); ++i) EXPECT_EQ(get(keys[i].first, keys[i].second), rows[i]);
    reopen();
  }
}

TEST_P(StoreContract, RowsAreReplacedAndErased) {
  put("p", "s", sample_row(1, "old"));
  put("p", "s", sample_row(2, "new"));
  EXPECT_EQ(get("p", "s"), sample_row(2, "new"));
  Batch batch;
  batch.erase_rows.push_back({kVolume, "p", "s"});
  batch.erase_rows.push_back({kVolume, "p", "never there"});
  apply(batch);
  EXPECT_TRUE(get("p", "s").empty());
  reopen();
  EXPECT_TRUE(get("p", "s").empty());
}

TEST_P(StoreContract, VolumesAreApart) {
  put("p", "s", sample_row(1, "one"));
  EXPECT_TRUE(store().get({VolumeId{2}, "p", "s"})->empty());
  EXPECT_TRUE(store().scan(VolumeId{2}, "p", "", {})->rows.empty());
}

TEST_P(StoreContract, ScanKeepsToItsPartitionKeyInOrder) {
  const std::vector<Bytes> neighbours{"", Bytes(1, '\0'), "p", Bytes("p\0", 2), Bytes("p\0q", 3), "p\1", "pq", "\xff"};
  const std::vector<Bytes> sorted{"", Bytes(1, '\0'), Bytes("\0\1", 2), "\1", "a", "a\xff", "b", "\xff\xff"};
  for (const Bytes& p : neighbours) {
    for (auto s = sorted.rbegin(); s != sorted.rend(); ++s) put(p, *s, sample_row(1, p + "/" + *s));
  }
  for (const Bytes& p : neighbours) {
    EXPECT_EQ(names(scan(p)), sorted);
    EXPECT_EQ(names(scan(p, "a")), (std::vector<Bytes>{"a", "a\xff", "b", "\xff\xff"}));
    EXPECT_EQ(names(scan(p, Bytes("a\0", 2))), (std::vector<Bytes>{"a\xff", "b", "\xff\xff"}));
    EXPECT_TRUE(scan(p, "\xff\xff\xff").rows.empty());
    for (const auto& [name, row] : scan(p).rows) EXPECT_EQ(row.versions[0].value, p + "/" + name);
  }
}

TEST_P(StoreContract, ScanPagesByRowsAndBytes) {
  for (char c = 'a'; c <= 'j'; ++c) put("p", Bytes(1, c), sample_row(1, Bytes(1000, c)));
  const auto three = scan("p", "", {1 << 20, 3});
  EXPECT_EQ(names(three), (std::vector<Bytes>{"a", "b", "c"}));
  EXPECT_FALSE(three.complete);
  const auto rest = scan("p", "h", {1 << 20, 3});
  EXPECT_EQ(names(rest), (std::vector<Bytes>{"h", "i", "j"}));
  EXPECT_TRUE(rest.complete);
  // It stops after the row that reaches the limit, and one row comes whatever the limit.
  EXPECT_EQ(scan("p", "", {2000, 100}).rows.size(), 2u);
  EXPECT_EQ(scan("p", "", {0, 0}).rows.size(), 1u);
  EXPECT_FALSE(scan("p", "", {0, 0}).complete);
  EXPECT_TRUE(scan("p", "j", {0, 0}).complete);
  // From page to page: everything once, in order.
  std::vector<Bytes> seen;
  for (Bytes from;;) {
    const auto page = scan("p", from, {2500, 100});
    for (const auto& name : names(page)) seen.push_back(name);
    if (page.complete) break;
    from = seen.back() + '\0';
  }
  EXPECT_EQ(seen, names(scan("p")));
  EXPECT_EQ(seen.size(), 10u);
}

TEST_P(StoreContract, StatIsTheLatestChangeOfTheEntries) {
  put("p", "", sample_row(900, "the directory itself does not count"));
  EXPECT_EQ(store().stat(kVolume, "p"), PartitionStat{});
  put("p", "a", sample_row(5, "x"));
  put("p", "b", merge(sample_row(7, "x"), sample_row(9, "y")));
  put("p", "c", sample_row(8, "x"));
  const PartitionStat expected{{9}, 9};
  EXPECT_EQ(store().stat(kVolume, "p"), expected);
  Batch batch;
  batch.erase_rows.push_back({kVolume, "p", "b"});
  apply(batch);
  EXPECT_EQ(store().stat(kVolume, "p"), expected);  // removed for good is a change that stays the latest
  EXPECT_EQ(store().stat(kVolume, "q"), PartitionStat{});
  Row before_1970 = sample_row(9, "z");
  before_1970.versions[0].time_ns = -1;
  put("q", "a", before_1970);
  EXPECT_EQ(store().stat(kVolume, "q"), (PartitionStat{{9}, -1}));
  for (std::uint64_t i = 1; i <= 300; ++i) put("many", std::to_string(i), sample_row(1 + i * 7 % 300, ""));
  reopen();
  EXPECT_EQ(store().stat(kVolume, "p"), expected);
  EXPECT_EQ(store().stat(kVolume, "many"), (PartitionStat{{300}, 300}));
}

TEST_P(StoreContract, ItemsAreAllThatAPartitionHoldsInOrderOfTheirKeys) {
  std::map<std::uint16_t, std::map<Bytes, Digest128>> expected;
  for (int p = 0; p < 300; ++p) {
    const Bytes name = "p" + std::to_string(p);
    for (const Bytes s : {"", "a", "b"}) {
      const Row row = sample_row(static_cast<std::uint64_t>(p) + 1, s);
      put(name, s, row);
      const Bytes key = row_key_bytes({kVolume, name, s});
      expected[partition_of(kVolume, name)][key] = item_digest(key, row);
    }
  }
  const auto of = [&](std::uint16_t partition, std::size_t limit) {
    std::map<Bytes, Digest128> found;
    for (Bytes after;;) {
      const auto page = store().items(ItemKind::kRow, partition, after, limit);
      EXPECT_TRUE(page.has_value());
      for (const auto& item : page->items) {
        EXPECT_GT(item.key, after);
        found[item.key] = item.digest;
        after = item.key;
      }
      if (page->complete) return found;
      EXPECT_EQ(page->items.size(), limit);
    }
  };
  for (std::uint16_t p = 0; p < kPartitions; ++p) {
    EXPECT_EQ(of(p, 1000), expected[p]) << p;
    EXPECT_EQ(of(p, 2), expected[p]) << p;
  }
  // Another state, another digest; a row that is gone is no item.
  const auto partition = partition_of(kVolume, "p7");
  put("p7", "a", sample_row(1000, "changed"));
  EXPECT_NE(of(partition, 100), expected[partition]);
  Batch batch;
  batch.erase_rows.push_back({kVolume, "p7", "a"});
  apply(batch);
  expected[partition].erase(row_key_bytes({kVolume, "p7", "a"}));
  EXPECT_EQ(of(partition, 100), expected[partition]);
}

TEST_P(StoreContract, BlocksAreItemsOfTheirOwnKind) {
  const auto bytes = share("some bytes");
  const auto key = block_key(*bytes);
  ASSERT_TRUE(store().put_block(key, bytes).has_value());
  const auto partition = partition_of(key.volume, block_partition_key(key));
  const auto page = store().items(ItemKind::kBlock, partition, "", 10);
  ASSERT_TRUE(page.has_value());
  const Bytes name = block_key_bytes(key);
  EXPECT_EQ(page->items, (std::vector<Item>{{name, item_digest(name)}}));
  EXPECT_TRUE(page->complete);
  EXPECT_TRUE(store().items(ItemKind::kRow, partition, "", 10)->items.empty());
  EXPECT_TRUE(store().items(ItemKind::kBlock, partition, name, 10)->items.empty());
}

TEST_P(StoreContract, ABatchIsAppliedWholeOrNotAtAll) {
  Batch batch;
  batch.rows.emplace_back(RowKey{kVolume, "p", "good"}, sample_row(1, "x"));
  batch.add_hints.push_back(hint(2, 1, "p"));
  const auto refused = [&](Errc code, const std::function<void(Batch&)>& spoil) {
    Batch bad = batch;
    spoil(bad);
    const auto done = store().apply(bad);
    ASSERT_FALSE(done.has_value());
    EXPECT_EQ(done.error().code, code) << done.error().text;
    EXPECT_TRUE(get("p", "good").empty());
    EXPECT_TRUE(pending(2).empty());
  };
  refused(Errc::kNameTooLong, [](Batch& b) {
    b.rows.emplace_back(RowKey{kVolume, "p", Bytes(kMaxKeyBytes + 1, 'k')}, sample_row(1, "x"));
  });
  refused(Errc::kTooLarge, [](Batch& b) {
    b.rows.emplace_back(RowKey{kVolume, "p", "bad"}, sample_row(1, Bytes(kMaxValueBytes + 1, 'v')));
  });
  refused(Errc::kInvalid, [](Batch& b) {
    b.rows.emplace_back(RowKey{kVolume, "p", "bad"}, rich_row());
    std::swap(b.rows.back().second.versions[0], b.rows.back().second.versions[1]);
  });
  refused(Errc::kInvalid, [](Batch& b) { b.add_hints.push_back(hint(2, 0, "q")); });
  refused(Errc::kInvalid, [](Batch& b) { b.meta = NodeMeta{}; });
  apply(batch);
  EXPECT_FALSE(get("p", "good").empty());
}

TEST_P(StoreContract, OneHintForEachTargetAndKey) {
  Batch batch;
  batch.add_hints = {hint(2, 1, "a"), hint(2, 2, "b"), hint(3, 3, "a"), hint(2, 4, "c")};
  apply(batch);
  EXPECT_EQ(pending(2), (Sequences{1, 2, 4}));
  EXPECT_EQ(pending(3), (Sequences{3}));
  EXPECT_EQ(store().hints(NodeId{2}, 0, 100)->front(), hint(2, 1, "a"));
  batch = {};
  batch.add_hints = {hint(2, 5, "a"), hint(2, 6, "a")};  // written twice more
  apply(batch);
  EXPECT_EQ(pending(2), (Sequences{2, 4, 6}));
  EXPECT_EQ(pending(2, 2), (Sequences{4, 6}));
  EXPECT_EQ(pending(2, 2, 1), (Sequences{4}));
  EXPECT_EQ(pending(2, 6), Sequences{});
  EXPECT_EQ(pending(2, 0, 0), Sequences{});
  EXPECT_EQ(pending(2, UINT64_MAX), Sequences{});
  EXPECT_EQ(store().last_hint_sequence(), 6u);
  batch = {};
  batch.drop_hints = {hint(2, 1, "a"), hint(2, 2, "b"), hint(2, 9, "c"), hint(4, 4, "c")};  // only b's is still so
  apply(batch);
  EXPECT_EQ(pending(2), (Sequences{4, 6}));
  reopen();
  EXPECT_EQ(pending(2), (Sequences{4, 6}));
  EXPECT_EQ(pending(3), (Sequences{3}));
  EXPECT_EQ(store().last_hint_sequence(), 6u);
}

TEST_P(StoreContract, AHintAddedAndDroppedInOneBatchIsGone) {
  Batch batch;
  batch.add_hints = {hint(2, 1, "a")};
  batch.drop_hints = {hint(2, 1, "a")};
  apply(batch);
  EXPECT_EQ(pending(2), Sequences{});
  batch = {};
  batch.add_hints = {hint(2, 2, "a")};
  apply(batch);
  EXPECT_EQ(pending(2), (Sequences{2}));
}

TEST_P(StoreContract, HintsDrainAndComeAgain) {
  for (int round = 0; round < 3; ++round) {
    const auto base = static_cast<std::uint64_t>(round) * 1000;
    Batch add;
    for (std::uint64_t i = 1; i <= 300; ++i) add.add_hints.push_back(hint(2, base + i, std::to_string(i)));
    apply(add);
    std::uint64_t sent = 0;
    for (;;) {
      const auto next = store().hints(NodeId{2}, 0, 64);
      ASSERT_TRUE(next.has_value());
      if (next->empty()) break;
      EXPECT_EQ(next->front().sequence, base + sent + 1);
      Batch drop;
      drop.drop_hints = *next;
      apply(drop);
      sent += next->size();
    }
    EXPECT_EQ(sent, 300u);
  }
}

TEST_P(StoreContract, BlockHintsAreKeptAlike) {
  const auto block_hint = [](std::uint64_t sequence, const Bytes& bytes) {
    return BlockHint{NodeId{2}, sequence, block_key(bytes)};
  };
  Batch batch;
  batch.add_hints = {hint(2, 1, "a")};
  batch.add_block_hints = {block_hint(2, "x"), block_hint(3, "y"), block_hint(4, "x")};
  apply(batch);
  reopen();
  EXPECT_EQ(*store().block_hints(NodeId{2}, 0, 9), (std::vector<BlockHint>{block_hint(3, "y"), block_hint(4, "x")}));
  EXPECT_EQ(*store().block_hints(NodeId{2}, 3, 9), (std::vector<BlockHint>{block_hint(4, "x")}));
  EXPECT_EQ(pending(2), (Sequences{1}));
  EXPECT_EQ(store().last_hint_sequence(), 4u);
  batch = {};
  batch.drop_block_hints = {block_hint(2, "x"), block_hint(3, "y")};
  apply(batch);
  EXPECT_EQ(*store().block_hints(NodeId{2}, 0, 9), (std::vector<BlockHint>{block_hint(4, "x")}));
}

TEST_P(StoreContract, MetaIsKept) {
  const NodeMeta meta{NodeId{5}, Bytes(16, '\xc1'), 4096, {77}, 2};
  Batch batch;
  batch.meta = meta;
  apply(batch);
  EXPECT_EQ(store().meta().value(), meta);
  reopen();
  EXPECT_EQ(store().meta().value(), meta);
}

TEST_P(StoreContract, BlocksComeBackByTheirHash) {
  std::mt19937_64 random(2);
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{4097}, kMaxBlockBytes}) {
    const auto bytes = share(random_bytes(random, size));
    const BlockKey key = block_key(*bytes, random_bytes(random, 16));
    ASSERT_TRUE(store().put_block(key, bytes).has_value());
    ASSERT_TRUE(store().put_block(key, bytes).has_value());  // once more does nothing
    BlockKey other = key;
    other.span += 1;
    for (int round = 0; round < 2; ++round) {
      EXPECT_EQ(store().has_block(key), true);
      EXPECT_EQ(store().has_block(other), false);
      const auto read = store().get_block(key);
      ASSERT_TRUE(read.has_value()) << read.error().text;
      EXPECT_EQ(**read, *bytes);
      reopen();
    }
  }
}

TEST_P(StoreContract, BlocksAreTakenOnceAndChecked) {
  const auto bytes = share(Bytes(100000, 'b'));
  const std::uint64_t before = store().usage().block_bytes;
  ASSERT_TRUE(store().put_block(block_key(*bytes), bytes).has_value());
  ASSERT_TRUE(store().put_block(block_key(*bytes), bytes).has_value());
  EXPECT_GE(store().usage().block_bytes - before, 100000u);
  EXPECT_LT(store().usage().block_bytes - before, 101000u);
  EXPECT_EQ(store().put_block(block_key("other"), bytes).error().code, Errc::kInvalid);
  EXPECT_EQ(store().has_block(block_key("other")), false);
  const auto large = share(Bytes(kMaxBlockBytes + 1, 'l'));
  EXPECT_EQ(store().put_block(block_key(*large), large).error().code, Errc::kTooLarge);
  EXPECT_EQ(store().put_block(block_key("x", Bytes(300, 'i')), share("x")).error().code, Errc::kNameTooLong);
}

TEST_P(StoreContract, BlocksAreErased) {
  std::vector<SharedBytes> blocks;
  std::mt19937_64 random(3);
  for (std::size_t size = 1; size < 200'000; size = size * 3 + 1) blocks.push_back(share(random_bytes(random, size)));
  for (const auto& b : blocks) ASSERT_TRUE(store().put_block(block_key(*b), b).has_value());
  const auto full = store().usage().block_bytes;
  Batch batch;
  batch.erase_blocks.push_back(block_key("never there"));
  for (std::size_t i = 1; i < blocks.size(); ++i) batch.erase_blocks.push_back(block_key(*blocks[i]));
  apply(batch);
  for (int round = 0; round < 2; ++round) {
    for (std::size_t i = 1; i < blocks.size(); ++i) {
      EXPECT_EQ(store().get_block(block_key(*blocks[i])).error().code, Errc::kNotFound);
      EXPECT_FALSE(store().has_block(block_key(*blocks[i])).value());
    }
    EXPECT_EQ(*store().get_block(block_key(*blocks[0])).value(), *blocks[0]);
    ASSERT_TRUE(store().sync().has_value());
    EXPECT_LT(store().usage().block_bytes, full / 4);
    reopen();
  }
  ASSERT_TRUE(store().put_block(block_key(*blocks.back()), blocks.back()).has_value());
  EXPECT_EQ(*store().get_block(block_key(*blocks.back())).value(), *blocks.back());
}

TEST_P(StoreContract, ADamagedBlockIsNeverServedAndCanBePutAgain) {
  const auto bytes = share(Bytes(5000, 'b'));
  const auto beside = share(Bytes(5000, 'c'));
  ASSERT_TRUE(store().put_block(block_key(*bytes), bytes).has_value());
  ASSERT_TRUE(store().put_block(block_key(*beside), beside).has_value());
  harness_->damage_block(block_key(*bytes), *bytes);
  EXPECT_EQ(store().get_block(block_key(*bytes)).error().code, Errc::kCorrupt);
  EXPECT_TRUE(store().get_block(block_key(*beside)).has_value());
  ASSERT_TRUE(store().put_block(block_key(*bytes), bytes).has_value());
  reopen();
  const auto repaired = store().get_block(block_key(*bytes));
  ASSERT_TRUE(repaired.has_value()) << repaired.error().text;
  EXPECT_EQ(**repaired, *bytes);
}

TEST_P(StoreContract, ReadersAndSyncRunBesideTheWriter) {
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0}, reads{0}, syncs{0};
  put("p", "0", sample_row(1, "0"));
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      while (!stop) {
        // Both rows of a batch carry the same value, so a page that shows half of one is seen.
        const auto page = store().scan(kVolume, "p", "", {});
        const auto twin = page.has_value() && page->rows.size() == 2 ? page->rows[1].second : page->rows[0].second;
        if (!page || page->rows[0].second.versions[0].value != twin.versions[0].value) ++wrong;
        ++reads;
      }
    });
  }
  threads.emplace_back([&] {
    while (!stop) {
      if (!store().sync()) ++wrong;
      ++syncs;
    }
  });
  for (std::uint64_t i = 2; i < 100000 && (i < 300 || reads < 50 || syncs < 3); ++i) {
    Batch batch;
    const Row row = sample_row(i, std::to_string(i));
    batch.rows.emplace_back(RowKey{kVolume, "p", "0"}, row);
    batch.rows.emplace_back(RowKey{kVolume, "p", "1"}, row);
    apply(batch);
    const auto bytes = share(std::to_string(i));
    if (!store().put_block(block_key(*bytes), bytes) || !store().get_block(block_key(*bytes))) ++wrong;
  }
  stop = true;
  for (auto& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GE(reads, 50);
  EXPECT_GE(syncs, 3);
}

TEST_P(StoreContract, AgreesWithAPlainMapOverALongRandomRun) {
  std::mt19937_64 random(3);
  std::map<std::pair<Bytes, Bytes>, Row> model;
  const auto partition_key = [&] { return Bytes("p\0q", 1 + random() % 3); };
  const auto sort_key = [&] { return random_bytes(random, random() % 2) + std::to_string(random() % 20); };
  for (int i = 0; i < 3000; ++i) {
    Batch batch;
    for (auto n = random() % 4; n > 0; --n) {
      const auto p = partition_key(), s = sort_key();
      const Row row = sample_row(1 + random() % 1000, random_bytes(random, random() % 50));
      const bool erases = random() % 3 == 0;
      // One batch names a row once.
      const auto same = [&](const RowKey& k) { return k.partition_key == p && k.sort_key == s; };
      if (std::any_of(batch.rows.begin(), batch.rows.end(), [&](const auto& r) { return same(r.first); })) continue;
      if (erases) batch.erase_rows.push_back({kVolume, p, s});
      if (erases) model.erase({p, s});
      if (!erases && std::none_of(batch.erase_rows.begin(), batch.erase_rows.end(), same)) {
        batch.rows.emplace_back(RowKey{kVolume, p, s}, row);
        model[{p, s}] = row;
      }
    }
    apply(batch);
    if (i % 1000 == 999) reopen();
    const auto p = partition_key(), from = sort_key();
    auto expected = model.lower_bound({p, from});
    for (const auto& [name, row] : scan(p, from, {4096, 10}).rows) {
      ASSERT_EQ(name, expected->first.second);
      ASSERT_EQ(row, expected->second);
      ++expected;
    }
  }
  for (const auto& [key, row] : model) EXPECT_EQ(get(key.first, key.second), row);
}

INSTANTIATE_TEST_SUITE_P(Stores, StoreContract, ::testing::Values(make_mem_harness, make_rocks_harness),
                         [](const auto& which) { return which.index == 0 ? "Mem" : "Rocks"; });

}  // namespace
}  // namespace kinfs::test
