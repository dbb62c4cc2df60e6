// The loop over epoll.
//
// Invariants: an entry that was removed is never called again, also not for events that epoll had already
// returned; a file descriptor that was closed and opened anew under the same number is another entry (events
// carry the entry's serial number, not the descriptor).
#include "cluster/event_loop.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace kinfs::cluster {
namespace {

constexpr int kEventsPerWait = 64;
// How often posted work may bring more work before file descriptors get their turn.
constexpr int kRoundsWithoutLooking = 8;
constexpr std::int64_t kRoundsMs = 2;  // and for how long at most, a round apart

std::int64_t clock_ms(clockid_t id) {
  timespec t{};
  ::clock_gettime(id, &t);
  return static_cast<std::int64_t>(t.tv_sec) * 1000 + t.tv_nsec / 1'000'000;
}

}  // namespace

struct EventLoop::Impl {
  struct Entry {
    int fd;
    std::function<void(std::uint32_t)> callback;
  };
  struct Timer {
    std::int64_t interval_ms;
    std::int64_t due_ms;
    std::function<void()> callback;
  };

  int epoll_fd = -1;
  int wake_fd = -1;
  std::unordered_map<std::uint64_t, std::shared_ptr<Entry>> entries;  // by serial
  std::unordered_map<int, std::uint64_t> serial_of;
  std::uint64_t next_serial = 1;  // 0 is wake_fd
  std::vector<std::shared_ptr<Timer>> timers;
  std::deque<std::function<bool()>> hooks;  // a hook may add hooks: those that are there stay where they are

  std::mutex posted_mutex;
  std::vector<std::function<void()>> posted;
  std::atomic<bool> stopping{false};
  std::atomic<std::thread::id> runner{};

  void wake() const {
    const std::uint64_t one = 1;
    // The only failure is a counter at its maximum: then a wake-up is pending anyway.
    [[maybe_unused]] const auto n = ::write(wake_fd, &one, sizeof one);
  }

  bool run_posted() {
    std::vector<std::function<void()>> work;
    {
      std::lock_guard lock(posted_mutex);
      work.swap(posted);
    }
    for (auto& f : work) f();
    return !work.empty();
  }

  bool has_posted() {
    std::lock_guard lock(posted_mutex);
    return !posted.empty();
  }

  /// Whether another round is wanted without waiting.
  bool run_hooks() {
    bool again = false;
    for (std::size_t i = 0; i < hooks.size(); ++i) again = hooks[i]() || again;
    return again;
  }

  void run_timers() {
    const auto now = EventLoop::mono_ms();
    for (std::size_t i = 0; i < timers.size(); ++i) {
      auto timer = timers[i];
      if (timer->due_ms > now) continue;
      timer->due_ms = now + timer->interval_ms;  // no burst of missed turns after a suspend
      timer->callback();
    }
  }

  int timeout_ms() const {
    if (timers.empty()) return -1;
    std::int64_t due = timers.front()->due_ms;
    for (const auto& t : timers) due = std::min(due, t->due_ms);
    return static_cast<int>(std::clamp<std::int64_t>(due - EventLoop::mono_ms(), 0, 60'000));
  }

  void dispatch(const epoll_event& event) {
    if (event.data.u64 == 0) {
      std::uint64_t count = 0;
      [[maybe_unused]] const auto n = ::read(wake_fd, &count, sizeof count);
      return;
    }
    const auto it = entries.find(event.data.u64);
    if (it == entries.end()) return;
    const auto entry = it->second;  // kept alive when the callback removes itself
    entry->callback(event.events);
  }
};

EventLoop::EventLoop() : impl_(std::make_unique<Impl>()) {
  impl_->epoll_fd = ::epoll_create1(EPOLL_CLOEXEC);
  impl_->wake_fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = 0;
  if (impl_->epoll_fd < 0 || impl_->wake_fd < 0 ||
      ::epoll_ctl(impl_->epoll_fd, EPOLL_CTL_ADD, impl_->wake_fd, &event) != 0) {
    throw std::system_error(errno, std::generic_category(), "cannot make an epoll instance");
  }
}

EventLoop::~EventLoop() {
  ::close(impl_->wake_fd);
  ::close(impl_->epoll_fd);
}

Result<void> EventLoop::add(int fd, std::uint32_t events, std::function<void(std::uint32_t)> callback) {
  remove(fd);
  const auto serial = impl_->next_serial++;
  epoll_event event{};
  event.events = events;
  event.data.u64 = serial;
  if (::epoll_ctl(impl_->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
    return fail(Errc::kInternal, fmt::format("cannot watch descriptor {}: {}", fd, std::strerror(errno)));
  }
  impl_->entries.emplace(serial, std::make_shared<Impl::Entry>(Impl::Entry{fd, std::move(callback)}));
  impl_->serial_of.emplace(fd, serial);
  return {};
}

void EventLoop::modify(int fd, std::uint32_t events) {
  const auto it = impl_->serial_of.find(fd);
  if (it == impl_->serial_of.end()) return;
  epoll_event event{};
  event.events = events;
  event.data.u64 = it->second;
  ::epoll_ctl(impl_->epoll_fd, EPOLL_CTL_MOD, fd, &event);
}

void EventLoop::remove(int fd) {
  const auto it = impl_->serial_of.find(fd);
  if (it == impl_->serial_of.end()) return;
  ::epoll_ctl(impl_->epoll_fd, EPOLL_CTL_DEL, fd, nullptr);
  impl_->entries.erase(it->second);
  impl_->serial_of.erase(it);
}

void EventLoop::every(std::int64_t interval_ms, std::function<void()> f) {
  const auto interval = std::max<std::int64_t>(interval_ms, 1);
  impl_->timers.push_back(std::make_shared<Impl::Timer>(Impl::Timer{interval, mono_ms() + interval, std::move(f)}));
}

void EventLoop::before_wait(std::function<bool()> f) { impl_->hooks.push_back(std::move(f)); }

void EventLoop::post(std::function<void()> f) {
  bool first = false;
  {
    std::lock_guard lock(impl_->posted_mutex);
    first = impl_->posted.empty();
    impl_->posted.push_back(std::move(f));
  }
  // The loop looks at the list before it waits: its own posts need no system call.
  if (first && impl_->runner.load() != std::this_thread::get_id()) impl_->wake();
}

void EventLoop::run() {
  impl_->runner = std::this_thread::get_id();
  std::array<epoll_event, kEventsPerWait> events{};
  while (!impl_->stopping) {
    bool again = false;
    const auto until_ms = mono_ms() + kRoundsMs;
    for (int round = 0; round < kRoundsWithoutLooking && (round == 0 || mono_ms() < until_ms); ++round) {
      impl_->run_posted();
      again = impl_->run_hooks() || impl_->has_posted();
      if (!again || impl_->stopping) break;
    }
    if (impl_->stopping) break;
    const int n = ::epoll_wait(impl_->epoll_fd, events.data(), kEventsPerWait, again ? 0 : impl_->timeout_ms());
    for (int i = 0; i < n; ++i) impl_->dispatch(events[static_cast<std::size_t>(i)]);
    impl_->run_timers();
  }
  impl_->stopping = false;
  impl_->runner = std::thread::id{};
}

void EventLoop::stop() {
  impl_->stopping = true;
  impl_->wake();
}

std::int64_t EventLoop::mono_ms() { return clock_ms(CLOCK_BOOTTIME); }
std::int64_t EventLoop::wall_ms() { return clock_ms(CLOCK_REALTIME); }

}  // namespace kinfs::cluster
