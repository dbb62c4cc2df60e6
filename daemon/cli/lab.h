// kinfs lab: a cluster of several hosts on this one machine, each with a daemon and a mount of its own.
#pragma once

#include <string>
#include <vector>

namespace kinfs::daemon {

inline constexpr int kMaxLabHosts = 32;

int lab_up(const std::string& directory, int nodes);
/// Without a directory: all labs.
int lab_status(const std::string& directory, bool json);
/// From now on these hosts are cut off from all others, beside those that were already.
int lab_cut(const std::string& directory, const std::vector<std::string>& hosts);
int lab_heal(const std::string& directory);
/// kill -9.
int lab_kill(const std::string& directory, const std::string& host, bool daemon_only);
int lab_start(const std::string& directory, const std::string& host);
int lab_down(const std::string& directory);

}  // namespace kinfs::daemon
