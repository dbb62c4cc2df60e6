// One node by itself: of whom it is a member, and what it says of itself.
#include "core_fixture.h"

#include "cluster/layout.h"

namespace kinfs::cluster {
namespace {

using MembersTest = CoreTest;

TEST_F(MembersTest, AHostThatIsAMemberAlreadyIsOneUnderOneName) {
  config.members_grow = true;
  config.quorum = {3, 0, 0};
  start();
  const auto admit = [&](const std::string& name) {
    answers.clear();
    auto member = config.members.back();
    member.name = name;
    node->request(1, AdmitRequest{member}, 4000, now);
    run();
    return answers.at(0);
  };
  EXPECT_TRUE(std::holds_alternative<Admitted>(admit("host3")));
  const auto other = admit("another");
  EXPECT_EQ(code_of(other), Errc::kRefused);
  EXPECT_NE(std::get<Error>(other).text.find("--name host3"), std::string::npos);
}

constexpr auto kWall = static_cast<std::uint64_t>(kWallMs);

TEST_F(MembersTest, WhatAHostSaysOfItselfIsNewerThanWhatItSaidWithItsClockAhead) {
  config.members_grow = true;
  for (const std::uint64_t layout : {1u, 2u}) {
    config.members.front().incarnation = kWall + 1'000'000;
    NodeMeta meta;
    meta.node = config.self;
    meta.cluster_id = config.cluster_id;
    meta.layout_number = layout;
    meta.members = config.members;
    Batch batch;
    batch.meta = meta;
    ASSERT_TRUE(disk.apply(batch));
    config.members.front().incarnation = kWall;
    config.members.front().address = "elsewhere";
    start();
    EXPECT_EQ(node->layout().number, layout);
    EXPECT_EQ(node->members().front().incarnation, kWall + 1'000'001);
    EXPECT_EQ(node->members().front().address, "elsewhere");
    EXPECT_EQ(disk.meta()->value().members.front(), node->members().front());
  }
}

TEST_F(MembersTest, AHostSaysWhatHoldsWhenOthersHaveSomethingOlderOfIt) {
  for (const bool grows : {false, true}) {
    config.members_grow = grows;
    config.members.front().incarnation = kWall;
    start();
    sent.clear();
    auto others = node->members();
    const auto own = others.front().incarnation;
    others.front().incarnation = own + 9;
    receive(NodeId{2}, 5, Gossip{others, true});  // the same by another number: nothing to be said
    EXPECT_FALSE(next<Gossip>(0));
    others.front().address = "where it was";
    others.front().incarnation = own - 1;
    receive(NodeId{2}, 6, Gossip{others, true});
    EXPECT_FALSE(next<Gossip>(0));
    for (const auto incarnation : {own, own + 9}) {
      others.front().incarnation = incarnation;
      node->receive(Message{NodeId{2}, config.self, 7, node->layout(), 1000, {}, Gossip{others, true}}, now);
      std::set<NodeId> told;
      bool saved = false;
      for (const auto& effect : node->take_effects()) {
        saved |= std::holds_alternative<Save>(effect.what);
        const auto* send = std::get_if<Send>(&effect.what);
        if (send == nullptr) continue;
        EXPECT_EQ(saved, grows);  // what is said is on disk before
        const auto& said = std::get<Gossip>(send->message.body).members.front();
        EXPECT_EQ(said.address, "test");
        EXPECT_EQ(said.incarnation, incarnation + 1);
        told.insert(send->message.to);
      }
      EXPECT_EQ(told, (std::set<NodeId>{NodeId{2}, NodeId{3}}));
    }
  }
}

TEST_F(MembersTest, ALaterLayoutDoesNotTakeAHostBackToItsOldAddress) {
  config.members_grow = true;
  auto members = config.members;
  config.members.front().incarnation = 1;
  config.layout_number = 0;
  start();
  sent.clear();
  members.front().address = "where it was";
  members.front().incarnation = 7;
  const Layouts layouts{first_layout(3, config.quorum.n, members), {}, {}};
  const auto layout = layouts.base.id;
  node->receive(Message{NodeId{2}, config.self, 5, layout, 1000, {}, Gossip{members, true, layouts}}, now);
  run();
  EXPECT_EQ(node->layout(), layout);
  EXPECT_EQ(node->members().front().address, "test");
  EXPECT_EQ(node->members().front().incarnation, 8u);
  EXPECT_EQ(disk.meta()->value().members.front(), node->members().front());
  EXPECT_TRUE(next<Gossip>(0));
}

// The key of its clients, which others must know before it dies.
TEST_F(MembersTest, AHostSaysWhoItIsUntilItIsAnswered) {
  config.members.front().client_key = Bytes(32, 'k');
  start();
  std::uint64_t last = 0;
  const auto introduces = [&](NodeId to) {
    now.mono_ms += 250;
    node->tick(now);
    bool did = false;
    for (const auto& effect : node->take_effects()) {
      const auto* send = std::get_if<Send>(&effect.what);
      const auto* ping = send != nullptr ? std::get_if<Ping>(&send->message.body) : nullptr;
      if (ping == nullptr || send->message.to != to) continue;
      last = send->message.id;
      did |= ping->from.has_value();
      if (ping->from) {
        EXPECT_EQ(ping->from->client_key, Bytes(32, 'k'));
      }
    }
    return did;
  };
  receive(NodeId{2}, 1, Pong{});  // an answer to an earlier life
  EXPECT_TRUE(introduces(NodeId{2}));
  EXPECT_TRUE(introduces(NodeId{2}));
  receive(NodeId{2}, last, Pong{});
  EXPECT_FALSE(introduces(NodeId{2}));
  EXPECT_TRUE(introduces(NodeId{3}));
  // Host 2 was started anew; an answer to what it was asked before says nothing.
  auto again = config.members[1];
  again.incarnation = 5;
  again.client_key = Bytes(32, 'l');
  const auto before = last;
  receive(NodeId{2}, 9, Ping{again});
  EXPECT_EQ(node->members()[1].client_key, Bytes(32, 'l'));
  receive(NodeId{2}, before, Pong{});
  EXPECT_TRUE(introduces(NodeId{2}));
  receive(NodeId{2}, last, Pong{});
  EXPECT_FALSE(introduces(NodeId{2}));
  // Nobody speaks for others.
  auto other = config.members[2];
  other.incarnation = 5;
  other.client_key = Bytes(32, 'x');
  receive(NodeId{2}, 10, Ping{other});
  EXPECT_NE(node->members()[2].client_key, Bytes(32, 'x'));
}

}  // namespace
}  // namespace kinfs::cluster
