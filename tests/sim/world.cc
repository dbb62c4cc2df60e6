#include "sim/world.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "cluster/codec.h"
#include "cluster/layout.h"

namespace kinfs::sim {
namespace {

constexpr std::int64_t kTickUs = 20'000;
constexpr std::int64_t kStartWallMs = 1'700'000'000'000;
const Bytes kClusterId(16, 'c');

std::string name_of(const LayoutId& id) { return fmt::format("L{}.{:02x}", id.number, id.hash & 0xff); }

NodeId node_id(std::size_t host) { return NodeId{host + 1}; }

void add(cluster::Counters& sum, const cluster::Counters& c) {
  sum.puts += c.puts, sum.gets += c.gets, sum.scans += c.scans;
  sum.degraded_puts += c.degraded_puts, sum.degraded_reads += c.degraded_reads;
  sum.repairs += c.repairs, sum.hints_kept += c.hints_kept, sum.hints_delivered += c.hints_delivered;
  sum.siblings_made += c.siblings_made, sum.retries_collapsed += c.retries_collapsed;
  sum.dot_clashes += c.dot_clashes, sum.refused += c.refused;
  sum.compare_passes += c.compare_passes, sum.rows_exchanged += c.rows_exchanged;
  sum.blocks_exchanged += c.blocks_exchanged;
  sum.scrub_passes += c.scrub_passes, sum.blocks_mended += c.blocks_mended;
  sum.rows_reaped += c.rows_reaped, sum.rows_surrendered += c.rows_surrendered,
      sum.blocks_surrendered += c.blocks_surrendered;
}

}  // namespace

World::World(WorldOptions options) : options_(options), random_(options.seed), hosts_(options.hosts) {
  for (std::size_t h = 0; h < hosts_.size(); ++h) {
    Member m;
    m.node = node_id(h);
    m.name = fmt::format("host{}", h + 1);
    m.address = fmt::format("sim{}", h + 1);
    m.public_key = Bytes(32, static_cast<char>(h));
    members_.push_back(std::move(m));
    hosts_[h].joined = h == 0 || !options_.joins;
  }
  links_.assign(hosts_.size() * hosts_.size(), false);
  for (std::size_t h = 0; h < hosts_.size(); ++h) restart(h);
}

NodeId World::id_of(std::size_t host) const { return node_id(host); }
std::size_t World::host_of(NodeId node) const { return static_cast<std::size_t>(node) - 1; }

std::size_t World::write_quorum() const {
  const auto n = std::min<std::size_t>(options_.quorum.n, hosts_.size());
  return options_.quorum.w == 0 ? n / 2 + 1 : std::min<std::size_t>(options_.quorum.w, n);
}

const cluster::Layout& World::layout_of(const LayoutRecord& record) const {
  return layouts_.try_emplace(record.id, record).first->second;
}

const cluster::Node* World::any_member() const {
  for (std::size_t h = 0; h < hosts_.size(); ++h) {
    const auto* node = hosts_[h].node.get();
    if (node != nullptr && node->knows_members() && node->layouts().is_member(node_id(h))) return node;
  }
  return nullptr;
}

std::vector<std::size_t> World::owners(VolumeId volume, const Bytes& partition_key) const {
  const auto* node = any_member();
  if (node == nullptr || !options_.joins) return owners_of_any(volume, partition_key);
  std::vector<std::size_t> out;
  for (const auto id : node->owners(partition_of(volume, partition_key))) out.push_back(host_of(id));
  return out;
}

std::vector<std::size_t> World::owners_of_any(VolumeId volume, const Bytes& partition_key) const {
  const auto partition = partition_of(volume, partition_key);
  std::vector<std::size_t> out;
  const auto add = [&](const LayoutRecord& record) {
    for (const auto id : layout_of(record).owners(partition)) {
      if (std::find(out.begin(), out.end(), host_of(id)) == out.end()) out.push_back(host_of(id));
    }
  };
  if (!options_.joins) {
    add(cluster::first_layout(1, options_.quorum.n, members_));
    return out;
  }
  for (const auto& host : hosts_) {
    if (host.node == nullptr) continue;
    for (const auto* record : host.node->layouts().active()) add(*record);
  }
  return out;
}

bool World::are_quorum(const LayoutRecord& record, VolumeId volume, const Bytes& partition_key,
                       const std::set<std::size_t>& hosts) const {
  const auto& layout = layout_of(record);
  const auto owners = layout.owners(partition_of(volume, partition_key));
  const auto have = std::count_if(owners.begin(), owners.end(), [&](NodeId n) { return hosts.contains(host_of(n)); });
  const auto asked = options_.quorum.w;
  return have >=
         static_cast<std::ptrdiff_t>(asked == 0 ? layout.replicas() / 2 + 1 : std::min(asked, layout.replicas()));
}

bool World::are_quorum(VolumeId volume, const Bytes& partition_key, const std::set<std::size_t>& hosts) const {
  const auto is_met = [&](const LayoutRecord& record) { return are_quorum(record, volume, partition_key, hosts); };
  if (!options_.joins) return is_met(cluster::first_layout(1, options_.quorum.n, members_));
  bool anybody = false;
  for (const auto& host : hosts_) {
    if (host.node == nullptr || !host.node->knows_members()) continue;
    anybody = true;
    const auto all = host.node->layouts().active();
    if (std::any_of(all.begin(), all.end(), [&](const auto* record) { return is_met(*record); })) return true;
  }
  return !anybody;
}

cluster::Time World::time_of(const Host& host) const {
  return {now_us_ / 1000, kStartWallMs + now_us_ / 1000 + host.wall_offset_ms};
}

void World::after(std::int64_t delay_us, std::function<void()> what) {
  events_.push({now_us_ + delay_us, ++sequence_, std::move(what)});
}

bool World::step() {
  if (events_.empty()) return false;
  auto what = std::move(const_cast<Event&>(events_.top()).what);
  now_us_ = events_.top().time_us;
  events_.pop();
  what();
  return true;
}

void World::run_until(std::int64_t time_us) {
  while (!events_.empty() && events_.top().time_us <= time_us) step();
  now_us_ = std::max(now_us_, time_us);
}

bool World::run_until(const std::function<bool()>& done, std::int64_t limit_us) {
  const auto end = now_us_ + limit_us;
  while (!done()) {
    if (events_.empty() || events_.top().time_us > end) return done();
    step();
  }
  return true;
}

void World::request(std::size_t host, cluster::Request request, std::uint32_t ttl_ms,
                    std::function<void(std::optional<cluster::Answer>)> on_answer) {
  const auto client = ++next_request_;
  requests_.emplace(client, Request{host, std::move(on_answer)});
  after(std::int64_t{ttl_ms} * 1000, [this, client] { answer(client, std::nullopt); });
  if (!up(host)) return after(0, [this, client] { answer(client, std::nullopt); });
  auto frame = over_the_wire(cluster::ClientFrame{client, ttl_ms, {}, std::move(request)});
  if (!frame) return;
  after(between(20, 100), [this, host, client, ttl_ms, sent = std::get<cluster::Request>(std::move(frame->body))] {
    input(host,
          [client, ttl_ms, sent](cluster::Node& node, cluster::Time now) { node.request(client, sent, ttl_ms, now); });
  });
}

std::optional<cluster::Message> World::over_the_wire(const cluster::Message& message) {
  const auto encoded = cluster::encode(message);
  auto decoded = cluster::decode_message(encoded.header, encoded.payload);
  if (decoded) return std::move(*decoded);
  malformed.push_back(fmt::format("{}: {}", describe(message), decoded.error().text));
  trace("VIOLATION: refused by the decoder: " + malformed.back());
  return std::nullopt;
}

std::optional<cluster::ClientFrame> World::over_the_wire(const cluster::ClientFrame& frame) {
  const auto encoded = cluster::encode(frame);
  auto decoded = cluster::decode_client_frame(encoded.header, encoded.payload);
  if (decoded) return std::move(*decoded);
  malformed.push_back(fmt::format("frame {} of a client: {}", frame.id, decoded.error().text));
  trace("VIOLATION: refused by the decoder: " + malformed.back());
  return std::nullopt;
}

void World::answer(std::uint64_t client, std::optional<cluster::Answer> with) {
  auto found = requests_.extract(client);
  if (found) found.mapped().answer(std::move(with));
}

void World::input(std::size_t host, std::function<void(cluster::Node&, cluster::Time)> what) {
  auto& h = hosts_[host];
  if (!up(host)) return;
  if (h.paused) {
    h.waiting.push_back([this, host, epoch = h.epoch, what = std::move(what)] {
      if (hosts_[host].epoch == epoch) input(host, what);
    });
    return;
  }
  what(*h.node, time_of(h));
  look_at_layouts(host);
  carry_out(host);
}

void World::look_at_layouts(std::size_t host) {
  auto& h = hosts_[host];
  if (std::exchange(h.head, node(host).layout()) != h.head) h.head_since_us = now_us_;
  const auto& base = node(host).layouts().base();
  if (!options_.joins || base.id.number == 0 || !bases_.insert(base.id).second || observer_ == nullptr) return;
  const auto& dropper = node(host).layouts();
  for (std::size_t other = 0; other < hosts_.size(); ++other) {
    if (!up(other) || !node(other).knows_members() || !dropper.waits_for(id_of(other))) continue;
    const LayoutRecord read(node(other).layouts().reading(id_of(other)));
    if (dropper.is_active(read.id)) {
      observer_->reads_by(other, read);
    } else if (read.id.number <= base.id.number && read.roles.contains(id_of(other))) {
      observer_->reads_by_dropped(other, read);
    }
  }
}

// A crash may come between any two effects: what was saved stays saved, what was not sent is never sent.
void World::carry_out(std::size_t host) {
  std::set<std::uint64_t> failed;
  while (up(host)) {
    const auto effects = hosts_[host].node->take_effects();
    if (effects.empty()) return;
    for (const auto& effect : effects) {
      if (options_.crash_in_effects > 0 && chance() < options_.crash_in_effects) {
        crash(host, chance() < 0.5);
        after(between(50'000, 3'000'000), [this, host] { restart(host); });
        return;
      }
      if (failed.contains(effect.origin)) continue;
      if (!save(host, effect)) {
        failed.insert(effect.origin);
        continue;
      }
      if (const auto* sync = std::get_if<cluster::Sync>(&effect.what)) {
        after(between(200, 4000), [this, host, token = sync->token, epoch = hosts_[host].epoch] {
          if (hosts_[host].epoch != epoch || !up(host)) return;
          (void)hosts_[host].store->sync();
          input(host, [token](cluster::Node& node, cluster::Time now) { node.synced(token, now); });
        });
      } else if (const auto* out = std::get_if<cluster::Send>(&effect.what)) {
        send(out->message);
      } else if (const auto* reply = std::get_if<cluster::Reply>(&effect.what)) {
        auto frame = over_the_wire(cluster::ClientFrame{reply->client, 0, hosts_[host].node->hlc(), reply->answer});
        if (!frame) continue;
        after(between(20, 100), [this, client = reply->client, host, epoch = hosts_[host].epoch,
                                 a = std::get<cluster::Answer>(std::move(frame->body))] {
          if (hosts_[host].epoch == epoch) answer(client, a);
        });
      }
    }
  }
}

bool World::save(std::size_t host, const cluster::Effect& effect) {
  auto& h = hosts_[host];
  Result<void> done;
  if (const auto* save = std::get_if<cluster::Save>(&effect.what)) {
    done = h.full ? Result<void>(fail(Errc::kNoSpace, "simulated: no space left")) : h.store->apply(save->batch);
    if (tracing()) {
      const auto what = describe(save->batch);
      if (!what.empty()) trace(fmt::format("host{} {}{}", host + 1, done ? "saves" : "has no room for", what));
    }
    if (done && observer_ != nullptr) observer_->saved(host, save->batch);
  } else if (const auto* block = std::get_if<cluster::SaveBlock>(&effect.what)) {
    done = h.full ? Result<void>(fail(Errc::kNoSpace, "simulated: no space left"))
                  : h.store->put_block(block->key, block->bytes);
  }
  if (!done) h.node->save_failed(effect.origin, done.error(), time_of(h));
  return done.has_value();
}

void World::send(const cluster::Message& message) {
  const auto from = host_of(message.from);
  const auto to = host_of(message.to);
  if (tracing()) trace(describe(message) + (is_cut(from, to) ? "  (cut)" : ""));
  if (is_cut(from, to)) return;
  auto received = over_the_wire(message);
  if (!received) return;
  const bool is_gossip = std::holds_alternative<cluster::Gossip>(message.body);
  if (chance() < (is_gossip ? std::max(options_.loss, options_.gossip_loss) : options_.loss)) {
    ++faults.lost_messages;
    return;
  }
  auto delay_us = between(50, 1500);
  if (chance() < options_.late) {
    ++faults.late_messages;
    delay_us += between(1000, 2'000'000);
  }
  if (std::holds_alternative<cluster::WriteBlock>(message.body) && chance() < options_.slow_blocks) {
    delay_us += between(500'000, 950'000);
  }
  if (chance() < options_.repeat) {
    ++faults.repeated_messages;
    deliver(to, *received, delay_us + between(0, 500'000));
  }
  deliver(to, *received, delay_us);
}

void World::deliver(std::size_t to, const cluster::Message& message, std::int64_t delay_us) {
  after(delay_us, [this, to, message, sent_us = now_us_] {
    if (is_cut(host_of(message.from), to)) return;
    // As the transport does: a request past its deadline is dropped.
    if (now_us_ - sent_us > std::int64_t{message.ttl_ms} * 1000) return;
    input(to, [message](cluster::Node& node, cluster::Time now) { node.receive(message, now); });
  });
}

void World::tick(std::size_t host, std::uint64_t epoch) {
  if (hosts_[host].epoch != epoch) return;
  if (!hosts_[host].paused) input(host, [](cluster::Node& node, cluster::Time now) { node.tick(now); });
  after(kTickUs, [this, host, epoch] { tick(host, epoch); });
}

void World::isolate(std::size_t host) {
  for (std::size_t other = 0; other < hosts_.size(); ++other) {
    if (other == host) continue;
    cut(host, other);
    cut(other, host);
  }
}

void World::crash(std::size_t host, bool power_cut) {
  auto& h = hosts_[host];
  if (!up(host)) return;
  add(dead_counters_, h.node->counters());
  h.node.reset();
  ++h.epoch;
  h.waiting.clear();
  h.paused = false;
  if (power_cut) {
    ++faults.power_cuts;
    ++h.losses;
    const auto unsynced = h.store->unsynced();
    const auto keep = static_cast<std::size_t>(between(0, static_cast<std::int64_t>(unsynced)));
    h.store->crash_keeping(keep);
    if (keep < unsynced) {
      ++faults.power_cuts_that_lost;
      if (observer_ != nullptr) observer_->lost_tail(host);
    }
    if (tracing())
      trace(fmt::format("host{} loses power, and {} of {} unsynced writes", host + 1, unsynced - keep, unsynced));
  } else {
    ++faults.crashes;
    h.store->crash(false);
    if (tracing()) trace(fmt::format("host{} is killed", host + 1));
  }
  // Whoever waits for an answer of this host gets none.
  std::vector<std::uint64_t> waiting;
  for (const auto& [client, r] : requests_) {
    if (r.host == host) waiting.push_back(client);
  }
  for (const auto client : waiting) after(0, [this, client] { answer(client, std::nullopt); });
}

void World::restart(std::size_t host) {
  auto& h = hosts_[host];
  if (up(host) || !h.joined) return;
  if (tracing()) trace(fmt::format("host{} starts", host + 1));
  h.node = std::make_unique<cluster::Node>(config_of(host), *h.store, random_());
  ++h.epoch;
  const auto started = h.node->start(time_of(h));
  if (!started) std::abort();  // the world gives each host its own disk
  carry_out(host);
  if (up(host)) tick(host, h.epoch);
}

void World::join(std::size_t host, std::vector<Member> members) {
  if (joined(host) || gone(host)) return;
  hosts_[host].joined = true;
  hosts_[host].told = std::move(members);
  if (tracing()) trace(fmt::format("host{} is taken in", host + 1));
  restart(host);
}

void World::retire(std::size_t host) {
  crash(host, false);
  hosts_[host].joined = false;
  hosts_[host].gone = true;
  if (tracing()) trace(fmt::format("host{} is gone for good", host + 1));
}

bool World::all_know_what(std::size_t host) const {
  if (!up(host)) return false;
  const auto& head = node(host).layouts().head().id;
  for (std::size_t h = 0; h < hosts_.size(); ++h) {
    if (joined(h) && (!up(h) || !node(h).layouts().is_active(head))) return false;
  }
  return true;
}

void World::lose_for_good(std::size_t host) {
  ++faults.lost_hosts;
  if (tracing()) trace(fmt::format("host{} is lost, with its disk", host + 1));
  retire(host);
  if (observer_ != nullptr) observer_->lost_disk(host);
}

bool World::outvotes_one() const {
  const auto least = [&](std::uint32_t asked) { return asked == 0 ? options_.quorum.n / 2 + 1 : asked; };
  if (options_.quorum.n < 3 || least(options_.quorum.r) < 2 || least(options_.quorum.w) < 2) return false;
  return std::all_of(hosts_.begin(), hosts_.end(), [&](const Host& host) {
    if (host.node == nullptr || !host.node->knows_members()) return true;
    const auto all = host.node->layouts().active();
    return std::all_of(all.begin(), all.end(), [&](const auto* r) { return layout_of(*r).hosts() >= 3; });
  });
}

void World::give_up(std::size_t host) {
  ++faults.lost_hosts;
  if (tracing()) trace(fmt::format("host{} is given up, and goes on", host + 1));
  hosts_[host].given_up = true;
  if (observer_ != nullptr) observer_->lost_disk(host);
}

void World::retire_who_left() {
  for (std::size_t h = 0; h < hosts_.size(); ++h) {
    if (!up(h) || !node(h).has_left()) continue;
    retire(h);
    if (hosts_[h].given_up && observer_ != nullptr) observer_->lost_disk(h);
  }
}

cluster::NodeConfig World::config_of(std::size_t host) const {
  const auto& h = hosts_[host];
  cluster::NodeConfig config;
  config.self = node_id(host);
  config.cluster_id = kClusterId;
  config.run = config.last_run = fmt::format("nothing was lost since {}", h.losses);
  config.members = members_;
  if (options_.joins) {
    config.members_grow = true;
    config.layout_number = h.told.empty() ? 1 : 0;
    config.members = h.told.empty() ? std::vector<Member>{members_[host]} : h.told;
  }
  // As kinfsd does, by a clock that may be wrong; and it is elsewhere after each start.
  for (auto& m : config.members) {
    if (m.node != config.self) continue;
    m.incarnation = static_cast<std::uint64_t>(wall_ms(host));
    m.address = fmt::format("sim{}.{}", host + 1, h.epoch);
  }
  config.seeds = {node_id(0)};
  config.quorum = options_.quorum;
  config.compare_interval_ms = options_.compare_interval_ms;
  config.reap_after_ms = options_.reap_after_ms;
  config.scrub_interval_ms = options_.bit_flips ? 2000 : 0;
  config.bug = options_.bug;
  return config;
}

void World::pause(std::size_t host, bool paused) {
  auto& h = hosts_[host];
  if (h.paused == paused || !up(host)) return;
  if (tracing()) trace(fmt::format("host{} {}", host + 1, paused ? "is stopped" : "goes on"));
  h.paused = paused;
  if (paused) return void(++faults.pauses);
  for (auto& input : std::exchange(h.waiting, {})) input();
}

void World::fill_disk(std::size_t host, bool full) {
  if (full) ++faults.full_disks;
  if (tracing()) trace(fmt::format("host{}: the disk is {}", host + 1, full ? "full" : "no longer full"));
  hosts_[host].full = full;
}

void World::flip_a_bit(std::size_t host) {
  auto& store = *hosts_[host].store;
  const auto keys = store.block_keys();
  if (keys.empty()) return;
  const auto& key = keys[static_cast<std::size_t>(between(0, std::ssize(keys) - 1))];
  if (!store.damage_block(key)) return;
  ++faults.bit_flips;
  if (tracing()) trace(fmt::format("host{}: a bit of a block is flipped", host + 1));
  if (observer_ != nullptr) observer_->lost_block(host, key);
}

void World::back_up(std::size_t host) {
  if (tracing()) trace(fmt::format("host{} is backed up", host + 1));
  hosts_[host].backup = hosts_[host].store->copy();
}

void World::restore_disk(std::size_t host) {
  if (hosts_[host].backup == nullptr) return;
  ++faults.restored_disks;
  if (tracing()) trace(fmt::format("host{}: its disk is restored from the backup", host + 1));
  replace_disk(host, hosts_[host].backup->copy());
}

void World::empty_disk(std::size_t host) {
  ++faults.emptied_disks;
  if (tracing()) trace(fmt::format("host{}: its disk is emptied", host + 1));
  replace_disk(host, std::make_unique<MemStore>());
}

void World::replace_disk(std::size_t host, std::unique_ptr<MemStore> disk) {
  crash(host, false);
  auto& h = hosts_[host];
  h.store = std::move(disk);
  ++h.losses;
  if (observer_ != nullptr) observer_->lost_disk(host);
}

void World::calm() {
  heal();
  options_.loss = options_.gossip_loss = options_.repeat = 0;
  options_.late = options_.slow_blocks = options_.crash_in_effects = 0;
  for (std::size_t h = 0; h < hosts_.size(); ++h) {
    hosts_[h].full = false;
    hosts_[h].wall_offset_ms = 0;
    pause(h, false);
    restart(h);
  }
}

bool World::idle() const {
  return std::all_of(hosts_.begin(), hosts_.end(), [this](const Host& h) {
    if (h.gone) return true;
    if (!h.joined) return false;
    if (h.node == nullptr || !h.node->idle() || h.node->layouts().changing()) return false;
    if (!h.node->layouts().is_member(h.node->members().front().node)) return false;
    if (any_member()->layouts().head().id != h.node->layouts().head().id) return false;
    const auto peers = h.node->peers();
    return std::all_of(peers.begin(), peers.end(),
                       [this](const auto& p) { return !p.suspected && p.hints == 0 && where_it_is(p.member); });
  });
}

bool World::where_it_is(const Member& member) const {
  const auto& host = hosts_[host_of(member.node)];
  return host.node != nullptr && host.node->members().front().address == member.address;
}

std::string World::why_not_idle() const {
  std::string out;
  for (std::size_t i = 0; i < hosts_.size(); ++i) {
    const auto& h = hosts_[i];
    if (h.gone) continue;
    if (h.node == nullptr) {
      out += fmt::format(" host{} is down;", i + 1);
      continue;
    }
    const auto& layouts = h.node->layouts();
    out += fmt::format(" host{} is at {};", i + 1, name_of(layouts.head().id));
    using Step = cluster::LayoutHistory::Step;
    for (const auto step : {Step::kAcked, Step::kSynced, Step::kRead}) {
      const auto missing = layouts.missing(step);
      if (missing.empty()) continue;
      out += fmt::format(" host{} waits for", i + 1);
      for (const auto node : missing) out += fmt::format(" host{}", host_of(node) + 1);
      out += step == Step::kAcked ? " to ack;" : step == Step::kSynced ? " to sync;" : " to read;";
      break;
    }
    if (!h.node->idle()) out += fmt::format(" host{} has work under way;", i + 1);
    for (const auto& p : h.node->peers()) {
      if (p.suspected) out += fmt::format(" host{} suspects {};", i + 1, p.member.name);
      if (!where_it_is(p.member)) out += fmt::format(" host{} takes {} to be elsewhere;", i + 1, p.member.name);
      if (p.hints > 0) out += fmt::format(" host{} keeps {} hints for {};", i + 1, p.hints, p.member.name);
    }
  }
  return out;
}

cluster::Counters World::counters() const {
  auto sum = dead_counters_;
  for (const auto& h : hosts_) {
    if (h.node != nullptr) add(sum, h.node->counters());
  }
  return sum;
}

void World::trace(const std::string& line) {
  if (options_.trace) fmt::print("{:10.3f} ms  {}\n", static_cast<double>(now_us_) / 1000, line);
}

namespace {

std::string values_of(const Row& row) {
  std::string out = "{";
  for (const auto& v : row.versions) {
    out += fmt::format("{}{}{}@{}.{}/{}", out.size() > 1 ? " " : "", v.tombstone ? "-" : "",
                       v.value.empty() ? fmt::format("w{}", v.time_ns) : v.value,
                       static_cast<std::uint64_t>(v.dot.node), v.dot.counter, v.hlc.physical_ms() % 100000000);
  }
  return out + "}";
}

std::string rows_of(const std::vector<std::pair<Bytes, Row>>& rows) {
  std::string out;
  for (const auto& [sort_key, row] : rows) out += fmt::format(" {}={}", sort_key, values_of(row));
  return out;
}

struct Describe {
  std::string operator()(const cluster::Ping& p) const { return p.from ? "ping, and who it is" : "ping"; }
  std::string operator()(const cluster::Pong&) const { return "pong"; }
  std::string operator()(const cluster::Gossip& g) const {
    std::string out = fmt::format("{} {}", g.reply ? "gossip back" : "gossip", name_of(g.layouts.base.id));
    for (const auto& record : g.layouts.records) {
      out += fmt::format(" {}:", name_of(record.id));
      for (const auto& [node, role] : record.roles) {
        const auto part = role.part == Role::Part::kMember ? "" : role.part == Role::Part::kLeft ? "-" : "x";
        out += fmt::format(" {}{}", part, static_cast<std::uint64_t>(node));
      }
    }
    for (const auto& [node, t] : g.layouts.trackers) {
      out += fmt::format(" {}={}/{}/{}", static_cast<std::uint64_t>(node), name_of(t.acked), name_of(t.synced),
                         name_of(t.read));
    }
    return out;
  }
  std::string operator()(const cluster::ReadRow& r) const {
    return "read " + r.key.partition_key + "/" + r.key.sort_key;
  }
  std::string operator()(const cluster::ReadRowReply& r) const { return "has " + values_of(r.row); }
  std::string operator()(const cluster::ReadPage& r) const { return "read page " + r.partition_key; }
  std::string operator()(const cluster::ReadPageReply& r) const { return "has page" + rows_of(r.page.rows); }
  std::string operator()(const cluster::WriteRows& w) const {
    std::string out = (w.sync ? "write, synced, " : "write ") + w.partition_key + rows_of(w.rows);
    for (const auto n : w.hint_for) out += fmt::format(" for host{}", static_cast<std::uint64_t>(n));
    return out;
  }
  std::string operator()(const cluster::HandOver& h) const {
    std::string out = h.sync ? "hand over, synced," : "hand over";
    for (const auto& write : h.writes) out += fmt::format(" {}{}", write.partition_key, rows_of(write.rows));
    return out;
  }
  std::string operator()(const cluster::WriteRowsReply&) const { return "written"; }
  std::string operator()(const cluster::Reap& r) const {
    return fmt::format("reaps {} rows of partition {} up to {} ms", r.items.size(), r.partition, r.floor.physical_ms());
  }
  std::string operator()(const cluster::WriteBlock&) const { return "write block"; }
  std::string operator()(const cluster::WriteBlockReply&) const { return "block written"; }
  std::string operator()(const cluster::ReadBlock&) const { return "read block"; }
  std::string operator()(const cluster::ReadBlockReply& r) const { return r.bytes ? "has block" : "has no such block"; }
  std::string operator()(const cluster::SyncBlocks&) const { return "sync blocks"; }
  std::string operator()(const cluster::SyncBlocksReply& r) const { return r.all ? "blocks synced" : "lacks blocks"; }
  std::string operator()(const cluster::SyncStore&) const { return "sync all"; }
  std::string operator()(const cluster::SyncStoreReply& r) const { return "all synced in " + r.run; }
  std::string operator()(const cluster::Forward&) const { return "forward"; }
  std::string operator()(const cluster::ForwardReply&) const { return "forwarded answer"; }
  std::string operator()(const cluster::Refusal& r) const { return "refuses: " + r.error.text; }
  std::string operator()(const cluster::ComparePartitions& c) const {
    return fmt::format("compares {} partitions", c.sums.size());
  }
  std::string operator()(const cluster::ComparePartitionsReply& r) const {
    return fmt::format("{} partitions differ", r.differing.size());
  }
  std::string operator()(const cluster::CompareItems& c) const {
    return fmt::format("compares {} buckets of partition {}", c.buckets.size(), c.partition);
  }
  std::string operator()(const cluster::CompareItemsReply& r) const {
    return fmt::format("{} buckets differ, with {} items here", r.differing.size(), r.items.size());
  }
};

}  // namespace

std::string describe(const cluster::Message& m) {
  return fmt::format("host{} -> host{}  #{:x}  {}", static_cast<std::uint64_t>(m.from),
                     static_cast<std::uint64_t>(m.to), m.id, std::visit(Describe{}, m.body));
}

std::string describe(const Batch& batch) {
  const auto name_of = [](const RowKey& key) { return key.partition_key + "/" + key.sort_key; };
  std::string out;
  for (const auto& [key, row] : batch.rows) out += fmt::format(" {}={}", name_of(key), values_of(row));
  for (const auto& key : batch.erase_rows) out += fmt::format(" {} is erased", name_of(key));
  for (const auto& h : batch.add_hints) {
    out += fmt::format(" +hint {} of {} for host{}", h.sequence, name_of(h.key), static_cast<std::uint64_t>(h.target));
  }
  for (const auto& h : batch.drop_hints) {
    out += fmt::format(" -hint {} of {} for host{}", h.sequence, name_of(h.key), static_cast<std::uint64_t>(h.target));
  }
  return out;
}

}  // namespace kinfs::sim
