// Gives up what this node holds and owns in no layout: what it owned before the members changed, and what it took in an
// owner's place and has handed over. Only what all owners have confirmed, by digests of all of it and on their disks
// (AntiEntropy), goes; and of a partition that changed since it was compared, nothing more.
//
// Page by page, each after the one before is gone from the disk too: until then its space is not free, and a process
// that dies would forget that it is to be.
//
// Threading: none.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "cluster/core.h"

namespace kinfs::cluster {

class Surrender {
 public:
  explicit Surrender(Core& core) : core_(core) {}
  /// The rows or the blocks of a partition, as they were when Core::changes() said so.
  struct Confirmed {
    ItemKind kind{};
    std::uint16_t partition = 0;
    std::uint64_t changes = 0;
  };
  /// All owners in the layout `head` have these.
  void begin(const LayoutId& head, const std::vector<Confirmed>& all);
  /// Before anything else of the tick has saved.
  void tick();
  bool idle() const { return queue_.empty() && !syncs_; }

 private:
  /// Whether nothing has happened since that makes this node an owner, now or soon.
  bool still_holds() const;
  void erase(std::vector<Item> items);

  Core& core_;
  LayoutId head_;
  std::deque<Confirmed> queue_;
  Bytes after_;  // of the first of them: gone up to here
  bool syncs_ = false;
};

}  // namespace kinfs::cluster
