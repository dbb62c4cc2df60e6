#include "daemon/notify.h"

#include <systemd/sd-daemon.h>

namespace kinfs::daemon {
namespace {

void tell(const std::string& state) { sd_notify(/*unset_environment=*/0, state.c_str()); }

}  // namespace

void notify_ready(const std::string& words) { tell("READY=1\nSTATUS=" + words); }
void notify_status(const std::string& words) { tell("STATUS=" + words); }
void notify_stopping() { tell("STOPPING=1\nSTATUS=Stopping: what is under way is answered first"); }
void notify_alive() { tell("WATCHDOG=1"); }

std::int64_t watchdog_interval_ms() {
  std::uint64_t timeout_us = 0;
  if (sd_watchdog_enabled(/*unset_environment=*/0, &timeout_us) <= 0) return 0;
  // Three times as often as must be: one late round of the loop is no death.
  return static_cast<std::int64_t>(timeout_us / 1000 / 3);
}

}  // namespace kinfs::daemon
