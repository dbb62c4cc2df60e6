// Clients of other hosts, over TCP: whom a daemon serves, and what those who misbehave get.
#include <gtest/gtest.h>
#include <poll.h>

#include "cluster/zmq_line.h"
#include "fake_daemon.h"
#include "samples.h"

namespace kinfs::cluster {
namespace {

/// A connection to a daemon by any key, on the test's thread.
class RawClient {
 public:
  RawClient(const KeyPair& keys, const Member& to) : context_(std::move(*ZmqContext::start())) {
    EXPECT_TRUE(line_.open(context_, to.name, to.address, to.public_key, keys));
  }
  ~RawClient() { line_.close(); }

  /// False when it could not be sent within `most_ms`.
  bool send(ByteView header, std::uint32_t ttl_ms = 20'000, std::int64_t most_ms = 10'000) {
    const auto hop = encode_hop({1, mono_us(), ttl_ms});
    return until([&] { return line_.send(header, hop, nullptr); }, most_ms);
  }
  bool send(std::uint64_t id, Request request) {
    return send(encode(ClientFrame{id, 0, {}, std::move(request)}).header);
  }
  /// The next answer; nullopt when there is none within `most_ms`.
  std::optional<ClientFrame> next(std::int64_t most_ms = 10'000) {
    std::optional<ClientFrame> out;
    until(
        [&] {
          ZmqMessage message;
          if (!line_.socket().receive(message, false)) return false;
          auto got = receive_client_frame(message.header.view(),
                                          message.parts == 2 ? share(Bytes(message.payload.view())) : nullptr);
          EXPECT_TRUE(got) << got.error().text;
          if (got) out = std::move(got->value);
          return true;
        },
        most_ms);
    return out;
  }

 private:
  bool until(const std::function<bool()>& holds, std::int64_t most_ms) {
    const auto began = EventLoop::mono_ms();
    while (!holds()) {
      if (elapsed_ms(began) > most_ms) return false;
      pollfd descriptor{line_.descriptor(), POLLIN, 0};
      ::poll(&descriptor, 1, 5);
    }
    return true;
  }
  ZmqContext context_;
  ZmqLine line_;
};

Answer usage() { return StoreUsage{1, 2, 3, 4}; }

TEST(RemoteClients, AClientOfAMemberIsServedAlsoWithBlocks) {
  const Identity a, b;
  const auto block = share(Bytes(kMaxBlockBytes, 'b'));
  FakeRemote daemon(b, {a.member, b.member}, [&](const Request& request) -> std::optional<Answer> {
    if (std::holds_alternative<GetBlockRequest>(request)) return BlockFound{block};
    return std::nullopt;
  });
  RawClient client(a.client_keys(), b.member);
  ASSERT_TRUE(client.send(1, UsageRequest{}));
  ASSERT_TRUE(daemon.wait_for_open(1));
  daemon.answer(0, usage());
  auto got = client.next();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->id, 1u);
  EXPECT_EQ(std::get<StoreUsage>(std::get<Answer>(got->body)).block_bytes, 4u);
  for (std::uint64_t id = 2; id < 12; ++id) ASSERT_TRUE(client.send(id, GetBlockRequest{sample_block_key()}));
  for (std::uint64_t id = 2; id < 12; ++id) {
    got = client.next();
    ASSERT_TRUE(got);
    EXPECT_EQ(got->id, id);
    EXPECT_EQ(*std::get<BlockFound>(std::get<Answer>(got->body)).bytes, *block);
  }
  EXPECT_EQ(daemon.counters().answers, 11u);
  EXPECT_EQ(daemon.node.count(), 0u);
}

TEST(RemoteClients, StrangersAreRefused) {
  const Identity a, b;
  auto silent = Identity();  // a member that has not announced its clients' key
  silent.member.client_key.clear();
  FakeRemote daemon(b, {a.member, b.member, silent.member});
  for (const auto& keys : {make_key_pair(), silent.client_keys(), b.client_keys()}) {
    const auto before = daemon.node.counters().unauthenticated;
    RawClient client(keys, b.member);
    EXPECT_FALSE(client.send(encode(ClientFrame{1, 0, {}, Request{UsageRequest{}}}).header, 1000, 300));
    EXPECT_TRUE(
        daemon.node.thread.wait_until([&] { return daemon.node.transport->counters().unauthenticated > before; }));
  }
  EXPECT_EQ(daemon.counters().connections, 0u);
  // Once it is announced, it lets in.
  silent.member.client_key = silent.client_keys().public_key;
  daemon.node.thread.call([&] { daemon.node.transport->set_members({a.member, silent.member}); });
  RawClient client(silent.client_keys(), b.member);
  EXPECT_TRUE(client.send(1, UsageRequest{}));
  EXPECT_TRUE(daemon.wait_for_open(1));
}

TEST(RemoteClients, AClientThatSpeaksAsANodeIsNotHeard) {
  const Identity a, b;
  UnixServerLimits limits;
  limits.connections = 4096;  // each sample has one of its own
  FakeRemote daemon(b, {a.member, b.member}, {}, limits);
  for (const auto& message : sample_messages()) {
    RawClient client(a.client_keys(), b.member);
    auto lie = message;
    lie.from = a.id();
    lie.to = b.id();
    const auto before = daemon.counters().malformed;
    ASSERT_TRUE(client.send(encode(lie).header));
    ASSERT_TRUE(
        daemon.node.thread.wait_until([&] { return daemon.node.transport->client_counters().malformed > before; }));
    // Nor is what it says afterwards.
    ASSERT_TRUE(client.send(1, UsageRequest{}));
    EXPECT_FALSE(client.next(5));
  }
  EXPECT_EQ(daemon.node.count(), 0u);
  EXPECT_EQ(daemon.counters().requests, 0u);
}

TEST(RemoteClients, ANodeThatSpeaksAsAClientIsNotHeard) {
  const Identity a, b;
  FakeRemote daemon(b, {a.member, b.member});
  RawClient node(a.keys, b.member);
  ASSERT_TRUE(node.send(1, UsageRequest{}));
  ASSERT_TRUE(daemon.node.thread.wait_until([&] {
    const auto& c = daemon.node.transport->counters();
    return c.malformed + c.unauthenticated > 0;
  }));
  EXPECT_EQ(daemon.counters().connections, 0u);
  EXPECT_EQ(daemon.node.count(), 0u);
}

TEST(RemoteClients, GarbageSilencesItsConnectionAndNoOther) {
  const Identity a, b;
  FakeRemote daemon(b, {a.member, b.member}, [](const Request&) { return usage(); });
  RawClient good(a.client_keys(), b.member);
  const std::vector<Bytes> bad{Bytes("GET / HTTP/1.1\r\n\r\n"), Bytes(1000, '\xff'), Bytes(),
                               encode(ClientFrame{1, 0, {}, usage()}).header};
  for (const auto& bytes : bad) {
    const auto before = daemon.counters().malformed;
    RawClient client(a.client_keys(), b.member);
    ASSERT_TRUE(client.send(bytes));
    EXPECT_TRUE(daemon.node.thread.wait_until([&] {
      return daemon.node.transport->client_counters().malformed > before;
    })) << to_hex(bytes);
  }
  ASSERT_TRUE(good.send(1, UsageRequest{}));
  EXPECT_TRUE(good.next());
  EXPECT_EQ(daemon.counters().requests, 1u);
}

TEST(RemoteClients, WhatIsUnderWayIsBounded) {
  const Identity a, b;
  UnixServerLimits limits;
  limits.requests_under_way = 10;
  FakeRemote daemon(b, {a.member, b.member}, {}, limits);
  RawClient client(a.client_keys(), b.member);
  for (std::uint64_t id = 1; id <= 30; ++id) ASSERT_TRUE(client.send(id, UsageRequest{}));
  for (std::uint64_t id = 11; id <= 30; ++id) {
    const auto got = client.next();
    ASSERT_TRUE(got);
    EXPECT_EQ(got->id, id);
    EXPECT_EQ(std::get<Error>(std::get<Answer>(got->body)).code, Errc::kBusy);
  }
  EXPECT_EQ(daemon.node.thread.call([&] { return daemon.open.size(); }), 10u);
  daemon.answer(0, usage());
  EXPECT_EQ(client.next()->id, 1u);
  ASSERT_TRUE(client.send(31, UsageRequest{}));
  EXPECT_TRUE(daemon.wait_for_open(10));
}

/// More requests in one turn than answers go out in one.
void each_is_answered(std::size_t requests_under_way, FakeDaemon::Handler handler, bool some_are_done) {
  const Identity a, b;
  UnixServerLimits limits;
  limits.requests_under_way = requests_under_way;
  limits.answer_bytes_waiting = 4096;  // a few answers, or many refusals
  FakeRemote daemon(b, {a.member, b.member}, std::move(handler), limits);
  RawClient client(a.client_keys(), b.member);
  ASSERT_TRUE(client.send(1, UsageRequest{}));
  ASSERT_TRUE(daemon.node.thread.wait_until([&] { return daemon.asked == 1; }));
  constexpr std::uint64_t kRequests = 60;
  daemon.node.thread.call([&] {  // so that the daemon reads none of them before all are there
    for (std::uint64_t id = 2; id <= kRequests; ++id) ASSERT_TRUE(client.send(id, UsageRequest{}));
  });
  std::uint64_t done = 0;
  for (std::uint64_t id = some_are_done ? 1 : 2; id <= kRequests; ++id) {
    const auto got = client.next();
    ASSERT_TRUE(got) << id << ": " << daemon.counters().turned_away << " turned away";
    EXPECT_EQ(got->id, id);
    const auto& answer = std::get<Answer>(got->body);
    if (const auto* error = std::get_if<Error>(&answer)) {
      EXPECT_EQ(error->code, Errc::kBusy);
    } else {
      ++done;
    }
  }
  EXPECT_EQ(done > 0, some_are_done);
}

TEST(RemoteClients, EachIsAnsweredAlsoWhenThereAreMoreRefusalsThanAnswersGo) { each_is_answered(1, {}, false); }

TEST(RemoteClients, EachIsAnsweredAlsoWhenAnswersWaitForTheirTurn) {
  each_is_answered(
      1024, [](const Request&) { return usage(); }, true);
}

TEST(RemoteClients, AnswersThatWaitGoAsSoonAsThereIsPlace) {
  const Identity a, b;
  constexpr std::size_t kRequests = 10'000;
  UnixServerLimits limits;
  limits.requests_under_way = kRequests;
  FakeRemote daemon(b, {a.member, b.member}, {}, limits);
  RawClient client(a.client_keys(), b.member);
  for (std::uint64_t id = 1; id <= kRequests; ++id) ASSERT_TRUE(client.send(id, UsageRequest{}));
  ASSERT_TRUE(daemon.wait_for_open(kRequests));
  const auto began = EventLoop::mono_ms();
  daemon.node.thread.call([&] {
    for (const auto& request : daemon.open) {
      daemon.node.transport->reply(Visitor::kClient, request.connection, request.id, usage());
    }
  });
  for (std::uint64_t id = 1; id <= kRequests; ++id) ASSERT_EQ(client.next().value().id, id);
  EXPECT_LT(elapsed_ms(began), stretched(400));  // and not when a timer looks whether there is
}

TEST(RemoteClients, AClientThatDoesNotReadHoldsNoMoreThanItsLimit) {
  const Identity a, b;
  UnixServerLimits limits;
  limits.answer_bytes_waiting = 4 << 20;
  const auto block = share(Bytes(kMaxBlockBytes, 'b'));
  FakeRemote daemon(
      b, {a.member, b.member}, [&](const Request&) { return Answer{BlockFound{block}}; }, limits);
  RawClient deaf(a.client_keys(), b.member);
  constexpr std::uint64_t kRequests = 400;  // 400 MiB of answers
  for (std::uint64_t id = 1; id <= kRequests; ++id) ASSERT_TRUE(deaf.send(id, GetBlockRequest{sample_block_key()}));
  ASSERT_TRUE(daemon.node.thread.wait_until([&] {
    const auto& c = daemon.node.transport->client_counters();
    return c.requests + c.turned_away == kRequests;
  }));
  EXPECT_LT(daemon.counters().requests, kRequests / 2);
  RawClient good(a.client_keys(), b.member);
  ASSERT_TRUE(good.send(1, GetBlockRequest{sample_block_key()}));
  EXPECT_TRUE(good.next());
  // What was taken is answered when it reads.
  for (std::uint64_t id = 1; id <= daemon.counters().requests - 1; ++id) ASSERT_TRUE(deaf.next()) << id;
}

TEST(RemoteClients, OneHostsClientsDoNotTakeAllPlaces) {
  const Identity a, b, c;
  UnixServerLimits limits;
  limits.connections = 8;
  FakeRemote daemon(b, {a.member, b.member, c.member}, {}, limits);
  RawClient first(a.client_keys(), b.member), second(a.client_keys(), b.member), third(a.client_keys(), b.member);
  ASSERT_TRUE(first.send(1, UsageRequest{}));
  ASSERT_TRUE(daemon.wait_for_open(1));
  ASSERT_TRUE(second.send(1, UsageRequest{}));
  ASSERT_TRUE(daemon.wait_for_open(2));
  ASSERT_TRUE(third.send(7, UsageRequest{}));
  auto got = third.next();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->id, 7u);
  EXPECT_EQ(std::get<Error>(std::get<Answer>(got->body)).code, Errc::kBusy);
  RawClient other(c.client_keys(), b.member);
  ASSERT_TRUE(other.send(1, UsageRequest{}));
  ASSERT_TRUE(daemon.wait_for_open(3));
  EXPECT_EQ(daemon.counters().turned_away, 1u);
  // One that waits for nothing makes place; it is served again when another does.
  daemon.answer(0, usage());
  ASSERT_TRUE(first.next());
  ASSERT_TRUE(third.send(8, UsageRequest{}));
  ASSERT_TRUE(daemon.wait_for_open(3));
  ASSERT_TRUE(first.send(2, UsageRequest{}));
  got = first.next();
  ASSERT_TRUE(got);
  EXPECT_EQ(std::get<Error>(std::get<Answer>(got->body)).code, Errc::kBusy);
  daemon.answer(0, usage());
  ASSERT_TRUE(second.next());
  ASSERT_TRUE(first.send(3, UsageRequest{}));
  ASSERT_TRUE(daemon.wait_for_open(3));
}

TEST(RemoteClients, ThoseThatAreGoneDoNotKeepOthersOut) {
  const Identity a, b;
  UnixServerLimits limits;
  limits.connections = 8;
  FakeRemote daemon(
      b, {a.member, b.member}, [](const Request&) { return usage(); }, limits);
  for (int i = 0; i < 10; ++i) {
    RawClient client(a.client_keys(), b.member);
    ASSERT_TRUE(client.send(1, UsageRequest{}));
    EXPECT_TRUE(client.next(1000)) << i;
  }
  EXPECT_EQ(daemon.counters().turned_away, 0u);
}

TEST(RemoteClients, WhatIsUnderWayOfAllClientsOfAHostIsBounded) {
  const Identity a, b, c;
  UnixServerLimits limits;
  limits.requests_under_way = 10;
  FakeRemote daemon(b, {a.member, b.member, c.member}, {}, limits);
  std::vector<std::unique_ptr<RawClient>> crowd;
  for (std::size_t i = 1; i <= 5; ++i) {
    crowd.push_back(std::make_unique<RawClient>(a.client_keys(), b.member));
    for (std::uint64_t id = 1; id <= 10; ++id) ASSERT_TRUE(crowd.back()->send(id, UsageRequest{}));
    if (i < 5) {
      ASSERT_TRUE(daemon.wait_for_open(10 * i));
    }
  }
  const auto got = crowd.back()->next();
  ASSERT_TRUE(got);
  EXPECT_EQ(std::get<Error>(std::get<Answer>(got->body)).code, Errc::kBusy);
  EXPECT_EQ(daemon.node.thread.call([&] { return daemon.open.size(); }), 40u);
  RawClient other(c.client_keys(), b.member);
  ASSERT_TRUE(other.send(1, UsageRequest{}));
  ASSERT_TRUE(daemon.wait_for_open(41));
}

TEST(RemoteClients, WhileTheDaemonIsCrowdedAConnectionGetsOneRequestAfterTheOther) {
  const Identity a, b;
  FakeRemote daemon(b, {a.member, b.member});
  daemon.node.thread.call([&] { daemon.node.transport->when_crowded(Visitor::kClient, [] { return true; }); });
  RawClient greedy(a.client_keys(), b.member), modest(a.client_keys(), b.member);
  ASSERT_TRUE(greedy.send(1, UsageRequest{}));
  ASSERT_TRUE(greedy.send(2, UsageRequest{}));
  const auto refused = greedy.next();
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->id, 2u);
  EXPECT_EQ(std::get<Error>(std::get<Answer>(refused->body)).code, Errc::kBusy);
  ASSERT_TRUE(modest.send(1, UsageRequest{}));
  ASSERT_TRUE(daemon.wait_for_open(2));
  daemon.answer(0, usage());
  EXPECT_EQ(greedy.next()->id, 1u);
  ASSERT_TRUE(greedy.send(3, UsageRequest{}));
  ASSERT_TRUE(daemon.wait_for_open(2));
  EXPECT_EQ(daemon.counters().held_back, 1u);
}

TEST(RemoteClients, OneThatStopsSaysSo) {
  const Identity a, b;
  FakeRemote daemon(b, {a.member, b.member});
  RawClient client(a.client_keys(), b.member);
  ASSERT_TRUE(client.send(1, UsageRequest{}));
  ASSERT_TRUE(daemon.wait_for_open(1));
  daemon.hang_up();
  auto got = client.next();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->id, ClientFrame::kFarewell);
  daemon.answer(0, usage());  // what it has begun
  got = client.next();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->id, 1u);
  ASSERT_TRUE(client.send(2, UsageRequest{}));
  EXPECT_FALSE(client.next(100));
}

TEST(RemoteClients, ACutDropsRequestsAndAnswersSilently) {
  const Identity a, b;
  FakeRemote daemon(b, {a.member, b.member});
  RawClient client(a.client_keys(), b.member);
  ASSERT_TRUE(client.send(1, UsageRequest{}));
  ASSERT_TRUE(daemon.wait_for_open(1));
  daemon.node.cut({a.id()});
  daemon.answer(0, usage());
  ASSERT_TRUE(client.send(2, UsageRequest{}));
  ASSERT_TRUE(daemon.node.thread.wait_until([&] { return daemon.node.transport->counters().dropped_cut >= 1; }));
  EXPECT_FALSE(client.next(50));
  EXPECT_EQ(daemon.node.thread.call([&] { return daemon.asked; }), 1u);
  daemon.node.cut({});
  ASSERT_TRUE(client.send(3, UsageRequest{}));
  ASSERT_TRUE(daemon.wait_for_open(1));
  daemon.answer(0, usage());
  const auto got = client.next();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->id, 3u);
}

TEST(RemoteClients, TheirKeyFollowsFromTheHostsAndDoesNotTellIt) {
  const auto host = make_key_pair();
  const auto client = client_keys_of(host);
  EXPECT_EQ(client.public_key, client_keys_of(host).public_key);
  EXPECT_NE(client.secret_key, host.secret_key);
  EXPECT_NE(client.public_key, client_keys_of(make_key_pair()).public_key);
  EXPECT_EQ(client.public_key.size(), kKeyBytes);
}

}  // namespace
}  // namespace kinfs::cluster
