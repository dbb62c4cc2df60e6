#include "cluster/forward.h"

#include <algorithm>

#include "storage/record_codec.h"

namespace kinfs::cluster {
namespace {

std::size_t bytes_of(const PutRequest& request) {
  std::size_t bytes = 0;
  for (const auto& row : request.rows) {
    bytes += scan_weight(row.sort_key, row.base);
    for (const auto& version : row.add) bytes += version.value.size();
  }
  return bytes;
}

}  // namespace

void Forwarder::put(const Asker& asker, PutRequest request) {
  const auto id = core_.new_id();
  const auto bytes = bytes_of(request);
  UnderWay op{asker, std::move(request), {}, {}, 0, Held(core_.bytes_held, kOperationBytes + 2 * bytes)};
  const auto owners = core_.placement.head().owners(partition_of(op.request.volume, op.request.partition_key));
  for (auto it = owners.rbegin(); it != owners.rend(); ++it) {
    if (core_.peers.healthy(*it)) op.left.push_back(*it);
  }
  under_way_.emplace(id, std::move(op));
  ask_next(id);
}

void Forwarder::ask_next(std::uint64_t id) {
  auto& op = under_way_.at(id);
  if (op.left.empty()) {
    auto last = std::move(under_way_.extract(id).mapped());
    coordinate_(last.asker, std::move(last.request));
    return;
  }
  op.asked = op.left.back();
  op.left.pop_back();
  // Twice: the coordinator itself may have to wait for a replica before it can answer.
  const auto patience_ms = 2 * core_.config.request_timeout_ms;
  op.deadline_ms = core_.now.mono_ms + patience_ms;
  core_.send(id, op.asked, id, patience_ms, Forward{op.request});
}

void Forwarder::replied(std::uint64_t id, NodeId from, ForwardReply reply) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end() || it->second.asked != from) return;
  const auto* error = std::get_if<Error>(&reply.answer);
  if (error != nullptr && (error->code == Errc::kBusy || error->code == Errc::kNoSpace || error->code == Errc::kIo)) {
    return ask_next(id);  // what one owner cannot take now another may
  }
  core_.answer(id, it->second.asker, std::move(reply.answer));
  under_way_.erase(it);
}

void Forwarder::refused(std::uint64_t id, NodeId from) {
  const auto it = under_way_.find(id);
  if (it != under_way_.end() && it->second.asked == from) ask_next(id);
}

void Forwarder::tick() {
  std::vector<std::uint64_t> late;
  for (const auto& [id, op] : under_way_) {
    if (op.deadline_ms <= core_.now.mono_ms || !core_.peers.healthy(op.asked)) late.push_back(id);
  }
  std::sort(late.begin(), late.end());
  for (const auto id : late) {
    under_way_.at(id).asker.tried_before = true;  // who does not answer may have done it
    ask_next(id);
  }
}

bool ForwardsTaken::first_time(NodeId from, std::uint64_t id) {
  auto& ids = taken_[from];
  const bool old = ids.size() == kWindow && id < *ids.begin();
  if (old || !ids.insert(id).second) return false;
  if (ids.size() > kWindow) ids.erase(ids.begin());
  return true;
}

}  // namespace kinfs::cluster
