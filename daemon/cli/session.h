// What every command of `kinfs` needs: the daemon, its answers, words for what went wrong, exit codes.
//
// Threading: the command line waits for one call at a time, on its main thread.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "cluster/socket_client.h"
#include "daemon/exit_code.h"
#include "storage/result.h"

namespace kinfs::daemon {

using Json = nlohmann::ordered_json;

/// --socket, else KINFS_SOCKET, else /run/kinfs/kinfsd.sock.
std::string socket_path_of(const std::string& option);

/// Prints "kinfs: …" on standard error.
void complain(const std::string& words);
/// The same, and what to exit with.
int give_up(const Error& error);
/// The same, for a daemon's answer that is other than this program expects.
int give_up_unreadable(const Json::exception& error);
/// One line of JSON on standard output. Bytes that are no UTF-8 appear as U+FFFD.
void print_json(const Json& json);
/// Names as one line on a terminal: control characters and what is no UTF-8 as \xNN.
std::string printable(std::string_view name);

class Session {
 public:
  /// kUnavailable, with how to start it, when there is no daemon. `timeout_ms`: of each call.
  static Result<Session> open(const std::string& socket_path, std::uint32_t timeout_ms = 10'000);
  /// A session that may write: with an identity that the daemon lends (see IdentityPool). Given back at the end,
  /// unless the outcome of a write is unknown.
  static Result<Session> open_for_writing(const std::string& socket_path);
  Session(Session&&) noexcept = default;
  ~Session();

  /// An answer of the daemon itself, as JSON.
  Result<Json> admin(const std::string& command, std::vector<std::string> arguments = {});

  /// Waits for what `start(client)` returns; the call itself is made inside the strand.
  template <class F>
  auto call(F start) {
    return cluster::wait_for(*strand_, start(*client_));
  }
  cluster::SocketClient& client() { return *client_; }
  std::mutex& strand() { return *strand_; }
  /// A write's outcome is not known: the identity is not given back, as its events may still arrive.
  void keep_identity() { slot_ = kNone; }

 private:
  static constexpr std::int64_t kNone = -1;
  Session() = default;
  static Result<Session> connect(cluster::SocketClientOptions options);

  std::unique_ptr<std::mutex> strand_;  // outlives client_
  std::unique_ptr<cluster::SocketClient> client_;
  std::int64_t slot_ = kNone;
};

}  // namespace kinfs::daemon
