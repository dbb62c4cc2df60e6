#include "cluster/event_loop.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <atomic>
#include <thread>

namespace kinfs::cluster {
namespace {

struct Pipe {
  int read_fd = -1, write_fd = -1;
  Pipe() {
    int fds[2];
    if (::pipe(fds) == 0) read_fd = fds[0], write_fd = fds[1];
  }
  ~Pipe() {
    ::close(read_fd);
    ::close(write_fd);
  }
  void fill() const { ASSERT_EQ(::write(write_fd, "x", 1), 1); }
};

TEST(EventLoop, PostsFromManyThreadsRunOnTheLoopInOrder) {
  EventLoop loop;
  constexpr int kThreads = 4, kPosts = 5000;
  std::vector<int> last(kThreads, -1);
  int done = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kPosts; ++i) {
        loop.post([&, t, i] {
          EXPECT_EQ(last[static_cast<std::size_t>(t)], i - 1);
          last[static_cast<std::size_t>(t)] = i;
          if (++done == kThreads * kPosts) loop.stop();
        });
      }
    });
  }
  loop.run();
  for (auto& t : threads) t.join();
  EXPECT_EQ(done, kThreads * kPosts);
}

TEST(EventLoop, AnEntryThatWasRemovedIsNotCalledAgain) {
  EventLoop loop;
  Pipe a, b;
  a.fill();
  b.fill();
  int calls = 0;
  // Both are ready in one round; the first that is called removes both.
  const auto callback = [&](std::uint32_t) {
    ++calls;
    loop.remove(a.read_fd);
    loop.remove(b.read_fd);
    loop.post([&] { loop.stop(); });
  };
  ASSERT_TRUE(loop.add(a.read_fd, EPOLLIN, callback));
  ASSERT_TRUE(loop.add(b.read_fd, EPOLLIN, callback));
  loop.run();
  EXPECT_EQ(calls, 1);
}

TEST(EventLoop, WhatCannotBeWatchedIsAnError) {
  EventLoop loop;
  const auto watched = loop.add(-1, EPOLLIN, [](std::uint32_t) {});
  ASSERT_FALSE(watched);
  EXPECT_EQ(watched.error().code, Errc::kInternal);
  EXPECT_NE(watched.error().text.find("-1"), std::string::npos) << watched.error().text;
}

TEST(EventLoop, TimersAndHooks) {
  EventLoop loop;
  int ticks = 0, rounds = 0, hurried = 0;
  const auto began = EventLoop::mono_ms();
  loop.every(5, [&] {
    if (++ticks == 10) loop.stop();
  });
  loop.before_wait([&] {
    ++rounds;
    return ++hurried < 5;  // the first rounds do not wait
  });
  loop.run();
  EXPECT_EQ(ticks, 10);
  EXPECT_GE(EventLoop::mono_ms() - began, 49);
  EXPECT_GE(rounds, 14);
  EXPECT_LT(rounds, 100);  // it does wait in between
}

TEST(EventLoop, WhatAHookPostsRunsBeforeTheNextWait) {
  EventLoop loop;
  bool posted = false, ran = false;
  loop.before_wait([&] {
    if (!posted) loop.post([&] { ran = true, loop.stop(); });
    posted = true;
    return false;
  });
  loop.run();  // would wait for ever
  EXPECT_TRUE(ran);
}

TEST(EventLoop, StopFromAnotherThread) {
  EventLoop loop;
  std::thread other([&] { loop.stop(); });
  loop.run();
  other.join();
}

}  // namespace
}  // namespace kinfs::cluster
