// The word by which a host joins a cluster, as `kinfs invite` prints it and `kinfs join` takes it.
//
// It names the host that invites and carries a key of its own, a guest's, by which that host knows the invitation: a
// guest may ask to be admitted, and nothing else. Who has the word can join once, until it expires: it is to be handed
// over as a password is.
#pragma once

#include <cstdint>
#include <string>

#include "cluster/key_pair.h"
#include "storage/result.h"

namespace kinfs::cluster {

struct Invitation {
  std::string cluster_id;
  std::uint32_t copies = 3;     // quorum.n
  std::uint64_t expires_s = 0;  // since 1970, by the clock of the host that invites
  std::string host;             // its name
  std::string address;          // tcp://HOST:PORT
  Bytes public_key;             // 32 bytes, of that host
  Bytes secret_key;             // 32 bytes, of the guest
  bool operator==(const Invitation&) const = default;
};

/// One word of letters, digits, '-' and '_'.
std::string encode_invitation(const Invitation& invitation);
/// kInvalid with words for whatever encode_invitation did not return.
Result<Invitation> decode_invitation(const std::string& word);

}  // namespace kinfs::cluster
