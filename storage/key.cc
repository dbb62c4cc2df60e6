// Placement. What is hashed here, and how, is fixed for the life of every cluster.
#include "storage/key.h"

namespace kinfs {

std::uint16_t partition_of(VolumeId volume, ByteView partition_key) {
  static_assert(kPartitions == 1024, "the partition is the top 10 bits of the hash");
  CanonicalWriter w;
  w.u64(static_cast<std::uint32_t>(volume)).bytes(partition_key);
  const Digest128 d = md5(w.out());
  return static_cast<std::uint16_t>((d[0] << 8 | d[1]) >> 6);
}

Bytes block_partition_key(const BlockKey& key) {
  Bytes out;
  out.reserve(key.file_id.size() + 8);
  out.append(key.file_id);
  append_be64(out, key.span);
  return out;
}

}  // namespace kinfs
