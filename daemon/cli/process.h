// Other processes and mounts, handled so that a process number that was used again is never signalled, and a mount
// that does not answer never hangs the command line.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "storage/result.h"

namespace kinfs::daemon {

/// A process and when it started (clock ticks since boot, field 22 of /proc/PID/stat): together never used twice
/// until the machine is booted again, and `boot` tells boots apart.
struct ProcessId {
  pid_t pid = 0;
  std::uint64_t start = 0;
  std::string boot;  // /proc/sys/kernel/random/boot_id
  bool operator==(const ProcessId&) const = default;
};

/// nullopt: no such process, or it has ended and only waits to be collected.
std::optional<ProcessId> process_of(pid_t pid);
bool runs(const ProcessId& process);
/// Sends `signal` if the process still is the one meant; false when it is gone.
bool signal_process(const ProcessId& process, int signal);
/// Until it has ended; false when `timeout_ms` passed first.
bool wait_for_end(const ProcessId& process, std::int64_t timeout_ms);
/// SIGTERM, then, after `patience_ms`, SIGKILL; false when it does not even end by that (stuck in the kernel).
bool end_process(const ProcessId& process, std::int64_t patience_ms);

/// The path of a program that belongs to this one: beside the running binary or in ../sbin from there (installed
/// below a prefix), else in /usr/sbin, /sbin, /usr/bin. kRefused, naming where it was looked for.
Result<std::string> find_program(const std::string& name);

/// Runs a program and waits for it; standard input is /dev/null. Its exit code, or 128 + the signal.
/// `output`: gets what it writes to standard output and error, at most 64 KiB; null: shared with this process.
/// kTimeout after `timeout_ms`: then it is killed.
Result<int> run_program(const std::vector<std::string>& argv, std::int64_t timeout_ms, std::string* output = nullptr);
/// Starts a program in a session of its own, its output appended to `log_file`; it outlives this process.
Result<ProcessId> start_program(const std::vector<std::string>& argv, const std::string& log_file);

struct Mount {
  std::string source;
  std::string directory;
  std::string type;  // fuse.kinfs
};
/// As /proc/self/mounts says, in its order. Never touches the mounted directories.
std::vector<Mount> mounts();
/// The topmost mount exactly at `directory`.
std::optional<Mount> mount_at(const std::string& directory);
/// Of the kinfs mounts that `path` may lie in the innermost one; by names, not by looking.
std::optional<Mount> mount_above(const std::string& path);
bool is_kinfs(const Mount& mount);
/// The process mount.kinfs that serves `directory`, and what it was given by -o, from /proc.
struct MountProcess {
  ProcessId process;
  std::map<std::string, std::string> options;
};
std::optional<MountProcess> mount_process_of(const std::string& directory);

/// kBusy when it is in use; `detach`: takes it away from sight anyway. Uses fusermount3 where the right is missing.
Result<void> unmount(const std::string& directory, bool detach);
/// Whether stat and listing of `directory` are answered within `timeout_ms`, asked by a process of its own.
bool mount_answers(const std::string& directory, std::int64_t timeout_ms);

/// The absolute path without links and dots, without touching the last component: it may be a dead mount.
std::string absolute_path(const std::string& path);
/// The last `lines` lines of a file.
std::string tail_of(const std::string& file, std::size_t lines);

/// Calls `holds` every 20 ms until it is true, or the time is over, or the user interrupts (see catch_interrupts).
template <class F>
bool wait_until(std::int64_t timeout_ms, F holds);
/// From now on SIGINT, SIGTERM and SIGHUP end every wait, instead of this process: what was begun can be taken back.
void catch_interrupts();
bool interrupted();
void forget_interrupts();

namespace detail {
std::int64_t mono_now_ms();
void pause_ms(int ms);
}  // namespace detail

template <class F>
bool wait_until(std::int64_t timeout_ms, F holds) {
  const auto deadline = detail::mono_now_ms() + timeout_ms;
  while (!holds()) {
    if (interrupted() || detail::mono_now_ms() >= deadline) return false;
    detail::pause_ms(20);
  }
  return true;
}

}  // namespace kinfs::daemon
