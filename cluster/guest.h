// What a host asks of a cluster that it does not belong to yet.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "cluster/invitation.h"
#include "cluster/message.h"
#include "cluster/zmq_line.h"
#include "storage/result.h"

namespace kinfs::cluster {

/// A connection to the host that gave an invitation. Blocks the calling thread.
class Guest {
 public:
  static Result<Guest> open(const Invitation& invitation);
  Guest(Guest&&) noexcept = default;
  ~Guest() {
    if (line_) line_->close();
  }

  /// Asks to admit `member`, and waits for the answer. kUnavailable, in words, when none comes within `timeout_ms`:
  /// then it may have been done, and asking again is safe. What the host refuses comes with its words.
  Result<Admitted> ask(const Member& member, std::uint32_t timeout_ms);

 private:
  Guest(const Invitation& invitation, ZmqContext context)
      : invitation_(invitation), context_(std::move(context)), line_(std::make_unique<ZmqLine>()) {}
  std::optional<Result<Answer>> answer();

  Invitation invitation_;
  ZmqContext context_;
  std::unique_ptr<ZmqLine> line_;
  std::uint64_t last_id_ = 0;
  bool stood_ = false;
};

/// The local address from which this machine reaches `address` (tcp://HOST:PORT); nullopt when there is no route.
/// Nothing is sent.
std::optional<std::string> own_address_towards(const std::string& address);

}  // namespace kinfs::cluster
