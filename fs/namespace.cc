// Rows of directories: see namespace.h.
#include "fs/namespace.h"

#include <algorithm>
#include <cstring>

#include "fs/keys.h"

namespace kinfs::fs {
namespace {

constexpr std::int64_t kAnew = -1;  // as a greatest age
constexpr std::size_t kMaxCachedBytes = 64 << 20;
constexpr std::size_t kMaxCachedRows = 200'000;
constexpr std::size_t kMaxDirectories = 50'000;
constexpr std::size_t kMaxOpensOfRow = 8;
constexpr std::size_t kMaxRowsWithOpens = 1024;
constexpr std::size_t kRowOverhead = 512;
constexpr std::size_t kMaxUnsyncedNames = 4096;  // of one directory
constexpr std::size_t kMaxUnsyncedDirectories = 20'000;
constexpr std::size_t kRowsToFetch = 16;  // beyond that a scan is cheaper
constexpr int kMissesBeforePage = 3;      // of one directory: the next one fetches a page
constexpr int kMissesAfterUseless = -16;  // count on from there when a page was of no use
constexpr int kHitsWorthAPage = 8;        // of a directory that has many

std::size_t bytes_of(const RowState& state) {
  std::size_t bytes = kRowOverhead;
  for (const auto& v : state.row.versions) bytes += 2 * v.value.size() + v.lineage.size() * 96;
  return bytes;
}

bool contains(const std::vector<Dot>& dots, const Dot& dot) {
  return std::find(dots.begin(), dots.end(), dot) != dots.end();
}

}  // namespace

std::size_t RowHash::operator()(const RowId& id) const {
  return DirectoryHash()(id.directory) ^ std::hash<std::string>()(id.name);
}

std::size_t DirectoryHash::operator()(const DirectoryId& id) const {
  std::size_t out = 0;
  std::memcpy(&out, id.data(), sizeof out);
  return out;
}

// --- reading ---

Task<Result<RowPtr>> Namespace::row(RowId id, std::int64_t max_age_ms) {
  if (const auto it = rows_.find(id); it != rows_.end() && age_ms(it->second->fetched_ms) <= max_age_ms) {
    if (const auto misses = misses_.find(id.directory); misses != misses_.end()) ++misses->second.hits;
    co_return it->second;
  }
  if (const auto* d = known(id.directory); d != nullptr && d->complete_ms && !rows_.contains(id) &&
                                           age_ms(*d->complete_ms) <= (d->made_here ? kCacheMs : max_age_ms)) {
    auto absent = std::make_shared<RowState>();
    absent->fetched_ms = *d->complete_ms;
    co_return RowPtr(std::move(absent));
  }
  if (max_age_ms > 0 && worth_a_page(id.directory)) {
    auto fetched = co_await row_by_page(id, max_age_ms);
    if (fetched) co_return fetched;
  }
  const auto sent_us = env_.mono_us();
  auto got = co_await client_.get(volume_, partition_key(id.directory), sort_key(id.name));
  if (!got) co_return pass(std::move(got));
  co_return store(id, std::move(got->row), sent_us / 1000, got->degraded, false, sent_us);
}

bool Namespace::worth_a_page(const DirectoryId& id) {
  auto& misses = misses_[id];
  if (misses.fetching) return false;
  if (age_ms(misses.since_ms) > kCacheMs) {
    const bool large = misses.large;
    misses = {};
    misses.since_ms = env_.mono_ms();
    misses.large = large;
  }
  if (++misses.count <= kMissesBeforePage) return false;
  if (!misses.large || !misses.paged || misses.hits >= kHitsWorthAPage) return true;
  misses.paged = false;
  misses.count = kMissesAfterUseless;
  return false;
}

/// Null: it is not on the page, or there is none.
Task<RowPtr> Namespace::row_by_page(RowId id, std::int64_t max_age_ms) {
  const bool large = misses_[id.directory].large;
  Bytes from;
  if (large) from = sort_key(id.name);
  misses_[id.directory].fetching = true;
  const auto page = co_await scan(id.directory, std::move(from), large ? 0 : env_.mono_ms());
  auto& misses = misses_[id.directory];
  misses.fetching = false;
  if (!page) co_return nullptr;
  misses.paged = true;
  misses.count = misses.hits = 0;
  misses.large = large || !page->complete;
  const auto it = rows_.find(id);
  if (it != rows_.end() && age_ms(it->second->fetched_ms) <= max_age_ms) co_return it->second;
  if (large || page->complete) misses.count = kMissesAfterUseless;
  co_return nullptr;
}

Task<Result<RowPtr>> Namespace::row_to_change(RowId id, std::uint32_t thread) {
  const auto it = rows_.find(id);
  const bool own = it != rows_.end() && it->second->own_put && age_ms(it->second->fetched_ms) <= kCacheMs;
  if (own) co_return it->second;
  co_return co_await row_at_open(id, thread);
}

Task<Result<RowPtr>> Namespace::row_at_open(RowId id, std::uint32_t thread) {
  if (const auto it = rows_.find(id); it != rows_.end()) {
    const RowPtr state = it->second;
    const auto by = std::exchange(state->looked_up_by, 0);
    if (by != 0 && by == thread && env_.mono_us() - state->looked_up_us <= kSameCallUs) co_return state;
  }
  co_return co_await row(id, kAnew);
}

Task<Result<DirectoryState>> Namespace::directory(DirectoryId id, std::int64_t max_age_ms) {
  if (const auto* d = known(id); d != nullptr && age_ms(d->fetched_ms) <= max_age_ms) co_return *d;
  const auto sent_ms = env_.mono_ms();
  auto got = co_await client_.get(volume_, partition_key(id), Bytes());
  if (!got) co_return pass(std::move(got));
  store_directory(id, std::move(got->row), got->stat, sent_ms);
  co_return *known(id);
}

Task<Result<DirectoryPage>> Namespace::scan(DirectoryId id, Bytes from, std::int64_t listing_ms) {
  const auto sent_ms = env_.mono_ms();
  const bool from_start = from.empty();
  ScanLimit limit;
  auto got = co_await client_.scan(volume_, partition_key(id), std::move(from), limit);
  if (!got) co_return pass(std::move(got));
  DirectoryPage page;
  page.complete = got->complete || got->rows.empty();
  if (!page.complete) page.next = got->rows.back().first + '\0';
  std::optional<Row> own;
  if (from_start) own.emplace();
  for (auto& [key, row] : got->rows) {
    const std::string name(name_of(key));
    if (name.empty()) {
      if (key.empty() && own) own = std::move(row);
      continue;
    }
    RowId row_id{id, name};
    page.rows.emplace_back(name, store(row_id, std::move(row), sent_ms, got->degraded, false, 0));
  }
  store_directory(id, std::move(own), got->stat, sent_ms);
  const auto it = directories_.find(id);
  if (it != directories_.end() && got->degraded) it->second.gap_ms = env_.mono_ms();
  if (it != directories_.end() && page.complete && listing_ms > it->second.gap_ms) {
    it->second.complete_ms = std::max(listing_ms, it->second.complete_ms.value_or(listing_ms));
    it->second.made_here = false;
  }
  make_room();
  co_return page;
}

const DirectoryState* Namespace::known(const DirectoryId& id) const {
  const auto it = directories_.find(id);
  return it == directories_.end() ? nullptr : &it->second;
}

const RowState* Namespace::known(const RowId& id) const {
  const auto it = rows_.find(id);
  return it == rows_.end() ? nullptr : it->second.get();
}

RowPtr Namespace::store(const RowId& id, Row row, std::int64_t fetched_ms, bool degraded, bool own_put,
                        std::int64_t asked_us) {
  auto state = std::make_shared<RowState>();
  auto& slot = rows_[id];
  if (slot) {
    state->row = slot->row == row ? std::move(row) : merge(slot->row, row);
    state->fetched_ms = std::max(fetched_ms, slot->fetched_ms);
    bytes_ -= bytes_of(*slot);
  } else {
    state->row = std::move(row);
    state->fetched_ms = fetched_ms;
  }
  state->degraded = degraded;
  state->own_put = own_put;
  state->asked_us = asked_us;
  state->view = view_of(state->row, id.name);
  slot = state;
  bytes_ += bytes_of(*state);
  order_.emplace_back(id, state->fetched_ms);
  return state;
}

void Namespace::store_directory(const DirectoryId& id, std::optional<Row> row, const PartitionStat& stat,
                                std::int64_t fetched_ms) {
  const bool is_new = !directories_.contains(id);
  if (is_new && !row) return;  // a later page alone does not tell its attributes
  auto& d = directories_[id];
  d.stat = std::max(d.stat, stat);
  if (!row) return;
  d.row = is_new ? std::move(*row) : merge(d.row, *row);
  d.attributes = merge_attributes(d.row);
  d.fetched_ms = std::max(d.fetched_ms, fetched_ms);
}

void Namespace::make_room() {
  while (!order_.empty() && (bytes_ > kMaxCachedBytes || rows_.size() > kMaxCachedRows)) {
    const auto [id, fetched_ms] = std::move(order_.front());
    order_.pop_front();
    forget_row(id);
  }
}

void Namespace::forget_row(const RowId& id) {
  const auto it = rows_.find(id);
  if (it == rows_.end()) return;
  bytes_ -= bytes_of(*it->second);
  rows_.erase(it);
  if (const auto d = directories_.find(id.directory); d != directories_.end()) {
    d->second.complete_ms.reset();
    d->second.gap_ms = env_.mono_ms();
  }
}

void Namespace::forget_directory(const DirectoryId& id) { directories_.erase(id); }

void Namespace::tick() {
  const auto now_ms = env_.mono_ms();
  while (!order_.empty() && order_.front().second + kCacheMs < now_ms) {
    const auto [id, fetched_ms] = std::move(order_.front());
    order_.pop_front();
    const auto it = rows_.find(id);
    if (it != rows_.end() && it->second->fetched_ms + kCacheMs < now_ms) forget_row(id);
  }
  if (misses_.size() > kMaxDirectories) {
    std::erase_if(misses_, [&](const auto& m) { return age_ms(m.second.since_ms) > kCacheMs; });
  }
  if (directories_.size() > kMaxDirectories) {
    std::erase_if(directories_, [&](const auto& d) { return d.second.fetched_ms + kCacheMs < now_ms; });
  }
  while (!opens_order_.empty()) {
    const auto it = opens_.find(opens_order_.front());
    if (it != opens_.end()) {
      auto& opens = it->second;
      std::erase_if(opens, [&](const Open& o) { return o.at_ms + kRememberMs < now_ms; });
      if (!opens.empty() && opens_.size() <= kMaxRowsWithOpens) break;
      opens_.erase(it);
    }
    opens_order_.pop_front();
  }
}

// --- writing ---

RowPut Namespace::row_put(const RowPtr& shown, const std::string& name, const std::vector<Dot>& dots,
                          std::optional<Version> add) const {
  RowPut put;
  put.sort_key = sort_key(name);
  if (shown) put.base = superseding(shown->row, dots);
  if (add) put.add.push_back(std::move(*add));
  return put;
}

Version Namespace::version(const RowPtr& shown, const std::vector<Dot>& dots, const Shown* parent, Bytes value,
                           bool tombstone) {
  Version v;
  v.event = client_.next_event();
  v.hlc = client_.next_hlc();
  for (const auto& dot : dots) {
    const auto* old = shown ? shown->row.find(dot) : nullptr;
    if (old != nullptr && old->hlc >= v.hlc) v.hlc = Hlc{old->hlc.value + 1};
  }
  if (parent != nullptr && parent->version.hlc >= v.hlc) v.hlc = Hlc{parent->version.hlc.value + 1};
  v.time_ns = env_.wall_ns();
  v.host = client_.host();
  v.tombstone = tombstone;
  v.value = std::move(value);
  if (parent != nullptr) {
    const auto digest = content_digest(parent->entry);
    v.lineage = extend_lineage(parent->version, Bytes(kinfs::view_of(digest)));
  }
  return v;
}

Task<Result<std::vector<RowPtr>>> Namespace::put(DirectoryId id, std::vector<RowPut> rows, bool sync) {
  const auto sent_ms = env_.mono_ms();
  PutOptions options;
  options.sync = sync;
  auto done = co_await client_.put(volume_, partition_key(id), rows, options);
  if (!done) {
    // It may have been done all the same: what is cached is no longer sure.
    for (const auto& row : rows) forget_row(RowId{id, std::string(name_of(row.sort_key))});
    co_return pass(std::move(done));
  }
  std::vector<RowPtr> states;
  for (std::size_t i = 0; i < rows.size(); ++i) states.push_back(after_put(id, rows[i], done->rows.at(i), sent_ms));
  own_change(id, rows, sync);
  co_return states;
}

RowPtr Namespace::after_put(const DirectoryId& id, const RowPut& put, const PutRowResult& result,
                            std::int64_t sent_ms) {
  const RowId row_id{id, std::string(name_of(put.sort_key))};
  for (const auto& dot : result.added) {
    if (dot == Dot{}) continue;  // a retry of what has been superseded since
    if (const auto it = opens_.find(row_id); it != opens_.end()) {
      for (auto& open : it->second) open.own.push_back(dot);
    }
  }
  // The coordinator's context may be taken over whole only where every version that it covers and that lives is here.
  Row row;
  row.context = result.context;
  row.gone = result.gone;
  for (const auto& dot : result.live) {
    const auto added = std::find(result.added.begin(), result.added.end(), dot);
    if (added != result.added.end()) {
      const auto at = static_cast<std::size_t>(added - result.added.begin());
      Version v = put.add.at(at);
      v.dot = dot;
      v.hlc = result.clocks.at(at);
      row.versions.push_back(std::move(v));
    } else if (const auto* v = put.base.find(dot)) {
      row.versions.push_back(*v);
    } else {
      forget_row(row_id);
      return nullptr;
    }
  }
  return store(row_id, std::move(row), sent_ms, false, true, 0);
}

void Namespace::own_change(const DirectoryId& id, const std::vector<RowPut>& rows, bool sync) {
  for (const auto& row : rows) note_synced(id, std::string(name_of(row.sort_key)), sync);
  const auto it = directories_.find(id);
  if (it == directories_.end()) return;
  for (const auto& row : rows) {
    for (const auto& v : row.add) {
      it->second.stat = std::max(it->second.stat, PartitionStat{v.hlc, v.time_ns});
    }
  }
}

void Namespace::note_synced(const DirectoryId& id, const std::string& name, bool sync) {
  if (sync) {
    const auto it = unsynced_.find(id);
    if (it == unsynced_.end()) return;
    it->second.names.erase(name);
    if (it->second.names.empty() && !it->second.all) unsynced_.erase(it);
    return;
  }
  if (unsynced_.size() >= kMaxUnsyncedDirectories && !unsynced_.contains(id)) {
    unsynced_.clear();
    unsynced_forgotten_ = true;
  }
  auto& unsynced = unsynced_[id];
  if (unsynced.all) return;
  unsynced.names.insert(name);
  if (unsynced.names.size() <= kMaxUnsyncedNames) return;
  unsynced.all = true;
  unsynced.names.clear();
}

/// Rows as they are, once more: that changes nothing, and is answered when W replicas have them on disk.
Task<Result<Unit>> Namespace::put_again(DirectoryId id, std::vector<RowPut> rows) {
  if (rows.empty()) co_return Unit{};
  PutOptions options;
  options.sync = true;
  auto done = co_await client_.put(volume_, partition_key(id), std::move(rows), options);
  if (!done) co_return pass(std::move(done));
  co_return Unit{};
}

Task<Result<Unit>> Namespace::sync_all(DirectoryId id) {
  auto own = co_await directory(id, kAnew);
  if (!own) co_return pass(std::move(own));
  std::vector<RowPut> rows;
  rows.push_back(RowPut{Bytes(), own->row, {}, {}});
  Bytes from;
  for (bool more = true; more;) {
    auto page = co_await scan(id, std::move(from), 0);
    if (!page) co_return pass(std::move(page));
    for (const auto& [name, state] : page->rows) rows.push_back(row_put(state, name, {}, std::nullopt));
    auto put = co_await put_again(id, std::exchange(rows, {}));
    if (!put) co_return pass(std::move(put));
    more = !page->complete;
    from = std::move(page->next);
  }
  co_return Unit{};
}

Task<Result<Unit>> Namespace::sync(DirectoryId id) {
  // Whoever comes while another syncs waits for it: what that one has taken over is not on disk yet.
  RowId own_row{id, ""};
  const auto guard = co_await lock(std::move(own_row));
  const auto it = unsynced_.find(id);
  if (it == unsynced_.end() && !unsynced_forgotten_) co_return Unit{};
  if (it == unsynced_.end()) co_return co_await sync_all(id);
  const Unsynced todo = std::exchange(it->second, {});
  unsynced_.erase(it);
  Result<Unit> done = Unit{};
  if (todo.all || todo.names.size() > kRowsToFetch) {
    done = co_await sync_all(id);
  } else {
    std::vector<RowPut> rows;
    for (const auto& name : todo.names) {
      if (!done) break;
      if (name.empty()) {
        auto own = co_await directory(id, kCacheMs);
        if (own) rows.push_back(RowPut{Bytes(), own->row, {}, {}});
        if (!own) done = pass(std::move(own));
        continue;
      }
      RowId row_id{id, name};
      auto state = co_await row(std::move(row_id), kCacheMs);
      if (state) rows.push_back(row_put(*state, name, {}, std::nullopt));
      if (!state) done = pass(std::move(state));
    }
    if (done) done = co_await put_again(id, std::move(rows));
  }
  if (done) co_return done;
  for (const auto& name : todo.names) note_synced(id, name, false);
  if (todo.all) unsynced_[id].all = true;
  co_return done;
}

Task<Result<Unit>> Namespace::put_directory(DirectoryId id, Row base, DirectoryAttributes attributes, Version version,
                                            bool made) {
  const auto sent_ms = env_.mono_ms();
  RowPut put;
  put.base = std::move(base);
  put.add.push_back(std::move(version));
  std::vector<RowPut> rows;
  rows.push_back(put);
  PutOptions options;
  auto done = co_await client_.put(volume_, partition_key(id), std::move(rows), options);
  if (!done) {
    forget_directory(id);
    co_return pass(std::move(done));
  }
  note_synced(id, "", false);
  const auto& result = done->rows.at(0);
  const bool alone = result.live.size() == 1 && result.live == result.added;
  if (!alone) {
    forget_directory(id);
    co_return Unit{};
  }
  Version v = put.add.front();
  v.dot = result.added.front();
  v.hlc = result.clocks.at(0);
  auto& d = directories_[id];
  d.row.context = result.context;
  d.row.gone = result.gone;
  d.row.versions.assign(1, std::move(v));
  d.attributes = attributes;
  if (made) {
    d.fetched_ms = sent_ms;
    d.complete_ms = sent_ms;
    d.made_here = true;
  }
  co_return Unit{};
}

// --- locks ---

Namespace::Lock& Namespace::Lock::operator=(Lock&& other) noexcept {
  if (this != &other) {
    release();
    owner_ = std::exchange(other.owner_, nullptr);
    id_ = std::move(other.id_);
    mutex_ = std::move(other.mutex_);
    guard_ = std::move(other.guard_);
  }
  return *this;
}

void Namespace::Lock::release() {
  auto* owner = std::exchange(owner_, nullptr);
  if (owner == nullptr) return;
  const auto mutex = std::move(mutex_);
  guard_.release();  // whoever waited runs now, and may have let go again when this returns
  const auto it = owner->locks_.find(id_);
  if (it != owner->locks_.end() && it->second == mutex && mutex->idle()) owner->locks_.erase(it);
}

Task<Namespace::Lock> Namespace::lock(RowId id) {
  auto& slot = locks_[id];
  if (!slot) slot = std::make_shared<AsyncMutex>();
  Lock lock;
  lock.mutex_ = slot;
  lock.id_ = id;
  lock.owner_ = this;
  lock.guard_ = co_await lock.mutex_->lock();
  co_return std::move(lock);
}

// --- what processes were shown ---

void Namespace::remember_open(const RowId& id, const std::string& name, const Shown& shown, const Caller& caller) {
  if (caller.thread == 0) return;
  const auto it = opens_.find(id);
  if (it == opens_.end()) opens_order_.push_back(id);
  auto& opens = it == opens_.end() ? opens_[id] : it->second;
  std::erase_if(opens, [&](const Open& o) { return o.thread == caller.thread && o.name == name; });
  if (opens.size() == kMaxOpensOfRow) opens.pop_front();
  opens.push_back(Open{caller.thread, env_.mono_ms(), name, shown, {}});
}

std::optional<Namespace::Seen> Namespace::seen_by(const RowId& id, const std::string& name, const RowState& state,
                                                  const Shown& now, const Caller& caller) {
  const auto it = opens_.find(id);
  if (it == opens_.end() || caller.thread == 0) return std::nullopt;
  const auto& opens = it->second;
  const auto open = std::find_if(opens.rbegin(), opens.rend(), [&](const Open& o) {
    return o.name == name && env_.same_process(o.thread, o.at_ms, caller.thread);
  });
  if (open == opens.rend()) return std::nullopt;
  const auto known = [&](const Shown& shown) {
    std::vector<Dot> dots;
    for (const auto& dot : shown.dots) {
      if (contains(open->shown.dots, dot) || contains(open->own, dot)) dots.push_back(dot);
    }
    return dots;
  };
  if (auto dots = known(now); !dots.empty()) return Seen{now, std::move(dots)};
  // Another version has taken the name since; what was opened may live on under another.
  for (const auto& shown : state.view.names) {
    const bool opened = std::any_of(shown.dots.begin(), shown.dots.end(),
                                    [&](const Dot& dot) { return contains(open->shown.dots, dot); });
    if (opened) return Seen{shown, known(shown)};
  }
  return Seen{open->shown, {}};
}

}  // namespace kinfs::fs
