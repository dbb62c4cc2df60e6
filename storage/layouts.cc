#include "storage/layouts.h"

#include "storage/bytes.h"

namespace kinfs {

LayoutId layout_id_of(std::uint64_t number, const LayoutRecord& record) {
  CanonicalWriter w;
  const auto said = [&](const Said& s) { w.u64(s.hlc.value).u64(static_cast<std::uint64_t>(s.by)); };
  w.u64(number).u64(record.replicas).u64(record.computed ? 1 : 0).u64(record.roles.size());
  for (const auto& [node, role] : record.roles) {
    w.u64(static_cast<std::uint64_t>(node)).u64(static_cast<std::uint64_t>(role.part));
    said(role.part_said);
    w.u64(role.weight).bytes(role.zone);
    said(role.share_said);
  }
  for (const auto& parent : record.parents) w.u64(parent.number).u64(parent.hash);
  if (record.rule != PlacementRule::kRing) w.u64(static_cast<std::uint64_t>(record.rule));
  return {number, read_be64(view_of(sha256(w.out())))};
}

}  // namespace kinfs
