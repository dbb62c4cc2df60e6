#include "cluster/blocks.h"

#include <algorithm>

#include "cluster/replica.h"

namespace kinfs::cluster {

void BlockCoordinator::put(const Asker& asker, PutBlockRequest request) {
  ++core_.counters.blocks_put;
  const auto id = core_.new_id();
  const auto partition = partition_of(request.key.volume, block_partition_key(request.key));
  auto plan = replication_.plan(id, partition, request.options.sync);
  plan.held = Held(core_.bytes_held, kOperationBytes + request.bytes->size());

  // A copy is kept here by an owner, or by who must keep the hint.
  const auto hint_all = [key = request.key, this](Batch& batch, const std::vector<NodeId>& owners) {
    for (const auto owner : owners) core_.keep_hint(batch, owner, key);
  };
  const auto here = replication_.hinted_here(plan.preference, plan.owners);
  if (plan.self_is_owner || !here.empty()) core_.save_block(id, request.key, request.bytes);
  Batch batch;
  hint_all(batch, here);
  core_.save(id, std::move(batch));

  plan.body = [key = request.key, bytes = request.bytes,
               sync = request.options.sync](std::vector<NodeId> hint_for) -> Body {
    return WriteBlock{key, bytes, sync, std::move(hint_for)};
  };
  plan.keep_hints = [this, hint_all, key = request.key, bytes = request.bytes](std::uint64_t origin,
                                                                               const std::vector<NodeId>& owners) {
    core_.save_block(origin, key, bytes);  // does nothing where it is stored already
    Batch hints;
    hint_all(hints, owners);
    core_.save(origin, std::move(hints));
  };
  plan.answer = [this, asker](std::uint64_t origin, bool degraded) {
    core_.answer(origin, asker, BlockStored{degraded});
  };
  plan.fail = [this, asker](const Error& error) { core_.answer(core_.new_id(), asker, error); };
  replication_.begin(std::move(plan));
  if (request.options.sync) {
    core_.after_sync(id, [this, id] { replication_.confirmed_here(id); });
  } else {
    replication_.confirmed_here(id);
  }
}

void BlockCoordinator::get(const Asker& asker, const GetBlockRequest& request) {
  ++core_.counters.blocks_got;
  const auto id = core_.new_id();
  auto here = core_.store.get_block(request.key);
  if (here) {
    core_.answer(id, asker, BlockFound{std::move(*here)});
    return;
  }
  UnderWay op{asker, request.key, {}, {}, 0, {}};
  const auto partition = partition_of(request.key.volume, block_partition_key(request.key));
  if (is_lost(here.error())) op.without.push_back(core_.config.self);
  // Healthy ones first, then those that are suspected: suspicion may be wrong, and a block has no other source.
  for (const bool healthy : {false, true}) {
    const auto order = core_.placement.preference(partition);
    for (auto it = order.rbegin(); it != order.rend(); ++it) {
      if (*it != core_.config.self && core_.peers.healthy(*it) == healthy) op.left.push_back(*it);
    }
  }
  under_way_.emplace(id, std::move(op));
  ask_next(id);
}

void BlockCoordinator::ask_next(std::uint64_t id) {
  auto& op = under_way_.at(id);
  if (op.left.empty()) {
    const auto owners = core_.placement.owners(partition_of(op.key.volume, block_partition_key(op.key)));
    const bool lost = OwnerQuorum{owners, static_cast<std::uint32_t>(owners.size())}.met_by(op.without);
    core_.answer(id, op.asker,
                 lost ? Error{Errc::kCorrupt, "block " + to_hex(view_of(op.key.hash)) + " is on none of its hosts"}
                      : Error{Errc::kUnavailable, "no host that has block " + to_hex(view_of(op.key.hash)) +
                                                      " can be reached; see 'kinfs status'"});
    under_way_.erase(id);
    return;
  }
  op.asked = op.left.back();
  op.left.pop_back();
  op.deadline_ms = core_.now.mono_ms + core_.config.request_timeout_ms;
  core_.send(id, op.asked, id, core_.config.request_timeout_ms, ReadBlock{op.key});
}

void BlockCoordinator::replied(std::uint64_t id, NodeId from, const ReadBlockReply& reply) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end() || it->second.asked != from) return;
  auto& op = it->second;
  const auto partition = partition_of(op.key.volume, block_partition_key(op.key));
  // The hash, not the replica, says that these are the bytes.
  const bool good = reply.bytes != nullptr && sha256(*reply.bytes) == op.key.hash;
  if (!good) {
    op.without.push_back(from);
    ask_next(id);
    return;
  }
  core_.answer(id, op.asker, BlockFound{reply.bytes});
  if (core_.owns(partition)) {  // read repair
    const auto repair = core_.new_id();
    ++core_.counters.repairs;
    core_.save_block(repair, op.key, reply.bytes);
  }
  under_way_.erase(it);
}

void BlockCoordinator::sync(const Asker& asker, const BlockSet& blocks) {
  const auto id = core_.new_id();
  const auto partition = partition_of(blocks.volume, block_partition_key(blocks.key({})));
  // A disk that has much to write takes longer than a healthy host does to answer: all of the asker's patience but what
  // it takes to tell it.
  const std::int64_t timeout_ms = core_.config.request_timeout_ms;
  const auto patience_ms = std::max(asker.deadline_ms - core_.now.mono_ms - timeout_ms, timeout_ms);
  Syncing op{asker, {}, {}, core_.placement.write_quorums(partition), core_.now.mono_ms + patience_ms};
  for (const auto owner : core_.placement.owners(partition)) {
    if (owner != core_.config.self && !core_.peers.healthy(owner)) continue;
    if (owner == core_.config.self) {
      const auto here = has_all(core_, blocks);
      if (!here || !*here) continue;
      core_.after_sync(id, [this, id] { synced(id, core_.config.self, true); });
    } else {
      core_.send(id, owner, id, static_cast<std::uint32_t>(timeout_ms), SyncBlocks{blocks});
    }
    op.asked.push_back(owner);
  }
  syncing_.emplace(id, std::move(op));
  settle_sync(id);
}

void BlockCoordinator::synced(std::uint64_t id, NodeId from, bool all) {
  const auto it = syncing_.find(id);
  if (it == syncing_.end() || std::erase(it->second.asked, from) == 0) return;
  if (all) it->second.confirmed.push_back(from);
  settle_sync(id);
}

void BlockCoordinator::settle_sync(std::uint64_t id) {
  const auto& op = syncing_.at(id);
  const bool enough = met_by(op.quorums, op.confirmed);
  auto at_most = op.confirmed;
  at_most.insert(at_most.end(), op.asked.begin(), op.asked.end());
  if (!enough && met_by(op.quorums, at_most)) return;
  core_.answer(id, op.asker, BlocksSynced{enough});
  syncing_.erase(id);
}

bool BlockCoordinator::syncs_before(std::uint64_t id) const {
  return std::any_of(syncing_.begin(), syncing_.end(), [id](const auto& entry) { return entry.first < id; });
}

void BlockCoordinator::refused(std::uint64_t id, NodeId from) {
  synced(id, from, false);
  const auto it = under_way_.find(id);
  if (it != under_way_.end() && it->second.asked == from) ask_next(id);
}

void BlockCoordinator::tick() {
  std::vector<std::uint64_t> late;
  for (const auto& [id, op] : under_way_) {
    if (op.deadline_ms <= core_.now.mono_ms) late.push_back(id);
  }
  std::sort(late.begin(), late.end());
  for (const auto id : late) ask_next(id);
  late.clear();
  for (const auto& [id, op] : syncing_) late.push_back(id);
  std::sort(late.begin(), late.end());
  for (const auto id : late) {
    auto& op = syncing_.at(id);
    const bool given_up = op.deadline_ms <= core_.now.mono_ms;
    std::erase_if(op.asked, [&](NodeId node) {
      return given_up || (node != core_.config.self && !core_.peers.healthy(node));
    });
    settle_sync(id);
  }
}

}  // namespace kinfs::cluster
