#include "cluster/core.h"

namespace kinfs::cluster {

void Core::adopt(LayoutHistory history, const std::vector<Member>& members) {
  const auto before = peers.members();
  placement.set(std::move(history));
  std::set<NodeId> gone;
  for (const auto& [node, role] : placement.history().head().roles) {
    if (!placement.hosts().contains(node)) gone.insert(node);
  }
  peers.set_members(members, placement.hosts(), gone, now.mono_ms);
  if (peers.members() != before) effects_.push_back({new_id(), MembersAre{peers.members()}});
}

bool Core::heard_of(const std::vector<Member>& members) {
  if (!peers.merge(members)) return false;
  effects_.push_back({new_id(), MembersAre{peers.members()}});
  return true;
}

void Core::save(std::uint64_t origin, Batch batch) {
  if (batch.empty()) return;
  for (const auto& [key, row] : batch.rows) {
    saved_now_.insert_or_assign(key, row);
    ++row_changes_[partition_of(key.volume, key.partition_key)];
  }
  for (const auto& key : batch.erase_rows) {
    saved_now_.insert_or_assign(key, Row{});
    ++row_changes_[partition_of(key.volume, key.partition_key)];
  }
  for (const auto& key : batch.erase_blocks) ++block_changes_[partition_of(key.volume, block_partition_key(key))];
  effects_.push_back({origin, Save{std::move(batch)}});
}

void Core::save_block(std::uint64_t origin, const BlockKey& key, const SharedBytes& bytes) {
  ++block_changes_[partition_of(key.volume, block_partition_key(key))];
  effects_.push_back({origin, SaveBlock{key, bytes}});
}

Result<Row> Core::row(const RowKey& key) const {
  const auto it = saved_now_.find(key);
  if (it != saved_now_.end()) return it->second;
  return store.get(key);
}

void Core::send(std::uint64_t origin, NodeId to, std::uint64_t id, std::uint32_t ttl_ms, Body body, LayoutId layout) {
  ++counters.messages_out;
  effects_.push_back({origin, Send{Message{config.self, to, id, layout, ttl_ms, clock.last(), std::move(body)}}});
}

void Core::answer(std::uint64_t origin, const Asker& asker, Answer answer) {
  if (asker.deadline_ms <= now.mono_ms) {
    ++counters.dropped_late;
    return;
  }
  if (auto* error = std::get_if<Error>(&answer); error != nullptr && asker.tried_before) {
    answer = leave_open(std::move(*error));
  }
  if (asker.local) {
    effects_.push_back({origin, Reply{asker.client, std::move(answer)}});
    return;
  }
  const auto ttl_ms = static_cast<std::uint32_t>(asker.deadline_ms - now.mono_ms);
  send(origin, asker.node, asker.id, ttl_ms, ForwardReply{std::move(answer)});
}

void Core::after_sync(std::uint64_t origin, std::function<void()> then) {
  const auto token = new_id();
  syncs_.emplace(token, PendingSync{origin, std::move(then)});
  effects_.push_back({origin, Sync{token}});
  if (bug(PlantedBug::kSyncBeforeDisk)) synced(token);
}

void Core::synced(std::uint64_t token) {
  if (auto node = syncs_.extract(token)) node.mapped().then();
}

void Core::save_failed(std::uint64_t origin, const Error& error) {
  // The runner skipped this origin's Sync: nobody will report it.
  std::erase_if(syncs_, [&](const auto& entry) { return entry.second.origin == origin; });
  if (auto node = failures_.extract(origin)) node.mapped()(error);
}

void Core::keep_hint(Batch& batch, NodeId target, const RowKey& key) {
  ++counters.hints_kept;
  batch.add_hints.push_back({target, ++last_hint_sequence_, key});
}

void Core::keep_hint(Batch& batch, NodeId target, const BlockKey& key) {
  ++counters.hints_kept;
  batch.add_block_hints.push_back({target, ++last_hint_sequence_, key});
}

void Core::observe(const Row& row) {
  if (dots.observe(row.context.counter_of(config.self))) ++counters.unknown_own_dots;
}

}  // namespace kinfs::cluster
