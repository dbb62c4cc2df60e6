// Node ids, and what each of them stands for.
//
// Invariants:
//  - a node id follows from the file (keys.h): a process that takes a mount over computes the same ones;
//  - where two files have the number in common, the one that is looked up later gets the next free one;
//  - an inode is here exactly while the kernel counts lookups for it (the root for ever): only forget() removes it, so
//    the table is as large as the kernel's own.
//
// Threading: inside the strand. Pointers are good until the next call of forget().
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>

#include "fs/entry.h"
#include "fs/namespace.h"

namespace kinfs::fs {

/// What tells files apart: the directory's id, or the file's with the first event of a diverged branch.
struct NodeKey {
  bool directory = false;
  Digest128 id{};
  std::optional<EventId> branch;
  bool operator==(const NodeKey&) const = default;
};

/// Of one of the names of a row.
NodeKey key_of(const View& view, const Shown& shown);
NodeKey key_of_directory(const DirectoryId& id);

struct Inode {
  std::uint64_t node = 0;
  NodeKey key;
  FileType type = FileType::kRegular;
  RowId at;          // the row that holds it, by what was looked up or moved last
  std::string name;  // under which that row showed it: the row's name, or a sibling's
  std::uint64_t lookups = 0;
  EventId cached;  // the version whose bytes the kernel may hold
};

class InodeTable {
 public:
  InodeTable();

  /// The node id of `key`, whether it is in the table or not.
  std::uint64_t node_of(const NodeKey& key) const;
  /// The same, entered into the table under `node`, with one lookup more.
  Inode& remember(std::uint64_t node, const NodeKey& key, FileType type, const RowId& at, const std::string& name);
  Inode* find(std::uint64_t node);
  void forget(std::uint64_t node, std::uint64_t lookups);
  std::size_t size() const { return inodes_.size(); }

  /// Whether `directory` is `ancestor` or lies below it, as far as this table knows.
  bool is_below(const DirectoryId& directory, const DirectoryId& ancestor) const;
  /// The node id of the directory that holds `directory`; the root's for the root, and when it is not known.
  std::uint64_t parent_of(const DirectoryId& directory) const;

 private:
  std::unordered_map<std::uint64_t, Inode> inodes_;
};

}  // namespace kinfs::fs
