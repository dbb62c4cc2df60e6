// See unix_server.h.
//
// A connection is closed only between callbacks (`doomed`), so that nothing that is on the stack loses its ground.
#include "cluster/unix_server.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <random>
#include <set>
#include <unordered_map>
#include <vector>

#include "cluster/frame_stream.h"
#include "cluster/unix_path.h"

namespace kinfs::cluster {
namespace {

constexpr int kBacklog = 128;
constexpr mode_t kSocketMode = 0660;
constexpr std::int64_t kLookMs = 100;         // at who reads nothing; and after accept() failed for want of descriptors
constexpr int kReadsPerTurn = 8;              // then other connections have their turn,
constexpr std::int64_t kTurnUs = 2000;        // and after as long
constexpr std::int64_t kAllTurnsUs = 10'000;  // of those that go on without an event; then the loop looks at all

tl::unexpected<Error> refuse(const std::string& path, std::string_view what) {
  return fail(Errc::kRefused, fmt::format("cannot listen on {}: {}", path, what));
}

/// Makes way for a new socket at `path`.
Result<void> clear_path(const std::string& path, const sockaddr_un& address) {
  struct stat st {};
  if (::lstat(path.c_str(), &st) != 0) return {};
  if (!S_ISSOCK(st.st_mode)) return refuse(path, "a file that is no socket has this name; move it away");
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return refuse(path, std::strerror(errno));
  const int rc = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int error = errno;
  ::close(fd);
  if (rc == 0 || error == EAGAIN) {
    return refuse(path, "a running daemon listens there; stop it, or give this one another socket");
  }
  if (error != ECONNREFUSED)
    return refuse(path, fmt::format("the socket that is there cannot be tried: {}", std::strerror(error)));
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return refuse(path, fmt::format("the socket of a daemon that is gone cannot be removed: {}", std::strerror(errno)));
  }
  return {};
}

Result<int> listen_on(const std::string& path) {
  const auto usable = unix_address(path);
  if (!usable) return refuse(path, usable.error().text);
  const auto& address = *usable;
  if (auto clear = clear_path(path, address); !clear) return pass(std::move(clear));
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return refuse(path, std::strerror(errno));
  // Nobody can connect between bind and listen, so that the mode is right before the first who could.
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::chmod(path.c_str(), kSocketMode) != 0 || ::listen(fd, kBacklog) != 0) {
    const int error = errno;
    ::close(fd);
    return refuse(path, error == ENOENT ? "its directory does not exist" : std::strerror(error));
  }
  return fd;
}

}  // namespace

struct UnixServer::Impl {
  struct Connection {
    Connection(std::uint64_t number, int socket) : id(number), fd(socket), reader(socket), writer(socket) {}
    ~Connection() { ::close(fd); }
    std::uint64_t id;
    int fd;
    FrameReader reader;
    FrameWriter writer;
    QueueDelay delay;
    std::unordered_map<std::uint64_t, std::size_t> under_way;  // request id -> its bytes
    std::size_t bytes_under_way = 0;
    std::uint32_t events = EPOLLIN;
    bool dirty = false;   // has answers to write in this round
    bool parked = false;  // frames may wait in the reader's buffer until there is room
    bool held_back = false;    // it is not read from
    std::size_t waiting = 0;   // of all_waiting, what is its
    std::int64_t took_ms = 0;  // when it last read something of what waits for it, or nothing waited
    bool doomed = false;
  };

  EventLoop& loop;
  std::string path;
  OnRequest on_request;
  std::function<Hlc()> hlc;
  UnixServerLimits limits;
  UnixServerCounters counters;
  int listen_fd = -1;
  struct stat identity {};
  std::int64_t accept_again_ms = 0;
  std::uint64_t next_connection = 1;
  std::uint64_t boot = std::random_device{}() | 1ull << 32;
  std::unordered_map<std::uint64_t, std::unique_ptr<Connection>> connections;
  std::vector<std::uint64_t> dirty;
  std::vector<std::uint64_t> doomed;
  std::function<bool()> crowded;
  std::size_t all_waiting = 0;        // bytes of answers that no client has read
  std::set<std::uint64_t> held_back;  // connections
  std::uint64_t last_turn = 0;        // of these
  std::shared_ptr<bool> alive = std::make_shared<bool>(true);  // the loop's hooks outlive this

  Impl(EventLoop& l, std::string p, OnRequest r, std::function<Hlc()> h, UnixServerLimits lim)
      : loop(l), path(std::move(p)), on_request(std::move(r)), hlc(std::move(h)), limits(lim) {}

  ~Impl() {
    for (auto& [id, c] : connections) loop.remove(c->fd);
    if (listen_fd < 0) return;
    loop.remove(listen_fd);
    ::close(listen_fd);
    struct stat now {};
    // Another daemon may have taken the name.
    if (::lstat(path.c_str(), &now) == 0 && now.st_ino == identity.st_ino && now.st_dev == identity.st_dev) {
      ::unlink(path.c_str());
    }
  }

  Result<void> start() {
    ::lstat(path.c_str(), &identity);
    if (auto watched = watch_listener(); !watched) return watched;
    loop.before_wait([this, guard = std::weak_ptr<bool>(alive)] { return guard.expired() ? false : before_wait(); });
    loop.every(kLookMs, [this, guard = std::weak_ptr<bool>(alive)] {
      if (guard.expired()) return;
      cut_off_unread();
      if (accept_again_ms == 0 || EventLoop::mono_ms() < accept_again_ms) return;
      accept_again_ms = watch_listener() ? 0 : EventLoop::mono_ms() + kLookMs;
    });
    return {};
  }

  Result<void> watch_listener() {
    return loop.add(listen_fd, EPOLLIN, [this](std::uint32_t) { accept_all(); });
  }

  void accept_all() {
    for (;;) {
      const int fd = ::accept4(listen_fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (fd < 0) {
        if (errno == EINTR || errno == ECONNABORTED) continue;
        if (errno == EAGAIN) return;
        // The waiting connection stays readable: asking again at once would spin.
        spdlog::warn("{}: cannot accept a client: {}", path, std::strerror(errno));
        loop.remove(listen_fd);
        accept_again_ms = EventLoop::mono_ms() + kLookMs;
        return;
      }
      if (connections.size() >= limits.connections) {
        ++counters.turned_away;
        spdlog::warn("{}: a client is turned away: {} are connected already", path, connections.size());
        ::close(fd);
        continue;
      }
      enlarge_send_buffer(fd);
      ++counters.connections;
      const auto id = next_connection++;
      connections.emplace(id, std::make_unique<Connection>(id, fd));
      auto watched = loop.add(fd, EPOLLIN, [this, id](std::uint32_t events) { on_events(id, events); });
      if (watched) continue;
      spdlog::warn("{}: a client is turned away: {}", path, watched.error().text);
      connections.erase(id);
    }
  }

  Connection* find(std::uint64_t id) {
    const auto it = connections.find(id);
    return it == connections.end() || it->second->doomed ? nullptr : it->second.get();
  }

  void doom(Connection& c, std::string_view reason) {
    if (c.doomed) return;
    if (!reason.empty()) spdlog::warn("{}: client {} is disconnected: {}", path, c.id, reason);
    c.doomed = true;
    doomed.push_back(c.id);
  }

  bool is_crowded() const { return all_waiting >= limits.all_answer_bytes_waiting || (crowded && crowded()); }

  bool has_room(const Connection& c) const {
    if (c.under_way.empty() && c.writer.empty()) return true;
    return c.under_way.size() < limits.requests_under_way && c.bytes_under_way < limits.request_bytes_under_way &&
           c.writer.pending_bytes() < limits.answer_bytes_waiting && !is_crowded();
  }

  void hold_back(Connection& c, bool hold) {
    if (c.held_back == hold) return;
    c.held_back = hold;
    if (!hold) {
      held_back.erase(c.id);
      return;
    }
    ++counters.held_back;
    held_back.insert(c.id);
  }

  void set_events(Connection& c) {
    hold_back(c, !has_room(c));
    const std::uint32_t wanted = (c.held_back ? 0u : EPOLLIN) | (c.writer.empty() ? 0u : EPOLLOUT);
    if (wanted == c.events) return;
    c.events = wanted;
    loop.modify(c.fd, wanted);
  }

  void on_events(std::uint64_t id, std::uint32_t events) {
    auto* c = find(id);
    if (c == nullptr) return;
    if (events & EPOLLOUT) mark_dirty(*c);
    // A hang-up is also told while nothing is read: the rest of what was sent has no one to answer to.
    if ((events & (EPOLLHUP | EPOLLERR)) && !(events & EPOLLIN)) return doom(*c, "");
    if (events & EPOLLIN) read(*c);
  }

  void read(Connection& c) {
    for (int turn = 0; turn < kReadsPerTurn && !c.doomed; ++turn) {
      if (!take_frames(c)) break;
      const auto input = c.reader.fill();
      if (!input) {
        if (input.error().code == Errc::kCorrupt) ++counters.malformed;
        return doom(c, input.error().code == Errc::kIo ? "" : input.error().text);
      }
      if (*input == FrameReader::Input::kEnd) return doom(c, "");
      if (!take_frames(c) || *input == FrameReader::Input::kDrained) break;
    }
    if (!c.doomed) set_events(c);
  }

  /// Handles the frames that are in the buffer; false when the connection is doomed, has no room for more, or has had
  /// its turn.
  bool take_frames(Connection& c) {
    c.parked = false;
    const auto until_us = mono_us() + kTurnUs;
    for (;;) {
      if (c.doomed) return false;
      if (!has_room(c)) {
        c.parked = true;
        return false;
      }
      auto frame = c.reader.next();
      if (!frame) {
        ++counters.malformed;
        doom(c, frame.error().text);
        return false;
      }
      if (!*frame) return true;
      handle(c, std::move(**frame));
      if (mono_us() < until_us || c.doomed) continue;
      c.parked = true;
      mark_dirty(c);
      return false;
    }
  }

  void handle(Connection& c, Frame frame) {
    const auto bytes = frame.header.size() + (frame.payload ? frame.payload->size() : 0);
    auto received = receive_client_frame(frame.header, std::move(frame.payload));
    if (!received || !std::holds_alternative<Request>(received->value.body)) {
      ++counters.malformed;
      return doom(c, received ? "it sent an answer; clients send requests" : received.error().text);
    }
    auto& request = received->value;
    if (!c.under_way.emplace(request.id, bytes).second) {
      ++counters.malformed;
      return doom(c, fmt::format("it has two requests with the id {} under way", request.id));
    }
    c.bytes_under_way += bytes;
    ++counters.requests;
    const auto ttl_ms = ttl_after(request.ttl_ms, c.delay.observe(received->hop, mono_us()));
    if (ttl_ms == 0) {
      ++counters.dropped_late;
      return reply(c.id, request.id, Error{Errc::kTimeout, "the request came to the daemon after its deadline"});
    }
    on_request(c.id, request.id, std::get<Request>(std::move(request.body)), ttl_ms);
  }

  void reply(std::uint64_t connection, std::uint64_t id, Answer answer) {
    auto* c = find(connection);
    if (c == nullptr) return;
    const auto request = c->under_way.find(id);
    if (request == c->under_way.end()) return;
    c->bytes_under_way -= request->second;
    c->under_way.erase(request);

    ClientFrame frame{id, 0, hlc ? hlc() : Hlc{}, std::move(answer)};
    auto encoded = encode(frame);
    if (encoded.header.size() > kMaxHeaderBytes) {
      frame.body = Answer{Error{Errc::kTooLarge, fmt::format("the answer has {} bytes; at most {} can be sent",
                                                             encoded.header.size(), kMaxHeaderBytes)}};
      encoded = encode(frame);
    }
    ++counters.answers;
    if (c->writer.empty()) c->took_ms = EventLoop::mono_ms();
    c->writer.queue(share(std::move(encoded.header)), encode_hop({boot, mono_us(), 0}), std::move(encoded.payload));
    count_waiting(*c);
    mark_dirty(*c);
  }

  void count_waiting(Connection& c) {
    const auto before = std::exchange(c.waiting, c.writer.pending_bytes());
    if (c.waiting < before) c.took_ms = EventLoop::mono_ms();
    all_waiting += c.waiting - before;
  }

  /// Where much waits to be read, those go that take nothing of it.
  void cut_off_unread() {
    const auto now_ms = EventLoop::mono_ms();
    const bool full = all_waiting >= limits.all_answer_bytes_waiting;
    for (auto& [id, c] : connections) {
      const auto most_ms = full ? limits.unread_crowded_ms : limits.unread_ms;
      if (c->doomed || c->writer.empty() || now_ms - c->took_ms < most_ms) continue;
      // It may be this daemon that has not come to write.
      const auto flushed = c->writer.flush();
      count_waiting(*c);
      if (!flushed || c->writer.empty() || now_ms - c->took_ms < most_ms) {
        mark_dirty(*c);
        continue;
      }
      ++counters.cut_off;
      doom(*c, fmt::format("it has not read its answers for {} ms, {} KiB wait for it", now_ms - c->took_ms,
                           c->waiting >> 10));
    }
  }

  void mark_dirty(Connection& c) {
    if (c.dirty) return;
    c.dirty = true;
    dirty.push_back(c.id);
  }

  /// Goes on reading where there is room now; whether something was done.
  bool go_on(Connection& c) {
    const bool took = c.parked && has_room(c);
    if (took) take_frames(c);  // no event tells of frames that are in our own buffer
    if (!c.doomed) set_events(c);
    return took;
  }

  /// When the daemon is not crowded any more; in turn, beginning after the one that was last.
  bool go_on_with_held_back(std::int64_t until_us) {
    if (held_back.empty() || is_crowded()) return false;
    std::vector<std::uint64_t> order(held_back.upper_bound(last_turn), held_back.end());
    order.insert(order.end(), held_back.begin(), held_back.upper_bound(last_turn));
    bool again = false;
    for (const auto id : order) {
      auto* c = find(id);
      if (c == nullptr || !go_on(*c)) continue;
      last_turn = id;
      again = true;
      if (mono_us() > until_us || is_crowded()) break;
    }
    return again;
  }

  /// All answers of a round go out by one call for each connection.
  bool before_wait() {
    bool again = false;
    const auto until_us = mono_us() + kAllTurnsUs;
    for (const auto id : std::exchange(dirty, {})) {
      auto* c = find(id);
      if (c == nullptr) continue;
      if (mono_us() > until_us) {
        dirty.push_back(id);
        continue;
      }
      c->dirty = false;
      const auto done = c->writer.flush();
      count_waiting(*c);
      if (!done) {
        doom(*c, "");
        continue;
      }
      again = go_on(*c) || again;
    }
    again = go_on_with_held_back(until_us) || again;
    for (const auto id : std::exchange(doomed, {})) {
      auto& c = *connections.at(id);
      all_waiting -= c.waiting;
      held_back.erase(id);
      loop.remove(c.fd);
      connections.erase(id);
    }
    return again || !dirty.empty();
  }
};

Result<std::unique_ptr<UnixServer>> UnixServer::open(EventLoop& loop, std::string path, OnRequest on_request,
                                                     std::function<Hlc()> hlc, UnixServerLimits limits) {
  auto fd = listen_on(path);
  if (!fd) return pass(std::move(fd));
  auto impl = std::make_unique<Impl>(loop, std::move(path), std::move(on_request), std::move(hlc), limits);
  impl->listen_fd = *fd;
  if (auto started = impl->start(); !started) return pass(std::move(started));
  return std::unique_ptr<UnixServer>(new UnixServer(std::move(impl)));
}

UnixServer::UnixServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
UnixServer::~UnixServer() = default;

void UnixServer::reply(std::uint64_t connection, std::uint64_t id, Answer answer) {
  impl_->reply(connection, id, std::move(answer));
}
void UnixServer::hang_up(std::uint64_t connection) {
  if (auto* c = impl_->find(connection)) impl_->doom(*c, "");
}
void UnixServer::when_crowded(std::function<bool()> crowded) { impl_->crowded = std::move(crowded); }
std::size_t UnixServer::open_connections() const { return impl_->connections.size(); }
const UnixServerCounters& UnixServer::counters() const { return impl_->counters; }

}  // namespace kinfs::cluster
