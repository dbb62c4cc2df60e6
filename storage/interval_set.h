// Which numbers of each sequence have been seen: per key, half-open intervals (after, last], as few as can be.
//
// A plain version vector keeps one number per key and so claims the whole prefix. That is wrong in two places:
// a node that lost the tail of its disk writes a row again without having the dots that it lost and others
// still hold; and a client that was shown an old state writes again without its own earlier event. Both would
// discard what they never saw. Who adds a number says how far back it vouches for the gap before it; what
// nobody vouches for stays open until the missing number comes.
//
// Invariant: sorted by (key, after); intervals of one key neither overlap nor touch. Union is a join: commutative,
// associative, idempotent.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <utility>
#include <vector>

namespace kinfs {

/// Numbers are below this, whoever sent them: one more, and a block more, can always be added.
inline constexpr std::uint64_t kMaxSequenceNumber = 1ull << 62;
/// Of nodes, and of clients, in one context: far more than there ever are in good faith.
inline constexpr std::size_t kMaxIntervals = 1 << 18;

template <class Key>
struct Interval {
  Key key{};
  std::uint64_t after = 0;
  std::uint64_t last = 0;  // > after
  bool operator==(const Interval&) const = default;
};

template <class Key>
class IntervalSet {
 public:
  bool covers(const Key& key, std::uint64_t number) const {
    const auto it = reaching(key, number);
    return it != entries_.end() && it->key == key && number > it->after;
  }
  bool covers(const Interval<Key>& i) const {
    const auto it = reaching(i.key, i.last);
    return it != entries_.end() && it->key == i.key && i.after >= it->after;
  }
  /// The interval that covers this number; null when none does.
  const Interval<Key>* find(const Key& key, std::uint64_t number) const {
    return covers(key, number) ? &*reaching(key, number) : nullptr;
  }
  /// The greatest number seen of `key`; 0 when none.
  std::uint64_t last_of(const Key& key) const {
    const auto it = std::upper_bound(entries_.begin(), entries_.end(), key,
                                     [](const Key& k, const Interval<Key>& e) { return k < e.key; });
    return it == entries_.begin() || std::prev(it)->key != key ? 0 : std::prev(it)->last;
  }
  void add(Interval<Key> i) {
    if (i.last <= i.after) return;
    if (append(i)) return;
    auto it = entries_.begin() + (reaching(i.key, i.after) - entries_.cbegin());
    auto end = it;
    for (; end != entries_.end() && end->key == i.key && end->after <= i.last; ++end) {
      i.after = std::min(i.after, end->after);
      i.last = std::max(i.last, end->last);
    }
    if (it == end) {
      entries_.insert(it, i);
    } else {
      *it = i;
      entries_.erase(it + 1, end);
    }
  }
  /// Adds what lies behind everything that is here; false: it does not. Many in their order thus take linear time.
  bool append(const Interval<Key>& i) {
    if (i.last <= i.after) return false;
    if (!entries_.empty()) {
      const auto& back = entries_.back();
      if (i.key < back.key || (i.key == back.key && i.after <= back.last)) return false;
    }
    entries_.push_back(i);
    return true;
  }
  void merge(const IntervalSet& other) {
    if (entries_ == other.entries_) return;
    if (other.entries_.size() <= 2) {  // as it is nearly always: nothing is built anew
      for (const auto& i : other.entries_) add(i);
      return;
    }
    IntervalSet out;
    out.entries_.reserve(entries_.size() + other.entries_.size());
    auto a = entries_.begin();
    auto b = other.entries_.begin();
    while (a != entries_.end() || b != other.entries_.end()) {
      const bool take_a = b == other.entries_.end() || (a != entries_.end() && starts_before(*a, *b));
      out.join(take_a ? *a++ : *b++);
    }
    *this = std::move(out);
  }
  bool includes(const IntervalSet& other) const {
    return std::all_of(other.entries_.begin(), other.entries_.end(), [&](const auto& i) { return covers(i); });
  }
  bool empty() const { return entries_.empty(); }
  const std::vector<Interval<Key>>& entries() const { return entries_; }
  bool operator==(const IntervalSet&) const = default;

 private:
  using Entries = std::vector<Interval<Key>>;
  static bool starts_before(const Interval<Key>& a, const Interval<Key>& b) {
    return a.key < b.key || (a.key == b.key && a.after < b.after);
  }
  /// The first interval of `key` that ends at `number` or after it; of the next key when there is none.
  typename Entries::const_iterator reaching(const Key& key, std::uint64_t number) const {
    return std::lower_bound(entries_.begin(), entries_.end(), number, [&](const Interval<Key>& e, std::uint64_t n) {
      return e.key < key || (e.key == key && e.last < n);
    });
  }
  /// Adds what begins no earlier than the last one here.
  void join(const Interval<Key>& i) {
    if (append(i)) return;
    entries_.back().last = std::max(entries_.back().last, i.last);
  }
  Entries entries_;
};

}  // namespace kinfs
