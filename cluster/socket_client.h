// Client over the Unix socket of the own daemon.
//
// Threading: an I/O thread of its own reads answers and decodes them, then takes `strand` and resumes the tasks
// that waited; calls are made with `strand` held and write to the socket at once, without another thread. No
// call blocks while it holds the strand.
//
// When the connection breaks, requests that were under way are sent again, with the same events, to the daemon
// that comes up under the same path, until their deadline: a daemon's restart is not seen by its client.
// At most one put is in flight for one row (see EventId): later ones wait their turn here.
#pragma once

#include <condition_variable>
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
};

class SocketClient : public Client {
 public:
  /// kUnavailable, with words, when there is no daemon at the path now.
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

  EventId next_event() override;
  Hlc next_hlc() override;
  const std::string& host() const override;

  /// Requests sent to the daemon since start, by kind: the round trips that the design's table counts.
  struct Counters {
    std::uint64_t gets = 0, scans = 0, puts = 0, put_rows = 0, blocks_put = 0, blocks_got = 0;
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
