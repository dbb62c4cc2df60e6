// Takes this node through the three steps of a change of members (layout_history.h), one after the other:
//  - it has the head on its disk, and what it began to write before it knew it is done: acked;
//  - all have acked, and all that is stored here is at all owners in the head (AntiEntropy::give_all): synced;
//  - all have synced, and the reads that went by an earlier layout are done: read.
// When all read by the head, it is the base.
//
// Threading: none.
#pragma once

#include "cluster/blocks.h"
#include "cluster/membership.h"
#include "cluster/read.h"
#include "cluster/replication.h"

namespace kinfs::cluster {

class Transition {
 public:
  Transition(Core& core, Membership& membership, AntiEntropy& anti_entropy, const Replication& writes,
             const ReadCoordinator& reads, const BlockCoordinator& blocks)
      : core_(core),
        membership_(membership),
        anti_entropy_(anti_entropy),
        writes_(writes),
        reads_(reads),
        blocks_(blocks) {}
  void tick();

 private:
  /// What began before this node knew the head is done.
  bool is_drained() const;

  Core& core_;
  Membership& membership_;
  AntiEntropy& anti_entropy_;
  const Replication& writes_;
  const ReadCoordinator& reads_;
  const BlockCoordinator& blocks_;
};

}  // namespace kinfs::cluster
