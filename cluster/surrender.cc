#include "cluster/surrender.h"

#include "cluster/partition_sums.h"
#include "storage/record_codec.h"

namespace kinfs::cluster {

void Surrender::begin(const LayoutId& head, const std::vector<Confirmed>& all) {
  head_ = head;
  queue_.assign(all.begin(), all.end());
  after_.clear();
}

bool Surrender::still_holds() const {
  const auto& history = core_.placement.history();
  return !history.changing() && history.head().id == head_ && history.is_member(core_.config.self);
}

void Surrender::tick() {
  if (queue_.empty() || syncs_) return;
  if (!still_holds()) return queue_.clear();
  auto& first = queue_.front();
  const bool as_confirmed = core_.changes(first.kind, first.partition) == first.changes;
  auto page = as_confirmed && !core_.owns(first.partition)
                  ? core_.store.items(first.kind, first.partition, after_, kPageItems)
                  : ItemPage{};
  if (page && !page->items.empty()) {
    after_ = page->items.back().key;
    erase(std::move(page->items));
    first.changes = core_.changes(first.kind, first.partition);
  }
  if (page && !page->complete) return;
  queue_.pop_front();
  after_.clear();
}

void Surrender::erase(std::vector<Item> items) {
  Batch batch;
  for (const auto& item : items) {
    if (auto row = parse_row_key(item.key); row && queue_.front().kind == ItemKind::kRow) {
      batch.erase_rows.push_back(std::move(*row));
    } else if (auto block = parse_block_key(item.key); block && queue_.front().kind == ItemKind::kBlock) {
      batch.erase_blocks.push_back(std::move(*block));
    }
  }
  if (!batch.erase_rows.empty()) {
    const auto partition = queue_.front().partition;
    (void)core_.dots.with_floor(partition, {});  // what is not here now may live
    batch.meta = core_.dots.erases(partition);
  }
  core_.counters.rows_surrendered += batch.erase_rows.size();
  core_.counters.blocks_surrendered += batch.erase_blocks.size();
  const auto origin = core_.new_id();
  core_.on_save_failure(origin, [this](const Error&) {
    queue_.clear();
    syncs_ = false;
  });
  core_.save(origin, std::move(batch));
  syncs_ = true;
  core_.after_sync(origin, [this] { syncs_ = false; });
}

}  // namespace kinfs::cluster
