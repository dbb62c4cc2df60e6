// What a node does as a replica: it merges states that it is sent, keeps hints that it is given, and says what
// it has.
#pragma once

#include "cluster/core.h"

namespace kinfs::cluster {

/// Where an answer goes: without the message itself, which may carry a block.
struct ReturnTo {
  NodeId node{};
  std::uint64_t id = 0;
};

class Replica {
 public:
  explicit Replica(Core& core) : core_(core) {}
  void write_rows(const Message& message, const WriteRows& write);
  void take_over(const Message& message, const HandOver& hand_over);
  void read_row(const Message& message, const ReadRow& read);
  void read_page(const Message& message, const ReadPage& read);
  void write_block(const Message& message, const WriteBlock& write);
  void read_block(const Message& message, const ReadBlock& read);
  void sync_store(const Message& message);
  void sync_blocks(const Message& message, const SyncBlocks& sync);

 private:
  /// The owners in the head, where this node is one in an earlier layout alone: what it takes now, after it may have
  /// given them all that it has (AntiEntropy::give_all), it must hand on, since nobody will look for it here.
  std::vector<NodeId> successors(std::uint16_t partition) const;
  void reply(std::uint64_t origin, ReturnTo to, Body body);
  void refuse(std::uint64_t origin, ReturnTo to, Error error);
  /// Saves, and confirms as confirm() does; or refuses.
  void save_rows(std::uint64_t origin, ReturnTo to, bool sync, Batch batch);
  /// Confirms once what was saved is as durable as was asked for.
  void confirm(std::uint64_t origin, ReturnTo to, bool sync, Body body);

  Core& core_;
};

/// Whether a block that could not be read is not here: any other error is this host's, and may pass.
inline bool is_lost(const Error& error) { return error.code == Errc::kNotFound || error.code == Errc::kCorrupt; }

/// Whether each of `blocks` is stored here.
Result<bool> has_all(const Core& core, const BlockSet& blocks);

/// Equal exactly when two replicas' pages are: the same rows in the same states, and the same end.
Digest128 digest_of(const RowPage& page);

/// Merges `states` into what is stored, without what is dead (reaper.h), and adds what changed to `batch`.
Result<void> merge_into_store(Core& core, VolumeId volume, const Bytes& partition_key,
                              const std::vector<std::pair<Bytes, Row>>& states, Batch& batch);

}  // namespace kinfs::cluster
