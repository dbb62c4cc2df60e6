// Paths to keys: how directories and names become partition keys and sort keys, and both become numbers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "fs/entry.h"

namespace kinfs::fs {

/// The low bits of a name's hash, zero in the key: they tell apart names that collide and a row's siblings, in
/// readdir's cookies.
inline constexpr unsigned kCookieBits = 8;

DirectoryId root_directory();
DirectoryId directory_id(const DirectoryId& parent, std::string_view name, std::uint64_t generation);
FileId file_id(const EventId& created_by);

/// 63 bits, the lowest kCookieBits zero.
std::uint64_t name_hash(std::string_view name);
/// be64(name_hash) + name.
Bytes sort_key(std::string_view name);
/// The name in a sort key; empty for the directory's own row.
std::string_view name_of(ByteView sort_key);
Bytes partition_key(const DirectoryId& directory);

/// Node ids, which are st_ino too: 63 bits, never 0 or 1 (1 is the root's). Stable functions of the file, so that a
/// process that takes a mount over finds the same ones.
std::uint64_t node_id(const DirectoryId& directory);
/// `branch`: nullptr for the undiverged number.
std::uint64_t node_id(const FileId& file, const EventId* branch);
inline constexpr std::uint64_t kRootNode = 1;

}  // namespace kinfs::fs
