// Nodes over real sockets on 127.0.0.1: who is heard, what a cut does, how soon a peer that is back is reached, and
// that nothing is delivered late.
#include <gtest/gtest.h>

#include "samples.h"
#include "test_node.h"

namespace kinfs::cluster {
namespace {

using std::chrono::milliseconds;

/// Keeps sending until something arrives: how long it took, in ms.
std::int64_t reached_after(TestNode& from, TestNode& to, milliseconds most) {
  const auto began = EventLoop::mono_ms();
  const auto before = to.count();
  std::uint64_t id = 1;
  while (to.count() == before && elapsed_ms(began) < most.count()) {
    from.send(to.self.id(), id++, Ping{}, 200);
    (void)to.wait_for(before + 1, milliseconds(20));
  }
  return elapsed_ms(began);
}

/// Connects the two, and leaves nothing on its way: how many messages `to` has then.
std::size_t settle(TestNode& from, TestNode& to) {
  EXPECT_LT(reached_after(from, to, milliseconds(5000)), 5000);
  from.send(to.self.id(), 999, Ping{});
  EXPECT_TRUE(to.thread.wait_until([&] { return !to.received.empty() && to.received.back().id == 999; }));
  return to.count();
}

TEST(Transport, EveryMessageArrivesAsItWasBetweenThreeNodes) {
  const Identity a, b, c;
  const std::vector<Member> members{a.member, b.member, c.member};
  TestNode one(a, members), two(b, members), three(c, members);
  const auto samples = sample_messages();
  for (auto* to : {&two, &three}) {
    for (auto message : samples) {
      message.from = one.self.id();
      message.to = to->self.id();
      message.ttl_ms = 20'000;
      one.send(message);
    }
  }
  for (auto* node : {&two, &three}) {
    ASSERT_TRUE(node->wait_for(samples.size()));
    for (std::size_t i = 0; i < samples.size(); ++i) {
      auto expected = samples[i];
      auto& got = node->received[i];
      expected.from = one.self.id();
      expected.to = node->self.id();
      EXPECT_LE(got.ttl_ms, 20'000u);
      expected.ttl_ms = got.ttl_ms;
      EXPECT_EQ(Dump{}(got), Dump{}(expected));
    }
    node->send(one.self.id(), 7, Pong{});
  }
  EXPECT_TRUE(one.wait_for(2));
  EXPECT_EQ(one.counters().sent, 2 * samples.size());
  EXPECT_EQ(two.counters().received, samples.size());
  EXPECT_EQ(one.counters().unauthenticated + two.counters().unauthenticated, 0u);
}

/// One that stands for longer than any handshake takes is not taken for one that never came about.
TEST(Transport, AConnectionThatStandsIsLeftAlone) {
  const Identity a, b;
  const std::vector<Member> members{a.member, b.member};
  TestNode one(a, members), two(b, members);
  const auto before = settle(one, two);
  const auto dialled = one.counters().dialled;
  const auto began = EventLoop::mono_ms();
  std::uint64_t sent = 0;
  while (elapsed_ms(began) < 4000) {
    one.send(b.id(), 1000 + sent++, Ping{});
    ASSERT_TRUE(two.wait_for(before + sent));
  }
  EXPECT_EQ(one.counters().dialled, dialled);
}

TEST(Transport, AForeignKeyGetsNothing) {
  const Identity a, b, stranger;
  TestNode one(a, {a.member, b.member});
  TestNode two(b, {a.member, b.member});
  TestNode foreign(stranger, {stranger.member, a.member});
  foreign.send(a.id(), 1, Ping{}, 60'000);
  // It knows a member's name and a member's address, but not its key.
  foreign.send(Message{b.id(), a.id(), 2, {}, 60'000, {}, Ping{}});
  ASSERT_TRUE(one.thread.wait_until([&] { return one.transport->counters().unauthenticated >= 2; }));  // it tries again
  two.send(a.id(), 3, Ping{});
  ASSERT_TRUE(one.wait_for(1));
  EXPECT_EQ(one.count(), 1u);
  EXPECT_EQ(one.received[0].from, b.id());
  EXPECT_EQ(foreign.counters().sent, 0u);
}

TEST(Transport, AMemberThatLiesAboutItsNameIsNotHeard) {
  const Identity a, b, c;
  const std::vector<Member> members{a.member, b.member, c.member};
  TestNode one(a, members), liar(b, members);
  liar.send(Message{c.id(), a.id(), 1, {}, 5000, {}, Ping{}});
  ASSERT_TRUE(one.thread.wait_until([&] { return one.transport->counters().unauthenticated == 1; }));
  liar.send(Message{b.id(), c.id(), 2, {}, 100, {}, Ping{}});
  liar.send(a.id(), 3, Ping{});
  ASSERT_TRUE(one.wait_for(1));
  EXPECT_EQ(one.count(), 1u);
  EXPECT_EQ(one.received[0].id, 3u);
}

TEST(Transport, OpenRefusesInWords) {
  const Identity a, b;
  TestNode one(a, {a.member});
  LoopThread thread;
  const auto open = [&](TransportConfig config, std::vector<Member> members) {
    return thread.call([&] {
      const auto opened = ZmqTransport::open(thread.loop(), config, members, [](Message) {});
      return opened ? Error{Errc::kInternal, "opened"} : opened.error();
    });
  };
  const auto in_use = open({b.id(), a.member.address, b.keys}, {b.member});
  EXPECT_EQ(in_use.code, Errc::kRefused);
  EXPECT_NE(in_use.text.find("another program uses this port"), std::string::npos) << in_use.text;
  for (const auto* address : {"nonsense", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "tcp://127.0.0.1:0",
                              "tcp://:7946", "udp://127.0.0.1:7946", "tcp://192.0.2.77:7946", ""}) {
    const auto error = open({b.id(), address, b.keys}, {b.member});
    EXPECT_EQ(error.code, Errc::kRefused) << address << ": " << error.text;
    EXPECT_NE(error.text.find("cannot listen on"), std::string::npos) << error.text;
  }
  EXPECT_EQ(open({a.id(), b.member.address, b.keys}, {b.member}).code, Errc::kRefused);  // another node's key
  auto wrong = a.member;
  wrong.public_key = b.keys.public_key;
  EXPECT_EQ(open({b.id(), b.member.address, b.keys}, {b.member, wrong}).code, Errc::kRefused);
  auto nowhere = a.member;
  nowhere.address = "somewhere";
  EXPECT_EQ(open({b.id(), b.member.address, b.keys}, {b.member, nowhere}).code, Errc::kRefused);
  EXPECT_EQ(open({b.id(), b.member.address, b.keys}, {b.member}).text, "opened");
}

TEST(Transport, ACutDropsBothDirectionsSilentlyAndHealsAtOnce) {
  const Identity a, b;
  TestNode one(a, {a.member, b.member}), two(b, {a.member, b.member});
  one.send(b.id(), 1, Ping{});
  ASSERT_TRUE(two.wait_for(1));

  one.cut({b.id()});
  one.send(b.id(), 2, Ping{});
  two.send(a.id(), 3, Ping{});
  ASSERT_TRUE(one.thread.wait_until([&] { return one.transport->counters().dropped_cut == 2; }));
  EXPECT_EQ(one.count(), 0u);
  EXPECT_EQ(two.count(), 1u);

  one.cut({});
  EXPECT_LT(reached_after(one, two, milliseconds(5000)), 1000);
  EXPECT_LT(reached_after(two, one, milliseconds(5000)), 1000);
  for (const auto& m : two.received) EXPECT_NE(m.id, 2u);
}

TEST(Transport, APeerThatRestartsIsReachedAgain) {
  const Identity a, b;
  TestNode one(a, {a.member, b.member}), two(b, {a.member, b.member});
  ASSERT_LT(reached_after(one, two, milliseconds(5000)), 5000);
  for (int i = 0; i < 3; ++i) {
    two.stop();
    // It is away long enough for the pauses between attempts to grow to their most.
    const auto gone = EventLoop::mono_ms();
    ASSERT_TRUE(one.thread.wait_until([&] { return elapsed_ms(gone) > 1200; }));
    two.start();
    EXPECT_LT(reached_after(one, two, milliseconds(5000)), 1000);
    EXPECT_LT(reached_after(two, one, milliseconds(5000)), 1000);
  }
}

TEST(Transport, APeerThatDidNotKnowUsIsReachedOnceItDoes) {
  const Identity a, b;
  TestNode one(a, {a.member, b.member});
  {
    TestNode two(b, {b.member});
    one.send(b.id(), 1, Ping{}, 100);
    ASSERT_TRUE(two.thread.wait_until([&] { return two.transport->counters().unauthenticated > 0; }));
    EXPECT_EQ(two.count(), 0u);
  }
  TestNode two(b, {a.member, b.member});
  EXPECT_LT(reached_after(one, two, milliseconds(10'000)), 5000);
}

TEST(Transport, WhatIsPastItsDeadlineIsNotSentAndQueuesAreBounded) {
  const Identity a, b;
  TestNode one(a, {a.member, b.member});
  for (std::uint64_t i = 0; i < 100; ++i) one.send(b.id(), i, Ping{}, 50);
  ASSERT_TRUE(one.thread.wait_until([&] { return one.transport->counters().dropped_late == 100; }));
  const auto block = share(Bytes(kMaxBlockBytes, 'b'));
  for (std::uint64_t i = 0; i < 100; ++i) {
    one.send(b.id(), 1000 + i, WriteBlock{sample_block_key(), block, false, {}}, 30'000);
  }
  EXPECT_GE(one.counters().dropped_full, 60u);  // the oldest went
  one.send(b.id(), 5000, Ping{}, 30'000);
  one.send(b.id(), 5001, Ping{}, 0);
  TestNode two(b, {a.member, b.member});
  ASSERT_TRUE(two.thread.wait_until([&] { return !two.received.empty() && two.received.back().id == 5000; }));
  EXPECT_LE(two.count(), 40u);
  EXPECT_GE(two.received.front().id, 1060u);
  EXPECT_LT(two.received.front().ttl_ms, 30'000u);
  EXPECT_EQ(two.received[two.count() - 2].id, 1099u);
}

TEST(Transport, WhatWaitedInTheSocketsIsNotDeliveredLate) {
  const Identity a, b;
  TestNode one(a, {a.member, b.member}), two(b, {a.member, b.member});
  const auto before = settle(one, two);
  // The receiver's loop stands still while messages come to its host.
  std::promise<void> entered, release;
  auto released = release.get_future().share();
  two.thread.loop().post([&entered, released] {
    entered.set_value();
    released.wait();
  });
  entered.get_future().wait();
  for (std::uint64_t i = 0; i < 10; ++i) one.send(b.id(), 1000 + i, Ping{}, 100);
  one.send(b.id(), 2000, Ping{}, 20'000);
  const auto stopped = EventLoop::mono_ms();
  ASSERT_TRUE(one.thread.wait_until([&] { return elapsed_ms(stopped) > 300; }));
  EXPECT_GE(one.counters().sent, before + 11);
  release.set_value();
  ASSERT_TRUE(two.wait_for(before + 1));
  EXPECT_EQ(two.received.at(before).id, 2000u);
  EXPECT_LT(two.received.at(before).ttl_ms, 19'750u);
  EXPECT_GE(two.counters().dropped_late, 10u);
  for (const auto& m : two.received) EXPECT_TRUE(m.id < 1000 || m.id == 2000) << m.id;
}

TEST(Transport, AMessageThatIsTooLargeIsAnsweredAtOnce) {
  const Identity a, b;
  TestNode one(a, {a.member, b.member});
  TestNode two(b, {a.member, b.member}, [](TestNode& self, Message m) {
    const auto id = m.id;
    self.transport->send(
        {self.self.id(), m.from, id, {}, m.ttl_ms, {}, ForwardReply{AdminAnswer{Bytes(9 << 20, 'j')}}});
    self.keep(std::move(m));
  });
  one.send(b.id(), 1, ReadRow{{VolumeId{1}, Bytes(9 << 20, 'k'), ""}});
  ASSERT_TRUE(one.wait_for(1));
  EXPECT_EQ(std::get<Refusal>(one.received[0].body).error.code, Errc::kTooLarge);
  EXPECT_EQ(one.received[0].id, 1u);
  EXPECT_EQ(one.received[0].from, b.id());
  one.send(b.id(), 2, ReadRow{{VolumeId{1}, "k", ""}});
  ASSERT_TRUE(one.wait_for(2));
  EXPECT_EQ(std::get<Refusal>(one.received[1].body).error.code, Errc::kTooLarge);
  EXPECT_EQ(one.received[1].id, 2u);
}

TEST(Transport, ManyMessagesOfAllSizesArriveInOrder) {
  const Identity a, b;
  TestNode one(a, {a.member, b.member}), two(b, {a.member, b.member});
  const auto before = settle(one, two);
  constexpr std::uint64_t kCount = 3000;
  const auto block = share(Bytes(50'000, 'b'));
  for (std::uint64_t i = 0; i < kCount; ++i) {
    Body body = Ping{};
    if (i % 10 == 0) body = WriteBlock{sample_block_key(), block, false, {}};
    if (i % 7 == 0) body = ReadRow{{VolumeId{1}, Bytes(i * 20, 'k'), ""}};
    one.send(b.id(), 10'000 + i, std::move(body), 60'000);
  }
  ASSERT_TRUE(two.wait_for(before + kCount, milliseconds(30'000)));
  for (std::uint64_t i = 0; i < kCount; ++i) ASSERT_EQ(two.received[before + i].id, 10'000 + i);
  EXPECT_EQ(one.counters().dropped_full, 0u);
}

TEST(Transport, IdentityIsTheKey) {
  const auto keys = make_key_pair();
  EXPECT_EQ(keys.public_key.size(), 32u);
  EXPECT_EQ(keys.secret_key.size(), 32u);
  EXPECT_NE(make_key_pair().public_key, keys.public_key);
  EXPECT_EQ(node_id_of(keys.public_key), node_id_of(keys.public_key));
  EXPECT_EQ(node_id_of(Bytes("abc")), NodeId{0xba7816bf8f01cfeau});
}

}  // namespace
}  // namespace kinfs::cluster
