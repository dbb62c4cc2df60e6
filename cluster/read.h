// Coordinating get, of a row or of a page of rows: Dynamo's four steps (DeCandia et al. 2007, section 4.5),
// and read repair (section 5), which here includes replicas that had nothing.
//
// Absence is concluded only from R owners or, when this host is cut off, from an own replica. Otherwise the
// answer is kUnavailable: never "no such file", never a short listing.
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <variant>
#include <vector>

#include "cluster/core.h"

namespace kinfs::cluster {

class ReadCoordinator {
 public:
  explicit ReadCoordinator(Core& core) : core_(core) {}
  void get(const Asker& asker, GetRequest request);
  void scan(const Asker& asker, ScanRequest request);
  void replied(std::uint64_t id, NodeId from, ReadRowReply reply);
  void replied(std::uint64_t id, NodeId from, ReadPageReply reply);
  void refused(std::uint64_t id, NodeId from);
  void tick();
  bool has(std::uint64_t id) const { return under_way_.contains(id); }
  std::size_t size() const { return under_way_.size(); }
  std::size_t unanswered() const { return under_way_.size() - answered_; }

 private:
  struct Found {
    NodeId node{};
    bool owner = false;
    RowPage page;
    PartitionStat stat;
  };
  struct UnderWay {
    Asker asker;
    std::variant<GetRequest, ScanRequest> request;
    std::vector<Found> found;
    std::vector<NodeId> pending;
    std::uint32_t quorum = 0;  // as of the layout under which the owners were asked
    std::int64_t deadline_ms = 0;
    bool answered = false;
    Held held;  // what was found
  };
  void begin(UnderWay op);
  bool read_here(UnderWay& op, bool owner);
  void add(std::uint64_t id, NodeId from, RowPage page, const PartitionStat& stat);
  void settle(std::uint64_t id);
  void answer(std::uint64_t id, UnderWay& op, bool degraded);
  void repair(const UnderWay& op);

  Core& core_;
  std::unordered_map<std::uint64_t, UnderWay> under_way_;
  std::size_t answered_ = 0;  // of these
};

/// Pages of several replicas as one: rows merged, cut where the shortest incomplete page ends.
RowPage reconcile(const std::vector<const RowPage*>& pages);

}  // namespace kinfs::cluster
