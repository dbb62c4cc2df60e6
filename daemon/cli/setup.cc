#include "daemon/cli/setup.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <random>

#include "cluster/event_loop.h"
#include "cluster/guest.h"
#include "cluster/zmq_transport.h"
#include "daemon/cli/new_host.h"
#include "daemon/cli/process.h"
#include "daemon/cli/session.h"

namespace kinfs::daemon {
namespace {

constexpr std::uint32_t kAdmitMs = 10'000;  // of one try
constexpr std::int64_t kBusyMs = 120'000;
constexpr int kBusyPauseMs = 300;
constexpr std::int64_t kSeenMs = 20'000;

std::string new_cluster_id() {
  std::random_device device;
  return fmt::format("kinfs-{:08x}{:08x}", device(), device());
}

std::optional<std::uint64_t> seconds_of(const std::string& word) {
  std::uint64_t n = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), n);
  if (error != std::errc() || end + 1 != word.data() + word.size() || n > 1'000'000) return std::nullopt;
  switch (*end) {
    case 's':
      return n;
    case 'm':
      return n * 60;
    case 'h':
      return n * 3600;
    case 'd':
      return n * 24 * 3600;
    default:
      return std::nullopt;
  }
}

/// Asks again while the cluster is busy with another change.
Result<cluster::Admitted> ask(const cluster::Invitation& invitation, const Member& member) {
  auto guest = cluster::Guest::open(invitation);
  if (!guest) return pass(std::move(guest));
  const auto deadline = cluster::EventLoop::mono_ms() + kBusyMs;
  for (bool first = true;; first = false) {
    auto admitted = guest->ask(member, kAdmitMs);
    const bool busy = !admitted && admitted.error().code == Errc::kBusy;
    if (!busy || cluster::EventLoop::mono_ms() > deadline) return admitted;
    if (first) {
      const auto& why = admitted.error().text;  // ends with what a person would do, and is being done
      complain(fmt::format("waiting: {}", why.substr(0, why.find("; try again"))));
    }
    detail::pause_ms(kBusyPauseMs);
  }
}

/// The names of members that the daemon does not see; it is given some time to.
std::vector<std::string> unseen(const std::string& socket) {
  std::vector<std::string> names;
  wait_until(kSeenMs, [&] {
    auto session = Session::open(socket);
    auto status = session ? session->admin("status") : Result<Json>(fail(Errc::kUnavailable, ""));
    if (!status) return false;
    names.clear();
    for (const auto& h : status->value("hosts", Json::array())) {
      if (h.value("state", "") != "up") names.push_back(h.value("name", ""));
    }
    return names.empty();
  });
  return names;
}

}  // namespace

int init(const InitOptions& options) {
  auto host = NewHost::look(options.host);
  if (!host) return give_up(host.error());
  const auto id = new_cluster_id();
  if (auto planned = host->plan(id, static_cast<std::uint32_t>(options.copies), ""); !planned) {
    return give_up(planned.error());
  }
  if (auto keys = host->keys(); !keys) return give_up(keys.error());
  if (auto allowed = host->allow_founding(); !allowed) return give_up(allowed.error());
  if (auto written = host->write_config({}); !written) return give_up(written.error());
  if (auto started = host->start(); !started) return give_up(started.error());
  fmt::print("{} is the first host of cluster {}; others reach it at {}\n", host->config().name, id, host->address());
  if (const auto code = host->mount(); code != kExitDone) return code;
  fmt::print("to add a host: `kinfs invite` here prints a word, and there `kinfs join WORD`\n");
  return kExitDone;
}

int invite(const InviteOptions& options) {
  const auto seconds = seconds_of(options.valid);
  if (!seconds) {
    complain(fmt::format("--valid {} is no time: a number and s, m, h or d, as 30m", printable(options.valid)));
    return kExitUsage;
  }
  auto session = Session::open(socket_path_of(options.socket));
  if (!session) return give_up(session.error());
  auto invited = session->admin("invite", {std::to_string(*seconds)});
  if (!invited) return give_up(invited.error());
  fmt::print("{}\n", invited->value("word", ""));
  fmt::print(stderr,
             "kinfs: with `kinfs join WORD` one host can join, until {}; hand the word over as you would a "
             "password\n",
             invited->value("expires", ""));
  return kExitDone;
}

int join(const JoinOptions& options) {
  auto invitation = cluster::decode_invitation(options.word);
  if (!invitation) {
    complain(invitation.error().text);
    return kExitUsage;
  }
  auto host = NewHost::look(options.host);
  if (!host) return give_up(host.error());
  // All that can be wrong here is found before the invitation is used.
  if (auto planned = host->plan(invitation->cluster_id, invitation->copies, invitation->address); !planned) {
    return give_up(planned.error());
  }
  if (auto forbidden = host->forbid_founding(); !forbidden) return give_up(forbidden.error());
  auto keys = host->keys();
  if (!keys) return give_up(keys.error());
  Member member;
  member.node = cluster::node_id_of(keys->public_key);
  member.name = host->config().name;
  member.address = host->address();
  member.public_key = keys->public_key;
  auto admitted = ask(*invitation, member);
  if (!admitted) return give_up(admitted.error());
  auto others = admitted->members;
  std::erase_if(others, [&](const Member& m) { return m.node == member.node; });
  if (auto written = host->write_config(others); !written) return give_up(written.error());
  if (auto started = host->start(); !started) return give_up(started.error());
  fmt::print("{} has joined cluster {} as one of {} hosts; they reach it at {}\n", member.name, invitation->cluster_id,
             admitted->members.size(), member.address);
  if (const auto names = unseen(host->config().socket); !names.empty()) {
    complain(
        fmt::format("{} cannot be reached from here, or not this host from there: check that every host lets TCP "
                    "to its port through, and that {} is this host's address for the others",
                    fmt::join(names, ", "), member.address));
    (void)host->mount();
    return kExitAttention;
  }
  return host->mount();
}

}  // namespace kinfs::daemon
