// What a write of the command line supersedes, and the token that says so.
#include <gtest/gtest.h>

#include <random>

#include "daemon/cli/context_token.h"
#include "daemon/cli/host_config.h"
#include "daemon/cli/kv.h"
#include "daemon/cli/session.h"
#include "daemon/exit_code.h"

namespace kinfs::daemon {
namespace {

Version version(const std::string& value, std::uint64_t ms, const std::string& host, std::uint64_t sequence,
                bool tombstone = false) {
  Version v;
  v.event = {ClientId{sequence}, 1, sequence};
  v.hlc = Hlc::from_ms(static_cast<std::int64_t>(ms));
  v.host = host;
  v.value = value;
  v.tombstone = tombstone;
  return v;
}

Dot dot(std::uint64_t n) { return {NodeId{n}, 1}; }

std::vector<std::string> values(const Row& row) {
  std::vector<std::string> out;
  for (const auto& group : shown_versions(row)) out.push_back(group[0]->value);
  return out;
}

Row siblings() {
  Row row;
  add_version(row, version("old", 10, "host1", 1), dot(1));
  add_version(row, version("new", 20, "host2", 2), dot(2));
  return row;
}

TEST(Shown, TheLatestClockThenTheHost) {
  auto row = siblings();
  EXPECT_EQ(values(row), (std::vector<std::string>{"new", "old"}));
  add_version(row, version("tie", 20, "host3", 3), dot(3));
  EXPECT_EQ(values(row), (std::vector<std::string>{"tie", "new", "old"}));
}

TEST(Shown, LiveBeatsRemovedAndEqualBytesAreOne) {
  Row row;
  add_version(row, version("same", 10, "host1", 1), dot(1));
  add_version(row, version("", 30, "host2", 2, /*tombstone=*/true), dot(2));
  add_version(row, version("same", 20, "host3", 3), dot(3));
  EXPECT_EQ(values(row), (std::vector<std::string>{"same"}));
  // The one shown stands for both, and the marker holds nothing that could be lost.
  EXPECT_EQ(dots_to_supersede(row, false).size(), 3u);
}

TEST(Supersede, OnlyWhatWasPrinted) {
  const auto row = siblings();
  EXPECT_EQ(dots_to_supersede(row, false), std::vector<Dot>{dot(2)});
  EXPECT_EQ(dots_to_supersede(row, true).size(), 2u);
}

TEST(Supersede, ATokenOfOneLeavesTheOthers) {
  const auto row = siblings();
  const ContextToken token{{dot(2)}, false, row.context};
  EXPECT_EQ(values(base_under(row, token)), std::vector<std::string>{"old"});
}

TEST(Supersede, ATokenOfAllLeavesWhatCameAfter) {
  auto row = siblings();
  const ContextToken token{{dot(1), dot(2)}, true, row.context};
  add_version(row, version("after", 30, "host3", 3), dot(3));
  EXPECT_EQ(values(base_under(row, token)), std::vector<std::string>{"after"});
}

TEST(Supersede, ATokenOfAllReachesReplicasThatAnsweredWithLess) {
  const auto row = siblings();
  const ContextToken token{{dot(1), dot(2)}, true, row.context};
  Row behind;
  add_version(behind, version("old", 10, "host1", 1), dot(1));
  auto base = base_under(behind, token);
  EXPECT_TRUE(values(base).empty());
  add_version(base, version("mine", 40, "host1", 4), dot(4));
  EXPECT_EQ(values(merge(base, row)), std::vector<std::string>{"mine"});
}

TEST(Supersede, ATokenOfOneNeverDropsTheOthersOnReplicasThatAnsweredWithLess) {
  const auto row = siblings();
  const ContextToken token{{dot(2)}, false, row.context};
  auto base = base_under(Row{}, token);
  add_version(base, version("mine", 40, "host1", 4), dot(4));
  EXPECT_EQ(values(merge(base, row)), (std::vector<std::string>{"mine", "new", "old"}));
}

TEST(Token, ComesBack) {
  const RowKey key{kVolumeKv, "k", ""};
  const auto row = siblings();
  const ContextToken token{{dot(1), dot(2)}, true, row.context};
  const auto word = encode_token(token, key);
  const auto back = decode_token(word, key);
  ASSERT_TRUE(back) << back.error().text;
  EXPECT_EQ(*back, token);
}

TEST(Token, NumbersThatNobodyCanHaveComeToAreRefused) {
  const RowKey key{kVolumeKv, "k", ""};
  ContextToken token;
  token.context.add(Dot{NodeId{1}, kMaxSequenceNumber - 1});
  EXPECT_TRUE(decode_token(encode_token(token, key), key));
  ContextToken of_node, of_client;
  of_node.context.add(Dot{NodeId{1}, kMaxSequenceNumber});
  of_client.context.add(EventId{ClientId{1}, 1, ~std::uint64_t{0}});
  EXPECT_FALSE(decode_token(encode_token(of_node, key), key));
  EXPECT_FALSE(decode_token(encode_token(of_client, key), key));
}

TEST(Token, OfAnotherKeyOrDamaged) {
  const RowKey key{kVolumeKv, "k", ""};
  const auto word = encode_token({{dot(1)}, false, siblings().context}, key);
  EXPECT_NE(decode_token(word, {kVolumeKv, "l", ""}).error().text.find("another key"), std::string::npos);
  std::mt19937 random(1);
  for (int i = 0; i < 2000; ++i) {
    auto damaged = word;
    switch (i % 4) {
      case 0:
        damaged[random() % damaged.size()] ^= static_cast<char>(1 + random() % 127);
        break;
      case 1:
        damaged.resize(random() % damaged.size());
        break;
      case 2:
        damaged.insert(random() % damaged.size(), "AAAA");
        break;
      case 3:
        damaged = std::string(random() % 200, static_cast<char>(random()));
        break;
    }
    const auto decoded = decode_token(damaged, key);
    EXPECT_TRUE(!decoded || damaged == word) << damaged;
  }
}

TEST(Base64, AsInTheStandard) {
  // RFC 4648, section 10.
  const std::pair<const char*, const char*> vectors[] = {{"", ""},
                                                         {"f", "Zg=="},
                                                         {"fo", "Zm8="},
                                                         {"foo", "Zm9v"},
                                                         {"foob", "Zm9vYg=="},
                                                         {"fooba", "Zm9vYmE="},
                                                         {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, coded] : vectors) {
    EXPECT_EQ(to_base64(plain), coded);
    EXPECT_EQ(from_base64(coded).value(), plain);
  }
  for (const char* wrong : {"Z", "Zg=", "Zg===", "=", "====", "Z===", "Zm9v=AAA", "Zm 9", "Zg==Zg=="}) {
    EXPECT_FALSE(from_base64(wrong)) << wrong;
  }
  Bytes all;
  for (int i = 0; i < 256; ++i) all.push_back(static_cast<char>(i));
  EXPECT_EQ(from_base64(to_base64(all)).value(), all);
}

TEST(Printable, ATerminalGetsNoSurprises) {
  EXPECT_EQ(printable("report.txt"), "report.txt");
  EXPECT_EQ(printable("gr\xc3\xb6\xc3\x9f"), "gr\xc3\xb6\xc3\x9f");
  EXPECT_EQ(printable("\x1b[31m"), "\\x1b[31m");
  EXPECT_EQ(printable("a\nb"), "a\\x0ab");
  EXPECT_EQ(printable("\xff\xc3"), "\\xff\\xc3");
}

TEST(ExitCodes, AreFrozen) {
  EXPECT_EQ(kExitDone, 0);
  EXPECT_EQ(exit_code_of(Errc::kNotFound), 1);
  EXPECT_EQ(kExitUsage, 2);
  EXPECT_EQ(exit_code_of(Errc::kUnavailable), 3);
  EXPECT_EQ(exit_code_of(Errc::kTimeout), 3);
  EXPECT_EQ(exit_code_of(Errc::kRefused), 4);
  EXPECT_EQ(exit_code_of(Errc::kNoSpace), 4);
  EXPECT_EQ(exit_code_of(Errc::kFormat), 4);
  EXPECT_EQ(exit_code_of(Errc::kCorrupt), 5);
  EXPECT_EQ(exit_code_of(Errc::kInternal), 5);
}

// --- What kinfs init and kinfs join write ---

TEST(HostConfig, AddressesAsPeopleWriteThem) {
  const std::pair<const char*, const char*> cases[] = {{"alma", "tcp://alma:7946"},
                                                       {"alma:1", "tcp://alma:1"},
                                                       {"192.0.2.1", "tcp://192.0.2.1:7946"},
                                                       {"2001:db8::1", "tcp://[2001:db8::1]:7946"},
                                                       {"[2001:db8::1]", "tcp://[2001:db8::1]:7946"},
                                                       {"[2001:db8::1]:1", "tcp://[2001:db8::1]:1"},
                                                       {"tcp://alma:1", "tcp://alma:1"}};
  for (const auto& [word, full] : cases) EXPECT_EQ(full_address(word, 7946), full);
}

Config after(const std::optional<std::string>& before, const std::string& address) {
  Member other;
  other.name = "berta";
  other.address = "tcp://192.0.2.9:7946";
  other.public_key = Bytes(32, 'b');
  const auto text = config_text(before, "alma", {"c", 2, address, {other}});
  auto config = parse_config(text, "f", "host");
  EXPECT_TRUE(config) << config.error().text << "\n" << text;
  return config ? *config : Config();
}

TEST(HostConfig, AHostListensWhereItIsDialled) {
  const auto plain = after(std::nullopt, "tcp://192.0.2.1:7946");
  EXPECT_EQ(plain.name, "alma");
  EXPECT_EQ(plain.cluster_id, "c");
  EXPECT_EQ(plain.quorum.n, 2u);
  EXPECT_EQ(plain.address, "tcp://192.0.2.1:7946");
  ASSERT_EQ(plain.members.size(), 1u);
  EXPECT_EQ(plain.members[0].name, "berta");
  EXPECT_EQ(plain.listen, Config().listen);
  EXPECT_EQ(after(std::nullopt, "tcp://alma:7950").listen, "tcp://0.0.0.0:7950");
  EXPECT_EQ(after(std::nullopt, "tcp://[2001:db8::1]:7946").listen, "tcp://[::]:7946");
  EXPECT_EQ(after(std::nullopt, "tcp://[2001:db8::1]:7950").listen, "tcp://[::]:7950");
}

TEST(HostConfig, WhatAFileSaysStays) {
  const std::string elsewhere = "tcp://192.0.2.1:7950";
  for (const char* before : {"", "# nothing\n", "[log]\nlevel = \"warn\"", "[node]\n# listen = \"tcp://0.0.0.0:1\"\n",
                             "[log]\nlevel = \"warn\"\n  [node]  # this one\nname = \"alma\"\n"}) {
    EXPECT_EQ(after(before, elsewhere).listen, "tcp://0.0.0.0:7950") << before;
    EXPECT_EQ(after(before, "tcp://192.0.2.1:7946").listen, Config().listen) << before;
  }
  // A port that is handed on from elsewhere.
  EXPECT_EQ(after("[node]\n  listen = \"tcp://192.0.2.7:7946\"\n", elsewhere).listen, "tcp://192.0.2.7:7946");
  EXPECT_EQ(after("node.listen = \"tcp://0.0.0.0:7946\"\n", elsewhere).listen, "tcp://0.0.0.0:7946");
}

}  // namespace
}  // namespace kinfs::daemon
