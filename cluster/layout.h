// Who owns what in one layout: a pure function of its record.
//
// Q fixed partitions, each placed by walking the token ring clockwise from its start and taking hosts in the
// order in which their tokens are met (DeCandia et al. 2007, section 6.2, strategy 3). Zones first: the first
// N hosts are of different zones for as long as there are any left.
//
// By the rule kBoundedLoads no host owns more than kMostLoad of its share (Mirrokni, Thorup, Zadimoghaddam 2018,
// "Consistent hashing with bounded loads"): a host that has as much is passed by. A share is what the host's weight
// asks for, and at most one copy of everything. What has to be passed by is found in an order of the partitions that
// spreads it over the ring, so that a host which joins moves little more than what it gets.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "storage/layouts.h"
#include "storage/store.h"

namespace kinfs::cluster {

inline constexpr std::uint32_t kTokensPerWeight = 256;
inline constexpr std::uint64_t kMaxTokens = 1 << 20;  // of all hosts, about; where there would be more, all have fewer
inline constexpr double kMostLoad = 1.08;

class Layout {
 public:
  /// Fewer members than the record's replicas own everything together.
  explicit Layout(const LayoutRecord& record);

  LayoutId id() const { return id_; }
  /// Every member, best first; the first replicas() of them are the owners, the others stand in for them in this
  /// order.
  std::span<const NodeId> preference(std::uint16_t partition) const {
    return {order_.data() + std::size_t{partition} * hosts_, hosts_};
  }
  std::span<const NodeId> owners(std::uint16_t partition) const { return preference(partition).first(replicas_); }
  bool owns(NodeId node, std::uint16_t partition) const;
  std::uint32_t replicas() const { return replicas_; }
  std::size_t hosts() const { return hosts_; }

 private:
  LayoutId id_;
  std::uint32_t replicas_ = 0;
  std::size_t hosts_ = 0;
  std::vector<NodeId> order_;  // kPartitions rows of hosts_
};

/// A layout with these members that follows from no other.
LayoutRecord first_layout(std::uint64_t number, std::uint32_t replicas, const std::vector<Member>& members,
                          PlacementRule rule = PlacementRule::kRing);

}  // namespace kinfs::cluster
