#include "sim/workload.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <set>

#include "cluster/hlc_clock.h"

namespace kinfs::sim {
namespace {

constexpr VolumeId kVolume{2};
constexpr std::uint32_t kPatienceMs = 4000;
constexpr std::int64_t kLoadUs = 25'000'000;

std::vector<RowKey> keys_of_run(World& world) {
  std::vector<RowKey> keys;
  const auto partitions = world.between(2, 3);
  for (std::int64_t p = 0; p < partitions; ++p) {
    const auto rows = world.between(1, 3);
    for (std::int64_t r = 0; r < rows; ++r) keys.push_back({kVolume, fmt::format("p{}", p), fmt::format("k{}", r)});
  }
  return keys;
}

// One client: one operation at a time, so that its events on a row are in order. A put whose outcome stays unknown
// is retried with the same event; when even that gives no answer, the client goes on under a new identity, because
// an event that was given up must not be taken for one that a later event has seen.
class SimClient {
 public:
  SimClient(World& world, History& history, const std::vector<RowKey>& keys, std::uint64_t number, RunResult& result)
      : world_(world),
        history_(history),
        keys_(keys),
        result_(result),
        home_(number % world.hosts()),
        identity_(number * 1000) {}

  void run_until(std::int64_t end_us) {
    end_us_ = end_us;
    next();
  }
  bool done() const { return done_; }

 private:
  struct Put {
    cluster::PutRequest request;
    std::vector<WriteId> writes;  // one for each row
    int attempts_left = 4;
    bool sent_twice = false;
  };

  /// What leaves the outcome open: everything else says that nothing was done.
  static bool indefinite(const Error& error) {
    return error.code == Errc::kTimeout || error.code == Errc::kUnavailable;
  }

  void next() {
    if (world_.now_us() >= end_us_) {
      done_ = true;
      return;
    }
    world_.after(world_.between(1'000, 180'000), [this] { operate(); });
  }

  void operate() {
    ++result_.operations;
    const auto dice = world_.chance();
    if (dice < (world_.joins() ? 0.13 : 0.08)) return put_block();
    if (dice < 0.14) return put_cold();
    if (dice < 0.24) return scan();
    const auto& key = keys_[static_cast<std::size_t>(world_.between(0, std::ssize(keys_) - 1))];
    const auto expectation = history_.expect(key);
    const auto host = some_host();
    world_.request(host, cluster::GetRequest{key.volume, key.partition_key, key.sort_key}, kPatienceMs,
                   [this, key, expectation, dice, host](std::optional<cluster::Answer> answer) {
                     const auto* got = answer ? std::get_if<GetResult>(&*answer) : nullptr;
                     if (got == nullptr) return next();
                     ++result_.answered;
                     if (got->degraded && got->row.empty()) history_.concluded_absence(host, key);
                     history_.read(key, expectation, got->row, got->degraded);
                     if (dice < 0.45) return next();
                     write_over(key, got->row);
                   });
  }

  // A key that is written once and never again: what heals it later is not another write. Or it is removed, for good.
  void put_cold() {
    if (world_.reaps() && !cold_.empty() && world_.chance() < 0.5) return remove_cold();
    const auto& near = keys_[static_cast<std::size_t>(world_.between(0, std::ssize(keys_) - 1))];
    const RowKey key{near.volume, near.partition_key, fmt::format("once{}-{}", identity_, sequence_)};
    Put put;
    put.request.volume = key.volume;
    put.request.partition_key = key.partition_key;
    put.request.options.sync = world_.chance() < 0.1;
    add_row(put, key, Row{});
    if (world_.reaps()) cold_.push_back(key);
    send(std::move(put));
  }

  void remove_cold() {
    const auto key = cold_[static_cast<std::size_t>(world_.between(0, std::ssize(cold_) - 1))];
    std::erase(cold_, key);
    world_.request(some_host(), cluster::GetRequest{key.volume, key.partition_key, key.sort_key}, kPatienceMs,
                   [this, key](std::optional<cluster::Answer> answer) {
                     const auto* got = answer ? std::get_if<GetResult>(&*answer) : nullptr;
                     if (got == nullptr) return next();
                     Put put;
                     put.request.volume = key.volume;
                     put.request.partition_key = key.partition_key;
                     put.request.options.sync = world_.chance() < 0.3;
                     add_row(put, key, got->row, true);
                     send(std::move(put));
                   });
  }

  // A reader of an old page is a writer of siblings: sometimes it thinks long.
  void write_over(const RowKey& key, const Row& shown) {
    const auto think_us = world_.chance() < 0.15 ? world_.between(0, 2'000'000) : 0;
    world_.after(think_us, [this, key, shown] {
      Put put;
      put.request.volume = key.volume;
      put.request.partition_key = key.partition_key;
      put.request.options.sync = world_.chance() < 0.3;
      add_row(put, key, shown);
      if (world_.chance() < 0.1) {
        // A batch: another row of the same partition key, of which nothing was shown.
        for (const auto& other : keys_) {
          if (other.partition_key != key.partition_key || other == key) continue;
          add_row(put, other, Row{});
          break;
        }
      }
      send(std::move(put));
    });
  }

  void add_row(Put& put, const RowKey& key, const Row& shown, bool removes = false) {
    // What is superseded: all that was shown, some of it, or nothing. One write may be there under two dots.
    std::set<WriteId> chosen;
    const auto dice = removes ? 0 : world_.chance();
    for (const auto& v : shown.versions) {
      if (dice < 0.7 || (dice < 0.9 && world_.chance() < 0.5)) chosen.insert(id_of(v));
    }
    std::vector<Dot> dots;
    Hlc above;
    for (const auto& v : shown.versions) {
      if (!chosen.contains(id_of(v))) continue;
      dots.push_back(v.dot);
      above = std::max(above, v.hlc);
    }
    const bool discard_only = !chosen.empty() && chosen.size() < shown.versions.size() && world_.chance() < 0.3;
    RowPut row{key.sort_key, superseding(shown, dots), {}};
    const bool tombstone = !discard_only && (removes || world_.chance() < 0.1);
    const auto id = history_.begin(key, chosen, discard_only, tombstone);
    put.writes.push_back(id);
    if (!discard_only) {
      Version v;
      v.event = {ClientId{identity_}, 1, ++sequence_};
      // The clock of its host may be hours behind that of whose writes it replaces.
      v.hlc = std::max(clock_.next(world_.wall_ms(home_)), Hlc{above.value + 1});
      v.host = fmt::format("host{}", home_ + 1);
      v.tombstone = tombstone;
      v.time_ns = static_cast<std::int64_t>(id);
      if (!tombstone) v.value = value_of(id);
      row.add.push_back(std::move(v));
    }
    if (world_.tracing()) {
      std::string over;
      for (const auto s : chosen) over += " " + value_of(s);
      world_.trace(fmt::format("client {} writes {} to {}/{}{}{}", identity_, value_of(id), key.partition_key,
                               key.sort_key, over.empty() ? "" : " over" + over, discard_only ? ", a discard" : ""));
    }
    put.request.rows.push_back(std::move(row));
  }

  void send(Put put) {
    --put.attempts_left;
    put.sent_twice = world_.chance() < 0.1;
    const auto request = put.request;
    world_.request(some_host(), request, kPatienceMs, [this, put](std::optional<cluster::Answer> answer) {
      const auto* done = answer ? std::get_if<PutResult>(&*answer) : nullptr;
      if (done != nullptr) {
        ++result_.answered;
        history_.acknowledged(put.writes, put.request.options.sync, done->degraded);
        if (world_.tracing())
          world_.trace(
              fmt::format("{} is acknowledged{}", value_of(put.writes.front()), done->degraded ? ", degraded" : ""));
        return next();
      }
      const auto* error = answer ? std::get_if<Error>(&*answer) : nullptr;
      if (error != nullptr && !indefinite(*error) && put.attempts_left == 3 && !put.sent_twice) {
        history_.refused(put.writes, *error);
        return next();
      }
      if (put.attempts_left > 0 && world_.chance() < 0.9) {
        world_.after(world_.between(0, 300'000), [this, put] { send(put); });
        return;
      }
      ++identity_;
      next();
    });
    // A lost answer, as the client sees it: it sends again while the first is still under way.
    if (put.sent_twice) {
      world_.request(some_host(), request, kPatienceMs, [](std::optional<cluster::Answer>) {});
    }
  }

  void scan() {
    const auto& key = keys_[static_cast<std::size_t>(world_.between(0, std::ssize(keys_) - 1))];
    std::vector<std::pair<RowKey, History::Expectation>> expected;
    for (const auto& k : keys_) {
      if (k.partition_key == key.partition_key) expected.emplace_back(k, history_.expect(k));
    }
    ScanLimit limit;
    limit.rows = static_cast<std::size_t>(world_.between(1, 40));
    world_.request(some_host(), cluster::ScanRequest{key.volume, key.partition_key, "", limit}, kPatienceMs,
                   [this, expected](std::optional<cluster::Answer> answer) {
                     const auto* page = answer ? std::get_if<ScanResult>(&*answer) : nullptr;
                     if (page == nullptr) return next();
                     ++result_.answered;
                     for (const auto& [k, e] : expected) {
                       const bool beyond =
                           !page->complete && (page->rows.empty() || k.sort_key > page->rows.back().first);
                       if (beyond) continue;
                       const auto it = std::find_if(page->rows.begin(), page->rows.end(),
                                                    [&](const auto& r) { return r.first == k.sort_key; });
                       history_.read(k, e, it == page->rows.end() ? Row{} : it->second, page->degraded);
                     }
                     next();
                   });
  }

  void put_block() {
    const auto bytes = share(fmt::format("block {} of {}", ++sequence_, identity_));
    const BlockKey key{kVolume, "file", static_cast<std::uint64_t>(world_.between(0, 3)), sha256(*bytes)};
    history_.begin_block(key, bytes);
    const bool sync = world_.chance() < 0.5;
    world_.request(some_host(), cluster::PutBlockRequest{key, bytes, {sync}}, kPatienceMs,
                   [this, key, sync](std::optional<cluster::Answer> answer) {
                     if (const auto* stored = answer ? std::get_if<cluster::BlockStored>(&*answer) : nullptr) {
                       ++result_.answered;
                       history_.acknowledged_block(key, sync, stored->degraded);
                     }
                     if (!sync && world_.chance() < 0.7) return sync_block(key);
                     next();
                   });
  }

  void sync_block(const BlockKey& key) {
    const BlockSet set{key.volume, key.file_id, key.span, {key.hash}};
    world_.request(some_host(), cluster::SyncBlocksRequest{set}, kPatienceMs,
                   [this, key](std::optional<cluster::Answer> answer) {
                     const auto* synced = answer ? std::get_if<cluster::BlocksSynced>(&*answer) : nullptr;
                     if (synced != nullptr) ++result_.answered;
                     if (synced != nullptr && synced->all) history_.synced_block(key);
                     next();
                   });
  }

  std::size_t some_host() {
    if (world_.chance() < 0.8) return home_;
    return static_cast<std::size_t>(world_.between(0, static_cast<std::int64_t>(world_.hosts()) - 1));
  }

  World& world_;
  History& history_;
  const std::vector<RowKey>& keys_;
  RunResult& result_;
  std::size_t home_;
  std::uint64_t identity_;
  std::uint64_t sequence_ = 0;
  std::vector<RowKey> cold_;
  cluster::HlcClock clock_;
  std::int64_t end_us_ = 0;
  bool done_ = false;
};

/// Hosts that are not members yet ask to be taken in, often at the same moment, each another member. Others leave, are
/// lost for good and excused, or take another share; never so many that hardly anybody is left.
class Joiners {
 public:
  explicit Joiners(World& world) : world_(world), slow_(world.chance() < 0.5) {
    again(world.between(300'000, 3'000'000));
  }

  bool idle() const { return asking_ == 0; }

 private:
  void again(std::int64_t delay_us) {
    world_.after(delay_us, [this] { ask(); });
  }
  void ask() {
    std::vector<std::size_t> members;
    std::vector<std::size_t> others;
    for (std::size_t h = 0; h < world_.hosts(); ++h) {
      // Nobody asks one that was given up: what it changes, before it hears of it, comes to nothing.
      if (world_.gone(h) || world_.given_up(h)) continue;
      (world_.joined(h) ? members : others).push_back(h);
    }
    world_.retire_who_left();
    if (members.empty()) return;
    std::shuffle(members.begin(), members.end(), world_.random());
    const bool all_at_once = world_.chance() < 0.5;
    for (std::size_t i = 0; i < others.size() && (i == 0 || all_at_once); ++i) {
      const auto host = others[i];
      world_.request(members[i % members.size()], cluster::AdmitRequest{world_.member(host)}, 3000,
                     [this, host](std::optional<cluster::Answer> answer) {
                       auto* admitted = answer ? std::get_if<cluster::Admitted>(&*answer) : nullptr;
                       if (admitted != nullptr) world_.join(host, std::move(admitted->members));
                     });
    }
    if (world_.now_us() < kLoadUs && members.size() > 2 && world_.chance() < 0.3) change(members);
    again(world_.between(100'000, slow_ ? 5'000'000 : 1'500'000));
  }
  void change(const std::vector<std::size_t>& members) {
    using Change = cluster::ChangeMemberRequest::Change;
    const auto host = members.back();
    cluster::ChangeMemberRequest request{world_.member(host).name, Change::kShare, false,
                                         static_cast<std::uint32_t>(world_.between(1, 4)), ""};
    if (world_.chance() < 0.3 && gone_ + 2 < world_.hosts()) {
      ++gone_;
      request.change = Change::kLeave;
    } else if (world_.chance() < 0.2 && gone_ + 2 < world_.hosts() && world_.all_know_what(host)) {
      ++gone_;
      request.change = Change::kExcuse;
      request.force = true;
      if (gave_up_ || !world_.outvotes_one() || world_.chance() < 0.3) {
        world_.lose_for_good(host);
      } else {
        gave_up_ = true;
        world_.give_up(host);
        world_.isolate(host);
        world_.after(world_.between(0, 4'000'000), [this] { world_.heal(); });
      }
    }
    ++asking_;
    ask_for(request);
  }
  /// Until it is done: what is lost must be excused, by whoever can.
  void ask_for(const cluster::ChangeMemberRequest& request) {
    const auto any = [&] {
      return static_cast<std::size_t>(world_.between(0, static_cast<std::int64_t>(world_.hosts()) - 1));
    };
    auto by = any();
    for (std::size_t tries = 0; tries < 20 && (!world_.joined(by) || world_.given_up(by)); ++tries) by = any();
    if (world_.given_up(by)) return again(100'000, request);
    world_.request(by, request, 3000, [this, request, by](std::optional<cluster::Answer> answer) {
      if (world_.tracing()) {
        const auto* said = answer ? std::get_if<Error>(&*answer) : nullptr;
        world_.trace(fmt::format("change {} of {} by host{}: {}", static_cast<int>(request.change), request.host,
                                 by + 1,
                                 !answer           ? "no answer"
                                 : said != nullptr ? said->text
                                                   : "done"));
      }
      const bool done = answer && std::holds_alternative<cluster::Admitted>(*answer);
      const auto* error = answer ? std::get_if<Error>(&*answer) : nullptr;
      const bool lost = world_.gone(world_.host_called(request.host));
      // And its answer was lost.
      const bool was_done =
          error != nullptr && error->code == Errc::kNotFound && (!lost || world_.says_gone(by, request.host));
      if (done || was_done || (world_.now_us() > kLoadUs && !lost)) return void(--asking_);
      again(world_.between(100'000, 1'000'000), request);
    });
  }
  void again(std::int64_t delay_us, const cluster::ChangeMemberRequest& request) {
    world_.after(delay_us, [this, request] { ask_for(request); });
  }
  World& world_;
  const bool slow_;
  std::size_t gone_ = 0, asking_ = 0;
  bool gave_up_ = false;
};

class Enemy {
 public:
  explicit Enemy(World& world) : world_(world) {}
  void run_until(std::int64_t end_us) {
    end_us_ = end_us;
    next();
  }

 private:
  void next() {
    world_.after(world_.between(300'000, 4'000'000), [this] {
      if (world_.now_us() >= end_us_) return;
      if (world_.disk_faults() && world_.chance() < 0.2) world_.back_up(some_host());
      if (world_.bit_flips() && world_.chance() < 0.5) world_.flip_a_bit(some_host());
      strike();
      next();
    });
  }

  void strike() {
    const auto host = some_host();
    const auto dice = world_.chance();
    if (dice < 0.25) {
      ++world_.faults.cuts;
      world_.trace(fmt::format("host{} is cut off", host + 1));
      world_.isolate(host);
      return world_.after(lasting(), [this] { world_.heal(); });
    }
    if (dice < 0.40) {
      const auto other = some_host();
      ++world_.faults.one_way_cuts;
      world_.trace(fmt::format("host{} -> host{} is cut", host + 1, other + 1));
      world_.cut(host, other);
      return world_.after(lasting(), [this] { world_.heal(); });
    }
    if (dice < 0.72) return crash(host, dice < 0.60);
    if (dice < 0.76) {  // everything at once
      const bool power = world_.chance() < 0.5;
      for (std::size_t h = 0; h < world_.hosts(); ++h) crash(h, power);
      return;
    }
    if (dice < 0.86) {
      world_.pause(host, true);
      return world_.after(world_.between(200'000, 3'000'000), [this, host] { world_.pause(host, false); });
    }
    if (dice < 0.93) {
      // A third of them fill all disks for a moment: then nobody takes over what one refuses.
      const bool all = world_.chance() < 0.33;
      for (std::size_t h = 0; h < world_.hosts(); ++h) {
        if (all || h == host) world_.fill_disk(h, true);
      }
      return world_.after(all ? world_.between(5'000, 400'000) : lasting(), [this, host, all] {
        for (std::size_t h = 0; h < world_.hosts(); ++h) {
          if (all || h == host) world_.fill_disk(h, false);
        }
      });
    }
    // Not together: a host that lost its disk and its clock would use its old numbers again.
    if (world_.disk_faults()) return lose_disk(host);
    ++world_.faults.clock_jumps;
    world_.set_clock(host, world_.between(-7'200'000, 7'200'000));
  }

  void crash(std::size_t host, bool power_cut) {
    world_.crash(host, power_cut);
    world_.after(world_.between(50'000, 5'000'000), [this, host] { world_.restart(host); });
  }
  void lose_disk(std::size_t host) {
    if (world_.chance() < 0.4) {
      world_.empty_disk(host);
    } else {
      world_.restore_disk(host);
    }
    if (!world_.up(host)) world_.after(world_.between(50'000, 5'000'000), [this, host] { world_.restart(host); });
  }
  std::size_t some_host() {
    return static_cast<std::size_t>(world_.between(0, static_cast<std::int64_t>(world_.hosts()) - 1));
  }
  std::int64_t lasting() { return world_.between(200'000, 8'000'000); }

  World& world_;
  std::int64_t end_us_ = 0;
};

/// Two passes of anti-entropy, and of scrub where it runs, by each host: the second ones began after everything was
/// healed.
void compare_all(World& world, History& history) {
  const auto counters = [&](std::size_t h) { return world.up(h) ? world.node(h).counters() : cluster::Counters{}; };
  std::vector<cluster::Counters> before;
  for (std::size_t h = 0; h < world.hosts(); ++h) before.push_back(counters(h));
  const auto compared = [&](std::size_t h) {
    const auto now = counters(h);
    return !world.up(h) || (now.compare_passes >= before[h].compare_passes + 2 &&
                            (!world.bit_flips() || now.scrub_passes >= before[h].scrub_passes + 2));
  };
  const bool done = world.run_until(
      [&] {
        for (std::size_t h = 0; h < world.hosts(); ++h) {
          if (!compared(h)) return false;
        }
        return true;
      },
      300'000'000);
  if (!done) history.violation("anti-entropy does not come to its end");
  history.check_converged();
  history.check_blocks();
}

/// What hosts hold and do not own goes, when its owners have it.
void surrender_all(World& world, History& history) {
  std::string held;
  for (int second = 0; second < 60; ++second) {
    held = history.not_surrendered();
    if (held.empty()) return;
    world.run_until(world.now_us() + 1'000'000);
  }
  history.violation(held + ", which it does not own, a minute after all was healed");
}

/// And what was removed is forgotten, when it is long enough ago.
void reap_all(World& world, History& history) {
  std::string kept;
  for (int second = 0; second < 60; ++second) {
    kept = history.not_reaped();
    if (kept.empty()) return;
    world.run_until(world.now_us() + 1'000'000);
  }
  history.violation(kept + ", long after all was healed");
}

// Heal everything, let hints drain. Replicas become equal by comparing what they hold, with no reads; where that is
// switched off, by one read of each key.
void finish(World& world, History& history, const std::optional<Joiners>& joiners) {
  world.calm();
  if (!world.run_until([&] { return world.idle() && (!joiners || joiners->idle()); },
                       world.joins() ? 240'000'000 : 60'000'000)) {
    history.violation("not settled within 60 s of healing:" + world.why_not_idle());
    if (world.joins()) return;
  }
  history.check_drained();
  if (world.compares()) {
    compare_all(world, history);
    surrender_all(world, history);
  }
  if (world.reaps()) reap_all(world, history);
  const auto keys = history.keys();
  std::size_t first = 0;
  while (!world.up(first)) ++first;
  std::size_t left = keys.size();
  for (const auto& key : keys) {
    const auto expectation = history.expect(key);
    world.request(first, cluster::GetRequest{key.volume, key.partition_key, key.sort_key}, 10'000,
                  [&, key, expectation](std::optional<cluster::Answer> answer) {
                    --left;
                    const auto* got = answer ? std::get_if<GetResult>(&*answer) : nullptr;
                    if (got == nullptr) return history.violation("a read of a healthy cluster was not answered");
                    history.read(key, expectation, got->row, got->degraded);
                    if (got->degraded) history.violation("a read of a healthy cluster was degraded");
                  });
  }
  const auto blocks = history.blocks_that_must_be();
  left += blocks.size();
  for (const auto& key : blocks) {
    auto host = static_cast<std::size_t>(world.between(0, static_cast<std::int64_t>(world.hosts()) - 1));
    if (!world.up(host)) host = first;
    world.request(host, cluster::GetBlockRequest{key}, 10'000, [&, key](std::optional<cluster::Answer> answer) {
      --left;
      const auto* found = answer ? std::get_if<cluster::BlockFound>(&*answer) : nullptr;
      if (found == nullptr) return history.violation("an acknowledged block cannot be read");
      history.read_block(key, found->bytes);
    });
  }
  world.run_until([&] { return left == 0; }, 20'000'000);
  world.run_until(world.now_us() + 2'000'000);  // the repairs that those reads began
  history.check_converged();
  if (world.counters().dot_clashes != 0) history.violation("a node met one dot with two contents");
}

}  // namespace

namespace {

/// N of 1, 2, 3 or 5 that there are hosts for, and R + W > N.
cluster::Quorum some_quorum(std::mt19937_64& dice, std::size_t hosts) {
  constexpr std::array<std::uint32_t, 4> kReplicas{1, 2, 3, 5};
  const auto kinds = static_cast<std::size_t>(
      std::count_if(kReplicas.begin(), kReplicas.end(), [&](std::uint32_t n) { return n <= hosts; }));
  cluster::Quorum q;
  q.n = kReplicas[dice() % kinds];
  q.r = 1 + static_cast<std::uint32_t>(dice() % q.n);
  const auto least = q.n + 1 - q.r;
  q.w = least + static_cast<std::uint32_t>(dice() % (q.n + 1 - least));
  return q;
}

}  // namespace

RunResult run_seed(const RunOptions& options) {
  std::mt19937_64 dice(options.seed * 0x9E3779B97F4A7C15ull);
  const auto chance = [&] { return std::uniform_real_distribution<double>(0, 1)(dice); };
  WorldOptions w;
  w.seed = options.seed;
  w.hosts = 3 + (chance() < 0.5 ? dice() % 3 : 0);
  w.bug = options.bug;
  w.trace = options.trace;
  w.loss = chance() < 0.5 ? 0 : chance() * 0.05;
  w.repeat = chance() < 0.5 ? 0 : chance() * 0.1;
  w.late = chance() < 0.5 ? 0 : chance() * 0.05;
  w.crash_in_effects = chance() < 0.5 ? 0 : chance() * 0.001;
  w.disk_faults = chance() < 0.2;
  w.compare_interval_ms = chance() < 0.5 ? 0 : 4000;
  if (chance() < 0.5) w.quorum = some_quorum(dice, w.hosts);
  if (chance() < 0.25 || options.members) {
    w.joins = true;
    w.hosts = 3 + dice() % 5;
    w.quorum = some_quorum(dice, w.hosts);
    if (chance() < 0.5) w.quorum = {3, 0, 0};
    if (chance() < 0.5) w.gossip_loss = chance() * 0.8;
    if (chance() < 0.5 || options.members) w.slow_blocks = 0.7;
    w.compare_interval_ms = 4000;
    w.disk_faults = false;
  }
  // Not where hosts come and go: who has a block there now is not who had it when it was acknowledged.
  w.bit_flips = w.compare_interval_ms != 0 && !w.joins && w.quorum.n != 1 && chance() < 0.25;
  if (w.compare_interval_ms != 0 && chance() < 0.7) w.reap_after_ms = 2000;

  World world(w);
  History history(world);
  RunResult result;
  result.hosts = w.hosts;
  result.quorum = w.quorum;
  const auto keys = keys_of_run(world);
  std::vector<std::unique_ptr<SimClient>> clients;
  for (std::uint64_t c = 1; c <= 4; ++c) {
    clients.push_back(std::make_unique<SimClient>(world, history, keys, c, result));
    clients.back()->run_until(kLoadUs);
  }
  std::optional<Joiners> joiners;
  if (w.joins) joiners.emplace(world);
  Enemy enemy(world);
  enemy.run_until(kLoadUs);
  world.run_until(kLoadUs);
  world.run_until([&] { return std::all_of(clients.begin(), clients.end(), [](const auto& c) { return c->done(); }); },
                  60'000'000);
  finish(world, history, joiners);
  result.violations = history.violations();
  result.faults = world.faults;
  result.counters = world.counters();
  result.true_siblings = history.true_siblings;
  return result;
}

std::string RunResult::census() const {
  const auto& f = faults;
  return fmt::format(
      "{} hosts (n {} r {} w {}), {} operations ({} answered), {} reads with siblings; puts {} ({} degraded), gets {} "
      "({} degraded), "
      "repairs {}, hints {} kept {} delivered, {} passes of anti-entropy ({} rows and {} blocks exchanged, {} and {} "
      "surrendered, {} reaped), "
      "retries collapsed {}; faults: {} cuts, {} one-way cuts, {} kills, "
      "{} power cuts ({} lost data), {} stops, {} full disks, {} clock jumps, {} emptied and {} restored disks; "
      "messages: {} lost, {} repeated, {} late",
      hosts, quorum.n, quorum.r, quorum.w, operations, answered, true_siblings, counters.puts, counters.degraded_puts,
      counters.gets, counters.degraded_reads, counters.repairs, counters.hints_kept, counters.hints_delivered,
      counters.compare_passes, counters.rows_exchanged, counters.blocks_exchanged, counters.rows_surrendered,
      counters.blocks_surrendered, counters.rows_reaped, counters.retries_collapsed, f.cuts, f.one_way_cuts, f.crashes,
      f.power_cuts, f.power_cuts_that_lost, f.pauses, f.full_disks, f.clock_jumps, f.emptied_disks, f.restored_disks,
      f.lost_messages, f.repeated_messages, f.late_messages);
}

}  // namespace kinfs::sim
