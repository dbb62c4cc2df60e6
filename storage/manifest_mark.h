// Notices that RocksDB's files went back in time.
//
// RocksDB takes a manifest that ends early for the whole of it: it would open an older state, without a word, and
// then delete the tables that it does not know of. So a line beside the database says how long which manifest was
// known to be, and which log was the newest. It is written after what it speaks of was synced, and so is behind it
// at any time; a mark that a power cut damaged says nothing.
//
// Threading: any.
#pragma once

#include <mutex>
#include <string>

#include "storage/result.h"

namespace kinfs {

class ManifestMark {
 public:
  /// Of the database in `database`, kept in the file `mark`.
  ManifestMark(std::string database, std::string mark) : database_(std::move(database)), mark_(std::move(mark)) {}

  /// kCorrupt when the files are behind the mark. Before the database is opened.
  Result<void> check() const;
  /// After it was opened, and whenever it may have changed its files. A failure leaves the older mark, which holds.
  void renew();

 private:
  const std::string database_;
  const std::string mark_;
  std::mutex mutex_;
};

}  // namespace kinfs
