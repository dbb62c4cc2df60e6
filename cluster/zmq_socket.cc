// See zmq_socket.h. The only file that includes ZeroMQ, by its C++ binding cppzmq.
//
// What the options are for: IMMEDIATE keeps messages out of the pipe of a peer that is not there, so that they wait
// in our queue, where deadlines are looked at; the kernel's keepalive and its limit for what is not acknowledged close
// a connection whose other end fell silent (a cut cable, a suspended host); short time-outs for connecting and
// handshakes, and an upper bound for the pause between two attempts, make a healed peer reachable within a second,
// where the defaults took most of a minute; MANDATORY tells of an answer that its connection is gone, or does not read.
//
// ZeroMQ's own heartbeats are not used: their timer ends the process (an assertion) where a connection breaks that
// has not been read from since, as the queue of what was received was full.
#include "cluster/zmq_socket.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <cstring>
#include <new>
#include <zmq.hpp>

#include "cluster/codec.h"

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
namespace {
std::atomic<pid_t> g_own_pid{0};
}  // namespace

/// ZeroMQ asks three times for each message whether it has been forked, by a system call: a third of all that a put
/// takes. So its question, and everybody's here, is answered from memory; a fork forgets that.
extern "C" pid_t getpid() noexcept {
  auto pid = g_own_pid.load(std::memory_order_relaxed);
  if (pid == 0) {
    pid = static_cast<pid_t>(::syscall(SYS_getpid));
    static const int forgets = ::pthread_atfork(nullptr, nullptr, [] { g_own_pid = 0; });
    if (forgets == 0) g_own_pid = pid;
  }
  return pid;
}
#endif

namespace kinfs::cluster {
namespace {

constexpr std::size_t kCopiedHeaderBytes = 4096;  // a larger header is handed over instead of copied
constexpr int kHighWaterMark = 32;                // messages in ZeroMQ, per connection and direction;
constexpr int kReceivedHighWaterMark = 1024;      // by one that dials: over what a client has under way;
constexpr int kAnswersHighWaterMark = 8;          // of answers to visitors, who are many, and need not read them
constexpr int kKeepaliveIdleS = 1;
constexpr int kKeepaliveIntervalS = 1;
// What was sent, a keepalive too, and is not acknowledged for so long breaks the connection.
constexpr int kUnconfirmedMs = 2000;
constexpr int kUnconfirmedByVisitorMs = 5000;  // they may be slow to read their answers
constexpr int kConnectTimeoutMs = 500;
constexpr int kHandshakeMs = 2000;
constexpr int kReconnectMs = 100;
constexpr int kReconnectMaxMs = 300;  // ZeroMQ adds up to kReconnectMs by chance
constexpr const char* kZapEndpoint = "inproc://zeromq.zap.01";

// ZeroMQ orders what its threads do by atomics that the thread sanitizer does not see; these tell it.
#if defined(__SANITIZE_THREAD__)
void handed_over(void* p) { __tsan_release(p); }
void taken_over(void* p) { __tsan_acquire(p); }
#else
void handed_over(void*) {}
void taken_over(void*) {}
#endif

/// tcp://HOST:PORT; ZeroMQ itself takes a port modulo 65536.
bool is_address(std::string_view text) {
  constexpr std::string_view kScheme = "tcp://";
  const auto colon = text.rfind(':');
  if (!text.starts_with(kScheme) || colon <= kScheme.size()) return false;
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data() + colon + 1, text.data() + text.size(), port);
  return error == std::errc{} && end == text.data() + text.size() && port != 0;
}

zmq::message_t& in(std::array<std::byte, 64>& storage) { return *reinterpret_cast<zmq::message_t*>(storage.data()); }
const zmq::message_t& in(const std::array<std::byte, 64>& storage) {
  return *reinterpret_cast<const zmq::message_t*>(storage.data());
}

zmq::const_buffer buffer_of(ByteView bytes) { return zmq::buffer(bytes.data(), bytes.size()); }

void common_options(zmq::socket_t& socket, const KeyPair& keys, bool ipv6) {
  socket.set(zmq::sockopt::linger, 0);
  socket.set(zmq::sockopt::sndhwm, kHighWaterMark);
  socket.set(zmq::sockopt::rcvhwm, kHighWaterMark);
  socket.set(zmq::sockopt::ipv6, ipv6 ? 1 : 0);
  socket.set(zmq::sockopt::tcp_keepalive, 1);
  socket.set(zmq::sockopt::tcp_keepalive_idle, kKeepaliveIdleS);
  socket.set(zmq::sockopt::tcp_keepalive_intvl, kKeepaliveIntervalS);
  socket.set(zmq::sockopt::tcp_maxrt, kUnconfirmedMs);
  socket.set(zmq::sockopt::handshake_ivl, kHandshakeMs);
  socket.set(zmq::sockopt::maxmsgsize, static_cast<std::int64_t>(kMaxHeaderBytes + 1024));
  socket.set(zmq::sockopt::curve_publickey, buffer_of(keys.public_key));
  socket.set(zmq::sockopt::curve_secretkey, buffer_of(keys.secret_key));
}

Bytes from_z85(const char* text) {
  Bytes key(kKeyBytes, '\0');
  ::zmq_z85_decode(reinterpret_cast<std::uint8_t*>(key.data()), text);
  return key;
}

}  // namespace

KeyPair make_key_pair() {
  std::array<char, 41> public_text{};
  std::array<char, 41> secret_text{};
  ::zmq_curve_keypair(public_text.data(), secret_text.data());
  return {from_z85(public_text.data()), from_z85(secret_text.data())};
}

KeyPair key_pair_of(ByteView secret_key) {
  std::array<char, 41> secret_text{};
  std::array<char, 41> public_text{};
  ::zmq_z85_encode(secret_text.data(), reinterpret_cast<const std::uint8_t*>(secret_key.data()), secret_key.size());
  ::zmq_curve_public(public_text.data(), secret_text.data());
  return {from_z85(public_text.data()), Bytes(secret_key)};
}

KeyPair client_keys_of(const KeyPair& host) {
  return key_pair_of(view_of(sha256("kinfs client key" + host.secret_key)));
}

// --- Parts ---

ZmqPart::ZmqPart() {
  static_assert(sizeof(zmq::message_t) <= kMessageBytes && alignof(zmq::message_t) <= alignof(void*));
  new (message_.data()) zmq::message_t();
}

ZmqPart::ZmqPart(ByteView bytes) { new (message_.data()) zmq::message_t(bytes.data(), bytes.size()); }

ZmqPart::ZmqPart(SharedBytes bytes) {
  auto* holder = new SharedBytes(std::move(bytes));
  auto* data = const_cast<char*>((*holder)->data());
  const auto size = (*holder)->size();
  handed_over(holder);
  new (message_.data()) zmq::message_t(
      data, size,
      [](void*, void* hint) {
        taken_over(hint);
        delete static_cast<SharedBytes*>(hint);
      },
      holder);
}

ZmqPart::~ZmqPart() { in(message_).~message_t(); }

bool ZmqPart::more() const { return in(message_).more(); }
ByteView ZmqPart::view() const { return {in(message_).data<char>(), in(message_).size()}; }

const char* ZmqPart::user_id() {
  try {
    return in(message_).gets("User-Id");  // tidy: allow strcpy, a method of this name
  } catch (const zmq::error_t&) {
    return nullptr;
  }
}

// --- Sockets ---

struct ZmqSocket::Impl {
  zmq::socket_t socket;
};

ZmqSocket::ZmqSocket() = default;
ZmqSocket::ZmqSocket(ZmqSocket&&) noexcept = default;
ZmqSocket& ZmqSocket::operator=(ZmqSocket&&) noexcept = default;
ZmqSocket::~ZmqSocket() = default;

ZmqSocket::Sent ZmqSocket::send(ZmqPart& part, bool more) {
  const auto flags = more ? zmq::send_flags::dontwait | zmq::send_flags::sndmore : zmq::send_flags::dontwait;
  try {
    return impl_->socket.send(in(part.message_), flags) ? Sent::kDone : Sent::kFull;
  } catch (const zmq::error_t& e) {
    return e.num() == EHOSTUNREACH ? Sent::kGone : Sent::kFull;
  }
}

ZmqSocket::Sent ZmqSocket::send(ByteView route, ByteView header, ByteView tail, const SharedBytes& payload) {
  if (!route.empty()) {
    ZmqPart part(route);
    if (const auto sent = send(part, true); sent != Sent::kDone) return sent;
  }
  const bool more = payload != nullptr;
  Bytes whole;
  whole.reserve(header.size() + tail.size());
  whole.append(header).append(tail);
  auto sent = Sent::kFull;
  if (whole.size() <= kCopiedHeaderBytes) {
    ZmqPart part{ByteView(whole)};
    sent = send(part, more);
  } else {
    ZmqPart part{share(std::move(whole))};
    sent = send(part, more);
  }
  if (sent != Sent::kDone || !more) return sent;
  // When the connection breaks between the two parts, ZeroMQ forgets the first: the message begins anew.
  ZmqPart part{payload};
  return send(part, false);
}

bool ZmqSocket::receive(ZmqPart& part) {
  try {
    return impl_->socket.recv(in(part.message_), zmq::recv_flags::dontwait).has_value();
  } catch (const zmq::error_t&) {
    return false;
  }
}

bool ZmqSocket::receive(ZmqMessage& message, bool routed) {
  message.parts = 0;
  bool more = true;
  if (routed) {
    if (!receive(message.route)) return false;
    more = message.route.more();
  }
  while (more) {
    ZmqPart excess;
    auto& part = message.parts == 0 ? message.header : message.parts == 1 ? message.payload : excess;
    if (!receive(part)) return false;
    ++message.parts;
    more = part.more();
  }
  return true;
}

ZmqEvent ZmqSocket::receive_event() {
  auto last = ZmqEvent::kNone;
  for (;;) {
    ZmqPart event;  // its number (2 bytes) and value; the endpoint follows
    if (!receive(event)) return last;
    for (bool more = event.more(); more;) {
      ZmqPart rest;
      if (!receive(rest)) return last;
      more = rest.more();
    }
    std::uint16_t number = 0;
    if (event.view().size() < sizeof number) continue;
    std::memcpy(&number, event.view().data(), sizeof number);
    last = number == ZMQ_EVENT_HANDSHAKE_SUCCEEDED ? ZmqEvent::kStands : ZmqEvent::kBroke;
  }
}

int ZmqSocket::descriptor() const { return impl_->socket.get(zmq::sockopt::fd); }
bool ZmqSocket::can_send() const { return impl_->socket.get(zmq::sockopt::events) & ZMQ_POLLOUT; }
bool ZmqSocket::can_receive() const { return impl_->socket.get(zmq::sockopt::events) & ZMQ_POLLIN; }

// --- Opening ---

struct ZmqContext::Impl {
  zmq::context_t context;
  std::atomic<std::uint64_t> monitors{0};
};

ZmqContext::ZmqContext() = default;
ZmqContext::ZmqContext(ZmqContext&&) noexcept = default;
ZmqContext& ZmqContext::operator=(ZmqContext&&) noexcept = default;
ZmqContext::~ZmqContext() = default;

Result<ZmqContext> ZmqContext::start() {
  try {
    ZmqContext out;
    out.impl_ = std::make_unique<Impl>();
    out.impl_->context.set(zmq::ctxopt::io_threads, 1);
    out.impl_->context.set(zmq::ctxopt::blocky, false);
    return out;
  } catch (const zmq::error_t& e) {
    return fail(Errc::kInternal, fmt::format("cannot start ZeroMQ: {}", e.what()));
  }
}

Result<ZmqSocket> ZmqContext::key_check() {
  try {
    ZmqSocket out;
    out.impl_.reset(new ZmqSocket::Impl{zmq::socket_t(impl_->context, zmq::socket_type::rep)});
    out.impl_->socket.set(zmq::sockopt::linger, 0);
    out.impl_->socket.bind(kZapEndpoint);
    return out;
  } catch (const zmq::error_t& e) {
    return fail(Errc::kInternal, fmt::format("cannot start the check of keys: {}", e.what()));
  }
}

Result<ZmqSocket> ZmqContext::listen(const std::string& address, const KeyPair& keys) {
  ZmqSocket out;
  try {
    out.impl_.reset(new ZmqSocket::Impl{zmq::socket_t(impl_->context, zmq::socket_type::router)});
    auto& socket = out.impl_->socket;
    common_options(socket, keys, address.find('[') != std::string::npos);
    socket.set(zmq::sockopt::sndhwm, kAnswersHighWaterMark);
    socket.set(zmq::sockopt::tcp_maxrt, kUnconfirmedByVisitorMs);
    socket.set(zmq::sockopt::router_mandatory, true);
    socket.set(zmq::sockopt::curve_server, true);
    socket.set(zmq::sockopt::zap_domain, kZapDomain);
  } catch (const zmq::error_t& e) {
    return fail(Errc::kInternal, fmt::format("cannot make the listening socket: {}", e.what()));
  }
  int error = EINVAL;
  if (is_address(address)) {
    try {
      out.impl_->socket.bind(address);
      return out;
    } catch (const zmq::error_t& e) {
      error = e.num();
    }
  }
  const auto refuse = [&](std::string_view why) {
    return fail(Errc::kRefused, fmt::format("cannot listen on {}: {}", address, why));
  };
  switch (error) {
    case EADDRINUSE:
      return refuse("another program uses this port; stop it or choose another port");
    case EADDRNOTAVAIL:
    case ENODEV:
      return refuse("this is not an address of this host");
    case EACCES:
      return refuse("this port needs a privilege; choose one over 1023");
    default:
      return refuse(fmt::format("{}; an address looks like tcp://192.0.2.1:7946", ::zmq_strerror(error)));
  }
}

Result<ZmqDialled> ZmqContext::dial(const std::string& name, const std::string& address, ByteView server_key,
                                    const KeyPair& keys) {
  ZmqDialled out;
  std::string what = fmt::format("cannot make a socket for {}", name);
  try {
    out.socket.impl_.reset(new ZmqSocket::Impl{zmq::socket_t(impl_->context, zmq::socket_type::dealer)});
    auto& socket = out.socket.impl_->socket;
    common_options(socket, keys, address.find('[') != std::string::npos);
    socket.set(zmq::sockopt::rcvhwm, kReceivedHighWaterMark);
    socket.set(zmq::sockopt::immediate, true);
    socket.set(zmq::sockopt::connect_timeout, kConnectTimeoutMs);
    socket.set(zmq::sockopt::reconnect_ivl, kReconnectMs);
    socket.set(zmq::sockopt::reconnect_ivl_max, kReconnectMaxMs);
    socket.set(zmq::sockopt::curve_serverkey, buffer_of(server_key));
    what = fmt::format("cannot watch the connection to {}", name);
    const auto events = fmt::format("inproc://monitor-{}", ++impl_->monitors);
    out.monitor.impl_.reset(new ZmqSocket::Impl{zmq::socket_t(impl_->context, zmq::socket_type::pair)});
    out.monitor.impl_->socket.set(zmq::sockopt::linger, 0);
    if (::zmq_socket_monitor(socket.handle(), events.c_str(), ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED) !=
        0) {
      throw zmq::error_t();
    }
    out.monitor.impl_->socket.connect(events);
  } catch (const zmq::error_t& e) {
    return fail(Errc::kInternal, fmt::format("{}: {}", what, e.what()));
  }
  try {
    if (is_address(address)) {
      out.socket.impl_->socket.connect(address);
      return out;
    }
  } catch (const zmq::error_t&) {
    // ZeroMQ finds nothing to dial in it.
  }
  return fail(Errc::kRefused,
              fmt::format("member {} has the address {}; an address looks like tcp://192.0.2.1:7946", name, address));
}

}  // namespace kinfs::cluster
