// The exit codes of kinfsd and kinfs. Frozen: scripts depend on them.
#pragma once

#include "storage/result.h"

namespace kinfs::daemon {

enum ExitCode : int {
  kExitDone = 0,
  kExitAttention = 1,    // something needs attention, or was not found (conflicts, an absent key)
  kExitUsage = 2,        // the command line or the configuration makes no sense
  kExitUnreachable = 3,  // the daemon, or too many hosts, cannot be reached
  kExitRefused = 4,      // understood, and not done; the message says why
  kExitInternal = 5,     // damaged data, a failing disk, a bug
};

/// What a program that failed with `code` exits with.
ExitCode exit_code_of(Errc code);

}  // namespace kinfs::daemon
