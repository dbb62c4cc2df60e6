// Who may come in by an invitation, and that the list of them outlives the daemon.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "cluster/invitation.h"
#include "cluster/zmq_transport.h"
#include "daemon/invitations.h"
#include "daemon/reception.h"

namespace kinfs::daemon {
namespace {

constexpr NodeId kHost{1};
constexpr NodeId kOther{2};
constexpr std::uint64_t kNow = 1'700'000'000;
using End = Invitations::End;

class InvitationsTest : public testing::Test {
 protected:
  InvitationsTest() {
    char folder[] = "/tmp/kinfs-invitations-XXXXXX";
    folder_ = ::mkdtemp(folder);
  }
  ~InvitationsTest() override { std::filesystem::remove_all(folder_); }
  std::string file() const { return folder_ + "/invitations.json"; }
  Invitations open() { return Invitations::open(file()).value(); }
  NodeId issue(Invitations& in, std::uint64_t expires_s = kNow + 60) {
    return cluster::node_id_of(in.issue(kNow, expires_s)->public_key);
  }
  static std::string words(const std::optional<Error>& error) { return error ? error->text : "may come in"; }

  std::string folder_;
};

TEST_F(InvitationsTest, OneAdmitsOneHost) {
  auto in = open();
  const auto guest = issue(in);
  EXPECT_EQ(words(in.begin(guest, kHost, kNow)), "may come in");
  EXPECT_NE(words(in.begin(guest, kOther, kNow)).find("just now"), std::string::npos);
  ASSERT_TRUE(in.ended(guest, kHost, End::kRefused));
  EXPECT_EQ(words(in.begin(guest, kOther, kNow)), "may come in");
  ASSERT_TRUE(in.ended(guest, kOther, End::kTakenIn));
  EXPECT_NE(words(in.begin(guest, kHost, kNow)).find("used by another host"), std::string::npos);
  // Whose answer was lost asks again, also when it has expired since.
  EXPECT_EQ(words(in.begin(guest, kOther, kNow + 1000)), "may come in");
}

TEST_F(InvitationsTest, WhomItIsOfIsOnDiskBeforeThatHostIsTakenIn) {
  NodeId guest{};
  {
    auto in = open();
    guest = issue(in);
    EXPECT_EQ(words(in.begin(guest, kHost, kNow)), "may come in");  // killed before there was an answer
  }
  auto in = open();
  EXPECT_NE(words(in.begin(guest, kOther, kNow)).find("used by another host"), std::string::npos);
  EXPECT_EQ(words(in.begin(guest, kHost, kNow + 1000)), "may come in");
  // What is refused now says nothing of the attempt before.
  ASSERT_TRUE(in.ended(guest, kHost, End::kRefused));
  EXPECT_NE(words(in.begin(guest, kOther, kNow)), "may come in");
}

TEST_F(InvitationsTest, NobodyElseComesInWhileAnAttemptIsOpen) {
  for (const auto first : {End::kAgain, End::kUnknown}) {
    auto in = open();
    const auto guest = issue(in);
    EXPECT_EQ(words(in.begin(guest, kHost, kNow)), "may come in");
    EXPECT_EQ(words(in.begin(guest, kHost, kNow)), "may come in");
    ASSERT_TRUE(in.ended(guest, kHost, End::kRefused));
    EXPECT_NE(words(in.begin(guest, kOther, kNow)), "may come in");
    ASSERT_TRUE(in.ended(guest, kHost, first));
    EXPECT_NE(words(in.begin(guest, kOther, kNow)), "may come in");
    EXPECT_EQ(words(in.begin(guest, kHost, kNow)), "may come in");
    ASSERT_TRUE(in.ended(guest, kHost, End::kRefused));
    EXPECT_EQ(words(in.begin(guest, kOther, kNow)) == "may come in", first == End::kAgain);
  }
}

TEST_F(InvitationsTest, NobodyComesInThatCannotBeWrittenDown) {
  auto in = open();
  const auto guest = issue(in);
  std::filesystem::remove_all(folder_);
  EXPECT_NE(words(in.begin(guest, kHost, kNow)).find(file()), std::string::npos);
  std::filesystem::create_directory(folder_);
  EXPECT_EQ(words(in.begin(guest, kOther, kNow)), "may come in");
}

TEST_F(InvitationsTest, ItExpiresAlsoForOneThatWasToComeAgain) {
  auto in = open();
  const auto guest = issue(in);
  EXPECT_EQ(words(in.begin(guest, kHost, kNow)), "may come in");
  ASSERT_TRUE(in.ended(guest, kHost, End::kAgain));
  EXPECT_NE(words(in.begin(guest, kHost, kNow + 61)).find("expired"), std::string::npos);
}

TEST_F(InvitationsTest, ItExpires) {
  auto in = open();
  const auto guest = issue(in);
  EXPECT_NE(words(in.begin(guest, kOther, kNow + 61)).find("expired at 2023-11-14 22:14:20 UTC"), std::string::npos);
  EXPECT_EQ(words(in.begin(guest, kHost, kNow + 60)), "may come in");
  EXPECT_NE(words(in.begin(NodeId{77}, kHost, kNow)).find("not known here"), std::string::npos);
}

TEST_F(InvitationsTest, TheListOutlivesTheDaemon) {
  NodeId used{};
  NodeId unused{};
  std::set<Bytes> keys;
  {
    auto in = open();
    used = issue(in);
    unused = issue(in);
    keys = in.keys();
    (void)in.begin(used, kHost, kNow);
    ASSERT_TRUE(in.ended(used, kHost, End::kTakenIn));
    (void)in.begin(unused, kOther, kNow);
    ASSERT_TRUE(in.ended(unused, kOther, End::kRefused));
  }
  struct stat st {};
  ASSERT_EQ(::stat(file().c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600u);
  auto in = open();
  EXPECT_EQ(in.keys(), keys);
  EXPECT_EQ(words(in.begin(used, kHost, kNow)), "may come in");
  EXPECT_NE(words(in.begin(used, kOther, kNow)), "may come in");
  EXPECT_EQ(words(in.begin(unused, kHost, kNow)), "may come in");
  // Secrets are not in it.
  auto fresh = in.issue(kNow, kNow + 1);
  std::ifstream text(file());
  const std::string all((std::istreambuf_iterator<char>(text)), {});
  EXPECT_NE(all.find(to_hex(fresh->public_key)), std::string::npos);
  EXPECT_EQ(all.find(to_hex(fresh->secret_key)), std::string::npos);
}

TEST_F(InvitationsTest, OldOnesGoAndTheirNumberIsBounded) {
  auto in = open();
  for (std::size_t i = 0; i < Invitations::kMostOpen; ++i) ASSERT_TRUE(in.issue(kNow, kNow + 60));
  EXPECT_EQ(in.issue(kNow, kNow + 60).error().code, Errc::kBusy);
  const auto later = kNow + 61 + Invitations::kKeepS;
  EXPECT_TRUE(in.issue(later, later + 60));
  EXPECT_EQ(in.keys().size(), 1u);
}

TEST_F(InvitationsTest, ADamagedListIsNamed) {
  std::ofstream(file()) << "{\"invitations\": 3";
  const auto in = Invitations::open(file());
  ASSERT_FALSE(in);
  EXPECT_EQ(in.error().code, Errc::kCorrupt);
  EXPECT_NE(in.error().text.find(file()), std::string::npos);
}

TEST(Guest, ChoosesItsNameAndItsAddressAlone) {
  Member asks;
  asks.public_key = Bytes(32, 'p');
  asks.node = cluster::node_id_of(asks.public_key);
  asks.name = "berta";
  asks.address = "tcp://192.0.2.2:7946";
  const auto modest = asks;
  asks.weight = 1000;
  asks.zone = "a zone";
  asks.incarnation = ~0ull;
  asks.client_key = Bytes(32, 'c');
  EXPECT_EQ(as_guest(asks).value(), modest);
  for (const char* name : {"", "two words", "line\nfeed", "\x1b[1m", "a/b"}) {
    asks.name = name;
    const auto refused = as_guest(asks);
    ASSERT_FALSE(refused) << name;
    EXPECT_EQ(refused.error().code, Errc::kRefused);
    EXPECT_EQ(refused.error().text.find_first_of("\n\x1b"), std::string::npos);
  }
  asks.name = "berta";
  for (const char* address : {"", "192.0.2.2:7946", "ipc:///tmp/x", "tcp://192.0.2.2", "tcp://0.0.0.0:7946",
                              "tcp://[::]:7946", "tcp://*:7946", "tcp://a\nb:7946"}) {
    asks.address = address;
    const auto refused = as_guest(asks);
    ASSERT_FALSE(refused) << address;
    EXPECT_EQ(refused.error().text.find('\n'), std::string::npos);
  }
  asks.address = modest.address;
  asks.node = kHost;
  EXPECT_FALSE(as_guest(asks));
}

const cluster::Invitation kSample{
    "kinfs-0123456789abcdef", 3, kNow, "alma", "tcp://192.0.2.1:7946", Bytes(32, 'p'), Bytes(32, 's')};

TEST(InvitationWord, HoldsAllAndNothingTheShellMinds) {
  const auto word = cluster::encode_invitation(kSample);
  EXPECT_EQ(cluster::decode_invitation(word).value(), kSample);
  EXPECT_EQ(word.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"),
            std::string::npos);
}

TEST(InvitationWord, WhatIsNotWholeIsRefused) {
  const auto word = cluster::encode_invitation(kSample);
  for (std::size_t length = 0; length < word.size(); ++length) {
    EXPECT_FALSE(cluster::decode_invitation(word.substr(0, length))) << length;
  }
  for (std::size_t at = 6; at + 1 < word.size(); ++at) {
    auto wrong = word;
    wrong[at] = wrong[at] == 'A' ? 'B' : 'A';
    EXPECT_FALSE(cluster::decode_invitation(wrong)) << at;
  }
  EXPECT_FALSE(cluster::decode_invitation(word + "A"));
  EXPECT_FALSE(cluster::decode_invitation(" " + word));
  for (auto wrong : {cluster::Invitation{}, cluster::Invitation{"c", 99, 1, "h", "a", Bytes(32, 'p'), Bytes(32, 's')},
                     cluster::Invitation{"c\n", 3, 1, "h", "a", Bytes(32, 'p'), Bytes(32, 's')},
                     cluster::Invitation{"c", 3, 1, "h", "a", Bytes(31, 'p'), Bytes(32, 's')}}) {
    EXPECT_FALSE(cluster::decode_invitation(cluster::encode_invitation(wrong)));
  }
}

}  // namespace
}  // namespace kinfs::daemon
