// kinfs mount and kinfs umount.
#pragma once

#include <string>
#include <vector>

namespace kinfs::daemon {

struct MountOptions {
  std::string socket;
  std::string volume;
  std::string directory;
  std::vector<std::string> options;  // as after -o, handed on to mount.kinfs
};

/// Runs mount.kinfs with what the daemon says about this host; its exit code.
int mount(const MountOptions& options);

struct UmountOptions {
  std::string directory;
};

/// Returns when the mount's process has published everything and ended.
int umount(const UmountOptions& options);

}  // namespace kinfs::daemon
