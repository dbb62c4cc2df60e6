// What nodes say to each other and what clients ask, as plain values.
//
// The core, the simulator and the transports all speak these; codec.h alone turns them into bytes and back,
// and validates while it does, so that a Message in hand is well formed: keys, values, blocks and lists are
// within their limits.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "client/client.h"
#include "storage/layouts.h"
#include "storage/store.h"

namespace kinfs::cluster {

// --- What a client asks of any node. Requests are idempotent: a retry carries the same events. ---

struct GetRequest {
  VolumeId volume{};
  Bytes partition_key;
  Bytes sort_key;
};
struct ScanRequest {
  VolumeId volume{};
  Bytes partition_key;
  Bytes from;
  ScanLimit limit;
};
struct PutRequest {
  VolumeId volume{};
  Bytes partition_key;
  std::vector<RowPut> rows;
  PutOptions options;
};
struct PutBlockRequest {
  BlockKey key;
  SharedBytes bytes;  // a frame of its own on the wire
  PutOptions options;
};
/// Blocks that were put without sync: are they on disk now?
struct SyncBlocksRequest {
  BlockSet blocks;
};
struct GetBlockRequest {
  BlockKey key;
};
struct UsageRequest {};
/// Served by the daemon around the core: status, ring, cut, heal. Answered with JSON.
struct AdminRequest {
  std::string command;
  std::vector<std::string> arguments;
};
/// A host that is to become a member; of an operator, or of the host itself that brings an invitation.
struct AdmitRequest {
  Member member;
};
/// Another part in the cluster, or another share of its data, for a host that is in it. Answered with Admitted as soon
/// as the change is sure to come; what it moves, moves after that.
struct ChangeMemberRequest {
  enum class Change : std::uint8_t {
    kLeave = 1,   // it hands over what it has, and is a member no more
    kExcuse = 2,  // it is taken for lost, and not waited for: what only it has is lost
    kShare = 3,   // weight and zone as given here
  };
  std::string host;  // its name, or its id in 16 hexadecimal digits
  Change change = Change::kLeave;
  bool force = false;        // excuses also where no more than half of the hosts can be reached
  std::uint32_t weight = 1;  // at most kMaxWeight
  std::string zone;
};
using Request = std::variant<GetRequest, ScanRequest, PutRequest, PutBlockRequest, GetBlockRequest, UsageRequest,
                             AdminRequest, AdmitRequest, SyncBlocksRequest, ChangeMemberRequest>;

struct BlockStored {
  bool degraded = false;
};
struct BlockFound {
  SharedBytes bytes;  // a frame of its own on the wire
};
struct AdminAnswer {
  std::string json;
};
/// That is decided, and on this host's disk; the members are these then.
struct Admitted {
  std::uint64_t layout_number = 0;
  std::vector<Member> members;
};
struct BlocksSynced {
  bool all = false;  // each of them at W owners; false: put them again
};
using Answer = std::variant<Error, GetResult, ScanResult, PutResult, BlockStored, BlockFound, StoreUsage, AdminAnswer,
                            Admitted, BlocksSynced>;

// --- What nodes say to each other. ---

/// `from`: what the sender says of itself, until the receiver has answered: it then has the key of the sender's
/// clients, which must find another daemon when the sender dies.
struct Ping {
  std::optional<Member> from;
};
struct Pong {
  bool full = false;            // the sender's disk: it takes no blocks, or nothing at all
  std::vector<NodeId> reaches;  // who has answered the sender of late
};
inline constexpr std::size_t kMaxReached = 1024;  // that are told

/// What the sender knows of all hosts, of which the receiver takes over each newer entry, and of the layouts, as on its
/// disk. `reply`: this answers a Gossip.
struct Gossip {
  std::vector<Member> members;
  bool reply = false;
  Layouts layouts = {};
  std::vector<std::pair<NodeId, Hlc>> horizons = {};  // see horizon.h
};

/// `known`: the fingerprint of what the asker has. Where that is what is here too, the answer says so instead of
/// sending it once more.
struct ReadRow {
  RowKey key;
  std::optional<Digest128> known = std::nullopt;
};
struct ReadRowReply {
  Row row;
  PartitionStat stat;
  bool same = false;  // as `known`; `row` is left out
  Hlc floor = {};     // of the partition there, see reaper.h
};
struct ReadPage {
  VolumeId volume{};
  Bytes partition_key;
  Bytes from;
  ScanLimit limit;
  std::optional<Digest128> known = std::nullopt;  // of the asker's page, see digest_of (replica.h)
};
struct ReadPageReply {
  RowPage page;
  PartitionStat stat;
  bool same = false;  // as `known`; `page` is left out
  Hlc floor = {};
};
/// Whole states, merged by the receiver into its own, all rows or none. `hint_for`: owners that the receiver, which
/// is none itself or stands in, must hand them to.
struct WriteRows {
  VolumeId volume{};
  Bytes partition_key;
  std::vector<std::pair<Bytes, Row>> rows;
  bool sync = false;
  std::vector<NodeId> hint_for;
};
struct WriteRowsReply {};
struct RowsOfKey {
  VolumeId volume{};
  Bytes partition_key;
  std::vector<std::pair<Bytes, Row>> rows;
};
/// Whole states that were kept for owners that were away, of any partitions; merged by the receiver into its own, all
/// rows or none. Answered with WriteRowsReply.
struct HandOver {
  std::vector<RowsOfKey> writes;
  bool sync = false;
};
struct WriteBlock {
  BlockKey key;
  SharedBytes bytes;
  bool sync = false;
  std::vector<NodeId> hint_for;
};
struct WriteBlockReply {};
struct ReadBlock {
  BlockKey key;
};
struct ReadBlockReply {
  SharedBytes bytes;  // null: not here
};
/// Answered once all of them are on disk, or at once when one is not here.
struct SyncBlocks {
  BlockSet blocks;
};
struct SyncBlocksReply {
  bool all = false;
};
/// A client's request, handed to a node that may coordinate it.
struct Forward {
  Request request;
};
struct ForwardReply {
  Answer answer;
};
struct Refusal {
  Error error;
};

/// Anti-entropy, see anti_entropy.h. What a partition holds, in one digest: the XOR of those of its items.
struct PartitionSum {
  ItemKind kind = ItemKind::kRow;
  std::uint16_t partition = 0;
  std::uint64_t items = 0;
  Digest128 digest{};
  bool operator==(const PartitionSum&) const = default;
};
struct ComparePartitions {
  std::vector<PartitionSum> sums;
};
/// Those, by their index, that are other here, or not known.
struct ComparePartitionsReply {
  std::vector<std::uint32_t> differing;
};
/// The items after those of the bucket before, up to and including `last`.
struct Bucket {
  Bytes last;
  std::uint32_t items = 0;
  Digest128 digest{};
  bool operator==(const Bucket&) const = default;
};
struct CompareItems {
  ItemKind kind = ItemKind::kRow;
  std::uint16_t partition = 0;
  Bytes after;                  // where the first bucket begins; empty: at the first item
  std::vector<Bucket> buckets;  // at least one
  bool to_end = false;          // the last bucket has no upper bound
};
struct CompareItemsReply {
  std::vector<std::uint32_t> differing;  // buckets, by their index, ascending
  std::vector<Item> items;               // what is here of these, ascending by key
  bool all = true;                       // false: only up to the last of `items`, the rest was too much
};

/// Answered once all that is stored there is on disk. `run`: what the present start of that node is called
/// (NodeConfig::run). Two answers with the same one say that nothing was lost there in between.
struct SyncStore {};
struct SyncStoreReply {
  Bytes run;
};

/// To an owner of the partition, see reaper.h: rows that need not be kept, if they still are as these items say. And
/// that it has everything up to `floor`. Unless it was started anew since: `run` is the name of the start that this is
/// said to. Not answered.
struct Reap {
  std::uint16_t partition = 0;
  Bytes run;
  Hlc floor;
  std::vector<Item> items;
};

using Body = std::variant<Ping, Pong, Gossip, ReadRow, ReadRowReply, ReadPage, ReadPageReply, WriteRows, WriteRowsReply,
                          WriteBlock, WriteBlockReply, ReadBlock, ReadBlockReply, Forward, ForwardReply, Refusal,
                          ComparePartitions, ComparePartitionsReply, CompareItems, CompareItemsReply, SyncBlocks,
                          SyncBlocksReply, HandOver, SyncStore, SyncStoreReply, Reap>;

/// Whether it answers something that its receiver asked: its sender can hear us.
inline bool is_answer(const Body& body) {
  const auto is = []<class... T>(const Body& b, std::variant<T...>*) { return (std::holds_alternative<T>(b) || ...); };
  using Answers =
      std::variant<Pong, ReadRowReply, ReadPageReply, WriteRowsReply, WriteBlockReply, ReadBlockReply, ForwardReply,
                   Refusal, ComparePartitionsReply, CompareItemsReply, SyncBlocksReply, SyncStoreReply>;
  const auto* gossip = std::get_if<Gossip>(&body);
  return is(body, static_cast<Answers*>(nullptr)) || (gossip != nullptr && gossip->reply);
}

struct Message {
  NodeId from{};
  NodeId to{};
  std::uint64_t id = 0;      // chosen by the asker, echoed by the answer
  LayoutId layout;           // the layout under which the asker chose its replicas
  std::uint32_t ttl_ms = 0;  // what is left of the asker's patience at sending; the receiver drops it after
  Hlc hlc;                   // the sender's clock
  Body body;
};

/// `error` of one attempt, when an earlier one at the same may have been carried out: it must not say that nothing was
/// done.
inline Error leave_open(Error error) {
  if (error.code == Errc::kTimeout || error.code == Errc::kUnavailable) return error;
  return {Errc::kTimeout, "an earlier attempt may have been carried out, and this one was not: " + error.text};
}

/// What goes between a client and a daemon: its own over the Unix socket, or another over ZeroMQ.
struct ClientFrame {
  /// An answer to nothing, over ZeroMQ, where a daemon cannot close one connection: it takes no more requests.
  static constexpr std::uint64_t kFarewell = ~0ull;
  std::uint64_t id = 0;      // chosen by the client, echoed by the answer
  std::uint32_t ttl_ms = 0;  // requests only
  Hlc hlc;
  std::variant<Request, Answer> body;
};

}  // namespace kinfs::cluster
