// Reads every block that is kept here, one after the other, and compares it with its hash: a disk may give back
// something else than was written, years later and without a word. What is damaged is never served (Reader::get_block);
// here it is also found while another owner still has it, and written anew.
//
// Paced: a whole pass takes about NodeConfig::scrub_interval_ms, or, where that would be more than one block in a tick,
// as long as that takes. Where it was is not kept: a start begins anew. Rows carry checksums in RocksDB's tables, which
// anti-entropy reads through.
//
// Threading: none.
#pragma once

#include <deque>
#include <optional>
#include <set>
#include <vector>

#include "cluster/core.h"

namespace kinfs::cluster {

class Scrub {
 public:
  explicit Scrub(Core& core) : core_(core) {}
  void start();
  /// Before anything else of the tick has saved.
  void tick();
  // Those that return bool: whether the answer was to a question from here.
  bool replied(std::uint64_t id, NodeId from, const ReadBlockReply& reply);
  void refused(std::uint64_t id, NodeId from);
  /// The pass under way, or a new one, goes on as fast as it can.
  void hurry();
  /// How much of the pass under way is done, 0 to 1.
  double done() const { return static_cast<double>(partition_) / kPartitions; }
  /// The blocks that were damaged when they were last read, and that no other owner could give.
  std::size_t beyond_repair() const { return beyond_repair_.size(); }

 private:
  /// A damaged block, and who is asked for it.
  struct Mending {
    BlockKey key;
    std::vector<NodeId> left;  // to be asked
    std::uint64_t id = 0;      // of the question to `asked`
    NodeId asked{};
    std::int64_t deadline_ms = 0;
  };
  std::optional<BlockKey> next();
  void look(const BlockKey& key);
  void ask_next();
  std::int64_t pause_ms() const;

  Core& core_;
  std::uint32_t partition_ = 0;  // that is being read; kPartitions: all are
  Bytes after_;                  // keys up to here have been
  std::deque<Item> page_;
  bool last_page_ = false;
  std::int64_t next_ms_ = 0;
  bool hurries_ = false;
  std::optional<Mending> mending_;
  std::set<BlockKey> beyond_repair_;
};

}  // namespace kinfs::cluster
