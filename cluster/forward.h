// Routing through any node: a put that reaches a node which owns nothing of its partition goes on to the first
// healthy owner, and to the next one when that does not answer. Retrying is safe: a request carries its events. Once
// one that was asked did not answer, no error of the next says any more that nothing was done.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <unordered_map>
#include <vector>

#include "cluster/core.h"

namespace kinfs::cluster {

class Forwarder {
 public:
  /// `coordinate` is called when no owner can be reached: then this node stands in.
  Forwarder(Core& core, std::function<void(const Asker&, PutRequest)> coordinate)
      : core_(core), coordinate_(std::move(coordinate)) {}
  void put(const Asker& asker, PutRequest request);
  void replied(std::uint64_t id, NodeId from, ForwardReply reply);
  void refused(std::uint64_t id, NodeId from);
  void tick();
  bool has(std::uint64_t id) const { return under_way_.contains(id); }
  std::size_t size() const { return under_way_.size(); }

 private:
  struct UnderWay {
    Asker asker;
    PutRequest request;
    std::vector<NodeId> left;  // healthy owners to be tried, best last
    NodeId asked{};
    std::int64_t deadline_ms = 0;
    Held held;  // the request, here and in the transport's queues
  };
  void ask_next(std::uint64_t id);

  Core& core_;
  std::function<void(const Asker&, PutRequest)> coordinate_;
  std::unordered_map<std::uint64_t, UnderWay> under_way_;
};

/// What others forwarded to this node is carried out once: the forwarder may have told a client of a definite refusal,
/// and a second delivery after it must not do what was refused. Per sender the last kWindow ids are kept; what is older
/// than all of them counts as a second delivery too (an answer that does not come says nothing, so this is safe).
class ForwardsTaken {
 public:
  bool first_time(NodeId from, std::uint64_t id);

 private:
  static constexpr std::size_t kWindow = 4096;
  std::map<NodeId, std::set<std::uint64_t>> taken_;
};

}  // namespace kinfs::cluster
