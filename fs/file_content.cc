// Content as a sparse tree of blocks (see file_content.h).
//
// A block is stored without its trailing zeros, so that its hash does not depend on where the file ends: growing a
// file rewrites nothing, and equal bytes have equal roots however they came about. A node is the concatenation of
// its children's hashes without the trailing holes. Content that fits a row is held as the buffer of block 0.
//
// Invariants:
//  - what lies beyond size_ is holes, in buffers, nodes and blocks alike;
//  - height_ is tree_level(size_) whenever no write or truncate is under way;
//  - the newest bytes of a block are in buffers_, else in sending_, else in the cache or the ring under the hash in
//    its parent; likewise a node is in nodes_, else under the hash in its parent. A dirty node is never dropped;
//  - between taking a buffer away and its block standing in sending_ nothing is awaited.
#include "fs/file_content.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <set>

namespace kinfs::fs {
namespace {

constexpr std::size_t kHashBytes = sizeof(Digest256);
constexpr std::size_t kMaxBuffers = 64;     // blocks written to and not sent
constexpr std::size_t kMaxNodes = 128;      // tree nodes kept, 8 KiB each
constexpr std::size_t kMaxDirtyNodes = 64;  // of these, not sent
constexpr std::size_t kMaxUnsynced = 4096;  // blocks remembered for a later fsync, which beyond that walks the tree
constexpr std::uint64_t kReadAheadBlocks = 8;
constexpr std::uint64_t kReadersAtOnce = 4;
constexpr Digest256 kHole{};

using BlockName = std::pair<std::uint64_t, Digest256>;    // span, hash: a block's key within its file
using NodeName = std::pair<std::uint8_t, std::uint64_t>;  // level, index

static_assert(kFanOut * kBlockBytes == kSpanBytes && kFanOut < kMaxBlocksOfSet);

struct Node {
  std::vector<Digest256> children = std::vector<Digest256>(kFanOut);
  bool dirty = false;
  std::uint64_t used = 0;
};

struct Buffer {
  Bytes bytes;  // what follows is zero
  std::uint64_t used = 0;
  bool loaded = false;  // to be changed in places: then it may well be again
};

struct Sending {
  SharedBytes bytes;
  BlockUse use = BlockUse::kKept;
  bool failed = false;
};

using FetchWaiters = std::vector<Promise<Result<SharedBytes>>>;

void trim_zeros(Bytes& bytes) { bytes.resize(bytes.find_last_not_of('\0') + 1); }  // npos + 1 is 0

Bytes encode_node(const Node& node) {
  std::size_t count = kFanOut;
  while (count > 0 && node.children[count - 1] == kHole) --count;
  Bytes out;
  out.reserve(count * kHashBytes);
  for (std::size_t i = 0; i < count; ++i) out.append(view_of(node.children[i]));
  return out;
}

Result<Node> decode_node(const Bytes& bytes) {
  if (bytes.empty() || bytes.size() % kHashBytes != 0 || bytes.size() > kFanOut * kHashBytes) {
    return fail(Errc::kCorrupt, "a node of a file's tree has " + std::to_string(bytes.size()) + " bytes");
  }
  Node node;
  for (std::size_t i = 0; i * kHashBytes < bytes.size(); ++i) {
    std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(i * kHashBytes), kHashBytes, node.children[i].begin());
  }
  return node;
}

/// `length` bytes of a block from `from` on.
Bytes piece_of(const Bytes& block, std::size_t from, std::size_t length) {
  Bytes out;
  if (from < block.size()) out = block.substr(from, length);
  out.resize(length);
  return out;
}

}  // namespace

struct FileContent::Impl {
  using Self = std::shared_ptr<Impl>;

  Client& client;
  BlockCache& cache;
  VolumeId volume;
  Bytes file_id;

  std::uint64_t size = 0;
  bool dirty = false;
  std::uint8_t height = 0;
  Digest256 root = kHole;  // of (height, 0); out of date while that is a dirty node or a buffer
  std::map<NodeName, Node> nodes;
  std::map<std::uint64_t, Buffer> buffers;
  std::map<BlockName, Sending> sending;  // under way, or failed and waiting for the next seal
  std::map<BlockName, FetchWaiters> fetching;
  std::set<BlockName> unsynced;  // confirmed, but not fsynced
  bool unsynced_below = false;   // nor perhaps others, anywhere below the root
  AsyncSemaphore slots{kBlocksInFlight};
  std::optional<Error> send_error;
  bool send_synced = false;
  std::uint64_t clock = 0;          // orders uses of nodes and buffers
  std::uint64_t next_read = 0;      // where a sequential reader goes on
  std::uint64_t fetched_ahead = 0;  // blocks below this were asked for ahead

  Impl(Client& c, BlockCache& k, VolumeId v) : client(c), cache(k), volume(v) {}

  BlockKey key_of(const BlockName& name) const { return {volume, file_id, name.first, name.second}; }
  static std::uint64_t span_of(std::uint8_t level, std::uint64_t index) {
    for (std::uint8_t l = 0; l < level; ++l) index *= kFanOut;
    return index * kBlockBytes / kSpanBytes;
  }
  static std::uint64_t blocks_in(std::uint64_t bytes) { return (bytes + kBlockBytes - 1) / kBlockBytes; }

  // Reading
  static Task<Result<SharedBytes>> fetch(Self self, BlockName name, BlockUse use = BlockUse::kKept);
  static Task<Result<Unit>> ensure_node(Self self, NodeName name);
  static Task<Result<Digest256>> hash_of(Self self, NodeName name);
  static Task<Result<Bytes>> read_piece(Self self, std::uint64_t block, std::size_t from, std::size_t length);
  static Task<Result<Bytes>> read(Self self, std::uint64_t offset, std::size_t length);
  static Task<Unit> read_ahead(Self self, std::uint64_t from, std::uint64_t to);
  void start_read_ahead(const Self& self, std::uint64_t offset, std::uint64_t end);
  void drop_clean_nodes(const NodeName& keep);

  // Writing
  static Task<Result<Unit>> write(Self self, std::uint64_t offset, Bytes data);
  static Task<Result<Unit>> write_piece(Self self, std::uint64_t offset, ByteView data);
  static Task<Result<Unit>> load_buffer(Self self, std::uint64_t block);
  static Task<Result<Unit>> relieve(Self self);
  static Task<Result<Unit>> truncate(Self self, std::uint64_t to);
  static Task<Result<Unit>> ensure_path(Self self, std::uint64_t last_block);
  void cut_tree(std::uint64_t to);
  void grow_tree(std::uint64_t to);

  // Sending
  static Task<Unit> send(Self self, BlockName name, SharedBytes bytes, BlockUse use = BlockUse::kKept);
  static Task<Unit> put_one(Self self, BlockName name, SharedBytes bytes, bool sync);
  static Task<Result<Unit>> send_buffer(Self self, std::uint64_t block);
  static Task<Result<Unit>> send_buffers(Self self);
  static Task<Result<Unit>> send_nodes(Self self);
  static Task<Unit> send_failed(Self self);
  static Task<Result<Unit>> sync_set(Self self, BlockSet blocks);
  static Task<Result<Unit>> sync_blocks(Self self);
  static Task<Result<Unit>> sync_tree(Self self, NodeName at, Digest256 hash);
  static Task<Result<Unit>> seal(Self self, Entry* entry, bool sync);
  static Task<Result<Unit>> seal_inline(Self self, Entry* entry);
  static Task<Result<Unit>> seal_tree(Self self, Entry* entry);
  std::size_t failed() const;
  void note_unsynced(const BlockName& name);
};

// --- reading ---

Task<Result<SharedBytes>> FileContent::Impl::fetch(Self self, BlockName name, BlockUse use) {
  const auto sent = self->sending.find(name);
  if (sent != self->sending.end()) co_return sent->second.bytes;
  auto cached = self->cache.find(name.second);
  if (cached != nullptr) co_return cached;
  const auto under_way = self->fetching.find(name);
  if (under_way != self->fetching.end()) {
    Promise<Result<SharedBytes>> mine;
    under_way->second.push_back(mine);
    auto shared = co_await mine;
    co_return shared;
  }
  self->fetching.emplace(name, FetchWaiters{});
  auto got = co_await self->client.get_block(self->key_of(name));
  if (got && (*got == nullptr || (*got)->size() > kBlockBytes)) {
    got = fail(Errc::kCorrupt, "block " + to_hex(kinfs::view_of(name.second)) + " is larger than blocks are");
  }
  if (got) self->cache.insert(name.second, *got, use);
  const auto at = self->fetching.find(name);
  const FetchWaiters waiters = std::move(at->second);
  self->fetching.erase(at);
  for (const auto& waiter : waiters) waiter.set(got);
  co_return got;
}

/// Afterwards, until something is awaited, nodes[name] is there.
Task<Result<Unit>> FileContent::Impl::ensure_node(Self self, NodeName name) {
  for (;;) {
    const auto at = self->nodes.find(name);
    if (at != self->nodes.end()) {
      at->second.used = ++self->clock;
      co_return Unit{};
    }
    auto hash = co_await hash_of(self, name);
    if (!hash) co_return pass(std::move(hash));
    Node node;
    if (*hash != kHole) {
      auto bytes = co_await fetch(self, BlockName{span_of(name.first, name.second), *hash});
      if (!bytes) co_return pass(std::move(bytes));
      auto decoded = decode_node(**bytes);
      if (!decoded) co_return pass(std::move(decoded));
      node = std::move(*decoded);
      // A write or truncate may have changed the tree meanwhile.
      auto now = co_await hash_of(self, name);
      if (!now) co_return pass(std::move(now));
      if (*now != *hash) continue;
    }
    self->nodes.try_emplace(name, std::move(node));
    self->drop_clean_nodes(name);
  }
}

/// What the parent says: a hole where the tree does not reach.
Task<Result<Digest256>> FileContent::Impl::hash_of(Self self, NodeName name) {
  if (name.first > self->height) co_return kHole;
  if (name.first == self->height) co_return name.second == 0 ? self->root : kHole;
  const NodeName parent{static_cast<std::uint8_t>(name.first + 1), name.second / kFanOut};
  auto ok = co_await ensure_node(self, parent);
  if (!ok) co_return pass(std::move(ok));
  co_return self->nodes.at(parent).children[name.second % kFanOut];
}

void FileContent::Impl::drop_clean_nodes(const NodeName& keep) {
  while (nodes.size() > kMaxNodes) {
    auto oldest = nodes.end();
    for (auto it = nodes.begin(); it != nodes.end(); ++it) {
      if (it->second.dirty || it->first == keep) continue;
      if (oldest == nodes.end() || it->second.used < oldest->second.used) oldest = it;
    }
    if (oldest == nodes.end()) return;
    nodes.erase(oldest);
  }
}

Task<Result<Bytes>> FileContent::Impl::read_piece(Self self, std::uint64_t block, std::size_t from,
                                                  std::size_t length) {
  Digest256 hash = kHole;
  if (!self->buffers.contains(block)) {
    auto found = co_await hash_of(self, NodeName{0, block});
    if (!found) co_return pass(std::move(found));
    hash = *found;
  }
  const auto buffer = self->buffers.find(block);  // again: a write may have come while the tree was read
  if (buffer != self->buffers.end()) co_return piece_of(buffer->second.bytes, from, length);
  if (hash == kHole) co_return Bytes(length, '\0');
  auto bytes = co_await fetch(self, BlockName{span_of(0, block), hash});
  if (!bytes) co_return pass(std::move(bytes));
  co_return piece_of(**bytes, from, length);
}

Task<Result<Bytes>> FileContent::Impl::read(Self self, std::uint64_t offset, std::size_t length) {
  if (offset >= self->size) co_return Bytes{};
  const std::uint64_t end = offset + std::min<std::uint64_t>(length, self->size - offset);
  self->start_read_ahead(self, offset, end);
  Bytes out;
  while (offset < end) {
    std::vector<Task<Result<Bytes>>> pieces;
    while (offset < end && pieces.size() < kBlocksInFlight) {
      const std::size_t from = offset % kBlockBytes;
      const auto take = std::min<std::uint64_t>(kBlockBytes - from, end - offset);
      pieces.push_back(read_piece(self, offset / kBlockBytes, from, take));
      offset += take;
    }
    auto got = co_await when_all(std::move(pieces));
    for (auto& piece : got) {
      if (!piece) co_return pass(std::move(piece));
      if (out.empty()) {
        out = std::move(*piece);
      } else {
        out.append(*piece);
      }
    }
  }
  co_return out;
}

void FileContent::Impl::start_read_ahead(const Self& self, std::uint64_t offset, std::uint64_t end) {
  // The kernel has several under way when it reads ahead itself, and they come in any order.
  const auto near = kReadersAtOnce * (end - offset);
  const bool sequential = offset > 0 && next_read > 0 && offset <= next_read + near && next_read <= end + near;
  next_read = sequential ? std::max(next_read, end) : end;
  if (!sequential) {
    fetched_ahead = 0;
    return;
  }
  const auto after = blocks_in(next_read);
  const auto from = std::max(after, fetched_ahead);
  const auto to = std::min(after + kReadAheadBlocks, blocks_in(size));
  // By halves, so that a reader of small pieces does not start one block at a time.
  if (from >= to || (from > after && to - from < kReadAheadBlocks / 2 && to != blocks_in(size))) return;
  fetched_ahead = to;
  spawn(read_ahead(self, from, to));
}

Task<Unit> FileContent::Impl::read_ahead(Self self, std::uint64_t from, std::uint64_t to) {
  for (auto block = from; block < to; ++block) {
    if (self->buffers.contains(block)) continue;
    const auto hash = co_await hash_of(self, NodeName{0, block});
    if (!hash) break;  // whoever reads it is told
    if (*hash != kHole) spawn(fetch(self, BlockName{span_of(0, block), *hash}, BlockUse::kStreamed));
  }
  co_return Unit{};
}

// --- writing ---

void FileContent::Impl::grow_tree(std::uint64_t to) {
  const auto level = tree_level(to);
  while (height < level) {
    ++height;
    if (root == kHole) continue;
    Node& top = nodes[NodeName{height, 0}];
    top.children[0] = root;
    top.dirty = true;
    top.used = ++clock;
    root = kHole;
  }
}

Task<Result<Unit>> FileContent::Impl::load_buffer(Self self, std::uint64_t block) {
  Bytes bytes;
  auto hash = co_await hash_of(self, NodeName{0, block});
  if (!hash) co_return pass(std::move(hash));
  if (*hash != kHole) {
    auto stored = co_await fetch(self, BlockName{span_of(0, block), *hash});
    if (!stored) co_return pass(std::move(stored));
    bytes = **stored;
  }
  self->buffers[block] = Buffer{std::move(bytes), ++self->clock, true};
  co_return Unit{};
}

Task<Result<Unit>> FileContent::Impl::write_piece(Self self, std::uint64_t offset, ByteView data) {
  const auto block = offset / kBlockBytes;
  const std::size_t from = offset % kBlockBytes;
  const auto start = offset - from;
  const auto end = offset + data.size();
  const bool replaces_all = from == 0 && (data.size() == kBlockBytes || end >= self->size);
  if (!self->buffers.contains(block) && start < self->size && !replaces_all) {
    auto loaded = co_await load_buffer(self, block);
    if (!loaded) co_return loaded;
  }
  auto& buffer = self->buffers[block];
  if (buffer.bytes.size() < from) buffer.bytes.resize(from);
  buffer.bytes.replace(from, data.size(), data);
  buffer.used = ++self->clock;
  self->dirty = true;
  if (end > self->size) {
    self->grow_tree(end);
    self->size = end;
  }
  if (from + data.size() < kBlockBytes) co_return Unit{};
  auto sent = co_await send_buffer(self, block);  // writing moves on
  if (!sent && self->buffers.size() > 2 * kMaxBuffers) co_return sent;
  co_return Unit{};
}

Task<Result<Unit>> FileContent::Impl::write(Self self, std::uint64_t offset, Bytes data) {
  if (offset > kMaxFileBytes || data.size() > kMaxFileBytes - offset) {
    co_return fail(Errc::kTooLarge, "a file has at most " + std::to_string(kMaxFileBytes) + " bytes");
  }
  if (self->failed() >= kBlocksInFlight) {
    co_await send_failed(self);
    if (self->failed() >= kBlocksInFlight) co_return tl::unexpected<Error>(*self->send_error);
  }
  for (std::size_t at = 0; at < data.size();) {
    const auto take = std::min<std::size_t>(kBlockBytes - (offset + at) % kBlockBytes, data.size() - at);
    auto ok = co_await write_piece(self, offset + at, ByteView(data).substr(at, take));
    if (!ok) co_return ok;
    at += take;
  }
  auto relieved = co_await relieve(self);
  co_return relieved;
}

/// Keeps to the bounds on what is held.
Task<Result<Unit>> FileContent::Impl::relieve(Self self) {
  while (self->buffers.size() > kMaxBuffers) {
    const auto oldest = std::min_element(self->buffers.begin(), self->buffers.end(),
                                         [](const auto& a, const auto& b) { return a.second.used < b.second.used; });
    auto sent = co_await send_buffer(self, oldest->first);
    if (sent) continue;
    if (self->buffers.size() > 2 * kMaxBuffers) co_return sent;
    break;  // its place in the tree cannot be read now: seal() tries again
  }
  const auto dirty_nodes =
      std::count_if(self->nodes.begin(), self->nodes.end(), [](const auto& n) { return n.second.dirty; });
  if (static_cast<std::size_t>(dirty_nodes) > kMaxDirtyNodes) {
    auto sent = co_await send_nodes(self);
    if (!sent) co_return sent;
  }
  co_return Unit{};
}

/// All nodes above `last_block` are in memory afterwards, until something is awaited.
Task<Result<Unit>> FileContent::Impl::ensure_path(Self self, std::uint64_t last_block) {
  for (bool all_there = false; !all_there;) {
    all_there = true;
    std::uint64_t index = last_block;
    for (std::uint8_t level = 1; level <= self->height; ++level) {
      index /= kFanOut;
      all_there = all_there && self->nodes.contains(NodeName{level, index});
      auto ok = co_await ensure_node(self, NodeName{level, index});
      if (!ok) co_return ok;
    }
  }
  co_return Unit{};
}

Task<Result<Unit>> FileContent::Impl::truncate(Self self, std::uint64_t to) {
  if (to > kMaxFileBytes) {
    co_return fail(Errc::kTooLarge, "a file has at most " + std::to_string(kMaxFileBytes) + " bytes");
  }
  if (to == self->size) co_return Unit{};
  if (to > self->size) {
    self->grow_tree(to);
  } else if (to == 0) {
    self->nodes.clear();
    self->buffers.clear();
    self->unsynced.clear();  // nothing names them any more
    self->root = kHole;
    self->height = 0;
  } else {
    const auto last = (to - 1) / kBlockBytes;
    const std::size_t rest = to % kBlockBytes;
    if (rest != 0 && !self->buffers.contains(last)) {
      auto loaded = co_await load_buffer(self, last);
      if (!loaded) co_return loaded;
    }
    auto path = co_await ensure_path(self, last);
    if (!path) co_return path;
    const auto buffer = self->buffers.find(last);
    if (rest != 0 && buffer->second.bytes.size() > rest) buffer->second.bytes.resize(rest);
    self->cut_tree(to);
  }
  self->size = to;
  self->dirty = true;
  co_return Unit{};
}

/// Makes holes of all blocks from `to` on; the path to the last block that stays is in memory.
void FileContent::Impl::cut_tree(std::uint64_t to) {
  std::uint64_t index = (to - 1) / kBlockBytes;
  buffers.erase(buffers.upper_bound(index), buffers.end());
  for (std::uint8_t level = 1; level <= height; ++level) {
    const auto last_child = index % kFanOut;
    index /= kFanOut;
    Node& node = nodes.at(NodeName{level, index});
    for (auto child = last_child + 1; child < kFanOut; ++child) {
      if (node.children[child] == kHole) continue;
      node.children[child] = kHole;
      node.dirty = true;
    }
    nodes.erase(nodes.upper_bound(NodeName{level, index}), nodes.lower_bound(NodeName{level + 1, 0}));
  }
  for (const auto level = tree_level(to); height > level; --height) {
    const auto top = nodes.find(NodeName{height, 0});
    root = top->second.children[0];
    nodes.erase(top);
  }
}

// --- sending ---

std::size_t FileContent::Impl::failed() const {
  return static_cast<std::size_t>(
      std::count_if(sending.begin(), sending.end(), [](const auto& s) { return s.second.failed; }));
}

void FileContent::Impl::note_unsynced(const BlockName& name) {
  unsynced.insert(name);
  if (unsynced.size() <= kMaxUnsynced) return;
  unsynced.clear();
  unsynced_below = true;
}

Task<Unit> FileContent::Impl::put_one(Self self, BlockName name, SharedBytes bytes, bool sync) {
  auto done = co_await self->client.put_block(self->key_of(name), bytes, PutOptions{sync});
  const auto at = self->sending.find(name);
  if (done) {
    self->cache.insert(name.second, bytes, at == self->sending.end() ? BlockUse::kKept : at->second.use);
    if (sync) {
      self->unsynced.erase(name);
    } else {
      self->note_unsynced(name);
    }
    if (at != self->sending.end()) self->sending.erase(at);
  } else {
    self->send_error = done.error();
    if (at != self->sending.end()) at->second.failed = true;
  }
  self->cache.slots.release();
  self->slots.release();
  co_return Unit{};
}

/// Returns when the block is on its way. The caller has put its hash into the tree.
Task<Unit> FileContent::Impl::send(Self self, BlockName name, SharedBytes bytes, BlockUse use) {
  const auto at = self->sending.find(name);
  if (at != self->sending.end() && !at->second.failed) co_return Unit{};
  self->sending[name] = Sending{bytes, use};
  co_await self->slots.acquire();
  co_await self->cache.slots.acquire();
  spawn(put_one(self, name, bytes, self->send_synced));
  co_return Unit{};
}

Task<Result<Unit>> FileContent::Impl::send_buffer(Self self, std::uint64_t block) {
  const NodeName parent{1, block / kFanOut};
  if (self->height > 0) {
    auto ok = co_await ensure_node(self, parent);
    if (!ok) co_return ok;
  }
  const auto at = self->buffers.find(block);
  if (at == self->buffers.end()) co_return Unit{};
  Bytes bytes = std::move(at->second.bytes);
  const bool whole = !at->second.loaded && bytes.size() == kBlockBytes;
  const auto use = whole ? BlockUse::kStreamed : BlockUse::kKept;
  self->buffers.erase(at);
  trim_zeros(bytes);
  const Digest256 hash = bytes.empty() ? kHole : sha256(bytes);
  if (self->height == 0) {
    self->root = hash;
  } else {
    Node& node = self->nodes.at(parent);
    node.dirty = node.dirty || node.children[block % kFanOut] != hash;
    node.children[block % kFanOut] = hash;
  }
  if (hash != kHole) co_await send(self, BlockName{span_of(0, block), hash}, share(std::move(bytes)), use);
  co_return Unit{};
}

Task<Result<Unit>> FileContent::Impl::send_buffers(Self self) {
  std::vector<std::uint64_t> blocks;
  for (const auto& buffer : self->buffers) blocks.push_back(buffer.first);
  for (const auto block : blocks) {
    auto sent = co_await send_buffer(self, block);
    if (!sent) co_return sent;
  }
  co_return Unit{};
}

/// Bottom up: each node's hash goes into its parent, the top's into `root`.
Task<Result<Unit>> FileContent::Impl::send_nodes(Self self) {
  for (std::uint8_t level = 1; level <= self->height; ++level) {
    std::vector<std::uint64_t> indexes;
    for (auto it = self->nodes.lower_bound(NodeName{level, 0}); it != self->nodes.end() && it->first.first == level;
         ++it) {
      if (it->second.dirty) indexes.push_back(it->first.second);
    }
    for (const auto index : indexes) {
      const NodeName name{level, index};
      const NodeName parent{static_cast<std::uint8_t>(level + 1), index / kFanOut};
      if (level < self->height) {
        auto ok = co_await ensure_node(self, parent);
        if (!ok) co_return ok;
      }
      Node& node = self->nodes.at(name);  // dirty ones are never dropped
      Bytes bytes = encode_node(node);
      const Digest256 hash = bytes.empty() ? kHole : sha256(bytes);
      node.dirty = false;
      if (level == self->height) {
        self->root = hash;
      } else {
        Node& above = self->nodes.at(parent);
        above.dirty = above.dirty || above.children[index % kFanOut] != hash;
        above.children[index % kFanOut] = hash;
      }
      if (hash != kHole) co_await send(self, BlockName{span_of(level, index), hash}, share(std::move(bytes)));
    }
  }
  co_return Unit{};
}

/// Once more, and waits for all that is under way.
Task<Unit> FileContent::Impl::send_failed(Self self) {
  self->send_error.reset();
  std::vector<std::pair<BlockName, SharedBytes>> again;
  for (const auto& [name, block] : self->sending) {
    if (block.failed) again.emplace_back(name, block.bytes);
  }
  for (const auto& [name, bytes] : again) co_await send(self, name, bytes);
  co_await self->slots.drained();
  co_return Unit{};
}

/// What was streamed is where it belongs already, and only syncs there; it travels once more where that cannot be said.
Task<Result<Unit>> FileContent::Impl::sync_set(Self self, BlockSet blocks) {
  const auto synced = co_await self->client.sync_blocks(blocks);
  if (!synced) co_return tl::unexpected<Error>(synced.error());
  for (const auto& hash : blocks.hashes) {
    const BlockName name{blocks.span, hash};
    if (*synced) {
      self->unsynced.erase(name);
      continue;
    }
    auto bytes = co_await fetch(self, name);
    if (!bytes) co_return pass(std::move(bytes));
    const SharedBytes block = *bytes;
    co_await send(self, name, block);
    // What failed is kept in memory, and must not become the whole file.
    if (self->failed() > 0) co_return tl::unexpected<Error>(*self->send_error);
  }
  co_return Unit{};
}

Task<Result<Unit>> FileContent::Impl::sync_blocks(Self self) {
  std::vector<Task<Result<Unit>>> tasks;
  BlockSet set{self->volume, self->file_id, 0, {}};
  for (auto it = self->unsynced.begin(); it != self->unsynced.end();) {
    set.span = it->first;
    set.hashes.push_back(it->second);
    ++it;
    const bool last = it == self->unsynced.end() || it->first != set.span || set.hashes.size() == kMaxBlocksOfSet;
    if (!last) continue;
    tasks.push_back(sync_set(self, set));
    set.hashes.clear();
  }
  auto results = co_await when_all(std::move(tasks));
  co_await self->slots.drained();
  for (auto& result : results) {
    if (!result) co_return pass(std::move(result));
  }
  co_return Unit{};
}

/// All that is below `at`, once: somebody wrote it without asking for fsync, and which replicas have it is not known.
Task<Result<Unit>> FileContent::Impl::sync_tree(Self self, NodeName at, Digest256 hash) {
  if (hash == kHole) co_return Unit{};
  const BlockName name{span_of(at.first, at.second), hash};
  BlockSet set{self->volume, self->file_id, name.first, {hash}};
  std::vector<Digest256> children;
  if (at.first > 0) {
    auto bytes = co_await fetch(self, name);
    if (!bytes) co_return pass(std::move(bytes));
    auto node = decode_node(**bytes);
    if (!node) co_return pass(std::move(node));
    children = std::move(node->children);
  }
  if (at.first == 1) {  // these lie in the span of their node
    std::copy_if(children.begin(), children.end(), std::back_inserter(set.hashes),
                 [](const Digest256& h) { return h != kHole; });
    children.clear();
  }
  auto synced = co_await sync_set(self, std::move(set));
  if (!synced) co_return synced;
  for (std::size_t i = 0; i < children.size(); ++i) {
    const NodeName child{static_cast<std::uint8_t>(at.first - 1), at.second * kFanOut + i};
    auto below = co_await sync_tree(self, child, children[i]);
    if (!below) co_return below;
  }
  co_return Unit{};
}

Task<Result<Unit>> FileContent::Impl::seal_tree(Self self, Entry* entry) {
  co_await send_failed(self);
  auto sent = co_await send_buffers(self);
  if (sent) sent = co_await send_nodes(self);
  if (!sent) co_return sent;
  co_await self->slots.drained();
  if (self->failed() > 0) co_return tl::unexpected<Error>(*self->send_error);
  if (self->send_synced) {
    if (self->unsynced_below) {
      auto below = co_await sync_tree(self, NodeName{self->height, 0}, self->root);
      if (!below) co_return below;
    }
    auto synced = co_await sync_blocks(self);
    if (!synced) co_return synced;
    if (self->failed() > 0) co_return tl::unexpected<Error>(*self->send_error);
    self->unsynced_below = false;
  }
  entry->blocks_synced = self->send_synced;
  entry->content.clear();
  entry->root = TreeRoot{self->height, self->root};
  co_return Unit{};
}

Task<Result<Unit>> FileContent::Impl::seal_inline(Self self, Entry* entry) {
  auto content = co_await read_piece(self, 0, 0, self->size);
  if (!content) co_return pass(std::move(content));
  // Nothing names the blocks that were sent before the file became small: whether they arrived does not matter.
  co_await self->slots.drained();
  std::erase_if(self->sending, [&](const auto& s) { return s.second.failed && s.first.second != self->root; });
  entry->content = std::move(*content);
  entry->root.reset();
  entry->blocks_synced = false;
  co_return Unit{};
}

Task<Result<Unit>> FileContent::Impl::seal(Self self, Entry* entry, bool sync) {
  const bool is_inline = self->size <= kInlineBytes;
  // What is sent from here on is the rest: synced at once. What was streamed before follows in sets.
  self->send_synced = sync;
  auto sealing = is_inline ? seal_inline(self, entry) : seal_tree(self, entry);
  auto sealed = co_await sealing;
  self->send_synced = false;
  if (!sealed) co_return sealed;
  entry->size = self->size;
  self->dirty = false;
  co_return Unit{};
}

// --- the handle ---

FileContent::FileContent(Client& client, BlockCache& cache, VolumeId volume, const Entry& entry)
    : impl_(std::make_shared<Impl>(client, cache, volume)) {
  impl_->file_id = Bytes(kinfs::view_of(entry.file_id));
  impl_->size = entry.size;
  if (entry.root) {
    impl_->height = entry.root->level;
    impl_->root = entry.root->hash;
    impl_->unsynced_below = !entry.blocks_synced;
  } else if (!entry.content.empty()) {
    impl_->buffers[0] = Buffer{entry.content, 0};
  }
}

FileContent::~FileContent() = default;

std::uint64_t FileContent::size() const { return impl_->size; }
bool FileContent::dirty() const { return impl_->dirty; }

Task<Result<Bytes>> FileContent::read(std::uint64_t offset, std::size_t length) {
  return Impl::read(impl_, offset, length);
}
Task<Result<Unit>> FileContent::write(std::uint64_t offset, Bytes data) {
  return Impl::write(impl_, offset, std::move(data));
}
Task<Result<Unit>> FileContent::truncate(std::uint64_t size) { return Impl::truncate(impl_, size); }
Task<Result<Unit>> FileContent::seal(Entry& entry, bool sync) { return Impl::seal(impl_, &entry, sync); }

Task<Result<Unit>> FileContent::send_written() {
  if (impl_->size <= kInlineBytes) co_return Unit{};
  co_return co_await Impl::send_buffers(impl_);
}

std::size_t FileContent::written_bytes() const {
  std::size_t written = 0;
  for (const auto& buffer : impl_->buffers) written += buffer.second.bytes.capacity();
  return written;
}

std::size_t FileContent::held_bytes() const {
  std::size_t held = written_bytes() + impl_->nodes.size() * kFanOut * kHashBytes;
  for (const auto& block : impl_->sending) held += block.second.bytes->size();
  return held;
}

}  // namespace kinfs::fs
