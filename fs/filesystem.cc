// Names resolved, attributes, and what belongs to the whole. See filesystem.h.
#include "fs/filesystem.h"

#include <algorithm>

#include "fs/keys.h"

namespace kinfs::fs {
namespace {

constexpr std::int64_t kKernelMs = 900;

template <class T>
Task<Unit> done_anyhow(Task<T> task) {
  (void)co_await task;
  co_return Unit{};
}

tl::unexpected<Error> gone() { return fail(Errc::kNotFound, "the file is no longer there"); }

}  // namespace

Filesystem::Filesystem(Client& client, Env& env, VolumeId volume)
    : client_(client), env_(env), volume_(volume), ns_(client, env, volume) {}

Filesystem::~Filesystem() = default;

Result<Inode*> Filesystem::inode_of(std::uint64_t node) {
  auto* inode = inodes_.find(node);
  if (inode == nullptr) return gone();
  return inode;
}

Result<DirectoryId> Filesystem::directory_of(std::uint64_t node) {
  auto inode = inode_of(node);
  if (!inode) return pass(std::move(inode));
  if (!(*inode)->directory()) return fail(Errc::kNotDirectory, (*inode)->name + " is no directory");
  return DirectoryId((*inode)->id);
}

// --- resolving ---

/// What the kernel, or an open file, holds numbers for at a row. Of an open file the working version counts.
std::vector<Standing> Filesystem::standing_at(const RowId& at) const {
  std::vector<Standing> out;
  for (auto [it, end] = attached_.equal_range(at); it != end; ++it) {
    const auto& file = *it->second;
    out.push_back({file.node, file.entry.file_id, file.shown ? file.shown->version.event : EventId{},
                   file.pending ? file.pending->add.front().event : EventId{}, file.name});
  }
  for (const auto* inode : inodes_.files_at(at)) {
    if (!files_.contains(inode->node)) out.push_back({inode->node, inode->id, inode->event, EventId{}, inode->name});
  }
  return out;
}

/// Whether `node` cannot be given to a version of `file` at row `at`. It can where the kernel knows it for the same
/// file at another row, which is known to show it no more: it was moved, on another host.
bool Filesystem::taken(std::uint64_t node, const RowId& at, const FileId& file) const {
  if (files_.contains(node)) return true;
  const auto* inode = inodes_.find(node);
  if (inode == nullptr) return false;
  if (!inode->bound || inode->directory() || inode->id != file || inode->at == at) return true;
  const auto* other = ns_.known(inode->at);
  if (other == nullptr || ns_.age_ms(other->fetched_ms) > kCacheMs) return true;
  const auto there = match(*other, standing_at(inode->at));
  return std::find(there.begin(), there.end(), node) != there.end();
}

/// The node ids of the names of `row`, in their order.
std::vector<std::uint64_t> Filesystem::nodes_of(const RowId& at, const RowState& row) const {
  auto nodes = match(row, standing_at(at));
  const auto& names = row.view.names;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (nodes[i] != 0) continue;
    const auto& entry = names[i].entry;
    if (entry.type == FileType::kDirectory) {
      nodes[i] = inodes_.node_of(entry.directory_id);
      continue;
    }
    const auto in_use = [&](std::uint64_t node) {
      return std::find(nodes.begin(), nodes.end(), node) != nodes.end() || taken(node, at, entry.file_id);
    };
    auto number = node_id(entry.file_id, nullptr);
    if (!names[i].keeps_number || in_use(number)) {
      number = InodeTable::free_number(node_id(entry.file_id, &names[i].branch.event), in_use);
    }
    nodes[i] = number;
  }
  return nodes;
}

std::uint64_t Filesystem::node_for(const RowId& at, const RowState& row, const Shown& shown) const {
  const auto nodes = nodes_of(at, row);
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (row.view.names[i].name == shown.name) return nodes[i];
  }
  return 0;
}

const Shown* Filesystem::shown_of(const RowState& row, const RowId& at, std::uint64_t node) const {
  const auto nodes = nodes_of(at, row);
  const auto it = std::find(nodes.begin(), nodes.end(), node);
  return it == nodes.end() ? nullptr : &row.view.names[static_cast<std::size_t>(it - nodes.begin())];
}

Task<Result<RowPtr>> Filesystem::row_of_age(RowId id, Age age, std::uint32_t thread) {
  if (age == Age::kAtOpen) co_return co_await ns_.row_at_open(id, thread);
  if (age == Age::kAnew) co_return co_await ns_.row(id, -1);
  if (age == Age::kToChange) co_return co_await ns_.row_to_change(id, thread);
  co_return co_await ns_.row(id, kCacheMs);
}

Task<Result<Filesystem::Located>> Filesystem::locate(DirectoryId directory, std::string name,
                                                     Age age, std::uint32_t thread) {
  if (name.size() > kMaxNameBytes) {
    co_return fail(Errc::kNameTooLong, "a name may have 255 bytes; this one has " + std::to_string(name.size()));
  }
  Located out;
  out.at = RowId{directory, name};
  if (auto only_here = attached_at(out.at, name); only_here && only_here->created()) {
    out.row = only_here->base;
    out.file = std::move(only_here);
    co_return out;
  }
  auto row = co_await row_of_age(out.at, age, thread);
  if (!row) co_return pass(std::move(row));
  out.row = *row;
  out.shown = out.row->view.find(name);
  if (out.shown == nullptr) {
    const auto parsed = parse_sibling_name(name);
    if (parsed) {
      RowId plain{directory, parsed->plain_name};
      auto other = co_await row_of_age(plain, age, thread);
      if (!other) co_return pass(std::move(other));
      if (const auto* sibling = (*other)->view.find(name); sibling != nullptr && !sibling->plain) {
        out.at = plain;
        out.row = *other;
        out.shown = sibling;
      } else if (parsed->may_be_cut) {
        auto cut = co_await locate_cut(directory, name);
        if (!cut) co_return pass(std::move(cut));
        if (cut->shown != nullptr) out = std::move(*cut);
      }
    }
  }
  if (out.shown != nullptr) {
    const auto it = files_.find(node_for(out.at, *out.row, *out.shown));
    if (it != files_.end() && it->second->attached && it->second->at == out.at) out.file = it->second;
  }
  co_return out;
}

/// For removing and moving: `name` means the version that the kernel was told it leads to, which it may have kept for a
/// moment, and which the program has seen; not one that has taken the name since.
Task<Result<Filesystem::Located>> Filesystem::locate_told(DirectoryId directory, std::string name) {
  auto out = co_await locate(directory, name, Age::kCached);
  if (!out || out->shown == nullptr) co_return out;
  const auto told = inodes_.told(out->at, name);
  const auto* meant = told == 0 ? nullptr : shown_of(*out->row, out->at, told);
  if (meant == nullptr || meant == out->shown) co_return out;
  out->shown = meant;
  const auto open = files_.find(told);
  out->file = open != files_.end() && open->second->attached ? open->second : nullptr;
  co_return out;
}

/// A sibling's name whose stem was cut does not tell its row: the directory is looked through.
Task<Result<Filesystem::Located>> Filesystem::locate_cut(DirectoryId directory, std::string name) {
  Located out;
  Bytes from;
  for (bool more = true; more;) {
    auto page = co_await ns_.scan(directory, from, 0);
    if (!page) co_return pass(std::move(page));
    for (const auto& [plain, row] : page->rows) {
      const auto* shown = row->view.find(name);
      if (shown == nullptr || shown->plain) continue;
      out.at = RowId{directory, plain};
      out.row = row;
      out.shown = shown;
      co_return out;
    }
    more = !page->complete;
    from = std::move(page->next);
  }
  co_return out;
}

std::uint32_t Filesystem::valid_ms(const RowState* row) const {
  if (row == nullptr) return kKernelMs;
  if (row->view.has_siblings()) return 0;
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>(kCacheMs - ns_.age_ms(row->fetched_ms), 0, kKernelMs));
}

Task<Result<Found>> Filesystem::found(std::string name, Located located) {
  Found out;
  if (!located.exists()) co_return out;
  if (located.shown == nullptr) {
    out.attr = attr_of(*located.file);
    out.valid_ms = kKernelMs;
    const auto& file = *located.file;
    inodes_.remember(file.node, Place{file.entry.type, file.entry.file_id, located.at, name, EventId{}});
    co_return out;
  }
  std::optional<DirectoryState> state;
  if (located.shown->entry.type == FileType::kDirectory) {
    auto got = co_await ns_.directory(located.shown->entry.directory_id, kCacheMs);
    if (!got) co_return pass(std::move(got));
    state = std::move(*got);
  }
  const auto node = node_for(located.at, *located.row, *located.shown);
  const auto& entry = located.shown->entry;
  const Digest128 id = entry.type == FileType::kDirectory ? entry.directory_id : entry.file_id;
  if (const auto* inode = inodes_.find(node); inode != nullptr && inode->bound && node != kRootNode &&
                                              (inode->at != located.at || inode->name != name)) {
    // The kernel may still have it under the name that it was told before.
    stale_names_.push_back({inodes_.node_of(inode->at.directory), inode->name});
  }
  inodes_.remember(node, Place{entry.type, id, located.at, name, located.shown->version.event});
  out.valid_ms = valid_ms(located.row.get());
  if (state) {
    out.attr = attr_of(node, *state);
  } else if (const auto it = files_.find(node); it != files_.end()) {
    out.attr = attr_of(*it->second);
  } else {
    out.attr = attr_of(node, *located.row, *located.shown);
  }
  co_return out;
}

/// Of a directory that is looked up again, the row that names it and its own one, side by side when both are too old.
Task<Unit> Filesystem::fetch_both(RowId at) {
  const auto* row = ns_.known(at);
  if (row != nullptr && ns_.age_ms(row->fetched_ms) <= kCacheMs) co_return Unit{};
  const auto id = inodes_.directory_at(at);
  if (!id) co_return Unit{};
  const auto* own = ns_.known(*id);
  if (own != nullptr && ns_.age_ms(own->fetched_ms) <= kCacheMs) co_return Unit{};
  auto own_row = ns_.directory(*id, kCacheMs);
  auto name_row = ns_.row(std::move(at), kCacheMs);
  std::vector<Task<Unit>> both;
  both.push_back(done_anyhow(std::move(own_row)));
  both.push_back(done_anyhow(std::move(name_row)));
  co_await when_all(std::move(both));
  co_return Unit{};
}

Task<Result<Found>> Filesystem::lookup(std::uint64_t parent, std::string name, Caller caller) {
  auto directory = directory_of(parent);
  if (!directory) co_return pass(std::move(directory));
  const auto began_us = env_.mono_us();
  const RowId at{*directory, name};
  co_await fetch_both(at);
  auto located = co_await locate(*directory, name, Age::kCached);
  // Close-to-open holds for new files too, so what is absent is asked for each time. The create that often follows
  // takes over this answer.
  if (located && !located->exists() && located->row->asked_us < began_us) {
    located = co_await locate(*directory, name, Age::kAnew);
  }
  if (!located) co_return pass(std::move(located));
  if (located->row && located->row->asked_us >= began_us) {
    located->row->looked_up_by = caller.thread;
    located->row->looked_up_us = env_.mono_us();
  }
  co_return co_await found(name, std::move(*located));
}

void Filesystem::forget(std::uint64_t node, std::uint64_t lookups) { inodes_.forget(node, lookups); }

// --- attributes ---

Attr Filesystem::attr_of(const OpenFile& file) const {
  Attr attr;
  attr.node = file.node;
  attr.type = file.entry.type;
  attr.mode = file.entry.mode;
  attr.uid = file.entry.uid;
  attr.gid = file.entry.gid;
  attr.links = file.attached ? 1 : 0;
  attr.size = file.size();
  attr.mtime_ns = file.entry.mtime_ns;
  attr.ctime_ns = file.ctime_ns;
  attr.atime_ns = file.entry.atime_ns != 0 ? file.entry.atime_ns : file.entry.mtime_ns;
  attr.valid_ms = file.base && file.base->view.has_siblings() ? 0 : kKernelMs;
  if (file.shown && !file.unpublished()) attr.version = file.shown->version.event;
  return attr;
}

Attr Filesystem::attr_of(std::uint64_t node, const RowState& row, const Shown& shown) const {
  const auto& entry = shown.entry;
  Attr attr;
  attr.node = node;
  attr.type = entry.type;
  attr.mode = entry.mode;
  attr.uid = entry.uid;
  attr.gid = entry.gid;
  attr.size = entry.size;
  attr.mtime_ns = entry.mtime_ns;
  attr.ctime_ns = shown.version.time_ns;
  attr.atime_ns = entry.atime_ns != 0 ? entry.atime_ns : entry.mtime_ns;
  attr.valid_ms = valid_ms(&row);
  attr.version = shown.version.event;
  return attr;
}

void Filesystem::told(const Attr& attr) {
  if (auto* inode = inodes_.find(attr.node)) inode->sized = attr.version;
}

Attr Filesystem::attr_of(std::uint64_t node, const DirectoryState& directory) const {
  Attr attr;
  attr.node = node;
  attr.type = FileType::kDirectory;
  attr.mode = directory.attributes.mode;
  attr.uid = directory.attributes.uid;
  attr.gid = directory.attributes.gid;
  attr.links = 2;
  attr.size = 4096;
  attr.mtime_ns = directory.mtime_ns();
  attr.ctime_ns = std::max(attr.mtime_ns, directory.stat.last_time_ns);
  for (const auto& v : directory.row.versions) attr.ctime_ns = std::max(attr.ctime_ns, v.time_ns);
  attr.atime_ns = attr.mtime_ns;
  attr.valid_ms = static_cast<std::uint32_t>(
      std::clamp<std::int64_t>(kCacheMs - ns_.age_ms(directory.fetched_ms), 0, kKernelMs));
  return attr;
}

Task<Result<Attr>> Filesystem::getattr(std::uint64_t node) {
  if (const auto it = files_.find(node); it != files_.end()) co_return attr_of(*it->second);
  auto inode = inode_of(node);
  if (!inode) co_return pass(std::move(inode));
  if ((*inode)->directory()) {
    const DirectoryId id = (*inode)->id;
    auto state = co_await ns_.directory(id, kCacheMs);
    if (!state) co_return pass(std::move(state));
    co_return attr_of(node, *state);
  }
  const RowId at = (*inode)->at;
  auto row = co_await ns_.row(at, kCacheMs);
  if (!row) co_return pass(std::move(row));
  if (const auto it = files_.find(node); it != files_.end()) co_return attr_of(*it->second);
  const auto* shown = shown_of(**row, at, node);
  if (shown == nullptr) co_return gone();
  co_return attr_of(node, **row, *shown);
}

Task<Result<Attr>> Filesystem::set_directory(DirectoryId id, std::uint64_t node, Change change) {
  if (change.size) co_return fail(Errc::kIsDirectory, "a directory has no size to set");
  const RowId own_row{id, ""};
  const auto lock = co_await ns_.lock(own_row);
  auto state = co_await ns_.directory(id, kCacheMs);
  if (!state) co_return pass(std::move(state));
  auto shown = std::make_shared<RowState>();
  shown->row = state->row;
  std::vector<Dot> dots;
  for (const auto& v : shown->row.versions) dots.push_back(v.dot);
  auto version = ns_.version(shown, dots, nullptr, Bytes(), false);
  // A time that is set by hand holds against every change of the directory that was seen, own ones included.
  if (state->stat.last_hlc >= version.hlc) version.hlc = Hlc{state->stat.last_hlc.value + 1};
  auto attributes = state->attributes;
  if (change.mode) attributes.mode = *change.mode;
  if (change.mode) attributes.mode_set = version.hlc;
  if (change.uid) attributes.uid = *change.uid;
  if (change.gid) attributes.gid = *change.gid;
  if (change.uid || change.gid) attributes.owner_set = version.hlc;
  if (change.mtime_ns) attributes.mtime_ns = *change.mtime_ns;
  if (change.mtime_ns) attributes.mtime_set = version.hlc;
  version.value = encode(attributes);
  auto base = superseding(shown->row, dots);
  auto done = co_await ns_.put_directory(id, std::move(base), attributes, std::move(version), false);
  if (!done) co_return pass(std::move(done));
  auto after = co_await ns_.directory(id, kCacheMs);
  if (!after) co_return pass(std::move(after));
  co_return attr_of(node, *after);
}

// --- the whole ---

Task<Result<StoreUsage>> Filesystem::statfs() { co_return co_await client_.usage(); }

void Filesystem::tick() {
  ns_.tick();
  const auto now_ms = env_.mono_ms();
  std::vector<FilePtr> due;
  std::vector<FilePtr> idle;
  for (const auto& [node, file] : files_) {
    if (file->handles == 0 && !file->publishing && !file->unpublished()) idle.push_back(file);
    if (!file->publishing && file->unpublished() && file->unpublished_ms + kPublishMs <= now_ms &&
        file->retry_ms <= now_ms) {
      due.push_back(file);
    }
  }
  for (const auto& file : idle) drop_if_idle(file);
  for (const auto& file : due) publish_later(file);
}

Task<Result<Unit>> Filesystem::publish_all() {
  std::vector<Task<Result<Unit>>> tasks;
  std::vector<FilePtr> files;
  for (const auto& [node, file] : files_) {
    if (file->unpublished()) files.push_back(file);
  }
  for (const auto& file : files) tasks.push_back(publish(file, false));
  auto results = co_await when_all(std::move(tasks));
  for (const auto& file : files) drop_if_idle(file);
  for (auto& result : results) {
    if (!result) co_return pass(std::move(result));
  }
  co_return Unit{};
}

std::vector<std::string> Filesystem::unpublished() const {
  std::vector<std::string> names;
  for (const auto& [node, file] : files_) {
    if (file->unpublished()) names.push_back(file->name);
  }
  return names;
}

}  // namespace kinfs::fs
