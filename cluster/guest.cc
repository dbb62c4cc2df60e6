#include "cluster/guest.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <random>

#include "cluster/codec.h"
#include "cluster/event_loop.h"
#include "cluster/zmq_line.h"

namespace kinfs::cluster {
namespace {

constexpr std::int64_t kPollMs = 50;  // its descriptors tell of commands, not of messages

}  // namespace

Result<Guest> Guest::open(const Invitation& invitation) {
  auto context = ZmqContext::start();
  if (!context) return pass(std::move(context));
  Guest guest(invitation, std::move(*context));
  auto opened = guest.line_->open(guest.context_, invitation.host, invitation.address, invitation.public_key,
                                  key_pair_of(invitation.secret_key));
  if (!opened) return pass(std::move(opened));
  return guest;
}

/// The answer, if it is there; an error when what came is none.
std::optional<Result<Answer>> Guest::answer() {
  ZmqMessage message;
  auto& socket = line_->socket();
  while (socket.can_receive() && socket.receive(message, /*routed=*/false)) {
    auto received = receive_client_frame(message.header.view(), nullptr);
    auto* answer = received ? std::get_if<Answer>(&received->value.body) : nullptr;
    if (answer == nullptr) {
      return fail(Errc::kCorrupt,
                  fmt::format("what {} sent is no answer of kinfs; is it another version?", invitation_.host));
    }
    if (received->value.id == last_id_) return std::move(*answer);  // else it came too late
  }
  return std::nullopt;
}

Result<Admitted> Guest::ask(const Member& member, std::uint32_t timeout_ms) {
  const auto header = share(encode(ClientFrame{++last_id_, timeout_ms, {}, Request{AdmitRequest{member}}}).header);
  const std::uint64_t boot = std::random_device{}() | 1ull << 32;
  const auto deadline = EventLoop::mono_ms() + timeout_ms;
  bool sent = false;
  for (auto left = std::int64_t{timeout_ms}; left > 0; left = deadline - EventLoop::mono_ms()) {
    const auto event = line_->look();
    stood_ = stood_ || line_->stands();
    if (event == ZmqEvent::kBroke && !stood_) {
      return fail(Errc::kRefused, fmt::format("{} at {} does not know this invitation: it is over a month old, or of a "
                                              "cluster that is no more, or another program has that port",
                                              invitation_.host, invitation_.address));
    }
    if (!sent && line_->socket().can_send()) {
      sent = line_->send(*header, encode_hop({boot, mono_us(), static_cast<std::uint32_t>(left)}), nullptr);
    }
    if (auto got = answer()) {
      if (!*got) return pass(std::move(*got));
      if (auto* admitted = std::get_if<Admitted>(&**got)) return std::move(*admitted);
      if (auto* error = std::get_if<Error>(&**got)) return tl::unexpected(std::move(*error));
      return fail(Errc::kCorrupt, fmt::format("{} answered something else than was asked", invitation_.host));
    }
    std::array<pollfd, 2> fds{{{line_->descriptor(), POLLIN, 0}, {line_->monitor_descriptor(), POLLIN, 0}}};
    ::poll(fds.data(), fds.size(), static_cast<int>(std::min(left, kPollMs)));
  }
  return fail(Errc::kUnavailable, fmt::format("{} does not answer at {}{}", invitation_.host, invitation_.address,
                                              stood_ ? ""
                                                     : ": is it on, does kinfsd run there, and does a firewall let "
                                                       "that port through?"));
}

std::optional<std::string> own_address_towards(const std::string& address) {
  const auto begin = address.find("://");
  const auto colon = address.rfind(':');
  if (begin == std::string::npos || colon <= begin + 2) return std::nullopt;
  auto host = address.substr(begin + 3, colon - begin - 3);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), address.substr(colon + 1).c_str(), &hints, &found) != 0) return std::nullopt;
  std::optional<std::string> out;
  const int fd = ::socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_storage own{};
  socklen_t size = sizeof own;
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (fd >= 0 && ::connect(fd, found->ai_addr, found->ai_addrlen) == 0 &&
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &size) == 0 &&
      ::getnameinfo(reinterpret_cast<sockaddr*>(&own), size, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST) ==
          0) {
    out = own.ss_family == AF_INET6 ? fmt::format("[{}]", text.data()) : std::string(text.data());
  }
  if (fd >= 0) ::close(fd);
  ::freeaddrinfo(found);
  return out;
}

}  // namespace kinfs::cluster
