// What one node keeps on its disk: rows, hints, counters, and blocks.
//
// Reader is what the cluster core may touch: synchronous, and always up to date with every applied batch.
// Writes reach the store only as the core's effects, carried out in order by whoever runs the core.
//
// Durability: apply() and put_block() return when the bytes survive the death of this process (they are in
// the kernel); sync() returns when everything applied before the call survives a power cut.
//
// Threading: apply() and put_block() from one thread at a time; Reader methods and sync() from any thread,
// concurrently with them.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "storage/key.h"
#include "storage/layouts.h"
#include "storage/result.h"
#include "storage/version.h"

namespace kinfs {

struct ScanLimit {
  std::size_t bytes = 256 << 10;  // stops after the row that reaches it; at least one row is returned
  std::size_t rows = 4096;
};

struct RowPage {
  std::vector<std::pair<Bytes, Row>> rows;  // (sort key, row), ascending
  bool complete = true;                     // false: more rows follow the last one returned
};

/// Derived from the rows of one partition key, the row with the empty sort key left out: the latest change.
struct PartitionStat {
  Hlc last_hlc;                   // greatest clock of any version ever applied there
  std::int64_t last_time_ns = 0;  // time_ns of that version
  auto operator<=>(const PartitionStat&) const = default;
};

/// "Owner `target` has not confirmed the present state of `key`": the state itself is the stored row.
/// A store keeps one hint for each (target, key): adding another replaces it, so that a row written ten thousand
/// times in a cut is sent once. Dropping one does nothing when its sequence is no longer the one stored.
struct Hint {
  NodeId target{};
  std::uint64_t sequence = 0;  // append order on this node; assigned by the core, greater each time
  RowKey key;
  bool operator==(const Hint&) const = default;
};

/// "Owner `target` does not have this block": the block itself is stored here.
struct BlockHint {
  NodeId target{};
  std::uint64_t sequence = 0;  // shares the numbering of Hint
  BlockKey key;
  bool operator==(const BlockHint&) const = default;
};

/// A host of the cluster.
struct Member {
  NodeId node{};
  std::string name;     // host name, also the writer's name in versions
  std::string address;  // tcp://HOST:PORT
  Bytes public_key;     // 32 bytes, CURVE
  std::uint32_t weight = 1;
  std::string zone;
  std::uint64_t incarnation = 0;  // of two entries the one with the greater counts; only the member raises its own
  Bytes client_key;               // 32 bytes, CURVE: of this host's clients; empty until the member has announced it
  bool operator==(const Member&) const = default;
};

/// One record per data directory, written with sync.
struct NodeMeta {
  NodeId node{};
  Bytes cluster_id;                    // 16 bytes; a foreign directory is refused by it
  std::uint64_t counter_reserved = 0;  // no dot at or above this was ever handed out
  Hlc hlc_reserved;                    // no clock above this was ever handed out
  std::uint64_t boot = 0;              // how often the node was started on this directory
  std::uint64_t counter_floor = 0;     // dots below it may have been lost here, and live on elsewhere
  Bytes run;                           // the name of the last start, see NodeConfig
  std::uint64_t layout_number = 0;     // of the members below, where `layouts` has none; no longer written
  std::vector<Member> members;         // none: they stand in the configuration
  Layouts layouts;
  std::uint64_t counter_erased = 0;  // what was erased here had no dot of this node at or above it
  Bytes erased_in;                   // a bit for each partition, the lowest of each byte first; empty: in none
  std::vector<Hlc> floors;           // of each partition, see cluster/reaper.h; empty: none has one
  Hlc horizon;                       // no write with a clock up to it is taken, see cluster/horizon.h
  bool operator==(const NodeMeta&) const = default;
};

/// Applied all or nothing.
struct Batch {
  std::vector<std::pair<RowKey, Row>> rows;
  std::vector<RowKey> erase_rows;
  std::vector<BlockKey> erase_blocks;  // what they take on the disk is free after the next sync()
  std::vector<Hint> add_hints;
  std::vector<Hint> drop_hints;
  std::vector<BlockHint> add_block_hints;
  std::vector<BlockHint> drop_block_hints;
  std::optional<NodeMeta> meta;
  bool empty() const {
    return rows.empty() && erase_rows.empty() && erase_blocks.empty() && add_hints.empty() && drop_hints.empty() &&
           add_block_hints.empty() && drop_block_hints.empty() && !meta;
  }
};

/// What replicas compare.
enum class ItemKind : std::uint8_t { kRow = 1, kBlock = 2 };

/// A row or block as anti-entropy sees it. Replicas whose items of a partition are equal hold the same.
struct Item {
  Bytes key;           // row_key_bytes or block_key_bytes (record_codec.h)
  Digest128 digest{};  // of the key and, for rows, of the state; zero when the stored row cannot be read
  Hlc grave = {};      // Row::latest() of a row that is_grave(); else 0. Not told to others
  bool operator==(const Item&) const = default;
};

struct ItemPage {
  std::vector<Item> items;  // ascending by key
  bool complete = true;     // false: more follow the last one
};

struct StoreUsage {
  std::uint64_t total_bytes = 0;  // of the file system below; 0: not bounded
  std::uint64_t free_bytes = 0;
  std::uint64_t rows_estimate = 0;
  std::uint64_t block_bytes = 0;
  bool full = false;  // of a store: blocks, or all writes, are refused for want of room
};

class Reader {
 public:
  virtual ~Reader() = default;
  /// A row that was never written is an empty Row. kCorrupt when the stored bytes cannot be read.
  virtual Result<Row> get(const RowKey& key) const = 0;
  /// Rows with sort key >= `from`.
  virtual Result<RowPage> scan(VolumeId volume, ByteView partition_key, ByteView from, ScanLimit limit) const = 0;
  virtual Result<PartitionStat> stat(VolumeId volume, ByteView partition_key) const = 0;
  /// Hints for `target` with sequence > `after`, ascending, at most `limit`.
  virtual Result<std::vector<Hint>> hints(NodeId target, std::uint64_t after, std::size_t limit) const = 0;
  virtual Result<std::vector<BlockHint>> block_hints(NodeId target, std::uint64_t after, std::size_t limit) const = 0;
  /// Of rows and of blocks; known without looking at them.
  virtual std::uint64_t hint_count(NodeId target) const = 0;
  /// Those that it is not 0 for, ascending.
  virtual std::vector<NodeId> hint_targets() const = 0;
  /// The greatest sequence of any hint stored, 0 when none; asked at start only.
  virtual Result<std::uint64_t> last_hint_sequence() const = 0;
  /// nullopt in a fresh directory.
  virtual Result<std::optional<NodeMeta>> meta() const = 0;
  /// Checked against the hash: kCorrupt when it does not match, kNotFound when it is not here.
  virtual Result<SharedBytes> get_block(const BlockKey& key) const = 0;
  /// Whether a sync() keeps it from now on. One that an earlier process stored is read and checked: a power cut may
  /// have taken its bytes.
  virtual Result<bool> has_block(const BlockKey& key) const = 0;
  /// The items of a partition with keys greater than `after`, which is empty for all: at most `limit`, and not many
  /// more than 256 KiB of keys.
  virtual Result<ItemPage> items(ItemKind kind, std::uint16_t partition, ByteView after, std::size_t limit) const = 0;
  virtual StoreUsage usage() const = 0;
};

class Store : public Reader {
 public:
  virtual Result<void> apply(const Batch& batch) = 0;
  /// Storing a block that is already here does nothing. kInvalid when `bytes` do not hash to key.hash.
  virtual Result<void> put_block(const BlockKey& key, const SharedBytes& bytes) = 0;
  virtual Result<void> sync() = 0;
  /// Grows with each write: a store that has less than it once had is an older copy, or has lost a tail. 0: not
  /// counted.
  virtual std::uint64_t written() const { return 0; }
  /// For a start that may have lost what was not synced: reads the blocks that this may be true for, and forgets those
  /// that did not come to the disk, so that anti-entropy sees that they are not here. Their number.
  virtual Result<std::uint64_t> forget_lost_blocks() { return 0; }
};

}  // namespace kinfs
