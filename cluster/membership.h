// How a host becomes a member, and how all come to know it.
//
// Layouts are numbered, and layout n + 1 is n with one host more. As long as every host is an owner of everything
// (n + 1 <= N) and quorums are majorities, any quorum of n meets any of n + 1: so hosts may go over from one to the
// next at different times, and requests of the neighbouring layouts are served. What that rests on is seen to before a
// layout is made, by asking each member for its consent:
//  - there is one layout of each number: whoever is making one itself consents to no other;
//  - nobody is two layouts behind: only who is at n consents to n + 1;
//  - what was written under n - 1 is on every host of n: only who has compared all that it has with all others since
//    it came to n consents (see AntiEntropy::all_have);
//  - who consents has its own number on disk.
// So a host joins while all others are up. Hosts that leave, more hosts than N, and joins while a host is away need
// more (Garage's three trackers), and are refused in words.
#pragma once

#include <optional>
#include <set>
#include <vector>

#include "cluster/anti_entropy.h"
#include "cluster/core.h"

namespace kinfs::cluster {

class Membership {
 public:
  Membership(Core& core, AntiEntropy& anti_entropy) : core_(core), anti_entropy_(anti_entropy) {}
  /// From the record on disk, if it says who the members are; else what the configuration begins with goes into
  /// `meta`, to be saved.
  void start(NodeMeta& meta);
  /// That record is on disk.
  void started() { on_disk_ = true, saving_ = false; }
  /// Or could not be saved; another try follows.
  void not_saved() { saving_ = false; }
  /// The name of a member; words when there is none.
  std::string name_of(NodeId node) const;
  /// False until it is known who the members are.
  bool known() const { return core_.layout.id().number != 0; }
  /// Whether a request of `layout` can be served.
  bool serves(const LayoutId& layout) const;

  void admit(const Asker& asker, AdmitRequest request);
  void proposed(const Message& message, const Propose& propose);
  void consented(std::uint64_t id, NodeId from);
  void refused(std::uint64_t id, NodeId from, const Error& error);
  void heard(const Message& message, const Gossip& gossip);
  /// A message under a later layout came: its sender is asked for the members.
  void behind(NodeId from);
  void tick();

 private:
  struct Proposal {
    std::uint64_t id = 0;
    Asker asker;
    std::vector<Member> members;
    std::set<NodeId> pending;
    std::int64_t deadline_ms = 0;
  };
  /// Why `member` cannot be taken in; nullopt: nothing speaks against it.
  std::optional<Error> objection(const Member& member) const;
  void fail(Error error);
  void commit();
  /// Both return the origin of what they save.
  std::uint64_t adopt(std::uint64_t number, const std::vector<Member>& members);
  std::uint64_t save();
  /// Tells all others what this host knows, if what `origin` saved could be saved.
  void announce(std::uint64_t origin);

  Core& core_;
  AntiEntropy& anti_entropy_;
  bool on_disk_ = false;   // that the members are these
  bool saving_ = true;
  std::int64_t saved_ms_ = 0;  // when that was last begun
  std::int64_t asked_ms_ = -1;  // when somebody was last asked who the members are
  std::optional<Proposal> proposal_;
};

}  // namespace kinfs::cluster
