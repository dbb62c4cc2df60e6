// Which names a row shows. See siblings.h.
//
// Invariants: every dot of a version that can be decoded is in exactly one of the names or in `hidden`; no two names
// are equal; the order of a row's versions does not matter.
#include "fs/siblings.h"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace kinfs::fs {
namespace {

constexpr std::size_t kTagChars = 4;      // at least
constexpr std::size_t kMaxTagChars = 51;  // what 256 bits give in whole characters
constexpr std::size_t kMaxHostChars = 12;
constexpr std::size_t kMaxExtension = 32;  // with its dot; what is longer is no extension, so that a stem always fits
constexpr std::size_t kMaxUtf8Tail = 3;    // bytes that a cut may give up to keep a character whole

// --- names ---

/// Where the extension of `name` begins; name.size() when it has none.
std::size_t extension_at(std::string_view name) {
  const auto first = name.find_first_not_of('.');
  const auto dot = name.rfind('.');
  if (dot == std::string_view::npos || first == std::string_view::npos || dot < first || dot + 1 == name.size()) {
    return name.size();
  }
  std::size_t at = dot;
  constexpr std::string_view kTar = ".tar";
  if (dot >= first + 1 + kTar.size() && name.substr(dot - kTar.size(), kTar.size()) == kTar) at = dot - kTar.size();
  return name.size() - at > kMaxExtension ? name.size() : at;
}

std::string_view cut_utf8(std::string_view text, std::size_t limit) {
  if (text.size() <= limit) return text;
  const auto continues = [&](std::size_t i) { return (static_cast<unsigned char>(text[i]) & 0xc0) == 0x80; };
  std::size_t end = limit;
  while (end > 0 && limit - end < kMaxUtf8Tail && continues(end)) --end;
  return text.substr(0, continues(end) ? limit : end);  // not UTF-8: any place is as good
}

bool is_host_char(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
bool is_tag_char(char c) { return (c >= 'a' && c <= 'z') || (c >= '2' && c <= '7'); }

template <class Predicate>
std::size_t run_length(std::string_view text, Predicate in) {
  return static_cast<std::size_t>(std::find_if_not(text.begin(), text.end(), in) - text.begin());
}

std::string tag_of(const EventId& event, std::size_t chars) {
  static constexpr char kAlphabet[] = "abcdefghijklmnopqrstuvwxyz234567";
  CanonicalWriter w;
  w.u64(static_cast<std::uint64_t>(event.client)).u64(event.boot).u64(event.sequence);
  const Digest256 hash = sha256(w.out());
  std::string out;
  std::size_t bit = 0;
  for (std::size_t i = 0; i < chars; ++i, bit += 5) {
    unsigned v = static_cast<unsigned>(hash[bit / 8]) << 8;
    if (bit / 8 + 1 < hash.size()) v |= hash[bit / 8 + 1];
    out.push_back(kAlphabet[v >> (11 - bit % 8) & 31]);
  }
  return out;
}

// --- branches ---

struct Live {
  const Version* version;
  Entry entry;
  Digest256 digest;
};

/// Versions that are one to a reader.
struct Group {
  std::vector<const Live*> members;  // the latest clock first
  std::vector<EventId> events;       // theirs and their ancestors', sorted
  Branch own;                        // by lineage alone
  Branch branch;
  bool forked = false;  // another version goes on with the branch that this one was on
  bool left = false;  // a removal of the plain name left it under its sibling's name
  const Live& latest() const { return *members.front(); }
  bool is_directory() const { return latest().entry.type == FileType::kDirectory; }
};

auto rank(const Branch& b) { return std::tie(b.hlc, b.host, b.event); }
auto rank(const Version& v) { return std::tie(v.hlc, v.event, v.dot); }

bool has(const std::vector<EventId>& sorted, const EventId& event) {
  return std::binary_search(sorted.begin(), sorted.end(), event);
}

/// Equal events first, then equal bytes: the relation is made transitive by joining classes.
std::vector<Group> make_groups(const std::vector<Live>& live) {
  std::vector<std::size_t> class_of(live.size());
  std::iota(class_of.begin(), class_of.end(), std::size_t{0});
  for (std::size_t i = 0; i < live.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (live[i].version->event != live[j].version->event && live[i].digest != live[j].digest) continue;
      const auto from = class_of[i], to = class_of[j];
      std::replace(class_of.begin(), class_of.end(), from, to);
    }
  }
  std::vector<Group> groups;
  for (std::size_t c = 0; c < live.size(); ++c) {
    Group g;
    for (std::size_t i = 0; i < live.size(); ++i) {
      if (class_of[i] != c) continue;
      g.members.push_back(&live[i]);
      g.events.push_back(live[i].version->event);
      for (const auto& a : live[i].version->lineage) g.events.push_back(a.event);
    }
    if (g.members.empty()) continue;
    std::sort(g.members.begin(), g.members.end(),
              [](const Live* a, const Live* b) { return rank(*b->version) < rank(*a->version); });
    std::sort(g.events.begin(), g.events.end());
    groups.push_back(std::move(g));
  }
  return groups;
}

/// Back along the lineage of `v` until `shared` says that another branch has the event too, or another client wrote it:
/// so the first event stays the same when a third branch turns up that has more of the lineage, and is the host's own.
template <class Shared>
Branch walk_back(const Version& v, Shared shared) {
  Branch out{v.event, v.hlc, v.host, {}};
  bool own = true;
  for (const auto& a : v.lineage) {
    if (shared(a.event)) {
      out.base = a.event;
      break;
    }
    own = own && a.event.client == v.event.client;
    if (!own) continue;
    out.event = a.event;
    out.hlc = a.hlc;
  }
  return out;
}

Branch branch_by_lineage(const Group& g, const std::vector<Group>& groups) {
  const Version& v = *g.latest().version;
  if (groups.size() == 1) return {v.event, v.hlc, v.host, {}};
  const auto shared = [&](const EventId& event) {
    return std::any_of(groups.begin(), groups.end(), [&](const Group& other) {
      if (&other == &g) return false;
      return has(other.events, event) || std::any_of(other.members.begin(), other.members.end(), [&](const Live* l) {
               return l->entry.branch && l->entry.branch->base == event;
             });
    });
  };
  Branch oldest = walk_back(v, shared);
  for (const Live* member : g.members) {
    const Branch b = walk_back(*member->version, shared);
    if (rank(b) < rank(oldest)) oldest = b;
  }
  return oldest;
}

/// As it was when a removal left the group: its first event is in the marker, whatever else has gone from the row.
std::optional<Branch> branch_left(const Group& g, const std::vector<EventId>& left) {
  for (const Live* member : g.members) {
    const Version& v = *member->version;
    if (has(left, v.event)) return Branch{v.event, v.hlc, v.host, {}};
    for (const auto& a : v.lineage) {
      if (has(left, a.event)) return Branch{a.event, a.hlc, v.host, {}};
    }
  }
  return std::nullopt;
}

std::optional<Branch> branch_written(const Group& g) {
  std::optional<Branch> out;
  for (const Live* member : g.members) {
    const auto& b = member->entry.branch;
    if (b && (!out || rank(*b) < rank(*out))) out = b;
  }
  return out;
}

/// A sibling that two hosts edited apart is two branches with one first event: the one whose edit is later goes on
/// with the name, each other becomes a branch of its own but keeps the rank, so that the plain name stays where it is.
void split_forked(std::vector<Group>& groups) {
  const std::vector<Group> before = groups;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const bool goes_on = std::none_of(before.begin(), before.end(), [&](const Group& other) {
      return &other != &before[i] && other.branch.event == before[i].branch.event &&
             rank(before[i].own) < rank(other.own);
    });
    if (goes_on) continue;
    const Hlc inherited = before[i].branch.hlc;
    groups[i].branch = before[i].own;
    groups[i].branch.hlc = inherited;
    groups[i].forked = true;
  }
  for (std::size_t i = 0; i < groups.size();
       ++i) {  // lineages that were cut may tell the same of two: the event is sure
    for (std::size_t j = 0; j < i; ++j) {
      if (groups[i].branch.event != groups[j].branch.event) continue;
      auto& later = rank(*groups[i].latest().version) < rank(*groups[j].latest().version) ? groups[j] : groups[i];
      later.branch.event = later.latest().version->event;
    }
  }
}

struct Left {
  std::vector<EventId> events;  // sorted
  std::vector<Dot> dots;
};

void find_branches(std::vector<Group>& groups, const Left& left) {
  for (auto& g : groups) {
    const auto by_marker = branch_left(g, left.events);
    const auto written = branch_written(g);
    g.own = branch_by_lineage(g, groups);
    g.branch = written ? *written : by_marker ? *by_marker : g.own;
    g.left = by_marker || (written && (written->left || has(left.events, written->event))) ||
             std::any_of(g.members.begin(), g.members.end(), [&](const Live* m) {
               return std::find(left.dots.begin(), left.dots.end(), m->version->dot) != left.dots.end();
             });
  }
  split_forked(groups);
}

/// Whether `a` has the better claim to the plain name.
bool beats(const Group& a, const Group& b) {
  if (a.is_directory() != b.is_directory()) return a.is_directory();
  if (a.is_directory() && a.latest().entry.directory_id != b.latest().entry.directory_id) {
    return a.latest().entry.directory_id < b.latest().entry.directory_id;
  }
  // A fork has the rank of the branch that it left, and loses to that alone.
  return std::tie(b.branch.hlc, a.forked, b.branch.host, b.branch.event) <
         std::tie(a.branch.hlc, b.forked, a.branch.host, a.branch.event);
}

std::vector<Shown> show(const std::vector<Group>& groups) {
  const Group* winner = nullptr;
  for (const auto& g : groups) {
    if (!g.left && (winner == nullptr || beats(g, *winner))) winner = &g;
  }
  std::vector<Shown> out;
  for (const auto& g : groups) {
    Shown s;
    s.plain = &g == winner;
    s.entry = g.latest().entry;
    s.version = *g.latest().version;
    s.branch = g.branch;
    s.left = g.left;
    s.keeps_number = std::none_of(groups.begin(), groups.end(), [&](const Group& other) {
      return &other != &g && other.latest().entry.file_id == g.latest().entry.file_id &&
             std::tie(other.branch.hlc, other.branch.event) < std::tie(g.branch.hlc, g.branch.event);
    });
    for (const Live* m : g.members) s.dots.push_back(m->version->dot);
    std::sort(s.dots.begin(), s.dots.end());
    s.dots.erase(std::unique(s.dots.begin(), s.dots.end()), s.dots.end());
    out.push_back(std::move(s));
  }
  return out;
}

/// Gives siblings their names; tags grow where names would be equal.
void name_siblings(std::vector<Shown>& shown, std::string_view plain_name) {
  std::vector<std::size_t> chars(shown.size(), kTagChars);
  for (bool again = true; again;) {
    again = false;
    for (std::size_t i = 0; i < shown.size(); ++i) {
      auto& s = shown[i];
      s.name = s.plain ? std::string(plain_name)
                       : sibling_name(plain_name, host_label(s.branch.host), tag_of(s.branch.event, chars[i]));
    }
    std::vector<bool> grow(shown.size(), false);
    for (std::size_t i = 0; i < shown.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        if (shown[i].name == shown[j].name) grow[i] = grow[j] = true;
      }
    }
    for (std::size_t i = 0; i < shown.size(); ++i) {
      if (!grow[i] || chars[i] == kMaxTagChars) continue;
      ++chars[i];
      again = true;
    }
  }
}

}  // namespace

const Shown* View::find(std::string_view name) const {
  const auto it = std::find_if(names.begin(), names.end(), [&](const Shown& s) { return s.name == name; });
  return it == names.end() ? nullptr : &*it;
}

std::vector<Dot> View::all_dots() const {
  std::vector<Dot> out = hidden;
  for (const auto& s : names) out.insert(out.end(), s.dots.begin(), s.dots.end());
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

View view_of(const Row& row, std::string_view plain_name) {
  View view;
  std::vector<Live> live;
  Left left;
  live.reserve(row.versions.size());
  for (const auto& v : row.versions) {
    if (v.tombstone) {
      const auto marker = decode_marker(v.value);
      if (!marker) continue;
      view.hidden.push_back(v.dot);
      view.generation = std::max(view.generation, marker->generation);
      left.events.insert(left.events.end(), marker->left.begin(), marker->left.end());
      left.dots.insert(left.dots.end(), marker->left_dots.begin(), marker->left_dots.end());
      continue;
    }
    auto entry = decode_entry(v.value);
    if (!entry) continue;
    view.generation = std::max(view.generation, entry->generation);
    const auto digest = content_digest(*entry);
    live.push_back({&v, std::move(*entry), digest});
  }
  if (live.empty()) return view;
  std::sort(left.events.begin(), left.events.end());
  auto groups = make_groups(live);
  find_branches(groups, left);
  view.names = show(groups);
  name_siblings(view.names, plain_name);
  std::sort(view.names.begin(), view.names.end(),
            [](const Shown& a, const Shown& b) { return a.plain != b.plain ? a.plain : a.name < b.name; });
  return view;
}

std::string sibling_name(std::string_view plain_name, std::string_view host, std::string_view tag) {
  const auto at = extension_at(plain_name);
  const auto extension = plain_name.substr(at);
  std::string label = ".+";
  label.append(host).append("-").append(tag);
  std::string out(cut_utf8(plain_name.substr(0, at), kMaxNameBytes - label.size() - extension.size()));
  return out.append(label).append(extension);
}

std::optional<ParsedSibling> parse_sibling_name(std::string_view name) {
  if (name.size() > kMaxNameBytes) return std::nullopt;
  for (auto at = name.find(".+"); at != std::string_view::npos; at = name.find(".+", at + 1)) {
    auto rest = name.substr(at + 2);
    const auto host = rest.substr(0, run_length(rest, is_host_char));
    if (at == 0 || host.empty() || host.size() > kMaxHostChars || rest.size() == host.size()) continue;
    if (rest[host.size()] != '-') continue;
    rest.remove_prefix(host.size() + 1);
    const auto tag = rest.substr(0, run_length(rest, is_tag_char));
    if (tag.size() < kTagChars || tag.size() > kMaxTagChars) continue;
    rest.remove_prefix(tag.size());
    std::string plain(name.substr(0, at));
    plain.append(rest);
    // Only what naming would make: this alone tells a label from an extension that looks like one.
    if (sibling_name(plain, host, tag) != name) continue;
    return ParsedSibling{std::move(plain), name.size() + kMaxUtf8Tail >= kMaxNameBytes};
  }
  return std::nullopt;
}

std::string host_label(std::string_view host) {
  std::string out;
  for (char c : host) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (is_host_char(c) && out.size() < kMaxHostChars) out.push_back(c);
  }
  return out.empty() ? "host" : out;
}

}  // namespace kinfs::fs
