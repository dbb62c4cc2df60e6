// Which layouts there are, and how far each member has come with the latest: what all hosts come to agree on by telling
// each other all that they know of it.
//
// A change of members is a *record*, made by whoever the operator asked, on top of the *heads*, the records that no
// other known to it was made on top of. Records made on two sides of a cut are both heads; together they are the layout
// that follows from both, which is computed and never sent, so that everybody who knows the same records knows the same
// head. What is written reaches its quorum in every active layout: the base, which all members read by, and each record
// after it, and the head. A computed head by which somebody goes becomes a record itself.
//
// Where what two sides of a cut decided leaves no member, or each side excuses one who excused somebody on the other,
// who is a member is as the later of the two says alone.
//
// Three trackers, as in Garage, whose designers were shown by Jepsen that fewer lose data. A member has
//  - *acked* the head when it knows it on its disk, and nothing that it began to write without it is under way;
//  - *synced* it when, after all have acked it, all that it stores is on all of the head's owners;
//  - turned to *reading* by it when all have synced it.
// When all read by it, it becomes the base, and what came before is forgotten. A tracker names the layout that it
// speaks of: of a later head it says nothing, and the steps begin anew. So nothing waits for a host that is away but
// the end of the change; and a host that will never return is excused, and not waited for.
//
// The history merges as a state-based CRDT (Shapiro et al. 2011, section 3.1): in any order, any number of times.
//
// Threading: none.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "storage/layouts.h"

namespace kinfs::cluster {

class LayoutHistory {
 public:
  /// Of who does not know of any layout: the base has the number 0.
  LayoutHistory() = default;
  /// The first layout of a cluster, which all read by.
  explicit LayoutHistory(LayoutRecord base);
  /// As what layouts() returned somewhere; records that stand on nothing are left out.
  explicit LayoutHistory(Layouts layouts);
  Layouts layouts() const;

  const LayoutRecord& base() const { return base_; }
  const LayoutRecord& head() const { return head_; }
  bool changing() const { return head_.id != base_.id; }
  /// The base first, the head last.
  std::vector<const LayoutRecord*> active() const;
  bool is_active(const LayoutId& id) const { return knows(id) || id == head_.id; }
  /// The latest active layout that all have acked, or one that follows from it. What a coordinator writes that goes by
  /// none of these is not taken: it was excused and has not heard of it, and those who read by this layout would not
  /// meet its quorum.
  LayoutId floor() const;
  /// Whether `id` is active, and `floor` or made on top of it.
  bool follows(const LayoutId& id, const LayoutId& floor) const;
  bool is_member(NodeId node) const;
  /// Whether this node serves what `from` reads by that layout, which is active. Not where one of the two is not waited
  /// for, as who was excused: others may have forgotten that layout, and write without it. Nor what a host that joins
  /// reads by one that this node has left behind: others may have as well, before they heard of it.
  bool serves_read(const LayoutId& id, NodeId from, NodeId self) const;
  /// What this node reads by: the head once all have synced it, else the last that it said to read by; not the base
  /// again when another change follows, since others may have forgotten that. So may they when a host joins, for which
  /// nobody waited then: it reads by the last that it knows somebody to read by, among them who took it in, without
  /// whom that is not forgotten.
  const LayoutRecord& reading(NodeId self) const;

  /// A new record, in which these hosts have these parts and shares. Returns its id: it is the head now.
  LayoutId change(const Roles& roles);
  /// Takes in what another knows; true when that was news. What others say of `self` is from before it lost its disk:
  /// what it says now is to count over that.
  bool merge(const LayoutHistory& other, NodeId self);

  enum class Step { kAcked, kSynced, kRead };
  /// `self` has done this step with the head.
  void say(NodeId self, Step step);
  /// Whether this member has done this step with the head.
  bool has(NodeId node, Step step) const;
  /// Of those who are waited for, who has not. Nobody while nothing changes.
  std::set<NodeId> missing(Step step) const;
  /// Whether it is a member in an active layout, and not excused.
  bool waits_for(NodeId node) const;
  /// The latest that all read by is the base, also when more has changed since; true when it was not before. `last`: of
  /// the steps.
  bool settle(Step last = Step::kRead);

  const std::map<NodeId, Tracker>& trackers() const { return trackers_; }
  bool operator==(const LayoutHistory& other) const = default;

 private:
  /// The records that no other was made on top of; the base when there are none.
  std::vector<LayoutId> heads() const;
  /// Whether all who are members in `id` or one before it are so far with it, or with one that follows.
  bool all_did(Step step, const LayoutId& id) const;
  /// Whether all others that are active came before it, or follow from it.
  bool stands_alone(const LayoutId& id) const;
  /// Of those that are active.
  std::set<LayoutId> with_ancestors(const LayoutId& id) const;
  /// What follows from these.
  LayoutRecord together() const;
  bool knows(const LayoutId& id) const { return id == base_.id || records_.contains(id); }
  /// Makes `base` the base of records_.
  void begin_at(LayoutRecord base);
  void drop_orphans();
  void drop_strangers();
  bool is_bounded() const;
  bool stands(const LayoutRecord& record) const;
  /// What somebody goes by stays active, also when something else follows.
  void keep_head();

  LayoutRecord base_;
  std::map<LayoutId, LayoutRecord> records_;  // made since the base
  LayoutRecord head_;
  std::map<NodeId, Tracker> trackers_;
};

/// The later word on each part and share; who was excused stays it, who left does unless a later word takes it back.
Roles merge(const Roles& a, const Roles& b);

}  // namespace kinfs::cluster
