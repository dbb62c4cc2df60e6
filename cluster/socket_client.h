// Client over the Unix socket of the own daemon, and over TCP through another host's while the own one is away.
//
// Threading: an I/O thread of its own reads answers and decodes them, then takes `strand` and resumes the tasks
// that waited; calls are made with `strand` held and write to the socket at once, without another thread. No
// call blocks while it holds the strand.
//
// When the connection breaks, or the daemon gives no sign of life for a second, requests that were under way are sent
// again, with the same events, until their deadline: to the daemon that comes up under the same path, or before that to
// one of another host, of which the own daemon tells its clients while it is there (introduction.h). So a daemon's end
// is not seen by its clients. As soon as the own daemon answers again, and reaches the others, all goes to it. What is
// asked of a daemon itself (admin) waits for the own one.
// What a daemon refuses with kBusy, for now, is asked again a little later, until its deadline.
// At most one put is in flight for one row (see EventId): later ones wait their turn here.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "client/client.h"
#include "cluster/message.h"

namespace kinfs::cluster {

struct SocketClientOptions {
  std::string socket_path;
  ClientId client{};
  std::uint64_t boot = 0;  // greater at each start of this client
  std::string host;
  std::uint32_t timeout_ms = 10'000;  // of one call, reconnecting included
  /// Told, on the I/O thread and outside of the strand, when requests go to another host's daemon and when they come
  /// back; may be empty.
  std::function<void(const std::string& words)> notice;
};

class SocketClient : public Client {
 public:
  /// kUnavailable, with words, when there is no daemon at the path now; kInvalid when there cannot be one.
  static Result<std::unique_ptr<SocketClient>> connect(SocketClientOptions options, std::mutex& strand);
  /// Ends what is under way with kCancelled. Called without the strand.
  ~SocketClient() override;

  Task<Result<GetResult>> get(VolumeId volume, Bytes partition_key, Bytes sort_key) override;
  Task<Result<ScanResult>> scan(VolumeId volume, Bytes partition_key, Bytes from, ScanLimit limit) override;
  Task<Result<PutResult>> put(VolumeId volume, Bytes partition_key, std::vector<RowPut> rows,
                              PutOptions options) override;
  Task<Result<Unit>> put_block(BlockKey key, SharedBytes bytes, PutOptions options) override;
  Task<Result<bool>> sync_blocks(BlockSet blocks) override;
  Task<Result<SharedBytes>> get_block(BlockKey key) override;
  Task<Result<StoreUsage>> usage() override;
  Task<Result<std::string>> admin(std::string command, std::vector<std::string> arguments);
  /// Of its own daemon, as admin().
  Task<Result<void>> change_member(ChangeMemberRequest change);

  EventId next_event() override;
  Hlc next_hlc() override;
  const std::string& host() const override;

  /// Requests sent to a daemon since start, by kind: the round trips that the design's table counts.
  struct Counters {
    std::uint64_t gets = 0, scans = 0, puts = 0, put_rows = 0, blocks_put = 0, blocks_got = 0;
    std::uint64_t went_over = 0, came_back = 0;  // connections to other hosts' daemons; returns to the own one
  };
  Counters counters() const;

 private:
  struct Impl;
  explicit SocketClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Runs `task` to its end from outside of the strand and blocks for it: for the command line only.
template <class T>
T wait_for(std::mutex& strand, Task<T> task) {
  std::optional<T> value;
  std::condition_variable ended;
  std::unique_lock lock(strand);
  spawn(std::move(task), [&](T&& v) {
    value.emplace(std::move(v));
    ended.notify_one();
  });
  ended.wait(lock, [&] { return value.has_value(); });
  return std::move(*value);
}

}  // namespace kinfs::cluster
