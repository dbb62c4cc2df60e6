// One running kinfsd: opens everything in the order in which a refusal does least harm, runs, and stops cleanly.
//
// Order of opening: key (is this the host that it claims to be), data directory (locked from here on), port,
// core, Unix socket. The socket comes last: a daemon that can be reached can also serve.
#pragma once

#include <memory>

#include "daemon/config.h"
#include "storage/result.h"

namespace kinfs::daemon {

class Daemon {
 public:
  /// kRefused, kNotFound, kFormat, kCorrupt, … each with words that name the thing and the way out.
  static Result<std::unique_ptr<Daemon>> open(Config config);
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  /// Serves until SIGTERM or SIGINT; these must be blocked in every thread of the process before open(). An error:
  /// the store failed in a way that leaves nothing to serve from.
  Result<void> run();

 private:
  struct Impl;
  explicit Daemon(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// To standard error, or to config.log_file. kRefused when that cannot be opened.
Result<void> start_log(const Config& config);

}  // namespace kinfs::daemon
