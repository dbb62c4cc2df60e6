// Immutable blocks in append-only segment files: each byte of a block is written once.
//
// A segment is a 16-byte header and blocks, end to end, up to 256 MiB. Which block lies where is known by the
// caller's index alone; it adds its entry after append(), and syncs its log after sync(). So after a power cut an
// entry may point at bytes that never came to the disk, and never at those of another block unnoticed: read()
// checks the hash. A tail that no entry points to is skipped over.
//
// Each process appends to segments of its own: where a power cut took the end of one, index entries still point there,
// and must not come to point at other blocks.
//
// A process that died may have left bytes in the kernel that no sync() covers any more: the file SYNCED says below
// which segment there are none, and all others are synced with the first sync() after an open. It is written after what
// it speaks of was synced, and so is behind it at any time; without it, all segments are.
//
// Why not RocksDB's ways (tests/bench/block_bench.cc, 128 MiB in blocks of 256 KiB, a sync every 8 MiB, ext4; bytes
// written for each byte of the user's, and speed): block files 1.00, 198 MB/s; plain values 3.00, 139; BlobDB with its
// log 2.00, 114; BlobDB without, flushed at each sync, 1.00, 84, and what is not flushed dies with the process.
//
// Threading: append() from one thread at a time; everything else from any thread, concurrently with it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "storage/bytes.h"
#include "storage/interval_set.h"
#include "storage/record_codec.h"
#include "storage/result.h"

namespace kinfs {

class BlockFiles {
 public:
  static constexpr std::uint64_t kSegmentBytes = 256ull << 20;

  /// `directory` exists. kFormat for a segment of another version, kIo when it cannot be read.
  static Result<std::unique_ptr<BlockFiles>> open(std::string directory);
  ~BlockFiles();

  /// Returns when the bytes are in the kernel. kNoSpace or kIo leave everything before as it was.
  Result<BlockLocation> append(ByteView bytes);
  /// kCorrupt when the bytes there do not hash to `hash`, or are not there.
  Result<SharedBytes> read(const BlockLocation& at, const Digest256& hash) const;
  /// Whether append() of this object put it there, so that sync() covers it; reads nothing.
  bool appended(const BlockLocation& at) const;
  /// Whether a power cut before open() may have taken the bytes there: they were appended by an earlier process, and
  /// nothing says that they were synced.
  bool in_doubt(const BlockLocation& at) const;
  /// Bytes in doubt are read from the disk from now on: after a failed fsync the kernel may show what it could not
  /// write, and call it clean.
  void doubt_cache();
  /// Everything appended before the call, by this process or another, is on the disk when it returns. After one failure
  /// it fails for good: the kernel may have dropped what it could not write, and would report the next fdatasync as
  /// done.
  Result<void> sync();
  /// What no index entry points to any more, on the disk neither: its space goes back to the file system, as far as
  /// whole blocks of that are free. Nothing moves. Where holes are not supported, nothing happens.
  void free(const BlockLocation& at);
  /// What all segments take, without what was freed; what no index entry points to is included.
  std::uint64_t bytes() const;

 private:
  class File;

  explicit BlockFiles(std::string directory) : directory_(std::move(directory)) {}

  std::string path_of(std::uint32_t segment) const;
  std::string mark_path() const { return directory_ + "/SYNCED"; }
  void read_mark();
  void write_mark(std::uint32_t clean_below);
  Result<void> find_segments();
  Result<std::shared_ptr<File>> file_of(std::uint32_t segment) const;
  Result<std::shared_ptr<File>> start_segment(std::uint32_t segment);
  Result<std::shared_ptr<File>> file_to_append(std::size_t bytes);
  static void begin_writing(const File& file, const BlockLocation& at);

  const std::string directory_;
  std::mutex sync_mutex_;     // held through a sync, so that a second one waits for what the first took over
  mutable std::mutex mutex_;  // guards all below; taken after sync_mutex_; never held during I/O on blocks
  std::map<std::uint32_t, std::uint64_t> sizes_;
  mutable std::map<std::uint32_t, std::shared_ptr<File>> files_;  // a bounded cache of open ones
  std::map<std::uint32_t, std::shared_ptr<File>> dirty_;          // null: of an earlier process, not opened yet
  IntervalSet<std::uint32_t> freed_;                              // by this object: (offset, end] of each segment
  std::uint64_t freed_bytes_ = 0;                                 // holes of earlier processes too
  std::uint32_t clean_below_ = 0;                                 // what SYNCED says
  std::uint32_t doubt_from_ = 0;                                  // and what it said when this was opened
  std::uint32_t current_ = 0;                                     // the newest segment; 0: none yet
  std::uint32_t first_own_ = 1;                                   // those from here on are this object's
  std::optional<Error> sync_failure_;
};

}  // namespace kinfs
