#include "cluster/node.h"

#include <algorithm>
#include <utility>

#include "cluster/anti_entropy.h"
#include "cluster/blocks.h"
#include "cluster/forward.h"
#include "cluster/hints.h"
#include "cluster/horizon.h"
#include "cluster/membership.h"
#include "cluster/partition_sums.h"
#include "cluster/put.h"
#include "cluster/read.h"
#include "cluster/reaper.h"
#include "cluster/replica.h"
#include "cluster/scrub.h"
#include "cluster/transition.h"
#include "storage/record_codec.h"

namespace kinfs::cluster {
namespace {
constexpr std::int64_t kReserveAgainMs = 1000;
// Of requests under a layout that this node does not know yet.
constexpr std::int64_t kHoldMs = 300;
constexpr std::size_t kMaxOnHold = 512;

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
}  // namespace

class NodeImpl {
 public:
  NodeImpl(NodeConfig config, const Reader& store, std::uint64_t seed)
      : core(std::move(config), store, seed),
        horizon(core),
        replica(core),
        replication(core),
        puts(core, replication, horizon),
        reads(core, horizon),
        blocks(core, replication),
        hints(core),
        sums(core),
        reaper(core, sums, horizon),
        anti_entropy(core, sums, horizon),
        scrub(core),
        membership(core, anti_entropy, horizon),
        transition(core, membership, anti_entropy, replication, reads, blocks),
        forwarder(core, [this](const Asker& asker, PutRequest r) { puts.put(asker, std::move(r)); }) {}

  void begin_round(Time now) { core.begin_round(now); }
  Result<void> start();
  void receive(Message message);
  Membership::Serving serves(const Message& message) const;
  void refuse_layout(const Message& message);
  static std::size_t bytes_of(const Body& body);
  bool receive_on_hold();
  std::vector<Effect> take_effects();
  void dispatch(Message& message);
  void request(const Asker& asker, Request request);
  void confirmed(std::uint64_t id, NodeId from);
  void refused(std::uint64_t id, NodeId from, const Error& error);
  void tick();
  void extend_reservation();
  bool is_full() const {
    return under_way() >= core.config.max_under_way || core.bytes_held >= core.config.max_bytes_under_way;
  }
  Error too_much_under_way() {
    ++core.counters.refused;
    ++core.counters.refused_busy;
    return {Errc::kBusy, "this host has too much under way to begin with more; try again in a moment"};
  }
  void refuse(const Asker& asker, Error error) {
    ++core.counters.refused;
    core.answer(core.new_id(), asker, std::move(error));
  }
  bool is_crowded() const {
    const auto unanswered = replication.unanswered() + reads.unanswered() + blocks.size() + forwarder.size();
    return unanswered >= core.config.crowded_at || core.bytes_held >= core.config.max_bytes_under_way / 2;
  }
  std::size_t under_way() const { return replication.size() + reads.size() + blocks.size() + forwarder.size(); }

  Core core;
  Horizon horizon;
  Replica replica;
  Replication replication;
  PutCoordinator puts;
  ReadCoordinator reads;
  BlockCoordinator blocks;
  HintReplay hints;
  PartitionSums sums;
  Reaper reaper;
  AntiEntropy anti_entropy;
  Scrub scrub;
  Membership membership;
  Transition transition;
  Forwarder forwarder;
  ForwardsTaken forwards_taken;
  struct OnHold {
    Message message;
    std::int64_t until_ms = 0;
    Held held;
  };
  std::vector<OnHold> on_hold;       // in the order in which they came
  bool looks_at_hold = false;        // some of them may be decided
  std::int64_t reserve_from_ms = 0;  // after a reservation that could not be saved
};

Result<void> NodeImpl::start() {
  auto stored = core.store.meta();
  if (!stored) return pass(std::move(stored));
  if (*stored && (**stored).node != core.config.self) {
    return fail(Errc::kRefused, "this data directory was written with another key, by " +
                                    membership.name_of((**stored).node) +
                                    ": give this host a data directory of its own (node.data_dir), or put the right "
                                    "key file into its place (node.key_file)");
  }
  if (*stored && (**stored).cluster_id != core.config.cluster_id) {
    return fail(Errc::kRefused,
                "this data directory was written under another cluster.id than the "
                "configuration's: correct cluster.id, or name an empty node.data_dir");
  }
  if (*stored) core.clock = HlcClock((**stored).hlc_reserved);
  auto meta = core.dots.start(*stored, core.config, core.now.wall_ms);
  if (core.bug(PlantedBug::kReuseDots)) core.dots.forget();
  core.begin_ids(meta.hlc_reserved);
  membership.start(meta);
  core.peers.start(core.now);
  if (auto started = hints.start(); !started) return started;
  anti_entropy.start();
  horizon.start();
  scrub.start();
  const auto origin = core.new_id();
  Batch batch;
  batch.meta = meta;
  core.save(origin, std::move(batch));
  core.on_save_failure(origin, [this](const Error&) { membership.not_saved(); });
  core.after_sync(origin, [this, meta] {
    core.dots.reserved(meta);
    membership.started();
  });
  return {};
}

void NodeImpl::receive(Message message) {
  if (message.to != core.config.self || !core.peers.is_member(message.from)) return;
  ++core.counters.messages_in;
  core.peers.heard(message.from, core.now);
  core.clock.observe(message.hlc, core.now.wall_ms);
  horizon.clock_of(message.from, message.hlc);
  const auto serving = serves(message);
  if (serving == Membership::Serving::kServe) return dispatch(message);
  membership.behind(message.from);
  const bool has_room = on_hold.size() < kMaxOnHold && core.bytes_held < core.config.max_bytes_under_way;
  if (serving == Membership::Serving::kRefuse || !has_room) return refuse_layout(message);
  const auto patience_ms = std::min<std::int64_t>(message.ttl_ms, kHoldMs);
  const auto bytes = kOperationBytes + bytes_of(message.body);
  on_hold.push_back({std::move(message), core.now.mono_ms + patience_ms, Held(core.bytes_held, bytes)});
}

Membership::Serving NodeImpl::serves(const Message& message) const {
  const auto is = [&]<class... T>(std::variant<T...>*) { return (std::holds_alternative<T>(message.body) || ...); };
  using Reads = std::variant<ReadRow, ReadPage>;
  using Writes = std::variant<WriteRows, HandOver, WriteBlock, SyncBlocks, SyncStore>;
  if (is(static_cast<Reads*>(nullptr))) return membership.serves_read(message.layout, message.from);
  if (is(static_cast<Writes*>(nullptr))) return membership.serves_write(message.layout);
  return Membership::Serving::kServe;
}

void NodeImpl::refuse_layout(const Message& message) {
  ++core.counters.refused;
  core.send(core.new_id(), message.from, message.id, core.config.request_timeout_ms,
            Refusal{Error{Errc::kRefused, "this node does not know that layout"}});
}

/// Of what is held for its layout: the values that it carries.
std::size_t NodeImpl::bytes_of(const Body& body) {
  std::size_t bytes = 0;
  const auto add = [&](const std::vector<std::pair<Bytes, Row>>& rows) {
    for (const auto& [sort_key, row] : rows) bytes += scan_weight(sort_key, row);
  };
  if (const auto* write = std::get_if<WriteRows>(&body)) add(write->rows);
  if (const auto* block = std::get_if<WriteBlock>(&body)) bytes += block->bytes->size();
  if (const auto* hand_over = std::get_if<HandOver>(&body)) {
    for (const auto& of_key : hand_over->writes) add(of_key.rows);
  }
  return bytes;
}

/// One that can be decided by now, or has to be, in a round of its own: what two of them save must not stand or fall
/// together. False: there is none.
bool NodeImpl::receive_on_hold() {
  const auto decided = std::find_if(on_hold.begin(), on_hold.end(), [this](const OnHold& held) {
    return serves(held.message) != Membership::Serving::kHold || held.until_ms <= core.now.mono_ms;
  });
  looks_at_hold = decided != on_hold.end();
  if (!looks_at_hold) return false;
  auto message = std::move(decided->message);
  on_hold.erase(decided);
  core.begin_round(core.now);
  if (serves(message) == Membership::Serving::kServe) {
    dispatch(message);
  } else {
    refuse_layout(message);
  }
  return true;
}

std::vector<Effect> NodeImpl::take_effects() {
  auto effects = core.take_effects();
  while (effects.empty() && looks_at_hold && receive_on_hold()) effects = core.take_effects();
  return effects;
}

void NodeImpl::dispatch(Message& message) {
  const auto from = message.from;
  const auto id = message.id;
  if (is_answer(message.body) && core.peers.answered(from, core.now)) anti_entropy.came_back(from);
  std::visit(Overloaded{
                 [&](Ping& ping) {
                   if (ping.from && ping.from->node == from) membership.heard(from, Gossip{{*ping.from}, true});
                   core.send(core.new_id(), from, id, core.config.request_timeout_ms,
                             Pong{core.store.usage().full, core.peers.reached()});
                 },
                 [&](Pong& pong) { core.peers.ponged(from, id, std::move(pong)); },
                 [&](Gossip& g) {
                   horizon.heard(g.horizons, message.hlc);
                   membership.heard(from, g);
                   looks_at_hold = !on_hold.empty();
                   if (g.reply) return;
                   core.send(core.new_id(), from, id, core.config.request_timeout_ms, membership.gossip(true));
                 },
                 [&](ReadRow& b) { replica.read_row(message, b); },
                 [&](ReadPage& b) { replica.read_page(message, b); },
                 [&](WriteRows& b) { replica.write_rows(message, b); },
                 [&](HandOver& b) { replica.take_over(message, b); },
                 [&](WriteBlock& b) { replica.write_block(message, b); },
                 [&](ReadBlock& b) { replica.read_block(message, b); },
                 [&](ReadRowReply& b) {
                   if (!anti_entropy.replied(id, from, b)) reads.replied(id, from, std::move(b));
                 },
                 [&](ReadPageReply& b) { reads.replied(id, from, std::move(b)); },
                 [&](WriteRowsReply&) { confirmed(id, from); },
                 [&](WriteBlockReply&) { confirmed(id, from); },
                 [&](ReadBlockReply& b) {
                   if (!anti_entropy.replied(id, from, b) && !scrub.replied(id, from, b)) blocks.replied(id, from, b);
                 },
                 [&](SyncBlocks& b) { replica.sync_blocks(message, b); },
                 [&](SyncStore&) { replica.sync_store(message); },
                 [&](SyncStoreReply& b) {
                   if (!reaper.replied(id, from, b)) anti_entropy.replied(id, from, b);
                 },
                 [&](Reap& b) { reaper.reap(message, b); },
                 [&](SyncBlocksReply& b) { blocks.synced(id, from, b.all); },
                 [&](Forward& b) {
                   if (!forwards_taken.first_time(from, id) && !core.bug(PlantedBug::kForwardTwice)) return;
                   auto* put = std::get_if<PutRequest>(&b.request);
                   const Asker asker{false, 0, from, id, core.now.mono_ms + message.ttl_ms};
                   if (put == nullptr)
                     return core.answer(core.new_id(), asker, Error{Errc::kUnsupported, "only puts are forwarded"});
                   // Who forwarded it tries the next owner, and in the end coordinates it itself.
                   if (auto error = membership.serves_nothing()) return refuse(asker, {Errc::kBusy, error->text});
                   if (is_full()) return core.answer(core.new_id(), asker, too_much_under_way());
                   puts.put(asker, std::move(*put));
                 },
                 [&](ForwardReply& b) { forwarder.replied(id, from, std::move(b)); },
                 [&](Refusal& b) { refused(id, from, b.error); },
                 [&](ComparePartitions& b) { anti_entropy.compare_partitions(message, b); },
                 [&](ComparePartitionsReply& b) {
                   if (!reaper.replied(id, from, b)) anti_entropy.replied(id, from, b);
                 },
                 [&](CompareItems& b) { anti_entropy.compare_items(message, b); },
                 [&](CompareItemsReply& b) { anti_entropy.replied(id, from, std::move(b)); },
             },
             message.body);
}

void NodeImpl::confirmed(std::uint64_t id, NodeId from) {
  replication.confirmed(id, from);
  hints.confirmed(id, from);
  anti_entropy.confirmed(id, from);
}

void NodeImpl::refused(std::uint64_t id, NodeId from, const Error& error) {
  replication.refused(id, from);
  reads.refused(id, from);
  blocks.refused(id, from);
  hints.refused(id, from);
  anti_entropy.refused(id, from, error);
  reaper.refused(id, from);
  scrub.refused(id, from);
  forwarder.refused(id, from);
}

void NodeImpl::request(const Asker& asker, Request request) {
  if (!std::holds_alternative<UsageRequest>(request) || !membership.known()) {
    if (auto error = membership.serves_nothing()) return refuse(asker, std::move(*error));
    if (is_full()) return core.answer(core.new_id(), asker, too_much_under_way());
  }
  std::visit(
      Overloaded{
          [&](GetRequest& r) { reads.get(asker, std::move(r)); },
          [&](ScanRequest& r) { reads.scan(asker, std::move(r)); },
          [&](PutRequest& r) {
            if (core.owns(partition_of(r.volume, r.partition_key))) return puts.put(asker, std::move(r));
            forwarder.put(asker, std::move(r));
          },
          [&](PutBlockRequest& r) { blocks.put(asker, std::move(r)); },
          [&](GetBlockRequest& r) { blocks.get(asker, r); },
          [&](AdmitRequest& r) { membership.admit(asker, std::move(r)); },
          [&](ChangeMemberRequest& r) { membership.change(asker, r); },
          [&](SyncBlocksRequest& r) { blocks.sync(asker, r.blocks); },
          [&](UsageRequest&) { core.answer(core.new_id(), asker, core.store.usage()); },
          [&](AdminRequest& r) {
            core.answer(core.new_id(), asker, Error{Errc::kUnsupported, "'" + r.command + "' is not known here"});
          },
      },
      request);
}

void NodeImpl::extend_reservation() {
  if (core.now.mono_ms < reserve_from_ms) return;
  const auto meta = core.dots.extend(core.clock.last(), core.now.wall_ms);
  if (!meta) return;
  const auto origin = core.new_id();
  Batch batch;
  batch.meta = *meta;
  core.on_save_failure(origin, [this](const Error&) {
    core.dots.not_reserved();
    reserve_from_ms = core.now.mono_ms + kReserveAgainMs;
  });
  core.save(origin, std::move(batch));
  core.after_sync(origin, [this, record = *meta] { core.dots.reserved(record); });
}

void NodeImpl::tick() {
  core.clock.next(core.now.wall_ms);
  anti_entropy.tick();
  reaper.tick();
  scrub.tick();
  for (const auto& probe : core.peers.tick(core.now, core.random)) {
    const auto id = core.new_id();
    Body body = Ping{};
    if (probe.gossip) body = membership.gossip(false);
    if (probe.introduces) {
      body = Ping{core.peers.own()};
      core.peers.introduced(probe.to, id);
    }
    core.send(id, probe.to, id, core.config.suspect_after_ms, std::move(body));
  }
  replication.tick();
  reads.tick();
  blocks.tick();
  forwarder.tick();
  hints.tick();
  looks_at_hold = !on_hold.empty();
  membership.tick();
  transition.tick();
  horizon.tick();
  extend_reservation();
}

Node::Node(NodeConfig config, const Reader& store, std::uint64_t seed)
    : impl_(std::make_unique<NodeImpl>(std::move(config), store, seed)) {}
Node::~Node() = default;

Result<void> Node::start(Time now) {
  impl_->begin_round(now);
  return impl_->start();
}

void Node::receive(Message message, Time now) {
  impl_->begin_round(now);
  impl_->receive(std::move(message));
}

void Node::request(std::uint64_t client, Request request, std::uint32_t ttl_ms, Time now) {
  impl_->begin_round(now);
  impl_->request(Asker{true, client, {}, 0, now.mono_ms + ttl_ms}, std::move(request));
}

void Node::synced(std::uint64_t token, Time now) {
  impl_->begin_round(now);
  impl_->core.synced(token);
}

void Node::save_failed(std::uint64_t origin, const Error& error, Time now) {
  impl_->core.now = now;
  impl_->core.save_failed(origin, error);
}

void Node::tick(Time now) {
  impl_->begin_round(now);
  impl_->tick();
}

std::vector<Effect> Node::take_effects() { return impl_->take_effects(); }

std::vector<PeerView> Node::peers() const {
  auto view = impl_->core.peers.view();
  for (auto& peer : view) peer.hints = impl_->core.store.hint_count(peer.member.node);
  return view;
}

const Counters& Node::counters() const { return impl_->core.counters; }

std::vector<NodeId> Node::owners(std::uint16_t partition) const {
  const auto list = impl_->core.placement.head().owners(partition);
  return {list.begin(), list.end()};
}

Hlc Node::hlc() const { return impl_->core.clock.last(); }
LayoutId Node::layout() const { return impl_->core.placement.head().id(); }
std::vector<Member> Node::members() const { return impl_->core.peers.members_now(); }
Quorum Node::quorum() const {
  const auto& placement = impl_->core.placement;
  return {placement.head().replicas(), placement.read_quorum(), placement.write_quorum()};
}
bool Node::crowded() const { return impl_->is_crowded(); }
std::size_t Node::bytes_under_way() const { return impl_->core.bytes_held; }
const LayoutHistory& Node::layouts() const { return impl_->core.placement.history(); }
bool Node::has_left() const { return impl_->membership.has_left(); }
double Node::given() const { return impl_->anti_entropy.given(); }
const std::optional<Obstacle>& Node::obstacle() const { return impl_->anti_entropy.obstacle(); }
void Node::scrub() { impl_->scrub.hurry(); }
double Node::scrubbed() const { return impl_->scrub.done(); }
std::size_t Node::beyond_repair() const { return impl_->scrub.beyond_repair(); }
Hlc Node::horizon() const { return impl_->horizon.least(); }
bool Node::knows_members() const { return impl_->membership.known(); }

bool Node::idle() const { return impl_->under_way() == 0 && impl_->hints.idle(); }

}  // namespace kinfs::cluster
