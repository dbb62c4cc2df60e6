// What the kernel says of mounts, and what of that can be set.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

namespace kinfs::fs {

struct Mounted {
  std::string type;    // ext4, fuse.kinfs, autofs, …
  std::string device;  // MAJOR:MINOR
};

/// The topmost mount at `directory`, an absolute path without links; nullopt when it is no mount point. Asks no file
/// system, so that it does not wait for one.
std::optional<Mounted> mounted_at(const std::string& directory);

/// How much the kernel reads ahead in the FUSE file system mounted at `directory`: to be called before that answers
/// INIT, as the kernel takes the lesser of this and what the answer says. Needs root; false: it stays as it is.
bool enlarge_read_ahead(const std::string& directory, std::size_t bytes);

}  // namespace kinfs::fs
