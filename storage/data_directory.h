// The frame around what a node keeps: is this directory ours, of this version, and free? See rocks_store.h.
#pragma once

#include <string>

#include "storage/result.h"

namespace kinfs {

/// What whoever finds a data directory damaged can do.
inline constexpr const char* kBeginEmpty =
    "If the other hosts are well, move the directory away and start kinfsd again with the same configuration and "
    "key: it begins empty and takes back all that they have. Until then fewer copies exist, so keep the other "
    "hosts running; what only this host had is in the directory that was moved away";

/// In a data directory that is made to begin a cluster by invitation; nothing else may stand in one that is not ours
/// yet. kinfsd takes it away once the cluster is there, durably: so one that is emptied later begins none.
inline constexpr const char* kFoundingFile = "founding";

/// What is in `path` that makes it another program's directory, which claim() would refuse; empty: nothing, or there is
/// no directory. kIo, kAccess when it cannot be looked into.
Result<std::string> foreign_entry(const std::string& path);

/// A locked data directory. The lock ends with the object.
class DataDirectory {
 public:
  /// Looks before it touches: a foreign directory is left as it was, to the byte.
  static Result<DataDirectory> claim(const std::string& path, int format_version);
  DataDirectory(DataDirectory&& other) noexcept;
  DataDirectory& operator=(DataDirectory&&) = delete;
  ~DataDirectory();

  /// True until commit(): its contents are not complete, and may be made anew.
  bool fresh() const { return fresh_; }
  /// What was fresh is complete, durably.
  Result<void> commit();
  const std::string& path() const { return path_; }

 private:
  DataDirectory(std::string path, int version) : path_(std::move(path)), version_(version) {}
  Result<void> lock();
  Result<void> check_format();

  std::string path_;
  int version_;
  int lock_fd_ = -1;
  bool fresh_ = false;
};

}  // namespace kinfs
