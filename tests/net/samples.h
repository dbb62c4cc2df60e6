// One of each kind of message, with every field set, and their contents as text to compare by.
#pragma once

#include <fmt/format.h>

#include <string>
#include <vector>

#include "cluster/codec.h"
#include "storage/record_codec.h"

namespace kinfs::cluster {

inline Version sample_version(std::uint64_t sequence, Bytes value) {
  Version v;
  v.event = {ClientId{77}, 3, sequence};
  v.hlc = Hlc::from_ms(1'700'000'000'000 + static_cast<std::int64_t>(sequence));
  v.time_ns = -5;
  v.host = "host1";
  v.tombstone = sequence % 2 == 0;
  v.lineage = {{{ClientId{77}, 3, sequence - 1}, Hlc{9}, "root"}};
  v.value = std::move(value);
  return v;
}

inline Row sample_row() {
  Row row;
  add_version(row, sample_version(5, "value with \0 inside"), {NodeId{1}, 10});
  add_version(row, sample_version(6, ""), {NodeId{2}, 4});
  return row;
}

inline BlockKey sample_block_key() {
  BlockKey key{VolumeId{1}, "file-id-16-bytes", 7, {}};
  for (std::size_t i = 0; i < key.hash.size(); ++i) key.hash[i] = static_cast<std::uint8_t>(i * 7);
  return key;
}

inline BlockSet sample_block_set() {
  const auto key = sample_block_key();
  return {key.volume, key.file_id, key.span, {key.hash, Digest256{}}};
}

inline PartitionStat sample_stat() { return {Hlc{123456789}, 987654321}; }

inline std::vector<Request> sample_requests() {
  RowPut put{"sort", superseding(sample_row(), {Dot{NodeId{1}, 10}}), {sample_version(9, "new")}};
  RowPut first{"", {}, {sample_version(11, Bytes(5000, 'x')), sample_version(12, "")}};
  return {GetRequest{VolumeId{2}, Bytes("key\0with zero", 13), "sort"},
          ScanRequest{VolumeId{1}, "dir", "from", {100, 7}},
          PutRequest{VolumeId{1}, "dir", {put, first}, {true}},
          PutBlockRequest{sample_block_key(), share(Bytes(3000, 'b')), {true}},
          PutBlockRequest{sample_block_key(), share({}), {false}},
          GetBlockRequest{sample_block_key()},
          UsageRequest{},
          AdminRequest{"cut", {"a", "", "c"}},
          AdmitRequest{{NodeId{4}, "host4", "tcp://[::1]:7946", Bytes(32, 'k'), 3, "cellar", 1}},
          SyncBlocksRequest{sample_block_set()},
          ChangeMemberRequest{"host4", ChangeMemberRequest::Change::kShare, true, 3, "attic"}};
}

inline std::vector<Answer> sample_answers() {
  std::vector<Answer> out;
  for (int code = 0; code <= static_cast<int>(Errc::kInternal); ++code) {
    out.push_back(Error{static_cast<Errc>(code), fmt::format("words {}", code)});
  }
  out.push_back(GetResult{sample_row(), sample_stat(), true});
  out.push_back(GetResult{});
  out.push_back(ScanResult{{{"a", sample_row()}, {"b", Row{}}}, false, sample_stat(), true});
  out.push_back(PutResult{
      {{sample_row().context, {{NodeId{1}, 10}, {NodeId{2}, 4}}, {{NodeId{2}, 4}}, {Hlc{8}}, Hlc{9}}, {}}, true});
  out.push_back(PutResult{{{sample_row().context, {{NodeId{2}, 4}}, {Dot{}, {NodeId{2}, 4}}, {Hlc{}, Hlc{8}}}},
                          false});  // a retry
  out.push_back(BlockStored{true});
  out.push_back(BlockFound{share("block")});
  out.push_back(StoreUsage{1, 2, 3, 4});
  out.push_back(AdminAnswer{"{\"safe\":true}"});
  out.push_back(Admitted{3, {{NodeId{4}, "host4", "tcp://[::1]:7946", Bytes(32, 'k'), 3, "cellar", 1}}});
  out.push_back(BlocksSynced{true});
  return out;
}

inline Layouts sample_layouts() {
  Layouts out;
  out.base.roles[NodeId{3}] = {Role::Part::kMember, {{5}, NodeId{3}}, 5, "zone-b", {{6}, NodeId{3}}};
  out.base.id = layout_id_of(1, out.base);
  out.trackers[NodeId{3}] = {1, out.base.id, {}, {}};
  return out;
}

inline std::vector<Message> sample_messages() {
  Member member{NodeId{3}, "host3", "tcp://127.0.0.1:7946", Bytes(32, '\x9c'), 5, "zone-b", 17};
  auto announced = member;
  announced.client_key = Bytes(32, '\x11');
  std::vector<Body> bodies{
      Ping{},
      Ping{announced},
      Pong{},
      Pong{true, {}},
      Pong{false, {NodeId{7}, NodeId{0x1234567890abcdef}}},
      Gossip{{member, announced}, true},
      Gossip{},
      Gossip{{member}, false, sample_layouts()},
      Gossip{{member}, true, {}, {{NodeId{7}, Hlc{1ull << 50}}, {NodeId{8}, Hlc{}}}},
      ReadRow{{VolumeId{1}, "dir", "name"}},
      ReadRow{{VolumeId{1}, "dir", "name"}, Digest128{1, 2, 3}},
      ReadRowReply{sample_row(), sample_stat()},
      ReadRowReply{{}, sample_stat(), true},
      ReadRowReply{{}, {}, false, Hlc{9}},
      ReadPage{VolumeId{1}, "dir", "from", {4096, 12}},
      ReadPage{VolumeId{1}, "dir", "from", {4096, 12}, Digest128{1, 2, 3}},
      ReadPageReply{{}, sample_stat(), true},
      ReadPageReply{{{{"a", sample_row()}, {"b", Row{}}}, false}, sample_stat()},
      WriteRows{VolumeId{1}, "dir", {{"b", sample_row()}, {"a", Row{}}}, true, {NodeId{4}, NodeId{5}}},
      ReadPageReply{{}, sample_stat(), true, Hlc{9}},
      WriteRowsReply{},
      WriteBlock{sample_block_key(), share(Bytes(kMaxBlockBytes, 'b')), true, {NodeId{4}}},
      WriteBlockReply{},
      ReadBlock{sample_block_key()},
      ReadBlockReply{share("found")},
      ReadBlockReply{share({})},
      ReadBlockReply{nullptr},
      Refusal{{Errc::kBusy, "later"}},
      ComparePartitions{{{ItemKind::kRow, 0, 3, md5("a")}, {ItemKind::kBlock, kPartitions - 1, 1ull << 40, md5("b")}}},
      ComparePartitions{},
      ComparePartitionsReply{{0, 7}},
      CompareItems{ItemKind::kRow, 5, "", {{"k", 32, md5("c")}, {"l", 1, {}}}, false},
      CompareItems{ItemKind::kBlock, 5, "after", {{"", 0, {}}}, true},
      CompareItemsReply{{1}, {{"k", md5("d")}, {Bytes("k\0", 2), {}}}, false},
      CompareItemsReply{},
      SyncBlocks{sample_block_set()},
      SyncBlocksReply{true},
      HandOver{{{VolumeId{1}, "dir", {{"b", sample_row()}, {"a", Row{}}}}, {VolumeId{2}, "p", {{"", Row{}}}}}, true},
      HandOver{},
      SyncStore{},
      SyncStoreReply{"a run"},
      Reap{},
      Reap{5, "a run", Hlc{9}, {{"k", md5("d")}, {Bytes("k\0", 2), {}}}}};
  for (auto& request : sample_requests()) bodies.push_back(Forward{std::move(request)});
  for (auto& answer : sample_answers()) bodies.push_back(ForwardReply{std::move(answer)});
  std::vector<Message> out;
  for (auto& body : bodies) {
    out.push_back(
        {NodeId{11}, NodeId{12}, 1ull << 40 | out.size(), {3, 0xfeedu}, 750, Hlc{1ull << 50}, std::move(body)});
  }
  return out;
}

/// Every field, as text.
struct Dump {
  std::string operator()(const VolumeId& v) const { return std::to_string(static_cast<std::uint32_t>(v)); }
  std::string operator()(const NodeId& v) const { return std::to_string(static_cast<std::uint64_t>(v)); }
  std::string operator()(const Row& v) const { return to_hex(encode_row(v)); }
  std::string operator()(const PartitionStat& v) const {
    return fmt::format("{}/{}", v.last_hlc.value, v.last_time_ns);
  }
  std::string operator()(const Dot& v) const { return fmt::format("{}.{}", (*this)(v.node), v.counter); }
  std::string operator()(const ScanLimit& v) const { return fmt::format("{}/{}", v.bytes, v.rows); }
  std::string operator()(const PutOptions& v) const { return v.sync ? "sync" : ""; }
  std::string operator()(const SharedBytes& v) const { return v ? "=" + *v : "none"; }
  std::string operator()(const std::string& v) const { return to_hex(v); }
  std::string operator()(bool v) const { return v ? "yes" : "no"; }
  std::string operator()(const Error& v) const { return fmt::format("{}: {}", errc_name(v.code), v.text); }
  std::string operator()(const Version& v) const { return to_hex(encode_version(v)); }
  std::string operator()(const std::pair<Bytes, Row>& v) const { return all(v.first, v.second); }
  template <class T>
  std::string operator()(const std::vector<T>& list) const {
    std::string out = "[";
    for (const auto& v : list) out += (*this)(v) + ",";
    return out + "]";
  }
  template <class... T>
  std::string operator()(const std::variant<T...>& v) const {
    return std::to_string(v.index()) + ":" + std::visit(*this, v);
  }
  template <class... T>
  std::string all(const T&... parts) const {
    std::string out = "(";
    ((out += (*this)(parts) + ","), ...);
    return out + ")";
  }

  std::string operator()(const BlockKey& v) const {
    return all(v.volume, v.file_id, std::to_string(v.span), Bytes(view_of(v.hash)));
  }
  std::string operator()(const Digest256& v) const { return to_hex(view_of(v)); }
  std::string operator()(const BlockSet& v) const { return all(v.volume, v.file_id, std::to_string(v.span), v.hashes); }
  std::string operator()(const RowPut& v) const { return all(v.sort_key, v.base, v.add); }
  std::string operator()(const PutRowResult& v) const {
    return all(encode_context(v.context), v.live, v.added, v.clocks, v.gone);
  }
  std::string operator()(const Member& v) const {
    return all(v.node, v.name, v.address, v.public_key, std::to_string(v.weight), v.zone, std::to_string(v.incarnation),
               v.client_key);
  }
  std::string operator()(const RowKey& v) const { return all(v.volume, v.partition_key, v.sort_key); }

  std::string operator()(const GetRequest& v) const { return all(v.volume, v.partition_key, v.sort_key); }
  std::string operator()(const ScanRequest& v) const { return all(v.volume, v.partition_key, v.from, v.limit); }
  std::string operator()(const PutRequest& v) const { return all(v.volume, v.partition_key, v.rows, v.options); }
  std::string operator()(const PutBlockRequest& v) const { return all(v.key, v.bytes, v.options); }
  std::string operator()(const GetBlockRequest& v) const { return all(v.key); }
  std::string operator()(const UsageRequest&) const { return "usage"; }
  std::string operator()(const AdminRequest& v) const { return all(v.command, v.arguments); }
  std::string operator()(const GetResult& v) const { return all(v.row, v.stat, v.degraded); }
  std::string operator()(const ScanResult& v) const { return all(v.rows, v.complete, v.stat, v.degraded); }
  std::string operator()(const PutResult& v) const { return all(v.rows, v.degraded); }
  std::string operator()(const BlockStored& v) const { return all(v.degraded); }
  std::string operator()(const BlockFound& v) const { return all(v.bytes); }
  std::string operator()(const StoreUsage& v) const {
    return fmt::format("{} {} {} {}", v.total_bytes, v.free_bytes, v.rows_estimate, v.block_bytes);
  }
  std::string operator()(const AdminAnswer& v) const { return all(v.json); }

  std::string operator()(const AdmitRequest& v) const { return all(v.member); }
  std::string operator()(const Admitted& v) const { return all(v.members) + std::to_string(v.layout_number); }

  std::string operator()(const ChangeMemberRequest& v) const {
    return fmt::format("{} {} {} {} {}", v.host, static_cast<int>(v.change), v.force, v.weight, v.zone);
  }
  std::string operator()(const SyncStore&) const { return "sync all"; }
  std::string operator()(const SyncStoreReply& v) const { return v.run; }
  std::string operator()(const SyncBlocksRequest& v) const { return all(v.blocks); }
  std::string operator()(const BlocksSynced& v) const { return all(v.all); }

  std::string operator()(const Ping& v) const { return v.from ? all(*v.from) : "ping"; }
  std::string operator()(const Pong& v) const { return all(v.full, v.reaches); }
  std::string operator()(const Gossip& v) const {
    return all(v.members, v.reply, v.horizons) + encode_layouts(v.layouts);
  }
  std::string operator()(const std::pair<NodeId, Hlc>& v) const { return all(v.first, v.second); }
  std::string operator()(const ReadRow& v) const { return all(v.key); }
  std::string operator()(const ReadRowReply& v) const { return all(v.row, v.stat, v.same, v.floor); }
  std::string operator()(const ReadPage& v) const { return all(v.volume, v.partition_key, v.from, v.limit); }
  std::string operator()(const ReadPageReply& v) const {
    return all(v.page.rows, v.page.complete, v.stat, v.same, v.floor);
  }
  std::string operator()(const WriteRows& v) const {
    return all(v.volume, v.partition_key, v.rows, v.sync, v.hint_for);
  }
  std::string operator()(const RowsOfKey& v) const { return all(v.volume, v.partition_key, v.rows); }
  std::string operator()(const HandOver& v) const { return all(v.writes, v.sync); }
  std::string operator()(const WriteRowsReply&) const { return "written"; }
  std::string operator()(const Reap& v) const { return all(std::uint32_t{v.partition}, v.run, v.floor, v.items); }
  std::string operator()(const Hlc& v) const { return std::to_string(v.value); }
  std::string operator()(const WriteBlock& v) const { return all(v.key, v.bytes, v.sync, v.hint_for); }
  std::string operator()(const WriteBlockReply&) const { return "written"; }
  std::string operator()(const ReadBlock& v) const { return all(v.key); }
  std::string operator()(const ReadBlockReply& v) const { return all(v.bytes); }
  std::string operator()(const SyncBlocks& v) const { return all(v.blocks); }
  std::string operator()(const SyncBlocksReply& v) const { return all(v.all); }
  std::string operator()(const Forward& v) const { return all(v.request); }
  std::string operator()(const ForwardReply& v) const { return all(v.answer); }
  std::string operator()(const Refusal& v) const { return all(v.error); }
  std::string operator()(const Digest128& v) const { return to_hex(view_of(v)); }
  std::string operator()(const std::uint32_t& v) const { return std::to_string(v); }
  std::string operator()(const PartitionSum& v) const {
    return fmt::format("{}/{} {} {}", static_cast<int>(v.kind), v.partition, v.items, (*this)(v.digest));
  }
  std::string operator()(const Bucket& v) const { return all(v.last, v.items, v.digest); }
  std::string operator()(const Item& v) const { return all(v.key, v.digest); }
  std::string operator()(const ComparePartitions& v) const { return all(v.sums); }
  std::string operator()(const ComparePartitionsReply& v) const { return all(v.differing); }
  std::string operator()(const CompareItems& v) const {
    return fmt::format("{}/{} ", static_cast<int>(v.kind), v.partition) + all(v.after, v.buckets, v.to_end);
  }
  std::string operator()(const CompareItemsReply& v) const { return all(v.differing, v.items, v.all); }

  std::string operator()(const Message& v) const {
    return all(v.from, v.to, v.body) +
           fmt::format("{} {} {} {} {}", v.id, v.layout.number, v.layout.hash, v.ttl_ms, v.hlc.value);
  }
  std::string operator()(const ClientFrame& v) const {
    return fmt::format("{} {} {} ", v.id, v.ttl_ms, v.hlc.value) + (*this)(v.body);
  }
};

}  // namespace kinfs::cluster
