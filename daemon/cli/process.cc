#include "daemon/cli/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <mntent.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "cluster/event_loop.h"

namespace kinfs::daemon {
namespace {

std::atomic<bool> g_interrupted{false};

std::string read_small(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

int pidfd_open_of(pid_t pid) { return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)); }

/// A handle of exactly this process, -1 when it is gone. Once open it cannot come to mean another.
int handle_of(const ProcessId& process) {
  const int fd = pidfd_open_of(process.pid);
  if (fd >= 0 && process_of(process.pid) == process) return fd;
  if (fd >= 0) ::close(fd);
  return -1;
}

std::vector<char*> pointers(const std::vector<std::string>& argv) {
  std::vector<char*> out;
  for (const auto& a : argv) out.push_back(const_cast<char*>(a.c_str()));
  out.push_back(nullptr);
  return out;
}

/// In a child: the signals as a program expects to find them.
void reset_signals() {
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int s : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) ::signal(s, SIG_DFL);
}

/// The value of a wait status as a shell reports it.
int code_of(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

}  // namespace

namespace detail {
std::int64_t mono_now_ms() { return cluster::EventLoop::mono_ms(); }
void pause_ms(int ms) { ::poll(nullptr, 0, ms); }
}  // namespace detail

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = [](int) { g_interrupted = true; };
  for (const int s : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(s, &action, nullptr);
}

bool interrupted() { return g_interrupted; }
void forget_interrupts() { g_interrupted = false; }

std::optional<ProcessId> process_of(pid_t pid) {
  const auto stat = read_small(fmt::format("/proc/{}/stat", pid));
  // The name, in parentheses, may hold anything: count the fields after its end.
  const auto end = stat.rfind(')');
  if (end == std::string::npos) return std::nullopt;
  std::istringstream fields(stat.substr(end + 1));
  std::string word, state;
  fields >> state;
  std::string threads;
  for (int i = 4; i <= 22; ++i) {
    fields >> word;
    if (i == 20) threads = word;
  }
  // The first thread may be over before the others are: until the last one is, files are open and mounts answer.
  if (state == "X" || (state == "Z" && threads == "1")) return std::nullopt;
  ProcessId out{pid, 0, ""};
  if (std::from_chars(word.data(), word.data() + word.size(), out.start).ec != std::errc()) return std::nullopt;
  out.boot = read_small("/proc/sys/kernel/random/boot_id");
  while (!out.boot.empty() && out.boot.back() == '\n') out.boot.pop_back();
  return out;
}

bool runs(const ProcessId& process) { return process.pid > 0 && process_of(process.pid) == process; }

bool signal_process(const ProcessId& process, int signal) {
  if (process.pid <= 0) return false;
  const int fd = handle_of(process);
  if (fd < 0) return false;
  const bool sent = ::syscall(SYS_pidfd_send_signal, fd, signal, nullptr, 0) == 0;
  ::close(fd);
  return sent;
}

bool wait_for_end(const ProcessId& process, std::int64_t timeout_ms) {
  if (process.pid <= 0) return true;
  const int fd = handle_of(process);
  if (fd < 0) return true;
  const auto deadline = detail::mono_now_ms() + timeout_ms;
  bool ended = false;
  while (!ended) {
    const auto left = deadline - detail::mono_now_ms();
    if (left <= 0) break;
    pollfd p{fd, POLLIN, 0};
    ended = ::poll(&p, 1, static_cast<int>(std::min<std::int64_t>(left, 1000))) > 0;
    // Our own children wait to be collected; with others this does nothing.
    if (ended) ::waitpid(process.pid, nullptr, WNOHANG);
  }
  ::close(fd);
  return ended;
}

bool end_process(const ProcessId& process, std::int64_t patience_ms) {
  if (!signal_process(process, SIGTERM)) return true;
  if (wait_for_end(process, patience_ms)) return true;
  signal_process(process, SIGKILL);
  return wait_for_end(process, 10'000);
}

Result<std::string> find_program(const std::string& name) {
  std::vector<std::string> folders;
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) {
    folders.push_back(self.parent_path());
    folders.push_back((self.parent_path().parent_path() / "sbin").string());
  }
  for (const char* f : {"/usr/sbin", "/sbin", "/usr/bin"}) folders.emplace_back(f);
  for (const auto& folder : folders) {
    auto path = folder + "/" + name;
    if (::access(path.c_str(), X_OK) == 0) return path;
  }
  return fail(Errc::kRefused, fmt::format("there is no program {} in {}; is kinfs installed completely?", name,
                                          fmt::join(folders, ", ")));
}

Result<int> run_program(const std::vector<std::string>& argv, std::int64_t timeout_ms, std::string* output) {
  int out[2] = {-1, -1};
  if (output != nullptr && ::pipe2(out, O_CLOEXEC) != 0) {
    return fail(Errc::kIo, fmt::format("cannot make a pipe: {}", std::strerror(errno)));
  }
  auto args = pointers(argv);
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    reset_signals();
    const int null = ::open("/dev/null", O_RDONLY);
    ::dup2(null, STDIN_FILENO);
    if (output != nullptr) {
      ::dup2(out[1], STDOUT_FILENO);
      ::dup2(out[1], STDERR_FILENO);
    }
    ::execv(args[0], args.data());
    ::_exit(127);
  }
  if (output != nullptr) ::close(out[1]);
  if (child < 0) {
    if (output != nullptr) ::close(out[0]);
    return fail(Errc::kIo, fmt::format("cannot start {}: {}", argv[0], std::strerror(errno)));
  }
  const int handle = pidfd_open_of(child);
  const auto deadline = detail::mono_now_ms() + timeout_ms;
  bool ended = false;
  while (!ended && detail::mono_now_ms() < deadline && !interrupted()) {
    pollfd p[2] = {{handle, POLLIN, 0}, {output != nullptr ? out[0] : -1, POLLIN, 0}};
    ::poll(p, 2, 200);
    // A daemon that the program left behind may hold the pipe: the program's own end decides.
    if ((p[1].revents & (POLLIN | POLLHUP)) != 0) {
      char buffer[4096];
      const auto n = ::read(out[0], buffer, sizeof buffer);
      if (n > 0 && output->size() < 65536) output->append(buffer, static_cast<std::size_t>(n));
      if (n > 0) continue;
      ::close(std::exchange(out[0], -1));
    }
    ended = (p[0].revents & POLLIN) != 0;
  }
  if (!ended) ::kill(child, SIGKILL);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (handle >= 0) ::close(handle);
  if (out[0] >= 0) ::close(out[0]);
  if (!ended) {
    if (interrupted()) return fail(Errc::kCancelled, "interrupted");
    return fail(Errc::kTimeout, fmt::format("{} did not end within {} s", argv[0], timeout_ms / 1000));
  }
  return code_of(status);
}

Result<ProcessId> start_program(const std::vector<std::string>& argv, const std::string& log_file) {
  const int log = ::open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (log < 0) return fail(Errc::kRefused, fmt::format("cannot open {}: {}", log_file, std::strerror(errno)));
  auto args = pointers(argv);
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    reset_signals();
    ::setsid();
    // The daemon must not keep the directory busy that this command was called from.
    if (::chdir("/") != 0) ::_exit(127);
    const int null = ::open("/dev/null", O_RDONLY);
    ::dup2(null, STDIN_FILENO);
    ::dup2(log, STDOUT_FILENO);
    ::dup2(log, STDERR_FILENO);
    ::execv(args[0], args.data());
    ::_exit(127);
  }
  ::close(log);
  if (child < 0) return fail(Errc::kIo, fmt::format("cannot start {}: {}", argv[0], std::strerror(errno)));
  auto process = process_of(child);
  if (!process) return fail(Errc::kInternal, fmt::format("{} ended at once; see {}", argv[0], log_file));
  return *process;
}

std::vector<Mount> mounts() {
  std::vector<Mount> out;
  FILE* table = ::setmntent("/proc/self/mounts", "re");
  if (table == nullptr) return out;
  // A path may have 4095 bytes, each written as four characters.
  std::vector<char> buffer(8 * PATH_MAX);
  struct mntent entry {};
  while (::getmntent_r(table, &entry, buffer.data(), static_cast<int>(buffer.size())) != nullptr) {
    out.push_back({entry.mnt_fsname, entry.mnt_dir, entry.mnt_type});
  }
  ::endmntent(table);
  return out;
}

std::optional<Mount> mount_at(const std::string& directory) {
  const auto all = mounts();
  const auto found = std::find_if(all.rbegin(), all.rend(), [&](const auto& m) { return m.directory == directory; });
  if (found == all.rend()) return std::nullopt;
  return *found;
}

std::optional<Mount> mount_above(const std::string& path) {
  std::optional<Mount> best;
  for (auto& m : mounts()) {
    const bool within = path == m.directory || m.directory == "/" || path.rfind(m.directory + "/", 0) == 0;
    if (within && (!best || m.directory.size() >= best->directory.size())) best = std::move(m);
  }
  if (best && !is_kinfs(*best)) return std::nullopt;
  return best;
}

bool is_kinfs(const Mount& mount) { return mount.type == "fuse.kinfs"; }

std::optional<MountProcess> mount_process_of(const std::string& directory) {
  DIR* proc = ::opendir("/proc");
  if (proc == nullptr) return std::nullopt;
  const std::unique_ptr<DIR, int (*)(DIR*)> closing(proc, ::closedir);
  while (const dirent* entry = ::readdir(proc)) {
    pid_t pid = 0;
    const std::string_view name = entry->d_name;
    if (std::from_chars(name.data(), name.data() + name.size(), pid).ec != std::errc()) continue;
    const auto line = read_small(fmt::format("/proc/{}/cmdline", pid));
    std::vector<std::string> args;
    for (std::size_t at = 0; at < line.size();) {
      const auto end = std::min(line.find('\0', at), line.size());
      args.push_back(line.substr(at, end - at));
      at = end + 1;
    }
    if (args.size() < 3 || std::filesystem::path(args[0]).filename() != "mount.kinfs") continue;
    if (std::find(args.begin() + 1, args.end(), directory) == args.end()) continue;
    auto process = process_of(pid);
    if (!process) continue;
    MountProcess found{*process, {}};
    for (std::size_t i = 1; i < args.size(); ++i) {
      std::string options;
      if (args[i] == "-o" && i + 1 < args.size()) {
        options = args[++i];
      } else if (args[i].rfind("-o", 0) == 0) {
        options = args[i].substr(2);
      }
      std::istringstream words(options);
      for (std::string word; std::getline(words, word, ',');) {
        const auto equals = word.find('=');
        found.options[word.substr(0, equals)] = equals == std::string::npos ? "" : word.substr(equals + 1);
      }
    }
    return found;
  }
  return std::nullopt;
}

Result<void> unmount(const std::string& directory, bool detach) {
  if (::umount2(directory.c_str(), UMOUNT_NOFOLLOW | (detach ? MNT_DETACH : 0)) == 0) return {};
  if (errno == EPERM) {
    std::vector<std::string> argv = {"/usr/bin/fusermount3", "-u", "-q"};
    if (detach) argv.push_back("-z");
    argv.push_back(directory);
    std::string words;
    auto code = run_program(argv, 30'000, &words);
    if (code && *code == 0) return {};
    if (mount_at(directory)) errno = code && *code != 127 ? EBUSY : EPERM;
  }
  if (errno == EBUSY) {
    return fail(Errc::kBusy, fmt::format("{} is in use: close what is open in it, and leave it with every shell "
                                         "(`fuser -vm {}` names them)",
                                         directory, directory));
  }
  return fail(Errc::kRefused, fmt::format("cannot unmount {}: {}", directory, std::strerror(errno)));
}

bool mount_answers(const std::string& directory, std::int64_t timeout_ms) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    reset_signals();
    struct stat st {};
    DIR* d = ::stat(directory.c_str(), &st) == 0 ? ::opendir(directory.c_str()) : nullptr;
    errno = 0;
    ::_exit(d != nullptr && (::readdir(d) != nullptr || errno == 0) ? 0 : 1);
  }
  if (child < 0) return false;
  int status = 0;
  const bool ended = wait_until(timeout_ms, [&] { return ::waitpid(child, &status, WNOHANG) == child; });
  if (ended) return code_of(status) == 0;
  // It may be stuck in the kernel, where even this does not end it at once; nobody waits for it then.
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, WNOHANG);
  return false;
}

std::string absolute_path(const std::string& path) {
  std::error_code error;
  auto p = std::filesystem::absolute(path, error).lexically_normal();
  if (p.filename().empty() && p.has_relative_path()) p = p.parent_path();
  // readlink, unlike stat, asks nothing of a file system that is mounted there.
  char target[PATH_MAX];
  if (::readlink(p.c_str(), target, sizeof target) > 0) {
    auto whole = std::filesystem::weakly_canonical(p, error);
    if (!error) return whole;
  }
  auto parent = std::filesystem::weakly_canonical(p.parent_path(), error);
  if (error) parent = p.parent_path();
  return p.has_filename() ? (parent / p.filename()).string() : p.string();
}

std::string tail_of(const std::string& file, std::size_t lines) {
  const auto text = read_small(file);
  std::size_t at = text.size();
  if (at > 0 && text[at - 1] == '\n') --at;
  while (at > 0 && lines > 0) {
    const auto newline = text.rfind('\n', at - 1);
    if (newline == std::string::npos) return text;
    at = newline;
    --lines;
  }
  return text.substr(std::min(at + 1, text.size()));
}

}  // namespace kinfs::daemon
