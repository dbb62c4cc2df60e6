#include "daemon/runner.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <memory>
#include <utility>

namespace kinfs::daemon {

SyncThread::SyncThread(cluster::EventLoop& loop, Store& store,
                       std::function<void(std::vector<std::uint64_t>, Result<void>)> done)
    : loop_(loop), store_(store), done_(std::move(done)), thread_([this] { run(); }) {
  loop_.before_wait([this, guard = std::weak_ptr<bool>(alive_)] { return !guard.expired() && hand_over(); });
}

SyncThread::~SyncThread() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void SyncThread::ask(std::uint64_t token) { asked_.push_back(token); }

/// A block, its node and whatever else came together would each wait for a sync of its own.
bool SyncThread::hand_over() {
  if (asked_.empty()) return false;
  {
    const std::lock_guard lock(mutex_);
    waiting_.insert(waiting_.end(), asked_.begin(), asked_.end());
  }
  asked_.clear();
  wake_.notify_one();
  return false;
}

void SyncThread::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
    if (stop_) return;
    auto tokens = std::exchange(waiting_, {});
    lock.unlock();
    auto outcome = store_.sync();
    loop_.post([this, tokens = std::move(tokens), outcome = std::move(outcome)]() mutable {
      done_(std::move(tokens), std::move(outcome));
    });
    lock.lock();
  }
}

std::vector<SaveFailure> carry_out(std::vector<cluster::Effect> effects, Store& store, const Outputs& outputs,
                                   const std::function<void(std::uint64_t)>& ask_sync) {
  std::vector<SaveFailure> failures;
  const auto failed = [&](std::uint64_t origin) {
    return std::any_of(failures.begin(), failures.end(), [&](const auto& f) { return f.origin == origin; });
  };
  for (auto& effect : effects) {
    // A round seldom has more than a handful of origins, and failures are rarer still.
    if (!failures.empty() && failed(effect.origin)) continue;
    Result<void> saved;
    if (auto* save = std::get_if<cluster::Save>(&effect.what)) {
      saved = store.apply(save->batch);
    } else if (auto* block = std::get_if<cluster::SaveBlock>(&effect.what)) {
      saved = store.put_block(block->key, block->bytes);
    } else if (auto* sync = std::get_if<cluster::Sync>(&effect.what)) {
      ask_sync(sync->token);
    } else if (auto* send = std::get_if<cluster::Send>(&effect.what)) {
      outputs.send(send->message);
    } else if (auto* reply = std::get_if<cluster::Reply>(&effect.what)) {
      outputs.reply(reply->client, std::move(reply->answer));
    } else if (auto* are = std::get_if<cluster::MembersAre>(&effect.what)) {
      outputs.members(are->members);
    }
    if (!saved) failures.push_back({effect.origin, saved.error()});
  }
  return failures;
}

Runner::Runner(cluster::EventLoop& loop, cluster::Node& node, Store& store, Outputs outputs)
    : node_(node),
      store_(store),
      outputs_(std::move(outputs)),
      sync_(loop, store, [this](auto tokens, auto outcome) { on_synced(std::move(tokens), std::move(outcome)); }) {}

cluster::Time Runner::now() { return {cluster::EventLoop::mono_ms(), cluster::EventLoop::wall_ms()}; }

Result<void> Runner::start() {
  if (auto started = node_.start(now()); !started) return started;
  std::vector<std::uint64_t> tokens;
  auto failures = carry_out(node_.take_effects(), store_, outputs_, [&](std::uint64_t t) { tokens.push_back(t); });
  if (!failures.empty()) return tl::unexpected(std::move(failures.front().error));
  // Nothing else can go on before the reservation is on disk, so this one sync is waited for here.
  if (auto synced = store_.sync(); !synced) return synced;
  on_synced(std::move(tokens), {});
  return {};
}

void Runner::receive(cluster::Message message) {
  if (broken_) return;
  node_.receive(std::move(message), now());
  drain();
}

void Runner::request(std::uint64_t client, cluster::Request request, std::uint32_t ttl_ms) {
  if (broken_) return;
  node_.request(client, std::move(request), ttl_ms, now());
  drain();
}

void Runner::tick() {
  if (broken_) return;
  node_.tick(now());
  drain();
}

void Runner::drain() {
  // What the core says to a failed save may itself save: each of these rounds has fewer origins than the one before.
  for (auto effects = node_.take_effects(); !effects.empty(); effects = node_.take_effects()) {
    auto failures = carry_out(std::move(effects), store_, outputs_, [this](std::uint64_t token) { sync_.ask(token); });
    for (auto& failure : failures) {
      ++failed_saves_.all;
      const auto at = cluster::EventLoop::mono_ms();
      if (failure.error.code == Errc::kNoSpace) {
        ++failed_saves_.for_room;
        failed_saves_.last_for_room_ms = at;
      }
      if (last_report_ms_ < 0 || at - last_report_ms_ >= 1000) {
        spdlog::error("cannot save: {} ({} failed since start)", failure.error.text, failed_saves_.all);
        last_report_ms_ = at;
      }
      node_.save_failed(failure.origin, failure.error, now());
    }
  }
}

void Runner::on_synced(std::vector<std::uint64_t> tokens, Result<void> outcome) {
  if (broken_) return;
  if (!outcome) {
    broken_ = true;
    outputs_.fatal(outcome.error());
    return;
  }
  for (const auto token : tokens) {
    node_.synced(token, now());
    drain();
  }
}

}  // namespace kinfs::daemon
