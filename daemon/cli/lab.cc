#include "daemon/cli/lab.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <random>

#include "daemon/cli/lab_hosts.h"
#include "daemon/cli/lab_state.h"
#include "daemon/cli/session.h"
#include "daemon/key_file.h"
#include "storage/bytes.h"

namespace kinfs::daemon {
namespace {

namespace fs = std::filesystem;

std::string random_hex() {
  std::random_device device;
  Bytes bytes;
  append_be64(bytes, static_cast<std::uint64_t>(device()) << 32 | device());
  return to_hex(bytes);
}

/// A word for a shell, quoted where it must be.
std::string shell_word(const std::string& s) {
  const bool plain = !s.empty() && s.find_first_not_of(
                                       "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                       "/._-+=:,@") == std::string::npos;
  if (plain) return s;
  std::string out = "'";
  for (const char c : s) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

/// DIR is there and empty, or is made.
Result<bool> take_directory(const std::string& directory) {
  if (::mkdir(directory.c_str(), 0755) == 0) return true;
  if (errno == ENOENT) {
    return fail(Errc::kRefused, fmt::format("cannot make {}: its parent folder does not exist; mkdir -p {}", directory,
                                            shell_word(fs::path(directory).parent_path())));
  }
  if (errno != EEXIST) return fail(Errc::kRefused, fmt::format("cannot make {}: {}", directory, std::strerror(errno)));
  std::error_code error;
  const fs::directory_iterator entry(directory, error);
  if (error) return fail(Errc::kRefused, fmt::format("{} cannot be used: {}", directory, error.message()));
  if (entry != fs::directory_iterator()) {
    return fail(Errc::kRefused, fmt::format("{} is not empty (it holds {}); name an empty folder, or one that does not "
                                            "exist yet",
                                            directory, printable(entry->path().filename().string())));
  }
  return false;
}

Result<void> make_hosts(LabState& lab, int nodes) {
  // Both are needed; to find that out with half of the lab running would be late.
  for (const char* name : {"kinfsd", "mount.kinfs"}) {
    if (auto found = find_program(name); !found) return pass(std::move(found));
  }
  const PortLock lock;
  auto ports = free_ports(static_cast<std::size_t>(nodes));
  if (!ports) return pass(std::move(ports));
  lab.cluster_id = "lab-" + random_hex();
  for (int i = 0; i < nodes; ++i) {
    LabHost host;
    host.name = fmt::format("host{}", i + 1);
    host.mountpoint = fmt::format("{}/{}", lab.directory, i + 1);
    host.port = (*ports)[static_cast<std::size_t>(i)];
    host.client = random_hex();
    if (::mkdir((lab.folder() + "/" + host.name).c_str(), 0700) != 0) {
      return fail(Errc::kIo, fmt::format("cannot make {}/{}: {}", lab.folder(), host.name, std::strerror(errno)));
    }
    auto keys = make_key_file(lab.file(host, "key"));
    if (!keys) return pass(std::move(keys));
    host.public_key = to_hex(keys->public_key);
    lab.hosts.push_back(std::move(host));
  }
  return lab.save();
}

Result<void> bring_up(LabState& lab) {
  for (auto& host : lab.hosts) {
    if (auto started = start_daemon(lab, host); !started) return started;
  }
  for (const auto& host : lab.hosts) {
    if (wait_until(kLabTimeoutMs, [&] { return sees_all(lab, host) || !runs(host.daemon); }) && runs(host.daemon)) {
      continue;
    }
    if (interrupted()) return fail(Errc::kCancelled, "interrupted");
    const auto log = lab.file(host, "kinfsd.log");
    return fail(Errc::kUnavailable, fmt::format("{} does not see every other host; the last lines of {}:\n{}",
                                                host.name, log, tail_of(log, 12)));
  }
  for (auto& host : lab.hosts) {
    if (auto started = start_mount(lab, host); !started) return started;
  }
  return {};
}

/// Ends everything and deletes what `up` made; the words of what could not be ended.
Result<void> take_down(LabState& lab) {
  std::string left;
  // All mounts first, while daemons are there to take what they still publish.
  for (auto& host : lab.hosts) {
    if (mount_at(host.mountpoint)) (void)unmount(host.mountpoint, /*detach=*/false);
  }
  for (auto& host : lab.hosts) {
    if (auto ended = end_host(host); !ended) left += ended.error().text;
  }
  if (!left.empty()) {
    (void)lab.save();
    return fail(Errc::kInternal, left + "the lab's state is kept; try again");
  }
  for (const auto& host : lab.hosts) ::rmdir(host.mountpoint.c_str());
  if (lab.made_directory) ::rmdir(lab.directory.c_str());
  return lab.erase();
}

void print_hosts(const LabState& lab) {
  for (const auto& host : lab.hosts) {
    const bool daemon = runs(host.daemon);
    const bool mount = runs(host.mount);
    std::string state = daemon && mount ? "up" : !daemon && !mount ? "dead" : daemon ? "no mount" : "no daemon";
    if (lab.cut.count(host.name) != 0) state += ", cut off";
    fmt::print("{:<8} {:<18} {:<24} KINFS_SOCKET={}\n", host.name, state, host.mountpoint,
               lab.file(host, "kinfsd.sock"));
  }
}

Json lab_json(const LabState& lab) {
  Json hosts = Json::array();
  for (const auto& host : lab.hosts) {
    hosts.push_back({{"name", host.name},
                     {"mountpoint", host.mountpoint},
                     {"address", fmt::format("tcp://127.0.0.1:{}", host.port)},
                     {"socket", lab.file(host, "kinfsd.sock")},
                     {"daemon", runs(host.daemon) ? Json(host.daemon.pid) : Json()},
                     {"mount", runs(host.mount) ? Json(host.mount.pid) : Json()},
                     {"cut", lab.cut.count(host.name) != 0}});
  }
  return {{"directory", lab.directory}, {"state", lab.folder()}, {"hosts", std::move(hosts)}};
}

bool all_well(const LabState& lab) {
  return lab.cut.empty() &&
         std::all_of(lab.hosts.begin(), lab.hosts.end(), [](const auto& h) { return runs(h.daemon) && runs(h.mount); });
}

/// A host by number or name, or words: a host that a lab does not have is a mistyped command.
Result<LabHost*> host_of(LabState& lab, const std::string& word) {
  if (auto* host = lab.find(word)) return host;
  std::vector<std::string> names;
  for (const auto& h : lab.hosts) names.push_back(h.name);
  return fail(Errc::kRefused, fmt::format("there is no host {} in the lab at {}; hosts: {}", printable(word),
                                          lab.directory, fmt::join(names, ", ")));
}

/// Tells every running daemon whom it is cut off from.
Result<void> apply_cuts(LabState& lab) {
  std::string wrong;
  for (const auto& host : lab.hosts) {
    // Also for a host that is dead: its next start reads it.
    if (auto written = lab.write_config(host); !written) return written;
    if (!runs(host.daemon)) continue;
    auto session = Session::open(lab.file(host, "kinfsd.sock"));
    if (!session) {
      wrong += fmt::format("{}: {}; ", host.name, session.error().text);
      continue;
    }
    if (auto done = session->admin("cut", lab.cut_from(host)); !done) {
      wrong += fmt::format("{}: {}; ", host.name, done.error().text);
    }
  }
  if (wrong.empty()) return {};
  return fail(Errc::kUnavailable, fmt::format("not all hosts could be told: {}try again", wrong));
}

/// After a cut or a death: `back`, or, when not all are back in time, `not_yet` and who is missing.
int wait_and_say(const LabState& lab, const std::string& back, const std::string& not_yet) {
  catch_interrupts();
  auto waited = wait_until_back(lab);
  fmt::print("{}\n", waited ? back : not_yet);
  if (waited) return kExitDone;
  complain(fmt::format("{}; what is kept for it is handed over as soon as that is possible", waited.error().text));
  return kExitAttention;
}

bool is_utf8(const std::string& s) {
  try {
    (void)Json(s).dump();
    return true;
  } catch (const Json::exception&) {
    return false;
  }
}

}  // namespace

int lab_up(const std::string& word, int nodes) {
  if (word.empty()) return give_up({Errc::kInvalid, "a lab's folder has a name: kinfs lab up DIR"});
  const auto directory = absolute_path(word);
  if (!is_utf8(directory)) return give_up({Errc::kRefused, "a lab's folder must have a name in UTF-8"});
  catch_interrupts();
  auto lab = LabState::create(directory);
  if (!lab) return give_up(lab.error());
  auto made = take_directory(directory);
  if (!made) {
    (void)lab->erase();
    return give_up(made.error());
  }
  lab->made_directory = *made;
  auto up = make_hosts(*lab, nodes);
  if (up) up = bring_up(*lab);
  if (!up) {
    complain(up.error().text);
    forget_interrupts();  // what follows must run to its end
    if (auto down = take_down(*lab); !down) complain(down.error().text);
    complain("the lab is not up; what was started has been ended");
    return up.error().code == Errc::kNotFound ? kExitRefused : exit_code_of(up.error().code);
  }
  print_hosts(*lab);
  const auto d = shell_word(directory);
  fmt::print(
      "\nTry:\n"
      "  echo hello > {0}/1/hello.txt; cat {0}/{1}/hello.txt\n"
      "  kinfs lab cut {0} {1}             # host {1} loses sight of the others\n"
      "  echo one > {0}/1/hello.txt; echo two > {0}/{1}/hello.txt\n"
      "  kinfs lab heal {0}; ls {0}/1      # both versions, side by side\n"
      "  kinfs lab status {0}\n"
      "  kinfs lab down {0}                # ends it, and deletes all that it holds\n",
      d, nodes);
  return kExitDone;
}

int lab_status(const std::string& directory, bool json) {
  std::vector<std::string> directories;
  if (directory.empty()) {
    directories = LabState::all();
    if (directories.empty() && !json) fmt::print("There is no lab; start one with: kinfs lab up --nodes 3 DIR\n");
  } else {
    directories.push_back(absolute_path(directory));
  }
  bool well = true;
  for (const auto& d : directories) {
    auto lab = LabState::open(d);
    if (!lab && directory.empty()) continue;  // ended meanwhile
    if (!lab) return give_up(lab.error());
    well = well && all_well(*lab);
    if (json) {
      print_json(lab_json(*lab));
      continue;
    }
    fmt::print("{}\n", d);
    print_hosts(*lab);
  }
  return well ? kExitDone : kExitAttention;
}

int lab_cut(const std::string& directory, const std::vector<std::string>& words) {
  auto lab = LabState::open(absolute_path(directory));
  if (!lab) return give_up(lab.error());
  std::vector<std::string> names;
  for (const auto& word : words) {
    auto host = host_of(*lab, word);
    if (!host) {
      complain(host.error().text);
      return kExitUsage;
    }
    names.push_back((*host)->name);
  }
  lab->cut.insert(names.begin(), names.end());
  if (auto saved = lab->save(); !saved) return give_up(saved.error());
  if (auto done = apply_cuts(*lab); !done) return give_up(done.error());
  for (const auto& name : names) fmt::print("{} is cut off from all others\n", name);
  return kExitDone;
}

int lab_heal(const std::string& directory) {
  auto lab = LabState::open(absolute_path(directory));
  if (!lab) return give_up(lab.error());
  const auto healed = lab->cut.size();
  lab->cut.clear();
  if (auto saved = lab->save(); !saved) return give_up(saved.error());
  if (auto done = apply_cuts(*lab); !done) return give_up(done.error());
  return wait_and_say(*lab, healed == 0 ? "no host was cut off" : "all hosts reach each other",
                      healed == 0 ? "no host was cut off" : "no host is cut off any more");
}

int lab_kill(const std::string& directory, const std::string& word, bool daemon_only) {
  auto lab = LabState::open(absolute_path(directory));
  if (!lab) return give_up(lab.error());
  auto host = host_of(*lab, word);
  if (!host) {
    complain(host.error().text);
    return kExitUsage;
  }
  const bool was = runs((*host)->daemon) || (!daemon_only && runs((*host)->mount));
  if (!daemon_only) {
    if (auto killed = kill_mount(*lab, **host); !killed) return give_up(killed.error());
  }
  if (auto killed = kill_daemon(*lab, **host); !killed) return give_up(killed.error());
  fmt::print("{}{} {}; `kinfs lab start {} {}` brings it back\n", daemon_only ? "the daemon of " : "", (*host)->name,
             was ? "is dead" : "was dead already", shell_word(lab->directory), word);
  return kExitDone;
}

int lab_start(const std::string& directory, const std::string& word) {
  auto lab = LabState::open(absolute_path(directory));
  if (!lab) return give_up(lab.error());
  auto host = host_of(*lab, word);
  if (!host) {
    complain(host.error().text);
    return kExitUsage;
  }
  catch_interrupts();
  const bool was = runs((*host)->daemon) && runs((*host)->mount);
  if (!runs((*host)->mount)) {
    if (auto made = make_mountpoint(**host); !made) return give_up(made.error());
  }
  if (auto started = start_daemon(*lab, **host); !started) return give_up(started.error());
  if (auto started = start_mount(*lab, **host); !started) return give_up(started.error());
  const auto done =
      fmt::format("{} {}{}", (*host)->name, was ? "was up already" : "is up, mounted at " + (*host)->mountpoint,
                  lab->cut.count((*host)->name) != 0 ? ", still cut off" : "");
  return wait_and_say(*lab, done, done);
}

int lab_down(const std::string& directory) {
  auto lab = LabState::open(absolute_path(directory));
  if (!lab) return give_up(lab.error());
  if (auto down = take_down(*lab); !down) return give_up(down.error());
  fmt::print("the lab at {} is gone\n", lab->directory);
  return kExitDone;
}

}  // namespace kinfs::daemon
