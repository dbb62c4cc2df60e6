#include "daemon/admin.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "cluster/introduction.h"
#include "daemon/runner.h"

namespace kinfs::daemon {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kAnsweredLatelyMs = 2000;  // several probes
constexpr std::int64_t kRoomLatelyMs = 5000;      // without a save that found no room
constexpr std::int64_t kSettleMs = 2500;          // over the time after which a peer is suspected

/// Names in rows may be any bytes; JSON is UTF-8.
std::string text_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string utc(std::int64_t wall_ms) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}Z", fmt::gmtime(static_cast<std::time_t>(wall_ms / 1000)));
}

template <class T>
bool parse_number(const std::string& text, T& out, int base = 10) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out, base);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

std::uint64_t value_of(NodeId id) { return static_cast<std::uint64_t>(id); }

/// What was refused or dropped since start because there was too much of it, and what is under way now.
Json overload_of(const cluster::Node& node, const CutSwitch& sockets) {
  const auto& own = sockets.own_client_counters();
  const auto& others = sockets.client_counters();
  return {{"crowded", node.crowded()},
          {"bytes_under_way", node.bytes_under_way()},
          {"refused", node.counters().refused_busy + others.turned_away + others.held_back},
          {"turned_away", own.turned_away},
          {"cut_off", own.cut_off},
          {"held_back", own.held_back},
          {"dropped_late", own.dropped_late + others.dropped_late + node.counters().dropped_late},
          {"dropped_full", sockets.counters().dropped_full}};
}

/// Saves that failed and are not over.
bool saves_fail(const FailedSaves& saves, std::int64_t now_ms) {
  return saves.all != saves.for_room || (saves.for_room != 0 && now_ms - saves.last_for_room_ms < kRoomLatelyMs);
}

template <class NameOf>
Json shown_host(const cluster::PeerView& peer, cluster::Time now, NameOf name_of) {
  const bool heard = peer.last_heard_ms >= 0;
  const bool up = heard && !peer.suspected;
  std::vector<std::string> names;
  for (const auto node : peer.reached_by) names.push_back(name_of(node));
  std::sort(names.begin(), names.end());
  return {{"name", peer.member.name},
          {"address", peer.member.address},
          {"public_key", to_hex(peer.member.public_key)},
          {"state", up      ? "up"
                    : heard ? "down"
                            : "unseen"},
          {"last_seen", heard ? Json(utc(now.wall_ms - (now.mono_ms - peer.last_heard_ms))) : Json()},
          {"full", up && peer.full},
          {"reached_by", names},
          {"hints", peer.hints}};
}

Json own_host(const Member& member, cluster::Time now, bool full) {
  return {{"name", member.name},
          {"address", member.address},
          {"public_key", to_hex(member.public_key)},
          {"state", "up"},
          {"last_seen", utc(now.wall_ms)},
          {"full", full},
          {"reached_by", Json::array()}};
}

Json scrub_of(const cluster::Node& node) {
  const auto& c = node.counters();
  return {{"passes", c.scrub_passes},    {"done", node.scrubbed()},   {"blocks", c.blocks_scrubbed},
          {"damaged", c.blocks_damaged}, {"mended", c.blocks_mended}, {"beyond_repair", node.beyond_repair()}};
}

/// What was removed up to that time, every host knows: it is forgotten.
Json removals_of(const cluster::Node& node) {
  const auto known = node.horizon();
  return {{"known_up_to", known == Hlc{} ? Json() : Json(utc(known.physical_ms()))},
          {"forgotten", node.counters().rows_reaped}};
}

/// The change of members that is under way: what it waits for, and whom.
template <class NameOf>
Json tasks_of(const cluster::Node& node, NameOf name_of) {
  using Step = cluster::LayoutHistory::Step;
  Json out = Json::array();
  const auto& layouts = node.layouts();
  if (!layouts.changing()) return out;
  const auto next = [&](Step step) {
    std::vector<std::string> names;
    for (const auto id : layouts.missing(step)) names.push_back(name_of(id));
    return names;
  };
  constexpr std::pair<Step, const char*> kSteps[] = {
      {Step::kAcked, "all are told"}, {Step::kSynced, "data is handed over"}, {Step::kRead, "reads go over"}};
  for (const auto& [step, words] : kSteps) {
    const auto names = next(step);
    if (names.empty()) continue;
    out.push_back({{"task", "change of members"}, {"step", words}, {"done", node.given()}, {"waits_for", names}});
    break;
  }
  return out;
}

}  // namespace

Result<IdentityPool::Lent> IdentityPool::lend(std::int64_t mono_ms) {
  std::erase_if(out_, [&](const auto& entry) { return entry.second <= mono_ms; });
  std::uint32_t slot = 0;
  while (out_.count(slot) != 0) ++slot;
  if (slot >= kMaxSlots) {
    return fail(Errc::kBusy,
                fmt::format("{} commands are writing through this daemon already; try again in a moment", kMaxSlots));
  }
  out_[slot] = mono_ms + kKeepMs;
  CanonicalWriter w;
  w.bytes("kinfs command line").u64(value_of(node_)).u64(boot_ % kGenerations).u64(slot);
  return Lent{slot, ClientId{read_be64(view_of(md5(w.out())))}, (boot_ << 32) + ++lent_};
}

void IdentityPool::give_back(std::uint32_t slot) { out_.erase(slot); }

Admin::Admin(const Config& config, cluster::Node& node, const Store& store, CutSwitch transport,
             const cluster::KeyPair& keys, std::uint64_t boot, std::function<FailedSaves()> failed_saves,
             Reception::Invite invite)
    : config_(config),
      node_(node),
      store_(store),
      transport_(std::move(transport)),
      self_(cluster::node_id_of(keys.public_key)),
      client_keys_(cluster::client_keys_of(keys)),
      failed_saves_(std::move(failed_saves)),
      invite_(std::move(invite)),
      identities_(self_, boot),
      started_ms_(Runner::now().mono_ms) {}

cluster::Answer Admin::answer(const cluster::AdminRequest& request) {
  const auto run = [&]() -> Result<std::string> {
    const auto& c = request.command;
    if (c == "status") return status();
    if (c == "ring") return ring(request.arguments);
    if (c == "counters") return counters();
    if (c == "scrub") return scrub();
    if (c == "cut") return set_cut(request.arguments);
    if (c == "heal") return set_cut({});
    if (c == cluster::kIntroductionCommand) return others();
    if (c == "invite") return invite(request.arguments);
    if (c == cluster::kReadyCommand) return cluster::encode_ready(reach().reads);
    if (c == "identity") return identity();
    if (c == "identity-done") return identity_done(request.arguments);
    return fail(Errc::kUnsupported, fmt::format("this kinfsd knows no command {:?}; is it older than kinfs?", c));
  };
  auto done = run();
  if (!done) return std::move(done).error();
  return cluster::AdminAnswer{std::move(*done)};
}

std::string Admin::name_of(NodeId node) const {
  if (node == self_) return config_.name;
  for (const auto& peer : node_.peers()) {
    if (peer.member.node == node) return peer.member.name;
  }
  return fmt::format("{:016x}", value_of(node));
}

Result<std::string> Admin::status() const {
  const auto now = Runner::now();
  const auto& c = node_.counters();
  const auto usage = store_.usage();
  Json hosts = Json::array();
  std::uint64_t hints = 0;
  bool all_well = true;
  for (const auto& m : node_.members()) {
    if (m.node == self_) hosts.push_back(own_host(m, now, usage.full));
  }
  for (const auto& peer : node_.peers()) {
    if (peer.member.node == self_) continue;
    const auto shown = shown_host(peer, now, [this](NodeId id) { return name_of(id); });
    all_well = all_well && shown["state"] == "up" && !peer.full;
    hints += peer.hints;
    hosts.push_back(shown);
  }
  std::sort(hosts.begin(), hosts.end(), [](const Json& a, const Json& b) { return a["name"] < b["name"]; });
  Json cut = Json::array();
  for (const auto node : transport_.cut()) cut.push_back(name_of(node));
  const bool full = usage.full || (usage.total_bytes != 0 && usage.free_bytes < usage.total_bytes / 50);
  const auto saves = failed_saves_();
  const auto quorum = node_.quorum();
  const bool knows = node_.knows_members();
  const bool is_member = knows && node_.layouts().is_member(self_);
  const Json out = {{"safe", is_member && !node_.layouts().changing() && all_well && hints == 0 && !full &&
                                 c.dot_clashes == 0 && node_.beyond_repair() == 0 && !saves_fail(saves, now.mono_ms)},
                    {"hosts", std::move(hosts)},
                    // Each hint is one row or block that an owner is known to lack.
                    {"under_replicated", hints},
                    {"hints", hints},
                    {"conflicts", nullptr},  // not counted by the store: `kinfs conflicts` walks
                    {"tasks", tasks_of(node_, [this](NodeId id) { return name_of(id); })},
                    {"disk",
                     {{"path", config_.data_dir},
                      {"total", usage.total_bytes},
                      {"free", usage.free_bytes},
                      {"rows", usage.rows_estimate},
                      {"block_bytes", usage.block_bytes},
                      {"full", full}}},
                    {"node", {{"name", config_.name}, {"id", fmt::format("{:016x}", value_of(self_))}}},
                    {"cluster",
                     {{"id", config_.cluster_id},
                      {"by_invitation", config_.by_invitation},
                      {"knows_members", knows},
                      {"is_member", is_member},
                      {"has_left", node_.has_left()}}},
                    {"quorum", {{"n", quorum.n}, {"r", quorum.r}, {"w", quorum.w}}},
                    {"cut", std::move(cut)},
                    {"degraded_puts", c.degraded_puts},
                    {"degraded_reads", c.degraded_reads},
                    {"failed_saves", saves.all},
                    {"failed_for_room", saves.for_room},
                    {"overload", overload_of(node_, transport_)},
                    {"dot_clashes", c.dot_clashes},
                    {"puts_beside_many", c.puts_beside_many},
                    {"rows_surrendered", c.rows_surrendered},
                    {"blocks_surrendered", c.blocks_surrendered},
                    {"unreadable", c.unreadable},
                    {"scrub", scrub_of(node_)},
                    {"removals", removals_of(node_)},
                    {"uptime_s", (now.mono_ms - started_ms_) / 1000}};
  return text_of(out);
}

Result<std::string> Admin::ring(const std::vector<std::string>& arguments) const {
  struct Share {
    std::string name;
    std::uint64_t first = 0, owned = 0;
    std::uint32_t weight = 1;
    std::string zone;
  };
  std::map<NodeId, Share> shares;
  const auto& roles = node_.layouts().head().roles;
  for (const auto& m : node_.members()) {
    auto& share = shares[m.node];
    share.name = m.name;
    const auto role = roles.find(m.node);
    if (role == roles.end()) continue;
    share.weight = role->second.weight;
    share.zone = role->second.zone;
  }
  for (std::uint32_t p = 0; p < kPartitions; ++p) {
    const auto owners = node_.owners(static_cast<std::uint16_t>(p));
    for (std::size_t i = 0; i < owners.size(); ++i) {
      auto& share = shares[owners[i]];
      if (i == 0) ++share.first;
      ++share.owned;
    }
  }
  Json hosts = Json::array();
  for (const auto& [id, s] : shares) {
    hosts.push_back({{"name", s.name},
                     {"id", fmt::format("{:016x}", value_of(id))},
                     {"first", s.first},
                     {"owned", s.owned},
                     {"weight", s.weight},
                     {"zone", s.zone}});
  }
  std::sort(hosts.begin(), hosts.end(), [](const Json& a, const Json& b) { return a["name"] < b["name"]; });
  Json out = {{"partitions", kPartitions},
              {"layout", {{"number", node_.layout().number}, {"hash", fmt::format("{:016x}", node_.layout().hash)}}},
              {"hosts", std::move(hosts)}};
  if (arguments.empty()) return text_of(out);
  std::uint32_t volume = 0;
  Bytes key;
  bool good = arguments.size() == 2 && parse_number(arguments[0], volume) && arguments[1].size() % 2 == 0;
  for (std::size_t i = 0; good && i < arguments[1].size(); i += 2) {
    unsigned byte = 0;
    good = parse_number(arguments[1].substr(i, 2), byte, 16);
    key.push_back(static_cast<char>(byte));
  }
  if (!good) return fail(Errc::kInvalid, "ring takes the number of a volume and a key in hexadecimal");
  const auto partition = partition_of(VolumeId{volume}, key);
  Json owners = Json::array();
  for (const auto node : node_.owners(partition)) owners.push_back(name_of(node));
  out["key"] = {{"volume", volume}, {"partition", partition}, {"owners", std::move(owners)}};
  return text_of(out);
}

Result<std::string> Admin::counters() const {
  const auto& c = node_.counters();
  const auto& t = transport_.counters();
  const auto& others = transport_.client_counters();
  const Json out = {{"node",
                     {{"puts", c.puts},
                      {"gets", c.gets},
                      {"scans", c.scans},
                      {"blocks_put", c.blocks_put},
                      {"blocks_got", c.blocks_got},
                      {"put_rows", c.put_rows},
                      {"degraded_puts", c.degraded_puts},
                      {"degraded_reads", c.degraded_reads},
                      {"repairs", c.repairs},
                      {"hints_kept", c.hints_kept},
                      {"hints_delivered", c.hints_delivered},
                      {"siblings_made", c.siblings_made},
                      {"retries_collapsed", c.retries_collapsed},
                      {"dropped_late", c.dropped_late},
                      {"refused", c.refused},
                      {"refused_busy", c.refused_busy},
                      {"dot_clashes", c.dot_clashes},
                      {"unknown_own_dots", c.unknown_own_dots},
                      {"messages_in", c.messages_in},
                      {"messages_out", c.messages_out},
                      {"compare_passes", c.compare_passes},
                      {"rows_exchanged", c.rows_exchanged},
                      {"blocks_exchanged", c.blocks_exchanged}}},
                    {"transport",
                     {{"sent", t.sent},
                      {"received", t.received},
                      {"bytes_sent", t.bytes_sent},
                      {"bytes_received", t.bytes_received},
                      {"dropped_late", t.dropped_late},
                      {"dropped_full", t.dropped_full},
                      {"dropped_cut", t.dropped_cut},
                      {"malformed", t.malformed},
                      {"unauthenticated", t.unauthenticated},
                      {"dialled", t.dialled}}},
                    {"clients_of_others",
                     {{"connections", others.connections},
                      {"requests", others.requests},
                      {"answers", others.answers},
                      {"malformed", others.malformed},
                      {"dropped_late", others.dropped_late},
                      {"turned_away", others.turned_away}}},
                    {"daemon", {{"failed_saves", failed_saves_().all}}}};
  return text_of(out);
}

Result<std::string> Admin::scrub() {
  node_.scrub();
  return text_of(scrub_of(node_));
}

Result<std::string> Admin::set_cut(const std::vector<std::string>& names) {
  std::set<NodeId> peers;
  std::vector<std::string> known;
  for (const auto& peer : node_.peers()) {
    if (peer.member.node != self_) known.push_back(peer.member.name);
  }
  for (const auto& name : names) {
    const auto all = node_.peers();
    const auto found = std::find_if(all.begin(), all.end(), [&](const auto& p) { return p.member.name == name; });
    if (found == all.end() || found->member.node == self_) {
      return fail(Errc::kRefused,
                  fmt::format("{} is no other member of this cluster; others: {}", name, fmt::join(known, ", ")));
    }
    peers.insert(found->member.node);
  }
  if (names.empty()) {
    spdlog::info("cut off from nobody");
  } else {
    spdlog::info("cut off from {}", fmt::join(names, ", "));
  }
  transport_.set_cut(std::move(peers));
  return text_of(Json{{"cut", names}});
}

Admin::Reach Admin::reach() const {
  const auto now_ms = Runner::now().mono_ms;
  std::uint32_t absent = 0;
  bool settled = now_ms - started_ms_ >= kSettleMs;
  for (const auto& peer : node_.peers()) {
    if (peer.member.node == self_) continue;
    const bool answers = peer.last_answered_ms >= 0 && now_ms - peer.last_answered_ms <= kAnsweredLatelyMs;
    absent += peer.suspected || !answers;
    settled = settled && (peer.suspected || answers);
  }
  const auto q = node_.quorum();
  return {node_.knows_members() && absent <= q.n - q.r, settled};
}

/// Those that are up first; the clients of different hosts begin with different ones.
std::string Admin::others() const {
  std::vector<std::pair<std::pair<bool, std::uint64_t>, cluster::OtherHost>> ranked;
  for (const auto& peer : node_.peers()) {
    const auto& m = peer.member;
    if (m.node == self_) continue;
    const bool down = peer.last_answered_ms < 0 || peer.suspected;
    ranked.push_back({{down, value_of(m.node) - value_of(self_)}, {m.name, m.address, m.public_key}});
  }
  std::sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  const auto [reads, settled] = reach();
  cluster::Introduction out{client_keys_, {}, reads || settled};
  for (auto& [rank, host] : ranked) out.hosts.push_back(std::move(host));
  return cluster::encode_introduction(out);
}

Result<std::string> Admin::invite(const std::vector<std::string>& arguments) {
  std::uint64_t seconds = 0;
  if (arguments.size() != 1 || !parse_number(arguments[0], seconds)) {
    return fail(Errc::kInvalid, "invite takes a number of seconds");
  }
  auto invited = invite_(seconds);
  if (!invited) return tl::unexpected(std::move(invited).error());
  return text_of(Json{{"word", invited->word}, {"expires", utc(static_cast<std::int64_t>(invited->expires_s) * 1000)}});
}

Result<std::string> Admin::identity() {
  auto lent = identities_.lend(Runner::now().mono_ms);
  if (!lent) return pass<IdentityPool::Lent>(std::move(lent));
  return text_of(Json{{"slot", lent->slot},
                      {"client", fmt::format("{:016x}", static_cast<std::uint64_t>(lent->client))},
                      {"boot", lent->boot},
                      {"host", config_.name}});
}

Result<std::string> Admin::identity_done(const std::vector<std::string>& arguments) {
  std::uint32_t slot = 0;
  if (arguments.size() != 1 || !parse_number(arguments[0], slot)) {
    return fail(Errc::kInvalid, "identity-done takes the slot");
  }
  identities_.give_back(slot);
  return std::string("{}");
}

}  // namespace kinfs::daemon
