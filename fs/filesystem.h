// What each file system call means, without a kernel: names, files and directories of one volume as one mount sees
// them. fuse_ops.cc translates requests into these calls, tests make them on a fake ring.
//
// Invariants:
//  - a call that changes names is put before it is answered; contents and attributes of an open file are put at
//    flush, at the latest kPublishMs after the first change;
//  - no lock of a row is held by anything that waits for a program; of several rows the locks are taken in ascending
//    order of RowId;
//  - whatever is not known for sure (too few hosts) is kUnavailable, never absent.
//
// Threading: everything inside the strand; a call gives the strand back only where it waits for the ring. Arguments
// are taken by value, as calls outlive their callers.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "client/client.h"
#include "fs/entry.h"
#include "fs/file_content.h"
#include "fs/inode_table.h"
#include "fs/namespace.h"
#include "fs/open_file.h"

namespace kinfs::fs {

inline constexpr std::int64_t kPublishMs = 4'000;   // what is unpublished for so long is put by tick()
inline constexpr std::int64_t kRetryMs = 1'000;     // after a put of tick() failed
inline constexpr std::size_t kBlockCacheBytes = 64 << 20;
inline constexpr std::size_t kMaxWrittenBytes = 64 << 20;  // written and not sent, of all files

struct Attr {
  std::uint64_t node = 0;
  FileType type = FileType::kRegular;
  std::uint32_t mode = 0;  // permission bits
  std::uint32_t uid = 0, gid = 0;
  std::uint32_t links = 1;
  std::uint64_t size = 0;
  std::int64_t mtime_ns = 0, ctime_ns = 0, atime_ns = 0;
  std::uint32_t valid_ms = 0;  // how long the kernel may keep it
  EventId version{};           // of a file: the version that has this size; zero: none yet
};

/// The answer of a lookup. attr.node 0: there is no such name now, which the kernel must not keep (valid_ms is 0).
struct Found {
  Attr attr;
  std::uint32_t valid_ms = 0;  // of the name
};

/// What setattr changes; empty fields stay.
struct Change {
  std::optional<std::uint32_t> mode, uid, gid;
  std::optional<std::uint64_t> size;
  std::optional<std::int64_t> mtime_ns, atime_ns;
};

struct OpenFlags {
  bool read = false;
  bool write = false;
  bool truncate = false;
  bool exclusive = false;  // of create
};

struct Opened {
  std::uint64_t handle = 0;
  bool keep_cache = false;   // the kernel's pages of this node are of this version
  bool other_size = false;   // the kernel may hold the size of another version, and would read no further than that
};

struct Created {
  Found found;
  Opened opened;
};

struct RenameFlags {
  bool no_replace = false;
  bool exchange = false;
};

/// One name of a listing; node and type are always there. `found` is filled for listings with attributes, as far as
/// they can be had.
struct Listed {
  std::string name;
  std::uint64_t cookie = 0;  // where a listing goes on after this name
  std::uint64_t node = 0;
  FileType type = FileType::kRegular;
  std::optional<Found> found;  // with a lookup counted
};

class Filesystem {
 public:
  Filesystem(Client& client, Env& env, VolumeId volume);
  ~Filesystem();

  // --- names ---
  Task<Result<Found>> lookup(std::uint64_t parent, std::string name, Caller caller);
  void forget(std::uint64_t node, std::uint64_t lookups);
  /// The kernel has `attr` now: to be called once the answer is out, before anything else is.
  void told(const Attr& attr);
  Task<Result<Found>> mkdir(std::uint64_t parent, std::string name, std::uint32_t mode, Caller caller);
  /// Regular files, fifos and sockets; kNotPermitted for devices is the caller's.
  Task<Result<Found>> mknod(std::uint64_t parent, std::string name, FileType type, std::uint32_t mode, Caller caller);
  Task<Result<Found>> symlink(std::uint64_t parent, std::string name, std::string target, Caller caller);
  Task<Result<Unit>> unlink(std::uint64_t parent, std::string name);
  Task<Result<Unit>> rmdir(std::uint64_t parent, std::string name);
  Task<Result<Unit>> rename(std::uint64_t from, std::string name, std::uint64_t to, std::string new_name,
                            RenameFlags flags, Caller caller);
  /// Visible at once on this mount; on others once it is published.
  Task<Result<Created>> create(std::uint64_t parent, std::string name, std::uint32_t mode, OpenFlags flags,
                               Caller caller);

  // --- files ---
  Task<Result<Attr>> getattr(std::uint64_t node);
  /// `handle`: 0 when the change does not come through one.
  Task<Result<Attr>> setattr(std::uint64_t node, Change change, std::uint64_t handle, Caller caller);
  Task<Result<std::string>> readlink(std::uint64_t node);
  Task<Result<Opened>> open(std::uint64_t node, OpenFlags flags, Caller caller);
  Task<Result<Bytes>> read(std::uint64_t handle, std::uint64_t offset, std::size_t size);
  /// `append`: at the end, wherever `offset` says that it is. The number of bytes: all.
  Task<Result<std::size_t>> write(std::uint64_t handle, std::uint64_t offset, Bytes data, bool append);
  Task<Result<Unit>> flush(std::uint64_t handle);
  Task<Result<Unit>> fsync(std::uint64_t handle);
  /// What the directory's rows say now is on disk at W when this returns.
  Task<Result<Unit>> fsync_directory(std::uint64_t node);
  /// Publishing goes on by itself.
  void release(std::uint64_t handle);

  // --- directories ---
  Result<std::uint64_t> opendir(std::uint64_t node);
  /// The names after `cookie`, as many as a reply of `size` bytes holds; none at the end. The first two are "." and
  /// "..". `with_attributes`: for the kernel's READDIRPLUS.
  Task<Result<std::vector<Listed>>> readdir(std::uint64_t handle, std::uint64_t cookie, std::size_t size,
                                            bool with_attributes);
  void releasedir(std::uint64_t handle);

  // --- the whole ---
  Task<Result<StoreUsage>> statfs();
  /// Several times a second: publishes what is old, drops what is stale.
  void tick();
  /// Puts all that is unpublished; the first error, after trying all.
  Task<Result<Unit>> publish_all();
  /// Of all files, written and not sent; about kMaxWrittenBytes at most.
  std::size_t written_bytes() const { return written_bytes_; }
  /// Names of files that have unpublished changes, for the log.
  std::vector<std::string> unpublished() const;
  /// Nodes whose pages the kernel must drop, since the last call.
  std::vector<std::uint64_t> take_stale() { return std::exchange(stale_, {}); }
  /// A name, by the node id of its directory, that leads elsewhere since an own write.
  struct StaleName {
    std::uint64_t parent = 0;
    std::string name;
  };
  /// Names that the kernel must look up anew before the program hears of the write, since the last call.
  std::vector<StaleName> take_stale_names() { return std::exchange(stale_names_, {}); }

 private:
  /// A name, resolved: the row that shows it or would hold it, and what it shows.
  struct Located {
    RowId at;
    RowPtr row;
    const Shown* shown = nullptr;  // of `row`; null: absent, or only here
    FilePtr file;                  // the open file that lives at this name, if any
    bool exists() const { return shown != nullptr || file != nullptr; }
    FileType type() const { return shown != nullptr ? shown->entry.type : file->entry.type; }
  };
  struct Handle {
    std::uint64_t node = 0;
    bool write = false;
    FilePtr file;
  };
  struct Pending {
    std::string name;
    std::uint64_t cookie = 0;
    RowId at;
    RowPtr row;          // null: a file that is only here
    std::string shown;   // its name in row->view
    std::uint64_t only_here = 0;
  };
  struct DirectoryHandle {
    std::uint64_t node = 0;
    DirectoryId directory{};
    std::vector<Pending> page;    // by cookie
    std::uint64_t page_from = 0;  // the page holds all names with greater cookies, up to page_to
    std::uint64_t page_to = 0;
    bool at_end = false;
    Bytes next;
    std::int64_t listing_ms = 0;
  };
  struct Names;  // what rename works on

  // filesystem.cc
  Result<Inode*> inode_of(std::uint64_t node);
  Result<DirectoryId> directory_of(std::uint64_t node);
  enum class Age { kCached, kToChange, kAtOpen, kAnew };
  Task<Result<Located>> locate(DirectoryId directory, std::string name, Age age, std::uint32_t thread = 0);
  Task<Result<RowPtr>> row_of_age(RowId id, Age age, std::uint32_t thread);
  Task<Unit> fetch_both(RowId at);
  Task<Result<Located>> locate_cut(DirectoryId directory, std::string name);
  Task<Result<Located>> locate_told(DirectoryId directory, std::string name);
  Task<Result<Found>> found(std::string name, Located located);
  std::uint32_t valid_ms(const RowState* row) const;
  Attr attr_of(const OpenFile& file) const;
  Attr attr_of(std::uint64_t node, const RowState& row, const Shown& shown) const;
  Attr attr_of(std::uint64_t node, const DirectoryState& directory) const;
  std::vector<Standing> standing_at(const RowId& at) const;
  bool taken(std::uint64_t node, const RowId& at, const FileId& file) const;
  std::vector<std::uint64_t> nodes_of(const RowId& at, const RowState& row) const;
  std::uint64_t node_for(const RowId& at, const RowState& row, const Shown& shown) const;
  const Shown* shown_of(const RowState& row, const RowId& at, std::uint64_t node) const;
  Task<Result<Attr>> set_directory(DirectoryId id, std::uint64_t node, Change change);

  // filesystem_files.cc
  Task<Result<FilePtr>> file_of(std::uint64_t node, Age age, std::uint32_t thread);
  Result<FilePtr> file_of_handle(std::uint64_t handle);
  FilePtr add_file(std::uint64_t node, const RowId& at);
  FilePtr attached_at(const RowId& at, const std::string& name) const;
  void attach(const FilePtr& file, const RowId& at, const std::string& name);
  void detach(const FilePtr& file);
  void unlist(const FilePtr& file);
  void drop(const FilePtr& file);
  void drop_if_idle(const FilePtr& file);
  void renamed_by_version(const FilePtr& file, const std::string& name);
  void drop_other_pages(const OpenFile& file);
  const std::string& name_told(const OpenFile& file) const;
  void rebase(OpenFile& file, const Caller& caller);
  Task<Result<Unit>> refresh(FilePtr file, Age age, std::uint32_t thread);
  Opened open_handle(const FilePtr& file, const OpenFlags& flags);
  Task<Result<Unit>> truncate(FilePtr file, std::uint64_t size);
  void count_written(OpenFile& file);
  Task<Unit> send_most_written();
  Task<Result<Unit>> publish(FilePtr file, bool sync);
  Task<Result<Unit>> publish_locked(FilePtr file, bool sync);
  Task<Result<Unit>> put_file(FilePtr file, bool sync);
  Task<Result<Unit>> put_pending(FilePtr file, bool sync);
  void published(const FilePtr& file, const RowPtr& state, const Entry& entry, const Version& version);
  void publish_later(const FilePtr& file);

  // filesystem_names.cc
  Task<Result<Found>> make(std::uint64_t parent, std::string name, Entry entry, Caller caller);
  Task<Result<Found>> put_new(DirectoryId directory, std::string name, Located located, Entry entry);
  std::uint32_t group_for(const DirectoryId& directory, const Caller& caller, std::uint32_t* mode) const;
  Task<Result<Unit>> remove(DirectoryId directory, std::string name, bool is_directory);
  Task<Result<bool>> is_empty(DirectoryId id);
  RowPut removal(const Located& what, std::optional<std::string> moved_to);
  Task<Result<Unit>> rename_locked(Names names, RenameFlags flags, Caller caller);
  Task<Result<Unit>> check_replace(Names names);
  Task<Result<Unit>> move_within_row(Names names);
  Task<Result<Unit>> move_to_row(Names names, Caller caller);
  Task<Result<Entry>> entry_of_its_own(Entry entry, FileId id);
  void moved(const Names& names, const RowPtr& state, const Version& version, const Entry& entry);

  // filesystem_listing.cc
  Task<Result<Unit>> fill_page(std::uint64_t handle, std::uint64_t cookie);
  void number_page(DirectoryHandle& handle, const DirectoryPage& page, std::uint64_t from);
  Task<Result<Found>> listed(DirectoryId directory, Pending pending);
  Task<Unit> fetch_directories(std::vector<Pending> names);

  Client& client_;
  Env& env_;
  VolumeId volume_;
  Namespace ns_;
  BlockCache blocks_{kBlockCacheBytes};
  std::size_t written_bytes_ = 0;  // the sum of OpenFile::written_bytes
  InodeTable inodes_;
  std::unordered_map<std::uint64_t, FilePtr> files_;      // by node: open, or unpublished
  std::multimap<RowId, FilePtr> attached_;                // those that live at a row
  std::unordered_map<std::uint64_t, Handle> handles_;
  std::unordered_map<std::uint64_t, DirectoryHandle> directory_handles_;
  std::uint64_t next_handle_ = 1;
  std::vector<std::uint64_t> stale_;
  std::vector<StaleName> stale_names_;
};

}  // namespace kinfs::fs
