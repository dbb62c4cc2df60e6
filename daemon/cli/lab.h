// kinfs lab: a cluster of several hosts on this one machine, each with a daemon and a mount of its own.
#pragma once

#include <string>
#include <vector>

namespace kinfs::daemon {

inline constexpr int kMaxLabHosts = 32;

/// `nodes`: 1 to kMaxLabHosts.
int lab_up(const std::string& directory, int nodes);
/// Without a directory: all labs.
int lab_status(const std::string& directory, bool json);
/// From now on these hosts are cut off from all others, beside those that were already.
int lab_cut(const std::string& directory, const std::vector<std::string>& hosts);
/// Waits for the hosts to see each other and to hand over; exit 1 when one is not back in time. So does lab_start().
int lab_heal(const std::string& directory);
/// kill -9; the dead mount stays in its place until lab_start() or lab_down().
int lab_kill(const std::string& directory, const std::string& host, bool daemon_only);
int lab_start(const std::string& directory, const std::string& host);
int lab_down(const std::string& directory);

}  // namespace kinfs::daemon
