// What the parts of a node share: its configuration, clocks, peers, counters, and the list of effects.
// Private to the core; node.h is the way in.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cluster/dot_source.h"
#include "cluster/hlc_clock.h"
#include "cluster/node.h"
#include "cluster/peers.h"
#include "cluster/placement.h"

namespace kinfs::cluster {

/// Who waits for an answer: a client of this node, or a node that forwarded a client's request.
struct Asker {
  bool local = true;
  std::uint64_t client = 0;  // local: as given to Node::request
  NodeId node{};             // else: where the ForwardReply goes
  std::uint64_t id = 0;      //       and under which id
  std::int64_t deadline_ms = 0;
  bool tried_before = false;  // somebody was asked for it, and may have done it
};

/// A share of the bytes that operations under way keep in memory, given back when it goes.
class Held {
 public:
  Held() = default;
  Held(std::size_t& sum, std::size_t bytes) : sum_(&sum), bytes_(bytes) { sum += bytes; }
  Held(Held&& other) noexcept : sum_(std::exchange(other.sum_, nullptr)), bytes_(other.bytes_) {}
  Held& operator=(Held&& other) noexcept {
    std::swap(sum_, other.sum_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Held() {
    if (sum_ != nullptr) *sum_ -= bytes_;
  }
  void add(std::size_t bytes) {
    if (sum_ == nullptr) return;
    *sum_ += bytes;
    bytes_ += bytes;
  }

 private:
  std::size_t* sum_ = nullptr;
  std::size_t bytes_ = 0;
};

inline constexpr std::size_t kOperationBytes = 1024;  // of one that is under way, what it is about left out

class Core {
 public:
  Core(NodeConfig c, const Reader& s, std::uint64_t seed)
      : config(std::move(c)), store(s), placement(config.self, config.quorum), peers(config), random(seed) {}

  const NodeConfig config;
  const Reader& store;
  Placement placement;  // changed by adopt() alone
  Peers peers;
  DotSource dots;
  HlcClock clock;
  Counters counters;
  std::mt19937_64 random;
  Time now;
  std::size_t bytes_held = 0;  // see Held

  bool bug(PlantedBug b) const { return config.bug == b; }
  bool owns(std::uint16_t partition) const { return placement.owns(config.self, partition); }
  /// See reaper.h.
  Hlc floor(std::uint16_t partition) const { return bug(PlantedBug::kNoFloor) ? Hlc{} : dots.floor(partition); }
  /// From now on these are the layouts; `members` has what is known of the hosts in them.
  void adopt(LayoutHistory history, const std::vector<Member>& members);
  /// Takes over what is newer of those that are members; true when something was.
  bool heard_of(const std::vector<Member>& members);

  /// Greater than all of earlier starts of this node, also those on a disk that it no longer has: others drop what
  /// comes under an id that they have seen, and an answer to an earlier start must not count for this one.
  std::uint64_t new_id() { return ++last_id_; }
  std::uint64_t last_id() const { return last_id_; }
  void begin_ids(Hlc reserved) { last_id_ = reserved.value << 4; }  // a million each millisecond

  void save(std::uint64_t origin, Batch batch);
  /// The stored row with what this round has saved already: one input may write one row twice, before either Save is
  /// carried out.
  Result<Row> row(const RowKey& key) const;
  void save_block(std::uint64_t origin, const BlockKey& key, const SharedBytes& bytes);
  /// Grows with each save of something in that partition, and each time that something is erased.
  std::uint64_t changes(ItemKind kind, std::uint16_t partition) const { return changes_of(kind)[partition]; }
  /// Under the head; reads under that which their quorum is counted in.
  void send(std::uint64_t origin, NodeId to, std::uint64_t id, std::uint32_t ttl_ms, Body body) {
    send(origin, to, id, ttl_ms, std::move(body), placement.head().id());
  }
  void send(std::uint64_t origin, NodeId to, std::uint64_t id, std::uint32_t ttl_ms, Body body, LayoutId layout);
  void answer(std::uint64_t origin, const Asker& asker, Answer answer);
  /// Runs `then` once everything saved so far is on disk.
  void after_sync(std::uint64_t origin, std::function<void()> then);
  /// Which input this is: effects of one round stand or fall by origin.
  std::uint64_t round() const { return round_; }
  /// Runs `then` if a Save of `origin` fails in this round; the last `then` counts.
  void on_save_failure(std::uint64_t origin, std::function<void(const Error&)> then) {
    failures_[origin] = std::move(then);
  }
  /// Adds to `batch` that `target` has not confirmed the state of `key`.
  void keep_hint(Batch& batch, NodeId target, const RowKey& key);
  void keep_hint(Batch& batch, NodeId target, const BlockKey& key);
  std::uint64_t& last_hint_sequence() { return last_hint_sequence_; }
  /// Contexts tell of dots; ours among them must be ones that we made, or our disk is an older one.
  void observe(const Row& row);

  // For node.cc.
  std::vector<Effect> take_effects() { return std::exchange(effects_, {}); }
  void begin_round(Time time) {
    now = time;
    ++round_;
    failures_.clear();
    saved_now_.clear();
  }
  void synced(std::uint64_t token);
  void save_failed(std::uint64_t origin, const Error& error);
  bool waits_for_sync() const { return !syncs_.empty(); }

 private:
  std::vector<Effect> effects_;
  std::map<RowKey, Row> saved_now_;
  std::vector<std::uint64_t> row_changes_ = std::vector<std::uint64_t>(kPartitions);
  std::vector<std::uint64_t> block_changes_ = std::vector<std::uint64_t>(kPartitions);
  const std::vector<std::uint64_t>& changes_of(ItemKind kind) const {
    return kind == ItemKind::kRow ? row_changes_ : block_changes_;
  }
  std::uint64_t last_id_ = 0;
  std::uint64_t round_ = 0;
  std::uint64_t last_hint_sequence_ = 0;
  struct PendingSync {
    std::uint64_t origin;
    std::function<void()> then;
  };
  std::unordered_map<std::uint64_t, PendingSync> syncs_;
  std::unordered_map<std::uint64_t, std::function<void(const Error&)>> failures_;
};

}  // namespace kinfs::cluster
