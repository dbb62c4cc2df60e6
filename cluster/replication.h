// The part that all writes share: sending one state to the owners, standing in for those that are down, and
// knowing when W owners have it.
//
// What was saved or sent may be carried out, whatever happens here then: from there on no answer says that it was not.
//
// Sloppy quorum (DeCandia et al. 2007, section 4.6): for an owner that is suspected, or does not answer in
// time, the next healthy host of the preference list keeps the state with a hint; where there is no further
// host, the coordinator keeps the hint. A coordinator that owns nothing of the key is the first to stand in: what it
// saved must find its way to an owner. Hints give durability and availability, never visibility: only owners count
// toward W, and a write that too few of them confirmed is *degraded*.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "cluster/core.h"

namespace kinfs::cluster {

class Replication {
 public:
  struct Plan {
    std::uint64_t id = 0;
    std::vector<NodeId> preference;  // of the partition: its owners in all active layouts, then who stands in for them
    std::size_t owners = 0;          // so many of these
    OwnerQuorums quorums;            // of each of those layouts
    bool self_is_owner = false;
    bool sync = false;
    Held held;  // what `body` keeps
    /// Builds the message for a target; `hint_for` is empty for owners.
    std::function<Body(std::vector<NodeId> hint_for)> body;
    /// Saves hints for these owners here, as `origin`.
    std::function<void(std::uint64_t origin, const std::vector<NodeId>&)> keep_hints;
    /// Called once, when W owners of each active layout have confirmed, or when there is nothing more to wait for.
    std::function<void(std::uint64_t origin, bool degraded)> answer;
    /// Called instead.
    std::function<void(const Error&)> fail;
  };

  explicit Replication(Core& core) : core_(core) {}
  /// Whose state goes where, as of the layouts that are active now.
  Plan plan(std::uint64_t id, std::uint16_t partition, bool sync) const;
  /// Owners that are suspected and for whom this node keeps the hint: to be saved in the same batch as the state.
  std::vector<NodeId> hinted_here(const std::vector<NodeId>& preference, std::size_t owners) const;
  /// Step 3 of put. The state has been saved as `plan.id`, its hints for hinted_here() too. Should that fail, nothing
  /// was sent: the asker is told so.
  void begin(Plan plan);
  /// This node has the state, on disk where that was asked for.
  void confirmed_here(std::uint64_t id);
  void confirmed(std::uint64_t id, NodeId from);
  /// `from` will not take it.
  void refused(std::uint64_t id, NodeId from);
  void tick();
  bool has(std::uint64_t id) const { return under_way_.contains(id); }
  std::size_t size() const { return under_way_.size(); }
  std::size_t unanswered() const { return under_way_.size() - answered_; }
  /// Whether something that began under an id before that is under way.
  bool has_before(std::uint64_t id) const;

 private:
  struct Target {
    NodeId node{};
    std::vector<NodeId> hint_for;  // empty: an owner
    std::int64_t deadline_ms = 0;
  };
  struct UnderWay {
    Plan plan;
    std::vector<Target> pending;
    std::size_t next_stand_in = 0;  // index into preference
    bool stands_in = false;         // this node does
    std::vector<NodeId> confirmed;  // owners
    bool here = false;
    bool answered = false;
    std::uint64_t hint_round = 0;   // the round in which a hint was last kept here,
    std::uint64_t hint_origin = 0;  // and as what
    std::uint32_t hint_syncs = 0;   // and how many of them wait for a sync
    std::uint32_t hints_syncing = 0;
    bool hint_lost = false;  // the state is out there, and an owner may never hear of it
  };
  void ask(UnderWay& op, NodeId node, std::vector<NodeId> hint_for);
  void stand_in(UnderWay& op, std::vector<NodeId> owners);
  void keep_hints(UnderWay& op, const std::vector<NodeId>& owners);
  void hint_failed(std::uint64_t id);
  void settle(std::uint64_t id);

  Core& core_;
  std::unordered_map<std::uint64_t, UnderWay> under_way_;
  std::size_t answered_ = 0;  // of these
};

}  // namespace kinfs::cluster
