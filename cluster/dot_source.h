// Dots that are never used twice, whatever happens to this node.
//
// Counters are reserved in blocks by a record that is fsynced before the first of them is handed out. Every
// start begins at the end of what was reserved, and not below what the wall clock says: so a directory that was
// emptied, or restored from an older copy, does not use the numbers of its former life again, as long as the clock did
// not go back. When it did, a counter of ours that a peer has seen and we have not made moves us past it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cluster/node.h"
#include "storage/store.h"

namespace kinfs::cluster {

class DotSource {
 public:
  static constexpr std::uint64_t kBlock = 1 << 16;  // a burst does not outrun the fsync that reserves the next
  static constexpr std::int64_t kClockAheadMs = 60'000;
  /// The least counter of a start at this time: no node makes a thousand dots a millisecond for long.
  static std::uint64_t least_at(std::int64_t wall_ms) {
    return static_cast<std::uint64_t>(std::clamp<std::int64_t>(wall_ms, 0, 1ll << 44)) << 10 | 1;
  }

  /// From the record on disk, or from nothing; returns the record to be saved and synced first.
  NodeMeta start(const std::optional<NodeMeta>& stored, const NodeConfig& config, std::int64_t wall_ms);
  /// A record that start() or extend() returned is on disk.
  void reserved(const NodeMeta& record) {
    if (record.counter_floor == meta_.counter_floor) durable_ = std::max(durable_, record.counter_reserved);
  }
  /// Or could not be saved: extend() returns it again.
  void not_reserved() { moved_ = true; }
  /// nullopt while the reservation is not on disk yet: the caller refuses with kBusy.
  std::optional<Dot> next();
  /// A new record when half of the block is used, the clock nears its reservation, or observe() moved on; nullopt else.
  std::optional<NodeMeta> extend(Hlc clock, std::int64_t wall_ms);
  /// Returns true, and moves on, when `counter` is one that we do not know to have made: this disk is an older one, and
  /// what was made since may live elsewhere. No dot is made until that is on disk.
  bool observe(std::uint64_t counter);
  /// Rows of that partition are about to be erased: the record, to be saved together with that.
  NodeMeta erases(std::uint16_t partition);
  /// How far back a dot that is made now vouches for this node's earlier ones on the same row, of which `last` is the
  /// latest in the row's state here: not beyond the last start that may have lost some, nor the last time that this
  /// partition's rows were erased, which the owners have with dots that are forgotten here.
  std::uint64_t vouches_from(std::uint16_t partition, std::uint64_t last) const;
  /// What this node lacks of that partition, and has a clock up to that, is dead: see reaper.h.
  Hlc floor(std::uint16_t partition) const { return meta_.floors.empty() ? Hlc{} : meta_.floors[partition]; }
  /// The record with that, to be saved. It may be lowered in any case; see reaper.h for when it may be raised.
  NodeMeta with_floor(std::uint16_t partition, Hlc floor);
  /// Whether all that earlier starts have written is known to be here.
  bool nothing_lost() const { return nothing_lost_; }
  /// See horizon.h.
  Hlc horizon() const { return meta_.horizon; }
  NodeMeta with_horizon(Hlc horizon) {
    meta_.horizon = horizon;
    return meta_;
  }
  /// The record with other members in it, to be saved.
  NodeMeta with_members(Layouts layouts, std::vector<Member> members) {
    meta_.layouts = std::move(layouts);
    meta_.members = std::move(members);
    return meta_;
  }
  /// For the planted bug alone.
  void forget() { next_ = 1; }

 private:
  NodeMeta meta_;
  std::uint64_t next_ = 0;
  bool erased_before(std::uint16_t partition) const;

  std::uint64_t erased_before_ = 0;  // counter_erased of earlier starts,
  Bytes erased_in_before_;           // and where
  std::unordered_map<std::uint16_t, std::uint64_t> erased_;
  std::uint64_t durable_ = 0;
  bool nothing_lost_ = false;
  bool moved_ = false;            // the record is to be saved in any case
  bool vouches_for_all_ = false;  // a planted bug
  bool vouches_for_erased_ = false;  // another one
};

}  // namespace kinfs::cluster
