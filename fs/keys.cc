// Directories and names to keys and numbers. All of it is on disk: nothing here may ever change.
//
// Ids come from SHA-256, not from MD5: names are chosen by users, and two directories with one id would be one.
#include "fs/keys.h"

namespace kinfs::fs {
namespace {

// First words of what is hashed, so that equal fields of different kinds give different numbers.
constexpr std::uint64_t kForDirectory = 1;
constexpr std::uint64_t kForFile = 2;
constexpr std::uint64_t kForName = 3;
constexpr std::uint64_t kForDirectoryNode = 4;
constexpr std::uint64_t kForFileNode = 5;
constexpr std::uint64_t kForRoot = 6;

constexpr char kDirectoryPrefix = 'd';  // of partition keys; other kinds of partitions get letters of their own

Digest128 id_of(const CanonicalWriter& w) { return short_sha256(w.out()); }

std::uint64_t number_of(const CanonicalWriter& w) {
  const Digest256 full = sha256(w.out());
  return read_be64(view_of(full)) >> 1;
}

std::uint64_t as_node_id(std::uint64_t number) { return number <= kRootNode ? number + 2 : number; }

}  // namespace

DirectoryId root_directory() {
  CanonicalWriter w;
  return id_of(w.u64(kForRoot));
}

DirectoryId directory_id(const DirectoryId& parent, std::string_view name, std::uint64_t generation) {
  CanonicalWriter w;
  return id_of(w.u64(kForDirectory).bytes(view_of(parent)).bytes(name).u64(generation));
}

FileId file_id(const EventId& created_by) {
  CanonicalWriter w;
  w.u64(kForFile).u64(static_cast<std::uint64_t>(created_by.client)).u64(created_by.boot).u64(created_by.sequence);
  return id_of(w);
}

std::uint64_t name_hash(std::string_view name) {
  CanonicalWriter w;
  const std::uint64_t hash = number_of(w.u64(kForName).bytes(name)) >> kCookieBits << kCookieBits;
  return hash == 0 ? 1ull << kCookieBits : hash;  // cookies below are those of "." and ".."
}

Bytes sort_key(std::string_view name) {
  Bytes out;
  if (name.empty()) return out;  // the directory's own row
  out.reserve(8 + name.size());
  append_be64(out, name_hash(name));
  out.append(name);
  return out;
}

std::string_view name_of(ByteView sort_key) { return sort_key.size() <= 8 ? ByteView{} : sort_key.substr(8); }

Bytes partition_key(const DirectoryId& directory) {
  Bytes out(1, kDirectoryPrefix);
  out.append(view_of(directory));
  return out;
}

std::uint64_t node_id(const DirectoryId& directory) {
  if (directory == root_directory()) return kRootNode;
  CanonicalWriter w;
  return as_node_id(number_of(w.u64(kForDirectoryNode).bytes(view_of(directory))));
}

std::uint64_t node_id(const FileId& file, const EventId* branch) {
  CanonicalWriter w;
  w.u64(kForFileNode).bytes(view_of(file));
  if (branch != nullptr) w.u64(static_cast<std::uint64_t>(branch->client)).u64(branch->boot).u64(branch->sequence);
  return as_node_id(number_of(w));
}

}  // namespace kinfs::fs
