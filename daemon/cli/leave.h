// kinfs leave: this host out of its cluster, or another one that is lost.
#pragma once

#include <string>

#include "storage/result.h"

namespace kinfs::daemon {

struct LeaveOptions {
  std::string socket;
  std::string lost;    // the host that is excused; empty: this one leaves
  bool force = false;  // excuses also where no more than half of the hosts can be reached
};
/// Returns when what was to be handed over is; until then says how far it is. Interrupted, it goes on by itself.
int leave(const LeaveOptions& options);

/// Says how far the change of members under way is, whenever that has changed; returns when there is none, and, of a
/// host that leaves, when it has left.
Result<void> follow_change(const std::string& socket, bool self_leaves);

}  // namespace kinfs::daemon
