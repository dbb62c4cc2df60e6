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
#include <vector>

namespace kinfs {

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
    auto it = first_of(key);
    for (; it != entries_.end() && it->key == key; ++it) {
      if (number <= it->last) return number > it->after;
    }
    return false;
  }
  bool covers(const Interval<Key>& i) const {
    auto it = first_of(i.key);
    for (; it != entries_.end() && it->key == i.key; ++it) {
      if (i.last <= it->last) return i.after >= it->after;
    }
    return false;
  }
  /// The greatest number seen of `key`; 0 when none.
  std::uint64_t last_of(const Key& key) const {
    std::uint64_t last = 0;
    for (auto it = first_of(key); it != entries_.end() && it->key == key; ++it) last = it->last;
    return last;
  }
  void add(Interval<Key> i) {
    if (i.last <= i.after) return;
    auto it = first_of(i.key);
    while (it != entries_.end() && it->key == i.key && it->last < i.after) ++it;
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
  void merge(const IntervalSet& other) {
    if (entries_ == other.entries_) return;
    for (const auto& i : other.entries_) add(i);
  }
  bool includes(const IntervalSet& other) const {
    return std::all_of(other.entries_.begin(), other.entries_.end(), [&](const auto& i) { return covers(i); });
  }
  bool empty() const { return entries_.empty(); }
  const std::vector<Interval<Key>>& entries() const { return entries_; }
  bool operator==(const IntervalSet&) const = default;

 private:
  using Entries = std::vector<Interval<Key>>;
  typename Entries::const_iterator first_of(const Key& key) const {
    return std::lower_bound(entries_.begin(), entries_.end(), key,
                            [](const Interval<Key>& e, const Key& k) { return e.key < k; });
  }
  typename Entries::iterator first_of(const Key& key) {
    return std::lower_bound(entries_.begin(), entries_.end(), key,
                            [](const Interval<Key>& e, const Key& k) { return e.key < k; });
  }
  Entries entries_;
};

}  // namespace kinfs
