// The daemon's end of the Unix socket that clients use.
//
// Invariants: what one connection does hurts no other. A malformed frame closes its connection, with a logged
// reason; a client that sends without reading its answers, or that has too much under way, is not read from
// until it has caught up, so that a connection's memory is bounded by UnixServerLimits.
//
// Nor does it matter how many of them there are: while the daemon as a whole has much to do, or much lies here that
// clients have not read, a connection gets one request after the other, and none while it has not read the answer. One
// that reads nothing for long is cut off, sooner where that makes room; its client connects anew and asks again.
//
// Threading: all on the loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "cluster/event_loop.h"
#include "cluster/message.h"

namespace kinfs::cluster {

struct UnixServerLimits {
  std::size_t connections = 256;
  // Of each connection. A limit is looked at before a frame is taken, so that one frame may go beyond it.
  std::size_t requests_under_way = 1024;
  std::size_t request_bytes_under_way = 32 << 20;
  std::size_t answer_bytes_waiting = 8 << 20;
  // Of all connections together; as before, the last of each may go beyond it.
  std::size_t all_answer_bytes_waiting = 32 << 20;
  // How long answers may wait without one byte of them being read: in general, and where others need the room.
  std::int64_t unread_ms = 15'000;
  std::int64_t unread_crowded_ms = 1000;
};

struct UnixServerCounters {
  std::uint64_t connections = 0;  // accepted since start
  std::uint64_t requests = 0, answers = 0;
  std::uint64_t malformed = 0;     // connections closed for what they sent
  std::uint64_t dropped_late = 0;  // requests past their deadline when they were read
  std::uint64_t turned_away = 0;   // connections beyond the limit
  std::uint64_t cut_off = 0;       // connections that did not read their answers
  std::uint64_t held_back = 0;     // times that a connection was not read from until something of it was done
};

class UnixServer {
 public:
  /// `connection` and `id` are for reply(); `ttl_ms` is what is left of the client's patience, over 0. May call
  /// reply() before it returns.
  using OnRequest =
      std::function<void(std::uint64_t connection, std::uint64_t id, Request request, std::uint32_t ttl_ms)>;

  /// Listens on a stream socket at `path`, mode 0660. The socket of a daemon that is gone is replaced; kRefused with
  /// words when one listens there, when something else has the name, or when the path cannot be used. `hlc` is
  /// asked for each answer's clock; it may be empty.
  static Result<std::unique_ptr<UnixServer>> open(EventLoop& loop, std::string path, OnRequest on_request,
                                                  std::function<Hlc()> hlc = {}, UnixServerLimits limits = {});
  /// Closes all connections and removes the socket.
  ~UnixServer();

  /// Once for each request; nothing happens when the connection is gone. An answer that does not fit into a frame
  /// goes out as kTooLarge.
  void reply(std::uint64_t connection, std::uint64_t id, Answer answer);
  /// `crowded` is asked whether the daemon has so much to do that a connection gets one request after the other.
  void when_crowded(std::function<bool()> crowded);
  /// Closes it; answers that are not written yet are lost.
  void hang_up(std::uint64_t connection);
  std::size_t open_connections() const;
  const UnixServerCounters& counters() const;

 private:
  struct Impl;
  explicit UnixServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kinfs::cluster
