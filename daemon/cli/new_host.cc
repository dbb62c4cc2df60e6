#include "daemon/cli/new_host.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "cluster/guest.h"
#include "daemon/cli/host_config.h"
#include "daemon/cli/mount.h"
#include "daemon/cli/process.h"
#include "daemon/cli/session.h"
#include "daemon/key_file.h"
#include "storage/data_directory.h"
#include "storage/whole_file.h"

namespace kinfs::daemon {
namespace {

constexpr std::size_t kMaxConfigBytes = 4 << 20;
constexpr std::int64_t kStartMs = 60'000;
constexpr std::int64_t kSystemdMs = 16 * 60'000;  // over the unit's own patience
constexpr std::uint32_t kSelfAskMs = 1000;
constexpr std::size_t kSelfLogLines = 12;
constexpr const char* kUnit = "kinfsd.service";
constexpr const char* kAnywhere = "tcp://192.0.2.1:9";  // RFC 5737: by the default route; nothing is sent

/// The first address of the machine that others may reach; empty when it has none.
std::string interface_address() {
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) return "";
  std::string found;
  for (const auto* i = all; i != nullptr && found.empty(); i = i->ifa_next) {
    if (i->ifa_addr == nullptr || i->ifa_addr->sa_family != AF_INET) continue;
    if ((i->ifa_flags & IFF_LOOPBACK) != 0 || (i->ifa_flags & IFF_UP) == 0) continue;
    std::array<char, NI_MAXHOST> text{};
    if (::getnameinfo(i->ifa_addr, sizeof(sockaddr_in), text.data(), text.size(), nullptr, 0, NI_NUMERICHOST) == 0) {
      found = text.data();
    }
  }
  ::freeifaddrs(all);
  return found;
}

Result<void> make_folder(const std::string& folder) {
  if (::mkdir(folder.c_str(), 0755) == 0 || errno == EEXIST) return {};
  return fail(Errc::kRefused, fmt::format("cannot make {}: {}{}", folder, std::strerror(errno),
                                          errno == EACCES ? "; run this as root" : ""));
}

Result<void> may_write_in(const std::string& folder) {
  if (::access(folder.c_str(), W_OK) == 0) return {};
  return fail(Errc::kRefused, fmt::format("cannot write in {}: {}; run this as root, or name another configuration "
                                          "with --config",
                                          folder, std::strerror(errno)));
}

/// kInvalid when its host is a name that means nothing here: it would be handed out with every invitation.
Result<void> check_known(const std::string& address) {
  auto host = parse_address(address)->first;
  if (host.starts_with('[')) host = host.substr(1, host.size() - 2);
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.c_str(), nullptr, nullptr, &found);
  if (error == 0) ::freeaddrinfo(found);
  if (error != EAI_NONAME) return {};  // whoever is offline may go on
  return fail(Errc::kInvalid,
              fmt::format("{}: no host is called {}; say with --address under which name or address the "
                          "other hosts reach this one",
                          address, printable(host)));
}

std::string parent_of(const std::string& file) { return std::filesystem::path(file).parent_path().string(); }

}  // namespace

Result<NewHost> NewHost::look(const SetUpOptions& options) {
  NewHost host;
  host.options_ = options;
  host.file_ = options.config.empty() ? kDefaultConfigFile : absolute_path(options.config);
  host.config_ = default_config();
  auto text = read_whole_file(host.file_, kMaxConfigBytes);
  if (!text && text.error().code != Errc::kNotFound) return pass(std::move(text));
  if (text) {
    auto config = load_config(host.file_);
    if (!config) return pass(std::move(config));
    host.has_file_ = true;
    host.text_ = std::move(*text);
    host.config_ = std::move(*config);
  }
  if (host.config_.by_invitation) {
    return fail(
        Errc::kExists,
        fmt::format("this host belongs to cluster {} already, by {}; `kinfs status` shows whether "
                    "its daemon runs, {} starts it. An address that was wrong is corrected "
                    "there, as cluster.address, and holds after a restart of the daemon",
                    host.config_.cluster_id, host.file_,
                    host.under_systemd() ? "systemctl start kinfsd" : fmt::format("kinfsd --config {}", host.file_)));
  }
  for (const char* section : {"[cluster", "[[cluster", "[quorum", "cluster.", "quorum."}) {
    if (("\n" + host.text_).find(fmt::format("\n{}", section)) == std::string::npos) continue;
    return fail(Errc::kRefused, fmt::format("{} says already what cluster this host is of (it has a line that begins "
                                            "with {}); take that out first, or set the cluster up by hand",
                                            host.file_, section));
  }
  if (!options.name.empty() && host.has_file_ && options.name != host.config_.name) {
    return fail(Errc::kRefused, fmt::format("{} is there, and this host is called {} by it; say node.name there "
                                            "instead of --name",
                                            host.file_, host.config_.name));
  }
  if (!options.name.empty()) host.config_.name = options.name;
  const auto folder = parent_of(host.file_);
  if (auto made = make_folder(folder); !made) return pass(std::move(made));
  if (auto may = may_write_in(folder); !may) return pass(std::move(may));
  if (auto free = host.is_free(); !free) return pass(std::move(free));
  return host;
}

/// Neither data nor a daemon that would go on serving it.
Result<void> NewHost::is_free() const {
  if (auto session = Session::open(config_.socket, kSelfAskMs)) {
    return fail(Errc::kExists, fmt::format("a kinfsd runs on this host already (socket {}); stop it first{}",
                                           config_.socket, under_systemd() ? ": systemctl stop kinfsd" : ""));
  }
  auto foreign = foreign_entry(config_.data_dir);
  if (!foreign) return pass(std::move(foreign));
  if (!foreign->empty()) {
    return fail(Errc::kRefused, fmt::format("{} is not empty and no data directory of kinfs: it holds {}; name another "
                                            "node.data_dir in {}",
                                            config_.data_dir, *foreign, file_));
  }
  if (::access((config_.data_dir + "/FORMAT").c_str(), F_OK) != 0) return {};
  return fail(Errc::kExists, fmt::format("{} holds the data of a kinfsd that was of another cluster, or alone; move it "
                                         "away, or name another node.data_dir in {}",
                                         config_.data_dir, file_));
}

Result<cluster::KeyPair> NewHost::keys() const {
  auto keys = read_key_file(config_.key_file);
  if (!keys && keys.error().code == Errc::kNotFound) {
    if (auto made = make_folder(parent_of(config_.key_file)); !made) return pass(std::move(made));
    keys = make_key_file(config_.key_file);
  }
  if (!keys) return keys;
  // Also one that was there: whoever made it by hand, as root, may have left it to root.
  if (auto given = give_to_daemon(config_.key_file); !given) return pass(std::move(given));
  return keys;
}

Result<std::string> NewHost::find_address(const std::string& towards) const {
  const auto port = parse_address(config_.listen)->second;
  if (!options_.address.empty()) return full_address(options_.address, port);
  auto own = cluster::own_address_towards(towards.empty() ? kAnywhere : towards);
  const auto host = own ? *own : interface_address();
  if (!host.empty()) return fmt::format("tcp://{}:{}", host, port);
  return fail(Errc::kRefused,
              "this machine has no network address but that of itself; say with --address HOST under "
              "which name or address the other hosts reach it");
}

Result<void> NewHost::plan(const std::string& cluster_id, std::uint32_t copies, const std::string& towards) {
  if (auto good = check_name(config_.name); !good) {
    return fail(Errc::kInvalid, good.error().text + "; say another one with --name");
  }
  auto address = find_address(towards);
  if (!address) return pass(std::move(address));
  if (auto good = check_dialled(*address); !good) return good;
  if (auto known = check_known(*address); !known) return known;
  part_ = {cluster_id, copies, *address, {}};
  auto config = planned();
  if (!config) return pass(std::move(config));
  return check_family(config->listen, *address);
}

std::string NewHost::planned_text() const {
  return config_text(has_file_ ? std::optional(text_) : std::nullopt, config_.name, part_);
}

Result<Config> NewHost::planned() const {
  auto config = parse_config(planned_text(), file_, config_.name);
  if (config || !has_file_) return config;
  return fail(config.error().code, fmt::format("{} makes no sense with what is to be added to it, [cluster] and where "
                                               "it listens; move it away, or set the cluster up by hand:\n{}",
                                               file_, config.error().text));
}

Result<void> NewHost::write_config(const std::vector<Member>& others) {
  part_.others = others;
  auto config = planned();
  if (!config) return pass(std::move(config));
  if (auto written = write_whole_file(file_, planned_text(), 0644); !written) return written;
  config_ = std::move(*config);
  return {};
}

Result<void> NewHost::allow_founding() const {
  const auto& folder = config_.data_dir;
  if (::mkdir(folder.c_str(), 0700) == 0) {
    // The unit's user is to write in it. Started by hand, by root, kinfsd writes as root, and so it may stay root's.
    if (auto given = under_systemd() ? give_to_daemon(folder) : Result<void>{}; !given) return given;
  } else if (errno != EEXIST) {
    return fail(Errc::kRefused, fmt::format("cannot make the data directory {}: {}; make it, or set node.data_dir",
                                            folder, std::strerror(errno)));
  }
  const auto mark = founding_mark();
  const int fd = ::open(mark.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (fd < 0) return fail(Errc::kIo, fmt::format("cannot make {}: {}", mark, std::strerror(errno)));
  ::close(fd);
  return sync_folder_of(mark);
}

Result<void> NewHost::forbid_founding() const {
  const auto mark = founding_mark();
  if (::unlink(mark.c_str()) == 0) return sync_folder_of(mark);
  if (errno == ENOENT || errno == ENOTDIR) return {};
  return fail(Errc::kRefused, fmt::format("cannot remove {}, which an interrupted kinfs init has left: {}", mark,
                                          std::strerror(errno)));
}

std::string NewHost::founding_mark() const { return config_.data_dir + "/" + kFoundingFile; }

// --- The daemon ---

bool NewHost::under_systemd() const {
  if (file_ != kDefaultConfigFile || ::access("/run/systemd/system", F_OK) != 0) return false;
  std::string words;
  const auto code = run_program({"/usr/bin/systemctl", "cat", kUnit}, kSystemdMs, &words);
  return code && *code == 0;
}

/// The unit's user reads it, by whatever kinfsd is started now.
Result<void> NewHost::give_to_daemon(const std::string& path) const {
  if (::geteuid() != 0) return {};
  const auto* user = ::getpwnam("kinfs");
  if (user == nullptr || ::chown(path.c_str(), user->pw_uid, user->pw_gid) == 0) return {};
  return fail(Errc::kRefused,
              fmt::format("cannot give {} to user kinfs, as whom kinfsd runs: {}", path, std::strerror(errno)));
}

Result<void> NewHost::start_by_systemd() const {
  std::string words;
  auto code = run_program({"/usr/bin/systemctl", "enable", "--now", kUnit}, kSystemdMs, &words);
  if (!code) return pass(std::move(code));
  if (*code != 0) {
    return fail(Errc::kInternal,
                fmt::format("systemd could not start kinfsd; `journalctl -u kinfsd` says why:\n{}", words));
  }
  // A unit that is skipped, by a condition that does not hold, counts as started.
  std::string state;
  code = run_program({"/usr/bin/systemctl", "is-active", kUnit}, kSystemdMs, &state);
  if (!code) return pass(std::move(code));
  if (*code == 0) return {};
  return fail(Errc::kInternal, fmt::format("systemd was asked to start kinfsd, and it does not run ({}): `systemctl "
                                           "status kinfsd` and `journalctl -u kinfsd` say why; then go on with "
                                           "`systemctl start kinfsd`",
                                           state.substr(0, state.find('\n'))));
}

Result<void> NewHost::start_in_background() const {
  auto program = find_program("kinfsd");
  if (!program) return pass(std::move(program));
  const auto log = file_ == kDefaultConfigFile ? std::string("/var/log/kinfsd.log") : file_ + ".log";
  auto started = start_program({*program, "--config", file_}, log);
  if (!started) return pass(std::move(started));
  bool ended = false;
  const bool answers = wait_until(kStartMs, [&] {
    ended = !runs(*started);
    auto session = ended ? Result<Session>(fail(Errc::kUnavailable, "")) : Session::open(config_.socket, kSelfAskMs);
    return ended || (session && session->admin("status").has_value());
  });
  if (answers && !ended) return {};
  return fail(Errc::kInternal, fmt::format("kinfsd {}; the last lines of {}:\n{}", ended ? "ended" : "does not answer",
                                           log, tail_of(log, kSelfLogLines)));
}

Result<void> NewHost::start() const {
  if (auto started = under_systemd() ? start_by_systemd() : start_in_background(); !started) return started;
  const bool knows = wait_until(kStartMs, [&] {
    auto session = Session::open(config_.socket, kSelfAskMs);
    auto status = session ? session->admin("status") : Result<Json>(fail(Errc::kUnavailable, ""));
    const auto cluster = status ? status->value("cluster", Json::object()) : Json::object();
    return cluster.value("id", "") == config_.cluster_id && cluster.value("knows_members", false);
  });
  if (knows) return {};
  return fail(Errc::kUnavailable,
              "kinfsd runs, and has not heard from the other hosts who the members are: can it reach "
              "them, and they it? `kinfs status` shows whom it sees");
}

int NewHost::mount() const {
  if (options_.mount.empty()) return kExitDone;
  const auto directory = absolute_path(options_.mount);
  if (auto made = make_folder(directory); !made) return give_up(made.error());
  const auto code = daemon::mount({config_.socket, "home", directory, {}});
  if (code != kExitDone) return code;
  fmt::print(
      "mounted at {}; for each start of the machine, add to /etc/fstab:\n"
      "  home {} kinfs _netdev,nofail,x-systemd.automount,x-systemd.requires=kinfsd.service 0 0\n",
      directory, directory);
  return kExitDone;
}

}  // namespace kinfs::daemon
