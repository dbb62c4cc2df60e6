// The way of a client's requests to the daemons of other hosts, while its own is away.
//
// One host at a time; what is on its way to one is forgotten when the next is dialled, and the caller queues again
// what has no answer. A host is first asked whether what it reads is the newest, and gets nothing before it answers.
// When a whole round found none that is, or the round takes long, one that answered at all is as good as any.
//
// A daemon refuses what is over its limits, and drops what comes from one that does not take its answers: so a bounded
// part is on its way, answers counted, and the rest waits here.
//
// Threading: the client's I/O thread.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cluster/hop.h"
#include "cluster/introduction.h"
#include "cluster/zmq_line.h"

namespace kinfs::cluster {

class Elsewhere {
 public:
  struct Item {
    std::uint64_t id = 0;
    SharedBytes header;
    SharedBytes payload;
    std::int64_t deadline_ms = 0;
    std::size_t cost = 0;  // bytes that it and its answer may take on their way
  };
  /// Descriptors are watched by `epoll_fd`, level-triggered, under these numbers.
  Elsewhere(int epoll_fd, std::uint64_t line_event, std::uint64_t monitor_event)
      : epoll_fd_(epoll_fd), line_event_(line_event), monitor_event_(monitor_event) {}
  ~Elsewhere() { close(); }

  /// From the next dial on.
  void know(Introduction introduction);
  bool knows_anyone() const { return !known_.hosts.empty(); }
  /// Closes what is open, and dials the next host of the list; an error when no host can be dialled at all.
  Result<void> dial_next();
  void close();
  /// Closes, and the next dial begins a new search.
  void rest();
  bool is_open() const { return line_.is_open(); }
  /// This host has answered, and takes requests.
  bool answers() const { return line_.stands() && in_; }
  /// A whole round of this search found no host that takes requests.
  bool found_none() const { return rounds_ > 0; }
  /// What became of each host of the last round; once for each round that found none, else empty.
  std::string complaint() { return std::exchange(complaint_, {}); }
  const OtherHost& host() const { return host_; }

  void queue(Item item) { queue_.push_back(std::move(item)); }
  struct Heard {
    bool is_in = false;  // the host takes requests now
    bool broke = false;  // the connection is gone, or the host is not good enough, or no daemon of ours
    std::vector<std::uint64_t> sent;
    std::vector<Received<ClientFrame>> answers;
  };
  /// Sends and reads what it can. To be called when a descriptor fires, and after queue().
  Heard pump();
  /// Whether the host has been silent for so long that another is better, when something has been waiting for it since
  /// `since_ms`. Asks it for a sign of life before that.
  bool silent(std::int64_t since_ms, std::int64_t now_ms);

 private:
  bool sendable() const;
  void send_one(Heard& heard);
  void note(std::string_view reason);
  bool read_one(Heard& heard);
  Result<void> dial(OtherHost host);
  void ask_whether_ready();
  bool probe(std::uint64_t id);
  bool round_is_long(std::int64_t now_ms) const;
  void watch(int fd, std::uint64_t event);

  const int epoll_fd_;
  const std::uint64_t line_event_;
  const std::uint64_t monitor_event_;
  const std::uint64_t boot_ = Elsewhere::random_boot();
  Introduction known_;
  std::optional<ZmqContext> context_;  // only once it is needed: it has threads of its own
  ZmqLine line_;
  OtherHost host_;
  std::size_t next_ = 0;
  // A search begins with rest(), or with the end of a host that took requests.
  std::size_t tried_ = 0;   // hosts in this round
  std::size_t rounds_ = 0;  // before this one
  std::int64_t round_ms_ = 0;
  std::optional<OtherHost> unready_;  // of this round, the first that answered that it is not
  bool take_unready_ = false;         // this host is that one
  std::string_view reason_;           // why this host is left, if it is left now
  std::string reasons_;               // of this round
  std::string complaint_;
  std::int64_t heard_ms_ = 0;
  std::uint64_t probes_ = 0;
  std::uint64_t ready_probe_ = 0;  // 0: not asked yet
  bool probing_ = false;
  bool in_ = false;
  std::deque<Item> queue_;
  std::unordered_map<std::uint64_t, std::size_t> under_way_;  // id -> bytes
  std::size_t bytes_under_way_ = 0;

  static std::uint64_t random_boot();
};

/// Ids from here on are not of calls: signs of life, introductions.
inline constexpr std::uint64_t kFirstInternalId = 1ull << 63;

}  // namespace kinfs::cluster
