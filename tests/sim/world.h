// A whole cluster in one thread and one clock: the real core on simulated disks and a simulated network.
//
// Everything that happens is drawn from one seed, in one order: the same seed gives the same run, to the last
// message. The world injects faults; it judges nothing (see history.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <queue>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "cluster/layout.h"
#include "cluster/node.h"
#include "storage/mem_store.h"

namespace kinfs::sim {

using cluster::PlantedBug;

struct WorldOptions {
  std::uint64_t seed = 1;
  std::size_t hosts = 3;
  cluster::Quorum quorum;
  PlantedBug bug = PlantedBug::kNone;
  double loss = 0;                        // of each message
  double gossip_loss = 0;                 // of each message that says who the members are
  double slow_blocks = 0;                 // of each message with a block, by 0.5 to 0.95 s: bytes take time
  double repeat = 0;                      // of each message, delivered once more
  double late = 0;                        // of each message, by up to 2 s
  double crash_in_effects = 0;            // between any two effects
  bool disk_faults = false;               // disks are emptied, and restored from backups
  std::uint32_t compare_interval_ms = 0;  // of anti-entropy; 0: none
  std::uint32_t reap_after_ms = 0;        // 0: nothing is reaped
  bool joins = false;                     // host1 is alone at first; others join, and leave
  bool bit_flips = false;                 // in stored blocks
  bool trace = false;
};

/// What was done to the cluster; printed as a run's census.
struct Faults {
  std::uint64_t cuts = 0, one_way_cuts = 0, crashes = 0, power_cuts = 0, power_cuts_that_lost = 0, pauses = 0,
                full_disks = 0, clock_jumps = 0, emptied_disks = 0, restored_disks = 0, lost_hosts = 0, bit_flips = 0,
                lost_messages = 0, repeated_messages = 0, late_messages = 0;
  /// Events, messages apart.
  std::uint64_t events() const {
    return cuts + one_way_cuts + crashes + power_cuts + pauses + full_disks + clock_jumps + emptied_disks +
           restored_disks;
  }
};

class World {
 public:
  /// Told of what an omniscient observer may see.
  struct Observer {
    virtual ~Observer() = default;
    virtual void saved(std::size_t host, const Batch& batch) = 0;
    virtual void lost_tail(std::size_t host) = 0;
    /// What was synced is gone too: the disk is empty, or as it was some time ago.
    virtual void lost_disk(std::size_t host) = 0;
    /// This one is damaged there.
    virtual void lost_block(std::size_t host, const BlockKey& key) = 0;
    /// Some host is the first that has dropped a layout, and `reader`, for which it has to wait, goes by this one then.
    virtual void reads_by(std::size_t reader, const LayoutRecord& layout) = 0;
    /// And this one it has dropped.
    virtual void reads_by_dropped(std::size_t reader, const LayoutRecord& layout) = 0;
  };

  explicit World(WorldOptions options);

  std::int64_t now_us() const { return now_us_; }
  std::mt19937_64& random() { return random_; }
  double chance() { return std::uniform_real_distribution<double>(0, 1)(random_); }
  /// Uniform in [low, high].
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
  }
  void observe(Observer* observer) { observer_ = observer; }

  void after(std::int64_t delay_us, std::function<void()> what);
  void run_until(std::int64_t time_us);
  /// Until `done`, or `limit_us` more: returns whether it was done.
  bool run_until(const std::function<bool()>& done, std::int64_t limit_us);

  std::size_t hosts() const { return hosts_.size(); }
  NodeId id_of(std::size_t host) const;
  std::size_t host_of(NodeId node) const;
  bool up(std::size_t host) const { return hosts_[host].node != nullptr; }
  const MemStore& store(std::size_t host) const { return *hosts_[host].store; }
  const cluster::Node& node(std::size_t host) const { return *hosts_[host].node; }
  /// Where hosts join and leave: as the first host that is up says.
  std::vector<std::size_t> owners(VolumeId volume, const Bytes& partition_key) const;
  /// In any layout by which some host goes.
  std::vector<std::size_t> owners_of_any(VolumeId volume, const Bytes& partition_key) const;
  bool are_quorum(const LayoutRecord& layout, VolumeId volume, const Bytes& partition_key,
                  const std::set<std::size_t>& hosts) const;
  /// Whether these are W owners in some layout by which some host goes. Not in each: an answer that arrives now may
  /// have been given some seconds ago, when there were fewer.
  bool are_quorum(VolumeId volume, const Bytes& partition_key, const std::set<std::size_t>& hosts) const;
  std::vector<std::size_t> owners(const RowKey& key) const { return owners(key.volume, key.partition_key); }
  /// W of Dynamo, as far as there are owners.
  std::size_t write_quorum() const;

  /// `answer` gets nullopt when the host died or said nothing within `ttl_ms`. Called exactly once.
  void request(std::size_t host, cluster::Request request, std::uint32_t ttl_ms,
               std::function<void(std::optional<cluster::Answer>)> answer);

  void cut(std::size_t from, std::size_t to) { links_[from * hosts_.size() + to] = true; }
  void isolate(std::size_t host);
  void heal() { links_.assign(links_.size(), false); }
  bool is_cut(std::size_t from, std::size_t to) const { return links_[from * hosts_.size() + to]; }
  /// kill -9; with `power_cut`, what was not synced is lost too, but for a random prefix.
  void crash(std::size_t host, bool power_cut);
  void restart(std::size_t host);
  bool joins() const { return options_.joins; }
  /// It was taken in, and has not gone since.
  bool joined(std::size_t host) const { return hosts_[host].joined; }
  bool gone(std::size_t host) const { return hosts_[host].gone; }
  bool given_up(std::size_t host) const { return hosts_[host].given_up; }
  /// Whether all know the changes of members that this one knows: hosts that few have heard of would be strangers to
  /// the others without it.
  bool all_know_what(std::size_t host) const;
  /// The host and its disk.
  void lose_for_good(std::size_t host);
  /// Of a host that lives: it is to be excused. What it has, and what it takes until it hears of it, counts as lost.
  void give_up(std::size_t host);
  /// Since when the host goes by the members that it goes by now.
  std::int64_t members_since_us(std::size_t host) const { return hosts_[host].head_since_us; }
  /// Whether no host is a quorum by itself: one that has not heard that it was given up would go on alone.
  bool outvotes_one() const;
  /// Where it can see that itself.
  void retire_who_left();
  /// Whether `by` knows that host to be a member no more.
  bool says_gone(std::size_t by, const std::string& name) const {
    if (!up(by)) return false;
    const auto& layouts = node(by).layouts();
    const auto id = id_of(host_called(name));
    return layouts.head().roles.contains(id) && !layouts.is_member(id);
  }
  std::size_t host_called(const std::string& name) const {
    const auto is = [&](const Member& m) { return m.name == name; };
    return static_cast<std::size_t>(std::find_if(members_.begin(), members_.end(), is) - members_.begin());
  }
  /// The entry that a host asks to be taken in with.
  const Member& member(std::size_t host) const { return members_[host]; }
  /// It was taken in, and starts, knowing `members`.
  void join(std::size_t host, std::vector<Member> members);
  void pause(std::size_t host, bool paused);
  void fill_disk(std::size_t host, bool full);
  bool disk_faults() const { return options_.disk_faults; }
  bool bit_flips() const { return options_.bit_flips; }
  /// In one of its blocks, if it has any.
  void flip_a_bit(std::size_t host);
  bool reaps() const { return options_.reap_after_ms != 0; }
  bool compares() const { return options_.compare_interval_ms != 0; }
  /// Keeps a copy of the disk, for restore_disk().
  void back_up(std::size_t host);
  /// These two end the process first.
  void restore_disk(std::size_t host);
  void empty_disk(std::size_t host);
  std::int64_t wall_ms(std::size_t host) const { return time_of(hosts_[host]).wall_ms; }
  void set_clock(std::size_t host, std::int64_t offset_ms) { hosts_[host].wall_offset_ms = offset_ms; }
  /// Ends every fault: all links, hosts, disks and clocks as they should be, and no more lost messages.
  void calm();
  bool idle() const;
  /// In words, for traces.
  std::string why_not_idle() const;

  Faults faults;
  /// What one side sent and the decoder of the other refused, in words: never, between nodes of one version.
  std::vector<std::string> malformed;
  cluster::Counters counters() const;  // of all nodes, those that died included
  void trace(const std::string& line);
  bool tracing() const { return options_.trace; }

 private:
  struct Host {
    std::unique_ptr<MemStore> store = std::make_unique<MemStore>();
    std::unique_ptr<MemStore> backup;
    std::unique_ptr<cluster::Node> node;
    std::uint64_t epoch = 0;   // of what was started: events of a former life are dropped
    std::uint64_t losses = 0;  // of tails and disks; the node is told of them
    bool joined = true;
    bool gone = false;
    bool given_up = false;
    LayoutId head;
    std::int64_t head_since_us = 0;
    std::vector<Member> told;  // the members, when it joined
    bool paused = false;
    bool full = false;
    std::int64_t wall_offset_ms = 0;
    std::deque<std::function<void()>> waiting;  // inputs that arrived while it was paused
  };
  struct Event {
    std::int64_t time_us;
    std::uint64_t sequence;
    std::function<void()> what;
    bool operator>(const Event& o) const { return time_us != o.time_us ? time_us > o.time_us : sequence > o.sequence; }
  };
  struct Request {
    std::size_t host;
    std::function<void(std::optional<cluster::Answer>)> answer;
  };

  cluster::Time time_of(const Host& host) const;
  bool step();
  void input(std::size_t host, std::function<void(cluster::Node&, cluster::Time)> what);
  void look_at_layouts(std::size_t host);
  void carry_out(std::size_t host);
  bool save(std::size_t host, const cluster::Effect& effect);
  void send(const cluster::Message& message);
  void deliver(std::size_t to, const cluster::Message& message, std::int64_t delay_us);
  void answer(std::uint64_t client, std::optional<cluster::Answer> answer);
  /// What the other side makes of it; nullopt: it refuses it.
  std::optional<cluster::Message> over_the_wire(const cluster::Message& message);
  std::optional<cluster::ClientFrame> over_the_wire(const cluster::ClientFrame& frame);
  const cluster::Layout& layout_of(const LayoutRecord& record) const;
  const cluster::Node* any_member() const;
  /// Whether that is what the host says of itself.
  bool where_it_is(const Member& member) const;
  /// It left, and all know; or it is lost.
  void retire(std::size_t host);
  void replace_disk(std::size_t host, std::unique_ptr<MemStore> disk);
  void tick(std::size_t host, std::uint64_t epoch);
  cluster::NodeConfig config_of(std::size_t host) const;

  WorldOptions options_;
  std::mt19937_64 random_;
  std::int64_t now_us_ = 0;
  std::uint64_t sequence_ = 0;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::vector<Host> hosts_;
  std::vector<Member> members_;
  std::vector<bool> links_;  // from * hosts + to: cut
  std::map<std::uint64_t, Request> requests_;
  std::uint64_t next_request_ = 0;
  cluster::Counters dead_counters_;
  Observer* observer_ = nullptr;
  std::set<LayoutId> bases_;                             // that were one at some host
  mutable std::map<LayoutId, cluster::Layout> layouts_;  // that were asked for
};

/// One line that says what a message is, for traces.
std::string describe(const cluster::Message& message);
/// Its rows and their hints; empty when there are none.
std::string describe(const Batch& batch);

}  // namespace kinfs::sim
