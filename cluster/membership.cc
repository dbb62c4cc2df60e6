#include "cluster/membership.h"

#include <algorithm>

namespace kinfs::cluster {
namespace {
constexpr std::int64_t kAskPauseMs = 100;
constexpr std::int64_t kSaveAgainMs = 1000;
}  // namespace

void Membership::start(NodeMeta& meta) {
  if (!core_.config.members_grow) return;
  // The clock, which the configuration's incarnation comes from, may have been ahead at an earlier start.
  for (const auto& m : meta.members) {
    if (m.node == core_.config.self) core_.peers.say_after(m.incarnation);
  }
  const bool is_later = meta.layout_number > core_.layout.id().number;
  if (is_later) core_.adopt(meta.layout_number, meta.members);
  if (!known()) return;
  // Of oneself the configuration knows best; on disk before anybody is told.
  auto members = is_later ? meta.members : core_.peers.members();
  for (auto& m : members) {
    if (m.node == core_.config.self) m = core_.peers.own();
  }
  meta = core_.dots.with_members(core_.layout.id().number, std::move(members));
}

std::string Membership::name_of(NodeId node) const {
  for (const auto& member : core_.peers.members()) {
    if (member.node == node) return member.name;
  }
  return "a host that is no member of this cluster";
}

bool Membership::serves(const LayoutId& layout) const {
  const auto own = core_.layout.id();
  if (layout == own) return true;
  if (!core_.config.members_grow || !known()) return false;
  return layout == core_.previous || layout.number == own.number + 1;
}

// --- Taking a host in ---

std::optional<Error> Membership::objection(const Member& member) const {
  if (!core_.config.members_grow) {
    return Error{Errc::kRefused,
                 "the hosts of this cluster are listed in its configuration: add the new one to each host's list of "
                 "cluster.member, and start the daemons again"};
  }
  const auto members = core_.peers.members();
  for (const auto& m : members) {
    if (m.name == member.name) {
      return Error{Errc::kExists, "there is a host " + m.name + " in this cluster already; choose another name"};
    }
    if (m.address == member.address) {
      return Error{Errc::kExists, m.name + " has the address " + m.address + " already"};
    }
  }
  if (members.size() >= core_.config.quorum.n) {
    return Error{Errc::kRefused, "this cluster has " + std::to_string(members.size()) +
                                     " hosts, one for each copy, and this version takes in no more; to use more hosts, "
                                     "list all of them in each host's configuration (cluster.member)"};
  }
  if (core_.config.quorum.r != 0 || core_.config.quorum.w != 0) {
    return Error{Errc::kRefused,
                 "quorum.r or quorum.w is set: hosts can join only where both are left to be majorities"};
  }
  if (!on_disk_) return Error{Errc::kBusy, "the last change of members is not on disk yet; try again in a moment"};
  for (const auto& m : members) {
    if (core_.peers.healthy(m.node)) continue;
    return Error{Errc::kUnavailable, m.name + " does not answer, and all hosts must be up when another one joins"};
  }
  if (proposal_) return Error{Errc::kBusy, "another host is being taken in; try again in a moment"};
  if (!anti_entropy_.all_have() && !core_.bug(PlantedBug::kJoinUnfilled) && members.size() > 1) {
    return Error{Errc::kBusy,
                 "the host that joined last is still being given what the others have; try again when that is done"};
  }
  return std::nullopt;
}

void Membership::admit(const Asker& asker, AdmitRequest request) {
  const auto members = core_.peers.members();
  const auto member =
      std::find_if(members.begin(), members.end(), [&](const Member& m) { return m.node == request.member.node; });
  if (member != members.end() && core_.config.members_grow && known()) {  // a retry, whose answer was lost
    if (member->name != request.member.name) {
      return core_.answer(core_.new_id(), asker,
                          Error{Errc::kRefused, "this host is a member already, and is called " + member->name +
                                                    ": go on with kinfs join --name " + member->name});
    }
    return core_.answer(core_.new_id(), asker, Admitted{core_.layout.id().number, members});
  }
  if (auto error = objection(request.member)) return core_.answer(core_.new_id(), asker, std::move(*error));
  proposal_ = Proposal{core_.new_id(), asker, members, {}, core_.now.mono_ms + core_.config.request_timeout_ms};
  proposal_->members.push_back(std::move(request.member));
  if (!core_.bug(PlantedBug::kJoinUnasked)) {
    for (const auto& m : members) {
      if (m.node != core_.config.self) proposal_->pending.insert(m.node);
    }
  }
  for (const auto node : proposal_->pending) {
    core_.send(proposal_->id, node, proposal_->id, core_.config.request_timeout_ms, Propose{proposal_->members});
  }
  if (proposal_->pending.empty()) commit();
}

void Membership::proposed(const Message& message, const Propose& propose) {
  std::optional<Error> error;
  if (message.layout != core_.layout.id()) {
    error = Error{Errc::kBusy, name_of(core_.config.self) + " has not heard of the last change of members, or of a "
                               "later one; try again in a moment"};
    if (message.layout.number > core_.layout.id().number) behind(message.from);
  } else {
    error = objection(propose.members.empty() ? Member{} : propose.members.back());
  }
  Body body = ProposeReply{};
  if (error) body = Refusal{std::move(*error)};
  core_.send(core_.new_id(), message.from, message.id, core_.config.request_timeout_ms, std::move(body));
}

void Membership::consented(std::uint64_t id, NodeId from) {
  if (!proposal_ || proposal_->id != id || proposal_->pending.erase(from) == 0) return;
  if (proposal_->pending.empty()) commit();
}

void Membership::refused(std::uint64_t id, NodeId from, const Error& error) {
  if (!proposal_ || proposal_->id != id || !proposal_->pending.contains(from)) return;
  fail(error);
}

void Membership::fail(Error error) {
  const auto asker = proposal_->asker;
  proposal_.reset();
  core_.answer(core_.new_id(), asker, std::move(error));
}

// On this disk first: what was said to somebody must not be forgotten here.
void Membership::commit() {
  const auto number = core_.layout.id().number + 1;
  const auto id = proposal_->id;
  core_.on_save_failure(id, [this](const Error& error) {
    (void)core_.dots.with_members(core_.layout.id().number, core_.peers.members());
    fail(error);
  });
  Batch batch;
  batch.meta = core_.dots.with_members(number, proposal_->members);
  core_.save(id, std::move(batch));
  core_.after_sync(id, [this, number, id] {
    if (!proposal_ || proposal_->id != id) return;
    const auto done = *std::exchange(proposal_, std::nullopt);
    core_.adopt(number, done.members);
    anti_entropy_.members_changed();
    core_.answer(core_.new_id(), done.asker, Admitted{number, done.members});
    for (const auto node : core_.peers.ids()) {
      const auto gossip = core_.new_id();
      core_.send(gossip, node, gossip, core_.config.request_timeout_ms, Gossip{done.members, false});
    }
  });
}

void Membership::tick() {
  // The disk was full: what is on it is an earlier layout.
  if (known() && !on_disk_ && !saving_ && core_.now.mono_ms - saved_ms_ >= kSaveAgainMs) save();
  if (!proposal_ || proposal_->pending.empty() || proposal_->deadline_ms > core_.now.mono_ms) return;
  fail({Errc::kUnavailable, name_of(*proposal_->pending.begin()) + " does not answer, and all hosts must be up when "
                            "another one joins"});
}

// --- Hearing of it ---

void Membership::heard(const Message& message, const Gossip& gossip) {
  const auto own = core_.layout.id();
  if (!core_.config.members_grow || message.layout.number <= own.number) {
    // What it says of addresses and keys holds after a restart too, when it may be the one that is away.
    const bool news = core_.heard_of(gossip.members);
    // While a layout is being made, what it says of this host is on its way to the disk; the next gossip says it again.
    const bool defends = !proposal_ && core_.peers.defend(gossip.members);
    const bool saves = (news || defends) && core_.config.members_grow && known() && !proposal_;
    const auto origin = saves ? save() : core_.new_id();
    if (defends) announce(origin);
    return;
  }
  const bool with_us = std::any_of(gossip.members.begin(), gossip.members.end(),
                                   [&](const Member& m) { return m.node == core_.config.self; });
  // The number and its hash say which members these must be.
  if (!with_us || Layout(message.layout.number, gossip.members, core_.config.quorum.n).id() != message.layout) return;
  if (proposal_ && proposal_->pending.empty()) return;  // it is being saved: there is no other of this number
  if (proposal_) fail({Errc::kBusy, "another host was taken in meanwhile; try again in a moment"});
  const bool defends = core_.peers.defend(gossip.members);
  const auto origin = adopt(message.layout.number, gossip.members);
  if (defends) announce(origin);
}

void Membership::announce(std::uint64_t origin) {
  for (const auto node : core_.peers.ids()) {
    core_.send(origin, node, core_.new_id(), core_.config.request_timeout_ms, Gossip{core_.peers.members(), false});
  }
}

std::uint64_t Membership::adopt(std::uint64_t number, const std::vector<Member>& members) {
  core_.adopt(number, members);
  anti_entropy_.members_changed();
  on_disk_ = false;
  return save();
}

std::uint64_t Membership::save() {
  saving_ = true;
  saved_ms_ = core_.now.mono_ms;
  const auto number = core_.layout.id().number;
  const auto origin = core_.new_id();
  Batch batch;
  batch.meta = core_.dots.with_members(number, core_.peers.members());
  core_.on_save_failure(origin, [this](const Error&) { not_saved(); });
  core_.save(origin, std::move(batch));
  core_.after_sync(origin, [this, number] {
    saving_ = false;
    on_disk_ |= number == core_.layout.id().number;
  });
  return origin;
}

void Membership::behind(NodeId from) {
  if (!core_.config.members_grow || core_.now.mono_ms - asked_ms_ < kAskPauseMs) return;
  asked_ms_ = core_.now.mono_ms;
  const auto id = core_.new_id();
  core_.send(id, from, id, core_.config.request_timeout_ms, Gossip{core_.peers.members(), false});
}

}  // namespace kinfs::cluster
