// Messages between nodes over ZeroMQ: one ROUTER that all peers dial, one DEALER to each peer.
//
// Every socket speaks CURVE; whom the membership does not list gets nothing: the handshake is refused by the
// ZAP handler, and the user id of each message (set by ZAP from the key that was proven) must belong to the
// node that the message names as its sender.
//
// Clients of other hosts come to the same ROUTER, by the client key that their host has announced. ZAP marks them as
// what they are: they may send requests and nothing else (see remote_clients.h).
//
// Queues are bounded and live here, not in ZeroMQ (small high-water marks): a message past its deadline is
// dropped from the queue, never sent late; when a queue is full the oldest goes first.
//
// Threading: all on the loop's thread, ZeroMQ's own I/O thread apart.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cluster/event_loop.h"
#include "cluster/key_pair.h"
#include "cluster/message.h"
#include "cluster/unix_server.h"

namespace kinfs::cluster {

/// The first 8 bytes of SHA-256 of the public key: identity is the key pair, not the address.
NodeId node_id_of(ByteView public_key);

struct TransportConfig {
  NodeId self{};
  std::string listen;  // tcp://ADDRESS:PORT
  KeyPair keys;
};

struct TransportCounters {
  std::uint64_t sent = 0, received = 0, bytes_sent = 0, bytes_received = 0;
  std::uint64_t dropped_late = 0, dropped_full = 0, dropped_cut = 0, malformed = 0, unauthenticated = 0;
  std::uint64_t dialled = 0;  // connections that were made anew, the first ones included
};

/// Who else than nodes comes to the socket of the ring.
enum class Visitor {
  kClient,  // of another host, by that host's client key
  kGuest,   // a host that is no member yet, by the key of an invitation
};
inline constexpr std::size_t kVisitorKinds = 2;

class ZmqTransport {
 public:
  /// kRefused with words when the port is in use or the address is not one.
  static Result<std::unique_ptr<ZmqTransport>> open(EventLoop& loop, TransportConfig config,
                                                    std::vector<Member> members,
                                                    std::function<void(Message)> on_message);
  ~ZmqTransport();
  void send(const Message& message);
  /// Lets in and dials those that are new, and dials those anew whose address is another now. What cannot be dialled is
  /// logged and tried again.
  void set_members(const std::vector<Member>& members);
  /// From now on; before, visitors of that kind are not listened to. The arguments are those of UnixServer::open.
  void serve(Visitor visitor, UnixServer::OnRequest on_request, std::function<Hlc()> hlc, UnixServerLimits limits = {});
  /// As of UnixServer, for visitors of that kind; after serve().
  void when_crowded(Visitor visitor, std::function<bool()> crowded);
  /// As UnixServer::reply.
  void reply(Visitor visitor, std::uint64_t connection, std::uint64_t id, Answer answer);
  /// The host whose client that connection is, or the id of the guest's key; NodeId{} when it is gone.
  NodeId visitor_of(Visitor visitor, std::uint64_t connection) const;
  /// The keys of all invitations, those too that are used up: their guests learn why they cannot join.
  void set_guests(const std::set<Bytes>& keys);
  /// Tells it to go elsewhere, and does not listen to it again.
  void hang_up(Visitor visitor, std::uint64_t connection);
  const UnixServerCounters& client_counters() const;
  /// For `kinfs lab cut`: from now on drops, silently, all that goes to or comes from these peers
  /// and their clients.
  void set_cut(std::set<NodeId> peers);
  const std::set<NodeId>& cut() const;
  const TransportCounters& counters() const;

 private:
  struct Impl;
  explicit ZmqTransport(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kinfs::cluster
