#include "cluster/horizon.h"

#include <algorithm>
#include <limits>

namespace kinfs::cluster {
namespace {
constexpr std::int64_t kStepsPerLag = 10;
}  // namespace

void Horizon::start() {
  durable_ = core_.dots.horizon();
  // Not from the hybrid clock, which is ahead for ever where the wall clock once was.
  if (!core_.dots.nothing_lost()) guess_ = behind(Hlc::from_ms(core_.now.wall_ms));
}

Hlc Horizon::behind(Hlc clock) const {
  const std::int64_t lag_ms = core_.config.reap_after_ms;
  return lag_ms == 0 ? Hlc{} : Hlc::from_ms(std::max<std::int64_t>(0, clock.physical_ms() - lag_ms));
}

void Horizon::clock_of(NodeId node, Hlc clock) {
  auto& known = clocks_[node];
  known = std::max(known, clock);
}

Hlc Horizon::candidate() const {
  // Hybrid clocks are ahead of it after a start, and a disk that is new or an older one knows of the wall clock alone.
  Hlc least = Hlc::from_ms(core_.now.wall_ms);
  for (const auto node : core_.placement.hosts()) {
    if (node == core_.config.self) continue;
    const auto it = clocks_.find(node);
    least = std::min(least, it == clocks_.end() ? Hlc{} : it->second);
  }
  return behind(least);
}

void Horizon::tick() {
  const std::int64_t lag_ms = core_.config.reap_after_ms;
  if (lag_ms == 0 || core_.now.mono_ms < next_ms_) return;
  next_ms_ = core_.now.mono_ms + std::max<std::int64_t>(1, lag_ms / kStepsPerLag);
  const auto& hosts = core_.placement.hosts();
  std::erase_if(horizons_, [&](const auto& known) { return !hosts.contains(known.first); });
  std::erase_if(clocks_, [&](const auto& known) { return !hosts.contains(known.first); });
  const auto& history = core_.placement.history();
  if (history.changing() || !history.is_member(core_.config.self)) return;
  if (hosts.size() <= core_.placement.head().replicas()) reached(to_reach());
  raise_limit(std::max({candidate(), core_.dots.horizon(), learned_}));
}

/// A limit may be ahead of all others' clocks, where this one's is: then what others write would be forgotten.
Hlc Horizon::to_reach() const { return std::min(durable_, candidate()); }

void Horizon::look_begins() { look_from_ = to_reach(); }

void Horizon::raise_limit(Hlc limit) {
  if (limit <= durable_) return;
  const auto origin = core_.new_id();
  Batch batch;
  batch.meta = core_.dots.with_horizon(limit);
  core_.save(origin, std::move(batch));
  core_.after_sync(origin, [this, limit] { durable_ = std::max(durable_, limit); });
}

void Horizon::look_ended(bool holds_nothing) {
  const auto from = std::exchange(look_from_, std::nullopt);
  if (from && holds_nothing) reached(*from);
}

void Horizon::reached(Hlc clock) {
  auto& own = horizons_[core_.config.self];
  own = std::max(own, clock);
}

void Horizon::heard(const std::vector<std::pair<NodeId, Hlc>>& horizons, Hlc clock) {
  for (const auto& [node, horizon] : horizons) {
    if (horizon > clock) continue;
    guess_ = {};
    learned_ = std::max(learned_, horizon);
    if (node == core_.config.self || !core_.placement.hosts().contains(node)) continue;
    auto& known = horizons_[node];
    known = std::max(known, horizon);
  }
}

Hlc Horizon::least() const {
  Hlc least{std::numeric_limits<std::uint64_t>::max()};
  for (const auto node : core_.placement.hosts()) {
    const auto it = horizons_.find(node);
    least = std::min(least, it == horizons_.end() ? Hlc{} : it->second);
  }
  return least;
}

}  // namespace kinfs::cluster
