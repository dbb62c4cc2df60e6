#include "daemon/daemon.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <random>
#include <unordered_map>

#include "cluster/introduction.h"
#include "cluster/unix_server.h"
#include "cluster/zmq_transport.h"
#include "daemon/admin.h"
#include "daemon/key_file.h"
#include "daemon/notify.h"
#include "daemon/reception.h"
#include "daemon/run_file.h"
#include "daemon/runner.h"
#include "storage/data_directory.h"
#include "storage/rocks_store.h"
#include "storage/whole_file.h"

namespace kinfs::daemon {
namespace {

using cluster::EventLoop;

constexpr std::int64_t kStopPatienceMs = 2000;  // for what is under way when the daemon is told to stop
constexpr std::int64_t kLookAtPeersMs = 250;
constexpr std::int64_t kNoteRunMs = 1000;
constexpr std::int64_t kSweepMs = 1000;

Result<void> make_data_dir(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) return {};
  return fail(Errc::kRefused, fmt::format("cannot make the data directory {}: {}; make it, or set node.data_dir", path,
                                          std::strerror(errno)));
}

std::string founding_file(const Config& config) { return config.data_dir + "/" + kFoundingFile; }

Result<void> make_socket_dir(const std::string& socket) {
  const auto folder = std::filesystem::path(socket).parent_path().string();
  if (::mkdir(folder.c_str(), 0755) == 0 || errno == EEXIST) return {};
  return fail(Errc::kRefused, fmt::format("cannot make {} for the socket: {}; make it, or set node.socket", folder,
                                          std::strerror(errno)));
}

/// The members as the core and the transport want them, this host first looked up by name and held against its key.
Result<std::vector<Member>> members_of(const Config& config, const cluster::KeyPair& keys) {
  std::vector<Member> out;
  if (config.members.empty() || config.by_invitation) {
    out.push_back({cluster::node_id_of(keys.public_key), config.name,
                   config.by_invitation ? config.address : config.listen, keys.public_key});
  }
  for (const auto& m : config.members) {
    if (config.by_invitation && m.name == config.name) continue;  // it is there
    if (m.name == config.name && m.public_key != keys.public_key) {
      return fail(Errc::kRefused,
                  fmt::format("{} holds the key {}, and the configuration lists {} with the key {}: put the right key "
                              "file into its place, or correct cluster.member.public_key on all hosts",
                              config.key_file, to_hex(keys.public_key), m.name, to_hex(m.public_key)));
    }
    out.push_back({cluster::node_id_of(m.public_key), m.name, m.address, m.public_key});
  }
  return out;
}

/// What this host says of itself, newer with each start than what was said before: by the clock, and the core raises it
/// where that was ahead.
void announce(std::vector<Member>& members, const cluster::KeyPair& keys) {
  for (auto& m : members) {
    if (m.public_key != keys.public_key) continue;
    m.client_key = cluster::client_keys_of(keys).public_key;
    m.incarnation = static_cast<std::uint64_t>(EventLoop::wall_ms());
  }
}

std::set<NodeId> ids_of(const std::vector<Member>& members, const std::vector<std::string>& names) {
  std::set<NodeId> out;
  for (const auto& m : members) {
    if (std::find(names.begin(), names.end(), m.name) != names.end()) out.insert(m.node);
  }
  return out;
}

/// Another after each start of the machine; empty when it cannot be told, which counts as another.
Bytes machine_boot_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

std::uint64_t random_seed() {
  std::random_device device;
  return static_cast<std::uint64_t>(device()) << 32 | device();
}

}  // namespace

/// Destroyed from the last member to the first: the loop outlives all that was registered with it.
struct Daemon::Impl {
  Config config;
  NodeId self{};
  EventLoop loop;
  std::unique_ptr<Store> store;
  std::optional<RunFile> run_file;
  std::unique_ptr<cluster::ZmqTransport> transport;
  std::unique_ptr<cluster::Node> node;
  std::unique_ptr<Runner> runner;
  std::unique_ptr<Reception> reception;
  std::unique_ptr<Admin> admin;
  std::unique_ptr<cluster::UnixServer> server;
  int signals = -1;

  enum class Way { kUnixSocket, kOtherHost, kGuest };
  struct Waiting {
    Way way;
    std::uint64_t connection;
    std::uint64_t id;
    std::int64_t until_ms;
  };
  std::uint64_t last_client = 0;
  std::unordered_map<std::uint64_t, Waiting> waiting;
  std::map<NodeId, bool> was_up;
  std::optional<std::int64_t> stopping_since;
  std::optional<Error> fatal;

  ~Impl() {
    if (signals >= 0) ::close(signals);
  }

  Result<void> open_all();
  void start_node(std::vector<Member> members, Bytes last_run);
  Result<Bytes> look_at_last_run();
  Result<void> open_store();
  Result<void> end_founding();
  Result<void> serve(const cluster::KeyPair& keys);
  void on_request(Way way, std::uint64_t connection, std::uint64_t id, cluster::Request request, std::uint32_t ttl_ms);
  void ask(const Waiting& asker, cluster::Request request, std::uint32_t ttl_ms);
  void reply(const Waiting& to, cluster::Answer answer);
  void hang_up(const Waiting& asker);
  void on_reply(std::uint64_t client, cluster::Answer answer);
  void on_signal();
  void sweep();
  void look_at_peers();
  std::string state_in_words() const;
  void stop_when_idle();
};

Result<void> Daemon::Impl::open_all() {
  auto keys = read_key_file(config.key_file);
  if (!keys) return pass(std::move(keys));
  auto members = members_of(config, *keys);
  if (!members) return pass(std::move(members));
  announce(*members, *keys);
  self = cluster::node_id_of(keys->public_key);
  if (auto opened = open_store(); !opened) return opened;
  auto dialled = cluster::ZmqTransport::open(loop, {self, config.listen, *keys}, *members,
                                             [this](cluster::Message m) { runner->receive(std::move(m)); });
  if (!dialled) return pass(std::move(dialled));
  transport = std::move(*dialled);
  transport->set_cut(ids_of(*members, config.cut));
  auto last_run = look_at_last_run();
  if (!last_run) return pass(std::move(last_run));
  start_node(std::move(*members), std::move(*last_run));
  if (auto started = runner->start(); !started) {
    return fail(started.error().code, fmt::format("{}: {}", config.data_dir, started.error().text));
  }
  run_file->note(store->written());
  if (auto ended = end_founding(); !ended) return ended;
  return serve(*keys);
}

/// Its name, or nothing when the store may have lost something of it.
Result<Bytes> Daemon::Impl::look_at_last_run() {
  run_file.emplace(config.socket + ".run", machine_boot_id());
  auto believed = run_file->believed(*store);
  if (!believed.empty()) return believed;
  const auto meta = store->meta();
  if (!meta) return tl::unexpected(meta.error());
  if (!*meta) return believed;  // a new directory
  auto lost = store->forget_lost_blocks();
  if (!lost) return pass(std::move(lost));
  spdlog::info(
      "since it last ran the machine was started anew, or a disk failed or was put back: what was not synced "
      "then may be gone, and comes back from the other hosts; so do {} blocks that did not come to the disk",
      *lost);
  return believed;
}

Result<void> Daemon::Impl::open_store() {
  if (auto made = make_data_dir(config.data_dir); !made) return made;
  if (auto made = make_socket_dir(config.socket); !made) return made;
  auto opened = RocksStore::open(config.data_dir);
  if (!opened) return pass(std::move(opened));
  store = std::move(*opened);
  if (!config.by_invitation || !config.members.empty()) return {};
  // Nobody to be asked: whoever has lost its disk must not take itself for a cluster of its own.
  const auto meta = store->meta();
  if (!meta) return tl::unexpected(meta.error());
  if (*meta || ::access(founding_file(config).c_str(), F_OK) == 0) return {};
  return fail(Errc::kRefused,
              fmt::format("{} is empty, and the configuration names no other host of cluster {} that could say who its "
                          "members are. Add one as [[cluster.member]], with the name, address and public_key that "
                          "`kinfs status --json` shows there; a new cluster is made by kinfs init",
                          config.data_dir, config.cluster_id));
}

/// What the runner's start saved is on disk: this host is of a cluster, and founds no other.
Result<void> Daemon::Impl::end_founding() {
  const auto file = founding_file(config);
  if (::unlink(file.c_str()) == 0) return sync_folder_of(file);
  if (errno == ENOENT) return {};
  return fail(Errc::kRefused, fmt::format("cannot remove {}: {}; remove it, or this host would found the cluster anew "
                                          "when its disk is emptied",
                                          file, std::strerror(errno)));
}

Result<void> Daemon::Impl::serve(const cluster::KeyPair& keys) {
  const auto hlc = [this] { return node->hlc(); };
  if (config.by_invitation) {
    auto own = node->members();
    std::erase_if(own, [&](const Member& m) { return m.node != self; });
    auto opened = Reception::open(
        config, own.front(), *transport,
        [this](auto connection, auto id, auto request, auto ttl_ms) {
          ask({Way::kGuest, connection, id, EventLoop::mono_ms() + ttl_ms}, std::move(request), ttl_ms);
        },
        hlc);
    if (!opened) return pass(std::move(opened));
    reception = std::move(*opened);
  }
  const auto meta = store->meta();
  if (!meta) return tl::unexpected(meta.error());
  admin = std::make_unique<Admin>(
      config, *node, *store,
      CutSwitch{[this](std::set<NodeId> peers) { transport->set_cut(std::move(peers)); },
                [this]() -> const std::set<NodeId>& { return transport->cut(); },
                [this]() -> const cluster::TransportCounters& { return transport->counters(); },
                [this]() -> const cluster::UnixServerCounters& { return transport->client_counters(); },
                [this]() -> const cluster::UnixServerCounters& { return server->counters(); }},
      keys, *meta ? (**meta).boot : 0, [this] { return runner->failed_saves(); },
      [this](std::uint64_t seconds) -> Result<Reception::Invited> {
        if (reception) return reception->invite(seconds);
        return fail(Errc::kRefused,
                    "the hosts of this cluster are listed in its configuration: to add one, list it there on each host "
                    "([[cluster.member]]) and start the daemons again");
      });
  const auto by = [this](Way way) {
    return [this, way](auto connection, auto id, auto request, auto ttl_ms) {
      on_request(way, connection, id, std::move(request), ttl_ms);
    };
  };
  auto listening = cluster::UnixServer::open(loop, config.socket, by(Way::kUnixSocket), hlc);
  if (!listening) return pass(std::move(listening));
  server = std::move(*listening);
  transport->serve(cluster::Visitor::kClient, by(Way::kOtherHost), hlc);
  const auto crowded = [this] { return node->crowded(); };
  server->when_crowded(crowded);
  transport->when_crowded(cluster::Visitor::kClient, crowded);
  return {};
}

void Daemon::Impl::start_node(std::vector<Member> members, Bytes last_run) {
  cluster::NodeConfig core;
  core.self = self;
  core.cluster_id = Bytes(view_of(md5(config.cluster_id)));
  std::vector<std::string> seeds = config.seeds;
  if (seeds.empty()) {
    for (const auto& m : members) seeds.push_back(m.name);
  }
  for (const auto id : ids_of(members, seeds)) {
    if (id != self) core.seeds.push_back(id);
  }
  core.members = std::move(members);
  core.members_grow = config.by_invitation;
  if (config.by_invitation && !config.members.empty()) core.layout_number = 0;
  core.quorum = config.quorum;
  core.run = run_file->name();
  core.last_run = std::move(last_run);
  node = std::make_unique<cluster::Node>(std::move(core), *store, random_seed());
  runner = std::make_unique<Runner>(
      loop, *node, *store,
      Outputs{[this](const cluster::Message& m) { transport->send(m); },
              [this](std::uint64_t client, cluster::Answer answer) { on_reply(client, std::move(answer)); },
              [this](const std::vector<Member>& all) { transport->set_members(all); },
              [this](const Error& error) {
                run_file->forget();  // the kernel may have dropped what it could not write
                fatal = error;
                loop.stop();
              }});
}

void Daemon::Impl::on_request(Way way, std::uint64_t connection, std::uint64_t id, cluster::Request request,
                              std::uint32_t ttl_ms) {
  const Waiting asker{way, connection, id, EventLoop::mono_ms() + ttl_ms};
  if (std::holds_alternative<cluster::AdmitRequest>(request)) {
    return reply(asker, Error{Errc::kRefused, "a host joins by an invitation: kinfs invite here, kinfs join there"});
  }
  if (std::holds_alternative<cluster::ChangeMemberRequest>(request) && way != Way::kUnixSocket) {
    return reply(asker, Error{Errc::kRefused, fmt::format("{} changes its cluster at a word on its own socket only, {}",
                                                          config.name, config.socket)});
  }
  const auto* command = std::get_if<cluster::AdminRequest>(&request);
  if (command == nullptr || stopping_since) return ask(asker, std::move(request), ttl_ms);
  if (way == Way::kUnixSocket || command->command == cluster::kReadyCommand) {
    return reply(asker, admin->answer(*command));
  }
  reply(asker,
        Error{Errc::kRefused, fmt::format("{} takes commands on its own socket only, {}", config.name, config.socket)});
}

void Daemon::Impl::ask(const Waiting& asker, cluster::Request request, std::uint32_t ttl_ms) {
  // Whoever asks now asks the daemon that comes next, or another host's.
  if (stopping_since) return hang_up(asker);
  const auto client = ++last_client;
  waiting[client] = asker;
  runner->request(client, std::move(request), ttl_ms);
}

void Daemon::Impl::hang_up(const Waiting& asker) {
  switch (asker.way) {
    case Way::kUnixSocket:
      return server->hang_up(asker.connection);
    case Way::kOtherHost:
      return transport->hang_up(cluster::Visitor::kClient, asker.connection);
    case Way::kGuest:
      return transport->hang_up(cluster::Visitor::kGuest, asker.connection);
  }
}

void Daemon::Impl::reply(const Waiting& to, cluster::Answer answer) {
  switch (to.way) {
    case Way::kUnixSocket:
      return server->reply(to.connection, to.id, std::move(answer));
    case Way::kOtherHost:
      return transport->reply(cluster::Visitor::kClient, to.connection, to.id, std::move(answer));
    case Way::kGuest:
      return reception->reply(to.connection, to.id, std::move(answer));
  }
}

void Daemon::Impl::on_reply(std::uint64_t client, cluster::Answer answer) {
  const auto asker = waiting.extract(client);
  if (!asker.empty()) reply(asker.mapped(), std::move(answer));
}

/// The core answers nobody who no longer waits; the sockets' servers still count such requests as under way.
void Daemon::Impl::sweep() {
  const auto now = EventLoop::mono_ms();
  std::vector<std::uint64_t> late;
  for (const auto& [client, w] : waiting) {
    if (w.until_ms < now) late.push_back(client);
  }
  for (const auto client : late) on_reply(client, Error{Errc::kTimeout, "no answer in time; the outcome is unknown"});
}

/// For `systemctl status`.
std::string Daemon::Impl::state_in_words() const {
  const auto others = node->members().size() - 1;
  const auto up = std::count_if(was_up.begin(), was_up.end(), [](const auto& peer) { return peer.second; });
  return others == 0 ? "Serves; this host is the whole cluster"
                     : fmt::format("Serves; of the {} other hosts {} answer", others, up);
}

void Daemon::Impl::look_at_peers() {
  bool changed = false;
  for (const auto& peer : node->peers()) {
    if (peer.member.node == self) continue;
    const bool up = peer.last_heard_ms >= 0 && !peer.suspected;
    const auto [entry, fresh] = was_up.try_emplace(peer.member.node, false);
    if (entry->second == up) continue;
    entry->second = up;
    changed = true;
    if (up) {
      spdlog::info("{} ({}) is up", peer.member.name, peer.member.address);
    } else {
      spdlog::warn("{} ({}) does not answer", peer.member.name, peer.member.address);
    }
  }
  if (changed && !stopping_since) notify_status(state_in_words());
}

void Daemon::Impl::on_signal() {
  signalfd_siginfo info{};
  if (::read(signals, &info, sizeof info) != static_cast<ssize_t>(sizeof info)) return;
  spdlog::info("{} received: stopping", info.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT");
  if (stopping_since) return loop.stop();
  stopping_since = EventLoop::mono_ms();
  notify_stopping();
}

void Daemon::Impl::stop_when_idle() {
  if (!stopping_since) return;
  if (waiting.empty() || EventLoop::mono_ms() - *stopping_since > kStopPatienceMs) loop.stop();
}

Daemon::Daemon(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Daemon::~Daemon() = default;

Result<std::unique_ptr<Daemon>> Daemon::open(Config config) {
  auto impl = std::make_unique<Impl>();
  impl->config = std::move(config);
  if (auto opened = impl->open_all(); !opened) return pass(std::move(opened));
  return std::unique_ptr<Daemon>(new Daemon(std::move(impl)));
}

Result<void> Daemon::run() {
  auto& d = *impl_;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  d.signals = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (d.signals < 0) return fail(Errc::kIo, fmt::format("signalfd: {}", std::strerror(errno)));
  if (auto ok = d.loop.add(d.signals, EPOLLIN, [&d](std::uint32_t) { d.on_signal(); }); !ok) return ok;
  d.loop.every(Runner::kTickMs, [&d] {
    d.runner->tick();
    d.stop_when_idle();
  });
  d.loop.every(kSweepMs, [&d] { d.sweep(); });
  d.loop.every(kLookAtPeersMs, [&d] { d.look_at_peers(); });
  d.loop.every(kNoteRunMs, [&d] { d.run_file->note(d.store->written()); });
  if (const auto interval_ms = watchdog_interval_ms(); interval_ms > 0) d.loop.every(interval_ms, notify_alive);
  const auto q = d.node->quorum();
  spdlog::info("{} serves: {} members, n {} r {} w {}, listening on {}, socket {}, data in {}", d.config.name,
               d.node->members().size(), q.n, q.r, q.w, d.config.listen, d.config.socket, d.config.data_dir);
  const auto copies = d.node->layouts().head().replicas;
  if (d.config.by_invitation && d.node->knows_members() && copies != d.config.quorum.n) {
    spdlog::warn("quorum.n is {} here and does not count: this cluster keeps {} copies of everything since it was made",
                 d.config.quorum.n, copies);
  }
  notify_ready(d.state_in_words());
  d.loop.run();
  if (d.fatal) {
    return fail(Errc::kIo, fmt::format("{} cannot be synced any more: {}. Nothing that was confirmed is lost; look at "
                                       "the disk, then start kinfsd again",
                                       d.config.data_dir, d.fatal->text));
  }
  d.server.reset();
  d.transport.reset();
  if (auto synced = d.store->sync(); !synced) {
    d.run_file->forget();
    return synced;
  }
  d.run_file->note(d.store->written());
  spdlog::info("stopped");
  return {};
}

Result<void> start_log(const Config& config) {
  try {
    if (config.log_file.empty()) {
      spdlog::set_default_logger(spdlog::stderr_logger_mt("stderr"));
    } else {
      spdlog::set_default_logger(spdlog::basic_logger_mt("file", config.log_file));
    }
  } catch (const spdlog::spdlog_ex& e) {
    return fail(Errc::kRefused,
                fmt::format("cannot log to {}: {}; make its folder, or set log.file", config.log_file, e.what()));
  }
  spdlog::set_level(spdlog::level::from_str(config.log_level));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ %v");
  // A log that lags behind is of no use after a crash; there are few lines at the levels that matter.
  spdlog::flush_on(spdlog::level::info);
  return {};
}

}  // namespace kinfs::daemon
