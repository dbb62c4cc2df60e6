#include "cluster/remote_clients.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

namespace kinfs::cluster {
namespace {
constexpr std::size_t kShareOfAHost = 4;  // of all connections, one host's clients get one in so many
constexpr std::size_t kConnectionsWorth = 4;  // of what one connection may take, all of one host may
constexpr std::size_t kWithRefusals = 2;      // as many bytes of answers may wait, when what is over is refusals alone
const Error kTooMuchUnderWay{Errc::kBusy, "too much of this client is under way; try again in a moment"};
const Error kTooMuchToDo{Errc::kBusy, "this host has too much to do; try again in a moment"};
}  // namespace

RemoteClients::RemoteClients(std::string where, UnixServer::OnRequest on_request, std::function<Hlc()> hlc,
                             UnixServerLimits limits, Write write)
    : where_(std::move(where)),
      on_request_(std::move(on_request)),
      hlc_(std::move(hlc)),
      limits_(limits),
      write_(std::move(write)),
      boot_(std::random_device{}() | 1ull << 32) {}

RemoteClients::Connection* RemoteClients::connection_of(ByteView route, NodeId host) {
  const auto known = by_route_.find(Bytes(route));
  if (known != by_route_.end()) return &connections_.at(known->second);
  if (!make_place(host)) return nullptr;
  ++counters_.connections;
  const auto number = ++last_connection_;
  auto& c = connections_[number];
  c.route = Bytes(route);
  c.host = host;
  by_route_.emplace(c.route, number);
  return &c;
}

RemoteClients::Use RemoteClients::use_of(NodeId host) const {
  Use use;
  for (const auto& [number, c] : connections_) {
    if (c.host != host) continue;
    ++use.connections;
    use.requests += c.under_way.size();
    use.request_bytes += c.bytes_under_way;
    use.answer_bytes += c.bytes_waiting;
  }
  return use;
}

bool RemoteClients::make_place(NodeId host) {
  const bool share_is_full = use_of(host).connections >= std::max<std::size_t>(1, limits_.connections / kShareOfAHost);
  if (!share_is_full && connections_.size() < limits_.connections) return true;
  const Connection* idle = nullptr;
  for (const auto& [number, c] : connections_) {
    if ((share_is_full && c.host != host) || !c.under_way.empty() || !c.waiting.empty()) continue;
    if (idle == nullptr || c.heard_ms < idle->heard_ms) idle = &c;
  }
  if (idle == nullptr) return false;
  erase(by_route_.at(idle->route));
  return true;
}

void RemoteClients::turn_away(ByteView route, NodeId host, ByteView header, SharedBytes payload) {
  ++counters_.turned_away;
  if (no_place_.now()) {
    spdlog::warn("{}: a client of another host is turned away: {} are connected already, {} of its host, all in use",
                 where_, connections_.size(), use_of(host).connections);
  }
  const auto received = receive_client_frame(header, std::move(payload));
  if (!received || !std::holds_alternative<Request>(received->value.body)) return;
  const auto answer =
      answer_of(received->value.id, Error{Errc::kBusy, "too many clients of this host are connected; try again later"});
  (void)write_(route, *answer.header, encode_hop({boot_, mono_us(), 0}), answer.payload);
}

void RemoteClients::receive(ByteView route, NodeId host, ByteView header, SharedBytes payload) {
  auto* c = connection_of(route, host);
  if (c == nullptr) return turn_away(route, host, header, std::move(payload));
  c->heard_ms = EventLoop::mono_ms();
  if (c->muted) return;
  const auto number = by_route_.at(c->route);
  take(number, *c, header, std::move(payload));
  // Not only when the turn ends: ZeroMQ takes few answers at a time, and sends these while the next request is read.
  const auto still = connections_.find(number);
  if (still != connections_.end() && !flush(still->second)) erase(number);
}

void RemoteClients::take(std::uint64_t number, Connection& c, ByteView header, SharedBytes payload) {
  const auto bytes = header.size() + (payload ? payload->size() : 0);
  auto received = receive_client_frame(header, std::move(payload));
  if (!received || !std::holds_alternative<Request>(received->value.body)) {
    return mute(c, received ? "it sent an answer; clients send requests" : received.error().text);
  }
  auto& request = received->value;
  const auto of_host = use_of(c.host);
  if (c.bytes_waiting >= kWithRefusals * limits_.answer_bytes_waiting ||
      of_host.answer_bytes >= kConnectionsWorth * limits_.answer_bytes_waiting) {
    ++counters_.turned_away;
    return;
  }
  if (c.under_way.size() + c.answers_waiting >= limits_.requests_under_way ||
      c.bytes_under_way >= limits_.request_bytes_under_way || c.bytes_waiting >= limits_.answer_bytes_waiting ||
      of_host.requests >= kConnectionsWorth * limits_.requests_under_way ||
      of_host.request_bytes >= kConnectionsWorth * limits_.request_bytes_under_way) {
    ++counters_.turned_away;
    return send(c, {request.id, &kTooMuchUnderWay, nullptr, nullptr});
  }
  if (!(c.under_way.empty() && c.waiting.empty()) && is_crowded()) {
    ++counters_.held_back;
    return send(c, {request.id, &kTooMuchToDo, nullptr, nullptr});
  }
  if (!c.under_way.emplace(request.id, bytes).second) {
    return mute(c, fmt::format("it has two requests with the id {} under way", request.id));
  }
  c.bytes_under_way += bytes;
  ++counters_.requests;
  const auto ttl_ms = ttl_after(request.ttl_ms, c.delay.observe(received->hop, mono_us()));
  if (ttl_ms == 0) {
    ++counters_.dropped_late;
    return reply(number, request.id, Error{Errc::kTimeout, "the request came to the daemon after its deadline"});
  }
  on_request_(number, request.id, std::get<Request>(std::move(request.body)), ttl_ms);
}

void RemoteClients::mute(Connection& c, std::string_view reason) {
  ++counters_.malformed;
  c.muted = true;
  if (!garbled_.now()) return;
  spdlog::warn("{}: a client of host {:016x} is not listened to any more: {}", where_,
               static_cast<std::uint64_t>(c.host), reason);
}

void RemoteClients::reply(std::uint64_t connection, std::uint64_t id, Answer answer) {
  const auto found = connections_.find(connection);
  if (found == connections_.end()) return;
  auto& c = found->second;
  const auto request = c.under_way.find(id);
  if (request == c.under_way.end()) return;
  c.bytes_under_way -= request->second;
  c.under_way.erase(request);
  ++counters_.answers;
  send(c, answer_of(id, std::move(answer)));
  if (flush(c)) return;
  erase(connection);
}

void RemoteClients::hang_up(std::uint64_t connection) {
  const auto found = connections_.find(connection);
  if (found == connections_.end() || std::exchange(found->second.muted, true)) return;
  send(found->second, answer_of(ClientFrame::kFarewell, Error{Errc::kUnavailable, "this kinfsd is stopping"}));
  if (!flush(found->second)) erase(connection);
}

RemoteClients::Waiting RemoteClients::answer_of(std::uint64_t id, Answer answer) const {
  ClientFrame frame{id, 0, hlc_ ? hlc_() : Hlc{}, std::move(answer)};
  auto encoded = encode(frame);
  if (encoded.header.size() > kMaxHeaderBytes) {
    frame.body = Answer{Error{Errc::kTooLarge, fmt::format("the answer has {} bytes; at most {} can be sent",
                                                           encoded.header.size(), kMaxHeaderBytes)}};
    encoded = encode(frame);
  }
  return {id, nullptr, share(std::move(encoded.header)), std::move(encoded.payload)};
}

void RemoteClients::send(Connection& c, Waiting answer) {
  c.waiting.push_back(std::move(answer));
  c.bytes_waiting += c.waiting.back().size();
  all_waiting_ += c.waiting.back().size();
  c.answers_waiting += c.waiting.back().refusal == nullptr;
  waiting_.insert(by_route_.at(c.route));
}

ZmqSocket::Sent RemoteClients::write_first(const Connection& c) const {
  const auto& first = c.waiting.front();
  const auto encoded = first.refusal != nullptr ? answer_of(first.id, *first.refusal) : first;
  return write_(c.route, *encoded.header, encode_hop({boot_, mono_us(), 0}), encoded.payload);
}

bool RemoteClients::flush(Connection& c) {
  while (!c.waiting.empty()) {
    const auto& item = c.waiting.front();
    const auto sent = write_first(c);
    if (sent == ZmqSocket::Sent::kGone) return false;
    if (sent == ZmqSocket::Sent::kFull) return true;
    c.bytes_waiting -= item.size();
    all_waiting_ -= item.size();
    c.answers_waiting -= item.refusal == nullptr;
    c.waiting.pop_front();
  }
  waiting_.erase(by_route_.at(c.route));
  return true;
}

void RemoteClients::flush() {
  for (const auto number : std::set<std::uint64_t>(waiting_)) {
    if (!flush(connections_.at(number))) erase(number);
  }
}

void RemoteClients::erase(std::uint64_t number) {
  all_waiting_ -= connections_.at(number).bytes_waiting;
  by_route_.erase(connections_.at(number).route);
  connections_.erase(number);
  waiting_.erase(number);
}

void RemoteClients::sweep(std::int64_t mono_ms) {
  std::vector<std::uint64_t> gone;
  for (const auto& [number, c] : connections_) {
    if (mono_ms - c.heard_ms > kForgetMs) gone.push_back(number);
  }
  for (const auto number : gone) erase(number);
}

std::size_t RemoteClients::forget(const std::set<NodeId>& hosts) {
  std::size_t answers = 0;
  std::vector<std::uint64_t> gone;
  for (const auto& [number, c] : connections_) {
    if (!hosts.contains(c.host)) continue;
    answers += c.waiting.size();
    gone.push_back(number);
  }
  for (const auto number : gone) erase(number);
  return answers;
}

}  // namespace kinfs::cluster
