// Which layouts a cluster has, and how far each member is with the latest: what is kept of that on disk, and told to
// others. What it means and how it changes: cluster/layout_history.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "storage/version.h"

namespace kinfs {

// What is read has no more; ten times what any cluster needs, so that nobody can make others compute for hours.
inline constexpr std::uint32_t kMaxWeight = 1024;
inline constexpr std::size_t kMaxZoneBytes = 255;
inline constexpr std::size_t kMaxRoles = 4096;
inline constexpr std::size_t kMaxLayouts = 256;
inline constexpr std::uint32_t kMaxCopies = 1024;
inline constexpr std::uint64_t kMaxLayoutNumber = 1ull << 62;  // and turn of a tracker: each grows by one at a time

/// When somebody said something, and who: of two the later counts.
struct Said {
  Hlc hlc;
  NodeId by{};
  auto operator<=>(const Said&) const = default;
};

/// A host's part in a layout.
struct Role {
  enum class Part : std::uint8_t {
    kMember = 0,
    kLeft = 1,     // owns nothing any more, and hands over what it has
    kExcused = 2,  // as that, and is not waited for. For good: if the host returns, it does as a new one.
  };
  Part part = Part::kMember;
  Said part_said;
  std::uint32_t weight = 1;  // of its share; 0 counts as 1
  std::string zone;
  Said share_said;
  bool operator==(const Role&) const = default;
};
using Roles = std::map<NodeId, Role>;

/// Equal for equal layouts alone: the hash is of all that a record says.
struct LayoutId {
  std::uint64_t number = 0;
  std::uint64_t hash = 0;
  auto operator<=>(const LayoutId&) const = default;
};

/// How owners are found (cluster/layout.h). A layout keeps the rule that it was made with: another one would look for
/// what is stored elsewhere.
enum class PlacementRule : std::uint32_t {
  kRing = 0,          // the hosts that the ring names
  kBoundedLoads = 1,  // and none gets much more than its share
};
inline constexpr auto kLatestRule = PlacementRule::kBoundedLoads;

struct LayoutRecord {
  LayoutId id;
  std::uint32_t replicas = 3;     // N
  Roles roles;                    // of all who ever were a member
  std::vector<LayoutId> parents;  // ascending
  bool computed = false;          // from its parents, which were all heads; else somebody's record
  PlacementRule rule = PlacementRule::kRing;
  bool operator==(const LayoutRecord&) const = default;
};

/// How far a member is, in its own words.
struct Tracker {
  std::uint64_t turn = 0;  // of two the greater counts; only the member itself makes it greater
  LayoutId acked, synced, read;
  auto operator<=>(const Tracker&) const = default;
};

/// What the id of a record with this number must be.
LayoutId layout_id_of(std::uint64_t number, const LayoutRecord& record);

struct Layouts {
  LayoutRecord base;                  // number 0: there are none
  std::vector<LayoutRecord> records;  // made since, ascending by id
  std::map<NodeId, Tracker> trackers;
  bool operator==(const Layouts&) const = default;
};

}  // namespace kinfs
