// Merge and its helpers. See version.h for the model and its invariants.
//
// Digests are computed only where two versions carry one dot and differ, which takes a broken disk or a cloned
// node: everything else compares dots and events, because merge runs for every row that is read or written.
#include "storage/version.h"

#include <algorithm>
#include <tuple>

namespace kinfs {
namespace {

bool has_dot(const Row& row, const Dot& dot) { return row.find(dot) != nullptr; }

/// Whether a version of one side goes on living when the other side is merged in. Event by event the states
/// are ordered "never seen < live under some dots < superseded"; merge takes the greater, which is why it is
/// commutative, associative and idempotent.
bool stays(const Version& v, const FlooredRow& other) {
  const auto& [row, floor] = other;
  if (!row.context.covers(v.dot) && !row.context.covers(v.event) && (floor == Hlc{} || v.hlc > floor)) return true;
  return has_dot(row, v.dot) || row.has_event(v.event);
}

/// Kept only where it says more than the versions do: of nearly all rows it is 0.
void set_latest(Row& row, Hlc latest) {
  row.gone = {};
  if (latest > row.latest()) row.gone = latest;
}

/// Sorts versions of one dot by digest and drops equal ones.
void settle_one_dot(std::vector<const Version*>& run) {
  std::vector<const Version*> unique;
  for (const Version* v : run) {
    if (std::none_of(unique.begin(), unique.end(), [&](const Version* u) { return u == v || *u == *v; })) {
      unique.push_back(v);
    }
  }
  if (unique.size() > 1) {
    std::vector<std::pair<Digest256, const Version*>> keyed;
    for (const Version* v : unique) keyed.emplace_back(v->digest(), v);
    std::sort(keyed.begin(), keyed.end(), [](const auto& x, const auto& y) { return x.first < y.first; });
    for (std::size_t i = 0; i < keyed.size(); ++i) unique[i] = keyed[i].second;
  }
  run = std::move(unique);
}

bool dot_less(const Version* x, const Version* y) { return x->dot < y->dot; }

}  // namespace

Digest256 Version::digest() const {
  CanonicalWriter w;
  w.u64(static_cast<std::uint64_t>(event.client)).u64(event.boot).u64(event.sequence);
  w.u64(hlc.value).i64(time_ns).bytes(host).u64(tombstone ? 1 : 0).u64(lineage.size());
  for (const Ancestor& a : lineage) {
    w.u64(static_cast<std::uint64_t>(a.event.client)).u64(a.event.boot).u64(a.event.sequence);
    w.u64(a.hlc.value).bytes(a.root);
  }
  w.bytes(value);
  return sha256(w.out());
}

std::partial_ordering CausalContext::compare(const CausalContext& other) const {
  const bool le = other.nodes_.includes(nodes_);
  const bool ge = nodes_.includes(other.nodes_);
  if (le && ge) return std::partial_ordering::equivalent;
  if (le) return std::partial_ordering::less;
  return ge ? std::partial_ordering::greater : std::partial_ordering::unordered;
}

// --- Row ---

const Version* Row::find(const Dot& dot) const {
  const auto it =
      std::lower_bound(versions.begin(), versions.end(), dot, [](const Version& v, const Dot& d) { return v.dot < d; });
  return it != versions.end() && it->dot == dot ? &*it : nullptr;
}

bool Row::has_event(const EventId& event) const {
  return std::any_of(versions.begin(), versions.end(), [&](const Version& v) { return v.event == event; });
}

Hlc Row::latest() const {
  Hlc out = gone;
  for (const Version& v : versions) out = std::max(out, v.hlc);
  return out;
}

bool Row::is_grave() const {
  return !empty() &&
         std::all_of(versions.begin(), versions.end(), [](const Version& v) { return v.tombstone && v.value.empty(); });
}

Digest128 Row::fingerprint() const {
  CanonicalWriter w;
  w.u64(context.nodes().size());
  for (const auto& e : context.nodes()) w.u64(static_cast<std::uint64_t>(e.key)).u64(e.after).u64(e.last);
  w.u64(context.clients().size());
  for (const auto& e : context.clients()) {
    w.u64(static_cast<std::uint64_t>(e.key.client)).u64(e.key.boot).u64(e.after).u64(e.last);
  }
  w.u64(versions.size());
  for (const Version& v : versions) {
    w.u64(static_cast<std::uint64_t>(v.dot.node)).u64(v.dot.counter).bytes(view_of(v.digest()));
  }
  if (gone != Hlc{}) w.u64(gone.value);
  return short_sha256(w.out());
}

Row merge(const Row& a, const Row& b) { return merge(FlooredRow{a, {}}, FlooredRow{b, {}}); }

Row merge(const FlooredRow& first, const FlooredRow& second) {
  const Row& a = first.row;
  const Row& b = second.row;
  std::vector<const Version*> from_a, from_b, all;
  for (const Version& v : a.versions) {
    if (stays(v, second)) from_a.push_back(&v);
  }
  for (const Version& v : b.versions) {
    if (stays(v, first)) from_b.push_back(&v);
  }
  all.reserve(from_a.size() + from_b.size());
  std::merge(from_a.begin(), from_a.end(), from_b.begin(), from_b.end(), std::back_inserter(all), dot_less);

  Row out;
  out.context = a.context;
  out.context.merge(b.context);
  out.versions.reserve(all.size());
  for (auto it = all.begin(); it != all.end();) {
    const auto end = std::find_if(it, all.end(), [&](const Version* v) { return v->dot != (*it)->dot; });
    if (end - it == 1) {
      out.versions.push_back(**it);
    } else {
      std::vector<const Version*> run(it, end);
      settle_one_dot(run);
      for (const Version* v : run) out.versions.push_back(*v);
    }
    it = end;
  }
  set_latest(out, std::max(a.latest(), b.latest()));
  return out;
}

Row superseding(const Row& shown, const std::vector<Dot>& superseded) {
  Row out;
  out.context = shown.context;
  for (const Version& v : shown.versions) {
    if (std::find(superseded.begin(), superseded.end(), v.dot) == superseded.end()) out.versions.push_back(v);
  }
  set_latest(out, shown.latest());
  return out;
}

void add_version(Row& row, Version version, const Dot& dot) {
  const auto sequence = version.event.sequence;
  add_version(row, std::move(version), dot, dot.counter - 1, sequence == 0 ? 0 : sequence - 1);
}

void add_version(Row& row, Version version, const Dot& dot, std::uint64_t dot_after, std::uint64_t event_after) {
  version.dot = dot;
  row.context.add(dot, dot_after);
  row.context.add(version.event, event_after);
  const auto at = std::upper_bound(row.versions.begin(), row.versions.end(), dot,
                                   [](const Dot& d, const Version& v) { return d < v.dot; });
  const auto latest = std::max(row.latest(), version.hlc);
  row.versions.insert(at, std::move(version));
  set_latest(row, latest);
}

std::vector<Ancestor> extend_lineage(const Version& base, Bytes base_root) {
  std::vector<Ancestor> out;
  out.reserve(std::min(kMaxLineage, base.lineage.size() + 1));
  out.push_back({base.event, base.hlc, std::move(base_root)});
  for (const Ancestor& a : base.lineage) {
    if (out.size() == kMaxLineage) break;
    out.push_back(a);
  }
  return out;
}

bool has_dot_clash(const Row& row) {
  return std::adjacent_find(row.versions.begin(), row.versions.end(),
                            [](const Version& x, const Version& y) { return x.dot == y.dot; }) != row.versions.end();
}

}  // namespace kinfs
