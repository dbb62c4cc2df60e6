// epoll, timers and a way in from other threads. One thread runs it; everything but post() and stop() belongs
// to that thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "storage/result.h"

namespace kinfs::cluster {

class EventLoop {
 public:
  /// Throws std::system_error when the process may open no more descriptors: made when a program starts, so that
  /// its main() says so.
  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  /// `events` as for epoll (EPOLLIN, EPOLLOUT), level-triggered. The callback may remove its own fd.
  /// kInternal when the kernel will watch no more (fs.epoll.max_user_watches); then nothing is watched.
  [[nodiscard]] Result<void> add(int fd, std::uint32_t events, std::function<void(std::uint32_t)> callback);
  void modify(int fd, std::uint32_t events);
  void remove(int fd);
  /// Calls `f` about every `interval_ms` until the loop ends.
  void every(std::int64_t interval_ms, std::function<void()> f);
  /// Called before each wait: what the callbacks of one round gathered is sent together. Returns true to ask for
  /// another round without waiting.
  void before_wait(std::function<bool()> f);
  /// From any thread: runs `f` on the loop's thread.
  void post(std::function<void()> f);
  void run();
  /// From any thread.
  void stop();

  static std::int64_t mono_ms();  // CLOCK_BOOTTIME
  static std::int64_t wall_ms();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kinfs::cluster
