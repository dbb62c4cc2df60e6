// The path of a Unix socket.
#pragma once

#include <sys/un.h>

#include <cstddef>
#include <string>

#include "storage/result.h"

namespace kinfs::cluster {

/// Bytes; sockaddr_un holds one more, for the final zero.
inline constexpr std::size_t kMaxSocketPath = sizeof(sockaddr_un{}.sun_path) - 1;

/// kInvalid, with words, when no socket can have this path.
Result<sockaddr_un> unix_address(const std::string& path);

}  // namespace kinfs::cluster
