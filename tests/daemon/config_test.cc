// What kinfs.toml may say, and what is said about everything else.
#include "daemon/config.h"

#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

namespace kinfs::daemon {
namespace {

const std::string kKeyA(64, 'a');
const std::string kKeyB(64, 'b');

std::string member(const std::string& name, int port, const std::string& key) {
  return "[[cluster.member]]\nname = \"" + name + "\"\naddress = \"tcp://127.0.0.1:" + std::to_string(port) +
         "\"\npublic_key = \"" + key + "\"\n";
}

TEST(Config, AnEmptyFileIsAClusterOfOne) {
  const auto config = parse_config("", "f", "alma");
  ASSERT_TRUE(config) << config.error().text;
  EXPECT_EQ(config->name, "alma");
  EXPECT_EQ(config->listen, "tcp://0.0.0.0:7946");
  EXPECT_EQ(config->socket, kDefaultSocket);
  EXPECT_EQ(config->data_dir, "/var/lib/kinfs");
  EXPECT_EQ(config->quorum.n, 1u);
  EXPECT_EQ(config->quorum.r, 1u);
  EXPECT_EQ(config->quorum.w, 1u);
  EXPECT_TRUE(config->members.empty());
}

TEST(Config, EverythingSet) {
  const auto config = parse_config(
      "[node]\nname = \"b\"\nlisten = \"tcp://[::1]:1\"\ndata_dir = \"/d\"\nsocket = \"/s\"\nkey_file = \"/k\"\n"
      "[quorum]\nn = 2\nr = 2\nw = 1\n[log]\nlevel = \"debug\"\nfile = \"/l\"\n"
      "[cluster]\nid = \"c\"\nseeds = [\"a\"]\ncut = [\"a\"]\n" +
          member("a", 1, kKeyA) + member("b", 2, kKeyB),
      "f", "other");
  ASSERT_TRUE(config) << config.error().text;
  EXPECT_EQ(config->name, "b");
  EXPECT_EQ(config->members.size(), 2u);
  EXPECT_EQ(config->members[1].public_key, Bytes(32, '\xbb'));
  EXPECT_EQ(config->quorum.n, 2u);
  EXPECT_EQ(config->quorum.w, 1u);
  EXPECT_EQ(config->seeds, std::vector<std::string>{"a"});
  EXPECT_EQ(config->cut, std::vector<std::string>{"a"});
  EXPECT_EQ(config->log_level, "debug");
}

TEST(Config, WhereAHostListensAndWhereItIsDialled) {
  for (const char* good : {"tcp://192.0.2.1:7946", "tcp://[2001:db8::1]:7946", "tcp://alma.example:1"}) {
    EXPECT_TRUE(check_dialled(good)) << good;
  }
  for (const char* bad :
       {"tcp://0.0.0.0:7946", "tcp://[::]:7946", "tcp://*:7946", "192.0.2.1:7946", "tcp://192.0.2.1"}) {
    EXPECT_FALSE(check_dialled(bad)) << bad;
  }
  const std::string v4 = "tcp://192.0.2.1:7946";
  const std::string v6 = "tcp://[2001:db8::1]:7946";
  const std::string name = "tcp://alma:7946";
  EXPECT_TRUE(check_family("tcp://0.0.0.0:7946", v4));
  EXPECT_TRUE(check_family("tcp://0.0.0.0:7946", name));
  EXPECT_TRUE(check_family("tcp://[::]:7946", v4));
  EXPECT_TRUE(check_family("tcp://[::]:7946", v6));
  EXPECT_TRUE(check_family(v6, name));
  const auto narrow = check_family("tcp://0.0.0.0:7950", v6);
  ASSERT_FALSE(narrow);
  for (const char* word : {"IPv6", "IPv4 alone", "tcp://[::]:7950", "--address"}) {
    EXPECT_NE(narrow.error().text.find(word), std::string::npos) << narrow.error().text;
  }
  EXPECT_FALSE(check_family("tcp://*:7946", v6));
  EXPECT_FALSE(check_family(v6, v4));
}

TEST(Config, ByInvitation) {
  const std::string joins = "[cluster]\nid = \"c\"\nby_invitation = true\naddress = \"tcp://192.0.2.1:7946\"\n";
  const auto first = parse_config(joins, "f", "a");
  ASSERT_TRUE(first) << first.error().text;
  EXPECT_TRUE(first->by_invitation);
  EXPECT_EQ(first->address, "tcp://192.0.2.1:7946");
  // Not fitted to the hosts that there are: more may come.
  EXPECT_EQ(first->quorum, (cluster::Quorum{3, 0, 0}));
  // Others to be asked need not be all, and need not name this host.
  const auto next = parse_config(joins + member("b", 2, kKeyB) + "[quorum]\nn = 5\n", "f", "a");
  ASSERT_TRUE(next) << next.error().text;
  EXPECT_EQ(next->members.size(), 1u);
  EXPECT_EQ(next->quorum, (cluster::Quorum{5, 0, 0}));
}

TEST(Config, ReplicasAreNeverMoreThanHosts) {
  const auto config =
      parse_config("[quorum]\nn = 3\nr = 2\n[cluster]\n" + member("a", 1, kKeyA) + member("b", 2, kKeyB), "f", "a");
  ASSERT_TRUE(config) << config.error().text;
  EXPECT_EQ(config->quorum.n, 2u);
  EXPECT_EQ(config->quorum.r, 2u);
  EXPECT_EQ(config->quorum.w, 2u);
}

struct Wrong {
  const char* what;
  std::string text;
  std::vector<std::string> says;
};

void PrintTo(const Wrong& wrong, std::ostream* out) { *out << wrong.what; }

class WrongConfig : public testing::TestWithParam<Wrong> {};

TEST_P(WrongConfig, IsRefusedWithLineAndWords) {
  const auto config = parse_config(GetParam().text, "kinfs.toml", "a");
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().code, Errc::kInvalid);
  for (const auto& word : GetParam().says) {
    EXPECT_NE(config.error().text.find(word), std::string::npos) << "no " << word << " in:\n" << config.error().text;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, WrongConfig,
    testing::Values(
        Wrong{"mistyped_key",
              "[node]\nname = \"a\"\nlisen = \"tcp://h:1\"\n",
              {"kinfs.toml:3:", "node.lisen", "did you mean node.listen?"}},
        Wrong{"mistyped_section", "\n[nod]\n", {"kinfs.toml:2:", "nod", "did you mean node?"}},
        Wrong{"key_of_another_section", "[node]\nseeds = []\n", {"kinfs.toml:2:", "did you mean cluster.seeds?"}},
        Wrong{"nothing_near", "[node]\nzzzzzzzzzz = 1\n", {"kinfs.toml:2:", "known here: name, listen"}},
        Wrong{"key_case", "[quorum]\nN = 3\n", {"kinfs.toml:2:", "did you mean quorum.n?"}},
        Wrong{"wrong_type", "[node]\nname = 7\n", {"kinfs.toml:2:", "node.name must be a string", "an integer"}},
        Wrong{"wrong_type_list", "[cluster]\nseeds = \"a\"\n", {"kinfs.toml:2:", "cluster.seeds must be a list"}},
        Wrong{"wrong_type_in_list", "[cluster]\nseeds = [1]\n", {"kinfs.toml:2:", "an integer where a name"}},
        Wrong{"section_as_value", "quorum = 3\n", {"kinfs.toml:1:", "[quorum]"}},
        Wrong{"fraction", "[quorum]\nn = 1.5\n", {"kinfs.toml:2:", "quorum.n must be an integer"}},
        Wrong{"zero", "[quorum]\nn = 0\n", {"kinfs.toml:2:", "between 1 and 15"}},
        Wrong{"huge", "[quorum]\nn = 9223372036854775807\n", {"kinfs.toml:2:", "between 1 and 15"}},
        Wrong{"empty_string", "[node]\nsocket = \"\"\n", {"kinfs.toml:2:", "node.socket is empty"}},
        Wrong{"relative_path", "[node]\ndata_dir = \"data\"\n", {"kinfs.toml:2:", "absolute path"}},
        Wrong{"long_socket", "[node]\nsocket = \"/" + std::string(120, 's') + "\"\n", {"kinfs.toml:2:", "107 bytes"}},
        Wrong{"zero_byte", "[node]\nsocket = \"/a\\u0000b\"\n", {"kinfs.toml:2:", "zero byte"}},
        Wrong{"bad_name", "[node]\nname = \"a b\"\n", {"kinfs.toml:2:", "node.name must be"}},
        Wrong{"no_scheme", "[node]\nlisten = \"1.2.3.4:5\"\n", {"kinfs.toml:2:", "does not begin with tcp://"}},
        Wrong{"no_port", "[node]\nlisten = \"tcp://1.2.3.4\"\n", {"kinfs.toml:2:", "no port"}},
        Wrong{"no_host", "[node]\nlisten = \"tcp://:1\"\n", {"kinfs.toml:2:", "names no host"}},
        Wrong{"port_range", "[node]\nlisten = \"tcp://h:65536\"\n", {"kinfs.toml:2:", "1 to 65535"}},
        Wrong{"log_level", "[log]\nlevel = \"inof\"\n", {"kinfs.toml:2:", "did you mean info?"}},
        Wrong{"not_toml", "[node]\nname = \n", {"kinfs.toml:2:", "not TOML"}},
        Wrong{"twice", "[node]\nname = \"a\"\nname = \"a\"\n", {"kinfs.toml:3:", "not TOML"}},
        Wrong{"member_as_table", "[cluster.member]\nname = \"a\"\n", {"kinfs.toml:1:", "[[cluster.member]]"}},
        Wrong{"member_incomplete",
              "[[cluster.member]]\nname = \"a\"\n",
              {"kinfs.toml:1:", "no address", "no public_key"}},
        Wrong{"member_key", member("a", 1, "abcd"), {"kinfs.toml:4:", "64 hexadecimal digits"}},
        Wrong{"member_key_no_hex", member("a", 1, std::string(64, 'x')), {"kinfs.toml:4:", "64 hexadecimal digits"}},
        Wrong{
            "same_name", member("a", 1, kKeyA) + member("a", 2, kKeyB), {"kinfs.toml:5:", "two members are called a"}},
        Wrong{"same_key", member("a", 1, kKeyA) + member("b", 2, kKeyA), {"kinfs.toml:5:", "same public_key"}},
        Wrong{"same_address", member("a", 1, kKeyA) + member("b", 1, kKeyB), {"kinfs.toml:5:", "same address"}},
        Wrong{"not_a_member", member("bert", 1, kKeyA), {"kinfs.toml", "node.name is a", "members: bert"}},
        Wrong{"unknown_seed",
              "[cluster]\nseeds = [\"hots1\"]\n" + member("a", 1, kKeyA) + member("host1", 2, kKeyB),
              {"kinfs.toml:2:", "hots1", "did you mean host1?"}},
        Wrong{"quorum_too_small",
              "[quorum]\nr = 1\nw = 1\n[cluster]\n" + member("a", 1, kKeyA) + member("b", 2, kKeyB),
              {"kinfs.toml:1:", "r + w must be greater than n"}},
        Wrong{"quorum_over_n", "[quorum]\nn = 2\nr = 3\n", {"kinfs.toml:1:", "cannot be greater than n"}},
        Wrong{
            "no_own_address", "[cluster]\nby_invitation = true\n", {"kinfs.toml:1:", "cluster.address", "kinfs init"}},
        Wrong{"address_alone",
              "[cluster]\naddress = \"tcp://h:1\"\n",
              {"kinfs.toml:2:", "holds with cluster.by_invitation"}},
        Wrong{"invitation_as_word",
              "[cluster]\nby_invitation = \"yes\"\naddress = \"tcp://h:1\"\n",
              {"kinfs.toml:2:", "must be true or false and is a string"}},
        Wrong{"quorum_by_invitation",
              "[cluster]\nby_invitation = true\naddress = \"tcp://h:1\"\n[quorum]\nw = 2\n",
              {"kinfs.toml:4:", "cannot be set with cluster.by_invitation"}},
        Wrong{"several_at_once", "[node]\nnmae = \"a\"\n[log]\nlevel = 1\n", {"kinfs.toml:2:", "kinfs.toml:4:"}}),
    [](const auto& wrong) { return std::string(wrong.param.what); });

TEST(Config, OneErrorIsSaidOnce) {
  const auto lines = [](const std::string& text, const std::string& host) {
    const auto config = parse_config(text, "f", host);
    return config ? std::string() : config.error().text;
  };
  const std::string members = "[cluster]\n" + member("a", 1, kKeyA) + member("b", 2, kKeyB);
  for (const auto* name : {"\"a b\"", "\"\"", "7"}) {
    const auto text = lines(std::string("[node]\nname = ") + name + "\n" + members, "c");
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    EXPECT_EQ(text.find("this machine"), std::string::npos) << text;
  }
  // Without a name in the file the machine's own is at fault.
  EXPECT_NE(lines("", "a b").find("this machine's name"), std::string::npos);
  const auto twice = lines(member("b", 1, kKeyA) + member("b", 2, kKeyB), "a");
  EXPECT_NE(twice.find("members: b"), std::string::npos) << twice;
  EXPECT_EQ(twice.find("members: b, b"), std::string::npos) << twice;
}

TEST(Config, TheFile) {
  EXPECT_EQ(load_config("/nonexistent/kinfs.toml").error().code, Errc::kNotFound);
  const auto directory = load_config("/");
  ASSERT_FALSE(directory);
  EXPECT_NE(directory.error().text.find("/"), std::string::npos);
}

TEST(NearestName, IsCarefulWithShortWords) {
  EXPECT_EQ(nearest_name("listne", {"name", "listen"}), "listen");
  EXPECT_EQ(nearest_name("x", {"n", "r", "w"}), "");
  EXPECT_EQ(nearest_name("W", {"n", "r", "w"}), "w");
  EXPECT_EQ(nearest_name("completely", {"name", "listen"}), "");
  EXPECT_EQ(nearest_name("stat", {"get", "status"}), "status");
  EXPECT_EQ(nearest_name("publ", {"public_key", "public_name"}), "") << "which of the two is not known";
}

}  // namespace
}  // namespace kinfs::daemon
