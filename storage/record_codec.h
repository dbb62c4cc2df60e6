// Values of the store to bytes and back: the only encoder and decoder of record.proto, and of the keys under
// which a node keeps things.
//
// Decoding trusts nothing. What it returns satisfies the invariants of version.h and the limits of key.h;
// anything else is kCorrupt, or kFormat when a newer program wrote fields that this one does not know. The text
// says what was wrong. Encoding is for values that keep those invariants.
//
// Threading: pure functions.
#pragma once

#include <cstdint>

#include "storage/key.h"
#include "storage/result.h"
#include "storage/store.h"
#include "storage/version.h"

namespace kinfs {

inline constexpr std::size_t kMaxHostBytes = 255;
inline constexpr std::size_t kMaxRootBytes = 64;
inline constexpr std::size_t kMaxFileIdBytes = 255;

/// Where a block lies in the segment files of block_files.h.
struct BlockLocation {
  std::uint32_t segment = 0;
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
  bool operator==(const BlockLocation&) const = default;
};

Bytes encode_row(const Row& row);
Result<Row> decode_row(ByteView bytes);

/// A version without a dot (counter 0, node 0) is allowed here: requests carry them.
Bytes encode_version(const Version& version);
Result<Version> decode_version(ByteView bytes);

/// As a row without versions.
Bytes encode_context(const CausalContext& context);
Result<CausalContext> decode_context(ByteView bytes);

Bytes encode_meta(const NodeMeta& meta);
Result<NodeMeta> decode_meta(ByteView bytes);

Bytes encode_layouts(const Layouts& layouts);
Result<Layouts> decode_layouts(ByteView bytes);

Bytes encode_location(const BlockLocation& location);
Result<BlockLocation> decode_location(ByteView bytes);

/// 16 bytes.
Bytes encode_stat(const PartitionStat& stat);
Result<PartitionStat> decode_stat(ByteView bytes);
/// The stat that `row` implies for its partition: of its version with the greatest clock.
PartitionStat stat_of(const Row& row);

/// What a row counts for in ScanLimit::bytes: about its size on the wire, the same in every store.
std::size_t scan_weight(ByteView sort_key, const Row& row);

/// Whether a store can keep this and read it back: kNameTooLong, kTooLarge or kInvalid, naming the limit.
Result<void> check_row_key(const RowKey& key);
Result<void> check_block_key(const BlockKey& key);
Result<void> check_batch(const Batch& batch);

// --- Keys. Bytes compare as the things they name: partition, volume, partition key, sort key. ---

/// be16 partition | be32 volume | escaped partition key: 0 becomes 0 255, and 0 1 ends it.
Bytes row_key_prefix(VolumeId volume, ByteView partition_key);
/// The prefix and the sort key as it is.
Bytes row_key_bytes(const RowKey& key);
Result<RowKey> parse_row_key(ByteView bytes);

/// be16 partition (of the block) | be32 volume | escaped file id | be64 span | hash.
Bytes block_key_bytes(const BlockKey& key);
Result<BlockKey> parse_block_key(ByteView bytes);

/// What begins all keys of a partition, of rows and of blocks alike: be16 partition.
Bytes partition_prefix(std::uint16_t partition);

/// The digests of store.h's Item: the first 16 bytes of SHA-256 over the canonical encoding of the key and the
/// row's fingerprint.
Digest128 item_digest(ByteView row_key, const Row& row);
Digest128 item_digest(ByteView block_key);
inline constexpr std::size_t kItemPageBytes = 256 << 10;  // of keys, in one page of items

/// Hints for rows and for blocks, each kept twice: in append order, with the key as value, and by key, with the
/// sequence as value.
enum class HintKind : char { kRow = 'r', kBlock = 'b' };
/// kind | be64 target | be64 sequence.
Bytes hint_order_key(HintKind kind, NodeId target, std::uint64_t sequence);
/// Upper-case kind | be64 target | row_key_bytes or block_key_bytes.
Bytes hint_index_key(HintKind kind, NodeId target, ByteView key_bytes);

struct HintOrder {
  NodeId target{};
  std::uint64_t sequence = 0;
};
Result<HintOrder> parse_hint_order_key(HintKind kind, ByteView bytes);

}  // namespace kinfs
