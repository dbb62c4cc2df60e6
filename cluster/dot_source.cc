#include "cluster/dot_source.h"

#include <algorithm>

namespace kinfs::cluster {

NodeMeta DotSource::start(const std::optional<NodeMeta>& stored, const NodeConfig& config, std::int64_t wall_ms) {
  if (stored) meta_ = *stored;
  meta_.node = config.self;
  meta_.cluster_id = config.cluster_id;
  meta_.boot += 1;
  next_ = std::max<std::uint64_t>(1, meta_.counter_reserved);
  const bool nothing_lost = stored && meta_.machine_boot == config.machine_boot && !config.machine_boot.empty();
  if (!nothing_lost) meta_.counter_floor = next_;
  if (config.bug == PlantedBug::kVouchForLostDots) meta_.counter_floor = 0;
  meta_.machine_boot = config.machine_boot;
  meta_.counter_reserved = next_ + kBlock;
  meta_.hlc_reserved = std::max(meta_.hlc_reserved, Hlc::from_ms(wall_ms + kClockAheadMs));
  durable_ = 0;
  return meta_;
}

std::optional<Dot> DotSource::next() {
  if (next_ >= durable_) return std::nullopt;
  return Dot{meta_.node, next_++};
}

std::optional<NodeMeta> DotSource::extend(Hlc clock) {
  const bool counters_low = next_ + kBlock / 2 > meta_.counter_reserved;
  const bool clock_low = clock.physical_ms() + kClockAheadMs / 2 > meta_.hlc_reserved.physical_ms();
  if (!counters_low && !clock_low) return std::nullopt;
  if (counters_low) meta_.counter_reserved = std::max(meta_.counter_reserved, next_) + kBlock;
  if (clock_low) meta_.hlc_reserved = Hlc::from_ms(clock.physical_ms() + kClockAheadMs);
  return meta_;
}

bool DotSource::observe(std::uint64_t counter) {
  if (counter < next_) return false;
  next_ = counter + 1;
  return true;
}

}  // namespace kinfs::cluster
