#include "cluster/read.h"

#include "cluster/replica.h"
#include "storage/record_codec.h"

#include <algorithm>
#include <map>

namespace kinfs::cluster {
namespace {

const Bytes& partition_key_of(const std::variant<GetRequest, ScanRequest>& request) {
  return std::visit([](const auto& r) -> const Bytes& { return r.partition_key; }, request);
}
VolumeId volume_of(const std::variant<GetRequest, ScanRequest>& request) {
  return std::visit([](const auto& r) { return r.volume; }, request);
}

Row merged_row(const RowPage& page) { return page.rows.empty() ? Row{} : page.rows.front().second; }

std::size_t bytes_of(const RowPage& page) {
  std::size_t bytes = 0;
  for (const auto& [sort_key, row] : page.rows) bytes += scan_weight(sort_key, row);
  return bytes;
}

}  // namespace

RowPage reconcile(const std::vector<const RowPage*>& pages) {
  RowPage out;
  const Bytes* bound = nullptr;  // beyond it, a page that was cut short says nothing
  for (const auto* page : pages) {
    if (page->complete || page->rows.empty()) continue;
    out.complete = false;
    const auto& last = page->rows.back().first;
    if (bound == nullptr || last < *bound) bound = &last;
  }
  std::map<ByteView, Row> rows;
  for (const auto* page : pages) {
    for (const auto& [sort_key, row] : page->rows) {
      if (bound != nullptr && sort_key > *bound) break;
      const auto [it, is_new] = rows.try_emplace(sort_key, row);
      if (!is_new && it->second != row) it->second = merge(it->second, row);
    }
  }
  for (auto& [sort_key, row] : rows) out.rows.emplace_back(Bytes(sort_key), std::move(row));
  return out;
}

void ReadCoordinator::get(const Asker& asker, GetRequest request) {
  ++core_.counters.gets;
  begin(UnderWay{asker, std::move(request), {}, {}, 0, 0, false, {}});
}

void ReadCoordinator::scan(const Asker& asker, ScanRequest request) {
  ++core_.counters.scans;
  begin(UnderWay{asker, std::move(request), {}, {}, 0, 0, false, {}});
}

void ReadCoordinator::begin(UnderWay op) {
  const auto id = core_.new_id();
  const auto partition = partition_of(volume_of(op.request), partition_key_of(op.request));
  const bool owner = core_.owns(partition);
  op.quorum = core_.read_quorum();
  op.deadline_ms = std::min(op.asker.deadline_ms, core_.now.mono_ms + core_.config.request_timeout_ms);
  const bool here = read_here(op, owner);
  op.held = Held(core_.bytes_held, kOperationBytes + (here ? bytes_of(op.found.front().page) : 0));

  // 1. Ask the N-1 highest-ranked healthy nodes for their versions; N when there is nothing to read here.
  const std::size_t others = core_.layout.replicas() - (here && owner ? 1 : 0);
  for (const auto node : core_.layout.preference(partition)) {
    if (op.pending.size() == others) break;
    if (node == core_.config.self || !core_.peers.healthy(node)) continue;
    Body body;
    if (const auto* get = std::get_if<GetRequest>(&op.request)) {
      body = ReadRow{RowKey{get->volume, get->partition_key, get->sort_key}};
    } else {
      const auto& scan = std::get<ScanRequest>(op.request);
      body = ReadPage{scan.volume, scan.partition_key, scan.from, scan.limit};
    }
    core_.send(id, node, id, core_.config.request_timeout_ms, std::move(body));
    op.pending.push_back(node);
  }
  under_way_.emplace(id, std::move(op));
  settle(id);
}

bool ReadCoordinator::read_here(UnderWay& op, bool owner) {
  Found here{core_.config.self, owner, {}, {}};
  const auto stat = core_.store.stat(volume_of(op.request), partition_key_of(op.request));
  if (!stat) return false;
  here.stat = *stat;
  if (const auto* get = std::get_if<GetRequest>(&op.request)) {
    auto row = core_.store.get(RowKey{get->volume, get->partition_key, get->sort_key});
    if (!row) return false;  // what is corrupt here is never served; the others have it
    if (!row->empty()) here.page.rows.emplace_back(get->sort_key, std::move(*row));
  } else {
    const auto& scan = std::get<ScanRequest>(op.request);
    auto page = core_.store.scan(scan.volume, scan.partition_key, scan.from, scan.limit);
    if (!page) return false;
    here.page = std::move(*page);
  }
  op.found.push_back(std::move(here));
  return true;
}

void ReadCoordinator::replied(std::uint64_t id, NodeId from, ReadRowReply reply) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end()) return;
  const auto* get = std::get_if<GetRequest>(&it->second.request);
  if (get == nullptr) return;
  RowPage page;
  if (!reply.row.empty()) page.rows.emplace_back(get->sort_key, std::move(reply.row));
  add(id, from, std::move(page), reply.stat);
}

void ReadCoordinator::replied(std::uint64_t id, NodeId from, ReadPageReply reply) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end() || !std::holds_alternative<ScanRequest>(it->second.request)) return;
  add(id, from, std::move(reply.page), reply.stat);
}

void ReadCoordinator::add(std::uint64_t id, NodeId from, RowPage page, const PartitionStat& stat) {
  auto& op = under_way_.at(id);
  if (std::erase(op.pending, from) == 0) return;
  const auto partition = partition_of(volume_of(op.request), partition_key_of(op.request));
  op.held.add(bytes_of(page));
  op.found.push_back({from, core_.layout.owns(from, partition), std::move(page), stat});
  settle(id);
}

void ReadCoordinator::refused(std::uint64_t id, NodeId from) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end() || std::erase(it->second.pending, from) == 0) return;
  settle(id);
}

// 2. Wait for R-1 replies beside the own one. 3. and 4. are in answer(). Then wait for the rest, to repair them.
void ReadCoordinator::settle(std::uint64_t id) {
  auto& op = under_way_.at(id);
  const auto owners = std::count_if(op.found.begin(), op.found.end(), [](const Found& f) { return f.owner; });
  const bool quorum = static_cast<std::uint32_t>(owners) >= op.quorum;
  if (!op.answered && (quorum || op.pending.empty())) {
    op.answered = true;
    ++answered_;
    answer(id, op, !quorum);
  }
  if (!op.pending.empty()) return;
  repair(op);
  answered_ -= op.answered;
  under_way_.erase(id);
}

// 3. Reconcile causally. 4. Return every concurrent version and one context.
void ReadCoordinator::answer(std::uint64_t id, UnderWay& op, bool degraded) {
  if (degraded) ++core_.counters.degraded_reads;
  std::vector<const RowPage*> pages;
  PartitionStat stat;
  bool own_replica = false;
  for (const auto& found : op.found) {
    pages.push_back(&found.page);
    stat = std::max(stat, found.stat);
    own_replica |= found.owner && found.node == core_.config.self && op.asker.local;
  }
  auto page = reconcile(pages);
  for (const auto& [sort_key, row] : page.rows) core_.observe(row);
  const bool may_conclude_absence = !degraded || own_replica || core_.bug(PlantedBug::kConcludeAbsence);
  if (std::holds_alternative<GetRequest>(op.request)) {
    auto row = merged_row(page);
    if (row.empty() && !may_conclude_absence) {
      return core_.answer(id, op.asker,
                          Error{Errc::kUnavailable, "too few hosts that keep this key can be reached to say "
                                                    "whether it exists; see 'kinfs status'"});
    }
    return core_.answer(id, op.asker, GetResult{std::move(row), stat, degraded});
  }
  if (!may_conclude_absence) {
    return core_.answer(id, op.asker,
                        Error{Errc::kUnavailable, "too few hosts that keep this directory can be reached to list "
                                                  "all of it; see 'kinfs status'"});
  }
  core_.answer(id, op.asker, ScanResult{std::move(page.rows), page.complete, stat, degraded});
}

void ReadCoordinator::repair(const UnderWay& op) {
  std::vector<const RowPage*> pages;
  for (const auto& found : op.found) pages.push_back(&found.page);
  const auto merged = reconcile(pages);
  for (const auto& found : op.found) {
    if (!found.owner) continue;  // a stand-in hands its hints over and keeps nothing
    std::map<ByteView, const Row*> has;
    for (const auto& [sort_key, row] : found.page.rows) has.emplace(sort_key, &row);
    std::vector<std::pair<Bytes, Row>> behind;
    for (const auto& [sort_key, row] : merged.rows) {
      const auto it = has.find(sort_key);
      if (it == has.end() && core_.bug(PlantedBug::kSkipAbsentRepair)) continue;
      if (it == has.end() || *it->second != row) behind.emplace_back(sort_key, row);
    }
    if (behind.empty()) continue;
    core_.counters.repairs += behind.size();
    const auto id = core_.new_id();
    WriteRows write{volume_of(op.request), partition_key_of(op.request), std::move(behind), false, {}};
    if (found.node == core_.config.self) {
      Batch batch;
      // Merged anew: this node may have taken more since it was read for this get.
      if (!merge_into_store(core_, write.volume, write.partition_key, write.rows, batch)) continue;
      core_.save(id, std::move(batch));
    } else {
      core_.send(id, found.node, id, core_.config.request_timeout_ms, std::move(write));
    }
  }
}

void ReadCoordinator::tick() {
  std::vector<std::pair<std::uint64_t, NodeId>> late;
  for (const auto& [id, op] : under_way_) {
    for (const auto node : op.pending) {
      if (op.deadline_ms <= core_.now.mono_ms || !core_.peers.healthy(node)) late.emplace_back(id, node);
    }
  }
  std::sort(late.begin(), late.end());
  for (const auto& [id, node] : late) refused(id, node);
}

}  // namespace kinfs::cluster
