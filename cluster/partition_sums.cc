#include "cluster/partition_sums.h"

namespace kinfs::cluster {

void add_to(Digest128& sum, const Digest128& digest) {
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = static_cast<std::uint8_t>(sum[i] ^ digest[i]);
}

const PartitionSum* PartitionSums::find(ItemKind kind, std::uint16_t partition) const {
  const auto it = known_.find({kind, partition});
  if (it == known_.end()) return nullptr;
  if (core_.bug(PlantedBug::kStaleSums)) return &it->second.sum;
  return it->second.changes == core_.changes(kind, partition) ? &it->second.sum : nullptr;
}

Result<std::optional<PartitionSum>> PartitionSums::advance(ItemKind kind, std::uint16_t partition) {
  if (!open_ || open_->sum.kind != kind || open_->sum.partition != partition) {
    open_ = Known{{kind, partition, 0, {}}, core_.changes(kind, partition)};
    after_.clear();
  }
  auto page = core_.store.items(kind, partition, after_, kPageItems);
  if (!page) {
    open_.reset();
    return pass(std::move(page));
  }
  for (const auto& item : page->items) add_to(open_->sum.digest, item.digest);
  open_->sum.items += page->items.size();
  if (!page->complete) {
    after_ = std::move(page->items.back().key);
    return std::nullopt;
  }
  // What changed behind the look is not in it: find() goes by the changes at its beginning.
  const auto sum = open_->sum;
  known_.insert_or_assign({kind, partition}, *std::exchange(open_, std::nullopt));
  return sum;
}

const PartitionSum* PartitionSums::look(ItemKind kind, std::uint16_t partition) {
  if (const auto* sum = find(kind, partition)) return sum;
  const auto page = core_.store.items(kind, partition, {}, kPageItems);
  if (!page || !page->complete) return nullptr;
  Known known{{kind, partition, page->items.size(), {}}, core_.changes(kind, partition)};
  for (const auto& item : page->items) add_to(known.sum.digest, item.digest);
  return &known_.insert_or_assign({kind, partition}, std::move(known)).first->second.sum;
}

}  // namespace kinfs::cluster
