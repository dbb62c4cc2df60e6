// What a lab remembers between commands: /var/tmp/kinfs-lab/HASH-OF-DIR, a folder that only its user can enter.
//
//   lab.json            below
//   hostN/kinfsd.toml   written at each start of the daemon, cuts included, so that a host never starts uncut
//   hostN/key           hostN/data/  hostN/kinfsd.sock  hostN/kinfsd.log  hostN/mount.log  hostN/mount.pid
//
// Invariants: all changes happen with the folder locked (flock); a process is remembered with its start time; a port
// belongs to one lab for as long as the lab is there, also while its host is dead.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "daemon/cli/process.h"
#include "storage/result.h"

namespace kinfs::daemon {

struct LabHost {
  std::string name;        // host1, host2, …
  std::string mountpoint;  // DIR/1, …
  std::uint16_t port = 0;
  std::string public_key;  // hexadecimal
  std::string client;      // of its mount, hexadecimal
  ProcessId daemon;        // pid 0: was not started, or was ended by us
  ProcessId mount;
};

/// An open, locked lab. The lock ends with the object.
class LabState {
 public:
  /// kRefused, with the labs that there are, when there is no lab at `directory`.
  static Result<LabState> open(const std::string& directory);
  /// kExists when there is one already.
  static Result<LabState> create(const std::string& directory);
  /// The directories of all labs of this user.
  static std::vector<std::string> all();

  LabState(LabState&& other) noexcept;
  LabState& operator=(LabState&&) = delete;
  ~LabState();

  Result<void> save() const;
  /// Deletes the folder; the lab is gone.
  Result<void> erase();

  const std::string& folder() const { return folder_; }
  std::string file(const LabHost& host, const std::string& name) const {
    return folder_ + "/" + host.name + "/" + name;
  }
  /// By number or name; null when there is none.
  LabHost* find(const std::string& word);

  std::string directory;        // DIR
  bool made_directory = false;  // by `up`: `down` removes it again
  std::string cluster_id;
  std::vector<LabHost> hosts;
  std::set<std::string> cut;  // hosts that are cut off from all others

  /// The hosts that `host` must not speak with.
  std::vector<std::string> cut_from(const LabHost& host) const;
  Result<void> write_config(const LabHost& host) const;

 private:
  LabState(std::string folder, int lock) : folder_(std::move(folder)), lock_(lock) {}
  Result<void> load();

  std::string folder_;
  int lock_ = -1;
};

/// Held from the choice of ports until they stand in lab.json, so that two labs that come up at once take different
/// ones.
class PortLock {
 public:
  PortLock();
  ~PortLock();
  PortLock(const PortLock&) = delete;
  PortLock& operator=(const PortLock&) = delete;

 private:
  int fd_;
};

/// `count` ports on 127.0.0.1 that nothing listens on and no other lab owns.
Result<std::vector<std::uint16_t>> free_ports(std::size_t count);

}  // namespace kinfs::daemon
