// The checkers: what clients wrote and were told, and whether the cluster kept its word.
//
// They stand outside of the nodes and know nothing of planted bugs: they see requests, answers, and, as an
// omniscient observer, what lies on which disk. Promises held:
//  - every acknowledged write is current, or something that was written over it is accounted for in turn, or it
//    was discarded by a client that was shown it (no lost update; siblings are never dropped unseen);
//  - an unsynced write may vanish only when every host that had it at its acknowledgement lost its disk's tail;
//    a synced one never;
//  - an answer that is not degraded was confirmed by W owners;
//  - after an answer that is not degraded, no later read that is not degraded misses it;
//  - what an acknowledged write superseded does not come back;
//  - one write shows once, however often it was sent; no dot ever names two writes;
//  - once healed: hints drain, W owners hold every acknowledged write, and after one read of each key all owners
//    are equal; every acknowledged block can be read.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "sim/world.h"

namespace kinfs::sim {

using WriteId = std::uint64_t;

/// The bytes of a write, by which the checkers know it again.
Bytes value_of(WriteId id);
WriteId id_of_value(const Bytes& value);

class History : public World::Observer {
 public:
  explicit History(World& world) : world_(world) { world.observe(this); }

  /// A client is about to send a put of one row. `superseded`: the writes it means to replace.
  WriteId begin(const RowKey& key, std::set<WriteId> superseded, bool discard_only);
  void acknowledged(WriteId id, bool sync, bool degraded);
  /// A client is about to read: what it must see is fixed now.
  struct Expectation {
    std::vector<WriteId> writes;
  };
  Expectation expect(const RowKey& key) const;
  void read(const RowKey& key, const Expectation& expectation, const Row& row, bool degraded);
  void begin_block(const BlockKey& key, const SharedBytes& bytes);
  void acknowledged_block(const BlockKey& key, bool sync);
  void read_block(const BlockKey& key, const SharedBytes& bytes);

  /// After healing, before any read.
  void check_drained();
  /// After one read of each key.
  void check_converged();
  /// All blocks that must be readable.
  std::vector<BlockKey> blocks_that_must_be() const;

  void saved(std::size_t host, const Batch& batch) override;
  void lost_tail(std::size_t host) override;

  void violation(const std::string& what);
  const std::vector<std::string>& violations() const { return violations_; }
  std::vector<RowKey> keys() const;
  std::uint64_t true_siblings = 0;  // reads that showed more than one live write

 private:
  struct Write {
    RowKey key;
    std::set<WriteId> superseded;
    bool discard_only = false;
    bool acknowledged = false, sync = false, degraded = false;
    std::set<std::size_t> holders;  // hosts that had it when it was acknowledged
    std::set<std::size_t> lost_at;  // of those, the ones that lost a tail since
    bool lost_on_the_way = false;   // some host lost a tail before the acknowledgement arrived: it may have confirmed
    bool owner_lost = false;        // some owner lost a tail since: it may have taken the write, and confirmed a hint
    bool certain() const { return lost_at.empty() && !lost_on_the_way; }
    bool may_vanish() const { return !sync && !holders.empty() && lost_at.size() == holders.size(); }
  };
  struct Block {
    SharedBytes bytes;
    bool acknowledged = false, sync = false;
    std::set<std::size_t> holders, lost_at;
  };
  bool holds(std::size_t host, WriteId id) const;
  bool accounted_for(WriteId id, const std::set<WriteId>& live) const;
  std::set<WriteId> live_in(const Row& row);

  World& world_;
  std::vector<Write> writes_;  // by id - 1
  std::map<RowKey, std::vector<WriteId>> by_key_;
  std::map<WriteId, std::vector<WriteId>> superseded_by_;  // attempted or acknowledged
  std::map<Dot, Bytes> dots_;
  std::map<BlockKey, Block> blocks_;
  std::vector<std::string> violations_;
  std::int64_t last_loss_us_ = -1;  // when some host last lost a tail
};

}  // namespace kinfs::sim
