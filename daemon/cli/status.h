// kinfs status and kinfs ring: what the daemon knows, as tables or as JSON.
#pragma once

#include <optional>
#include <string>

namespace kinfs::daemon {

struct StatusOptions {
  std::string socket;
  bool json = false;
};

/// Exit 1 when something needs attention: a host down, hints kept, a disk nearly full, writes that failed.
int status(const StatusOptions& options);

struct RingOptions {
  std::string socket;
  std::optional<std::string> key;
  std::string volume = "kv";
  bool json = false;
};

int ring(const RingOptions& options);

}  // namespace kinfs::daemon
