// A host before it belongs to a cluster: looks at what is there, and makes it a member's.
#pragma once

#include <string>
#include <vector>

#include "cluster/key_pair.h"
#include "daemon/cli/host_config.h"
#include "daemon/cli/setup.h"
#include "daemon/config.h"
#include "storage/store.h"

namespace kinfs::daemon {

class NewHost {
 public:
  /// kExists, naming the cluster, when it belongs to one; kRefused for what else stands in the way. Changes
  /// nothing, but makes the configuration's folder.
  static Result<NewHost> look(const SetUpOptions& options);

  /// Finds out all that the configuration is to say, but for the others, and whether kinfsd would take it; changes
  /// nothing. Its address is the one under which `towards` reaches it (empty: anybody), unless the options name one.
  /// kRefused, asking for --address, when it cannot be told; kInvalid for a name or an address that will not do.
  Result<void> plan(const std::string& cluster_id, std::uint32_t copies, const std::string& towards);
  /// As planned.
  const std::string& address() const { return part_.address; }
  /// Reads its key pair, or makes it; belongs to the user that kinfsd runs as, where there is that one.
  Result<cluster::KeyPair> keys() const;
  /// From now on its kinfsd may begin a cluster, once; see kFoundingFile.
  Result<void> allow_founding() const;
  /// It may not, though a kinfs init that was interrupted had allowed it.
  Result<void> forbid_founding() const;
  /// What was planned; `others`: who is to be asked when the data directory is empty.
  Result<void> write_config(const std::vector<Member>& others);
  /// Starts kinfsd and waits until it serves and knows the members.
  Result<void> start() const;
  /// Mounts volume home, if the options say where; an exit code.
  int mount() const;

  const Config& config() const { return config_; }
  const std::string& file() const { return file_; }

 private:
  bool under_systemd() const;
  Result<void> is_free() const;
  Result<std::string> find_address(const std::string& towards) const;
  std::string planned_text() const;
  Result<Config> planned() const;
  std::string founding_mark() const;
  Result<void> give_to_daemon(const std::string& path) const;
  Result<void> start_by_systemd() const;
  Result<void> start_in_background() const;

  std::string file_;
  bool has_file_ = false;
  std::string text_;  // of the file, as it is
  Config config_;
  SetUpOptions options_;
  ClusterPart part_;
};

}  // namespace kinfs::daemon
