// See mem_store.h. Every change to a table goes through one of the few functions that also note how to take it
// back; apply() and put_block() then close the group.
#include "storage/mem_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "storage/record_codec.h"

namespace kinfs {
namespace {

std::string block_name(const BlockKey& key) { return "block " + to_hex(view_of(key.hash)); }

}  // namespace

template <class Key>
std::uint64_t MemStore::HintTable<Key>::sequence_of(NodeId target, const Key& key) const {
  const auto it = by_key.find({target, key});
  return it == by_key.end() ? 0 : it->second;
}

template <class Key>
void MemStore::HintTable<Key>::move(NodeId target, const Key& key, std::uint64_t from, std::uint64_t to) {
  if (from != 0) --count[target];
  if (to != 0) ++count[target];
  if (from != 0) by_order.erase({target, from});
  if (to == 0) {
    by_key.erase({target, key});
  } else {
    by_order[{target, to}] = key;
    by_key[{target, key}] = to;
  }
}

// --- Reading ---

Result<Row> MemStore::get(const RowKey& key) const {
  const std::lock_guard lock(mutex_);
  const auto it = rows_.find(key);
  return it == rows_.end() ? Row{} : it->second;
}

Result<RowPage> MemStore::scan(VolumeId volume, ByteView partition_key, ByteView from, ScanLimit limit) const {
  const std::lock_guard lock(mutex_);
  RowPage page;
  std::size_t bytes = 0;
  const auto inside = [&](const RowKey& k) { return k.volume == volume && k.partition_key == partition_key; };
  for (auto it = rows_.lower_bound(RowKey{volume, Bytes(partition_key), Bytes(from)});
       it != rows_.end() && inside(it->first); ++it) {
    if (!page.rows.empty() && (bytes >= limit.bytes || page.rows.size() >= limit.rows)) {
      page.complete = false;
      break;
    }
    bytes += scan_weight(it->first.sort_key, it->second);
    page.rows.emplace_back(it->first.sort_key, it->second);
  }
  return page;
}

Result<PartitionStat> MemStore::stat(VolumeId volume, ByteView partition_key) const {
  const std::lock_guard lock(mutex_);
  const auto it = stats_.find({volume, Bytes(partition_key)});
  return it == stats_.end() ? PartitionStat{} : it->second;
}

Result<std::vector<Hint>> MemStore::hints(NodeId target, std::uint64_t after, std::size_t limit) const {
  const std::lock_guard lock(mutex_);
  std::vector<Hint> out;
  for (auto it = hints_.by_order.upper_bound({target, after});
       it != hints_.by_order.end() && it->first.first == target && out.size() < limit; ++it) {
    out.push_back({target, it->first.second, it->second});
  }
  return out;
}

Result<std::vector<BlockHint>> MemStore::block_hints(NodeId target, std::uint64_t after, std::size_t limit) const {
  const std::lock_guard lock(mutex_);
  std::vector<BlockHint> out;
  for (auto it = block_hints_.by_order.upper_bound({target, after});
       it != block_hints_.by_order.end() && it->first.first == target && out.size() < limit; ++it) {
    out.push_back({target, it->first.second, it->second});
  }
  return out;
}

std::uint64_t MemStore::hint_count(NodeId target) const {
  const std::lock_guard lock(mutex_);
  const auto of = [&](const auto& table) {
    const auto it = table.count.find(target);
    return it == table.count.end() ? 0 : it->second;
  };
  return of(hints_) + of(block_hints_);
}

std::vector<NodeId> MemStore::hint_targets() const {
  const std::lock_guard lock(mutex_);
  std::set<NodeId> out;
  const auto add = [&](const auto& table) {
    for (const auto& [target, count] : table.count) {
      if (count > 0) out.insert(target);
    }
  };
  add(hints_);
  add(block_hints_);
  return {out.begin(), out.end()};
}

Result<std::uint64_t> MemStore::last_hint_sequence() const {
  const std::lock_guard lock(mutex_);
  std::uint64_t last = 0;
  for (const auto& [at, key] : hints_.by_order) last = std::max(last, at.second);
  for (const auto& [at, key] : block_hints_.by_order) last = std::max(last, at.second);
  return last;
}

Result<std::optional<NodeMeta>> MemStore::meta() const {
  const std::lock_guard lock(mutex_);
  return meta_;
}

Result<SharedBytes> MemStore::get_block(const BlockKey& key) const {
  SharedBytes bytes;
  {
    const std::lock_guard lock(mutex_);
    const auto it = blocks_.find(key);
    if (it == blocks_.end()) return fail(Errc::kNotFound, block_name(key) + " is not here");
    bytes = it->second;
  }
  if (sha256(*bytes) != key.hash) return fail(Errc::kCorrupt, block_name(key) + " does not match its hash");
  return bytes;
}

Result<bool> MemStore::has_block(const BlockKey& key) const {
  const std::lock_guard lock(mutex_);
  return blocks_.contains(key);
}

Result<ItemPage> MemStore::items(ItemKind kind, std::uint16_t partition, ByteView after, std::size_t limit) const {
  const std::lock_guard lock(mutex_);
  ItemPage page;
  std::size_t bytes = 0;
  const Bytes prefix = partition_prefix(partition);
  const auto collect = [&](const auto& keys, const auto& item_of) {
    for (auto it = after.empty() ? keys.lower_bound(prefix) : keys.upper_bound(Bytes(after));
         it != keys.end() && it->first.starts_with(prefix); ++it) {
      std::optional<Item> item = item_of(it->first, it->second);
      if (!item) continue;
      if (page.items.size() >= limit || bytes >= kItemPageBytes) {
        page.complete = false;
        return;
      }
      bytes += it->first.size();
      page.items.push_back(std::move(*item));
    }
  };
  if (kind == ItemKind::kRow) {
    collect(row_keys_, [&](const Bytes& bytes_of_key, const RowKey& key) -> std::optional<Item> {
      const auto found = rows_.find(key);
      if (found == rows_.end()) return std::nullopt;
      const auto& row = found->second;
      return Item{bytes_of_key, item_digest(bytes_of_key, row), row.is_grave() ? row.latest() : Hlc{}};
    });
  } else {
    collect(block_keys_, [&](const Bytes& bytes_of_key, const BlockKey& key) -> std::optional<Item> {
      if (!blocks_.contains(key)) return std::nullopt;
      return Item{bytes_of_key, item_digest(bytes_of_key), {}};
    });
  }
  return page;
}

std::vector<BlockKey> MemStore::block_keys() const {
  const std::lock_guard lock(mutex_);
  std::vector<BlockKey> out;
  for (const auto& [key, bytes] : blocks_) out.push_back(key);
  return out;
}

StoreUsage MemStore::usage() const {
  const std::lock_guard lock(mutex_);
  StoreUsage usage;
  usage.rows_estimate = rows_.size();
  usage.block_bytes = block_bytes_;
  usage.full = refusal_ && refusal_->code == Errc::kNoSpace;
  return usage;
}

// --- Writing ---

void MemStore::put_row(const RowKey& key, const Row& row) {
  const auto [it, fresh] = rows_.try_emplace(key);
  if (fresh) row_keys_.emplace(row_key_bytes(key), key);
  undo_.emplace_back(RowUndo{key, fresh ? std::nullopt : std::optional<Row>(std::move(it->second))});
  it->second = row;
  if (key.sort_key.empty()) return;
  const PartitionStat stat = stat_of(row);
  const auto [at, first] = stats_.try_emplace({key.volume, key.partition_key});
  if (!first && stat <= at->second) return;
  undo_.emplace_back(StatUndo{at->first, first ? std::nullopt : std::optional(at->second)});
  at->second = stat;
}

void MemStore::erase_row(const RowKey& key) {
  const auto it = rows_.find(key);
  if (it == rows_.end()) return;
  undo_.emplace_back(RowUndo{key, std::move(it->second)});
  rows_.erase(it);
}

void MemStore::erase_block(const BlockKey& key) {
  const auto it = blocks_.find(key);
  if (it == blocks_.end()) return;
  block_bytes_ -= it->second->size();
  undo_.emplace_back(BlockUndo{key, std::move(it->second)});
  blocks_.erase(it);
}

template <class Key>
void MemStore::set_hint(HintTable<Key>& table, NodeId target, const Key& key, std::uint64_t sequence) {
  const std::uint64_t before = table.sequence_of(target, key);
  if (before == sequence) return;
  table.move(target, key, before, sequence);
  undo_.emplace_back(HintUndo<Key>{target, key, before, sequence});
}

Result<void> MemStore::apply(const Batch& batch) {
  if (auto ok = check_batch(batch); !ok) return ok;
  const std::lock_guard lock(mutex_);
  if (refusal_) return tl::unexpected<Error>(*refusal_);
  for (const auto& [key, row] : batch.rows) put_row(key, row);
  for (const RowKey& key : batch.erase_rows) erase_row(key);
  for (const BlockKey& key : batch.erase_blocks) erase_block(key);
  for (const Hint& h : batch.add_hints) set_hint(hints_, h.target, h.key, h.sequence);
  for (const BlockHint& h : batch.add_block_hints) set_hint(block_hints_, h.target, h.key, h.sequence);
  for (const Hint& h : batch.drop_hints) {
    if (hints_.sequence_of(h.target, h.key) == h.sequence) set_hint(hints_, h.target, h.key, 0);
  }
  for (const BlockHint& h : batch.drop_block_hints) {
    if (block_hints_.sequence_of(h.target, h.key) == h.sequence) set_hint(block_hints_, h.target, h.key, 0);
  }
  if (batch.meta) {
    undo_.emplace_back(MetaUndo{std::move(meta_)});
    meta_ = batch.meta;
  }
  undo_ends_.push_back(undo_.size());
  return {};
}

Result<void> MemStore::put_block(const BlockKey& key, const SharedBytes& bytes) {
  if (auto ok = check_block_key(key); !ok) return ok;
  if (bytes == nullptr || sha256(*bytes) != key.hash) {
    return fail(Errc::kInvalid, "the bytes given for " + block_name(key) + " do not match its hash");
  }
  if (bytes->size() > kMaxBlockBytes) return fail(Errc::kTooLarge, block_name(key) + " is over the limit");
  const std::lock_guard lock(mutex_);
  if (refusal_) return tl::unexpected<Error>(*refusal_);
  SharedBytes& place = blocks_[key];
  if (place != nullptr && *place == *bytes) return {};
  if (place == nullptr) {
    block_bytes_ += bytes->size();
    block_keys_.try_emplace(block_key_bytes(key), key);
  }
  undo_.emplace_back(BlockUndo{key, place});
  place = bytes;
  undo_ends_.push_back(undo_.size());
  return {};
}

Result<void> MemStore::sync() {
  const std::lock_guard lock(mutex_);
  if (refusal_) return tl::unexpected<Error>(*refusal_);
  undo_.clear();
  undo_ends_.clear();
  return {};
}

// --- The disk ---

void MemStore::take_back(Undo& undo) {
  if (auto* row = std::get_if<RowUndo>(&undo)) {
    if (row->before) {
      rows_[row->key] = std::move(*row->before);
    } else {
      rows_.erase(row->key);
    }
  } else if (auto* stat = std::get_if<StatUndo>(&undo)) {
    if (stat->before) {
      stats_[stat->key] = *stat->before;
    } else {
      stats_.erase(stat->key);
    }
  } else if (auto* meta = std::get_if<MetaUndo>(&undo)) {
    meta_ = std::move(meta->before);
  } else if (auto* block = std::get_if<BlockUndo>(&undo)) {
    const auto it = blocks_.find(block->key);
    if (it != blocks_.end()) block_bytes_ -= it->second->size();
    if (block->before == nullptr) {
      blocks_.erase(it);
    } else {
      block_bytes_ += block->before->size();
      blocks_[block->key] = block->before;
    }
  } else if (auto* hint = std::get_if<HintUndo<RowKey>>(&undo)) {
    hints_.move(hint->target, hint->key, hint->after, hint->before);
  } else if (auto* block_hint = std::get_if<HintUndo<BlockKey>>(&undo)) {
    block_hints_.move(block_hint->target, block_hint->key, block_hint->after, block_hint->before);
  }
}

void MemStore::lose_after(std::size_t keep) {
  if (keep >= undo_ends_.size()) return;
  const std::size_t floor = keep == 0 ? 0 : undo_ends_[keep - 1];
  while (undo_.size() > floor) {
    take_back(undo_.back());
    undo_.pop_back();
  }
  undo_ends_.resize(keep);
}

void MemStore::crash(bool lose_unsynced) {
  if (lose_unsynced) crash_keeping(0);
}

void MemStore::crash_keeping(std::size_t keep) {
  const std::lock_guard lock(mutex_);
  lose_after(keep);
  // What the power cut spared is on the disk now.
  undo_.clear();
  undo_ends_.clear();
}

std::size_t MemStore::unsynced() const {
  const std::lock_guard lock(mutex_);
  return undo_ends_.size();
}

Row MemStore::synced(const RowKey& key) const {
  const std::lock_guard lock(mutex_);
  for (const auto& undo : undo_) {
    const auto* change = std::get_if<RowUndo>(&undo);
    if (change != nullptr && change->key == key) return change->before.value_or(Row{});
  }
  const auto it = rows_.find(key);
  return it == rows_.end() ? Row{} : it->second;
}

bool MemStore::synced(const BlockKey& key) const {
  const std::lock_guard lock(mutex_);
  for (const auto& undo : undo_) {
    const auto* change = std::get_if<BlockUndo>(&undo);
    if (change != nullptr && change->key == key) return change->before != nullptr;
  }
  return blocks_.contains(key);
}

template <class Key>
bool MemStore::hinted(const HintTable<Key>& table, const Key& key, bool synced) const {
  const auto certain = [&](NodeId target) {
    return std::none_of(undo_.begin(), undo_.end(), [&](const Undo& undo) {
      const auto* change = std::get_if<HintUndo<Key>>(&undo);
      return change != nullptr && change->target == target && change->key == key && change->before == 0;
    });
  };
  return std::any_of(table.by_key.begin(), table.by_key.end(), [&](const auto& entry) {
    const auto& [target, hinted_key] = entry.first;
    return hinted_key == key && (!synced || certain(target));
  });
}

bool MemStore::hinted(const RowKey& key, bool synced) const {
  const std::lock_guard lock(mutex_);
  return hinted(hints_, key, synced);
}

bool MemStore::hinted(const BlockKey& key, bool synced) const {
  const std::lock_guard lock(mutex_);
  return hinted(block_hints_, key, synced);
}

std::unique_ptr<MemStore> MemStore::copy() const {
  const std::lock_guard lock(mutex_);
  auto out = std::make_unique<MemStore>();
  out->rows_ = rows_;
  out->stats_ = stats_;
  out->blocks_ = blocks_;
  out->hints_ = hints_;
  out->block_hints_ = block_hints_;
  out->meta_ = meta_;
  out->block_bytes_ = block_bytes_;
  out->row_keys_ = row_keys_;
  out->block_keys_ = block_keys_;
  return out;
}

void MemStore::refuse_writes(std::optional<Error> error) {
  const std::lock_guard lock(mutex_);
  refusal_ = std::move(error);
}

bool MemStore::damage_block(const BlockKey& key) {
  const std::lock_guard lock(mutex_);
  const auto it = blocks_.find(key);
  if (it == blocks_.end() || it->second->empty()) return false;
  Bytes changed = *it->second;
  changed[changed.size() / 2] = static_cast<char>(changed[changed.size() / 2] ^ 1);
  it->second = share(std::move(changed));
  return true;
}

}  // namespace kinfs
