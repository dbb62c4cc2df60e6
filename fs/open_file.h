// One file that is open here, or has changes that are not published yet: the working version that all its handles on
// this mount share.
//
// Invariants:
//  - `shown` and `dots` say what the next put goes on top of; only adopting, publishing and moving change them;
//  - a change raises `changes` before the call that made it returns; what counts as published is never more than
//    `changes` said when the content was sealed;
//  - a put whose outcome is not known is `pending`, and is repeated with the same event before any other of this row;
//  - a detached file (unlinked, or replaced by a rename) is never put again.
//
// Threading: inside the strand. `writing` serializes changes of the content; the row's lock (Namespace::lock), taken
// before it, serializes puts.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/client.h"
#include "fs/entry.h"
#include "fs/file_content.h"
#include "fs/inode_table.h"
#include "fs/namespace.h"
#include "fs/siblings.h"

namespace kinfs::fs {

struct OpenFile {
  std::uint64_t node = 0;
  RowId at;
  std::string name;      // under which the row shows it
  bool attached = true;

  Entry entry;           // attributes as they are here; size, content and root only as last sealed
  std::shared_ptr<FileContent> content;
  std::int64_t ctime_ns = 0;
  AsyncMutex writing;

  RowPtr base;                 // the row's state that `dots` are of; null: to be fetched before the next put
  std::optional<Shown> shown;  // the version that this one continues; none for a new file
  std::vector<Dot> dots;

  std::uint64_t changes = 0;
  std::uint64_t published = 0;      // `changes`, as of the last put
  std::int64_t unpublished_ms = 0;  // when the first unpublished change was made
  std::int64_t retry_ms = 0;        // not before this does the timer try again
  std::optional<RowPut> pending;
  Entry pending_entry;
  std::uint64_t pending_changes = 0;
  bool synced = false;              // what is published is known to be on disk
  std::optional<Error> deferred;    // of a put that nobody waited for; the next flush or fsync tells it, once
  std::size_t handles = 0;
  std::size_t written_bytes = 0;    // of `content`, as they were counted last
  bool publishing = false;          // by the timer or a release

  bool unpublished() const { return attached && (changes != published || pending); }
  bool created() const { return attached && !shown; }  // there is no row of it yet
  std::uint64_t size() const { return entry.type == FileType::kRegular && content ? content->size() : entry.size; }
  /// An attribute or the content has changed.
  void touch(std::int64_t mono_ms, std::int64_t wall_ns);
};
using FilePtr = std::shared_ptr<OpenFile>;

/// The name of `state` that shows the version of `event`, or an equal one; null when none does.
const Shown* shown_with(const RowState& state, const EventId& event);

/// Makes `file` stand on what `state` shows as `shown`.
void adopt(OpenFile& file, Client& client, BlockCache& cache, VolumeId volume, const RowPtr& state,
           const Shown& shown);

/// What a write to a shown name supersedes: what stands behind it and, for the plain name, removals that it outlived,
/// unless siblings that were left on purpose depend on them.
std::vector<Dot> superseded_by_write(const View& view, const Shown* shown);

/// `entry` as it is put on top of `shown` in `view`: the branch kept where there are siblings, the greatest directory
/// generation of the row carried on.
Entry entry_on_top(Entry entry, const View* view, const Shown* shown);

/// The marker that removing the plain name leaves: it lists the siblings that stay.
Marker marker_for(const View& view, const Shown* removed, std::optional<std::string> moved_to);

}  // namespace kinfs::fs
