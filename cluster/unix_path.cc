#include "cluster/unix_path.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <cstring>

namespace kinfs::cluster {

Result<sockaddr_un> unix_address(const std::string& path) {
  if (path.empty()) return fail(Errc::kInvalid, "a socket's path has at least one byte");
  if (path.size() > kMaxSocketPath) {
    return fail(Errc::kInvalid, fmt::format("the socket's path {} has {} bytes, and may have at most {}: choose "
                                            "another, in node.socket of the configuration and wherever it is named "
                                            "(--socket, KINFS_SOCKET, -o socket=PATH)",
                                            path, path.size(), kMaxSocketPath));
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

}  // namespace kinfs::cluster
