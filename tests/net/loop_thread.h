// An event loop on a thread of its own, and ways to wait for what happens there, with a deadline.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <future>
#include <mutex>
#include <string>
#include <thread>

#include "cluster/event_loop.h"

namespace kinfs::cluster {

class LoopThread {
 public:
  LoopThread() : thread_([this] { loop_.run(); }) {}
  ~LoopThread() {
    loop_.stop();
    thread_.join();
  }
  EventLoop& loop() { return loop_; }
  /// Runs `f` on the loop and returns what it returns.
  template <class F>
  auto call(F f) -> decltype(f()) {
    std::packaged_task<decltype(f())()> task(std::move(f));
    auto result = task.get_future();
    loop_.post([&task] { task(); });
    return result.get();
  }
  /// Asks `holds` on the loop, again and again, until it is true or the time is over.
  bool wait_until(std::function<bool()> holds, std::chrono::milliseconds most = std::chrono::seconds(10)) {
    const auto deadline = std::chrono::steady_clock::now() + most;
    while (!call(holds)) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::mutex m;
      std::unique_lock lock(m);
      std::condition_variable().wait_for(lock, std::chrono::milliseconds(1));
    }
    return true;
  }

 private:
  EventLoop loop_;
  std::thread thread_;
};

class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "kinfs-net-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline std::int64_t elapsed_ms(std::int64_t since_ms) { return EventLoop::mono_ms() - since_ms; }

/// A limit for what a program of ours may take: the sanitizers make it 5 to 15 times as slow, so that what is promised
/// to users is held in release alone, and there only that nothing waits for a deadline.
constexpr std::int64_t stretched(std::int64_t limit_ms) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return 4 * limit_ms;
#else
  return limit_ms;
#endif
}

}  // namespace kinfs::cluster
