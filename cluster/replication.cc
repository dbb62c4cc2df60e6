#include "cluster/replication.h"

#include <algorithm>

namespace kinfs::cluster {

std::vector<NodeId> Replication::hopeless_owners(const std::vector<NodeId>& preference, std::uint32_t owners) const {
  std::vector<NodeId> down;
  std::size_t stand_ins = 0;
  for (std::size_t i = 0; i < preference.size(); ++i) {
    const bool healthy = core_.peers.healthy(preference[i]);
    if (i < owners && !healthy) down.push_back(preference[i]);
    if (i >= owners && healthy && preference[i] != core_.config.self) ++stand_ins;
  }
  // Stand-ins are given out in the order of the owners: the last ones go without.
  down.erase(down.begin(), down.begin() + static_cast<std::ptrdiff_t>(std::min(stand_ins, down.size())));
  return down;
}

void Replication::begin(Plan plan) {
  const auto id = plan.id;
  auto& op = under_way_.emplace(id, UnderWay{}).first->second;
  op.plan = std::move(plan);
  op.next_stand_in = op.plan.owners;
  for (std::size_t i = 0; i < op.plan.owners; ++i) {
    const auto owner = op.plan.preference[i];
    if (owner == core_.config.self) continue;
    if (core_.peers.healthy(owner)) ask(op, owner, {});
  }
  const auto hopeless = hopeless_owners(op.plan.preference, op.plan.owners);
  for (std::size_t i = 0; i < op.plan.owners; ++i) {
    const auto owner = op.plan.preference[i];
    if (core_.peers.healthy(owner)) continue;
    if (std::find(hopeless.begin(), hopeless.end(), owner) == hopeless.end()) stand_in(op, {owner});
  }
}

void Replication::ask(UnderWay& op, NodeId node, std::vector<NodeId> hint_for) {
  core_.send(op.plan.id, node, op.plan.id, core_.config.request_timeout_ms, op.plan.body(hint_for));
  op.pending.push_back({node, std::move(hint_for), core_.now.mono_ms + core_.config.request_timeout_ms});
}

void Replication::stand_in(UnderWay& op, std::vector<NodeId> owners) {
  const auto& list = op.plan.preference;
  while (op.next_stand_in < list.size()) {
    const auto node = list[op.next_stand_in++];
    if (node == core_.config.self || !core_.peers.healthy(node)) continue;
    ask(op, node, std::move(owners));
    return;
  }
  op.plan.keep_hints(owners);
}

void Replication::confirmed_here(std::uint64_t id) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end()) return;
  it->second.here = true;
  if (it->second.plan.self_is_owner) ++it->second.owners_confirmed;
  settle(id);
}

void Replication::confirmed(std::uint64_t id, NodeId from) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end()) return;
  auto& pending = it->second.pending;
  const auto target = std::find_if(pending.begin(), pending.end(), [&](const Target& t) { return t.node == from; });
  if (target == pending.end()) return;  // a repeated answer, or one that came after its time
  if (target->hint_for.empty()) ++it->second.owners_confirmed;
  pending.erase(target);
  settle(id);
}

void Replication::refused(std::uint64_t id, NodeId from) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end()) return;
  auto& op = it->second;
  const auto target =
      std::find_if(op.pending.begin(), op.pending.end(), [&](const Target& t) { return t.node == from; });
  if (target == op.pending.end()) return;
  auto owners = target->hint_for;
  if (owners.empty()) owners.push_back(target->node);
  op.pending.erase(target);
  stand_in(op, std::move(owners));
  settle(id);
}

std::function<void(const Error&)> Replication::give_up(std::uint64_t id, const Asker& asker) {
  return [this, id, asker](const Error& error) {
    const auto it = under_way_.find(id);
    const bool answered = it != under_way_.end() && it->second.answered;
    if (it != under_way_.end()) under_way_.erase(it);
    ++core_.counters.refused;
    if (!answered) core_.answer(core_.new_id(), asker, error);
  };
}

void Replication::settle(std::uint64_t id) {
  auto& op = under_way_.at(id);
  const bool nothing_more = op.pending.empty() && op.here;
  if (!op.answered && op.here && (op.owners_confirmed >= core_.write_quorum() || nothing_more)) {
    op.answered = true;
    op.plan.answer(op.owners_confirmed < core_.write_quorum());
  }
  if (nothing_more) under_way_.erase(id);
}

void Replication::tick() {
  std::vector<std::pair<std::uint64_t, NodeId>> late;
  for (const auto& [id, op] : under_way_) {
    for (const auto& t : op.pending) {
      const bool given_up = t.deadline_ms <= core_.now.mono_ms || !core_.peers.healthy(t.node);
      if (given_up) late.emplace_back(id, t.node);
    }
  }
  std::sort(late.begin(), late.end());  // the order of a hash table must not decide what a simulation does
  for (const auto& [id, node] : late) refused(id, node);
}

}  // namespace kinfs::cluster
