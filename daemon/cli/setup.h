// kinfs init, kinfs invite and kinfs join: from nothing to a cluster.
//
// What they leave on a host: the configuration, with [cluster] in it; the key file; a running kinfsd, by systemd where
// that runs it. Each can be given again after it was interrupted, and finds what it had done.
#pragma once

#include <cstdint>
#include <string>

namespace kinfs::daemon {

struct SetUpOptions {
  std::string config;   // empty: kDefaultConfigFile
  std::string name;     // empty: the configuration's, else the host name
  std::string address;  // HOST, HOST:PORT or tcp://HOST:PORT; empty: found out
  std::string mount;    // where to mount volume home; empty: nowhere
};

struct InitOptions {
  SetUpOptions host;
  int copies = 3;
};
/// Makes a cluster of this host alone.
int init(const InitOptions& options);

struct InviteOptions {
  std::string socket;
  std::string valid = "1h";  // a number and s, m, h or d
};
/// Prints the word for one host to join by.
int invite(const InviteOptions& options);

struct JoinOptions {
  SetUpOptions host;
  std::string word;
};
/// Makes this host a member of the cluster that the word is of.
int join(const JoinOptions& options);

}  // namespace kinfs::daemon
