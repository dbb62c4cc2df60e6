#include "cluster/hints.h"

#include <algorithm>

#include "cluster/replica.h"

namespace kinfs::cluster {
namespace {
constexpr std::size_t kRowsPerBatch = 64;
constexpr std::size_t kRowBytesPerBatch = 256 << 10;
constexpr std::int64_t kRetryMs = 500;
constexpr std::int64_t kIdleMs = 100;  // between two looks at an empty queue
constexpr int kPatience = 3;           // times that a batch is sent to an owner that says nothing to it

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
  return {};
}

bool HintReplay::idle() const {
  if (!under_way_.empty()) return false;
  const auto nodes = core_.peers.ids();
  return std::all_of(nodes.begin(), nodes.end(), [&](NodeId node) {
    return !core_.peers.healthy(node) || core_.store.hint_count(node) == 0;
  });
}

void HintReplay::tick() {
  std::vector<std::uint64_t> late;
  for (const auto& [id, op] : under_way_) {
    if (op.deadline_ms <= core_.now.mono_ms) late.push_back(id);
  }
  std::sort(late.begin(), late.end());
  for (const auto id : late) finish(id);
  for (const auto node : core_.peers.ids()) {
    auto& queue = queues_[node];
    if (queue.busy) continue;
    if (!core_.peers.healthy(node)) {
      queue = {};
      continue;
    }
    if (queue.next_ms > core_.now.mono_ms) continue;
    // Blocks first: a row must not arrive before its bytes.
    queue.busy = send_block(node, queue) || send_rows(node, queue);
    if (queue.busy) continue;
    const auto wait_ms = queue.left_over ? kRetryMs : kIdleMs;
    queue = {};
    queue.next_ms = core_.now.mono_ms + wait_ms;
  }
}

bool HintReplay::take_rows(NodeId target, Queue& queue, UnderWay& op, WriteRows& write) {
  const auto page = core_.store.hints(target, queue.rows_after, kRowsPerBatch);
  if (!page || page->empty()) return false;
  std::size_t bytes = 0;
  for (const auto& hint : *page) {
    auto row = core_.store.get(hint.key);
    if (op.rows.empty()) {
      if (!row) {  // corrupt here: a read of it may yet repair it
        queue.rows_after = hint.sequence;
        queue.left_over = true;
        continue;
      }
      write.volume = hint.key.volume;
      write.partition_key = hint.key.partition_key;
    }
    // The run of rows of one partition key: a batch that came together goes together.
    if (!row || hint.key.volume != write.volume || hint.key.partition_key != write.partition_key) break;
    bytes += size_of(*row);
    if (!write.rows.empty() && bytes > kRowBytesPerBatch) break;
    write.rows.emplace_back(hint.key.sort_key, std::move(*row));
    op.rows.push_back(hint);
    if (hint.sequence <= queue.alone_until) break;
  }
  return true;
}

bool HintReplay::send_rows(NodeId target, Queue& queue) {
  UnderWay op;
  WriteRows write;
  while (op.rows.empty()) {
    if (!take_rows(target, queue, op, write)) return false;
  }
  const auto id = core_.new_id();
  op.target = target;
  op.pending.push_back(target);
  ask_owners(op, partition_of(write.volume, write.partition_key));
  write.sync = !core_.bug(PlantedBug::kReplayUnsynced);
  for (const auto node : op.pending) core_.send(id, node, id, core_.config.request_timeout_ms, write);
  op.deadline_ms = core_.now.mono_ms + core_.config.request_timeout_ms;
  under_way_.emplace(id, std::move(op));
  return true;
}

void HintReplay::ask_owners(UnderWay& op, std::uint16_t partition) {
  const bool own = core_.owns(partition);
  if (own) op.owners_hold = 1;
  if (own && core_.write_quorum() <= 2) return;
  // Nobody here knows who else has it: all owners are told, so that W of them do.
  for (const auto owner : core_.layout.owners(partition)) {
    if (owner == op.target || owner == core_.config.self || !core_.peers.healthy(owner)) continue;
    op.pending.push_back(owner);
  }
}

bool HintReplay::send_block(NodeId target, Queue& queue) {
  while (true) {
    const auto page = core_.store.block_hints(target, queue.blocks_after, 1);
    if (!page || page->empty()) return false;
    const auto& hint = page->front();
    queue.blocks_after = hint.sequence;
    const auto id = core_.new_id();
    auto bytes = core_.store.get_block(hint.key);
    if (!bytes) {
      if (!is_lost(bytes.error())) {
        queue.left_over = true;
        continue;
      }
      Batch drop;  // there is nothing to hand over, and the owner finds it with the others
      drop.drop_block_hints.push_back(hint);
      core_.save(id, std::move(drop));
      continue;
    }
    UnderWay op;
    op.target = target;
    op.blocks.push_back(hint);
    op.pending.push_back(target);
    // As for rows: another owner that confirmed it may have lost it since, with what it had not synced.
    ask_owners(op, partition_of(hint.key.volume, block_partition_key(hint.key)));
    op.deadline_ms = core_.now.mono_ms + core_.config.request_timeout_ms;
    const bool sync = !core_.bug(PlantedBug::kReplayUnsynced);
    for (const auto node : op.pending) {
      core_.send(id, node, id, core_.config.request_timeout_ms, WriteBlock{hint.key, *bytes, sync, {}});
    }
    under_way_.emplace(id, std::move(op));
    return true;
  }
}

void HintReplay::confirmed(std::uint64_t id, NodeId from) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end()) return;
  auto& op = it->second;
  if (std::erase(op.pending, from) == 0) return;
  ++op.owners_hold;
  op.target_holds |= from == op.target;
  if (op.pending.empty() || (op.target_holds && op.owners_hold >= core_.write_quorum())) finish(id);
}

void HintReplay::refused(std::uint64_t id, NodeId from) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end() || std::erase(it->second.pending, from) == 0) return;
  it->second.refused |= from == it->second.target;
  if (it->second.pending.empty()) finish(id);
}

void HintReplay::finish(std::uint64_t id) {
  auto op = std::move(under_way_.extract(id).mapped());
  auto& queue = queues_[op.target];
  queue.busy = false;
  queue.next_ms = core_.now.mono_ms + core_.config.hint_interval_ms;
  if (!op.target_holds || op.owners_hold < core_.write_quorum()) return put_off(op, queue);
  queue.silences = 0;
  core_.counters.hints_delivered += op.rows.size() + op.blocks.size();
  Batch batch;
  batch.drop_hints = std::move(op.rows);
  batch.drop_block_hints = std::move(op.blocks);
  core_.save(id, std::move(batch));
}

/// The batch comes again: at once, row by row, or when all others had their turn.
void HintReplay::put_off(const UnderWay& op, Queue& queue) {
  if (!op.target_holds && !op.refused && ++queue.silences < kPatience) {  // lost on the way, it may be
    queue.next_ms = core_.now.mono_ms + kRetryMs;
    if (!op.blocks.empty()) queue.blocks_after = op.blocks.front().sequence - 1;
    return;
  }
  queue.silences = 0;
  queue.left_over = true;
  if (op.rows.empty()) return;
  if (!op.target_holds && op.rows.size() > 1) {
    queue.alone_until = op.rows.back().sequence;
  } else {
    queue.rows_after = op.rows.back().sequence;
  }
}

}  // namespace kinfs::cluster
