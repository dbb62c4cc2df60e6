#include "sim/history.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace kinfs::sim {
namespace {

std::string name_of(const RowKey& key) { return key.partition_key + "/" + key.sort_key; }

std::set<WriteId> ids_in(const Row& row) {
  std::set<WriteId> out;
  for (const auto& v : row.versions) out.insert(id_of(v));
  return out;
}

}  // namespace

Bytes value_of(WriteId id) { return fmt::format("w{}", id); }

WriteId History::begin(const RowKey& key, std::set<WriteId> superseded, bool discard_only, bool tombstone) {
  Write w;
  w.tombstone = tombstone;
  w.key = key;
  w.superseded = std::move(superseded);
  w.discard_only = discard_only;
  writes_.push_back(std::move(w));
  const WriteId id = writes_.size();
  by_key_[key].push_back(id);
  for (const auto s : writes_.back().superseded) superseded_by_[s].push_back(id);
  return id;
}

bool History::owns(std::size_t host, const Write& w) const {
  const auto owners = world_.owners_of_any(w.key.volume, w.key.partition_key);
  return std::find(owners.begin(), owners.end(), host) != owners.end();
}

bool History::owns(std::size_t host, const BlockKey& key) const {
  const auto owners = world_.owners_of_any(key.volume, block_partition_key(key));
  return std::find(owners.begin(), owners.end(), host) != owners.end();
}

bool History::keeps(std::size_t host, const Write& w) const {
  return owns(host, w) || world_.store(host).hinted(w.key, w.sync);
}

bool History::holds(std::size_t host, WriteId id) const {
  const auto row = world_.store(host).get(writes_[id - 1].key);
  return row && accounted_for(id, ids_in(*row));
}

std::set<std::size_t> History::holders_of(WriteId id) const {
  std::set<std::size_t> out;
  for (std::size_t h = 0; h < world_.hosts(); ++h) {
    if (holds(h, id)) out.insert(h);
  }
  return out;
}

std::set<std::size_t> History::holders_of(const BlockKey& key) const {
  std::set<std::size_t> out;
  for (std::size_t h = 0; h < world_.hosts(); ++h) {
    if (world_.store(h).get_block(key).has_value()) out.insert(h);
  }
  return out;
}

bool History::holds_synced(std::size_t host, WriteId id) const {
  return accounted_for(id, ids_in(world_.store(host).synced(writes_[id - 1].key)));
}

void History::acknowledged(const std::vector<WriteId>& ids, bool sync, bool degraded) {
  std::set<std::size_t> whole;  // hosts that have all of it
  for (std::size_t h = 0; h < world_.hosts(); ++h) whole.insert(h);
  const Write* any = nullptr;
  std::string what;
  for (const auto id : ids) {
    auto& w = writes_[id - 1];
    if (w.acknowledged) return;
    w.acknowledged = true;
    w.sync = sync;
    w.degraded = degraded;
    if (w.discard_only) continue;
    for (std::size_t h = 0; h < world_.hosts(); ++h) {
      if ((sync ? holds_synced(h, id) : holds(h, id)) && keeps(h, w)) {
        if (degraded || owns(h, w)) w.holders.insert(h);
      } else {
        whole.erase(h);
      }
    }
    what += fmt::format("{}{} of {}", what.empty() ? "" : ", ", value_of(id), name_of(w.key));
    any = &w;
  }
  if (any != nullptr) check_confirmed(*any, whole, any->key.volume, any->key.partition_key, what);
}

void History::check_confirmed(const Kept& kept, const std::set<std::size_t>& confirmed, VolumeId volume,
                              const Bytes& key, const std::string& what) {
  // The answer travels for a moment: a host may have lost what it confirmed since. Only what is certain counts.
  const auto lost_us = kept.sync ? last_disk_loss_us_ : last_loss_us_;
  if (lost_us >= 0 && world_.now_us() - lost_us <= 5'000'000) return;
  if (confirmed.empty())
    violation(fmt::format("{} was acknowledged, and no owner has it, nor any host with a hint{}", what,
                          kept.sync ? ", synced" : ""));
  if (kept.degraded || world_.are_quorum(volume, key, confirmed)) return;
  violation(fmt::format("{} was not degraded and too few of its owners have it{}", what, kept.sync ? ", synced" : ""));
}

void History::refused(const std::vector<WriteId>& ids, const Error& error) {
  for (const auto id : ids) {
    auto& w = writes_[id - 1];
    if (w.discard_only) continue;
    w.refused = true;
    for (std::size_t h = 0; h < world_.hosts(); ++h) {
      const auto row = world_.store(h).get(w.key);
      if (row && ids_in(*row).contains(id)) {
        violation(fmt::format("{} of {} was refused ({}: {}) and is on host{}", value_of(id), name_of(w.key),
                              errc_name(error.code), error.text, h + 1));
      }
    }
  }
}

History::Expectation History::expect(const RowKey& key) const {
  Expectation e;
  const auto it = by_key_.find(key);
  if (it == by_key_.end()) return e;
  for (const auto id : it->second) {
    const auto& w = writes_[id - 1];
    if (w.acknowledged && !w.degraded && !w.discard_only) e.writes.push_back(id);
  }
  return e;
}

// Live, or replaced by a write that is itself accounted for, or discarded on purpose.
bool History::accounted_for(WriteId id, const std::set<WriteId>& live) const {
  std::set<WriteId> seen;
  std::vector<WriteId> todo{id};
  while (!todo.empty()) {
    const auto w = todo.back();
    todo.pop_back();
    if (live.contains(w) || writes_[w - 1].reaped) return true;
    if (!seen.insert(w).second) continue;
    const auto it = superseded_by_.find(w);
    if (it == superseded_by_.end()) continue;
    for (const auto next : it->second) {
      if (writes_[next - 1].discard_only) return true;
      todo.push_back(next);
    }
  }
  return false;
}

std::set<WriteId> History::live_in(const Row& row) {
  std::set<WriteId> live;
  std::map<WriteId, EventId> events;
  for (const auto& v : row.versions) {
    const auto id = id_of(v);
    live.insert(id);
    const auto [it, is_new] = events.emplace(id, v.event);
    if (!is_new && it->second != v.event) violation(fmt::format("{} shows twice, as two events", value_of(id)));
  }
  return live;
}

void History::read(const RowKey& key, const Expectation& expectation, const Row& row, bool degraded) {
  const auto live = live_in(row);
  if (live.size() > 1) ++true_siblings;
  if (degraded) return;
  for (const auto id : expectation.writes) {
    const auto& w = writes_[id - 1];
    if (!w.certain()) continue;  // the quorum that had it is no longer one
    if (!accounted_for(id, live)) {
      violation(fmt::format("a read of {} that was not degraded misses {}, which was acknowledged{} before",
                            name_of(key), value_of(id), w.sync ? ", synced," : ""));
    }
    for (const auto old : w.superseded) {
      if (!live.contains(old)) continue;
      violation(fmt::format("a read of {} that was not degraded shows {}, which {} had replaced", name_of(key),
                            value_of(old), value_of(id)));
    }
  }
}

void History::begin_block(const BlockKey& key, const SharedBytes& bytes) { blocks_[key].bytes = bytes; }

void History::acknowledged_block(const BlockKey& key, bool sync, bool degraded) {
  auto& b = blocks_[key];
  if (b.acknowledged) return;
  b.acknowledged = true;
  b.sync = sync;
  b.degraded = degraded;
  for (std::size_t h = 0; h < world_.hosts(); ++h) {
    if (!owns(h, key) && !(degraded && world_.store(h).hinted(key, sync))) continue;
    if (sync ? world_.store(h).synced(key) : world_.store(h).get_block(key).has_value()) b.holders.insert(h);
  }
  if (!b.damaged) check_confirmed(b, b.holders, key.volume, block_partition_key(key), "a block");
}

void History::synced_block(const BlockKey& key) {
  auto& b = blocks_.at(key);
  b.acknowledged = b.sync = true;
  b.degraded = false;
  b.holders.clear();
  b.lost_at.clear();
  for (std::size_t h = 0; h < world_.hosts(); ++h) {
    if (owns(h, key) && world_.store(h).synced(key)) b.holders.insert(h);
  }
  if (!b.damaged) check_confirmed(b, b.holders, key.volume, block_partition_key(key), "a block");
}

void History::read_block(const BlockKey& key, const SharedBytes& bytes) {
  if (bytes == nullptr || *bytes != *blocks_.at(key).bytes) violation("a block came back with other bytes");
}

std::vector<BlockKey> History::blocks_that_must_be() const {
  std::vector<BlockKey> out;
  for (const auto& [key, b] : blocks_) {
    if (b.acknowledged && !b.may_vanish(world_.write_quorum())) out.push_back(key);
  }
  return out;
}

void History::check_drained() {
  for (WriteId id = 1; id <= writes_.size(); ++id) {
    const auto& w = writes_[id - 1];
    if (!w.acknowledged || w.discard_only || !w.drains()) continue;
    if (world_.are_quorum(w.key.volume, w.key.partition_key, holders_of(id))) continue;
    violation(
        fmt::format("hints have drained, and {} of {} is on too few of its owners", value_of(id), name_of(w.key)));
  }
  for (const auto& [key, b] : blocks_) {
    if (!b.acknowledged || !b.drains()) continue;
    if (world_.are_quorum(key.volume, block_partition_key(key), holders_of(key))) continue;
    violation("hints have drained, and a block is on too few of its owners");
  }
  for (const auto& what : world_.malformed) violation("the decoder refused what a node sent: " + what);
}

void History::check_converged() {
  for (const auto& [key, ids] : by_key_) {
    const auto owners = world_.owners(key);
    const auto first = world_.store(owners.front()).get(key);
    for (const auto h : owners) {
      const auto other = world_.store(h).get(key);
      // One is told to erase it before the other; that it goes from all in the end, not_reaped() holds.
      const auto may_go = [](const Row& row) { return row.empty() || row.is_grave(); };
      if (world_.reaps() && may_go(*other) && may_go(*first) && (other->empty() || first->empty())) continue;
      if (*other != *first) {
        violation(fmt::format("host{} and host{} differ in {}", owners.front() + 1, h + 1, name_of(key)));
      }
    }
    const auto live = live_in(*first);
    for (const auto id : ids) {
      const auto& w = writes_[id - 1];
      check_stays_dead(w, live);
      if (!w.acknowledged || w.may_vanish(world_.write_quorum())) continue;
      if (!w.discard_only && !accounted_for(id, live)) {
        violation(fmt::format("{} of {} was acknowledged{} and is lost", value_of(id), name_of(key),
                              w.sync ? ", synced," : ""));
      }
      if (!w.certain() || (w.discard_only && std::max(last_loss_us_, last_disk_loss_us_) >= 0)) continue;
      for (const auto old : w.superseded) {
        if (live.contains(old))
          violation(fmt::format("{} came back in {}, after {} replaced it", value_of(old), name_of(key), value_of(id)));
      }
    }
  }
}

/// What was removed, and forgotten by an owner that has forgotten nothing else: whatever comes back then.
void History::check_stays_dead(const Write& w, const std::set<WriteId>& live) {
  const bool known = std::any_of(w.reaped_at.begin(), w.reaped_at.end(),
                                 [&](std::size_t host) { return world_.up(host) && owns(host, w); });
  if (!known || !w.acknowledged || world_.joins()) return;
  for (const auto old : w.superseded) {
    if (live.contains(old))
      violation(fmt::format("{} came back in {}, long after it was removed", value_of(old), name_of(w.key)));
  }
}

std::string History::not_reaped() const {
  for (const auto& [key, ids] : by_key_) {
    for (const auto host : world_.owners(key)) {
      const auto row = world_.store(host).get(key);
      if (!row || !row->is_grave() || row->latest().physical_ms() > world_.wall_ms(host) - 10'000) continue;
      return fmt::format("host{} keeps what was removed of {}", host + 1, name_of(key));
    }
  }
  return {};
}

void History::concluded_absence(std::size_t host, const RowKey& key) {
  const auto owners = world_.owners_of_any(key.volume, key.partition_key);
  if (std::find(owners.begin(), owners.end(), host) != owners.end()) return;
  if (world_.now_us() - world_.members_since_us(host) < 1000) return;  // it was an owner when it answered, perhaps
  violation(fmt::format("host{} is cut off, owns nothing of {}, and says that it is absent", host + 1, name_of(key)));
}

void History::check_blocks() {
  for (const auto& key : blocks_that_must_be()) {
    for (const auto h : world_.owners(key.volume, block_partition_key(key))) {
      if (!world_.store(h).get_block(key)) violation(fmt::format("host{} has no copy of a block that it owns", h + 1));
    }
  }
}

std::string History::not_surrendered() const {
  const auto held_by_another = [&](const std::vector<std::size_t>& owners, const auto& holds) {
    for (std::size_t h = 0; h < world_.hosts(); ++h) {
      const bool owner = std::find(owners.begin(), owners.end(), h) != owners.end();
      if (world_.up(h) && !owner && holds(world_.store(h))) return fmt::format("host{}", h + 1);
    }
    return std::string();
  };
  for (const auto& [key, ids] : by_key_) {
    const auto host =
        held_by_another(world_.owners(key), [&](const MemStore& store) { return !store.get(key)->empty(); });
    if (!host.empty()) return host + " holds " + name_of(key);
  }
  for (const auto& [key, b] : blocks_) {
    const auto host = held_by_another(world_.owners(key.volume, block_partition_key(key)),
                                      [&](const MemStore& store) { return store.get_block(key).has_value(); });
    if (!host.empty()) return host + " holds a block";
  }
  return {};
}

void History::saved(std::size_t host, const Batch& batch) {
  for (const auto& [key, row] : batch.rows) {
    last_saved_[{host, key}] = ids_in(row);
    for (const auto& v : row.versions) {
      const auto id = id_of(v);
      if (id > 0 && id <= writes_.size()) {
        auto& w = writes_[id - 1];
        if (w.refused) violation(fmt::format("host{} saved {}, which had been refused", host + 1, v.value));
        if (w.hlc != v.hlc) check_clock(w, id, v.hlc);
      }
      const auto [it, is_new] = dots_.emplace(v.dot, id);
      if (!is_new && it->second != id) {
        violation(fmt::format("host{} saved {} under the dot of {} ({}.{})", host + 1, value_of(id),
                              value_of(it->second), static_cast<std::uint64_t>(v.dot.node), v.dot.counter));
      }
    }
  }
  for (const auto& key : batch.erase_rows) {
    for (const auto id : std::exchange(last_saved_[{host, key}], {})) {
      if (id == 0 || id > writes_.size()) continue;
      auto& w = writes_[id - 1];
      if (!w.tombstone || !owns(host, w)) continue;
      w.reaped = true;
      w.reaped_at.insert(host);
    }
  }
}

void History::check_clock(Write& w, WriteId id, Hlc hlc) {
  // What is tried again for long gets a new one, where something may be reaped meanwhile.
  if (w.hlc != Hlc{} && !world_.reaps()) violation(fmt::format("{} has two clocks", value_of(id)));
  w.hlc = w.hlc == Hlc{} ? hlc : std::min(w.hlc, hlc);
  for (const auto old : w.superseded) {
    if (writes_[old - 1].hlc < hlc) continue;
    violation(fmt::format("{} replaced {}, and its clock is not greater", value_of(id), value_of(old)));
  }
}

void History::Kept::lose_tail(std::size_t host, bool owner) {
  if (!acknowledged) lost_on_the_way = true;
  owner_lost |= owner;
  if (!sync && holders.contains(host)) lost_at.insert(host);
}

void History::Kept::lose_disk(std::size_t host, bool owner) {
  disk_lost = true;
  if (owner) empty_owners.insert(host);
  if (holders.contains(host)) lost_at.insert(host);
}

void History::lost_tail(std::size_t host) {
  last_loss_us_ = world_.now_us();
  for (auto& w : writes_) {
    w.lose_tail(host, owns(host, w));
    w.reaped_at.erase(host);
  }
  for (auto& [key, b] : blocks_) b.lose_tail(host, owns(host, key));
}

void History::lost_disk(std::size_t host) {
  last_disk_loss_us_ = last_loss_us_ = world_.now_us();
  for (auto& w : writes_) {
    w.lose_disk(host, owns(host, w));
    w.reaped_at.erase(host);
  }
  for (auto& [key, b] : blocks_) b.lose_disk(host, owns(host, key));
}

void History::lost_block(std::size_t host, const BlockKey& key) {
  auto& b = blocks_[key];
  b.damaged = true;
  b.lose_disk(host, owns(host, key));
}

void History::reads_by(std::size_t reader, const LayoutRecord& layout) {
  const auto counts = [](const Kept& kept) { return kept.acknowledged && !kept.degraded && kept.certain(); };
  const auto lacks = [&](const std::string& what) {
    violation(fmt::format("host{} reads by layout {}, and {} is on too few of its owners", reader + 1, layout.id.number,
                          what));
  };
  for (WriteId id = 1; id <= writes_.size(); ++id) {
    const auto& w = writes_[id - 1];
    if (w.discard_only || !counts(w)) continue;
    if (world_.are_quorum(layout, w.key.volume, w.key.partition_key, holders_of(id))) continue;
    lacks(fmt::format("{} of {}", value_of(id), name_of(w.key)));
  }
  for (const auto& [key, b] : blocks_) {
    if (!counts(b) || world_.are_quorum(layout, key.volume, block_partition_key(key), holders_of(key))) continue;
    lacks("a block");
  }
}

void History::reads_by_dropped(std::size_t reader, const LayoutRecord& layout) {
  violation(fmt::format("host{} reads by layout {}, which is dropped elsewhere", reader + 1, layout.id.number));
}

void History::violation(const std::string& what) {
  world_.trace("VIOLATION: " + what);
  if (violations_.size() < 20) violations_.push_back(what);
}

std::vector<RowKey> History::keys() const {
  std::vector<RowKey> out;
  for (const auto& [key, ids] : by_key_) out.push_back(key);
  return out;
}

}  // namespace kinfs::sim
