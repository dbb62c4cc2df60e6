// Node ids: see inode_table.h.
#include "fs/inode_table.h"

#include <algorithm>
#include <tuple>

#include "fs/keys.h"

namespace kinfs::fs {
namespace {

constexpr std::uint64_t kNodeMask = (1ull << 63) - 1;
constexpr int kMaxDepth = 4096;  // of a path: a loop that two hosts' moves have made ends there

// How sure it is that a node stands for a version.
constexpr int kSameEvent = 8;  // it is the version that it stood for
constexpr int kDescends = 4;   // it was made from that
constexpr int kSameFile = 2;   // a version of the file, made so long ago that its lineage does not say from what
constexpr int kSameName = 1;   // decides between equals

std::uint64_t next_number(std::uint64_t node) {
  const auto next = (node + 1) & kNodeMask;
  return next > kRootNode ? next : kRootNode + 1;
}

int sureness(const Standing& standing, const RowState& state, const Shown& shown) {
  if (shown.entry.type == FileType::kDirectory) return 0;
  const bool same_file = standing.file == shown.entry.file_id;
  int out = same_file ? kSameFile : 0;
  for (const auto& dot : shown.dots) {
    const auto* version = state.row.find(dot);
    if (version == nullptr) continue;
    if (version->event == standing.event || version->event == standing.pending) out = kSameEvent;
    if (out >= kDescends || !same_file) continue;
    const auto& lineage = version->lineage;
    if (std::any_of(lineage.begin(), lineage.end(), [&](const auto& a) { return a.event == standing.event; })) {
      out = kDescends;
    }
  }
  return out != 0 && standing.name == shown.name ? out + kSameName : out;
}

}  // namespace

std::vector<std::uint64_t> match(const RowState& state, const std::vector<Standing>& standing) {
  const auto& names = state.view.names;
  std::vector<std::uint64_t> nodes(names.size(), 0);
  struct Pair {
    int sure;
    std::size_t name;
    const Standing* standing;
  };
  std::vector<Pair> pairs;
  for (std::size_t i = 0; i < names.size(); ++i) {
    for (const auto& s : standing) {
      if (const int sure = sureness(s, state, names[i]); sure != 0) pairs.push_back({sure, i, &s});
    }
  }
  std::sort(pairs.begin(), pairs.end(), [&](const Pair& a, const Pair& b) {
    const auto& left = names[a.name].branch;
    const auto& right = names[b.name].branch;
    return std::tie(b.sure, left.hlc, left.event, a.standing->node) <
           std::tie(a.sure, right.hlc, right.event, b.standing->node);
  });
  for (const auto& pair : pairs) {
    const auto node = pair.standing->node;
    if (nodes[pair.name] == 0 && std::find(nodes.begin(), nodes.end(), node) == nodes.end()) nodes[pair.name] = node;
  }
  return nodes;
}

InodeTable::InodeTable() {
  Inode root;
  root.node = kRootNode;
  root.type = FileType::kDirectory;
  root.id = root_directory();
  root.at.directory = root_directory();
  root.lookups = 1;
  inodes_.emplace(kRootNode, std::move(root));
}

std::uint64_t InodeTable::node_of(const DirectoryId& directory) const {
  if (directory == root_directory()) return kRootNode;
  return free_number(node_id(directory), [&](std::uint64_t node) {
    const auto* inode = find(node);
    return inode != nullptr && !(inode->directory() && inode->id == directory);
  });
}

std::uint64_t InodeTable::free_number(std::uint64_t first, const std::function<bool(std::uint64_t)>& taken) {
  auto node = first;
  while (taken(node)) node = next_number(node);
  return node;
}

void InodeTable::index(const Inode& inode) { rows_.emplace(RowHash()(inode.at), inode.node); }

void InodeTable::unindex(const Inode& inode) {
  const auto [begin, end] = rows_.equal_range(RowHash()(inode.at));
  const auto it = std::find_if(begin, end, [&](const auto& entry) { return entry.second == inode.node; });
  if (it != end) rows_.erase(it);
}

Inode& InodeTable::remember(std::uint64_t node, const Place& place) {
  auto& inode = inodes_[node];
  if (node == kRootNode) return inode;
  if (inode.lookups == 0) {
    inode.node = node;
    static_cast<Place&>(inode) = place;
    index(inode);
  } else {
    move(node, place);
  }
  ++inode.lookups;
  inode.told = ++last_told_;
  return inode;
}

void InodeTable::move(std::uint64_t node, const Place& place) {
  const auto it = inodes_.find(node);
  if (it == inodes_.end() || node == kRootNode) return;
  auto& inode = it->second;
  const bool elsewhere = inode.at != place.at || !inode.bound;
  if (elsewhere) unindex(inode);
  static_cast<Place&>(inode) = place;
  inode.bound = true;
  if (elsewhere) index(inode);
}

void InodeTable::unbind(std::uint64_t node) {
  const auto it = inodes_.find(node);
  if (it == inodes_.end() || node == kRootNode || !it->second.bound) return;
  unindex(it->second);
  it->second.bound = false;
}

Inode* InodeTable::find(std::uint64_t node) {
  const auto it = inodes_.find(node);
  return it == inodes_.end() ? nullptr : &it->second;
}

const Inode* InodeTable::find(std::uint64_t node) const {
  const auto it = inodes_.find(node);
  return it == inodes_.end() ? nullptr : &it->second;
}

std::vector<const Inode*> InodeTable::files_at(const RowId& at) const {
  std::vector<const Inode*> out;
  const auto [begin, end] = rows_.equal_range(RowHash()(at));
  for (auto it = begin; it != end; ++it) {
    const auto* inode = find(it->second);
    if (inode != nullptr && inode->at == at && !inode->directory()) out.push_back(inode);
  }
  return out;
}

std::optional<DirectoryId> InodeTable::directory_at(const RowId& at) const {
  const auto [begin, end] = rows_.equal_range(RowHash()(at));
  for (auto it = begin; it != end; ++it) {
    const auto* inode = find(it->second);
    if (inode != nullptr && inode->at == at && inode->directory()) return inode->id;
  }
  return std::nullopt;
}

std::uint64_t InodeTable::told(const RowId& at, const std::string& name) const {
  const Inode* last = nullptr;
  for (const auto* inode : files_at(at)) {
    if (inode->name == name && (last == nullptr || inode->told > last->told)) last = inode;
  }
  return last == nullptr ? 0 : last->node;
}

void InodeTable::forget(std::uint64_t node, std::uint64_t lookups) {
  const auto it = inodes_.find(node);
  if (it == inodes_.end() || node == kRootNode) return;
  if (it->second.lookups > lookups) {
    it->second.lookups -= lookups;
    return;
  }
  unindex(it->second);
  inodes_.erase(it);
}

bool InodeTable::is_below(const DirectoryId& directory, const DirectoryId& ancestor) const {
  DirectoryId at = directory;
  for (int depth = 0; depth < kMaxDepth; ++depth) {
    if (at == ancestor) return true;
    if (at == root_directory()) return false;
    const auto* inode = find(node_of(at));
    if (inode == nullptr) return false;
    at = inode->at.directory;
  }
  return true;
}

std::uint64_t InodeTable::parent_of(const DirectoryId& directory) const {
  if (directory == root_directory()) return kRootNode;
  const auto* inode = find(node_of(directory));
  return inode == nullptr ? kRootNode : node_of(inode->at.directory);
}

}  // namespace kinfs::fs
