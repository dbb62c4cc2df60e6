// ZeroMQ as kinfs uses it, and the only place that knows it. What it throws ends here.
//
// A message is one part, or two with a block's bytes; to and from a ROUTER, the route of its connection goes before.
//
// ZMQ_FD tells only that a socket has commands to process. It is watched level-triggered, and stays readable until a
// call on that socket processes them: so whoever watches descriptor() goes on until receive() says that there is
// nothing, or asks can_send() and can_receive(), and does so again after each send(), which processes commands too. A
// socket whose first commands were processed by a call before it was watched says nothing of the next: so each is
// asked once when it is.
//
// Threading: a socket belongs to one thread at a time, a context to any.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>

#include "cluster/key_pair.h"
#include "storage/result.h"

namespace kinfs::cluster {

/// One part of a message.
class ZmqPart {
 public:
  ZmqPart();
  explicit ZmqPart(ByteView bytes);
  /// ZeroMQ sends from where the bytes are, and lets go of them on its own thread when they are out.
  explicit ZmqPart(SharedBytes bytes);
  ZmqPart(const ZmqPart&) = delete;
  ZmqPart& operator=(const ZmqPart&) = delete;
  ~ZmqPart();

  bool more() const;
  ByteView view() const;
  /// What the check of keys said of the connection's key; null when nothing.
  const char* user_id();

 private:
  friend class ZmqSocket;
  static constexpr std::size_t kMessageBytes = 64;
  alignas(void*) std::array<std::byte, kMessageBytes> message_;
};

struct ZmqMessage {
  ZmqPart route;  // of a ROUTER
  ZmqPart header;
  ZmqPart payload;
  std::size_t parts = 0;  // without the route; what is over 2 is not kept
};

/// What a monitor tells of a connection.
enum class ZmqEvent { kNone, kStands, kBroke };

class ZmqSocket {
 public:
  enum class Sent {
    kDone,
    kFull,  // nothing was sent: the other end is not there, or takes no more for now
    kGone,  // there is no connection with this route
  };

  ZmqSocket();  // closed
  ZmqSocket(ZmqSocket&&) noexcept;
  ZmqSocket& operator=(ZmqSocket&&) noexcept;
  ~ZmqSocket();
  explicit operator bool() const { return impl_ != nullptr; }
  void close() { *this = ZmqSocket(); }

  Sent send(ZmqPart& part, bool more);
  /// `tail` is appended to the header. `route`: of a ROUTER's connection, else empty. `payload`: null for none.
  Sent send(ByteView route, ByteView header, ByteView tail, const SharedBytes& payload);
  /// False: there is nothing now.
  bool receive(ZmqPart& part);
  bool receive(ZmqMessage& message, bool routed);
  /// Of a monitor: the last of what happened since.
  ZmqEvent receive_event();

  int descriptor() const;
  bool can_send() const;
  bool can_receive() const;

 private:
  friend class ZmqContext;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// A DEALER that is connected, and the socket that tells how its connection fares. The first is closed first.
struct ZmqDialled {
  ZmqSocket monitor;
  ZmqSocket socket;
};

class ZmqContext {
 public:
  ZmqContext();  // not started
  ZmqContext(ZmqContext&&) noexcept;
  ZmqContext& operator=(ZmqContext&&) noexcept;
  /// After all of its sockets.
  ~ZmqContext();
  explicit operator bool() const { return impl_ != nullptr; }

  static Result<ZmqContext> start();
  /// The socket that is asked for each connection to a ROUTER of this context whether it is let in (ZeroMQ RFC 27,
  /// ZAP). It must be there before the first connection: without one, ZeroMQ lets everybody in.
  Result<ZmqSocket> key_check();
  /// kRefused with words when the port is in use or the address is not one.
  Result<ZmqSocket> listen(const std::string& address, const KeyPair& keys);
  /// `name`: whose address it is, for words. kRefused when it is none.
  Result<ZmqDialled> dial(const std::string& name, const std::string& address, ByteView server_key,
                          const KeyPair& keys);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

inline constexpr const char* kZapDomain = "kinfs";

}  // namespace kinfs::cluster
