#include "cluster/layout.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <string>
#include <utility>

namespace kinfs::cluster {
namespace {

constexpr std::uint32_t kStride = 633;  // near the golden section of kPartitions, and prime to it

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
  const auto weight = [](const Host& host) { return std::uint64_t{std::max(1u, host.role->weight)}; };
  std::uint64_t sum = 0;
  for (const auto& host : hosts) sum += weight(host);
  std::vector<Token> tokens;
  for (std::size_t h = 0; h < hosts.size(); ++h) {
    auto count = kTokensPerWeight * weight(hosts[h]);
    if (kTokensPerWeight * sum > kMaxTokens) count = std::max<std::uint64_t>(1, kMaxTokens * weight(hosts[h]) / sum);
    for (std::uint64_t i = 0; i < count; ++i) {
      CanonicalWriter w;
      w.bytes("token").u64(static_cast<std::uint64_t>(hosts[h].node)).u64(i);
      tokens.push_back({read_be64(view_of(md5(w.out()))), h});
    }
  }
  std::sort(tokens.begin(), tokens.end());
  return tokens;
}

/// All hosts, as the ring names them from the start of the partition on.
std::vector<std::size_t> ring_order(std::uint32_t partition, const std::vector<Token>& tokens, std::size_t hosts) {
  const std::uint64_t start = (~0ull / kPartitions + 1) * partition;
  auto at = std::lower_bound(tokens.begin(), tokens.end(), Token{start, 0});
  std::vector<std::size_t> order;
  std::vector<bool> seen(hosts);
  for (std::size_t step = 0; step < tokens.size() && order.size() < hosts; ++step, ++at) {
    if (at == tokens.end()) at = tokens.begin();
    if (!seen[at->host]) order.push_back(at->host);
    seen[at->host] = true;
  }
  return order;
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

// How many partitions each host may own: kMostLoad of its share. Whose weight asks for more than all has all, and the
// others share the rest by their weights.
std::vector<double> capacities_of(const std::vector<Host>& hosts, std::uint32_t replicas) {
  std::vector<double> shares(hosts.size());
  double left = double{kPartitions} * replicas;
  std::vector<std::size_t> open(hosts.size());
  std::iota(open.begin(), open.end(), 0);
  while (!open.empty()) {
    double weights = 0;
    for (const auto h : open) weights += std::max(1u, hosts[h].role->weight);
    const auto share = [&](std::size_t h) { return left * std::max(1u, hosts[h].role->weight) / weights; };
    const auto has_all =
        std::stable_partition(open.begin(), open.end(), [&](std::size_t h) { return share(h) < kPartitions; });
    if (has_all == open.end()) {
      for (const auto h : open) shares[h] = share(h);
      break;
    }
    for (auto h = has_all; h != open.end(); ++h, left -= kPartitions) shares[*h] = kPartitions;
    open.erase(has_all, open.end());
  }
  for (auto& share : shares) share *= kMostLoad;
  return shares;
}

// Chooses owners that have not got their capacity yet.
class Balance {
 public:
  Balance(const std::vector<Host>& hosts, std::uint32_t replicas)
      : hosts_(hosts), replicas_(replicas), capacities_(capacities_of(hosts, replicas)), loads_(hosts.size()) {}

  // Moves the owners to the front of what the ring names.
  void place(std::vector<std::size_t>& order) {
    std::set<std::string> zones;
    auto placed = order.begin();
    for (std::uint32_t i = 0; i < replicas_; ++i, ++placed) {
      // Hosts of zones that are not used yet, where there are any, before the others.
      std::vector<std::vector<std::size_t>::iterator> may;
      for (auto h = placed; h != order.end(); ++h) {
        if (!zones.contains(hosts_[*h].role->zone)) may.push_back(h);
      }
      if (may.empty()) {
        for (auto h = placed; h != order.end(); ++h) may.push_back(h);
      }
      auto next = std::find_if(may.begin(), may.end(), [&](auto h) { return loads_[*h] + 1 <= capacities_[*h]; });
      if (next == may.end()) {  // all are full: the least so
        next = std::min_element(may.begin(), may.end(), [&](auto a, auto b) { return fill(*a) < fill(*b); });
      }
      ++loads_[**next];
      zones.insert(hosts_[**next].role->zone);
      std::rotate(placed, *next, *next + 1);
    }
  }

 private:
  double fill(std::size_t host) const { return loads_[host] / capacities_[host]; }

  const std::vector<Host>& hosts_;
  const std::uint32_t replicas_;
  const std::vector<double> capacities_;
  std::vector<double> loads_;  // partitions owned
};

}  // namespace

Layout::Layout(const LayoutRecord& record) : id_(record.id) {
  const auto hosts = members_of(record);
  hosts_ = hosts.size();
  replicas_ = std::min(record.replicas, static_cast<std::uint32_t>(hosts_));
  const auto tokens = tokens_of(hosts);
  order_.resize(std::size_t{kPartitions} * hosts_);
  Balance balance(hosts, replicas_);
  for (std::uint32_t i = 0; i < kPartitions; ++i) {
    const auto p = record.rule == PlacementRule::kRing ? i : i * kStride % kPartitions;
    auto order = ring_order(p, tokens, hosts_);
    if (record.rule == PlacementRule::kRing) {
      spread_over_zones(order, hosts, replicas_);
    } else {
      balance.place(order);
    }
    for (std::size_t h = 0; h < hosts_; ++h) order_[std::size_t{p} * hosts_ + h] = hosts[order[h]].node;
  }
}

bool Layout::owns(NodeId node, std::uint16_t partition) const {
  const auto list = owners(partition);
  return std::find(list.begin(), list.end(), node) != list.end();
}

LayoutRecord first_layout(std::uint64_t number, std::uint32_t replicas, const std::vector<Member>& members,
                          PlacementRule rule) {
  LayoutRecord out;
  out.replicas = replicas;
  out.rule = rule;
  for (const auto& m : members) {
    out.roles.emplace(m.node, Role{Role::Part::kMember, {}, m.weight, m.zone, {}});
  }
  out.id = number == 0 ? LayoutId{} : layout_id_of(number, out);
  return out;
}

}  // namespace kinfs::cluster
