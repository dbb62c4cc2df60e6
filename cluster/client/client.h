// The one way into the store, for mounts, the command line and tests. fs/ knows the ring by this alone.
//
// Semantics (Dynamo, DeCandia et al. 2007, section 4.5): get returns every concurrent version and one causal
// context; put names the versions that it supersedes. Nothing is ever overwritten unseen.
//
// Threading: calls are made, and their tasks resumed, inside the owner's strand (see task.h). A call that
// meets its deadline ends with kTimeout (outcome unknown), never hangs.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "client/task.h"
#include "storage/key.h"
#include "storage/result.h"
#include "storage/store.h"
#include "storage/version.h"

namespace kinfs {

inline constexpr VolumeId kVolumeHome{1};  // kind fs
inline constexpr VolumeId kVolumeKv{2};    // kind kv

struct GetResult {
  Row row;              // empty: absent, concluded from R owners or, when cut off, from an own replica
  PartitionStat stat;   // of the key's partition key; filled when the sort key is empty
  bool degraded = false;  // fewer than R owners answered
};

struct ScanResult {
  std::vector<std::pair<Bytes, Row>> rows;  // (sort key, row), ascending; rows with only tombstones included
  bool complete = true;  // false: ask again from the last sort key + '\0'
  PartitionStat stat;
  bool degraded = false;
};

/// One row of a put.
struct RowPut {
  Bytes sort_key;
  /// The state that the writer was shown, without the versions that it supersedes (see superseding()).
  /// Empty: nothing was shown, nothing is superseded.
  Row base;
  /// New versions, their dots unset; normally one, none to discard only.
  std::vector<Version> add;
  /// For each of `add`, the sequence of this client's previous event on this row, when that is known to be in `base`;
  /// 0 when there was none in this boot. Absent: nothing is vouched for (see CausalContext), which is always right.
  /// Filled in by the Client.
  std::vector<std::uint64_t> previous;
};

/// Concurrent versions of one row: from how many on people are warned, and the most that a write may make. Repair
/// brings together what there is, however many.
inline constexpr std::size_t kManySiblings = 25;
inline constexpr std::size_t kMostSiblings = 100;

struct PutRowResult {
  CausalContext context;       // of the row at the coordinator after the put
  std::vector<Dot> live;       // dots of its live versions, ascending
  std::vector<Dot> added;      // dots given to RowPut::add, in its order; Dot{}: done before, and superseded since
  std::vector<Hlc> clocks = {};  // of those, as they are stored: what was tried for long gets a new one
  Hlc gone = {};                 // Row::gone there
};

struct PutResult {
  std::vector<PutRowResult> rows;  // in the order of the request
  bool degraded = false;           // fewer than W owners confirmed; it is durable where it could be, and drains
};

inline constexpr std::size_t kMaxBlocksOfSet = 512;

struct PutOptions {
  bool sync = false;  // fsynced at W before the answer
};

class Client {
 public:
  virtual ~Client() = default;

  virtual Task<Result<GetResult>> get(VolumeId volume, Bytes partition_key, Bytes sort_key) = 0;
  /// One page of the rows with sort key >= `from`.
  virtual Task<Result<ScanResult>> scan(VolumeId volume, Bytes partition_key, Bytes from, ScanLimit limit) = 0;
  /// All rows of one partition key: applied by each replica all or nothing.
  virtual Task<Result<PutResult>> put(VolumeId volume, Bytes partition_key, std::vector<RowPut> rows,
                                      PutOptions options) = 0;
  /// Ends when W owners have the block (or as many as can be reached).
  virtual Task<Result<Unit>> put_block(BlockKey key, SharedBytes bytes, PutOptions options) = 0;
  /// Whether each of these is fsynced at W owners when this ends. False: that cannot be said, and they are to be put
  /// again with sync; no bytes have travelled. At most kMaxBlocksOfSet.
  virtual Task<Result<bool>> sync_blocks(BlockSet blocks) = 0;
  virtual Task<Result<SharedBytes>> get_block(BlockKey key) = 0;
  virtual Task<Result<StoreUsage>> usage() = 0;

  /// A new event of this client; never the same twice.
  virtual EventId next_event() = 0;
  /// Greater than every clock this client has made or seen in any answer.
  virtual Hlc next_hlc() = 0;
  /// The writer's name in new versions.
  virtual const std::string& host() const = 0;
};

}  // namespace kinfs
