#include "cluster/elsewhere.h"

#include <fmt/format.h>
#include <sys/epoll.h>

#include <algorithm>
#include <random>

#include "cluster/event_loop.h"

namespace kinfs::cluster {
namespace {

constexpr std::size_t kWindowRequests = 256;
constexpr std::size_t kWindowBytes = 8 << 20;
constexpr std::int64_t kDialMs = 600;   // several round trips of a long line; doubled each time all were tried
constexpr std::int64_t kRoundMs = 900;  // then a host that has answered is taken though it is not ready
constexpr std::size_t kMostDoublings = 3;
constexpr std::int64_t kProbeMs = 600;  // of silence: it is asked for a sign of life
constexpr std::int64_t kSilenceMs = 1400;
constexpr std::int64_t kSilenceInBlocksMs = 2500;  // one takes a second on a line of 10 Mbit/s, and all else waits
constexpr std::uint32_t kProbeTtlMs = 5000;

}  // namespace

std::uint64_t Elsewhere::random_boot() { return std::random_device{}() | 1ull << 32; }

void Elsewhere::know(Introduction introduction) {
  known_ = std::move(introduction);
  if (!is_open()) next_ = 0;
}

Result<void> Elsewhere::dial_next() {
  close();
  if (!context_) {
    auto started = ZmqContext::start();
    if (!started) return pass(std::move(started));
    context_.emplace(std::move(*started));
  }
  const auto now_ms = EventLoop::mono_ms();
  if (unready_ && (tried_ >= known_.hosts.size() || round_is_long(now_ms))) {
    take_unready_ = true;
    if (auto dialled = dial(*std::exchange(unready_, std::nullopt))) return dialled;
  }
  Result<void> dialled = fail(Errc::kUnavailable, "no other host is known");
  for (std::size_t tries = 0; tries < known_.hosts.size(); ++tries) {
    if (tried_ >= known_.hosts.size()) {
      ++rounds_;
      tried_ = 0;
      complaint_ = std::exchange(reasons_, {});
    }
    if (tried_++ == 0) round_ms_ = now_ms;
    take_unready_ = false;
    dialled = dial(known_.hosts[next_++ % known_.hosts.size()]);
    if (dialled) return dialled;
  }
  return dialled;
}

void Elsewhere::note(std::string_view reason) {
  reasons_ += fmt::format("{}{} ({}): {}", reasons_.empty() ? "" : "; ", host_.name, host_.address, reason);
}

Result<void> Elsewhere::dial(OtherHost host) {
  host_ = std::move(host);
  auto dialled = line_.open(*context_, host_.name, host_.address, host_.public_key, known_.client_keys);
  if (!dialled) {
    note(dialled.error().text);
    return dialled;
  }
  reason_ = "cannot be reached";
  heard_ms_ = EventLoop::mono_ms();
  watch(line_.descriptor(), line_event_);
  watch(line_.monitor_descriptor(), monitor_event_);
  return {};
}

bool Elsewhere::round_is_long(std::int64_t now_ms) const { return tried_ > 0 && now_ms - round_ms_ > kRoundMs; }

void Elsewhere::watch(int fd, std::uint64_t event) {
  epoll_event e{EPOLLIN, {.u64 = event}};
  ::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &e);
}

void Elsewhere::close() {
  queue_.clear();
  under_way_.clear();
  bytes_under_way_ = 0;
  ready_probe_ = 0;
  probing_ = false;
  const bool was_in = std::exchange(in_, false);
  if (!line_.is_open()) return;
  if (!was_in) note(reason_);
  ::epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, line_.descriptor(), nullptr);
  ::epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, line_.monitor_descriptor(), nullptr);
  line_.close();
}

void Elsewhere::rest() {
  close();
  tried_ = rounds_ = 0;
  unready_.reset();
  reasons_.clear();
}

bool Elsewhere::sendable() const {
  return in_ && !queue_.empty() && under_way_.size() < kWindowRequests && bytes_under_way_ < kWindowBytes;
}

void Elsewhere::send_one(Heard& heard) {
  const auto& item = queue_.front();
  const auto now_us = mono_us();
  const auto left_ms = item.deadline_ms - now_us / 1000;
  if (left_ms > 0) {
    if (!line_.send(*item.header, encode_hop({boot_, now_us, static_cast<std::uint32_t>(left_ms)}), item.payload)) {
      return;
    }
    heard.sent.push_back(item.id);
    if (under_way_.emplace(item.id, item.cost).second) bytes_under_way_ += item.cost;
  }
  queue_.pop_front();
}

void Elsewhere::ask_whether_ready() {
  const auto id = kFirstInternalId + probes_ + 1;
  if (!probe(id)) return;
  ++probes_;
  ready_probe_ = id;
}

bool Elsewhere::probe(std::uint64_t id) {
  const auto probe = encode(ClientFrame{id, kProbeTtlMs, {}, Request{AdminRequest{kReadyCommand, {}}}});
  return line_.send(probe.header, encode_hop({boot_, mono_us(), kProbeTtlMs}), nullptr);
}

/// False: what came is not from a daemon of ours, or this host is not good enough.
bool Elsewhere::read_one(Heard& heard) {
  ZmqMessage message;
  if (!line_.socket().receive(message, /*routed=*/false)) return true;
  const auto payload = message.payload.view();
  if (message.parts > 2 || payload.size() > kMaxBlockBytes) return false;
  auto received = receive_client_frame(message.header.view(), message.parts == 2 ? share(Bytes(payload)) : nullptr);
  if (!received || !std::holds_alternative<Answer>(received->value.body)) return false;
  if (received->value.id == ClientFrame::kFarewell) return false;
  heard_ms_ = EventLoop::mono_ms();
  probing_ = false;
  if (const auto asked = under_way_.find(received->value.id); asked != under_way_.end()) {
    bytes_under_way_ -= asked->second;
    under_way_.erase(asked);
  }
  if (received->value.id == ready_probe_) {
    const auto& answer = std::get<Answer>(received->value.body);
    if (const auto* error = std::get_if<Error>(&answer); error != nullptr && error->code == Errc::kBusy) {
      reason_ = "has too many clients";
      return false;
    }
    const auto* told = std::get_if<AdminAnswer>(&answer);
    const bool ready = told == nullptr || decode_ready(told->json);
    if (!ready && !take_unready_) {
      if (!unready_) unready_ = host_;
      reason_ = "does not reach enough others itself";
      return false;
    }
    heard.is_in = in_ = true;
    tried_ = rounds_ = 0;
    unready_.reset();
    reasons_.clear();
  }
  if (received->value.id < kFirstInternalId) heard.answers.push_back(std::move(*received));
  return true;
}

Elsewhere::Heard Elsewhere::pump() {
  Heard heard;
  if (!is_open()) return heard;
  const bool stood = line_.stands();
  const auto event = line_.look();
  heard.broke = event != ZmqEvent::kNone && stood;  // also one that stands again: what was under way is lost
  // It does not know us yet. In the first round the next is tried at once, later there is time.
  const bool hurry = rounds_ == 0 && (tried_ < known_.hosts.size() || unready_);
  if (event == ZmqEvent::kBroke && !stood) reason_ = "does not let us in";
  if (event == ZmqEvent::kBroke && !stood && hurry) heard_ms_ = 0;
  if (event == ZmqEvent::kStands) {
    reason_ = "does not answer";
    heard_ms_ = EventLoop::mono_ms();
  }
  if (line_.stands() && ready_probe_ == 0) ask_whether_ready();
  while (!heard.broke) {
    if (line_.socket().can_receive()) {
      heard.broke = !read_one(heard);
    } else if (sendable() && line_.socket().can_send()) {
      send_one(heard);
    } else {
      break;
    }
  }
  return heard;
}

bool Elsewhere::silent(std::int64_t since_ms, std::int64_t now_ms) {
  const auto silence_ms = now_ms - std::max(since_ms, heard_ms_);
  if (!in_) {
    if (heard_ms_ == 0 || (unready_ && round_is_long(now_ms))) return true;
    return silence_ms > kDialMs << std::min(rounds_, kMostDoublings);
  }
  const bool blocks = std::any_of(under_way_.begin(), under_way_.end(),
                                  [](const auto& item) { return item.second >= kMaxBlockBytes / 2; });
  if (silence_ms > (blocks ? kSilenceInBlocksMs : kSilenceMs)) return true;
  if (silence_ms > kProbeMs && !probing_) {
    probing_ = true;
    (void)probe(kFirstInternalId + ++probes_);  // past the window, which may be what it is silent about
  }
  return false;
}

}  // namespace kinfs::cluster
