// Who owns what: loads, how much a change moves, weights and zones, and that a rule never changes.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "cluster/layout.h"
#include "storage/bytes.h"

namespace kinfs::cluster {
namespace {

constexpr int kClusters = 20;

std::vector<Member> hosts(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Member> out(count);
  for (auto& m : out) m.node = NodeId{random()};
  return out;
}

Layout layout_of(const std::vector<Member>& members, PlacementRule rule = kLatestRule) {
  return Layout(first_layout(1, 3, members, rule));
}

std::map<NodeId, double> loads_of(const Layout& layout) {
  std::map<NodeId, double> out;
  for (std::uint32_t p = 0; p < kPartitions; ++p) {
    for (const auto owner : layout.owners(static_cast<std::uint16_t>(p))) ++out[owner];
  }
  return out;
}

// Of all copies, those on a host that had none of that partition before.
double moved(const Layout& from, const Layout& to) {
  std::uint32_t count = 0, all = 0;
  for (std::uint32_t p = 0; p < kPartitions; ++p) {
    const auto partition = static_cast<std::uint16_t>(p);
    for (const auto owner : to.owners(partition)) {
      ++all;
      count += from.owns(owner, partition) ? 0 : 1;
    }
  }
  return static_cast<double>(count) / all;
}

// As moved(), where the copies of partition p are on the hosts p, p + 1, p + 2 modulo their number.
double moved_by_modulo(std::uint32_t from, std::uint32_t to) {
  std::uint32_t count = 0;
  for (std::uint32_t p = 0; p < kPartitions; ++p) {
    std::set<std::uint32_t> before;
    for (std::uint32_t i = 0; i < 3; ++i) before.insert((p + i) % from);
    for (std::uint32_t i = 0; i < 3; ++i) count += before.contains((p + i) % to) ? 0 : 1;
  }
  return count / (3.0 * kPartitions);
}

TEST(Layout, NoHostOwnsMuchMoreThanItsShare) {
  for (const std::size_t count : {4u, 10u, 30u}) {
    double most = 0;
    for (std::uint64_t seed = 1; seed <= kClusters; ++seed) {
      for (const auto& [node, load] : loads_of(layout_of(hosts(count, seed)))) {
        most = std::max(most, load * static_cast<double>(count) / (3.0 * kPartitions));
      }
    }
    fmt::print("{} hosts: the largest load is {:.3f} of the mean\n", count, most);
    EXPECT_LE(most, 1.10) << count;
  }
}

TEST(Layout, AJoinMovesLittleMoreThanWhatTheNewHostGets) {
  fmt::print("hosts   moved (mean, worst)   1/n     modulo\n");
  for (const std::uint32_t count : {4u, 10u, 20u}) {
    double sum = 0, worst = 0;
    for (std::uint64_t seed = 1; seed <= kClusters; ++seed) {
      auto members = hosts(count + 1, seed);
      const auto to = layout_of(members);
      members.pop_back();
      const auto share = moved(layout_of(members), to);
      sum += share;
      worst = std::max(worst, share);
    }
    const double fair = 1.0 / (count + 1);
    fmt::print("{:>2} + 1  {:.3f}, {:.3f}          {:.3f}   {:.3f}\n", count, sum / kClusters, worst, fair,
               moved_by_modulo(count, count + 1));
    EXPECT_LE(sum / kClusters, 1.15 * fair) << count;
    EXPECT_LE(worst, 1.25 * fair) << count;
    EXPECT_LT(worst, moved_by_modulo(count, count + 1) / 1.5) << count;
  }
}

TEST(Layout, AHostWithTwiceTheWeightOwnsTwiceAsMuch) {
  auto members = hosts(10, 7);
  members[3].weight = 2;
  const auto loads = loads_of(layout_of(members));
  const double share = 3.0 * kPartitions / 11;
  for (const auto& m : members) EXPECT_NEAR(loads.at(m.node) / share, m.weight, 0.12 * m.weight);
}

TEST(Layout, WhoseWeightAsksForMoreThanAllHasAllOfIt) {
  auto members = hosts(4, 7);
  members[0].weight = 100;
  const auto loads = loads_of(layout_of(members));
  EXPECT_EQ(loads.at(members[0].node), kPartitions);
  for (std::size_t i = 1; i < 4; ++i) EXPECT_NEAR(loads.at(members[i].node), 2.0 * kPartitions / 3, 60);
}

TEST(Layout, CopiesAreInDifferentZonesWhateverTheLoads) {
  auto members = hosts(9, 3);
  for (std::size_t i = 0; i < members.size(); ++i) members[i].zone = i == 0 ? "attic" : i < 4 ? "cellar" : "garden";
  const auto layout = layout_of(members);
  for (std::uint32_t p = 0; p < kPartitions; ++p) {
    std::set<std::string> zones;
    for (const auto owner : layout.owners(static_cast<std::uint16_t>(p))) {
      for (const auto& m : members) {
        if (m.node == owner) zones.insert(m.zone);
      }
    }
    EXPECT_EQ(zones.size(), 3u) << p;
  }
}

TEST(Layout, ThePreferenceListNamesEachHostOnce) {
  const auto members = hosts(7, 5);
  const auto layout = layout_of(members);
  for (std::uint32_t p = 0; p < kPartitions; ++p) {
    const auto list = layout.preference(static_cast<std::uint16_t>(p));
    EXPECT_EQ(std::set<NodeId>(list.begin(), list.end()).size(), 7u);
  }
}

TEST(Layout, WeightsBeyondAllReasonTakeNoMoreThanAMoment) {
  auto members = hosts(200, 5);
  for (auto& m : members) m.weight = kMaxWeight;
  EXPECT_EQ(loads_of(layout_of(members)).size(), 200u);
}

std::string fingerprint(const Layout& layout) {
  CanonicalWriter w;
  for (std::uint32_t p = 0; p < kPartitions; ++p) {
    for (const auto node : layout.preference(static_cast<std::uint16_t>(p))) w.u64(static_cast<std::uint64_t>(node));
  }
  return to_hex(view_of(short_sha256(w.out())));
}

// What is stored is where a rule says: it says the same for ever.
TEST(Layout, GoldenPlacements) {
  auto members = hosts(8, 11);
  members[2].weight = 3;
  members[1].zone = members[4].zone = "attic";
  EXPECT_EQ(fingerprint(layout_of(members, PlacementRule::kRing)), "d55081af019dd74b768c20297cb4ab25");
  EXPECT_EQ(fingerprint(layout_of(members, PlacementRule::kBoundedLoads)), "3397674004c34029bff8f944900f4336");
}

}  // namespace
}  // namespace kinfs::cluster
