// Values to headers. What is encoded here is trusted to be within its limits: it comes from this process.
#include <google/protobuf/arena.h>

#include "cluster/hop.h"
#include "cluster/wire.pb.h"
#include "storage/record_codec.h"

namespace kinfs::cluster {
namespace {

constexpr std::size_t kMaxErrorTextBytes = 4096;
constexpr std::size_t kArenaBytes = 8 << 10;  // holds every message of the hot path

std::uint64_t raw(NodeId id) { return static_cast<std::uint64_t>(id); }
wire::ItemKind kind_of(ItemKind kind) { return kind == ItemKind::kRow ? wire::ITEM_ROW : wire::ITEM_BLOCK; }
std::uint32_t raw(VolumeId id) { return static_cast<std::uint32_t>(id); }

wire::FailureCode code_of(Errc code) {
  switch (code) {
    case Errc::kNotFound:
      return wire::FAILURE_NOT_FOUND;
    case Errc::kExists:
      return wire::FAILURE_EXISTS;
    case Errc::kInvalid:
      return wire::FAILURE_INVALID;
    case Errc::kNameTooLong:
      return wire::FAILURE_NAME_TOO_LONG;
    case Errc::kTooLarge:
      return wire::FAILURE_TOO_LARGE;
    case Errc::kNotDirectory:
      return wire::FAILURE_NOT_DIRECTORY;
    case Errc::kIsDirectory:
      return wire::FAILURE_IS_DIRECTORY;
    case Errc::kNotEmpty:
      return wire::FAILURE_NOT_EMPTY;
    case Errc::kNotPermitted:
      return wire::FAILURE_NOT_PERMITTED;
    case Errc::kAccess:
      return wire::FAILURE_ACCESS;
    case Errc::kUnavailable:
      return wire::FAILURE_UNAVAILABLE;
    case Errc::kTimeout:
      return wire::FAILURE_TIMEOUT;
    case Errc::kBusy:
      return wire::FAILURE_BUSY;
    case Errc::kCancelled:
      return wire::FAILURE_CANCELLED;
    case Errc::kNoSpace:
      return wire::FAILURE_NO_SPACE;
    case Errc::kCorrupt:
      return wire::FAILURE_CORRUPT;
    case Errc::kFormat:
      return wire::FAILURE_FORMAT;
    case Errc::kRefused:
      return wire::FAILURE_REFUSED;
    case Errc::kUnsupported:
      return wire::FAILURE_UNSUPPORTED;
    case Errc::kIo:
      return wire::FAILURE_IO;
    case Errc::kInternal:
      return wire::FAILURE_INTERNAL;
  }
  return wire::FAILURE_INTERNAL;
}

void put(wire::Failure* out, const Error& in) {
  out->set_code(code_of(in.code));
  out->set_text(in.text.substr(0, kMaxErrorTextBytes));
}

void put(wire::BlockKey* out, const BlockKey& in) {
  out->set_volume(raw(in.volume));
  out->set_file_id(in.file_id);
  out->set_span(in.span);
  out->set_hash(in.hash.data(), in.hash.size());
}

void put(wire::BlockSet* out, const BlockSet& in) {
  out->set_volume(raw(in.volume));
  out->set_file_id(in.file_id);
  out->set_span(in.span);
  for (const auto& hash : in.hashes) out->add_hashes(hash.data(), hash.size());
}

void put(wire::Stat* out, const PartitionStat& in) {
  out->set_last_hlc(in.last_hlc.value);
  out->set_last_time_ns(in.last_time_ns);
}

void put(wire::Limit* out, const ScanLimit& in) {
  out->set_bytes(in.bytes);
  out->set_rows(in.rows);
}

void put(wire::Dot* out, const Dot& in) {
  out->set_node(raw(in.node));
  out->set_counter(in.counter);
}

void put(wire::Item* out, const Item& in) {
  out->set_key(in.key);
  out->set_digest(Bytes(view_of(in.digest)));
}

void put(wire::Member* out, const Member& in) {
  out->set_node(raw(in.node));
  out->set_name(in.name);
  out->set_address(in.address);
  out->set_public_key(in.public_key);
  out->set_weight(in.weight);
  out->set_zone(in.zone);
  out->set_incarnation(in.incarnation);
  out->set_client_key(in.client_key);
}

template <class Rows>
void put_rows(Rows* out, const std::vector<std::pair<Bytes, Row>>& in) {
  out->Reserve(static_cast<int>(in.size()));
  for (const auto& [sort_key, row] : in) {
    auto* to = out->Add();
    to->set_sort_key(sort_key);
    to->set_row(encode_row(row));
  }
}

template <class Wire, class Value>
void put_partition(Wire* out, const Value& in) {
  out->set_volume(raw(in.volume));
  out->set_partition_key(in.partition_key);
}

/// Fills a header's body and gathers the payload.
struct BodyWriter {
  SharedBytes payload;

  // --- requests ---
  void operator()(wire::Request* out, const GetRequest& in) {
    put_partition(out->mutable_get(), in);
    out->mutable_get()->set_sort_key(in.sort_key);
  }
  void operator()(wire::Request* out, const ScanRequest& in) {
    auto* scan = out->mutable_scan();
    put_partition(scan, in);
    scan->set_from(in.from);
    put(scan->mutable_limit(), in.limit);
  }
  void operator()(wire::Request* out, const PutRequest& in) {
    auto* to = out->mutable_put();
    put_partition(to, in);
    to->set_sync(in.options.sync);
    for (const auto& row : in.rows) {
      auto* r = to->add_rows();
      r->set_sort_key(row.sort_key);
      if (!row.base.empty()) r->set_base(encode_row(row.base));
      for (const auto& version : row.add) r->add_add(encode_version(version));
      for (const auto sequence : row.previous) r->add_previous(sequence);
    }
  }
  void operator()(wire::Request* out, const PutBlockRequest& in) {
    put(out->mutable_put_block()->mutable_key(), in.key);
    out->mutable_put_block()->set_sync(in.options.sync);
    payload = in.bytes;
  }
  void operator()(wire::Request* out, const GetBlockRequest& in) {
    put(out->mutable_get_block()->mutable_key(), in.key);
  }
  void operator()(wire::Request* out, const UsageRequest&) { out->mutable_usage(); }
  void operator()(wire::Request* out, const AdminRequest& in) {
    out->mutable_admin()->set_command(in.command);
    for (const auto& a : in.arguments) out->mutable_admin()->add_arguments(a);
  }

  void operator()(wire::Request* out, const AdmitRequest& in) { put(out->mutable_admit(), in.member); }
  void operator()(wire::Request* out, const SyncBlocksRequest& in) { put(out->mutable_sync_blocks(), in.blocks); }
  void operator()(wire::Request* out, const ChangeMemberRequest& in) {
    auto* to = out->mutable_change_member();
    to->set_host(in.host);
    to->set_change(static_cast<wire::MemberChange>(in.change));
    to->set_force(in.force);
    to->set_weight(in.weight);
    to->set_zone(in.zone);
  }

  // --- answers ---
  void operator()(wire::Answer* out, const Error& in) { put(out->mutable_failure(), in); }
  void operator()(wire::Answer* out, const GetResult& in) {
    auto* get = out->mutable_get();
    get->set_row(encode_row(in.row));
    put(get->mutable_stat(), in.stat);
    get->set_degraded(in.degraded);
  }
  void operator()(wire::Answer* out, const ScanResult& in) {
    auto* scan = out->mutable_scan();
    put_rows(scan->mutable_rows(), in.rows);
    scan->set_complete(in.complete);
    put(scan->mutable_stat(), in.stat);
    scan->set_degraded(in.degraded);
  }
  void operator()(wire::Answer* out, const PutResult& in) {
    auto* to = out->mutable_put();
    to->set_degraded(in.degraded);
    for (const auto& row : in.rows) {
      auto* r = to->add_rows();
      r->set_context(encode_context(row.context));
      for (const auto& dot : row.live) put(r->add_live(), dot);
      for (const auto& dot : row.added) put(r->add_added(), dot);
      for (const auto clock : row.clocks) r->add_clock(clock.value);
      r->set_gone(row.gone.value);
    }
  }
  void operator()(wire::Answer* out, const BlockStored& in) { out->mutable_block_stored()->set_degraded(in.degraded); }
  void operator()(wire::Answer* out, const BlockFound& in) {
    out->mutable_block_found();
    payload = in.bytes;
  }
  void operator()(wire::Answer* out, const StoreUsage& in) {
    auto* usage = out->mutable_usage();
    usage->set_total_bytes(in.total_bytes);
    usage->set_free_bytes(in.free_bytes);
    usage->set_rows_estimate(in.rows_estimate);
    usage->set_block_bytes(in.block_bytes);
  }
  void operator()(wire::Answer* out, const Admitted& in) {
    out->mutable_admitted()->set_layout_number(in.layout_number);
    for (const auto& member : in.members) put(out->mutable_admitted()->add_members(), member);
  }
  void operator()(wire::Answer* out, const AdminAnswer& in) { out->mutable_admin()->set_json(in.json); }

  void operator()(wire::Answer* out, const BlocksSynced& in) { out->mutable_blocks_synced()->set_all(in.all); }

  // --- between nodes ---
  void operator()(wire::NodeHeader* out, const Ping& in) {
    auto* ping = out->mutable_ping();
    if (in.from) put(ping->mutable_from(), *in.from);
  }
  void operator()(wire::NodeHeader* out, const Pong& in) {
    auto* p = out->mutable_pong();
    p->set_full(in.full);
    for (const auto node : in.reaches) p->add_reaches(static_cast<std::uint64_t>(node));
  }
  void operator()(wire::NodeHeader* out, const Gossip& in) {
    for (const auto& member : in.members) put(out->mutable_gossip()->add_members(), member);
    out->mutable_gossip()->set_reply(in.reply);
    if (in.layouts.base.id.number != 0) out->mutable_gossip()->set_layouts(encode_layouts(in.layouts));
    for (const auto& [node, horizon] : in.horizons) {
      out->mutable_gossip()->add_horizon_of(raw(node));
      out->mutable_gossip()->add_horizon(horizon.value);
    }
  }
  void operator()(wire::NodeHeader* out, const ReadRow& in) {
    put_partition(out->mutable_read_row(), in.key);
    out->mutable_read_row()->set_sort_key(in.key.sort_key);
    if (in.known) out->mutable_read_row()->set_known(Bytes(view_of(*in.known)));
  }
  void operator()(wire::NodeHeader* out, const ReadRowReply& in) {
    if (!in.same) out->mutable_read_row_reply()->set_row(encode_row(in.row));
    out->mutable_read_row_reply()->set_same(in.same);
    out->mutable_read_row_reply()->set_floor(in.floor.value);
    put(out->mutable_read_row_reply()->mutable_stat(), in.stat);
  }
  void operator()(wire::NodeHeader* out, const ReadPage& in) {
    auto* page = out->mutable_read_page();
    put_partition(page, in);
    page->set_from(in.from);
    put(page->mutable_limit(), in.limit);
    if (in.known) page->set_known(Bytes(view_of(*in.known)));
  }
  void operator()(wire::NodeHeader* out, const ReadPageReply& in) {
    auto* page = out->mutable_read_page_reply();
    page->set_same(in.same);
    page->set_floor(in.floor.value);
    put_rows(page->mutable_rows(), in.page.rows);
    page->set_complete(in.page.complete);
    put(page->mutable_stat(), in.stat);
  }
  void operator()(wire::NodeHeader* out, const WriteRows& in) {
    auto* write = out->mutable_write_rows();
    put_partition(write, in);
    put_rows(write->mutable_rows(), in.rows);
    write->set_sync(in.sync);
    for (const auto node : in.hint_for) write->add_hint_for(raw(node));
  }
  void operator()(wire::NodeHeader* out, const WriteRowsReply&) { out->mutable_write_rows_reply(); }
  void operator()(wire::NodeHeader* out, const HandOver& in) {
    auto* hand_over = out->mutable_hand_over();
    hand_over->set_sync(in.sync);
    for (const auto& rows : in.writes) {
      auto* write = hand_over->add_writes();
      put_partition(write, rows);
      put_rows(write->mutable_rows(), rows.rows);
    }
  }
  void operator()(wire::NodeHeader* out, const WriteBlock& in) {
    auto* write = out->mutable_write_block();
    put(write->mutable_key(), in.key);
    write->set_sync(in.sync);
    for (const auto node : in.hint_for) write->add_hint_for(raw(node));
    payload = in.bytes;
  }
  void operator()(wire::NodeHeader* out, const WriteBlockReply&) { out->mutable_write_block_reply(); }
  void operator()(wire::NodeHeader* out, const ReadBlock& in) { put(out->mutable_read_block()->mutable_key(), in.key); }
  void operator()(wire::NodeHeader* out, const ReadBlockReply& in) {
    out->mutable_read_block_reply();
    payload = in.bytes;
  }
  void operator()(wire::NodeHeader* out, const Forward& in) {
    auto* request = out->mutable_forward();
    std::visit([&](const auto& r) { (*this)(request, r); }, in.request);
  }
  void operator()(wire::NodeHeader* out, const ForwardReply& in) {
    auto* answer = out->mutable_forward_reply();
    std::visit([&](const auto& a) { (*this)(answer, a); }, in.answer);
  }
  void operator()(wire::NodeHeader* out, const Refusal& in) { put(out->mutable_refusal(), in.error); }
  void operator()(wire::NodeHeader* out, const SyncStore&) { out->mutable_sync_store(); }
  void operator()(wire::NodeHeader* out, const SyncStoreReply& in) { out->mutable_sync_store_reply()->set_run(in.run); }
  void operator()(wire::NodeHeader* out, const ComparePartitions& in) {
    auto* compare = out->mutable_compare_partitions();
    for (const auto& sum : in.sums) {
      auto* to = compare->add_sums();
      to->set_kind(kind_of(sum.kind));
      to->set_partition(sum.partition);
      to->set_items(sum.items);
      to->set_digest(Bytes(view_of(sum.digest)));
    }
  }
  void operator()(wire::NodeHeader* out, const ComparePartitionsReply& in) {
    auto* reply = out->mutable_compare_partitions_reply();
    for (const auto index : in.differing) reply->add_differing(index);
  }
  void operator()(wire::NodeHeader* out, const CompareItems& in) {
    auto* compare = out->mutable_compare_items();
    compare->set_kind(kind_of(in.kind));
    compare->set_partition(in.partition);
    compare->set_after(in.after);
    compare->set_to_end(in.to_end);
    for (const auto& bucket : in.buckets) {
      auto* to = compare->add_buckets();
      to->set_last(bucket.last);
      to->set_items(bucket.items);
      to->set_digest(Bytes(view_of(bucket.digest)));
    }
  }
  void operator()(wire::NodeHeader* out, const CompareItemsReply& in) {
    auto* reply = out->mutable_compare_items_reply();
    for (const auto index : in.differing) reply->add_differing(index);
    for (const auto& item : in.items) put(reply->add_items(), item);
    reply->set_all(in.all);
  }
  void operator()(wire::NodeHeader* out, const Reap& in) {
    auto* reap = out->mutable_reap();
    reap->set_partition(in.partition);
    reap->set_run(in.run);
    reap->set_floor(in.floor.value);
    for (const auto& item : in.items) put(reap->add_items(), item);
  }
  void operator()(wire::NodeHeader* out, const SyncBlocks& in) { put(out->mutable_sync_blocks(), in.blocks); }
  void operator()(wire::NodeHeader* out, const SyncBlocksReply& in) {
    out->mutable_sync_blocks_reply()->set_all(in.all);
  }
};

template <class Header, class F>
Encoded encode_with(F fill) {
  alignas(std::max_align_t) char block[kArenaBytes];
  google::protobuf::ArenaOptions options;
  options.initial_block = block;
  options.initial_block_size = sizeof block;
  google::protobuf::Arena arena(options);
  auto* header = google::protobuf::Arena::CreateMessage<Header>(&arena);
  header->set_protocol_version(kProtocolVersion);
  BodyWriter writer;
  fill(*header, writer);
  if (writer.payload) header->set_payload_bytes(static_cast<std::uint32_t>(writer.payload->size()));
  Encoded out;
  header->SerializeToString(&out.header);
  out.payload = std::move(writer.payload);
  return out;
}

}  // namespace

Encoded encode(const Message& message) {
  return encode_with<wire::NodeHeader>([&](wire::NodeHeader& header, BodyWriter& writer) {
    header.set_from(raw(message.from));
    header.set_to(raw(message.to));
    header.set_id(message.id);
    header.set_layout_number(message.layout.number);
    header.set_layout_hash(message.layout.hash);
    header.set_hlc(message.hlc.value);
    header.set_ttl_ms(message.ttl_ms);
    std::visit([&](const auto& body) { writer(&header, body); }, message.body);
  });
}

Encoded encode(const ClientFrame& frame) {
  return encode_with<wire::ClientHeader>([&](wire::ClientHeader& header, BodyWriter& writer) {
    header.set_id(frame.id);
    header.set_hlc(frame.hlc.value);
    header.set_ttl_ms(frame.ttl_ms);
    if (const auto* request = std::get_if<Request>(&frame.body)) {
      std::visit([&](const auto& r) { writer(header.mutable_request(), r); }, *request);
    } else {
      std::visit([&](const auto& a) { writer(header.mutable_answer(), a); }, std::get<Answer>(frame.body));
    }
  });
}

HopBytes encode_hop(const Hop& hop) {
  HopBytes out{};
  char* p = out.data();
  const auto field = [&p](int number, int wire_type, std::uint64_t value, int bytes) {
    *p++ = static_cast<char>(number << 3 | wire_type);
    for (int i = 0; i < bytes; ++i) *p++ = static_cast<char>(value >> (8 * i));
  };
  constexpr int kFixed32 = 5;
  constexpr int kFixed64 = 1;
  field(wire::NodeHeader::kTtlMsFieldNumber, kFixed32, hop.ttl_ms, 4);
  field(wire::NodeHeader::kSenderBootFieldNumber, kFixed64, hop.boot, 8);
  field(wire::NodeHeader::kSentUsFieldNumber, kFixed64, static_cast<std::uint64_t>(hop.sent_us), 8);
  return out;
}
// One suffix serves both headers.
static_assert(int{wire::NodeHeader::kTtlMsFieldNumber} == int{wire::ClientHeader::kTtlMsFieldNumber});
static_assert(int{wire::NodeHeader::kSenderBootFieldNumber} == int{wire::ClientHeader::kSenderBootFieldNumber});
static_assert(int{wire::NodeHeader::kSentUsFieldNumber} == int{wire::ClientHeader::kSentUsFieldNumber});

}  // namespace kinfs::cluster
