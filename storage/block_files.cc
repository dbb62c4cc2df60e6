// See block_files.h. Space is reclaimed by punching holes where blocks were; offsets never move, so readers and the
// index do not notice.
#include "storage/block_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <vector>

namespace kinfs {
namespace {

constexpr ByteView kHeader{"kinfs blocks 1\n\0", 16};
constexpr std::size_t kMaxOpenFiles = 128;
constexpr std::uint64_t kFsBlockBytes = 4096;
constexpr std::uint64_t kStretchBytes = 8 << 20;
constexpr std::string_view kSuffix = ".blocks";

tl::unexpected<Error> errno_error(std::string_view what, const std::string& path, int error) {
  const std::string reason = std::generic_category().message(error);
  if (error == ENOSPC || error == EDQUOT) {
    return fail(Errc::kNoSpace, fmt::format("{} {}: {}; free some space there", what, path, reason));
  }
  return fail(Errc::kIo, fmt::format("{} {}: {}", what, path, reason));
}

/// 0, or errno.
int write_fully(int fd, ByteView bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n < 0 ? errno : EIO;
    bytes.remove_prefix(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
  return 0;
}

/// The number of bytes read, less than out.size() at the end of the file, or -errno.
ssize_t read_fully(int fd, Bytes& out, std::uint64_t offset) {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t n = ::pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return static_cast<ssize_t>(done);
}

/// The segment that a file name stands for; nullopt: not one of ours.
std::optional<std::uint32_t> segment_of(std::string_view name) {
  if (!name.ends_with(kSuffix)) return std::nullopt;
  name.remove_suffix(kSuffix.size());
  std::uint32_t segment = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), segment);
  if (error != std::errc{} || end != name.data() + name.size() || segment == 0) return std::nullopt;
  return segment;
}

/// The number, and a check of it: a damaged one says nothing.
std::string mark_line(std::uint32_t clean_below) {
  const std::string number = fmt::format("{:010}", clean_below);
  return fmt::format("{} {}\n", number, to_hex(view_of(md5(number))));
}

}  // namespace

class BlockFiles::File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File() { ::close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

BlockFiles::~BlockFiles() = default;

std::string BlockFiles::path_of(std::uint32_t segment) const {
  return fmt::format("{}/{:010}{}", directory_, segment, kSuffix);
}

Result<std::unique_ptr<BlockFiles>> BlockFiles::open(std::string directory) {
  std::unique_ptr<BlockFiles> files(new BlockFiles(std::move(directory)));
  if (auto ok = files->find_segments(); !ok) return pass(std::move(ok));
  return files;
}

void BlockFiles::read_mark() {
  std::ifstream file(mark_path(), std::ios::binary);
  std::string line;
  if (!std::getline(file, line)) return;
  std::uint32_t clean_below = 0;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), clean_below);
  if (error == std::errc{} && mark_line(clean_below) == line + "\n") clean_below_ = clean_below;
}

void BlockFiles::write_mark(std::uint32_t clean_below) {
  if (clean_below <= clean_below_) return;
  const int fd = ::open(mark_path().c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return;  // the older one holds
  const std::string line = mark_line(clean_below);
  if (write_fully(fd, line, 0) == 0) clean_below_ = clean_below;
  ::close(fd);
}

Result<void> BlockFiles::find_segments() {
  read_mark();
  doubt_from_ = clean_below_;
  std::error_code error;
  for (std::filesystem::directory_iterator it(directory_, error), end; !error && it != end; it.increment(error)) {
    const auto segment = segment_of(it->path().filename().native());
    if (!segment) continue;
    struct stat st {};
    if (::stat(it->path().c_str(), &st) != 0) return errno_error("cannot look at", it->path(), errno);
    const auto size = static_cast<std::uint64_t>(st.st_size);
    const auto taken = static_cast<std::uint64_t>(st.st_blocks) * 512;
    sizes_[*segment] = size;
    freed_bytes_ += size - std::min(size, taken);
    if (*segment >= clean_below_) dirty_[*segment] = nullptr;
  }
  if (error) return errno_error("cannot list", directory_, error.value());
  if (sizes_.empty()) return {};
  current_ = sizes_.rbegin()->first;
  first_own_ = current_ + 1;
  // A crash while the newest segment was made leaves it without its header, and without blocks.
  if (sizes_[current_] < kHeader.size()) {
    auto file = start_segment(current_);
    if (!file) return pass(std::move(file));
  }
  // The newest one is opened now, so that a foreign file is refused before anything is appended to it.
  auto newest = file_of(current_);
  if (!newest) return pass(std::move(newest));
  return {};
}

Result<std::shared_ptr<BlockFiles::File>> BlockFiles::file_of(std::uint32_t segment) const {
  {
    const std::lock_guard lock(mutex_);
    if (const auto it = files_.find(segment); it != files_.end()) return it->second;
  }
  const std::string path = path_of(segment);
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return fail(Errc::kCorrupt, path + " is missing: its blocks are lost here");
  if (fd < 0) return errno_error("cannot open", path, errno);
  auto file = std::make_shared<File>(fd);
  Bytes header(kHeader.size(), '\0');
  const ssize_t n = read_fully(fd, header, 0);
  if (n < 0) return errno_error("cannot read", path, static_cast<int>(-n));
  if (header != kHeader) {
    const bool ours = header.starts_with(kHeader.substr(0, 13));
    return fail(ours ? Errc::kFormat : Errc::kCorrupt, path + (ours ? " was written by another version of kinfs"
                                                                    : " is not a kinfs block file, or is damaged"));
  }
  const std::lock_guard lock(mutex_);
  if (files_.size() >= kMaxOpenFiles) {
    files_.erase(files_.begin()->first == current_ ? std::next(files_.begin()) : files_.begin());
  }
  return files_.try_emplace(segment, std::move(file)).first->second;
}

Result<std::shared_ptr<BlockFiles::File>> BlockFiles::start_segment(std::uint32_t segment) {
  const std::string path = path_of(segment);
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return errno_error("cannot create", path, errno);
  auto file = std::make_shared<File>(fd);
  if (const int error = write_fully(fd, kHeader, 0); error != 0) return errno_error("cannot write", path, error);
  const int dir = ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir < 0) return errno_error("cannot open", directory_, errno);
  const int synced = ::fsync(dir) == 0 ? 0 : errno;
  ::close(dir);
  if (synced != 0) return errno_error("cannot sync", directory_, synced);
  const std::lock_guard lock(mutex_);
  current_ = segment;
  sizes_[segment] = kHeader.size();
  files_[segment] = file;
  dirty_[segment] = file;
  return file;
}

Result<std::shared_ptr<BlockFiles::File>> BlockFiles::file_to_append(std::size_t bytes) {
  std::uint32_t segment = 0;
  std::uint64_t size = 0;
  {
    const std::lock_guard lock(mutex_);
    segment = current_;
    if (segment != 0) size = sizes_[segment];
  }
  return segment < first_own_ || size + bytes > kSegmentBytes ? start_segment(segment + 1) : file_of(segment);
}

Result<BlockLocation> BlockFiles::append(ByteView bytes) {
  auto file = file_to_append(bytes.size());
  if (!file) return pass(std::move(file));
  BlockLocation at;
  at.length = static_cast<std::uint32_t>(bytes.size());
  {
    const std::lock_guard lock(mutex_);
    at.segment = current_;
    at.offset = sizes_[current_];
  }
  if (const int error = write_fully((*file)->fd(), bytes, at.offset); error != 0) {
    // Gives back what came to the disk. Should that fail too, the next block overwrites it.
    if (::ftruncate((*file)->fd(), static_cast<off_t>(at.offset)) != 0) errno = 0;
    return errno_error("cannot write a block to", path_of(at.segment), error);
  }
  begin_writing(**file, at);
  const std::lock_guard lock(mutex_);
  sizes_[at.segment] = at.offset + at.length;
  dirty_[at.segment] = *file;
  return at;
}

/// The disk begins with what fills a whole stretch, so that a sync finds little left to do.
void BlockFiles::begin_writing(const File& file, const BlockLocation& at) {
  const auto stretch = (at.offset + at.length) / kStretchBytes;
  if (stretch == at.offset / kStretchBytes) return;
  const auto from = static_cast<off_t>((stretch - 1) * kStretchBytes);
  // Only a hint: what cannot be written is found by sync().
  (void)::sync_file_range(file.fd(), from, kStretchBytes, SYNC_FILE_RANGE_WRITE);
}

bool BlockFiles::appended(const BlockLocation& at) const {
  const std::lock_guard lock(mutex_);
  const auto size = sizes_.find(at.segment);
  return at.segment >= first_own_ && size != sizes_.end() && at.offset + at.length <= size->second;
}

bool BlockFiles::in_doubt(const BlockLocation& at) const {
  const std::lock_guard lock(mutex_);
  return at.segment >= doubt_from_ && at.segment < first_own_;
}

void BlockFiles::doubt_cache() {
  std::vector<std::uint32_t> segments;
  {
    const std::lock_guard lock(mutex_);
    for (auto it = sizes_.lower_bound(doubt_from_); it != sizes_.end() && it->first < first_own_; ++it) {
      segments.push_back(it->first);
    }
  }
  for (const auto segment : segments) {
    if (auto file = file_of(segment)) (void)::posix_fadvise((*file)->fd(), 0, 0, POSIX_FADV_DONTNEED);
  }
}

Result<SharedBytes> BlockFiles::read(const BlockLocation& at, const Digest256& hash) const {
  auto file = file_of(at.segment);
  if (!file) return pass(std::move(file));
  Bytes bytes(at.length, '\0');
  const ssize_t n = read_fully((*file)->fd(), bytes, at.offset);
  if (n < 0) return errno_error("cannot read", path_of(at.segment), static_cast<int>(-n));
  if (static_cast<std::size_t>(n) != bytes.size() || sha256(bytes) != hash) {
    return fail(Errc::kCorrupt, fmt::format("block {} at {} of {} does not match its hash: another replica has it",
                                            to_hex(view_of(hash)), at.offset, path_of(at.segment)));
  }
  return share(std::move(bytes));
}

Result<void> BlockFiles::sync() {
  const std::lock_guard one_at_a_time(sync_mutex_);
  std::map<std::uint32_t, std::shared_ptr<File>> dirty;
  std::uint32_t current = 0;  // nothing is appended below it any more
  {
    const std::lock_guard lock(mutex_);
    if (sync_failure_) return tl::unexpected<Error>(*sync_failure_);
    dirty.swap(dirty_);
    current = current_;
  }
  for (auto& [segment, file] : dirty) {
    if (file == nullptr) {
      auto opened = file_of(segment);
      // Damaged, or gone: reading its blocks says so, and there is nothing to be kept.
      if (!opened && opened.error().code != Errc::kIo) continue;
      if (opened) file = std::move(*opened);
    }
    if (file != nullptr && ::fdatasync(file->fd()) == 0) continue;
    auto failure = errno_error("cannot sync", path_of(segment), file != nullptr ? errno : EIO);
    failure.value().text += "; nothing more is confirmed as synced until the daemon is started again";
    const std::lock_guard lock(mutex_);
    sync_failure_ = failure.value();
    return failure;
  }
  write_mark(current);
  return {};
}

void BlockFiles::free(const BlockLocation& at) {
  if (at.length == 0) return;
  auto file = file_of(at.segment);
  if (!file) return;
  std::uint64_t from = 0, to = 0;  // all that is free around it
  {
    const std::lock_guard lock(mutex_);
    freed_.add({at.segment, at.offset, at.offset + at.length});
    freed_bytes_ += at.length;
    const auto* around = freed_.find(at.segment, at.offset + at.length);
    from = around->after;
    to = around->last;
  }
  from = (from + kFsBlockBytes - 1) / kFsBlockBytes * kFsBlockBytes;
  to = to / kFsBlockBytes * kFsBlockBytes;
  if (from >= to) return;
  (void)::fallocate((*file)->fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(from),
                    static_cast<off_t>(to - from));
}

std::uint64_t BlockFiles::bytes() const {
  const std::lock_guard lock(mutex_);
  std::uint64_t sum = 0;
  for (const auto& [segment, size] : sizes_) sum += size;
  return sum - std::min(sum, freed_bytes_);
}

}  // namespace kinfs
