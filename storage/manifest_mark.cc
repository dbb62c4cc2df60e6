// See manifest_mark.h.
#include "storage/manifest_mark.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <system_error>

#include "storage/data_directory.h"

namespace kinfs {
namespace {

struct Mark {
  std::uint64_t manifest = 0;  // its number
  std::uint64_t size = 0;      // in bytes
  std::uint64_t log = 0;       // the number of the newest log
};

/// What the files say now; nullopt: there is no manifest.
std::optional<Mark> look(const std::string& database) {
  Mark mark;
  std::string current;
  std::ifstream(database + "/CURRENT") >> current;
  if (std::sscanf(current.c_str(), "MANIFEST-%lu", &mark.manifest) != 1) return std::nullopt;
  std::error_code error;
  mark.size = std::filesystem::file_size(database + "/" + current, error);
  if (error) return std::nullopt;
  for (std::filesystem::directory_iterator it(database, error), end; !error && it != end; it.increment(error)) {
    std::uint64_t log = 0;
    int matched = 0;
    const std::string name = it->path().filename().native();
    if (std::sscanf(name.c_str(), "%lu.log%n", &log, &matched) == 1 && matched == static_cast<int>(name.size())) {
      mark.log = std::max(mark.log, log);
    }
  }
  if (error) return std::nullopt;
  return mark;
}

bool flushed(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool done = ::fsync(fd) == 0;
  ::close(fd);
  return done;
}

std::optional<Mark> read_mark(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line) || file.eof()) return std::nullopt;  // a whole line ends in a newline
  Mark mark;
  if (std::sscanf(line.c_str(), "kinfs mark 1 %lu %lu %lu", &mark.manifest, &mark.size, &mark.log) != 3) {
    return std::nullopt;
  }
  return mark;
}

}  // namespace

Result<void> ManifestMark::check() const {
  const auto known = read_mark(mark_);
  if (!known) return {};
  const auto found = look(database_);
  if (!found) return {};  // RocksDB refuses that in its own words
  const bool shorter = found->manifest == known->manifest && found->size < known->size;
  if (found->manifest >= known->manifest && !shorter && found->log >= known->log) return {};
  const std::string what = found->log < known->log
                               ? fmt::format("its log {:06} is missing", known->log)
                               : fmt::format("its manifest {:06} was {} bytes long", known->manifest, known->size);
  return fail(Errc::kCorrupt, fmt::format("{}: the database lost a part of its files: {}. Nothing was deleted. {}",
                                          database_, what, kBeginEmpty));
}

void ManifestMark::renew() {
  const std::lock_guard lock(mutex_);
  const auto mark = look(database_);
  // What the mark speaks of must outlive a power cut that the mark outlives.
  if (!mark || !flushed(fmt::format("{}/MANIFEST-{:06}", database_, mark->manifest)) || !flushed(database_)) return;
  const std::string line = fmt::format("kinfs mark 1 {:020} {:020} {:020}\n", mark->manifest, mark->size, mark->log);
  const int fd = ::open(mark_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return;
  // Always as long, so that it is written over in one piece.
  if (::pwrite(fd, line.data(), line.size(), 0) != static_cast<ssize_t>(line.size())) ::unlink(mark_.c_str());
  ::close(fd);
}

}  // namespace kinfs
