// Rows, keys and blocks for the tests of storage.
#pragma once

#include <random>
#include <string>

#include "storage/key.h"
#include "storage/store.h"
#include "storage/version.h"

namespace kinfs::test {

inline constexpr VolumeId kVolume{1};

/// A row of one version, dotted (1, counter), its clock and time `counter` too.
inline Row sample_row(std::uint64_t counter, Bytes value) {
  Version v;
  v.event = {ClientId{7}, 1, counter};
  v.hlc = {counter};
  v.time_ns = static_cast<std::int64_t>(counter);
  v.host = "host1";
  v.value = std::move(value);
  Row row;
  add_version(row, std::move(v), {NodeId{1}, counter});
  return row;
}

/// Everything that a row can have: siblings, a tombstone, ancestors, bytes of every value.
inline Row rich_row() {
  Row row;
  Version a;
  a.event = {ClientId{0xfedcba9876543210}, 3, 300};
  a.hlc = {0x0123456789abcdef};
  a.time_ns = -5;
  a.host = Bytes("h\0\xff", 3);
  a.value = Bytes("v\0\x80", 3);
  a.lineage = {{{ClientId{1}, 2, 3}, {4}, Bytes(32, '\xee')}, {{ClientId{5}, 6, 7}, {8}, ""}};
  add_version(row, a, {NodeId{2}, 1000});
  Version b;
  b.event = {ClientId{9}, 1, 1};
  b.tombstone = true;
  add_version(row, b, {NodeId{1}, 1});
  row.context.add(Dot{NodeId{0xffffffffffffffff}, kMaxSequenceNumber - 1});
  return row;
}

inline Bytes random_bytes(std::mt19937_64& random, std::size_t size) {
  Bytes out(size, '\0');
  for (char& c : out) c = static_cast<char>(random());
  return out;
}

/// Row `i` of partition key "p", as its only change.
inline Batch one_row(std::uint64_t i, Bytes value) {
  Batch batch;
  batch.rows.emplace_back(RowKey{kVolume, "p", std::to_string(i)}, sample_row(i, std::move(value)));
  return batch;
}

inline Bytes block_bytes(std::uint64_t i) { return Bytes(10000, static_cast<char>('a' + i % 26)) + std::to_string(i); }

inline BlockKey block_key(ByteView bytes, Bytes file_id = "file") {
  return {kVolume, std::move(file_id), 3, sha256(bytes)};
}

}  // namespace kinfs::test
