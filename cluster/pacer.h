// How much may be under way to a peer in the background: so much that what people wait for is not held up by it.
//
// By the extra delay, as in LEDBAT (RFC 6817, section 2.4): what is sent takes longer than it does at best when it, or
// something else, queues at the peer, at its disk, or on the way. Up to kTargetMs of that the window grows, beyond it
// shrinks, beside other work to the least. What a window itself makes wait counts as delay too, so that it stays small
// where one gift takes long.
//
// Threading: none.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

namespace kinfs::cluster {

class Pacer {
 public:
  static constexpr std::int64_t kTargetMs = 3;
  static constexpr double kMost = 16;
  /// `least`: are under way however long they take. One for what takes about equally long, else what is small makes all
  /// that is larger look delayed.
  explicit Pacer(double least = 1) : least_(least), window_(least) {}
  std::size_t window() const { return static_cast<std::size_t>(window_); }
  /// One was confirmed, that long after it was sent.
  void confirmed(std::int64_t took_ms, std::int64_t now_ms) {
    if (now_ms - minute_ms_ >= 60'000) {
      minute_ms_ = now_ms;
      last_least_ms_ = std::exchange(least_ms_, kUnknown);
    }
    least_ms_ = std::min(least_ms_, took_ms);
    const auto extra_ms = took_ms - std::min(least_ms_, last_least_ms_);
    const auto off = static_cast<double>(kTargetMs - extra_ms) / kTargetMs;
    // One more after each window that was not delayed; down with each that was: people wait.
    window_ = std::clamp(window_ + (off > 0 ? off / window_ : std::max(off, -1.0)), least_, kMost);
  }
  /// One was not, in time.
  void lost() { window_ = std::max(window_ / 2, least_); }

 private:
  static constexpr std::int64_t kUnknown = std::numeric_limits<std::int64_t>::max();
  double least_;
  double window_;
  std::int64_t minute_ms_ = 0;
  std::int64_t least_ms_ = kUnknown, last_least_ms_ = kUnknown;  // of this minute, and of the one before
};

}  // namespace kinfs::cluster
