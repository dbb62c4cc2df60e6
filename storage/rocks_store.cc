// See rocks_store.h. The only file that includes RocksDB, whose words are turned into ours here.
#include "storage/rocks_store.h"

#include <fmt/format.h>
#include <rocksdb/cache.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/listener.h>
#include <rocksdb/merge_operator.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <map>
#include <mutex>

#include "storage/block_files.h"
#include "storage/data_directory.h"
#include "storage/manifest_mark.h"
#include "storage/record_codec.h"

namespace kinfs {
namespace {

using rocksdb::Slice;

// In the order of kFamilyNames; the default family, which RocksDB insists on, is not used.
enum Family : std::size_t { kRows, kStats, kHints, kBlocks, kMeta, kFamilies };
constexpr std::array<const char*, kFamilies> kFamilyNames{"rows", "stats", "hints", "blocks", "meta"};
constexpr ByteView kMetaKey = "node";

// A daemon stays well under 300 MiB: this much, and half as much again for what RocksDB does not count.
constexpr std::size_t kWriteBufferBytes = 48 << 20;  // of all families
constexpr std::size_t kBlockCacheBytes = 48 << 20;   // index and filter blocks included
constexpr std::size_t kMaxLogBytes = 128 << 20;      // how much is replayed after kill -9 at most
constexpr int kMaxOpenTables = 256;

// Enough to write out all that is buffered; a quarter of a smaller disk.
constexpr std::uint64_t kReserveBytes = 64 << 20;
constexpr std::uint64_t kBlockReserves = 2;  // what blocks leave free: rows, which say less in more bytes, go on

std::uint64_t reserve_of(std::uint64_t total_bytes) { return std::min(kReserveBytes, total_bytes / 4); }

Slice slice(ByteView b) { return {b.data(), b.size()}; }
ByteView view(const Slice& s) { return {s.data(), s.size()}; }

Error error_of(const rocksdb::Status& status, const std::string& path) {
  const std::string said = status.ToString();
  if (status.IsNoSpace())
    return {Errc::kNoSpace, fmt::format("{}: the disk is full; free some space ({})", path, said)};
  if (status.IsCorruption()) {
    return {Errc::kCorrupt,
            fmt::format("{}: its database is damaged: {}. Nothing was deleted. {}", path, said, kBeginEmpty)};
  }
  if (status.IsIOError()) return {Errc::kIo, fmt::format("{}: {}", path, said)};
  return {Errc::kInternal, fmt::format("{}: {}", path, said)};
}

tl::unexpected<Error> rocks_fail(const rocksdb::Status& status, const std::string& path) {
  return tl::unexpected<Error>(error_of(status, path));
}

/// The greater of two encoded PartitionStats.
class LatestChange : public rocksdb::AssociativeMergeOperator {
 public:
  bool Merge(const Slice&, const Slice* existing, const Slice& value, std::string* out,
             rocksdb::Logger*) const override {
    const auto a = existing != nullptr ? decode_stat(view(*existing)) : PartitionStat{};
    const auto b = decode_stat(view(value));
    if (!a || !b) return false;  // becomes Status::Corruption
    *out = encode_stat(std::max(*a, *b));
    return true;
  }
  const char* Name() const override { return "kinfs.LatestChange"; }
};

/// Renews the mark after each change of the set of tables.
class MarkKeeper : public rocksdb::EventListener {
 public:
  explicit MarkKeeper(std::shared_ptr<ManifestMark> mark) : mark_(std::move(mark)) {}
  void OnFlushCompleted(rocksdb::DB*, const rocksdb::FlushJobInfo&) override { mark_->renew(); }
  void OnCompactionCompleted(rocksdb::DB*, const rocksdb::CompactionJobInfo&) override { mark_->renew(); }

 private:
  const std::shared_ptr<ManifestMark> mark_;
};

rocksdb::DBOptions database_options(bool create) {
  rocksdb::DBOptions o;
  o.create_if_missing = create;
  o.create_missing_column_families = create;
  o.error_if_exists = false;
  o.paranoid_checks = true;
  // A record cut at the end of the log is a batch that was never confirmed; damage before that is refused.
  o.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  o.track_and_verify_wals_in_manifest = true;
  o.db_write_buffer_size = kWriteBufferBytes;
  o.max_total_wal_size = kMaxLogBytes;
  o.max_open_files = kMaxOpenTables;
  o.max_background_jobs = 2;
  // There is one writer: the machinery for several only costs.
  o.allow_concurrent_memtable_write = false;
  o.enable_write_thread_adaptive_yield = false;
  o.avoid_flush_during_shutdown = true;  // the log has it
  o.avoid_unnecessary_blocking_io = true;
  o.bytes_per_sync = 1 << 20;
  o.stats_dump_period_sec = 0;
  o.stats_persist_period_sec = 0;
  o.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  o.keep_log_file_num = 2;
  o.max_log_file_size = 1 << 20;
  return o;
}

rocksdb::ColumnFamilyOptions family_options(std::size_t family, const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = cache;
  table.cache_index_and_filter_blocks = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.optimize_filters_for_memory = true;
  table.format_version = 5;
  rocksdb::ColumnFamilyOptions o;
  o.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  o.level_compaction_dynamic_level_bytes = true;
  o.write_buffer_size = family == kRows ? 32 << 20 : 8 << 20;
  o.compression = rocksdb::kNoCompression;
  if (family == kRows) {
    const auto known = rocksdb::GetSupportedCompressions();
    if (std::find(known.begin(), known.end(), rocksdb::kLZ4Compression) != known.end()) {
      o.compression = rocksdb::kLZ4Compression;
    }
  }
  if (family == kStats) {
    o.merge_operator = std::make_shared<LatestChange>();
    // A directory that gets ten thousand files has ten thousand changes: reading must not add them all up.
    o.max_successive_merges = 4;
  }
  return o;
}

class Rocks : public Store {
 public:
  explicit Rocks(DataDirectory directory) : directory_(std::move(directory)) {}
  ~Rocks() override;
  Result<void> start();

  Result<Row> get(const RowKey& key) const override;
  Result<RowPage> scan(VolumeId volume, ByteView partition_key, ByteView from, ScanLimit limit) const override;
  Result<PartitionStat> stat(VolumeId volume, ByteView partition_key) const override;
  Result<std::vector<Hint>> hints(NodeId target, std::uint64_t after, std::size_t limit) const override;
  Result<std::vector<BlockHint>> block_hints(NodeId target, std::uint64_t after, std::size_t limit) const override;
  std::uint64_t hint_count(NodeId target) const override;
  std::vector<NodeId> hint_targets() const override;
  Result<std::uint64_t> last_hint_sequence() const override;
  Result<std::optional<NodeMeta>> meta() const override;
  Result<SharedBytes> get_block(const BlockKey& key) const override;
  Result<bool> has_block(const BlockKey& key) const override;
  Result<ItemPage> items(ItemKind kind, std::uint16_t partition, ByteView after, std::size_t limit) const override;
  StoreUsage usage() const override;
  Result<void> apply(const Batch& batch) override;
  Result<void> put_block(const BlockKey& key, const SharedBytes& bytes) override;
  Result<void> sync() override;
  std::uint64_t written() const override { return db_->GetLatestSequenceNumber(); }
  Result<std::uint64_t> forget_lost_blocks() override;

 private:
  /// What one batch does to the hints.
  struct HintChanges {
    std::map<Bytes, std::uint64_t> sequences;  // by index key; 0: none
    std::map<NodeId, std::int64_t> counts;     // more, or less, for each target
  };

  const std::string& path() const { return directory_.path(); }
  /// nullopt: there is no such key.
  Result<std::optional<Bytes>> read(Family family, ByteView key) const;
  Result<std::optional<BlockLocation>> location_of(const BlockKey& key) const;
  Result<void> write(rocksdb::WriteBatch& batch, bool frees);
  Result<void> check_room(std::uint64_t bytes, std::uint64_t reserves);

  Result<std::uint64_t> sequence_of(const Bytes& index_key, HintChanges& changes) const;
  Result<void> add_hint(rocksdb::WriteBatch& out, HintKind kind, NodeId target, std::uint64_t sequence,
                        const Bytes& key, HintChanges& changes) const;
  Result<void> erase_blocks(rocksdb::WriteBatch& out, const std::vector<BlockKey>& keys,
                            std::vector<BlockLocation>& freed) const;
  void to_free(const std::vector<BlockLocation>& locations);
  Result<void> drop_hint(rocksdb::WriteBatch& out, HintKind kind, NodeId target, std::uint64_t sequence,
                         const Bytes& key, HintChanges& changes) const;
  Result<void> gather_hints(rocksdb::WriteBatch& out, const Batch& batch, HintChanges& changes) const;
  void count_hints();
  using HintVisitor = Result<void> (*)(void* out, const HintOrder& at, ByteView key);
  Result<void> visit_hints(HintKind kind, NodeId target, std::uint64_t after, std::size_t limit, HintVisitor visit,
                           void* out) const;
  void note_hints(const Batch& batch, const HintChanges& changes);

  DataDirectory directory_;
  std::unique_ptr<rocksdb::DB> db_;
  std::array<rocksdb::ColumnFamilyHandle*, kFamilies> families_{};
  rocksdb::ColumnFamilyHandle* unused_ = nullptr;
  std::unique_ptr<BlockFiles> blocks_;
  bool must_resume_ = false;  // the writer's: RocksDB refuses writes after a failed one until it is told to go on

  // Room on the disk, as the writer last saw it.
  std::chrono::steady_clock::time_point room_seen_{};
  std::uint64_t free_ = 0, total_ = 0;

  // No hint of (kind, target) below this sequence is left. Without it each look for the next hints would step over
  // the tombstones of all that were dropped, until RocksDB happens to compact them.
  std::mutex freed_mutex_;
  std::vector<BlockLocation> freed_;  // by the next sync()
  mutable std::mutex hints_mutex_;
  mutable std::map<std::pair<HintKind, NodeId>, std::uint64_t> floors_;
  std::uint64_t floors_lowered_ = 0;
  std::map<NodeId, std::int64_t> hint_counts_;  // under the same mutex
};

Rocks::~Rocks() {
  if (db_ == nullptr) return;
  for (auto* family : families_) {
    if (family != nullptr) db_->DestroyColumnFamilyHandle(family);
  }
  if (unused_ != nullptr) db_->DestroyColumnFamilyHandle(unused_);
}

Result<void> Rocks::start() {
  const std::string db_path = path() + "/db";
  const std::string blocks_path = path() + "/blocks";
  if (directory_.fresh()) {
    for (const std::string& made : {db_path, blocks_path}) {
      if (::mkdir(made.c_str(), 0700) != 0 && errno != EEXIST) {
        return fail(errno == ENOSPC ? Errc::kNoSpace : Errc::kIo, "cannot create " + made);
      }
    }
  }
  // Before the database, which tidies up its files when it is opened: a refusal must leave all as it was.
  struct stat st {};
  if (::stat(blocks_path.c_str(), &st) != 0) {
    return fail(Errc::kCorrupt, fmt::format("{} is missing: the blocks of this host are lost. Nothing was deleted. Put "
                                            "it back. If that cannot be: {}",
                                            blocks_path, kBeginEmpty));
  }
  auto blocks = BlockFiles::open(blocks_path);
  if (!blocks) return pass(std::move(blocks));
  blocks_ = std::move(*blocks);
  const auto cache = rocksdb::NewLRUCache(kBlockCacheBytes);
  std::vector<rocksdb::ColumnFamilyDescriptor> wanted;
  for (std::size_t i = 0; i < kFamilies; ++i) wanted.emplace_back(kFamilyNames[i], family_options(i, cache));
  wanted.emplace_back(rocksdb::kDefaultColumnFamilyName, family_options(kMeta, cache));
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  const auto mark = std::make_shared<ManifestMark>(db_path, path() + "/MARK");
  if (auto ok = mark->check(); !ok) return ok;
  auto options = database_options(directory_.fresh());
  options.listeners.push_back(std::make_shared<MarkKeeper>(mark));
  const auto status = rocksdb::DB::Open(options, db_path, wanted, &handles, &db);
  if (!status.ok()) {
    Error error = error_of(status, path());
    // Files that are not there, or name other families, are damage too: FORMAT says that they were complete.
    if (status.IsInvalidArgument() || status.IsPathNotFound() || status.IsNotFound()) {
      error = error_of(rocksdb::Status::Corruption(status.ToString()), path());
    }
    return tl::unexpected<Error>(std::move(error));
  }
  db_.reset(db);
  std::copy_n(handles.begin(), static_cast<std::size_t>(kFamilies), families_.begin());
  unused_ = handles.back();
  count_hints();
  mark->renew();
  return directory_.commit();
}

// --- Reading ---

Result<std::optional<Bytes>> Rocks::read(Family family, ByteView key) const {
  rocksdb::PinnableSlice value;
  const auto status = db_->Get(rocksdb::ReadOptions(), families_[family], slice(key), &value);
  if (status.IsNotFound()) return std::nullopt;
  if (!status.ok()) return rocks_fail(status, path());
  return value.ToString();
}

Result<Row> Rocks::get(const RowKey& key) const {
  rocksdb::PinnableSlice value;
  const Bytes at = row_key_bytes(key);
  const auto status = db_->Get(rocksdb::ReadOptions(), families_[kRows], slice(at), &value);
  if (status.IsNotFound()) return Row{};
  if (!status.ok()) return rocks_fail(status, path());
  return decode_row(view(value));
}

Result<RowPage> Rocks::scan(VolumeId volume, ByteView partition_key, ByteView from, ScanLimit limit) const {
  const Bytes prefix = row_key_prefix(volume, partition_key);
  Bytes end = prefix;
  end.back() = '\2';  // the prefix ends with 0 1
  const Slice upper = slice(end);
  rocksdb::ReadOptions options;
  options.iterate_upper_bound = &upper;
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(options, families_[kRows]));
  RowPage page;
  std::size_t bytes = 0;
  for (it->Seek(prefix + Bytes(from)); it->Valid(); it->Next()) {
    if (!page.rows.empty() && (bytes >= limit.bytes || page.rows.size() >= limit.rows)) {
      page.complete = false;
      break;
    }
    auto row = decode_row(view(it->value()));
    if (!row) return pass(std::move(row));
    Bytes sort_key(view(it->key()).substr(prefix.size()));
    bytes += scan_weight(sort_key, *row);
    page.rows.emplace_back(std::move(sort_key), std::move(*row));
  }
  if (!it->status().ok()) return rocks_fail(it->status(), path());
  return page;
}

Result<PartitionStat> Rocks::stat(VolumeId volume, ByteView partition_key) const {
  auto value = read(kStats, row_key_prefix(volume, partition_key));
  if (!value) return pass(std::move(value));
  return *value ? decode_stat(**value) : PartitionStat{};
}

Result<void> Rocks::visit_hints(HintKind kind, NodeId target, std::uint64_t after, std::size_t limit, HintVisitor visit,
                                void* out) const {
  if (limit == 0 || after == UINT64_MAX) return {};
  std::uint64_t floor = 0, lowered = 0;
  {
    const std::lock_guard lock(hints_mutex_);
    lowered = floors_lowered_;
    if (const auto at = floors_.find({kind, target}); at != floors_.end()) floor = at->second;
  }
  const Bytes end = hint_order_key(kind, target, UINT64_MAX) + '\0';
  const Slice upper = slice(end);
  rocksdb::ReadOptions options;
  options.iterate_upper_bound = &upper;
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(options, families_[kHints]));
  const std::uint64_t from = std::max(after + 1, floor);
  std::uint64_t first = UINT64_MAX;
  for (it->Seek(hint_order_key(kind, target, from)); it->Valid() && limit > 0; it->Next(), --limit) {
    const auto at = parse_hint_order_key(kind, view(it->key()));
    if (!at) return tl::unexpected<Error>(at.error());
    first = std::min(first, at->sequence);
    if (auto ok = visit(out, *at, view(it->value())); !ok) return ok;
  }
  if (!it->status().ok()) return rocks_fail(it->status(), path());
  // What was found from the floor on, with nothing added meanwhile, is the new floor.
  const std::lock_guard lock(hints_mutex_);
  if (floors_lowered_ == lowered && after < std::max<std::uint64_t>(floor, 1)) floors_[{kind, target}] = first;
  return {};
}

Result<std::vector<Hint>> Rocks::hints(NodeId target, std::uint64_t after, std::size_t limit) const {
  std::vector<Hint> out;
  const auto visit = [](void* list, const HintOrder& at, ByteView bytes) -> Result<void> {
    auto key = parse_row_key(bytes);
    if (!key) return pass(std::move(key));
    static_cast<std::vector<Hint>*>(list)->push_back({at.target, at.sequence, std::move(*key)});
    return {};
  };
  if (auto ok = visit_hints(HintKind::kRow, target, after, limit, visit, &out); !ok) return pass(std::move(ok));
  return out;
}

Result<std::vector<BlockHint>> Rocks::block_hints(NodeId target, std::uint64_t after, std::size_t limit) const {
  std::vector<BlockHint> out;
  const auto visit = [](void* list, const HintOrder& at, ByteView bytes) -> Result<void> {
    auto key = parse_block_key(bytes);
    if (!key) return pass(std::move(key));
    static_cast<std::vector<BlockHint>*>(list)->push_back({at.target, at.sequence, std::move(*key)});
    return {};
  };
  if (auto ok = visit_hints(HintKind::kBlock, target, after, limit, visit, &out); !ok) return pass(std::move(ok));
  return out;
}

/// What cannot be read is not counted: it is no reason to keep the rest from being served.
void Rocks::count_hints() {
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(rocksdb::ReadOptions(), families_[kHints]));
  for (const HintKind kind : {HintKind::kRow, HintKind::kBlock}) {
    for (it->Seek(Slice(reinterpret_cast<const char*>(&kind), 1));
         it->Valid() && it->key()[0] == static_cast<char>(kind); it->Next()) {
      const auto at = parse_hint_order_key(kind, view(it->key()));
      if (at) ++hint_counts_[at->target];
    }
  }
}

std::uint64_t Rocks::hint_count(NodeId target) const {
  const std::lock_guard lock(hints_mutex_);
  const auto it = hint_counts_.find(target);
  return it == hint_counts_.end() ? 0 : static_cast<std::uint64_t>(std::max<std::int64_t>(it->second, 0));
}

std::vector<NodeId> Rocks::hint_targets() const {
  const std::lock_guard lock(hints_mutex_);
  std::vector<NodeId> out;
  for (const auto& [target, count] : hint_counts_) {
    if (count > 0) out.push_back(target);
  }
  return out;
}

Result<std::uint64_t> Rocks::last_hint_sequence() const {
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(rocksdb::ReadOptions(), families_[kHints]));
  std::uint64_t last = 0;
  for (const HintKind kind : {HintKind::kRow, HintKind::kBlock}) {
    // From target to target: the last of each has its greatest sequence.
    it->Seek(hint_order_key(kind, NodeId{0}, 0));
    while (it->Valid() && !it->key().empty() && it->key()[0] == static_cast<char>(kind)) {
      const auto first = parse_hint_order_key(kind, view(it->key()));
      if (!first) return tl::unexpected<Error>(first.error());
      it->SeekForPrev(hint_order_key(kind, first->target, UINT64_MAX));
      if (!it->Valid()) break;
      const auto at = parse_hint_order_key(kind, view(it->key()));
      if (!at) return tl::unexpected<Error>(at.error());
      last = std::max(last, at->sequence);
      it->Next();
    }
    if (!it->status().ok()) return rocks_fail(it->status(), path());
  }
  return last;
}

Result<std::optional<NodeMeta>> Rocks::meta() const {
  auto value = read(kMeta, kMetaKey);
  if (!value) return pass(std::move(value));
  if (!*value) return std::nullopt;
  auto meta = decode_meta(**value);
  if (!meta) return pass(std::move(meta));
  return std::move(*meta);
}

Result<std::optional<BlockLocation>> Rocks::location_of(const BlockKey& key) const {
  auto value = read(kBlocks, block_key_bytes(key));
  if (!value) return pass(std::move(value));
  if (!*value) return std::nullopt;
  auto at = decode_location(**value);
  if (!at) return pass(std::move(at));
  return *at;
}

Result<SharedBytes> Rocks::get_block(const BlockKey& key) const {
  auto at = location_of(key);
  if (!at) return pass(std::move(at));
  if (!*at) return fail(Errc::kNotFound, fmt::format("block {} is not here", to_hex(view_of(key.hash))));
  return blocks_->read(**at, key.hash);
}

Result<bool> Rocks::has_block(const BlockKey& key) const {
  auto at = location_of(key);
  if (!at) return pass(std::move(at));
  if (!*at) return false;
  if (blocks_->appended(**at)) return true;
  const auto bytes = blocks_->read(**at, key.hash);
  if (!bytes && bytes.error().code != Errc::kCorrupt) return tl::unexpected<Error>(bytes.error());
  return bytes.has_value();
}

Result<ItemPage> Rocks::items(ItemKind kind, std::uint16_t partition, ByteView after, std::size_t limit) const {
  const Bytes prefix = partition_prefix(partition);
  const Bytes end = partition_prefix(static_cast<std::uint16_t>(partition + 1));
  const Slice upper = slice(end);
  rocksdb::ReadOptions options;
  options.iterate_upper_bound = &upper;
  options.fill_cache = false;  // a pass over everything must not push out what is in use
  const std::unique_ptr<rocksdb::Iterator> it(
      db_->NewIterator(options, families_[kind == ItemKind::kRow ? kRows : kBlocks]));
  ItemPage page;
  std::size_t bytes = 0;
  it->Seek(after.empty() ? slice(prefix) : slice(after));
  if (it->Valid() && view(it->key()) == after) it->Next();
  for (; it->Valid(); it->Next()) {
    if (page.items.size() >= limit || bytes >= kItemPageBytes) {
      page.complete = false;
      break;
    }
    Item item{Bytes(view(it->key())), {}, {}};
    bytes += item.key.size();
    if (kind == ItemKind::kBlock) {
      item.digest = item_digest(item.key);
    } else if (const auto row = decode_row(view(it->value()))) {
      item.digest = item_digest(item.key, *row);
      if (row->is_grave()) item.grave = row->latest();
    }
    page.items.push_back(std::move(item));
  }
  if (!it->status().ok()) return rocks_fail(it->status(), path());
  return page;
}

StoreUsage Rocks::usage() const {
  StoreUsage usage;
  struct statvfs fs {};
  if (::statvfs(path().c_str(), &fs) == 0) {
    usage.total_bytes = static_cast<std::uint64_t>(fs.f_blocks) * fs.f_frsize;
    usage.free_bytes = static_cast<std::uint64_t>(fs.f_bavail) * fs.f_frsize;
    usage.full = usage.free_bytes < kBlockReserves * reserve_of(usage.total_bytes) + kMaxBlockBytes;
  }
  db_->GetIntProperty(families_[kRows], rocksdb::DB::Properties::kEstimateNumKeys, &usage.rows_estimate);
  usage.block_bytes = blocks_->bytes();
  return usage;
}

// --- Writing ---

Result<void> Rocks::check_room(std::uint64_t bytes, std::uint64_t reserves) {
  constexpr std::uint64_t kLookAgainBytes = 1 << 20;
  const auto now = std::chrono::steady_clock::now();
  const auto needed = [&] { return bytes + reserves * reserve_of(total_); };
  if (total_ == 0 || now - room_seen_ > std::chrono::milliseconds(100) || free_ < needed() + kLookAgainBytes) {
    struct statvfs fs {};
    if (::statvfs(path().c_str(), &fs) != 0) return fail(Errc::kIo, "cannot ask for the free space of " + path());
    total_ = static_cast<std::uint64_t>(fs.f_blocks) * fs.f_frsize;
    free_ = static_cast<std::uint64_t>(fs.f_bavail) * fs.f_frsize;
    room_seen_ = now;
  }
  if (free_ < needed()) {
    return fail(Errc::kNoSpace, fmt::format("{}: {} MiB are left on its disk, and {} MiB must stay free; free some "
                                            "space there, or add a host",
                                            path(), free_ >> 20, (needed() - bytes) >> 20));
  }
  free_ -= bytes;
  return {};
}

Result<void> Rocks::write(rocksdb::WriteBatch& batch, bool frees) {
  // What makes room, and the node's record, may use the reserve.
  if (auto ok = check_room(batch.GetDataSize(), frees ? 0 : 1); !ok) return ok;
  if (must_resume_) {
    if (const auto status = db_->Resume(); !status.ok()) return rocks_fail(status, path());
    must_resume_ = false;
  }
  const auto status = db_->Write(rocksdb::WriteOptions(), &batch);
  if (status.ok()) return {};
  must_resume_ = true;
  return rocks_fail(status, path());
}

Result<std::uint64_t> Rocks::sequence_of(const Bytes& index_key, HintChanges& changes) const {
  if (const auto it = changes.sequences.find(index_key); it != changes.sequences.end()) return it->second;
  auto value = read(kHints, index_key);
  if (!value) return pass(std::move(value));
  if (!*value) return 0;
  if ((*value)->size() != 8) return fail(Errc::kCorrupt, path() + ": a hint's index entry does not have 8 bytes");
  return read_be64(**value);
}

Result<void> Rocks::add_hint(rocksdb::WriteBatch& out, HintKind kind, NodeId target, std::uint64_t sequence,
                             const Bytes& key, HintChanges& changes) const {
  const Bytes index_key = hint_index_key(kind, target, key);
  auto before = sequence_of(index_key, changes);
  if (!before) return pass(std::move(before));
  if (*before == sequence) return {};
  if (*before == 0) ++changes.counts[target];
  if (*before != 0) out.Delete(families_[kHints], hint_order_key(kind, target, *before));
  out.Put(families_[kHints], hint_order_key(kind, target, sequence), key);
  Bytes value;
  append_be64(value, sequence);
  out.Put(families_[kHints], index_key, value);
  changes.sequences[index_key] = sequence;
  return {};
}

Result<void> Rocks::drop_hint(rocksdb::WriteBatch& out, HintKind kind, NodeId target, std::uint64_t sequence,
                              const Bytes& key, HintChanges& changes) const {
  const Bytes index_key = hint_index_key(kind, target, key);
  auto before = sequence_of(index_key, changes);
  if (!before) return pass(std::move(before));
  if (*before != sequence || sequence == 0) return {};
  out.Delete(families_[kHints], hint_order_key(kind, target, sequence));
  out.Delete(families_[kHints], index_key);
  --changes.counts[target];
  changes.sequences[index_key] = 0;
  return {};
}

Result<void> Rocks::gather_hints(rocksdb::WriteBatch& out, const Batch& batch, HintChanges& changes) const {
  const auto row = HintKind::kRow;
  const auto block = HintKind::kBlock;
  for (const Hint& h : batch.add_hints) {
    if (auto ok = add_hint(out, row, h.target, h.sequence, row_key_bytes(h.key), changes); !ok) return ok;
  }
  for (const BlockHint& h : batch.add_block_hints) {
    if (auto ok = add_hint(out, block, h.target, h.sequence, block_key_bytes(h.key), changes); !ok) return ok;
  }
  for (const Hint& h : batch.drop_hints) {
    if (auto ok = drop_hint(out, row, h.target, h.sequence, row_key_bytes(h.key), changes); !ok) return ok;
  }
  for (const BlockHint& h : batch.drop_block_hints) {
    if (auto ok = drop_hint(out, block, h.target, h.sequence, block_key_bytes(h.key), changes); !ok) return ok;
  }
  return {};
}

void Rocks::note_hints(const Batch& batch, const HintChanges& changes) {
  if (changes.sequences.empty()) return;
  const std::lock_guard lock(hints_mutex_);
  for (const auto& [target, more] : changes.counts) hint_counts_[target] += more;
  if (batch.add_hints.empty() && batch.add_block_hints.empty()) return;
  ++floors_lowered_;
  const auto lower = [&](HintKind kind, NodeId target, std::uint64_t sequence) {
    const auto it = floors_.find({kind, target});
    if (it != floors_.end()) it->second = std::min(it->second, sequence);
  };
  for (const Hint& h : batch.add_hints) lower(HintKind::kRow, h.target, h.sequence);
  for (const BlockHint& h : batch.add_block_hints) lower(HintKind::kBlock, h.target, h.sequence);
}

Result<void> Rocks::apply(const Batch& batch) {
  if (batch.empty()) return {};
  if (auto ok = check_batch(batch); !ok) return ok;
  rocksdb::WriteBatch out;
  for (const auto& [key, row] : batch.rows) {
    const Bytes at = row_key_bytes(key);
    out.Put(families_[kRows], at, encode_row(row));
    if (key.sort_key.empty()) continue;
    const Slice prefix(at.data(), at.size() - key.sort_key.size());
    out.Merge(families_[kStats], prefix, encode_stat(stat_of(row)));
  }
  for (const RowKey& key : batch.erase_rows) out.Delete(families_[kRows], row_key_bytes(key));
  std::vector<BlockLocation> freed;
  if (auto ok = erase_blocks(out, batch.erase_blocks, freed); !ok) return ok;
  HintChanges changes;
  if (auto ok = gather_hints(out, batch, changes); !ok) return ok;
  if (batch.meta) out.Put(families_[kMeta], slice(kMetaKey), encode_meta(*batch.meta));
  const bool frees = batch.rows.empty() && batch.add_hints.empty() && batch.add_block_hints.empty();
  if (auto ok = write(out, frees); !ok) return ok;
  note_hints(batch, changes);
  to_free(freed);
  return {};
}

Result<void> Rocks::erase_blocks(rocksdb::WriteBatch& out, const std::vector<BlockKey>& keys,
                                 std::vector<BlockLocation>& freed) const {
  for (const auto& key : keys) {
    auto at = location_of(key);
    if (!at) return pass(std::move(at));
    if (!*at) continue;
    out.Delete(families_[kBlocks], block_key_bytes(key));
    freed.push_back(**at);
  }
  return {};
}

void Rocks::to_free(const std::vector<BlockLocation>& locations) {
  if (locations.empty()) return;
  const std::lock_guard lock(freed_mutex_);
  freed_.insert(freed_.end(), locations.begin(), locations.end());
}

Result<void> Rocks::put_block(const BlockKey& key, const SharedBytes& bytes) {
  if (auto ok = check_block_key(key); !ok) return ok;
  if (bytes == nullptr || sha256(*bytes) != key.hash) {
    return fail(Errc::kInvalid,
                fmt::format("the bytes given for block {} do not match its hash", to_hex(view_of(key.hash))));
  }
  if (bytes->size() > kMaxBlockBytes) {
    return fail(Errc::kTooLarge, fmt::format("a block of {} bytes is over {}", bytes->size(), kMaxBlockBytes));
  }
  // One that is here already is read: should it be damaged, this is its repair.
  auto known = location_of(key);
  if (!known) return pass(std::move(known));
  if (*known && blocks_->read(**known, key.hash)) return {};
  if (auto ok = check_room(bytes->size(), kBlockReserves); !ok) return ok;
  auto at = blocks_->append(*bytes);
  if (!at) return pass(std::move(at));
  rocksdb::WriteBatch out;
  out.Put(families_[kBlocks], block_key_bytes(key), encode_location(*at));
  if (auto ok = write(out, false); !ok) return ok;
  if (*known) to_free({**known});
  return {};
}

Result<void> Rocks::sync() {
  std::vector<BlockLocation> freed;
  {
    const std::lock_guard lock(freed_mutex_);
    freed.swap(freed_);
  }
  // Blocks first: an entry in the log must not come to the disk before what it points to.
  if (auto ok = blocks_->sync(); !ok) return ok;
  const auto status = db_->SyncWAL();
  if (!status.ok()) return rocks_fail(status, path());
  // No entry points to them any more, after a power cut neither.
  for (const auto& at : freed) blocks_->free(at);
  return {};
}

Result<std::uint64_t> Rocks::forget_lost_blocks() {
  blocks_->doubt_cache();
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(rocksdb::ReadOptions(), families_[kBlocks]));
  rocksdb::WriteBatch lost;
  std::uint64_t count = 0;
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    const auto key = parse_block_key(view(it->key()));
    const auto at = decode_location(view(it->value()));
    if (!key || !at || !blocks_->in_doubt(*at)) continue;
    const auto bytes = blocks_->read(*at, key->hash);
    if (bytes || bytes.error().code != Errc::kCorrupt) continue;
    lost.Delete(families_[kBlocks], it->key());
    ++count;
  }
  if (!it->status().ok()) return rocks_fail(it->status(), path());
  if (count == 0) return 0;
  if (auto ok = write(lost, true); !ok) return pass(std::move(ok));
  return count;
}

}  // namespace

Result<std::unique_ptr<Store>> RocksStore::open(const std::string& path) {
  auto directory = DataDirectory::claim(path, kFormatVersion);
  if (!directory) return pass(std::move(directory));
  auto store = std::make_unique<Rocks>(std::move(*directory));
  if (auto ok = store->start(); !ok) return pass(std::move(ok));
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace kinfs
