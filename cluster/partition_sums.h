// What anti-entropy compares first: the sum of all items of a partition, kept in memory until the partition changes.
//
// Threading: none.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>

#include "cluster/core.h"

namespace kinfs::cluster {

inline constexpr std::size_t kPageItems = 512;  // looked at in one go: some milliseconds

/// The digests of items are added by XOR: their order does not matter.
void add_to(Digest128& sum, const Digest128& digest);

/// The sums of partitions here, as of the last look at them.
class PartitionSums {
 public:
  explicit PartitionSums(Core& core) : core_(core) {}
  /// Null when it is not known, or the partition has changed since.
  const PartitionSum* find(ItemKind kind, std::uint16_t partition) const;
  /// Looks at one page of the partition, where the last call for it ended. The sum when that was the last page;
  /// nullopt else. To be called when all effects are carried out.
  Result<std::optional<PartitionSum>> advance(ItemKind kind, std::uint16_t partition);
  /// The sum, if it is known or the partition fits one page. Null else, and when it cannot be read. As advance().
  const PartitionSum* look(ItemKind kind, std::uint16_t partition);

 private:
  struct Known {
    PartitionSum sum;
    std::uint64_t changes = 0;  // Core::changes() when its first page was looked at
  };
  Core& core_;
  std::map<std::pair<ItemKind, std::uint16_t>, Known> known_;
  std::optional<Known> open_;  // under way, up to `after_`
  Bytes after_;
};

}  // namespace kinfs::cluster
