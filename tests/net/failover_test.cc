// A client whose own daemon dies, hangs or comes back: what is under way goes on through other hosts' daemons.
#include <gtest/gtest.h>

#include "fake_daemon.h"
#include "samples.h"

namespace kinfs::cluster {
namespace {

/// Host a, whose client it is, with its own daemon; and two others.
class Failover : public ::testing::Test {
 protected:
  Failover() : b_(b, members()), c_(c, members()), home_(dir / "s") {
    tell(home_);
    client_ = std::make_unique<TestClient>(dir / "s", 8000);
    settle();
  }
  std::vector<Member> members() const { return {a.member, b.member, c.member}; }
  void tell(FakeDaemon& daemon) {
    const auto words = encode_introduction({a.client_keys(), {b_.as_other(), c_.as_other()}});
    daemon.thread.call([&] { daemon.introduction = words; });
  }
  /// What one says that does not reach the others.
  std::string lonely() const { return encode_introduction({a.client_keys(), {b_.as_other(), c_.as_other()}, false}); }
  bool passed(std::int64_t ms) {
    const auto began = EventLoop::mono_ms();
    return home_.thread.wait_until([&] { return elapsed_ms(began) >= ms; });
  }
  SocketClient& client() { return *client_->client; }
  /// The client has the answer to its first question, what others there are: answers keep the order of questions here.
  void settle() {
    auto asked = client_->start(client().usage());
    ASSERT_TRUE(home_.wait_for_open(1));
    home_.answer(0, StoreUsage{});
    ASSERT_TRUE(ready(asked));
    ASSERT_TRUE(asked.get());
  }
  bool came_back(std::uint64_t times) {
    return home_.thread.wait_until([&] { return client().counters().came_back >= times; });
  }
  static std::string dump_first(FakeRemote& remote) {
    return remote.node.thread.call([&] { return Dump{}(remote.open[0].request); });
  }

  TempDir dir;
  const Identity a, b, c;
  FakeRemote b_, c_;
  FakeDaemon home_;
  std::unique_ptr<TestClient> client_;
};

/// A loop that stands still, as that of a daemon that is stopped or hangs.
class Hang {
 public:
  explicit Hang(LoopThread& thread) {
    auto released = release_.get_future().share();
    auto entered = std::make_shared<std::promise<void>>();
    thread.loop().post([entered, released] {
      entered->set_value();
      released.wait();
    });
    entered->get_future().wait();
  }
  ~Hang() { end(); }
  void end() {
    if (!std::exchange(ended_, true)) release_.set_value();
  }

 private:
  std::promise<void> release_;
  bool ended_ = false;
};

TEST_F(Failover, WhatIsUnderWayWhenItDiesGoesOnThroughAnother) {
  auto put = client_->start(client_->put({"a"}));
  auto behind = client_->start(client_->put({"a"}));
  auto get = client_->start(client().get(kVolumeKv, "p", "a"));
  ASSERT_TRUE(home_.wait_for_open(2));
  const auto before = home_.thread.call([&] { return Dump{}(home_.open[0].request); });
  const auto began = EventLoop::mono_ms();
  home_.stop();
  ASSERT_TRUE(b_.wait_for_open(2));
  EXPECT_EQ(dump_first(b_), before);  // the same event
  b_.answer(0, PutResult{});
  b_.answer(0, GetResult{});
  ASSERT_TRUE(ready(put) && ready(get));
  EXPECT_TRUE(put.get() && get.get());
  EXPECT_LT(elapsed_ms(began), stretched(1500));
  ASSERT_TRUE(b_.wait_for_open(1));  // its turn has come, not before
  b_.answer(0, PutResult{});
  ASSERT_TRUE(ready(behind));
  EXPECT_TRUE(behind.get());
  const auto block = share(Bytes(kMaxBlockBytes, 'b'));
  std::vector<std::future<Result<Unit>>> blocks;
  for (int i = 0; i < 20; ++i) blocks.push_back(client_->start(client().put_block(sample_block_key(), block, {})));
  for (auto& stored : blocks) {
    ASSERT_TRUE(b_.wait_for_open(1));
    b_.answer(0, BlockStored{});
    ASSERT_TRUE(ready(stored));
    EXPECT_TRUE(stored.get());
  }
  EXPECT_EQ(c_.counters().connections, 0u);
}

TEST_F(Failover, AsSoonAsTheOwnDaemonIsBackAllGoesToIt) {
  home_.stop();
  auto first = client_->start(client_->put({"a"}));
  ASSERT_TRUE(b_.wait_for_open(1));
  home_.start();
  ASSERT_TRUE(home_.wait_for_open(1));  // what the other has not answered
  EXPECT_TRUE(came_back(1));
  home_.answer(0, PutResult{});
  ASSERT_TRUE(ready(first));
  EXPECT_TRUE(first.get());
  auto second = client_->start(client_->put({"b"}));
  ASSERT_TRUE(home_.wait_for_open(1));
  home_.answer(0, PutResult{});
  ASSERT_TRUE(ready(second));
  EXPECT_TRUE(second.get());
  EXPECT_EQ(b_.node.thread.call([&] { return b_.asked; }), 1u);
}

/// What has just started shows what its own disk has, which may be older than what another host has shown.
TEST_F(Failover, TheOwnDaemonIsReturnedToOnceItReachesTheOthers) {
  c_.stop();  // else a client that finds b slow is there
  home_.stop();
  auto usage = client_->start(client().usage());
  ASSERT_TRUE(b_.wait_for_open(1));
  b_.answer(0, StoreUsage{});
  ASSERT_TRUE(ready(usage));
  auto get = client_->start(client().get(kVolumeKv, "p", "a"));
  ASSERT_TRUE(b_.wait_for_open(1));
  home_.thread.call([&] { home_.introduction = lonely(); });
  home_.start();
  ASSERT_TRUE(home_.thread.wait_until([&] { return home_.server->counters().requests > 3; }));
  EXPECT_EQ(client().counters().came_back, 0u);
  tell(home_);
  EXPECT_TRUE(came_back(1));
  home_.thread.call([&] { home_.introduction = lonely(); });
  ASSERT_TRUE(home_.wait_for_open(1));
  home_.stop();
  ASSERT_TRUE(b_.wait_for_open(1));
  home_.start();
  b_.stop();  // with nobody else there, it is better than none
  ASSERT_TRUE(home_.wait_for_open(1));
  home_.answer(0, GetResult{});
  ASSERT_TRUE(ready(get));
  EXPECT_TRUE(get.get());
}

/// Its connection was broken and could be made anew at once: that says nothing of what it reads.
TEST_F(Failover, TheOwnDaemonIsAskedAlsoWhenItIsBackAtOnce) {
  home_.stop();
  home_.thread.call([&] { home_.introduction = lonely(); });
  home_.start();
  (void)passed(300);
  auto get = client_->start(client().get(kVolumeKv, "p", "a"));
  ASSERT_TRUE(b_.wait_for_open(1));
  b_.answer(0, GetResult{});
  ASSERT_TRUE(ready(get));
  EXPECT_TRUE(get.get());
  EXPECT_EQ(home_.thread.call([&] { return home_.asked; }), 1u);
  tell(home_);
  EXPECT_TRUE(came_back(1));
}

TEST_F(Failover, TheOwnDaemonIsNotTakenBeforeItIsReadyWhileThereIsAnother) {
  home_.stop();
  auto usage = client_->start(client().usage());
  ASSERT_TRUE(b_.wait_for_open(1));
  home_.thread.call([&] { home_.introduction = lonely(); });
  home_.start();
  {
    Hang slow(c_.node.thread);
    b_.stop();
    (void)passed(300);
  }
  ASSERT_TRUE(c_.wait_for_open(1));
  c_.answer(0, StoreUsage{});
  ASSERT_TRUE(ready(usage));
  EXPECT_TRUE(usage.get());
  b_.start();
  c_.stop();  // and nothing is under way
  (void)passed(400);
  auto get = client_->start(client().get(kVolumeKv, "p", "a"));
  ASSERT_TRUE(b_.wait_for_open(1));
  b_.answer(0, GetResult{});
  ASSERT_TRUE(ready(get));
  EXPECT_TRUE(get.get());
  EXPECT_EQ(client().counters().came_back, 0u);
  EXPECT_EQ(home_.thread.call([&] { return home_.asked; }), 1u);
  // With nobody else there it is taken as it is, if not at once.
  const auto began = EventLoop::mono_ms();
  b_.stop();
  EXPECT_TRUE(came_back(1));
  EXPECT_GT(elapsed_ms(began), 2000);
  EXPECT_LT(elapsed_ms(began), stretched(4500));
}

TEST_F(Failover, OneThatIsNotReadyIsPassedOver) {
  b_.node.thread.call([&] { b_.ready = false; });
  c_.node.thread.call([&] { c_.ready = true; });
  const auto began = EventLoop::mono_ms();
  home_.stop();
  auto put = client_->start(client_->put({"a"}));
  ASSERT_TRUE(c_.wait_for_open(1));
  EXPECT_LT(elapsed_ms(began), stretched(500));
  c_.answer(0, PutResult{});
  ASSERT_TRUE(ready(put));
  EXPECT_TRUE(put.get());
  EXPECT_EQ(b_.node.thread.call([&] { return b_.asked; }), 0u);
}

TEST_F(Failover, WithNoneReadyOneThatIsNotServes) {
  b_.node.thread.call([&] { b_.ready = false; });
  c_.node.thread.call([&] { c_.ready = false; });
  for (const bool c_there : {true, false}) {
    if (!c_there) c_.stop();
    const auto began = EventLoop::mono_ms();
    home_.stop();
    auto put = client_->start(client_->put({"a"}));
    ASSERT_TRUE(b_.wait_for_open(1));
    EXPECT_LT(elapsed_ms(began), stretched(1500));
    home_.start();
    ASSERT_TRUE(home_.wait_for_open(1));
    home_.answer(0, PutResult{});
    ASSERT_TRUE(ready(put));
    EXPECT_TRUE(put.get());
    b_.stop();
    b_.start();
  }
}

TEST_F(Failover, ADaemonThatHangsIsLeftWithinTwoSecondsAndReturnedTo) {
  for (std::uint64_t round = 1; round <= 2; ++round) {
    Hang hang(home_.thread);
    const auto began = EventLoop::mono_ms();
    auto put = client_->start(client_->put({"a"}));
    ASSERT_TRUE(b_.wait_for_open(1));
    b_.answer(0, PutResult{});
    ASSERT_TRUE(ready(put));
    EXPECT_TRUE(put.get());
    EXPECT_GE(elapsed_ms(began), 900);
    EXPECT_LT(elapsed_ms(began), stretched(2000));
    auto get = client_->start(client().get(kVolumeKv, "p", "a"));  // nothing waits for it any more
    ASSERT_TRUE(b_.wait_for_open(1));
    EXPECT_LT(elapsed_ms(began), stretched(2500));
    hang.end();
    ASSERT_TRUE(came_back(round));
    ASSERT_TRUE(home_.thread.wait_until([&] {
      return std::any_of(home_.open.begin(), home_.open.end(),
                         [](const auto& o) { return std::holds_alternative<GetRequest>(o.request); });
    }));
    home_.answer_all(GetResult{});
    ASSERT_TRUE(ready(get));
    EXPECT_TRUE(get.get());
    b_.node.thread.call([&] { b_.open.clear(); });
  }
}

TEST_F(Failover, ADaemonThatIsSlowButThereIsNotLeft) {
  auto put = client_->start(client_->put({"a"}));
  ASSERT_TRUE(home_.wait_for_open(1));
  const auto began = EventLoop::mono_ms();
  ASSERT_TRUE(home_.thread.wait_until([&] { return elapsed_ms(began) > 3000; }));
  EXPECT_EQ(home_.thread.call([&] { return home_.asked; }), 2u);
  home_.answer(0, PutResult{});
  ASSERT_TRUE(ready(put));
  EXPECT_TRUE(put.get());
  EXPECT_EQ(b_.counters().connections + c_.counters().connections, 0u);
}

TEST_F(Failover, WhenTheClientItselfStoodStillTheDaemonIsNotLeft) {
  auto put = client_->start(client_->put({"a"}));
  ASSERT_TRUE(home_.wait_for_open(1));
  {
    std::lock_guard lock(client_->strand);
    (void)passed(300);
    home_.answer(0, PutResult{});
    (void)passed(1500);
  }
  ASSERT_TRUE(ready(put));
  EXPECT_TRUE(put.get());
  EXPECT_EQ(b_.counters().connections + c_.counters().connections, 0u);
}

TEST_F(Failover, FromOneThatIsNotThereToTheNext) {
  b_.stop();
  const auto began = EventLoop::mono_ms();
  home_.stop();
  auto put = client_->start(client_->put({"a"}));
  ASSERT_TRUE(c_.wait_for_open(1));
  EXPECT_LT(elapsed_ms(began), stretched(2000));
  c_.answer(0, PutResult{});
  ASSERT_TRUE(ready(put));
  EXPECT_TRUE(put.get());
}

/// Dialling takes longer after each round that found nobody; that must not outlast the way home.
TEST_F(Failover, ALaterSearchIsAsFastAsTheFirst) {
  b_.stop();
  c_.stop();
  home_.stop();
  auto get = client_->start(client().get(kVolumeKv, "p", "a"));
  (void)passed(4500);
  home_.start();
  ASSERT_TRUE(home_.wait_for_open(1));
  home_.answer(0, GetResult{});
  ASSERT_TRUE(ready(get));
  EXPECT_TRUE(get.get());
  settle();
  c_.start();
  const auto began = EventLoop::mono_ms();
  home_.stop();
  auto put = client_->start(client_->put({"a"}));
  ASSERT_TRUE(c_.wait_for_open(1));
  EXPECT_LT(elapsed_ms(began), stretched(1500));
  c_.answer(0, PutResult{});
  ASSERT_TRUE(ready(put));
  EXPECT_TRUE(put.get());
}

TEST_F(Failover, FromOneThatDoesNotKnowUsToTheNext) {
  FakeRemote stranger(Identity(), {c.member});
  const auto words = encode_introduction({a.client_keys(), {stranger.as_other(), c_.as_other()}});
  home_.thread.call([&] { home_.introduction = words; });
  TestClient t(dir / "s", 8000);
  auto asked = t.start(t.client->usage());
  ASSERT_TRUE(home_.wait_for_open(1));
  home_.answer(0, StoreUsage{});
  ASSERT_TRUE(ready(asked));
  const auto began = EventLoop::mono_ms();
  home_.stop();
  auto put = t.start(t.put({"a"}));
  ASSERT_TRUE(c_.wait_for_open(1));
  EXPECT_LT(elapsed_ms(began), stretched(550));
  c_.answer(0, PutResult{});
  ASSERT_TRUE(ready(put));
  EXPECT_TRUE(put.get());
  EXPECT_GT(stranger.node.counters().unauthenticated, 0u);
}

TEST_F(Failover, FromOneThatDiesOrFallsSilentToTheNext) {
  home_.stop();
  auto put = client_->start(client_->put({"a"}));
  ASSERT_TRUE(b_.wait_for_open(1));
  c_.node.cut({a.id()});  // drops what comes and what it would say; its connection stands
  b_.stop();
  ASSERT_TRUE(c_.node.thread.wait_until([&] { return c_.node.transport->counters().dropped_cut > 0; }));
  b_.start();
  ASSERT_TRUE(b_.wait_for_open(1));
  b_.answer(0, PutResult{});
  ASSERT_TRUE(ready(put));
  EXPECT_TRUE(put.get());
}

TEST_F(Failover, FromOneThatHangsToTheNextWithinTwoSeconds) {
  home_.stop();
  auto get = client_->start(client().get(kVolumeKv, "p", "a"));
  ASSERT_TRUE(b_.wait_for_open(1));
  b_.answer(0, GetResult{});
  ASSERT_TRUE(ready(get));
  Hang hang(b_.node.thread);
  const auto began = EventLoop::mono_ms();
  auto put = client_->start(client_->put({"a"}));
  ASSERT_TRUE(c_.wait_for_open(1));
  EXPECT_GE(elapsed_ms(began), 1200);
  EXPECT_LT(elapsed_ms(began), stretched(1900));
  c_.answer(0, PutResult{});
  ASSERT_TRUE(ready(put));
  EXPECT_TRUE(put.get());
}

TEST_F(Failover, OneThatIsSlowButThereIsNotLeft) {
  home_.stop();
  auto put = client_->start(client_->put({"a"}));
  ASSERT_TRUE(b_.wait_for_open(1));
  (void)passed(3000);
  b_.answer(0, PutResult{});
  ASSERT_TRUE(ready(put));
  EXPECT_TRUE(put.get());
  EXPECT_EQ(c_.counters().connections, 0u);
}

TEST_F(Failover, FromOneThatIsStoppingToTheNextAtOnce) {
  auto put = client_->start(client_->put({"a"}));
  ASSERT_TRUE(home_.wait_for_open(1));
  const auto began = EventLoop::mono_ms();
  home_.thread.call([&] { home_.server->hang_up(home_.open[0].connection); });
  ASSERT_TRUE(home_.wait_for_open(2));  // it is there, and is asked again
  home_.stop();
  ASSERT_TRUE(b_.wait_for_open(1));
  b_.hang_up();
  ASSERT_TRUE(c_.wait_for_open(1));
  EXPECT_LT(elapsed_ms(began), stretched(1000));
  c_.answer(0, PutResult{});
  ASSERT_TRUE(ready(put));
  EXPECT_TRUE(put.get());
}

/// What was under way on the connection before is lost with it.
TEST_F(Failover, OneThatBreaksAndStandsAgainBetweenTwoLooksIsNoticed) {
  c_.stop();
  home_.stop();
  auto put = client_->start(client_->put({"a"}));
  ASSERT_TRUE(b_.wait_for_open(1));
  {
    std::lock_guard lock(client_->strand);  // the client's own thread stands still
    (void)passed(200);
    b_.stop();
    b_.start();
    (void)passed(1500);
  }
  ASSERT_TRUE(b_.wait_for_open(1));
  b_.answer(0, PutResult{});
  ASSERT_TRUE(ready(put));
  EXPECT_TRUE(put.get());
}

TEST_F(Failover, AnErrorOfAnotherLeavesTheOutcomeOpen) {
  auto put = client_->start(client_->put({"a"}));
  ASSERT_TRUE(home_.wait_for_open(1));
  home_.stop();
  ASSERT_TRUE(b_.wait_for_open(1));
  b_.answer(0, Error{Errc::kNoSpace, "the disk is full"});
  ASSERT_TRUE(ready(put));
  EXPECT_EQ(put.get().error().code, Errc::kTimeout);
  auto other = client_->start(client_->put({"b"}));
  ASSERT_TRUE(b_.wait_for_open(1));
  b_.stop();
  ASSERT_TRUE(c_.wait_for_open(1));
  c_.answer(0, Error{Errc::kUnavailable, "too few replicas"});
  ASSERT_TRUE(ready(other));
  EXPECT_EQ(other.get().error().code, Errc::kTimeout);
}

TEST_F(Failover, WithNobodyThereCallsEndAtTheirDeadline) {
  home_.stop();
  b_.stop();
  c_.stop();
  (void)passed(100);  // nothing is sent to what is gone
  TestClient* t = client_.get();
  const auto began = EventLoop::mono_ms();
  auto get = t->start(client().get(kVolumeKv, "p", "a"));
  auto put = t->start(t->put({"a"}));
  ASSERT_TRUE(ready(get, std::chrono::seconds(15)) && ready(put));
  EXPECT_GE(elapsed_ms(began), 7900);
  EXPECT_LT(elapsed_ms(began), stretched(9000));
  const auto error = get.get().error();
  EXPECT_EQ(error.code, Errc::kTimeout);
  EXPECT_NE(error.text.find("nor another host"), std::string::npos) << error.text;
  EXPECT_EQ(put.get().error().code, Errc::kTimeout);
  // Rounds of 1.2, 2.4 and 4.8 s.
  EXPECT_EQ(t->noted("no other host goes on for it"), 2u);
  EXPECT_EQ(t->noted(b.member.address + "): cannot be reached; other"), 2u);
  // Whoever is there first serves.
  auto later = t->start(t->put({"a"}));
  c_.start();
  ASSERT_TRUE(c_.wait_for_open(1));
  c_.answer(0, PutResult{});
  ASSERT_TRUE(ready(later));
  EXPECT_TRUE(later.get());
}

TEST_F(Failover, TheWordsAtTheDeadlineNameWhoWasAsked) {
  TestClient t(dir / "s", 1200);
  auto asked = t.start(t.client->usage());
  ASSERT_TRUE(home_.wait_for_open(1));
  home_.answer(0, StoreUsage{});
  ASSERT_TRUE(ready(asked));
  ASSERT_TRUE(asked.get());
  for (const char* who : {"from kinfsd;", "from other;"}) {
    auto put = t.start(t.put({"a"}));
    ASSERT_TRUE(ready(put));
    const auto error = put.get().error();
    EXPECT_NE(error.text.find(std::string("no answer came ") + who), std::string::npos) << error.text;
    home_.stop();
    (void)passed(100);
  }
}

TEST_F(Failover, WhatIsAskedOfTheDaemonItselfWaitsForIt) {
  home_.stop();
  auto status = client_->start(client().admin("status", {}));
  auto get = client_->start(client().get(kVolumeKv, "p", "a"));
  ASSERT_TRUE(b_.wait_for_open(1));
  b_.answer(0, GetResult{});
  ASSERT_TRUE(ready(get));
  home_.start();
  ASSERT_TRUE(home_.wait_for_open(1));
  home_.answer(0, AdminAnswer{"{}"});
  ASSERT_TRUE(ready(status));
  EXPECT_TRUE(status.get());
}

TEST_F(Failover, MovesInTheMidstOfManyPutsLoseNoneAndKeepTheirOrder) {
  constexpr int kPuts = 400;
  std::vector<std::future<Result<PutResult>>> puts;
  for (int i = 0; i < kPuts; ++i) puts.push_back(client_->start(client_->put({Bytes(1, static_cast<char>(i % 7))})));
  std::map<Bytes, std::uint64_t> last;
  const auto serve = [&](auto& daemon, LoopThread& thread, int most) {
    for (int i = 0; i < most; ++i) {
      ASSERT_TRUE(daemon.wait_for_open(1));
      thread.call([&] {
        const auto& row = std::get<PutRequest>(daemon.open[0].request).rows.at(0);
        EXPECT_LT(last[row.sort_key], row.add[0].event.sequence);
        last[row.sort_key] = row.add[0].event.sequence;
      });
      daemon.answer(0, PutResult{});
    }
  };
  // An answer may be lost with its connection, and the put comes again: so only what the next one takes is in order.
  for (int round = 0; round < 3; ++round) {
    serve(home_, home_.thread, 40);
    home_.stop();
    last.clear();
    serve(b_, b_.node.thread, 40);
    home_.start();
    ASSERT_TRUE(came_back(static_cast<std::uint64_t>(round) + 1));
    last.clear();
    b_.node.thread.call([&] { b_.open.clear(); });
  }
  while (!ready(puts.back(), std::chrono::milliseconds(0))) {
    if (home_.thread.call([&] { return home_.open.empty(); })) continue;
    home_.answer(0, PutResult{});
  }
  for (auto& put : puts) {
    ASSERT_TRUE(ready(put));
    EXPECT_TRUE(put.get());
  }
}

TEST(Introduction, SaysItselfAndNothingElse) {
  const Introduction said{make_key_pair(), {{"h\xffst", "tcp://[::1]:1", Bytes(kKeyBytes, '\1')}, {}}};
  auto whole = said;
  whole.hosts.pop_back();
  const auto read = decode_introduction(encode_introduction(whole));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->client_keys.secret_key, said.client_keys.secret_key);
  EXPECT_EQ(read->hosts.at(0).address, "tcp://[::1]:1");
  for (const auto& bad : {encode_introduction(said), std::string(), std::string("{}"), std::string("[1"),
                          std::string(R"({"public_key":1,"secret_key":"","hosts":[]})")}) {
    EXPECT_FALSE(decode_introduction(bad)) << bad;
  }
}

}  // namespace
}  // namespace kinfs::cluster
