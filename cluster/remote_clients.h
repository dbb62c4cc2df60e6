// The daemon's end of clients on other hosts, whose own daemon is away: they come over TCP to the socket on which the
// ring listens, by the client key of their host.
//
// Invariants: what one connection does hurts no other. A connection that sends what is no request is not listened to
// again. ZeroMQ cannot stop reading from one connection: so a request that is over the limits of its connection is
// refused at once (our own clients keep below them), and what is sent by one that leaves its answers and many refusals
// unread is dropped; a connection's memory is bounded by UnixServerLimits, as it is for clients of this host, and that
// of all clients of one host by a few times as much. While the daemon as a whole has much to do, a connection gets one
// request after the other, as there, and what it sends beyond that is refused; our own clients send it again a little
// later. Nor does ZeroMQ tell when a connection ends: where there is no place for a new one, the one that has been
// silent for longest and waits for nothing is forgotten. If it is there after all, its next request makes it anew.
//
// Threading: all on the loop's thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <set>
#include <string>
#include <unordered_map>

#include "cluster/hop.h"
#include "cluster/unix_server.h"
#include "cluster/zmq_socket.h"

namespace kinfs::cluster {

/// Whoever knocks again and again must not fill the log.
class LogPace {
 public:
  bool now() {
    const auto ms = EventLoop::mono_ms();
    if (ms < next_ms_) return false;
    next_ms_ = ms + kPauseMs;
    return true;
  }

 private:
  static constexpr std::int64_t kPauseMs = 10'000;
  std::int64_t next_ms_ = 0;
};

class RemoteClients {
 public:
  using Write =
      std::function<ZmqSocket::Sent(ByteView route, ByteView header, const HopBytes& hop, const SharedBytes& payload)>;
  /// `connection` and `id` of `on_request` are for reply(). `where`: our address, for the log.
  RemoteClients(std::string where, UnixServer::OnRequest on_request, std::function<Hlc()> hlc, UnixServerLimits limits,
                Write write);

  /// What came from a connection whose key is that of clients of `host`, called `route` while it stands.
  void receive(ByteView route, NodeId host, ByteView header, SharedBytes payload);
  /// As UnixServer::reply.
  void reply(std::uint64_t connection, std::uint64_t id, Answer answer);
  /// Whose client that connection is; NodeId{} when it is gone.
  NodeId host_of(std::uint64_t connection) const {
    const auto found = connections_.find(connection);
    return found == connections_.end() ? NodeId{} : found->second.host;
  }
  void when_crowded(std::function<bool()> crowded) { crowded_ = std::move(crowded); }
  /// Tells it to go elsewhere, and does not listen to it again.
  void hang_up(std::uint64_t connection);
  /// Sends answers that wait for connections to take them.
  void flush();
  /// Forgets connections that have been silent for long: ZeroMQ does not tell when one ends.
  void sweep(std::int64_t mono_ms);
  /// Forgets all connections of these hosts, what waits for them too; returns how many answers that were.
  std::size_t forget(const std::set<NodeId>& hosts);
  std::size_t connections() const { return connections_.size(); }
  const UnixServerCounters& counters() const { return counters_; }

  static constexpr std::int64_t kForgetMs = 60'000;  // over the patience of any client

 private:
  /// An answer. One who asks for too much is told so each time, faster than answers go: so a refusal is encoded when
  /// it goes, and takes next to no room until then.
  struct Waiting {
    std::uint64_t id = 0;
    const Error* refusal = nullptr;  // static; else:
    SharedBytes header;
    SharedBytes payload;
    std::size_t size() const {
      if (refusal != nullptr) return sizeof *this;
      return kBytesPerItem + header->size() + (payload ? payload->size() : 0);
    }
    static constexpr std::size_t kBytesPerItem = 256;  // what it takes to keep it
  };
  struct Connection {
    Bytes route;
    NodeId host{};
    QueueDelay delay;
    std::unordered_map<std::uint64_t, std::size_t> under_way;  // request id -> its bytes
    std::size_t bytes_under_way = 0;
    std::deque<Waiting> waiting;
    std::size_t bytes_waiting = 0;
    std::size_t answers_waiting = 0;  // without refusals
    std::int64_t heard_ms = 0;
    bool muted = false;
  };

  /// Null: there is no place for another.
  Connection* connection_of(ByteView route, NodeId host);
  bool make_place(NodeId host);
  void turn_away(ByteView route, NodeId host, ByteView header, SharedBytes payload);
  struct Use {
    std::size_t connections = 0, requests = 0, request_bytes = 0, answer_bytes = 0;
  };
  Use use_of(NodeId host) const;
  bool is_crowded() const {
    return all_waiting_ >= limits_.all_answer_bytes_waiting || (crowded_ && crowded_());
  }
  void take(std::uint64_t number, Connection& c, ByteView header, SharedBytes payload);
  void mute(Connection& c, std::string_view reason);
  void send(Connection& c, Waiting answer);
  Waiting answer_of(std::uint64_t id, Answer answer) const;
  /// Sends the first that waits.
  ZmqSocket::Sent write_first(const Connection& c) const;
  /// False: the connection is gone.
  bool flush(Connection& c);
  void erase(std::uint64_t number);

  const std::string where_;
  UnixServer::OnRequest on_request_;
  std::function<Hlc()> hlc_;
  const UnixServerLimits limits_;
  Write write_;
  UnixServerCounters counters_;
  std::function<bool()> crowded_;
  std::size_t all_waiting_ = 0;  // bytes of answers
  const std::uint64_t boot_;
  std::uint64_t last_connection_ = 0;
  std::unordered_map<std::uint64_t, Connection> connections_;
  std::unordered_map<Bytes, std::uint64_t> by_route_;
  std::set<std::uint64_t> waiting_;  // connections with answers that were not taken yet
  LogPace garbled_;
  LogPace no_place_;
};

}  // namespace kinfs::cluster
