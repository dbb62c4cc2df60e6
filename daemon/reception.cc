#include "daemon/reception.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <utility>
#include <variant>

#include "cluster/event_loop.h"
#include "cluster/invitation.h"

namespace kinfs::daemon {
namespace {

using cluster::EventLoop;
using cluster::Visitor;

constexpr std::uint64_t kLongestS = 30ull * 24 * 3600;

std::uint64_t now_s() { return static_cast<std::uint64_t>(EventLoop::wall_ms() / 1000); }

/// Guests are few and ask for little.
cluster::UnixServerLimits guest_limits() {
  cluster::UnixServerLimits limits;
  limits.connections = 16;
  limits.requests_under_way = 4;
  limits.request_bytes_under_way = 64 << 10;
  limits.answer_bytes_waiting = 1 << 20;
  return limits;
}

}  // namespace

Result<Member> as_guest(const Member& asks) {
  if (cluster::node_id_of(asks.public_key) != asks.node) {
    return fail(Errc::kRefused, "the host that wants to join names itself by another key than its own");
  }
  if (auto good = check_name(asks.name); !good) return fail(Errc::kRefused, good.error().text);
  if (!check_dialled(asks.address)) {
    return fail(Errc::kRefused, fmt::format("{:?} is no address under which another host can dial {}; one looks like "
                                            "tcp://192.0.2.1:7946",
                                            asks.address, asks.name));
  }
  Member out;
  out.node = asks.node;
  out.name = asks.name;
  out.address = asks.address;
  out.public_key = asks.public_key;
  return out;
}

Result<std::unique_ptr<Reception>> Reception::open(const Config& config, Member own, cluster::ZmqTransport& transport,
                                                   Ask ask, std::function<Hlc()> hlc) {
  auto invitations = Invitations::open(config.data_dir + "/invitations.json");
  if (!invitations) return pass(std::move(invitations));
  std::unique_ptr<Reception> out(
      new Reception(config, std::move(own), transport, std::move(ask), std::move(*invitations)));
  transport.set_guests(out->invitations_.keys());
  transport.serve(
      Visitor::kGuest,
      [r = out.get()](auto connection, auto id, auto request, auto ttl_ms) {
        r->on_request(connection, id, std::move(request), ttl_ms);
      },
      std::move(hlc), guest_limits());
  return out;
}

Result<Reception::Invited> Reception::invite(std::uint64_t seconds) {
  if (seconds < 1 || seconds > kLongestS) {
    return fail(Errc::kInvalid,
                fmt::format("an invitation holds for at least a second and at most {} days", kLongestS / 24 / 3600));
  }
  const auto now = now_s();
  auto keys = invitations_.issue(now, now + seconds);
  if (!keys) return pass(std::move(keys));
  transport_.set_guests(invitations_.keys());
  return Invited{cluster::encode_invitation({config_.cluster_id, config_.quorum.n, now + seconds, own_.name,
                                             own_.address, own_.public_key, keys->secret_key}),
                 now + seconds};
}

void Reception::on_request(std::uint64_t connection, std::uint64_t id, cluster::Request request, std::uint32_t ttl_ms) {
  const auto refuse = [this, connection, id](Error error) {
    transport_.reply(Visitor::kGuest, connection, id, std::move(error));
  };
  auto* admit = std::get_if<cluster::AdmitRequest>(&request);
  if (admit == nullptr) return refuse({Errc::kRefused, "an invitation is for joining, and for nothing else"});
  const auto guest = transport_.visitor_of(Visitor::kGuest, connection);
  auto allowed = as_guest(admit->member);
  if (!allowed) {
    spdlog::warn("a host that comes by an invitation is not let in: {}", allowed.error().text);
    return refuse(std::move(allowed.error()));
  }
  const auto& member = admit->member = std::move(*allowed);
  if (auto error = invitations_.begin(guest, member.node, now_s())) {
    spdlog::warn("{} ({}) is not let in: {}", member.name, member.address, error->text);
    return refuse(std::move(*error));
  }
  joining_[{connection, id}] = {guest, member};
  ask_(connection, id, std::move(request), ttl_ms);
}

void Reception::reply(std::uint64_t connection, std::uint64_t id, cluster::Answer answer) {
  const auto* error = std::get_if<Error>(&answer);
  const auto found = joining_.extract({connection, id});
  if (!found.empty()) {
    using End = Invitations::End;
    const auto& [guest, member] = found.mapped();
    if (error == nullptr) spdlog::info("{} ({}) has joined", member.name, member.address);
    // Whom no answer reached in time may have been admitted. Who is told that others are busy asks again at once: to
    // free the invitation and take it again is not worth two writes each time.
    const auto end = error == nullptr                ? End::kTakenIn
                     : error->code == Errc::kTimeout ? End::kUnknown
                     : error->code == Errc::kBusy    ? End::kAgain
                                                     : End::kRefused;
    if (const auto ended = invitations_.ended(guest, member.node, end); !ended) {
      spdlog::error("{}; no other host can use the invitation that {} could not", ended.error().text, member.name);
    }
  }
  transport_.reply(Visitor::kGuest, connection, id, std::move(answer));
}

}  // namespace kinfs::daemon
