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
/// What is left of a dead mount is taken away; kRefused when files lie where the host is to be mounted.
Result<void> make_mountpoint(const LabHost& host);
/// Mounts, and waits until the mount answers.
Result<void> start_mount(LabState& lab, LabHost& host);
/// Whether `host` believes all hosts to be up that run and are not cut off from it.
bool sees_all(const LabState& lab, const LabHost& host);
/// Waits, kBackTimeoutMs at most, until all hosts that run see each other again and have handed over what they kept
/// for each other, pairs that are cut off from each other aside. kUnavailable: which host is not back, in words.
inline constexpr std::int64_t kBackTimeoutMs = 10'000;
Result<void> wait_until_back(const LabState& lab);

/// kill -9; a mount stays in its place, dead. An error: a process stuck in the kernel.
Result<void> kill_daemon(LabState& lab, LabHost& host);
Result<void> kill_mount(LabState& lab, LabHost& host);
/// Ends both in an orderly way, by force where that does not help; an error for what is left over.
Result<void> end_host(LabHost& host);

}  // namespace kinfs::daemon
