// Rows of directories as this mount knows them: fetched, kept for a short time, locked, and put.
//
// Invariants:
//  - nothing that others may have changed is answered from here once it is kCacheMs old, counted from the sending of
//    the request that fetched it;
//  - what is known of a row only grows: an answer that was under way while an own put went out is merged into what the
//    put left, never put over it;
//  - a base for a put is only ever a state that shows every live version its context covers.
//
// Threading: inside the strand (client/task.h). States are immutable and shared, so that one that a coroutine holds
// stays as it was while others go on.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "client/client.h"
#include "fs/entry.h"
#include "fs/siblings.h"

namespace kinfs::fs {

inline constexpr std::int64_t kCacheMs = 950;         // below the promised second, for the way to the program
inline constexpr std::int64_t kSameCallUs = 500;      // from the answer to a lookup to the open of the same system call
inline constexpr std::int64_t kRememberMs = 600'000;  // how long an open counts as what a save goes on top of

/// Clocks, and what is known of the processes that ask. A test brings its own.
class Env {
 public:
  virtual ~Env() = default;
  virtual std::int64_t mono_us() = 0;  // CLOCK_BOOTTIME
  std::int64_t mono_ms() { return mono_us() / 1000; }
  virtual std::int64_t wall_ns() = 0;  // since 1970
  /// Whether thread `now` belongs to the process that thread `then` belonged to at `then_ms` (mono_ms). False when that
  /// cannot be told.
  virtual bool same_process(std::uint32_t then, std::int64_t then_ms, std::uint32_t now) = 0;
};

/// Who asks. thread 0: not known (another pid namespace).
struct Caller {
  std::uint32_t uid = 0, gid = 0;
  std::uint32_t thread = 0;
};

/// A row of a directory; the empty name is the directory's own row.
struct RowId {
  DirectoryId directory{};
  std::string name;
  auto operator<=>(const RowId&) const = default;
};

struct DirectoryHash {
  std::size_t operator()(const DirectoryId& id) const;
};
struct RowHash {
  std::size_t operator()(const RowId& id) const;
};

struct RowState {
  Row row;
  View view;
  std::int64_t fetched_ms = 0;
  bool degraded = false;
  std::int64_t asked_us = 0;  // when the get that told it was sent (mono_us); 0 when it was no get
  /// Close-to-open demands a get after open(2) began. The lookup that the kernel makes first is one: when it was
  /// answered, and to which thread; 0 when an open has used it.
  mutable std::uint32_t looked_up_by = 0;
  mutable std::int64_t looked_up_us = 0;
  bool own_put = false;  // as a put of this mount left it
};
using RowPtr = std::shared_ptr<const RowState>;

struct DirectoryState {
  Row row;
  DirectoryAttributes attributes;
  PartitionStat stat;
  std::int64_t fetched_ms = 0;
  std::optional<std::int64_t> complete_ms;  // since when all rows of the directory are in the cache
  bool made_here = false;                   // complete because this mount has just made it
  std::int64_t gap_ms = 0;                  // when a pass over it last missed something: a row of it was forgotten
  std::int64_t mtime_ns() const {
    return attributes.mtime_set >= stat.last_hlc ? attributes.mtime_ns : stat.last_time_ns;
  }
};

struct DirectoryPage {
  std::vector<std::pair<std::string, RowPtr>> rows;  // (name, state), in the order of their keys
  Bytes next;                                        // where the following page begins
  bool complete = true;
};

class Namespace {
 public:
  Namespace(Client& client, Env& env, VolumeId volume) : client_(client), env_(env), volume_(volume) {}

  // --- reading ---
  /// A state not older than `max_age_ms`, from the cache or by one get. An absent row is an empty state. Where one row
  /// of a directory is asked for after the other, a page of them is fetched at once.
  Task<Result<RowPtr>> row(RowId id, std::int64_t max_age_ms);
  /// For changes of attributes: what this mount has put itself is good enough, anything else is asked for anew.
  Task<Result<RowPtr>> row_to_change(RowId id, std::uint32_t thread);
  /// For open and create: asked for anew, except right after a lookup by the same thread has done that, or where this
  /// mount has just made the directory.
  Task<Result<RowPtr>> row_at_open(RowId id, std::uint32_t thread);
  /// Attributes and times of a directory: its own row and the stat of its partition, by one get.
  Task<Result<DirectoryState>> directory(DirectoryId id, std::int64_t max_age_ms);
  /// One page of rows from sort key `from`, always asked for; what it tells is cached. `listing_ms`: when the pass that
  /// this page belongs to began; a pass that reaches the end makes absent names known, for as long as any row.
  Task<Result<DirectoryPage>> scan(DirectoryId id, Bytes from, std::int64_t listing_ms);
  /// What is cached, of any age that is still kept; null when nothing is.
  const DirectoryState* known(const DirectoryId& id) const;
  const RowState* known(const RowId& id) const;
  std::int64_t age_ms(std::int64_t fetched_ms) const { return env_.mono_ms() - fetched_ms; }

  // --- writing ---
  /// `add` on top of `shown`, superseding `dots` of it.
  RowPut row_put(const RowPtr& shown, const std::string& name, const std::vector<Dot>& dots,
                 std::optional<Version> add) const;
  /// A version with a new event and a clock beyond all of `dots` of `shown`. `parent`: what it was made from, for its
  /// lineage; may be null.
  Version version(const RowPtr& shown, const std::vector<Dot>& dots, const Shown* parent, Bytes value, bool tombstone);
  /// One batch. The states that the rows have now, in the order of `rows`; null for one that must be fetched anew,
  /// because versions live there that are not known here.
  Task<Result<std::vector<RowPtr>>> put(DirectoryId id, std::vector<RowPut> rows, bool sync);
  /// All that this mount has put into the directory without fsync is on disk at W when this returns.
  Task<Result<Unit>> sync(DirectoryId id);
  /// Changes a directory's own row; `made` when this mount has just made it and so knows that it is empty.
  Task<Result<Unit>> put_directory(DirectoryId id, Row base, DirectoryAttributes attributes, Version version,
                                   bool made);

  // --- locks: what touches a row for writing holds its lock, several in ascending order ---
  class Lock {
   public:
    Lock() = default;
    Lock(Lock&& other) noexcept { *this = std::move(other); }
    Lock& operator=(Lock&& other) noexcept;
    ~Lock() { release(); }
    void release();

   private:
    friend class Namespace;
    Namespace* owner_ = nullptr;
    RowId id_;
    std::shared_ptr<AsyncMutex> mutex_;
    AsyncMutex::Guard guard_;
  };
  Task<Lock> lock(RowId id);

  // --- what processes were shown, for saves that replace (O_TRUNC, rename-over) ---
  /// `caller` opened `name`, as it knows it, of row `id` for reading, and was shown `shown`.
  void remember_open(const RowId& id, const std::string& name, const Shown& shown, const Caller& caller);
  /// What a save goes on top of.
  struct Seen {
    Shown shown;
    std::vector<Dot> dots;  // of the versions that live now, those that it supersedes
  };
  /// What the process of `caller` saw at its last open of `name`, or this mount has written upon that since, in
  /// `state`; nullopt: no such open is known, so what is shown now counts as seen.
  std::optional<Seen> seen_by(const RowId& id, const std::string& name, const RowState& state, const Shown& now,
                              const Caller& caller);

  void forget_row(const RowId& id);
  void forget_directory(const DirectoryId& id);
  /// Drops what is too old.
  void tick();

 private:
  struct Open {
    std::uint32_t thread = 0;
    std::int64_t at_ms = 0;
    std::string name;
    Shown shown;
    std::vector<Dot> own;  // written through this mount since
  };

  /// Rows of one directory that were asked for and were not in the cache, within kCacheMs.
  struct Misses {
    std::int64_t since_ms = 0;
    int count = 0;       // below 0: names that are not there were asked for, which a page does not help with
    bool large = false;     // more than a page
    bool fetching = false;  // a page is under way
    bool paged = false;     // one has come
    int hits = 0;           // rows that were in the cache since then
  };
  bool worth_a_page(const DirectoryId& id);
  Task<RowPtr> row_by_page(RowId id, std::int64_t max_age_ms);
  RowPtr store(const RowId& id, Row row, std::int64_t fetched_ms, bool degraded, bool own_put, std::int64_t asked_us);
  void store_directory(const DirectoryId& id, std::optional<Row> row, const PartitionStat& stat,
                       std::int64_t fetched_ms);
  RowPtr after_put(const DirectoryId& id, const RowPut& put, const PutRowResult& result, std::int64_t sent_ms);
  void own_change(const DirectoryId& id, const std::vector<RowPut>& rows, bool sync);
  void note_synced(const DirectoryId& id, const std::string& name, bool sync);
  Task<Result<Unit>> put_again(DirectoryId id, std::vector<RowPut> rows);
  Task<Result<Unit>> sync_all(DirectoryId id);
  void make_room();

  Client& client_;
  Env& env_;
  VolumeId volume_;
  std::unordered_map<RowId, RowPtr, RowHash> rows_;
  std::deque<std::pair<RowId, std::int64_t>> order_;  // as they were stored, with the state's fetched_ms
  std::size_t bytes_ = 0;                             // of the rows' values
  std::unordered_map<DirectoryId, DirectoryState, DirectoryHash> directories_;
  /// Own puts that were not synced: names, or, beyond kMaxUnsyncedNames of a directory, all of them.
  struct Unsynced {
    std::set<std::string> names;
    bool all = false;
  };
  std::unordered_map<DirectoryId, Unsynced, DirectoryHash> unsynced_;
  std::unordered_map<DirectoryId, Misses, DirectoryHash> misses_;
  bool unsynced_forgotten_ = false;  // there were more than fit: what is not listed may be unsynced too
  std::unordered_map<RowId, std::shared_ptr<AsyncMutex>, RowHash> locks_;
  std::map<RowId, std::deque<Open>> opens_;
  std::deque<RowId> opens_order_;
};

}  // namespace kinfs::fs
