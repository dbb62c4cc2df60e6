// Headers to values: every bound is checked here, and what comes out is well formed. The other direction is in
// codec_encode.cc.
//
// Strings are moved out of the parsed header: a value is copied once, from the bytes that came.
#include "cluster/codec.h"

#include <fmt/format.h>
#include <google/protobuf/arena.h>

#include <algorithm>
#include <optional>

#include "cluster/hop.h"
#include "cluster/wire.pb.h"
#include "storage/record_codec.h"

namespace kinfs::cluster {
namespace {

constexpr std::size_t kArenaBytes = 8 << 10;
constexpr std::size_t kMaxScanBytes = 4 << 20;  // with one more row of the largest size it still fits a header
constexpr std::size_t kMaxScanRows = 64 << 10;
constexpr int kMaxRows = 64 << 10;  // in one put, page, or batch of hints
constexpr int kMaxAdded = 64;       // new versions of one row in one put
constexpr int kMaxDots = 64 << 10;
constexpr int kMaxMembers = 4096;
constexpr int kMaxArguments = 256;
constexpr std::size_t kMaxNameBytes = 255;
constexpr std::size_t kMaxAddressBytes = 512;
constexpr std::size_t kMaxErrorTextBytes = 4096;
constexpr std::size_t kPublicKeyBytes = 32;
constexpr int kMaxSums = 4 * kPartitions;  // rows and blocks, with room
constexpr int kMaxBuckets = 1024;
constexpr int kMaxItems = 64 << 10;
constexpr std::size_t kMaxItemKeyBytes = 3 * kMaxKeyBytes + 64;  // an escaped partition key and a sort key

std::optional<Errc> errc_of(int code) {
  switch (code) {
    case wire::FAILURE_NOT_FOUND:
      return Errc::kNotFound;
    case wire::FAILURE_EXISTS:
      return Errc::kExists;
    case wire::FAILURE_INVALID:
      return Errc::kInvalid;
    case wire::FAILURE_NAME_TOO_LONG:
      return Errc::kNameTooLong;
    case wire::FAILURE_TOO_LARGE:
      return Errc::kTooLarge;
    case wire::FAILURE_NOT_DIRECTORY:
      return Errc::kNotDirectory;
    case wire::FAILURE_IS_DIRECTORY:
      return Errc::kIsDirectory;
    case wire::FAILURE_NOT_EMPTY:
      return Errc::kNotEmpty;
    case wire::FAILURE_NOT_PERMITTED:
      return Errc::kNotPermitted;
    case wire::FAILURE_ACCESS:
      return Errc::kAccess;
    case wire::FAILURE_UNAVAILABLE:
      return Errc::kUnavailable;
    case wire::FAILURE_TIMEOUT:
      return Errc::kTimeout;
    case wire::FAILURE_BUSY:
      return Errc::kBusy;
    case wire::FAILURE_CANCELLED:
      return Errc::kCancelled;
    case wire::FAILURE_NO_SPACE:
      return Errc::kNoSpace;
    case wire::FAILURE_CORRUPT:
      return Errc::kCorrupt;
    case wire::FAILURE_FORMAT:
      return Errc::kFormat;
    case wire::FAILURE_REFUSED:
      return Errc::kRefused;
    case wire::FAILURE_UNSUPPORTED:
      return Errc::kUnsupported;
    case wire::FAILURE_IO:
      return Errc::kIo;
    case wire::FAILURE_INTERNAL:
      return Errc::kInternal;
    default:
      return std::nullopt;
  }
}

/// Reads one header. The first thing that is wrong is kept; what is read after it means nothing and is thrown away.
class Decoder {
 public:
  Decoder(std::optional<std::uint32_t> declared, SharedBytes payload) {
    const auto size = payload ? payload->size() : 0;
    require(size <= kMaxBlockBytes, "a payload of {} bytes; at most {} are allowed", size, kMaxBlockBytes);
    require(size == declared.value_or(0), "a payload of {} bytes where the header announces {}", size,
            declared.value_or(0));
    if (declared) payload_ = payload ? std::move(payload) : share({});
  }

  const std::optional<Error>& error() const { return error_; }

  // --- requests ---
  Request request(wire::Request& in) {
    switch (in.kind_case()) {
      case wire::Request::kGet: {
        auto& get = *in.mutable_get();
        return GetRequest{VolumeId{get.volume()}, key(get.mutable_partition_key()), key(get.mutable_sort_key())};
      }
      case wire::Request::kScan: {
        auto& scan = *in.mutable_scan();
        return ScanRequest{VolumeId{scan.volume()}, key(scan.mutable_partition_key()), key(scan.mutable_from()),
                           limit(scan.limit())};
      }
      case wire::Request::kPut:
        return put(*in.mutable_put());
      case wire::Request::kPutBlock: {
        auto& put = *in.mutable_put_block();
        return PutBlockRequest{block_key(*put.mutable_key()), needed_payload(), {put.sync()}};
      }
      case wire::Request::kGetBlock:
        return GetBlockRequest{block_key(*in.mutable_get_block()->mutable_key())};
      case wire::Request::kUsage:
        return UsageRequest{};
      case wire::Request::kAdmin:
        return admin(*in.mutable_admin());
      case wire::Request::kAdmit:
        return AdmitRequest{member(*in.mutable_admit())};
      case wire::Request::kSyncBlocks:
        return SyncBlocksRequest{block_set(*in.mutable_sync_blocks())};
      case wire::Request::kChangeMember:
        return change_member(*in.mutable_change_member());
      case wire::Request::KIND_NOT_SET:
        break;
    }
    unknown("request");
    return UsageRequest{};
  }

  // --- answers ---
  Answer answer(wire::Answer& in) {
    switch (in.kind_case()) {
      case wire::Answer::kFailure:
        return failure(*in.mutable_failure());
      case wire::Answer::kGet: {
        auto& get = *in.mutable_get();
        return GetResult{row(get.row()), stat(get.stat()), get.degraded()};
      }
      case wire::Answer::kScan: {
        auto& scan = *in.mutable_scan();
        return ScanResult{rows(*scan.mutable_rows(), true), scan.complete(), stat(scan.stat()), scan.degraded()};
      }
      case wire::Answer::kPut:
        return put_result(in.put());
      case wire::Answer::kBlockStored:
        return BlockStored{in.block_stored().degraded()};
      case wire::Answer::kBlockFound:
        return BlockFound{needed_payload()};
      case wire::Answer::kUsage: {
        const auto& usage = in.usage();
        return StoreUsage{usage.total_bytes(), usage.free_bytes(), usage.rows_estimate(), usage.block_bytes()};
      }
      case wire::Answer::kAdmin:
        return AdminAnswer{std::move(*in.mutable_admin()->mutable_json())};
      case wire::Answer::kAdmitted:
        return Admitted{in.admitted().layout_number(), members(*in.mutable_admitted()->mutable_members())};
      case wire::Answer::kBlocksSynced:
        return BlocksSynced{in.blocks_synced().all()};
      case wire::Answer::KIND_NOT_SET:
        break;
    }
    unknown("answer");
    return BlockStored{};
  }

  // --- between nodes ---
  Body body(wire::NodeHeader& in) {
    switch (in.body_case()) {
      case wire::NodeHeader::kPing:
        return in.ping().has_from() ? Ping{member(*in.mutable_ping()->mutable_from())} : Ping{};
      case wire::NodeHeader::kPong:
        return pong(in.pong());
      case wire::NodeHeader::kGossip:
        return Gossip{members(*in.mutable_gossip()->mutable_members()), in.gossip().reply(),
                      layouts(in.gossip().layouts()), horizons(in.gossip())};
      case wire::NodeHeader::kReadRow: {
        auto& read = *in.mutable_read_row();
        return ReadRow{{VolumeId{read.volume()}, key(read.mutable_partition_key()), key(read.mutable_sort_key())},
                       known(read.known())};
      }
      case wire::NodeHeader::kReadRowReply:
        return read_row_reply(in.read_row_reply());
      case wire::NodeHeader::kReadPage: {
        auto& read = *in.mutable_read_page();
        return ReadPage{VolumeId{read.volume()}, key(read.mutable_partition_key()), key(read.mutable_from()),
                        limit(read.limit()), known(read.known())};
      }
      case wire::NodeHeader::kReadPageReply:
        return read_page_reply(*in.mutable_read_page_reply());
      case wire::NodeHeader::kWriteRows:
        return write_rows(*in.mutable_write_rows());
      case wire::NodeHeader::kWriteRowsReply:
        return WriteRowsReply{};
      case wire::NodeHeader::kHandOver:
        return hand_over(*in.mutable_hand_over());
      case wire::NodeHeader::kWriteBlock: {
        auto& write = *in.mutable_write_block();
        return WriteBlock{block_key(*write.mutable_key()), needed_payload(), write.sync(), nodes(write.hint_for())};
      }
      case wire::NodeHeader::kWriteBlockReply:
        return WriteBlockReply{};
      case wire::NodeHeader::kReadBlock:
        return ReadBlock{block_key(*in.mutable_read_block()->mutable_key())};
      case wire::NodeHeader::kReadBlockReply:
        return ReadBlockReply{take_payload()};
      case wire::NodeHeader::kForward:
        return Forward{request(*in.mutable_forward())};
      case wire::NodeHeader::kForwardReply:
        return ForwardReply{answer(*in.mutable_forward_reply())};
      case wire::NodeHeader::kRefusal:
        return Refusal{failure(*in.mutable_refusal())};
      case wire::NodeHeader::kComparePartitions:
        return compare_partitions(in.compare_partitions());
      case wire::NodeHeader::kComparePartitionsReply:
        return ComparePartitionsReply{indexes(in.compare_partitions_reply().differing(), kMaxSums)};
      case wire::NodeHeader::kCompareItems:
        return compare_items(*in.mutable_compare_items());
      case wire::NodeHeader::kCompareItemsReply:
        return compare_items_reply(*in.mutable_compare_items_reply());
      case wire::NodeHeader::kSyncBlocks:
        return SyncBlocks{block_set(*in.mutable_sync_blocks())};
      case wire::NodeHeader::kSyncBlocksReply:
        return SyncBlocksReply{in.sync_blocks_reply().all()};
      case wire::NodeHeader::kSyncStore:
        return SyncStore{};
      case wire::NodeHeader::kSyncStoreReply:
        return SyncStoreReply{bounded(in.mutable_sync_store_reply()->mutable_run(), kMaxNameBytes, "a start's name")};
      case wire::NodeHeader::kReap:
        return reap(*in.mutable_reap());
      case wire::NodeHeader::BODY_NOT_SET:
        break;
    }
    unknown("message");
    return Ping{};
  }

  NodeId node(std::uint64_t id) {
    require(id != 0, "a node without an id");
    return NodeId{id};
  }

  /// At the end: a payload that no part of the message asked for.
  void finish() { require(payload_ == nullptr, "a payload where the message has none"); }

 private:
  template <class... Args>
  void require(bool holds, fmt::format_string<Args...> text, Args&&... args) {
    if (!holds && !error_) error_ = Error{Errc::kCorrupt, fmt::format(text, std::forward<Args>(args)...)};
  }

  void unknown(std::string_view what) {
    if (!error_) {
      error_ =
          Error{Errc::kFormat, fmt::format("a {} of a kind that this version of kinfs does not know: upgrade", what)};
    }
  }

  template <class T>
  T taken(Result<T> result) {
    if (result) return std::move(*result);
    if (!error_) error_ = std::move(result).error();
    return T{};
  }

  Bytes bounded(std::string* in, std::size_t most, std::string_view what) {
    require(in->size() <= most, "{} of {} bytes; at most {} are allowed", what, in->size(), most);
    return std::move(*in);
  }
  Bytes key(std::string* in) { return bounded(in, kMaxKeyBytes, "a key"); }

  ReadRowReply read_row_reply(const wire::ReadRowReply& in) {
    return {row(in.row()), stat(in.stat()), in.same(), Hlc{in.floor()}};
  }
  ReadPageReply read_page_reply(wire::ReadPageReply& in) {
    require(in.same() || in.complete() || in.rows_size() > 0, "a page that was cut before it began");
    return {{rows(*in.mutable_rows(), true), in.complete()}, stat(in.stat()), in.same(), Hlc{in.floor()}};
  }

  Pong pong(const wire::Pong& in) {
    require(in.reaches_size() <= static_cast<int>(kMaxReached), "{} hosts that are reached; at most {} are allowed",
            in.reaches_size(), kMaxReached);
    Pong out{in.full(), {}};
    for (const auto node : in.reaches()) out.reaches.push_back(NodeId{node});
    return out;
  }

  void length(int size, int most, std::string_view what) {
    require(size <= most, "a list of {} {}; at most {} are allowed", size, what, most);
  }

  SharedBytes take_payload() { return std::exchange(payload_, nullptr); }
  SharedBytes needed_payload() {
    require(payload_ != nullptr, "a message with a block, but without its payload");
    return take_payload();
  }

  BlockKey block_key(wire::BlockKey& in) {
    BlockKey out;
    out.volume = VolumeId{in.volume()};
    out.file_id = bounded(in.mutable_file_id(), kMaxFileIdBytes, "a file id");
    out.span = in.span();
    out.hash = block_hash(in.hash());
    return out;
  }

  Digest256 block_hash(const std::string& in) {
    Digest256 out{};
    require(in.size() == out.size(), "a block's hash of {} bytes", in.size());
    std::copy_n(in.begin(), std::min(in.size(), out.size()), out.begin());
    return out;
  }

  BlockSet block_set(wire::BlockSet& in) {
    BlockSet out{VolumeId{in.volume()}, bounded(in.mutable_file_id(), kMaxFileIdBytes, "a file id"), in.span(), {}};
    length(in.hashes_size(), static_cast<int>(kMaxBlocksOfSet), "blocks");
    require(in.hashes_size() > 0, "a set of no blocks");
    if (error_) return out;
    out.hashes.reserve(static_cast<std::size_t>(in.hashes_size()));
    for (const auto& hash : in.hashes()) out.hashes.push_back(block_hash(hash));
    return out;
  }

  ScanLimit limit(const wire::Limit& in) {
    require(in.bytes() <= kMaxScanBytes && in.rows() > 0 && in.rows() <= kMaxScanRows,
            "a page limit of {} bytes and {} rows; allowed are {} bytes and 1 to {} rows", in.bytes(), in.rows(),
            kMaxScanBytes, kMaxScanRows);
    return {in.bytes(), in.rows()};
  }

  ChangeMemberRequest change_member(wire::ChangeMember& in) {
    const auto change = static_cast<int>(in.change());
    require(change >= wire::CHANGE_LEAVE && change <= wire::CHANGE_SHARE, "a change of a member of the kind {}",
            change);
    require(in.weight() <= kMaxWeight, "a member's weight of {}; at most {} is allowed", in.weight(), kMaxWeight);
    return {bounded(in.mutable_host(), kMaxNameBytes, "a host's name"), ChangeMemberRequest::Change(change), in.force(),
            in.weight(), bounded(in.mutable_zone(), kMaxNameBytes, "a zone's name")};
  }

  PartitionStat stat(const wire::Stat& in) { return {{in.last_hlc()}, in.last_time_ns()}; }
  Row row(const std::string& in) { return taken(decode_row(in)); }
  Layouts layouts(const std::string& in) { return in.empty() ? Layouts{} : taken(decode_layouts(in)); }

  template <class Rows>
  std::vector<std::pair<Bytes, Row>> rows(Rows& in, bool ascending) {
    length(in.size(), kMaxRows, "rows");
    std::vector<std::pair<Bytes, Row>> out;
    out.reserve(static_cast<std::size_t>(in.size()));
    for (auto& r : in) {
      if (error_) break;
      require(!ascending || out.empty() || out.back().first < r.sort_key(), "a page whose rows are not ascending");
      auto sort_key = key(r.mutable_sort_key());
      out.emplace_back(std::move(sort_key), row(r.row()));
    }
    return out;
  }

  template <class List>
  std::vector<NodeId> nodes(const List& in) {
    length(in.size(), kMaxMembers, "nodes");
    std::vector<NodeId> out;
    if (error_) return out;
    out.reserve(static_cast<std::size_t>(in.size()));
    for (const auto id : in) out.push_back(node(id));
    return out;
  }

  PutRequest put(wire::Put& in) {
    PutRequest out{VolumeId{in.volume()}, key(in.mutable_partition_key()), {}, {in.sync()}};
    length(in.rows_size(), kMaxRows, "rows");
    require(in.rows_size() > 0, "a put without rows");
    for (auto& r : *in.mutable_rows()) {
      if (error_) break;
      RowPut put;
      put.sort_key = key(r.mutable_sort_key());
      if (!r.base().empty()) put.base = row(r.base());
      length(r.add_size(), kMaxAdded, "new versions");
      for (const auto& bytes : r.add()) {
        if (error_) break;
        put.add.push_back(taken(decode_version(bytes)));
        require(put.add.back().dot == Dot{}, "a new version that has a dot already");
        require(put.add.back().event.sequence != 0, "a new version without an event");
        require(put.add.back().event.sequence < kMaxSequenceNumber, "an event with a number far too large");
      }
      require(r.previous_size() == 0 || r.previous_size() == r.add_size(), "previous events for other versions");
      put.previous.assign(r.previous().begin(), r.previous().end());
      out.rows.push_back(std::move(put));
    }
    return out;
  }

  /// `may_be_none`: an event that is covered, and superseded since, has no dot any more.
  std::vector<Dot> dots(const google::protobuf::RepeatedPtrField<wire::Dot>& in, bool may_be_none) {
    length(in.size(), kMaxDots, "dots");
    std::vector<Dot> out;
    if (error_) return out;
    out.reserve(static_cast<std::size_t>(in.size()));
    for (const auto& dot : in) {
      require(dot.counter() != 0 || (may_be_none && dot.node() == 0), "a dot without a counter");
      out.push_back({NodeId{dot.node()}, dot.counter()});
    }
    return out;
  }

  PutResult put_result(const wire::PutAnswer& in) {
    PutResult out;
    out.degraded = in.degraded();
    length(in.rows_size(), kMaxRows, "rows");
    for (const auto& r : in.rows()) {
      if (error_) break;
      require(r.clock_size() == r.added_size(), "versions without clocks");
      auto& row = out.rows.emplace_back();
      row.context = taken(decode_context(r.context()));
      row.live = dots(r.live(), false);
      row.added = dots(r.added(), true);
      for (const auto clock : r.clock()) row.clocks.push_back({clock});
      row.gone = {r.gone()};
    }
    return out;
  }

  AdminRequest admin(wire::Admin& in) {
    AdminRequest out{bounded(in.mutable_command(), kMaxNameBytes, "a command"), {}};
    length(in.arguments_size(), kMaxArguments, "arguments");
    for (auto& a : *in.mutable_arguments()) {
      if (error_) break;
      out.arguments.push_back(bounded(&a, kMaxKeyBytes, "an argument"));
    }
    return out;
  }

  Member member(wire::Member& m) {
    require(m.public_key().size() == kPublicKeyBytes, "a public key of {} bytes", m.public_key().size());
    require(m.weight() <= kMaxWeight, "a member's weight of {}; at most {} is allowed", m.weight(), kMaxWeight);
    Member out;
    out.node = node(m.node());
    out.name = bounded(m.mutable_name(), kMaxNameBytes, "a member's name");
    out.address = bounded(m.mutable_address(), kMaxAddressBytes, "a member's address");
    out.public_key = std::move(*m.mutable_public_key());
    out.weight = m.weight();
    out.zone = bounded(m.mutable_zone(), kMaxNameBytes, "a zone's name");
    require(m.incarnation() <= kMaxSequenceNumber, "a member's incarnation that is far too large");
    out.incarnation = m.incarnation();
    require(m.client_key().empty() || m.client_key().size() == kPublicKeyBytes, "a client key of {} bytes",
            m.client_key().size());
    out.client_key = std::move(*m.mutable_client_key());
    return out;
  }

  std::vector<Member> members(google::protobuf::RepeatedPtrField<wire::Member>& in) {
    length(in.size(), kMaxMembers, "members");
    std::vector<Member> out;
    for (auto& m : in) {
      if (error_) break;
      out.push_back(member(m));
    }
    return out;
  }

  // --- anti-entropy ---
  ItemKind item_kind(wire::ItemKind in) {
    require(in == wire::ITEM_ROW || in == wire::ITEM_BLOCK, "items of an unknown kind, {}", static_cast<int>(in));
    return in == wire::ITEM_BLOCK ? ItemKind::kBlock : ItemKind::kRow;
  }
  std::uint16_t partition(std::uint32_t in) {
    require(in < kPartitions, "partition {}; there are {}", in, kPartitions);
    return static_cast<std::uint16_t>(in);
  }
  std::optional<Digest128> known(const std::string& in) {
    if (in.empty()) return std::nullopt;
    return digest(in);
  }

  Digest128 digest(const std::string& in) {
    Digest128 out{};
    require(in.size() == out.size(), "a digest of {} bytes", in.size());
    std::copy_n(in.begin(), std::min(in.size(), out.size()), out.begin());
    return out;
  }
  Bytes item_key(std::string* in) { return bounded(in, kMaxItemKeyBytes, "the key of an item"); }

  template <class List>
  std::vector<std::uint32_t> indexes(const List& in, int most) {
    length(in.size(), most, "indexes");
    std::vector<std::uint32_t> out;
    if (error_) return out;
    for (const auto index : in) {
      require(out.empty() || out.back() < index, "indexes that are not ascending");
      out.push_back(index);
    }
    return out;
  }

  WriteRows write_rows(wire::WriteRows& in) {
    return {VolumeId{in.volume()}, key(in.mutable_partition_key()), rows(*in.mutable_rows(), false), in.sync(),
            nodes(in.hint_for())};
  }

  HandOver hand_over(wire::HandOver& in) {
    HandOver out{{}, in.sync()};
    for (auto& write : *in.mutable_writes()) {
      if (error_) break;
      out.writes.push_back(
          {VolumeId{write.volume()}, key(write.mutable_partition_key()), rows(*write.mutable_rows(), false)});
    }
    return out;
  }

  ComparePartitions compare_partitions(const wire::ComparePartitions& in) {
    ComparePartitions out;
    length(in.sums_size(), kMaxSums, "sums");
    for (const auto& s : in.sums()) {
      if (error_) break;
      out.sums.push_back({item_kind(s.kind()), partition(s.partition()), s.items(), digest(s.digest())});
    }
    return out;
  }

  CompareItems compare_items(wire::CompareItems& in) {
    CompareItems out{item_kind(in.kind()), partition(in.partition()), item_key(in.mutable_after()), {}, in.to_end()};
    length(in.buckets_size(), kMaxBuckets, "buckets");
    require(in.buckets_size() > 0, "a comparison without buckets");
    for (int i = 0; i < in.buckets_size() && !error_; ++i) {
      auto& b = *in.mutable_buckets(i);
      const bool open = out.to_end && i + 1 == in.buckets_size();
      const auto& before = out.buckets.empty() ? out.after : out.buckets.back().last;
      require(open ? b.last().empty() : b.last() > before, "buckets that are not ascending");
      out.buckets.push_back({item_key(b.mutable_last()), b.items(), digest(b.digest())});
    }
    return out;
  }

  template <class List>
  std::vector<Item> items(List& in) {
    std::vector<Item> out;
    length(in.size(), kMaxItems, "items");
    for (auto& item : in) {
      if (error_) break;
      require(out.empty() || out.back().key < item.key(), "items that are not ascending");
      out.push_back({item_key(item.mutable_key()), digest(item.digest())});
    }
    return out;
  }

  Reap reap(wire::Reap& in) {
    return {partition(in.partition()), bounded(in.mutable_run(), kMaxNameBytes, "a start's name"), Hlc{in.floor()},
            items(*in.mutable_items())};
  }

  std::vector<std::pair<NodeId, Hlc>> horizons(const wire::Gossip& in) {
    std::vector<std::pair<NodeId, Hlc>> out;
    require(in.horizon_size() == in.horizon_of_size(), "columns of different lengths");
    length(in.horizon_size(), kMaxMembers, "horizons");
    for (int i = 0; i < in.horizon_size() && !error_; ++i) out.emplace_back(node(in.horizon_of(i)), in.horizon(i));
    return out;
  }

  CompareItemsReply compare_items_reply(wire::CompareItemsReply& in) {
    CompareItemsReply out{indexes(in.differing(), kMaxBuckets), items(*in.mutable_items()), in.all()};
    require(out.all || !out.items.empty(), "an answer that was cut before it began");
    return out;
  }

  Error failure(wire::Failure& in) {
    const auto code = errc_of(in.code());
    require(code.has_value(), "an error of an unknown kind, {}", static_cast<int>(in.code()));
    return {code.value_or(Errc::kInternal), bounded(in.mutable_text(), kMaxErrorTextBytes, "an error's text")};
  }

  SharedBytes payload_;
  std::optional<Error> error_;
};

template <class Header>
Result<Header*> parse(google::protobuf::Arena& arena, ByteView bytes) {
  if (bytes.size() > kMaxHeaderBytes + kHopBytes) {
    return fail(Errc::kCorrupt,
                fmt::format("a header of {} bytes; at most {} are allowed", bytes.size(), kMaxHeaderBytes));
  }
  auto* header = google::protobuf::Arena::CreateMessage<Header>(&arena);
  const bool whole = header->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  // Asked first: what another version wrote need not parse.
  if (header->protocol_version() != kProtocolVersion && (whole || header->protocol_version() != 0)) {
    return fail(Errc::kFormat,
                fmt::format("a message of protocol version {}; this kinfs speaks {}: both sides must be of "
                            "releases that speak one version",
                            header->protocol_version(), kProtocolVersion));
  }
  if (!whole) return fail(Errc::kCorrupt, fmt::format("a header of {} bytes that is none of kinfs's", bytes.size()));
  return header;
}

template <class Header>
std::optional<std::uint32_t> declared_payload(const Header& header) {
  if (!header.has_payload_bytes()) return std::nullopt;
  return header.payload_bytes();
}

template <class Header>
Hop hop_of(const Header& header) {
  return {header.sender_boot(), static_cast<std::int64_t>(header.sent_us()), header.ttl_ms()};
}

/// Memory of one decoding: on the stack as far as it goes.
class Scratch {
 public:
  google::protobuf::Arena& arena() { return arena_; }

 private:
  static google::protobuf::ArenaOptions options(char* block, std::size_t size) {
    google::protobuf::ArenaOptions o;
    o.initial_block = block;
    o.initial_block_size = size;
    return o;
  }
  alignas(std::max_align_t) char block_[kArenaBytes];
  google::protobuf::Arena arena_{options(block_, sizeof block_)};
};

}  // namespace

Result<Received<Message>> receive_message(ByteView bytes, SharedBytes payload) {
  Scratch scratch;
  const auto header = parse<wire::NodeHeader>(scratch.arena(), bytes);
  if (!header) return tl::unexpected(header.error());
  auto& in = **header;
  Decoder decoder(declared_payload(in), std::move(payload));
  Received<Message> out;
  out.hop = hop_of(in);
  auto& m = out.value;
  m.from = decoder.node(in.from());
  m.to = decoder.node(in.to());
  m.id = in.id();
  m.layout = {in.layout_number(), in.layout_hash()};
  m.ttl_ms = in.ttl_ms();
  m.hlc = {in.hlc()};
  m.body = decoder.body(in);
  decoder.finish();
  if (decoder.error()) return tl::unexpected(*decoder.error());
  return out;
}

Result<Received<ClientFrame>> receive_client_frame(ByteView bytes, SharedBytes payload) {
  Scratch scratch;
  const auto header = parse<wire::ClientHeader>(scratch.arena(), bytes);
  if (!header) return tl::unexpected(header.error());
  auto& in = **header;
  Decoder decoder(declared_payload(in), std::move(payload));
  Received<ClientFrame> out;
  out.hop = hop_of(in);
  auto& frame = out.value;
  frame.id = in.id();
  frame.ttl_ms = in.ttl_ms();
  frame.hlc = {in.hlc()};
  switch (in.body_case()) {
    case wire::ClientHeader::kRequest:
      frame.body = decoder.request(*in.mutable_request());
      break;
    case wire::ClientHeader::kAnswer:
      frame.body = decoder.answer(*in.mutable_answer());
      break;
    case wire::ClientHeader::BODY_NOT_SET:
      return fail(Errc::kFormat,
                  "a frame that is neither a request nor an answer known to this version of kinfs: upgrade");
  }
  decoder.finish();
  if (decoder.error()) return tl::unexpected(*decoder.error());
  return out;
}

Result<Message> decode_message(ByteView header, SharedBytes payload) {
  auto received = receive_message(header, std::move(payload));
  if (!received) return pass(std::move(received));
  return std::move(received->value);
}

Result<ClientFrame> decode_client_frame(ByteView header, SharedBytes payload) {
  auto received = receive_client_frame(header, std::move(payload));
  if (!received) return pass(std::move(received));
  return std::move(received->value);
}

}  // namespace kinfs::cluster
