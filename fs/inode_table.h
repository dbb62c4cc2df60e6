// Node ids, and what each of them stands for.
//
// A directory's number follows from its id. A file's follows from the file's id where it can, and otherwise from its
// branch; but once the kernel knows a number, it goes on standing for the same line of versions, whatever else
// appears beside it or under its name: programs, handles and cached names hold on to the number. Two names that can be
// seen never share one.
//
// Invariants:
//  - an inode is here exactly while the kernel counts lookups for it (the root for ever): only forget() removes it, so
//    the table is as large as the kernel's own. A process that takes a mount over takes the table along;
//  - a number is never given to another file while it is here; what was removed or replaced is unbound, and stands for
//    nothing but its handles.
//
// Threading: inside the strand. Pointers are good until the next call of forget().
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "fs/entry.h"
#include "fs/namespace.h"

namespace kinfs::fs {

/// What a node stands for: a file or directory, and where this mount last saw it.
struct Place {
  FileType type = FileType::kRegular;
  Digest128 id{};    // the directory's, or the file's
  RowId at;          // the row that holds it
  std::string name;  // under which that row showed it: the row's name, or a sibling's
  EventId event{};   // of files: the version that it stood for last
};

struct Inode : Place {
  std::uint64_t node = 0;
  bool bound = true;
  std::uint64_t lookups = 0;
  std::uint64_t told = 0;  // counts the answers to lookups: the greater was told last
  EventId cached{};  // the version whose bytes the kernel may hold; zero: none that it may keep
  EventId sized{};   // the version whose size it may hold; zero: not known
  bool directory() const { return type == FileType::kDirectory; }
};

/// A candidate for one of the names of a row.
struct Standing {
  std::uint64_t node = 0;
  FileId file{};
  EventId event{};
  EventId pending{};  // of a put whose outcome is not known
  std::string name;
};

/// For each name of `state`, the node that stands for it; 0 where none does. A node stands for the version that it
/// stood for before or, failing that, for one that was made from it: of several, the one under the same name.
std::vector<std::uint64_t> match(const RowState& state, const std::vector<Standing>& standing);

class InodeTable {
 public:
  InodeTable();

  /// The number of a directory, whether it is in the table or not.
  std::uint64_t node_of(const DirectoryId& directory) const;
  /// The first number from `first` on for which `taken` says no.
  static std::uint64_t free_number(std::uint64_t first, const std::function<bool(std::uint64_t)>& taken);

  /// Enters `node`, or moves it, and counts one lookup more.
  Inode& remember(std::uint64_t node, const Place& place);
  /// The same without a lookup, when `node` is here.
  void move(std::uint64_t node, const Place& place);
  /// What `node` stood for is gone: the number stays taken until the kernel forgets it.
  void unbind(std::uint64_t node);
  Inode* find(std::uint64_t node);
  const Inode* find(std::uint64_t node) const;
  /// The bound inodes of files at a row.
  std::vector<const Inode*> files_at(const RowId& at) const;
  /// The directory that a row was seen to hold last, if it was one.
  std::optional<DirectoryId> directory_at(const RowId& at) const;
  /// The node that the kernel was told last for a name of a row; 0: none.
  std::uint64_t told(const RowId& at, const std::string& name) const;
  void forget(std::uint64_t node, std::uint64_t lookups);
  std::size_t size() const { return inodes_.size(); }

  /// Whether `directory` is `ancestor` or lies below it, as far as this table knows.
  bool is_below(const DirectoryId& directory, const DirectoryId& ancestor) const;
  /// The node id of the directory that holds `directory`; the root's for the root, and when it is not known.
  std::uint64_t parent_of(const DirectoryId& directory) const;

 private:
  void index(const Inode& inode);
  void unindex(const Inode& inode);

  std::unordered_map<std::uint64_t, Inode> inodes_;
  std::unordered_multimap<std::size_t, std::uint64_t> rows_;  // by the hash of the row
  std::uint64_t last_told_ = 0;
};

}  // namespace kinfs::fs
