// kinfs-sim SEED | --seeds A..B: whole clusters of the real core under faults, judged from outside.
// Exit codes: 0 nothing was found, 1 something was (or was not, with --find), 2 usage.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "sim/scenario.h"
#include "sim/workload.h"

namespace {

using namespace kinfs::sim;

const std::map<std::string, PlantedBug> kBugs{
    {"ack-before-save", PlantedBug::kAckBeforeSave},
    {"forget-hint", PlantedBug::kForgetHint},
    {"prefix-supersede", PlantedBug::kPrefixSupersede},
    {"reuse-dots", PlantedBug::kReuseDots},
    {"skip-absent-repair", PlantedBug::kSkipAbsentRepair},
    {"retry-is-new-event", PlantedBug::kRetryIsNewEvent},
    {"sync-before-disk", PlantedBug::kSyncBeforeDisk},
    {"vouch-for-lost-dots", PlantedBug::kVouchForLostDots},
    {"vouch-for-unseen-events", PlantedBug::kVouchForUnseenEvents},
    {"confirm-before-sync", PlantedBug::kConfirmBeforeSync},
    {"replay-unsynced", PlantedBug::kReplayUnsynced},
    {"forget-block-hint", PlantedBug::kForgetBlockHint},
    {"trust-old-disk", PlantedBug::kTrustOldDisk},
    {"half-batch", PlantedBug::kHalfBatch},
    {"stale-sums", PlantedBug::kStaleSums},
    {"compare-skips-absent", PlantedBug::kCompareSkipsAbsent},
    {"adopt-peers-row", PlantedBug::kAdoptPeersRow},
    {"conclude-absence", PlantedBug::kConcludeAbsence},
    {"answer-before-hint", PlantedBug::kAnswerBeforeHint},
    {"sync-before-acked", PlantedBug::kSyncBeforeAcked},
    {"read-before-synced", PlantedBug::kReadBeforeSynced},
    {"drop-before-read", PlantedBug::kDropBeforeRead},
    {"vouch-for-erased-dots", PlantedBug::kVouchForErasedDots},
    {"scrub-looks-away", PlantedBug::kScrubLooksAway},
    {"surrender-unconfirmed", PlantedBug::kSurrenderUnconfirmed},
    {"keep-from-successors", PlantedBug::kKeepFromSuccessors},
    {"reap-without-horizon", PlantedBug::kReapWithoutHorizon},
    {"no-floor", PlantedBug::kNoFloor},
    {"forward-twice", PlantedBug::kForwardTwice},
    {"same-unseen", PlantedBug::kSameUnseen},
    {"take-over-first", PlantedBug::kTakeOverFirst},
};

int run_one(const RunOptions& options) {
  const auto seed = options.seed;
  const auto result = run_seed(options);
  fmt::print("seed {}: {}\n", seed, result.census());
  for (const auto& v : result.violations) fmt::print("seed {}: VIOLATION: {}\n", seed, v);
  return result.violations.empty() ? 0 : 1;
}

struct Totals {
  std::uint64_t seeds = 0, operations = 0, faults = 0, siblings = 0, lossy_cuts = 0;
  std::uint64_t degraded_puts = 0, hints = 0, repairs = 0, retries = 0;
  void add(const RunResult& r) {
    ++seeds;
    operations += r.operations;
    faults += r.faults.events();
    siblings += r.true_siblings;
    lossy_cuts += r.faults.power_cuts_that_lost;
    degraded_puts += r.counters.degraded_puts;
    hints += r.counters.hints_delivered;
    repairs += r.counters.repairs;
    retries += r.counters.retries_collapsed;
  }
  double mean(std::uint64_t sum) const {
    return seeds == 0 ? 0 : static_cast<double>(sum) / static_cast<double>(seeds);
  }
};

// `find`: stop at the first seed that finds something, and succeed then.
int run_many(std::uint64_t first, std::uint64_t last, const RunOptions& options, bool find, unsigned threads) {
  std::atomic<std::uint64_t> next{first};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  Totals totals;
  std::map<std::uint64_t, std::vector<std::string>> failed;
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::thread> workers;
  for (unsigned t = 0; t < threads; ++t) {
    workers.emplace_back([&] {
      for (std::uint64_t seed = next++; seed <= last && !stop; seed = next++) {
        auto run = options;
        run.seed = seed;
        const auto result = run_seed(run);
        const std::lock_guard lock(mutex);
        totals.add(result);
        if (result.violations.empty()) continue;
        failed.emplace(seed, result.violations);
        if (find || failed.size() >= 20) stop = true;
      }
    });
  }
  for (auto& w : workers) w.join();
  const auto seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (const auto& [seed, violations] : failed) {
    for (const auto& v : violations) fmt::print("seed {}: VIOLATION: {}\n", seed, v);
  }
  fmt::print("{} seeds in {:.1f} s ({:.0f} a minute), {} failed\n", totals.seeds, seconds,
             static_cast<double>(totals.seeds) * 60 / seconds, failed.size());
  fmt::print(
      "mean per seed: {:.1f} operations, {:.2f} faults, {:.2f} reads with siblings, {:.2f} power cuts that lost "
      "data, {:.1f} degraded puts, {:.1f} hints delivered, {:.1f} repairs, {:.2f} retries collapsed\n",
      totals.mean(totals.operations), totals.mean(totals.faults), totals.mean(totals.siblings),
      totals.mean(totals.lossy_cuts), totals.mean(totals.degraded_puts), totals.mean(totals.hints),
      totals.mean(totals.repairs), totals.mean(totals.retries));
  if (find) {
    if (failed.empty()) fmt::print("the planted bug was not found\n");
    return failed.empty() ? 1 : 0;
  }
  if (!failed.empty()) {
    fmt::print("replay one with: kinfs-sim --trace {}\n", failed.begin()->first);
    return 1;
  }
  const bool thin = totals.seeds >= 20 && (totals.mean(totals.operations) < 200 || totals.mean(totals.faults) < 3 ||
                                           totals.mean(totals.siblings) < 1 || totals.mean(totals.lossy_cuts) < 1);
  if (thin)
    fmt::print(
        "too little happened for this to prove anything: 200 operations, 3 faults, 1 sibling and 1 power "
        "cut that loses data are the least per seed\n");
  return thin ? 1 : 0;
}

/// `find`: succeed when one is not as told.
int play_all(const std::vector<std::string>& paths, const RunOptions& options, bool find) {
  int failed = 0;
  for (const auto& path : paths) {
    const auto played = play_scenario(path, options.trace, options.bug);
    fmt::print("{}: {}\n", path, played ? "as told" : played.error().text);
    failed += played ? 0 : 1;
  }
  return (failed == 0) != find ? 0 : 1;
}

std::optional<std::pair<std::uint64_t, std::uint64_t>> parse_range(const std::string& text) {
  const auto dots = text.find("..");
  if (dots == std::string::npos) return std::nullopt;
  try {
    const auto first = std::stoull(text.substr(0, dots));
    const auto last = std::stoull(text.substr(dots + 2));
    if (first > last) return std::nullopt;
    return std::pair{first, last};
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Runs whole clusters from seeds, with faults, and checks what they promise.", "kinfs-sim");
  std::uint64_t seed = 0;
  std::string seeds, bug_name;
  bool trace = false, find = false;
  unsigned threads = std::max(1u, std::thread::hardware_concurrency());
  auto* one = app.add_option("SEED", seed, "one run; a failing one prints its trace");
  auto* many = app.add_option("--seeds", seeds, "A..B: all of these");
  bool members = false;
  app.add_flag("--members", members, "hosts join and leave in each run, not in a quarter of them");
  app.add_option("--bug", bug_name, "a planted bug, to see that it is found");
  app.add_flag("--find", find, "with --bug, and --seeds or --scenario: succeed where it is found");
  std::vector<std::string> scenarios;
  app.add_option("--scenario", scenarios, "play these scenario files instead");
  app.add_flag("--trace", trace, "print every message and fault of the run");
  app.add_option("--threads", threads, "runs at a time");
  one->excludes(many);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  auto bug = PlantedBug::kNone;
  if (!bug_name.empty()) {
    const auto it = kBugs.find(bug_name);
    if (it == kBugs.end()) {
      fmt::print(stderr, "kinfs-sim: no planted bug is called '{}'; there are:", bug_name);
      for (const auto& [name, b] : kBugs) fmt::print(stderr, " {}", name);
      fmt::print(stderr, "\n");
      return 2;
    }
    bug = it->second;
  }
  if (!scenarios.empty()) return play_all(scenarios, {0, bug, trace, members}, find);
  if (many->count() > 0) {
    const auto range = parse_range(seeds);
    if (!range) {
      fmt::print(stderr, "kinfs-sim: --seeds wants A..B with A <= B, not '{}'\n", seeds);
      return 2;
    }
    return run_many(range->first, range->second, {0, bug, false, members}, find, threads);
  }
  if (one->count() == 0) {
    fmt::print(stderr, "kinfs-sim: name a SEED, or --seeds A..B\n");
    return 2;
  }
  const int rc = run_one({seed, bug, trace, members});
  if (rc != 0 && !trace) return run_one({seed, bug, true, members});
  return rc;
}
