// What anti-entropy compares first: the sum of all items of a partition, kept in memory until the partition changes.
//
// Threading: none.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "cluster/core.h"

namespace kinfs::cluster {

inline constexpr std::size_t kPageItems = 512;  // looked at in one go: some milliseconds

/// The digests of items are added by XOR: their order does not matter.
void add_to(Digest128& sum, const Digest128& digest);

/// The sums of partitions here, as of the last look at them.
class PartitionSums {
 public:
  explicit PartitionSums(Core& core) : core_(core) {}

 private:
  struct Known {
    PartitionSum sum;
    std::uint64_t changes = 0;  // Core::changes() when its first page was looked at
    Hlc oldest_grave;
    void add(const std::vector<Item>& items);
  };

 public:
  /// Where somebody's look at a partition has come to.
  class Look {
    friend PartitionSums;
    std::optional<Known> open;
    Bytes after;
  };
  /// Null when it is not known, or the partition has changed since.
  const PartitionSum* find(ItemKind kind, std::uint16_t partition) const;
  /// The least Item::grave of its rows that have one, where find() knows the sum; 0: none has, or it is not known.
  Hlc oldest_grave(std::uint16_t partition) const;
  /// Looks at one page of the partition, where the last call for it ended. The sum when that was the last page;
  /// nullopt else. To be called when all effects are carried out.
  Result<std::optional<PartitionSum>> advance(ItemKind kind, std::uint16_t partition, Look& look);
  /// The sum, if it is known or the partition fits one page. Null else, and when it cannot be read. As advance().
  const PartitionSum* look(ItemKind kind, std::uint16_t partition);

 private:
  const Known* known(ItemKind kind, std::uint16_t partition) const;

  Core& core_;
  std::map<std::pair<ItemKind, std::uint16_t>, Known> known_;
};

}  // namespace kinfs::cluster
