// The bytes of one open file: inline while small, a hash tree of blocks when larger, streamed both ways.
//
// Invariants: blocks are immutable and put before anything that names them; at most kBlocksInFlight are under way
// and not answered, so that a file of any size goes through in bounded memory, and kAllBlocksInFlight of all files; a
// hole takes no space and an all-zero block becomes one.
//
// Threading: coroutines of the owner's strand. Reads and writes of one FileContent are not concurrent with
// each other's *calls*, but reads may be awaited while writes go on; the caller (OpenFile) serializes writes,
// truncate and seal with an AsyncMutex.
#pragma once

#include <cstdint>
#include <memory>

#include "client/client.h"
#include "fs/block_cache.h"
#include "fs/entry.h"

namespace kinfs::fs {

inline constexpr std::size_t kBlocksInFlight = 16;  // of one file

class FileContent {
 public:
  /// The content that `entry` describes.
  FileContent(Client& client, BlockCache& cache, VolumeId volume, const Entry& entry);
  ~FileContent();

  std::uint64_t size() const;
  bool dirty() const;  // differs from what it was made from, or last sealed to
  /// Short only at the end of the file. Sequential readers have the next blocks fetched ahead.
  Task<Result<Bytes>> read(std::uint64_t offset, std::size_t length);
  /// Waits only while kBlocksInFlight blocks are under way. kTooLarge beyond kMaxFileBytes. Errors of blocks sent
  /// earlier come from seal(); only when kBlocksInFlight of them failed, and fail again, do they come from here, and
  /// nothing more is taken.
  Task<Result<Unit>> write(std::uint64_t offset, Bytes data);
  /// Beyond the end: a hole.
  Task<Result<Unit>> truncate(std::uint64_t size);
  /// Sends what is dirty, waits until all blocks are confirmed (fsynced at W when `sync`, those of others too unless
  /// the entry said so), and fills in size, content or root, and blocks_synced. After an error everything is still
  /// here and dirty: seal again.
  Task<Result<Unit>> seal(Entry& entry, bool sync);
  /// Sends what was written to blocks that are not full yet; they are read again when more comes. Leaves alone what
  /// fits into the row. Errors as for write().
  Task<Result<Unit>> send_written();
  /// Bytes written and not sent, for the bound on what all files hold.
  std::size_t written_bytes() const;
  /// Bytes held here, for the bound on memory.
  std::size_t held_bytes() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // reads ahead and sends may outlive a closed handle
};

}  // namespace kinfs::fs
