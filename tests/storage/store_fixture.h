// Stores to test: in memory, and on a disk in a directory of its own that goes away with the test.
#pragma once

#include <memory>
#include <string>

#include "storage/store.h"

namespace kinfs::test {

/// A new empty directory below TMPDIR; removed, with what is in it, at the end.
class TempDirectory {
 public:
  TempDirectory();
  ~TempDirectory();
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

class Harness {
 public:
  virtual ~Harness() = default;
  virtual Store& store() = 0;
  /// Closes the store and opens it again.
  virtual void reopen() = 0;
  virtual void damage_block(const BlockKey& key, ByteView bytes) = 0;
};

using HarnessMaker = std::unique_ptr<Harness> (*)();
std::unique_ptr<Harness> make_mem_harness();
std::unique_ptr<Harness> make_rocks_harness();

/// Fails the test when the store cannot be opened.
std::unique_ptr<Store> open_rocks(const std::string& path);

std::string read_file(const std::string& path);
void write_file(const std::string& path, const std::string& bytes);

}  // namespace kinfs::test
