// See socket_client.h: the I/O thread, which keeps the way to a daemon open.
//
// To another host's daemon go requests that another may answer, once the own daemon's connection is broken and cannot
// be made anew at once, or the daemon gives no sign of life: one that is stopped, or hangs, still has a socket that
// takes connections and bytes. So in doubt a second connection asks it, and only its answer counts; the first may be
// silent for good reason. The same question tells later that the own daemon is back, and whether what it reads is the
// newest: until it is, another host's is better, if there is one.
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "cluster/event_loop.h"
#include "cluster/socket_client_impl.h"
#include "cluster/unix_path.h"

namespace kinfs::cluster {
namespace {

constexpr std::int64_t kFirstRetryMs = 10;
constexpr std::int64_t kLastRetryMs = 200;
constexpr std::int64_t kDoubtMs = 400;     // of silence: it is asked for a sign of life
constexpr std::int64_t kSilenceMs = 1000;  // of silence, that question unanswered: it counts as gone
constexpr std::int64_t kLookSlackMs = 100;  // looks are not quite regular
constexpr std::int64_t kAwayLookMs = 50;
constexpr std::int64_t kTrialMs = 100;         // one that was started again answers sooner, if it is ready
constexpr std::int64_t kUnreadyMs = 3000;      // then the own daemon is taken as it is, if no other serves us
constexpr std::int64_t kIntroduceMs = 15'000;  // how old our knowledge of the other hosts may be
constexpr std::uint32_t kIntroduceTtlMs = 5000;

Error unavailable(const std::string& path, int error) {
  if (error == EACCES || error == EPERM) {
    return {Errc::kAccess, fmt::format("no permission for {}: its users belong to the group that owns it", path)};
  }
  if (error == ENOENT || error == ECONNREFUSED) {
    return {Errc::kUnavailable, fmt::format("no kinfsd listens on {}: is it running?", path)};
  }
  return {Errc::kUnavailable, fmt::format("cannot connect to kinfsd on {}: {}", path, std::strerror(error))};
}

Encoded introduction_request(std::uint64_t id) {
  return encode(ClientFrame{id, kIntroduceTtlMs, {}, Request{AdminRequest{kIntroductionCommand, {}}}});
}

}  // namespace

Result<int> connect_to(const std::string& path) {
  const auto address = unix_address(path);
  if (!address) return tl::unexpected(address.error());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return tl::unexpected(unavailable(path, errno));
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0) {
    const int error = errno;
    ::close(fd);
    return tl::unexpected(unavailable(path, error));
  }
  enlarge_send_buffer(fd);
  return fd;
}

int SocketClient::Impl::wait_ms(std::int64_t now_ms) const {
  if (io_.fd >= 0) {
    return static_cast<int>(std::clamp<std::int64_t>(io_.introduce_at_ms - now_ms, 0, kIntroduceMs));
  }
  const auto most_ms = io_.away || (io_.trial_fd >= 0 && !io_.given_up) ? kAwayLookMs : kLastRetryMs;
  if (io_.trial_fd >= 0) return static_cast<int>(most_ms);
  return static_cast<int>(std::clamp<std::int64_t>(io_.connect_at_ms - now_ms, 0, most_ms));
}

void SocketClient::Impl::run() {
  std::array<epoll_event, 8> events{};
  while (!quit_) {
    const auto now_ms = EventLoop::mono_ms();
    if (io_.fd < 0) {
      connect_home();
      if (io_.fd < 0) look_elsewhere();
    } else if (now_ms >= io_.introduce_at_ms) {
      std::lock_guard lock(strand_);
      introduce();
      flush();
    }
    const int n = ::epoll_wait(epoll_fd_, events.data(), static_cast<int>(events.size()), wait_ms(now_ms));
    for (int i = 0; i < n && !quit_; ++i) {
      const auto& event = events[static_cast<std::size_t>(i)];
      on_event(event.data.u64, event.events);
    }
  }
}

void SocketClient::Impl::on_event(std::uint64_t event, std::uint32_t what) {
  switch (event) {
    case kWakeEvent: {
      std::uint64_t count = 0;
      [[maybe_unused]] const auto n = ::read(wake_fd_, &count, sizeof count);
      break;  // look_elsewhere() takes what is there
    }
    case kTimerEvent: {
      {
        std::lock_guard lock(strand_);
        expire();
      }
      doubt();
      break;
    }
    case kSocketEvent:
      if (io_.fd < 0) break;
      if (what & EPOLLOUT) {
        std::lock_guard lock(strand_);
        flush();
      }
      if (what & ~EPOLLOUT) read_socket();
      break;
    case kTrialEvent:
      if (io_.trial_fd >= 0) read_trial();
      break;
    case kLineEvent:
    case kMonitorEvent:
      if (io_.away) hear_elsewhere();
      break;
    default:
      break;
  }
}

// --- The own daemon ---

void SocketClient::Impl::connect_home() {
  if (io_.trial_fd >= 0 || EventLoop::mono_ms() < io_.connect_at_ms) return;
  io_.retry_ms = std::clamp(io_.retry_ms * 2, kFirstRetryMs, kLastRetryMs);
  io_.connect_at_ms = EventLoop::mono_ms() + io_.retry_ms;
  const auto fd = connect_to(options_.socket_path);
  if (!fd) return;
  if (io_.given_up || io_.away || elsewhere_->knows_anyone()) {
    begin_trial(*fd);
  } else {
    attach(*fd);
  }
}

void SocketClient::Impl::attach(int fd) {
  io_.fd = fd;
  io_.doubted_ms = 0;
  io_.reader.emplace(fd);
  io_.heard_ms = EventLoop::mono_ms();
  std::lock_guard lock(strand_);
  fd_ = fd;
  output_wanted_ = false;
  epoll_event event{EPOLLIN, {.u64 = kSocketEvent}};
  ::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event);
  writer_.emplace(fd);
  introduce();
  send_all();
  flush();
}

void SocketClient::Impl::detach() {
  {
    std::lock_guard lock(strand_);
    writer_.reset();
    fd_ = -1;
  }
  ::close(io_.fd);
  io_.fd = -1;
  io_.reader.reset();
  io_.connect_at_ms = io_.retry_ms == 0 ? 0 : EventLoop::mono_ms() + io_.retry_ms;
}

/// Asks the own daemon who else there is; inside the strand.
void SocketClient::Impl::introduce() {
  io_.introduce_at_ms = EventLoop::mono_ms() + kIntroduceMs;
  if (!writer_) return;
  auto request = introduction_request(kFirstInternalId + ++io_.introductions);
  writer_->queue(share(std::move(request.header)), encode_hop({boot_, mono_us(), kIntroduceTtlMs}), nullptr);
}

/// Whether that daemon is ready.
bool SocketClient::Impl::introduced(const Answer& answer) {
  const auto* told = std::get_if<AdminAnswer>(&answer);
  if (told == nullptr) return true;  // a daemon that is older than this client
  auto known = decode_introduction(told->json);
  if (!known) return true;
  const bool ready = known->ready;
  elsewhere_->know(std::move(*known));
  return ready;
}

void SocketClient::Impl::read_socket() {
  const auto input = io_.reader->fill();
  bool broken = !input || *input == FrameReader::Input::kEnd;
  bool heard = false;
  std::vector<Received<ClientFrame>> frames;
  while (!broken) {
    auto frame = io_.reader->next();
    if (frame && !*frame) break;
    if (!frame) {
      broken = true;
      break;
    }
    auto received = receive_client_frame((*frame)->header, std::move((*frame)->payload));
    broken = !received || !std::holds_alternative<Answer>(received->value.body);
    if (broken) break;
    heard = true;
    if (received->value.id >= kFirstInternalId) {
      (void)introduced(std::get<Answer>(received->value.body));
    } else {
      frames.push_back(std::move(*received));
    }
  }
  if (heard) {
    io_.heard_ms = EventLoop::mono_ms();
    io_.retry_ms = 0;  // this daemon answers: if it goes away, ask at once for the next
  }
  if (!frames.empty()) complete(std::move(frames));
  if (broken) detach();
}

void SocketClient::Impl::complete(std::vector<Received<ClientFrame>> frames) {
  const auto wall_ms = EventLoop::wall_ms();
  std::lock_guard lock(strand_);
  for (auto& [frame, hop] : frames) {
    auto& answer = std::get<Answer>(frame.body);
    // One that is far ahead of our clock is not taken over; the daemon that sent it reports it.
    (void)clock_.observe(frame.hlc, wall_ms);
    observe(answer);
    auto* call = calls_.find(frame.id);
    if (call != nullptr && ask_again(*call, answer)) continue;
    const bool open = call != nullptr && !call->rows.empty() && call->sent > 1;
    if (auto* error = std::get_if<Error>(&answer); error != nullptr && open) {
      if (error->code == Errc::kUnavailable) error->code = Errc::kTimeout;  // of this attempt: not of an earlier one
      answer = leave_open(std::move(*error));
    }
    finish(frame.id, std::move(answer));
    send_those_in_turn(2);
  }
  flush();
}

// --- Is it there? ---

void SocketClient::Impl::doubt() {
  if (io_.fd < 0) return;
  // What it has said may not have been read yet: this process may have stood still, not the daemon.
  if (is_silent(kDoubtMs)) read_socket();
  if (io_.fd >= 0 && io_.trial_fd >= 0) read_trial();
  if (io_.fd < 0) return;
  if (!is_silent(kDoubtMs) || !elsewhere_->knows_anyone()) {
    io_.doubted_ms = 0;
    return end_trial();
  }
  const auto now_ms = EventLoop::mono_ms();
  if (io_.doubted_ms == 0) io_.doubted_ms = now_ms;
  if (is_silent(kSilenceMs) && now_ms - io_.doubted_ms >= kSilenceMs - kDoubtMs - kLookSlackMs) {
    io_.given_up = true;
    return detach();  // a trial that is under way goes on: its answer brings us back
  }
  if (io_.trial_fd >= 0) return;
  if (const auto fd = connect_to(options_.socket_path)) begin_trial(*fd);
}

/// For as long, while something that another daemon may answer waits for it.
bool SocketClient::Impl::is_silent(std::int64_t ms) {
  std::lock_guard lock(strand_);
  return calls_.can_move() > 0 && EventLoop::mono_ms() - std::max(waiting_since_ms_, io_.heard_ms) >= ms;
}

void SocketClient::Impl::begin_trial(int fd) {
  io_.trial_fd = fd;
  io_.trial_ms = EventLoop::mono_ms();
  io_.trial_reader.emplace(fd);
  epoll_event event{EPOLLIN, {.u64 = kTrialEvent}};
  ::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event);
  FrameWriter writer(fd);
  auto request = introduction_request(kFirstInternalId + ++io_.introductions);
  writer.queue(share(std::move(request.header)), encode_hop({boot_, mono_us(), kIntroduceTtlMs}), nullptr);
  if (!writer.flush() || !writer.empty()) end_trial();
}

void SocketClient::Impl::end_trial() {
  if (io_.trial_fd < 0) return;
  ::close(io_.trial_fd);
  io_.trial_fd = -1;
  io_.trial_reader.reset();
}

void SocketClient::Impl::read_trial() {
  const auto input = io_.trial_reader->fill();
  if (!input || *input == FrameReader::Input::kEnd) return end_trial();
  auto frame = io_.trial_reader->next();
  if (frame && !*frame) return;
  if (!frame) return end_trial();
  const auto received = receive_client_frame((*frame)->header, std::move((*frame)->payload));
  if (!received || !std::holds_alternative<Answer>(received->value.body)) return end_trial();
  const bool is_ready = introduced(std::get<Answer>(received->value.body));
  io_.heard_ms = EventLoop::mono_ms();
  if (io_.fd >= 0) return end_trial();                       // it lives, and is busy
  if (!is_ready && can_wait_for_home()) return end_trial();  // it is asked again soon
  ::epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, io_.trial_fd, nullptr);
  io_.trial_reader.reset();
  come_home(std::exchange(io_.trial_fd, -1));
}

/// While it is not ready.
bool SocketClient::Impl::can_wait_for_home() {
  const auto now_ms = EventLoop::mono_ms();
  if (elsewhere_->answers()) {
    io_.unready_ms = 0;
    return true;
  }
  if (io_.unready_ms == 0) io_.unready_ms = now_ms;
  return elsewhere_->knows_anyone() && !elsewhere_->found_none() && now_ms - io_.unready_ms < kUnreadyMs;
}

// --- Another host's ---

/// While the own daemon is not connected: goes to another, and from one that is silent to the next.
void SocketClient::Impl::look_elsewhere() {
  bool wanted = false;
  std::int64_t since_ms = 0;
  std::vector<Elsewhere::Item> items;
  {
    std::lock_guard lock(strand_);
    woken_ = false;
    wanted = calls_.can_move() > 0;
    since_ms = waiting_since_ms_;
    items.swap(outbox_);
  }
  if (!elsewhere_->knows_anyone()) return;
  if (!elsewhere_->is_open()) {
    const bool asking = io_.trial_fd >= 0 && !io_.given_up && !io_.away;
    if (wanted && !(asking && EventLoop::mono_ms() - io_.trial_ms < kTrialMs)) go_elsewhere();
    return;
  }
  for (auto& item : items) elsewhere_->queue(std::move(item));
  if (wanted && elsewhere_->silent(since_ms, EventLoop::mono_ms())) return go_elsewhere();
  hear_elsewhere();
}

void SocketClient::Impl::go_elsewhere() {
  if (!elsewhere_->dial_next()) {
    std::lock_guard lock(strand_);
    away_ = io_.away = false;
    outbox_.clear();
    return;
  }
  if (const auto why = elsewhere_->complaint(); !why.empty()) {
    notice(
        fmt::format("kinfsd on {} does not answer, and no other host goes on for it: {}", options_.socket_path, why));
  }
  std::vector<Elsewhere::Item> items;
  {
    std::lock_guard lock(strand_);
    away_ = io_.away = true;
    outbox_.clear();
    send_all();
    items.swap(outbox_);
  }
  for (auto& item : items) elsewhere_->queue(std::move(item));
  hear_elsewhere();
}

void SocketClient::Impl::hear_elsewhere() {
  auto heard = elsewhere_->pump();
  if (heard.is_in) {
    ++sent_.went_over;
    io_.noticed = true;
    notice(fmt::format("kinfsd on {} does not answer: going on through {} ({})", options_.socket_path,
                       elsewhere_->host().name, elsewhere_->host().address));
  }
  if (!heard.sent.empty()) {
    std::lock_guard lock(strand_);
    for (const auto id : heard.sent) {
      auto* call = calls_.find(id);
      if (call == nullptr) continue;
      ++call->sent;
      call->asked = elsewhere_->host().name;
    }
  }
  if (!heard.answers.empty()) complete(std::move(heard.answers));
  if (heard.broke) elsewhere_->close();  // look_elsewhere() dials the next
}

void SocketClient::Impl::come_home(int fd) {
  elsewhere_->rest();
  sent_.came_back += io_.away;
  {
    std::lock_guard lock(strand_);
    away_ = io_.away = false;
    outbox_.clear();
  }
  io_.retry_ms = 0;
  io_.given_up = false;
  io_.unready_ms = 0;
  if (std::exchange(io_.noticed, false)) {
    notice(fmt::format("kinfsd on {} answers again: back from {}", options_.socket_path, elsewhere_->host().name));
  }
  attach(fd);
}

void SocketClient::Impl::notice(const std::string& words) const {
  if (options_.notice) options_.notice(words);
}

}  // namespace kinfs::cluster
