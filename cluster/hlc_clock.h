// Hybrid logical clock (Kulkarni et al. 2014, "Logical Physical Clocks", section 3.2): physical milliseconds
// in the upper 48 bits, a counter in the lower 16; always greater than everything it has made or observed.
#pragma once

#include "storage/version.h"

namespace kinfs::cluster {

class HlcClock {
 public:
  explicit HlcClock(Hlc at_least = {}) : last_(at_least) {}
  /// A new reading, greater than all before.
  Hlc next(std::int64_t wall_ms) {
    const Hlc physical = Hlc::from_ms(wall_ms);
    last_ = physical > last_ ? physical : Hlc{last_.value + 1};
    return last_;
  }
  /// A clock seen in a message. One more than kMaxAheadMs before our own wall clock is not taken over, so
  /// that one host with a wrong date does not drag all others along; returns false then, to be reported.
  bool observe(Hlc seen, std::int64_t wall_ms) {
    if (seen.physical_ms() > wall_ms + kMaxAheadMs) return false;
    if (seen > last_) last_ = seen;
    return true;
  }
  Hlc last() const { return last_; }
  static constexpr std::int64_t kMaxAheadMs = 60'000;

 private:
  Hlc last_;
};

}  // namespace kinfs::cluster
