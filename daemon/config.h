// The configuration of one daemon: /etc/kinfs/kinfs.toml.
//
// Every key has a default, so that an empty file is a cluster of one host. What is not understood is an error,
// never ignored: a mistyped key would otherwise be a setting that silently does not hold. All errors of a file
// are reported together, each with its line and, for a name that is nearly right, the name that was meant.
//
//   key                          type       default                     meaning
//   ---------------------------  ---------  --------------------------  ---------------------------------------------
//   node.name                    string     the host name               this host's name in the cluster, and in
//                                                                       versions that it writes; 1 to 64 characters
//                                                                       of a-z A-Z 0-9 . _ -
//   node.listen                  string     tcp://0.0.0.0:7946          where other daemons reach this one
//   node.data_dir                string     /var/lib/kinfs              rows and blocks; made when it is not there
//   node.socket                  string     /run/kinfs/kinfsd.sock      Unix socket (0660) for mounts and kinfs
//   node.key_file                string     /etc/kinfs/node.key         key pair of this host; mode 0600
//   cluster.id                   string     kinfs                       daemons of different ids refuse each other's
//                                                                       data directories; 1 to 64 characters
//   cluster.by_invitation        boolean    false                       hosts join by kinfs join; who they are is kept
//                                                                       in data_dir, and the members listed here are
//                                                                       others to be asked when it is empty
//   cluster.address              string     (required then)             tcp://HOST:PORT under which others dial this
//                                                                       host, when its members join by invitation
//   cluster.seeds                strings    all members                 names of members that gossip never forgets
//   cluster.cut                  strings    none                        names of members with which all traffic is
//                                                                       dropped from the start; for `kinfs lab`
//   cluster.member (repeated)               this host alone             the members; each daemon lists all of them,
//                                                                       itself included
//   cluster.member.name          string     (required)                  node.name of that host
//   cluster.member.address       string     (required)                  tcp://HOST:PORT under which others dial it
//   cluster.member.public_key    string     (required)                  64 hexadecimal digits, as kinfsd --make-key
//                                                                       prints them
//   quorum.n                     integer    3                           replicas of each row; at most the members
//   quorum.r                     integer    majority of n               replicas that answer a read; r + w > n
//   quorum.w                     integer    majority of n               replicas that confirm a write
//   log.level                    string     info                        trace, debug, info, warn, error
//   log.file                     string     (standard error)            appended to
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/node.h"
#include "storage/result.h"

namespace kinfs::daemon {

inline constexpr const char* kDefaultConfigFile = "/etc/kinfs/kinfs.toml";
inline constexpr const char* kDefaultSocket = "/run/kinfs/kinfsd.sock";

struct MemberConfig {
  std::string name;
  std::string address;
  Bytes public_key;  // 32 bytes
  bool operator==(const MemberConfig&) const = default;
};

struct Config {
  std::string name;
  std::string listen = "tcp://0.0.0.0:7946";
  std::string data_dir = "/var/lib/kinfs";
  std::string socket = kDefaultSocket;
  std::string key_file = "/etc/kinfs/node.key";
  std::string cluster_id = "kinfs";
  std::vector<std::string> seeds;
  std::vector<std::string> cut;
  bool by_invitation = false;
  std::string address;                // of this host, by invitation
  std::vector<MemberConfig> members;  // empty: this host alone
  cluster::Quorum quorum;             // fitted to the number of members; by invitation r and w are 0, majorities
  std::string log_level = "info";
  std::string log_file;  // empty: standard error
};

/// `file` is used in messages only; `host_name` is the default of node.name. kInvalid with one line of text for
/// each thing that is wrong.
Result<Config> parse_config(std::string_view text, const std::string& file, const std::string& host_name);
/// kNotFound when there is no such file; kIo when it cannot be read.
Result<Config> load_config(const std::string& file);
/// What holds when there is no file at all.
Config default_config();
/// This machine's name up to the first dot.
std::string own_host_name();
/// Splits tcp://HOST:PORT; kInvalid when it is not one.
Result<std::pair<std::string, std::uint16_t>> parse_address(const std::string& address);
/// kInvalid, in words, for what is no tcp://HOST:PORT, or none that another host can dial.
Result<void> check_dialled(const std::string& address);
/// kInvalid, in words, when who dials `address` cannot come out at `listen`, since one is IPv4 and the other IPv6. What
/// a name stands for is not looked up.
Result<void> check_family(const std::string& listen, const std::string& address);
/// kInvalid, in words, for what cannot be a host's name.
Result<void> check_name(const std::string& name, std::string_view of = "a host's name");

/// `text` as a string of TOML.
std::string toml_string(const std::string& text);

/// The name in `known` that `word` was most likely meant to be; empty when none is near.
std::string nearest_name(std::string_view word, const std::vector<std::string>& known);

}  // namespace kinfs::daemon
