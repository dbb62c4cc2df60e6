#include "cluster/invitation.h"

#include <algorithm>

#include "cluster/wire.pb.h"
#include "storage/base64.h"

namespace kinfs::cluster {
namespace {

constexpr std::string_view kPrefix = "kinfs-";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kCheckBytes = 4;  // against typing errors alone
constexpr std::size_t kMaxWord = 4096;
constexpr std::size_t kMaxText = 256;

Bytes check_sum(ByteView bytes) { return Bytes(view_of(sha256(bytes)).substr(0, kCheckBytes)); }

bool good_text(const std::string& text) {
  return !text.empty() && text.size() <= kMaxText &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return c > 0x20 && c < 0x7f; });
}

/// '-' and '_' for '+' and '/', and no padding: no part of it means anything to a shell.
std::string to_word(ByteView bytes) {
  auto text = to_base64(bytes);
  std::replace(text.begin(), text.end(), '+', '-');
  std::replace(text.begin(), text.end(), '/', '_');
  while (text.ends_with('=')) text.pop_back();
  return text;
}

Result<Bytes> from_word(std::string text) {
  std::replace(text.begin(), text.end(), '-', '+');
  std::replace(text.begin(), text.end(), '_', '/');
  while (text.size() % 4 != 0) text.push_back('=');
  return from_base64(text);
}

}  // namespace

std::string encode_invitation(const Invitation& invitation) {
  wire::Invitation out;
  out.set_version(kVersion);
  out.set_cluster_id(invitation.cluster_id);
  out.set_copies(invitation.copies);
  out.set_expires_s(invitation.expires_s);
  out.set_host(invitation.host);
  out.set_address(invitation.address);
  out.set_public_key(invitation.public_key);
  out.set_secret_key(invitation.secret_key);
  const auto bytes = out.SerializeAsString();
  return std::string(kPrefix) + to_word(bytes + check_sum(bytes));
}

Result<Invitation> decode_invitation(const std::string& word) {
  if (!word.starts_with(kPrefix) || word.size() > kMaxWord) {
    return fail(
        Errc::kInvalid,
        "this is no invitation: one begins with kinfs- and is what `kinfs invite` prints on a host of the cluster");
  }
  const auto bytes = from_word(word.substr(kPrefix.size()));
  const auto body = bytes && bytes->size() > kCheckBytes ? ByteView(*bytes).substr(0, bytes->size() - kCheckBytes) : "";
  if (body.empty() || check_sum(body) != bytes->substr(body.size())) {
    return fail(Errc::kInvalid, "this invitation is not whole: copy all of the word that `kinfs invite` printed");
  }
  wire::Invitation in;
  if (!in.ParseFromArray(body.data(), static_cast<int>(body.size())) || in.version() != kVersion) {
    return fail(Errc::kInvalid, "this invitation is of a version of kinfs that this one does not know: upgrade");
  }
  Invitation out{in.cluster_id(), in.copies(),     in.expires_s(), in.host(),
                 in.address(),    in.public_key(), in.secret_key()};
  if (!good_text(out.cluster_id) || !good_text(out.host) || !good_text(out.address) || out.copies < 1 ||
      out.copies > 15 || out.public_key.size() != kKeyBytes || out.secret_key.size() != kKeyBytes) {
    return fail(Errc::kInvalid, "this invitation makes no sense: was it made by kinfs?");
  }
  return out;
}

}  // namespace kinfs::cluster
