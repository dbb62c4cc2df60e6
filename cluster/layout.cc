#include "cluster/layout.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

namespace kinfs::cluster {
namespace {

struct Host {
  NodeId node;
  const Role* role;
};

struct Token {
  std::uint64_t position;
  std::size_t host;
  auto operator<=>(const Token&) const = default;
};

std::vector<Host> members_of(const LayoutRecord& record) {
  std::vector<Host> out;
  for (const auto& [node, role] : record.roles) {
    if (role.part == Role::Part::kMember) out.push_back({node, &role});
  }
  return out;
}

std::vector<Token> tokens_of(const std::vector<Host>& hosts) {
  std::vector<Token> tokens;
  for (std::size_t h = 0; h < hosts.size(); ++h) {
    for (std::uint32_t i = 0; i < kTokensPerWeight * std::max(1u, hosts[h].role->weight); ++i) {
      CanonicalWriter w;
      w.bytes("token").u64(static_cast<std::uint64_t>(hosts[h].node)).u64(i);
      tokens.push_back({read_be64(view_of(md5(w.out()))), h});
    }
  }
  std::sort(tokens.begin(), tokens.end());
  return tokens;
}

// Moves hosts of zones not used yet to the front, until `replicas` are placed or all zones are used.
void spread_over_zones(std::vector<std::size_t>& order, const std::vector<Host>& hosts, std::uint32_t replicas) {
  std::set<std::string> used;
  auto placed = order.begin();
  for (std::uint32_t i = 0; i < replicas && placed != order.end(); ++i) {
    const auto next =
        std::find_if(placed, order.end(), [&](std::size_t h) { return !used.contains(hosts[h].role->zone); });
    if (next == order.end()) return;
    used.insert(hosts[*next].role->zone);
    std::rotate(placed, next, next + 1);
    ++placed;
  }
}

}  // namespace

Layout::Layout(const LayoutRecord& record) : id_(record.id) {
  const auto hosts = members_of(record);
  hosts_ = hosts.size();
  replicas_ = std::min(record.replicas, static_cast<std::uint32_t>(hosts_));
  const auto tokens = tokens_of(hosts);
  order_.reserve(std::size_t{kPartitions} * hosts_);
  for (std::uint32_t p = 0; p < kPartitions; ++p) {
    const std::uint64_t start = (~0ull / kPartitions + 1) * p;
    auto at = std::lower_bound(tokens.begin(), tokens.end(), Token{start, 0});
    std::vector<std::size_t> order;
    std::vector<bool> seen(hosts_);
    for (std::size_t step = 0; step < tokens.size() && order.size() < hosts_; ++step, ++at) {
      if (at == tokens.end()) at = tokens.begin();
      if (!seen[at->host]) order.push_back(at->host);
      seen[at->host] = true;
    }
    spread_over_zones(order, hosts, replicas_);
    for (const auto h : order) order_.push_back(hosts[h].node);
  }
}

bool Layout::owns(NodeId node, std::uint16_t partition) const {
  const auto list = owners(partition);
  return std::find(list.begin(), list.end(), node) != list.end();
}

LayoutRecord first_layout(std::uint64_t number, std::uint32_t replicas, const std::vector<Member>& members) {
  LayoutRecord out;
  out.replicas = replicas;
  for (const auto& m : members) {
    out.roles.emplace(m.node, Role{Role::Part::kMember, {}, m.weight, m.zone, {}});
  }
  out.id = number == 0 ? LayoutId{} : layout_id_of(number, out);
  return out;
}

}  // namespace kinfs::cluster
