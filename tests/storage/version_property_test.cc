// The laws of merge, on states that histories of several replicas lead to, held against the twin of history.h.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>

#include "history.h"

namespace kinfs::test {
namespace {

using Steps = std::vector<World::Step>;

}  // namespace
}  // namespace kinfs::test

namespace rc {

template <>
struct Arbitrary<kinfs::test::World::Step> {
  static Gen<kinfs::test::World::Step> arbitrary() {
    using Step = kinfs::test::World::Step;
    return gen::build<Step>(gen::set(&Step::action, gen::inRange<std::uint8_t>(0, kinfs::test::World::kActions)),
                            gen::set(&Step::a, gen::inRange<std::uint16_t>(0, 1000)),
                            gen::set(&Step::b, gen::inRange<std::uint16_t>(0, 1000)),
                            gen::set(&Step::c, gen::inRange<std::uint16_t>(0, 256)));
  }
};

}  // namespace rc

namespace kinfs::test {

void showValue(const World::Step& s, std::ostream& os) {
  static constexpr const char* kNames[] = {"put", "blind", "discard", "retry", "exchange", "deliver", "show", "lose"};
  os << kNames[s.action % World::kActions] << "(" << s.a << "," << s.b << "," << s.c << ")";
}

namespace {

void expect_twin(const World& world, const State& state) {
  const auto live = world.live(state.history);
  std::set<EventId> events;
  for (const Version& v : state.row.versions) {
    events.insert(v.event);
    const auto it = live.find(v.event);
    RC_ASSERT(it != live.end());            // exact supersession: nothing discarded is left
    RC_ASSERT(it->second.contains(v.dot));  // and nothing was made up
  }
  RC_ASSERT(events.size() == live.size());  // nothing unseen, nothing merely concurrent, was discarded
}

void expect_invariants(const Row& row) {
  for (const Version& v : row.versions) {
    RC_ASSERT(row.context.covers(v.dot));
    RC_ASSERT(row.context.covers(v.event));
  }
  RC_ASSERT(std::is_sorted(row.versions.begin(), row.versions.end(),
                           [](const Version& x, const Version& y) { return x.dot < y.dot; }));
  RC_ASSERT(!has_dot_clash(row));
}

/// What a context covers is exactly what was seen: neither a dot or event more, nor one less.
void expect_context(const World& world, const State& state) {
  std::set<EventId> events;
  for (const std::size_t i : state.history) {
    if (world.operations()[i].dot.counter != 0) events.insert(world.operations()[i].event);
  }
  for (std::size_t i = 0; i < world.operations().size(); ++i) {
    const Operation& o = world.operations()[i];
    if (o.dot.counter == 0) continue;
    RC_ASSERT(state.row.context.covers(o.dot) == state.history.contains(i));
    RC_ASSERT(state.row.context.covers(o.event) == events.contains(o.event));
  }
}

/// Runs a history and gives each test a few of its states.
struct Run {
  World world;

  explicit Run(const Steps& steps) {
    for (const auto& step : steps) world.run(step);
  }
  const State& pick() const { return world.states()[*rc::gen::inRange<std::size_t>(0, world.states().size())]; }
};

Steps steps() { return *rc::gen::scale(3.0, rc::gen::arbitrary<Steps>()); }

RC_GTEST_PROP(MergeProperty, EveryStateIsWhatItsHistorySays, ()) {
  const Run run(steps());
  for (const State& s : run.world.states()) {
    expect_twin(run.world, s);
    expect_invariants(s.row);
    expect_context(run.world, s);
  }
}

RC_GTEST_PROP(MergeProperty, JoiningAnyTwoStatesIsTheUnionOfTheirHistories, ()) {
  const Run run(steps());
  for (int i = 0; i < 8; ++i) {
    const State both = joined(run.pick(), run.pick());
    expect_twin(run.world, both);
    expect_invariants(both.row);
    expect_context(run.world, both);
  }
}

RC_GTEST_PROP(MergeProperty, CommutativeAssociativeIdempotent, ()) {
  const Run run(steps());
  for (int i = 0; i < 8; ++i) {
    const Row& a = run.pick().row;
    const Row& b = run.pick().row;
    const Row& c = run.pick().row;
    RC_ASSERT(merge(a, a) == a);
    RC_ASSERT(merge(a, b) == merge(b, a));
    RC_ASSERT(merge(a, merge(b, c)) == merge(merge(a, b), c));
    RC_ASSERT(merge(a, merge(a, b)) == merge(a, b));
    RC_ASSERT(merge(a, Row{}) == a);
  }
}

RC_GTEST_PROP(MergeProperty, SupersedingRemovesExactlyWhatWasNamedWhereverItArrives, ()) {
  const Run run(steps());
  const Row& shown = run.pick().row;
  const Row& elsewhere = run.pick().row;
  std::vector<Dot> named;
  for (const Version& v : shown.versions) {
    if (*rc::gen::arbitrary<bool>()) named.push_back(v.dot);
  }
  const Row sent = superseding(shown, named);
  const Row before = merge(shown, elsewhere);
  const Row after = merge(sent, elsewhere);
  const Row late = merge(sent, before);
  for (const Version& v : before.versions) {
    // One event under two dots is one version: naming one dot of it does not discard it.
    const bool gone = shown.has_event(v.event) && !sent.has_event(v.event);
    RC_ASSERT(after.has_event(v.event) == !gone);
    RC_ASSERT(late.has_event(v.event) == !gone);
  }
}

RC_GTEST_PROP(MergeProperty, ComparingContextsIsInclusionOfWhatWasSeen, ()) {
  const Run run(steps());
  const auto seen = [&](const State& s) {
    std::set<Dot> dots;
    for (const std::size_t i : s.history) {
      if (run.world.operations()[i].dot.counter != 0) dots.insert(run.world.operations()[i].dot);
    }
    return dots;
  };
  const State& a = run.pick();
  const State& b = run.pick();
  const auto in_a = seen(a), in_b = seen(b);
  const bool le = std::includes(in_b.begin(), in_b.end(), in_a.begin(), in_a.end());
  const bool ge = std::includes(in_a.begin(), in_a.end(), in_b.begin(), in_b.end());
  const auto expected = le && ge ? std::partial_ordering::equivalent
                        : le     ? std::partial_ordering::less
                        : ge     ? std::partial_ordering::greater
                                 : std::partial_ordering::unordered;
  RC_ASSERT(a.row.context.compare(b.row.context) == expected);
}

RC_GTEST_PROP(MergeProperty, FingerprintsAreEqualExactlyWhenRowsAre, ()) {
  const Run run(steps());
  const Row& a = run.pick().row;
  const Row& b = run.pick().row;
  RC_ASSERT((a.fingerprint() == b.fingerprint()) == (a == b));
}

// --- Intervals, against plain sets of numbers ---

using Numbers = std::set<std::pair<int, std::uint64_t>>;

struct Seen {
  IntervalSet<int> intervals;
  Numbers numbers;
};

Seen random_seen() {
  Seen seen;
  const auto adds = *rc::gen::container<std::vector<std::tuple<int, int, int>>>(
      rc::gen::tuple(rc::gen::inRange(0, 3), rc::gen::inRange(0, 20), rc::gen::inRange(0, 5)));
  for (const auto& [key, after, length] : adds) {
    const auto first = static_cast<std::uint64_t>(after), last = static_cast<std::uint64_t>(after + length);
    seen.intervals.add({key, first, last});
    for (auto n = first + 1; n <= last; ++n) seen.numbers.insert({key, n});
  }
  return seen;
}

void expect_numbers(const IntervalSet<int>& intervals, const Numbers& numbers) {
  for (int key = 0; key < 4; ++key) {
    std::uint64_t last = 0;
    for (std::uint64_t n = 0; n < 30; ++n) {
      RC_ASSERT(intervals.covers(key, n) == numbers.contains({key, n}));
      if (numbers.contains({key, n})) last = n;
    }
    RC_ASSERT(intervals.last_of(key) == last);
  }
  // As few as can be, in order: so equal sets are equal values, and equal encodings.
  const auto& e = intervals.entries();
  for (std::size_t i = 0; i < e.size(); ++i) {
    RC_ASSERT(e[i].after < e[i].last);
    if (i > 0) RC_ASSERT(e[i - 1].key < e[i].key || (e[i - 1].key == e[i].key && e[i - 1].last < e[i].after));
  }
}

RC_GTEST_PROP(IntervalProperty, TheyAreSetsOfNumbers, ()) {
  const Seen a = random_seen(), b = random_seen();
  expect_numbers(a.intervals, a.numbers);
  IntervalSet<int> both = a.intervals;
  both.merge(b.intervals);
  Numbers all = a.numbers;
  all.insert(b.numbers.begin(), b.numbers.end());
  expect_numbers(both, all);
  RC_ASSERT(a.intervals.includes(b.intervals) ==
            std::includes(a.numbers.begin(), a.numbers.end(), b.numbers.begin(), b.numbers.end()));
  RC_ASSERT((a.intervals == b.intervals) == (a.numbers == b.numbers));
}

RC_GTEST_PROP(MergeProperty, HistoriesReachWhatTheyAreMeantToReach, ()) {
  // Not a law: a census, so that a generator that no longer makes siblings or twins is noticed.
  const Run run(steps());
  bool siblings = false, twins = false, discarded = false;
  for (const State& s : run.world.states()) {
    std::set<EventId> events;
    for (const Version& v : s.row.versions) events.insert(v.event);
    siblings |= events.size() > 1;
    twins |= events.size() < s.row.versions.size();
    discarded |= s.row.versions.empty() && !s.row.context.empty();
  }
  RC_CLASSIFY(siblings, "siblings");
  RC_CLASSIFY(twins, "one event under two dots");
  RC_CLASSIFY(discarded, "everything discarded");
  static int runs = 0, with_siblings = 0, with_twins = 0, with_discards = 0;
  ++runs;
  with_siblings += siblings;
  with_twins += twins;
  with_discards += discarded;
  if (runs >= 100) {
    RC_ASSERT(with_siblings * 10 > runs);
    RC_ASSERT(with_twins * 20 > runs);
    RC_ASSERT(with_discards * 20 > runs);
  }
}

}  // namespace
}  // namespace kinfs::test
