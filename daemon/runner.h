// Runs the core on an event loop: inputs in, effects carried out, in order, before the next input.
//
// Invariants:
//  - whatever the core asked to be saved is in the store before anything after it is sent or answered;
//  - when a Save or SaveBlock fails, the rest of its origin's effects in that round are skipped, and the core
//    hears of it before any other input; other origins of the round go on;
//  - no sync token is completed by a sync() that began before the token was asked for;
//  - after a failed sync() nothing is confirmed any more: the kernel may have dropped the pages that it could not
//    write, so a second attempt would succeed without having written them. The daemon ends, and comes back as
//    after a crash.
//
// Threading: everything on the loop's thread; store.sync() alone runs on a thread that the Runner owns.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "cluster/event_loop.h"
#include "cluster/node.h"
#include "storage/store.h"

namespace kinfs::daemon {

/// Where effects that leave the process go.
struct Outputs {
  std::function<void(const cluster::Message&)> send;
  std::function<void(std::uint64_t client, cluster::Answer answer)> reply;
  /// Whom to speak with from now on.
  std::function<void(const std::vector<Member>&)> members;
  /// Called once, on the loop's thread: the store cannot be trusted with anything more.
  std::function<void(const Error&)> fatal;
};

/// Since start. One for want of room was answered as such, and is over when there is room again.
struct FailedSaves {
  std::uint64_t all = 0;
  std::uint64_t for_room = 0;
  std::int64_t last_for_room_ms = -1;  // mono_ms
};

struct SaveFailure {
  std::uint64_t origin = 0;
  Error error;
};

/// fsync in groups: what is asked for in one round of the loop goes together; while one store.sync() runs, further
/// tokens gather, and the next one covers them all.
class SyncThread {
 public:
  /// `done` is called on the loop's thread, with the tokens of one sync, in the order in which they were asked.
  SyncThread(cluster::EventLoop& loop, Store& store,
             std::function<void(std::vector<std::uint64_t>, Result<void>)> done);
  /// Ends without syncing what still waits.
  ~SyncThread();
  /// On the loop's thread.
  void ask(std::uint64_t token);

 private:
  void run();

  bool hand_over();

  cluster::EventLoop& loop_;
  Store& store_;
  std::function<void(std::vector<std::uint64_t>, Result<void>)> done_;
  std::vector<std::uint64_t> asked_;                            // in this round; the loop's
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // the loop's hooks outlive this
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::uint64_t> waiting_;
  bool stop_ = false;
  std::thread thread_;
};

/// Carries out one round of effects; the failures, one for each origin that failed, in the order in which they
/// happened. `ask_sync` gets the tokens.
std::vector<SaveFailure> carry_out(std::vector<cluster::Effect> effects, Store& store, const Outputs& outputs,
                                   const std::function<void(std::uint64_t)>& ask_sync);

class Runner {
 public:
  /// All of them outlive the Runner. The loop may be destroyed only after it.
  Runner(cluster::EventLoop& loop, cluster::Node& node, Store& store, Outputs outputs);

  /// Starts the core and carries out its first effects; the error of a Save that fails here is the result.
  Result<void> start();
  void receive(cluster::Message message);
  /// `client` comes back in Outputs::reply, unless `ttl_ms` passes first: then nobody waits any more.
  void request(std::uint64_t client, cluster::Request request, std::uint32_t ttl_ms);
  void tick();

  static cluster::Time now();
  static constexpr std::int64_t kTickMs = 10;
  const FailedSaves& failed_saves() const { return failed_saves_; }

 private:
  void drain();
  void on_synced(std::vector<std::uint64_t> tokens, Result<void> outcome);

  cluster::Node& node_;
  Store& store_;
  Outputs outputs_;
  FailedSaves failed_saves_;
  std::int64_t last_report_ms_ = -1;  // of a failed save; a full disk fails thousands of times a second
  bool broken_ = false;
  SyncThread sync_;
};

}  // namespace kinfs::daemon
