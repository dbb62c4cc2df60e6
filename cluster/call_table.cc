#include "cluster/call_table.h"

#include <algorithm>

#include "cluster/codec.h"

namespace kinfs::cluster {

Bytes row_name(const PutRequest& put, const RowPut& row) {
  Bytes name;
  append_be32(name, static_cast<std::uint32_t>(put.volume));
  append_be32(name, static_cast<std::uint32_t>(put.partition_key.size()));
  return name + put.partition_key + row.sort_key;
}

std::vector<Bytes> row_names(const Request& request) {
  std::vector<Bytes> names;
  const auto* put = std::get_if<PutRequest>(&request);
  if (put == nullptr) return names;
  for (const auto& row : put->rows) names.push_back(row_name(*put, row));
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

std::size_t answer_bytes(const Request& request) {
  constexpr std::size_t kSmall = 4096;
  if (std::holds_alternative<GetBlockRequest>(request)) return kMaxBlockBytes;
  const auto* scan = std::get_if<ScanRequest>(&request);
  return scan != nullptr ? std::clamp(scan->limit.bytes, kSmall, kMaxHeaderBytes) : kSmall;
}

bool CallTable::add(std::shared_ptr<Call> call) {
  for (const auto& row : call->rows) {
    auto& queue = row_queues_[row];
    if (!queue.empty()) ++call->rows_busy;
    queue.push_back(call->id);
  }
  if (!call->at_home) ++can_move_;
  const bool now = call->rows_busy == 0;
  calls_.emplace(call->id, std::move(call));
  return now;
}

Call* CallTable::leave(std::uint64_t id, const Bytes& row) {
  const auto it = row_queues_.find(row);
  auto& queue = it->second;
  const bool was_first = queue.front() == id;
  queue.erase(std::find(queue.begin(), queue.end(), id));
  if (queue.empty()) {
    row_queues_.erase(it);
    return nullptr;
  }
  if (!was_first) return nullptr;
  auto* next = calls_.at(queue.front()).get();
  return --next->rows_busy == 0 ? next : nullptr;
}

std::vector<std::shared_ptr<Call>> CallTable::late(std::int64_t now_ms) const {
  std::vector<std::shared_ptr<Call>> out;
  for (const auto& [id, call] : calls_) {
    if (call->deadline_ms > now_ms) break;
    out.push_back(call);
  }
  return out;
}

}  // namespace kinfs::cluster
