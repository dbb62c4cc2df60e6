#include "cluster/put.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>

#include "storage/record_codec.h"

namespace kinfs::cluster {
namespace {
constexpr std::size_t kCopies = 2;  // of the rows of a put: as they are, and as they wait in the transport's queues
}  // namespace

void PutCoordinator::put(const Asker& asker, PutRequest request) {
  const auto id = core_.new_id();
  const auto partition = partition_of(request.volume, request.partition_key);
  auto plan = replication_.plan(id, partition, request.options.sync);

  // 1. Make the versions and their dots.
  auto made = make_versions(request);
  if (!made) {
    ++core_.counters.refused;
    core_.answer(id, asker, std::move(made).error());
    return;
  }
  ++core_.counters.puts;
  core_.counters.put_rows += request.rows.size();

  std::size_t bytes = 0;
  for (const auto& [sort_key, row] : made->states) bytes += scan_weight(sort_key, row);
  plan.held = Held(core_.bytes_held, kOperationBytes + kCopies * bytes);

  // 2. Save them, with the hints for owners that nobody else can keep.
  const auto rows = std::make_shared<const std::vector<std::pair<Bytes, Row>>>(std::move(made->states));
  const auto key_of = [volume = request.volume, pk = request.partition_key](const Bytes& sort_key) {
    return RowKey{volume, pk, sort_key};
  };
  const auto hint_all = [this, rows, key_of](Batch& batch, const std::vector<NodeId>& owners) {
    for (const auto owner : owners) {
      for (const auto& [sort_key, row] : *rows) core_.keep_hint(batch, owner, key_of(sort_key));
    }
  };
  Batch batch;
  for (auto& [sort_key, row] : made->changed) batch.rows.emplace_back(key_of(sort_key), std::move(row));
  hint_all(batch, replication_.hinted_here(plan.preference, plan.owners));
  core_.save(id, std::move(batch));

  // 3. Send them to the other owners, in parallel.
  plan.body = [rows, volume = request.volume, pk = request.partition_key,
               sync = request.options.sync](std::vector<NodeId> hint_for) -> Body {
    return WriteRows{volume, pk, *rows, sync, std::move(hint_for)};
  };
  plan.keep_hints = [this, hint_all](std::uint64_t origin, const std::vector<NodeId>& owners) {
    Batch hints;
    hint_all(hints, owners);
    core_.save(origin, std::move(hints));
  };
  // 4. Answer after W owners have confirmed, this one among them.
  plan.answer = [this, asker, result = std::move(made->result)](std::uint64_t origin, bool degraded) mutable {
    if (degraded) ++core_.counters.degraded_puts;
    result.degraded = degraded;
    core_.answer(origin, asker, std::move(result));
  };
  plan.fail = [this, asker](const Error& error) { core_.answer(core_.new_id(), asker, error); };
  replication_.begin(std::move(plan));
  if (request.options.sync) {
    core_.after_sync(id, [this, id] { replication_.confirmed_here(id); });
  } else {
    replication_.confirmed_here(id);
  }
}

Result<PutCoordinator::Made> PutCoordinator::make_versions(const PutRequest& request) {
  Made made;
  std::set<ByteView> named;
  for (const auto& put : request.rows) {
    if (!named.insert(put.sort_key).second) return fail(Errc::kInvalid, "a put names one row twice");
    const RowKey key{request.volume, request.partition_key, put.sort_key};
    auto stored = core_.row(key);
    if (!stored) return pass(std::move(stored));
    Row row = *stored;
    auto result = make_row(partition_of(request.volume, request.partition_key), put, row);
    if (!result) return pass(std::move(result));
    if (row != *stored) made.changed.emplace_back(put.sort_key, row);
    made.states.emplace_back(put.sort_key, std::move(row));
    made.result.rows.push_back(std::move(*result));
  }
  return made;
}

namespace {

// Larger rows could not be sent with their neighbours any more, and in the end not at all. Only what clients add is
// refused: repair and discards must always go through.
constexpr std::size_t kMaxRowBytes = 4 << 20;

/// What a row had before a put: what was stored, and what the writer was shown and leaves.
struct Before {
  std::size_t bytes = 0;
  std::size_t versions = 0;
};

Result<void> check_growth(const RowPut& put, const Before& before, const Row& row) {
  const auto bytes = scan_weight(put.sort_key, row);
  if (row.versions.size() > kMostSiblings && row.versions.size() > before.versions) {
    return fail(Errc::kTooLarge, fmt::format("with this write there would be {} concurrent versions of it, over {}; "
                                             "resolve its conflicts first",
                                             row.versions.size(), kMostSiblings));
  }
  if (bytes <= kMaxRowBytes || bytes <= before.bytes) return {};
  return fail(Errc::kTooLarge,
              fmt::format("with this put its row would have {} versions and {} KiB, over {} KiB; resolve its "
                          "conflicts first",
                          row.versions.size(), bytes >> 10, kMaxRowBytes >> 10));
}

}  // namespace

Result<PutRowResult> PutCoordinator::make_row(std::uint16_t partition, const RowPut& put, Row& row) {
  // The base says what the writer was shown and did not mean to replace; merging it removes exactly the rest,
  // also from replicas that never saw what was superseded.
  Before before{scan_weight(put.sort_key, row), row.versions.size()};
  // Who writes over one of many versions leaves as many as there were.
  before.versions = std::max(before.versions, put.base.versions.size() + std::min<std::size_t>(1, put.add.size()));
  Row base = put.base;
  if (core_.bug(PlantedBug::kPrefixSupersede)) base.versions.clear();
  row = merge(FlooredRow{row, core_.floor(partition)}, FlooredRow{base, {}});
  core_.observe(row);
  PutRowResult result;
  for (std::size_t i = 0; i < put.add.size(); ++i) {
    const auto& version = put.add[i];
    if (row.context.covers(version.event)) {
      // A retry: the same event keeps the dot it has, or has been superseded since. Both mean that it is done.
      ++core_.counters.retries_collapsed;
      const auto it = std::find_if(row.versions.begin(), row.versions.end(),
                                   [&](const Version& v) { return v.event == version.event; });
      result.added.push_back(it == row.versions.end() ? Dot{} : it->dot);
      result.clocks.push_back(it == row.versions.end() ? Hlc{} : it->hlc);
      continue;
    }
    const auto dot = core_.dots.next();
    if (!dot) return fail(Errc::kBusy, "this node is still reserving write counters on its disk; try again");
    auto made = version;
    // One that was tried again for that long: with its old clock it would be taken for what was removed long ago.
    if (made.hlc <= horizon_.limit()) {
      made.hlc = std::max(core_.clock.next(core_.now.wall_ms), Hlc{horizon_.limit().value + 1});
    }
    if (core_.bug(PlantedBug::kRetryIsNewEvent)) made.event = {ClientId{dot->counter}, 1, dot->counter};
    const auto dot_after = core_.dots.vouches_from(partition, row.context.counter_of(core_.config.self));
    auto event_after = made.event.sequence - 1;
    if (i < put.previous.size()) event_after = std::min(event_after, put.previous[i]);
    if (core_.bug(PlantedBug::kVouchForUnseenEvents)) event_after = 0;
    core_.clock.observe(made.hlc, core_.now.wall_ms);
    result.clocks.push_back(made.hlc);
    add_version(row, std::move(made), *dot, dot_after, event_after);
    result.added.push_back(*dot);
  }
  if (auto ok = check_growth(put, before, row); !ok) return pass(std::move(ok));
  result.context = row.context;
  result.gone = row.gone;
  for (const auto& v : row.versions) result.live.push_back(v.dot);
  if (row.versions.size() > 1) ++core_.counters.siblings_made;
  if (row.versions.size() >= kManySiblings) ++core_.counters.puts_beside_many;
  return result;
}

}  // namespace kinfs::cluster
