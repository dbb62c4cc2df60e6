// Hinted handoff, the second half: handing over what was kept for owners that were away.
//
// Paced: one batch at a time for each owner, its rows in the order in which they were hinted, so that a
// rename's destination arrives before its source goes. A hint is dropped when its owner has confirmed and W
// owners hold the state; a newer hint for the same row, kept meanwhile, stays.
#pragma once

#include <map>
#include <unordered_map>
#include <vector>

#include "cluster/core.h"

namespace kinfs::cluster {

class HintReplay {
 public:
  explicit HintReplay(Core& core) : core_(core) {}
  /// Counts what the store holds already.
  Result<void> start();
  void tick();
  void confirmed(std::uint64_t id, NodeId from);
  void refused(std::uint64_t id, NodeId from);
  bool has(std::uint64_t id) const { return under_way_.contains(id); }
  /// Some owner has hints here and can be reached: they will go soon.
  bool idle() const;
  std::uint64_t kept_for(NodeId node) const;

 private:
  struct UnderWay {
    NodeId target{};
    std::vector<Hint> rows;
    std::vector<BlockHint> blocks;
    std::vector<NodeId> pending;    // nodes that have not confirmed yet
    std::uint32_t owners_hold = 0;  // this one, when it is an owner, included
    bool target_holds = false;
    std::int64_t deadline_ms = 0;
  };
  struct Queue {
    bool busy = false;
    std::int64_t next_ms = 0;
  };
  bool send_rows(NodeId target);
  bool send_block(NodeId target);
  void finish(std::uint64_t id);

  Core& core_;
  std::map<NodeId, Queue> queues_;
  std::unordered_map<std::uint64_t, UnderWay> under_way_;
};

}  // namespace kinfs::cluster
