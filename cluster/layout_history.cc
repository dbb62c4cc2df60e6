#include "cluster/layout_history.h"

#include <algorithm>
#include <utility>

namespace kinfs::cluster {
namespace {

Role merge(const Role& a, const Role& b) {
  Role out = a;
  const bool excused = a.part == Role::Part::kExcused || b.part == Role::Part::kExcused;
  if (b.part_said > a.part_said) out.part = b.part, out.part_said = b.part_said;
  if (excused) out.part = Role::Part::kExcused;
  if (b.share_said > a.share_said) out.weight = b.weight, out.zone = b.zone, out.share_said = b.share_said;
  return out;
}

bool is_member(const LayoutRecord& record, NodeId node) {
  const auto role = record.roles.find(node);
  return role != record.roles.end() && role->second.part == Role::Part::kMember;
}

bool is_excused(const LayoutRecord& record, NodeId node) {
  const auto role = record.roles.find(node);
  return role != record.roles.end() && role->second.part == Role::Part::kExcused;
}

/// Whether `a` excuses somebody who excused another in `b`, of which `a` does not know, and the other way round.
bool excuse_each_other(const LayoutRecord& a, const LayoutRecord& b) {
  const auto excuses_one_of = [](const LayoutRecord& one, const LayoutRecord& other) {
    std::set<NodeId> excusers;
    for (const auto& [node, role] : other.roles) {
      if (role.part == Role::Part::kExcused && !is_excused(one, node)) excusers.insert(role.part_said.by);
    }
    return std::any_of(excusers.begin(), excusers.end(),
                       [&](NodeId node) { return is_excused(one, node) && !is_excused(other, node); });
  };
  return excuses_one_of(a, b) && excuses_one_of(b, a);
}

template <class T>
auto& of(T& tracker, LayoutHistory::Step step) {
  if (step == LayoutHistory::Step::kAcked) return tracker.acked;
  return step == LayoutHistory::Step::kSynced ? tracker.synced : tracker.read;
}

}  // namespace

Roles merge(const Roles& a, const Roles& b) {
  Roles out = a;
  for (const auto& [node, role] : b) {
    const auto [known, is_new] = out.try_emplace(node, role);
    if (!is_new) known->second = merge(known->second, role);
  }
  return out;
}

LayoutHistory::LayoutHistory(LayoutRecord base) : base_(std::move(base)), head_(base_) {}

LayoutHistory::LayoutHistory(Layouts layouts) : base_(std::move(layouts.base)), trackers_(std::move(layouts.trackers)) {
  for (auto& record : layouts.records) records_.emplace(record.id, std::move(record));
  drop_orphans();
  head_ = together();
}

Layouts LayoutHistory::layouts() const {
  Layouts out{base_, {}, trackers_};
  for (const auto& [id, record] : records_) out.records.push_back(record);
  return out;
}

// --- The records ---

std::vector<LayoutId> LayoutHistory::heads() const {
  std::set<LayoutId> out;
  for (const auto& [id, record] : records_) out.insert(id);
  for (const auto& [id, record] : records_) {
    for (const auto& parent : record.parents) out.erase(parent);
  }
  if (out.empty()) out.insert(base_.id);
  return {out.begin(), out.end()};
}

LayoutRecord LayoutHistory::together() const {
  const auto of_all = heads();
  if (of_all.front() == base_.id) return base_;
  LayoutRecord out = records_.at(of_all.front());
  if (of_all.size() == 1) return out;
  const auto& last = records_.at(of_all.back());
  bool at_odds = false;
  for (const auto& id : of_all) {
    const auto& record = records_.at(id);
    at_odds = at_odds || excuse_each_other(record, last);
    out.roles = cluster::merge(out.roles, record.roles);
    out.replicas = std::max(out.replicas, record.replicas);
    out.rule = std::max(out.rule, record.rule);
  }
  const auto is_one = [](const auto& entry) { return entry.second.part == Role::Part::kMember; };
  if (at_odds || std::none_of(out.roles.begin(), out.roles.end(), is_one)) {
    for (auto& [node, role] : out.roles) {
      const auto known = last.roles.find(node);
      if (known == last.roles.end()) continue;
      role.part = known->second.part;
      role.part_said = known->second.part_said;
    }
  }
  out.parents = of_all;
  out.computed = true;
  out.id = layout_id_of(last.id.number + 1, out);
  return out;
}

std::vector<const LayoutRecord*> LayoutHistory::active() const {
  std::vector<const LayoutRecord*> out{&base_};
  for (const auto& [id, record] : records_) {
    if (id != head_.id) out.push_back(&record);
  }
  if (changing()) out.push_back(&head_);
  return out;
}

bool LayoutHistory::is_member(NodeId node) const { return cluster::is_member(head_, node); }

std::set<LayoutId> LayoutHistory::with_ancestors(const LayoutId& id) const {
  std::set<LayoutId> out;
  std::vector<LayoutId> next{id};
  while (!next.empty()) {
    const auto at = next.back();
    next.pop_back();
    if (!is_active(at) || !out.insert(at).second) continue;
    const auto record = records_.find(at);
    const auto& parents = record != records_.end() ? record->second.parents : head_.parents;
    if (at != base_.id) next.insert(next.end(), parents.begin(), parents.end());
  }
  return out;
}

bool LayoutHistory::follows(const LayoutId& id, const LayoutId& floor) const {
  return is_active(id) && (floor == base_.id || with_ancestors(id).contains(floor));
}

bool LayoutHistory::all_did(Step step, const LayoutId& id) const {
  const auto ancestors = with_ancestors(id);
  const auto did = [&](NodeId node) {
    const auto tracker = trackers_.find(node);
    return tracker != trackers_.end() && follows(of(tracker->second, step), id);
  };
  const auto all = active();
  return std::all_of(all.begin(), all.end(), [&](const LayoutRecord* record) {
    return !ancestors.contains(record->id) ||
           std::all_of(record->roles.begin(), record->roles.end(), [&](const auto& entry) {
             const auto node = entry.first;
             return !cluster::is_member(*record, node) || is_excused(head_, node) || did(node);
           });
  });
}

bool LayoutHistory::stands_alone(const LayoutId& id) const {
  const auto ancestors = with_ancestors(id);
  const auto all = active();
  return std::all_of(all.begin(), all.end(), [&](const LayoutRecord* record) {
    return ancestors.contains(record->id) || follows(record->id, id);
  });
}

LayoutId LayoutHistory::floor() const {
  for (auto record = records_.rbegin(); record != records_.rend(); ++record) {
    if (all_did(Step::kAcked, record->first)) return record->first;
  }
  return base_.id;
}

const LayoutRecord& LayoutHistory::reading(NodeId self) const {
  if (changing() && missing(Step::kSynced).empty()) return head_;
  const LayoutRecord* latest = nullptr;
  const bool joins = !cluster::is_member(base_, self);
  for (const auto& [node, tracker] : trackers_) {
    const auto record = records_.find(tracker.read);
    if (record == records_.end() || (node != self && !joins)) continue;
    if (node == self) return record->second;
    if (latest == nullptr || latest->id < record->first) latest = &record->second;
  }
  return latest == nullptr ? base_ : *latest;
}

bool LayoutHistory::serves_read(const LayoutId& id, NodeId from, NodeId self) const {
  if (!waits_for(from) || !waits_for(self)) return false;
  const auto all = active();
  const auto by = std::find_if(all.begin(), all.end(), [&](const auto* record) { return record->id == id; });
  if (by == all.end()) return false;
  const auto own = trackers_.find(self);
  const bool turned = own != trackers_.end() && is_active(own->second.read);
  return cluster::is_member(**by, from) || !turned || follows(id, own->second.read);
}

void LayoutHistory::keep_head() {
  if (changing()) records_.emplace(head_.id, head_);
}

LayoutId LayoutHistory::change(const Roles& roles) {
  keep_head();
  LayoutRecord record = head_;
  record.roles = cluster::merge(head_.roles, roles);
  record.parents = {head_.id};
  record.computed = false;
  record.rule = kLatestRule;
  record.id = layout_id_of(head_.id.number + 1, record);
  const auto id = record.id;
  records_.emplace(id, std::move(record));
  head_ = together();
  return id;
}

// --- What another knows ---

void LayoutHistory::begin_at(LayoutRecord base) {
  std::vector<LayoutId> before = base.parents;
  before.push_back(base.id);
  while (!before.empty()) {
    const auto record = records_.find(before.back());
    before.pop_back();
    if (record == records_.end()) continue;
    before.insert(before.end(), record->second.parents.begin(), record->second.parents.end());
    records_.erase(record);
  }
  base_ = std::move(base);
}

// What was made on top of what nobody knows any more: by a host that was excused meanwhile, or lost its disk.
void LayoutHistory::drop_orphans() {
  while (std::erase_if(records_, [&](const auto& entry) { return !stands(entry.second); }) > 0) {
  }
}

bool LayoutHistory::stands(const LayoutRecord& record) const {
  return std::all_of(record.parents.begin(), record.parents.end(), [&](const LayoutId& id) { return knows(id); });
}

bool LayoutHistory::merge(const LayoutHistory& other, NodeId self) {
  const auto before = *this;
  auto theirs = other;
  if (base_.id != other.base_.id) {
    const bool they_are_ahead = other.base_.id > base_.id;
    auto& behind = they_are_ahead ? *this : theirs;
    behind.begin_at(they_are_ahead ? other.base_ : base_);
  }
  records_.merge(theirs.records_);
  drop_orphans();
  head_ = together();
  if (!is_bounded()) {
    *this = before;
    return false;
  }
  for (const auto& [node, tracker] : other.trackers_) {
    auto& known = trackers_[node];
    if (node != self) {
      known = std::max(known, tracker);
    } else if (tracker > known) {
      // What it reads by, others go by for good.
      known = {tracker.turn + 1, {}, {}, tracker.read};
    }
  }
  drop_strangers();
  return *this != before;
}

// So that what is told to others is never more than they take.
bool LayoutHistory::is_bounded() const {
  return records_.size() <= kMaxLayouts && head_.roles.size() <= kMaxRoles && head_.id.number <= kMaxLayoutNumber;
}

// Of hosts that no layout knows, nothing is kept.
void LayoutHistory::drop_strangers() {
  const auto all = active();
  std::erase_if(trackers_, [&](const auto& entry) {
    return std::none_of(all.begin(), all.end(), [&](const auto* r) { return r->roles.contains(entry.first); });
  });
}

// --- The steps ---

void LayoutHistory::say(NodeId self, Step step) {
  keep_head();
  auto& own = trackers_[self];
  if (std::exchange(of(own, step), head_.id) != head_.id) ++own.turn;
}

bool LayoutHistory::has(NodeId node, Step step) const {
  const auto found = trackers_.find(node);
  if (found == trackers_.end()) return false;
  return of(found->second, step) == head_.id;
}

std::set<NodeId> LayoutHistory::missing(Step step) const {
  std::set<NodeId> out;
  if (!changing()) return out;
  for (const auto* record : active()) {
    for (const auto& [node, role] : record->roles) {
      if (cluster::is_member(*record, node) && !is_excused(head_, node) && !has(node, step)) out.insert(node);
    }
  }
  return out;
}

bool LayoutHistory::waits_for(NodeId node) const {
  if (is_excused(head_, node)) return false;
  const auto all = active();
  return std::any_of(all.begin(), all.end(), [&](const auto* record) { return cluster::is_member(*record, node); });
}

bool LayoutHistory::settle(Step last) {
  for (auto record = records_.rbegin(); record != records_.rend(); ++record) {
    if (!all_did(last, record->first) || !stands_alone(record->first)) continue;
    begin_at(LayoutRecord(record->second));
    return true;
  }
  return false;
}

}  // namespace kinfs::cluster
