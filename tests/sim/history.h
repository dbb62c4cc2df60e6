// The checkers: what clients wrote and were told, and whether the cluster kept its word.
//
// They stand outside of the nodes and know nothing of planted bugs: they see requests, answers, and, as an
// omniscient observer, what lies on which disk. Promises held:
//  - every acknowledged write is current, or something that was written over it is accounted for in turn, or it
//    was discarded by a client that was shown it (no lost update; siblings are never dropped unseen);
//  - an unsynced write may vanish only when every host that had it at its acknowledgement lost its disk's tail;
//    a synced one only when every host that had it synced lost its disk;
//  - an answer that is not degraded was confirmed by W owners, all rows of a batch by the same ones, and is synced
//  there
//    when that was asked for;
//  - after an answer that is not degraded, no later read that is not degraded misses it, or shows what it superseded;
//  - what an acknowledged write superseded does not come back;
//  - a degraded answer says that a key is absent only where the host that gives it is an owner;
//  - what was refused for good was done nowhere, and never is;
//  - the clock of a write is greater than those of what it replaced;
//  - one write shows once, however often it was sent; no dot ever names two writes;
//  - once healed: hints drain, W owners hold every acknowledged write and block; then all owners become equal, and have
//    all blocks, by anti-entropy with no reads or, without it, by one read of each key; every acknowledged block can be
//    read;
//  - what was acknowledged by a quorum is on W owners in a layout before any host drops the one before it;
//  - no node sends what another's decoder refuses.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "sim/world.h"

namespace kinfs::sim {

using WriteId = std::uint64_t;

/// A write in words; the value of those that have one.
Bytes value_of(WriteId id);
/// The checkers know it again by the time that it carries: a tombstone has no value.
inline WriteId id_of(const Version& version) { return static_cast<WriteId>(version.time_ns); }

class History : public World::Observer {
 public:
  explicit History(World& world) : world_(world) { world.observe(this); }

  /// A client is about to send a put of one row. `superseded`: the writes it means to replace.
  WriteId begin(const RowKey& key, std::set<WriteId> superseded, bool discard_only, bool tombstone);
  /// Of one put; the writes that it only discarded included.
  void acknowledged(const std::vector<WriteId>& ids, bool sync, bool degraded);
  /// The first answer to a put was an error that does not leave the outcome open.
  void refused(const std::vector<WriteId>& ids, const Error& error);
  /// A client is about to read: what it must see is fixed now.
  struct Expectation {
    std::vector<WriteId> writes;
  };
  Expectation expect(const RowKey& key) const;
  void read(const RowKey& key, const Expectation& expectation, const Row& row, bool degraded);
  /// A degraded answer by `host` said that there is no such key: only a replica of its own could tell.
  void concluded_absence(std::size_t host, const RowKey& key);
  void begin_block(const BlockKey& key, const SharedBytes& bytes);
  void acknowledged_block(const BlockKey& key, bool sync, bool degraded);
  /// It is said to be on disk at W owners, now or before.
  void synced_block(const BlockKey& key);
  void read_block(const BlockKey& key, const SharedBytes& bytes);

  /// After healing, before any read.
  void check_drained();
  /// After anti-entropy, or one read of each key.
  void check_converged();
  /// After anti-entropy: every owner has every block.
  void check_blocks();
  /// After that and some time more: what a host holds and does not own, in words; empty: nothing.
  std::string not_surrendered() const;
  /// After that and some time more: what was removed long ago and is not forgotten, in words; empty: nothing.
  std::string not_reaped() const;
  /// All blocks that must be readable.
  std::vector<BlockKey> blocks_that_must_be() const;

  void saved(std::size_t host, const Batch& batch) override;
  void lost_tail(std::size_t host) override;
  void lost_disk(std::size_t host) override;
  void lost_block(std::size_t host, const BlockKey& key) override;
  void reads_by(std::size_t reader, const LayoutRecord& layout) override;
  void reads_by_dropped(std::size_t reader, const LayoutRecord& layout) override;

  void violation(const std::string& what);
  const std::vector<std::string>& violations() const { return violations_; }
  std::vector<RowKey> keys() const;
  std::uint64_t true_siblings = 0;  // reads that showed more than one live write

 private:
  /// What became of the hosts that had a thing.
  struct Kept {
    bool acknowledged = false, sync = false, degraded = false;
    // Hosts that kept it when it was acknowledged, synced where that was asked for: owners alone, when they were
    // enough.
    std::set<std::size_t> holders;
    std::set<std::size_t> lost_at;  // of those, the ones that may have lost it since
    bool lost_on_the_way = false;   // some host lost a tail before the acknowledgement arrived: it may have confirmed
    bool owner_lost = false;        // some owner lost a tail since: it may have taken the write, and confirmed a hint
    bool disk_lost = false;         // some host lost its disk, and with it what was synced, and hints
    std::set<std::size_t> empty_owners;  // owners that did
    /// The quorum that confirmed it is still one.
    bool certain() const { return !disk_lost && (sync || (lost_at.empty() && !lost_on_the_way)); }
    /// And its hints are, or did their work for good.
    bool drains() const { return certain() && (sync || !owner_lost); }
    bool may_vanish(std::size_t write_quorum) const {
      if (empty_owners.size() >= write_quorum) return true;  // its hints may have gone to them
      if (lost_at.size() < holders.size()) return false;
      return disk_lost || (!sync && (lost_on_the_way || !holders.empty()));
    }
    void lose_tail(std::size_t host, bool owner);
    void lose_disk(std::size_t host, bool owner);
  };
  struct Write : Kept {
    RowKey key;
    std::set<WriteId> superseded;
    bool discard_only = false;
    bool tombstone = false;
    bool reaped = false;              // at some owner, once
    std::set<std::size_t> reaped_at;  // owners that have not lost anything since
    bool refused = false;
    Hlc hlc;  // once it is known
  };
  struct Block : Kept {
    bool damaged = false;  // somewhere, once: who confirms that it is there may not have looked
    SharedBytes bytes;
  };
  bool owns(std::size_t host, const Write& w) const;
  bool owns(std::size_t host, const BlockKey& key) const;
  /// What `host` has of it, it keeps for the cluster: it is an owner, or has a hint. What others saved before they were
  /// killed, with no hint yet, no answer rests on and nobody looks for.
  bool keeps(std::size_t host, const Write& w) const;
  bool holds(std::size_t host, WriteId id) const;
  std::set<std::size_t> holders_of(WriteId id) const;
  std::set<std::size_t> holders_of(const BlockKey& key) const;
  bool holds_synced(std::size_t host, WriteId id) const;
  void check_clock(Write& w, WriteId id, Hlc hlc);
  void check_confirmed(const Kept& kept, const std::set<std::size_t>& confirmed, VolumeId volume, const Bytes& key,
                       const std::string& what);
  void check_stays_dead(const Write& w, const std::set<WriteId>& live);
  bool accounted_for(WriteId id, const std::set<WriteId>& live) const;
  std::set<WriteId> live_in(const Row& row);

  World& world_;
  std::vector<Write> writes_;  // by id - 1
  std::map<RowKey, std::vector<WriteId>> by_key_;
  std::map<WriteId, std::vector<WriteId>> superseded_by_;  // attempted or acknowledged
  std::map<std::pair<std::size_t, RowKey>, std::set<WriteId>> last_saved_;
  std::map<Dot, WriteId> dots_;
  std::map<BlockKey, Block> blocks_;
  std::vector<std::string> violations_;
  std::int64_t last_loss_us_ = -1;  // when some host last lost a tail
  std::int64_t last_disk_loss_us_ = -1;
};

}  // namespace kinfs::sim
