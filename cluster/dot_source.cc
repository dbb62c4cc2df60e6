#include "cluster/dot_source.h"

#include <algorithm>

namespace kinfs::cluster {

namespace {
// How far the clock is reserved beyond what was used, when it is ahead of the wall clock already: it then counts
// events, and a million of them fit. A start begins at the end of what was reserved, so one that comes soon after the
// other moves the clock by this much, and not by kClockAheadMs.
constexpr std::uint64_t kClockRoom = 16ull << 16;
constexpr std::uint64_t kClockStep = 1000ull << 16;

std::uint64_t saturated(std::uint64_t counter) { return std::min(counter, kMaxSequenceNumber); }
}  // namespace

NodeMeta DotSource::start(const std::optional<NodeMeta>& stored, const NodeConfig& config, std::int64_t wall_ms) {
  if (stored) meta_ = *stored;
  meta_.node = config.self;
  meta_.cluster_id = config.cluster_id;
  meta_.boot += 1;
  const bool trusts_disk = config.bug == PlantedBug::kTrustOldDisk;
  next_ = std::max(trusts_disk ? 1 : least_at(wall_ms), saturated(meta_.counter_reserved));
  next_ =
      std::max(next_, meta_.counter_erased);  // which may be on the disk before a reservation that follows observe()
  nothing_lost_ = stored && meta_.run == config.last_run && !config.last_run.empty();
  vouches_for_erased_ = config.bug == PlantedBug::kVouchForErasedDots;
  erased_before_ = meta_.counter_erased;
  erased_in_before_ = meta_.erased_in;
  vouches_for_all_ = config.bug == PlantedBug::kVouchForLostDots;
  if (!nothing_lost_) meta_.counter_floor = next_;
  if (vouches_for_all_) meta_.counter_floor = 0;
  meta_.run = config.run;
  meta_.counter_reserved = saturated(next_ + kBlock);
  meta_.hlc_reserved = std::max(Hlc{meta_.hlc_reserved.value + kClockRoom}, Hlc::from_ms(wall_ms + kClockAheadMs));
  durable_ = 0;
  return meta_;
}

NodeMeta DotSource::erases(std::uint16_t partition) {
  erased_[partition] = meta_.counter_erased = next_;
  meta_.erased_in.resize(kPartitions / 8);
  auto& byte = meta_.erased_in[partition / 8];
  byte = static_cast<char>(byte | 1 << partition % 8);
  return meta_;
}

NodeMeta DotSource::with_floor(std::uint16_t partition, Hlc floor) {
  if (floor != this->floor(partition)) {
    meta_.floors.resize(kPartitions);
    meta_.floors[partition] = floor;
  }
  return meta_;
}

bool DotSource::erased_before(std::uint16_t partition) const {
  return partition / 8u < erased_in_before_.size() && (erased_in_before_[partition / 8] >> partition % 8 & 1) != 0;
}

std::uint64_t DotSource::vouches_from(std::uint16_t partition, std::uint64_t last) const {
  auto floor = meta_.counter_floor;
  if (!vouches_for_erased_) {
    const auto erased = erased_.find(partition);
    if (erased != erased_.end()) {
      floor = std::max(floor, erased->second);
    } else if (erased_before(partition)) {
      floor = std::max(floor, erased_before_);
    }
  }
  return floor == 0 ? last : std::max(last, floor - 1);
}

std::optional<Dot> DotSource::next() {
  if (next_ >= durable_) return std::nullopt;
  return Dot{meta_.node, next_++};
}

std::optional<NodeMeta> DotSource::extend(Hlc clock, std::int64_t wall_ms) {
  const bool counters_low = next_ + kBlock / 2 > meta_.counter_reserved && meta_.counter_reserved < kMaxSequenceNumber;
  const bool clock_low = clock.value + kClockRoom / 2 > meta_.hlc_reserved.value ||
                         Hlc::from_ms(wall_ms + kClockAheadMs / 2) > meta_.hlc_reserved;
  if (!counters_low && !clock_low && !moved_) return std::nullopt;
  moved_ = false;
  if (counters_low) meta_.counter_reserved = saturated(std::max(meta_.counter_reserved, next_) + kBlock);
  if (clock_low) {
    meta_.hlc_reserved = std::max(Hlc{clock.value + kClockStep}, Hlc::from_ms(wall_ms + kClockAheadMs));
  }
  return meta_;
}

bool DotSource::observe(std::uint64_t counter) {
  if (counter < next_) return false;
  next_ = saturated(counter + 1);
  durable_ = 0;
  moved_ = true;
  if (!vouches_for_all_) meta_.counter_floor = next_;
  return true;
}

}  // namespace kinfs::cluster
