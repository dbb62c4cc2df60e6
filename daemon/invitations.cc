#include "daemon/invitations.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "cluster/zmq_transport.h"
#include "storage/whole_file.h"

namespace kinfs::daemon {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxFileBytes = 4 << 20;

std::string hex_of(NodeId id) { return fmt::format("{:016x}", static_cast<std::uint64_t>(id)); }

NodeId id_of(const std::string& hex) {
  std::uint64_t id = 0;
  std::from_chars(hex.data(), hex.data() + hex.size(), id, 16);
  return NodeId{id};
}

}  // namespace

Result<Invitations> Invitations::open(std::string file) {
  Invitations out(std::move(file));
  auto text = read_whole_file(out.file_, kMaxFileBytes);
  if (!text && text.error().code == Errc::kNotFound) return out;
  if (!text) return pass(std::move(text));
  try {
    const auto json = Json::parse(*text);
    for (const auto& item : json.at("invitations")) {
      Entry e;
      e.public_key = from_hex(item.at("public_key").get<std::string>()).value_or(Bytes{});
      e.guest = cluster::node_id_of(e.public_key);
      e.expires_s = item.at("expires_s").get<std::uint64_t>();
      e.used_by = id_of(item.value("used_by", std::string()));
      e.is_open = e.used_by != NodeId{};  // whether that one was taken in is not known here
      out.entries_.push_back(std::move(e));
    }
  } catch (const Json::exception& e) {
    return fail(Errc::kCorrupt,
                fmt::format("{} cannot be read ({}); without it no invitation given so far can be used: "
                            "move it away and invite again",
                            out.file_, e.what()));
  }
  return out;
}

Result<void> Invitations::save() const {
  Json list = Json::array();
  for (const auto& e : entries_) {
    Json item = {{"public_key", to_hex(e.public_key)}, {"expires_s", e.expires_s}};
    if (e.used_by != NodeId{}) item["used_by"] = hex_of(e.used_by);
    list.push_back(std::move(item));
  }
  return write_whole_file(file_, Json{{"invitations", std::move(list)}}.dump(1) + "\n", 0600);
}

Result<cluster::KeyPair> Invitations::issue(std::uint64_t now_s, std::uint64_t expires_s) {
  std::erase_if(entries_, [&](const Entry& e) { return e.expires_s + kKeepS < now_s; });
  if (entries_.size() >= kMostOpen) {
    return fail(Errc::kBusy, fmt::format("this host has given {} invitations in the last month, and gives no more; "
                                         "another host may",
                                         entries_.size()));
  }
  auto keys = cluster::make_key_pair();
  Entry e;
  e.public_key = keys.public_key;
  e.guest = cluster::node_id_of(keys.public_key);
  e.expires_s = expires_s;
  entries_.push_back(std::move(e));
  if (auto saved = save(); !saved) {
    entries_.pop_back();
    return pass(std::move(saved));
  }
  return keys;
}

std::set<Bytes> Invitations::keys() const {
  std::set<Bytes> out;
  for (const auto& e : entries_) out.insert(e.public_key);
  return out;
}

Invitations::Entry* Invitations::find(NodeId guest) {
  const auto it = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.guest == guest; });
  return it == entries_.end() ? nullptr : &*it;
}

std::optional<Error> Invitations::begin(NodeId guest, NodeId host, std::uint64_t now_s) {
  auto* e = find(guest);
  if (e == nullptr) return Error{Errc::kRefused, "this invitation is not known here any more; ask for another one"};
  if (e->used_by != NodeId{} && e->used_by != host) {
    return Error{Errc::kRefused,
                 e->under_way > 0
                     ? "another host is joining by this invitation just now: each admits one"
                     : "this invitation was used by another host already: each admits one; ask for another"};
  }
  // One that may have been taken in asks for its answer, and may at any time.
  if (!e->is_open && e->under_way == 0 && e->expires_s < now_s) {
    return Error{Errc::kRefused, fmt::format("this invitation expired at {:%Y-%m-%d %H:%M:%S} UTC; ask for another one",
                                             fmt::gmtime(static_cast<std::time_t>(e->expires_s)))};
  }
  if (e->used_by == NodeId{}) {
    e->used_by = host;
    if (auto saved = save(); !saved) {
      e->used_by = NodeId{};
      return Error{saved.error().code, saved.error().text + ", so nobody can join by this invitation now"};
    }
  }
  ++e->under_way;
  return std::nullopt;
}

Result<void> Invitations::ended(NodeId guest, NodeId host, End end) {
  auto* e = find(guest);
  if (e == nullptr || e->used_by != host || e->under_way == 0) return {};
  --e->under_way;
  e->is_open |= end == End::kTakenIn || end == End::kUnknown;
  if (e->is_open || e->under_way > 0 || end == End::kAgain) return {};
  e->used_by = NodeId{};
  if (auto saved = save(); !saved) {
    e->used_by = host;
    e->is_open = true;
    return saved;
  }
  return {};
}

}  // namespace kinfs::daemon
