// Making, removing and moving names. See filesystem.h.
//
// What a crash of this process leaves: of a directory being made, a row that nothing names; of a move between
// directories, both names, never neither.
#include <algorithm>

#include "fs/filesystem.h"
#include "fs/keys.h"

namespace kinfs::fs {
namespace {

constexpr std::uint32_t kSetGroup = 02000;
constexpr std::size_t kCopyBytes = 1 << 20;

}  // namespace

struct Filesystem::Names {
  DirectoryId from_directory{}, to_directory{};
  std::string name, new_name;
  Located from, to;
};

// --- making ---

/// The group of a new entry: that of the directory where its set-group bit says so. What is cached of the directory is
/// good enough: the kernel has just checked permissions with it.
std::uint32_t Filesystem::group_for(const DirectoryId& directory, const Caller& caller, std::uint32_t* mode) const {
  const auto* state = ns_.known(directory);
  if (state == nullptr || (state->attributes.mode & kSetGroup) == 0) return caller.gid;
  if (mode != nullptr) *mode |= kSetGroup;
  return state->attributes.gid;
}

Task<Result<Found>> Filesystem::make(std::uint64_t parent, std::string name, Entry entry, Caller caller) {
  auto directory = directory_of(parent);
  if (!directory) co_return pass(std::move(directory));
  const DirectoryId in = *directory;
  RowId at{in, name};
  const auto lock = co_await ns_.lock(at);
  auto located = co_await locate(in, name, Age::kAtOpen, caller.thread);
  if (!located) co_return pass(std::move(located));
  if (located->exists()) co_return fail(Errc::kExists, name + " exists");
  if (entry.type == FileType::kDirectory) {
    DirectoryAttributes attributes;
    attributes.mode = entry.mode;
    attributes.uid = caller.uid;
    attributes.gid = group_for(in, caller, &attributes.mode);
    attributes.mtime_ns = env_.wall_ns();
    Entry own;
    own.type = FileType::kDirectory;
    own.generation = located->row->view.generation + 1;
    own.directory_id = directory_id(in, name, own.generation);
    auto version = ns_.version(nullptr, std::vector<Dot>(), nullptr, Bytes(), false);
    attributes.mode_set = attributes.owner_set = attributes.mtime_set = version.hlc;
    version.value = encode(attributes);
    Row nothing;
    // First the directory, then what names it: a name always leads somewhere.
    auto made = co_await ns_.put_directory(own.directory_id, std::move(nothing), attributes, std::move(version), true);
    if (!made) co_return pass(std::move(made));
    co_return co_await put_new(in, name, std::move(*located), std::move(own));
  }
  entry.uid = caller.uid;
  entry.gid = group_for(in, caller, nullptr);
  entry.mtime_ns = env_.wall_ns();
  entry.file_id = file_id(client_.next_event());
  co_return co_await put_new(in, name, std::move(*located), std::move(entry));
}

Task<Result<Found>> Filesystem::put_new(DirectoryId directory, std::string name, Located located, Entry entry) {
  const auto& view = located.row->view;
  const auto dots = superseded_by_write(view, nullptr);
  entry = entry_on_top(std::move(entry), &view, nullptr);
  auto version = ns_.version(located.row, dots, nullptr, encode(entry), false);
  std::vector<RowPut> rows;
  rows.push_back(ns_.row_put(located.row, name, dots, std::move(version)));
  auto done = co_await ns_.put(directory, std::move(rows), false);
  if (!done) co_return pass(std::move(done));
  auto after = co_await locate(directory, name, Age::kCached);
  if (!after) co_return pass(std::move(after));
  co_return co_await found(name, std::move(*after));
}

Task<Result<Found>> Filesystem::mkdir(std::uint64_t parent, std::string name, std::uint32_t mode, Caller caller) {
  Entry entry;
  entry.type = FileType::kDirectory;
  entry.mode = mode;
  co_return co_await make(parent, std::move(name), std::move(entry), caller);
}

Task<Result<Found>> Filesystem::mknod(std::uint64_t parent, std::string name, FileType type, std::uint32_t mode,
                                      Caller caller) {
  Entry entry;
  entry.type = type;
  entry.mode = mode;
  co_return co_await make(parent, std::move(name), std::move(entry), caller);
}

Task<Result<Found>> Filesystem::symlink(std::uint64_t parent, std::string name, std::string target, Caller caller) {
  if (target.size() > kInlineBytes) co_return fail(Errc::kNameTooLong, "the target of a symbolic link is too long");
  Entry entry;
  entry.type = FileType::kSymlink;
  entry.mode = 0777;
  entry.size = target.size();
  entry.content = std::move(target);
  co_return co_await make(parent, std::move(name), std::move(entry), caller);
}

// An exclusive create relies on a fresh lookup: two hosts that see each other may still both succeed within one round
// trip, and end with siblings. This is where a claim on the name belongs.
Task<Result<Created>> Filesystem::create(std::uint64_t parent, std::string name, std::uint32_t mode, OpenFlags flags,
                                         Caller caller) {
  auto directory = directory_of(parent);
  if (!directory) co_return pass(std::move(directory));
  const DirectoryId in = *directory;
  auto located = co_await locate(in, name, Age::kAtOpen, caller.thread);
  if (!located) co_return pass(std::move(located));
  Created out;
  if (located->exists()) {
    if (flags.exclusive) co_return fail(Errc::kExists, name + " exists");
    if (located->type() == FileType::kDirectory) co_return fail(Errc::kIsDirectory, name + " is a directory");
    auto there = co_await found(name, std::move(*located));
    if (!there) co_return pass(std::move(there));
    out.found = *there;
    auto opened = co_await open(there->attr.node, flags, caller);
    if (!opened) {
      forget(there->attr.node, 1);
      co_return pass(std::move(opened));
    }
    out.opened = *opened;
    out.found.attr = attr_of(*handles_.at(opened->handle).file);
    co_return out;
  }
  Entry entry;
  entry.mode = mode;
  entry.uid = caller.uid;
  entry.gid = group_for(in, caller, nullptr);
  entry.mtime_ns = env_.wall_ns();
  entry.file_id = file_id(client_.next_event());
  const RowId at{in, name};
  const auto number = InodeTable::free_number(node_id(entry.file_id, nullptr),
                                              [&](std::uint64_t node) { return taken(node, at, entry.file_id); });
  const auto file = add_file(number, at);
  file->name = name;
  file->base = located->row;
  file->dots = superseded_by_write(located->row->view, nullptr);
  file->content = std::make_shared<FileContent>(client_, blocks_, volume_, entry);
  file->entry = std::move(entry);
  file->touch(env_.mono_ms(), env_.wall_ns());
  Located here;
  here.at = at;
  here.row = file->base;
  here.file = file;
  ++file->handles;  // until it has its handle
  auto there = co_await found(name, std::move(here));
  --file->handles;
  if (!there) co_return pass(std::move(there));
  out.found = *there;
  out.opened = open_handle(file, flags);
  co_return out;
}

// --- removing ---

/// Takes `what` out of its row. The marker of a plain name says which siblings stay.
RowPut Filesystem::removal(const Located& what, std::optional<std::string> moved_to) {
  const auto& view = what.row->view;
  auto dots = what.shown->dots;
  if (!what.shown->plain) return ns_.row_put(what.row, what.at.name, dots, std::nullopt);
  dots.insert(dots.end(), view.hidden.begin(), view.hidden.end());
  const auto marker = marker_for(view, what.shown, std::move(moved_to));
  auto version = ns_.version(what.row, dots, what.shown, encode(marker), true);
  return ns_.row_put(what.row, what.at.name, dots, std::move(version));
}

Task<Result<bool>> Filesystem::is_empty(DirectoryId id) {
  const auto first = attached_.lower_bound(RowId{id, ""});
  for (auto it = first; it != attached_.end() && it->first.directory == id; ++it) {
    if (it->second->created()) co_return false;
  }
  const auto listing_ms = env_.mono_ms();
  Bytes from;
  for (bool more = true; more;) {
    auto page = co_await ns_.scan(id, from, listing_ms);
    if (!page) co_return pass(std::move(page));
    for (const auto& [name, row] : page->rows) {
      if (!row->view.names.empty()) co_return false;
    }
    more = !page->complete;
    from = std::move(page->next);
  }
  co_return true;
}

Task<Result<Unit>> Filesystem::remove(DirectoryId directory, std::string name, bool is_directory) {
  auto first = co_await locate_told(directory, name);
  if (!first) co_return pass(std::move(first));
  const auto lock = co_await ns_.lock(first->at);
  if (first->file && first->file->pending) {
    auto settled = co_await put_pending(first->file, false);
    if (!settled) co_return pass(std::move(settled));
  }
  auto located = co_await locate_told(directory, name);
  if (!located) co_return pass(std::move(located));
  if (!located->exists() || located->at != first->at) co_return fail(Errc::kNotFound, name + " is no longer there");
  const auto type = located->type();
  if (is_directory && type != FileType::kDirectory) co_return fail(Errc::kNotDirectory, name + " is no directory");
  if (!is_directory && type == FileType::kDirectory) co_return fail(Errc::kIsDirectory, name + " is a directory");
  if (is_directory) {
    const DirectoryId id = located->shown->entry.directory_id;
    auto empty = co_await is_empty(id);
    if (!empty) co_return pass(std::move(empty));
    if (!*empty) co_return fail(Errc::kNotEmpty, name + " is not empty");
    ns_.forget_directory(id);
  }
  if (located->shown != nullptr) {
    const auto node = node_for(located->at, *located->row, *located->shown);
    std::vector<RowPut> rows;
    rows.push_back(removal(*located, std::nullopt));
    auto done = co_await ns_.put(directory, std::move(rows), false);
    if (!done) co_return pass(std::move(done));
    if (type != FileType::kDirectory) inodes_.unbind(node);
  }
  if (located->file) detach(located->file);
  co_return Unit{};
}

Task<Result<Unit>> Filesystem::unlink(std::uint64_t parent, std::string name) {
  auto directory = directory_of(parent);
  if (!directory) co_return pass(std::move(directory));
  co_return co_await remove(*directory, std::move(name), false);
}

Task<Result<Unit>> Filesystem::rmdir(std::uint64_t parent, std::string name) {
  auto directory = directory_of(parent);
  if (!directory) co_return pass(std::move(directory));
  co_return co_await remove(*directory, std::move(name), true);
}

// --- moving ---

Task<Result<Unit>> Filesystem::rename(std::uint64_t from, std::string name, std::uint64_t to, std::string new_name,
                                      RenameFlags flags, Caller caller) {
  auto from_directory = directory_of(from);
  if (!from_directory) co_return pass(std::move(from_directory));
  auto to_directory = directory_of(to);
  if (!to_directory) co_return pass(std::move(to_directory));
  if (flags.exchange) co_return fail(Errc::kInvalid, "names cannot be exchanged in one step");
  Names names;
  names.from_directory = *from_directory;
  names.to_directory = *to_directory;
  names.name = name;
  names.new_name = new_name;
  for (;;) {
    auto source = co_await locate_told(names.from_directory, name);
    if (!source) co_return pass(std::move(source));
    if (!source->exists()) co_return fail(Errc::kNotFound, name + " is not there");
    auto target = co_await locate_told(names.to_directory, new_name);
    if (!target) co_return pass(std::move(target));
    const RowId low = std::min(source->at, target->at);
    const RowId high = std::max(source->at, target->at);
    const auto first = co_await ns_.lock(low);
    Namespace::Lock second;
    if (high != low) second = co_await ns_.lock(high);
    // What lives at the rows may have changed while this waited for them.
    if (source->file && source->file->at != source->at) continue;
    if (source->file && source->file->unpublished()) {
      auto done = co_await publish_locked(source->file, false);
      if (!done) co_return pass(std::move(done));
    }
    if (target->file && target->file->attached && target->file->pending) {
      auto done = co_await put_pending(target->file, false);
      if (!done) co_return pass(std::move(done));
    }
    auto again = co_await locate_told(names.from_directory, name);
    if (!again) co_return pass(std::move(again));
    names.from = std::move(*again);
    auto to_again = co_await locate_told(names.to_directory, new_name);
    if (!to_again) co_return pass(std::move(to_again));
    names.to = std::move(*to_again);
    if (names.from.shown == nullptr || names.from.at != source->at) {
      co_return fail(Errc::kNotFound, name + " is no longer there");
    }
    if (names.to.at != target->at) continue;
    co_return co_await rename_locked(std::move(names), flags, caller);
  }
}

Task<Result<Unit>> Filesystem::rename_locked(Names names, RenameFlags flags, Caller caller) {
  const bool same_row = names.from.at == names.to.at;
  if (same_row && (names.name == names.new_name || names.from.shown == names.to.shown)) co_return Unit{};
  if (flags.no_replace && names.to.exists()) co_return fail(Errc::kExists, names.new_name + " exists");
  auto good = co_await check_replace(names);
  if (!good) co_return pass(std::move(good));
  if (same_row) co_return co_await move_within_row(std::move(names));
  co_return co_await move_to_row(std::move(names), caller);
}

Task<Result<Unit>> Filesystem::check_replace(Names names) {
  const auto& moving = names.from.shown->entry;
  const bool is_directory = moving.type == FileType::kDirectory;
  if (is_directory && inodes_.is_below(names.to_directory, moving.directory_id)) {
    co_return fail(Errc::kInvalid, names.name + " cannot be moved below itself");
  }
  if (!names.to.exists()) co_return Unit{};
  const bool onto_directory = names.to.type() == FileType::kDirectory;
  if (is_directory && !onto_directory) co_return fail(Errc::kNotDirectory, names.new_name + " is no directory");
  if (!is_directory && onto_directory) co_return fail(Errc::kIsDirectory, names.new_name + " is a directory");
  if (!onto_directory) co_return Unit{};
  auto empty = co_await is_empty(names.to.shown->entry.directory_id);
  if (!empty) co_return pass(std::move(empty));
  if (!*empty) co_return fail(Errc::kNotEmpty, names.new_name + " is not empty");
  co_return Unit{};
}

/// One name of a row over another: choosing the version that the row shall show under it.
Task<Result<Unit>> Filesystem::move_within_row(Names names) {
  const auto& row = names.from.row;
  const auto* from = names.from.shown;
  const auto* to = names.to.shown;
  const bool to_plain = names.new_name == names.to.at.name;
  std::vector<Dot> dots = to_plain ? row->view.all_dots() : from->dots;
  Entry entry = from->entry;
  entry.generation = std::max(entry.generation, row->view.generation);
  entry.branch.reset();
  if (!to_plain) {
    dots.insert(dots.end(), to->dots.begin(), to->dots.end());
    entry.branch = to->branch;
    entry.branch->left = to->left;
  }
  auto version = ns_.version(row, dots, from, encode(entry), false);
  std::optional<Version> marker;
  if (from->plain) {
    dots.insert(dots.end(), row->view.hidden.begin(), row->view.hidden.end());
    const auto left = marker_for(row->view, from, names.new_name);
    marker = ns_.version(row, dots, from, encode(left), true);
  }
  auto put = ns_.row_put(row, names.from.at.name, dots, version);
  if (marker) put.add.push_back(std::move(*marker));
  std::vector<RowPut> rows;
  rows.push_back(std::move(put));
  auto done = co_await ns_.put(names.from_directory, std::move(rows), false);
  if (!done) co_return pass(std::move(done));
  moved(names, done->front(), version, entry);
  co_return Unit{};
}

Task<Result<Unit>> Filesystem::move_to_row(Names names, Caller caller) {
  const auto* from = names.from.shown;
  const auto* to = names.to.shown;
  const auto& view = names.to.row->view;
  auto dots = superseded_by_write(view, to);
  std::optional<Namespace::Seen> seen;
  if (to != nullptr) {
    // As for O_TRUNC: a version that came in since the saving process opened the name becomes a sibling.
    seen = ns_.seen_by(names.to.at, names.new_name, *names.to.row, *to, caller);
    if (seen && (seen->shown.name != to->name || seen->dots.size() < to->dots.size())) {
      dots = seen->dots;
      to = &seen->shown;
    }
  }
  auto own = co_await entry_of_its_own(from->entry, from->plain ? from->entry.file_id : file_id(client_.next_event()));
  if (!own) co_return pass(std::move(own));
  const Entry entry = entry_on_top(std::move(*own), &view, to);
  auto version = ns_.version(names.to.row, dots, to != nullptr ? to : from, encode(entry), false);
  if (from->version.hlc >= version.hlc) version.hlc = Hlc{from->version.hlc.value + 1};
  std::vector<RowPut> rows;
  rows.push_back(ns_.row_put(names.to.row, names.to.at.name, dots, version));
  const bool same_directory = names.from_directory == names.to_directory;
  std::optional<std::string> moved_to;
  if (same_directory) moved_to = names.to.at.name;
  if (same_directory) rows.push_back(removal(names.from, std::move(moved_to)));
  // Between directories the destination comes first: both names for a moment, never neither.
  auto done = co_await ns_.put(names.to_directory, std::move(rows), false);
  if (!done) co_return pass(std::move(done));
  const RowPtr state = done->front();
  if (!same_directory) {
    std::vector<RowPut> source;
    source.push_back(removal(names.from, std::nullopt));
    auto removed = co_await ns_.put(names.from_directory, std::move(source), false);
    if (!removed) co_return pass(std::move(removed));
  }
  moved(names, state, version, entry);
  co_return Unit{};
}

/// What is to be a file of its own has blocks of its own, as they lie under the file's id.
Task<Result<Entry>> Filesystem::entry_of_its_own(Entry entry, FileId id) {
  if (entry.type == FileType::kDirectory || entry.file_id == id) co_return entry;
  if (!entry.root) {
    entry.file_id = id;
    co_return entry;
  }
  FileContent source(client_, blocks_, volume_, entry);
  entry.file_id = id;
  entry.root.reset();
  entry.blocks_synced = false;
  entry.size = 0;
  FileContent copy(client_, blocks_, volume_, entry);
  for (std::uint64_t at = 0; at < source.size();) {
    auto bytes = co_await source.read(at, kCopyBytes);
    if (!bytes) co_return pass(std::move(bytes));
    if (bytes->empty()) co_return fail(Errc::kCorrupt, "a file ended before its size");
    const auto size = bytes->size();
    auto written = co_await copy.write(at, std::move(*bytes));
    if (!written) co_return pass(std::move(written));
    at += size;
  }
  auto sealed = co_await copy.seal(entry, false);
  if (!sealed) co_return pass(std::move(sealed));
  co_return entry;
}

/// The tables after a move: what was replaced lives on for its handles alone, what was moved lives at the new name.
void Filesystem::moved(const Names& names, const RowPtr& state, const Version& version, const Entry& entry) {
  const bool is_directory = entry.type == FileType::kDirectory;
  const auto node = node_for(names.from.at, *names.from.row, *names.from.shown);
  const auto replaced = names.to.shown != nullptr && names.to.shown->entry.type != FileType::kDirectory
                            ? node_for(names.to.at, *names.to.row, *names.to.shown)
                            : node;
  if (names.to.file && names.to.file != names.from.file) detach(names.to.file);
  if (replaced != node) inodes_.unbind(replaced);
  const Digest128 id = is_directory ? entry.directory_id : entry.file_id;
  inodes_.move(node, Place{entry.type, id, names.to.at, names.new_name, version.event});
  if (auto* inode = inodes_.find(node)) {
    const auto before = names.from.shown->version.event;
    inode->sized = inode->sized == before ? version.event : EventId{};
    if (inode->cached != EventId{} && inode->cached != before) stale_.push_back(node);
    inode->cached = inode->cached == before ? version.event : EventId{};
  }
  const FilePtr file = names.from.file;
  if (!file) return;
  // What moved may be newer than what is open here, or have got an id of its own.
  const bool other_bytes = file->entry.file_id != entry.file_id || !file->shown ||
                           file->shown->version.event != names.from.shown->version.event;
  const bool clean = !file->unpublished();
  attach(file, names.to.at, names.new_name);
  file->synced = false;
  if (!other_bytes || clean) published(file, state, entry, version);
  if (other_bytes && clean) {
    file->entry = entry;
    file->content = std::make_shared<FileContent>(client_, blocks_, volume_, entry);
  } else if (other_bytes) {
    file->base = state;  // written to while it moved: goes on beside what was moved
    file->dots.clear();
  }
}

}  // namespace kinfs::fs
