#include "cluster/transition.h"

namespace kinfs::cluster {

using Step = LayoutHistory::Step;

bool Transition::is_drained() const {
  const auto first = membership_.head_since() + 1;
  return !writes_.has_before(first) && !blocks_.syncs_before(first);
}

void Transition::tick() {
  const auto& history = core_.placement.history();
  const auto self = core_.config.self;
  if (!history.changing() || !membership_.known()) return;
  const auto all = [&](Step step) { return history.missing(step).empty(); };
  // What others hear from here must not be older than what this node goes by: see LayoutHistory::reading.
  if (!membership_.on_disk()) return;
  membership_.settle(core_.bug(PlantedBug::kDropBeforeRead) ? Step::kSynced : Step::kRead);
  if (!history.changing() || !history.waits_for(self)) return;
  if (!history.has(self, Step::kAcked)) {
    if (is_drained()) membership_.say(Step::kAcked);
  } else if (!history.has(self, Step::kSynced)) {
    const bool may_begin = all(Step::kAcked) || core_.bug(PlantedBug::kSyncBeforeAcked);
    if (may_begin && anti_entropy_.give_all()) membership_.say(Step::kSynced);
  } else if (!history.has(self, Step::kRead)) {
    const bool may_turn = all(Step::kSynced) || core_.bug(PlantedBug::kReadBeforeSynced);
    if (may_turn && !reads_.goes_by_another(core_.placement.reading().id())) membership_.say(Step::kRead);
  }
}

}  // namespace kinfs::cluster
