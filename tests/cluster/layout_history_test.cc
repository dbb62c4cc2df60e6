// What all hosts come to know of their layouts, whatever way the news takes.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

#include "cluster/layout_history.h"

namespace kinfs::cluster {
namespace {

using Step = LayoutHistory::Step;
using Part = Role::Part;

Role role(std::uint64_t when, Part part = Part::kMember, std::uint32_t weight = 1) {
  const Said said{Hlc{when}, NodeId{when}};
  return {part, said, weight, "", said};
}

LayoutRecord first_of(std::initializer_list<std::uint64_t> nodes) {
  LayoutRecord out;
  for (const auto node : nodes) out.roles.emplace(NodeId{node}, role(0));
  out.id = layout_id_of(1, out);
  return out;
}

std::set<NodeId> nodes(std::initializer_list<std::uint64_t> ids) {
  std::set<NodeId> out;
  for (const auto id : ids) out.insert(NodeId{id});
  return out;
}

class LayoutHistoryTest : public ::testing::Test {
 protected:
  LayoutHistory one{first_of({1, 2, 3})};
  LayoutHistory two = one;
};

TEST_F(LayoutHistoryTest, AtFirstNothingChangesAndNobodyIsWaitedFor) {
  EXPECT_FALSE(one.changing());
  EXPECT_EQ(one.active().size(), 1u);
  EXPECT_TRUE(one.missing(Step::kAcked).empty());
  EXPECT_FALSE(one.settle());
}

TEST_F(LayoutHistoryTest, AChangeIsActiveBesideTheBaseUntilAllReadByIt) {
  const auto id = one.change({{NodeId{4}, role(1)}});
  EXPECT_EQ(id.number, 2u);
  EXPECT_EQ(one.head().id, id);
  EXPECT_EQ(one.base(), two.base());
  EXPECT_EQ(one.active().size(), 2u);
  for (const auto step : {Step::kAcked, Step::kSynced, Step::kRead}) {
    for (std::uint64_t node = 1; node <= 4; ++node) {
      EXPECT_FALSE(one.settle());
      EXPECT_TRUE(one.missing(step).contains(NodeId{node}));
      one.say(NodeId{node}, step);
    }
    EXPECT_TRUE(one.missing(step).empty());
  }
  EXPECT_TRUE(one.settle());
  EXPECT_EQ(one.base().id, id);
  EXPECT_FALSE(one.changing());
  EXPECT_FALSE(one.is_active(two.base().id));
}

TEST_F(LayoutHistoryTest, TwoChangesOnTwoSidesAreOneToAllWhoKnowBoth) {
  one.change({{NodeId{4}, role(1)}});
  two.change({{NodeId{5}, role(2)}});
  auto back = two;
  EXPECT_TRUE(one.merge(two, NodeId{1}));
  EXPECT_TRUE(back.merge(one, NodeId{2}));
  EXPECT_EQ(one, back);
  EXPECT_FALSE(one.merge(back, NodeId{1}));
  EXPECT_EQ(one.head().id.number, 3u);
  EXPECT_EQ(one.head().roles.size(), 5u);
  EXPECT_EQ(one.active().size(), 4u);
  EXPECT_EQ(one.missing(Step::kAcked), nodes({1, 2, 3, 4, 5}));
}

TEST_F(LayoutHistoryTest, StepsTowardsAHeadThatIsNoneAnyMoreDoNotCount) {
  one.change({{NodeId{4}, role(1)}});
  for (std::uint64_t node = 1; node <= 4; ++node) one.say(NodeId{node}, Step::kAcked);
  EXPECT_TRUE(one.missing(Step::kAcked).empty());
  two.change({{NodeId{5}, role(2)}});
  one.merge(two, NodeId{1});
  EXPECT_EQ(one.missing(Step::kAcked), nodes({1, 2, 3, 4, 5}));
}

TEST_F(LayoutHistoryTest, WhoLeavesIsWaitedForAndWhoIsExcusedIsNot) {
  one.change({{NodeId{3}, role(1, Part::kLeft)}});
  EXPECT_TRUE(one.missing(Step::kSynced).contains(NodeId{3}));
  one.change({{NodeId{3}, role(2, Part::kExcused)}});
  EXPECT_EQ(one.missing(Step::kSynced), nodes({1, 2}));
  one.change({{NodeId{3}, role(3, Part::kMember)}});
  EXPECT_EQ(one.head().roles.at(NodeId{3}).part, Part::kExcused);
}

TEST_F(LayoutHistoryTest, WhoWasAwayForAWholeChangeTakesItOver) {
  one.change({{NodeId{3}, role(1, Part::kExcused)}});
  for (const auto step : {Step::kAcked, Step::kSynced, Step::kRead}) {
    one.say(NodeId{1}, step);
    one.say(NodeId{2}, step);
  }
  EXPECT_TRUE(one.settle());
  one.change({{NodeId{6}, role(9)}});
  // The third made a change of its own meanwhile, on what is forgotten.
  two.change({{NodeId{7}, role(5)}});
  const auto news = two;
  EXPECT_TRUE(two.merge(one, NodeId{3}));
  EXPECT_EQ(two.base(), one.base());
  EXPECT_EQ(two.head(), one.head());
  one.merge(news, NodeId{1});
  EXPECT_EQ(two.head(), one.head());
  EXPECT_FALSE(one.head().roles.contains(NodeId{7}));
}

TEST_F(LayoutHistoryTest, WhatWasMadeOnTopOfTheHeadOfTwoStandsAfterThatIsTheBase) {
  one.change({{NodeId{4}, role(1)}});
  two.change({{NodeId{5}, role(2)}});
  one.merge(two, NodeId{1});
  for (std::uint64_t node = 1; node <= 5; ++node) {
    for (const auto step : {Step::kAcked, Step::kSynced, Step::kRead}) one.say(NodeId{node}, step);
  }
  auto late = one;
  EXPECT_TRUE(one.settle());
  late.change({{NodeId{6}, role(3)}});
  const auto head = late.head();
  one.merge(late, NodeId{1});
  EXPECT_EQ(one.head(), head);
  EXPECT_EQ(one.active().size(), 2u);
  late.merge(one, NodeId{2});
  EXPECT_EQ(late, one);
}

TEST_F(LayoutHistoryTest, ALayoutThatIsReadByStaysActiveWhenAnotherFollows) {
  one.change({{NodeId{4}, role(1)}});
  two.change({{NodeId{5}, role(2)}});
  one.merge(two, NodeId{1});
  const auto head = one.head().id;
  for (std::uint64_t node = 1; node <= 5; ++node) {
    for (const auto step : {Step::kAcked, Step::kSynced, Step::kRead}) one.say(NodeId{node}, step);
  }
  auto on_top = one;
  on_top.change({{NodeId{6}, role(3)}});
  EXPECT_EQ(on_top.reading(NodeId{1}).id, head);
  EXPECT_EQ(on_top.reading(NodeId{6}).id, head);
  EXPECT_TRUE(on_top.is_active(head));
  LayoutHistory beside{first_of({1, 2, 3})};
  beside.change({{NodeId{7}, role(4)}});
  beside.merge(one, NodeId{2});
  EXPECT_TRUE(beside.is_active(head));
}

TEST_F(LayoutHistoryTest, WhatStandsOnOneOfTheHeadsAloneIsNotTakenInOnceTheyAreTheBase) {
  LayoutHistory nine{first_of({1, 2, 3, 9})};
  one = two = nine;
  nine.change({{NodeId{4}, role(1)}});
  one.merge(nine, NodeId{1});
  two.change({{NodeId{5}, role(2)}, {NodeId{9}, role(2, Part::kExcused)}});
  one.merge(two, NodeId{1});
  for (std::uint64_t node = 1; node <= 5; ++node) {
    for (const auto step : {Step::kAcked, Step::kSynced, Step::kRead}) one.say(NodeId{node}, step);
  }
  ASSERT_TRUE(one.settle());
  nine.change({{NodeId{7}, role(3)}});
  one.merge(nine, NodeId{1});
  EXPECT_FALSE(one.changing());
  EXPECT_EQ(one.head().roles.at(NodeId{9}).part, Part::kExcused);
  EXPECT_TRUE(one.missing(Step::kAcked).empty());
}

TEST_F(LayoutHistoryTest, TwoWhoExcuseEachOtherAreNotBothGone) {
  const auto excused = [](std::uint64_t by) {
    return Role{Part::kExcused, {Hlc{by}, NodeId{by}}, 1, "", {Hlc{by}, NodeId{by}}};
  };
  for (const auto& members : {first_of({1, 2}), first_of({1, 2, 3})}) {
    LayoutHistory a{members}, b = a;
    a.change({{NodeId{2}, excused(1)}});
    b.change({{NodeId{1}, excused(2)}});
    auto back = b;
    a.merge(b, NodeId{1});
    back.merge(a, NodeId{2});
    EXPECT_EQ(a, back);
    const auto part_of = [&](std::uint64_t node) { return a.head().roles.at(NodeId{node}).part; };
    EXPECT_NE(part_of(1) == Part::kMember, part_of(2) == Part::kMember);
    EXPECT_FALSE(a.missing(Step::kAcked).empty());
  }
}

TEST_F(LayoutHistoryTest, TwoBasesAreOneInTheEnd) {
  LayoutHistory a{first_of({1, 2, 3, 4})}, b = a;
  a.change({{NodeId{3}, role(1, Part::kExcused)}, {NodeId{4}, role(1, Part::kExcused)}});
  b.change({{NodeId{1}, role(2, Part::kExcused)}, {NodeId{2}, role(2, Part::kExcused)}});
  for (const auto step : {Step::kAcked, Step::kSynced, Step::kRead}) {
    for (const auto node : {1, 2}) a.say(NodeId(node), step);
    for (const auto node : {3, 4}) b.say(NodeId(node), step);
  }
  ASSERT_TRUE(a.settle() && b.settle());
  a.merge(b, NodeId{1});
  b.merge(a, NodeId{3});
  EXPECT_EQ(a.base(), b.base());
}

TEST_F(LayoutHistoryTest, AHostThatLostItsDiskIsBelievedWhatItSaysNow) {
  one.change({{NodeId{4}, role(1)}});
  one.say(NodeId{1}, Step::kAcked);
  one.say(NodeId{1}, Step::kSynced);
  two.merge(one, NodeId{2});
  LayoutHistory emptied{first_of({1, 2, 3})};
  emptied.merge(two, NodeId{1});
  EXPECT_FALSE(emptied.has(NodeId{1}, Step::kSynced));
  two.merge(emptied, NodeId{2});
  EXPECT_FALSE(two.has(NodeId{1}, Step::kSynced));
}

TEST_F(LayoutHistoryTest, WhoWasExcusedIsNotServedAndDoesNotServe) {
  const auto base = one.base().id;
  EXPECT_TRUE(one.serves_read(base, NodeId{3}, NodeId{1}));
  one.change({{NodeId{3}, role(1, Part::kExcused)}});
  EXPECT_TRUE(one.is_active(base));
  EXPECT_TRUE(one.serves_read(base, NodeId{2}, NodeId{1}));
  EXPECT_FALSE(one.serves_read(base, NodeId{3}, NodeId{1}));
  EXPECT_FALSE(one.serves_read(base, NodeId{2}, NodeId{3}));
  EXPECT_FALSE(one.serves_read(base, NodeId{9}, NodeId{1})) << "nobody knows it";
}

// Others may have forgotten the base: of those that are members in it, this host has turned last.
TEST_F(LayoutHistoryTest, WhoJoinsIsNotServedByWhatIsLeftBehind) {
  const auto base = one.base().id;
  two.change({{NodeId{4}, role(2)}});
  one.change({{NodeId{2}, role(1, Part::kExcused)}});
  for (const auto step : {Step::kAcked, Step::kSynced, Step::kRead}) one.say(NodeId{1}, step);
  const auto turned = one.head().id;
  one.merge(two, NodeId{1});
  EXPECT_TRUE(one.serves_read(base, NodeId{3}, NodeId{1}));
  EXPECT_FALSE(one.serves_read(base, NodeId{4}, NodeId{1}));
  EXPECT_TRUE(one.serves_read(turned, NodeId{4}, NodeId{1}));
}

TEST_F(LayoutHistoryTest, OfHostsThatNoLayoutKnowsNothingIsKept) {
  auto layouts = two.layouts();
  layouts.trackers[NodeId{77}].turn = 5;
  layouts.trackers[NodeId{2}].turn = 5;
  EXPECT_TRUE(one.merge(LayoutHistory(layouts), NodeId{1}));
  EXPECT_FALSE(one.trackers().contains(NodeId{77}));
  EXPECT_TRUE(one.trackers().contains(NodeId{2}));
}

TEST_F(LayoutHistoryTest, MoreThanOthersWouldTakeIsNotTakenIn) {
  for (std::uint64_t i = 0; i < kMaxLayouts; ++i) one.change({{NodeId{1}, role(i + 1)}});
  EXPECT_TRUE(two.merge(one, NodeId{2}));
  const auto before = two;
  one.change({{NodeId{1}, role(1000)}});
  EXPECT_FALSE(two.merge(one, NodeId{2}));
  EXPECT_EQ(two, before);
}

/// Hosts that change things, take their steps and tell each other, in any order: in the end all know the same, and that
/// settles.
TEST(LayoutHistory, AllComeToKnowTheSame) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    std::mt19937_64 random(seed);
    constexpr std::uint64_t kHosts = 5;
    std::vector<LayoutHistory> all(kHosts, LayoutHistory{first_of({1, 2, 3, 4, 5})});
    const auto any = [&] { return random() % kHosts; };
    const auto steps = [&](std::uint64_t i) {
      auto& h = all[i];
      const NodeId self{i + 1};
      if (!h.changing()) return;
      h.say(self, Step::kAcked);
      if (h.missing(Step::kAcked).empty()) h.say(self, Step::kSynced);
      if (h.has(self, Step::kSynced) && h.missing(Step::kSynced).empty()) h.say(self, Step::kRead);
      h.settle();
    };
    for (std::uint64_t turn = 1; turn <= 200; ++turn) {
      const auto who = any();
      if (random() % 20 == 0) {
        const NodeId node{any() + 1};
        all[who].change({{node, role(turn, Part::kMember, static_cast<std::uint32_t>(turn))}});
      } else if (random() % 3 == 0) {
        steps(who);
      } else {
        all[who].merge(all[any()], NodeId{who + 1});
      }
    }
    for (int round = 0; round < 20; ++round) {
      for (std::uint64_t i = 0; i < kHosts; ++i) {
        for (const auto& other : all) all[i].merge(other, NodeId{i + 1});
        steps(i);
      }
    }
    for (const auto& history : all) {
      ASSERT_EQ(history, all.front()) << seed;
      ASSERT_FALSE(history.changing()) << seed;
    }
  }
}

}  // namespace
}  // namespace kinfs::cluster
