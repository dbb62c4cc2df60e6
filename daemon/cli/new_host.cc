#include "daemon/cli/new_host.h"

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
#include "daemon/cli/mount.h"
#include "daemon/cli/process.h"
#include "daemon/cli/session.h"
#include "daemon/key_file.h"
#include "storage/whole_file.h"

namespace kinfs::daemon {
namespace {

constexpr std::size_t kMaxConfigBytes = 4 << 20;
constexpr std::int64_t kStartMs = 60'000;
constexpr std::int64_t kSystemdMs = 16 * 60'000;  // over the unit's own patience
constexpr std::uint32_t kAskMs = 1000;
constexpr std::size_t kLogLines = 12;
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

std::string parent_of(const std::string& file) { return std::filesystem::path(file).parent_path().string(); }

/// An option HOST, HOST:PORT or tcp://HOST:PORT as the last.
std::string full_address(const std::string& word, std::uint16_t port) {
  if (word.find("://") != std::string::npos) return word;
  const auto colon = word.rfind(':');
  const bool has_port = colon != std::string::npos && word.find(']', colon) == std::string::npos &&
                        (word.find(':') == colon || word[colon - 1] == ']');
  if (has_port) return "tcp://" + word;
  const bool bare_ipv6 = word.find(':') != std::string::npos && word.front() != '[';
  return bare_ipv6 ? fmt::format("tcp://[{}]:{}", word, port) : fmt::format("tcp://{}:{}", word, port);
}

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
    return fail(Errc::kExists, fmt::format("this host belongs to cluster {} already ({}); start its daemon with {}",
                                           host.config_.cluster_id, host.file_,
                                           host.under_systemd() ? "systemctl start kinfsd"
                                                                : fmt::format("kinfsd --config {}", host.file_)));
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
  if (auto free = host.is_free(); !free) return pass(std::move(free));
  const auto folder = parent_of(host.file_);
  if (auto made = make_folder(folder); !made) return pass(std::move(made));
  if (auto may = may_write_in(folder); !may) return pass(std::move(may));
  return host;
}

/// Neither data nor a daemon that would go on serving it.
Result<void> NewHost::is_free() const {
  if (auto session = Session::open(config_.socket, kAskMs)) {
    return fail(Errc::kExists, fmt::format("a kinfsd runs on this host already (socket {}); stop it first{}",
                                           config_.socket, under_systemd() ? ": systemctl stop kinfsd" : ""));
  }
  if (::access((config_.data_dir + "/FORMAT").c_str(), F_OK) != 0) return {};
  return fail(Errc::kExists, fmt::format("{} holds the data of a kinfsd that was of another cluster, or alone; move it "
                                         "away, or name another node.data_dir in {}",
                                         config_.data_dir, file_));
}

Result<cluster::KeyPair> NewHost::keys() const {
  auto keys = read_key_file(config_.key_file);
  if (keys || keys.error().code != Errc::kNotFound) return keys;
  if (auto made = make_folder(parent_of(config_.key_file)); !made) return pass(std::move(made));
  keys = make_key_file(config_.key_file);
  if (!keys) return keys;
  if (auto given = give_to_daemon(config_.key_file); !given) return pass(std::move(given));
  return keys;
}

Result<std::string> NewHost::address(const std::string& towards) const {
  const auto port = parse_address(config_.listen)->second;
  std::string full;
  if (!options_.address.empty()) {
    full = full_address(options_.address, port);
  } else {
    auto own = cluster::own_address_towards(towards.empty() ? kAnywhere : towards);
    const auto host = own ? *own : interface_address();
    if (host.empty()) {
      return fail(Errc::kRefused,
                  "this machine has no network address but that of itself; say with --address HOST under "
                  "which name or address the other hosts reach it");
    }
    full = fmt::format("tcp://{}:{}", host, port);
  }
  if (auto good = parse_address(full); !good) return pass(std::move(good));
  return full;
}

Result<void> NewHost::write_config(const std::string& cluster_id, std::uint32_t copies, const std::string& address,
                                   const std::vector<Member>& others) {
  std::string text = text_;
  if (!has_file_) {
    text = "# The configuration of kinfsd on this host: kinfs.toml(5). Every other key has a default.\n";
    text += fmt::format("[node]\nname = {}\n", toml_string(config_.name));
    // IPv4's wildcard does not listen on it.
    if (address.find('[') != std::string::npos) text += "listen = \"tcp://[::]:7946\"\n";
  }
  if (!text.empty() && text.back() != '\n') text += '\n';
  text += fmt::format("\n[cluster]\nid = {}\nby_invitation = true\naddress = {}\n", toml_string(cluster_id),
                      toml_string(address));
  for (const auto& m : others) {
    text += fmt::format("\n[[cluster.member]]\nname = {}\naddress = {}\npublic_key = {}\n", toml_string(m.name),
                        toml_string(m.address), toml_string(to_hex(m.public_key)));
  }
  if (copies != 3) text += fmt::format("\n[quorum]\nn = {}\n", copies);
  auto config = parse_config(text, file_, config_.name);
  if (!config) return pass(std::move(config));
  if (auto written = write_whole_file(file_, text, 0644); !written) return written;
  config_ = std::move(*config);
  return {};
}

// --- The daemon ---

bool NewHost::under_systemd() const {
  if (file_ != kDefaultConfigFile || ::access("/run/systemd/system", F_OK) != 0) return false;
  std::string words;
  const auto code = run_program({"/usr/bin/systemctl", "cat", kUnit}, kSystemdMs, &words);
  return code && *code == 0;
}

/// The unit's user reads it.
Result<void> NewHost::give_to_daemon(const std::string& path) const {
  if (!under_systemd()) return {};
  const auto* user = ::getpwnam("kinfs");
  if (user == nullptr || ::chown(path.c_str(), user->pw_uid, user->pw_gid) == 0) return {};
  return fail(Errc::kRefused,
              fmt::format("cannot give {} to user kinfs, as whom kinfsd runs: {}", path, std::strerror(errno)));
}

Result<void> NewHost::start_by_systemd() const {
  std::string words;
  auto code = run_program({"/usr/bin/systemctl", "enable", "--now", kUnit}, kSystemdMs, &words);
  if (!code) return pass(std::move(code));
  if (*code == 0) return {};
  return fail(Errc::kInternal,
              fmt::format("systemd could not start kinfsd; `journalctl -u kinfsd` says why:\n{}", words));
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
    auto session = ended ? Result<Session>(fail(Errc::kUnavailable, "")) : Session::open(config_.socket, kAskMs);
    return ended || (session && session->admin("status").has_value());
  });
  if (answers && !ended) return {};
  return fail(Errc::kInternal, fmt::format("kinfsd {}; the last lines of {}:\n{}", ended ? "ended" : "does not answer",
                                           log, tail_of(log, kLogLines)));
}

Result<void> NewHost::start() const {
  if (auto started = under_systemd() ? start_by_systemd() : start_in_background(); !started) return started;
  const bool knows = wait_until(kStartMs, [&] {
    auto session = Session::open(config_.socket, kAskMs);
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
