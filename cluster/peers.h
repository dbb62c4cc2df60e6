// Who is a member, and whom this node believes to be healthy.
//
// Membership spreads by gossip: each second with one random peer, seed nodes always among the candidates, so
// that the ring cannot stay split (DeCandia et al. 2007, section 4.8). Suspicion is local and is about round
// trips: a peer is healthy while it answers *our* probes, so that a cut in one direction counts as a cut. It
// steers requests and never changes ownership.
//
// Every node probes every other, so nobody has to be asked to probe for another as in SWIM (Das et al. 2002, section
// 3.1): the answer to a probe says whom its sender reaches. That a peer which does not answer here answers others is
// shown, and no reason to send it anything; but it is not lost. A node that is slow itself suspects later (Lifeguard,
// Dadgar et al. 2018, section IV-A).
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "cluster/message.h"
#include "cluster/node.h"

namespace kinfs::cluster {

class Peers {
 public:
  Peers(const NodeConfig& config);

  void start(Time now);
  bool healthy(NodeId node) const;
  bool is_member(NodeId node) const { return peers_.contains(node) || node == self_; }

  struct Probe {
    NodeId to{};
    bool gossip = false;      // else a ping,
    bool introduces = false;  // and one that says who this is
  };
  /// What to send now. A gap between two ticks (this process was stopped) is not held against the peers.
  std::vector<Probe> tick(Time now, std::mt19937_64& random);
  /// `node` answered something that we asked: returns true when it was suspected until now.
  bool answered(NodeId node, Time now);
  void heard(NodeId node, Time now);
  /// The ping that introduces went out under this id.
  void introduced(NodeId node, std::uint64_t id);
  /// `node` answered the ping of that id.
  void ponged(NodeId node, std::uint64_t id, Pong pong);
  /// Who has answered within half of the time after which one is suspected.
  std::vector<NodeId> reached() const;
  /// Others that say the same of `node`.
  std::vector<NodeId> reached_by(NodeId node) const;
  /// Everything we know, those too that are gone, to be sent; and what another knows, to be merged (greater incarnation
  /// wins); true when that changed something.
  std::vector<Member> members() const;
  const Member& own() const { return own_; }
  bool merge(const std::vector<Member>& members);
  /// What is said of this node from now on is newer than what was said under `incarnation`.
  void say_after(std::uint64_t incarnation);
  /// Others may have what this node no longer says of itself, under an incarnation that holds over its own: as after a
  /// start with the clock ahead. Says its own after that; true when it did, and all are to be told.
  bool defend(const std::vector<Member>& members);
  /// Those that are new are taken for healthy until they do not answer; those that are known stay as they are. Of
  /// itself a node knows best, but for what the layout is made from.
  /// Those that are in no layout any more are in `gone`: they are not looked for, but answered, since they may not have
  /// heard of it. Of whom neither says anything, nothing is taken over.
  void set_members(const std::vector<Member>& members, const std::set<NodeId>& hosts, const std::set<NodeId>& gone,
                   std::int64_t now_ms);
  /// These leave out those that are gone.
  std::vector<PeerView> view() const;
  std::vector<Member> members_now() const;
  /// Of all that may answer.
  std::vector<NodeId> ids() const;

 private:
  struct Peer {
    Member member;
    bool seed = false;
    bool suspected = false;
    bool gone = false;
    bool silent() const { return gone && suspected; }
    std::int64_t answered_ms = 0;
    std::int64_t heard_ms = -1;
    std::int64_t really_answered_ms = -1;  // what suspicion goes by begins with the start, and leaves out gaps
    std::int64_t probed_ms = 0;
    Pong pong;                     // the last one
    bool knows_us = false;         // as we are now, in its present life
    std::uint64_t introduced = 0;  // the id of the first ping that said so; 0: none yet
  };
  const NodeId self_;
  const std::uint32_t probe_interval_ms_;
  const std::uint32_t suspect_after_ms_;
  Member own_;
  std::map<NodeId, Peer> peers_;
  std::int64_t last_tick_ms_ = 0;
  std::int64_t last_gossip_ms_ = 0;
  std::int64_t last_late_ms_ = 0;
  int slowness_ = 0;
};

}  // namespace kinfs::cluster
