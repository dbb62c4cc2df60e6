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
  const auto of_host =
      std::count_if(connections_.begin(), connections_.end(), [&](const auto& c) { return c.second.host == host; });
  if (connections_.size() >= limits_.connections ||
      static_cast<std::size_t>(of_host) >= std::max<std::size_t>(1, limits_.connections / kShareOfAHost)) {
    ++counters_.turned_away;
    if (crowded_.now()) {
      spdlog::warn("{}: a client of another host is turned away: {} are connected already, {} of its host", where_,
                   connections_.size(), of_host);
    }
    return nullptr;
  }
  ++counters_.connections;
  const auto number = ++last_connection_;
  auto& c = connections_[number];
  c.route = Bytes(route);
  c.host = host;
  by_route_.emplace(c.route, number);
  return &c;
}

void RemoteClients::receive(ByteView route, NodeId host, ByteView header, SharedBytes payload) {
  auto* c = connection_of(route, host);
  if (c == nullptr) return;
  c->heard_ms = EventLoop::mono_ms();
  if (!c->muted) take(by_route_.at(c->route), *c, header, std::move(payload));
}

void RemoteClients::take(std::uint64_t number, Connection& c, ByteView header, SharedBytes payload) {
  const auto bytes = header.size() + (payload ? payload->size() : 0);
  auto received = receive_client_frame(header, std::move(payload));
  if (!received || !std::holds_alternative<Request>(received->value.body)) {
    return mute(c, received ? "it sent an answer; clients send requests" : received.error().text);
  }
  auto& request = received->value;
  if (c.bytes_waiting >= limits_.answer_bytes_waiting) {
    ++counters_.turned_away;
    return;
  }
  if (c.under_way.size() >= limits_.requests_under_way || c.bytes_under_way >= limits_.request_bytes_under_way) {
    ++counters_.turned_away;
    return send(c, request.id, Error{Errc::kBusy, "too much of this client is under way; try again in a moment"});
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
  send(c, id, std::move(answer));
  if (flush(c)) return;
  erase(connection);
}

void RemoteClients::hang_up(std::uint64_t connection) {
  const auto found = connections_.find(connection);
  if (found == connections_.end() || std::exchange(found->second.muted, true)) return;
  send(found->second, ClientFrame::kFarewell, Error{Errc::kUnavailable, "this kinfsd is stopping"});
  if (!flush(found->second)) erase(connection);
}

void RemoteClients::send(Connection& c, std::uint64_t id, Answer answer) {
  ClientFrame frame{id, 0, hlc_ ? hlc_() : Hlc{}, std::move(answer)};
  auto encoded = encode(frame);
  if (encoded.header.size() > kMaxHeaderBytes) {
    frame.body = Answer{Error{Errc::kTooLarge, fmt::format("the answer has {} bytes; at most {} can be sent",
                                                           encoded.header.size(), kMaxHeaderBytes)}};
    encoded = encode(frame);
  }
  c.waiting.push_back({share(std::move(encoded.header)), std::move(encoded.payload)});
  c.bytes_waiting += c.waiting.back().size();
  waiting_.insert(by_route_.at(c.route));
}

bool RemoteClients::flush(Connection& c) {
  while (!c.waiting.empty()) {
    const auto& item = c.waiting.front();
    const auto sent = write_(c.route, *item.header, encode_hop({boot_, mono_us(), 0}), item.payload);
    if (sent == ZmqSocket::Sent::kGone) return false;
    if (sent == ZmqSocket::Sent::kFull) return true;
    c.bytes_waiting -= item.size();
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
