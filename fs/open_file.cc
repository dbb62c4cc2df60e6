// Working versions: see open_file.h.
#include "fs/open_file.h"

#include <algorithm>

namespace kinfs::fs {

void OpenFile::touch(std::int64_t mono_ms, std::int64_t wall_ns) {
  if (!unpublished()) unpublished_ms = mono_ms;
  ++changes;
  ctime_ns = wall_ns;
}

const Shown* shown_with(const RowState& state, const EventId& event) {
  for (const auto& shown : state.view.names) {
    for (const auto& dot : shown.dots) {
      const auto* version = state.row.find(dot);
      if (version != nullptr && version->event == event) return &shown;
    }
  }
  return nullptr;
}

void adopt(OpenFile& file, Client& client, BlockCache& cache, VolumeId volume, const RowPtr& state,
           const Shown& shown) {
  const bool same_bytes = file.content && file.shown && file.shown->version.event == shown.version.event;
  file.base = state;
  file.shown = shown;
  file.dots = superseded_by_write(state->view, &shown);
  file.name = shown.name;
  file.entry = shown.entry;
  file.ctime_ns = shown.version.time_ns;
  if (!same_bytes) {
    file.content = std::make_shared<FileContent>(client, cache, volume, file.entry);
    file.synced = false;
  }
}

std::vector<Dot> superseded_by_write(const View& view, const Shown* shown) {
  std::vector<Dot> dots;
  if (shown != nullptr) dots = shown->dots;
  const bool siblings = std::any_of(view.names.begin(), view.names.end(), [](const Shown& s) { return !s.plain; });
  if (!siblings) dots.insert(dots.end(), view.hidden.begin(), view.hidden.end());
  return dots;
}

Entry entry_on_top(Entry entry, const View* view, const Shown* shown) {
  entry.branch.reset();
  if (view != nullptr && view->has_siblings() && shown != nullptr) {
    entry.branch = shown->branch;
    entry.branch->left = shown->left;
  }
  if (view != nullptr) entry.generation = std::max(entry.generation, view->generation);
  return entry;
}

Marker marker_for(const View& view, const Shown* removed, std::optional<std::string> moved_to) {
  Marker marker;
  marker.moved_to = std::move(moved_to);
  marker.generation = view.generation;
  for (const auto& s : view.names) {
    if (removed != nullptr && s.name == removed->name) continue;
    marker.left.push_back(s.branch.event);
    marker.left_dots.insert(marker.left_dots.end(), s.dots.begin(), s.dots.end());
  }
  return marker;
}

}  // namespace kinfs::fs
