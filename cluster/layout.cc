#include "cluster/layout.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

namespace kinfs::cluster {
namespace {

struct Token {
  std::uint64_t position;
  std::size_t member;
  auto operator<=>(const Token&) const = default;
};

std::vector<Token> tokens_of(const std::vector<Member>& members) {
  std::vector<Token> tokens;
  for (std::size_t m = 0; m < members.size(); ++m) {
    for (std::uint32_t i = 0; i < kTokensPerWeight * std::max(1u, members[m].weight); ++i) {
      CanonicalWriter w;
      w.bytes("token").u64(static_cast<std::uint64_t>(members[m].node)).u64(i);
      tokens.push_back({read_be64(view_of(md5(w.out()))), m});
    }
  }
  std::sort(tokens.begin(), tokens.end());
  return tokens;
}

// Moves hosts of zones not used yet to the front, until `replicas` are placed or all zones are used.
void spread_over_zones(std::vector<std::size_t>& order, const std::vector<Member>& members, std::uint32_t replicas) {
  std::set<std::string> used;
  auto placed = order.begin();
  for (std::uint32_t i = 0; i < replicas && placed != order.end(); ++i) {
    const auto next = std::find_if(placed, order.end(), [&](std::size_t m) { return !used.contains(members[m].zone); });
    if (next == order.end()) return;
    used.insert(members[*next].zone);
    std::rotate(placed, next, next + 1);
    ++placed;
  }
}

}  // namespace

Layout::Layout(std::uint64_t number, const std::vector<Member>& given, std::uint32_t replicas)
    : replicas_(std::min<std::uint32_t>(replicas, static_cast<std::uint32_t>(given.size()))), hosts_(given.size()) {
  auto members = given;
  std::sort(members.begin(), members.end(), [](const Member& a, const Member& b) { return a.node < b.node; });
  CanonicalWriter identity;
  identity.u64(number).u64(replicas);
  for (const auto& m : members) identity.u64(static_cast<std::uint64_t>(m.node)).u64(m.weight).bytes(m.zone);
  id_ = {number, read_be64(view_of(sha256(identity.out())))};

  const auto tokens = tokens_of(members);
  order_.reserve(std::size_t{kPartitions} * hosts_);
  for (std::uint32_t p = 0; p < kPartitions; ++p) {
    const std::uint64_t start = (~0ull / kPartitions + 1) * p;
    auto at = std::lower_bound(tokens.begin(), tokens.end(), Token{start, 0});
    std::vector<std::size_t> order;
    std::vector<bool> seen(hosts_);
    for (std::size_t step = 0; step < tokens.size() && order.size() < hosts_; ++step, ++at) {
      if (at == tokens.end()) at = tokens.begin();
      if (!seen[at->member]) order.push_back(at->member);
      seen[at->member] = true;
    }
    spread_over_zones(order, members, replicas_);
    for (const auto m : order) order_.push_back(members[m].node);
  }
}

bool Layout::owns(NodeId node, std::uint16_t partition) const {
  const auto list = owners(partition);
  return std::find(list.begin(), list.end(), node) != list.end();
}

}  // namespace kinfs::cluster
