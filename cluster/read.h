// Coordinating get, of a row or of a page of rows: Dynamo's four steps (DeCandia et al. 2007, section 4.5),
// and read repair (section 5), which here includes replicas that had nothing.
//
// Two savings, since nearly all reads find all replicas alike:
//  - replicas are told the digest of what this node has, and where theirs is the same answer no more than that;
//  - only as many are asked as the quorum takes, those first that lately answered soonest. The rest are asked as well
//    when one is late, fails, or has something else, and in one read of kAskAllOneIn in any case: so a replica that is
//    behind is met sooner or later, and slower ones are given the chance to have become faster. Where anti-entropy is
//    turned off all are always asked.
//
// Absence is concluded only from R owners or, when this host is cut off, from an own replica. Otherwise the
// answer is kUnavailable: never "no such file", never a short listing.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <unordered_map>
#include <variant>
#include <vector>

#include "cluster/core.h"
#include "cluster/horizon.h"

namespace kinfs::cluster {

inline constexpr std::uint32_t kAskAllOneIn = 8;
inline constexpr std::int64_t kLateMs = 20;   // at least, before the rest are asked too
inline constexpr std::int64_t kLateShare = 4;  // at most this part of a read's time, so that the rest have theirs

/// Pages of several replicas as one: rows merged, each with its replica's floor (reaper.h), cut where the shortest
/// incomplete page ends.
struct FlooredPage {
  const RowPage* page = nullptr;
  Hlc floor;
};
RowPage reconcile(const std::vector<FlooredPage>& pages);

class ReadCoordinator {
 public:
  ReadCoordinator(Core& core, const Horizon& horizon) : core_(core), horizon_(horizon) {}
  void get(const Asker& asker, GetRequest request);
  void scan(const Asker& asker, ScanRequest request);
  void replied(std::uint64_t id, NodeId from, ReadRowReply reply);
  void replied(std::uint64_t id, NodeId from, ReadPageReply reply);
  void refused(std::uint64_t id, NodeId from);
  void tick();
  bool has(std::uint64_t id) const { return under_way_.contains(id); }
  std::size_t size() const { return under_way_.size(); }
  std::size_t unanswered() const { return under_way_.size() - answered_; }
  /// Whether one that is not answered goes by another layout than that.
  bool goes_by_another(const LayoutId& layout) const;

 private:
  struct Found {
    NodeId node{};
    bool owner = false;
    bool same = false;  // as what was found first; `page` is empty
    RowPage page;
    PartitionStat stat;
    Hlc floor = {};
  };
  struct Asked {
    NodeId node{};
    std::int64_t since_ms = 0;
  };
  struct UnderWay {
    Asker asker;
    std::variant<GetRequest, ScanRequest> request;
    std::vector<Found> found;
    std::vector<Asked> pending;
    std::vector<NodeId> more;        // not asked yet
    std::optional<Digest128> known;  // of what was found first
    bool told = false;               // the replicas are asked whether they have that
    LayoutId layout;                 // in which the quorum is counted
    std::vector<NodeId> owners;      // there
    std::uint32_t quorum = 0;
    std::int64_t asked_ms = 0;
    std::int64_t deadline_ms = 0;
    bool answered = false;
    Held held;  // what was found
  };
  void begin(UnderWay op);
  bool read_here(UnderWay& op, bool owner);
  void choose(UnderWay& op, std::uint16_t partition, std::size_t others);
  void ask(std::uint64_t id, UnderWay& op, NodeId node);
  void ask_rest(std::uint64_t id, UnderWay& op);
  void add(std::uint64_t id, Found found);
  void settle(std::uint64_t id);
  void answer(std::uint64_t id, UnderWay& op, bool degraded);
  void repair(const UnderWay& op);
  std::vector<FlooredPage> differing(const UnderWay& op) const;
  void took(const Asked& asked);
  std::int64_t usual_ms(NodeId node) const;

  Core& core_;
  const Horizon& horizon_;
  std::unordered_map<std::uint64_t, UnderWay> under_way_;
  std::map<NodeId, std::int64_t> took_;  // how long answers take lately, in 1/8 ms
  std::size_t answered_ = 0;  // of these
};

}  // namespace kinfs::cluster
