// Frames over a non-blocking stream socket: length of the header (4 bytes, little-endian), length of the payload
// (the same), header, payload.
//
// Invariants: no length is believed before it was checked, and nothing is allocated for bytes of a header that
// have not come; a reader stops at the first malformed length, since what follows has no meaning.
//
// Threading: a reader and a writer of one socket may be used by different threads; each by one at a time.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "cluster/codec.h"
#include "cluster/hop.h"

namespace kinfs::cluster {

struct Frame {
  Bytes header;
  SharedBytes payload;  // null when its length was 0
};

class FrameReader {
 public:
  explicit FrameReader(int fd) : fd_(fd) {}
  enum class Input {
    kSome,     // something came, and there may be more
    kDrained,  // the socket holds nothing more for now
    kEnd,      // the other side closed, between two frames
  };
  /// Reads once. kCorrupt when the other side closed within a frame; kIo when the socket failed.
  Result<Input> fill();
  /// The next whole frame of what was read. kCorrupt for a length out of bounds: nothing more can be read.
  Result<std::optional<Frame>> next();
  std::size_t buffered_bytes() const { return end_ - begin_; }

 private:
  static constexpr std::size_t kBufferBytes = 64 << 10;
  static constexpr std::size_t kPrefixBytes = 8;

  std::size_t take(Bytes& to, std::size_t wanted);

  int fd_;
  std::vector<char> buffer_ = std::vector<char>(kBufferBytes);
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  bool in_frame_ = false;
  std::size_t header_bytes_ = 0;
  std::size_t payload_bytes_ = 0;
  Bytes header_;
  std::shared_ptr<Bytes> payload_;  // of its full size as soon as its first byte is due
  std::size_t payload_filled_ = 0;
};

class FrameWriter {
 public:
  explicit FrameWriter(int fd) : fd_(fd) {}
  /// `header` stays as it is until it was written or this object is gone. `hop` follows the header.
  void queue(SharedBytes header, const HopBytes& hop, SharedBytes payload);
  /// Writes what the socket takes. True: nothing is left. kIo when the socket failed.
  Result<bool> flush();
  bool empty() const { return queue_.empty(); }
  /// Bytes that were queued and not written yet, and what it takes to keep them.
  std::size_t pending_bytes() const { return pending_bytes_ + queue_.size() * kBytesPerItem; }

 private:
  struct Item {
    std::array<char, 8> prefix;
    SharedBytes header;
    HopBytes hop;
    SharedBytes payload;
    std::size_t size() const { return prefix.size() + header->size() + hop.size() + (payload ? payload->size() : 0); }
  };
  static constexpr std::size_t kBytesPerItem = 256;
  int fd_;
  std::deque<Item> queue_;
  std::size_t written_of_first_ = 0;
  std::size_t pending_bytes_ = 0;
};

/// Asks the kernel for room for several blocks, as far as it grants it: each EAGAIN costs a wake-up.
void enlarge_send_buffer(int fd);

}  // namespace kinfs::cluster
