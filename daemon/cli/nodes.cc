#include "daemon/cli/nodes.h"

#include <fmt/format.h>

#include <vector>

#include "daemon/cli/leave.h"
#include "daemon/cli/process.h"
#include "daemon/cli/session.h"
#include "daemon/config.h"
#include "storage/layouts.h"

namespace kinfs::daemon {
namespace {

void print_nodes(const Json& ring) {
  fmt::print("{:<16} {:>6} {:<16} {:>8} {}\n", "HOST", "WEIGHT", "ZONE", "HOLDS", "ID");
  const auto partitions = ring.at("partitions").get<double>();
  for (const auto& h : ring.at("hosts")) {
    const auto zone = h.at("zone").get<std::string>();
    fmt::print("{:<16} {:>6} {:<16} {:>6.1f} % {}\n", h.at("name").get<std::string>(), h.at("weight").get<int>(),
               zone.empty() ? "-" : printable(zone), 100 * h.at("owned").get<double>() / partitions,
               h.at("id").get<std::string>());
  }
}

/// What it is to be asked for, with what is not named as it is; nullopt: nothing.
Result<std::optional<cluster::ChangeMemberRequest>> request_of(const NodesOptions& options, const Json& ring) {
  std::vector<Json> called;
  for (const auto& h : ring.at("hosts")) {
    if (h.at("name") == options.host || h.at("id") == options.host) called.push_back(h);
  }
  if (called.size() != 1) {
    return fail(Errc::kNotFound, called.empty()
                                     ? fmt::format("no host of this cluster is called {}", printable(options.host))
                                     : fmt::format("{} hosts are called {}: name one by its id, see kinfs nodes",
                                                   called.size(), printable(options.host)));
  }
  const auto& host = called.front();
  cluster::ChangeMemberRequest out{host.at("id").get<std::string>(), cluster::ChangeMemberRequest::Change::kShare,
                                   false, host.at("weight").get<std::uint32_t>(), host.at("zone").get<std::string>()};
  if (options.weight) out.weight = *options.weight;
  if (options.zone) out.zone = *options.zone;
  if (out.weight == host.at("weight") && out.zone == host.at("zone")) return std::nullopt;
  return out;
}

int change(const NodesOptions& options, Session& session, const Json& ring, const std::string& socket) {
  const auto request = request_of(options, ring);
  if (!request) return give_up(request.error());
  if (*request) {
    auto changed = session.call([&](cluster::SocketClient& c) { return c.change_member(**request); });
    if (!changed) return give_up(changed.error());
  }
  if (auto followed = follow_change(socket, false); !followed) return give_up(followed.error());
  auto after = session.admin("ring");
  if (!after) return give_up(after.error());
  print_nodes(*after);
  return kExitDone;
}

}  // namespace

int nodes(const NodesOptions& options) {
  const bool changes = options.weight || options.zone;
  if (changes == options.host.empty()) {
    complain(changes ? "name the host whose weight or zone is to change"
                     : "say what is to change of it: --weight, or --zone");
    return kExitUsage;
  }
  if (options.zone && !options.zone->empty()) {
    if (auto good = check_name(*options.zone, "a zone's name"); !good) {
      complain("--zone: " + good.error().text);
      return kExitUsage;
    }
  }
  const auto socket = socket_path_of(options.socket);
  auto session = Session::open(socket);
  if (!session) return give_up(session.error());
  auto ring = session->admin("ring");
  if (!ring) return give_up(ring.error());
  try {
    if (changes) return change(options, *session, *ring, socket);
    if (options.json) {
      print_json(ring->at("hosts"));
    } else {
      print_nodes(*ring);
    }
    return kExitDone;
  } catch (const Json::exception& e) {
    return give_up_unreadable(e);
  }
}

}  // namespace kinfs::daemon
