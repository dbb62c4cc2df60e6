// The key pair of one host, on disk.
//
// Two lines, `public-key HEX` and `secret-key HEX`, 64 digits each. Whoever can read it is that host: a file that
// others than its owner may read is refused, not repaired, since it may have been read already.
#pragma once

#include <string>

#include "cluster/zmq_transport.h"
#include "storage/result.h"

namespace kinfs::daemon {

/// kRefused: wrong mode, owner or kind of file. kNotFound: there is none. kCorrupt: not a key file.
Result<cluster::KeyPair> read_key_file(const std::string& path);
/// Makes a pair and writes it with mode 0600; on disk when this returns. kExists when the file is there already: a key
/// is never overwritten.
Result<cluster::KeyPair> make_key_file(const std::string& path);

}  // namespace kinfs::daemon
