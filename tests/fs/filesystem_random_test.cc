// Three hosts, two processes on each, random saves, appends, moves and removals of a few names, with cuts: nothing that
// was acknowledged is lost unless somebody who had seen it replaced or removed it.
//
// Every write brings a line of its own. The checker stands outside: it knows what each process has read under each
// name, and what a name showed when something was done to it, and from that alone which lines may be gone. The kernel
// is played too: it goes on using a cached name's number until its time is over, or until it is told.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <sstream>

#include "mount_fixture.h"

namespace kinfs::fs::test {
namespace {

using Lines = std::set<std::string>;

Lines lines_of(const std::string& content) {
  Lines out;
  std::istringstream in(content);
  for (std::string line; std::getline(in, line);) out.insert(line);
  return out;
}

std::string flat(const Lines& lines) {
  std::string out;
  for (const auto& line : lines) out += (out.empty() ? "" : ", ") + line;
  return out.empty() ? "nothing" : out;
}
std::string flat(const std::string& content) { return flat(lines_of(content)); }

/// A mount with the kernel's cache of names in front.
struct Host {
  Mount* mount = nullptr;
  struct Dentry {
    std::uint64_t node;
    std::int64_t until_ms;
  };
  std::map<std::string, Dentry> dentries;
  std::map<std::pair<std::uint32_t, std::string>, Lines> seen;  // by process and name: what its next save may replace
};

class Random : public Hosts {
 protected:
  Random() {
    hosts_[0].mount = &a;
    hosts_[1].mount = &b;
    hosts_[2].mount = &c;
  }

  std::size_t draw(std::size_t below) { return std::uniform_int_distribution<std::size_t>(0, below - 1)(random_); }

  /// As a path walk does it. 0: no such name.
  std::uint64_t walk(Host& host, const std::string& name) {
    if (!host.mount->fs.take_stale_names().empty()) host.dentries.clear();
    const auto it = host.dentries.find(name);
    if (it != host.dentries.end() && cluster.now_ms() < it->second.until_ms) return it->second.node;
    const auto found = cluster.wait(host.mount->fs.lookup(kRootNode, name, host.mount->caller));
    if (!found || found->attr.node == 0) {
      host.dentries.erase(name);
      return 0;
    }
    host.dentries[name] = {found->attr.node, cluster.now_ms() + found->valid_ms};
    return found->attr.node;
  }
  Result<Mount::Open> open(Host& host, const std::string& name, OpenFlags flags) {
    for (int attempt = 0;; ++attempt) {
      const auto node = walk(host, name);
      if (node == 0) return fail(Errc::kNotFound, name);
      const auto opened = cluster.wait(host.mount->fs.open(node, flags, host.mount->caller));
      if (opened) return Mount::Open{node, opened->handle};
      if (opened.error().code != Errc::kNotFound || attempt > 0) return tl::unexpected(opened.error());
      host.dentries.erase(name);  // ESTALE
    }
  }
  /// What a program sees that nobody knows; it leaves no trace.
  std::string peek(Host& host, const std::string& name) {
    const auto caller = std::exchange(host.mount->caller.thread, 0);
    std::string out;
    if (const auto file = open(host, name, OpenFlags{true, false, false, false})) {
      out = host.mount->read_at(*file);
      (void)host.mount->close(*file);
    }
    host.mount->caller.thread = caller;
    return out;
  }
  void may_go(const Lines& lines) { replaced_.insert(lines.begin(), lines.end()); }
  /// What the process may replace by saving under `name`.
  Lines known(Host& host, const std::string& name) {
    const auto it = host.seen.find({host.mount->caller.thread / 10, name});
    return it != host.seen.end() ? it->second : lines_of(peek(host, name));
  }
  /// What a mount has written, and what it wrote upon, counts as seen by all its processes, under all names of the row.
  void wrote(Host& host, const std::string& name, const std::string& line, Lines upon) {
    written_.insert(line);
    upon.insert(line);
    for (auto& [who, lines] : host.seen) {
      if (row_of(who.second) == row_of(name)) lines.insert(upon.begin(), upon.end());
    }
  }
  /// What happened, for a seed that was asked for alone.
  void tell(const Host& host, const std::string& what) {
    if (!telling_) return;
    std::fprintf(stderr, "%lld host%td/%u %s\n", static_cast<long long>(cluster.now_ms() % 1'000'000),
                 &host - hosts_ + 1, host.mount->caller.thread / 10, what.c_str());
    for (std::size_t i = 0; i < 3; ++i) {
      std::string all;
      for (const auto& [key, row] : cluster.rows(i)) {
        const std::string plain(name_of(key.sort_key));
        if (plain.empty()) continue;
        for (const auto& shown : view_of(row, plain).names) all += shown.name + "=" + flat(shown.entry.content) + "; ";
      }
      std::fprintf(stderr, "      %zu: %s\n", i + 1, all.c_str());
    }
  }
  std::string new_line() { return "line " + std::to_string(++lines_); }

  std::string some_name(Host& host) {
    static const std::vector<std::string> kNames = {"x.c", "y", "z.tar.gz"};
    auto names = host.mount->ls();
    if (names.empty() || draw(3) == 0) return kNames[draw(kNames.size())];
    return names[draw(names.size())];
  }
  static std::string row_of(const std::string& name) {
    const auto parsed = parse_sibling_name(name);
    return parsed ? parsed->plain_name : name;
  }

  void read(Host& host, const std::string& name) {
    const auto file = open(host, name, OpenFlags{true, false, false, false});
    if (!file) return;
    const auto content = host.mount->read_at(*file);
    host.seen[{host.mount->caller.thread / 10, name}] = lines_of(content);
    tell(host, "read " + name + ": " + flat(content));
    (void)host.mount->close(*file);
  }
  void save(Host& host, const std::string& name) {
    const auto line = new_line();
    const auto before = known(host, name);
    auto file = open(host, name, OpenFlags{false, true, true, false});
    if (!file && file.error().code == Errc::kNotFound) {
      if (parse_sibling_name(name)) return;
      file = host.mount->create(name);
    }
    if (!file) return;
    ASSERT_TRUE(host.mount->write_at(*file, 0, line + "\n"));
    ASSERT_TRUE(host.mount->close(*file));
    may_go(before);
    wrote(host, name, line, {});
    tell(host, "save " + name + ": " + line + ", over " + flat(before));
  }
  void append(Host& host, const std::string& name) {
    const auto line = new_line();
    const auto file = open(host, name, OpenFlags{true, true, false, false});
    if (!file) return;
    const auto upon = lines_of(host.mount->read_at(*file));
    host.seen[{host.mount->caller.thread / 10, name}] = upon;
    ASSERT_TRUE(host.mount->write_at(*file, 0, line + "\n", true));
    ASSERT_TRUE(host.mount->close(*file));
    wrote(host, name, line, upon);
    tell(host, "append to " + name + ": " + line);
  }
  void remove(Host& host, const std::string& name) {
    const auto before = lines_of(peek(host, name));
    if (host.mount->rm(name)) {
      may_go(before);
      tell(host, "rm " + name + ": " + flat(before));
    }
    host.dentries.erase(name);
  }
  void move(Host& host, const std::string& from, const std::string& to) {
    if (from == to) return;
    const bool choosing = row_of(from) == row_of(to);  // what it is over is what is shown now, plain: all there is
    Lines before = choosing ? Lines{} : known(host, to);
    for (const auto& name : host.mount->ls()) {
      if (!choosing || row_of(name) != row_of(to) || (to != row_of(to) && name != to)) continue;
      host.dentries.erase(name);  // whoever chooses has looked at what there is
      const auto more = lines_of(peek(host, name));
      before.insert(more.begin(), more.end());
    }
    const auto moving = lines_of(peek(host, from));
    if (host.mount->mv(from, to)) {
      may_go(before);
      tell(host, "mv " + from + " " + to + ": " + flat(moving) + ", over " + flat(before));
      for (auto& [who, lines] : host.seen) {
        if (who.second == to) lines.insert(moving.begin(), moving.end());
      }
    }
    host.dentries.erase(from);
    host.dentries.erase(to);
  }

  void step() {
    auto& host = hosts_[draw(3)];
    host.mount->caller.thread = draw(2) == 0 ? 10 : 20;
    switch (draw(12)) {
      case 0: case 1: return read(host, some_name(host));
      case 2: case 3: case 4: return save(host, some_name(host));
      case 5: case 6: return append(host, some_name(host));
      case 7: return remove(host, some_name(host));
      case 8: return move(host, some_name(host), some_name(host));
      case 9: return later(static_cast<std::int64_t>(draw(1500)));
      case 10:
        if (draw(2) != 0) return;
        tell(host, "is cut off");
        return cut(*host.mount);
      default:
        if (draw(3) != 0) return;
        tell(host, "all meet again");
        heal();
    }
  }

  /// Every name has a number of its own and, under it, its own bytes; all hosts show the same.
  void check(std::uint64_t seed) {
    heal();
    std::map<std::string, std::string> first;
    for (auto& host : hosts_) {
      std::map<std::string, std::string> files;
      std::set<std::uint64_t> nodes;
      for (const auto& name : host.mount->ls()) {
        files[name] = peek(host, name);
        EXPECT_TRUE(nodes.insert(walk(host, name)).second) << "seed " << seed << ": " << name << " shares its number";
        const auto attr = cluster.wait(host.mount->fs.getattr(walk(host, name)));
        ASSERT_TRUE(attr) << "seed " << seed << ": " << name;
        EXPECT_EQ(attr->size, files[name].size()) << "seed " << seed << ": " << name;
      }
      if (&host == &hosts_[0]) first = files;
      EXPECT_EQ(files, first) << "seed " << seed;
    }
    Lines there;
    for (const auto& [name, content] : first) tell(hosts_[0], "at last " + name + ": " + flat(content));
    for (const auto& [name, content] : first) there.merge(lines_of(content));
    for (const auto& line : written_) {
      EXPECT_TRUE(there.contains(line) || replaced_.contains(line)) << "seed " << seed << ": " << line << " is lost";
    }
  }

  void play(std::uint64_t seed) {
    random_.seed(seed);
    for (int i = 0; i < 60 && !HasFatalFailure(); ++i) {
      step();
      cluster.advance_ms(static_cast<std::int64_t>(draw(200)));
    }
    check(seed);
  }

  std::mt19937_64 random_;
  Host hosts_[3];
  Lines written_, replaced_;
  std::uint64_t lines_ = 0;
  const bool telling_ = std::getenv("KINFS_SEED") != nullptr;
};

/// KINFS_SEED: one seed instead of all. KINFS_SEEDS: so many.
class Seeds : public Random, public ::testing::WithParamInterface<std::uint64_t> {};

TEST_P(Seeds, NothingIsLostUnseen) { play(GetParam()); }

std::vector<std::uint64_t> seeds() {
  if (const char* one = std::getenv("KINFS_SEED")) return {std::strtoull(one, nullptr, 10)};
  const char* many = std::getenv("KINFS_SEEDS");
  std::vector<std::uint64_t> out(many != nullptr ? std::strtoull(many, nullptr, 10) : 400);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = i + 1;
  return out;
}

INSTANTIATE_TEST_SUITE_P(All, Seeds, ::testing::ValuesIn(seeds()));

}  // namespace
}  // namespace kinfs::fs::test
