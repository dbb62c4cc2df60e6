// See zmq_transport.h.
#include "cluster/zmq_transport.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>

#include <array>
#include <charconv>
#include <deque>
#include <optional>
#include <random>
#include <unordered_map>

#include "cluster/hop.h"
#include "cluster/remote_clients.h"
#include "cluster/zmq_line.h"

namespace kinfs::cluster {
namespace {

constexpr std::size_t kQueueMessages = 4096;   // per peer
constexpr std::size_t kQueueBytes = 32 << 20;  // per peer
constexpr int kMessagesPerTurn = 128;  // then others have their turn,
constexpr std::int64_t kTurnUs = 5000;  // and after as long: one may ask for a megabyte
constexpr std::int64_t kPurgeMs = 100;

std::string user_id_of(NodeId node) { return fmt::format("{:016x}", static_cast<std::uint64_t>(node)); }

/// What goes before the id of a visitor's host, or of a guest's key.
constexpr std::array<std::string_view, kVisitorKinds> kPrefixes = {"client of ", "guest "};
constexpr std::array kVisitors = {Visitor::kClient, Visitor::kGuest};

std::string_view prefix_of(Visitor visitor) { return kPrefixes[static_cast<std::size_t>(visitor)]; }

std::string user_id_of(Visitor visitor, NodeId id) { return std::string(prefix_of(visitor)) + user_id_of(id); }

/// Who is at the other end of a connection, by the key that was proven.
struct Proven {
  NodeId id{};
  std::optional<Visitor> visitor;  // nullopt: a node
};

Proven parse_user_id(const char* text) {
  std::string_view view = text == nullptr ? "" : text;
  Proven proven;
  for (const auto visitor : kVisitors) {
    if (!view.starts_with(prefix_of(visitor))) continue;
    proven.visitor = visitor;
    view.remove_prefix(prefix_of(visitor).size());
    break;
  }
  std::uint64_t id = 0;
  const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), id, 16);
  if (error != std::errc{} || end != view.data() + view.size()) return {};
  proven.id = NodeId{id};
  return proven;
}

}  // namespace

NodeId node_id_of(ByteView public_key) { return NodeId{read_be64(view_of(sha256(public_key)))}; }

struct ZmqTransport::Impl {
  struct Queued {
    SharedBytes header;
    SharedBytes payload;
    std::int64_t deadline_ms = 0;
    std::size_t size() const { return header->size() + (payload ? payload->size() : 0); }
  };
  struct Peer {
    Member member;
    ZmqLine line;
    std::deque<Queued> queue;
    std::size_t queued_bytes = 0;
    QueueDelay delay;
  };

  EventLoop& loop;
  TransportConfig config;
  std::function<void(Message)> on_message;
  // Closed in the reverse order: the sockets before the context, which waits for them.
  ZmqContext context;
  ZmqSocket zap;
  ZmqSocket router;
  std::unordered_map<NodeId, Peer> peers;
  std::unordered_map<std::string, NodeId> admitted;          // by public key
  std::unordered_map<std::string, NodeId> admitted_clients;  // by client key: the host
  std::unordered_map<std::string, NodeId> admitted_guests;   // by key: its id
  std::array<std::optional<RemoteClients>, kVisitorKinds> visitors;
  std::set<NodeId> cut;
  TransportCounters counters;
  LogPace strangers;
  LogPace liars;
  LogPace garbled;
  const std::uint64_t boot = std::random_device{}() | static_cast<std::uint64_t>(std::random_device{}()) << 32;
  bool unread = false;                                         // the ROUTER is to be read without being told
  bool answered = false;                                       // in this turn, a visitor
  std::shared_ptr<bool> alive = std::make_shared<bool>(true);  // the loop's hooks outlive this

  Impl(EventLoop& l, TransportConfig c, std::function<void(Message)> f)
      : loop(l), config(std::move(c)), on_message(std::move(f)) {}

  ~Impl() {
    for (auto& [id, peer] : peers) close_peer(peer);
    if (router) loop.remove(router.descriptor());
    if (zap) loop.remove(zap.descriptor());
  }

  Result<void> admit(const std::vector<Member>& members);
  void admit_clients(const Member& member, const Bytes& old_key);
  void set_members(const std::vector<Member>& members);
  Result<void> open_router();
  Result<void> open_peer(Peer& peer);
  void close_peer(Peer& peer);
  Result<void> watch_peer(Peer& peer);
  void reopen_if_lost(Peer& peer);
  void dial_anew(Peer& peer);
  Result<void> watch();
  std::string user_of(const std::string& key) const;
  void answer_zap();
  void on_router();
  /// False: there is more.
  bool read_router();
  bool receive_one();
  void accept(ByteView header, SharedBytes payload, NodeId proven);
  std::optional<RemoteClients>& of(Visitor visitor) { return visitors[static_cast<std::size_t>(visitor)]; }
  void accept_visitor(Visitor visitor, ByteView route, ByteView header, SharedBytes payload, NodeId id);
  void serve(Visitor visitor, UnixServer::OnRequest on_request, std::function<Hlc()> hlc, UnixServerLimits limits);
  void send(const Message& message);
  void flush(Peer& peer);
  bool write(Peer& peer, const Queued& item, std::int64_t now_ms);
  void drop_front(Peer& peer);
  void purge(Peer& peer);
  void report_too_large(const Message& message, std::size_t bytes);
};

// --- Opening ---

Result<void> ZmqTransport::Impl::admit(const std::vector<Member>& members) {
  if (config.keys.public_key.size() != kKeyBytes || config.keys.secret_key.size() != kKeyBytes) {
    return fail(Errc::kRefused, "this node's keys are not CURVE keys of 32 bytes");
  }
  if (node_id_of(config.keys.public_key) != config.self) {
    return fail(Errc::kRefused, fmt::format("node {} has the key of node {}", user_id_of(config.self),
                                            user_id_of(node_id_of(config.keys.public_key))));
  }
  for (const auto& member : members) {
    if (member.public_key.size() != kKeyBytes || node_id_of(member.public_key) != member.node) {
      return fail(Errc::kRefused, fmt::format("member {} ({}) is listed with a key that is not its own", member.name,
                                              user_id_of(member.node)));
    }
    if (member.node == config.self) continue;
    admitted[member.public_key] = member.node;
    peers[member.node].member = member;
    admit_clients(member, {});
  }
  return {};
}

void ZmqTransport::Impl::admit_clients(const Member& member, const Bytes& old_key) {
  if (member.client_key == old_key) return;
  const auto old = admitted_clients.find(old_key);
  if (old != admitted_clients.end() && old->second == member.node) admitted_clients.erase(old);
  if (member.client_key.size() == kKeyBytes) admitted_clients.try_emplace(member.client_key, member.node);
}

Result<void> ZmqTransport::Impl::open_router() {
  auto started = ZmqContext::start();
  if (!started) return pass(std::move(started));
  context = std::move(*started);
  auto check = context.key_check();
  if (!check) return pass(std::move(check));
  zap = std::move(*check);
  auto listening = context.listen(config.listen, config.keys);
  if (!listening) return pass(std::move(listening));
  router = std::move(*listening);
  return {};
}

Result<void> ZmqTransport::Impl::open_peer(Peer& peer) {
  const auto& member = peer.member;
  if (auto ok = peer.line.open(context, member.name, member.address, member.public_key, config.keys); !ok) return ok;
  ++counters.dialled;
  return {};
}

void ZmqTransport::Impl::close_peer(Peer& peer) {
  if (!peer.line.is_open()) return;
  loop.remove(peer.line.descriptor());
  loop.remove(peer.line.monitor_descriptor());
  peer.line.close();
}

Result<void> ZmqTransport::Impl::watch_peer(Peer& peer) {
  auto watched = loop.add(peer.line.descriptor(), EPOLLIN, [this, &peer](std::uint32_t) {
    if (peer.line.socket().can_send()) flush(peer);
  });
  if (watched) {
    watched = loop.add(peer.line.monitor_descriptor(), EPOLLIN, [&peer](std::uint32_t) { (void)peer.line.look(); });
  }
  if (!watched) return watched;
  (void)peer.line.look();
  if (peer.line.socket().can_send()) flush(peer);
  return {};
}

void ZmqTransport::Impl::reopen_if_lost(Peer& peer) {
  if (peer.line.lost(EventLoop::mono_ms())) dial_anew(peer);
}

void ZmqTransport::Impl::dial_anew(Peer& peer) {
  close_peer(peer);
  auto opened = open_peer(peer);
  if (opened) opened = watch_peer(peer);
  if (opened) return;
  spdlog::warn("{}: {}; another try follows", config.listen, opened.error().text);
  close_peer(peer);
}

void ZmqTransport::Impl::set_members(const std::vector<Member>& members) {
  for (const auto& member : members) {
    if (member.node == config.self) continue;
    if (member.public_key.size() != kKeyBytes || node_id_of(member.public_key) != member.node) {
      spdlog::error("{}: {} is said to be a member with a key that is not its own; it is not spoken with",
                    config.listen, member.name);
      continue;
    }
    auto& peer = peers[member.node];
    const bool same = peer.member.address == member.address && peer.line.is_open();
    admit_clients(member, peer.member.client_key);
    peer.member = member;
    admitted[member.public_key] = member.node;
    if (!same) dial_anew(peer);
  }
}

Result<void> ZmqTransport::Impl::watch() {
  auto watched = loop.add(zap.descriptor(), EPOLLIN, [this](std::uint32_t) { answer_zap(); });
  if (watched) watched = loop.add(router.descriptor(), EPOLLIN, [this](std::uint32_t) { on_router(); });
  for (auto& [id, peer] : peers) {
    if (watched) watched = watch_peer(peer);
  }
  if (!watched) return watched;
  const std::weak_ptr<bool> guard = alive;
  loop.before_wait([this, guard] {
    if (guard.expired() || !unread) return false;
    on_router();
    return unread;
  });
  loop.every(kPurgeMs, [this, guard] {
    if (guard.expired()) return;
    for (auto& [id, peer] : peers) {
      purge(peer);
      reopen_if_lost(peer);
    }
    for (auto& all : visitors) {
      if (all) all->sweep(EventLoop::mono_ms());
    }
    on_router();
  });
  return {};
}

// --- Who is let in (ZeroMQ RFC 27, ZAP) ---

/// Empty: nobody. A node's key is never taken for one of clients, nor theirs for a guest's.
std::string ZmqTransport::Impl::user_of(const std::string& key) const {
  if (const auto node = admitted.find(key); node != admitted.end()) return user_id_of(node->second);
  if (const auto client = admitted_clients.find(key); client != admitted_clients.end()) {
    return user_id_of(Visitor::kClient, client->second);
  }
  const auto guest = admitted_guests.find(key);
  return guest == admitted_guests.end() ? "" : user_id_of(Visitor::kGuest, guest->second);
}

void ZmqTransport::Impl::answer_zap() {
  for (;;) {
    // version, request id, domain, address, routing id, mechanism, credentials
    std::vector<Bytes> request;
    bool more = true;
    while (more) {
      ZmqPart part;
      if (!zap.receive(part)) return;
      if (request.size() < 16) request.emplace_back(part.view());
      more = part.more();
    }
    const bool curve = request.size() == 7 && request[0] == "1.0" && request[2] == kZapDomain && request[5] == "CURVE";
    const auto who = curve ? user_of(request[6]) : "";
    const bool known = !who.empty();
    if (!known) {
      ++counters.unauthenticated;
      if (strangers.now()) {
        spdlog::warn("{}: a connection from {} with a key that no member has is refused", config.listen,
                     request.size() > 3 ? request[3] : "?");
      }
    }
    const std::array<Bytes, 6> answer{
        "1.0",  request.size() > 1 ? request[1] : Bytes{}, known ? "200" : "400", known ? "OK" : "not a member", who,
        Bytes{}};
    for (std::size_t i = 0; i < answer.size(); ++i) {
      ZmqPart part{ByteView(answer[i])};
      (void)zap.send(part, i + 1 < answer.size());
    }
  }
}

// --- Receiving ---

/// Whoever sends on the ROUTER reads it afterwards, and the other way round: each processes commands, and the
/// descriptor says no more of them. A send leaves them alone where some were processed less than a millisecond ago: so
/// that there is place for an answer again is known once the ROUTER was read to its end.
void ZmqTransport::Impl::on_router() {
  answered = false;
  const bool all = read_router();
  unread = false;
  for (auto& all_of_a_kind : visitors) {
    if (all_of_a_kind) all_of_a_kind->flush();
  }
  const bool sent_last = unread;  // to no avail, unless it answered
  unread = !all || answered || (sent_last && router.can_receive());
}

bool ZmqTransport::Impl::read_router() {
  const auto until_us = mono_us() + kTurnUs;
  for (int i = 0; i < kMessagesPerTurn && (i == 0 || mono_us() < until_us); ++i) {
    if (!receive_one()) return true;
  }
  return false;
}

bool ZmqTransport::Impl::receive_one() {
  ZmqMessage message;
  if (!router.receive(message, /*routed=*/true)) return false;
  const auto header = message.header.view();
  const auto payload = message.payload.view();
  counters.bytes_received += header.size() + payload.size();
  if (message.parts == 0 || message.parts > 2 || payload.size() > kMaxBlockBytes) {
    ++counters.malformed;
    return true;
  }
  auto block = message.parts == 2 ? share(Bytes(payload)) : nullptr;
  const auto proven = parse_user_id(message.header.user_id());
  if (proven.visitor) {
    accept_visitor(*proven.visitor, message.route.view(), header, std::move(block), proven.id);
  } else {
    accept(header, std::move(block), proven.id);
  }
  return true;
}

/// Nothing that came by a visitor's key is ever read as a message of a node, nor the other way round.
void ZmqTransport::Impl::accept_visitor(Visitor visitor, ByteView route, ByteView header, SharedBytes payload,
                                        NodeId id) {
  if (!of(visitor)) return;
  if (cut.contains(id)) {
    ++counters.dropped_cut;
    return;
  }
  of(visitor)->receive(route, id, header, std::move(payload));
}

void ZmqTransport::Impl::accept(ByteView header, SharedBytes payload, NodeId proven) {
  auto received = receive_message(header, std::move(payload));
  if (!received) {
    ++counters.malformed;
    if (garbled.now()) {
      spdlog::warn("{}: a message from {} is dropped: {}", config.listen, user_id_of(proven), received.error().text);
    }
    return;
  }
  auto& message = received->value;
  const auto peer = peers.find(proven);
  if (peer == peers.end() || message.from != proven) {
    ++counters.unauthenticated;
    if (liars.now()) {
      spdlog::warn("{}: a message in the name of {} came by the key of {}: dropped", config.listen,
                   user_id_of(message.from), user_id_of(proven));
    }
    return;
  }
  if (message.to != config.self) {
    ++counters.malformed;
    return;
  }
  if (cut.contains(proven)) {
    ++counters.dropped_cut;
    return;
  }
  ++counters.received;
  message.ttl_ms = ttl_after(message.ttl_ms, peer->second.delay.observe(received->hop, mono_us()));
  if (message.ttl_ms == 0) {
    ++counters.dropped_late;
    return;
  }
  on_message(std::move(message));
}

// --- Visitors: clients of other hosts, and guests ---

void ZmqTransport::Impl::serve(Visitor visitor, UnixServer::OnRequest on_request, std::function<Hlc()> hlc,
                               UnixServerLimits limits) {
  of(visitor).emplace(config.listen, std::move(on_request), std::move(hlc), limits,
                      [this](ByteView route, ByteView header, const HopBytes& hop, const SharedBytes& payload) {
                        const auto sent = router.send(route, header, {hop.data(), hop.size()}, payload);
                        unread = true;
                        answered = answered || sent == ZmqSocket::Sent::kDone;
                        return sent;
                      });
}

// --- Sending ---

void ZmqTransport::Impl::send(const Message& message) {
  const auto it = peers.find(message.to);
  if (it == peers.end()) {
    spdlog::error("{}: a message for {}, who is no member: not sent", config.listen, user_id_of(message.to));
    return;
  }
  if (cut.contains(message.to)) {
    ++counters.dropped_cut;
    return;
  }
  if (message.ttl_ms == 0) {
    ++counters.dropped_late;
    return;
  }
  auto encoded = encode(message);
  if (encoded.header.size() > kMaxHeaderBytes) return report_too_large(message, encoded.header.size());
  auto& peer = it->second;
  peer.queue.push_back({share(std::move(encoded.header)), std::move(encoded.payload),
                        EventLoop::mono_ms() + static_cast<std::int64_t>(message.ttl_ms)});
  peer.queued_bytes += peer.queue.back().size();
  if (peer.queue.size() == 1) flush(peer);  // else it waits for the peer to take what is before it
  while (peer.queue.size() > kQueueMessages || (peer.queued_bytes > kQueueBytes && peer.queue.size() > 1)) {
    ++counters.dropped_full;
    drop_front(peer);
  }
}

/// Nobody can take a message of this size: the asker learns it now instead of at its deadline.
void ZmqTransport::Impl::report_too_large(const Message& message, std::size_t bytes) {
  spdlog::error("{}: a message of {} bytes for {} is over the limit of {}: not sent", config.listen, bytes,
                user_id_of(message.to), kMaxHeaderBytes);
  Message refusal = message;
  refusal.body = Refusal{
      Error{Errc::kTooLarge, fmt::format("a message of {} bytes; at most {} can be sent", bytes, kMaxHeaderBytes)}};
  if (is_answer(message.body)) return send(refusal);
  std::swap(refusal.from, refusal.to);
  loop.post([this, guard = std::weak_ptr<bool>(alive), refusal = std::move(refusal)]() mutable {
    if (!guard.expired()) on_message(std::move(refusal));
  });
}

void ZmqTransport::Impl::drop_front(Peer& peer) {
  peer.queued_bytes -= peer.queue.front().size();
  peer.queue.pop_front();
}

void ZmqTransport::Impl::flush(Peer& peer) {
  const auto now_ms = EventLoop::mono_ms();
  while (!peer.queue.empty()) {
    if (peer.queue.front().deadline_ms <= now_ms) {
      ++counters.dropped_late;
    } else if (!write(peer, peer.queue.front(), now_ms)) {
      return;  // its descriptor fires when the peer is there, or has taken some
    }
    drop_front(peer);
  }
}

bool ZmqTransport::Impl::write(Peer& peer, const Queued& item, std::int64_t now_ms) {
  const auto ttl_ms = static_cast<std::uint32_t>(item.deadline_ms - now_ms);
  if (!peer.line.send(*item.header, encode_hop({boot, mono_us(), ttl_ms}), item.payload)) return false;
  ++counters.sent;
  counters.bytes_sent += item.size() + kHopBytes;
  return true;
}

void ZmqTransport::Impl::purge(Peer& peer) {
  const auto now_ms = EventLoop::mono_ms();
  std::erase_if(peer.queue, [&](const Queued& item) {
    if (item.deadline_ms > now_ms) return false;
    ++counters.dropped_late;
    peer.queued_bytes -= item.size();
    return true;
  });
}

// --- The interface ---

Result<std::unique_ptr<ZmqTransport>> ZmqTransport::open(EventLoop& loop, TransportConfig config,
                                                         std::vector<Member> members,
                                                         std::function<void(Message)> on_message) {
  auto impl = std::make_unique<Impl>(loop, std::move(config), std::move(on_message));
  if (auto ok = impl->admit(members); !ok) return pass(std::move(ok));
  if (auto ok = impl->open_router(); !ok) return pass(std::move(ok));
  for (auto& [id, peer] : impl->peers) {
    if (auto ok = impl->open_peer(peer); !ok) return pass(std::move(ok));
  }
  if (auto ok = impl->watch(); !ok) return pass(std::move(ok));
  return std::unique_ptr<ZmqTransport>(new ZmqTransport(std::move(impl)));
}

ZmqTransport::ZmqTransport(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ZmqTransport::~ZmqTransport() = default;

void ZmqTransport::send(const Message& message) { impl_->send(message); }

void ZmqTransport::set_members(const std::vector<Member>& members) { impl_->set_members(members); }

void ZmqTransport::set_guests(const std::set<Bytes>& keys) {
  impl_->admitted_guests.clear();
  for (const auto& key : keys) impl_->admitted_guests.emplace(key, node_id_of(key));
}

void ZmqTransport::serve(Visitor visitor, UnixServer::OnRequest on_request, std::function<Hlc()> hlc,
                         UnixServerLimits limits) {
  impl_->serve(visitor, std::move(on_request), std::move(hlc), limits);
}

void ZmqTransport::when_crowded(Visitor visitor, std::function<bool()> crowded) {
  if (auto& all = impl_->of(visitor)) all->when_crowded(std::move(crowded));
}

void ZmqTransport::reply(Visitor visitor, std::uint64_t connection, std::uint64_t id, Answer answer) {
  if (auto& all = impl_->of(visitor)) all->reply(connection, id, std::move(answer));
}

NodeId ZmqTransport::visitor_of(Visitor visitor, std::uint64_t connection) const {
  const auto& all = impl_->of(visitor);
  return all ? all->host_of(connection) : NodeId{};
}

void ZmqTransport::hang_up(Visitor visitor, std::uint64_t connection) {
  if (auto& all = impl_->of(visitor)) all->hang_up(connection);
}

const UnixServerCounters& ZmqTransport::client_counters() const {
  static const UnixServerCounters none;
  const auto& clients = impl_->of(Visitor::kClient);
  return clients ? clients->counters() : none;
}

void ZmqTransport::set_cut(std::set<NodeId> peers) {
  impl_->cut = std::move(peers);
  if (auto& clients = impl_->of(Visitor::kClient)) impl_->counters.dropped_cut += clients->forget(impl_->cut);
  for (const auto id : impl_->cut) {
    const auto it = impl_->peers.find(id);
    if (it == impl_->peers.end()) continue;
    impl_->counters.dropped_cut += it->second.queue.size();
    it->second.queue.clear();
    it->second.queued_bytes = 0;
  }
}

const std::set<NodeId>& ZmqTransport::cut() const { return impl_->cut; }
const TransportCounters& ZmqTransport::counters() const { return impl_->counters; }

}  // namespace kinfs::cluster
