#include "daemon/cli/lab_state.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "daemon/config.h"
#include "storage/bytes.h"
#include "storage/whole_file.h"

namespace kinfs::daemon {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr const char* kHome = "/var/tmp/kinfs-lab";
// Below the kernel's ephemeral ports (32768 and up), which connections of anybody may take at any time.
constexpr std::uint16_t kFirstPort = 17946;
constexpr std::uint16_t kLastPort = 28000;

std::string folder_of(const std::string& directory) {
  return fmt::format("{}/{}", kHome, to_hex(view_of(md5(directory)).substr(0, 8)));
}

/// /var/tmp is everybody's: a folder that another user put there, or a link, must not be believed.
bool is_ours(const std::string& folder) {
  struct stat st {};
  return ::lstat(folder.c_str(), &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == ::geteuid() &&
         (st.st_mode & 077) == 0;
}

Json process_json(const ProcessId& p) { return {{"pid", p.pid}, {"start", p.start}, {"boot", p.boot}}; }
ProcessId process_from(const Json& j) {
  return {j.at("pid").get<pid_t>(), j.at("start").get<std::uint64_t>(), j.at("boot").get<std::string>()};
}

Result<Json> read_json(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  auto json = Json::parse(text.str(), nullptr, false);
  if (!in || json.is_discarded() || !json.is_object()) {
    return fail(Errc::kCorrupt, fmt::format("{} cannot be read: end the lab's processes by hand, then remove {}", file,
                                            fs::path(file).parent_path().string()));
  }
  return json;
}

std::set<std::uint16_t> ports_of_labs() {
  std::set<std::uint16_t> out;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(kHome, error)) {
    auto json = read_json(entry.path() / "lab.json");
    if (!json) continue;
    for (const auto& host : json->value("hosts", Json::array())) out.insert(host.value("port", std::uint16_t{0}));
  }
  return out;
}

bool is_free(std::uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_port = htons(port);
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  // With SO_REUSEADDR a bind may succeed beside a listener of 0.0.0.0 that set it too; listening may not.
  const bool free = ::bind(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0 && ::listen(fd, 1) == 0;
  ::close(fd);
  return free;
}

}  // namespace

LabState::LabState(LabState&& o) noexcept
    : directory(std::move(o.directory)),
      made_directory(o.made_directory),
      cluster_id(std::move(o.cluster_id)),
      hosts(std::move(o.hosts)),
      cut(std::move(o.cut)),
      folder_(std::move(o.folder_)),
      lock_(std::exchange(o.lock_, -1)) {}

LabState::~LabState() {
  if (lock_ >= 0) ::close(lock_);
}

std::vector<std::string> LabState::all() {
  std::vector<std::string> out;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(kHome, error)) {
    if (!is_ours(entry.path())) continue;
    auto json = read_json(entry.path() / "lab.json");
    if (json && json->contains("directory")) out.push_back((*json)["directory"].get<std::string>());
  }
  std::sort(out.begin(), out.end());
  return out;
}

Result<LabState> LabState::open(const std::string& directory) {
  const auto folder = folder_of(directory);
  const int fd = is_ours(folder) ? ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
  if (fd >= 0) ::flock(fd, LOCK_EX);
  LabState state(folder, fd);
  // Another command may have ended the lab while we waited for the lock.
  if (fd < 0 || !fs::exists(folder + "/lab.json")) {
    const auto labs = all();
    return fail(Errc::kRefused,
                fmt::format("there is no lab at {}; {}", directory,
                            labs.empty() ? fmt::format("start one with `kinfs lab up --nodes 3 {}`", directory)
                                         : fmt::format("labs are at {}", fmt::join(labs, ", "))));
  }
  if (auto loaded = state.load(); !loaded) return pass(std::move(loaded));
  return state;
}

Result<LabState> LabState::create(const std::string& directory) {
  if (::mkdir(kHome, 0700) == 0) {
    ::chmod(kHome, 01777);
  } else if (errno != EEXIST) {
    return fail(Errc::kRefused, fmt::format("cannot make {}: {}", kHome, std::strerror(errno)));
  }
  const auto folder = folder_of(directory);
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail(Errc::kRefused, fmt::format("cannot make {}: {}", folder, std::strerror(errno)));
  }
  if (!is_ours(folder)) {
    return fail(Errc::kRefused,
                fmt::format("{} is there and belongs to another user, who has a lab at {}", folder, directory));
  }
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  LabState state(folder, fd);
  // A folder without lab.json is what an `up` that was killed at its very start left.
  if (fd < 0 || ::flock(fd, LOCK_EX | LOCK_NB) != 0 || fs::exists(folder + "/lab.json")) {
    return fail(Errc::kExists, fmt::format("a lab is up at {} already; see `kinfs lab status {}`, or end it with "
                                           "`kinfs lab down {}`",
                                           directory, directory, directory));
  }
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) fs::remove_all(entry.path(), error);
  state.directory = directory;
  return state;
}

Result<void> LabState::load() {
  auto json = read_json(folder_ + "/lab.json");
  if (!json) return pass(std::move(json));
  try {
    directory = json->at("directory").get<std::string>();
    made_directory = json->at("made_directory").get<bool>();
    cluster_id = json->at("cluster_id").get<std::string>();
    for (const auto& name : json->at("cut")) cut.insert(name.get<std::string>());
    for (const auto& h : json->at("hosts")) {
      hosts.push_back({h.at("name").get<std::string>(), h.at("mountpoint").get<std::string>(),
                       h.at("port").get<std::uint16_t>(), h.at("public_key").get<std::string>(),
                       h.at("client").get<std::string>(), process_from(h.at("daemon")), process_from(h.at("mount"))});
    }
  } catch (const Json::exception& e) {
    return fail(Errc::kCorrupt, fmt::format("{}/lab.json cannot be read ({}): end the lab's processes by hand, then "
                                            "remove {}",
                                            folder_, e.what(), folder_));
  }
  return {};
}

Result<void> LabState::save() const {
  Json json = {{"directory", directory},
               {"made_directory", made_directory},
               {"cluster_id", cluster_id},
               {"cut", Json::array()},
               {"hosts", Json::array()}};
  for (const auto& name : cut) json["cut"].push_back(name);
  for (const auto& h : hosts) {
    json["hosts"].push_back({{"name", h.name},
                             {"mountpoint", h.mountpoint},
                             {"port", h.port},
                             {"public_key", h.public_key},
                             {"client", h.client},
                             {"daemon", process_json(h.daemon)},
                             {"mount", process_json(h.mount)}});
  }
  return write_whole_file(folder_ + "/lab.json", json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n", 0600);
}

Result<void> LabState::erase() {
  std::error_code error;
  fs::remove_all(folder_, error);
  if (error) return fail(Errc::kIo, fmt::format("cannot delete {}: {}", folder_, error.message()));
  return {};
}

LabHost* LabState::find(const std::string& word) {
  for (auto& h : hosts) {
    if (h.name == word || h.name == "host" + word) return &h;
  }
  return nullptr;
}

std::vector<std::string> LabState::cut_from(const LabHost& host) const {
  std::vector<std::string> out;
  for (const auto& other : hosts) {
    if (other.name != host.name && (cut.count(host.name) != 0 || cut.count(other.name) != 0)) out.push_back(other.name);
  }
  return out;
}

Result<void> LabState::write_config(const LabHost& host) const {
  std::string names;
  for (const auto& name : cut_from(host)) names += (names.empty() ? "" : ", ") + toml_string(name);
  std::string text = fmt::format(
      "# A host of the lab at {}; written by kinfs lab at each start.\n"
      "[node]\nname = {}\nlisten = \"tcp://127.0.0.1:{}\"\ndata_dir = {}\nsocket = {}\nkey_file = {}\n\n"
      "[log]\nlevel = \"info\"\n\n[cluster]\nid = {}\ncut = [{}]\n",
      toml_string(directory), toml_string(host.name), host.port, toml_string(file(host, "data")),
      toml_string(file(host, "kinfsd.sock")), toml_string(file(host, "key")), toml_string(cluster_id), names);
  for (const auto& h : hosts) {
    text += fmt::format("\n[[cluster.member]]\nname = {}\naddress = \"tcp://127.0.0.1:{}\"\npublic_key = {}\n",
                        toml_string(h.name), h.port, toml_string(h.public_key));
  }
  return write_whole_file(file(host, "kinfsd.toml"), text, 0600);
}

PortLock::PortLock() : fd_(::open(kHome, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (fd_ >= 0) ::flock(fd_, LOCK_EX);
}

PortLock::~PortLock() {
  if (fd_ >= 0) ::close(fd_);
}

Result<std::vector<std::uint16_t>> free_ports(std::size_t count) {
  const auto taken = ports_of_labs();
  std::vector<std::uint16_t> out;
  for (std::uint16_t port = kFirstPort; port < kLastPort && out.size() < count; ++port) {
    if (taken.count(port) == 0 && is_free(port)) out.push_back(port);
  }
  if (out.size() == count) return out;
  return fail(Errc::kRefused,
              fmt::format("there are no {} free ports between {} and {} on 127.0.0.1", count, kFirstPort, kLastPort));
}

}  // namespace kinfs::daemon
