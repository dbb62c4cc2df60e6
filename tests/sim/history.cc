#include "sim/history.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace kinfs::sim {
namespace {

std::string name_of(const RowKey& key) { return key.partition_key + "/" + key.sort_key; }

}  // namespace

Bytes value_of(WriteId id) { return fmt::format("w{}", id); }

WriteId id_of_value(const Bytes& value) {
  WriteId id = 0;
  if (value.size() > 1) std::from_chars(value.data() + 1, value.data() + value.size(), id);
  return id;
}

WriteId History::begin(const RowKey& key, std::set<WriteId> superseded, bool discard_only) {
  Write w;
  w.key = key;
  w.superseded = std::move(superseded);
  w.discard_only = discard_only;
  writes_.push_back(std::move(w));
  const WriteId id = writes_.size();
  by_key_[key].push_back(id);
  for (const auto s : writes_.back().superseded) superseded_by_[s].push_back(id);
  return id;
}

bool History::holds(std::size_t host, WriteId id) const {
  const auto& w = writes_[id - 1];
  const auto row = world_.store(host).get(w.key);
  if (!row) return false;
  std::set<WriteId> live;
  for (const auto& v : row->versions) live.insert(id_of_value(v.value));
  return accounted_for(id, live);
}

void History::acknowledged(WriteId id, bool sync, bool degraded) {
  auto& w = writes_[id - 1];
  if (w.acknowledged) return;
  w.acknowledged = true;
  w.sync = sync;
  w.degraded = degraded;
  if (w.discard_only) return;
  for (std::size_t h = 0; h < world_.hosts(); ++h) {
    if (holds(h, id)) w.holders.insert(h);
  }
  if (w.holders.empty()) violation(fmt::format("{} was acknowledged and is on no host", value_of(id)));
  const auto owners = world_.owners(w.key);
  const auto confirmed = std::count_if(owners.begin(), owners.end(), [&](auto h) { return w.holders.contains(h); });
  // The answer travels for a moment: a host may have lost its tail since it confirmed. Only what is certain counts.
  const bool certain = last_loss_us_ < 0 || world_.now_us() - last_loss_us_ > 5'000'000;
  if (!degraded && certain && confirmed < std::min<std::ptrdiff_t>(2, std::ssize(owners))) {
    violation(fmt::format("{} of {} was not degraded and only {} of its owners have it", value_of(id), name_of(w.key),
                          confirmed));
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
    if (live.contains(w)) return true;
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
    const auto id = id_of_value(v.value);
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
      violation(fmt::format("a read of {} that was not degraded misses {}, which was acknowledged before", name_of(key),
                            value_of(id)));
    }
  }
}

void History::begin_block(const BlockKey& key, const SharedBytes& bytes) { blocks_[key].bytes = bytes; }

void History::acknowledged_block(const BlockKey& key, bool sync) {
  auto& b = blocks_[key];
  if (b.acknowledged) return;
  b.acknowledged = true;
  b.sync = sync;
  for (std::size_t h = 0; h < world_.hosts(); ++h) {
    if (world_.store(h).get_block(key)) b.holders.insert(h);
  }
  if (b.holders.empty()) violation("a block was acknowledged and is on no host");
}

void History::read_block(const BlockKey& key, const SharedBytes& bytes) {
  if (bytes == nullptr || *bytes != *blocks_.at(key).bytes) violation("a block came back with other bytes");
}

std::vector<BlockKey> History::blocks_that_must_be() const {
  std::vector<BlockKey> out;
  for (const auto& [key, b] : blocks_) {
    if (b.acknowledged && (b.sync || b.lost_at.size() < b.holders.size())) out.push_back(key);
  }
  return out;
}

void History::check_drained() {
  for (WriteId id = 1; id <= writes_.size(); ++id) {
    const auto& w = writes_[id - 1];
    if (!w.acknowledged || w.discard_only || !w.certain() || w.owner_lost) continue;
    const auto owners = world_.owners(w.key);
    const auto have = std::count_if(owners.begin(), owners.end(), [&](auto h) { return holds(h, id); });
    if (have < std::min<std::ptrdiff_t>(2, std::ssize(owners))) {
      violation(
          fmt::format("hints have drained, and {} of {} is on {} of its owners", value_of(id), name_of(w.key), have));
    }
  }
}

void History::check_converged() {
  for (const auto& [key, ids] : by_key_) {
    const auto owners = world_.owners(key);
    const auto first = world_.store(owners.front()).get(key);
    for (const auto h : owners) {
      if (*world_.store(h).get(key) != *first) {
        violation(fmt::format("host{} and host{} differ in {}", owners.front() + 1, h + 1, name_of(key)));
      }
    }
    const auto live = live_in(*first);
    for (const auto id : ids) {
      const auto& w = writes_[id - 1];
      if (!w.acknowledged || w.may_vanish()) continue;
      if (!w.discard_only && !accounted_for(id, live)) {
        violation(fmt::format("{} of {} was acknowledged{} and is lost", value_of(id), name_of(key),
                              w.sync ? ", synced," : ""));
      }
      if (!w.certain() || (w.discard_only && last_loss_us_ >= 0)) continue;
      for (const auto old : w.superseded) {
        if (live.contains(old))
          violation(fmt::format("{} came back in {}, after {} replaced it", value_of(old), name_of(key), value_of(id)));
      }
    }
  }
}

void History::saved(std::size_t host, const Batch& batch) {
  for (const auto& [key, row] : batch.rows) {
    for (const auto& v : row.versions) {
      const auto [it, is_new] = dots_.emplace(v.dot, v.value);
      if (!is_new && it->second != v.value) {
        violation(fmt::format("host{} saved {} under the dot of {} ({}.{})", host + 1, v.value, it->second,
                              static_cast<std::uint64_t>(v.dot.node), v.dot.counter));
      }
    }
  }
}

void History::lost_tail(std::size_t host) {
  last_loss_us_ = world_.now_us();
  for (auto& w : writes_) {
    if (!w.acknowledged) w.lost_on_the_way = true;
    const auto owners = world_.owners(w.key);
    w.owner_lost |= std::find(owners.begin(), owners.end(), host) != owners.end();
    if (w.holders.contains(host)) w.lost_at.insert(host);
  }
  for (auto& [key, b] : blocks_) {
    if (b.holders.contains(host)) b.lost_at.insert(host);
  }
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
