// What the daemon itself answers, around the core: status, ring, counters, cut, heal, and identities for the
// command line.
//
// Commands and their arguments (AdminRequest); every answer is one JSON object:
//   status                    {safe, hosts[{name,address,state,last_seen,full}], under_replicated, hints, conflicts,
//                             tasks[], disk{...}, node{...}, quorum{n,r,w}, cut[], degraded_puts, overload{...}, ...}
//   ring                      {partitions, layout{number,hash}, hosts[{name,first,owned}]}
//   ring VOLUME HEX           the same with key{volume,partition,owners[]}; VOLUME is a number, HEX the partition key
//   counters                  {node{...}, transport{...}, clients_of_others{...}, daemon{...}}
//   cut NAME...               drops all traffic with exactly these hosts from now on, silently; none: as heal
//   heal                      ends every cut
//   others                    {public_key, secret_key, ready, hosts[{name, address, public_key}]}: how a client of this
//                             host goes on without this daemon, see cluster/introduction.h
//   ready                     {ready}: for clients of other hosts, see there
//   identity                  {slot, client, boot, host}: for one run of the command line, see IdentityPool
//   identity-done SLOT        gives it back
//
// Threading: the loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "cluster/node.h"
#include "cluster/zmq_transport.h"
#include "daemon/config.h"
#include "daemon/reception.h"
#include "daemon/runner.h"
#include "storage/store.h"

namespace kinfs::daemon {

/// Lends client ids to runs of the command line.
///
/// An event id must be new, and a context remembers every client that ever wrote a row: an id of its own for every
/// `kinfs put` would let contexts grow without end, and one id shared by two runs at once would let the later event
/// hide the earlier. So an id is lent to one run at a time and used again by the next, with a greater boot number. A
/// run that never says that it ended keeps its id until no request of it can still be under way. A restart of the
/// daemon forgets who holds what, so each of kGenerations successive starts lends other ids.
class IdentityPool {
 public:
  /// `boot`: how often this node was started (NodeMeta::boot).
  IdentityPool(NodeId node, std::uint64_t boot) : node_(node), boot_(boot) {}

  struct Lent {
    std::uint32_t slot = 0;
    ClientId client{};
    std::uint64_t boot = 0;
  };
  /// kBusy when kMaxSlots are out.
  Result<Lent> lend(std::int64_t mono_ms);
  void give_back(std::uint32_t slot);

  static constexpr std::uint32_t kMaxSlots = 1024;
  static constexpr std::int64_t kKeepMs = 120'000;  // longer than any command waits for its answer
  static constexpr std::uint64_t kGenerations = 8;

 private:
  NodeId node_;
  std::uint64_t boot_;
  std::uint64_t lent_ = 0;
  std::map<std::uint32_t, std::int64_t> out_;  // slot -> until when (mono_ms)
};

/// The part of the daemon's sockets that Admin needs; a test has its own.
struct CutSwitch {
  std::function<void(std::set<NodeId>)> set_cut;
  std::function<const std::set<NodeId>&()> cut;
  std::function<const cluster::TransportCounters&()> counters;
  std::function<const cluster::UnixServerCounters&()> client_counters;  // of other hosts
  std::function<const cluster::UnixServerCounters&()> own_client_counters;
};

class Admin {
 public:
  Admin(const Config& config, cluster::Node& node, const Store& store, CutSwitch transport,
        const cluster::KeyPair& keys, std::uint64_t boot, std::function<FailedSaves()> failed_saves,
        Reception::Invite invite);

  /// An AdminAnswer, or an Error with words.
  cluster::Answer answer(const cluster::AdminRequest& request);

 private:
  Result<std::string> status() const;
  Result<std::string> ring(const std::vector<std::string>& arguments) const;
  Result<std::string> counters() const;
  Result<std::string> scrub();
  Result<std::string> set_cut(const std::vector<std::string>& names);
  std::string others() const;
  Result<std::string> invite(const std::vector<std::string>& arguments);
  /// Of the other hosts, by what they answered since start.
  struct Reach {
    bool reads = false;    // so many answer that R owners of everything do
    bool settled = false;  // this daemon has had time to hear from those that are there
  };
  Reach reach() const;
  Result<std::string> identity();
  Result<std::string> identity_done(const std::vector<std::string>& arguments);
  std::string name_of(NodeId node) const;

  const Config& config_;
  cluster::Node& node_;
  const Store& store_;
  CutSwitch transport_;
  NodeId self_;
  cluster::KeyPair client_keys_;
  std::function<FailedSaves()> failed_saves_;
  Reception::Invite invite_;
  IdentityPool identities_;
  std::int64_t started_ms_;
};

}  // namespace kinfs::daemon
