// See socket_client.h.
//
// Who owns what: everything in Impl but `io_` belongs to the strand. The I/O thread alone connects, reads and
// closes; it reads without the strand and takes it to change what others see. A calling thread only writes.
//
// Invariants: a call is in `calls_` from its start until its promise is set, exactly once; a put holds a place in
// the queue of each of its rows for as long, and is on the wire only while it is first in all of them.
#include "cluster/socket_client.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <thread>
#include <unordered_map>
#include <vector>

#include "cluster/event_loop.h"
#include "cluster/frame_stream.h"
#include "cluster/hlc_clock.h"
#include "cluster/own_events.h"
#include "storage/record_codec.h"

namespace kinfs::cluster {
namespace {

constexpr std::int64_t kFirstRetryMs = 10;
constexpr std::int64_t kLastRetryMs = 200;
enum : std::uint64_t { kWakeEvent, kTimerEvent, kSocketEvent };

std::string unavailable_text(const std::string& path, int error) {
  if (error == EACCES || error == EPERM) {
    return fmt::format("no permission for {}: its users belong to the group that owns it", path);
  }
  if (error == ENOENT || error == ECONNREFUSED) return fmt::format("no kinfsd listens on {}: is it running?", path);
  return fmt::format("cannot connect to kinfsd on {}: {}", path, std::strerror(error));
}

/// A connected, non-blocking socket, or -1 with errno.
int connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int error = errno;
    ::close(fd);
    errno = error;
    return -1;
  }
  enlarge_send_buffer(fd);
  return fd;
}

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
      return Error{Errc::kInvalid, fmt::format("a set of {} blocks; allowed are 1 to {}", r.blocks.hashes.size(),
                                               kMaxBlocksOfSet)};
    }
    return check_file_id(r.blocks.key({}));
  }
  std::optional<Error> operator()(const UsageRequest&) const { return std::nullopt; }
  std::optional<Error> operator()(const AdminRequest&) const { return std::nullopt; }
  std::optional<Error> operator()(const AdmitRequest&) const { return std::nullopt; }

  static std::optional<Error> check_file_id(const BlockKey& key) {
    if (key.file_id.size() <= kMaxFileIdBytes) return std::nullopt;
    return Error{Errc::kNameTooLong,
                 fmt::format("a file id of {} bytes; at most {} are allowed", key.file_id.size(), kMaxFileIdBytes)};
  }
};

/// One byte string for each row, the same for the same row of another put.
Bytes row_name(const PutRequest& put, const RowPut& row) {
  Bytes name;
  append_be32(name, static_cast<std::uint32_t>(put.volume));
  append_be32(name, static_cast<std::uint32_t>(put.partition_key.size()));
  return name + put.partition_key + row.sort_key;
}

/// The rows of a put, each once.
std::vector<Bytes> row_names(const Request& request) {
  std::vector<Bytes> names;
  const auto* put = std::get_if<PutRequest>(&request);
  if (put == nullptr) return names;
  for (const auto& row : put->rows) names.push_back(row_name(*put, row));
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

struct Call {
  std::uint64_t id = 0;
  SharedBytes header;
  SharedBytes payload;
  std::int64_t deadline_ms = 0;
  std::vector<Bytes> rows;    // of a put
  std::size_t rows_busy = 0;  // rows in which an earlier put is first: it waits
  int sent = 0;               // times; once for each connection
  Promise<Answer> promise;
};

}  // namespace

struct SocketClient::Impl {
  Impl(SocketClientOptions options, std::mutex& strand) : options_(std::move(options)), strand_(strand) {}
  ~Impl();
  Result<void> start();

  Promise<Answer> call(Request request);
  template <class T>
  Task<Result<T>> ask(Request request);

  SocketClientOptions options_;
  std::mutex& strand_;
  HlcClock clock_;
  std::uint64_t sequence_ = 0;
  struct {
    std::atomic<std::uint64_t> gets{0}, scans{0}, puts{0}, put_rows{0}, blocks_put{0}, blocks_got{0};
  } sent_;

 private:
  void count(const Request& request);
  void vouch(PutRequest& put);
  void send(Call& call);
  void flush();
  void want_output(bool wanted);
  void finish(std::uint64_t id, Answer answer);
  void leave_rows(const Call& call);
  void expire();
  void arm(std::int64_t deadline_ms);
  void observe(const Answer& answer);
  void observe(const Row& row);

  // The I/O thread.
  void run();
  void read_socket();
  void complete(std::vector<Received<ClientFrame>> frames);
  void attach(int fd);
  void detach();
  int wait_ms() const;

  OwnEvents own_events_;
  bool stopping_ = false;
  std::uint64_t next_id_ = 1;
  const std::uint64_t boot_ = std::random_device{}() | 1ull << 32;
  std::map<std::uint64_t, std::shared_ptr<Call>> calls_;  // ids ascend, and with them the deadlines
  std::unordered_map<Bytes, std::deque<std::uint64_t>> row_queues_;
  std::optional<FrameWriter> writer_;  // none: not connected, or the connection failed and waits for its end
  int fd_ = -1;
  bool output_wanted_ = false;
  bool timer_armed_ = false;

  int epoll_fd_ = -1;
  int wake_fd_ = -1;
  int timer_fd_ = -1;
  std::atomic<bool> quit_{false};
  struct {  // the I/O thread's own
    int fd = -1;
    std::optional<FrameReader> reader;
    std::int64_t retry_ms = 0;
    std::int64_t connect_at_ms = 0;
  } io_;
  std::thread thread_;
};

Result<void> SocketClient::Impl::start() {
  const int fd = connect_to(options_.socket_path);
  if (fd < 0) {
    const int error = errno;
    return fail(error == EACCES || error == EPERM ? Errc::kAccess : Errc::kUnavailable,
                unavailable_text(options_.socket_path, error));
  }
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
    while (!calls_.empty()) finish(calls_.begin()->first, Error{Errc::kCancelled, "the client was closed"});
  }
  for (const int fd : {io_.fd, epoll_fd_, wake_fd_, timer_fd_}) {
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
  if (auto error = std::visit(LimitCheck{}, request)) {
    promise.set(std::move(*error));
    return promise;
  }
  auto call = std::make_shared<Call>();
  count(request);
  if (auto* put = std::get_if<PutRequest>(&request)) vouch(*put);
  call->id = next_id_++;
  call->rows = row_names(request);
  call->deadline_ms = EventLoop::mono_ms() + options_.timeout_ms;
  call->promise = promise;
  auto encoded = encode(ClientFrame{call->id, options_.timeout_ms, clock_.last(), std::move(request)});
  if (encoded.header.size() > kMaxHeaderBytes) {
    promise.set(Error{Errc::kTooLarge, fmt::format("a request of {} bytes; at most {} can be sent at once",
                                                   encoded.header.size(), kMaxHeaderBytes)});
    return promise;
  }
  call->header = share(std::move(encoded.header));
  call->payload = std::move(encoded.payload);
  for (const auto& row : call->rows) {
    auto& queue = row_queues_[row];
    if (!queue.empty()) ++call->rows_busy;
    queue.push_back(call->id);
  }
  calls_.emplace(call->id, call);
  if (!timer_armed_) arm(call->deadline_ms);
  if (call->rows_busy == 0) {
    send(*call);
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
  if (!writer_) return;  // attach() sends it
  const auto now_us = mono_us();
  const auto left_ms = call.deadline_ms - now_us / 1000;
  if (left_ms <= 0) return;  // expire() is about to end it
  const auto ttl_ms = static_cast<std::uint32_t>(std::min<std::int64_t>(left_ms, options_.timeout_ms));
  ++call.sent;
  writer_->queue(call.header, encode_hop({boot_, now_us, ttl_ms}), call.payload);
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

void SocketClient::Impl::leave_rows(const Call& call) {
  for (const auto& row : call.rows) {
    const auto it = row_queues_.find(row);
    auto& queue = it->second;
    const bool was_first = queue.front() == call.id;
    queue.erase(std::find(queue.begin(), queue.end(), call.id));
    if (queue.empty()) {
      row_queues_.erase(it);
    } else if (was_first) {
      auto& next = *calls_.at(queue.front());
      if (--next.rows_busy == 0) send(next);
    }
  }
}

void SocketClient::Impl::finish(std::uint64_t id, Answer answer) {
  auto node = calls_.extract(id);
  if (node.empty()) return;  // its deadline passed before the answer came
  const auto call = std::move(node.mapped());
  leave_rows(*call);
  flush();
  call->promise.set(std::move(answer));
}

void SocketClient::Impl::arm(std::int64_t deadline_ms) {
  itimerspec when{};
  when.it_value = {deadline_ms / 1000, deadline_ms % 1000 * 1'000'000};
  ::timerfd_settime(timer_fd_, TFD_TIMER_ABSTIME, &when, nullptr);
  timer_armed_ = true;
}

void SocketClient::Impl::expire() {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto n = ::read(timer_fd_, &count, sizeof count);
  timer_armed_ = false;
  const auto now_ms = EventLoop::mono_ms();
  std::vector<std::shared_ptr<Call>> late;
  for (const auto& [id, call] : calls_) {
    if (call->deadline_ms > now_ms) break;
    late.push_back(call);
  }
  if (!late.empty() && writer_ && !writer_->empty()) {
    // The daemon has not taken anything for a while: what is queued for it must not pile up here.
    writer_.reset();
    ::shutdown(fd_, SHUT_RDWR);
  }
  for (const auto& call : late) {
    const auto why = call->rows_busy > 0 ? "an earlier put of the same row has not ended"
                     : fd_ < 0           ? "kinfsd cannot be reached; is it running?"
                                         : "no answer came; whether it was done is not known";
    finish(call->id, Error{Errc::kTimeout, fmt::format("{}: given up after {} ms: {}", options_.socket_path,
                                                       options_.timeout_ms, why)});
  }
  if (!timer_armed_ && !calls_.empty()) arm(calls_.begin()->second->deadline_ms);
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

// --- The I/O thread ---

int SocketClient::Impl::wait_ms() const {
  if (io_.fd >= 0) return -1;
  return static_cast<int>(std::clamp<std::int64_t>(io_.connect_at_ms - EventLoop::mono_ms(), 0, kLastRetryMs));
}

void SocketClient::Impl::run() {
  std::array<epoll_event, 4> events{};
  while (!quit_) {
    if (io_.fd < 0 && EventLoop::mono_ms() >= io_.connect_at_ms) {
      io_.retry_ms = std::clamp(io_.retry_ms * 2, kFirstRetryMs, kLastRetryMs);
      io_.connect_at_ms = EventLoop::mono_ms() + io_.retry_ms;
      if (const int fd = connect_to(options_.socket_path); fd >= 0) attach(fd);
    }
    const int n = ::epoll_wait(epoll_fd_, events.data(), static_cast<int>(events.size()), wait_ms());
    for (int i = 0; i < n && !quit_; ++i) {
      const auto& event = events[static_cast<std::size_t>(i)];
      if (event.data.u64 == kTimerEvent) {
        std::lock_guard lock(strand_);
        expire();
      } else if (event.data.u64 == kSocketEvent && io_.fd >= 0) {
        if (event.events & EPOLLOUT) {
          std::lock_guard lock(strand_);
          flush();
        }
        if (event.events & ~EPOLLOUT) read_socket();
      }
    }
  }
}

void SocketClient::Impl::attach(int fd) {
  io_.fd = fd;
  io_.reader.emplace(fd);
  std::lock_guard lock(strand_);
  fd_ = fd;
  output_wanted_ = false;
  epoll_event event{EPOLLIN, {.u64 = kSocketEvent}};
  ::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event);
  writer_.emplace(fd);
  // What was under way when the last connection broke goes out again as it was: the events in it tell the daemon.
  for (const auto& [id, call] : calls_) {
    if (call->rows_busy == 0) send(*call);
  }
  flush();
}

void SocketClient::Impl::detach() {
  {
    std::lock_guard lock(strand_);
    writer_.reset();
    fd_ = -1;
  }
  ::close(io_.fd);
  io_.fd = -1;
  io_.reader.reset();
  io_.connect_at_ms = io_.retry_ms == 0 ? 0 : EventLoop::mono_ms() + io_.retry_ms;
}

void SocketClient::Impl::read_socket() {
  const auto input = io_.reader->fill();
  bool broken = !input || *input == FrameReader::Input::kEnd;
  std::vector<Received<ClientFrame>> frames;
  while (!broken) {
    auto frame = io_.reader->next();
    if (frame && !*frame) break;
    if (!frame) {
      broken = true;
      break;
    }
    auto received = receive_client_frame((*frame)->header, std::move((*frame)->payload));
    broken = !received || !std::holds_alternative<Answer>(received->value.body);
    if (!broken) frames.push_back(std::move(*received));
  }
  if (!frames.empty()) {
    io_.retry_ms = 0;  // this daemon answers: if it goes away, ask at once for the next
    complete(std::move(frames));
  }
  if (broken) detach();
}

void SocketClient::Impl::complete(std::vector<Received<ClientFrame>> frames) {
  const auto wall_ms = EventLoop::wall_ms();
  std::lock_guard lock(strand_);
  for (auto& [frame, hop] : frames) {
    auto& answer = std::get<Answer>(frame.body);
    // One that is far ahead of our clock is not taken over; the daemon that sent it reports it.
    (void)clock_.observe(frame.hlc, wall_ms);
    observe(answer);
    const auto call = calls_.find(frame.id);
    const bool open = call != calls_.end() && !call->second->rows.empty() && call->second->sent > 1;
    if (auto* error = std::get_if<Error>(&answer); error != nullptr && open) answer = leave_open(std::move(*error));
    finish(frame.id, std::move(answer));
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
  return {s.gets, s.scans, s.puts, s.put_rows, s.blocks_put, s.blocks_got};
}

}  // namespace kinfs::cluster
