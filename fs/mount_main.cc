// mount.kinfs: one mount, a process of its own.
//
//   mount.kinfs VOLUME DIRECTORY [-o OPTION,...] [-f]
//
// Exit codes: 0 mounted and serving (with -f: unmounted again), 2 usage, 3 no daemon, or changes that could not be
// published at the end, 4 refused, 5 internal.
//
// Order at the end: the kernel is served until the directory is unmounted or a signal comes; then everything that is
// unpublished is put; only then the mount goes, and the process.
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "cluster/socket_client.h"
#include "fs/filesystem.h"
#include "fs/fuse_ops.h"
#include "fs/mount_table.h"
#include "fs/system_env.h"
#include "storage/heap.h"

namespace kinfs::fs {
namespace {

// How far ahead of a program the kernel asks for a file's bytes: one request of the largest size. It gives each file
// system 128 KiB by itself, of which a reader who waits for another host sees each.
constexpr std::size_t kReadAheadBytes = 1 << 20;

// As kinfs(1) has them.
enum Exit : int { kDone = 0, kUsage = 2, kUnreachable = 3, kRefused = 4, kInternal = 5 };

constexpr const char* kUsageText =
    "usage: mount.kinfs VOLUME DIRECTORY [-o OPTION,...] [-f]\n"
    "  socket=PATH   of kinfsd (/run/kinfs/kinfsd.sock)\n"
    "  host=NAME     by which siblings name this host (the host's name)\n"
    "  client=HEX    identity of this mount, up to 16 hexadecimal digits (a new one at each start)\n"
    "  pidfile=FILE  gets the number of the process that serves\n"
    "  log=FILE      (with -f: standard error)\n"
    "  fuse_debug    log every request of the kernel\n"
    "  and what mount(8) has for all file systems: ro, nosuid, nodev, noexec, noatime, _netdev, ...\n"
    "-f: stay in the foreground\n";

constexpr int kPublishAttempts = 3;
constexpr std::int64_t kTickMs = 250;

struct Options {
  std::string volume;
  std::string directory;
  std::string socket = "/run/kinfs/kinfsd.sock";
  std::string host;
  std::string pidfile;
  std::string log;
  std::optional<std::uint64_t> client;
  std::vector<std::string> kernel;
  bool foreground = false;
  bool debug = false;
};

struct Refusal {
  int code;
  std::string text;
};

// --- the command line ---

bool one_of(const std::string& word, std::initializer_list<const char*> words) {
  return std::any_of(words.begin(), words.end(), [&](const char* w) { return word == w; });
}

std::optional<Refusal> take_option(const std::string& word, Options& out) {
  const auto equals = word.find('=');
  const auto name = word.substr(0, equals);
  const auto value = equals == std::string::npos ? std::string() : word.substr(equals + 1);
  const bool has_value = !value.empty();
  std::string* target = name == "socket"    ? &out.socket
                        : name == "host"    ? &out.host
                        : name == "pidfile" ? &out.pidfile
                        : name == "log"     ? &out.log
                                            : nullptr;
  if (target != nullptr) {
    if (!has_value) return Refusal{kUsage, fmt::format("option {} needs a value: {}=...", name, name)};
    *target = value;
    return std::nullopt;
  }
  if (name == "client") {
    std::uint64_t client = 0;
    const auto* end = value.data() + value.size();
    const auto parsed = std::from_chars(value.data(), end, client, 16);
    if (!has_value || parsed.ec != std::errc() || parsed.ptr != end) {
      return Refusal{kUsage, fmt::format("client={}: up to 16 hexadecimal digits are expected", value)};
    }
    out.client = client;
    return std::nullopt;
  }
  if (name == "fuse_debug") {
    out.debug = true;
    return std::nullopt;
  }
  if (one_of(word, {"ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "atime", "sync", "async",
                    "dirsync"})) {
    out.kernel.push_back(word);
    return std::nullopt;
  }
  if (name == "remount") {
    return Refusal{kRefused,
                   "a mount keeps the options that it was mounted with; to change them unmount it (umount), "
                   "then mount it anew"};
  }
  // For mount(8) and systemd alone, or of no effect here.
  if (one_of(name, {"defaults",    "_netdev",       "auto",     "noauto",     "user",     "nouser",
                    "users",       "owner",         "group",    "nofail",     "relatime", "norelatime",
                    "strictatime", "nostrictatime", "lazytime", "nolazytime", "diratime", "nodiratime",
                    "silent",      "loud",          "nomand",   "comment",    "uhelper",  "default_permissions",
                    "allow_other"}) ||
      name.starts_with("x-") || name.starts_with("X-")) {
    return std::nullopt;
  }
  return Refusal{kUsage, fmt::format("unknown option {}\n{}", name, kUsageText)};
}

std::optional<Refusal> take_options(const std::string& list, Options& out) {
  std::istringstream words(list);
  for (std::string word; std::getline(words, word, ',');) {
    if (word.empty()) continue;
    if (auto refusal = take_option(word, out)) return refusal;
  }
  return std::nullopt;
}

std::optional<Refusal> parse(int argc, char** argv, Options& out) {
  std::vector<std::string> places;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "-o" && i + 1 < argc) {
      if (auto refusal = take_options(argv[++i], out)) return refusal;
    } else if (word.starts_with("-o") && word.size() > 2) {
      if (auto refusal = take_options(word.substr(2), out)) return refusal;
    } else if (word == "-f") {
      out.foreground = true;
    } else if (one_of(word, {"-n", "-s", "-v", "-w"})) {
      continue;  // mount(8) passes these on
    } else if (one_of(word, {"-t", "-N"}) && i + 1 < argc) {
      ++i;  // so it does these, with the type and with a namespace that it has entered itself
    } else if (word == "-r") {
      out.kernel.push_back("ro");
    } else if (word.starts_with("-")) {
      return Refusal{kUsage, fmt::format("unknown option {}\n{}", word, kUsageText)};
    } else {
      places.push_back(word);
    }
  }
  if (places.size() != 2) return Refusal{kUsage, kUsageText};
  // mount(8) makes a path of a name that happens to be there too: from /, where systemd runs it, home becomes /home.
  out.volume = places[0].substr(places[0].rfind('/') + 1);
  out.directory = places[1];
  if (out.host.empty()) {
    std::array<char, HOST_NAME_MAX + 1> name{};
    gethostname(name.data(), name.size() - 1);
    out.host = name.data();
    out.host = out.host.substr(0, out.host.find('.'));
  }
  return std::nullopt;
}

// --- the place ---

/// Where autofs waits for this very mount (x-systemd.automount), looking into the directory would wait for it too.
bool awaits_mount(const std::string& directory) {
  const auto there = mounted_at(directory);
  return there && there->type == "autofs";
}

bool is_mount_point(const std::string& directory) {
  const auto there = mounted_at(directory);
  return there && there->type != "autofs";
}

std::optional<Refusal> check_directory(Options& options) {
  std::error_code error;
  auto& directory = options.directory;
  const auto whole = std::filesystem::absolute(directory, error).lexically_normal();
  std::string path = whole.string();
  if (path.size() > 1 && path.back() == '/') path.pop_back();
  if (is_mount_point(path)) {
    return Refusal{kRefused, fmt::format("{} is a mount point already; unmount it first (umount {})", path, path)};
  }
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) {
    const int why = errno;
    return Refusal{kRefused, fmt::format("cannot mount at {}: {}{}", path, std::strerror(why),
                                         why == ENOENT ? "; make it with mkdir" : "")};
  }
  if (!S_ISDIR(st.st_mode)) return Refusal{kRefused, fmt::format("{} is no directory", path)};
  directory = std::filesystem::canonical(path, error).string();
  if (error) return Refusal{kRefused, fmt::format("cannot mount at {}: {}", path, error.message())};
  if (is_mount_point(directory)) {
    return Refusal{kRefused,
                   fmt::format("{} is a mount point already; unmount it first (umount {})", directory, directory)};
  }
  if (awaits_mount(directory)) return std::nullopt;
  if (!std::filesystem::is_empty(directory, error) || error) {
    return Refusal{
        kRefused, fmt::format("{} is not empty: mounting would hide what is in it; use an empty directory", directory)};
  }
  return std::nullopt;
}

std::optional<Refusal> check_volume(const Options& options) {
  if (options.volume == "home") return std::nullopt;
  if (options.volume == "kv") {
    return Refusal{kRefused, "volume kv is of kind kv and holds no files; mount volume home"};
  }
  return Refusal{kRefused, fmt::format("there is no volume {}; home is the one that can be mounted", options.volume)};
}

// --- serving ---

/// Tells the process that started this one how it went, once: exit code and words.
class Launch {
 public:
  explicit Launch(int fd) : fd_(fd) {}
  void tell(int code, const std::string& text) {
    if (fd_ < 0) {
      if (code != kDone) fmt::print(stderr, "mount.kinfs: {}\n", text);
      return;
    }
    std::string message(1, static_cast<char>(code));
    message += text;
    [[maybe_unused]] const auto n = ::write(fd_, message.data(), message.size());
    ::close(fd_);
    fd_ = -1;
  }
  /// From now on nobody watches: the terminal is let go. Only now: systemd knows by the process group whose mount(2)
  /// is the answer to its automount, and one from another group would wait for itself.
  void let_go() {
    ::setsid();
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) return;
    for (int fd = 0; fd < 3; ++fd) ::dup2(null, fd);
    ::close(null);
  }

 private:
  int fd_;
};

std::uint64_t random_client() {
  std::uint64_t out = 0;
  while (::getrandom(&out, sizeof out, 0) != static_cast<ssize_t>(sizeof out)) {
  }
  return out;
}

struct Mount {
  std::mutex strand;
  std::unique_ptr<cluster::SocketClient> client;
  SystemEnv env;
  std::unique_ptr<Filesystem> filesystem;
  std::unique_ptr<FuseServer> server;
  std::atomic<bool> served{false};
};

void log_counters(Mount& mount) {
  const std::lock_guard lock(mount.strand);
  std::string requests;
  for (const auto& [name, count] : mount.server->counters()) requests += fmt::format(" {}={}", name, count);
  const auto sent = mount.client->counters();
  spdlog::info("requests of the kernel:{}", requests);
  spdlog::info("round trips: gets={} scans={} puts={} (rows={}) blocks_put={} blocks_got={}", sent.gets, sent.scans,
               sent.puts, sent.put_rows, sent.blocks_put, sent.blocks_got);
  spdlog::info("other hosts' daemons: went_over={} came_back={}", sent.went_over, sent.came_back);
  spdlog::default_logger()->flush();
}

/// The timer, and the one that hears signals (they are blocked everywhere else).
void watch(Mount& mount, const sigset_t& signals) {
  const timespec pause{0, kTickMs * 1'000'000};
  bool stopping = false;
  while (!mount.served) {
    const int signal = sigtimedwait(&signals, nullptr, &pause);
    if (signal == SIGUSR1) log_counters(mount);
    if (signal == SIGTERM || signal == SIGINT) {
      spdlog::info("signal {}: unmounting", signal);
      stopping = true;
    }
    if (stopping) mount.server->stop();
    std::vector<std::uint64_t> stale;
    {
      const std::lock_guard lock(mount.strand);
      mount.filesystem->tick();
      stale = mount.filesystem->take_stale();
    }
    mount.server->invalidate(stale);
  }
}

/// Puts all that is unpublished; whether that succeeded.
bool publish_everything(Mount& mount) {
  for (int attempt = 1; attempt <= kPublishAttempts; ++attempt) {
    std::vector<std::string> left;
    {
      const std::lock_guard lock(mount.strand);
      left = mount.filesystem->unpublished();
    }
    if (left.empty()) return true;
    auto task = mount.filesystem->publish_all();
    const auto done = cluster::wait_for(mount.strand, std::move(task));
    if (!done) spdlog::error("publishing {} files: {}", left.size(), done.error().text);
  }
  const std::lock_guard lock(mount.strand);
  const auto left = mount.filesystem->unpublished();
  if (left.empty()) return true;
  spdlog::critical("lost, because it could not be published: what was last written to {}", fmt::join(left, ", "));
  return false;
}

std::optional<Refusal> begin(const Options& options, Mount& mount) {
  cluster::SocketClientOptions how;
  how.socket_path = options.socket;
  how.client = ClientId{options.client ? *options.client : random_client()};
  how.boot = static_cast<std::uint64_t>(mount.env.wall_ns() / 1'000'000);
  how.host = options.host;
  how.notice = [](const std::string& words) { spdlog::warn("{}", words); };
  auto client = cluster::SocketClient::connect(how, mount.strand);
  if (!client) {
    if (client.error().code == Errc::kInvalid) return Refusal{kRefused, client.error().text};
    return Refusal{kUnreachable, fmt::format("{}; start it (kinfsd --config FILE), or name "
                                             "its socket with -o socket=PATH",
                                             client.error().text)};
  }
  mount.client = std::move(*client);
  mount.filesystem = std::make_unique<Filesystem>(*mount.client, mount.env, kVolumeHome);
  FuseOptions fuse;
  fuse.source = options.volume;
  fuse.directory = options.directory;
  fuse.kernel_options = options.kernel;
  fuse.allow_other = ::geteuid() == 0;
  fuse.debug = options.debug;
  auto server = FuseServer::mount(*mount.filesystem, mount.strand, std::move(fuse));
  if (!server) return Refusal{kRefused, server.error().text};
  mount.server = std::move(*server);
  return std::nullopt;
}

std::optional<Refusal> open_log(const Options& options) {
  if (options.log.empty()) return std::nullopt;
  try {
    auto logger = spdlog::basic_logger_mt("file", options.log);
    logger->flush_on(spdlog::level::info);
    spdlog::set_default_logger(std::move(logger));
  } catch (const spdlog::spdlog_ex& e) {
    return Refusal{kRefused, fmt::format("cannot write the log {}: {}", options.log, e.what())};
  }
  return std::nullopt;
}

int serve(const Options& options, Launch launch) {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  Mount mount;
  auto refusal = open_log(options);
  if (!refusal) refusal = begin(options, mount);
  if (refusal) {
    launch.tell(refusal->code, refusal->text);
    return refusal->code;
  }
  if (!options.pidfile.empty()) {
    std::ofstream file(options.pidfile, std::ios::trunc);
    file << ::getpid() << '\n';
    if (!file.flush()) spdlog::warn("cannot write {}", options.pidfile);
  }
  std::thread watcher([&] { watch(mount, signals); });
  spdlog::info("{} mounted at {}, served by process {}", options.volume, options.directory, ::getpid());
  const bool unmounted = mount.server->serve([&] {
    if (!enlarge_read_ahead(options.directory, kReadAheadBytes)) {
      spdlog::info("the kernel reads ahead as far as it usually does: that cannot be changed here");
    }
    launch.tell(kDone, "");
    if (!options.foreground) launch.let_go();
  });
  mount.served = true;
  watcher.join();
  const bool all = publish_everything(mount);
  log_counters(mount);
  mount.client.reset();  // ends what is under way: what waited for it replies, so all else must still be there
  mount.server.reset();
  mount.filesystem.reset();
  if (!options.pidfile.empty()) ::unlink(options.pidfile.c_str());
  spdlog::info("{} {}", options.directory, unmounted ? "was unmounted from outside" : "is unmounted");
  launch.tell(kInternal, "the kernel did not begin");
  return all ? kDone : kUnreachable;
}

/// Starts the process that serves and waits until it does.
int launch(const Options& options) {
  int pipe_fds[2];
  if (::pipe2(pipe_fds, O_CLOEXEC) != 0) {
    fmt::print(stderr, "mount.kinfs: no pipe: {}\n", std::strerror(errno));
    return kInternal;
  }
  const pid_t child = ::fork();
  if (child < 0) {
    fmt::print(stderr, "mount.kinfs: no process: {}\n", std::strerror(errno));
    return kInternal;
  }
  if (child == 0) {
    ::close(pipe_fds[0]);
    [[maybe_unused]] const int moved = ::chdir("/");
    std::_Exit(serve(options, Launch(pipe_fds[1])));
  }
  ::close(pipe_fds[1]);
  std::string message;
  std::array<char, 512> buffer{};
  for (ssize_t n = 0; (n = ::read(pipe_fds[0], buffer.data(), buffer.size())) != 0;) {
    if (n > 0) message.append(buffer.data(), static_cast<std::size_t>(n));
    if (n < 0 && errno != EINTR) break;
  }
  if (message.empty()) {
    fmt::print(stderr, "mount.kinfs: the process that serves ended without a word{}\n",
               options.log.empty() ? std::string() : fmt::format("; see {}", options.log));
    return kInternal;
  }
  if (message[0] != kDone) fmt::print(stderr, "mount.kinfs: {}\n", message.substr(1));
  return message[0];
}

int main_of(int argc, char** argv) {
  Options options;
  auto refusal = parse(argc, argv, options);
  if (!refusal) refusal = check_volume(options);
  if (!refusal) refusal = check_directory(options);
  if (refusal) {
    fmt::print(stderr, "mount.kinfs: {}\n", refusal->text);
    return refusal->code;
  }
  const auto absolute = [](std::string& path) {
    if (!path.empty()) path = std::filesystem::absolute(path).string();
  };
  absolute(options.socket);
  absolute(options.log);
  absolute(options.pidfile);
  if (options.foreground) return serve(options, Launch(-1));
  return launch(options);
}

}  // namespace
}  // namespace kinfs::fs

int main(int argc, char** argv) {
  kinfs::keep_block_memory();
  try {
    return kinfs::fs::main_of(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "mount.kinfs: internal error: {}\n", e.what());
    return kinfs::fs::kInternal;
  }
}
