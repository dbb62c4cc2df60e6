#include "cluster/anti_entropy.h"

#include <algorithm>

#include "cluster/replica.h"
#include "storage/record_codec.h"

namespace kinfs::cluster {
namespace {

constexpr std::size_t kBucketItems = 32;
constexpr std::size_t kAnswerItems = 1024;
constexpr std::size_t kLooksPerTick = 256;  // at partitions whose sum is not known; one page counts for several
constexpr std::size_t kItemsPerLook = 32;
constexpr std::size_t kSumsPerMessage = 128;
constexpr std::size_t kFetches = 32;  // under way with one peer
constexpr std::size_t kBlockFetches = 4;
constexpr std::size_t kRowsPerGift = 64;
constexpr std::size_t kBytesPerGift = 256 << 10;
constexpr std::int64_t kAfterStartMs = 1000;
constexpr std::int64_t kAfterReturnMs = 3000;  // hints go first, and may be all that there is
constexpr std::int64_t kAgainMs = 5000;        // after a pass that left something over
constexpr std::int64_t kSyncMs = 5000;         // a disk that has much to write; asked again after that
constexpr std::int64_t kSyncPatienceMs = 60'000;  // of a pass for which nobody waits
constexpr double kLeastRowGifts = 4;              // at once, however slow: they are small, and there are many
constexpr std::size_t kPlaces = 2 * std::size_t{kPartitions};

/// The items of a partition, one by one.
class ItemCursor {
 public:
  ItemCursor(const Reader& store, ItemKind kind, std::uint16_t partition, Bytes after)
      : store_(store), kind_(kind), partition_(partition), after_(std::move(after)) {
    turn();
  }
  /// Null at the end, and after a failure.
  const Item* item() const { return next_ < page_.items.size() ? &page_.items[next_] : nullptr; }
  Item take() {
    Item out = std::move(page_.items[next_++]);
    if (next_ == page_.items.size() && !page_.complete) {
      after_ = out.key;
      turn();
    }
    return out;
  }
  const std::optional<Error>& failed() const { return failed_; }

 private:
  void turn() {
    auto page = store_.items(kind_, partition_, after_, kPageItems);
    next_ = 0;
    if (!page) failed_ = page.error();
    page_ = page ? std::move(*page) : ItemPage{};
  }
  const Reader& store_;
  const ItemKind kind_;
  const std::uint16_t partition_;
  Bytes after_;
  ItemPage page_;
  std::size_t next_ = 0;
  std::optional<Error> failed_;
};

}  // namespace

// --- Passes ---

void AntiEntropy::start() {
  const auto now_ms = core_.now.mono_ms;
  next_periodic_ms_ = next_pass_ms_ = next_surrender_ms_ = now_ms + kAfterStartMs;
}

bool AntiEntropy::idle() const { return !pass_ && wanted_.empty(); }

void AntiEntropy::came_back(NodeId node) {
  if (core_.config.compare_interval_ms == 0) return;
  if (wanted_.empty()) next_pass_ms_ = core_.now.mono_ms + kAfterReturnMs;
  wanted_.insert(node);
}

void AntiEntropy::members_changed() {
  if (core_.config.compare_interval_ms == 0) return;
  next_periodic_ms_ = next_surrender_ms_ = core_.now.mono_ms;
}

bool AntiEntropy::give_all() {
  const auto head = core_.placement.head().id();
  if (given_ == head) return true;
  if (to_give_ == head) return false;
  to_give_ = head;
  give_from_ms_ = core_.now.mono_ms;
  abandon_pass();
  return false;
}

double AntiEntropy::given() const {
  if (given_ == core_.placement.head().id()) return 1;
  if (!pass_ || pass_->aim != Aim::kGiveAll) return 0;
  // Of the places that hold something here, once they are all known.
  auto least = 1.0;
  for (const auto& [node, peer] : peers_) {
    const auto left = peer.sums.size() + peer.compared.size() + peer.differing.size() + (peer.walk ? 1 : 0);
    if (left > 0) least = std::min(least, 1 - static_cast<double>(left) / static_cast<double>(peer.places));
  }
  return least * static_cast<double>(pass_->next) / static_cast<double>(kPlaces);
}

bool AntiEntropy::may_give() const {
  if (!to_give_ || core_.now.mono_ms < give_from_ms_) return false;
  const auto head = core_.placement.head().preference(0);
  return std::all_of(head.begin(), head.end(), [&](NodeId node) { return core_.peers.healthy(node); });
}

/// What hints bring need not be sent once more.
bool AntiEntropy::hints_go_out() const {
  const auto targets = core_.store.hint_targets();
  return std::any_of(targets.begin(), targets.end(), [&](NodeId node) { return core_.peers.healthy(node); });
}

/// Where each host owns all, there is nothing of the kind.
bool AntiEntropy::may_surrender() const {
  if (core_.config.compare_interval_ms == 0 || core_.now.mono_ms < next_surrender_ms_ || !surrender_.idle())
    return false;
  const auto& history = core_.placement.history();
  return !history.changing() && history.is_member(core_.config.self) &&
         core_.placement.hosts().size() > core_.placement.head().replicas() && !hints_go_out();
}

bool AntiEntropy::joins() const {
  const auto& base = core_.placement.history().base().roles;
  return !base.contains(core_.config.self);
}

void AntiEntropy::abandon_pass() {
  if (!pass_) return;
  if (!pass_->only_gives()) wanted_.merge(pass_->with);
  started_ |= pass_->with_empty;
  pass_.reset();
  peers_.clear();
  exchanges_.clear();
}

/// `lacks`: it may not have what it should be given.
void AntiEntropy::leave_over(NodeId node, bool lacks) {
  if (!pass_) return;
  pass_->left_over.insert(node);
  pass_->not_given |= lacks;
}

void AntiEntropy::leave_over(NodeId node, const Error& error, bool lacks) {
  leave_over(node, lacks);
  if (pass_ && pass_->aim == Aim::kGiveAll && lacks) obstacle_ = Obstacle{node, error};
}

/// As far as is known: a surrender leaves it.
void AntiEntropy::lacks(NodeId node, const Place& place) {
  if (pass_ && pass_->aim == Aim::kSurrender) pass_->not_had_by.insert({node, place});
}

void AntiEntropy::lacks_compared(NodeId node, const Peer& peer) {
  for (const auto& sum : peer.compared) lacks(node, {sum.kind, sum.partition});
}

/// What is lost here, nobody can be given by this host: others who have it give it.
void AntiEntropy::cannot_give(NodeId to, const Place& place, const Error& error) {
  if (!is_lost(error)) {
    lacks(to, place);
    return leave_over(to, error);
  }
  // Bytes that do not match their hash are nothing; a row may be of use to somebody who looks at the disk.
  if (pass_ && place.first == ItemKind::kRow) pass_->unreadable.insert(place);
  ++core_.counters.unreadable;
}

AntiEntropy::Peer* AntiEntropy::peer_of(NodeId node) {
  const auto it = peers_.find(node);
  return it == peers_.end() ? nullptr : &it->second;
}

void AntiEntropy::tick() {
  surrender_.tick();
  if (!pass_) {
    const auto aim = next_aim();
    if (!aim) return;
    begin_pass(*aim);
  }
  expire();
  advance_pass();
  const bool all_sums = pass_->next == kPlaces;
  for (auto& [node, peer] : peers_) step(node, peer, all_sums);
  const bool ended =
      all_sums && std::all_of(peers_.begin(), peers_.end(), [](const auto& entry) { return entry.second.done(); });
  if (ended && sync_all()) end_pass();
}

/// What is due now, if anything is.
std::optional<AntiEntropy::Aim> AntiEntropy::next_aim() {
  const auto now_ms = core_.now.mono_ms;
  if (may_give()) return Aim::kGiveAll;
  if (surrender_is_next_ && may_surrender()) return Aim::kSurrender;
  // A host that joins is given what it will own: it need not ask for it as well.
  const bool asks = core_.config.compare_interval_ms != 0 && !joins();
  if (asks && now_ms >= next_periodic_ms_) {
    for (const auto node : core_.peers.ids()) wanted_.insert(node);
    next_periodic_ms_ = now_ms + some_interval_ms();
    return Aim::kEqual;
  }
  if (asks && !wanted_.empty() && now_ms >= next_pass_ms_) return Aim::kEqual;
  if (may_surrender()) return Aim::kSurrender;
  return std::nullopt;
}

/// Not all nodes at once, nor each at the same time of each hour.
std::int64_t AntiEntropy::some_interval_ms() {
  const std::int64_t interval_ms = core_.config.compare_interval_ms;
  const auto spread = static_cast<std::uint64_t>(std::max<std::int64_t>(1, interval_ms / 2));
  return interval_ms * 3 / 4 + static_cast<std::int64_t>(core_.random() % spread);
}

/// Whether that owner has all that it was to be given, on its disk.
bool AntiEntropy::is_sure_of(NodeId node) const {
  const auto it = peers_.find(node);
  if (it == peers_.end()) return false;
  const auto& peer = it->second;
  return peer.run && peer.synced_in == peer.run;
}

void AntiEntropy::surrender_what_others_have() {
  auto& all = pass_->not_owned;
  std::erase_if(all, [&](const Surrender::Confirmed& of) {
    const auto owners = core_.placement.head().owners(of.partition);
    if (core_.bug(PlantedBug::kSurrenderUnconfirmed)) return false;
    return pass_->unreadable.contains({of.kind, of.partition}) ||
           !std::all_of(owners.begin(), owners.end(), [&](NodeId owner) {
             return is_sure_of(owner) && !pass_->not_had_by.contains({owner, {of.kind, of.partition}});
           });
  });
  if (core_.placement.head().id() == pass_->head) surrender_.begin(pass_->head, all);
}

void AntiEntropy::end_pass() {
  const auto now_ms = core_.now.mono_ms;
  switch (pass_->aim) {
    case Aim::kEqual:
      ++core_.counters.compare_passes;
      surrender_is_next_ = true;
      if (wanted_.empty() && !pass_->left_over.empty()) next_pass_ms_ = now_ms + kAgainMs;
      wanted_.merge(pass_->left_over);
      break;
    case Aim::kGiveAll:
      if (pass_->head != to_give_) break;
      if (!pass_->not_given) {
        given_ = std::exchange(to_give_, std::nullopt);
        obstacle_.reset();
      }
      give_from_ms_ = now_ms + kAgainMs;
      break;
    case Aim::kSurrender:
      horizon_.look_ended(!pass_->holds && core_.placement.head().id() == pass_->head);
      surrender_what_others_have();
      surrender_is_next_ = false;
      // What was lost on the way, or refused for a moment, goes soon.
      next_surrender_ms_ = now_ms + (pass_->not_had_by.empty() ? some_interval_ms() : some_interval_ms() / 10);
      break;
  }
  pass_.reset();
  peers_.clear();
  exchanges_.clear();
}

void AntiEntropy::begin_pass(Aim aim) {
  pass_.emplace();
  pass_->aim = aim;
  pass_->head = core_.placement.head().id();
  if (aim == Aim::kSurrender) horizon_.look_begins();
  if (pass_->only_gives()) {
    for (const auto node : core_.placement.head().preference(0)) {
      if (node != core_.config.self && core_.peers.healthy(node)) pass_->with.insert(node);
    }
  } else {
    pass_->with_empty = std::exchange(started_, false);
    // Who cannot be reached now is back later, and wanted then.
    for (const auto node : std::exchange(wanted_, {})) {
      if (core_.peers.healthy(node)) pass_->with.insert(node);
    }
  }
  for (const auto node : pass_->with) peers_[node];
}

/// Each host begins elsewhere, so that a host which joins is not given one partition by all at once.
AntiEntropy::Place AntiEntropy::next_place() const {
  const auto& hosts = core_.placement.hosts();
  const auto rank = static_cast<std::size_t>(std::distance(hosts.begin(), hosts.find(core_.config.self)));
  const auto at = (pass_->next + rank * kPartitions / std::max<std::size_t>(1, hosts.size()) * 2) % kPlaces;
  return {at % 2 == 0 ? ItemKind::kRow : ItemKind::kBlock, static_cast<std::uint16_t>(at / 2)};
}

void AntiEntropy::ask_to_sync(NodeId node, Peer& peer) {
  if (peer.syncs != 0 && core_.now.mono_ms < peer.syncs_until_ms) return;
  if (peer.syncs == 0) {
    peer.syncs = core_.new_id();  // a late answer counts as well
    peer.syncs_from_ms = core_.now.mono_ms;
  }
  peer.syncs_until_ms = core_.now.mono_ms + kSyncMs;
  core_.send(peer.syncs, node, peer.syncs, core_.config.request_timeout_ms, SyncStore{});
}

/// What was given, or was there before, may still be lost there with a power cut. True once it cannot be, or does not
/// matter: a pass that gives all counts for all, or not at all.
bool AntiEntropy::sync_all() {
  if (!pass_->only_gives() || (pass_->aim == Aim::kGiveAll && pass_->not_given)) return true;
  bool all = true;
  for (auto& [node, peer] : peers_) {
    if (!peer.run || peer.synced_in) continue;  // without `run`: nothing was for it
    all = false;
    ask_to_sync(node, peer);
  }
  return all;
}

bool AntiEntropy::concerns(std::uint16_t partition) const {
  switch (pass_->aim) {
    case Aim::kEqual:
      return core_.owns(partition);
    case Aim::kSurrender:
      return !core_.owns(partition);
    case Aim::kGiveAll:
      break;
  }
  return true;
}

/// Gathers the sums of the partitions, a few in each tick.
void AntiEntropy::advance_pass() {
  auto& pass = *pass_;
  for (std::size_t looks = 0; pass.next < kPlaces && looks < kLooksPerTick; ++pass.next) {
    const auto [kind, partition] = next_place();
    if (!concerns(partition)) continue;
    std::optional<PartitionSum> sum;
    if (const auto* known = sums_.find(kind, partition)) {
      sum = *known;
    } else {
      const auto looked = sums_.advance(kind, partition, look_);
      if (!looked) {  // the disk cannot be read: nothing to compare with
        pass.not_given = pass.holds = true;
        if (pass.aim == Aim::kGiveAll) obstacle_ = Obstacle{core_.config.self, looked.error()};
        continue;
      }
      if (!*looked) return;  // more pages of it, in the next tick
      sum = **looked;
      looks += 1 + sum->items / kItemsPerLook;
    }
    if (sum->items == 0 && !pass.with_empty) continue;
    if (pass.aim == Aim::kSurrender) {
      pass.holds |= kind == ItemKind::kRow;
      if (sums_.find(kind, partition) == nullptr) continue;  // it changed meanwhile
      pass.not_owned.push_back({kind, partition, core_.changes(kind, partition)});
    }
    for (const auto owner : core_.placement.owners(partition)) {
      if (pass.only_gives() && !core_.placement.head().owns(owner, partition)) continue;
      auto* peer = peer_of(owner);
      if (peer == nullptr) continue;
      ++peer->places;
      peer->sums.push_back(*sum);
    }
  }
}

/// What was not answered in time is left to the next pass.
void AntiEntropy::expire() {
  const auto now_ms = core_.now.mono_ms;
  std::vector<std::pair<std::uint64_t, NodeId>> late;
  for (const auto& [id, exchange] : exchanges_) {
    if (now_ms - exchange.sent_ms >= core_.config.request_timeout_ms) late.emplace_back(id, exchange.peer);
  }
  std::sort(late.begin(), late.end());
  for (const auto& [id, node] : late) {
    const auto exchange = end_exchange(id, node);
    if (!exchange) continue;
    if (exchange->gift) pacer_of(node, exchange->place.first).lost();
    lacks(node, exchange->place);
    leave_over(node, !exchange->only_theirs);
  }
  const auto gone = std::erase_if(peers_, [&](const auto& entry) {
    const auto& peer = entry.second;
    // A disk that does not come to an end must not keep this pass, and with it all others, from theirs.
    const bool hangs =
        pass_->aim == Aim::kSurrender && peer.syncs != 0 && now_ms - peer.syncs_from_ms > kSyncPatienceMs;
    return hangs || !core_.peers.healthy(entry.first);
  });
  if (gone > 0) pass_->not_given = true;  // they are compared with when they are back
  for (auto& [node, peer] : peers_) {
    if (peer.asked != 0 && peer.deadline_ms <= now_ms) {
      leave_over(node);
      lacks_compared(node, peer);
      peer.asked = 0;
      peer.compared.clear();
    }
    if (peer.walk && peer.walk->asked != 0 && peer.walk->deadline_ms <= now_ms) {
      leave_over(node);
      lacks(node, peer.walk->place);
      peer.walk.reset();
    }
  }
}

void AntiEntropy::step(NodeId node, Peer& peer, bool all_sums) {
  if (pass_->only_gives() && !peer.run) {
    if (!peer.sums.empty()) ask_to_sync(node, peer);
    return;
  }
  if (peer.asked == 0 && !peer.sums.empty() && (all_sums || peer.sums.size() >= kSumsPerMessage)) {
    const auto count = std::min(peer.sums.size(), kSumsPerMessage);
    const auto end = peer.sums.begin() + static_cast<std::ptrdiff_t>(count);
    peer.compared.assign(peer.sums.begin(), end);
    peer.sums.erase(peer.sums.begin(), end);
    peer.asked = core_.new_id();
    peer.deadline_ms = core_.now.mono_ms + core_.config.request_timeout_ms;
    core_.send(peer.asked, node, peer.asked, core_.config.request_timeout_ms, ComparePartitions{peer.compared});
  }
  if (!peer.walk && !peer.differing.empty()) {
    peer.walk.emplace();
    peer.walk->place = peer.differing.front();
    peer.differing.pop_front();
  }
  if (!peer.walk) return;
  auto& walk = *peer.walk;
  if (walk.asked != 0) return;
  exchange(node, walk);
  if (!walk.under_way.empty() || !walk.fetch.empty() || !walk.give.empty()) return;
  if (walk.to_end) {
    peer.walk.reset();
  } else {
    compare_page(node, walk);
    if (walk.asked != 0) return;
    leave_over(node);
    lacks(node, walk.place);
    peer.walk.reset();
  }
}

// --- One partition, with one peer ---

void AntiEntropy::compare_page(NodeId node, Walk& walk) {
  const auto [kind, partition] = walk.place;
  auto page = core_.store.items(kind, partition, walk.after, kPageItems);
  if (!page) return;
  walk.page = std::move(page->items);
  walk.to_end = page->complete;
  walk.asked = core_.new_id();
  walk.deadline_ms = core_.now.mono_ms + core_.config.request_timeout_ms;
  core_.send(walk.asked, node, walk.asked, core_.config.request_timeout_ms,
             CompareItems{kind, partition, walk.after, buckets_of(walk), walk.to_end});
}

std::vector<Bucket> AntiEntropy::buckets_of(const Walk& walk) const {
  std::vector<Bucket> out;
  for (const auto& item : walk.page) {
    if (out.empty() || out.back().items == kBucketItems) out.emplace_back();
    out.back().last = item.key;
    ++out.back().items;
    add_to(out.back().digest, item.digest);
  }
  if (out.empty()) out.emplace_back();
  if (walk.to_end) out.back().last.clear();
  return out;
}

void AntiEntropy::replied(std::uint64_t id, NodeId from, const ComparePartitionsReply& reply) {
  auto* peer = peer_of(from);
  if (!asked(peer, id)) return;
  for (const auto index : reply.differing) {
    if (index >= peer->compared.size()) break;
    peer->differing.emplace_back(peer->compared[index].kind, peer->compared[index].partition);
  }
  peer->asked = 0;
  peer->compared.clear();
}

void AntiEntropy::replied(std::uint64_t id, NodeId from, CompareItemsReply reply) {
  auto* peer = peer_of(from);
  if (peer == nullptr || !peer->walk || peer->walk->asked != id) return;
  auto& walk = *peer->walk;
  walk.asked = 0;
  sort_out(walk, reply);
  if (reply.all) {
    if (!walk.page.empty()) walk.after = walk.page.back().key;
  } else {
    walk.after = reply.items.back().key;
    walk.to_end = false;
  }
  walk.page.clear();
}

/// What must be fetched, and what given, of the buckets that differ.
void AntiEntropy::sort_out(Walk& walk, const CompareItemsReply& reply) {
  std::map<ByteView, Digest128> theirs;
  for (const auto& item : reply.items) theirs.emplace(item.key, item.digest);
  const bool skips_absent = core_.bug(PlantedBug::kCompareSkipsAbsent);
  const bool only_gives = !core_.owns(walk.place.second);
  std::set<ByteView> own;
  for (std::size_t i = 0; i < walk.page.size(); ++i) {
    const auto& item = walk.page[i];
    own.insert(item.key);
    if (!std::binary_search(reply.differing.begin(), reply.differing.end(), i / kBucketItems)) continue;
    if (!reply.all && item.key > reply.items.back().key) break;
    const auto at = theirs.find(item.key);
    if (at == theirs.end()) {
      if (!skips_absent) walk.give.push_back(item.key);
    } else if (at->second != item.digest && only_gives) {
      walk.give.push_back(item.key);
    } else if (at->second != item.digest) {
      walk.fetch.push_back(item.key);
    }
  }
  for (const auto& [key, digest] : theirs) {
    if (only_gives) break;
    if (!own.contains(key) && !skips_absent) walk.fetch.emplace_back(key);
  }
}

void AntiEntropy::exchange(NodeId node, Walk& walk) {
  const bool rows = walk.place.first == ItemKind::kRow;
  while (!walk.fetch.empty() && walk.under_way.size() < (rows ? kFetches : kBlockFetches)) {
    const Bytes key = std::move(walk.fetch.front());
    walk.fetch.pop_front();
    fetch(node, walk, key);
  }
  while (!walk.give.empty() && walk.under_way.size() < pacer_of(node, walk.place.first).window()) {
    if (rows) {
      give_rows(node, walk);
      continue;
    }
    const Bytes key = std::move(walk.give.front());
    walk.give.pop_front();
    give_block(node, walk, key);
  }
}

std::uint64_t AntiEntropy::begin_exchange(NodeId node, Walk& walk, Exchange exchange) {
  const auto id = core_.new_id();
  exchange.peer = node;
  exchange.place = walk.place;
  exchange.sent_ms = core_.now.mono_ms;
  exchanges_.emplace(id, std::move(exchange));
  walk.under_way.insert(id);
  return id;
}

std::optional<AntiEntropy::Exchange> AntiEntropy::end_exchange(std::uint64_t id, NodeId from) {
  const auto it = exchanges_.find(id);
  if (it == exchanges_.end() || it->second.peer != from) return std::nullopt;
  auto out = std::move(it->second);
  exchanges_.erase(it);
  if (auto* peer = peer_of(from); peer != nullptr && peer->walk) peer->walk->under_way.erase(id);
  return out;
}

void AntiEntropy::fetch(NodeId node, Walk& walk, const Bytes& key) {
  // The peer named it: it is read like any byte from a socket.
  if (walk.place.first == ItemKind::kRow) {
    auto row_key = parse_row_key(key);
    if (!row_key) return;
    const auto here = core_.row(*row_key);
    const auto id = begin_exchange(node, walk, {.key = key, .only_theirs = here && here->empty()});
    core_.send(id, node, id, core_.config.request_timeout_ms, ReadRow{std::move(*row_key)});
  } else {
    auto block_key = parse_block_key(key);
    if (!block_key) return;
    const auto id = begin_exchange(node, walk, {.key = key, .only_theirs = true});
    core_.send(id, node, id, core_.config.request_timeout_ms, ReadBlock{std::move(*block_key)});
  }
}

/// A run of rows of one partition key: what came together goes together.
void AntiEntropy::give_rows(NodeId node, Walk& walk) {
  WriteRows write;
  std::size_t bytes = 0;
  while (!walk.give.empty() && write.rows.size() < kRowsPerGift && bytes < kBytesPerGift) {
    auto key = parse_row_key(walk.give.front());
    const bool fits =
        key && (write.rows.empty() || (key->volume == write.volume && key->partition_key == write.partition_key));
    if (key && !fits) break;
    walk.give.pop_front();
    if (!key) {
      lacks(node, walk.place);
      continue;
    }
    auto row = core_.row(*key);
    if (!row) cannot_give(node, walk.place, row.error());
    if (!row || row->empty()) continue;
    bytes += scan_weight(key->sort_key, *row);
    write.volume = key->volume;
    write.partition_key = std::move(key->partition_key);
    write.rows.emplace_back(std::move(key->sort_key), std::move(*row));
  }
  if (write.rows.empty()) return;
  core_.counters.rows_exchanged += write.rows.size();
  const auto id = begin_exchange(node, walk, {.gift = true});
  core_.send(id, node, id, core_.config.request_timeout_ms, std::move(write));
}

void AntiEntropy::give_block(NodeId node, Walk& walk, const Bytes& key) {
  auto block_key = parse_block_key(key);
  if (!block_key) return lacks(node, walk.place);
  auto bytes = core_.store.get_block(*block_key);
  if (!bytes) return cannot_give(node, walk.place, bytes.error());
  ++core_.counters.blocks_exchanged;
  const auto id = begin_exchange(node, walk, {.gift = true});
  core_.send(id, node, id, core_.config.request_timeout_ms,
             WriteBlock{std::move(*block_key), std::move(*bytes), false, {}});
}

bool AntiEntropy::replied(std::uint64_t id, NodeId from, const ReadRowReply& reply) {
  const auto exchange = end_exchange(id, from);
  if (!exchange) return false;
  auto key = parse_row_key(exchange->key);
  if (!key || reply.row.empty()) return true;
  auto stored = core_.row(*key);
  if (!stored) {
    leave_over(from);
    return true;
  }
  core_.observe(reply.row);
  const auto floor = core_.floor(exchange->place.second);
  Row merged = core_.bug(PlantedBug::kAdoptPeersRow)
                   ? reply.row
                   : merge(FlooredRow{*stored, floor}, FlooredRow{reply.row, horizon_.believed(reply.floor)});
  if (merged != *stored) {
    ++core_.counters.rows_exchanged;
    if (has_dot_clash(merged)) ++core_.counters.dot_clashes;
    Batch batch;
    batch.rows.emplace_back(*key, merged);
    core_.save(core_.new_id(), std::move(batch));
  }
  auto* peer = peer_of(from);
  if (merged == reply.row || peer == nullptr || !peer->walk) return true;
  ++core_.counters.rows_exchanged;
  WriteRows write{key->volume, std::move(key->partition_key), {}, false, {}};
  write.rows.emplace_back(std::move(key->sort_key), std::move(merged));
  const auto gift = begin_exchange(from, *peer->walk, {.gift = true});
  core_.send(gift, from, gift, core_.config.request_timeout_ms, std::move(write));
  return true;
}

bool AntiEntropy::replied(std::uint64_t id, NodeId from, const ReadBlockReply& reply) {
  const auto exchange = end_exchange(id, from);
  if (!exchange) return false;
  auto key = parse_block_key(exchange->key);
  if (!key || reply.bytes == nullptr || sha256(*reply.bytes) != key->hash) {
    leave_over(from, false);  // it named the block, and has not got its bytes
    return true;
  }
  ++core_.counters.blocks_exchanged;
  core_.save_block(core_.new_id(), *key, reply.bytes);
  return true;
}

void AntiEntropy::confirmed(std::uint64_t id, NodeId from) {
  const auto exchange = end_exchange(id, from);
  if (!exchange || !exchange->gift) return;
  pacer_of(from, exchange->place.first).confirmed(core_.now.mono_ms - exchange->sent_ms, core_.now.mono_ms);
  if (auto* peer = peer_of(from); peer != nullptr && peer->walk) this->exchange(from, *peer->walk);
}

Pacer& AntiEntropy::pacer_of(NodeId node, ItemKind kind) {
  return pacers_.try_emplace({node, kind}, kind == ItemKind::kRow ? kLeastRowGifts : 1).first->second;
}

void AntiEntropy::replied(std::uint64_t id, NodeId from, const SyncStoreReply& reply) {
  auto* peer = peer_of(from);
  if (peer == nullptr || peer->syncs != id) return;
  peer->syncs = 0;
  if (!peer->run) {
    peer->run = reply.run;
    return;
  }
  peer->synced_in = reply.run;
  if (*peer->run != reply.run) leave_over(from);
}

void AntiEntropy::refused(std::uint64_t id, NodeId from, const Error& error) {
  if (const auto exchange = end_exchange(id, from)) {
    leave_over(from, error, !exchange->only_theirs);
    lacks(from, exchange->place);
  }
  auto* peer = peer_of(from);
  if (asked(peer, id)) {
    leave_over(from, error);
    lacks_compared(from, *peer);
    peer->asked = 0;
    peer->compared.clear();
  }
  if (peer == nullptr) return;
  if (peer->walk && peer->walk->asked == id) {
    leave_over(from, error);
    lacks(from, peer->walk->place);
    peer->walk.reset();
  }
  if (peer->syncs == id) {
    leave_over(from, error);
    peers_.erase(from);
  }
}

// --- Asked by a peer ---

void AntiEntropy::compare_partitions(const Message& message, const ComparePartitions& theirs) {
  ComparePartitionsReply reply;
  std::size_t looks = 0;
  for (std::uint32_t i = 0; i < theirs.sums.size(); ++i) {
    const auto& sum = theirs.sums[i];
    const auto* own = sums_.find(sum.kind, sum.partition);
    if (own == nullptr && looks < kLooksPerTick) {
      own = sums_.look(sum.kind, sum.partition);
      looks += 1 + (own != nullptr ? own->items : kPageItems) / kItemsPerLook;
    }
    if (own == nullptr || *own != sum) reply.differing.push_back(i);
  }
  core_.send(core_.new_id(), message.from, message.id, core_.config.request_timeout_ms, std::move(reply));
}

void AntiEntropy::compare_items(const Message& message, const CompareItems& theirs) {
  CompareItemsReply reply;
  ItemCursor here(core_.store, theirs.kind, theirs.partition, theirs.after);
  std::size_t bytes = 0;
  for (std::uint32_t i = 0; i < theirs.buckets.size() && reply.all; ++i) {
    const auto& bucket = theirs.buckets[i];
    const bool open = theirs.to_end && i + 1 == theirs.buckets.size();
    const auto begin = reply.items.size();
    Digest128 digest{};
    while (here.item() != nullptr && (open || here.item()->key <= bucket.last)) {
      add_to(digest, here.item()->digest);
      bytes += here.item()->key.size();
      reply.items.push_back(here.take());
      reply.all = reply.items.size() < kAnswerItems && bytes < kItemPageBytes;
      if (!reply.all) break;
    }
    if (here.failed()) {
      ++core_.counters.refused;
      return core_.send(core_.new_id(), message.from, message.id, core_.config.request_timeout_ms,
                        Refusal{*here.failed()});
    }
    if (reply.all && reply.items.size() - begin == bucket.items && digest == bucket.digest) {
      reply.items.resize(begin);
    } else {
      reply.differing.push_back(i);
    }
  }
  core_.send(core_.new_id(), message.from, message.id, core_.config.request_timeout_ms, std::move(reply));
}

}  // namespace kinfs::cluster
