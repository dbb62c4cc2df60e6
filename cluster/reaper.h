// Forgets what was removed: rows of which only tombstones are left go from all owners, when nobody can bring back what
// they stand for.
//
// The first owner of a partition does it for all of them, in passes:
//   1. all owners hold the same in the partition, to the digest, after all horizons have passed the row (horizon.h):
//      then no host has anything else of it, and none will;
//   2. all owners have it on their disks, and none was started anew in between, which might have lost something;
//   3. each is told, and erases what is still as it was when it was compared.
//
// With that, each owner keeps a *floor* of the partition: a clock up to which it has everything there that lives. What
// comes later with a clock up to the floor, and is neither here nor known here, was removed: it is dead. So nothing
// comes back with a disk that is put in again after it was away, an old copy of a disk, a message that took long, or
// what an open file was read as before. States are merged with the floors of both sides (version.h): of one that is
// dead there remains that it is, which all owners hear of as of any change, and which is reaped in its turn. Who gives
// up a partition has no floor there any more, and who is new has none yet.
//
// A tombstone that tells more than that something was removed (a value) stays.
//
// Threading: none.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "cluster/core.h"
#include "cluster/horizon.h"
#include "cluster/partition_sums.h"

namespace kinfs::cluster {

class Reaper {
 public:
  Reaper(Core& core, PartitionSums& sums, const Horizon& horizon) : core_(core), sums_(sums), horizon_(horizon) {}
  void tick();
  /// Whether that was an answer to a question from here.
  bool replied(std::uint64_t id, NodeId from, const ComparePartitionsReply& reply);
  bool replied(std::uint64_t id, NodeId from, const SyncStoreReply& reply);
  void refused(std::uint64_t id, NodeId from);
  /// As an owner that is told.
  void reap(const Message& message, const Reap& reap);

 private:
  enum class Step { kLook, kRuns, kCompare, kSync, kReap };
  struct Peer {
    std::uint64_t asked = 0;      // 0: nothing now
    std::vector<std::size_t> of;  // which of the chosen it owns too
    Bytes run;
    bool failed = false;
  };
  struct Chosen {
    PartitionSum sum;
    bool equal = true;  // at all owners that have answered
  };
  struct Pass {
    Step step = Step::kLook;
    LayoutId head;
    Hlc floor;
    std::size_t next = 0;  // partition to look at; then, of the chosen, to be reaped
    std::vector<Chosen> chosen;
    std::map<NodeId, Peer> peers;
    std::uint64_t sync = 0;  // the origin of the own one
    bool synced_here = false;
    std::int64_t deadline_ms = 0;  // of the step
    Bytes after;                   // of the partition that is being reaped: up to here it is done
  };
  bool may_begin() const;
  bool still_holds() const;
  bool is_first(std::uint16_t partition) const;
  void look();
  void number_chosen();
  void ask_all(Step step);
  bool all_answered();
  void next_step();
  void reap_page();
  void tell(std::uint16_t partition, std::vector<Item> items);
  void apply(const Reap& reap);
  Peer* asked(std::uint64_t id, NodeId from);

  Core& core_;
  PartitionSums& sums_;
  const Horizon& horizon_;
  PartitionSums::Look look_;
  std::optional<Pass> pass_;
  std::int64_t next_ms_ = 0;
  std::size_t first_ = 0;  // partition that the next pass begins with
};

}  // namespace kinfs::cluster
