// See socket_client.h, and socket_client_impl.h for who owns what.
#include "cluster/socket_client.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>

#include "cluster/event_loop.h"
#include "cluster/socket_client_impl.h"
#include "storage/record_codec.h"

namespace kinfs::cluster {
namespace {

constexpr std::size_t kMostCalls = 20'000;  // that wait for answers
constexpr std::int64_t kLookMs = 200;       // how often the daemon's silence is looked at, while something waits for it
constexpr std::size_t kAgainAtALook = 8;    // of the requests that were refused for now

std::optional<Error> check_key(ByteView key) {
  if (key.size() <= kMaxKeyBytes) return std::nullopt;
  return Error{Errc::kNameTooLong, fmt::format("a key of {} bytes; at most {} are allowed", key.size(), kMaxKeyBytes)};
}

/// What the daemon's decoder would refuse, and close the connection for.
struct LimitCheck {
  std::optional<Error> operator()(const GetRequest& r) const {
    if (auto error = check_key(r.partition_key)) return error;
    return check_key(r.sort_key);
  }
  std::optional<Error> operator()(const ScanRequest& r) const {
    if (auto error = check_key(r.partition_key)) return error;
    return check_key(r.from);
  }
  std::optional<Error> operator()(const PutRequest& r) const {
    if (auto error = check_key(r.partition_key)) return error;
    if (r.rows.empty()) return Error{Errc::kInvalid, "a put without rows"};
    for (const auto& row : r.rows) {
      if (auto error = check_key(row.sort_key)) return error;
      for (const auto& version : row.add) {
        if (version.value.size() > kMaxValueBytes) {
          return Error{Errc::kTooLarge, fmt::format("a value of {} bytes; at most {} are allowed", version.value.size(),
                                                    kMaxValueBytes)};
        }
      }
    }
    return std::nullopt;
  }
  std::optional<Error> operator()(const PutBlockRequest& r) const {
    if (r.bytes == nullptr) return Error{Errc::kInvalid, "a block without bytes"};
    if (r.bytes->size() > kMaxBlockBytes) {
      return Error{Errc::kTooLarge,
                   fmt::format("a block of {} bytes; at most {} are allowed", r.bytes->size(), kMaxBlockBytes)};
    }
    return check_file_id(r.key);
  }
  std::optional<Error> operator()(const GetBlockRequest& r) const { return check_file_id(r.key); }
  std::optional<Error> operator()(const SyncBlocksRequest& r) const {
    if (r.blocks.hashes.empty() || r.blocks.hashes.size() > kMaxBlocksOfSet) {
      return Error{Errc::kInvalid,
                   fmt::format("a set of {} blocks; allowed are 1 to {}", r.blocks.hashes.size(), kMaxBlocksOfSet)};
    }
    return check_file_id(r.blocks.key({}));
  }
  std::optional<Error> operator()(const UsageRequest&) const { return std::nullopt; }
  std::optional<Error> operator()(const AdminRequest&) const { return std::nullopt; }
  std::optional<Error> operator()(const AdmitRequest&) const { return std::nullopt; }
  std::optional<Error> operator()(const ChangeMemberRequest&) const { return std::nullopt; }

  static std::optional<Error> check_file_id(const BlockKey& key) {
    if (key.file_id.size() <= kMaxFileIdBytes) return std::nullopt;
    return Error{Errc::kNameTooLong,
                 fmt::format("a file id of {} bytes; at most {} are allowed", key.file_id.size(), kMaxFileIdBytes)};
  }
};

}  // namespace

std::uint64_t SocketClient::Impl::random_boot() { return std::random_device{}() | 1ull << 32; }

Result<void> SocketClient::Impl::start() {
  auto connected = connect_to(options_.socket_path);
  if (!connected) return pass(std::move(connected));
  const int fd = *connected;
  epoll_fd_ = ::epoll_create1(EPOLL_CLOEXEC);
  wake_fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  timer_fd_ = ::timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
  epoll_event wake{EPOLLIN, {.u64 = kWakeEvent}};
  epoll_event timer{EPOLLIN, {.u64 = kTimerEvent}};
  if (epoll_fd_ < 0 || wake_fd_ < 0 || timer_fd_ < 0 || ::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, wake_fd_, &wake) != 0 ||
      ::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, timer_fd_, &timer) != 0) {
    const int error = errno;
    ::close(fd);
    return fail(Errc::kIo, fmt::format("cannot watch the connection to kinfsd: {}", std::strerror(error)));
  }
  elsewhere_.emplace(epoll_fd_, kLineEvent, kMonitorEvent);
  attach(fd);
  thread_ = std::thread([this] { run(); });
  return {};
}

SocketClient::Impl::~Impl() {
  if (thread_.joinable()) {
    {
      std::lock_guard lock(strand_);
      stopping_ = true;
    }
    quit_ = true;
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto n = ::write(wake_fd_, &one, sizeof one);
    thread_.join();
    std::lock_guard lock(strand_);
    writer_.reset();
    away_ = false;
    while (!calls_.empty()) finish(calls_.first_id(), Error{Errc::kCancelled, "the client was closed"});
  }
  elsewhere_.reset();
  for (const int fd : {io_.fd, io_.trial_fd, epoll_fd_, wake_fd_, timer_fd_}) {
    if (fd >= 0) ::close(fd);
  }
}

// --- Calls, inside the strand ---

Promise<Answer> SocketClient::Impl::call(Request request) {
  Promise<Answer> promise;
  if (stopping_) {
    promise.set(Error{Errc::kCancelled, "the client was closed"});
    return promise;
  }
  // Also of those that are refused here: what comes later on that row must not vouch for them.
  if (auto* put = std::get_if<PutRequest>(&request)) vouch(*put);
  if (calls_.size() >= kMostCalls) {
    promise.set(Error{Errc::kBusy, fmt::format("{} requests of this program wait for kinfsd already", kMostCalls)});
    return promise;
  }
  if (auto error = std::visit(LimitCheck{}, request)) {
    promise.set(std::move(*error));
    return promise;
  }
  auto call = std::make_shared<Call>();
  count(request);
  call->id = next_id_++;
  call->rows = row_names(request);
  call->cost = answer_bytes(request);
  call->at_home = std::holds_alternative<AdminRequest>(request) || std::holds_alternative<ChangeMemberRequest>(request);
  const auto now_ms = EventLoop::mono_ms();
  call->deadline_ms = now_ms + options_.timeout_ms;
  call->promise = promise;
  auto encoded = encode(ClientFrame{call->id, options_.timeout_ms, clock_.last(), std::move(request)});
  if (encoded.header.size() > kMaxHeaderBytes) {
    promise.set(Error{Errc::kTooLarge, fmt::format("a request of {} bytes; at most {} can be sent at once",
                                                   encoded.header.size(), kMaxHeaderBytes)});
    return promise;
  }
  call->header = share(std::move(encoded.header));
  call->payload = std::move(encoded.payload);
  call->cost += call->header->size() + (call->payload ? call->payload->size() : 0);
  if (calls_.empty()) waiting_since_ms_ = now_ms;
  const bool send_now = calls_.add(call);
  if (!timer_armed_) arm();
  if (send_now) {
    send_in_turn(*call);
    flush();
  }
  return promise;
}

void SocketClient::Impl::vouch(PutRequest& put) {
  for (auto& row : put.rows) {
    row.previous.clear();
    for (const auto& version : row.add) {
      row.previous.push_back(own_events_.previous(row_name(put, row), version.event, row.base.context));
    }
  }
}

void SocketClient::Impl::count(const Request& request) {
  if (const auto* put = std::get_if<PutRequest>(&request)) {
    ++sent_.puts;
    sent_.put_rows += put->rows.size();
  }
  sent_.gets += std::holds_alternative<GetRequest>(request);
  sent_.scans += std::holds_alternative<ScanRequest>(request);
  sent_.blocks_put += std::holds_alternative<PutBlockRequest>(request);
  sent_.blocks_got += std::holds_alternative<GetBlockRequest>(request);
}

void SocketClient::Impl::send(Call& call) {
  call.again = false;
  if (!writer_) {
    // attach() sends it, or the I/O thread, which may have to look for another daemon now.
    if (away_ && !call.at_home) {
      outbox_.push_back({call.id, call.header, call.payload, call.deadline_ms, call.cost});
    }
    return wake();
  }
  const auto now_us = mono_us();
  const auto left_ms = call.deadline_ms - now_us / 1000;
  if (left_ms <= 0) return;  // expire() is about to end it
  const auto ttl_ms = static_cast<std::uint32_t>(std::min<std::int64_t>(left_ms, options_.timeout_ms));
  ++call.sent;
  call.asked.clear();
  writer_->queue(call.header, encode_hop({boot_, now_us, ttl_ms}), call.payload);
}

void SocketClient::Impl::send_all() {
  calls_.each([this](Call& call) { send(call); });
}

void SocketClient::Impl::wake() {
  if (std::exchange(woken_, true)) return;
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto n = ::write(wake_fd_, &one, sizeof one);
}

void SocketClient::Impl::flush() {
  if (!writer_) return;
  const auto done = writer_->flush();
  if (done) return want_output(!*done);
  writer_.reset();
  ::shutdown(fd_, SHUT_RDWR);  // the I/O thread sees the end and connects anew
}

void SocketClient::Impl::want_output(bool wanted) {
  if (wanted == output_wanted_) return;
  output_wanted_ = wanted;
  epoll_event event{EPOLLIN | (wanted ? EPOLLOUT : 0u), {.u64 = kSocketEvent}};
  ::epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, fd_, &event);
}

void SocketClient::Impl::finish(std::uint64_t id, Answer answer) {
  const auto call = calls_.take(id, [this](Call& next) { send_in_turn(next); });
  if (!call) return;  // its deadline passed before the answer came
  flush();
  call->promise.set(std::move(answer));
}

void SocketClient::Impl::send_in_turn(Call& call) {
  if (again_.empty() || call.at_home) return send(call);
  call.again = true;
  again_.insert(call.id);
}

void SocketClient::Impl::send_those_in_turn(std::size_t most) {
  for (; most > 0 && !again_.empty(); --most) {
    auto* call = calls_.find(*again_.begin());
    again_.erase(again_.begin());
    // Unless a new connection has taken it along.
    if (call != nullptr && call->again) send(*call);
  }
}

/// What a daemon refused for now was not done, and is asked again while there is time for it.
bool SocketClient::Impl::ask_again(Call& call, const Answer& answer) {
  const auto* error = std::get_if<Error>(&answer);
  if (error == nullptr || error->code != Errc::kBusy || call.at_home) return false;
  if (EventLoop::mono_ms() + 2 * kLookMs >= call.deadline_ms) return false;
  --call.sent;
  call.again = true;
  again_.insert(call.id);
  return true;
}

void SocketClient::Impl::arm() {
  const auto at_ms = std::min(calls_.first_deadline_ms(), EventLoop::mono_ms() + kLookMs);
  itimerspec when{};
  when.it_value = {at_ms / 1000, at_ms % 1000 * 1'000'000};
  ::timerfd_settime(timer_fd_, TFD_TIMER_ABSTIME, &when, nullptr);
  timer_armed_ = true;
}

void SocketClient::Impl::expire() {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto n = ::read(timer_fd_, &count, sizeof count);
  timer_armed_ = false;
  const auto late = calls_.late(EventLoop::mono_ms());
  if (!late.empty() && writer_ && !writer_->empty()) {
    // The daemon has not taken anything for a while: what is queued for it must not pile up here.
    writer_.reset();
    ::shutdown(fd_, SHUT_RDWR);
  }
  for (const auto& call : late) {
    if (call->again && call->sent == 0) {
      finish(call->id, Error{Errc::kBusy, fmt::format("{}: given up after {} ms: the daemon has more to do than it can",
                                                      options_.socket_path, options_.timeout_ms)});
      continue;
    }
    const auto* own = fd_ >= 0 ? "kinfsd" : "kinfsd, which cannot be reached now";
    const auto why = call->rows_busy > 0 ? "an earlier put of the same row has not ended"
                     : call->sent > 0    ? fmt::format("no answer came from {}; whether it was done is not known",
                                                    call->asked.empty() ? own : call->asked)
                     : call->at_home     ? "kinfsd cannot be reached; is it running?"
                                         : "kinfsd cannot be reached, nor another host; is it running?";
    finish(call->id, Error{Errc::kTimeout, fmt::format("{}: given up after {} ms: {}", options_.socket_path,
                                                       options_.timeout_ms, why)});
  }
  send_those_in_turn(kAgainAtALook);
  flush();
  if (!timer_armed_ && !calls_.empty()) arm();
}

void SocketClient::Impl::observe(const Row& row) {
  const auto wall_ms = EventLoop::wall_ms();
  for (const auto& version : row.versions) (void)clock_.observe(version.hlc, wall_ms);
}

void SocketClient::Impl::observe(const Answer& answer) {
  if (const auto* get = std::get_if<GetResult>(&answer)) observe(get->row);
  if (const auto* scan = std::get_if<ScanResult>(&answer)) {
    for (const auto& [key, row] : scan->rows) observe(row);
  }
}

// --- The interface ---

template <class T>
Task<Result<T>> SocketClient::Impl::ask(Request request) {
  const auto promise = call(std::move(request));
  Answer answer = co_await promise;
  if (auto* value = std::get_if<T>(&answer)) co_return std::move(*value);
  if (auto* error = std::get_if<Error>(&answer)) co_return tl::unexpected(std::move(*error));
  co_return fail(Errc::kInternal, "kinfsd answered with something that was not asked for");
}

SocketClient::SocketClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SocketClient::~SocketClient() = default;

Result<std::unique_ptr<SocketClient>> SocketClient::connect(SocketClientOptions options, std::mutex& strand) {
  auto impl = std::make_unique<Impl>(std::move(options), strand);
  if (auto started = impl->start(); !started) return pass(std::move(started));
  return std::unique_ptr<SocketClient>(new SocketClient(std::move(impl)));
}

Task<Result<GetResult>> SocketClient::get(VolumeId volume, Bytes partition_key, Bytes sort_key) {
  return impl_->ask<GetResult>(GetRequest{volume, std::move(partition_key), std::move(sort_key)});
}

Task<Result<ScanResult>> SocketClient::scan(VolumeId volume, Bytes partition_key, Bytes from, ScanLimit limit) {
  return impl_->ask<ScanResult>(ScanRequest{volume, std::move(partition_key), std::move(from), limit});
}

Task<Result<PutResult>> SocketClient::put(VolumeId volume, Bytes partition_key, std::vector<RowPut> rows,
                                          PutOptions options) {
  return impl_->ask<PutResult>(PutRequest{volume, std::move(partition_key), std::move(rows), options});
}

Task<Result<Unit>> SocketClient::put_block(BlockKey key, SharedBytes bytes, PutOptions options) {
  Request request = PutBlockRequest{std::move(key), std::move(bytes), options};
  auto task = impl_->ask<BlockStored>(std::move(request));
  const auto stored = co_await task;
  if (!stored) co_return tl::unexpected(stored.error());
  co_return Unit{};
}

Task<Result<bool>> SocketClient::sync_blocks(BlockSet blocks) {
  Request request = SyncBlocksRequest{std::move(blocks)};
  auto task = impl_->ask<BlocksSynced>(std::move(request));
  const auto synced = co_await task;
  if (!synced) co_return tl::unexpected(synced.error());
  co_return synced->all;
}

Task<Result<SharedBytes>> SocketClient::get_block(BlockKey key) {
  Request request = GetBlockRequest{std::move(key)};
  auto task = impl_->ask<BlockFound>(std::move(request));
  auto found = co_await task;
  if (!found) co_return tl::unexpected(std::move(found).error());
  co_return std::move(found->bytes);
}

Task<Result<StoreUsage>> SocketClient::usage() { return impl_->ask<StoreUsage>(UsageRequest{}); }

Task<Result<void>> SocketClient::change_member(ChangeMemberRequest change) {
  Request request = std::move(change);
  auto task = impl_->ask<Admitted>(std::move(request));
  auto answer = co_await task;
  if (!answer) co_return pass(std::move(answer));
  co_return Result<void>();
}

Task<Result<std::string>> SocketClient::admin(std::string command, std::vector<std::string> arguments) {
  Request request = AdminRequest{std::move(command), std::move(arguments)};
  auto task = impl_->ask<AdminAnswer>(std::move(request));
  auto answer = co_await task;
  if (!answer) co_return tl::unexpected(std::move(answer).error());
  co_return std::move(answer->json);
}

EventId SocketClient::next_event() { return {impl_->options_.client, impl_->options_.boot, ++impl_->sequence_}; }
Hlc SocketClient::next_hlc() { return impl_->clock_.next(EventLoop::wall_ms()); }
const std::string& SocketClient::host() const { return impl_->options_.host; }

SocketClient::Counters SocketClient::counters() const {
  const auto& s = impl_->sent_;
  return {s.gets, s.scans, s.puts, s.put_rows, s.blocks_put, s.blocks_got, s.went_over, s.came_back};
}

}  // namespace kinfs::cluster
