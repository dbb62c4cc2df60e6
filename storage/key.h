// Keys, and the partition that a key lies in.
//
// The partition key alone decides placement; rows of one partition key lie together, ordered by sort key.
#pragma once

#include <compare>
#include <cstdint>
#include <vector>

#include "storage/bytes.h"

namespace kinfs {

enum class VolumeId : std::uint32_t {};

/// Q of Dynamo's partitioning strategy 3 (DeCandia et al. 2007, section 6.2): fixed for the life of a cluster.
inline constexpr std::uint16_t kPartitions = 1024;
inline constexpr std::size_t kMaxKeyBytes = 64 << 10;    // partition key and sort key, each
inline constexpr std::size_t kMaxValueBytes = 1 << 20;   // one version's value; larger content goes into blocks
inline constexpr std::size_t kMaxBlockBytes = 1 << 20;
inline constexpr std::uint64_t kSpanBytes = 64ull << 20; // blocks of one file and one span are placed together

struct RowKey {
  VolumeId volume{};
  Bytes partition_key;
  Bytes sort_key;
  auto operator<=>(const RowKey&) const = default;
};

struct BlockKey {
  VolumeId volume{};
  Bytes file_id;           // 16 bytes by the file layer; any bytes to the store
  std::uint64_t span = 0;  // offset / kSpanBytes
  Digest256 hash{};        // SHA-256 of the bytes
  auto operator<=>(const BlockKey&) const = default;
};

/// Blocks of one file and one span: they have the same owners.
struct BlockSet {
  VolumeId volume{};
  Bytes file_id;
  std::uint64_t span = 0;
  std::vector<Digest256> hashes;
  BlockKey key(const Digest256& hash) const { return {volume, file_id, span, hash}; }
};

/// The top bits of MD5 over (volume, partition key).
std::uint16_t partition_of(VolumeId volume, ByteView partition_key);
/// The partition key under which the blocks of one span are placed.
Bytes block_partition_key(const BlockKey& key);

}  // namespace kinfs
