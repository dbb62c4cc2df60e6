// kinfs conflicts: the names of a tree that stand for more than one version.
#pragma once

#include <optional>
#include <string>

namespace kinfs::daemon {

struct ConflictsOptions {
  std::string socket;
  /// A file or folder in a mount of kinfs; without one, all of volume home.
  std::optional<std::string> path;
  bool json = false;
};

/// Asks the ring, not a mount: what is shown is what the rows say. Exit 1 when there is a conflict.
int conflicts(const ConflictsOptions& options);

}  // namespace kinfs::daemon
