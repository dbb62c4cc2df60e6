#include "fake_client.h"

#include <algorithm>

namespace kinfs::fs::test {
namespace {

constexpr std::uint64_t kFirstNode = 100;  // node id of host 0

}  // namespace

// --- pumping ---

void FakeCluster::post(std::function<void()> call) {
  if (at_once_) return call();
  queue_.push_back(std::move(call));
}

bool FakeCluster::step() {
  if (queue_.empty()) return false;
  const auto call = std::move(queue_.front());
  queue_.pop_front();
  call();
  return true;
}

void FakeCluster::run() {
  while (step()) {
  }
}

// --- trouble ---

void FakeCluster::heal(std::optional<std::size_t> but) {
  Replica all;
  for (const auto& replica : replicas_) {
    if (but && &replica == &replicas_.at(*but)) continue;
    for (const auto& [key, row] : replica.rows) {
      auto& merged = all.rows[key];
      merged = merge(merged, row);
    }
    for (const auto& [key, stat] : replica.stats) all.stats[key] = std::max(all.stats[key], stat);
  }
  for (auto& replica : replicas_) {
    if (but && &replica == &replicas_.at(*but)) continue;
    replica.rows = all.rows;
    replica.stats = all.stats;
    replica.cut = false;
  }
}

std::optional<Errc> FakeCluster::next_of(std::deque<Errc>& failures) {
  if (failures.empty()) return std::nullopt;
  const auto code = failures.front();
  failures.pop_front();
  return code;
}

/// Fewer than a majority of all hosts can be reached from `host`.
bool FakeCluster::degraded(std::size_t host) const {
  std::size_t reached = 1;
  if (!replicas_.at(host).cut) {
    reached = static_cast<std::size_t>(
        std::count_if(replicas_.begin(), replicas_.end(), [](const Replica& r) { return !r.cut; }));
  }
  return reached < replicas_.size() / 2 + 1;
}

// --- rows ---

void FakeCluster::apply(Replica& replica, const RowKey& key, const Row& row) {
  auto& mine = replica.rows[key];
  mine = merge(mine, row);
  if (key.sort_key.empty()) return;
  auto& stat = replica.stats[{key.volume, key.partition_key}];
  for (const auto& v : row.versions) stat = std::max(stat, PartitionStat{v.hlc, v.time_ns});
}

PartitionStat FakeCluster::stat(std::size_t host, VolumeId volume, const Bytes& partition_key) const {
  const auto& stats = replicas_.at(host).stats;
  const auto it = stats.find({volume, partition_key});
  return it == stats.end() ? PartitionStat{} : it->second;
}

Result<GetResult> FakeCluster::get(std::size_t host, const RowKey& key) {
  ++calls.gets;
  if (const auto code = next_of(read_failures_)) return fail(*code, "the test makes this get fail");
  const auto& rows = replicas_.at(host).rows;
  const auto it = rows.find(key);
  return GetResult{it == rows.end() ? Row{} : it->second, stat(host, key.volume, key.partition_key), degraded(host)};
}

Result<ScanResult> FakeCluster::scan(std::size_t host, const RowKey& from, ScanLimit limit) {
  ++calls.scans;
  if (const auto code = next_of(read_failures_)) return fail(*code, "the test makes this scan fail");
  const auto& rows = replicas_.at(host).rows;
  ScanResult out;
  out.stat = stat(host, from.volume, from.partition_key);
  out.degraded = degraded(host);
  std::size_t bytes = 0;
  for (auto it = rows.lower_bound(from); it != rows.end(); ++it) {
    if (it->first.volume != from.volume || it->first.partition_key != from.partition_key) break;
    if (it->second.empty()) continue;
    if (!out.rows.empty() && (bytes >= limit.bytes || out.rows.size() >= limit.rows)) {
      out.complete = false;
      break;
    }
    bytes += it->first.sort_key.size();
    for (const auto& v : it->second.versions) bytes += v.value.size();
    out.rows.emplace_back(it->first.sort_key, it->second);
  }
  return out;
}

PutRowResult FakeCluster::put_row(std::size_t host, const RowKey& key, const RowPut& put) {
  auto& coordinator = replicas_.at(host);
  Row row = merge(coordinator.rows[key], put.base);
  PutRowResult result;
  for (const auto& version : put.add) {
    if (row.context.covers(version.event)) {  // a retry: done before
      const auto it = std::find_if(row.versions.begin(), row.versions.end(),
                                   [&](const Version& v) { return v.event == version.event; });
      result.added.push_back(it == row.versions.end() ? Dot{} : it->dot);
      result.clocks.push_back(it == row.versions.end() ? Hlc{} : it->hlc);
      continue;
    }
    const Dot dot{NodeId{kFirstNode + host}, ++coordinator.counter};
    add_version(row, version, dot);
    result.added.push_back(dot);
    result.clocks.push_back(version.hlc);
  }
  result.context = row.context;
  result.gone = row.gone;
  for (const auto& v : row.versions) result.live.push_back(v.dot);
  if (coordinator.cut) {
    apply(coordinator, key, row);
  } else {
    for (auto& replica : replicas_) {
      if (!replica.cut) apply(replica, key, row);
    }
  }
  return result;
}

Result<PutResult> FakeCluster::put(std::size_t host, VolumeId volume, const Bytes& partition_key,
                                   const std::vector<RowPut>& rows, bool sync) {
  ++calls.puts;
  calls.put_rows += rows.size();
  if (sync) ++calls.sync_puts;
  if (const auto code = next_of(put_failures_)) return fail(*code, "the test makes this put fail");
  PutResult out;
  for (const auto& put : rows) out.rows.push_back(put_row(host, RowKey{volume, partition_key, put.sort_key}, put));
  out.degraded = degraded(host);
  if (lost_answers_ > 0) {
    --lost_answers_;
    return fail(Errc::kTimeout, "the test loses this answer");
  }
  return out;
}

// --- blocks ---

Result<Unit> FakeCluster::put_block(const BlockKey& key, const SharedBytes& bytes, bool sync) {
  if (const auto code = next_of(block_failures_)) return fail(*code, "the test makes this block fail");
  if (bytes == nullptr || bytes->empty() || bytes->size() > kMaxBlockBytes || sha256(*bytes) != key.hash) {
    return fail(Errc::kInvalid, "a block's bytes do not hash to its key");
  }
  if (sync) ++calls.blocks_synced;
  blocks.emplace(key, bytes);
  return Unit{};
}

Result<bool> FakeCluster::sync_blocks(const BlockSet& set) {
  ++calls.sets_synced;
  if (sync_forgotten_) return false;
  for (const auto& hash : set.hashes) {
    if (!blocks.contains(set.key(hash))) return false;
  }
  calls.blocks_synced += set.hashes.size();
  return true;
}

Result<SharedBytes> FakeCluster::get_block(const BlockKey& key) {
  ++calls.blocks_got;
  if (const auto code = next_of(block_get_failures_)) return fail(*code, "the test makes this block unreadable");
  const auto it = blocks.find(key);
  if (it == blocks.end())
    return fail(Errc::kCorrupt, "block " + to_hex(view_of(key.hash)) + " is on none of its hosts");
  return it->second;
}

// --- the client ---

Task<Result<GetResult>> FakeClient::get(VolumeId volume, Bytes partition_key, Bytes sort_key) {
  Promise<Result<GetResult>> answer;
  const RowKey key{volume, partition_key, sort_key};
  cluster_.post([this, answer, key] { answer.set(cluster_.get(host_index_, key)); });
  auto result = co_await answer;
  if (result) observe(result->row);
  co_return result;
}

Task<Result<ScanResult>> FakeClient::scan(VolumeId volume, Bytes partition_key, Bytes from, ScanLimit limit) {
  Promise<Result<ScanResult>> answer;
  const RowKey key{volume, partition_key, from};
  cluster_.post([this, answer, key, limit] { answer.set(cluster_.scan(host_index_, key, limit)); });
  auto result = co_await answer;
  if (result) {
    for (const auto& row : result->rows) observe(row.second);
  }
  co_return result;
}

Task<Result<PutResult>> FakeClient::put(VolumeId volume, Bytes partition_key, std::vector<RowPut> rows,
                                        PutOptions options) {
  Promise<Result<PutResult>> answer;
  cluster_.post([this, answer, volume, partition_key, rows, options] {
    answer.set(cluster_.put(host_index_, volume, partition_key, rows, options.sync));
  });
  auto result = co_await answer;
  co_return result;
}

Task<Result<Unit>> FakeClient::put_block(BlockKey key, SharedBytes bytes, PutOptions options) {
  Promise<Result<Unit>> answer;
  ++cluster_.calls.blocks_put;
  ++cluster_.blocks_under_way_;
  cluster_.max_blocks_under_way = std::max(cluster_.max_blocks_under_way, cluster_.blocks_under_way_);
  cluster_.post([this, answer, key, bytes, options] {
    --cluster_.blocks_under_way_;
    answer.set(cluster_.put_block(key, bytes, options.sync));
  });
  auto result = co_await answer;
  co_return result;
}

Task<Result<bool>> FakeClient::sync_blocks(BlockSet set) {
  Promise<Result<bool>> answer;
  cluster_.post([this, answer, set] { answer.set(cluster_.sync_blocks(set)); });
  auto result = co_await answer;
  co_return result;
}

Task<Result<SharedBytes>> FakeClient::get_block(BlockKey key) {
  Promise<Result<SharedBytes>> answer;
  cluster_.post([this, answer, key] { answer.set(cluster_.get_block(key)); });
  auto result = co_await answer;
  co_return result;
}

Task<Result<StoreUsage>> FakeClient::usage() {
  Promise<Result<StoreUsage>> answer;
  cluster_.post([this, answer] {
    ++cluster_.calls.usages;
    answer.set(cluster_.usage);
  });
  auto result = co_await answer;
  co_return result;
}

Hlc FakeClient::next_hlc() {
  last_ = std::max(Hlc{last_.value + 1}, Hlc::from_ms(cluster_.now_ms() + skew_ms));
  return last_;
}

void FakeClient::observe(const Row& row) {
  for (const auto& v : row.versions) last_ = std::max(last_, v.hlc);
}

}  // namespace kinfs::fs::test
