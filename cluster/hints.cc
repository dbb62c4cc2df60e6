#include "cluster/hints.h"

#include <algorithm>

#include "cluster/replica.h"

namespace kinfs::cluster {
namespace {
constexpr std::size_t kRowsPerBatch = 64;
constexpr std::size_t kRowBytesPerBatch = 256 << 10;
constexpr std::size_t kBlocksUnderWay = 16;
constexpr std::size_t kBlockBytesUnderWay = 2 << 20;  // then no further one is sent
constexpr std::int64_t kRetryMs = 500;
constexpr std::int64_t kIdleMs = 100;  // between two looks at an empty queue
constexpr int kPatience = 3;           // times that something is sent to an owner that says nothing to it

std::size_t size_of(const Row& row) {
  std::size_t bytes = 64;
  for (const auto& v : row.versions) bytes += v.value.size() + 128;
  return bytes;
}

bool contains(const std::vector<NodeId>& nodes, NodeId node) {
  return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
}
}  // namespace

/// Rows by partition key.
struct HintReplay::Rows {
  std::vector<std::pair<std::uint16_t, RowsOfKey>> keys;  // with their partitions
  std::map<std::pair<VolumeId, Bytes>, std::size_t> index;

  /// The partition.
  std::uint16_t add(const RowKey& key, Row row) {
    const auto [at, is_new] = index.try_emplace({key.volume, key.partition_key}, keys.size());
    if (is_new) {
      keys.emplace_back(partition_of(key.volume, key.partition_key), RowsOfKey{key.volume, key.partition_key, {}});
    }
    auto& [partition, of_key] = keys[at->second];
    of_key.rows.emplace_back(key.sort_key, std::move(row));
    return partition;
  }
  template <class Wanted>
  std::vector<RowsOfKey> of(Wanted wanted) const {
    std::vector<RowsOfKey> out;
    for (const auto& [partition, of_key] : keys) {
      if (wanted(partition)) out.push_back(of_key);
    }
    return out;
  }
};

Result<void> HintReplay::start() {
  auto last = core_.store.last_hint_sequence();
  if (!last) return pass(std::move(last));
  core_.last_hint_sequence() = *last;
  return {};
}

bool HintReplay::idle() const {
  if (!under_way_.empty()) return false;
  const auto all = targets();
  return std::none_of(all.begin(), all.end(), [&](NodeId node) { return core_.store.hint_count(node) > 0; });
}

std::vector<NodeId> HintReplay::targets() const {
  auto out = core_.store.hint_targets();
  std::erase_if(out, [&](NodeId node) { return !is_gone(node) && !core_.peers.healthy(node); });
  return out;
}

void HintReplay::tick() {
  std::vector<std::uint64_t> late;
  for (const auto& [id, op] : under_way_) {
    if (op.deadline_ms <= core_.now.mono_ms) late.push_back(id);
  }
  std::sort(late.begin(), late.end());
  for (const auto id : late) finish(id);
  for (const auto node : core_.store.hint_targets()) go_on(node, queues_[node]);
}

void HintReplay::go_on(NodeId target, Queue& queue) {
  if (queue.rows_under_way) return;
  if (!is_gone(target) && !core_.peers.healthy(target)) {
    if (queue.blocks_under_way == 0) queue = {};
    return;
  }
  if (queue.next_ms > core_.now.mono_ms) return;
  // Blocks first: a row must not arrive before its bytes.
  if (send_blocks(target, queue) || send_rows(target, queue)) return;
  const auto wait_ms = queue.left_over ? kRetryMs : kIdleMs;
  queue = {};
  queue.next_ms = core_.now.mono_ms + wait_ms;
}

bool HintReplay::take_rows(NodeId target, Queue& queue, UnderWay& op, Rows& rows) {
  const auto page = core_.store.hints(target, queue.rows_after, kRowsPerBatch);
  if (!page || page->empty()) return false;
  std::size_t bytes = 0;
  for (const auto& hint : *page) {
    auto row = core_.store.get(hint.key);
    if (!row) {  // corrupt here: a read of it may yet repair it
      if (!op.rows.empty()) break;
      queue.rows_after = hint.sequence;
      queue.left_over = true;
      continue;
    }
    bytes += size_of(*row);
    if (!op.rows.empty() && bytes > kRowBytesPerBatch) break;
    op.rows.emplace_back(rows.add(hint.key, std::move(*row)), hint);
    if (hint.sequence <= queue.alone_until) break;
  }
  return true;
}

bool HintReplay::send_rows(NodeId target, Queue& queue) {
  UnderWay op;
  op.target = target;
  op.gone = is_gone(target);
  if (!op.gone) op.pending.push_back(target);
  Rows rows;
  while (op.rows.empty()) {
    if (!take_rows(target, queue, op, rows)) return false;
  }
  for (const auto& [partition, of_key] : rows.keys) ask_owners(op, partition);
  const auto id = core_.new_id();
  const bool sync = !core_.bug(PlantedBug::kReplayUnsynced);
  for (const auto node : op.pending) {
    auto writes =
        rows.of([&](std::uint16_t partition) { return node == target || core_.placement.owns(node, partition); });
    core_.send(id, node, id, core_.config.request_timeout_ms, HandOver{std::move(writes), sync});
  }
  queue.rows_under_way = true;
  begin(id, std::move(op));
  return true;
}

void HintReplay::ask_owners(UnderWay& op, std::uint16_t partition) {
  if (met_by(core_.placement.write_quorums(partition), {core_.config.self, op.target}) && !op.gone) return;
  // Nobody here knows who else has it: all owners are told, so that W of them do.
  for (const auto owner : core_.placement.owners(partition)) {
    if (owner == core_.config.self || contains(op.pending, owner) || !core_.peers.healthy(owner)) continue;
    op.pending.push_back(owner);
  }
}

bool HintReplay::send_blocks(NodeId target, Queue& queue) {
  if (queue.again_after) {
    if (queue.blocks_under_way > 0) return true;
    queue.blocks_after = *std::exchange(queue.again_after, std::nullopt);
  }
  const auto is_open = [&] {
    return queue.blocks_under_way < kBlocksUnderWay && queue.bytes_under_way < kBlockBytesUnderWay;
  };
  // What asks nobody ends at once, and leaves the window open: the rest is for the next tick.
  std::size_t looks = 0;
  while (is_open() && looks < kBlocksUnderWay) {
    const auto page = core_.store.block_hints(target, queue.blocks_after, kBlocksUnderWay - queue.blocks_under_way);
    if (!page || page->empty()) break;
    for (const auto& hint : *page) {
      if (!is_open() || looks == kBlocksUnderWay) break;
      ++looks;
      queue.blocks_after = hint.sequence;
      send_block(target, queue, hint);
    }
  }
  return queue.blocks_under_way > 0 || looks == kBlocksUnderWay;
}

void HintReplay::send_block(NodeId target, Queue& queue, const BlockHint& hint) {
  const auto id = core_.new_id();
  auto bytes = core_.store.get_block(hint.key);
  if (!bytes) {
    if (!is_lost(bytes.error())) {
      queue.left_over = true;
      return;
    }
    Batch drop;  // there is nothing to hand over, and the owner finds it with the others
    drop.drop_block_hints.push_back(hint);
    return core_.save(id, std::move(drop));
  }
  const auto partition = partition_of(hint.key.volume, block_partition_key(hint.key));
  UnderWay op;
  op.target = target;
  op.gone = is_gone(target);
  op.block.emplace(partition, hint);
  op.bytes = (*bytes)->size();
  if (!op.gone) op.pending.push_back(target);
  // As for rows: another owner that confirmed it may have lost it since, with what it had not synced.
  ask_owners(op, partition);
  const bool sync = !core_.bug(PlantedBug::kReplayUnsynced);
  for (const auto node : op.pending) {
    core_.send(id, node, id, core_.config.request_timeout_ms, WriteBlock{hint.key, *bytes, sync, {}});
  }
  ++queue.blocks_under_way;
  queue.bytes_under_way += op.bytes;
  begin(id, std::move(op));
}

void HintReplay::begin(std::uint64_t id, UnderWay op) {
  op.holders.push_back(core_.config.self);
  op.deadline_ms = core_.now.mono_ms + core_.config.request_timeout_ms;
  const bool asks_nobody = op.pending.empty();
  under_way_.emplace(id, std::move(op));
  if (asks_nobody) finish(id);
}

bool HintReplay::held(const UnderWay& op, std::uint16_t partition) const {
  if (!op.gone && !contains(op.holders, op.target)) return false;
  return met_by(core_.placement.write_quorums(partition), op.holders);
}

bool HintReplay::all_held(const UnderWay& op) const {
  if (op.block) return held(op, op.block->first);
  return std::all_of(op.rows.begin(), op.rows.end(), [&](const auto& row) { return held(op, row.first); });
}

void HintReplay::confirmed(std::uint64_t id, NodeId from) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end()) return;
  auto& op = it->second;
  if (std::erase(op.pending, from) == 0) return;
  op.holders.push_back(from);
  if (op.pending.empty() || all_held(op)) finish(id);
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
  Batch batch;
  std::erase_if(op.rows, [&](auto& row) {
    if (!held(op, row.first)) return false;
    batch.drop_hints.push_back(std::move(row.second));
    return true;
  });
  if (op.block) {
    --queue.blocks_under_way;
    queue.bytes_under_way -= op.bytes;
    if (held(op, op.block->first)) {
      batch.drop_block_hints.push_back(std::move(op.block->second));
      op.block.reset();
    }
  } else {
    queue.rows_under_way = false;
  }
  if (queue.next_ms <= core_.now.mono_ms) queue.next_ms = core_.now.mono_ms + core_.config.hint_interval_ms;
  if (contains(op.holders, op.target)) queue.silences = 0;
  if (!op.rows.empty() || op.block) put_off(op, queue);
  if (const auto dropped = batch.drop_hints.size() + batch.drop_block_hints.size(); dropped > 0) {
    core_.counters.hints_delivered += dropped;
    core_.save(id, std::move(batch));
  }
}

/// What is left of `op` comes again: at once, row by row, or when all others had their turn.
void HintReplay::put_off(const UnderWay& op, Queue& queue) {
  const bool silent = !contains(op.holders, op.target) && !op.refused;
  // Lost on the way, it may be; what of one window is lost counts as one.
  if (silent && (queue.again_after || ++queue.silences < kPatience)) {
    queue.next_ms = core_.now.mono_ms + kRetryMs;
    if (op.block) queue.again_after = std::min(queue.again_after.value_or(~0ull), op.block->second.sequence - 1);
    return;
  }
  queue.silences = 0;
  queue.left_over = true;
  if (op.rows.empty()) return;
  if (!contains(op.holders, op.target) && op.rows.size() > 1) {
    queue.alone_until = op.rows.back().second.sequence;
  } else {
    queue.rows_after = op.rows.back().second.sequence;
  }
}

}  // namespace kinfs::cluster
