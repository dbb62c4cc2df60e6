// Hinted handoff, the second half: handing over what was kept for owners that were away.
//
// Paced: one batch at a time for each owner, its rows in the order in which they were hinted, so that a
// rename's destination arrives before its source goes. A hint is dropped when its owner has confirmed and W
// owners hold the state, on their disks: what it stands for may have been promised as synced. A newer hint for the same
// row, kept meanwhile, stays.
//
// What cannot be read here, or is refused there, keeps its hint and waits until all others had their turn.
#pragma once

#include <map>
#include <unordered_map>
#include <vector>

#include "cluster/core.h"

namespace kinfs::cluster {

class HintReplay {
 public:
  explicit HintReplay(Core& core) : core_(core) {}
  /// Goes on after the hints that the store holds already.
  Result<void> start();
  void tick();
  void confirmed(std::uint64_t id, NodeId from);
  void refused(std::uint64_t id, NodeId from);
  bool has(std::uint64_t id) const { return under_way_.contains(id); }
  /// Some owner has hints here and can be reached: they will go soon.
  bool idle() const;

 private:
  struct UnderWay {
    NodeId target{};
    std::vector<Hint> rows;
    std::vector<BlockHint> blocks;
    std::vector<NodeId> pending;    // nodes that have not confirmed yet
    std::uint32_t owners_hold = 0;  // this one, when it is an owner, included
    bool target_holds = false;
    bool refused = false;  // by the target
    std::int64_t deadline_ms = 0;
  };
  struct Queue {
    bool busy = false;
    std::int64_t next_ms = 0;
    int silences = 0;  // of the target, to the batch at the head
    // Hints up to these sequences had their turn, and failed; 0 at the beginning of each time round.
    std::uint64_t rows_after = 0, blocks_after = 0;
    bool left_over = false;         // some did
    std::uint64_t alone_until = 0;  // rows go one by one up to here: one of a batch was refused
  };
  bool send_rows(NodeId target, Queue& queue);
  bool take_rows(NodeId target, Queue& queue, UnderWay& op, WriteRows& write);
  bool send_block(NodeId target, Queue& queue);
  /// The other owners that can be asked to hold what `target` is given.
  void ask_owners(UnderWay& op, std::uint16_t partition);
  void finish(std::uint64_t id);
  void put_off(const UnderWay& op, Queue& queue);

  Core& core_;
  std::map<NodeId, Queue> queues_;
  std::unordered_map<std::uint64_t, UnderWay> under_way_;
};

}  // namespace kinfs::cluster
