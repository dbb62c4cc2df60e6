// Rows and versions: what a replica keeps for one key, and how two replicas' states become one.
//
// A row is a set of live versions plus one causal context: everything that this row has ever seen. The
// context holds two interval vectors (see interval_set.h): dots by node, events by client. A put names
// exactly the versions that it supersedes by leaving them out of the state that it sends (see `superseding`);
// nothing else goes.
//
// Not a dotted version vector *set* (Almeida et al. 2014, "Scalable and Accurate Causality Tracking for
// Eventually Consistent Stores"): its compact form discards per-node prefixes, and discarding one sibling
// must not discard another by the same node. This is the optimized OR-set's rule (Bieniusa et al. 2012).
//
// Invariants:
//  - every live version's dot and event are covered by the row's context;
//  - versions are sorted by (dot, digest) and unique;
//  - merge is commutative, associative and idempotent (tests/storage/version_property_test.cc holds it
//    against a twin that keeps whole histories).
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "storage/bytes.h"
#include "storage/interval_set.h"

namespace kinfs {

enum class NodeId : std::uint64_t {};    // first 8 bytes of SHA-256 of the node's public key
enum class ClientId : std::uint64_t {};  // one mount, or one daemon acting for its command line

/// Hybrid logical clock (Kulkarni et al. 2014): milliseconds since 1970 << 16 | logical counter.
struct Hlc {
  std::uint64_t value = 0;
  auto operator<=>(const Hlc&) const = default;
  std::int64_t physical_ms() const { return static_cast<std::int64_t>(value >> 16); }
  static Hlc from_ms(std::int64_t ms) { return {static_cast<std::uint64_t>(ms) << 16}; }
};

/// One write by one node. The counter is node-wide and never used twice, whatever happens to the node.
struct Dot {
  NodeId node{};
  std::uint64_t counter = 0;  // 0: not assigned yet
  auto operator<=>(const Dot&) const = default;
};

/// One intention of one client. A retry carries the same id and is the same event. Within one client events
/// are ordered by (boot, sequence), and a client has at most one event in flight for one row.
struct EventId {
  ClientId client{};
  std::uint64_t boot = 0;  // greater after each start of the client
  std::uint64_t sequence = 0;
  auto operator<=>(const EventId&) const = default;
};

struct Ancestor {
  EventId event;
  Hlc hlc;
  Bytes root;  // digest of the content, as the file layer defines it
  bool operator==(const Ancestor&) const = default;
};

inline constexpr std::size_t kMaxLineage = 16;

struct Version {
  Dot dot;
  EventId event;
  Hlc hlc;
  std::int64_t time_ns = 0;       // writer's wall clock, for people
  std::string host;               // writer's host name
  bool tombstone = false;         // a marker: the key was removed; `value` may say how
  std::vector<Ancestor> lineage;  // newest first, at most kMaxLineage
  Bytes value;

  bool operator==(const Version&) const = default;
  /// Over the canonical encoding of every field but the dot: two versions of one event are equal by it.
  Digest256 digest() const;
};

/// One start of one client: the sequence within which its events are numbered.
struct ClientBoot {
  ClientId client{};
  std::uint64_t boot = 0;
  auto operator<=>(const ClientBoot&) const = default;
};

class CausalContext {
 public:
  bool covers(const Dot& dot) const { return nodes_.covers(dot.node, dot.counter); }
  bool covers(const EventId& event) const { return clients_.covers({event.client, event.boot}, event.sequence); }
  /// Covers `dot`, and every counter of its node above `after`: whoever adds it vouches that those were given to
  /// other rows, or are covered already. `after` = counter - 1 vouches for nothing.
  void add(const Dot& dot, std::uint64_t after) { nodes_.add({dot.node, after, dot.counter}); }
  void add(const EventId& event, std::uint64_t after) {
    clients_.add({{event.client, event.boot}, after, event.sequence});
  }
  void add(const Dot& dot) { add(dot, dot.counter == 0 ? 0 : dot.counter - 1); }
  void add(const EventId& event) { add(event, event.sequence == 0 ? 0 : event.sequence - 1); }
  void add(const Interval<NodeId>& interval) { nodes_.add(interval); }
  void add(const Interval<ClientBoot>& interval) { clients_.add(interval); }
  /// In the order of nodes() and clients(); false: not behind all that is there.
  bool append(const Interval<NodeId>& interval) { return nodes_.append(interval); }
  bool append(const Interval<ClientBoot>& interval) { return clients_.append(interval); }
  void merge(const CausalContext& other) {
    nodes_.merge(other.nodes_);
    clients_.merge(other.clients_);
  }
  bool empty() const { return nodes_.empty() && clients_.empty(); }
  /// The greatest counter seen of `node`; 0 when none.
  std::uint64_t counter_of(NodeId node) const { return nodes_.last_of(node); }

  /// less: `other` has seen everything that this has, and more. Events are left out: equal dots mean equal
  /// histories.
  std::partial_ordering compare(const CausalContext& other) const;
  bool operator==(const CausalContext&) const = default;

  // For the codec.
  const std::vector<Interval<NodeId>>& nodes() const { return nodes_.entries(); }
  const std::vector<Interval<ClientBoot>>& clients() const { return clients_.entries(); }

 private:
  IntervalSet<NodeId> nodes_;
  IntervalSet<ClientBoot> clients_;
};

struct Row {
  CausalContext context;
  std::vector<Version> versions;  // sorted by dot, then digest
  Hlc gone;                       // the greatest clock that it has seen, where no version here has it; else 0

  bool empty() const { return versions.empty() && context.empty(); }
  /// The greatest clock of any version that it has, or has had and knows of.
  Hlc latest() const;
  /// Nothing is left here but that something was removed, or replaced by nothing: once nobody can bring that back, the
  /// row need not be kept. What says more than that it was removed, is kept.
  bool is_grave() const;
  bool operator==(const Row&) const = default;

  const Version* find(const Dot& dot) const;
  bool has_event(const EventId& event) const;
  /// Over context, dots and version digests: equal exactly when the states are.
  Digest128 fingerprint() const;
};

/// The least state that has seen all that both have seen. A version stays if both sides have it, or if the
/// other side has never seen it. One dot with two digests (a broken disk, a cloned node) keeps both.
Row merge(const Row& a, const Row& b);

/// The same of two hosts' states, each of which has seen, besides, every version whose clock is at or below its floor:
/// what a host once had and has no more, not even in its context, is gone there (cluster/reaper.h).
struct FlooredRow {
  const Row& row;
  Hlc floor;
};
Row merge(const FlooredRow& a, const FlooredRow& b);

/// `shown` as a writer sends it: the same context, without the versions whose dots are in `superseded`.
/// Merging this into any replica removes exactly those, wherever and whenever it arrives.
Row superseding(const Row& shown, const std::vector<Dot>& superseded);

/// Adds `version` under `dot` to `row`, covering both dot and event back to what is vouched for (see CausalContext).
/// The caller makes sure that the dot is new.
void add_version(Row& row, Version version, const Dot& dot, std::uint64_t dot_after, std::uint64_t event_after);
/// The same, vouching for nothing.
void add_version(Row& row, Version version, const Dot& dot);

/// The lineage of a version written over `base`: base itself, then base's ancestors, cut to kMaxLineage.
std::vector<Ancestor> extend_lineage(const Version& base, Bytes base_root);

/// Whether two versions with one dot have different digests: reported, never resolved by guessing.
bool has_dot_clash(const Row& row);

}  // namespace kinfs
