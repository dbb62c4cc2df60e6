#include "storage/whole_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace kinfs {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const auto n = ::write(fd, text.data(), text.size());
    if (n < 0) return false;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

}  // namespace

Result<void> write_whole_file(const std::string& path, std::string_view text, mode_t mode) {
  const auto bad = [&] { return fail(Errc::kIo, fmt::format("cannot write {}: {}", path, std::strerror(errno))); };
  const auto fresh = path + ".new";
  {
    const Descriptor file(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode));
    if (file.get() < 0 || ::fchmod(file.get(), mode) != 0) return bad();
    if (!write_all(file.get(), text) || ::fsync(file.get()) != 0) {
      auto error = bad();
      ::unlink(fresh.c_str());
      return error;
    }
  }
  if (::rename(fresh.c_str(), path.c_str()) != 0) return bad();
  return sync_folder_of(path);
}

Result<void> sync_folder_of(const std::string& path) {
  auto folder = std::filesystem::path(path).parent_path().string();
  if (folder.empty()) folder = ".";
  const Descriptor parent(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (parent.get() >= 0 && ::fsync(parent.get()) == 0) return {};
  return fail(Errc::kIo, fmt::format("cannot sync {}: {}", folder, std::strerror(errno)));
}

Result<std::string> read_whole_file(const std::string& path, std::size_t limit) {
  const auto bad = [&](Errc code) { return fail(code, fmt::format("cannot read {}: {}", path, std::strerror(errno))); };
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return bad(errno == ENOENT ? Errc::kNotFound : Errc::kIo);
  std::string text(limit + 1, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const auto n = ::read(file.get(), text.data() + size, text.size() - size);
    if (n < 0) return bad(Errc::kIo);
    if (n == 0) break;
    size += static_cast<std::size_t>(n);
  }
  if (size > limit) return fail(Errc::kTooLarge, fmt::format("{} has more than {} bytes", path, limit));
  text.resize(size);
  return text;
}

}  // namespace kinfs
