// The order of effects, what a failing disk does to it, and fsync in groups.
#include "daemon/runner.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <map>
#include <optional>
#include <set>
#include <thread>

namespace kinfs::daemon {
namespace {

using cluster::Effect;

/// Remembers what was asked of it in order, and fails where it is told to.
class FakeStore : public Store {
 public:
  std::vector<std::string> log;
  std::set<std::string> full;  // partition keys whose save fails with kNoSpace
  bool all_full = false;
  std::optional<NodeMeta> stored_meta;
  std::map<RowKey, Row> rows;

  std::function<Result<void>()> on_sync = [] { return Result<void>{}; };
  std::atomic<int> syncs{0};

  Result<void> apply(const Batch& batch) override {
    for (const auto& [key, row] : batch.rows) {
      log.push_back("save " + key.partition_key);
      if (all_full || full.count(key.partition_key) != 0) return fail(Errc::kNoSpace, "the disk is full");
    }
    for (const auto& [key, row] : batch.rows) rows[key] = row;
    if (batch.meta) stored_meta = batch.meta;
    return {};
  }
  Result<void> put_block(const BlockKey& key, const SharedBytes&) override {
    log.push_back("block " + key.file_id);
    if (all_full || full.count(key.file_id) != 0) return fail(Errc::kNoSpace, "the disk is full");
    return {};
  }
  Result<void> sync() override {
    ++syncs;
    return on_sync();
  }
  Result<Row> get(const RowKey& key) const override {
    const auto found = rows.find(key);
    return found == rows.end() ? Row{} : found->second;
  }
  Result<RowPage> scan(VolumeId, ByteView, ByteView, ScanLimit) const override { return RowPage{}; }
  Result<PartitionStat> stat(VolumeId, ByteView) const override { return PartitionStat{}; }
  Result<std::vector<Hint>> hints(NodeId, std::uint64_t, std::size_t) const override { return std::vector<Hint>{}; }
  Result<std::vector<BlockHint>> block_hints(NodeId, std::uint64_t, std::size_t) const override {
    return std::vector<BlockHint>{};
  }
  std::vector<NodeId> hint_targets() const override { return {}; }
  std::uint64_t hint_count(NodeId) const override { return 0; }
  Result<std::uint64_t> last_hint_sequence() const override { return 0; }
  Result<std::optional<NodeMeta>> meta() const override { return stored_meta; }
  Result<SharedBytes> get_block(const BlockKey&) const override { return fail(Errc::kNotFound, "no block"); }
  Result<bool> has_block(const BlockKey&) const override { return false; }
  Result<ItemPage> items(ItemKind, std::uint16_t, ByteView, std::size_t) const override { return ItemPage{}; }
  StoreUsage usage() const override { return {}; }
};

Effect save(std::uint64_t origin, const std::string& key) {
  Batch batch;
  batch.rows.push_back({RowKey{kVolumeKv, key, ""}, Row{}});
  return {origin, cluster::Save{std::move(batch)}};
}
Effect block(std::uint64_t origin, const std::string& file) {
  return {origin, cluster::SaveBlock{BlockKey{kVolumeHome, file, 0, {}}, share("x")}};
}
Effect send(std::uint64_t origin, std::uint64_t id) {
  cluster::Message m;
  m.id = id;
  m.body = cluster::Ping{};
  return {origin, cluster::Send{std::move(m)}};
}
Effect reply(std::uint64_t origin, std::uint64_t client) {
  return {origin, cluster::Reply{client, cluster::BlockStored{}}};
}

class CarryOut : public testing::Test {
 protected:
  FakeStore store;
  Outputs outputs{
      [this](const cluster::Message& m) { store.log.push_back("send " + std::to_string(m.id)); },
      [this](std::uint64_t client, cluster::Answer) { store.log.push_back("reply " + std::to_string(client)); },
      [](const std::vector<Member>&) {}, [](const Error&) {}};
  std::vector<SaveFailure> run(std::vector<Effect> effects) {
    return carry_out(std::move(effects), store, outputs,
                     [this](std::uint64_t token) { store.log.push_back("sync " + std::to_string(token)); });
  }
  using Log = std::vector<std::string>;
};

TEST_F(CarryOut, KeepsTheOrder) {
  const auto failures =
      run({save(1, "a"), {1, cluster::Sync{7}}, send(1, 10), block(2, "f"), reply(2, 20), save(3, "b"), send(3, 30)});
  EXPECT_TRUE(failures.empty());
  EXPECT_EQ(store.log, (Log{"save a", "sync 7", "send 10", "block f", "reply 20", "save b", "send 30"}));
}

TEST_F(CarryOut, AFailedSaveSkipsTheRestOfItsOriginOnly) {
  store.full = {"a", "f"};
  const auto failures = run({send(1, 1),
                             save(1, "a"),
                             save(2, "b"),
                             send(1, 2),
                             {1, cluster::Sync{7}},
                             send(2, 3),
                             block(3, "f"),
                             reply(3, 4),
                             reply(1, 5),
                             save(1, "c"),
                             reply(2, 6)});
  EXPECT_EQ(store.log, (Log{"send 1", "save a", "save b", "send 3", "block f", "reply 6"}));
  ASSERT_EQ(failures.size(), 2u);
  EXPECT_EQ(failures[0].origin, 1u);
  EXPECT_EQ(failures[0].error.code, Errc::kNoSpace);
  EXPECT_EQ(failures[1].origin, 3u);
}

/// A loop that runs on a thread of its own until the test ends.
class Loop {
 public:
  cluster::EventLoop loop;
  void start() {
    thread_ = std::thread([this] { loop.run(); });
  }
  void stop() {
    if (!thread_.joinable()) return;
    loop.stop();
    thread_.join();
  }
  ~Loop() { stop(); }

 private:
  std::thread thread_;
};

constexpr auto kPatience = std::chrono::seconds(20);

TEST(SyncThread, OneSyncCoversAllThatWereAskedBeforeItBegan) {
  Loop loop;
  FakeStore store;
  std::promise<void> first_began, let_first_end;
  store.on_sync = [&, calls = 0]() mutable -> Result<void> {
    if (++calls == 1) {
      first_began.set_value();
      let_first_end.get_future().wait_for(kPatience);
    }
    return {};
  };
  std::vector<std::vector<std::uint64_t>> done;
  std::promise<void> all;
  auto sync = std::make_unique<SyncThread>(loop.loop, store, [&](std::vector<std::uint64_t> tokens, Result<void> ok) {
    EXPECT_TRUE(ok);
    done.push_back(std::move(tokens));
    if (done.size() == 2) all.set_value();
  });
  loop.start();
  loop.loop.post([&] { sync->ask(1); });
  ASSERT_EQ(first_began.get_future().wait_for(kPatience), std::future_status::ready);
  for (std::uint64_t token = 2; token <= 50; ++token) loop.loop.post([&, token] { sync->ask(token); });
  std::promise<void> asked;  // and handed over before, as what is posted from the loop runs in a later round
  loop.loop.post([&] { loop.loop.post([&] { asked.set_value(); }); });
  ASSERT_EQ(asked.get_future().wait_for(kPatience), std::future_status::ready);
  let_first_end.set_value();
  ASSERT_EQ(all.get_future().wait_for(kPatience), std::future_status::ready);
  loop.stop();
  sync.reset();
  EXPECT_EQ(store.syncs, 2);
  // A token that was asked while a sync ran is not confirmed by that one.
  EXPECT_EQ(done[0], std::vector<std::uint64_t>{1});
  EXPECT_EQ(done[1].size(), 49u);
  EXPECT_EQ(done[1].front(), 2u);
  EXPECT_EQ(done[1].back(), 50u);
}

TEST(SyncThread, EndsWhileSomethingWaits) {
  Loop loop;
  FakeStore store;
  std::promise<void> began;
  store.on_sync = [&]() -> Result<void> {
    began.set_value();
    return {};
  };
  SyncThread sync(loop.loop, store, [](auto, auto) {});
  loop.start();
  loop.loop.post([&] { sync.ask(1); });
  ASSERT_EQ(began.get_future().wait_for(kPatience), std::future_status::ready);
  loop.stop();
}

/// A real node, alone, on a store that can fail.
class OneNode : public testing::Test {
 protected:
  static cluster::NodeConfig config() {
    cluster::NodeConfig c;
    c.self = NodeId{1};
    c.cluster_id = Bytes(16, 'c');
    c.members = {{NodeId{1}, "a", "tcp://127.0.0.1:1", Bytes(32, 'k')}};
    c.quorum = {1, 1, 1};
    return c;
  }
  Loop loop;
  FakeStore store;
  cluster::Node node{config(), store, 1};
  std::map<std::uint64_t, cluster::Answer> answers;
  std::optional<Error> fatal;
  std::promise<void> ended;
  std::optional<Runner> runner;

  void SetUp() override {
    runner.emplace(
        loop.loop, node, store,
        Outputs{[](const cluster::Message&) {},
                [this](std::uint64_t client, cluster::Answer answer) { answers[client] = std::move(answer); },
                [](const std::vector<Member>&) {},
                [this](const Error& error) {
                  fatal = error;
                  ended.set_value();
                }});
    ASSERT_TRUE(runner->start());
    store.log.clear();
  }
  void TearDown() override { loop.stop(); }

  void put(std::uint64_t client, const std::string& key, bool sync = false) {
    Version v;
    v.event = {ClientId{9}, 1, client};
    v.hlc = Hlc::from_ms(cluster::EventLoop::wall_ms());
    v.host = "a";
    v.value = "value";
    cluster::PutRequest put;
    put.volume = kVolumeKv;
    put.partition_key = key;
    put.rows.push_back({"", {}, {v}});
    put.options.sync = sync;
    runner->request(client, std::move(put), 5000);
  }
};

TEST_F(OneNode, StartReservesOnDisk) {
  ASSERT_TRUE(store.stored_meta);
  EXPECT_EQ(store.stored_meta->boot, 1u);
  EXPECT_EQ(store.syncs, 1);
}

TEST_F(OneNode, AFullDiskIsAnErrorForThatClientAlone) {
  store.full = {"a"};
  put(1, "a");
  put(2, "b");
  ASSERT_TRUE(answers.count(1));
  const auto* error = std::get_if<Error>(&answers[1]);
  ASSERT_NE(error, nullptr);
  EXPECT_EQ(error->code, Errc::kNoSpace);
  ASSERT_TRUE(answers.count(2));
  EXPECT_TRUE(std::holds_alternative<PutResult>(answers[2]));
  EXPECT_EQ(runner->failed_saves().all, 1u);
  store.full.clear();
  put(3, "a");
  EXPECT_FALSE(std::holds_alternative<Error>(answers[3]));
}

TEST_F(OneNode, NothingIsConfirmedAfterAFailedSync) {
  store.on_sync = []() -> Result<void> { return fail(Errc::kIo, "the disk does not answer"); };
  put(1, "a", /*sync=*/true);
  EXPECT_FALSE(answers.count(1));
  loop.start();
  ASSERT_EQ(ended.get_future().wait_for(kPatience), std::future_status::ready);
  loop.stop();
  ASSERT_TRUE(fatal);
  EXPECT_EQ(fatal->code, Errc::kIo);
  store.on_sync = [] { return Result<void>{}; };
  put(2, "b");
  EXPECT_TRUE(answers.empty()) << "a daemon that cannot trust its disk goes on confirming";
}

TEST_F(OneNode, ASyncedPutIsConfirmedAfterTheSync) {
  std::promise<void> let_end;
  store.on_sync = [&]() -> Result<void> {
    let_end.get_future().wait_for(kPatience);
    return {};
  };
  put(1, "a", /*sync=*/true);
  EXPECT_FALSE(answers.count(1));
  put(2, "b");
  EXPECT_TRUE(answers.count(2)) << "a put without sync waits for another's fsync";
  std::promise<void> confirmed;
  loop.loop.every(1, [&, told = false]() mutable {
    if (answers.count(1) == 0 || told) return;
    told = true;
    confirmed.set_value();
  });
  let_end.set_value();
  loop.start();
  EXPECT_EQ(confirmed.get_future().wait_for(kPatience), std::future_status::ready);
  loop.stop();
}

}  // namespace
}  // namespace kinfs::daemon
