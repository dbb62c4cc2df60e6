// Open files: reading, writing, and how what was written becomes a put. See filesystem.h and open_file.h.
#include <algorithm>

#include "fs/filesystem.h"
#include "fs/keys.h"

namespace kinfs::fs {
namespace {

constexpr std::int64_t kNever = -1;  // as a greatest age: ask anew

/// Whether a put that ended so can never succeed as it is. After any other end it may have taken effect somewhere: it
/// is repeated as the same event, as another one would make a conflict with it.
bool refused_for_good(Errc code) {
  return code == Errc::kInvalid || code == Errc::kTooLarge || code == Errc::kNameTooLong;
}

/// Keeps a file in the table while a call works on it.
class Use {
 public:
  Use(FilePtr file) : file_(std::move(file)) { ++file_->handles; }
  ~Use() { --file_->handles; }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

 private:
  FilePtr file_;
};

}  // namespace

// --- the table ---

FilePtr Filesystem::attached_at(const RowId& at, const std::string& name) const {
  FilePtr out;
  for (auto [it, end] = attached_.equal_range(at); it != end; ++it) {
    if (it->second->name == name && (!out || it->second->created())) out = it->second;
  }
  return out;
}

FilePtr Filesystem::add_file(std::uint64_t node, const RowId& at) {
  auto file = std::make_shared<OpenFile>();
  file->node = node;
  file->at = at;
  files_[node] = file;
  attached_.emplace(at, file);
  return file;
}

void Filesystem::unlist(const FilePtr& file) {
  for (auto [it, end] = attached_.equal_range(file->at); it != end; ++it) {
    if (it->second != file) continue;
    attached_.erase(it);
    return;
  }
}

/// Its name is gone: handles alone know it from now on.
void Filesystem::detach(const FilePtr& file) {
  file->attached = false;
  unlist(file);
  inodes_.unbind(file->node);
  drop_if_idle(file);
}

void Filesystem::attach(const FilePtr& file, const RowId& at, const std::string& name) {
  unlist(file);
  file->at = at;
  file->name = name;
  attached_.emplace(at, file);
}

/// An own version turned out to be shown under another name than it was written under.
void Filesystem::renamed_by_version(const FilePtr& file, const std::string& name) {
  if (name == file->name) return;
  stale_names_.push_back({inodes_.node_of(file->at.directory), file->name});
  file->name = name;
  if (auto* inode = inodes_.find(file->node); inode != nullptr) inode->name = name;
}

void Filesystem::drop_if_idle(const FilePtr& file) {
  if (file->handles == 0 && !file->publishing && !file->unpublished()) drop(file);
}

void Filesystem::drop(const FilePtr& file) {
  const auto it = files_.find(file->node);
  if (it == files_.end() || it->second != file) return;
  const FilePtr keep = file;
  files_.erase(it);
  written_bytes_ -= std::exchange(keep->written_bytes, 0);
  if (!keep->attached) return;
  keep->attached = false;
  unlist(keep);
  if (auto* inode = inodes_.find(keep->node); inode != nullptr && inode->bound && keep->shown) {
    inode->event = keep->shown->version.event;
    inode->id = keep->entry.file_id;
  }
}

/// The kernel's pages are of another version than the one that `file` stands on now.
void Filesystem::drop_other_pages(const OpenFile& file) {
  auto* inode = inodes_.find(file.node);
  if (inode == nullptr || inode->cached == EventId{}) return;
  if (file.shown && inode->cached == file.shown->version.event) return;
  inode->cached = EventId{};
  stale_.push_back(file.node);
}

Task<Result<FilePtr>> Filesystem::file_of(std::uint64_t node, Age age, std::uint32_t thread) {
  if (const auto it = files_.find(node); it != files_.end()) co_return it->second;
  auto inode = inode_of(node);
  if (!inode) co_return pass(std::move(inode));
  if ((*inode)->directory()) co_return fail(Errc::kIsDirectory, (*inode)->name + " is a directory");
  const RowId at = (*inode)->at;
  const std::string name = (*inode)->name;
  auto row = co_await row_of_age(at, age, thread);
  if (!row) co_return pass(std::move(row));
  if (const auto it = files_.find(node); it != files_.end()) co_return it->second;
  const auto* shown = shown_of(**row, at, node);
  if (shown == nullptr) co_return fail(Errc::kNotFound, name + " is no longer there");
  auto file = add_file(node, at);
  adopt(*file, client_, blocks_, volume_, *row, *shown);
  co_return file;
}

Result<FilePtr> Filesystem::file_of_handle(std::uint64_t handle) {
  const auto it = handles_.find(handle);
  if (it == handles_.end()) return fail(Errc::kInvalid, "no such handle");
  return it->second.file;
}

// --- open, read, write ---

Opened Filesystem::open_handle(const FilePtr& file, const OpenFlags& flags) {
  Opened out;
  out.handle = next_handle_++;
  handles_.emplace(out.handle, Handle{file->node, flags.write, file});
  ++file->handles;
  if (auto* inode = inodes_.find(file->node); inode != nullptr && file->shown) {
    const auto event = file->shown->version.event;
    out.keep_cache = inode->cached == event;
    out.other_size = inode->sized != event;
    inode->cached = inode->sized = event;
  }
  return out;
}

/// The name by which programs know `file`: it may be another than the one that shows its version now.
const std::string& Filesystem::name_told(const OpenFile& file) const {
  const auto* inode = inodes_.find(file.node);
  return inode != nullptr && inode->bound && inode->at == file.at ? inode->name : file.name;
}

/// A save that replaces goes on top of what the saving process was shown, not of what came in since: that becomes a
/// sibling. Where the process is not known, what is shown now counts.
void Filesystem::rebase(OpenFile& file, const Caller& caller) {
  if (!file.shown || !file.base) return;
  const auto seen = ns_.seen_by(file.at, name_told(file), *file.base, *file.shown, caller);
  if (!seen || (seen->shown.name == file.shown->name && seen->dots.size() == file.shown->dots.size())) return;
  file.dots = seen->dots;
  file.shown = seen->shown;
}

/// Close-to-open: what is open here and has nothing unpublished takes over what the row shows now.
Task<Result<Unit>> Filesystem::refresh(FilePtr file, Age age, std::uint32_t thread) {
  if (!file->attached || file->unpublished()) co_return Unit{};
  const RowId at = file->at;
  auto row = co_await row_of_age(at, age, thread);
  if (!row) co_return pass(std::move(row));
  if (!file->attached || file->unpublished() || file->at != at) co_return Unit{};
  const auto* shown = shown_of(**row, at, file->node);
  if (shown == nullptr) co_return fail(Errc::kNotFound, file->name + " is no longer there");
  adopt(*file, client_, blocks_, volume_, *row, *shown);
  co_return Unit{};
}

Task<Result<Opened>> Filesystem::open(std::uint64_t node, OpenFlags flags, Caller caller) {
  const bool known = files_.contains(node);
  auto loaded = co_await file_of(node, Age::kAtOpen, caller.thread);
  if (!loaded) co_return pass(std::move(loaded));
  const FilePtr file = *loaded;
  auto use = std::make_unique<Use>(file);
  Result<Unit> good = Unit{};
  if (file->entry.type != FileType::kRegular) good = fail(Errc::kInvalid, file->name + " is no regular file");
  if (good && known) good = co_await refresh(file, Age::kAtOpen, caller.thread);
  if (good && flags.read && file->shown && !flags.truncate) {
    ns_.remember_open(file->at, name_told(*file), *file->shown, caller);
  }
  if (good && flags.truncate) {
    if (!file->unpublished()) rebase(*file, caller);
    good = co_await truncate(file, 0);
  }
  if (!good) {
    use.reset();
    drop_if_idle(file);
    co_return pass(std::move(good));
  }
  const auto opened = open_handle(file, flags);
  use.reset();
  co_return opened;
}

Task<Result<Bytes>> Filesystem::read(std::uint64_t handle, std::uint64_t offset, std::size_t size) {
  auto file = file_of_handle(handle);
  if (!file) co_return pass(std::move(file));
  const auto content = (*file)->content;
  co_return co_await content->read(offset, size);
}

Task<Result<std::size_t>> Filesystem::write(std::uint64_t handle, std::uint64_t offset, Bytes data, bool append) {
  auto found = file_of_handle(handle);
  if (!found) co_return pass(std::move(found));
  const FilePtr file = *found;
  const Use use(file);
  const auto size = data.size();
  auto guard = co_await file->writing.lock();
  if (append && offset != file->content->size()) {
    offset = file->content->size();
    stale_.push_back(file->node);  // the kernel has put these bytes where it thought that the end is
  }
  auto done = co_await file->content->write(offset, std::move(data));
  count_written(*file);
  if (!done) co_return pass(std::move(done));
  const auto now_ns = env_.wall_ns();
  file->touch(env_.mono_ms(), now_ns);
  file->entry.mtime_ns = now_ns;
  guard.release();
  if (written_bytes_ > kMaxWrittenBytes) co_await send_most_written();
  co_return size;
}

void Filesystem::count_written(OpenFile& file) {
  const auto now = file.content ? file.content->written_bytes() : 0;
  written_bytes_ += now - file.written_bytes;
  file.written_bytes = now;
}

/// A thousand files that are written to at once would hold a block each. The one that holds most goes first: small
/// pieces would be sent again and again as they grow.
Task<Unit> Filesystem::send_most_written() {
  while (written_bytes_ > kMaxWrittenBytes) {
    FilePtr most;
    for (const auto& [node, file] : files_) {
      if (!most || file->written_bytes > most->written_bytes) most = file;
    }
    if (!most || most->written_bytes == 0) break;
    const Use use(most);
    const auto guard = co_await most->writing.lock();
    const auto before = written_bytes_;
    (void)co_await most->content->send_written();  // an error is told by whoever publishes the file
    count_written(*most);
    if (written_bytes_ >= before) break;
  }
  co_return Unit{};
}

Task<Result<Unit>> Filesystem::truncate(FilePtr file, std::uint64_t size) {
  const Use use(file);
  const auto guard = co_await file->writing.lock();
  auto done = co_await file->content->truncate(size);
  count_written(*file);
  if (!done) co_return pass(std::move(done));
  const auto now_ns = env_.wall_ns();
  file->touch(env_.mono_ms(), now_ns);
  file->entry.mtime_ns = now_ns;
  co_return Unit{};
}

Task<Result<Attr>> Filesystem::setattr(std::uint64_t node, Change change, std::uint64_t handle, Caller caller) {
  if (auto* inode = inodes_.find(node); inode != nullptr && inode->directory()) {
    co_return co_await set_directory(DirectoryId(inode->id), node, std::move(change));
  }
  const bool known = files_.contains(node);
  auto loaded = co_await file_of(node, Age::kToChange, caller.thread);
  if (!loaded) co_return pass(std::move(loaded));
  const FilePtr file = *loaded;
  auto use = std::make_unique<Use>(file);
  Result<Unit> done = Unit{};
  if (known && handle == 0) done = co_await refresh(file, Age::kToChange, caller.thread);
  drop_other_pages(*file);
  const bool was_clean = !file->unpublished();
  if (done && change.size) {
    if (file->entry.type != FileType::kRegular) {
      done = fail(Errc::kInvalid, file->name + " is no regular file");
    } else {
      if (*change.size == 0 && was_clean) rebase(*file, caller);
      done = co_await truncate(file, *change.size);
    }
  }
  if (done) {
    file->touch(env_.mono_ms(), env_.wall_ns());
    if (change.mode) file->entry.mode = *change.mode;
    if (change.uid) file->entry.uid = *change.uid;
    if (change.gid) file->entry.gid = *change.gid;
    if (change.mtime_ns) file->entry.mtime_ns = *change.mtime_ns;
    if (change.atime_ns) file->entry.atime_ns = *change.atime_ns;
    // A file that is being written here takes the change along; all others show it at once.
    if (was_clean && handle == 0) done = co_await publish(file, false);
  }
  const auto attr = attr_of(*file);
  use.reset();
  if (!done && file->handles == 0 && was_clean) {
    drop(file);  // the caller is told, so nothing goes on trying
  } else {
    drop_if_idle(file);
  }
  if (!done) co_return pass(std::move(done));
  co_return attr;
}

Task<Result<std::string>> Filesystem::readlink(std::uint64_t node) {
  auto loaded = co_await file_of(node, Age::kCached, 0);
  if (!loaded) co_return pass(std::move(loaded));
  const FilePtr file = *loaded;
  drop_if_idle(file);
  if (file->entry.type != FileType::kSymlink) co_return fail(Errc::kInvalid, file->name + " is no symbolic link");
  co_return file->entry.content;
}

// --- publishing ---

Task<Result<Unit>> Filesystem::flush(std::uint64_t handle) {
  auto found = file_of_handle(handle);
  if (!found) co_return pass(std::move(found));
  const FilePtr file = *found;
  if (!file->unpublished()) {
    if (auto deferred = std::exchange(file->deferred, std::nullopt)) co_return tl::unexpected<Error>(*deferred);
    co_return Unit{};
  }
  const Use use(file);
  co_return co_await publish(file, false);
}

Task<Result<Unit>> Filesystem::fsync(std::uint64_t handle) {
  auto found = file_of_handle(handle);
  if (!found) co_return pass(std::move(found));
  const FilePtr file = *found;
  const Use use(file);
  co_return co_await publish(file, true);
}

Task<Result<Unit>> Filesystem::fsync_directory(std::uint64_t node) {
  auto directory = directory_of(node);
  if (!directory) co_return pass(std::move(directory));
  co_return co_await ns_.sync(*directory);
}

void Filesystem::release(std::uint64_t handle) {
  const auto it = handles_.find(handle);
  if (it == handles_.end()) return;
  const FilePtr file = it->second.file;
  handles_.erase(it);
  --file->handles;
  if (file->unpublished() && !file->publishing) {
    publish_later(file);
  } else {
    drop_if_idle(file);
  }
}

void Filesystem::publish_later(const FilePtr& file) {
  file->publishing = true;
  spawn(publish(file, false), [this, file](Result<Unit>&& done) {
    file->publishing = false;
    if (!done) {
      file->deferred = done.error();
      file->retry_ms = env_.mono_ms() + kRetryMs;
    }
    drop_if_idle(file);
  });
}

Task<Result<Unit>> Filesystem::publish(FilePtr file, bool sync) {
  for (;;) {
    const RowId at = file->at;
    const auto lock = co_await ns_.lock(at);
    if (file->at != at) continue;  // it was moved while this waited
    co_return co_await publish_locked(file, sync);
  }
}

Task<Result<Unit>> Filesystem::publish_locked(FilePtr file, bool sync) {
  if (!file->attached) co_return Unit{};
  if (file->pending) {
    auto done = co_await put_pending(file, sync);
    if (!done) co_return pass(std::move(done));
  }
  if (file->changes != file->published) {
    auto done = co_await put_file(file, sync);
    if (!done) co_return pass(std::move(done));
  } else if (sync && !file->synced && file->base) {
    Entry entry = file->entry;
    if (entry.type == FileType::kRegular) {
      const auto guard = co_await file->writing.lock();
      auto sealed = co_await file->content->seal(entry, true);
      if (!sealed) co_return pass(std::move(sealed));
    }
    // The row as it is, once more: it changes nothing and is answered when it is on disk.
    std::vector<RowPut> rows;
    rows.push_back(ns_.row_put(file->base, file->at.name, std::vector<Dot>(), std::nullopt));
    auto done = co_await ns_.put(file->at.directory, std::move(rows), true);
    if (!done) co_return pass(std::move(done));
    file->synced = true;
  }
  file->deferred.reset();
  co_return Unit{};
}

Task<Result<Unit>> Filesystem::put_file(FilePtr file, bool sync) {
  Entry entry;
  std::uint64_t changes = 0;
  {
    const auto guard = co_await file->writing.lock();
    changes = file->changes;
    entry = file->entry;
    if (entry.type == FileType::kRegular && (sync || file->content->dirty())) {
      auto sealed = co_await file->content->seal(entry, sync);
      count_written(*file);
      if (!sealed) co_return pass(std::move(sealed));
      file->entry.size = entry.size;
      file->entry.content = entry.content;
      file->entry.root = entry.root;
      file->entry.blocks_synced = entry.blocks_synced;
    }
  }
  if (!file->base) {
    auto row = co_await ns_.row(file->at, kNever);
    if (!row) co_return pass(std::move(row));
    file->base = *row;
    file->dots.clear();
    const auto* now = file->shown ? shown_with(**row, file->shown->version.event) : nullptr;
    if (now != nullptr) {
      file->shown = *now;
      file->dots = superseded_by_write((*row)->view, now);
      renamed_by_version(file, now->name);
    }
  }
  const auto* shown = file->shown ? &*file->shown : nullptr;
  entry = entry_on_top(std::move(entry), &file->base->view, shown);
  auto version = ns_.version(file->base, file->dots, shown, encode(entry), false);
  file->pending = ns_.row_put(file->base, file->at.name, file->dots, std::move(version));
  file->pending_entry = std::move(entry);
  file->pending_changes = changes;
  co_return co_await put_pending(file, sync);
}

Task<Result<Unit>> Filesystem::put_pending(FilePtr file, bool sync) {
  std::vector<RowPut> rows;
  rows.push_back(*file->pending);
  auto done = co_await ns_.put(file->at.directory, std::move(rows), sync);
  if (!done) {
    if (refused_for_good(done.error().code)) file->pending.reset();
    co_return pass(std::move(done));
  }
  auto version = std::move(file->pending->add.front());
  file->pending.reset();
  file->published = file->pending_changes;
  if (file->unpublished()) file->unpublished_ms = env_.mono_ms();
  file->synced = sync;
  published(file, done->front(), file->pending_entry, version);
  co_return Unit{};
}

/// `version` of `entry` has been put; `state` is what its row shows since, null when that is not known.
void Filesystem::published(const FilePtr& file, const RowPtr& state, const Entry& entry, const Version& version) {
  // The kernel's pages are of the new version if they were of the one that it was made from.
  const auto before = file->shown ? file->shown->version.event : EventId{};
  if (auto* inode = inodes_.find(file->node); inode != nullptr) {
    for (auto* kept : {&inode->cached, &inode->sized}) {
      if (*kept != version.event) *kept = *kept == before ? version.event : EventId{};
    }
  }
  file->base = state;
  if (const auto* now = state ? shown_with(*state, version.event) : nullptr; now != nullptr) {
    file->shown = *now;
    file->dots = superseded_by_write(state->view, now);
    renamed_by_version(file, now->name);
    return;
  }
  // Versions that are not known here live beside it, or one that is has superseded it already: whether the name shows
  // this one is to be seen.
  stale_names_.push_back({inodes_.node_of(file->at.directory), file->name});
  file->base = nullptr;
  if (!file->shown) file->shown.emplace();
  file->shown->name = file->name;
  file->shown->entry = entry;
  file->shown->version = version;
  file->shown->branch = entry.branch ? *entry.branch : Branch{version.event, version.hlc, version.host, {}, false};
  file->shown->dots.clear();
  file->dots.clear();
}

}  // namespace kinfs::fs
