#include "cluster/hints.h"

#include <algorithm>

namespace kinfs::cluster {
namespace {
constexpr std::size_t kRowsPerBatch = 64;
constexpr std::size_t kRowBytesPerBatch = 256 << 10;
constexpr std::int64_t kRetryMs = 500;
constexpr std::int64_t kIdleMs = 100;  // between two looks at an empty queue

std::size_t size_of(const Row& row) {
  std::size_t bytes = 64;
  for (const auto& v : row.versions) bytes += v.value.size() + 128;
  return bytes;
}
}  // namespace

Result<void> HintReplay::start() {
  auto last = core_.store.last_hint_sequence();
  if (!last) return pass(std::move(last));
  core_.last_hint_sequence() = *last;
  for (const auto node : core_.peers.ids()) queues_[node];
  return {};
}

bool HintReplay::idle() const {
  if (!under_way_.empty()) return false;
  return std::all_of(queues_.begin(), queues_.end(), [&](const auto& entry) {
    const auto& [node, queue] = entry;
    return !core_.peers.healthy(node) || kept_for(node) == 0;
  });
}

std::uint64_t HintReplay::kept_for(NodeId node) const {
  // Counted when asked for (status, tests), not on the way of each put.
  std::uint64_t count = 0;
  for (std::uint64_t after = 0;;) {
    const auto page = core_.store.hints(node, after, 4096);
    if (!page || page->empty()) break;
    count += page->size();
    after = page->back().sequence;
  }
  for (std::uint64_t after = 0;;) {
    const auto page = core_.store.block_hints(node, after, 4096);
    if (!page || page->empty()) break;
    count += page->size();
    after = page->back().sequence;
  }
  return count;
}

void HintReplay::tick() {
  std::vector<std::uint64_t> late;
  for (const auto& [id, op] : under_way_) {
    if (op.deadline_ms <= core_.now.mono_ms) late.push_back(id);
  }
  std::sort(late.begin(), late.end());
  for (const auto id : late) {
    auto& queue = queues_[under_way_.at(id).target];
    queue.busy = false;
    queue.next_ms = core_.now.mono_ms + kRetryMs;
    under_way_.erase(id);
  }
  for (auto& [node, queue] : queues_) {
    if (queue.busy || queue.next_ms > core_.now.mono_ms || !core_.peers.healthy(node)) continue;
    queue.busy = send_block(node) || send_rows(node);  // blocks first: a row must not arrive before its bytes
    if (!queue.busy) queue.next_ms = core_.now.mono_ms + kIdleMs;
  }
}

bool HintReplay::send_rows(NodeId target) {
  const auto page = core_.store.hints(target, 0, kRowsPerBatch);
  if (!page || page->empty()) return false;
  UnderWay op;
  op.target = target;
  const auto& first = page->front().key;
  WriteRows write{first.volume, first.partition_key, {}, false, {}};
  std::size_t bytes = 0;
  for (const auto& hint : *page) {
    // The run of rows of one partition key: a batch that came together goes together.
    if (hint.key.volume != first.volume || hint.key.partition_key != first.partition_key) break;
    auto row = core_.store.get(hint.key);
    if (!row) break;
    bytes += size_of(*row);
    if (!write.rows.empty() && bytes > kRowBytesPerBatch) break;
    write.rows.emplace_back(hint.key.sort_key, std::move(*row));
    op.rows.push_back(hint);
  }
  if (op.rows.empty()) return false;
  const auto id = core_.new_id();
  const auto partition = partition_of(write.volume, write.partition_key);
  op.pending.push_back(target);
  if (core_.owns(partition)) {
    op.owners_hold = 1;
  } else {
    // A stand-in does not know who else has it: it tells all owners, so that W of them do.
    for (const auto owner : core_.layout.owners(partition)) {
      if (owner != target && core_.peers.healthy(owner)) op.pending.push_back(owner);
    }
  }
  for (const auto node : op.pending) core_.send(id, node, id, core_.config.request_timeout_ms, write);
  op.deadline_ms = core_.now.mono_ms + core_.config.request_timeout_ms;
  under_way_.emplace(id, std::move(op));
  return true;
}

bool HintReplay::send_block(NodeId target) {
  const auto page = core_.store.block_hints(target, 0, 1);
  if (!page || page->empty()) return false;
  const auto& hint = page->front();
  UnderWay op;
  op.target = target;
  op.blocks.push_back(hint);
  op.pending.push_back(target);
  op.owners_hold = core_.write_quorum();  // one owner is enough to drop it: the bytes stay here as well
  op.deadline_ms = core_.now.mono_ms + core_.config.request_timeout_ms;
  const auto id = core_.new_id();
  auto bytes = core_.store.get_block(hint.key);
  if (!bytes) {  // lost here: there is nothing to hand over, and the owner finds it with the others
    Batch drop;
    drop.drop_block_hints.push_back(hint);
    core_.save(id, std::move(drop));
    return false;
  }
  core_.send(id, target, id, core_.config.request_timeout_ms, WriteBlock{hint.key, std::move(*bytes), false, {}});
  under_way_.emplace(id, std::move(op));
  return true;
}

void HintReplay::confirmed(std::uint64_t id, NodeId from) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end() || std::erase(it->second.pending, from) == 0) return;
  ++it->second.owners_hold;
  it->second.target_holds |= from == it->second.target;
  if (it->second.pending.empty()) finish(id);
}

void HintReplay::refused(std::uint64_t id, NodeId from) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end() || std::erase(it->second.pending, from) == 0) return;
  if (it->second.pending.empty()) finish(id);
}

void HintReplay::finish(std::uint64_t id) {
  auto op = std::move(under_way_.extract(id).mapped());
  auto& queue = queues_[op.target];
  queue.busy = false;
  queue.next_ms = core_.now.mono_ms + core_.config.hint_interval_ms;
  if (!op.target_holds || op.owners_hold < core_.write_quorum()) {
    queue.next_ms = core_.now.mono_ms + kRetryMs;
    return;
  }
  core_.counters.hints_delivered += op.rows.size() + op.blocks.size();
  Batch batch;
  batch.drop_hints = std::move(op.rows);
  batch.drop_block_hints = std::move(op.blocks);
  core_.save(id, std::move(batch));
}

}  // namespace kinfs::cluster
