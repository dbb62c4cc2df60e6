// A few replicas, clients and a network for one row, and the naive twin that the real rows are held against.
//
// The twin keeps whole histories: a state is the set of operations that it has seen, each with its event, the dot it
// was given and the events that it superseded; what is live follows by looking at all of them. Rows know only
// versions and a context, and must come to the same.
//
// Nodes and clients vouch as the cluster's do: a node for its own dots since it may last have lost some, a client
// for its own events when what it sends has seen them. Everything else is arbitrary: old states shown, or none; any
// subset superseded; retries at any replica at any time; disks that lose their tail; states delivered late, again,
// or never.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "storage/version.h"

namespace kinfs::test {

struct Operation {
  EventId event;
  Dot dot;  // counter 0: a discard, which adds nothing
  std::set<EventId> superseded;
};

using History = std::set<std::size_t>;  // indices of operations

struct State {
  Row row;
  History history;
};

class World {
 public:
  static constexpr std::size_t kReplicas = 3;
  static constexpr std::size_t kClients = 3;

  enum class Action { kPut, kBlindPut, kDiscard, kRetry, kExchange, kDeliver, kShow, kLoseDisk };
  static constexpr std::size_t kActions = 8;

  /// One step: what, and three numbers that pick whom and what from those there are.
  struct Step {
    std::uint8_t action = 0;
    std::uint16_t a = 0, b = 0, c = 0;
  };

  void run(const Step& step);

  const std::vector<State>& states() const { return states_; }  // every state that was ever anywhere
  const std::vector<Operation>& operations() const { return operations_; }

  /// The events live in a history, and every dot that each was ever given there.
  std::map<EventId, std::set<Dot>> live(const History& history) const;

 private:
  struct Put {
    EventId event;
    State base;  // shown, without what is superseded
    std::set<EventId> superseded;
    std::uint64_t event_after = 0;  // the base has seen the client's events after this one
  };
  struct Client {
    std::uint64_t sequence = 0;
    State shown;    // what it was last shown; may be old
    State session;  // what its own last put answered
  };

  void put(std::size_t client, std::size_t replica, std::uint16_t choice, bool add, bool blind);
  void coordinate(std::size_t replica, const Put& put, bool add);
  void keep(std::size_t replica, State state);

  std::array<State, kReplicas> replicas_;
  std::array<std::uint64_t, kReplicas> counters_{};
  std::array<std::uint64_t, kReplicas> floors_{};  // dots up to here may have been lost
  std::array<Client, kClients> clients_;
  std::vector<Put> puts_;
  std::vector<Operation> operations_;
  std::vector<State> states_{State{}};
};

inline State joined(const State& x, const State& y) {
  State out{merge(x.row, y.row), x.history};
  out.history.insert(y.history.begin(), y.history.end());
  return out;
}

inline std::map<EventId, std::set<Dot>> World::live(const History& history) const {
  std::map<EventId, std::set<Dot>> out;
  for (const std::size_t i : history) {
    if (operations_[i].dot.counter != 0) out[operations_[i].event].insert(operations_[i].dot);
  }
  for (const std::size_t i : history) {
    for (const EventId& e : operations_[i].superseded) out.erase(e);
  }
  return out;
}

inline void World::keep(std::size_t replica, State state) {
  replicas_[replica] = std::move(state);
  states_.push_back(replicas_[replica]);
}

inline void World::coordinate(std::size_t replica, const Put& put, bool add) {
  State next = joined(replicas_[replica], put.base);
  // Whether or not this request makes a version, the state has seen what the put superseded.
  operations_.push_back({put.event, {}, put.superseded});
  next.history.insert(operations_.size() - 1);
  if (add && !next.row.context.covers(put.event)) {
    Version v;
    v.event = put.event;
    v.value = std::to_string(put.event.sequence);
    counters_[replica] += 1 + put.event.sequence % 3;  // the node writes other rows too
    const Dot dot{NodeId{replica + 1}, counters_[replica]};
    const std::uint64_t seen = next.row.context.counter_of(dot.node);
    add_version(next.row, v, dot, std::max(seen, floors_[replica]), put.event_after);
    operations_.push_back({put.event, dot, {}});
    next.history.insert(operations_.size() - 1);
  }
  keep(replica, std::move(next));
}

inline void World::put(std::size_t c, std::size_t replica, std::uint16_t choice, bool add, bool blind) {
  Client& client = clients_[c];
  const State shown = blind ? client.shown : joined(client.shown, client.session);
  std::vector<Dot> dots;
  for (const Version& v : shown.row.versions) {
    if (choice & 1) dots.push_back(v.dot);
    choice = static_cast<std::uint16_t>(choice >> 1);
  }
  Put p;
  p.base = {superseding(shown.row, dots), shown.history};
  for (const Version& v : shown.row.versions) {
    if (!p.base.row.has_event(v.event)) p.superseded.insert(v.event);
  }
  // A state that was sent without what it supersedes has itself seen the superseding.
  operations_.push_back({{}, {}, p.superseded});
  p.base.history.insert(operations_.size() - 1);
  states_.push_back(p.base);
  if (add) {
    const std::uint64_t boot = 1 + client.sequence / 4;
    p.event = {ClientId{c + 1}, boot, ++client.sequence};
    p.event_after = p.event.sequence - 1;
    while (!blind && p.event_after > 0 && p.base.row.context.covers(EventId{p.event.client, boot, p.event_after})) {
      --p.event_after;
    }
  }
  coordinate(replica, p, add);
  client.session = replicas_[replica];
  if (add) puts_.push_back(std::move(p));
}

inline void World::run(const Step& step) {
  const std::size_t r = step.a % kReplicas;
  const std::size_t c = step.b % kClients;
  switch (static_cast<Action>(step.action % kActions)) {
    case Action::kPut:
      return put(c, r, step.c, true, false);
    case Action::kBlindPut:
      return put(c, r, step.c, true, true);
    case Action::kDiscard:
      return put(c, r, step.c, false, false);
    case Action::kRetry:
      if (!puts_.empty()) coordinate(r, Put(puts_[step.b % puts_.size()]), true);
      return;
    case Action::kExchange:
      return keep(r, joined(replicas_[r], replicas_[step.b % kReplicas]));
    case Action::kDeliver:
      return keep(r, joined(replicas_[r], states_[step.b % states_.size()]));
    case Action::kShow:
      clients_[c].shown = states_[step.a % states_.size()];
      return;
    case Action::kLoseDisk:
      // All of the row is gone here, and dots that this node made may live on elsewhere.
      replicas_[r] = {};
      floors_[r] = counters_[r];
      return;
  }
}

}  // namespace kinfs::test
