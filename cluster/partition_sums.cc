#include "cluster/partition_sums.h"

#include <algorithm>

namespace kinfs::cluster {

void add_to(Digest128& sum, const Digest128& digest) {
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = static_cast<std::uint8_t>(sum[i] ^ digest[i]);
}

void PartitionSums::Known::add(const std::vector<Item>& items) {
  sum.items += items.size();
  for (const auto& item : items) {
    add_to(sum.digest, item.digest);
    if (item.grave == Hlc{}) continue;
    oldest_grave = oldest_grave == Hlc{} ? item.grave : std::min(oldest_grave, item.grave);
  }
}

const PartitionSums::Known* PartitionSums::known(ItemKind kind, std::uint16_t partition) const {
  const auto it = known_.find({kind, partition});
  if (it == known_.end()) return nullptr;
  if (core_.bug(PlantedBug::kStaleSums)) return &it->second;
  return it->second.changes == core_.changes(kind, partition) ? &it->second : nullptr;
}

const PartitionSum* PartitionSums::find(ItemKind kind, std::uint16_t partition) const {
  const auto* found = known(kind, partition);
  return found == nullptr ? nullptr : &found->sum;
}

Hlc PartitionSums::oldest_grave(std::uint16_t partition) const {
  const auto* found = known(ItemKind::kRow, partition);
  return found == nullptr ? Hlc{} : found->oldest_grave;
}

Result<std::optional<PartitionSum>> PartitionSums::advance(ItemKind kind, std::uint16_t partition, Look& look) {
  auto& [open, after] = look;
  if (!open || open->sum.kind != kind || open->sum.partition != partition) {
    open = Known{{kind, partition, 0, {}}, core_.changes(kind, partition), {}};
    after.clear();
  }
  auto page = core_.store.items(kind, partition, after, kPageItems);
  if (!page) {
    open.reset();
    return pass(std::move(page));
  }
  open->add(page->items);
  if (!page->complete) {
    after = std::move(page->items.back().key);
    return std::nullopt;
  }
  // What changed behind the look is not in it: find() goes by the changes at its beginning.
  const auto sum = open->sum;
  known_.insert_or_assign({kind, partition}, *std::exchange(open, std::nullopt));
  return sum;
}

const PartitionSum* PartitionSums::look(ItemKind kind, std::uint16_t partition) {
  if (const auto* sum = find(kind, partition)) return sum;
  const auto page = core_.store.items(kind, partition, {}, kPageItems);
  if (!page || !page->complete) return nullptr;
  Known seen{{kind, partition, 0, {}}, core_.changes(kind, partition), {}};
  seen.add(page->items);
  return &known_.insert_or_assign({kind, partition}, std::move(seen)).first->second.sum;
}

}  // namespace kinfs::cluster
