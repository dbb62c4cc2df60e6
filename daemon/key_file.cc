#include "daemon/key_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <string_view>

#include "storage/whole_file.h"

namespace kinfs::daemon {
namespace {

constexpr std::string_view kPublicWord = "public-key ";
constexpr std::string_view kSecretWord = "secret-key ";

std::optional<Bytes> key_after(std::string_view text, std::string_view word) {
  const auto at = text.find(word);
  if (at == std::string_view::npos || (at != 0 && text[at - 1] != '\n')) return std::nullopt;
  const auto hex = text.substr(at + word.size(), 64);
  if (hex.size() != 64) return std::nullopt;
  return from_hex(hex);
}

}  // namespace

Result<cluster::KeyPair> read_key_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    if (errno == ENOENT) {
      return fail(Errc::kNotFound,
                  fmt::format("there is no key file {}; make one with: kinfsd --make-key {}", path, path));
    }
    return fail(Errc::kRefused, fmt::format("cannot open the key file {}: {}", path, std::strerror(errno)));
  }
  struct stat st {};
  std::array<char, 4096> buffer{};
  const bool known = ::fstat(fd, &st) == 0;
  const auto n = known && S_ISREG(st.st_mode) ? ::read(fd, buffer.data(), buffer.size()) : -1;
  ::close(fd);
  if (!known || !S_ISREG(st.st_mode) || n < 0) {
    return fail(Errc::kRefused, fmt::format("the key file {} is not a file that can be read", path));
  }
  if ((st.st_mode & 077) != 0) {
    return fail(
        Errc::kRefused,
        fmt::format("the key file {} has mode {:04o}, so others than its owner may have read the key; if nobody "
                    "has, chmod 600 {}",
                    path, st.st_mode & 07777, path));
  }
  if (st.st_uid != ::geteuid() && ::geteuid() != 0) {
    return fail(Errc::kRefused,
                fmt::format("the key file {} belongs to user {}, and kinfsd runs as {}", path, st.st_uid, ::geteuid()));
  }
  const std::string_view text(buffer.data(), static_cast<std::size_t>(n));
  auto pub = key_after(text, kPublicWord);
  auto secret = key_after(text, kSecretWord);
  if (!pub || !secret) {
    return fail(Errc::kCorrupt, fmt::format("{} is no key file, or is damaged: it has no `public-key` and `secret-key` "
                                            "of 64 hexadecimal digits each; restore it, or move it away and make a new "
                                            "one with: kinfsd --make-key {}",
                                            path, path));
  }
  return cluster::KeyPair{std::move(*pub), std::move(*secret)};
}

Result<cluster::KeyPair> make_key_file(const std::string& path) {
  auto keys = cluster::make_key_pair();
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) {
    if (errno == EEXIST) {
      return fail(Errc::kExists,
                  fmt::format("{} is there already, and a key is never overwritten; move it away first", path));
    }
    return fail(Errc::kRefused, fmt::format("cannot make the key file {}: {}", path, std::strerror(errno)));
  }
  const auto text =
      fmt::format("{}{}\n{}{}\n", kPublicWord, to_hex(keys.public_key), kSecretWord, to_hex(keys.secret_key));
  const bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::fsync(fd) == 0;
  const int error = errno;
  ::close(fd);
  if (!written) {
    ::unlink(path.c_str());
    return fail(Errc::kIo, fmt::format("cannot write the key file {}: {}", path, std::strerror(error)));
  }
  // Others learn of this key soon: it must not be gone with the next power cut.
  if (auto synced = sync_folder_of(path); !synced) return pass(std::move(synced));
  return keys;
}

}  // namespace kinfs::daemon
