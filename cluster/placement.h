// Who owns what, in all layouts that are active, and how many of them it takes.
//
// While a change of members is under way there are several (layout_history.h): a write reaches its quorum among the
// owners of each, a read goes by one of them. Those who own something in any of them count as owners of it; the head,
// which will be the only one, gives the order.
//
// Threading: none.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "cluster/layout.h"
#include "cluster/layout_history.h"
#include "cluster/node.h"

namespace kinfs::cluster {

/// The owners of a partition in one layout, and how many of them must have confirmed.
struct OwnerQuorum {
  std::vector<NodeId> owners;
  std::uint32_t quorum = 0;
  /// `confirmed`: each once.
  bool met_by(const std::vector<NodeId>& confirmed) const;
};
using OwnerQuorums = std::vector<OwnerQuorum>;
bool met_by(const OwnerQuorums& quorums, const std::vector<NodeId>& confirmed);

class Placement {
 public:
  /// Of each, as NodeConfig has it.
  Placement(NodeId self, Quorum quorum) : self_(self), quorum_(quorum) { set({}); }
  Placement(const Placement&) = delete;
  Placement& operator=(const Placement&) = delete;
  void set(LayoutHistory history);

  const LayoutHistory& history() const { return history_; }
  const Layout& head() const { return *head_; }
  const Layout& reading() const { return *reading_; }
  /// All hosts that are members in some active layout.
  const std::set<NodeId>& hosts() const { return hosts_; }

  /// In any active layout.
  bool owns(NodeId node, std::uint16_t partition) const;
  /// As well; those of the head first, best first.
  std::vector<NodeId> owners(std::uint16_t partition) const;
  /// The owners, then who stands in for them, in that order.
  std::vector<NodeId> preference(std::uint16_t partition) const;
  OwnerQuorums write_quorums(std::uint16_t partition) const;
  std::uint32_t read_quorum() const { return quorum_of(quorum_.r, *reading_); }
  std::uint32_t write_quorum() const { return quorum_of(quorum_.w, *head_); }

 private:
  static std::uint32_t quorum_of(std::uint32_t asked, const Layout& layout);

  const NodeId self_;
  const Quorum quorum_;
  LayoutHistory history_;
  std::map<LayoutId, Layout> layouts_;  // the active ones
  std::set<NodeId> hosts_;
  const Layout* head_ = nullptr;
  const Layout* reading_ = nullptr;
};

}  // namespace kinfs::cluster
