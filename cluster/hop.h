// What a transport adds to an encoded message at the moment it leaves, and takes off when it arrives.
//
// Encoded bytes may wait in a queue or be sent again; the patience that is left and the time of sending are known
// only at the end. They are fields of the header (wire.proto) that are appended behind it: of a field that
// occurs twice, protobuf takes the last.
#pragma once

#include <time.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "cluster/codec.h"

namespace kinfs::cluster {

struct Hop {
  std::uint64_t boot = 0;    // random for each start of a sender: its clock may have begun anew
  std::int64_t sent_us = 0;  // CLOCK_BOOTTIME of the sender
  std::uint32_t ttl_ms = 0;  // what is left of the asker's patience
};

inline constexpr std::size_t kHopBytes = 23;
using HopBytes = std::array<char, kHopBytes>;

/// To be appended to Encoded::header.
HopBytes encode_hop(const Hop& hop);

template <class T>
struct Received {
  T value;  // its ttl_ms is the hop's
  Hop hop;
};
/// As the functions of codec.h.
Result<Received<Message>> receive_message(ByteView header, SharedBytes payload);
Result<Received<ClientFrame>> receive_client_frame(ByteView header, SharedBytes payload);

/// CLOCK_BOOTTIME.
inline std::int64_t mono_us() {
  timespec t{};
  ::clock_gettime(CLOCK_BOOTTIME, &t);
  return static_cast<std::int64_t>(t.tv_sec) * 1'000'000 + t.tv_nsec / 1000;
}

/// How long messages of one sender wait in sockets and kernels: two clocks that have nothing in common but their
/// rate, so that only what exceeds the least difference seen lately is known to be waiting. The minimum is
/// taken over the present and the last window; a window ends only after a message, so that a long silence
/// does not make the first late message the new measure. While it ages, the minimum is raised by what two
/// clocks may drift apart.
class QueueDelay {
 public:
  /// Microseconds that the message waited, at least 0; it becomes part of the window.
  std::int64_t observe(const Hop& hop, std::int64_t now_us) {
    // Unsigned: a sender's arbitrary numbers must not overflow.
    const auto difference =
        static_cast<std::int64_t>(static_cast<std::uint64_t>(now_us) - static_cast<std::uint64_t>(hop.sent_us));
    if (!known_ || hop.boot != boot_) {
      *this = QueueDelay{};
      known_ = true;
      boot_ = hop.boot;
      window_began_us_ = now_us;
      last_ = present_ = {difference, now_us};
      return 0;
    }
    const auto least = std::min(last_.at(now_us), present_.at(now_us));
    if (now_us - window_began_us_ > kWindowUs) {
      last_ = present_;
      present_ = {difference, now_us};
      window_began_us_ = now_us;
    } else if (difference < present_.at(now_us)) {
      present_ = {difference, now_us};
    }
    if (difference <= least) return 0;
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(difference) - static_cast<std::uint64_t>(least));
  }

 private:
  static constexpr std::int64_t kWindowUs = 15'000'000;
  static constexpr std::int64_t kDriftDivisor = 1000;  // both clocks slewed by up to 500 ppm
  struct Minimum {
    std::int64_t difference_us = 0;
    std::int64_t seen_us = 0;
    std::int64_t at(std::int64_t now_us) const {
      const auto raised = (now_us - seen_us) / kDriftDivisor;
      return static_cast<std::int64_t>(static_cast<std::uint64_t>(difference_us) + static_cast<std::uint64_t>(raised));
    }
  };
  bool known_ = false;
  std::uint64_t boot_ = 0;
  std::int64_t window_began_us_ = 0;
  Minimum last_;
  Minimum present_;
};

/// What is left of `ttl_ms` after `waited_us`; 0: it is past its deadline.
inline std::uint32_t ttl_after(std::uint32_t ttl_ms, std::int64_t waited_us) {
  const auto waited_ms = std::max<std::int64_t>(waited_us, 0) / 1000;
  return waited_ms >= ttl_ms ? 0 : ttl_ms - static_cast<std::uint32_t>(waited_ms);
}

}  // namespace kinfs::cluster
