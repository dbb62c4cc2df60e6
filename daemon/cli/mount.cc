#include "daemon/cli/mount.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <sstream>

#include "daemon/cli/process.h"
#include "daemon/cli/session.h"
#include "daemon/config.h"
#include "storage/bytes.h"

namespace kinfs::daemon {
namespace {

constexpr std::int64_t kMountTimeoutMs = 60'000;

/// The value of NAME=VALUE among comma-separated lists; the last one counts.
std::optional<std::string> option_of(const std::vector<std::string>& options, const std::string& name) {
  std::optional<std::string> value;
  for (const auto& list : options) {
    std::istringstream words(list);
    for (std::string word; std::getline(words, word, ',');) {
      if (word.rfind(name + "=", 0) == 0) value = word.substr(name.size() + 1);
    }
  }
  return value;
}

/// One client for each place where this host mounts: the same after the next mount, when the former has ended.
std::string client_of(const Json& node, const std::string& directory) {
  CanonicalWriter w;
  w.bytes("kinfs mount").bytes(node.value("id", std::string())).bytes(directory);
  return to_hex(view_of(md5(w.out())).substr(0, 8));
}

Result<void> check_mountpoint(const std::string& directory) {
  if (auto there = mount_at(directory); there && is_kinfs(*there)) {
    return fail(Errc::kExists,
                fmt::format("kinfs is mounted at {} already; unmount it with `kinfs umount {}`", directory, directory));
  }
  struct stat st {};
  if (::stat(directory.c_str(), &st) != 0) {
    const int error = errno;
    return fail(Errc::kRefused, fmt::format("cannot mount at {}: {}{}", directory, std::strerror(error),
                                            error == ENOENT ? "; make it with mkdir" : ""));
  }
  if (!S_ISDIR(st.st_mode)) return fail(Errc::kRefused, fmt::format("{} is no directory", directory));
  return {};
}

}  // namespace

int mount(const MountOptions& options) {
  if (options.volume != "home") {
    const auto near = nearest_name(options.volume, {"home"});
    return give_up(
        {Errc::kRefused, options.volume == "kv"
                             ? "volume kv is of kind kv and holds no files; mount volume home"
                             : fmt::format("there is no volume {}{}; home is the one that can be mounted",
                                           printable(options.volume), near.empty() ? "" : " (did you mean home?)")});
  }
  const auto directory = absolute_path(options.directory);
  if (auto good = check_mountpoint(directory); !good) return give_up(good.error());
  const auto socket = absolute_path(socket_path_of(option_of(options.options, "socket").value_or(options.socket)));
  auto session = Session::open(socket);
  if (!session) return give_up(session.error());
  auto status = session->admin("status");
  if (!status) return give_up(status.error());
  const auto node = status->value("node", Json::object());
  auto helper = find_program("mount.kinfs");
  if (!helper) return give_up(helper.error());
  std::string all;
  const auto add = [&](const std::string& name, const std::string& value) {
    if (!option_of(options.options, name)) all += (all.empty() ? "" : ",") + name + "=" + value;
  };
  add("socket", socket);
  add("host", node.value("name", own_host_name()));
  add("client", client_of(node, directory));
  for (const auto& list : options.options) all += "," + list;
  auto code = run_program({*helper, options.volume, directory, "-o", all}, kMountTimeoutMs);
  if (!code) return give_up(code.error());
  return *code;
}

int umount(const UmountOptions& options) {
  const auto directory = absolute_path(options.directory);
  const auto there = mount_at(directory);
  if (!there) {
    return give_up({Errc::kRefused, fmt::format("nothing is mounted at {}", directory)});
  }
  if (!is_kinfs(*there)) {
    return give_up(
        {Errc::kRefused, fmt::format("what is mounted at {} is {}, not kinfs; use umount", directory, there->type)});
  }
  const auto process = mount_process_of(directory);
  if (auto done = unmount(directory, /*detach=*/false); !done) return give_up(done.error());
  if (!process) return kExitDone;
  // What was written and not yet published goes out now: that may take as long as the hosts need.
  std::int64_t waited_s = 0;
  catch_interrupts();
  while (!wait_for_end(process->process, 1000)) {
    if (interrupted()) {
      complain(
          fmt::format("{} is unmounted; its process {} goes on publishing by itself", directory, process->process.pid));
      return kExitAttention;
    }
    ++waited_s;
    if (waited_s % 10 == 0) {
      complain(
          fmt::format("waiting for what was written in {} to be published ({} s so far; interrupting leaves it "
                      "to go on by itself)",
                      directory, waited_s));
    }
  }
  return kExitDone;
}

}  // namespace kinfs::daemon
