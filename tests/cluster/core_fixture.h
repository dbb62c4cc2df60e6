// One node by itself, told what its peers and its disk say.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "cluster/node.h"
#include "storage/mem_store.h"

namespace kinfs::cluster {

inline constexpr std::int64_t kWallMs = 1'700'000'000'000;

/// A disk that fails to read, or to write, where it is told to, and counts looks at its hints.
class Disk : public MemStore {
 public:
  std::optional<Errc> block_error;
  std::set<Bytes> corrupt;  // sort keys
  bool full = false;
  mutable int looks = 0;

  Result<SharedBytes> get_block(const BlockKey& key) const override {
    if (block_error) return fail(*block_error, "as the test says");
    return MemStore::get_block(key);
  }
  Result<Row> get(const RowKey& key) const override {
    if (corrupt.contains(key.sort_key)) return fail(Errc::kCorrupt, "as the test says");
    return MemStore::get(key);
  }
  Result<std::vector<Hint>> hints(NodeId target, std::uint64_t after, std::size_t limit) const override {
    ++looks;
    return MemStore::hints(target, after, limit);
  }
  Result<void> apply(const Batch& batch) override {
    if (full) return fail(Errc::kNoSpace, "as the test says");
    return MemStore::apply(batch);
  }
};

/// Node 1 of three.
class CoreTest : public testing::Test {
 protected:
  CoreTest() {
    for (std::uint64_t n = 1; n <= 3; ++n) {
      config.members.push_back({NodeId{n}, "host" + std::to_string(n), "test", Bytes(32, static_cast<char>(n))});
    }
    config.self = NodeId{1};
    config.cluster_id = Bytes(16, 'c');
    config.run = config.last_run = "run";
  }

  void start() {
    node.emplace(config, disk, 1);
    ASSERT_TRUE(node->start(now));
    run();
  }
  /// Carries out what the node wants; syncs are done at once.
  void run() {
    for (auto effects = node->take_effects(); !effects.empty(); effects = node->take_effects()) {
      std::set<std::uint64_t> failed;
      for (auto& effect : effects) {
        if (failed.contains(effect.origin)) continue;
        if (const auto* save = std::get_if<Save>(&effect.what)) {
          if (const auto done = disk.apply(save->batch); !done) {
            failed.insert(effect.origin);
            node->save_failed(effect.origin, done.error(), now);
          }
        } else if (const auto* block = std::get_if<SaveBlock>(&effect.what)) {
          if (disk.full) {
            failed.insert(effect.origin);
            node->save_failed(effect.origin, {Errc::kNoSpace, "as the test says"}, now);
            continue;
          }
          ASSERT_TRUE(disk.put_block(block->key, block->bytes));
        } else if (const auto* sync = std::get_if<Sync>(&effect.what)) {
          if (syncs) node->synced(sync->token, now);
        } else if (const auto* send = std::get_if<Send>(&effect.what)) {
          if (!std::holds_alternative<Ping>(send->message.body)) sent.push_back(send->message);
        } else if (const auto* reply = std::get_if<Reply>(&effect.what)) {
          answers.push_back(reply->answer);
        }
      }
    }
  }
  void tick(std::int64_t ms = 10) {
    now.mono_ms += ms;
    now.wall_ms += ms;
    node->tick(now);
    run();
  }
  void receive(NodeId from, std::uint64_t id, Body body) {
    node->receive(Message{from, config.self, id, node->layout(), 1000, peers_clock, std::move(body)}, now);
    run();
  }
  /// Both peers answer, so that they are not suspected.
  void hear_peers() {
    for (std::uint64_t n = 2; n <= 3; ++n) receive(NodeId{n}, 0, Pong{});
  }
  /// The next message of a kind, after as many ticks as it takes; nullopt: there is none.
  template <class T>
  std::optional<Message> next(int ticks = 300) {
    while (true) {
      while (!sent.empty()) {
        auto message = std::move(sent.front());
        sent.pop_front();
        if (std::holds_alternative<T>(message.body)) return message;
      }
      if (ticks-- == 0) return std::nullopt;
      hear_peers();
      tick();
    }
  }
  Answer put(const Bytes& key, Row base, std::vector<Version> add, PutOptions options = {}) {
    answers.clear();
    PutRequest request{VolumeId{2}, "p", {RowPut{key, std::move(base), std::move(add), {}}}, options};
    node->request(1, std::move(request), 4000, now);
    run();
    return answers.empty() ? Answer{Error{Errc::kInternal, "no answer"}} : answers.front();
  }
  Version version(Bytes value) {
    Version v;
    v.event = {ClientId{9}, 1, ++events};
    v.hlc = Hlc{events};
    v.value = std::move(value);
    return v;
  }
  void hint_row(const Bytes& key, std::uint64_t sequence, const Bytes& partition_key = "p") {
    Batch batch;
    Row row;
    add_version(row, version("value of " + key), {NodeId{2}, sequence});
    batch.rows.emplace_back(RowKey{VolumeId{2}, partition_key, key}, std::move(row));
    batch.add_hints.push_back({NodeId{2}, sequence, {VolumeId{2}, partition_key, key}});
    ASSERT_TRUE(disk.apply(batch));
  }
  BlockKey hint_block(const Bytes& bytes, std::uint64_t sequence) {
    const BlockKey key{VolumeId{2}, "file", 0, sha256(bytes)};
    EXPECT_TRUE(disk.put_block(key, share(bytes)));
    Batch batch;
    batch.add_block_hints.push_back({NodeId{2}, sequence, key});
    EXPECT_TRUE(disk.apply(batch));
    return key;
  }
  std::vector<Bytes> keys_of(const std::optional<Message>& message) {
    std::vector<Bytes> out;
    if (!message) return out;
    for (const auto& write : std::get<HandOver>(message->body).writes) {
      for (const auto& [key, row] : write.rows) out.push_back(key);
    }
    return out;
  }
  static Errc code_of(const Answer& answer) {
    const auto* error = std::get_if<Error>(&answer);
    return error == nullptr ? Errc::kInternal : error->code;
  }

  NodeConfig config;
  Disk disk;
  Time now{1000, kWallMs};
  std::optional<Node> node;
  std::deque<Message> sent;
  std::vector<Answer> answers;
  Hlc peers_clock;
  bool syncs = true;
  std::uint64_t events = 0;
};

}  // namespace kinfs::cluster
