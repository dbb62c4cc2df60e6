// What kinfs init and kinfs join write into a configuration, as text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "daemon/config.h"
#include "storage/store.h"

namespace kinfs::daemon {

/// Of what cluster a host is.
struct ClusterPart {
  std::string cluster_id;
  std::uint32_t copies = 3;    // quorum.n
  std::string address;         // tcp://HOST:PORT, of this host
  std::vector<Member> others;  // who is to be asked when the data directory is empty
};

/// HOST, HOST:PORT or tcp://HOST:PORT as the last; HOST may be an IPv6 address without brackets. Checks nothing.
std::string full_address(const std::string& word, std::uint16_t port);

/// `before` with `part` in it; nullopt: there is no file, and it says also that this host is called `name`. Unless
/// `before` has node.listen, it gets one with which who dials the address comes out here, if the default is none.
std::string config_text(const std::optional<std::string>& before, const std::string& name, const ClusterPart& part);

}  // namespace kinfs::daemon
