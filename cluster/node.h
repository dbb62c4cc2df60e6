// One member of the ring, without I/O: messages, requests and time go in; what must be saved, sent and
// answered comes out as values, in order.
//
// The runner (daemon/runner, tests/sim) calls one of the inputs, then carries out take_effects() in order,
// before the next input. A Save is applied before anything after it is sent: that is the whole durability
// protocol (after etcd-io/raft's Ready). The core owns no thread, clock, socket or random device; it reads
// rows through a Reader, which must show every Save that was carried out.
//
// Threading: none; one thread at a time.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "cluster/layout_history.h"
#include "cluster/message.h"

namespace kinfs::cluster {

/// Both clocks are the runner's. Deadlines and suspicion use mono_ms; only the hybrid clock uses wall_ms.
struct Time {
  std::int64_t mono_ms = 0;
  std::int64_t wall_ms = 0;
};

/// N, R and W of Dynamo. R + W > N; never more than there are hosts. R or W 0: a majority of the replicas that there
/// are.
struct Quorum {
  std::uint32_t n = 3;
  std::uint32_t r = 2;
  std::uint32_t w = 2;
  bool operator==(const Quorum&) const = default;
};

/// Planted bugs: switches that break one mechanism each, so that tests can show that the simulator's checkers
/// find them. Checkers and scenarios do not know of them. All off in every program but kinfs-sim.
enum class PlantedBug : std::uint32_t {
  kNone = 0,
  kAckBeforeSave,         // a replica confirms a write that it does not save
  kForgetHint,            // the stand-in confirms without keeping the hint
  kPrefixSupersede,       // a put discards every version that its context covers, shown or not
  kReuseDots,             // counters begin at 1 again after a crash
  kSkipAbsentRepair,      // read repair leaves out replicas that had nothing
  kRetryIsNewEvent,       // a retry makes a second version
  kSyncBeforeDisk,        // a synced put is confirmed without the fsync
  kVouchForLostDots,      // after a power cut a node's context covers its own dots that it lost
  kVouchForUnseenEvents,  // a client's event covers its earlier ones, whether the row has seen them or not
  kConfirmBeforeSync,     // a replica confirms a synced write without waiting for the fsync
  kReplayUnsynced,        // a hint is dropped when its owner has the state, on its disk or not
  kForgetBlockHint,       // the stand-in confirms a block without keeping the hint
  kTrustOldDisk,          // counters go on where the disk says, though it may be an older one, or empty
  kHalfBatch,             // a replica takes the first row of a batch, and confirms all of it
  kStaleSums,             // anti-entropy goes by what a partition held when it was first looked at
  kCompareSkipsAbsent,    // anti-entropy leaves out what one side does not have at all
  kAdoptPeersRow,         // anti-entropy takes the peer's state instead of merging it
  kConcludeAbsence,       // a host that is cut off and owns nothing of a key says that the key is not there
  kAnswerBeforeHint,      // a synced write is answered before the hint that it depends on is on disk
  kSyncBeforeAcked,       // what is here is handed over while others still write without the new layout
  kReadBeforeSynced,      // a node reads by a layout whose owners do not have everything yet
  kDropBeforeRead,        // the layout before is forgotten while others read by it
  kKeepFromSuccessors,    // an owner that will be none takes what comes late, and hands it to nobody
  kVouchForErasedDots,    // a dot covers the earlier ones of a row that was erased here
  kSurrenderUnconfirmed,  // what a node does not own goes before its owners are known to have it
  kScrubLooksAway,        // a damaged block is found, and left as it is
  kReapWithoutHorizon,    // what was removed is forgotten while others may have what it removed
  kNoFloor,               // what comes back after that is taken for new
  kForwardTwice,          // a forwarded put that the network delivers again is carried out again
  kSameUnseen,            // a replica says that it has what the asker has, without having looked
  kTakeOverFirst,         // an owner that was away takes what is of one partition key, and confirms all of it
};

struct NodeConfig {
  NodeId self{};
  Bytes cluster_id;  // 16 bytes
  /// A name for this start, other than all before, which is kept on the disk; and what the last start was called, if it
  /// is certain that everything written under that name is there. Else empty: after a power cut or a failed fsync the
  /// tail of what was not synced may be gone, and a disk that was restored is an older one.
  Bytes run, last_run;
  std::vector<Member> members;  // this node too, in the layout `layout_number`
  /// Hosts may join: the members are kept on the disk from the first start on, and `members` is what that begins with.
  bool members_grow = false;
  /// 0: nothing but hosts to be asked who the members are; until one has said, no request is served.
  std::uint64_t layout_number = 1;
  std::vector<NodeId> seeds;                // always among gossip's candidates
  Quorum quorum;                            // of every volume for now
  std::uint32_t request_timeout_ms = 1000;  // how long a coordinator waits for a replica it believes healthy
  std::uint32_t probe_interval_ms = 250;
  std::uint32_t suspect_after_ms = 1000;        // silence, while being probed, after which a peer is suspected
  std::uint32_t hint_interval_ms = 5;           // between two batches of hints for one peer
  std::uint32_t compare_interval_ms = 600'000;  // about, between two passes of anti-entropy; 0: none
  std::uint32_t scrub_interval_ms = 604'800'000;  // about, of one pass over all blocks; 0: none
  std::uint32_t reap_after_ms = 600'000;  // how far horizons stay behind the clocks (horizon.h); 0: nothing is reaped
  std::size_t max_under_way = 20'000;           // requests; more are refused with kBusy,
  std::size_t max_bytes_under_way = 96 << 20;   // and when they keep as much in memory
  std::size_t crowded_at = 1024;  // requests that wait for their answers, or half of the bytes; see crowded()
  PlantedBug bug = PlantedBug::kNone;
};

// --- Effects, to be carried out in order ---

struct Save {
  Batch batch;
};
struct SaveBlock {
  BlockKey key;
  SharedBytes bytes;
};
/// fsync everything saved before; then call synced(token). Several may be under way; they may be coalesced.
struct Sync {
  std::uint64_t token = 0;
};
struct Send {
  Message message;
};
struct Reply {
  std::uint64_t client = 0;  // as given to request()
  Answer answer;
};
/// Sent once for each change, of a member's address or key too: whom to speak with from now on.
struct MembersAre {
  std::vector<Member> members;
};
struct Effect {
  /// Effects of one origin depend on each other: when a Save or SaveBlock fails, the runner skips the rest of
  /// that origin in this round and calls save_failed(origin, error).
  std::uint64_t origin = 0;
  std::variant<Save, SaveBlock, Sync, Send, Reply, MembersAre> what;
};

struct PeerView {
  Member member;
  bool suspected = false;
  std::int64_t last_heard_ms = -1;     // mono_ms of its last message; -1: never
  std::uint64_t hints = 0;             // kept here for it, blocks included
  std::int64_t last_answered_ms = -1;  // mono_ms of its last answer to what we asked; -1: never since start
  bool full = false;                   // its disk, as it last said
  std::vector<NodeId> reached_by;      // when it is suspected: others that say it answers them
};

/// Since start; held by tests against the design's table of costs.
struct Counters {
  std::uint64_t puts = 0, gets = 0, scans = 0, blocks_put = 0, blocks_got = 0;
  std::uint64_t put_rows = 0;
  std::uint64_t degraded_puts = 0, degraded_reads = 0;
  std::uint64_t repairs = 0, hints_kept = 0, hints_delivered = 0;
  std::uint64_t siblings_made = 0;  // puts after which the row had more than one live version
  std::uint64_t puts_beside_many = 0;  // after which it had at least kManySiblings
  std::uint64_t retries_collapsed = 0;
  std::uint64_t dropped_late = 0;  // messages and requests past their deadline
  std::uint64_t refused = 0;
  std::uint64_t refused_busy = 0;      // requests, for what was under way
  std::uint64_t dot_clashes = 0;       // one dot with two contents
  std::uint64_t unknown_own_dots = 0;  // others knew dots of this node that it does not: its disk was restored
  std::uint64_t messages_in = 0, messages_out = 0;
  std::uint64_t compare_passes = 0;                        // of anti-entropy, ended
  std::uint64_t rows_exchanged = 0, blocks_exchanged = 0;  // by it: taken over, and sent
  std::uint64_t rows_surrendered = 0, blocks_surrendered = 0;  // not owned here, and now with all owners
  std::uint64_t rows_reaped = 0;                               // that were removed, and are forgotten now
  std::uint64_t scrub_passes = 0, blocks_scrubbed = 0, blocks_damaged = 0, blocks_mended = 0;
  std::uint64_t unreadable = 0;                            // how often it met a row or block that is damaged here
};

/// Why something does not go on: what this host said, which may be the node itself.
struct Obstacle {
  NodeId node{};
  Error error;
};

class NodeImpl;

class Node {
 public:
  /// `seed` feeds every random choice. `store` outlives the node.
  Node(NodeConfig config, const Reader& store, std::uint64_t seed);
  ~Node();

  /// Reads the meta record, or makes it; the first effects reserve counters and must be carried out before any
  /// other input. kRefused when the directory belongs to another node or cluster.
  Result<void> start(Time now);
  void receive(Message message, Time now);
  /// `client` comes back in the Reply. AdminRequest is not for the core (kUnsupported).
  void request(std::uint64_t client, Request request, std::uint32_t ttl_ms, Time now);
  void synced(std::uint64_t token, Time now);
  void save_failed(std::uint64_t origin, const Error& error, Time now);
  /// At least every 10 ms while anything is under way; deadlines, probes, gossip and hints run from here.
  void tick(Time now);
  std::vector<Effect> take_effects();

  std::vector<PeerView> peers() const;
  const Counters& counters() const;
  /// The owners of a partition, best first.
  std::vector<NodeId> owners(std::uint16_t partition) const;
  Hlc hlc() const;
  LayoutId layout() const;  // the head
  const LayoutHistory& layouts() const;
  /// This host is no member any more, and another one knows it too: nobody waits for it.
  bool has_left() const;
  /// While the members change: how much of what is stored here has gone to its new owners, 0 to 1.
  double given() const;
  /// And what keeps it from coming to its end; nullopt: nothing that is known of.
  const std::optional<Obstacle>& obstacle() const;
  /// Has all blocks read now, as fast as that goes beside other work; and how much of the pass under way is done, 0
  /// to 1.
  void scrub();
  double scrubbed() const;
  /// Blocks that are damaged here, and that no other owner could give.
  std::size_t beyond_repair() const;
  /// What was removed with a clock up to that, every member knows (horizon.h); 0: not known of all.
  Hlc horizon() const;
  std::vector<Member> members() const;
  /// As it holds for the members that there are.
  Quorum quorum() const;
  /// So much is under way that more would only wait. A client that has something under way is to be served no further
  /// now, so that there is always room for one that asks for little.
  bool crowded() const;
  /// What requests under way keep in memory.
  std::size_t bytes_under_way() const;
  /// False until this host has heard who the members are; before, every request is refused.
  bool knows_members() const;
  /// Nothing under way: no request, no unconfirmed hint batch.
  bool idle() const;

 private:
  std::unique_ptr<NodeImpl> impl_;
};

}  // namespace kinfs::cluster
