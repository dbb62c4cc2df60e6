// Starting and ending the processes of one host of a lab.
#pragma once

#include "daemon/cli/lab_state.h"
#include "storage/result.h"

namespace kinfs::daemon {

/// Generous, since a machine under load or a build with sanitizers must not fail: what is waited for comes in well
/// under a second.
inline constexpr std::int64_t kLabTimeoutMs = 60'000;

/// Writes the configuration, starts the daemon and waits until it answers. An error ends with the log's last lines.
Result<void> start_daemon(LabState& lab, LabHost& host);
/// Mounts, and waits until the mount answers.
Result<void> start_mount(LabState& lab, LabHost& host);
/// How many of the hosts that run and are not cut off from `host` it believes to be up, as `running` says.
bool sees_all(const LabState& lab, const LabHost& host);

/// kill -9, and the mountpoint left as an ordinary folder. An error: a process stuck in the kernel.
Result<void> kill_daemon(LabState& lab, LabHost& host);
Result<void> kill_mount(LabState& lab, LabHost& host);
/// Ends both in an orderly way, by force where that does not help; an error for what is left over.
Result<void> end_host(LabHost& host);

}  // namespace kinfs::daemon
