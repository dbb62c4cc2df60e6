// What a client waits for, and the order of its puts.
//
// Invariants: a call is here from add() until take(); a put holds a place in the queue of each of its rows for as
// long, and is to be sent only while it is first in all of them.
//
// Threading: none; whoever owns it holds its lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "client/client.h"
#include "cluster/message.h"

namespace kinfs::cluster {

struct Call {
  std::uint64_t id = 0;
  SharedBytes header;
  SharedBytes payload;
  std::int64_t deadline_ms = 0;
  std::vector<Bytes> rows;    // of a put
  std::size_t rows_busy = 0;  // rows in which an earlier put is first: it waits
  int sent = 0;               // times; once for each connection
  std::string asked;          // the host whose daemon it was last sent to; empty: the own one
  std::size_t cost = 0;       // bytes that it and its answer may take on their way
  bool at_home = false;       // for the own daemon and no other
  bool again = false;         // it was refused for now, and is to be sent once more
  Promise<Answer> promise;
};

/// One byte string for each row, the same for the same row of another put.
Bytes row_name(const PutRequest& put, const RowPut& row);
/// The rows of a put, each once; none for other requests.
std::vector<Bytes> row_names(const Request& request);

/// The most bytes that its answer takes in the common case.
std::size_t answer_bytes(const Request& request);

class CallTable {
 public:
  /// Ids ascend, and with them the deadlines. Whether it is to be sent now.
  bool add(std::shared_ptr<Call> call);
  /// Null when it is not here any more. `send` is called for each that is to be sent now.
  template <class Send>
  std::shared_ptr<Call> take(std::uint64_t id, Send send) {
    auto node = calls_.extract(id);
    if (node.empty()) return nullptr;
    if (!node.mapped()->at_home) --can_move_;
    for (const auto& row : node.mapped()->rows) {
      if (auto* next = leave(id, row)) send(*next);
    }
    return std::move(node.mapped());
  }
  Call* find(std::uint64_t id) const {
    const auto it = calls_.find(id);
    return it == calls_.end() ? nullptr : it->second.get();
  }
  /// Those that are to be sent, or were.
  template <class Send>
  void each(Send send) const {
    for (const auto& [id, call] : calls_) {
      if (call->rows_busy == 0) send(*call);
    }
  }
  std::vector<std::shared_ptr<Call>> late(std::int64_t now_ms) const;
  bool empty() const { return calls_.empty(); }
  std::size_t size() const { return calls_.size(); }
  std::uint64_t first_id() const { return calls_.begin()->first; }
  std::int64_t first_deadline_ms() const { return calls_.begin()->second->deadline_ms; }
  /// How many another daemon may answer.
  std::size_t can_move() const { return can_move_; }

 private:
  Call* leave(std::uint64_t id, const Bytes& row);

  std::map<std::uint64_t, std::shared_ptr<Call>> calls_;
  std::unordered_map<Bytes, std::deque<std::uint64_t>> row_queues_;
  std::size_t can_move_ = 0;
};

}  // namespace kinfs::cluster
