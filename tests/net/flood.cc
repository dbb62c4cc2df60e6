// flood WHAT SOCKET [OPTION=VALUE...]: a client of a daemon that behaves as no client of ours does. Prints what became
// of its requests as one line of JSON.
//
//   puts     sends all its puts as fast as they are taken, and reads the answers; then it reads each value whose put
//            was answered with success, and counts those that are not there
//   mute-puts, mute-gets, mute-blocks
//            sends and never reads; says "stuck" when nothing more is taken, and goes on until its standard input ends
//
//   count=N        of puts; of requests of one that is mute, at most
//   bytes=N        of a value
//   prefix=WORD    of the keys
//   together=1     all keys belong to one partition key, as the files of a folder do
//   connections=N  of one that is mute
//   through=HOST   over TCP, to the daemon of another host, as a client whose own daemon is away
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cluster/event_loop.h"
#include "cluster/frame_stream.h"
#include "cluster/hlc_clock.h"
#include "cluster/introduction.h"
#include "cluster/unix_path.h"
#include "cluster/zmq_line.h"

using namespace kinfs;
using namespace kinfs::cluster;

namespace {

constexpr std::uint32_t kTtlMs = 10'000;
constexpr std::int64_t kStuckMs = 500;
constexpr std::size_t kReadWindow = 16;

struct Options {
  std::string what, socket, prefix = "flood", through;
  std::size_t count = 1000, bytes = 100, connections = 1;
  bool together = false;
};

[[noreturn]] void die(const std::string& words) {
  fmt::print(stderr, "flood: {}\n", words);
  std::exit(5);
}

/// A connection to a daemon.
class Way {
 public:
  virtual ~Way() = default;
  /// Whether it takes another frame now.
  virtual bool can_send() = 0;
  virtual void send(const ClientFrame& frame) = 0;
  virtual std::vector<ClientFrame> receive() = 0;
  /// What is to be waited for, to send or to receive.
  virtual pollfd wait_for(bool to_send, bool to_receive) const = 0;
  bool closed = false;
};

class UnixWay : public Way {
 public:
  explicit UnixWay(const std::string& path) : fd_(connect(path)), reader_(fd_), writer_(fd_) {}
  ~UnixWay() override { ::close(fd_); }
  bool can_send() override {
    if (closed) return false;
    if (writer_.pending_bytes() >= kBuffer && !writer_.flush()) closed = true;
    return !closed && writer_.pending_bytes() < kBuffer;
  }
  void send(const ClientFrame& frame) override {
    auto encoded = encode(frame);
    writer_.queue(share(std::move(encoded.header)), encode_hop({boot_, mono_us(), frame.ttl_ms}),
                  std::move(encoded.payload));
  }
  std::vector<ClientFrame> receive() override {
    std::vector<ClientFrame> frames;
    if (!writer_.flush()) closed = true;
    const auto input = reader_.fill();
    closed = closed || !input || *input == FrameReader::Input::kEnd;
    for (auto frame = reader_.next(); frame && *frame; frame = reader_.next()) {
      auto received = receive_client_frame((*frame)->header, std::move((*frame)->payload));
      if (!received) die(received.error().text);
      frames.push_back(std::move(received->value));
    }
    return frames;
  }
  pollfd wait_for(bool to_send, bool to_receive) const override {
    const auto out = to_send || !writer_.empty() ? POLLOUT : 0;
    return {fd_, static_cast<short>((to_receive ? POLLIN : 0) | out), 0};
  }

 private:
  static constexpr std::size_t kBuffer = 64 << 10;
  static int connect(const std::string& path) {
    const auto address = unix_address(path);
    if (!address) die(address.error().text);
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || ::connect(fd, reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0) {
      die(fmt::format("{}: {}", path, std::strerror(errno)));
    }
    return fd;
  }
  int fd_;
  FrameReader reader_;
  FrameWriter writer_;
  const std::uint64_t boot_ = std::random_device{}() | 1ull << 32;
};

class TcpWay : public Way {
 public:
  TcpWay(OtherHost host, KeyPair keys) : host_(std::move(host)), keys_(std::move(keys)) {
    auto started = ZmqContext::start();
    if (!started) die(started.error().text);
    context_ = std::move(*started);
    dial();
  }
  ~TcpWay() override { line_.close(); }
  bool can_send() override {
    (void)line_.look();
    if (line_.lost(EventLoop::mono_ms())) dial();  // it did not know the key yet, it may be
    return line_.stands() && line_.socket().can_send();
  }
  void send(const ClientFrame& frame) override {
    const auto encoded = encode(frame);
    // Where the connection broke just now, it is lost, and has no answer.
    (void)line_.send(encoded.header, encode_hop({boot_, mono_us(), frame.ttl_ms}), encoded.payload);
  }
  std::vector<ClientFrame> receive() override {
    std::vector<ClientFrame> frames;
    for (ZmqMessage message; line_.socket().receive(message, /*routed=*/false);) {
      auto block = message.parts == 2 ? share(Bytes(message.payload.view())) : nullptr;
      auto received = receive_client_frame(message.header.view(), std::move(block));
      if (!received) die(received.error().text);
      frames.push_back(std::move(received->value));
    }
    return frames;
  }
  pollfd wait_for(bool, bool) const override {
    return {line_.stands() ? line_.descriptor() : line_.monitor_descriptor(), POLLIN, 0};
  }

 private:
  void dial() {
    auto ok = line_.open(context_, host_.name, host_.address, host_.public_key, keys_);
    if (!ok) die(ok.error().text);
  }
  const OtherHost host_;
  const KeyPair keys_;
  ZmqContext context_;
  ZmqLine line_;
  const std::uint64_t boot_ = std::random_device{}() | 1ull << 32;
};

/// Waits until one of them may go on, 20 ms at most: ZeroMQ's descriptor does not tell of everything.
void wait(const std::vector<std::unique_ptr<Way>>& ways, bool to_send, bool to_receive) {
  std::vector<pollfd> fds;
  for (const auto& way : ways) {
    if (!way->closed) fds.push_back(way->wait_for(to_send, to_receive));
  }
  ::poll(fds.data(), fds.size(), 20);
  std::size_t at = 0;
  for (const auto& way : ways) {
    if (!way->closed && (fds[at++].revents & (POLLHUP | POLLERR))) way->closed = true;
  }
}

class Flood {
 public:
  explicit Flood(Options options) : o_(std::move(options)) {}
  int run();

 private:
  struct Outcome {
    std::size_t sent = 0, ok = 0, degraded = 0, late = 0;
    std::map<std::string, std::size_t> errors;
    std::string words;  // of one error
    std::int64_t slowest_ms = 0;
    std::vector<std::size_t> kept;  // numbers of the puts that were answered with success
  };

  Bytes partition_key(std::size_t number) const {
    return o_.together ? o_.prefix : fmt::format("{}-{}", o_.prefix, number);
  }
  Bytes sort_key(std::size_t number) const { return o_.together ? fmt::format("{}", number) : ""; }
  Request get(std::size_t number) const {
    return GetRequest{kVolumeKv, partition_key(number), sort_key(number)};
  }
  Bytes value(std::size_t number) const {
    auto bytes = fmt::format("{}-{}:", o_.prefix, number);
    bytes.resize(std::max(bytes.size(), o_.bytes), static_cast<char>('a' + number % 26));
    return bytes;
  }
  Request put(std::size_t number);
  Request block(std::size_t number) const;
  Request request(std::size_t number);
  std::unique_ptr<Way> open();
  Answer ask(Way& way, Request what);
  Outcome burst();
  void take(Outcome& out, const std::vector<std::int64_t>& sent_ms, ClientFrame frame);
  std::size_t missing(const std::vector<std::size_t>& numbers);
  int be_mute();

  const Options o_;
  HlcClock clock_;
  const ClientId client_{std::random_device{}() | 1ull << 40};
  const std::uint64_t boot_ = static_cast<std::uint64_t>(EventLoop::wall_ms());
  std::uint64_t sequence_ = 0;
  std::uint64_t next_id_ = 1ull << 32;
};

Request Flood::put(std::size_t number) {
  Version version;
  version.event = {client_, boot_, ++sequence_};
  version.hlc = clock_.next(EventLoop::wall_ms());
  version.host = "flood";
  version.value = value(number);
  return PutRequest{kVolumeKv, partition_key(number), {RowPut{sort_key(number), {}, {std::move(version)}, {}}}, {}};
}

Request Flood::block(std::size_t number) const {
  auto bytes = share(value(number));
  const auto hash = sha256(*bytes);
  return PutBlockRequest{{kVolumeHome, "flood-" + o_.prefix, 0, hash}, std::move(bytes), {}};
}

Request Flood::request(std::size_t number) {
  if (o_.what == "mute-gets") return get(0);
  return o_.what == "mute-blocks" ? block(number) : put(number);
}

std::unique_ptr<Way> Flood::open() {
  auto own = std::make_unique<UnixWay>(o_.socket);
  if (o_.through.empty()) return own;
  const auto told = ask(*own, AdminRequest{kIntroductionCommand, {}});
  const auto* json = std::get_if<AdminAnswer>(&told);
  if (json == nullptr) die("not introduced: " + std::get<Error>(told).text);
  const auto known = decode_introduction(json->json);
  if (!known) die(known.error().text);
  for (const auto& host : known->hosts) {
    if (host.name == o_.through) return std::make_unique<TcpWay>(host, known->client_keys);
  }
  die("there is no host " + o_.through);
}

/// Waits for the one answer.
Answer Flood::ask(Way& way, Request what) {
  const auto id = next_id_++;
  way.send({id, kTtlMs, {}, std::move(what)});
  for (const auto until = EventLoop::mono_ms() + kTtlMs; EventLoop::mono_ms() < until;) {
    for (auto& frame : way.receive()) {
      if (frame.id == id) return std::get<Answer>(std::move(frame.body));
    }
    if (way.closed) break;
    auto fd = way.wait_for(false, true);
    ::poll(&fd, 1, 20);
  }
  return Error{Errc::kTimeout, way.closed ? "the connection was closed" : "no answer in time"};
}

void Flood::take(Outcome& out, const std::vector<std::int64_t>& sent_ms, ClientFrame frame) {
  const auto number = static_cast<std::size_t>(frame.id - 1);
  if (number >= sent_ms.size()) return;
  const auto took_ms = EventLoop::mono_ms() - sent_ms[number];
  out.slowest_ms = std::max(out.slowest_ms, took_ms);
  out.late += took_ms > kTtlMs;
  const auto& answer = std::get<Answer>(frame.body);
  if (const auto* done = std::get_if<PutResult>(&answer)) {
    ++out.ok;
    out.degraded += done->degraded;
    out.kept.push_back(number);
  } else if (const auto* error = std::get_if<Error>(&answer)) {
    ++out.errors[std::string(errc_name(error->code))];
    out.words = error->text;
  }
}

Flood::Outcome Flood::burst() {
  Outcome out;
  std::vector<std::unique_ptr<Way>> ways;
  ways.push_back(open());
  auto& way = *ways.front();
  std::vector<std::int64_t> sent_ms;
  std::size_t answered = 0;
  auto progress_ms = EventLoop::mono_ms();
  while (!way.closed && answered < o_.count && EventLoop::mono_ms() - progress_ms < 2 * kTtlMs) {
    bool idle = true;
    for (int turn = 0; turn < 256 && sent_ms.size() < o_.count && way.can_send(); ++turn) {
      sent_ms.push_back(EventLoop::mono_ms());
      way.send({sent_ms.size(), kTtlMs, {}, put(sent_ms.size() - 1)});
      idle = false;
    }
    for (auto& frame : way.receive()) {
      take(out, sent_ms, std::move(frame));
      ++answered;
      idle = false;
    }
    if (!idle) progress_ms = EventLoop::mono_ms();
    if (idle) wait(ways, sent_ms.size() < o_.count, true);
  }
  out.sent = sent_ms.size();
  return out;
}

std::size_t Flood::missing(const std::vector<std::size_t>& numbers) {
  UnixWay way(o_.socket);
  std::size_t found = 0, asked = 0, answered = 0;
  while (answered < numbers.size() && !way.closed) {
    while (asked < numbers.size() && asked - answered < kReadWindow && way.can_send()) {
      way.send({asked, kTtlMs, {}, get(numbers[asked])});
      ++asked;
    }
    for (const auto& frame : way.receive()) {
      const auto* got = std::get_if<GetResult>(&std::get<Answer>(frame.body));
      const auto& versions = got != nullptr ? got->row.versions : std::vector<Version>{};
      found += versions.size() == 1 && versions.front().value == value(numbers.at(frame.id));
      ++answered;
    }
    auto fd = way.wait_for(false, true);
    ::poll(&fd, 1, 20);
  }
  return numbers.size() - found;
}

int Flood::be_mute() {
  if (o_.what == "mute-gets") {
    const auto way = open();
    while (!way->can_send()) {
      auto fd = way->wait_for(true, true);
      ::poll(&fd, 1, 20);
    }
    const auto answer = ask(*way, put(0));
    if (const auto* error = std::get_if<Error>(&answer)) die(error->text);
  }
  std::vector<std::unique_ptr<Way>> ways;
  for (std::size_t i = 0; i < o_.connections; ++i) ways.push_back(open());
  std::size_t sent = 0, open_ways = ways.size();
  bool said = false;
  auto progress_ms = EventLoop::mono_ms();
  pollfd in{STDIN_FILENO, POLLIN, 0};
  while (::poll(&in, 1, 0) == 0 && open_ways > 0) {
    for (const auto& way : ways) {
      for (int turn = 0; turn < 64 && sent < o_.count && way->can_send(); ++turn) {
        way->send({++sent, kTtlMs, {}, request(sent)});
        progress_ms = EventLoop::mono_ms();
      }
    }
    const auto is_open = [](const auto& way) { return !way->closed; };
    open_ways = static_cast<std::size_t>(std::count_if(ways.begin(), ways.end(), is_open));
    if (!said && EventLoop::mono_ms() - progress_ms > kStuckMs) {
      said = true;
      fmt::print("stuck\n");
      std::fflush(stdout);
    }
    wait(ways, sent < o_.count, false);
  }
  fmt::print("{{\"sent\": {}, \"connections\": {}, \"cut_off\": {}}}\n", sent, ways.size(), ways.size() - open_ways);
  return 0;
}

int Flood::run() {
  if (o_.what.starts_with("mute-")) return be_mute();
  const auto began_ms = EventLoop::mono_ms();
  const auto out = burst();
  const auto took_ms = EventLoop::mono_ms() - began_ms;
  std::string errors;
  std::size_t answered = out.ok;
  for (const auto& [name, n] : out.errors) {
    errors += fmt::format("{}\"{}\": {}", errors.empty() ? "" : ", ", name, n);
    answered += n;
  }
  fmt::print("{{\"sent\": {}, \"ok\": {}, \"degraded\": {}, \"errors\": {{{}}}, \"words\": \"{}\", \"unanswered\": {}, "
             "\"late\": {}, \"ms\": {}, \"slowest_ms\": {}, \"missing\": {}}}\n",
             out.sent, out.ok, out.degraded, errors, out.words, o_.count - answered, out.late, took_ms, out.slowest_ms,
             missing(out.kept));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  if (argc < 3) die("flood WHAT SOCKET [OPTION=VALUE...]");
  o.what = argv[1];
  o.socket = argv[2];
  for (int i = 3; i < argc; ++i) {
    const std::string word = argv[i];
    const auto at = word.find('=');
    const auto name = word.substr(0, at);
    const auto text = at == std::string::npos ? "" : word.substr(at + 1);
    const auto number = std::strtoull(text.c_str(), nullptr, 10);
    if (name == "count") {
      o.count = number;
    } else if (name == "bytes") {
      o.bytes = number;
    } else if (name == "connections") {
      o.connections = number;
    } else if (name == "together") {
      o.together = number != 0;
    } else if (name == "prefix") {
      o.prefix = text;
    } else if (name == "through") {
      o.through = text;
    } else {
      die("there is no option " + word);
    }
  }
  return Flood(std::move(o)).run();
}
