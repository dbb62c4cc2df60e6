// Requests to calls, results to replies. See fuse_ops.h.
#define FUSE_USE_VERSION 312
#include "fs/fuse_ops.h"

#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fs.h>
#include <linux/fuse.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <iterator>
#include <unordered_map>

#include "fs/entry.h"

namespace kinfs::fs {

namespace {

constexpr std::size_t kMaxTransfer = 1 << 20;
constexpr unsigned kMaxBackground = 64;
constexpr std::size_t kBlockSize = 512;
constexpr std::int64_t kNsPerSecond = 1'000'000'000;

/// What an error of a call means to a program depends on what was asked.
enum class About { kName, kNode, kChange };

int errno_of(Errc code, About about) {
  const bool change = about == About::kChange;
  switch (code) {
    case Errc::kNotFound: return about == About::kNode ? ESTALE : ENOENT;  // ESTALE: the kernel looks the path up anew
    case Errc::kExists: return EEXIST;
    case Errc::kInvalid: return EINVAL;
    case Errc::kNameTooLong: return ENAMETOOLONG;
    case Errc::kTooLarge: return EFBIG;
    case Errc::kNotDirectory: return ENOTDIR;
    case Errc::kIsDirectory: return EISDIR;
    case Errc::kNotEmpty: return ENOTEMPTY;
    case Errc::kNotPermitted: return EPERM;
    case Errc::kAccess: return EACCES;
    case Errc::kUnavailable: return EHOSTUNREACH;
    case Errc::kTimeout: return change ? EIO : EHOSTUNREACH;  // EIO: whether it was done is not known
    case Errc::kBusy: return EBUSY;
    case Errc::kCancelled: return EINTR;
    case Errc::kNoSpace: return ENOSPC;
    case Errc::kRefused: return change ? EROFS : EACCES;
    case Errc::kUnsupported: return EOPNOTSUPP;
    case Errc::kCorrupt:
    case Errc::kFormat:
    case Errc::kIo:
    case Errc::kInternal: return EIO;
  }
  return EIO;
}

enum Kind : std::size_t {
  kLookup, kForget, kGetattr, kSetattr, kReadlink, kMknod, kMkdir, kUnlink, kRmdir, kSymlink, kRename, kLink, kOpen,
  kRead, kWrite, kFlush, kRelease, kFsync, kOpendir, kReaddir, kReleasedir, kFsyncdir, kStatfs, kCreate, kKinds
};
constexpr std::array<const char*, kKinds> kKindNames = {
    "lookup", "forget", "getattr", "setattr", "readlink", "mknod", "mkdir", "unlink", "rmdir", "symlink", "rename",
    "link", "open", "read", "write", "flush", "release", "fsync", "opendir", "readdir", "releasedir", "fsyncdir",
    "statfs", "create"};

timespec time_of(std::int64_t ns) {
  auto seconds = ns / kNsPerSecond;
  auto rest = ns % kNsPerSecond;
  if (rest < 0) {
    rest += kNsPerSecond;
    --seconds;
  }
  return {static_cast<time_t>(seconds), static_cast<long>(rest)};
}

std::int64_t ns_of(const timespec& t) { return static_cast<std::int64_t>(t.tv_sec) * kNsPerSecond + t.tv_nsec; }

mode_t format_of(FileType type) {
  switch (type) {
    case FileType::kRegular: return S_IFREG;
    case FileType::kDirectory: return S_IFDIR;
    case FileType::kSymlink: return S_IFLNK;
    case FileType::kFifo: return S_IFIFO;
    case FileType::kSocket: return S_IFSOCK;
  }
  return S_IFREG;
}

struct stat stat_of(const Attr& attr) {
  struct stat st {};
  st.st_ino = attr.node;
  st.st_mode = format_of(attr.type) | attr.mode;
  st.st_nlink = attr.links;
  st.st_uid = attr.uid;
  st.st_gid = attr.gid;
  st.st_size = static_cast<off_t>(attr.size);
  st.st_blksize = kBlockBytes;
  st.st_blocks = static_cast<blkcnt_t>((attr.size + kBlockSize - 1) / kBlockSize);
  st.st_mtim = time_of(attr.mtime_ns);
  st.st_ctim = time_of(attr.ctime_ns);
  st.st_atim = time_of(attr.atime_ns);
  return st;
}

double seconds(std::uint32_t ms) { return ms / 1000.0; }

fuse_entry_param entry_of(const Found& found) {
  fuse_entry_param entry{};
  entry.ino = found.attr.node;
  entry.entry_timeout = seconds(found.valid_ms);
  if (found.attr.node == 0) return entry;
  entry.attr = stat_of(found.attr);
  entry.attr_timeout = seconds(found.attr.valid_ms);
  return entry;
}

Caller caller_of(fuse_req_t req) {
  const auto* context = fuse_req_ctx(req);
  return Caller{context->uid, context->gid, static_cast<std::uint32_t>(context->pid)};
}

OpenFlags flags_of(int flags) {
  const int mode = flags & O_ACCMODE;
  return OpenFlags{mode != O_WRONLY, mode != O_RDONLY, (flags & O_TRUNC) != 0, (flags & O_EXCL) != 0};
}

}  // namespace

struct FuseServer::Impl {
  Impl(Filesystem& f, std::mutex& s, FuseOptions o) : filesystem(f), strand(s), options(std::move(o)) {}

  Filesystem& filesystem;
  std::mutex& strand;
  FuseOptions options;
  fuse_session* session = nullptr;
  std::function<void()> ready;
  std::atomic<bool> stopped{false};
  std::atomic<pthread_t> server{};
  bool mounted = false;

  // Inside the strand.
  std::array<std::uint64_t, kKinds> counts{};
  std::unordered_map<std::uint64_t, fuse_req_t> interruptible;  // requests that an interrupt may end early
  std::atomic<std::uint64_t> next_ticket{1};
  std::vector<Filesystem::StaleName> names_to_drop;  // for the notifying thread
};

namespace {

using Server = FuseServer::Impl;

Server& server_of(fuse_req_t req) { return *static_cast<Server*>(fuse_req_userdata(req)); }

/// Before a program hears of a write that made a name lead elsewhere, the kernel must not use what it has cached of it.
/// Waiting for inval_entry here could deadlock (it waits for the directory's lock, which a create in flight holds); one
/// step of the epoch has the kernel check each cached name once more, and waits for nothing. Kernels before 6.16 refuse
/// it: there the notifying thread drops the names a moment later.
void drop_stale_names(Server& server) {
  auto names = server.filesystem.take_stale_names();
  if (names.empty()) return;
  constexpr std::int32_t kIncEpoch = 8;  // FUSE_NOTIFY_INC_EPOCH, which older headers lack
  fuse_out_header message{};
  message.len = sizeof message;
  message.error = kIncEpoch;
  if (::write(fuse_session_fd(server.session), &message, sizeof message) == sizeof message) return;
  std::move(names.begin(), names.end(), std::back_inserter(server.names_to_drop));
}

/// Starts `call` inside the strand; `reply` gets what it returns.
template <class Call, class Reply>
void run(fuse_req_t req, Kind kind, About about, Call call, Reply reply) {
  auto& server = server_of(req);
  const std::lock_guard lock(server.strand);
  ++server.counts[kind];
  spawn(call(server.filesystem), [&server, req, about, reply](auto&& result) {
    drop_stale_names(server);
    if (result) {
      reply(server, req, std::move(*result));
    } else {
      fuse_reply_err(req, errno_of(result.error().code, about));
    }
  });
}

void on_interrupt(fuse_req_t req, void* ticket) {
  auto& server = server_of(req);
  const std::lock_guard lock(server.strand);
  if (server.interruptible.erase(reinterpret_cast<std::uint64_t>(ticket)) != 0) fuse_reply_err(req, EINTR);
}

/// The same for calls that leave nothing behind when nobody waits for them any more: an interrupt answers EINTR at
/// once, and the call goes on by itself. The interrupt is registered before the strand is taken, because libfuse holds
/// a lock of the request while it calls on_interrupt.
template <class Call, class Reply>
void run_interruptible(fuse_req_t req, Kind kind, About about, Call call, Reply reply) {
  auto& server = server_of(req);
  const auto ticket = server.next_ticket++;
  {
    const std::lock_guard lock(server.strand);
    server.interruptible.emplace(ticket, req);
  }
  fuse_req_interrupt_func(req, on_interrupt, reinterpret_cast<void*>(ticket));
  const std::lock_guard lock(server.strand);
  ++server.counts[kind];
  spawn(call(server.filesystem), [&server, req, about, reply, ticket](auto&& result) {
    drop_stale_names(server);
    if (server.interruptible.erase(ticket) == 0) return;  // answered
    if (result) {
      reply(server, req, std::move(*result));
    } else {
      fuse_reply_err(req, errno_of(result.error().code, about));
    }
  });
}

constexpr auto kReplyDone = [](Server&, fuse_req_t req, Unit) { fuse_reply_err(req, 0); };

/// A lookup that the kernel no longer takes is counted by nobody.
constexpr auto kReplyEntry = [](Server& server, fuse_req_t req, Found found) {
  const auto entry = entry_of(found);
  if (fuse_reply_entry(req, &entry) == 0) {
    server.filesystem.told(found.attr);
  } else if (found.attr.node != 0) {
    server.filesystem.forget(found.attr.node, 1);
  }
};

constexpr auto kReplyAttr = [](Server& server, fuse_req_t req, Attr attr) {
  const auto st = stat_of(attr);
  if (fuse_reply_attr(req, &st, seconds(attr.valid_ms)) == 0) server.filesystem.told(attr);
};

void op_init(void* data, fuse_conn_info* conn) {
  auto& server = *static_cast<Server*>(data);
  conn->max_write = kMaxTransfer;
  conn->max_readahead = kMaxTransfer;
  conn->max_background = kMaxBackground;
  conn->congestion_threshold = kMaxBackground * 3 / 4;
  conn->time_gran = 1;
  // Changes of remote sizes and times are adopted at open, which drops the pages by itself; set-user bits are cleared
  // by the kernel; what a link points to is not kept for ever; writes come here at once.
  conn->want &= ~static_cast<unsigned>(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_CACHE_SYMLINKS |
                                       FUSE_CAP_WRITEBACK_CACHE);
  conn->want |= conn->capable & FUSE_CAP_PARALLEL_DIROPS;
  if (server.ready) server.ready();
}

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  run(req, kLookup, About::kName, [&](Filesystem& fs) { return fs.lookup(parent, name, caller_of(req)); }, kReplyEntry);
}

void op_forget(fuse_req_t req, fuse_ino_t node, std::uint64_t lookups) {
  auto& server = server_of(req);
  {
    const std::lock_guard lock(server.strand);
    ++server.counts[kForget];
    server.filesystem.forget(node, lookups);
  }
  fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, std::size_t count, fuse_forget_data* forgets) {
  auto& server = server_of(req);
  {
    const std::lock_guard lock(server.strand);
    ++server.counts[kForget];
    for (std::size_t i = 0; i < count; ++i) server.filesystem.forget(forgets[i].ino, forgets[i].nlookup);
  }
  fuse_reply_none(req);
}

void op_getattr(fuse_req_t req, fuse_ino_t node, fuse_file_info*) {
  run_interruptible(req, kGetattr, About::kNode, [&](Filesystem& fs) { return fs.getattr(node); }, kReplyAttr);
}

void op_setattr(fuse_req_t req, fuse_ino_t node, struct stat* st, int set, fuse_file_info* fi) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  Change change;
  if (set & FUSE_SET_ATTR_MODE) change.mode = st->st_mode & 07777;
  if (set & FUSE_SET_ATTR_UID) change.uid = st->st_uid;
  if (set & FUSE_SET_ATTR_GID) change.gid = st->st_gid;
  if (set & FUSE_SET_ATTR_SIZE) change.size = static_cast<std::uint64_t>(st->st_size);
  if (set & FUSE_SET_ATTR_MTIME) change.mtime_ns = ns_of(st->st_mtim);
  if (set & FUSE_SET_ATTR_ATIME) change.atime_ns = ns_of(st->st_atim);
  if (set & FUSE_SET_ATTR_MTIME_NOW) change.mtime_ns = ns_of(now);
  if (set & FUSE_SET_ATTR_ATIME_NOW) change.atime_ns = ns_of(now);
  const std::uint64_t handle = fi != nullptr ? fi->fh : 0;
  run(req, kSetattr, About::kChange,
      [&](Filesystem& fs) { return fs.setattr(node, change, handle, caller_of(req)); }, kReplyAttr);
}

void op_readlink(fuse_req_t req, fuse_ino_t node) {
  run_interruptible(req, kReadlink, About::kNode, [&](Filesystem& fs) { return fs.readlink(node); },
                    [](Server&, fuse_req_t r, std::string target) { fuse_reply_readlink(r, target.c_str()); });
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t) {
  FileType type = FileType::kRegular;
  if (S_ISFIFO(mode)) {
    type = FileType::kFifo;
  } else if (S_ISSOCK(mode)) {
    type = FileType::kSocket;
  } else if (!S_ISREG(mode) && (mode & S_IFMT) != 0) {
    fuse_reply_err(req, EPERM);  // devices belong to one host
    return;
  }
  run(req, kMknod, About::kChange,
      [&](Filesystem& fs) { return fs.mknod(parent, name, type, mode & 07777, caller_of(req)); }, kReplyEntry);
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) {
  run(req, kMkdir, About::kChange,
      [&](Filesystem& fs) { return fs.mkdir(parent, name, mode & 07777, caller_of(req)); }, kReplyEntry);
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char* name) {
  run(req, kUnlink, About::kChange, [&](Filesystem& fs) { return fs.unlink(parent, name); }, kReplyDone);
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char* name) {
  run(req, kRmdir, About::kChange, [&](Filesystem& fs) { return fs.rmdir(parent, name); }, kReplyDone);
}

void op_symlink(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name) {
  run(req, kSymlink, About::kChange,
      [&](Filesystem& fs) { return fs.symlink(parent, name, target, caller_of(req)); }, kReplyEntry);
}

void op_rename(fuse_req_t req, fuse_ino_t from, const char* name, fuse_ino_t to, const char* new_name, unsigned flags) {
  const RenameFlags how{(flags & RENAME_NOREPLACE) != 0, (flags & RENAME_EXCHANGE) != 0};
  if ((flags & ~static_cast<unsigned>(RENAME_NOREPLACE | RENAME_EXCHANGE)) != 0) {
    fuse_reply_err(req, EINVAL);
    return;
  }
  run(req, kRename, About::kChange,
      [&](Filesystem& fs) { return fs.rename(from, name, to, new_name, how, caller_of(req)); }, kReplyDone);
}

// Hard links have no place in the rows yet; programs that try one fall back at EPERM.
void op_link(fuse_req_t req, fuse_ino_t, fuse_ino_t, const char*) { fuse_reply_err(req, EPERM); }

void op_open(fuse_req_t req, fuse_ino_t node, fuse_file_info* fi) {
  const auto info = *fi;
  run(req, kOpen, About::kNode,
      [&](Filesystem& fs) { return fs.open(node, flags_of(info.flags), caller_of(req)); },
      [info, node](Server& server, fuse_req_t r, Opened opened) {
        auto out = info;
        out.fh = opened.handle;
        out.keep_cache = opened.keep_cache;
        // Attributes alone: this waits for no page, and so for no request. The pages go with the reply.
        if (opened.other_size) fuse_lowlevel_notify_inval_inode(server.session, node, -1, 0);
        if (fuse_reply_open(r, &out) != 0) server.filesystem.release(opened.handle);
      });
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* fi) {
  const auto info = *fi;
  run(req, kCreate, About::kChange,
      [&](Filesystem& fs) {
        return fs.create(parent, name, mode & 07777, flags_of(info.flags), caller_of(req));
      },
      [info](Server& server, fuse_req_t r, Created created) {
        auto out = info;
        out.fh = created.opened.handle;
        out.keep_cache = created.opened.keep_cache;
        const auto entry = entry_of(created.found);
        if (fuse_reply_create(r, &entry, &out) == 0) return;
        server.filesystem.release(created.opened.handle);
        server.filesystem.forget(created.found.attr.node, 1);
      });
}

void op_read(fuse_req_t req, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info* fi) {
  run_interruptible(req, kRead, About::kNode,
                    [&](Filesystem& fs) { return fs.read(fi->fh, static_cast<std::uint64_t>(offset), size); },
                    [](Server&, fuse_req_t r, Bytes bytes) { fuse_reply_buf(r, bytes.data(), bytes.size()); });
}

void op_write(fuse_req_t req, fuse_ino_t, const char* data, std::size_t size, off_t offset, fuse_file_info* fi) {
  Bytes bytes(data, size);
  run(req, kWrite, About::kChange,
      [&](Filesystem& fs) {
        return fs.write(fi->fh, static_cast<std::uint64_t>(offset), std::move(bytes), (fi->flags & O_APPEND) != 0);
      },
      [](Server&, fuse_req_t r, std::size_t written) { fuse_reply_write(r, written); });
}

void op_flush(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) {
  run_interruptible(req, kFlush, About::kChange, [&](Filesystem& fs) { return fs.flush(fi->fh); }, kReplyDone);
}

void op_fsync(fuse_req_t req, fuse_ino_t, int, fuse_file_info* fi) {
  run_interruptible(req, kFsync, About::kChange, [&](Filesystem& fs) { return fs.fsync(fi->fh); }, kReplyDone);
}

void op_release(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) {
  auto& server = server_of(req);
  {
    const std::lock_guard lock(server.strand);
    ++server.counts[kRelease];
    server.filesystem.release(fi->fh);
  }
  fuse_reply_err(req, 0);
}

void op_opendir(fuse_req_t req, fuse_ino_t node, fuse_file_info* fi) {
  auto& server = server_of(req);
  const std::lock_guard lock(server.strand);
  ++server.counts[kOpendir];
  const auto handle = server.filesystem.opendir(node);
  if (!handle) {
    fuse_reply_err(req, errno_of(handle.error().code, About::kNode));
    return;
  }
  fi->fh = *handle;
  if (fuse_reply_open(req, fi) != 0) server.filesystem.releasedir(*handle);
}

void reply_names(Server& server, fuse_req_t req, const std::vector<Listed>& names, std::size_t size, bool plus) {
  std::vector<char> buffer(size);
  std::size_t used = 0;
  std::size_t taken = 0;
  bool full = false;
  for (const auto& name : names) {
    std::size_t length = 0;
    if (!full && plus) {
      fuse_entry_param entry{};
      if (name.found) entry = entry_of(*name.found);
      if (!name.found) entry.attr.st_ino = name.node;
      if (!name.found) entry.attr.st_mode = format_of(name.type);
      length = fuse_add_direntry_plus(req, buffer.data() + used, size - used, name.name.c_str(), &entry,
                                      static_cast<off_t>(name.cookie));
    } else if (!full) {
      struct stat st {};
      st.st_ino = name.node;
      st.st_mode = format_of(name.type);
      length = fuse_add_direntry(req, buffer.data() + used, size - used, name.name.c_str(), &st,
                                 static_cast<off_t>(name.cookie));
    }
    full = full || used + length > size;
    if (!full) used += length;
    if (!full) ++taken;
    if (full && name.found) server.filesystem.forget(name.found->attr.node, 1);
  }
  const bool out = fuse_reply_buf(req, buffer.data(), used) == 0;
  for (std::size_t i = 0; i < taken; ++i) {
    if (!names[i].found) continue;
    if (out) server.filesystem.told(names[i].found->attr);
    if (!out) server.filesystem.forget(names[i].found->attr.node, 1);
  }
}

void list(fuse_req_t req, std::size_t size, off_t offset, fuse_file_info* fi, bool plus) {
  run(req, kReaddir, About::kNode,
      [&](Filesystem& fs) { return fs.readdir(fi->fh, static_cast<std::uint64_t>(offset), size, plus); },
      [size, plus](Server& server, fuse_req_t r, std::vector<Listed> names) {
        reply_names(server, r, names, size, plus);
      });
}

void op_readdir(fuse_req_t req, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info* fi) {
  list(req, size, offset, fi, false);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info* fi) {
  list(req, size, offset, fi, true);
}

void op_releasedir(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) {
  auto& server = server_of(req);
  {
    const std::lock_guard lock(server.strand);
    ++server.counts[kReleasedir];
    server.filesystem.releasedir(fi->fh);
  }
  fuse_reply_err(req, 0);
}

void op_fsyncdir(fuse_req_t req, fuse_ino_t node, int, fuse_file_info*) {
  run_interruptible(req, kFsyncdir, About::kChange, [&](Filesystem& fs) { return fs.fsync_directory(node); },
                    kReplyDone);
}

void op_statfs(fuse_req_t req, fuse_ino_t) {
  run_interruptible(req, kStatfs, About::kNode, [&](Filesystem& fs) { return fs.statfs(); },
                    [](Server&, fuse_req_t r, StoreUsage usage) {
                      struct statvfs st {};
                      st.f_bsize = kBlockBytes;
                      st.f_frsize = 4096;
                      st.f_blocks = usage.total_bytes / st.f_frsize;
                      st.f_bfree = usage.free_bytes / st.f_frsize;
                      st.f_bavail = st.f_bfree;
                      st.f_files = usage.rows_estimate + st.f_bfree;
                      st.f_ffree = st.f_bfree;
                      st.f_favail = st.f_ffree;
                      st.f_namemax = kMaxNameBytes;
                      fuse_reply_statfs(r, &st);
                    });
}

// What is left out here (extended attributes, fallocate, locks, …) libfuse answers with ENOSYS, after which the kernel
// does without and asks no more.
fuse_lowlevel_ops operations() {
  fuse_lowlevel_ops ops{};
  ops.init = op_init;
  ops.lookup = op_lookup;
  ops.forget = op_forget;
  ops.forget_multi = op_forget_multi;
  ops.getattr = op_getattr;
  ops.setattr = op_setattr;
  ops.readlink = op_readlink;
  ops.mknod = op_mknod;
  ops.mkdir = op_mkdir;
  ops.unlink = op_unlink;
  ops.rmdir = op_rmdir;
  ops.symlink = op_symlink;
  ops.rename = op_rename;
  ops.link = op_link;
  ops.open = op_open;
  ops.create = op_create;
  ops.read = op_read;
  ops.write = op_write;
  ops.flush = op_flush;
  ops.fsync = op_fsync;
  ops.release = op_release;
  ops.opendir = op_opendir;
  ops.readdir = op_readdir;
  ops.readdirplus = op_readdirplus;
  ops.releasedir = op_releasedir;
  ops.fsyncdir = op_fsyncdir;
  ops.statfs = op_statfs;
  return ops;
}

}  // namespace

FuseServer::FuseServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

FuseServer::~FuseServer() {
  unmount();
  if (impl_->session != nullptr) fuse_session_destroy(impl_->session);
}

Result<std::unique_ptr<FuseServer>> FuseServer::mount(Filesystem& filesystem, std::mutex& strand,
                                                      FuseOptions options) {
  auto impl = std::make_unique<Impl>(filesystem, strand, std::move(options));
  fuse_args args = FUSE_ARGS_INIT(0, nullptr);
  std::string list = "default_permissions,subtype=kinfs,fsname=" + impl->options.source;
  if (impl->options.allow_other) list += ",allow_other";
  for (const auto& option : impl->options.kernel_options) list += "," + option;
  fuse_opt_add_arg(&args, "mount.kinfs");
  fuse_opt_add_arg(&args, "-o");
  fuse_opt_add_arg(&args, list.c_str());
  if (impl->options.debug) fuse_opt_add_arg(&args, "-d");
  const auto ops = operations();
  impl->session = fuse_session_new(&args, &ops, sizeof ops, impl.get());
  fuse_opt_free_args(&args);
  if (impl->session == nullptr) return fail(Errc::kInvalid, "the mount options are not understood: " + list);
  const auto& directory = impl->options.directory;
  if (fuse_session_mount(impl->session, directory.c_str()) != 0) {
    fuse_session_destroy(impl->session);
    return fail(Errc::kIo, "cannot mount at " + directory +
                               ": the kernel refused (is /dev/fuse there, and may this user mount?)");
  }
  impl->mounted = true;
  return std::unique_ptr<FuseServer>(new FuseServer(std::move(impl)));
}

bool FuseServer::serve(std::function<void()> ready) {
  impl_->ready = std::move(ready);
  // Nothing but an interrupted wait: this is how stop() gets the thread below out of its sleep.
  struct sigaction wake {};
  wake.sa_handler = [](int) {};
  sigaction(SIGUSR2, &wake, nullptr);
  impl_->server = pthread_self();
  auto* config = fuse_loop_cfg_create();
  fuse_loop_cfg_set_clone_fd(config, 1);
  fuse_loop_cfg_set_max_threads(config, impl_->options.threads);
  fuse_loop_cfg_set_idle_threads(config, impl_->options.threads);
  fuse_session_loop_mt(impl_->session, config);
  fuse_loop_cfg_destroy(config);
  return !impl_->stopped;
}

void FuseServer::stop() {
  impl_->stopped = true;
  fuse_session_exit(impl_->session);
  if (impl_->server.load() != pthread_t{}) pthread_kill(impl_->server, SIGUSR2);
}

void FuseServer::unmount() {
  if (std::exchange(impl_->mounted, false)) fuse_session_unmount(impl_->session);
}

void FuseServer::invalidate(const std::vector<std::uint64_t>& nodes) {
  for (const auto node : nodes) fuse_lowlevel_notify_inval_inode(impl_->session, node, 0, 0);
  std::vector<Filesystem::StaleName> names;
  {
    const std::lock_guard lock(impl_->strand);
    drop_stale_names(*impl_);
    names = std::exchange(impl_->names_to_drop, {});
  }
  for (const auto& name : names) {
    fuse_lowlevel_notify_inval_entry(impl_->session, name.parent, name.name.data(), name.name.size());
  }
}

std::vector<std::pair<std::string, std::uint64_t>> FuseServer::counters() const {
  std::vector<std::pair<std::string, std::uint64_t>> out;
  for (std::size_t i = 0; i < kKinds; ++i) {
    if (impl_->counts[i] != 0) out.emplace_back(kKindNames[i], impl_->counts[i]);
  }
  return out;
}

}  // namespace kinfs::fs
