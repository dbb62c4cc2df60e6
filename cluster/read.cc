#include "cluster/read.h"

#include "cluster/replica.h"
#include "storage/record_codec.h"

#include <algorithm>
#include <map>
#include <set>

namespace kinfs::cluster {
namespace {

const Bytes& partition_key_of(const std::variant<GetRequest, ScanRequest>& request) {
  return std::visit([](const auto& r) -> const Bytes& { return r.partition_key; }, request);
}
VolumeId volume_of(const std::variant<GetRequest, ScanRequest>& request) {
  return std::visit([](const auto& r) { return r.volume; }, request);
}

/// What a replica is told, or tells by answering "same".
Digest128 digest_of_found(const std::variant<GetRequest, ScanRequest>& request, const RowPage& page) {
  if (std::holds_alternative<ScanRequest>(request)) return digest_of(page);
  return page.rows.empty() ? Row{}.fingerprint() : page.rows.front().second.fingerprint();
}

Row merged_row(const RowPage& page) { return page.rows.empty() ? Row{} : page.rows.front().second; }

std::size_t bytes_of(const RowPage& page) {
  std::size_t bytes = 0;
  for (const auto& [sort_key, row] : page.rows) bytes += scan_weight(sort_key, row);
  return bytes;
}

}  // namespace

RowPage reconcile(const std::vector<FlooredPage>& pages) {
  RowPage out;
  const Bytes* bound = nullptr;  // beyond it, a page that was cut short says nothing
  for (const auto& [page, floor] : pages) {
    if (page->complete || page->rows.empty()) continue;
    out.complete = false;
    const auto& last = page->rows.back().first;
    if (bound == nullptr || last < *bound) bound = &last;
  }
  std::map<ByteView, Row> rows;
  Hlc floor;  // of all up to here
  const Row none;
  for (const auto& [page, page_floor] : pages) {
    std::set<ByteView> named;
    for (const auto& [sort_key, other] : page->rows) {
      if (bound != nullptr && sort_key > *bound) break;
      named.insert(sort_key);
      auto [it, is_new] = rows.try_emplace(sort_key, floor == Hlc{} ? other : Row{});
      if (it->second != other) it->second = merge(FlooredRow{it->second, floor}, FlooredRow{other, page_floor});
    }
    for (auto& [sort_key, row] : rows) {
      if (page_floor != Hlc{} && !named.contains(sort_key))
        row = merge(FlooredRow{row, floor}, FlooredRow{none, page_floor});
    }
    floor = std::max(floor, page_floor);
  }
  for (auto& [sort_key, row] : rows) out.rows.emplace_back(Bytes(sort_key), std::move(row));
  return out;
}

void ReadCoordinator::get(const Asker& asker, GetRequest request) {
  ++core_.counters.gets;
  begin(UnderWay{asker, std::move(request), {}, {}, {}, {}, false, {}, {}, 0, 0, 0, false, {}});
}

void ReadCoordinator::scan(const Asker& asker, ScanRequest request) {
  ++core_.counters.scans;
  begin(UnderWay{asker, std::move(request), {}, {}, {}, {}, false, {}, {}, 0, 0, 0, false, {}});
}

void ReadCoordinator::begin(UnderWay op) {
  const auto id = core_.new_id();
  const auto partition = partition_of(volume_of(op.request), partition_key_of(op.request));
  const auto& layout = core_.placement.reading();
  const auto owners = layout.owners(partition);
  op.layout = layout.id();
  op.owners.assign(owners.begin(), owners.end());
  op.quorum = core_.placement.read_quorum();
  const bool owner = layout.owns(core_.config.self, partition);
  op.asked_ms = core_.now.mono_ms;
  op.deadline_ms = std::min(op.asker.deadline_ms, core_.now.mono_ms + core_.config.request_timeout_ms);
  const bool here = read_here(op, owner);
  op.held = Held(core_.bytes_held, kOperationBytes + (op.found.empty() ? 0 : bytes_of(op.found.front().page)));

  // 1. Ask the N-1 highest-ranked healthy nodes for their versions, N when there is nothing to read here: as many of
  // them as the quorum takes.
  choose(op, partition, op.owners.size() - (here && owner ? 1 : 0));
  // Without anti-entropy reads are all that brings replicas together.
  const bool all = core_.config.compare_interval_ms == 0 || core_.random() % kAskAllOneIn == 0;
  const std::size_t needed = op.quorum - (here && owner ? 1 : 0);
  while (!op.more.empty() && (all || op.pending.size() < needed)) {
    const auto node = op.more.front();
    op.more.erase(op.more.begin());
    ask(id, op, node);
  }
  under_way_.emplace(id, std::move(op));
  settle(id);
}

/// Owners first, of these the fastest. Others stand in for owners: they make no quorum.
void ReadCoordinator::choose(UnderWay& op, std::uint16_t partition, std::size_t others) {
  const auto is_owner = [&](NodeId n) { return std::find(op.owners.begin(), op.owners.end(), n) != op.owners.end(); };
  for (const auto node : core_.placement.reading().preference(partition)) {
    if (op.more.size() == others) break;
    if (node != core_.config.self && core_.peers.healthy(node)) op.more.push_back(node);
  }
  std::stable_sort(op.more.begin(), op.more.end(), [&](NodeId a, NodeId b) {
    const bool a_owns = is_owner(a);
    const bool b_owns = is_owner(b);
    return a_owns != b_owns ? a_owns : usual_ms(a) < usual_ms(b);
  });
}

void ReadCoordinator::ask(std::uint64_t id, UnderWay& op, NodeId node) {
  const auto known = op.told ? op.known : std::nullopt;
  Body body;
  if (const auto* get = std::get_if<GetRequest>(&op.request)) {
    body = ReadRow{RowKey{get->volume, get->partition_key, get->sort_key}, known};
  } else {
    const auto& scan = std::get<ScanRequest>(op.request);
    body = ReadPage{scan.volume, scan.partition_key, scan.from, scan.limit, known};
  }
  core_.send(id, node, id, core_.config.request_timeout_ms, std::move(body), op.layout);
  op.pending.push_back({node, core_.now.mono_ms});
}

void ReadCoordinator::ask_rest(std::uint64_t id, UnderWay& op) {
  const bool in_time = core_.now.mono_ms < op.deadline_ms;
  for (const auto node : std::exchange(op.more, {})) {
    if (in_time && core_.peers.healthy(node)) ask(id, op, node);
  }
}

bool ReadCoordinator::read_here(UnderWay& op, bool owner) {
  Found here{core_.config.self, owner, false, {}, {}};
  here.floor = core_.floor(partition_of(volume_of(op.request), partition_key_of(op.request)));
  const auto* get = std::get_if<GetRequest>(&op.request);
  if (get == nullptr || get->sort_key.empty()) {
    const auto stat = core_.store.stat(volume_of(op.request), partition_key_of(op.request));
    if (!stat) return false;
    here.stat = *stat;
  }
  if (get != nullptr) {
    auto row = core_.store.get(RowKey{get->volume, get->partition_key, get->sort_key});
    if (!row) return false;  // what is corrupt here is never served; the others have it
    if (!row->empty()) here.page.rows.emplace_back(get->sort_key, std::move(*row));
  } else {
    const auto& scan = std::get<ScanRequest>(op.request);
    auto page = core_.store.scan(scan.volume, scan.partition_key, scan.from, scan.limit);
    if (!page) return false;
    here.page = std::move(*page);
  }
  if (!owner && here.page.rows.empty()) return true;  // as is to be expected
  op.known = digest_of_found(op.request, here.page);
  op.told = true;
  op.found.push_back(std::move(here));
  return true;
}

void ReadCoordinator::replied(std::uint64_t id, NodeId from, ReadRowReply reply) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end()) return;
  const auto* get = std::get_if<GetRequest>(&it->second.request);
  if (get == nullptr) return;
  Found found{from, false, reply.same, {}, reply.stat, horizon_.believed(reply.floor)};
  if (!reply.row.empty()) found.page.rows.emplace_back(get->sort_key, std::move(reply.row));
  add(id, std::move(found));
}

void ReadCoordinator::replied(std::uint64_t id, NodeId from, ReadPageReply reply) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end() || !std::holds_alternative<ScanRequest>(it->second.request)) return;
  add(id, Found{from, false, reply.same, std::move(reply.page), reply.stat, horizon_.believed(reply.floor)});
}

void ReadCoordinator::add(std::uint64_t id, Found found) {
  auto& op = under_way_.at(id);
  if (found.same && !op.told) return refused(id, found.node);  // as what?
  const auto asked = std::find_if(op.pending.begin(), op.pending.end(),
                                  [&](const Asked& a) { return a.node == found.node; });
  if (asked == op.pending.end()) return;
  took(*asked);
  op.pending.erase(asked);
  if (!found.same) {
    const auto digest = digest_of_found(op.request, found.page);
    if (op.known == digest) found.page = {};
    found.same = op.known == digest;
    if (!op.known) op.known = digest;
  }
  found.owner = std::find(op.owners.begin(), op.owners.end(), found.node) != op.owners.end();
  op.held.add(bytes_of(found.page));
  op.found.push_back(std::move(found));
  settle(id);
}

void ReadCoordinator::refused(std::uint64_t id, NodeId from) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end()) return;
  if (std::erase_if(it->second.pending, [&](const Asked& a) { return a.node == from; }) == 0) return;
  settle(id);
}

bool ReadCoordinator::goes_by_another(const LayoutId& layout) const {
  return std::any_of(under_way_.begin(), under_way_.end(),
                     [&](const auto& entry) { return !entry.second.answered && entry.second.layout != layout; });
}

void ReadCoordinator::took(const Asked& asked) {
  auto& usual = took_[asked.node];
  usual += core_.now.mono_ms - asked.since_ms - usual / 8;
}

std::int64_t ReadCoordinator::usual_ms(NodeId node) const {
  const auto it = took_.find(node);
  return it == took_.end() ? 0 : it->second / 8;
}

// 2. Wait for R-1 replies beside the own one. 3. and 4. are in answer(). Then wait for the rest, to repair them.
void ReadCoordinator::settle(std::uint64_t id) {
  auto& op = under_way_.at(id);
  const auto owners =
      static_cast<std::size_t>(std::count_if(op.found.begin(), op.found.end(), [](const Found& f) { return f.owner; }));
  const bool quorum = owners >= op.quorum;
  const bool differ = std::count_if(op.found.begin(), op.found.end(), [](const Found& f) { return !f.same; }) > 1;
  // Who has something else is told, and the others are looked at for it; who is missing for a quorum is asked for.
  if (differ || (!quorum && owners + op.pending.size() < op.quorum)) ask_rest(id, op);
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
  PartitionStat stat;
  // It may own it no more since it was asked.
  const bool owns = core_.owns(partition_of(volume_of(op.request), partition_key_of(op.request)));
  bool own_replica = false;
  for (auto& found : op.found) {
    stat = std::max(stat, found.stat);
    own_replica |= found.owner && owns && found.node == core_.config.self && op.asker.local;
  }
  // What is alike everywhere, with nobody left who may have something else, is needed here no more.
  const auto pages = differing(op);
  const bool last = pages.size() == 1 && op.pending.empty();
  auto page = last ? std::move(op.found.front().page) : reconcile(pages);
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

/// Each of what was found once, with the greatest floor of those who have it.
std::vector<FlooredPage> ReadCoordinator::differing(const UnderWay& op) const {
  std::vector<FlooredPage> pages;
  for (const auto& found : op.found) {
    if (found.same) {
      pages.front().floor = std::max(pages.front().floor, found.floor);
    } else {
      pages.push_back({&found.page, found.floor});
    }
  }
  return pages;
}

void ReadCoordinator::repair(const UnderWay& op) {
  const auto pages = differing(op);
  if (pages.size() < 2) return;
  const auto merged = reconcile(pages);
  for (const auto& found : op.found) {
    if (!found.owner) continue;  // a stand-in hands its hints over and keeps nothing
    std::map<ByteView, const Row*> has;
    for (const auto& [sort_key, row] : (found.same ? op.found.front() : found).page.rows) has.emplace(sort_key, &row);
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
  std::vector<std::uint64_t> slow;
  for (const auto& [id, op] : under_way_) {
    std::int64_t usual = 0;
    for (const auto& asked : op.pending) {
      if (op.deadline_ms <= core_.now.mono_ms || !core_.peers.healthy(asked.node)) late.emplace_back(id, asked.node);
      usual = std::max(usual, usual_ms(asked.node));
    }
    const auto patience_ms = std::min(std::max(kLateMs, 3 * usual), (op.deadline_ms - op.asked_ms) / kLateShare);
    if (!op.more.empty() && !op.answered && core_.now.mono_ms - op.asked_ms >= patience_ms) slow.push_back(id);
  }
  std::sort(late.begin(), late.end());  // the order of a hash table must not decide what a simulation does
  std::sort(slow.begin(), slow.end());
  for (const auto id : slow) {
    auto& op = under_way_.at(id);
    for (const auto& asked : op.pending) took(asked);
    ask_rest(id, op);
  }
  for (const auto& [id, node] : late) refused(id, node);
}

}  // namespace kinfs::cluster
