// A host before it belongs to a cluster: looks at what is there, and makes it a member's.
#pragma once

#include <string>
#include <vector>

#include "cluster/key_pair.h"
#include "daemon/cli/setup.h"
#include "daemon/config.h"
#include "storage/store.h"

namespace kinfs::daemon {

class NewHost {
 public:
  /// kExists, naming the cluster, when it belongs to one; kRefused for what else stands in the way. Changes nothing.
  static Result<NewHost> look(const SetUpOptions& options);

  /// Reads its key pair, or makes it.
  Result<cluster::KeyPair> keys() const;
  /// Its address as `towards` reaches it (empty: as anybody does), unless the options name one. kRefused, asking for
  /// --address, when it cannot be told.
  Result<std::string> address(const std::string& towards) const;
  /// `others`: who is to be asked when the data directory is empty.
  Result<void> write_config(const std::string& cluster_id, std::uint32_t copies, const std::string& address,
                            const std::vector<Member>& others);
  /// Starts kinfsd and waits until it serves and knows the members.
  Result<void> start() const;
  /// Mounts volume home, if the options say where; an exit code.
  int mount() const;

  const Config& config() const { return config_; }
  const std::string& file() const { return file_; }

 private:
  bool under_systemd() const;
  Result<void> is_free() const;
  Result<void> give_to_daemon(const std::string& path) const;
  Result<void> start_by_systemd() const;
  Result<void> start_in_background() const;

  std::string file_;
  bool has_file_ = false;
  std::string text_;  // of the file, as it is
  Config config_;
  SetUpOptions options_;
};

}  // namespace kinfs::daemon
