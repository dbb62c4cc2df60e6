// Listings. See filesystem.h.
//
// A cookie is the hash of the name's row with an ordinal in its low bits, which counts the names that have this hash:
// a row's siblings, and rows that collide. So a listing that goes on from a cookie neither skips nor repeats what was
// there all along, whatever else has come or gone. Of one hash at most 256 names are listed.
#include <algorithm>

#include "fs/filesystem.h"
#include "fs/keys.h"

namespace kinfs::fs {
namespace {

constexpr std::uint64_t kDotCookie = 1;
constexpr std::uint64_t kDotDotCookie = 2;
constexpr std::uint64_t kOrdinalMask = (1ull << kCookieBits) - 1;
constexpr std::uint64_t kLastCookie = (1ull << 63) - 1;
constexpr std::size_t kDirentBytes = 24;        // fuse_dirent without the name
constexpr std::size_t kDirentPlusBytes = 152;   // fuse_direntplus without the name

std::size_t reply_bytes(const std::string& name, bool with_attributes) {
  return ((with_attributes ? kDirentPlusBytes : kDirentBytes) + name.size() + 7) / 8 * 8;
}

}  // namespace

Result<std::uint64_t> Filesystem::opendir(std::uint64_t node) {
  auto directory = directory_of(node);
  if (!directory) return pass(std::move(directory));
  DirectoryHandle handle;
  handle.node = node;
  handle.directory = *directory;
  const auto number = next_handle_++;
  directory_handles_.emplace(number, std::move(handle));
  return number;
}

void Filesystem::releasedir(std::uint64_t handle) { directory_handles_.erase(handle); }

/// Fills the handle's page with the names of `page` and of files that are only here, numbered.
void Filesystem::number_page(DirectoryHandle& handle, const DirectoryPage& page, std::uint64_t from) {
  auto rows = page.rows;
  handle.next = page.next;
  handle.at_end = page.complete;
  if (!page.complete && !rows.empty()) {
    // The last hash may have more names on the next page: they are numbered together there.
    const auto last = name_hash(rows.back().first);
    const auto cut = std::find_if(rows.begin(), rows.end(), [&](const auto& r) { return name_hash(r.first) == last; });
    if (cut != rows.begin()) {
      rows.erase(cut, rows.end());
      handle.next.clear();
      append_be64(handle.next, last);
    }
  }
  handle.page.clear();
  handle.page_from = from;
  handle.page_to = handle.at_end || rows.empty() ? kLastCookie : name_hash(rows.back().first) | kOrdinalMask;
  std::vector<Pending> names;
  for (const auto& [name, row] : rows) {
    const RowId at{handle.directory, name};
    const auto own = attached_at(at, name);
    for (const auto& shown : row->view.names) {
      if (shown.plain && own && own->created()) continue;
      names.push_back(Pending{shown.name, name_hash(name), at, row, shown.name, 0});
    }
  }
  const auto lowest = from & ~kOrdinalMask;
  for (auto it = attached_.lower_bound(RowId{handle.directory, ""});
       it != attached_.end() && it->first.directory == handle.directory; ++it) {
    const auto& file = *it->second;
    const auto hash = name_hash(file.at.name);
    if (!file.created() || hash < lowest || hash > handle.page_to) continue;
    names.push_back(Pending{file.name, hash, file.at, nullptr, file.name, file.node});
  }
  std::sort(names.begin(), names.end(), [](const Pending& a, const Pending& b) {
    return std::tie(a.cookie, a.at.name, a.name) < std::tie(b.cookie, b.at.name, b.name);
  });
  std::uint64_t hash = 0;
  std::uint64_t ordinal = 0;
  for (auto& name : names) {
    ordinal = name.cookie == hash ? ordinal + 1 : 0;
    hash = name.cookie;
    if (ordinal > kOrdinalMask) continue;
    name.cookie |= ordinal;
    handle.page.push_back(std::move(name));
  }
}

Task<Result<Unit>> Filesystem::fill_page(std::uint64_t number, std::uint64_t cookie) {
  auto it = directory_handles_.find(number);
  if (it == directory_handles_.end()) co_return fail(Errc::kInvalid, "no such handle");
  const DirectoryId directory = it->second.directory;
  Bytes from;
  std::int64_t listing_ms = 0;  // not the whole pass was seen: it makes nothing known
  if (cookie <= kDotDotCookie) {
    listing_ms = env_.mono_ms();
  } else if (cookie == it->second.page_to && !it->second.next.empty()) {
    from = it->second.next;
    listing_ms = it->second.listing_ms;
  } else {
    append_be64(from, cookie & ~kOrdinalMask);
  }
  auto page = co_await ns_.scan(directory, std::move(from), listing_ms);
  if (!page) co_return pass(std::move(page));
  it = directory_handles_.find(number);
  if (it == directory_handles_.end()) co_return fail(Errc::kInvalid, "no such handle");
  it->second.listing_ms = listing_ms;
  number_page(it->second, *page, cookie <= kDotDotCookie ? 0 : cookie);
  co_return Unit{};
}

Task<Result<Found>> Filesystem::listed(DirectoryId directory, Pending pending) {
  Located located;
  located.at = pending.at;
  located.row = pending.row;
  if (pending.row) {
    located.shown = pending.row->view.find(pending.shown);
  } else if (const auto it = files_.find(pending.only_here); it != files_.end()) {
    located.file = it->second;
    if (!located.file->created()) {  // published since the page was read
      auto now = co_await locate(directory, pending.name, Age::kCached);
      if (!now) co_return pass(std::move(now));
      located = std::move(*now);
    }
  }
  if (!located.exists()) co_return fail(Errc::kNotFound, pending.name + " is no longer there");
  co_return co_await found(pending.name, std::move(located));
}

Task<Result<std::vector<Listed>>> Filesystem::readdir(std::uint64_t number, std::uint64_t cookie, std::size_t size,
                                                      bool with_attributes) {
  std::vector<Listed> out;
  std::vector<Pending> names;
  std::size_t used = 0;
  const auto room_for = [&](const std::string& name) {
    const auto bytes = reply_bytes(name, with_attributes);
    if (used + bytes > size) return false;
    used += bytes;
    return true;
  };
  auto it = directory_handles_.find(number);
  if (it == directory_handles_.end()) co_return fail(Errc::kInvalid, "no such handle");
  const DirectoryId directory = it->second.directory;
  const auto node = it->second.node;
  if (cookie == 0 && room_for(".")) {
    out.push_back(Listed{".", kDotCookie, node, FileType::kDirectory, std::nullopt});
    it->second.page_to = it->second.page_from = 0;  // from the start: everything is asked for anew
    cookie = kDotCookie;
  }
  if (cookie == kDotCookie && room_for("..")) {
    out.push_back(Listed{"..", kDotDotCookie, inodes_.parent_of(directory), FileType::kDirectory, std::nullopt});
    cookie = kDotDotCookie;
  }
  if (cookie < kDotDotCookie) co_return out;
  while (names.empty()) {
    it = directory_handles_.find(number);
    if (it == directory_handles_.end()) co_return fail(Errc::kInvalid, "no such handle");
    if (it->second.page_from > cookie || it->second.page_to <= cookie) {
      if (it->second.page_to == kLastCookie && cookie == kLastCookie) break;
      auto filled = co_await fill_page(number, cookie);
      if (!filled && out.empty()) co_return pass(std::move(filled));
      if (!filled) co_return out;  // the next call tells
      continue;
    }
    for (const auto& name : it->second.page) {
      if (name.cookie <= cookie) continue;
      if (!room_for(name.name)) break;
      names.push_back(name);
    }
    if (!names.empty() || it->second.at_end) break;
    cookie = it->second.page_to;  // nothing but removed names, or no room
    if (used + reply_bytes(std::string(kMaxNameBytes, 'x'), with_attributes) > size && !out.empty()) break;
  }
  if (with_attributes) co_await fetch_directories(names);
  for (auto& name : names) {
    Listed listed_name{name.name, name.cookie, 0, FileType::kRegular, std::nullopt};
    std::optional<Found> attributes;
    if (with_attributes) {
      auto found = co_await listed(directory, name);
      if (!found && found.error().code == Errc::kNotFound) continue;
      if (found) attributes = std::move(*found);
    }
    // A directory whose own row cannot be had now is listed all the same: who looks at it is told.
    if (attributes) {
      listed_name.node = attributes->attr.node;
      listed_name.type = attributes->attr.type;
      listed_name.found = std::move(attributes);
    } else if (name.row) {
      const auto* shown = name.row->view.find(name.shown);
      listed_name.node = node_for(name.at, *name.row, *shown);
      listed_name.type = shown->entry.type;
    } else {
      listed_name.node = name.only_here;
    }
    out.push_back(std::move(listed_name));
  }
  co_return out;
}

/// The own rows of the directories among `names`, in parallel, as far as they can be had.
Task<Unit> Filesystem::fetch_directories(std::vector<Pending> names) {
  std::vector<Task<Result<DirectoryState>>> tasks;
  for (const auto& name : names) {
    if (!name.row) continue;
    const auto* shown = name.row->view.find(name.shown);
    if (shown->entry.type == FileType::kDirectory) {
      tasks.push_back(ns_.directory(shown->entry.directory_id, kCacheMs));
    }
  }
  co_await when_all(std::move(tasks));
  co_return Unit{};
}

}  // namespace kinfs::fs
