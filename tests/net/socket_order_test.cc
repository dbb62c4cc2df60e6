// At most one put is in flight for one row, in the order of the calls; whatever has no row in common does not wait.
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "fake_daemon.h"

namespace kinfs::cluster {
namespace {

std::set<Bytes> rows_of(const Request& request) {
  std::set<Bytes> out;
  for (const auto& row : std::get<PutRequest>(request).rows) out.insert(row.sort_key);
  return out;
}

TEST(SocketClientOrder, LaterPutsOfARowWaitTheirTurn) {
  TempDir dir;
  FakeDaemon daemon(dir / "s");
  TestClient t(dir / "s");
  auto first = t.start(t.put({"a"}));
  auto second = t.start(t.put({"a", "b"}));
  auto third = t.start(t.put({"b"}));  // behind the second, although nobody is at b now
  auto other = t.start(t.put({"c"}));
  auto reads = t.start(t.client->get(kVolumeKv, "p", "a"));
  auto elsewhere = t.start(t.client->put(kVolumeHome, "p", {RowPut{"a", {}, {}}}, {}));
  ASSERT_TRUE(daemon.wait_for_open(4));
  EXPECT_EQ(daemon.thread.call([&] { return daemon.asked; }), 4u);
  EXPECT_EQ(daemon.thread.call([&] { return rows_of(daemon.open[0].request); }), (std::set<Bytes>{"a"}));
  daemon.answer(1, PutResult{});
  ASSERT_TRUE(ready(other));
  EXPECT_EQ(daemon.thread.call([&] { return daemon.asked; }), 4u);
  daemon.answer(0, Error{Errc::kNoSpace, "refused"});  // a put that failed makes way too
  ASSERT_TRUE(ready(first));
  ASSERT_TRUE(daemon.wait_for_open(3));
  EXPECT_EQ(daemon.thread.call([&] { return rows_of(daemon.open[2].request); }), (std::set<Bytes>{"a", "b"}));
  daemon.answer(2, PutResult{});
  ASSERT_TRUE(ready(second));
  ASSERT_TRUE(daemon.wait_for_open(3));
  EXPECT_EQ(daemon.thread.call([&] { return rows_of(daemon.open[2].request); }), (std::set<Bytes>{"b"}));
  daemon.answer(2, PutResult{});
  ASSERT_TRUE(ready(third));
}

// Else a later put on that row would say that it knows of it, and a retry of it be taken for one that was done.
TEST(SocketClientOrder, WhatTheClientRefusesItselfIsNotVouchedFor) {
  TempDir dir;
  FakeDaemon daemon(dir / "s");
  TestClient t(dir / "s");
  const auto put = [&](Bytes value) {
    Version version;
    version.event = t.client->next_event();
    version.value = std::move(value);
    const auto event = version.event;
    return std::pair{event, t.start(t.client->put(kVolumeKv, "p", {RowPut{"a", {}, {std::move(version)}, {}}}, {}))};
  };
  auto [refused, too_large] = put(Bytes(64 << 20, 'v'));
  EXPECT_EQ(too_large.get().error().code, Errc::kTooLarge);
  auto [next, sent] = put("v");
  ASSERT_TRUE(daemon.wait_for_open(1));
  const auto previous =
      daemon.thread.call([&] { return std::get<PutRequest>(daemon.open[0].request).rows[0].previous; });
  EXPECT_EQ(previous, (std::vector<std::uint64_t>{refused.sequence}));
  daemon.answer(0, PutResult{});
  ASSERT_TRUE(ready(sent));
}

TEST(SocketClientOrder, ManyPutsOverManyRowsAllEnd) {
  TempDir dir;
  std::mt19937_64 random(7);
  FakeDaemon daemon(dir / "s");
  TestClient t(dir / "s");
  std::vector<std::future<Result<PutResult>>> puts;
  constexpr std::size_t kPuts = 2000;
  std::uint64_t restarts = 0;
  std::map<Bytes, std::uint64_t> last_sequence;
  std::size_t answered = 0;
  for (std::size_t i = 0; i < kPuts || answered < kPuts;) {
    if (i < kPuts && (random() % 2 == 0 || i == answered)) {
      std::vector<Bytes> rows;
      for (auto n = random() % 4 + 1; n > 0; --n) rows.push_back(Bytes(1, static_cast<char>('a' + random() % 8)));
      puts.push_back(t.start(t.put(std::move(rows))));
      ++i;
      continue;
    }
    ASSERT_TRUE(daemon.wait_for_open(1));
    if (restarts < 5 && random() % 300 == 0) {
      ++restarts;
      daemon.stop();
      last_sequence.clear();  // what was under way comes again
      daemon.start();
      ASSERT_TRUE(daemon.wait_for_open(1));
    }
    daemon.thread.call([&] {
      std::set<Bytes> busy;
      for (const auto& open : daemon.open) {
        for (const auto& row : rows_of(open.request)) EXPECT_TRUE(busy.insert(row).second) << "two puts at row " << row;
      }
      const auto at = random() % daemon.open.size();
      const auto asked = daemon.open[at];
      daemon.open.erase(daemon.open.begin() + static_cast<std::ptrdiff_t>(at));
      for (const auto& row : std::get<PutRequest>(asked.request).rows) {
        auto& last = last_sequence[row.sort_key];
        EXPECT_LT(last, row.add[0].event.sequence);  // in the order of the calls
        last = row.add[0].event.sequence;
      }
      daemon.server->reply(asked.connection, asked.id, PutResult{});
    });
    ++answered;
  }
  for (auto& put : puts) {
    ASSERT_TRUE(ready(put));
    EXPECT_TRUE(put.get());
  }
}

}  // namespace
}  // namespace kinfs::cluster
