#include "cluster/replication.h"

#include <algorithm>
#include <utility>

namespace kinfs::cluster {

Replication::Plan Replication::plan(std::uint64_t id, std::uint16_t partition, bool sync) const {
  Plan plan;
  plan.id = id;
  plan.owners = core_.placement.owners(partition).size();
  plan.preference = core_.placement.preference(partition);
  plan.quorums = core_.placement.write_quorums(partition);
  plan.self_is_owner = core_.owns(partition);
  plan.sync = sync;
  return plan;
}

bool Replication::has_before(std::uint64_t id) const {
  return std::any_of(under_way_.begin(), under_way_.end(), [id](const auto& entry) { return entry.first < id; });
}

std::vector<NodeId> Replication::hinted_here(const std::vector<NodeId>& preference, std::size_t owners) const {
  std::vector<NodeId> down, here;
  std::size_t stand_ins = 0;
  bool own = false;
  for (std::size_t i = 0; i < preference.size(); ++i) {
    const bool self = preference[i] == core_.config.self;
    const bool healthy = core_.peers.healthy(preference[i]);
    own |= self && i < owners;
    if (i < owners && !healthy) down.push_back(preference[i]);
    if (i >= owners && healthy && !self) ++stand_ins;
  }
  // Stand-ins are given out in the order of the owners: the last ones go without.
  for (std::size_t i = 0; i < down.size(); ++i) {
    if (i == 0 && !own) {
      here.push_back(down[i]);
    } else if (stand_ins > 0) {
      --stand_ins;
    } else {
      here.push_back(down[i]);
    }
  }
  return here;
}

void Replication::begin(Plan plan) {
  const auto id = plan.id;
  auto& op = under_way_.emplace(id, UnderWay{}).first->second;
  op.plan = std::move(plan);
  op.next_stand_in = op.plan.owners;
  core_.on_save_failure(id, [this, id, fail = op.plan.fail](const Error& error) {
    const auto it = under_way_.find(id);
    if (it != under_way_.end()) {
      answered_ -= it->second.answered;
      under_way_.erase(it);
    }
    ++core_.counters.refused;
    fail(error);
  });
  // All at once, although fewer are waited for: the first of two answers comes sooner than that of a chosen one. To
  // send the third copy later, several together, took a sixth of the system calls away, and each create 10 % longer.
  for (std::size_t i = 0; i < op.plan.owners; ++i) {
    const auto owner = op.plan.preference[i];
    if (owner == core_.config.self) continue;
    if (core_.peers.healthy(owner)) ask(op, owner, {});
  }
  const auto here = hinted_here(op.plan.preference, op.plan.owners);
  op.stands_in = !op.plan.self_is_owner && !here.empty();
  for (std::size_t i = 0; i < op.plan.owners; ++i) {
    const auto owner = op.plan.preference[i];
    if (core_.peers.healthy(owner)) continue;
    if (std::find(here.begin(), here.end(), owner) == here.end()) stand_in(op, {owner});
  }
}

void Replication::ask(UnderWay& op, NodeId node, std::vector<NodeId> hint_for) {
  core_.send(op.plan.id, node, op.plan.id, core_.config.request_timeout_ms, op.plan.body(hint_for));
  op.pending.push_back({node, std::move(hint_for), core_.now.mono_ms + core_.config.request_timeout_ms});
}

void Replication::stand_in(UnderWay& op, std::vector<NodeId> owners) {
  if (!op.plan.self_is_owner && !std::exchange(op.stands_in, true)) return keep_hints(op, owners);
  const auto& list = op.plan.preference;
  while (op.next_stand_in < list.size()) {
    const auto node = list[op.next_stand_in++];
    if (node == core_.config.self || !core_.peers.healthy(node)) continue;
    ask(op, node, std::move(owners));
    return;
  }
  keep_hints(op, owners);
}

void Replication::keep_hints(UnderWay& op, const std::vector<NodeId>& owners) {
  const auto id = op.plan.id;
  // An origin of its own: should this fail, what else is under way for this write goes on.
  if (op.hint_round != core_.round()) {
    op.hint_round = core_.round();
    op.hint_origin = core_.new_id();
    op.hint_syncs = 0;
  }
  core_.on_save_failure(op.hint_origin, [this, id](const Error&) { hint_failed(id); });
  op.plan.keep_hints(op.hint_origin, owners);
  if (!op.plan.sync) return;
  ++op.hints_syncing;
  ++op.hint_syncs;
  core_.after_sync(op.hint_origin, [this, id] {
    const auto it = under_way_.find(id);
    if (it == under_way_.end()) return;
    --it->second.hints_syncing;
    settle(id);
  });
}

void Replication::hint_failed(std::uint64_t id) {
  ++core_.counters.refused;
  const auto it = under_way_.find(id);
  if (it == under_way_.end()) return;
  it->second.hint_lost = true;
  it->second.hints_syncing -= it->second.hint_syncs;  // skipped with the failed save
  settle(id);
}

void Replication::confirmed_here(std::uint64_t id) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end()) return;
  it->second.here = true;
  if (it->second.plan.self_is_owner) it->second.confirmed.push_back(core_.config.self);
  settle(id);
}

void Replication::confirmed(std::uint64_t id, NodeId from) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end()) return;
  auto& pending = it->second.pending;
  const auto target = std::find_if(pending.begin(), pending.end(), [&](const Target& t) { return t.node == from; });
  if (target == pending.end()) return;  // a repeated answer, or one that came after its time
  if (target->hint_for.empty()) it->second.confirmed.push_back(from);
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

void Replication::settle(std::uint64_t id) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end()) return;
  auto& op = it->second;
  const bool enough = met_by(op.plan.quorums, op.confirmed);
  const bool hints_kept = op.hints_syncing == 0 || core_.bug(PlantedBug::kAnswerBeforeHint);
  const bool nothing_more = op.pending.empty() && op.here && hints_kept;
  if (!op.answered && op.here && (enough || nothing_more)) {
    op.answered = true;
    ++answered_;
    const auto open = [fail = op.plan.fail] {
      fail({Errc::kTimeout,
            "too few hosts took it, and this one has no room to keep it for the others: it may come "
            "through, or not"});
    };
    if (enough) {
      op.plan.answer(id, false);
    } else if (op.hint_lost) {
      open();
    } else if (op.hint_round == core_.round()) {
      // The answer stands or falls with the hint.
      core_.on_save_failure(op.hint_origin, [open](const Error&) { open(); });
      op.plan.answer(op.hint_origin, true);
    } else {
      op.plan.answer(id, true);
    }
  }
  if (!nothing_more) return;
  answered_ -= op.answered;
  under_way_.erase(it);
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
