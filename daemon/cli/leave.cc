#include "daemon/cli/leave.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

#include "daemon/cli/process.h"
#include "daemon/cli/session.h"
#include "daemon/cli/status.h"

namespace kinfs::daemon {
namespace {

/// Where a volume is mounted on this machine through this daemon first.
std::vector<std::string> mounted_by(const std::string& socket) {
  std::vector<std::string> out;
  for (const auto& m : mounts()) {
    if (!is_kinfs(m)) continue;
    const auto process = mount_process_of(m.directory);
    std::string of = socket_path_of("");
    if (process && process->options.contains("socket")) of = process->options.at("socket");
    if (of == socket) out.push_back(m.directory);
  }
  return out;
}

/// What is still to be done, in words; empty: nothing.
std::string left_to_do(const Json& status, bool self_leaves) {
  for (const auto& task : status.value("tasks", Json::array())) {
    const auto names = task.value("waits_for", std::vector<std::string>());
    const auto obstacle = obstacle_of(task);
    return fmt::format("{} ({:.0f} % of this host's are); waits for {}{}{}", task.value("step", ""),
                       100 * task.value("done", 0.0), fmt::join(names, ", "), obstacle.empty() ? "" : "; ", obstacle);
  }
  return self_leaves && !status.at("cluster").value("has_left", false) ? "the other hosts are told" : "";
}

}  // namespace

Result<void> follow_change(const std::string& socket, bool self_leaves) {
  auto done = follow_status(socket, [&](const Json& status, Session&) { return left_to_do(status, self_leaves); });
  if (!done) return pass(std::move(done));
  return {};
}

int leave(const LeaveOptions& options) {
  const auto socket = socket_path_of(options.socket);
  const bool self_leaves = options.lost.empty();
  if (self_leaves) {
    if (const auto mounted = mounted_by(socket); !mounted.empty()) {
      return give_up({Errc::kRefused, fmt::format("{} is mounted here, and nothing serves it once this host has left: "
                                                  "unmount it first, with kinfs umount {}",
                                                  printable(mounted.front()), printable(mounted.front()))});
    }
  }
  auto session = Session::open(socket);
  if (!session) return give_up(session.error());
  auto status = session->admin("status");
  if (!status) return give_up(status.error());
  try {
    using Change = cluster::ChangeMemberRequest::Change;
    const auto host = self_leaves ? status->at("node").at("id").get<std::string>() : options.lost;
    const cluster::ChangeMemberRequest request{host, self_leaves ? Change::kLeave : Change::kExcuse, options.force, 1,
                                               ""};
    const auto& cluster = status->at("cluster");
    const bool leaves_already =
        self_leaves && cluster.at("knows_members").get<bool>() && !cluster.at("is_member").get<bool>();
    if (!leaves_already) {
      auto changed = session->call([&](cluster::SocketClient& c) { return c.change_member(request); });
      if (!changed) return give_up(changed.error());
    }
    if (auto followed = follow_change(socket, self_leaves); !followed) return give_up(followed.error());
    if (self_leaves) {
      fmt::print("{} has left cluster {}: all that it had is on the other hosts; stop kinfsd here, and delete {}\n",
                 status->at("node").at("name").get<std::string>(), status->at("cluster").at("id").get<std::string>(),
                 status->at("disk").at("path").get<std::string>());
    } else {
      fmt::print("{} is no member any more; what it had is on the other hosts as far as they had it\n",
                 printable(options.lost));
    }
    return kExitDone;
  } catch (const Json::exception& e) {
    return give_up_unreadable(e);
  }
}

}  // namespace kinfs::daemon
