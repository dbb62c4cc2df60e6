#include "cluster/peers.h"

#include <algorithm>

namespace kinfs::cluster {
namespace {
constexpr std::int64_t kGossipIntervalMs = 1000;
constexpr std::int64_t kLateTickMs = 100;     // ten times what it should take
constexpr std::int64_t kForgetLateMs = 1000;  // without another one
constexpr int kMostSlowness = 4;              // then a peer may be silent for twice as long
}  // namespace

Peers::Peers(const NodeConfig& config)
    : self_(config.self), probe_interval_ms_(config.probe_interval_ms), suspect_after_ms_(config.suspect_after_ms) {
  for (const auto& m : config.members) {
    if (m.node == self_) {
      own_ = m;
      continue;
    }
    Peer peer;
    peer.member = m;
    peer.seed = std::find(config.seeds.begin(), config.seeds.end(), m.node) != config.seeds.end();
    peers_.emplace(m.node, std::move(peer));
  }
}

void Peers::start(Time now) {
  last_tick_ms_ = last_gossip_ms_ = now.mono_ms;
  for (auto& [id, peer] : peers_) {
    peer.answered_ms = now.mono_ms;
    peer.probed_ms = now.mono_ms - probe_interval_ms_;
  }
}

bool Peers::healthy(NodeId node) const {
  if (node == self_) return true;
  const auto it = peers_.find(node);
  return it != peers_.end() && !it->second.suspected;
}

std::vector<Peers::Probe> Peers::tick(Time now, std::mt19937_64& random) {
  std::vector<Probe> out;
  const std::int64_t gap = now.mono_ms - last_tick_ms_;
  last_tick_ms_ = now.mono_ms;
  const bool stopped = gap > suspect_after_ms_ / 2;
  // Answers may wait here, unread.
  if (gap > kLateTickMs) {
    slowness_ = std::min(slowness_ + 1, kMostSlowness);
    last_late_ms_ = now.mono_ms;
  } else if (slowness_ > 0 && now.mono_ms - last_late_ms_ > kForgetLateMs) {
    --slowness_;
    last_late_ms_ = now.mono_ms;
  }
  const auto patience_ms = std::int64_t{suspect_after_ms_} * (kMostSlowness + slowness_) / kMostSlowness;
  for (auto& [id, peer] : peers_) {
    if (peer.silent()) continue;
    if (stopped) peer.answered_ms += gap;
    if (now.mono_ms - peer.answered_ms > patience_ms) peer.suspected = true;
    if (now.mono_ms - peer.probed_ms < probe_interval_ms_) continue;
    peer.probed_ms = now.mono_ms;
    out.push_back({id, false, !peer.knows_us});
  }
  if (now.mono_ms - last_gossip_ms_ >= kGossipIntervalMs && !peers_.empty()) {
    last_gossip_ms_ = now.mono_ms;
    // Suspected peers stay candidates only as seeds: that heals a split without flooding the dead.
    std::vector<NodeId> candidates;
    for (const auto& [id, peer] : peers_) {
      if (!peer.suspected || (peer.seed && !peer.gone)) candidates.push_back(id);
    }
    if (!candidates.empty()) out.push_back({candidates[random() % candidates.size()], true});
  }
  return out;
}

bool Peers::answered(NodeId node, Time now) {
  const auto it = peers_.find(node);
  if (it == peers_.end()) return false;
  it->second.answered_ms = it->second.really_answered_ms = now.mono_ms;
  return std::exchange(it->second.suspected, false);
}

void Peers::heard(NodeId node, Time now) {
  const auto it = peers_.find(node);
  if (it != peers_.end()) it->second.heard_ms = now.mono_ms;
}

void Peers::introduced(NodeId node, std::uint64_t id) {
  const auto it = peers_.find(node);
  if (it != peers_.end() && it->second.introduced == 0) it->second.introduced = id;
}

void Peers::ponged(NodeId node, std::uint64_t id, Pong pong) {
  const auto it = peers_.find(node);
  if (it == peers_.end()) return;
  it->second.pong = std::move(pong);
  if (it->second.introduced != 0 && id >= it->second.introduced) it->second.knows_us = true;
}

std::vector<NodeId> Peers::reached() const {
  std::vector<NodeId> out;
  for (const auto& [id, peer] : peers_) {
    const bool of_late =
        peer.really_answered_ms >= 0 && last_tick_ms_ - peer.really_answered_ms <= suspect_after_ms_ / 2;
    if (of_late && !peer.suspected && !peer.gone && out.size() < kMaxReached) out.push_back(id);
  }
  return out;
}

std::vector<NodeId> Peers::reached_by(NodeId node) const {
  std::vector<NodeId> out;
  for (const auto& [id, peer] : peers_) {
    const auto& reaches = peer.pong.reaches;
    if (id == node || peer.suspected || peer.gone) continue;
    if (std::find(reaches.begin(), reaches.end(), node) != reaches.end()) out.push_back(id);
  }
  return out;
}

std::vector<Member> Peers::members() const {
  std::vector<Member> out{own_};
  for (const auto& [id, peer] : peers_) out.push_back(peer.member);
  return out;
}

bool Peers::merge(const std::vector<Member>& members) {
  bool changed = false;
  for (const auto& m : members) {
    const auto it = peers_.find(m.node);
    // A key we do not know is no member: joining is by an operator's word, not by gossip.
    if (it == peers_.end() || it->second.member.public_key != m.public_key) continue;
    if (m.incarnation <= it->second.member.incarnation) continue;
    it->second.member = m;
    // It was started anew, and may have forgotten.
    it->second.knows_us = false;
    it->second.introduced = 0;
    changed = true;
  }
  return changed;
}

void Peers::say_after(std::uint64_t incarnation) {
  own_.incarnation = std::max(own_.incarnation, std::min(incarnation, kMaxSequenceNumber - 1) + 1);
}

bool Peers::defend(const std::vector<Member>& members) {
  bool defends = false;
  for (const auto& m : members) {
    if (m.node != self_ || m.public_key != own_.public_key || m.incarnation < own_.incarnation) continue;
    if (m.name == own_.name && m.address == own_.address && m.client_key == own_.client_key) continue;
    const auto before = own_.incarnation;
    say_after(m.incarnation);
    defends |= own_.incarnation != before;  // beyond the greatest there is nothing to say
  }
  return defends;
}

void Peers::set_members(const std::vector<Member>& members, const std::set<NodeId>& hosts, const std::set<NodeId>& gone,
                        std::int64_t now_ms) {
  for (const auto& m : members) {
    if (m.node == self_) {
      if (own_.node != self_) own_ = m;
      continue;
    }
    if (!hosts.contains(m.node) && !gone.contains(m.node)) continue;
    const auto [it, is_new] = peers_.try_emplace(m.node);
    if (!is_new) continue;
    it->second.member = m;
    it->second.answered_ms = now_ms;
    it->second.probed_ms = now_ms - probe_interval_ms_;
    it->second.suspected = gone.contains(m.node);
  }
  merge(members);
  for (auto& [id, peer] : peers_) peer.gone = !hosts.contains(id);
}

std::vector<PeerView> Peers::view() const {
  std::vector<PeerView> out;
  for (const auto& [id, peer] : peers_) {
    if (peer.gone) continue;
    out.push_back({peer.member, peer.suspected, peer.heard_ms, 0, peer.really_answered_ms, peer.pong.full, {}});
    if (peer.suspected) out.back().reached_by = reached_by(id);
  }
  return out;
}

std::vector<NodeId> Peers::ids() const {
  std::vector<NodeId> out;
  for (const auto& [id, peer] : peers_) {
    if (!peer.silent()) out.push_back(id);
  }
  return out;
}

std::vector<Member> Peers::members_now() const {
  std::vector<Member> out{own_};
  for (const auto& [id, peer] : peers_) {
    if (!peer.gone) out.push_back(peer.member);
  }
  return out;
}

}  // namespace kinfs::cluster
