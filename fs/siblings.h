// Siblings: which names one row shows, as a pure function of the row. The same on every host.
//
// `report.txt` shows the winner; each other version is `report.+HOST-TAG.txt`. No time and no resolver is part of a
// name. Nothing here reads or writes anything.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/entry.h"
#include "storage/version.h"

namespace kinfs::fs {

inline constexpr std::size_t kMaxNameBytes = 255;

/// One name that a row shows, and the versions behind it: more than one when they are the same event, or equal
/// bytes, or mkdir of the same directory, or removals that lost to it.
struct Shown {
  std::string name;
  bool plain = false;           // the row's own name
  Entry entry;                  // attributes merged over equal versions: the latest clock's
  Version version;              // the one of these whose clock is greatest
  Branch branch;                // its branch's first event
  bool left = false;            // a removal of the plain name left it under its sibling's name
  bool keeps_number = false;    // of the branches of one file id, the oldest keeps the undiverged node id
  std::vector<Dot> dots;        // all that stand behind this name; a write on top of it supersedes these
};

struct View {
  std::vector<Shown> names;       // the plain name first, when it is there; siblings by name
  std::vector<Dot> hidden;        // markers: superseded by the next write to the plain name
  std::uint64_t generation = 0;   // greatest directory generation that any version or marker tells of
  bool has_siblings() const { return names.size() > 1 || (names.size() == 1 && !names[0].plain); }
  const Shown* plain() const { return !names.empty() && names[0].plain ? &names[0] : nullptr; }
  const Shown* find(std::string_view name) const;
  /// Every dot of the row: what choosing one version, or replacing all, supersedes.
  std::vector<Dot> all_dots() const;
};

/// `plain_name`: the name in the row's key. Versions whose value cannot be decoded are shown as nothing and kept.
View view_of(const Row& row, std::string_view plain_name);

/// `report.txt`, `host1`, `ab3d` -> `report.+host1-ab3d.txt`: the last extension is kept (`.tar.*` as one; a leading
/// dot is no extension), the stem is cut so that all fits kMaxNameBytes.
std::string sibling_name(std::string_view plain_name, std::string_view host, std::string_view tag);
/// The plain name that a sibling name was made from; nullopt when it is not of that form. When the stem was cut the
/// plain name cannot be told from it: `cut` is set and the caller looks through the directory.
struct ParsedSibling {
  std::string plain_name;
  bool may_be_cut = false;
};
std::optional<ParsedSibling> parse_sibling_name(std::string_view name);

/// HOST of a sibling name: lower case, [a-z0-9] only, at most 12, "host" when nothing is left.
std::string host_label(std::string_view host);

}  // namespace kinfs::fs
