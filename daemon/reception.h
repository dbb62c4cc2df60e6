// Where guests come in: gives invitations, and lets whoever comes with one ask to be admitted, and nothing else.
//
// Threading: the loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "cluster/message.h"
#include "cluster/zmq_transport.h"
#include "daemon/config.h"
#include "daemon/invitations.h"

namespace kinfs::daemon {

/// Of what a host that comes by an invitation says of itself, what it may choose: key, name and address; the rest is as
/// with any new host. kRefused, in words that can be logged, when that will not do.
Result<Member> as_guest(const Member& asks);

class Reception {
 public:
  struct Invited {
    std::string word;
    std::uint64_t expires_s = 0;
  };
  /// For Admin: an invitation that holds for so many seconds.
  using Invite = std::function<Result<Invited>(std::uint64_t seconds)>;
  /// Hands a guest's request to the core; its answer is for reply().
  using Ask = cluster::UnixServer::OnRequest;

  /// Of a cluster by invitation alone. `own`: this host, as others see it.
  static Result<std::unique_ptr<Reception>> open(const Config& config, Member own, cluster::ZmqTransport& transport,
                                                 Ask ask, std::function<Hlc()> hlc);
  Result<Invited> invite(std::uint64_t seconds);
  /// The core's answer to what `ask` handed on.
  void reply(std::uint64_t connection, std::uint64_t id, cluster::Answer answer);

 private:
  Reception(const Config& config, Member own, cluster::ZmqTransport& transport, Ask ask, Invitations invitations)
      : config_(config),
        own_(std::move(own)),
        transport_(transport),
        ask_(std::move(ask)),
        invitations_(std::move(invitations)) {}
  void on_request(std::uint64_t connection, std::uint64_t id, cluster::Request request, std::uint32_t ttl_ms);

  const Config& config_;
  Member own_;
  cluster::ZmqTransport& transport_;
  Ask ask_;
  Invitations invitations_;
  struct Joining {
    NodeId guest{};
    Member member;
  };
  std::map<std::pair<std::uint64_t, std::uint64_t>, Joining> joining_;  // by connection and id
};

}  // namespace kinfs::daemon
