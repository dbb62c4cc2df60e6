#include "cluster/membership.h"

#include <algorithm>
#include <utility>

namespace kinfs::cluster {
namespace {
constexpr std::int64_t kAskPauseMs = 100;
constexpr std::int64_t kSaveAgainMs = 1000;
constexpr std::int64_t kSpreadMs = 2000;
constexpr std::size_t kMaxActive = 8;  // layouts; each write has to reach its quorum in all of them

Error busy(std::string text) { return {Errc::kBusy, std::move(text)}; }
Error refused(std::string text) { return {Errc::kRefused, std::move(text)}; }

Role::Part part_of(const LayoutHistory& history, NodeId node) {
  const auto role = history.head().roles.find(node);
  return role == history.head().roles.end() ? Role::Part::kMember : role->second.part;
}
}  // namespace

void Membership::start(NodeMeta& meta) {
  const auto& config = core_.config;
  const auto first = [&](std::uint64_t number, const std::vector<Member>& members,
                         PlacementRule rule = PlacementRule::kRing) {
    core_.adopt(LayoutHistory(first_layout(number, config.quorum.n, members, rule)), members);
  };
  if (!config.members_grow) return first(config.layout_number, config.members);
  // The clock, which the configuration's incarnation comes from, may have been ahead at an earlier start.
  for (const auto& m : meta.members) {
    if (m.node == config.self) core_.peers.say_after(m.incarnation);
  }
  if (meta.layouts.base.id.number != 0) {
    core_.adopt(LayoutHistory(meta.layouts), meta.members);
  } else if (meta.layout_number > config.layout_number) {
    first(meta.layout_number, meta.members);
  } else if (config.layout_number != 0) {
    first(config.layout_number, config.members, kLatestRule);
  }
  begun_ = 1;
  // Of oneself the configuration knows best; on disk before anybody is told.
  if (known()) meta = core_.dots.with_members(history().layouts(), core_.peers.members());
}

void Membership::started() {
  saved_ = std::max<std::uint64_t>(saved_, 1);
  saving_ = false;
  on_disk_.merge(history(), {});
}

std::string Membership::name_of(NodeId node) const {
  for (const auto& member : core_.peers.members()) {
    if (member.node == node) return member.name;
  }
  return "a host that is no member of this cluster";
}

std::optional<Error> Membership::serves_nothing() const {
  if (known() && is_member()) return std::nullopt;
  const auto part = known() ? part_of(history(), core_.config.self) : part_elsewhere_;
  if (!known() && part != Role::Part::kMember) {
    return refused(
        "this host left its cluster, or was taken for lost, and its data directory is another one since: to have it in "
        "the cluster again, give it a new key and an empty data directory, and invite it");
  }
  if (!known()) return Error{Errc::kUnavailable, "this host has not yet heard from its cluster who the members are"};
  if (part == Role::Part::kExcused) {
    return refused(
        "this host was taken for lost, and is no member of its cluster any more: what it has stays on its disk; to "
        "have "
        "it in the cluster again, give it a new key and an empty data directory, and invite it");
  }
  return busy("this host is leaving its cluster, or has left it: other hosts serve what it had");
}

bool Membership::has_left() const {
  return known() && !is_member() && !history().changing() && base_elsewhere_ == history().base().id &&
         core_.store.hint_targets().empty();
}

Membership::Serving Membership::serves_unknown(const LayoutId& layout) const {
  const bool may_come = core_.config.members_grow && layout.number > history().base().id.number;
  return may_come && !history().is_active(layout) ? Serving::kHold : Serving::kRefuse;
}

Membership::Serving Membership::serves_read(const LayoutId& layout, NodeId from) const {
  if (!known() || !history().is_active(layout)) return serves_unknown(layout);
  return history().serves_read(layout, from, core_.config.self) ? Serving::kServe : Serving::kRefuse;
}

Membership::Serving Membership::serves_write(const LayoutId& layout) const {
  const auto& h = history();
  const bool serves = layout == h.head().id || (h.changing() && h.follows(layout, h.floor()));
  return known() && serves ? Serving::kServe : serves_unknown(layout);
}

// --- Changes ---

std::optional<Error> Membership::objection() const {
  if (!core_.config.members_grow) {
    return refused(
        "the hosts of this cluster are listed in its configuration: change each host's list of cluster.member, and "
        "start the daemons again");
  }
  if (!is_member()) return refused("this host is leaving its cluster, or has left it: ask another one");
  if (making_) return busy("another change of members is being saved; try again in a moment");
  if (!on_disk()) return busy("the last change of members is not on disk yet; try again in a moment");
  return std::nullopt;
}

std::optional<Error> Membership::too_many() const {
  if (history().active().size() < kMaxActive) return std::nullopt;
  return busy("several changes of members are under way, and wait for hosts that are away: see 'kinfs status'");
}

std::optional<Error> Membership::objection(const Member& member) const {
  if (auto error = objection()) return error;
  if (auto error = too_many()) return error;
  for (const auto& m : core_.peers.members()) {
    if (!core_.placement.hosts().contains(m.node) || m.node == member.node) continue;
    if (m.name == member.name) {
      return Error{Errc::kExists, "there is a host " + m.name + " in this cluster already; choose another name"};
    }
    if (m.address == member.address) {
      return Error{Errc::kExists, m.name + " has the address " + m.address + " already"};
    }
  }
  const auto role = history().head().roles.find(member.node);
  if (role != history().head().roles.end() && role->second.part == Role::Part::kExcused) {
    return refused(
        "this host was excused from the cluster, and what it has may be out of date: give it a new key and "
        "an empty data directory, and invite it again");
  }
  return std::nullopt;
}

void Membership::admit(const Asker& asker, AdmitRequest request) {
  const auto members = core_.peers.members();
  const auto& member = request.member;
  const auto known_as =
      std::find_if(members.begin(), members.end(), [&](const Member& m) { return m.node == member.node; });
  if (core_.config.members_grow && known() && history().is_member(member.node) && known_as != members.end()) {
    // A retry, whose answer was lost.
    if (known_as->name == member.name) {
      return core_.answer(core_.new_id(), asker, Admitted{history().head().id.number, core_.peers.members_now()});
    }
    return core_.answer(core_.new_id(), asker,
                        refused("this host is a member already, and is called " + known_as->name +
                                ": go on with kinfs join --name " + known_as->name));
  }
  if (auto error = objection(member)) return core_.answer(core_.new_id(), asker, std::move(*error));
  Role role;
  role.weight = member.weight;
  role.zone = member.zone;
  make(asker, member.node, role, {member});
}

Result<NodeId> Membership::find(const std::string& host) const {
  std::vector<NodeId> found;
  for (const auto& m : core_.peers.members()) {
    const auto id = static_cast<std::uint64_t>(m.node);
    Bytes bytes;
    for (int shift = 56; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(id >> shift));
    const bool is_meant = m.name == host || to_hex(bytes) == host;
    if (is_meant && core_.placement.hosts().contains(m.node)) found.push_back(m.node);
  }
  if (found.empty()) return fail(Errc::kNotFound, "no host of this cluster is called " + host);
  if (found.size() > 1) {
    return fail(Errc::kInvalid, "several hosts are called " + host + ": name one by its id, see 'kinfs nodes'");
  }
  return found.front();
}

std::optional<Error> Membership::objection_to_excuse(NodeId node, bool force) const {
  if (node == core_.config.self) return refused("this host cannot excuse itself: let it leave");
  const auto members = core_.placement.head().preference(0);
  const auto healthy = std::count_if(members.begin(), members.end(), [&](NodeId n) { return core_.peers.healthy(n); });
  if (force) return std::nullopt;
  if (core_.peers.healthy(node)) {
    return refused(name_of(node) + " answers: let it leave, and nothing that only it has is lost");
  }
  if (const auto others = core_.peers.reached_by(node); !others.empty()) {
    return refused(
        name_of(node) + " does not answer this host, but " + name_of(others.front()) +
        " says that it answers there: it is not lost; if it is of no use all the same, excuse it with --force");
  }
  if (2 * static_cast<std::size_t>(healthy) <= members.size()) {
    return refused("only " + std::to_string(healthy) + " of " + std::to_string(members.size()) +
                   " hosts can be reached from here, and it may be this one that is cut off: if " + name_of(node) +
                   " is lost for certain, excuse it with --force");
  }
  return std::nullopt;
}

void Membership::change(const Asker& asker, const ChangeMemberRequest& request) {
  using Change = ChangeMemberRequest::Change;
  const auto answer = [&](Answer a) { core_.answer(core_.new_id(), asker, std::move(a)); };
  const auto node = find(request.host);
  if (!node) return answer(node.error());
  auto error = objection();
  const auto& roles = history().head().roles;
  if (!error && !roles.contains(*node)) error = busy("that host is just being taken in; try again in a moment");
  if (error) return answer(std::move(*error));
  auto role = roles.at(*node);
  const auto part = request.change == Change::kExcuse  ? Role::Part::kExcused
                    : request.change == Change::kLeave ? Role::Part::kLeft
                                                       : role.part;
  const bool goes = request.change != Change::kShare;
  if (goes && role.part == part) {  // a retry, whose answer was lost
    return answer(Admitted{history().head().id.number, core_.peers.members_now()});
  }
  if (goes && core_.placement.head().hosts() == 1 && history().is_member(*node)) {
    return answer(refused(name_of(*node) + " is the only host of this cluster"));
  }
  if (!goes && (request.weight == 0 || request.weight > kMaxWeight)) {
    return answer(Error{Errc::kInvalid, "a weight is a number from 1 to " + std::to_string(kMaxWeight)});
  }
  if (!goes && role.part != Role::Part::kMember) return answer(refused(name_of(*node) + " is leaving this cluster"));
  if (!goes && role.weight == request.weight && role.zone == request.zone) {
    return answer(Admitted{history().head().id.number, core_.peers.members_now()});
  }
  // Of what is waited for, it is the way out.
  error = request.change == Change::kExcuse ? objection_to_excuse(*node, request.force) : too_many();
  if (error) return answer(std::move(*error));
  role.part = part;
  if (!goes) {
    role.weight = request.weight;
    role.zone = request.zone;
  }
  make(asker, *node, role, {});
}

/// Later than what is known, whatever the clocks were.
Said Membership::now_said(const Said& known) {
  return {std::max(core_.clock.next(core_.now.wall_ms), Hlc{known.hlc.value + 1}), core_.config.self};
}

void Membership::make(const Asker& asker, NodeId node, Role role, std::vector<Member> members) {
  const auto& roles = history().head().roles;
  const auto known_role = roles.find(node);
  const bool is_new = known_role == roles.end();
  const Role before = is_new ? Role{} : known_role->second;
  if (is_new || role.part != before.part) role.part_said = now_said(before.part_said);
  if (is_new || role.weight != before.weight || role.zone != before.zone) role.share_said = now_said(before.share_said);
  making_ = Making{core_.new_id(), asker, node, history(), std::move(members)};
  making_->history.change({{node, role}});
  making_->saved_by = save();
}

void Membership::made() {
  auto done = std::move(*making_);
  making_.reset();
  auto merged = history();
  merged.merge(done.history, core_.config.self);
  adopt(std::move(merged), done.members);
  tell_all(core_.new_id());
  const auto& made = done.history.head();
  spreading_.push_back({done.asker, made.id, done.node, made.roles.at(done.node), core_.now.mono_ms + kSpreadMs});
  answer_what_spread();
}

/// Another host has it on its disk, or there is none that could.
bool Membership::has_spread(const Spreading& made) const {
  if (made.is_elsewhere || !history().is_active(made.layout)) return true;
  bool could = false;
  for (const auto node : core_.placement.hosts()) {
    if (node == core_.config.self || !core_.peers.healthy(node)) continue;
    could |= history().base().roles.contains(node);  // a host that joins is none yet, and waits for the answer
  }
  return !could;
}

void Membership::answer_what_spread() {
  std::erase_if(spreading_, [&](const Spreading& s) {
    if (!has_spread(s) && core_.now.mono_ms < s.until_ms) return false;
    core_.answer(core_.new_id(), s.asker, said_of(s));
    return true;
  });
}

/// What was made on top of what others left behind meanwhile came to nothing.
Answer Membership::said_of(const Spreading& made) const {
  const auto& roles = history().head().roles;
  const auto role = roles.find(made.node);
  const bool holds = role != roles.end() && role->second.part_said >= made.role.part_said &&
                     role->second.share_said >= made.role.share_said;
  if (holds) return Admitted{history().head().id.number, core_.peers.members_now()};
  return busy("another change of members, which this host had not heard of, came before this one: try again");
}

// --- What is known, on disk and to others ---

void Membership::adopt(LayoutHistory next, const std::vector<Member>& members) {
  const auto head = history().head().id;
  const auto base = history().base().id;
  core_.adopt(std::move(next), members);
  if (history().head().id != head) head_since_ = core_.last_id();
  if (history().base().id != base) anti_entropy_.members_changed();
}

std::uint64_t Membership::save(bool tells) {
  saving_ = true;
  saved_ms_ = core_.now.mono_ms;
  auto known_now = history();
  auto members = core_.peers.members();
  const auto change = making_ ? making_->id : 0;
  if (making_) {
    known_now.merge(making_->history, core_.config.self);
    members.insert(members.end(), making_->members.begin(), making_->members.end());
  }
  const auto origin = core_.new_id();
  Batch batch;
  batch.meta = core_.dots.with_members(known_now.layouts(), std::move(members));
  core_.on_save_failure(origin, [this, origin](const Error& error) { save_failed(origin, error); });
  core_.save(origin, std::move(batch));
  core_.after_sync(origin, [this, change, tells, number = ++begun_, known_now = std::move(known_now)] {
    saving_ = false;
    saved_ = std::max(saved_, number);
    on_disk_.merge(known_now, {});
    if (making_ && making_->id == change) return made();
    if (tells) tell_all(core_.new_id());
  });
  return origin;
}

void Membership::save_failed(std::uint64_t origin, const Error& error) {
  saving_ = false;
  // What is on the disk already happens: it is only not saved once more.
  if (!making_ || making_->saved_by != origin) return;
  const auto asker = making_->asker;
  making_.reset();
  (void)core_.dots.with_members(history().layouts(), core_.peers.members());
  core_.answer(core_.new_id(), asker, error);
}

void Membership::say(LayoutHistory::Step step) {
  auto next = history();
  next.say(core_.config.self, step);
  adopt(std::move(next), {});
  save(true);
}

void Membership::settle(LayoutHistory::Step last) {
  auto next = history();
  if (!next.settle(last)) return;
  adopt(std::move(next), {});
  save(true);
}

void Membership::tick() {
  answer_what_spread();
  // The disk was full: what is on it is earlier.
  if (core_.config.members_grow && !on_disk() && known() && !saving_ && core_.now.mono_ms - saved_ms_ >= kSaveAgainMs) {
    save(true);
  }
}

void Membership::heard(NodeId from, const Gossip& gossip) {
  // What it says of addresses and keys holds after a restart too, when it may be the one that is away.
  const bool grows = core_.config.members_grow;
  bool news = false;
  if (grows && gossip.layouts.base.id.number != 0) {
    const LayoutHistory theirs(gossip.layouts);
    part_elsewhere_ = part_of(theirs, core_.config.self);
    for (auto& made : spreading_) made.is_elsewhere |= theirs.is_active(made.layout);
    auto merged = history();
    if ((known() || theirs.waits_for(core_.config.self)) && merged.merge(theirs, core_.config.self)) {
      adopt(std::move(merged), gossip.members);
      news = true;
    }
    if (history().is_member(from)) base_elsewhere_ = theirs.base().id;
  }
  news |= core_.heard_of(gossip.members);
  const bool defends = core_.peers.defend(gossip.members);
  const auto origin = (news || defends) && grows && known() ? save() : core_.new_id();
  if (defends) tell_all(origin);
}

Gossip Membership::gossip(bool reply) const {
  return {core_.peers.members(), reply, on_disk_.layouts(), horizon_.all()};
}

void Membership::tell_all(std::uint64_t origin) {
  for (const auto node : core_.peers.ids()) {
    core_.send(origin, node, core_.new_id(), core_.config.request_timeout_ms, gossip(false));
  }
}

void Membership::behind(NodeId from) {
  if (!core_.config.members_grow || core_.now.mono_ms - asked_ms_ < kAskPauseMs) return;
  asked_ms_ = core_.now.mono_ms;
  const auto id = core_.new_id();
  core_.send(id, from, id, core_.config.request_timeout_ms, gossip(false));
}

}  // namespace kinfs::cluster
