// kinfs scrub: reads all blocks of this host now.
#pragma once

#include <string>

namespace kinfs::daemon {

struct ScrubOptions {
  std::string socket;
};
/// Returns when all were read; until then says how far it is. Exit 1 when one was damaged. Interrupted, it goes on by
/// itself.
int scrub(const ScrubOptions& options);

}  // namespace kinfs::daemon
