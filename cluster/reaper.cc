#include "cluster/reaper.h"

#include <algorithm>

#include "storage/record_codec.h"

namespace kinfs::cluster {
namespace {
constexpr std::size_t kLooksPerTick = 64;  // at partitions whose sum is not known; many items count for several
constexpr std::size_t kItemsPerLook = 32;
constexpr std::size_t kChosenAtMost = 256;  // partitions in one pass
constexpr std::int64_t kSyncMs = 30'000;    // a disk that has much to write
}  // namespace

bool Reaper::may_begin() const {
  if (core_.config.reap_after_ms == 0 || core_.config.compare_interval_ms == 0) return false;
  const auto& history = core_.placement.history();
  return core_.now.mono_ms >= next_ms_ && !history.changing() && history.is_member(core_.config.self);
}

bool Reaper::still_holds() const {
  const auto& history = core_.placement.history();
  return !history.changing() && history.head().id == pass_->head;
}

bool Reaper::is_first(std::uint16_t partition) const {
  const auto owners = core_.placement.head().owners(partition);
  return !owners.empty() && owners.front() == core_.config.self;
}

void Reaper::tick() {
  if (!pass_) {
    if (!may_begin()) return;
    next_ms_ = core_.now.mono_ms + std::max<std::int64_t>(1, core_.config.reap_after_ms / 2);
    const auto floor = core_.bug(PlantedBug::kReapWithoutHorizon) ? core_.clock.last() : horizon_.least();
    if (floor == Hlc{}) return;
    pass_.emplace();
    pass_->head = core_.placement.head().id();
    pass_->floor = floor;
  }
  if (!still_holds()) return pass_.reset();
  switch (pass_->step) {
    case Step::kLook:
      return look();
    case Step::kReap:
      return reap_page();
    case Step::kRuns:
    case Step::kCompare:
    case Step::kSync:
      if (all_answered()) next_step();
  }
}

/// For partitions with something that may go.
void Reaper::look() {
  auto& pass = *pass_;
  for (std::size_t looks = 0; pass.next < kPartitions && looks < kLooksPerTick; ++pass.next) {
    if (pass.chosen.size() == kChosenAtMost) break;
    const auto partition = static_cast<std::uint16_t>((first_ + pass.next) % kPartitions);
    if (!is_first(partition)) continue;
    if (sums_.find(ItemKind::kRow, partition) == nullptr) {
      const auto looked = sums_.advance(ItemKind::kRow, partition, look_);
      if (!looked) continue;  // it cannot be read
      if (!*looked) return;   // more pages of it, in the next tick
      looks += 1 + (*looked)->items / kItemsPerLook;
    }
    const auto* sum = sums_.find(ItemKind::kRow, partition);
    const auto oldest = sums_.oldest_grave(partition);
    if (sum != nullptr && oldest != Hlc{} && oldest <= pass.floor) pass.chosen.push_back({*sum});
  }
  if (pass.next < kPartitions && pass.chosen.size() < kChosenAtMost) return;
  first_ = (first_ + pass.next) % kPartitions;  // what always differs must not keep the rest from its turn
  if (pass.chosen.empty()) return pass_.reset();
  number_chosen();
  ask_all(Step::kRuns);
}

void Reaper::number_chosen() {
  auto& pass = *pass_;
  for (auto& [node, peer] : pass.peers) peer.of.clear();
  for (std::size_t i = 0; i < pass.chosen.size(); ++i) {
    for (const auto owner : core_.placement.head().owners(pass.chosen[i].sum.partition)) {
      if (owner != core_.config.self) pass.peers[owner].of.push_back(i);
    }
  }
}

void Reaper::ask_all(Step step) {
  auto& pass = *pass_;
  pass.step = step;
  const std::int64_t patience_ms = step == Step::kCompare ? core_.config.request_timeout_ms : kSyncMs;
  pass.deadline_ms = core_.now.mono_ms + patience_ms;
  for (auto& [node, peer] : pass.peers) {
    if (peer.failed || !core_.peers.healthy(node)) {
      peer.failed = true;
      continue;
    }
    peer.asked = core_.new_id();
    Body body = SyncStore{};
    if (step == Step::kCompare) {
      ComparePartitions compare;
      for (const auto i : peer.of) compare.sums.push_back(pass.chosen[i].sum);
      body = std::move(compare);
    }
    core_.send(peer.asked, node, peer.asked, static_cast<std::uint32_t>(patience_ms), std::move(body));
  }
  if (step != Step::kSync) return;
  const auto origin = pass.sync = core_.new_id();
  core_.after_sync(origin, [this, origin] {
    if (pass_ && pass_->sync == origin) pass_->synced_here = true;
  });
}

bool Reaper::all_answered() {
  auto& pass = *pass_;
  const bool late = core_.now.mono_ms >= pass.deadline_ms;
  bool all = pass.step != Step::kSync || pass.synced_here;
  if (late && !all) {
    pass_.reset();
    return false;
  }
  for (auto& [node, peer] : pass.peers) {
    if (peer.asked != 0 && (late || !core_.peers.healthy(node))) refused(peer.asked, node);
    all &= peer.asked == 0;
  }
  return all;
}

void Reaper::next_step() {
  auto& pass = *pass_;
  if (pass.step == Step::kRuns) return ask_all(Step::kCompare);
  for (const auto& [node, peer] : pass.peers) {
    if (!peer.failed) continue;
    for (const auto i : peer.of) pass.chosen[i].equal = false;
  }
  std::erase_if(pass.chosen, [](const Chosen& chosen) { return !chosen.equal; });
  if (pass.chosen.empty()) return pass_.reset();
  number_chosen();
  std::erase_if(pass.peers, [](const auto& entry) { return entry.second.of.empty(); });
  if (pass.step == Step::kCompare) return ask_all(Step::kSync);
  pass.step = Step::kReap;
  pass.next = 0;
}

void Reaper::reap_page() {
  auto& pass = *pass_;
  if (pass.next == pass.chosen.size()) return pass_.reset();
  const auto partition = pass.chosen[pass.next].sum.partition;
  auto page = core_.store.items(ItemKind::kRow, partition, pass.after, kPageItems);
  const bool more = page && !page->complete && !page->items.empty();
  if (more) {
    pass.after = page->items.back().key;
  } else {
    pass.after.clear();
    ++pass.next;
  }
  if (!page) return;
  std::erase_if(page->items, [&](const Item& item) { return item.grave == Hlc{} || item.grave > pass.floor; });
  if (!page->items.empty()) tell(partition, std::move(page->items));
}

void Reaper::tell(std::uint16_t partition, std::vector<Item> items) {
  Reap reap{partition, {}, pass_->floor, std::move(items)};
  for (const auto owner : core_.placement.head().owners(partition)) {
    if (owner == core_.config.self) continue;
    reap.run = pass_->peers.at(owner).run;
    const auto id = core_.new_id();
    core_.send(id, owner, id, core_.config.request_timeout_ms, reap);
  }
  apply(reap);
}

Reaper::Peer* Reaper::asked(std::uint64_t id, NodeId from) {
  if (!pass_) return nullptr;
  const auto it = pass_->peers.find(from);
  return it != pass_->peers.end() && it->second.asked == id && id != 0 ? &it->second : nullptr;
}

bool Reaper::replied(std::uint64_t id, NodeId from, const ComparePartitionsReply& reply) {
  auto* peer = asked(id, from);
  if (peer == nullptr) return false;
  peer->asked = 0;
  for (const auto index : reply.differing) {
    if (index < peer->of.size()) pass_->chosen[peer->of[index]].equal = false;
  }
  return true;
}

bool Reaper::replied(std::uint64_t id, NodeId from, const SyncStoreReply& reply) {
  auto* peer = asked(id, from);
  if (peer == nullptr) return false;
  peer->asked = 0;
  if (pass_->step == Step::kRuns) {
    peer->run = reply.run;
  } else {
    peer->failed |= peer->run != reply.run;
  }
  return true;
}

void Reaper::refused(std::uint64_t id, NodeId from) {
  auto* peer = asked(id, from);
  if (peer == nullptr) return;
  peer->asked = 0;
  peer->failed = true;
}

// --- As an owner ---

void Reaper::reap(const Message& message, const Reap& reap) {
  const auto& history = core_.placement.history();
  const auto owners = core_.placement.head().owners(reap.partition);
  const bool knows = !history.changing() && history.head().id == message.layout && core_.owns(reap.partition) &&
                     owners.front() == message.from;
  // It is not above the horizon of any member, this one among them.
  if (knows && reap.run == core_.config.run && horizon_.believed(reap.floor) == reap.floor) apply(reap);
}

void Reaper::apply(const Reap& reap) {
  Batch batch;
  for (const auto& item : reap.items) {
    auto key = parse_row_key(item.key);
    if (!key || partition_of(key->volume, key->partition_key) != reap.partition) continue;
    const auto row = core_.row(*key);
    if (!row || !row->is_grave() || row->latest() > reap.floor || item_digest(item.key, *row) != item.digest) continue;
    batch.erase_rows.push_back(std::move(*key));
  }
  // Later dots go on vouching for those that are forgotten here: they are dead, and a row that is written for years
  // must not tell each of the times at which others were reaped.
  batch.meta = core_.dots.with_floor(reap.partition, std::max(core_.dots.floor(reap.partition), reap.floor));
  core_.counters.rows_reaped += batch.erase_rows.size();
  core_.save(core_.new_id(), std::move(batch));
}

}  // namespace kinfs::cluster
