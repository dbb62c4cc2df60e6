// One node by itself: of whom it is a member, and what it says of itself.
#include "core_fixture.h"

#include <map>

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

TEST_F(MembersTest, AHostWithAnEmptiedDiskThatWasTakenForLostSaysSo) {
  config.members_grow = true;
  auto members = config.members;
  config.layout_number = 0;
  start();
  const auto get = [&] {
    answers.clear();
    node->request(1, GetRequest{VolumeId{2}, "p", "k"}, 4000, now);
    run();
    return answers.at(0);
  };
  EXPECT_EQ(code_of(get()), Errc::kUnavailable);
  Layouts layouts{first_layout(3, config.quorum.n, members), {}, {}};
  layouts.base.roles[config.self].part = Role::Part::kExcused;
  layouts.base.id = layout_id_of(3, layouts.base);
  node->receive(Message{NodeId{2}, config.self, 5, layouts.base.id, 1000, {}, Gossip{members, true, layouts}}, now);
  run();
  const auto said = get();
  EXPECT_EQ(code_of(said), Errc::kRefused);
  EXPECT_NE(std::get<Error>(said).text.find("taken for lost"), std::string::npos);
}

// What did not know of it reaches its quorum by the layouts before: others must not give all that they have meanwhile.
TEST_F(MembersTest, ALayoutIsAckedWhenWhatBeganBeforeItIsDone) {
  config.members_grow = true;
  config.quorum = {3, 0, 0};
  start();
  hear_peers();
  sent.clear();
  put("k", {}, {version("v")});
  std::map<NodeId, std::uint64_t> asked;
  for (const auto& m : sent) {
    if (std::holds_alternative<WriteRows>(m.body)) asked[m.to] = m.id;
  }
  ASSERT_EQ(asked.size(), 2u);
  auto theirs = node->layouts();
  theirs.change({{NodeId{2}, Role{Role::Part::kMember, {}, 2, "", {Hlc{5}, NodeId{2}}}}});
  receive(NodeId{2}, 5, Gossip{{}, true, theirs.layouts()});
  const auto acked = [&] { return node->layouts().has(config.self, LayoutHistory::Step::kAcked); };
  ASSERT_TRUE(node->layouts().changing());
  for (const auto& [peer, id] : asked) {
    for (int i = 0; i < 5; ++i) tick();
    EXPECT_FALSE(acked());
    receive(peer, id, WriteRowsReply{});
  }
  for (int i = 0; i < 5; ++i) tick();
  EXPECT_TRUE(acked());
}

/// Two hosts, one of which takes another share: node 1 has to give all that it has to the other one.
class GivingTest : public CoreTest {
 protected:
  void SetUp() override {
    config.members.pop_back();
    config.members_grow = true;
    config.quorum = {2, 0, 0};
    hint_row("damaged", 1);
    hint_row("whole", 2);
    start();
    node->request(1, ChangeMemberRequest{"host2", ChangeMemberRequest::Change::kShare, false, 2, ""}, 4000, now);
    run();
    auto theirs = node->layouts();
    theirs.say(NodeId{2}, LayoutHistory::Step::kAcked);
    receive(NodeId{2}, 5, Gossip{{}, true, theirs.layouts()});
  }
  /// Answers what the pass asks, until it asks nothing any more: the peer has nothing, and refuses what `refuses`.
  void play(const std::optional<Error>& refuses = std::nullopt) {
    for (int turn = 0; turn < 200; ++turn) {
      receive(NodeId{2}, 0, Pong{});
      tick();
      for (auto out = std::exchange(sent, {}); !out.empty(); out.pop_front()) {
        const auto& m = out.front();
        if (std::holds_alternative<SyncStore>(m.body)) receive(NodeId{2}, m.id, SyncStoreReply{"run of 2"});
        if (const auto* sums = std::get_if<ComparePartitions>(&m.body)) {
          ComparePartitionsReply reply;
          for (std::uint32_t i = 0; i < sums->sums.size(); ++i) {
            if (sums->sums[i].items != 0) reply.differing.push_back(i);
          }
          receive(NodeId{2}, m.id, reply);
        }
        if (const auto* items = std::get_if<CompareItems>(&m.body)) {
          CompareItemsReply reply;
          for (std::uint32_t i = 0; i < items->buckets.size(); ++i) reply.differing.push_back(i);
          receive(NodeId{2}, m.id, reply);
        }
        if (const auto* write = std::get_if<WriteRows>(&m.body)) {
          for (const auto& [key, row] : write->rows) given.insert(key);
          if (refuses) {
            receive(NodeId{2}, m.id, Refusal{*refuses});
          } else {
            receive(NodeId{2}, m.id, WriteRowsReply{});
          }
        }
      }
    }
  }
  bool is_synced() const { return node->layouts().has(config.self, LayoutHistory::Step::kSynced); }
  std::set<Bytes> given;
};

TEST_F(GivingTest, WhatIsDamagedHereKeepsNoChangeFromItsEnd) {
  disk.corrupt = {"damaged"};
  play();
  EXPECT_EQ(given, std::set<Bytes>{"whole"});
  EXPECT_TRUE(is_synced());
  EXPECT_GE(node->counters().unreadable, 1u);
  EXPECT_FALSE(node->obstacle());
}

TEST_F(GivingTest, WhatAnotherRefusesIsNamed) {
  play(Error{Errc::kNoSpace, "the disk is full"});
  EXPECT_FALSE(is_synced());
  ASSERT_TRUE(node->obstacle());
  EXPECT_EQ(node->obstacle()->node, NodeId{2});
  EXPECT_EQ(node->obstacle()->error.text, "the disk is full");
  for (int i = 0; i < 5 && !is_synced(); ++i) play();
  EXPECT_TRUE(is_synced());
  EXPECT_FALSE(node->obstacle());
}

// A host that answers others is not lost, whatever lies between it and this one.
TEST_F(MembersTest, WhoAnswersOthersIsNotExcused) {
  config.members_grow = true;
  start();
  const auto excuse = [&](bool force) {
    answers.clear();
    node->request(1, ChangeMemberRequest{"host2", ChangeMemberRequest::Change::kExcuse, force, 0, ""}, 4000, now);
    run();
    return answers.empty() ? std::string("none yet") : std::get<Error>(answers.front()).text;
  };
  const auto pass = [&](Pong pong) {
    for (int i = 0; i < 150; ++i) {
      receive(NodeId{3}, 0, pong);
      tick();
    }
  };
  pass(Pong{false, {config.self, NodeId{2}}});
  EXPECT_EQ(excuse(false),
            "host2 does not answer this host, but host3 says that it answers there: it is not lost; if "
            "it is of no use all the same, excuse it with --force");
  const auto peers = node->peers();
  const auto two = std::find_if(peers.begin(), peers.end(), [](const auto& p) { return p.member.node == NodeId{2}; });
  EXPECT_TRUE(two->suspected);
  EXPECT_EQ(two->reached_by, std::vector<NodeId>{NodeId{3}});
  pass(Pong{false, {config.self}});
  EXPECT_EQ(excuse(false), "none yet");  // it is on its way to the disk of another host
}

TEST_F(MembersTest, ItSaysWhoAnsweredOfLate) {
  start();
  const auto reached = [&] {
    sent.clear();
    receive(NodeId{3}, 7, Ping{});
    return std::get<Pong>(next<Pong>(0)->body).reaches;
  };
  EXPECT_EQ(reached(), std::vector<NodeId>{});
  hear_peers();
  EXPECT_EQ(reached(), (std::vector<NodeId>{NodeId{2}, NodeId{3}}));
  for (int i = 0; i < 60; ++i) {
    receive(NodeId{3}, 0, Pong{});
    tick();
  }
  EXPECT_EQ(reached(), std::vector<NodeId>{NodeId{3}});  // half a second before it suspects the other one
  EXPECT_FALSE(node->peers().front().suspected);
}

// Its answers may wait here, unread.
TEST_F(MembersTest, AHostThatIsSlowItselfSuspectsLater) {
  start();
  hear_peers();
  for (int i = 0; i < 4; ++i) tick(110);
  for (int i = 0; i < 70; ++i) tick();  // 1140 ms of silence
  EXPECT_FALSE(node->peers().front().suspected);
  for (int i = 0; i < 90; ++i) tick();
  EXPECT_TRUE(node->peers().front().suspected);
  hear_peers();
  for (int i = 0; i < 450; ++i) {  // it has been quick for some seconds
    hear_peers();
    tick();
  }
  for (int i = 0; i < 102; ++i) tick();
  EXPECT_TRUE(node->peers().front().suspected);
}

// What is on the disk happens: that it could not be saved once more does not undo it.
TEST_F(MembersTest, AChangeThatIsOnTheDiskIsNotAnsweredAsRefused) {
  config.members_grow = true;
  config.quorum = {3, 0, 0};
  start();
  hear_peers();
  syncs = false;
  answers.clear();
  node->request(1, ChangeMemberRequest{"host2", ChangeMemberRequest::Change::kShare, false, 2, ""}, 4000, now);
  std::uint64_t token = 0;
  for (const auto& effect : node->take_effects()) {
    if (const auto* save = std::get_if<Save>(&effect.what)) {
      ASSERT_TRUE(disk.apply(save->batch));
    }
    if (const auto* sync = std::get_if<Sync>(&effect.what)) token = sync->token;
  }
  ASSERT_NE(token, 0u);
  disk.full = true;
  auto news = node->members();
  news[1].address = "elsewhere";
  news[1].incarnation += 5;
  receive(NodeId{2}, 5, Gossip{news, true});
  EXPECT_TRUE(answers.empty());
  disk.full = false;
  node->synced(token, now);
  run();
  syncs = true;
  tick(3000);
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_TRUE(std::holds_alternative<Admitted>(answers[0]));
  EXPECT_EQ(node->layouts().head().roles.at(NodeId{2}).weight, 2u);
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
