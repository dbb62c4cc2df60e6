// Processes that a test starts to have them die, or to give them a disk of their own. They are this program anew
// (a mere fork would inherit RocksDB's idea of threads that no longer run), and are gone when the object is.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

namespace kinfs::test {

class Child {
 public:
  /// Runs the role of that name (child.cc) with `argument`.
  Child(const std::string& role, const std::string& argument);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  /// The next number that it reported; false when it has ended.
  bool read(std::uint64_t& number);
  void kill();
  /// Its exit status; -1: a signal ended it.
  int wait();

 private:
  pid_t pid_ = -1;
  int reports_ = -1;
  int status_ = -1;
};

}  // namespace kinfs::test
