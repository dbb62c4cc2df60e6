// Blocks in a mount's memory.
//
// Threading: the owner's strand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <unordered_map>

#include "client/task.h"
#include "storage/bytes.h"

namespace kinfs::fs {

inline constexpr std::size_t kAllBlocksInFlight = 64;  // of all files of a mount

/// kStreamed: read ahead, or written whole. The kernel keeps its pages; it is wanted once more at most, soon or, when
/// hosts that confirmed it lost it, at fsync.
enum class BlockUse : std::uint8_t { kKept, kStreamed };

/// Blocks lately read or written by this mount, shared by all files; bounded in bytes, the oldest go first. What is
/// streamed has little room of its own: all that is kept is memory touched for the first time, a page fault for each
/// 4 KiB (the first 64 MiB written to a mount took a third longer).
class BlockCache {
 public:
  explicit BlockCache(std::size_t limit_bytes) : kept_(limit_bytes), streamed_(limit_bytes / 4) {}
  SharedBytes find(const Digest256& hash);
  void insert(const Digest256& hash, SharedBytes bytes, BlockUse use);
  std::size_t bytes() const { return kept_.bytes() + streamed_.bytes(); }

  AsyncSemaphore slots{kAllBlocksInFlight};  // for blocks that are sent

 private:
  struct HashOfDigest {
    std::size_t operator()(const Digest256& d) const;
  };
  class Recent {
   public:
    explicit Recent(std::size_t limit_bytes) : limit_bytes_(limit_bytes) {}
    SharedBytes find(const Digest256& hash);
    void insert(const Digest256& hash, SharedBytes bytes);
    std::size_t bytes() const { return bytes_; }

   private:
    struct Slot {
      Digest256 hash;
      SharedBytes bytes;
    };
    std::size_t limit_bytes_;
    std::size_t bytes_ = 0;
    std::list<Slot> slots_;
    std::unordered_map<Digest256, std::list<Slot>::iterator, HashOfDigest> index_;
  };

  Recent kept_, streamed_;
};

}  // namespace kinfs::fs
