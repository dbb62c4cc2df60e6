// What a daemon tells its own clients, so that they can go on without it: the other hosts, and the key pair by which
// these let them in. Whoever may use the daemon's socket may know it.
#pragma once

#include <string>
#include <vector>

#include "cluster/key_pair.h"
#include "storage/result.h"

namespace kinfs::cluster {

struct OtherHost {
  std::string name;
  std::string address;  // tcp://HOST:PORT
  Bytes public_key;     // kKeyBytes
};

struct Introduction {
  KeyPair client_keys;
  std::vector<OtherHost> hosts;  // to be tried in this order
  /// It reaches so many of them that what it reads is the newest, or will not reach more of them soon. One that has
  /// just started would answer from its own disk alone, and show a client an older state than another host has shown.
  bool ready = true;
};

/// The AdminRequest that asks for it.
inline constexpr const char* kIntroductionCommand = "others";
/// The AdminRequest that asks whether the daemon reaches so many others that what it reads is the newest. Clients of
/// other hosts may ask it too, and nothing else of this kind.
inline constexpr const char* kReadyCommand = "ready";

/// JSON: {public_key, secret_key, ready, hosts[{name, address, public_key}]}, keys in hexadecimal.
std::string encode_introduction(const Introduction& introduction);
/// kCorrupt, with words, for anything else.
Result<Introduction> decode_introduction(std::string_view json);

/// JSON: {ready}.
std::string encode_ready(bool ready);
/// True for anything else, which is what a daemon says that does not know the question.
bool decode_ready(std::string_view json);

}  // namespace kinfs::cluster
