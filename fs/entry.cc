// Values of rows to bytes and back. Decoding checks every rule that encoding keeps, because a row's bytes come from
// other hosts: what passes here is never checked again.
#include "fs/entry.h"

#include <algorithm>
#include <limits>
#include <tuple>

#include "fs/format.pb.h"

namespace kinfs::fs {
namespace {

constexpr std::size_t kMaxSymlinkBytes = 4095;
constexpr std::size_t kMaxHostBytes = 255;
constexpr std::size_t kMaxNameInMarker = 255;

tl::unexpected<Error> corrupt(std::string text) { return fail(Errc::kCorrupt, std::move(text)); }

Bytes serialize(const google::protobuf::MessageLite& m) {
  Bytes out;
  m.SerializeToString(&out);
  return out;
}

template <class Message>
bool has_unknown(const Message& m) {
  return !m.GetReflection()->GetUnknownFields(m).empty();
}

template <class Message>
Result<void> parse(Message& out, ByteView bytes, const char* what) {
  if (bytes.size() > static_cast<std::size_t>(std::numeric_limits<int>::max()) ||
      !out.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return corrupt(std::string(what) + " does not parse: its bytes were cut or changed");
  }
  return {};
}

tl::unexpected<Error> too_new(const char* what) {
  return fail(Errc::kFormat, std::string(what) + " has fields that this version of kinfs does not know: upgrade");
}

template <std::size_t N>
bool read_digest(const std::string& in, std::array<std::uint8_t, N>& out) {
  if (in.empty()) return true;
  if (in.size() != N) return false;
  std::copy(in.begin(), in.end(), out.begin());
  return out != std::array<std::uint8_t, N>{};  // zero is written as nothing
}

template <std::size_t N>
void write_digest(const std::array<std::uint8_t, N>& in, std::string* out) {
  if (in != std::array<std::uint8_t, N>{}) out->assign(in.begin(), in.end());
}

void write_event(const EventId& in, format::Event& out) {
  out.set_client(static_cast<std::uint64_t>(in.client));
  out.set_boot(in.boot);
  out.set_sequence(in.sequence);
}

EventId read_event(const format::Event& in) { return {ClientId{in.client()}, in.boot(), in.sequence()}; }

Result<void> check_shape(const Entry& e) {
  if (e.blocks_synced && !e.root) return corrupt("an entry without blocks says that they are synced");
  const bool has_content = e.root.has_value() || !e.content.empty() || e.size != 0;
  if (e.type == FileType::kRegular) {
    if (e.size > kMaxFileBytes) return corrupt("an entry's size is over the limit");
    if (!e.root) {
      if (e.size > kInlineBytes || e.content.size() != e.size) return corrupt("an entry's content is not of its size");
    } else if (!e.content.empty() || e.size <= kInlineBytes || e.root->level != tree_level(e.size)) {
      return corrupt("an entry's tree does not fit its size");
    }
  } else if (e.type == FileType::kSymlink) {
    if (e.root || e.content.empty() || e.content.size() > kMaxSymlinkBytes || e.content.size() != e.size) {
      return corrupt("a symbolic link's target is not of its size, empty or over 4095 bytes");
    }
    if (e.content.find('\0') != Bytes::npos) return corrupt("a symbolic link's target has a zero byte");
  } else if (has_content) {
    return corrupt("an entry that is no file has content");
  }
  if ((e.type == FileType::kDirectory) != (e.directory_id != DirectoryId{})) {
    return corrupt("an entry has a directory's id and is none, or the other way round");
  }
  return {};
}

}  // namespace

std::uint8_t tree_level(std::uint64_t size) {
  std::uint8_t level = 0;
  for (std::uint64_t blocks = (size + kBlockBytes - 1) / kBlockBytes; blocks > 1; ++level) {
    blocks = (blocks + kFanOut - 1) / kFanOut;
  }
  return level;
}

// --- Entry ---

Bytes encode(const Entry& entry) {
  format::Entry out;
  out.set_type(static_cast<format::Entry::Type>(entry.type));
  out.set_mode(entry.mode);
  out.set_uid(entry.uid);
  out.set_gid(entry.gid);
  out.set_mtime_ns(entry.mtime_ns);
  out.set_atime_ns(entry.atime_ns);
  out.set_size(entry.size);
  write_digest(entry.file_id, out.mutable_file_id());
  out.set_content(entry.content);
  if (entry.root) {
    out.mutable_root()->set_level(entry.root->level);
    write_digest(entry.root->hash, out.mutable_root()->mutable_hash());
    out.set_blocks_synced(entry.blocks_synced);
  }
  write_digest(entry.directory_id, out.mutable_directory_id());
  out.set_generation(entry.generation);
  if (entry.branch) {
    write_event(entry.branch->event, *out.mutable_branch()->mutable_event());
    out.mutable_branch()->set_hlc(entry.branch->hlc.value);
    out.mutable_branch()->set_host(entry.branch->host);
    if (entry.branch->base != EventId{}) write_event(entry.branch->base, *out.mutable_branch()->mutable_base());
    out.mutable_branch()->set_left(entry.branch->left);
  }
  return serialize(out);
}

Result<Entry> decode_entry(ByteView bytes) {
  format::Entry in;
  if (auto ok = parse(in, bytes, "an entry"); !ok) return pass(std::move(ok));
  if (has_unknown(in) || (in.has_root() && has_unknown(in.root())) ||
      (in.has_branch() &&
       (has_unknown(in.branch()) || has_unknown(in.branch().event()) || has_unknown(in.branch().base())))) {
    return too_new("an entry");
  }
  Entry e;
  if (in.type() < format::Entry::REGULAR || in.type() > format::Entry::SOCKET) {
    return corrupt("an entry is of type " + std::to_string(in.type()) + ", which there is none of");
  }
  e.type = static_cast<FileType>(in.type());
  if (in.mode() > 07777) return corrupt("an entry's mode has more than permission bits");
  e.mode = in.mode();
  e.uid = in.uid();
  e.gid = in.gid();
  e.mtime_ns = in.mtime_ns();
  e.atime_ns = in.atime_ns();
  e.size = in.size();
  if (!read_digest(in.file_id(), e.file_id) || !read_digest(in.directory_id(), e.directory_id)) {
    return corrupt("an entry's file or directory id is not of 16 bytes");
  }
  e.content = std::move(*in.mutable_content());
  if (in.has_root()) {
    TreeRoot root;
    if (in.root().level() > std::numeric_limits<std::uint8_t>::max()) return corrupt("an entry's tree is too high");
    root.level = static_cast<std::uint8_t>(in.root().level());
    if (!read_digest(in.root().hash(), root.hash)) return corrupt("an entry's root is not of 32 bytes");
    e.root = root;
  }
  e.blocks_synced = in.blocks_synced();
  e.generation = in.generation();
  if (in.has_branch()) {
    if (in.branch().host().size() > kMaxHostBytes) return corrupt("a branch's host name is over 255 bytes");
    if (!in.branch().has_event()) return corrupt("a branch has no first event");
    e.branch = Branch{read_event(in.branch().event()), Hlc{in.branch().hlc()}, in.branch().host(),
                      read_event(in.branch().base()), in.branch().left()};
  }
  if (auto ok = check_shape(e); !ok) return pass(std::move(ok));
  return e;
}

// --- DirectoryAttributes ---

Bytes encode(const DirectoryAttributes& attributes) {
  format::DirectoryAttributes out;
  out.set_mode(attributes.mode);
  out.set_uid(attributes.uid);
  out.set_gid(attributes.gid);
  out.set_mtime_ns(attributes.mtime_ns);
  out.set_mtime_set(attributes.mtime_set.value);
  out.set_mode_set(attributes.mode_set.value);
  out.set_owner_set(attributes.owner_set.value);
  return serialize(out);
}

Result<DirectoryAttributes> decode_attributes(ByteView bytes) {
  format::DirectoryAttributes in;
  if (auto ok = parse(in, bytes, "a directory's row"); !ok) return pass(std::move(ok));
  if (has_unknown(in)) return too_new("a directory's row");
  if (in.mode() > 07777) return corrupt("a directory's mode has more than permission bits");
  return DirectoryAttributes{in.mode(),           in.uid(),           in.gid(),           in.mtime_ns(),
                             Hlc{in.mtime_set()}, Hlc{in.mode_set()}, Hlc{in.owner_set()}};
}

DirectoryAttributes merge_attributes(const Row& row) {
  // A field that was never set by hand has clock 0; the version's own clock and event then decide, so that all hosts
  // agree. Versions that cannot be decoded say nothing.
  using Rank = std::tuple<Hlc, Hlc, EventId>;
  DirectoryAttributes out;
  Rank mode, owner, mtime;
  const auto take = [](Rank& best, Hlc set, const Version& v) {
    const Rank rank{set, v.hlc, v.event};
    if (rank < best) return false;
    best = rank;
    return true;
  };
  for (const Version& v : row.versions) {
    if (v.tombstone) continue;
    const auto a = decode_attributes(v.value);
    if (!a) continue;
    if (take(mode, a->mode_set, v)) {
      out.mode = a->mode;
      out.mode_set = a->mode_set;
    }
    if (take(owner, a->owner_set, v)) {
      out.uid = a->uid;
      out.gid = a->gid;
      out.owner_set = a->owner_set;
    }
    if (take(mtime, a->mtime_set, v)) {
      out.mtime_ns = a->mtime_ns;
      out.mtime_set = a->mtime_set;
    }
  }
  return out;
}

// --- Marker ---

Bytes encode(const Marker& marker) {
  format::Marker out;
  if (marker.moved_to) out.set_moved_to(*marker.moved_to);
  for (const EventId& event : marker.left) write_event(event, *out.add_left());
  for (const Dot& dot : marker.left_dots) {
    auto& to = *out.add_left_dots();
    to.set_node(static_cast<std::uint64_t>(dot.node));
    to.set_counter(dot.counter);
  }
  out.set_generation(marker.generation);
  return serialize(out);
}

Result<Marker> decode_marker(ByteView bytes) {
  format::Marker in;
  if (auto ok = parse(in, bytes, "a removal"); !ok) return pass(std::move(ok));
  if (has_unknown(in)) return too_new("a removal");
  Marker m;
  if (in.has_moved_to()) {
    if (in.moved_to().size() > kMaxNameInMarker) return corrupt("a removal names a target over 255 bytes");
    m.moved_to = in.moved_to();
  }
  for (const auto& event : in.left()) {
    if (has_unknown(event)) return too_new("a removal");
    m.left.push_back(read_event(event));
  }
  for (const auto& dot : in.left_dots()) {
    if (has_unknown(dot)) return too_new("a removal");
    if (dot.counter() == 0) return corrupt("a removal names a version without a number");
    m.left_dots.push_back({NodeId{dot.node()}, dot.counter()});
  }
  m.generation = in.generation();
  return m;
}

// --- digests ---

Digest256 content_digest(const Entry& entry) {
  CanonicalWriter w;
  w.u64(static_cast<std::uint64_t>(entry.type));
  switch (entry.type) {
    case FileType::kRegular:
      w.u64(entry.size);
      if (entry.root) {
        w.u64(1).u64(entry.root->level).bytes(view_of(entry.root->hash));
      } else {
        w.u64(0).bytes(entry.content);
      }
      break;
    case FileType::kSymlink:
      w.bytes(entry.content);
      break;
    case FileType::kDirectory:
      w.bytes(view_of(entry.directory_id));
      break;
    case FileType::kFifo:
    case FileType::kSocket:
      break;
  }
  return sha256(w.out());
}

}  // namespace kinfs::fs
