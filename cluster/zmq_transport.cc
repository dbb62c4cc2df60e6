// See zmq_transport.h. The only file that knows ZeroMQ.
//
// What the options are for: IMMEDIATE keeps messages out of the pipe of a peer that is not there, so that they wait
// in our queue, where deadlines are looked at; heartbeats close a connection whose other end fell silent (a cut
// cable, a suspended host), on both sides; short time-outs for connecting and handshakes, and an upper bound for
// the pause between two attempts, make a healed peer reachable within a second, where the defaults took most
// of a minute. ZeroMQ gives an address up for good after one failed handshake (a stranger had the port, or the
// peer did not list us yet): so a monitor tells whether a connection stands, and one that has not stood for a
// while is made from nothing.
//
// ZMQ_FD tells only that a socket has commands to process. It is watched level-triggered, and stays readable until a
// call on that socket processes them: so a ROUTER is read until it says EAGAIN, and a DEALER, which receives
// nothing, is asked for ZMQ_EVENTS when its descriptor fires; nothing can be missed in between. A socket whose first
// commands were processed by a call before it was watched says nothing of the next: so each is asked once when it is.
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <zmq.h>

#include <array>
#include <charconv>
#include <cstring>
#include <deque>
#include <random>
#include <unordered_map>

#include "cluster/hop.h"
#include "cluster/zmq_transport.h"

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace kinfs::cluster {
namespace {

constexpr std::size_t kKeyBytes = 32;
constexpr std::size_t kQueueMessages = 4096;      // per peer
constexpr std::size_t kQueueBytes = 32 << 20;     // per peer
constexpr std::size_t kCopiedHeaderBytes = 4096;  // a larger header is handed over instead of copied
constexpr int kHighWaterMark = 32;                // messages in ZeroMQ, per connection and direction
constexpr int kHeartbeatMs = 500;
constexpr int kHeartbeatTimeoutMs = 2000;
constexpr int kConnectTimeoutMs = 500;
constexpr int kHandshakeMs = 2000;
constexpr int kReconnectMs = 100;
constexpr int kReconnectMaxMs = 300;      // ZeroMQ adds up to kReconnectMs by chance
constexpr std::int64_t kReopenMs = 3000;  // over the time of a handshake on the longest lines
constexpr int kMessagesPerTurn = 128;
constexpr std::int64_t kPurgeMs = 100;
constexpr const char* kZapEndpoint = "inproc://zeromq.zap.01";
constexpr const char* kZapDomain = "kinfs";

struct SocketCloser {
  void operator()(void* socket) const { ::zmq_close(socket); }
};
using Socket = std::unique_ptr<void, SocketCloser>;

struct ContextCloser {
  void operator()(void* context) const { ::zmq_ctx_term(context); }
};

// ZeroMQ orders what its threads do by atomics that the thread sanitizer does not see; these tell it.
#if defined(__SANITIZE_THREAD__)
void handed_over(void* p) { __tsan_release(p); }
void taken_over(void* p) { __tsan_acquire(p); }
#else
void handed_over(void*) {}
void taken_over(void*) {}
#endif

/// A zmq_msg_t that is closed.
class Part {
 public:
  Part() { ::zmq_msg_init(&msg_); }
  explicit Part(ByteView bytes) {
    ::zmq_msg_init_size(&msg_, bytes.size());
    std::copy(bytes.begin(), bytes.end(), static_cast<char*>(::zmq_msg_data(&msg_)));
  }
  /// ZeroMQ sends from where the bytes are, and lets go of them on its own thread when they are out.
  explicit Part(SharedBytes bytes) {
    auto* holder = new SharedBytes(std::move(bytes));
    auto* data = const_cast<char*>((*holder)->data());
    const auto size = (*holder)->size();
    handed_over(holder);
    ::zmq_msg_init_data(
        &msg_, data, size,
        [](void*, void* hint) {
          taken_over(hint);
          delete static_cast<SharedBytes*>(hint);
        },
        holder);
  }
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;
  ~Part() { ::zmq_msg_close(&msg_); }

  bool send(void* socket, bool more) {
    return ::zmq_msg_send(&msg_, socket, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)) >= 0;
  }
  bool receive(void* socket) { return ::zmq_msg_recv(&msg_, socket, ZMQ_DONTWAIT) >= 0; }
  bool more() const { return ::zmq_msg_more(&msg_) != 0; }
  ByteView view() { return {static_cast<const char*>(::zmq_msg_data(&msg_)), ::zmq_msg_size(&msg_)}; }
  /// What the ZAP handler said of the connection's key; null when nothing.
  const char* user_id() const { return ::zmq_msg_gets(&msg_, "User-Id"); }

 private:
  zmq_msg_t msg_;
};

bool set_int(void* socket, int option, int value) {
  return ::zmq_setsockopt(socket, option, &value, sizeof value) == 0;
}
bool set_bytes(void* socket, int option, ByteView value) {
  return ::zmq_setsockopt(socket, option, value.data(), value.size()) == 0;
}

std::string user_id_of(NodeId node) { return fmt::format("{:016x}", static_cast<std::uint64_t>(node)); }

NodeId parse_user_id(const char* text) {
  std::uint64_t id = 0;
  const std::string_view view = text == nullptr ? "" : text;
  const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), id, 16);
  return error == std::errc{} && end == view.data() + view.size() ? NodeId{id} : NodeId{};
}

/// tcp://HOST:PORT; ZeroMQ itself takes a port modulo 65536.
bool is_address(std::string_view text) {
  constexpr std::string_view kScheme = "tcp://";
  const auto colon = text.rfind(':');
  if (!text.starts_with(kScheme) || colon <= kScheme.size()) return false;
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data() + colon + 1, text.data() + text.size(), port);
  return error == std::errc{} && end == text.data() + text.size() && port != 0;
}

bool common_options(void* socket, const KeyPair& keys, bool ipv6) {
  const std::int64_t most = kMaxHeaderBytes + 1024;
  return set_int(socket, ZMQ_LINGER, 0) && set_int(socket, ZMQ_SNDHWM, kHighWaterMark) &&
         set_int(socket, ZMQ_RCVHWM, kHighWaterMark) && set_int(socket, ZMQ_IPV6, ipv6 ? 1 : 0) &&
         set_int(socket, ZMQ_HEARTBEAT_IVL, kHeartbeatMs) &&
         set_int(socket, ZMQ_HEARTBEAT_TIMEOUT, kHeartbeatTimeoutMs) &&
         set_int(socket, ZMQ_HEARTBEAT_TTL, kHeartbeatTimeoutMs) && set_int(socket, ZMQ_HANDSHAKE_IVL, kHandshakeMs) &&
         ::zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &most, sizeof most) == 0 &&
         set_bytes(socket, ZMQ_CURVE_PUBLICKEY, keys.public_key) &&
         set_bytes(socket, ZMQ_CURVE_SECRETKEY, keys.secret_key);
}

int descriptor_of(void* socket) {
  int fd = -1;
  std::size_t size = sizeof fd;
  ::zmq_getsockopt(socket, ZMQ_FD, &fd, &size);
  return fd;
}

int events_of(void* socket) {
  int events = 0;
  std::size_t size = sizeof events;
  ::zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size);
  return events;
}

/// Whoever knocks again and again must not fill the log.
class LogPace {
 public:
  bool now() {
    const auto ms = EventLoop::mono_ms();
    if (ms < next_ms_) return false;
    next_ms_ = ms + kPauseMs;
    return true;
  }

 private:
  static constexpr std::int64_t kPauseMs = 10'000;
  std::int64_t next_ms_ = 0;
};

}  // namespace

KeyPair make_key_pair() {
  std::array<char, 41> public_text{};
  std::array<char, 41> secret_text{};
  KeyPair keys{Bytes(kKeyBytes, '\0'), Bytes(kKeyBytes, '\0')};
  ::zmq_curve_keypair(public_text.data(), secret_text.data());
  ::zmq_z85_decode(reinterpret_cast<std::uint8_t*>(keys.public_key.data()), public_text.data());
  ::zmq_z85_decode(reinterpret_cast<std::uint8_t*>(keys.secret_key.data()), secret_text.data());
  return keys;
}

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
    Socket socket;
    Socket monitor;
    int fd = -1;
    int monitor_fd = -1;
    bool connected = false;
    std::int64_t reopen_at_ms = 0;
    std::deque<Queued> queue;
    std::size_t queued_bytes = 0;
    QueueDelay delay;
  };

  EventLoop& loop;
  TransportConfig config;
  std::function<void(Message)> on_message;
  // Closed in the reverse order: the sockets before the context, which waits for them.
  std::unique_ptr<void, ContextCloser> context;
  Socket zap;
  Socket router;
  std::unordered_map<NodeId, Peer> peers;
  std::unordered_map<std::string, NodeId> admitted;  // by public key
  std::set<NodeId> cut;
  TransportCounters counters;
  LogPace strangers;
  LogPace liars;
  LogPace garbled;
  const std::uint64_t boot = std::random_device{}() | static_cast<std::uint64_t>(std::random_device{}()) << 32;
  std::uint64_t monitors = 0;
  bool unread = false;                                         // a turn ended before the ROUTER was empty
  std::shared_ptr<bool> alive = std::make_shared<bool>(true);  // the loop's hooks outlive this

  Impl(EventLoop& l, TransportConfig c, std::function<void(Message)> f)
      : loop(l), config(std::move(c)), on_message(std::move(f)) {}

  ~Impl() {
    for (auto& [id, peer] : peers) close_peer(peer);
    if (router) loop.remove(descriptor_of(router.get()));
    if (zap) loop.remove(descriptor_of(zap.get()));
  }

  Result<void> admit(const std::vector<Member>& members);
  void set_members(const std::vector<Member>& members);
  void dial_anew(Peer& peer);
  Result<void> open_router();
  Result<void> open_peer(Peer& peer);
  void close_peer(Peer& peer);
  Result<void> watch_peer(Peer& peer);
  void read_monitor(Peer& peer);
  void reopen_if_lost(Peer& peer);
  Result<void> watch();
  void answer_zap();
  void read_router();
  bool receive_one();
  void accept(ByteView header, SharedBytes payload, NodeId proven);
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
  }
  return {};
}

Result<void> ZmqTransport::Impl::open_router() {
  // The handler must be there before the first connection: without one, ZeroMQ lets everybody in.
  zap.reset(::zmq_socket(context.get(), ZMQ_REP));
  if (!zap || !set_int(zap.get(), ZMQ_LINGER, 0) || ::zmq_bind(zap.get(), kZapEndpoint) != 0) {
    return fail(Errc::kInternal, fmt::format("cannot start the check of keys: {}", ::zmq_strerror(errno)));
  }
  router.reset(::zmq_socket(context.get(), ZMQ_ROUTER));
  const bool ipv6 = config.listen.find('[') != std::string::npos;
  if (!router || !common_options(router.get(), config.keys, ipv6) || !set_int(router.get(), ZMQ_CURVE_SERVER, 1) ||
      !set_bytes(router.get(), ZMQ_ZAP_DOMAIN, kZapDomain)) {
    return fail(Errc::kInternal, fmt::format("cannot make the listening socket: {}", ::zmq_strerror(errno)));
  }
  errno = EINVAL;
  if (is_address(config.listen) && ::zmq_bind(router.get(), config.listen.c_str()) == 0) return {};
  switch (errno) {
    case EADDRINUSE:
      return fail(Errc::kRefused, fmt::format("cannot listen on {}: another program uses this port; stop it or choose "
                                              "another port",
                                              config.listen));
    case EADDRNOTAVAIL:
    case ENODEV:
      return fail(Errc::kRefused,
                  fmt::format("cannot listen on {}: this is not an address of this host", config.listen));
    case EACCES:
      return fail(Errc::kRefused,
                  fmt::format("cannot listen on {}: this port needs a privilege; choose one over 1023", config.listen));
    default:
      return fail(Errc::kRefused, fmt::format("cannot listen on {}: {}; an address looks like tcp://192.0.2.1:7946",
                                              config.listen, ::zmq_strerror(errno)));
  }
}

Result<void> ZmqTransport::Impl::open_peer(Peer& peer) {
  peer.socket.reset(::zmq_socket(context.get(), ZMQ_DEALER));
  void* socket = peer.socket.get();
  const bool ipv6 = peer.member.address.find('[') != std::string::npos;
  if (socket == nullptr || !common_options(socket, config.keys, ipv6) || !set_int(socket, ZMQ_IMMEDIATE, 1) ||
      !set_int(socket, ZMQ_CONNECT_TIMEOUT, kConnectTimeoutMs) || !set_int(socket, ZMQ_RECONNECT_IVL, kReconnectMs) ||
      !set_int(socket, ZMQ_RECONNECT_IVL_MAX, kReconnectMaxMs) ||
      !set_bytes(socket, ZMQ_CURVE_SERVERKEY, peer.member.public_key)) {
    return fail(Errc::kInternal,
                fmt::format("cannot make a socket for {}: {}", peer.member.name, ::zmq_strerror(errno)));
  }
  const auto events = fmt::format("inproc://monitor-{}-{}", user_id_of(peer.member.node), ++monitors);
  peer.monitor.reset(::zmq_socket(context.get(), ZMQ_PAIR));
  if (!peer.monitor || !set_int(peer.monitor.get(), ZMQ_LINGER, 0) ||
      ::zmq_socket_monitor(socket, events.c_str(), ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED) != 0 ||
      ::zmq_connect(peer.monitor.get(), events.c_str()) != 0) {
    return fail(Errc::kInternal,
                fmt::format("cannot watch the connection to {}: {}", peer.member.name, ::zmq_strerror(errno)));
  }
  if (!is_address(peer.member.address) || ::zmq_connect(socket, peer.member.address.c_str()) != 0) {
    return fail(Errc::kRefused, fmt::format("member {} has the address {}; an address looks like tcp://192.0.2.1:7946",
                                            peer.member.name, peer.member.address));
  }
  peer.fd = descriptor_of(socket);
  peer.monitor_fd = descriptor_of(peer.monitor.get());
  peer.connected = false;
  peer.reopen_at_ms = EventLoop::mono_ms() + kReopenMs;
  ++counters.dialled;
  return {};
}

void ZmqTransport::Impl::close_peer(Peer& peer) {
  if (peer.fd >= 0) loop.remove(peer.fd);
  if (peer.monitor_fd >= 0) loop.remove(peer.monitor_fd);
  peer.fd = peer.monitor_fd = -1;
  peer.socket.reset();
  peer.monitor.reset();
}

Result<void> ZmqTransport::Impl::watch_peer(Peer& peer) {
  auto watched = loop.add(peer.fd, EPOLLIN, [this, &peer](std::uint32_t) {
    if (events_of(peer.socket.get()) & ZMQ_POLLOUT) flush(peer);
  });
  if (watched) watched = loop.add(peer.monitor_fd, EPOLLIN, [this, &peer](std::uint32_t) { read_monitor(peer); });
  if (!watched) return watched;
  read_monitor(peer);
  if (events_of(peer.socket.get()) & ZMQ_POLLOUT) flush(peer);
  return {};
}

void ZmqTransport::Impl::read_monitor(Peer& peer) {
  for (;;) {
    Part event;  // its number (2 bytes) and value; the endpoint follows
    if (!event.receive(peer.monitor.get())) return;
    for (bool more = event.more(); more;) {
      Part rest;
      if (!rest.receive(peer.monitor.get())) return;
      more = rest.more();
    }
    std::uint16_t number = 0;
    if (event.view().size() < sizeof number) continue;
    std::memcpy(&number, event.view().data(), sizeof number);
    peer.connected = number == ZMQ_EVENT_HANDSHAKE_SUCCEEDED;
    peer.reopen_at_ms = EventLoop::mono_ms() + kReopenMs;
  }
}

void ZmqTransport::Impl::reopen_if_lost(Peer& peer) {
  const auto now_ms = EventLoop::mono_ms();
  if (!peer.connected && now_ms >= peer.reopen_at_ms) dial_anew(peer);
}

void ZmqTransport::Impl::dial_anew(Peer& peer) {
  close_peer(peer);
  auto opened = open_peer(peer);
  if (opened) opened = watch_peer(peer);
  if (opened) return;
  spdlog::warn("{}: {}; another try follows", config.listen, opened.error().text);
  close_peer(peer);
  peer.connected = false;
  peer.reopen_at_ms = EventLoop::mono_ms() + kReopenMs;
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
    const bool same = peer.member.address == member.address && peer.socket;
    peer.member = member;
    admitted[member.public_key] = member.node;
    if (!same) dial_anew(peer);
  }
}

Result<void> ZmqTransport::Impl::watch() {
  auto watched = loop.add(descriptor_of(zap.get()), EPOLLIN, [this](std::uint32_t) { answer_zap(); });
  if (watched) watched = loop.add(descriptor_of(router.get()), EPOLLIN, [this](std::uint32_t) { read_router(); });
  for (auto& [id, peer] : peers) {
    if (watched) watched = watch_peer(peer);
  }
  if (!watched) return watched;
  const std::weak_ptr<bool> guard = alive;
  loop.before_wait([this, guard] {
    if (guard.expired() || !unread) return false;
    read_router();
    return unread;
  });
  loop.every(kPurgeMs, [this, guard] {
    if (guard.expired()) return;
    for (auto& [id, peer] : peers) {
      purge(peer);
      reopen_if_lost(peer);
    }
  });
  return {};
}

// --- Who is let in (ZeroMQ RFC 27, ZAP) ---

void ZmqTransport::Impl::answer_zap() {
  for (;;) {
    // version, request id, domain, address, routing id, mechanism, credentials
    std::vector<Bytes> request;
    bool more = true;
    while (more) {
      Part part;
      if (!part.receive(zap.get())) return;
      if (request.size() < 16) request.emplace_back(part.view());
      more = part.more();
    }
    const bool curve = request.size() == 7 && request[0] == "1.0" && request[2] == kZapDomain && request[5] == "CURVE";
    const auto who = curve ? admitted.find(request[6]) : admitted.end();
    const bool known = who != admitted.end();
    if (!known) {
      ++counters.unauthenticated;
      if (strangers.now()) {
        spdlog::warn("{}: a connection from {} with a key that no member has is refused", config.listen,
                     request.size() > 3 ? request[3] : "?");
      }
    }
    const std::array<Bytes, 6> answer{"1.0",
                                      request.size() > 1 ? request[1] : Bytes{},
                                      known ? "200" : "400",
                                      known ? "OK" : "not a member",
                                      known ? user_id_of(who->second) : Bytes{},
                                      Bytes{}};
    for (std::size_t i = 0; i < answer.size(); ++i) {
      Part part{ByteView(answer[i])};
      part.send(zap.get(), i + 1 < answer.size());
    }
  }
}

// --- Receiving ---

void ZmqTransport::Impl::read_router() {
  unread = false;
  for (int i = 0; i < kMessagesPerTurn; ++i) {
    if (!receive_one()) return;
  }
  unread = true;
}

bool ZmqTransport::Impl::receive_one() {
  Part route;
  if (!route.receive(router.get())) return false;
  if (!route.more()) {
    ++counters.malformed;
    return true;
  }
  Part header;
  Part payload;
  std::size_t parts = 0;
  bool more = true;
  while (more) {
    Part excess;
    Part& part = parts == 0 ? header : parts == 1 ? payload : excess;
    if (!part.receive(router.get())) return false;
    ++parts;
    more = part.more();
  }
  counters.bytes_received += header.view().size() + payload.view().size();
  if (parts > 2 || payload.view().size() > kMaxBlockBytes) {
    ++counters.malformed;
    return true;
  }
  accept(header.view(), parts == 2 ? share(Bytes(payload.view())) : nullptr, parse_user_id(header.user_id()));
  return true;
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
  if (!peer.socket) return false;
  const auto ttl_ms = static_cast<std::uint32_t>(item.deadline_ms - now_ms);
  const auto hop = encode_hop({boot, mono_us(), ttl_ms});
  Bytes header;
  header.reserve(item.header->size() + hop.size());
  header.append(*item.header).append(hop.data(), hop.size());
  const auto bytes = header.size() + (item.payload ? item.payload->size() : 0);
  const bool more = item.payload != nullptr;
  bool sent = false;
  if (header.size() <= kCopiedHeaderBytes) {
    sent = Part{ByteView(header)}.send(peer.socket.get(), more);
  } else {
    sent = Part{share(std::move(header))}.send(peer.socket.get(), more);
  }
  if (!sent) return false;
  // When the connection breaks between the two parts, ZeroMQ forgets the first: the message begins anew.
  if (more && !Part{item.payload}.send(peer.socket.get(), false)) return false;
  ++counters.sent;
  counters.bytes_sent += bytes;
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
  impl->context.reset(::zmq_ctx_new());
  if (!impl->context) return fail(Errc::kInternal, fmt::format("cannot start ZeroMQ: {}", ::zmq_strerror(errno)));
  ::zmq_ctx_set(impl->context.get(), ZMQ_IO_THREADS, 1);
  ::zmq_ctx_set(impl->context.get(), ZMQ_BLOCKY, 0);
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

void ZmqTransport::set_cut(std::set<NodeId> peers) {
  impl_->cut = std::move(peers);
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
