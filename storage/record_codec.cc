// See record_codec.h. Each decoder moves the strings out of the parsed message, so that a value is copied once.
#include "storage/record_codec.h"

#include <fmt/format.h>
#include <google/protobuf/arena.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>

#include "storage/record.pb.h"

namespace kinfs {
namespace {

tl::unexpected<Error> corrupt(std::string text) { return fail(Errc::kCorrupt, std::move(text)); }

template <class Message>
Result<void> parse(Message& out, ByteView bytes, std::string_view what) {
  if (bytes.size() > static_cast<std::size_t>(std::numeric_limits<int>::max()) ||
      !out.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return corrupt(fmt::format("a {} of {} bytes does not parse: it was cut or changed", what, bytes.size()));
  }
  return {};
}

template <class Message>
Result<void> known(const Message& m, std::string_view what) {
  if (m.GetReflection()->GetUnknownFields(m).empty()) return {};
  return fail(Errc::kFormat, fmt::format("a {} has fields that this version of kinfs does not know: upgrade", what));
}

/// A message whose parts lie in it: rows of the usual size need nothing of the heap but the bytes of long values.
template <class Message>
class Local {
 public:
  Local() : arena_(options(block_)), message_(google::protobuf::Arena::CreateMessage<Message>(&arena_)) {}
  Local(const Local&) = delete;
  Local& operator=(const Local&) = delete;
  Message& operator*() { return *message_; }

 private:
  static google::protobuf::ArenaOptions options(std::array<char, 4096>& block) {
    google::protobuf::ArenaOptions options;
    options.initial_block = block.data();
    options.initial_block_size = block.size();
    return options;
  }
  alignas(std::max_align_t) std::array<char, 4096> block_;
  google::protobuf::Arena arena_;
  Message* message_;
};

Bytes serialize(const google::protobuf::MessageLite& m) {
  Bytes out;
  m.SerializeToString(&out);
  return out;
}

// --- Version ---

void to_proto(const Version& v, record::Version& out) {
  out.set_dot_node(static_cast<std::uint64_t>(v.dot.node));
  out.set_dot_counter(v.dot.counter);
  out.set_client(static_cast<std::uint64_t>(v.event.client));
  out.set_boot(v.event.boot);
  out.set_sequence(v.event.sequence);
  out.set_hlc(v.hlc.value);
  out.set_time_ns(v.time_ns);
  out.set_host(v.host);
  out.set_tombstone(v.tombstone);
  for (const Ancestor& a : v.lineage) {
    record::Ancestor& p = *out.add_lineage();
    p.set_client(static_cast<std::uint64_t>(a.event.client));
    p.set_boot(a.event.boot);
    p.set_sequence(a.event.sequence);
    p.set_hlc(a.hlc.value);
    p.set_root(a.root);
  }
  out.set_value(v.value);
}

Result<Version> from_proto(record::Version& in) {
  if (auto ok = known(in, "version"); !ok) return pass(std::move(ok));
  if (in.dot_counter() == 0 && in.dot_node() != 0) return corrupt("a version names a node but no counter");
  if (in.host().size() > kMaxHostBytes) return corrupt("a version's host name is over 255 bytes");
  if (in.value().size() > kMaxValueBytes) {
    return corrupt(fmt::format("a version's value has {} bytes, over {}", in.value().size(), kMaxValueBytes));
  }
  if (in.lineage_size() > static_cast<int>(kMaxLineage)) {
    return corrupt(fmt::format("a version has {} ancestors, over {}", in.lineage_size(), kMaxLineage));
  }
  Version v;
  v.dot = {NodeId{in.dot_node()}, in.dot_counter()};
  v.event = {ClientId{in.client()}, in.boot(), in.sequence()};
  v.hlc.value = in.hlc();
  v.time_ns = in.time_ns();
  v.host = std::move(*in.mutable_host());
  v.tombstone = in.tombstone();
  v.lineage.reserve(static_cast<std::size_t>(in.lineage_size()));
  for (record::Ancestor& a : *in.mutable_lineage()) {
    if (auto ok = known(a, "version's ancestor"); !ok) return pass(std::move(ok));
    if (a.root().size() > kMaxRootBytes) return corrupt("an ancestor's root is over 64 bytes");
    v.lineage.push_back({{ClientId{a.client()}, a.boot(), a.sequence()}, {a.hlc()}, std::move(*a.mutable_root())});
  }
  v.value = std::move(*in.mutable_value());
  return v;
}

// --- Context ---

void to_proto(const CausalContext& c, record::Row& out) {
  for (const auto& e : c.nodes()) {
    out.add_node(static_cast<std::uint64_t>(e.key));
    out.add_counter_after(e.after);
    out.add_counter_last(e.last);
  }
  for (const auto& e : c.clients()) {
    out.add_client(static_cast<std::uint64_t>(e.key.client));
    out.add_boot(e.key.boot);
    out.add_sequence_after(e.after);
    out.add_sequence_last(e.last);
  }
}

/// Intervals come as CausalContext keeps them: anything else would be merged into other intervals than were sent.
template <class Key>
Result<void> add_interval(CausalContext& c, const Interval<Key>& i) {
  if (i.last <= i.after) return corrupt("a causal context has an empty interval");
  if (i.last >= kMaxSequenceNumber) return corrupt("a causal context has a number that nobody can have come to");
  if (!c.append(i)) return corrupt("a causal context's intervals are not ascending");
  return {};
}

Result<CausalContext> context_from_proto(const record::Row& in) {
  if (in.node_size() != in.counter_after_size() || in.node_size() != in.counter_last_size() ||
      in.client_size() != in.boot_size() || in.client_size() != in.sequence_after_size() ||
      in.client_size() != in.sequence_last_size()) {
    return corrupt("a causal context has columns of different lengths");
  }
  if (static_cast<std::size_t>(std::max(in.node_size(), in.client_size())) > kMaxIntervals) {
    return corrupt(fmt::format("a causal context has over {} intervals", kMaxIntervals));
  }
  CausalContext c;
  for (int i = 0; i < in.node_size(); ++i) {
    const Interval<NodeId> interval{NodeId{in.node(i)}, in.counter_after(i), in.counter_last(i)};
    if (auto ok = add_interval(c, interval); !ok) return pass(std::move(ok));
  }
  for (int i = 0; i < in.client_size(); ++i) {
    const Interval<ClientBoot> interval{
        {ClientId{in.client(i)}, in.boot(i)}, in.sequence_after(i), in.sequence_last(i)};
    if (auto ok = add_interval(c, interval); !ok) return pass(std::move(ok));
  }
  return c;
}

/// The next version belongs after the last one: by dot, and by digest where one dot has several.
Result<void> check_order(const Row& row, const Version& next) {
  if (next.dot.counter == 0) return corrupt("a row holds a version without a dot");
  if (!row.context.covers(next.dot)) return corrupt("a row's context does not cover the dot of its version");
  if (!row.context.covers(next.event)) return corrupt("a row's context does not cover the event of its version");
  if (row.versions.empty() || row.versions.back().dot < next.dot) return {};
  if (row.versions.back().dot == next.dot && row.versions.back().digest() < next.digest()) return {};
  return corrupt("a row's versions are not ascending");
}

template <class Key>
Result<void> check_intervals(const std::vector<Interval<Key>>& intervals) {
  if (intervals.size() > kMaxIntervals) {
    return fail(Errc::kTooLarge, fmt::format("a causal context would have over {} intervals", kMaxIntervals));
  }
  const bool all_below = std::all_of(intervals.begin(), intervals.end(),
                                     [](const Interval<Key>& i) { return i.last < kMaxSequenceNumber; });
  return all_below ? Result<void>{} : fail(Errc::kInvalid, "a number in a causal context is far too large");
}

/// What decode_row would refuse is refused before it is stored.
Result<void> check_row(const Row& row) {
  if (auto ok = check_intervals(row.context.nodes()); !ok) return ok;
  if (auto ok = check_intervals(row.context.clients()); !ok) return ok;
  for (std::size_t i = 0; i < row.versions.size(); ++i) {
    const Version& v = row.versions[i];
    if (v.value.size() > kMaxValueBytes) {
      return fail(Errc::kTooLarge, fmt::format("a value of {} bytes is over {}", v.value.size(), kMaxValueBytes));
    }
    if (v.host.size() > kMaxHostBytes) return fail(Errc::kNameTooLong, "a host name is over 255 bytes");
    if (v.lineage.size() > kMaxLineage) return fail(Errc::kInvalid, "a version has more than 16 ancestors");
    for (const Ancestor& a : v.lineage) {
      if (a.root.size() > kMaxRootBytes) return fail(Errc::kInvalid, "an ancestor's root is over 64 bytes");
    }
    if (v.dot.counter == 0 || !row.context.covers(v.dot) || !row.context.covers(v.event)) {
      return fail(Errc::kInvalid, "a row's context does not cover one of its versions");
    }
    if (i == 0 || row.versions[i - 1].dot < v.dot) continue;
    if (row.versions[i - 1].dot != v.dot || row.versions[i - 1].digest() >= v.digest()) {
      return fail(Errc::kInvalid, "a row's versions are not ascending");
    }
  }
  return {};
}

// --- Keys ---

void append_escaped(Bytes& out, ByteView raw) {
  for (const char c : raw) {
    out.push_back(c);
    if (c == '\0') out.push_back('\xff');
  }
  out.append({'\0', '\1'});
}

/// Reads an escaped string from the front of `in` and removes it.
Result<Bytes> take_escaped(ByteView& in) {
  Bytes out;
  for (std::size_t i = 0; i + 1 < in.size(); ++i) {
    if (in[i] != '\0') {
      out.push_back(in[i]);
    } else if (in[i + 1] == '\1') {
      in.remove_prefix(i + 2);
      return out;
    } else if (in[i + 1] == '\xff') {
      out.push_back('\0');
      ++i;
    } else {
      break;
    }
  }
  return corrupt("a stored key is cut or not escaped as keys are");
}

std::uint32_t read_be(ByteView in, std::size_t at, std::size_t size) {
  std::uint32_t v = 0;
  for (std::size_t i = 0; i < size; ++i) v = v << 8 | static_cast<unsigned char>(in[at + i]);
  return v;
}

constexpr std::size_t kPlaceBytes = 2 + 4;  // partition and volume

}  // namespace

Bytes encode_row(const Row& row) {
  Local<record::Row> local;
  auto& p = *local;
  to_proto(row.context, p);
  for (const Version& v : row.versions) to_proto(v, *p.add_version());
  p.set_gone(row.gone.value);
  return serialize(p);
}

Result<Row> decode_row(ByteView bytes) {
  Local<record::Row> local;
  auto& p = *local;
  if (auto ok = parse(p, bytes, "row"); !ok) return pass(std::move(ok));
  if (auto ok = known(p, "row"); !ok) return pass(std::move(ok));
  auto context = context_from_proto(p);
  if (!context) return pass(std::move(context));
  Row row;
  row.context = std::move(*context);
  row.versions.reserve(static_cast<std::size_t>(p.version_size()));
  for (record::Version& pv : *p.mutable_version()) {
    auto v = from_proto(pv);
    if (!v) return pass(std::move(v));
    if (auto ok = check_order(row, *v); !ok) return pass(std::move(ok));
    row.versions.push_back(std::move(*v));
  }
  row.gone = {p.gone()};
  const auto& versions = row.versions;
  if (row.gone != Hlc{} && std::any_of(versions.begin(), versions.end(), [&](auto& v) { return v.hlc >= row.gone; }))
    return corrupt("a row tells of what is gone, and has what is later");
  return row;
}

Bytes encode_version(const Version& version) {
  Local<record::Version> local;
  auto& p = *local;
  to_proto(version, p);
  return serialize(p);
}

Result<Version> decode_version(ByteView bytes) {
  Local<record::Version> local;
  auto& p = *local;
  if (auto ok = parse(p, bytes, "version"); !ok) return pass(std::move(ok));
  return from_proto(p);
}

Bytes encode_context(const CausalContext& context) {
  Local<record::Row> local;
  auto& p = *local;
  to_proto(context, p);
  return serialize(p);
}

Result<CausalContext> decode_context(ByteView bytes) {
  Local<record::Row> local;
  auto& p = *local;
  if (auto ok = parse(p, bytes, "causal context"); !ok) return pass(std::move(ok));
  if (auto ok = known(p, "causal context"); !ok) return pass(std::move(ok));
  if (p.version_size() != 0) return corrupt("a causal context holds versions");
  return context_from_proto(p);
}

// --- Layouts ---

namespace {

void to_proto(const LayoutId& id, record::LayoutId& out) {
  out.set_number(id.number);
  out.set_hash(id.hash);
}

LayoutId from_proto(const record::LayoutId& p) { return {p.number(), p.hash()}; }

void to_proto(const LayoutRecord& record, record::LayoutRecord& out) {
  to_proto(record.id, *out.mutable_id());
  out.set_replicas(record.replicas);
  out.set_computed(record.computed);
  out.set_rule(static_cast<std::uint32_t>(record.rule));
  for (const auto& [node, role] : record.roles) {
    auto& to = *out.add_role();
    to.set_node(static_cast<std::uint64_t>(node));
    to.set_part(static_cast<std::uint32_t>(role.part));
    to.set_part_hlc(role.part_said.hlc.value);
    to.set_part_by(static_cast<std::uint64_t>(role.part_said.by));
    to.set_weight(role.weight);
    to.set_zone(role.zone);
    to.set_share_hlc(role.share_said.hlc.value);
    to.set_share_by(static_cast<std::uint64_t>(role.share_said.by));
  }
  for (const auto& parent : record.parents) to_proto(parent, *out.add_parent());
}

Result<LayoutRecord> from_proto(record::LayoutRecord& p) {
  if (auto ok = known(p, "layout"); !ok) return pass(std::move(ok));
  if (p.replicas() > kMaxCopies || p.role_size() > static_cast<int>(kMaxRoles) ||
      p.parent_size() > static_cast<int>(kMaxLayouts)) {
    return corrupt("a layout has more hosts, copies or parents than are allowed");
  }
  LayoutRecord out;
  out.id = from_proto(p.id());
  out.replicas = p.replicas();
  out.computed = p.computed();
  if (p.rule() > static_cast<std::uint32_t>(kLatestRule)) {
    return fail(Errc::kFormat, "a later version of kinfs changed the members of this cluster: this host needs it too");
  }
  out.rule = PlacementRule{p.rule()};
  for (auto& r : *p.mutable_role()) {
    if (auto ok = known(r, "layout"); !ok) return pass(std::move(ok));
    if (r.weight() > kMaxWeight || r.zone().size() > kMaxZoneBytes) return corrupt("a host has too great a share");
    if (r.part() > static_cast<std::uint32_t>(Role::Part::kExcused)) return corrupt("a host has no part in a layout");
    out.roles.emplace(NodeId{r.node()}, Role{Role::Part{static_cast<std::uint8_t>(r.part())},
                                             {Hlc{r.part_hlc()}, NodeId{r.part_by()}},
                                             r.weight(),
                                             std::move(*r.mutable_zone()),
                                             {Hlc{r.share_hlc()}, NodeId{r.share_by()}}});
  }
  for (const auto& parent : p.parent()) out.parents.push_back(from_proto(parent));
  if (!std::is_sorted(out.parents.begin(), out.parents.end())) return corrupt("a layout's parents are out of order");
  const bool follows = out.parents.empty() || out.id.number == out.parents.back().number + 1;
  if (!follows || out.id.number > kMaxLayoutNumber) return corrupt("a layout's number is not the next one");
  if (layout_id_of(out.id.number, out) != out.id) return corrupt("a layout is not what its hash says");
  return out;
}

void to_proto(const Layouts& layouts, record::Layouts& out) {
  to_proto(layouts.base, *out.mutable_base());
  for (const auto& record : layouts.records) to_proto(record, *out.add_record());
  for (const auto& [node, tracker] : layouts.trackers) {
    auto& to = *out.add_tracker();
    to.set_node(static_cast<std::uint64_t>(node));
    to.set_turn(tracker.turn);
    to_proto(tracker.acked, *to.mutable_acked());
    to_proto(tracker.synced, *to.mutable_synced());
    to_proto(tracker.read, *to.mutable_read());
  }
}

Result<Layouts> from_proto(record::Layouts& p) {
  if (auto ok = known(p, "list of layouts"); !ok) return pass(std::move(ok));
  if (p.record_size() > static_cast<int>(kMaxLayouts) || p.tracker_size() > static_cast<int>(kMaxRoles)) {
    return corrupt("there are more layouts than are allowed");
  }
  Layouts out;
  auto base = from_proto(*p.mutable_base());
  if (!base) return pass(std::move(base));
  out.base = std::move(*base);
  for (auto& r : *p.mutable_record()) {
    auto record = from_proto(r);
    if (!record) return pass(std::move(record));
    out.records.push_back(std::move(*record));
  }
  for (const auto& t : p.tracker()) {
    if (auto ok = known(t, "list of layouts"); !ok) return pass(std::move(ok));
    if (t.turn() > kMaxLayoutNumber) return corrupt("a host has said too much of its layouts");
    out.trackers[NodeId{t.node()}] = {t.turn(), from_proto(t.acked()), from_proto(t.synced()), from_proto(t.read())};
  }
  return out;
}

}  // namespace

Bytes encode_layouts(const Layouts& layouts) {
  record::Layouts p;
  to_proto(layouts, p);
  return serialize(p);
}

Result<Layouts> decode_layouts(ByteView bytes) {
  record::Layouts p;
  if (auto ok = parse(p, bytes, "list of layouts"); !ok) return pass(std::move(ok));
  return from_proto(p);
}

// --- The node's record ---

Bytes encode_meta(const NodeMeta& meta) {
  record::NodeMeta p;
  p.set_node(static_cast<std::uint64_t>(meta.node));
  p.set_cluster_id(meta.cluster_id);
  p.set_counter_reserved(meta.counter_reserved);
  p.set_hlc_reserved(meta.hlc_reserved.value);
  p.set_boot(meta.boot);
  p.set_counter_floor(meta.counter_floor);
  p.set_counter_erased(meta.counter_erased);
  p.set_erased_in(meta.erased_in);
  for (const auto floor : meta.floors) p.add_floor(floor.value);
  p.set_horizon(meta.horizon.value);
  p.set_run(meta.run);
  p.set_layout_number(meta.layout_number);
  for (const auto& m : meta.members) {
    auto& to = *p.add_member();
    to.set_node(static_cast<std::uint64_t>(m.node));
    to.set_name(m.name);
    to.set_address(m.address);
    to.set_public_key(m.public_key);
    to.set_weight(m.weight);
    to.set_zone(m.zone);
    to.set_incarnation(m.incarnation);
    to.set_client_key(m.client_key);
  }
  if (meta.layouts.base.id.number != 0) to_proto(meta.layouts, *p.mutable_layouts());
  return serialize(p);
}

Result<NodeMeta> decode_meta(ByteView bytes) {
  record::NodeMeta p;
  if (auto ok = parse(p, bytes, "node record"); !ok) return pass(std::move(ok));
  if (auto ok = known(p, "node record"); !ok) return pass(std::move(ok));
  if (p.cluster_id().size() != 16) return corrupt("the node record's cluster id does not have 16 bytes");
  NodeMeta meta;
  meta.node = NodeId{p.node()};
  meta.cluster_id = std::move(*p.mutable_cluster_id());
  meta.counter_reserved = p.counter_reserved();
  meta.hlc_reserved = {p.hlc_reserved()};
  meta.boot = p.boot();
  meta.counter_floor = p.counter_floor();
  meta.counter_erased = p.counter_erased();
  meta.erased_in = p.erased_in();
  if (p.floor_size() != 0 && p.floor_size() != kPartitions) return corrupt("a node's record has a part of its floors");
  for (const auto floor : p.floor()) meta.floors.push_back({floor});
  meta.horizon = {p.horizon()};
  meta.run = std::move(*p.mutable_run());
  meta.layout_number = p.layout_number();
  for (auto& m : *p.mutable_member()) {
    if (auto ok = known(m, "node record"); !ok) return pass(std::move(ok));
    if (m.public_key().size() != 32) return corrupt("a member's public key in the node record does not have 32 bytes");
    if (!m.client_key().empty() && m.client_key().size() != 32)
      return corrupt("a member's client key in the node record does not have 32 bytes");
    meta.members.push_back({NodeId{m.node()}, std::move(*m.mutable_name()), std::move(*m.mutable_address()),
                            std::move(*m.mutable_public_key()), m.weight(), std::move(*m.mutable_zone()),
                            m.incarnation(), std::move(*m.mutable_client_key())});
  }
  if (p.has_layouts()) {
    auto layouts = from_proto(*p.mutable_layouts());
    if (!layouts) return pass(std::move(layouts));
    meta.layouts = std::move(*layouts);
  }
  return meta;
}

Bytes encode_location(const BlockLocation& location) {
  record::BlockLocation p;
  p.set_segment(location.segment);
  p.set_offset(location.offset);
  p.set_length(location.length);
  return serialize(p);
}

Result<BlockLocation> decode_location(ByteView bytes) {
  record::BlockLocation p;
  if (auto ok = parse(p, bytes, "block's index entry"); !ok) return pass(std::move(ok));
  if (auto ok = known(p, "block's index entry"); !ok) return pass(std::move(ok));
  if (p.segment() == 0) return corrupt("a block's index entry names no segment");
  if (p.length() > kMaxBlockBytes) return corrupt("a block's index entry names a length over the limit");
  if (p.offset() > std::numeric_limits<std::uint64_t>::max() / 4) return corrupt("a block's index entry is far off");
  return BlockLocation{p.segment(), p.offset(), p.length()};
}

Bytes encode_stat(const PartitionStat& stat) {
  Bytes out;
  out.reserve(16);
  append_be64(out, stat.last_hlc.value);
  append_be64(out, static_cast<std::uint64_t>(stat.last_time_ns));
  return out;
}

Result<PartitionStat> decode_stat(ByteView bytes) {
  if (bytes.size() != 16) return corrupt("a partition's latest change does not have 16 bytes");
  return PartitionStat{{read_be64(bytes, 0)}, static_cast<std::int64_t>(read_be64(bytes, 8))};
}

PartitionStat stat_of(const Row& row) {
  PartitionStat latest;
  for (const Version& v : row.versions) latest = std::max(latest, PartitionStat{v.hlc, v.time_ns});
  return latest;
}

std::size_t scan_weight(ByteView sort_key, const Row& row) {
  std::size_t bytes = sort_key.size() + 24 * row.context.nodes().size() + 32 * row.context.clients().size();
  for (const Version& v : row.versions) {
    bytes += 64 + v.host.size() + v.value.size();
    for (const Ancestor& a : v.lineage) bytes += 32 + a.root.size();
  }
  return bytes;
}

Result<void> check_row_key(const RowKey& key) {
  const std::size_t longest = std::max(key.partition_key.size(), key.sort_key.size());
  if (longest <= kMaxKeyBytes) return {};
  return fail(Errc::kNameTooLong, fmt::format("a key of {} bytes is over the limit of {}", longest, kMaxKeyBytes));
}

Result<void> check_block_key(const BlockKey& key) {
  if (key.file_id.size() <= kMaxFileIdBytes) return {};
  return fail(Errc::kNameTooLong, fmt::format("a file id of {} bytes is over {}", key.file_id.size(), kMaxFileIdBytes));
}

Result<void> check_batch(const Batch& batch) {
  for (const auto& [key, row] : batch.rows) {
    if (auto ok = check_row_key(key); !ok) return ok;
    if (auto ok = check_row(row); !ok) return ok;
  }
  for (const Hint& h : batch.add_hints) {
    if (h.sequence == 0) return fail(Errc::kInvalid, "a hint has no sequence");
    if (auto ok = check_row_key(h.key); !ok) return ok;
  }
  for (const BlockHint& h : batch.add_block_hints) {
    if (h.sequence == 0) return fail(Errc::kInvalid, "a block hint has no sequence");
    if (auto ok = check_block_key(h.key); !ok) return ok;
  }
  if (batch.meta && batch.meta->cluster_id.size() != 16) {
    return fail(Errc::kInvalid, "a node record's cluster id must have 16 bytes");
  }
  return {};
}

Bytes row_key_prefix(VolumeId volume, ByteView partition_key) {
  Bytes out;
  out.reserve(kPlaceBytes + partition_key.size() + 16);
  append_be16(out, partition_of(volume, partition_key));
  append_be32(out, static_cast<std::uint32_t>(volume));
  append_escaped(out, partition_key);
  return out;
}

Bytes row_key_bytes(const RowKey& key) { return row_key_prefix(key.volume, key.partition_key) + key.sort_key; }

Result<RowKey> parse_row_key(ByteView bytes) {
  if (bytes.size() < kPlaceBytes) return corrupt("a stored row key is cut");
  RowKey key;
  const std::uint32_t partition = read_be(bytes, 0, 2);
  key.volume = VolumeId{read_be(bytes, 2, 4)};
  bytes.remove_prefix(kPlaceBytes);
  auto partition_key = take_escaped(bytes);
  if (!partition_key) return pass(std::move(partition_key));
  key.partition_key = std::move(*partition_key);
  key.sort_key = Bytes(bytes);
  if (partition_of(key.volume, key.partition_key) != partition)
    return corrupt("a stored row lies in a wrong partition");
  return key;
}

Bytes partition_prefix(std::uint16_t partition) {
  Bytes out;
  append_be16(out, partition);
  return out;
}

Digest128 item_digest(ByteView row_key, const Row& row) {
  CanonicalWriter w;
  w.bytes(row_key).bytes(view_of(row.fingerprint()));
  return short_sha256(w.out());
}

Digest128 item_digest(ByteView block_key) {
  CanonicalWriter w;
  w.bytes(block_key);
  return short_sha256(w.out());
}

Bytes block_key_bytes(const BlockKey& key) {
  Bytes out;
  out.reserve(kPlaceBytes + key.file_id.size() + 8 + 48);
  append_be16(out, partition_of(key.volume, block_partition_key(key)));
  append_be32(out, static_cast<std::uint32_t>(key.volume));
  append_escaped(out, key.file_id);
  append_be64(out, key.span);
  out.append(view_of(key.hash));
  return out;
}

Result<BlockKey> parse_block_key(ByteView bytes) {
  if (bytes.size() < kPlaceBytes) return corrupt("a stored block key is cut");
  BlockKey key;
  const std::uint32_t partition = read_be(bytes, 0, 2);
  key.volume = VolumeId{read_be(bytes, 2, 4)};
  bytes.remove_prefix(kPlaceBytes);
  auto file_id = take_escaped(bytes);
  if (!file_id) return pass(std::move(file_id));
  if (bytes.size() != 8 + key.hash.size()) return corrupt("a stored block key is cut");
  key.file_id = std::move(*file_id);
  key.span = read_be64(bytes);
  std::copy_n(reinterpret_cast<const std::uint8_t*>(bytes.data()) + 8, key.hash.size(), key.hash.begin());
  if (partition_of(key.volume, block_partition_key(key)) != partition) {
    return corrupt("a stored block lies in a wrong partition");
  }
  return key;
}

Bytes hint_order_key(HintKind kind, NodeId target, std::uint64_t sequence) {
  Bytes out(1, static_cast<char>(kind));
  append_be64(out, static_cast<std::uint64_t>(target));
  append_be64(out, sequence);
  return out;
}

Bytes hint_index_key(HintKind kind, NodeId target, ByteView key_bytes) {
  Bytes out(1, static_cast<char>(static_cast<char>(kind) - 'a' + 'A'));
  append_be64(out, static_cast<std::uint64_t>(target));
  out.append(key_bytes);
  return out;
}

Result<HintOrder> parse_hint_order_key(HintKind kind, ByteView bytes) {
  if (bytes.size() != 17 || bytes[0] != static_cast<char>(kind)) return corrupt("a stored hint's key is cut");
  return HintOrder{NodeId{read_be64(bytes, 1)}, read_be64(bytes, 9)};
}

}  // namespace kinfs
