#include "daemon/cli/context_token.h"

#include <array>
#include <cstdint>


namespace kinfs::daemon {
namespace {

constexpr std::string_view kMagic = "kctx1";
constexpr std::size_t kKeyBytes = 16;
constexpr std::size_t kCheckBytes = 8;

Bytes key_digest(const RowKey& key) {
  CanonicalWriter w;
  w.u64(static_cast<std::uint64_t>(key.volume)).bytes(key.partition_key).bytes(key.sort_key);
  return Bytes(view_of(md5(w.out())));
}

Bytes checksum(ByteView bytes) { return Bytes(view_of(sha256(bytes)).substr(0, kCheckBytes)); }

/// Numbers off the front of what is left.
struct In {
  ByteView left;
  bool good = true;
  std::uint64_t u64() {
    if (left.size() < 8) good = false;
    if (!good) return 0;
    const auto v = read_be64(left);
    left.remove_prefix(8);
    return v;
  }
  /// A count of things of `bytes` each: never more than what is there can hold.
  std::uint64_t count(std::size_t bytes) {
    const auto n = u64();
    if (n > left.size() / bytes) good = false;
    return good ? n : 0;
  }
};

}  // namespace

std::string encode_token(const ContextToken& token, const RowKey& key) {
  Bytes out(kMagic);
  out += key_digest(key);
  append_be64(out, token.all ? 1 : 0);
  append_be64(out, token.shown.size());
  for (const auto& dot : token.shown) {
    append_be64(out, static_cast<std::uint64_t>(dot.node));
    append_be64(out, dot.counter);
  }
  append_be64(out, token.context.nodes().size());
  for (const auto& entry : token.context.nodes()) {
    append_be64(out, static_cast<std::uint64_t>(entry.key));
    append_be64(out, entry.after);
    append_be64(out, entry.last);
  }
  append_be64(out, token.context.clients().size());
  for (const auto& entry : token.context.clients()) {
    append_be64(out, static_cast<std::uint64_t>(entry.key.client));
    append_be64(out, entry.key.boot);
    append_be64(out, entry.after);
    append_be64(out, entry.last);
  }
  return to_base64(out + checksum(out));
}

Result<ContextToken> decode_token(const std::string& word, const RowKey& key) {
  auto bytes = from_base64(word);
  const auto bad = [] {
    return fail(Errc::kInvalid,
                "this is no context that `kinfs get` printed, or part of it is missing; take the whole word after "
                "\"context\" of `kinfs get --json KEY`");
  };
  if (!bytes || bytes->size() < kMagic.size() + kKeyBytes + kCheckBytes) return bad();
  const auto body = ByteView(*bytes).substr(0, bytes->size() - kCheckBytes);
  if (checksum(body) != ByteView(*bytes).substr(body.size()) || body.substr(0, kMagic.size()) != kMagic) return bad();
  if (body.substr(kMagic.size(), kKeyBytes) != key_digest(key)) {
    return fail(Errc::kInvalid, "this context was printed for another key");
  }
  In in{body.substr(kMagic.size() + kKeyBytes)};
  ContextToken token;
  token.all = in.u64() != 0;
  for (auto n = in.count(16); n > 0; --n) {
    const NodeId node{in.u64()};
    token.shown.push_back({node, in.u64()});
  }
  // As a context is kept: in order, and no number beyond what anybody can have come to.
  const auto add = [&](const auto& interval) {
    in.good = in.good && interval.last < kMaxSequenceNumber && token.context.append(interval);
  };
  for (auto n = in.count(24); n > 0 && in.good; --n) {
    const NodeId node{in.u64()};
    const auto after = in.u64();
    add(Interval<NodeId>{node, after, in.u64()});
  }
  for (auto n = in.count(32); n > 0 && in.good; --n) {
    const ClientId client{in.u64()};
    const auto boot = in.u64();
    const auto after = in.u64();
    add(Interval<ClientBoot>{{client, boot}, after, in.u64()});
  }
  if (!in.good || !in.left.empty()) return bad();
  return token;
}

}  // namespace kinfs::daemon
