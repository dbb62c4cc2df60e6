// Node ids: see inode_table.h.
#include "fs/inode_table.h"

#include <algorithm>

#include "fs/keys.h"

namespace kinfs::fs {
namespace {

constexpr std::uint64_t kNodeMask = (1ull << 63) - 1;
constexpr int kMaxDepth = 4096;  // of a path: a loop that two hosts' moves have made ends there

std::uint64_t first_number(const NodeKey& key) {
  return key.directory ? node_id(DirectoryId(key.id)) : node_id(FileId(key.id), key.branch ? &*key.branch : nullptr);
}

std::uint64_t next_number(std::uint64_t node) {
  const auto next = (node + 1) & kNodeMask;
  return next > kRootNode ? next : kRootNode + 1;
}

}  // namespace

NodeKey key_of_directory(const DirectoryId& id) { return NodeKey{true, id, std::nullopt}; }

NodeKey key_of(const View& view, const Shown& shown) {
  if (shown.entry.type == FileType::kDirectory) return key_of_directory(shown.entry.directory_id);
  NodeKey key{false, shown.entry.file_id, std::nullopt};
  const bool shares = std::any_of(view.names.begin(), view.names.end(), [&](const Shown& other) {
    return &other != &shown && other.entry.file_id == shown.entry.file_id;
  });
  if (shares && !shown.keeps_number) key.branch = shown.branch.event;
  return key;
}

InodeTable::InodeTable() {
  Inode root;
  root.node = kRootNode;
  root.key = key_of_directory(root_directory());
  root.type = FileType::kDirectory;
  root.at.directory = root_directory();
  root.lookups = 1;
  inodes_.emplace(kRootNode, std::move(root));
}

std::uint64_t InodeTable::node_of(const NodeKey& key) const {
  auto node = first_number(key);
  for (auto it = inodes_.find(node); it != inodes_.end() && it->second.key != key; it = inodes_.find(node)) {
    node = next_number(node);
  }
  return node;
}

Inode& InodeTable::remember(std::uint64_t node, const NodeKey& key, FileType type, const RowId& at,
                            const std::string& name) {
  auto& inode = inodes_[node];
  if (inode.lookups == 0) {
    inode.node = node;
    inode.key = key;
    inode.type = type;
  }
  if (node != kRootNode) {
    inode.at = at;
    inode.name = name;
    ++inode.lookups;
  }
  return inode;
}

Inode* InodeTable::find(std::uint64_t node) {
  const auto it = inodes_.find(node);
  return it == inodes_.end() ? nullptr : &it->second;
}

void InodeTable::forget(std::uint64_t node, std::uint64_t lookups) {
  const auto it = inodes_.find(node);
  if (it == inodes_.end() || node == kRootNode) return;
  if (it->second.lookups <= lookups) {
    inodes_.erase(it);
  } else {
    it->second.lookups -= lookups;
  }
}

bool InodeTable::is_below(const DirectoryId& directory, const DirectoryId& ancestor) const {
  DirectoryId at = directory;
  for (int depth = 0; depth < kMaxDepth; ++depth) {
    if (at == ancestor) return true;
    if (at == root_directory()) return false;
    const auto it = inodes_.find(node_of(key_of_directory(at)));
    if (it == inodes_.end()) return false;
    at = it->second.at.directory;
  }
  return true;
}

std::uint64_t InodeTable::parent_of(const DirectoryId& directory) const {
  if (directory == root_directory()) return kRootNode;
  const auto it = inodes_.find(node_of(key_of_directory(directory)));
  return it == inodes_.end() ? kRootNode : node_of(key_of_directory(it->second.at.directory));
}

}  // namespace kinfs::fs
