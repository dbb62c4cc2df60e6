// What a row of a directory says: the whole file, as a value.
//
// The bytes are protobuf (format.proto, append-only). Equality and lineage go by content_digest(), over a
// canonical encoding that leaves the branch out, so that two hosts that write the same bytes do not conflict.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "storage/bytes.h"
#include "storage/result.h"
#include "storage/version.h"

namespace kinfs::fs {

using FileId = Digest128;       // of the event that created the file
using DirectoryId = Digest128;  // hash(parent id, name, generation); see keys.h

// Most source files, and what editors save, fit: without a block of their own they are written in one wait instead of
// two (of 8,965 headers 1,142 lie between 8 and 16 KiB; a save of 16 KiB takes 4.6 ms instead of 5.5).
inline constexpr std::size_t kInlineBytes = 16 << 10;  // content up to this size lies in the row
inline constexpr std::size_t kBlockBytes = 256 << 10;  // what a data block covers; stored without its trailing zeros
inline constexpr std::size_t kFanOut = 256;            // children of a node block: a level-1 node covers one span
inline constexpr std::uint64_t kMaxFileBytes = 1ull << 50;

enum class FileType : std::uint8_t { kRegular = 1, kDirectory = 2, kSymlink = 3, kFifo = 4, kSocket = 5 };

/// The root of a tree of blocks: level 0 is one data block, level n covers kFanOut^n of them. An all-zero hash is
/// a hole.
struct TreeRoot {
  std::uint8_t level = 0;
  Digest256 hash{};
  bool operator==(const TreeRoot&) const = default;
};

/// The level of the tree of a file of `size` bytes, the least that covers it: equal bytes have one root.
std::uint8_t tree_level(std::uint64_t size);

/// Which line of concurrent versions this one continues; set when a version that was shown beside others is written
/// over, so that editing a sibling does not rename it.
struct Branch {
  EventId event;  // the first event of the branch
  Hlc hlc;
  std::string host;
  /// The newest ancestor that it shared with another branch when it was shown; all zero when there is none. Lineages
  /// are cut, and without it the first event of the *other* branch could not be told once this one's has no fork.
  EventId base{};
  /// The plain name was removed and this one left under its sibling's name: it stays there, whoever writes to it.
  bool left = false;
  bool operator==(const Branch&) const = default;
};

struct Entry {
  FileType type = FileType::kRegular;
  std::uint32_t mode = 0;  // permission bits, 07777
  std::uint32_t uid = 0, gid = 0;
  std::int64_t mtime_ns = 0;
  std::int64_t atime_ns = 0;  // as set by utimes; reading does not change it
  std::uint64_t size = 0;
  FileId file_id{};
  Bytes content;                 // inline, size bytes; or the target of a symlink
  std::optional<TreeRoot> root;  // else, when content does not hold it
  DirectoryId directory_id{};    // type kDirectory: the only field that counts, with the generation
  std::uint64_t generation = 0;
  std::optional<Branch> branch;
  bool blocks_synced = false;  // each block below the root was fsynced at W before this was put
  bool operator==(const Entry&) const = default;
};

/// Row (directory id, ""): what a directory is apart from its entries.
struct DirectoryAttributes {
  std::uint32_t mode = 0755;
  std::uint32_t uid = 0, gid = 0;
  std::int64_t mtime_ns = 0;
  Hlc mtime_set;            // when mtime_ns was set by hand: it holds until the partition changes after that
  Hlc mode_set, owner_set;  // for merging field by field: the later one holds
  bool operator==(const DirectoryAttributes&) const = default;
};

/// The value of a tombstone: what the writer did, and which versions it left standing on purpose.
struct Marker {
  std::optional<std::string> moved_to;  // name in the same directory, or empty for elsewhere
  std::vector<EventId> left;            // first events of the branches whose siblings stay under their own names
  std::vector<Dot> left_dots;           // and their dots at that time
  std::uint64_t generation = 0;         // the greatest directory generation ever seen in this row
  bool operator==(const Marker&) const = default;
};

Bytes encode(const Entry& entry);
Bytes encode(const DirectoryAttributes& attributes);
Bytes encode(const Marker& marker);
/// kCorrupt, in words, for anything that encode() does not make; kFormat for fields of a later version.
Result<Entry> decode_entry(ByteView bytes);
Result<DirectoryAttributes> decode_attributes(ByteView bytes);
Result<Marker> decode_marker(ByteView bytes);

/// Of what a reader of the file would see, attributes and branch left out: type, size, content or root, target.
Digest256 content_digest(const Entry& entry);

/// Attributes of all live versions of row (id, ""), merged field by field, last writer wins.
DirectoryAttributes merge_attributes(const Row& row);

}  // namespace kinfs::fs
