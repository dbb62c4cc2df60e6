// kinfs nodes: how much each host is to hold and where it stands, to be seen and changed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace kinfs::daemon {

struct NodesOptions {
  std::string socket;
  std::string host;                     // whose weight or zone is changed; empty: all are shown
  std::optional<std::uint32_t> weight;  // 1 to kMaxWeight
  std::optional<std::string> zone;      // empty: none
  bool json = false;
};
/// A change returns when the data is where it belongs then; until then says how far it is. Interrupted, it goes on by
/// itself.
int nodes(const NodesOptions& options);

}  // namespace kinfs::daemon
