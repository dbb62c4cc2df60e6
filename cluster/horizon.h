// Up to which clock nothing is on its way any more: what makes it safe to forget that something was removed (reaper.h).
//
// A node's horizon is a clock of which it says, for ever: no version that I coordinated, or took in an owner's place,
// with a clock up to that, is anywhere but at the owners of its row. It rises in three steps:
//   1. a new limit: some time behind the clocks of all members, as they were last heard of. From now on a put with a
//      clock up to that, as one that was tried again for long, gets a new clock here;
//   2. the limit is on the disk: it holds for later starts as well;
//   3. a look at all partitions that began after that found no row that this node does not own (AntiEntropy,
//   surrender).
//      Where each host owns all, there is none.
// Horizons go round with gossip. What is at or below those of all members is with the owners, or nowhere. The horizon
// of a host that is away stays where it was, until it is back or excused; so do the others', which go by its clock.
//
// Not of the paper: Dynamo forgets by time alone, and what was away for longer comes back (Cassandra's
// gc_grace_seconds, Riak's delete_mode).
//
// Threading: none.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "cluster/core.h"

namespace kinfs::cluster {

class Horizon {
 public:
  explicit Horizon(Core& core) : core_(core) {}
  void start();
  /// Puts with a clock up to that get a new one.
  Hlc limit() const { return std::max({core_.dots.horizon(), learned_, guess_}); }
  /// What another node says is a floor of its: none that is true is above the limit here.
  Hlc believed(Hlc floor) const { return floor <= limit() ? floor : Hlc{}; }
  /// A message of that node says that this is its clock.
  void clock_of(NodeId node, Hlc clock);
  void tick();
  /// A look at what this node does not own begins, and has come to its end.
  void look_begins();
  void look_ended(bool holds_nothing);

  /// From somebody whose clock is that. What is above it is no horizon.
  void heard(const std::vector<std::pair<NodeId, Hlc>>& horizons, Hlc clock);
  /// What is known of all members, this node among them.
  std::vector<std::pair<NodeId, Hlc>> all() const { return {horizons_.begin(), horizons_.end()}; }
  /// That of all members; 0 while it is not known of one.
  Hlc least() const;

 private:
  Hlc behind(Hlc clock) const;
  Hlc candidate() const;
  Hlc to_reach() const;
  void raise_limit(Hlc limit);
  void reached(Hlc clock);

  Core& core_;
  std::map<NodeId, Hlc> clocks_;  // as last heard
  std::map<NodeId, Hlc> horizons_;
  std::int64_t next_ms_ = 0;
  Hlc durable_;  // limit that is on the disk
  // No floor is above these (reaper.h), as far as is known, where this disk is new, or may be an older one: what others
  // have said, and, until they have, what the wall clock makes likely.
  Hlc learned_, guess_;
  std::optional<Hlc> look_from_;
};

}  // namespace kinfs::cluster
