// Anti-entropy (DeCandia et al. 2007, section 4.7): owners of a partition compare what they hold and exchange what
// differs, rows and blocks, so that they converge with no reads and no help.
//
// In passes: over all partitions that this node owns, with each healthy other owner. A pass begins after each start,
// some seconds after a peer is back, and every NodeConfig::compare_interval_ms. It goes by three steps, each of which
// ends where both sides are equal:
//   1. sums of whole partitions, many in one message; kept in memory until the partition changes;
//   2. buckets of some tens of items, of the partitions that differ;
//   3. the items of the buckets that differ: what the peer has is fetched and merged, what it lacks is sent.
// Both sides make passes, so an empty partition is not asked about: who has something there asks. But the first pass
// after a start asks about all, since this disk may have been emptied unnoticed by the others.
//
// While the members change (layout_history.h), a host makes a pass of another kind: of all that it has, as no owner
// too, with all owners in the head. It counts when it left nothing over that the other should be given, and each of the
// others had all of it on its disk then, and had lost nothing since the pass began.
//
// And what it holds that it owns no more, or never did, it compares with the owners in the same way, from time to time
// and when the members have changed: what all of them have on their disks, it gives up (surrender.h).
//
// Paced: one page of items is looked at in a tick, one page is under way with each peer, and of gifts as many as do not
// delay it (pacer.h); who is asked about sums
// that it has not looked at yet, as after a start of all, looks at as many as in a tick, and the others count as
// differing. What is lost on the way, or refused, is left to the next pass. A merge here is as everywhere: it makes no
// version, and takes none away that somebody has not seen.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cluster/core.h"
#include "cluster/horizon.h"
#include "cluster/pacer.h"
#include "cluster/partition_sums.h"
#include "cluster/surrender.h"

namespace kinfs::cluster {

class AntiEntropy {
 public:
  AntiEntropy(Core& core, PartitionSums& sums, Horizon& horizon)
      : core_(core), sums_(sums), horizon_(horizon), surrender_(core) {}
  void start();
  /// Before anything else of the tick has saved.
  void tick();
  /// `node` answers again after it was suspected.
  void came_back(NodeId node);
  /// There are other owners now: a pass begins soon.
  void members_changed();
  /// All that is here goes to all owners in the head: with a pass that begins after the first call for this head, when
  /// all of them can be reached, and again until one counts. True once one did.
  bool give_all();

  // As the one that is asked.
  void compare_partitions(const Message& message, const ComparePartitions& theirs);
  void compare_items(const Message& message, const CompareItems& theirs);

  // As the one that asks. Those that return bool: whether the answer was to a question from here.
  void replied(std::uint64_t id, NodeId from, const ComparePartitionsReply& reply);
  void replied(std::uint64_t id, NodeId from, CompareItemsReply reply);
  bool replied(std::uint64_t id, NodeId from, const ReadRowReply& reply);
  bool replied(std::uint64_t id, NodeId from, const ReadBlockReply& reply);
  void replied(std::uint64_t id, NodeId from, const SyncStoreReply& reply);
  void confirmed(std::uint64_t id, NodeId from);
  void refused(std::uint64_t id, NodeId from, const Error& error);

  /// Why the last pass of give_all() does not count, where a host said so: it comes again until it does.
  const std::optional<Obstacle>& obstacle() const { return obstacle_; }
  /// How much of what is here give_all() has gone through, 0 to 1.
  double given() const;
  /// No pass is under way, or about to begin.
  bool idle() const;

 private:
  using Place = std::pair<ItemKind, std::uint16_t>;
  /// Through one partition with one peer, page by page.
  struct Walk {
    Place place;
    Bytes after;             // up to here both sides are equal now, or what differed is left over
    std::vector<Item> page;  // own items of the page that is being compared
    bool to_end = false;     // it is the last one
    std::uint64_t asked = 0;
    std::int64_t deadline_ms = 0;
    std::deque<Bytes> fetch, give;      // keys of items
    std::set<std::uint64_t> under_way;  // ids of these
  };
  struct Peer {
    std::size_t places = 0;              // that it is asked about
    std::vector<PartitionSum> sums;      // to be sent
    std::vector<PartitionSum> compared;  // sent, and not answered
    std::uint64_t asked = 0;
    std::int64_t deadline_ms = 0;
    std::deque<Place> differing;
    std::optional<Walk> walk;
    // Of a pass that only gives: what the peer's present start is called, as of the beginning and of the end.
    std::uint64_t syncs = 0;  // the id of the question
    std::int64_t syncs_until_ms = 0;
    std::int64_t syncs_from_ms = 0;
    std::optional<Bytes> run, synced_in;
    bool done() const { return sums.empty() && asked == 0 && differing.empty() && !walk; }
  };
  enum class Aim {
    kEqual,      // with the other owners of what this node owns
    kGiveAll,    // to the owners in the head
    kSurrender,  // what this node does not own, once they have it
  };
  struct Pass {
    Aim aim = Aim::kEqual;
    LayoutId head;  // when it began
    std::set<NodeId> with;
    std::size_t next = 0;  // of all places, in order
    bool with_empty = false;
    bool not_given = false;      // something that one of them should have
    bool holds = false;          // there is a row that this node does not own, or may be
    std::set<NodeId> left_over;  // who was healthy, and not compared to the end
    std::vector<Surrender::Confirmed> not_owned;
    std::set<Place> unreadable;                     // where something is damaged here
    std::set<std::pair<NodeId, Place>> not_had_by;  // places of which that one may lack something
    bool only_gives() const { return aim != Aim::kEqual; }
  };
  /// One fetch or gift.
  struct Exchange {
    NodeId peer{};
    Place place;
    Bytes key;
    bool only_theirs = false;  // there is nothing here that they should have
    bool gift = false;
    std::int64_t sent_ms = 0;
  };

  void leave_over(NodeId node, bool lacks = true);
  void leave_over(NodeId node, const Error& error, bool lacks = true);
  void cannot_give(NodeId to, const Place& place, const Error& error);
  void lacks(NodeId node, const Place& place);
  void lacks_compared(NodeId node, const Peer& peer);
  void abandon_pass();
  bool may_give() const;
  bool may_surrender() const;
  bool hints_go_out() const;
  std::optional<Aim> next_aim();
  std::int64_t some_interval_ms();
  bool joins() const;
  Place next_place() const;
  bool concerns(std::uint16_t partition) const;
  void ask_to_sync(NodeId node, Peer& peer);
  bool sync_all();
  bool is_sure_of(NodeId node) const;
  void surrender_what_others_have();
  Pacer& pacer_of(NodeId node, ItemKind kind);
  void end_pass();
  bool asked(const Peer* peer, std::uint64_t id) const { return peer != nullptr && peer->asked == id; }
  Peer* peer_of(NodeId node);
  void begin_pass(Aim aim);
  void advance_pass();
  void expire();
  void step(NodeId node, Peer& peer, bool all_sums);
  void compare_page(NodeId node, Walk& walk);
  std::vector<Bucket> buckets_of(const Walk& walk) const;
  void sort_out(Walk& walk, const CompareItemsReply& reply);
  void exchange(NodeId node, Walk& walk);
  void fetch(NodeId node, Walk& walk, const Bytes& key);
  void give_rows(NodeId node, Walk& walk);
  void give_block(NodeId node, Walk& walk, const Bytes& key);
  std::uint64_t begin_exchange(NodeId node, Walk& walk, Exchange exchange);
  std::optional<Exchange> end_exchange(std::uint64_t id, NodeId from);

  Core& core_;
  PartitionSums& sums_;
  PartitionSums::Look look_;
  Horizon& horizon_;
  Surrender surrender_;
  std::map<NodeId, Peer> peers_;  // of the pass
  std::optional<Pass> pass_;
  std::set<NodeId> wanted_;  // for the next pass
  std::int64_t next_pass_ms_ = 0;
  std::int64_t next_periodic_ms_ = 0;
  std::int64_t next_surrender_ms_ = 0;
  bool surrender_is_next_ = false;  // so that a host which always has something to compare surrenders too
  bool started_ = true;  // no pass has begun yet
  std::optional<LayoutId> to_give_, given_;
  std::optional<Obstacle> obstacle_;
  std::int64_t give_from_ms_ = 0;
  std::unordered_map<std::uint64_t, Exchange> exchanges_;
  std::map<std::pair<NodeId, ItemKind>, Pacer> pacers_;  // of gifts
};

}  // namespace kinfs::cluster
