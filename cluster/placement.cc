#include "cluster/placement.h"

#include <algorithm>
#include <utility>

namespace kinfs::cluster {
namespace {

bool contains(const std::vector<NodeId>& nodes, NodeId node) {
  return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
}

/// Those of `nodes` that are not in it yet.
void add(std::vector<NodeId>& to, std::span<const NodeId> nodes) {
  if (to.empty()) return to.assign(nodes.begin(), nodes.end());
  const std::set<NodeId> known(to.begin(), to.end());
  for (const auto node : nodes) {
    if (!known.contains(node)) to.push_back(node);
  }
}

}  // namespace

bool OwnerQuorum::met_by(const std::vector<NodeId>& confirmed) const {
  const auto count = std::count_if(owners.begin(), owners.end(), [&](NodeId n) { return contains(confirmed, n); });
  return static_cast<std::uint32_t>(count) >= quorum;
}

bool met_by(const OwnerQuorums& quorums, const std::vector<NodeId>& confirmed) {
  return std::all_of(quorums.begin(), quorums.end(), [&](const auto& q) { return q.met_by(confirmed); });
}

void Placement::set(LayoutHistory history) {
  history_ = std::move(history);
  hosts_.clear();
  std::map<LayoutId, Layout> layouts;
  for (const auto* record : history_.active()) {
    auto known = layouts_.extract(record->id);
    if (known) {
      layouts.insert(std::move(known));
    } else {
      layouts.emplace(record->id, Layout(*record));
    }
    for (const auto& [node, role] : record->roles) {
      if (role.part == Role::Part::kMember) hosts_.insert(node);
    }
  }
  layouts_ = std::move(layouts);
  head_ = &layouts_.at(history_.head().id);
  reading_ = &layouts_.at(history_.reading(self_).id);
}

bool Placement::owns(NodeId node, std::uint16_t partition) const {
  return std::any_of(layouts_.begin(), layouts_.end(), [&](const auto& l) { return l.second.owns(node, partition); });
}

std::vector<NodeId> Placement::owners(std::uint16_t partition) const {
  std::vector<NodeId> out;
  add(out, head_->owners(partition));
  if (layouts_.size() == 1) return out;
  for (const auto& [id, layout] : layouts_) add(out, layout.owners(partition));
  return out;
}

std::vector<NodeId> Placement::preference(std::uint16_t partition) const {
  std::vector<NodeId> out;
  if (layouts_.size() > 1) out = owners(partition);
  add(out, head_->preference(partition));
  return out;
}

OwnerQuorums Placement::write_quorums(std::uint16_t partition) const {
  OwnerQuorums out;
  for (const auto& [id, layout] : layouts_) {
    const auto owners = layout.owners(partition);
    out.push_back({{owners.begin(), owners.end()}, quorum_of(quorum_.w, layout)});
  }
  return out;
}

std::uint32_t Placement::quorum_of(std::uint32_t asked, const Layout& layout) {
  return asked == 0 ? layout.replicas() / 2 + 1 : std::min(asked, layout.replicas());
}

}  // namespace kinfs::cluster
