// kinfs status and kinfs ring: what the daemon knows, as tables or as JSON.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "daemon/cli/session.h"

namespace kinfs::daemon {

struct StatusOptions {
  std::string socket;
  bool json = false;
};

/// Of a task in the answer: who said what keeps it from coming to its end. Empty: nothing that is known of.
std::string obstacle_of(const Json& task);

/// Asks for the status again and again, and says what `left` says of it whenever that has changed; returns the last
/// one, of which that is nothing.
Result<Json> follow_status(const std::string& socket, const std::function<std::string(const Json&, Session&)>& left);

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
