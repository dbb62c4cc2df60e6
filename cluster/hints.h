// Hinted handoff, the second half: handing over what was kept for owners that were away.
//
// Paced: for each owner a few blocks at a time, whose syncs it can do as one; then rows, a batch at a time, in the
// order in which they were hinted, so that a rename's destination arrives before its source goes. A batch takes what
// was hinted one after the other, whatever its partitions: an untar's rows are of as many directories as files. A hint
// is dropped when its owner has confirmed and W owners hold the state, on their disks: what it stands for may have been
// promised as synced. A newer hint for the same row, kept meanwhile, stays.
//
// What was kept for a host that is in no layout any more goes to the owners that there are.
//
// What cannot be read here, or is refused there, keeps its hint and waits until all others had their turn.
#pragma once

#include <map>
#include <optional>
#include <unordered_map>
#include <utility>
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
    bool gone = false;  // it is in no layout any more
    // With the partitions that they are of; either rows or a block.
    std::vector<std::pair<std::uint16_t, Hint>> rows;
    std::optional<std::pair<std::uint16_t, BlockHint>> block;
    std::size_t bytes = 0;        // of the block
    std::vector<NodeId> pending;  // nodes that have not confirmed yet
    std::vector<NodeId> holders;  // those that have, and this one
    bool refused = false;         // by the target
    std::int64_t deadline_ms = 0;
  };
  struct Queue {
    bool rows_under_way = false;
    std::size_t blocks_under_way = 0, bytes_under_way = 0;
    std::int64_t next_ms = 0;
    int silences = 0;  // of the target, to what was sent last
    // Hints up to these sequences had their turn, and failed or are under way; 0 at the beginning of each time round.
    std::uint64_t rows_after = 0, blocks_after = 0;
    std::optional<std::uint64_t> again_after;  // blocks go again from here, once none is under way
    bool left_over = false;                    // some failed
    std::uint64_t alone_until = 0;             // rows go one by one up to here: one of a batch was refused
  };
  struct Rows;
  void go_on(NodeId target, Queue& queue);
  /// False: there is no row to send in this time round.
  bool send_rows(NodeId target, Queue& queue);
  bool take_rows(NodeId target, Queue& queue, UnderWay& op, Rows& rows);
  /// Fills the window. False: no block is under way, and there is none to send in this time round.
  bool send_blocks(NodeId target, Queue& queue);
  void send_block(NodeId target, Queue& queue, const BlockHint& hint);
  void begin(std::uint64_t id, UnderWay op);
  /// Adds to those that are asked the other owners that must hold what `op` has of `partition`.
  void ask_owners(UnderWay& op, std::uint16_t partition);
  /// All whom hints are for, and that can be reached or are gone.
  std::vector<NodeId> targets() const;
  /// Nobody waits for the target to have it: it is no member any more, or this host is none, and goes when W owners
  /// hold everything.
  bool is_gone(NodeId target) const {
    const auto& hosts = core_.placement.hosts();
    return !hosts.contains(target) || !hosts.contains(core_.config.self);
  }
  /// Whether the target and W owners of `partition` hold what `op` has of it.
  bool held(const UnderWay& op, std::uint16_t partition) const;
  bool all_held(const UnderWay& op) const;
  void finish(std::uint64_t id);
  void put_off(const UnderWay& op, Queue& queue);

  Core& core_;
  std::map<NodeId, Queue> queues_;
  std::unordered_map<std::uint64_t, UnderWay> under_way_;
};

}  // namespace kinfs::cluster
