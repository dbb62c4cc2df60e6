// What socket_client.cc (calls, inside the strand) and socket_client_io.cc (the I/O thread) share.
//
// Who owns what: everything in Impl but `io_` and `elsewhere_` belongs to the strand. The I/O thread alone connects,
// reads and closes; it reads without the strand and takes it to change what others see. A calling thread only writes
// to the own daemon's socket, or leaves what it has for another daemon in `outbox_`.
//
// Where requests go: to the own daemon while `writer_` is there; to another host's while `away_`; to none while
// neither. Whenever that changes, all that has no answer goes out again as it was: the events in it tell a daemon what
// it, or another, has done already.
//
// Invariants: see call_table.h; a call's promise is set exactly once, when it has been taken from the table.
#pragma once

#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include "cluster/call_table.h"
#include "cluster/elsewhere.h"
#include "cluster/frame_stream.h"
#include "cluster/hlc_clock.h"
#include "cluster/own_events.h"
#include "cluster/socket_client.h"

namespace kinfs::cluster {

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
    std::atomic<std::uint64_t> went_over{0}, came_back{0};
  } sent_;

 private:
  enum : std::uint64_t { kWakeEvent, kTimerEvent, kSocketEvent, kTrialEvent, kLineEvent, kMonitorEvent };

  void count(const Request& request);
  void vouch(PutRequest& put);
  void send(Call& call);
  void send_all();
  void flush();
  void want_output(bool wanted);
  void wake();
  void finish(std::uint64_t id, Answer answer);
  void send_in_turn(Call& call);
  bool ask_again(Call& call, const Answer& answer);
  void send_those_in_turn(std::size_t most);
  void expire();
  void arm();
  void observe(const Answer& answer);
  void observe(const Row& row);

  // The I/O thread.
  void run();
  void on_event(std::uint64_t event, std::uint32_t what);
  void connect_home();
  void read_socket();
  void complete(std::vector<Received<ClientFrame>> frames);
  void attach(int fd);
  void detach();
  void introduce();
  bool introduced(const Answer& answer);
  void doubt();
  bool is_silent(std::int64_t ms);
  void begin_trial(int fd);
  void read_trial();
  void end_trial();
  bool can_wait_for_home();
  void look_elsewhere();
  void go_elsewhere();
  void come_home(int fd);
  void hear_elsewhere();
  int wait_ms(std::int64_t now_ms) const;
  void notice(const std::string& words) const;

  OwnEvents own_events_;
  bool stopping_ = false;
  std::uint64_t next_id_ = 1;
  const std::uint64_t boot_ = random_boot();
  CallTable calls_;
  // Refused with kBusy, or begun behind such: to be sent in this order, a few at each look and two for each answer, so
  // that the oldest is served first, and a daemon that is over its limits is asked for no more than it takes.
  std::set<std::uint64_t> again_;
  std::int64_t waiting_since_ms_ = 0;  // since when the table has not been empty
  std::optional<FrameWriter> writer_;  // none: not connected, or the connection failed and waits for its end
  int fd_ = -1;
  bool output_wanted_ = false;
  bool timer_armed_ = false;
  bool away_ = false;
  std::vector<Elsewhere::Item> outbox_;
  bool woken_ = false;

  int epoll_fd_ = -1;
  int wake_fd_ = -1;
  int timer_fd_ = -1;
  std::atomic<bool> quit_{false};
  struct {  // the I/O thread's own
    int fd = -1;
    std::optional<FrameReader> reader;
    // A second connection to the own daemon, which asks for a sign of life: when the first is silent, or was given up.
    int trial_fd = -1;
    std::optional<FrameReader> trial_reader;
    std::int64_t trial_ms = 0;    // when it began
    std::int64_t doubted_ms = 0;  // since when it has been asked, on connections of their own; 0: it is not
    std::int64_t unready_ms = 0;  // when the own daemon first said that it is not ready, while no other serves us
    std::int64_t retry_ms = 0;
    std::int64_t connect_at_ms = 0;
    std::int64_t heard_ms = 0;
    std::int64_t introduce_at_ms = 0;
    std::uint64_t introductions = 0;
    bool given_up = false;  // only its answer counts as a sign that it is there
    bool away = false;      // as away_
    bool noticed = false;   // the log says that we are elsewhere
  } io_;
  std::optional<Elsewhere> elsewhere_;
  std::thread thread_;

  static std::uint64_t random_boot();
};

/// A connected, non-blocking socket, or words.
Result<int> connect_to(const std::string& path);

}  // namespace kinfs::cluster
