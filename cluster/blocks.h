// Blocks: immutable, named by their hash, so that any replica may serve one and nothing is ever reconciled.
#pragma once

#include <unordered_map>
#include <vector>

#include "cluster/replication.h"

namespace kinfs::cluster {

class BlockCoordinator {
 public:
  BlockCoordinator(Core& core, Replication& replication) : core_(core), replication_(replication) {}
  void put(const Asker& asker, PutBlockRequest request);
  void get(const Asker& asker, const GetBlockRequest& request);
  /// Asks the owners that are healthy whether they have all of them on disk. Keeps no hints and sends no bytes: where
  /// that is not enough for W, the asker puts the blocks again.
  void sync(const Asker& asker, const BlockSet& blocks);
  void replied(std::uint64_t id, NodeId from, const ReadBlockReply& reply);
  void synced(std::uint64_t id, NodeId from, bool all);
  void refused(std::uint64_t id, NodeId from);
  void tick();
  bool has(std::uint64_t id) const { return under_way_.contains(id); }
  std::size_t size() const { return under_way_.size() + syncing_.size(); }
  /// Whether a sync that began under an id before that is under way.
  bool syncs_before(std::uint64_t id) const;

 private:
  struct UnderWay {
    Asker asker;
    BlockKey key;
    std::vector<NodeId> left;  // to be asked, best last
    NodeId asked{};
    std::int64_t deadline_ms = 0;
    std::vector<NodeId> without;  // those that said that they do not have it
  };
  struct Syncing {
    Asker asker;
    std::vector<NodeId> asked;  // and not heard of; this node too
    std::vector<NodeId> confirmed;
    OwnerQuorums quorums;
    std::int64_t deadline_ms = 0;
  };
  void ask_next(std::uint64_t id);
  void settle_sync(std::uint64_t id);

  Core& core_;
  Replication& replication_;
  std::unordered_map<std::uint64_t, UnderWay> under_way_;
  std::unordered_map<std::uint64_t, Syncing> syncing_;
};

}  // namespace kinfs::cluster
