// The Unix socket between a client and its daemon: what each end does when the other misbehaves or goes away.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <fstream>

#include "cluster/frame_stream.h"
#include "fake_daemon.h"
#include "samples.h"

namespace kinfs::cluster {
namespace {

Result<std::unique_ptr<UnixServer>> try_listen(LoopThread& thread, const std::string& path) {
  return thread.call([&] {
    return UnixServer::open(thread.loop(), path, [](std::uint64_t, std::uint64_t, Request, std::uint32_t) {});
  });
}

int raw_connect(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  return fd;
}

Bytes frame_of(const ClientFrame& frame) {
  const auto encoded = encode(frame);
  Bytes out(8, '\0');
  const auto size = encoded.header.size();
  for (std::size_t i = 0; i < 4; ++i) out[i] = static_cast<char>(size >> (8 * i));
  return out + encoded.header;
}

/// Whether the other side closes the connection after `bytes`.
bool closes_after(const std::string& path, const Bytes& bytes) {
  const int fd = raw_connect(path);
  const timeval most{5, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
  (void)!::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  char c;
  ssize_t n;
  while ((n = ::read(fd, &c, 1)) == 1) {
  }
  const bool closed = n == 0 || errno == ECONNRESET;
  ::close(fd);
  return closed;
}

TEST(UnixServer, RefusesInWordsWhatItCannotListenOn) {
  TempDir dir;
  LoopThread thread;
  auto first = try_listen(thread, dir / "s");
  ASSERT_TRUE(first) << first.error().text;
  struct stat st {};
  ASSERT_EQ(::stat((dir / "s").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0660u);

  const auto second = try_listen(thread, dir / "s");
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Errc::kRefused);
  EXPECT_NE(second.error().text.find("running daemon"), std::string::npos) << second.error().text;

  std::ofstream(dir / "file") << "precious";
  const auto over_file = try_listen(thread, dir / "file");
  ASSERT_FALSE(over_file);
  EXPECT_TRUE(std::filesystem::exists(dir / "file"));
  EXPECT_FALSE(try_listen(thread, dir / "no-such-directory/s"));
  EXPECT_FALSE(try_listen(thread, dir / std::string(200, 'x')));

  thread.call([&] { first->reset(); });
  EXPECT_FALSE(std::filesystem::exists(dir / "s"));
}

TEST(UnixServer, ReplacesTheSocketOfADeadDaemon) {
  TempDir dir;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  (dir / "s").copy(address.sun_path, sizeof address.sun_path - 1);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ::close(fd);  // as kill -9 leaves it
  FakeDaemon daemon(dir / "s", [](const Request&) { return Answer{StoreUsage{1, 2, 3, 4}}; });
  TestClient client(dir / "s");
  EXPECT_TRUE(client.wait(client.client->usage()));
}

TEST(SocketClient, SaysWhenThereIsNoDaemon) {
  TempDir dir;
  std::mutex strand;
  const auto client = SocketClient::connect({dir / "none", ClientId{1}, 1, "h", 100}, strand);
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().code, Errc::kUnavailable);
  EXPECT_NE(client.error().text.find("is it running"), std::string::npos);
}

TEST(SocketClient, EveryCallReachesTheDaemonAndItsAnswerComesBack) {
  TempDir dir;
  std::vector<std::string> seen;
  FakeDaemon daemon(dir / "s", [&](const Request& request) -> std::optional<Answer> {
    seen.push_back(Dump{}(request));
    if (std::holds_alternative<GetRequest>(request)) return GetResult{sample_row(), sample_stat(), true};
    if (std::holds_alternative<ScanRequest>(request))
      return ScanResult{{{"a", sample_row()}}, false, sample_stat(), true};
    if (std::holds_alternative<PutRequest>(request)) return PutResult{{{{}, {Dot{NodeId{1}, 2}}, {}}}, true};
    if (std::holds_alternative<PutBlockRequest>(request)) return BlockStored{};
    if (std::holds_alternative<GetBlockRequest>(request)) return BlockFound{share(Bytes(kMaxBlockBytes, 'z'))};
    if (std::holds_alternative<UsageRequest>(request)) return StoreUsage{1, 2, 3, 4};
    return AdminAnswer{"{}"};
  });
  TestClient t(dir / "s");
  auto& c = *t.client;
  EXPECT_EQ(t.wait(c.get(VolumeId{1}, "p", "s"))->row, sample_row());
  EXPECT_EQ(t.wait(c.scan(VolumeId{1}, "p", "s", {10, 20}))->rows.at(0).second, sample_row());
  EXPECT_TRUE(t.wait(c.put(VolumeId{1}, "p", {RowPut{"s", {}, {sample_version(1, "v")}}}, {true}))->degraded);
  EXPECT_TRUE(t.wait(c.put_block(sample_block_key(), share(Bytes(kMaxBlockBytes, 'y')), {})));
  EXPECT_EQ(**t.wait(c.get_block(sample_block_key())), Bytes(kMaxBlockBytes, 'z'));
  EXPECT_EQ(t.wait(c.usage())->block_bytes, 4u);
  EXPECT_EQ(*t.wait(c.admin("status", {"x"})), "{}");
  daemon.stop();
  ASSERT_EQ(seen.size(), 7u);
  EXPECT_EQ(seen[0], Dump{}(Request{GetRequest{VolumeId{1}, "p", "s"}}));
  EXPECT_EQ(seen[3], Dump{}(Request{PutBlockRequest{sample_block_key(), share(Bytes(kMaxBlockBytes, 'y')), {}}}));
  EXPECT_EQ(seen[6], Dump{}(Request{AdminRequest{"status", {"x"}}}));
  const auto n = c.counters();
  EXPECT_EQ(n.gets + n.scans + n.puts + n.put_rows + n.blocks_put + n.blocks_got, 6u);
}

TEST(SocketClient, ErrorsAndWrongAnswersAreErrors) {
  TempDir dir;
  FakeDaemon daemon(dir / "s", [](const Request& request) -> std::optional<Answer> {
    if (std::holds_alternative<UsageRequest>(request)) return AdminAnswer{"{}"};
    return Error{Errc::kUnavailable, "alone"};
  });
  TestClient t(dir / "s");
  EXPECT_EQ(t.wait(t.client->get(VolumeId{1}, "p", "")).error(), (Error{Errc::kUnavailable, "alone"}));
  EXPECT_EQ(t.wait(t.client->usage()).error().code, Errc::kInternal);
}

TEST(SocketClient, RefusesWhatIsOverTheLimitsByItself) {
  TempDir dir;
  FakeDaemon daemon(dir / "s", [](const Request&) { return Answer{StoreUsage{}}; });
  TestClient t(dir / "s");
  const Bytes long_key(kMaxKeyBytes + 1, 'k');
  auto& c = *t.client;
  EXPECT_EQ(t.wait(c.get(VolumeId{1}, long_key, "")).error().code, Errc::kNameTooLong);
  EXPECT_EQ(t.wait(c.scan(VolumeId{1}, "", long_key, {})).error().code, Errc::kNameTooLong);
  EXPECT_EQ(t.wait(c.put(VolumeId{1}, "", {RowPut{"", {}, {sample_version(1, Bytes(kMaxValueBytes + 1, 'v'))}}}, {}))
                .error()
                .code,
            Errc::kTooLarge);
  std::vector<RowPut> rows(10, RowPut{"", {}, {sample_version(1, Bytes(kMaxValueBytes, 'v'))}});
  EXPECT_EQ(t.wait(c.put(VolumeId{1}, "", std::move(rows), {})).error().code, Errc::kTooLarge);
  EXPECT_EQ(t.wait(c.put_block(sample_block_key(), share(Bytes(kMaxBlockBytes + 1, 'v')), {})).error().code,
            Errc::kTooLarge);
  EXPECT_TRUE(t.wait(c.usage()));
  EXPECT_EQ(daemon.thread.call([&] { return daemon.server->counters().malformed; }), 0u);
}

TEST(SocketClient, AnAnswerOverTheLimitIsAnErrorInWords) {
  TempDir dir;
  FakeDaemon daemon(dir / "s", [](const Request&) { return Answer{AdminAnswer{Bytes(kMaxHeaderBytes + 1, 'j')}}; });
  TestClient t(dir / "s");
  EXPECT_EQ(t.wait(t.client->admin("status", {})).error().code, Errc::kTooLarge);
}

TEST(SocketClient, ADaemonsRestartIsNotSeen) {
  TempDir dir;
  FakeDaemon daemon(dir / "s");
  TestClient t(dir / "s");
  auto put = t.start(t.put({"a"}));
  auto get = t.start(t.client->get(kVolumeKv, "p", "a"));
  ASSERT_TRUE(daemon.wait_for_open(2));
  const auto before = daemon.thread.call([&] { return Dump{}(daemon.open[0].request); });
  daemon.stop();
  auto late = t.start(t.client->usage());  // asked while there is no daemon
  daemon.start();
  ASSERT_TRUE(daemon.wait_for_open(3));
  // The same request with the same event, and less patience.
  EXPECT_EQ(daemon.thread.call([&] { return Dump{}(daemon.open[0].request); }), before);
  EXPECT_LE(daemon.thread.call([&] { return daemon.open[0].ttl_ms; }), 10'000u);
  daemon.answer(0, PutResult{});
  daemon.answer(0, GetResult{});
  daemon.answer(0, StoreUsage{});
  ASSERT_TRUE(ready(put) && ready(get) && ready(late));
  EXPECT_TRUE(put.get() && get.get() && late.get());
  EXPECT_EQ(t.client->counters().puts, 1u);
}

// The first daemon may have done it: what the second one says is not the whole truth.
TEST(SocketClient, AnErrorAfterARestartLeavesTheOutcomeOpen) {
  TempDir dir;
  FakeDaemon daemon(dir / "s");
  TestClient t(dir / "s");
  auto put = t.start(t.put({"a"}));
  ASSERT_TRUE(daemon.wait_for_open(1));
  daemon.stop();
  daemon.start();
  ASSERT_TRUE(daemon.wait_for_open(1));
  daemon.answer(0, Error{Errc::kNoSpace, "the disk is full"});
  ASSERT_TRUE(ready(put));
  const auto error = put.get().error();
  EXPECT_EQ(error.code, Errc::kTimeout);
  EXPECT_NE(error.text.find("the disk is full"), std::string::npos) << error.text;
  auto again = t.start(t.put({"a"}));
  ASSERT_TRUE(daemon.wait_for_open(1));
  daemon.answer(0, Error{Errc::kNoSpace, "the disk is full"});
  ASSERT_TRUE(ready(again));
  EXPECT_EQ(again.get().error().code, Errc::kNoSpace);
}

TEST(SocketClient, DeadlinesEndWhatIsNotAnswered) {
  TempDir dir;
  FakeDaemon daemon(dir / "s");
  TestClient t(dir / "s", 200);
  const auto began = EventLoop::mono_ms();
  auto first = t.start(t.put({"a"}));
  auto waits = t.start(t.put({"a"}));
  ASSERT_TRUE(ready(first) && ready(waits));
  EXPECT_GE(elapsed_ms(began), 195);
  EXPECT_LT(elapsed_ms(began), stretched(2000));
  EXPECT_EQ(first.get().error().code, Errc::kTimeout);
  EXPECT_EQ(waits.get().error().code, Errc::kTimeout);
  // The second began a moment later: it may have had its turn for what was left of its time.
  const auto asked = daemon.thread.call([&] { return daemon.asked; });
  EXPECT_LE(asked, 2u);

  // The row is free again, and an answer after the deadline hurts nobody.
  auto third = t.start(t.put({"a"}));
  ASSERT_TRUE(daemon.wait_for_open(asked + 1));
  for (std::size_t i = 0; i <= asked; ++i) daemon.answer(0, PutResult{});
  ASSERT_TRUE(ready(third));
  EXPECT_TRUE(third.get());

  daemon.stop();
  const auto alone = EventLoop::mono_ms();
  const auto result = t.wait(t.client->usage());
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Errc::kTimeout);
  EXPECT_NE(result.error().text.find("cannot be reached"), std::string::npos) << result.error().text;
  EXPECT_LT(elapsed_ms(alone), stretched(2000));
}

TEST(SocketClient, ClosingCancelsWhatIsUnderWay) {
  TempDir dir;
  FakeDaemon daemon(dir / "s");
  TestClient t(dir / "s");
  auto put = t.start(t.put({"a"}));
  auto waits = t.start(t.put({"a"}));
  ASSERT_TRUE(daemon.wait_for_open(1));
  t.client.reset();
  ASSERT_TRUE(ready(put) && ready(waits));
  EXPECT_EQ(put.get().error().code, Errc::kCancelled);
  EXPECT_EQ(waits.get().error().code, Errc::kCancelled);
}

TEST(SocketClient, TheClockFollowsTheAnswers) {
  TempDir dir;
  FakeDaemon daemon(dir / "s", [](const Request&) { return Answer{StoreUsage{}}; });
  TestClient t(dir / "s");
  const Hlc ahead = Hlc::from_ms(EventLoop::wall_ms() + 30'000);
  const Hlc far_ahead = Hlc::from_ms(EventLoop::wall_ms() + 3'600'000);
  daemon.thread.call([&] { daemon.hlc = ahead; });
  EXPECT_TRUE(t.wait(t.client->usage()));
  std::unique_lock lock(t.strand);
  const auto next = t.client->next_hlc();
  EXPECT_GT(next, ahead);
  EXPECT_GT(t.client->next_hlc(), next);
  const auto event = t.client->next_event();
  EXPECT_LT(event, t.client->next_event());
  lock.unlock();
  daemon.thread.call([&] { daemon.hlc = far_ahead; });
  EXPECT_TRUE(t.wait(t.client->usage()));
  lock.lock();
  EXPECT_LT(t.client->next_hlc(), far_ahead);
}

TEST(UnixServer, AMalformedFrameClosesItsConnectionAndNoOther) {
  TempDir dir;
  FakeDaemon daemon(dir / "s", [](const Request&) { return Answer{StoreUsage{}}; });
  TestClient good(dir / "s");
  const ClientFrame request{1, 1000, {}, Request{UsageRequest{}}};
  auto other_version = frame_of(request);
  other_version[9] = 9;
  auto half = frame_of(request);
  half.resize(half.size() - 1);
  const std::vector<Bytes> bad{
      Bytes("GET / HTTP/1.1\r\n\r\n"),
      Bytes("\xff\xff\xff\xff\xff\xff\xff\xff", 8),
      Bytes("\4\0\0\0\0\0\0\0\xff\xff\xff\xff", 12),
      other_version,
      frame_of({1, 0, {}, Answer{StoreUsage{}}}),
  };
  for (const auto& bytes : bad) EXPECT_TRUE(closes_after(dir / "s", bytes)) << to_hex(bytes);
  EXPECT_TRUE(good.wait(good.client->usage()));
  const int cut = raw_connect(dir / "s");
  ASSERT_EQ(::write(cut, half.data(), half.size()), static_cast<ssize_t>(half.size()));
  ::close(cut);
  EXPECT_TRUE(daemon.thread.wait_until([&] { return daemon.server->counters().malformed == bad.size() + 1; }));
  EXPECT_TRUE(daemon.thread.wait_until([&] { return daemon.server->open_connections() == 1; }));
  EXPECT_TRUE(good.wait(good.client->usage()));
}

TEST(UnixServer, TwoRequestsUnderOneIdAreRefused) {
  TempDir dir;
  FakeDaemon daemon(dir / "s");
  const auto frame = frame_of({1, 1000, {}, Request{UsageRequest{}}});
  EXPECT_TRUE(closes_after(dir / "s", frame + frame));
}

TEST(UnixServer, AClientThatDoesNotReadIsNotReadFrom) {
  TempDir dir;
  UnixServerLimits limits;
  limits.requests_under_way = 100;
  limits.answer_bytes_waiting = 1 << 20;
  const auto block = share(Bytes(100'000, 'b'));
  FakeDaemon daemon(
      dir / "s", [&](const Request&) { return Answer{BlockFound{block}}; }, limits);
  TestClient good(dir / "s");

  const int fd = raw_connect(dir / "s");
  ::fcntl(fd, F_SETFL, O_NONBLOCK);
  constexpr std::uint64_t kRequests = 20'000;  // 2 GB of answers
  Bytes pending;
  std::uint64_t next = 1;
  const auto pump = [&] {
    while (next <= kRequests) {
      if (pending.empty()) pending = frame_of({next, 60'000, {}, Request{GetBlockRequest{sample_block_key()}}});
      const auto n = ::send(fd, pending.data(), pending.size(), MSG_NOSIGNAL);
      if (n < 0) return;
      pending.erase(0, static_cast<std::size_t>(n));
      if (pending.empty()) ++next;
    }
  };
  std::uint64_t stuck_at = 0;
  // The daemon takes what its limits allow, then no more: the sender's socket fills up.
  ASSERT_TRUE(daemon.thread.wait_until([&] {
    pump();
    const bool stuck = next == stuck_at;
    stuck_at = next;
    return stuck && next < kRequests;
  }));
  const auto taken = daemon.thread.call([&] { return daemon.server->counters().requests; });
  EXPECT_LT(taken, 200u);
  EXPECT_EQ(**good.wait(good.client->get_block(sample_block_key())), *block);

  // Now it reads, and gets every answer.
  FrameReader reader(fd);
  std::uint64_t got = 0;
  const auto deadline = EventLoop::mono_ms() + 30'000;
  while (got < 1000 && EventLoop::mono_ms() < deadline) {
    pump();
    ASSERT_TRUE(reader.fill());
    for (;;) {
      const auto frame = reader.next();
      ASSERT_TRUE(frame);
      if (!*frame) break;
      ++got;
    }
  }
  EXPECT_GE(got, 1000u);
  ::close(fd);
}

TEST(UnixServer, RequestsUnderWayAreBounded) {
  TempDir dir;
  UnixServerLimits limits;
  limits.requests_under_way = 10;
  FakeDaemon daemon(dir / "s", {}, limits);
  TestClient t(dir / "s");
  std::vector<std::future<Result<StoreUsage>>> asked;
  for (int i = 0; i < 1000; ++i) asked.push_back(t.start(t.client->usage()));
  std::size_t answered = 0;
  while (answered < asked.size()) {
    ASSERT_TRUE(daemon.wait_for_open(1));
    const auto open = daemon.thread.call([&] { return daemon.open.size(); });
    EXPECT_LE(open, 10u);
    daemon.answer(0, StoreUsage{});
    ++answered;
  }
  for (auto& a : asked) {
    ASSERT_TRUE(ready(a));
    EXPECT_TRUE(a.get());
  }
}

TEST(UnixServer, WhileTheDaemonIsCrowdedAConnectionGetsOneRequestAfterTheOther) {
  TempDir dir;
  bool crowded = true;
  FakeDaemon daemon(dir / "s");
  daemon.thread.call([&] { daemon.server->when_crowded([&] { return crowded; }); });
  TestClient greedy(dir / "s"), modest(dir / "s");
  std::vector<std::future<Result<StoreUsage>>> asked;
  for (int i = 0; i < 20; ++i) asked.push_back(greedy.start(greedy.client->usage()));
  ASSERT_TRUE(daemon.wait_for_open(1));
  auto one = modest.start(modest.client->usage());
  ASSERT_TRUE(daemon.wait_for_open(2));
  EXPECT_EQ(daemon.thread.call([&] { return daemon.asked; }), 2u);
  daemon.answer(1, StoreUsage{});
  ASSERT_TRUE(ready(one));
  daemon.answer(0, StoreUsage{});
  ASSERT_TRUE(daemon.wait_for_open(1));
  EXPECT_EQ(daemon.thread.call([&] { return daemon.asked; }), 3u);
  daemon.thread.call([&] { crowded = false; });
  ASSERT_TRUE(daemon.wait_for_open(19));
  while (daemon.thread.call([&] { return !daemon.open.empty(); })) daemon.answer(0, StoreUsage{});
  for (auto& a : asked) ASSERT_TRUE(ready(a));
}

TEST(UnixServer, ThoseThatReadNothingAreCutOffWhereOthersNeedTheRoom) {
  TempDir dir;
  UnixServerLimits limits;
  limits.all_answer_bytes_waiting = 16 << 20;
  limits.unread_crowded_ms = 300;
  const auto block = share(Bytes(kMaxBlockBytes, 'b'));
  FakeDaemon daemon(
      dir / "s", [&](const Request&) { return Answer{BlockFound{block}}; }, limits);
  constexpr std::uint64_t kClients = 8, kRequests = 40;  // 320 MiB of answers
  std::vector<int> mute;
  for (std::uint64_t i = 0; i < kClients; ++i) {
    mute.push_back(raw_connect(dir / "s"));
    for (std::uint64_t id = 1; id <= kRequests; ++id) {
      const auto frame = frame_of({id, 60'000, {}, Request{GetBlockRequest{sample_block_key()}}});
      ASSERT_EQ(::send(mute.back(), frame.data(), frame.size(), MSG_NOSIGNAL), static_cast<ssize_t>(frame.size()));
    }
  }
  TestClient good(dir / "s");
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(good.wait(good.client->get_block(sample_block_key())));
  EXPECT_TRUE(daemon.thread.wait_until([&] { return daemon.server->counters().cut_off > 0; }));
  // Those that are left have no more than they may.
  EXPECT_LT(daemon.thread.call([&] { return daemon.server->counters().requests; }), kClients * kRequests);
  EXPECT_TRUE(good.wait(good.client->get_block(sample_block_key())));
  for (const int fd : mute) ::close(fd);
}

TEST(UnixServer, OneThatReadsNothingForLongIsCutOffWhenNobodyNeedsTheRoom) {
  TempDir dir;
  UnixServerLimits limits;
  limits.unread_ms = 200;
  const auto block = share(Bytes(kMaxBlockBytes, 'b'));
  FakeDaemon daemon(
      dir / "s", [&](const Request&) { return Answer{BlockFound{block}}; }, limits);
  const int fd = raw_connect(dir / "s");
  for (std::uint64_t id = 1; id <= 20; ++id) {
    const auto frame = frame_of({id, 60'000, {}, Request{GetBlockRequest{sample_block_key()}}});
    ASSERT_EQ(::send(fd, frame.data(), frame.size(), MSG_NOSIGNAL), static_cast<ssize_t>(frame.size()));
  }
  EXPECT_TRUE(daemon.thread.wait_until([&] { return daemon.server->counters().cut_off == 1; }));
  EXPECT_TRUE(daemon.thread.wait_until([&] { return daemon.server->open_connections() == 0; }));
  ::close(fd);
}

TEST(SocketClient, WhatIsRefusedForNowIsAskedAgain) {
  TempDir dir;
  int refusals = 3;
  FakeDaemon daemon(dir / "s", [&](const Request& request) -> Answer {
    if (refusals-- > 0) return Error{Errc::kBusy, "later"};
    if (std::holds_alternative<PutRequest>(request)) return PutResult{};
    return Error{Errc::kNoSpace, "full"};
  });
  TestClient t(dir / "s");
  EXPECT_TRUE(t.wait(t.put({"a"})));
  EXPECT_EQ(daemon.thread.call([&] { return daemon.asked; }), 4u);
  // A refusal leaves nothing open: what comes after it is told as it is.
  daemon.thread.call([&] { refusals = 1; });
  EXPECT_EQ(t.wait(t.client->usage()).error().code, Errc::kNoSpace);
  // The last one is told before the deadline.
  TestClient hurried(dir / "s", 500);
  daemon.thread.call([&] { refusals = 1'000'000; });
  EXPECT_EQ(hurried.wait(hurried.put({"b"})).error().code, Errc::kBusy);
}

TEST(SocketClient, WhatWasRefusedForNowIsServedBeforeWhatCameLater) {
  TempDir dir;
  bool busy = true;
  std::vector<Bytes> served;
  FakeDaemon daemon(dir / "s", [&](const Request& request) -> Answer {
    const auto* put = std::get_if<PutRequest>(&request);
    if (put == nullptr) return StoreUsage{};
    if (busy) return Error{Errc::kBusy, "later"};
    served.push_back(put->rows.front().sort_key);
    return PutResult{};
  });
  TestClient t(dir / "s");
  std::vector<std::future<Result<PutResult>>> puts;
  const auto begin = [&](int from, int to) {
    for (int i = from; i < to; ++i) puts.push_back(t.start(t.put({fmt::format("{:02}", i)})));
  };
  begin(0, 10);
  const auto before = [&] { return daemon.thread.call([&] { return daemon.asked; }); };
  // The refusals have been read, and the first of them asked again.
  ASSERT_TRUE(daemon.thread.wait_until([&] { return daemon.asked >= 18; }));
  const auto asked = before();
  begin(10, 30);
  daemon.thread.call([&] { busy = false; });
  for (auto& put : puts) ASSERT_TRUE(ready(put) && put.get());
  EXPECT_LE(before(), asked + 30 + 20);
  const auto order = daemon.thread.call([&] { return served; });
  EXPECT_EQ(order.size(), 30u);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST(SocketClient, WhatCouldNotBeSentForRefusalsEndsAsRefused) {
  TempDir dir;
  FakeDaemon daemon(dir / "s", [&](const Request&) -> Answer { return Error{Errc::kBusy, "later"}; });
  TestClient t(dir / "s", 1000);
  std::vector<std::future<Result<PutResult>>> puts;
  for (int i = 0; i < 200; ++i) puts.push_back(t.start(t.put({std::to_string(i)})));
  for (auto& put : puts) {
    ASSERT_TRUE(ready(put));
    EXPECT_EQ(put.get().error().code, Errc::kBusy);
  }
}

TEST(UnixServer, ConnectionsBeyondTheLimitAreTurnedAway) {
  TempDir dir;
  UnixServerLimits limits;
  limits.connections = 2;
  FakeDaemon daemon(dir / "s", {}, limits);
  const int a = raw_connect(dir / "s");
  const int b = raw_connect(dir / "s");
  EXPECT_TRUE(closes_after(dir / "s", ""));
  ::close(a);
  EXPECT_TRUE(daemon.thread.wait_until([&] { return daemon.server->open_connections() == 1; }));
  ::close(b);
}

}  // namespace
}  // namespace kinfs::cluster
