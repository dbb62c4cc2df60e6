#include "daemon/cli/lab_hosts.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <vector>

#include "daemon/cli/session.h"

namespace kinfs::daemon {
namespace {

constexpr std::int64_t kEndPatienceMs = 10'000;
constexpr std::size_t kLogLines = 12;
constexpr std::uint32_t kAskMs = 1000;  // for a daemon's answer about itself, where many are asked within a deadline

tl::unexpected<Error> fail_with_log(Errc code, const std::string& words, const std::string& log) {
  const auto tail = tail_of(log, kLogLines);
  return fail(code, fmt::format("{}; the last lines of {}:\n{}", words, log, tail.empty() ? "(it is empty)" : tail));
}

/// The number that mount.kinfs wrote, if a process of that name still has it.
ProcessId read_pid_file(const std::string& file) {
  std::ifstream in(file);
  pid_t pid = 0;
  if (!(in >> pid)) return {};
  const auto process = process_of(pid);
  std::ifstream command(fmt::format("/proc/{}/cmdline", pid), std::ios::binary);
  std::string first;
  std::getline(command, first, '\0');
  if (!process || std::filesystem::path(first).filename() != "mount.kinfs") return {};
  return *process;
}

/// Takes whatever is mounted at the host's mountpoint away from sight; true when nothing was or it is gone.
bool clear_mountpoint(const LabHost& host) {
  for (int i = 0; i < 8 && mount_at(host.mountpoint); ++i) {
    if (!unmount(host.mountpoint, /*detach=*/true)) return false;
  }
  return !mount_at(host.mountpoint);
}

/// The daemon's status; null when it does not answer.
Json status_of(const LabState& lab, const LabHost& host) {
  auto session = Session::open(lab.file(host, "kinfsd.sock"), kAskMs);
  if (!session) return {};
  auto status = session->admin("status");
  return status ? std::move(*status) : Json();
}

/// What a status says of the host called `name`, if it believes it to be up; an empty object else.
Json if_up(const Json& status, const std::string& name) {
  for (const auto& h : status.value("hosts", Json::array())) {
    if (h.value("name", "") == name && h.value("state", "") == "up") return h;
  }
  return Json::object();
}

/// What `host` says of the host called `other` that shows it not to be back; empty when it is.
std::string lacks(const Json& status, const std::string& host, const std::string& other) {
  const auto seen = if_up(status, other);
  if (seen.empty()) return fmt::format("{} does not see it", host);
  const auto hints = seen.value("hints", std::uint64_t{0});
  return hints == 0 ? "" : fmt::format("{} still keeps {} rows and blocks for it", host, hints);
}

/// The name of a host that is not back -> what shows that.
std::map<std::string, std::vector<std::string>> not_back(const LabState& lab) {
  std::map<std::string, std::vector<std::string>> out;
  for (const auto& host : lab.hosts) {
    if (!runs(host.daemon)) continue;
    const auto status = status_of(lab, host);
    if (!status.is_object()) {
      out[host.name].push_back("its daemon does not answer");
      continue;
    }
    const auto away = lab.cut_from(host);
    for (const auto& other : lab.hosts) {
      if (other.name == host.name || !runs(other.daemon)) continue;
      if (std::find(away.begin(), away.end(), other.name) != away.end()) continue;
      if (auto words = lacks(status, host.name, other.name); !words.empty()) out[other.name].push_back(words);
    }
  }
  return out;
}

}  // namespace

Result<void> start_daemon(LabState& lab, LabHost& host) {
  if (runs(host.daemon)) return {};
  auto program = find_program("kinfsd");
  if (!program) return pass(std::move(program));
  if (auto written = lab.write_config(host); !written) return written;
  const auto log = lab.file(host, "kinfsd.log");
  auto started = start_program({*program, "--config", lab.file(host, "kinfsd.toml")}, log);
  if (!started) return fail_with_log(started.error().code, started.error().text, log);
  host.daemon = *started;
  if (auto saved = lab.save(); !saved) return saved;
  bool ended = false;
  const bool answers = wait_until(kLabTimeoutMs, [&] {
    ended = !runs(host.daemon);
    if (ended) return true;
    auto session = Session::open(lab.file(host, "kinfsd.sock"));
    return session && session->admin("status").has_value();
  });
  if (answers && !ended) return {};
  if (interrupted()) return fail(Errc::kCancelled, "interrupted");
  return fail_with_log(Errc::kInternal,
                       fmt::format("the daemon of {} {}", host.name, ended ? "ended" : "does not answer"), log);
}

Result<void> make_mountpoint(const LabHost& host) {
  if (!clear_mountpoint(host)) {
    return fail(Errc::kRefused, fmt::format("cannot unmount {}; try umount -l {}", host.mountpoint, host.mountpoint));
  }
  if (::mkdir(host.mountpoint.c_str(), 0755) != 0 && errno != EEXIST) {
    return fail(Errc::kRefused, fmt::format("cannot make {}: {}", host.mountpoint, std::strerror(errno)));
  }
  std::error_code error;
  const std::filesystem::directory_iterator entry(host.mountpoint, error);
  if (error) return fail(Errc::kRefused, fmt::format("cannot mount at {}: {}", host.mountpoint, error.message()));
  if (entry == std::filesystem::directory_iterator()) return {};
  return fail(Errc::kRefused,
              fmt::format("{} lies in {} itself, not in the shared directory: move it away, then it can be mounted",
                          printable(entry->path().filename().string()), host.mountpoint));
}

Result<void> start_mount(LabState& lab, LabHost& host) {
  if (runs(host.mount)) return {};
  auto program = find_program("mount.kinfs");
  if (!program) return pass(std::move(program));
  if (auto made = make_mountpoint(host); !made) return made;
  const auto log = lab.file(host, "mount.log");
  const auto pid_file = lab.file(host, "mount.pid");
  ::unlink(pid_file.c_str());
  std::string output;
  auto code = run_program({*program, "home", host.mountpoint, "-o",
                           fmt::format("socket={},host={},client={},pidfile={},log={}", lab.file(host, "kinfsd.sock"),
                                       host.name, host.client, pid_file, log)},
                          kLabTimeoutMs, &output);
  // Also after a failure: a process that came up too late must be known, to be ended.
  host.mount = read_pid_file(pid_file);
  if (auto saved = lab.save(); !saved) return saved;
  if (!code) return pass(std::move(code));
  if (*code != 0) {
    const auto kind = *code == kExitUnreachable ? Errc::kUnavailable
                      : *code == kExitRefused   ? Errc::kRefused
                                                : Errc::kInternal;
    return fail_with_log(kind, fmt::format("mounting {} returned {}: {}", host.mountpoint, *code, output), log);
  }
  if (host.mount.pid == 0) {
    return fail_with_log(Errc::kInternal, fmt::format("mount.kinfs wrote no process number to {}", pid_file), log);
  }
  if (mount_at(host.mountpoint) && mount_answers(host.mountpoint, kLabTimeoutMs)) return {};
  if (interrupted()) return fail(Errc::kCancelled, "interrupted");
  return fail_with_log(Errc::kInternal, fmt::format("{} does not answer", host.mountpoint), log);
}

bool sees_all(const LabState& lab, const LabHost& host) {
  const auto status = status_of(lab, host);
  if (!status.is_object()) return false;
  const auto away = lab.cut_from(host);
  return std::all_of(lab.hosts.begin(), lab.hosts.end(), [&](const LabHost& other) {
    return !runs(other.daemon) || std::find(away.begin(), away.end(), other.name) != away.end() ||
           !if_up(status, other.name).empty();
  });
}

Result<void> wait_until_back(const LabState& lab) {
  std::map<std::string, std::vector<std::string>> left;
  if (wait_until(kBackTimeoutMs, [&] { return (left = not_back(lab)).empty(); })) return {};
  // Where two do not see each other, the one that more of the others miss is the one that is not back.
  std::size_t most = 0;
  for (const auto& [name, why] : left) most = std::max(most, why.size());
  std::string words;
  for (const auto& [name, why] : left) {
    if (why.size() < most) continue;
    words += fmt::format("{}{} is not back yet ({})", words.empty() ? "" : "; ", name, fmt::join(why, ", "));
  }
  return fail(Errc::kUnavailable, words);
}

Result<void> kill_daemon(LabState& lab, LabHost& host) {
  signal_process(host.daemon, SIGKILL);
  if (!wait_for_end(host.daemon, kEndPatienceMs)) {
    return fail(Errc::kInternal, fmt::format("process {} of {} does not end by SIGKILL", host.daemon.pid, host.name));
  }
  host.daemon = {};
  return lab.save();
}

Result<void> kill_mount(LabState& lab, LabHost& host) {
  signal_process(host.mount, SIGKILL);
  // A process that dies in a request of its own mount ends only when the connection is cut, which detaching does not
  // do: closing its descriptor does, and the kernel has closed it once the process is dead.
  if (!wait_for_end(host.mount, kEndPatienceMs)) {
    return fail(Errc::kInternal, fmt::format("process {} of {} does not end by SIGKILL", host.mount.pid, host.name));
  }
  // The mount stays, and answers that its endpoint is not connected: a plain folder would take files that nobody
  // shares.
  host.mount = {};
  return lab.save();
}

Result<void> end_host(LabHost& host) {
  std::string left;
  if (mount_at(host.mountpoint) && !unmount(host.mountpoint, /*detach=*/false) && !clear_mountpoint(host)) {
    left += fmt::format("{} cannot be unmounted; ", host.mountpoint);
  }
  // Unmounted, it ends by itself as soon as nothing in it is open any more.
  if (!wait_for_end(host.mount, runs(host.daemon) ? 2000 : 0) && !end_process(host.mount, 2000)) {
    left += fmt::format("process {} does not end; ", host.mount.pid);
  }
  if (!end_process(host.daemon, kEndPatienceMs)) left += fmt::format("process {} does not end; ", host.daemon.pid);
  if (!left.empty()) return fail(Errc::kInternal, fmt::format("{}: {}", host.name, left));
  host.mount = {};
  host.daemon = {};
  return {};
}

}  // namespace kinfs::daemon
