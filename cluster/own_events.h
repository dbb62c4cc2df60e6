// What a client remembers of its own puts, so that a new event can vouch for its earlier ones on the same row
// (see CausalContext): without it each write would add an interval of its own to the row's context.
//
// Bounded: when full, everything is forgotten at once, and an event on a row that is not known any more vouches only
// for what came after that moment. Vouching for less is always right; vouching for what the base has not seen would
// discard it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <unordered_map>

#include "storage/version.h"

namespace kinfs::cluster {

class OwnEvents {
 public:
  explicit OwnEvents(std::size_t limit_rows = 100'000) : limit_rows_(limit_rows) {}

  /// For RowPut::previous: `event` is about to be put on `row`, over `base`.
  std::uint64_t previous(const Bytes& row, const EventId& event, const CausalContext& base) {
    if (last_of_row_.size() >= limit_rows_ && !last_of_row_.contains(row)) {
      last_of_row_.clear();
      forgot_at_ = greatest_;
    }
    greatest_ = std::max(greatest_, event.sequence);
    const auto [it, is_new] = last_of_row_.try_emplace(row, event.sequence);
    if (is_new) return forgot_at_ < event.sequence ? forgot_at_ : event.sequence - 1;
    const auto last = it->second;
    if (event.sequence <= last) return event.sequence - 1;  // a retry, or out of order
    it->second = event.sequence;
    // An earlier put that ended without an answer, or a base that is older than it: the gap stays open.
    return base.covers(EventId{event.client, event.boot, last}) ? last : event.sequence - 1;
  }

 private:
  std::size_t limit_rows_;
  std::unordered_map<Bytes, std::uint64_t> last_of_row_;
  std::uint64_t forgot_at_ = 0;
  std::uint64_t greatest_ = 0;
};

}  // namespace kinfs::cluster
