// See data_directory.h.
#include "storage/data_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

namespace kinfs {
namespace {

namespace stdfs = std::filesystem;

constexpr std::string_view kFormatPrefix = "kinfs data ";
constexpr std::string_view kFormatFile = "/FORMAT";
constexpr std::string_view kCreatingFile = "/CREATING";

tl::unexpected<Error> errno_error(std::string_view what, const std::string& path, int error) {
  const std::string reason = std::generic_category().message(error);
  if (error == ENOSPC || error == EDQUOT) {
    return fail(Errc::kNoSpace, fmt::format("{} {}: {}; free some space there", what, path, reason));
  }
  if (error == EACCES || error == EPERM) {
    return fail(Errc::kAccess,
                fmt::format("{} {}: {}; it must belong to the user that runs kinfsd", what, path, reason));
  }
  return fail(Errc::kIo, fmt::format("{} {}: {}", what, path, reason));
}

Result<void> sync_directory(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno_error("cannot open", path, errno);
  const int error = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  if (error != 0) return errno_error("cannot sync", path, error);
  return {};
}

Result<void> write_file_synced(const std::string& path, std::string_view text) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return errno_error("cannot create", path, errno);
  const ssize_t n = ::write(fd, text.data(), text.size());
  int error = n < 0 ? errno : (static_cast<std::size_t>(n) < text.size() ? ENOSPC : 0);
  if (error == 0 && ::fsync(fd) != 0) error = errno;
  ::close(fd);
  if (error != 0) return errno_error("cannot write", path, error);
  return {};
}

bool exists(const std::string& path) {
  std::error_code ignored;
  return stdfs::exists(path, ignored);
}

}  // namespace

Result<std::string> foreign_entry(const std::string& path) {
  const bool ours = exists(path + std::string(kFormatFile)) || exists(path + std::string(kCreatingFile));
  if (ours || !exists(path)) return std::string();
  std::error_code error;
  for (stdfs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().native();
    // The first is a file system's own, at its root.
    if (name != "lost+found" && name != kFoundingFile) return name;
  }
  if (error) return errno_error("cannot list", path, error.value());
  return std::string();
}

DataDirectory::DataDirectory(DataDirectory&& other) noexcept
    : path_(std::move(other.path_)),
      version_(other.version_),
      lock_fd_(std::exchange(other.lock_fd_, -1)),
      fresh_(other.fresh_) {}

DataDirectory::~DataDirectory() {
  if (lock_fd_ >= 0) ::close(lock_fd_);
}

Result<DataDirectory> DataDirectory::claim(const std::string& path, int format_version) {
  std::error_code error;
  const stdfs::file_status status = stdfs::status(path, error);
  if (stdfs::exists(status) && !stdfs::is_directory(status)) {
    return fail(Errc::kFormat, path + " is not a directory: name an empty or a new one");
  }
  if (!stdfs::exists(status)) {
    stdfs::create_directories(path, error);
    if (error) return errno_error("cannot create", path, error.value());
    ::chmod(path.c_str(), 0700);
  }
  DataDirectory directory(path, format_version);
  if (!exists(path + std::string(kFormatFile)) && !exists(path + std::string(kCreatingFile))) {
    auto entry = foreign_entry(path);
    if (!entry) return pass(std::move(entry));
    if (!entry->empty()) {
      return fail(Errc::kFormat,
                  fmt::format("{} is not a kinfs data directory: it holds {} and no FORMAT file. Nothing in it was "
                              "changed; name an empty directory, or the right one",
                              path, *entry));
    }
    const std::string creating = path + std::string(kCreatingFile);
    if (auto ok = write_file_synced(creating, "not complete yet\n"); !ok) return pass(std::move(ok));
  }
  if (auto ok = directory.lock(); !ok) return pass(std::move(ok));
  if (auto ok = directory.check_format(); !ok) return pass(std::move(ok));
  return directory;
}

Result<void> DataDirectory::lock() {
  const std::string path = path_ + "/LOCK";
  lock_fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_fd_ < 0) return errno_error("cannot open", path, errno);
  if (::flock(lock_fd_, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return errno_error("cannot lock", path, errno);
    char pid[32] = {};
    if (::pread(lock_fd_, pid, sizeof pid - 1, 0) <= 0) pid[0] = '\0';
    std::string_view digits(pid);
    digits = digits.substr(0, digits.find_first_not_of("0123456789"));
    return fail(Errc::kRefused, fmt::format("{} is in use{}: stop that daemon first, or name another directory", path_,
                                            digits.empty() ? "" : fmt::format(" by process {}", digits)));
  }
  // Only for the message above: a full disk must not keep the store from being opened.
  const std::string pid = fmt::format("{}\n", ::getpid());
  if (::pwrite(lock_fd_, pid.data(), pid.size(), 0) == static_cast<ssize_t>(pid.size())) {
    return ::ftruncate(lock_fd_, static_cast<off_t>(pid.size())) == 0 ? Result<void>{}
                                                                      : errno_error("cannot write", path, errno);
  }
  return {};
}

Result<void> DataDirectory::check_format() {
  const std::string path = path_ + std::string(kFormatFile);
  if (!exists(path)) {
    fresh_ = true;
    return {};
  }
  std::ifstream file(path, std::ios::binary);
  std::string text(64, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  int version = 0;
  const char* const begin = text.data() + kFormatPrefix.size();
  const char* const end = text.data() + text.size();
  const bool ours = text.starts_with(kFormatPrefix);
  const auto parsed = ours ? std::from_chars(begin, end, version) : std::from_chars_result{nullptr, std::errc{}};
  if (!ours || parsed.ec != std::errc{} || parsed.ptr == end || *parsed.ptr != '\n') {
    return fail(Errc::kFormat, path +
                                   " does not name a version of kinfs: this is not a kinfs data directory, or its "
                                   "FORMAT file is damaged. Nothing was changed; name another directory");
  }
  if (version == version_) return {};
  return fail(Errc::kFormat,
              fmt::format("{} was written in format {}, this kinfsd knows format {}. Nothing was changed; use a kinfsd "
                          "{} that knows it, or another directory",
                          path_, version, version_, version > version_ ? "new enough" : "old enough"));
}

Result<void> DataDirectory::commit() {
  if (!fresh_) return {};
  const std::string path = path_ + std::string(kFormatFile);
  const std::string text = fmt::format("{}{}\n", kFormatPrefix, version_);
  if (auto ok = write_file_synced(path + ".new", text); !ok) return ok;
  if (::rename((path + ".new").c_str(), path.c_str()) != 0) return errno_error("cannot rename to", path, errno);
  if (auto ok = sync_directory(path_); !ok) return ok;
  ::unlink((path_ + std::string(kCreatingFile)).c_str());
  fresh_ = false;
  return {};
}

}  // namespace kinfs
