#include "sim/scenario.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <vector>

#include "sim/world.h"

namespace kinfs::sim {
namespace {

using Words = std::vector<std::string>;

class Scenario {
 public:
  Scenario(bool trace, PlantedBug bug) : trace_(trace), bug_(bug) {}

  Result<void> line(const Words& w) {
    if (w[0] == "hosts") return hosts(w);
    if (world_ == nullptr) return bad("the first command is `hosts N`");
    if (w[0] == "key" && w.size() == 2) return key(w[1]);
    if (w[0] == "put" && w.size() >= 6) return put(w);
    if (w[0] == "remove" && w.size() >= 6) return put(w);
    if (w[0] == "reaped" && w.size() == 2) return reaped(key_of(w[1]));
    if (w[0] == "kept" && w.size() == 2) return kept(key_of(w[1]));
    if (w[0] == "compare" && w.size() == 1) return compare();
    if (w.size() == 4 && w[2] == "via") {
      return with_host(w[1], [&](std::size_t host) {
        return with_host(w[3], [&](std::size_t by) { return change(w[0], host, by); });
      });
    }
    if (w[0] == "get" && w.size() >= 6) return get(w);
    if (w[0] == "replica" && w.size() >= 6) return replica(w);
    if (w[0] == "hints" && w.size() == 7) return hints(w);
    if (w[0] == "heal" && w.size() == 1) return world_->heal(), Result<void>();
    if (w[0] == "notice" && w.size() == 1) return world_->run_until(world_->now_us() + 2'500'000), Result<void>();
    if (w[0] == "settle" && w.size() == 1) return settle();
    if (w.size() == 4 && w[0] == "cut" && w[2] == "to")
      return with_host(w[1], [&](std::size_t from) {
        return with_host(w[3], [&](std::size_t to) { return world_->cut(from, to), Result<void>(); });
      });
    if (w.size() == 2) return with_host(w[1], [&](std::size_t h) { return fault(w[0], h); });
    return bad("no such command");
  }

  /// Whether all that was sent so far could be read by whom it was for.
  Result<void> well_formed() const {
    if (world_->malformed.empty()) return {};
    return bad("the decoder refused what a node sent: " + world_->malformed.front());
  }

 private:
  static tl::unexpected<Error> bad(const std::string& text) { return fail(Errc::kInvalid, text); }

  template <class F>
  Result<void> with_host(const std::string& name, F f) {
    if (const auto it = names_.find(name); it != names_.end()) return f(it->second);
    for (std::size_t h = 0; h < world_->hosts(); ++h) {
      if (name == std::to_string(h + 1)) return f(h);
    }
    return bad("no host is called " + name);
  }

  Result<void> hosts(const Words& w) {
    WorldOptions options;
    if (w.size() < 2) return bad("how many?");
    options.hosts = std::stoul(w[1]);
    if (w.size() >= 5) {
      const auto number = [&](std::size_t i) { return static_cast<std::uint32_t>(std::stoul(w[i])); };
      options.quorum = {number(2), number(3), number(4)};
    }
    const auto says = [&](const char* word) { return std::find(w.begin() + 2, w.end(), word) != w.end(); };
    if (says("reaping")) {
      options.compare_interval_ms = 4000;
      options.reap_after_ms = 2000;
    }
    options.joins = says("joining");
    options.bug = bug_;
    options.trace = trace_;
    world_ = std::make_unique<World>(options);
    world_->run_until(1'000'000);
    return {};
  }

  Result<void> key(const std::string& name) {
    const auto owners = world_->owners(key_of(name));
    for (std::size_t i = 0; i < owners.size(); ++i) names_[fmt::format("owner{}", i + 1)] = owners[i];
    for (std::size_t h = 0; h < world_->hosts(); ++h) {
      if (std::find(owners.begin(), owners.end(), h) == owners.end()) names_["other"] = h;
    }
    return {};
  }

  Result<void> fault(const std::string& what, std::size_t host) {
    if (what == "cut")
      world_->isolate(host);
    else if (what == "kill")
      world_->crash(host, false);
    else if (what == "lose-power")
      world_->crash(host, true);
    else if (what == "start")
      world_->restart(host);
    else if (what == "back-up")
      world_->back_up(host);
    else if (what == "restore")
      world_->restore_disk(host);
    else
      return bad("no such command");
    return {};
  }

  Result<void> settle() {
    const auto idle = [&](std::size_t h) { return !world_->up(h) || world_->node(h).idle(); };
    const auto all_idle = [&] {
      if (!world_->joins()) return world_->idle();
      for (std::size_t h = 0; h < world_->hosts(); ++h) {
        if (!idle(h)) return false;
      }
      return true;
    };
    if (world_->run_until(all_idle, 30'000'000)) return {};
    return bad("not settled after 30 s:" + world_->why_not_idle());
  }

  std::vector<std::size_t> that_have(const RowKey& key) const {
    std::vector<std::size_t> out;
    for (std::size_t h = 0; h < world_->hosts(); ++h) {
      if (world_->up(h) && !excused_.contains(h) && !world_->store(h).get(key)->empty()) out.push_back(h);
    }
    return out;
  }

  Result<void> reaped(const RowKey& key) {
    if (world_->run_until([&] { return that_have(key).empty(); }, 60'000'000)) return {};
    return bad(fmt::format("after a minute host{} has something of it", that_have(key).front() + 1));
  }

  Result<void> kept(const RowKey& key) {
    world_->run_until(world_->now_us() + 30'000'000);
    if (!that_have(key).empty()) return {};
    return bad("after half a minute nobody has it");
  }

  /// Two passes by each host: the second began after now.
  Result<void> compare() {
    world_->run_until(world_->now_us() + 12'000'000);
    return {};
  }

  Result<void> change(const std::string& what, std::size_t host, std::size_t by) {
    using Change = cluster::ChangeMemberRequest::Change;
    cluster::Request request = cluster::AdmitRequest{world_->member(host)};
    if (what == "leave" || what == "excuse") {
      const auto change = what == "leave" ? Change::kLeave : Change::kExcuse;
      request = cluster::ChangeMemberRequest{world_->member(host).name, change, true, 1, ""};
    } else if (what != "join") {
      return bad("no such command");
    }
    auto answer = ask(by, request);
    const auto is_busy = [&] {
      const auto* error = answer ? std::get_if<Error>(&*answer) : nullptr;
      return error != nullptr && error->code == Errc::kBusy;
    };
    for (int tries = 0; is_busy() && tries < 20; ++tries) {
      world_->run_until(world_->now_us() + 500'000);
      answer = ask(by, request);
    }
    auto* admitted = answer ? std::get_if<cluster::Admitted>(&*answer) : nullptr;
    if (admitted == nullptr) {
      const auto* error = answer ? std::get_if<Error>(&*answer) : nullptr;
      return bad("the change was refused: " + (error != nullptr ? error->text : "no answer"));
    }
    if (what == "join") world_->join(host, std::move(admitted->members));
    if (what == "excuse") excused_.insert(host);
    const auto done = [&] {
      for (std::size_t h = 0; h < world_->hosts(); ++h) {
        const bool counts = world_->up(h) && !excused_.contains(h);
        if (counts && world_->node(h).layouts().changing()) return false;
      }
      return true;
    };
    if (world_->run_until(done, 60'000'000)) return {};
    return bad("the change does not come to its end");
  }

  static RowKey key_of(const std::string& name) { return {VolumeId{2}, name, ""}; }

  std::optional<cluster::Answer> ask(std::size_t host, cluster::Request request) {
    std::optional<cluster::Answer> out;
    bool done = false;
    world_->request(host, std::move(request), 8000, [&](std::optional<cluster::Answer> a) {
      out = std::move(a);
      done = true;
    });
    world_->run_until([&] { return done; }, 20'000'000);
    return out;
  }

  // put VALUE to KEY via HOST [over V ...] [is OUTCOME]; remove: the same, with a name for the tombstone, which is
  // known by it as host's
  Result<void> put(const Words& w) {
    return with_host(w[5], [&](std::size_t host) -> Result<void> {
      std::set<std::string> over;
      std::string outcome = "ok";
      std::size_t i = 6;
      if (i < w.size() && w[i] == "over") {
        for (++i; i < w.size() && w[i] != "is"; ++i) over.insert(w[i]);
      }
      if (i + 1 < w.size() && w[i] == "is") outcome = w[i + 1];
      const Row shown = over.empty() ? Row{} : shown_[w[3]];
      std::vector<Dot> dots;
      for (const auto& v : shown.versions) {
        if (over.contains(name_of(v))) dots.push_back(v.dot);
      }
      if (dots.size() < over.size()) return bad("the last get of " + w[3] + " did not show all of these");
      Version v;
      v.event = {ClientId{host + 1}, 1, ++sequence_};
      v.hlc = Hlc::from_ms(world_->now_us() / 1000);
      v.tombstone = w[0] == "remove";
      if (v.tombstone) {
        v.host = w[1];
      } else {
        v.value = w[1];
      }
      const auto k = key_of(w[3]);
      cluster::PutRequest request{k.volume, k.partition_key, {}, {}};
      request.rows.push_back(RowPut{k.sort_key, superseding(shown, dots), {v}, {}});
      const auto answer = ask(host, std::move(request));
      const auto* done = answer ? std::get_if<PutResult>(&*answer) : nullptr;
      const std::string is = done == nullptr ? "refused" : done->degraded ? "degraded" : "ok";
      if (is != outcome) return bad(fmt::format("the put was {}, not {}", is, outcome));
      return {};
    });
  }

  static std::string name_of(const Version& v) { return v.tombstone ? v.host : v.value; }

  static std::set<std::string> values(const Row& row) {
    std::set<std::string> out;
    for (const auto& v : row.versions) out.insert(name_of(v));
    return out;
  }

  static Result<void> same(std::set<std::string> expected, const Row& row) {
    expected.erase("nothing");
    if (values(row) == expected) return {};
    return bad(fmt::format("there is {{{}}}, not {{{}}}", fmt::join(values(row), " "), fmt::join(expected, " ")));
  }

  // get KEY via HOST shows V ... [degraded] | get KEY via HOST is refused
  Result<void> get(const Words& w) {
    return with_host(w[3], [&](std::size_t host) -> Result<void> {
      const auto k = key_of(w[1]);
      const auto answer = ask(host, cluster::GetRequest{k.volume, k.partition_key, k.sort_key});
      const auto* got = answer ? std::get_if<GetResult>(&*answer) : nullptr;
      if (w[4] == "is") return got == nullptr ? Result<void>() : Result<void>(bad("the get was answered"));
      if (got == nullptr) return bad("the get was refused");
      std::set<std::string> expected(w.begin() + 5, w.end());
      const bool degraded = expected.erase("degraded") > 0;
      if (got->degraded != degraded) return bad(got->degraded ? "the get was degraded" : "the get was not degraded");
      shown_[w[1]] = got->row;
      return same(expected, got->row);
    });
  }

  // replica HOST has V ... of KEY
  Result<void> replica(const Words& w) {
    world_->run_until(world_->now_us() + 100'000);  // repairs go out after the answer
    return with_host(w[1], [&](std::size_t host) -> Result<void> {
      const auto row = world_->store(host).get(key_of(w.back()));
      if (!row) return bad(row.error().text);
      return same(std::set<std::string>(w.begin() + 3, w.end() - 2), *row);
    });
  }

  // hints on HOST for HOST are N
  Result<void> hints(const Words& w) {
    return with_host(w[2], [&](std::size_t on) {
      return with_host(w[4], [&](std::size_t target) -> Result<void> {
        const auto kept = world_->store(on).hints(world_->id_of(target), 0, 1000);
        const auto count = kept ? kept->size() : 0;
        if (std::to_string(count) == w[6]) return {};
        return bad(fmt::format("there are {} hints, not {}", count, w[6]));
      });
    });
  }

  bool trace_;
  PlantedBug bug_;
  std::unique_ptr<World> world_;
  std::map<std::string, std::size_t> names_;
  std::map<std::string, Row> shown_;
  std::set<std::size_t> excused_;
  std::uint64_t sequence_ = 0;
};

}  // namespace

Result<void> play_scenario(const std::string& path, bool trace, PlantedBug bug) {
  std::ifstream in(path);
  if (!in) return fail(Errc::kNotFound, path + " cannot be read");
  Scenario scenario(trace, bug);
  std::string text;
  for (int number = 1; std::getline(in, text); ++number) {
    if (trace) fmt::print("{:4}  {}\n", number, text);
    std::istringstream line(text.substr(0, text.find('#')));
    Words words;
    for (std::string word; line >> word;) words.push_back(word);
    if (words.empty()) continue;
    auto done = scenario.line(words);
    if (done) done = scenario.well_formed();
    if (!done) {
      return fail(done.error().code, fmt::format("{}:{}: {}: {}", path, number, text, done.error().text));
    }
  }
  return {};
}

}  // namespace kinfs::sim
