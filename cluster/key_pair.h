// Key pairs of hosts, and of their clients.
#pragma once

#include "storage/bytes.h"
#include "storage/key.h"

namespace kinfs::cluster {

inline constexpr std::size_t kKeyBytes = 32;

/// CURVE, each kKeyBytes.
struct KeyPair {
  Bytes public_key;
  Bytes secret_key;
};
/// A fresh one.
KeyPair make_key_pair();
/// The pair of a secret key of kKeyBytes.
KeyPair key_pair_of(ByteView secret_key);
/// The pair by which the clients of a host show other hosts whose they are. It follows from the host's own, so that
/// nobody keeps a second secret, and does not tell it: a mount never holds what would let it speak as its host.
KeyPair client_keys_of(const KeyPair& host);

}  // namespace kinfs::cluster
