// A ring that keeps its promises and nothing else: the Client that tests of the file layer run on.
//
// Every host has a full copy of all rows; blocks are shared by all. Hosts that are not cut see each other's writes at
// once; a host that is cut reads and writes its own copy alone, and is told so (degraded). heal() merges all copies.
// Same calls, same order, same bytes: dots, events and clocks are counted, never drawn.
//
// Invariant: a call takes effect and is answered in one step of run(), in the order in which calls were made, so that
// a test decides what is under way when. With answer_at_once(true) there is no queue.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "client/client.h"

namespace kinfs::fs::test {

/// Calls since the last reset, by kind; failed ones count too.
struct Calls {
  std::uint64_t gets = 0, scans = 0, puts = 0, put_rows = 0, sync_puts = 0;
  std::uint64_t blocks_put = 0, blocks_synced = 0, blocks_got = 0, usages = 0;
  std::uint64_t sets_synced = 0;
  std::uint64_t round_trips() const { return gets + scans + puts + blocks_put + blocks_got + usages + sets_synced; }
};

class FakeCluster {
 public:
  explicit FakeCluster(std::size_t hosts) : replicas_(hosts) {}

  // --- pumping ---
  void answer_at_once(bool on) { at_once_ = on; }
  /// Carries out the oldest call; false when there is none.
  bool step();
  /// Until no call is under way.
  void run();
  std::size_t under_way() const { return queue_.size(); }
  void post(std::function<void()> call);
  /// Starts `task`, pumps until it has ended, and ends the program when it never does.
  template <class T>
  T wait(Task<T> task) {
    std::optional<T> value;
    spawn(std::move(task), [&value](T&& v) { value.emplace(std::move(v)); });
    while (!value && step()) {
    }
    if (!value) {
      std::fputs("FakeCluster::wait: the task waits for something that is no call\n", stderr);
      std::abort();
    }
    return std::move(*value);
  }

  // --- trouble ---
  void cut(std::size_t host) { replicas_.at(host).cut = true; }
  /// All but the host `but`, which stays as it is.
  void heal(std::optional<std::size_t> but = std::nullopt);
  /// The next `times` puts of rows change nothing and end with `code`.
  void fail_puts(Errc code, std::size_t times) { put_failures_.assign(times, code); }
  /// The next `times` puts of rows take effect and end with kTimeout.
  void lose_put_answers(std::size_t times) { lost_answers_ = times; }
  void fail_block_puts(Errc code, std::size_t times) { block_failures_.assign(times, code); }
  /// From now on no set of blocks is known to be on disk.
  void forget_sync(bool on) { sync_forgotten_ = on; }
  void fail_block_gets(Errc code, std::size_t times) { block_get_failures_.assign(times, code); }
  /// The next `times` gets and scans end with `code`.
  void fail_reads(Errc code, std::size_t times) { read_failures_.assign(times, code); }

  // --- the clock that all clients start from ---
  void advance_ms(std::int64_t ms) { now_ms_ += ms; }
  std::int64_t now_ms() const { return now_ms_; }

  // --- what tests look at ---
  Calls calls;
  StoreUsage usage{100ull << 30, 60ull << 30, 0, 0};
  std::size_t max_blocks_under_way = 0;  // puts of blocks, called and not answered
  std::map<BlockKey, SharedBytes> blocks;
  const std::map<RowKey, Row>& rows(std::size_t host) const { return replicas_.at(host).rows; }
  std::size_t hosts() const { return replicas_.size(); }

 private:
  friend class FakeClient;
  using PartitionKey = std::pair<VolumeId, Bytes>;
  struct Replica {
    std::map<RowKey, Row> rows;
    std::map<PartitionKey, PartitionStat> stats;
    std::uint64_t counter = 0;  // of the dots given here
    bool cut = false;
  };

  bool degraded(std::size_t host) const;
  void apply(Replica& replica, const RowKey& key, const Row& row);
  PartitionStat stat(std::size_t host, VolumeId volume, const Bytes& partition_key) const;
  static std::optional<Errc> next_of(std::deque<Errc>& failures);

  Result<GetResult> get(std::size_t host, const RowKey& key);
  Result<ScanResult> scan(std::size_t host, const RowKey& from, ScanLimit limit);
  Result<PutResult> put(std::size_t host, VolumeId volume, const Bytes& partition_key, const std::vector<RowPut>& rows,
                        bool sync);
  PutRowResult put_row(std::size_t host, const RowKey& key, const RowPut& put);
  Result<Unit> put_block(const BlockKey& key, const SharedBytes& bytes, bool sync);
  Result<bool> sync_blocks(const BlockSet& blocks);
  Result<SharedBytes> get_block(const BlockKey& key);

  std::vector<Replica> replicas_;
  std::deque<std::function<void()>> queue_;
  bool at_once_ = false;
  bool sync_forgotten_ = false;
  std::int64_t now_ms_ = 1'700'000'000'000;
  std::deque<Errc> put_failures_, block_failures_, block_get_failures_, read_failures_;
  std::size_t lost_answers_ = 0;
  std::size_t blocks_under_way_ = 0;
};

class FakeClient : public Client {
 public:
  FakeClient(FakeCluster& cluster, std::size_t host_index, std::string host, ClientId client, std::uint64_t boot = 1)
      : cluster_(cluster), host_index_(host_index), host_(std::move(host)), client_(client), boot_(boot) {}

  Task<Result<GetResult>> get(VolumeId volume, Bytes partition_key, Bytes sort_key) override;
  Task<Result<ScanResult>> scan(VolumeId volume, Bytes partition_key, Bytes from, ScanLimit limit) override;
  Task<Result<PutResult>> put(VolumeId volume, Bytes partition_key, std::vector<RowPut> rows,
                              PutOptions options) override;
  Task<Result<Unit>> put_block(BlockKey key, SharedBytes bytes, PutOptions options) override;
  Task<Result<bool>> sync_blocks(BlockSet blocks) override;
  Task<Result<SharedBytes>> get_block(BlockKey key) override;
  Task<Result<StoreUsage>> usage() override;

  EventId next_event() override { return {client_, boot_, ++sequence_}; }
  Hlc next_hlc() override;
  const std::string& host() const override { return host_; }

  /// This host's wall clock is off by so much.
  std::int64_t skew_ms = 0;

 private:
  void observe(const Row& row);

  FakeCluster& cluster_;
  std::size_t host_index_;
  std::string host_;
  ClientId client_;
  std::uint64_t boot_;
  std::uint64_t sequence_ = 0;
  Hlc last_;
};

}  // namespace kinfs::fs::test
