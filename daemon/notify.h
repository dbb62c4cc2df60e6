// What the service manager is told of this daemon (sd_notify(3)). Nothing happens when none listens: when
// NOTIFY_SOCKET is not set, as in a lab.
//
// Threading: from any thread; none of these waits.
#pragma once

#include <cstdint>
#include <string>

namespace kinfs::daemon {

/// Everything is open, and whoever asks is answered. `words`: what `systemctl status` shows.
void notify_ready(const std::string& words);
void notify_status(const std::string& words);
/// The end has been asked for, and is not to be taken for a failure.
void notify_stopping();
/// How often notify_alive() must be called, with room to spare; 0: nobody watches.
std::int64_t watchdog_interval_ms();
void notify_alive();

}  // namespace kinfs::daemon
