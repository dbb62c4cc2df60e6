// What a start must know of the one before: whether everything that it wrote is still there.
//
// A process that is killed loses nothing: what it wrote is in the kernel. A power cut, or a disk that fails to sync,
// takes a tail of what was not synced, and a data directory that is put back from a copy is an older one. A node that
// does not notice vouches for writes of its own that it no longer has, and others would drop them. So each run keeps
// a file beside its socket, outside the data directory, with its name and how much it has written; the next run
// believes its store only if the store names that run too, and has as much.
//
// Threading: one thread at a time.
#pragma once

#include <cstdint>
#include <string>

#include "storage/store.h"

namespace kinfs::daemon {

class RunFile {
 public:
  /// `machine_boot`: another after each start of the machine; empty: not known, and nothing is ever believed.
  RunFile(std::string path, Bytes machine_boot);
  /// Of this run: never used before.
  const Bytes& name() const { return name_; }
  /// The name of the last run, if `store` has all that it is known to have written. Empty otherwise.
  Bytes believed(const Store& store) const;
  /// That much is written by now. Where this cannot be kept, the next start believes less.
  void note(std::uint64_t written);
  /// Nothing of this run is to be believed, whatever is noted yet.
  void forget();

 private:
  const std::string path_;
  const Bytes machine_boot_;
  const Bytes name_;
  std::uint64_t noted_ = 0;
  bool forgotten_ = false;
};

}  // namespace kinfs::daemon
