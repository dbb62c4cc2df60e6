// The in-memory twin of the store, and of the disk below it: it knows what was synced, and can lose the rest.
//
// Invariant: held to the same contract as RocksStore by tests/storage/store_contract_test.cc.
//
// Cost: an undo log since the last sync, never a copy of the tables; what is not synced is kept twice.
// Threading: as Store says.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "storage/store.h"

namespace kinfs {

class MemStore : public Store {
 public:
  Result<Row> get(const RowKey& key) const override;
  Result<RowPage> scan(VolumeId volume, ByteView partition_key, ByteView from, ScanLimit limit) const override;
  Result<PartitionStat> stat(VolumeId volume, ByteView partition_key) const override;
  Result<std::vector<Hint>> hints(NodeId target, std::uint64_t after, std::size_t limit) const override;
  Result<std::vector<BlockHint>> block_hints(NodeId target, std::uint64_t after, std::size_t limit) const override;
  std::uint64_t hint_count(NodeId target) const override;
  std::vector<NodeId> hint_targets() const override;
  Result<std::uint64_t> last_hint_sequence() const override;
  Result<std::optional<NodeMeta>> meta() const override;
  Result<SharedBytes> get_block(const BlockKey& key) const override;
  Result<bool> has_block(const BlockKey& key) const override;
  Result<ItemPage> items(ItemKind kind, std::uint16_t partition, ByteView after, std::size_t limit) const override;
  StoreUsage usage() const override;

  Result<void> apply(const Batch& batch) override;
  Result<void> put_block(const BlockKey& key, const SharedBytes& bytes) override;
  Result<void> sync() override;

  // --- What a disk may do; not part of Store. ---

  /// The machine stops. `lose_unsynced`: by a power cut, so that everything applied since the last sync() is gone;
  /// otherwise the process alone died, and nothing is.
  void crash(bool lose_unsynced);
  /// A power cut that spares the first `keep` of the unsynced() writes: the kernel had written them back.
  void crash_keeping(std::size_t keep);
  /// apply() and put_block() calls since the last sync().
  std::size_t unsynced() const;
  /// What a power cut now would leave of it, at least.
  Row synced(const RowKey& key) const;
  bool synced(const BlockKey& key) const;
  /// There is a hint of it, for whomever. `synced`: a power cut now would leave it there.
  bool hinted(const RowKey& key, bool synced) const;
  bool hinted(const BlockKey& key, bool synced) const;
  /// A backup: what is there now, all of it synced.
  std::unique_ptr<MemStore> copy() const;
  /// Every write from now on fails with `error`, and changes nothing; nullopt: works again.
  void refuse_writes(std::optional<Error> error);
  std::vector<BlockKey> block_keys() const;
  /// Changes a bit of a stored block. False: it is not here.
  bool damage_block(const BlockKey& key);

 private:
  using PartitionKey = std::pair<VolumeId, Bytes>;

  /// One hint for each (target, key). Every change moves one key from one sequence to another; 0 is none.
  template <class Key>
  struct HintTable {
    std::map<std::pair<NodeId, std::uint64_t>, Key> by_order;
    std::map<std::pair<NodeId, Key>, std::uint64_t> by_key;
    std::map<NodeId, std::uint64_t> count;

    std::uint64_t sequence_of(NodeId target, const Key& key) const;
    void move(NodeId target, const Key& key, std::uint64_t from, std::uint64_t to);
  };
  template <class Key>
  struct HintUndo {
    NodeId target;
    Key key;
    std::uint64_t before, after;
  };
  struct RowUndo {
    RowKey key;
    std::optional<Row> before;
  };
  struct StatUndo {
    PartitionKey key;
    std::optional<PartitionStat> before;
  };
  struct MetaUndo {
    std::optional<NodeMeta> before;
  };
  struct BlockUndo {
    BlockKey key;
    SharedBytes before;  // null: it was not there, and comes now; else what was there, and goes
  };
  using Undo = std::variant<RowUndo, StatUndo, MetaUndo, BlockUndo, HintUndo<RowKey>, HintUndo<BlockKey>>;

  void put_row(const RowKey& key, const Row& row);
  void erase_row(const RowKey& key);
  void erase_block(const BlockKey& key);
  template <class Key>
  void set_hint(HintTable<Key>& table, NodeId target, const Key& key, std::uint64_t sequence);
  template <class Key>
  bool hinted(const HintTable<Key>& table, const Key& key, bool synced) const;
  void take_back(Undo& undo);
  void lose_after(std::size_t keep);

  mutable std::mutex mutex_;
  std::map<RowKey, Row> rows_;
  std::map<PartitionKey, PartitionStat> stats_;
  std::map<BlockKey, SharedBytes> blocks_;
  // In the order of items(): every key that was ever here.
  std::map<Bytes, RowKey> row_keys_;
  std::map<Bytes, BlockKey> block_keys_;
  HintTable<RowKey> hints_;
  HintTable<BlockKey> block_hints_;
  std::optional<NodeMeta> meta_;
  std::uint64_t block_bytes_ = 0;
  std::optional<Error> refusal_;

  std::vector<Undo> undo_;              // oldest first
  std::vector<std::size_t> undo_ends_;  // after each unsynced write, the size of undo_
};

}  // namespace kinfs
