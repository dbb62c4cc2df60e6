#include "daemon/cli/status.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "daemon/cli/context_token.h"
#include "daemon/cli/process.h"
#include "daemon/cli/session.h"
#include "daemon/config.h"
#include "storage/bytes.h"

namespace kinfs::daemon {
namespace {

std::string bytes_words(std::uint64_t n) {
  if (n < 10'000) return fmt::format("{} B", n);
  constexpr std::string_view kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  double v = static_cast<double>(n);
  std::size_t unit = 0;
  for (v /= 1024; v >= 1000 && unit + 1 < std::size(kUnits); ++unit) v /= 1024;
  return fmt::format("{:.1f} {}", v, kUnits[unit]);
}

std::string text_at(const Json& json, const char* key, const std::string& none = "-") {
  const auto found = json.find(key);
  return found != json.end() && found->is_string() ? found->get<std::string>() : none;
}

/// What was refused, since start, and what to do about it.
void print_refusals(const Json& s, const std::string& self) {
  if (const auto n = s.value("failed_for_room", std::uint64_t{0}); n != 0) {
    fmt::print("no room           {} writes refused since start, for want of room on {}'s disk\n", n, self);
  }
  const auto failed = s.at("failed_saves").get<std::uint64_t>() - s.value("failed_for_room", std::uint64_t{0});
  if (failed != 0) fmt::print("failed writes     {} since start: look into the daemon's log\n", failed);
  const auto overload = s.value("overload", Json::object());
  const auto of = [&](const char* name) { return overload.value(name, std::uint64_t{0}); };
  if (of("refused") + of("cut_off") + of("turned_away") + of("dropped_full") != 0) {
    fmt::print("overload          {} requests refused, {} clients cut off that read nothing, {} turned away, {} "
               "messages to other hosts dropped, since start\n",
               of("refused"), of("cut_off"), of("turned_away"), of("dropped_full"));
  }
}

void print_status(const Json& s) {
  const auto self = text_at(s.at("node"), "name");
  fmt::print("{:<16} {:<28} {:<7} {:<21} {}\n", "HOST", "ADDRESS", "STATE", "LAST SEEN", "HINTS FOR IT");
  for (const auto& h : s.at("hosts")) {
    const auto name = text_at(h, "name");
    fmt::print("{:<16} {:<28} {:<7} {:<21} {}\n", name + (name == self ? " *" : ""), text_at(h, "address"),
               h.value("full", false) ? "full" : text_at(h, "state"), text_at(h, "last_seen", "never"),
               h.value("hints", 0u));
  }
  for (const auto& h : s.at("hosts")) {
    const auto by = h.value("reached_by", std::vector<std::string>());
    if (by.empty()) continue;
    fmt::print("\n{} does not answer {}, but it answers {}: what lies between {} and {} is broken.\n",
               text_at(h, "name"), self, fmt::join(by, ", "), self, text_at(h, "name"));
  }
  const auto& disk = s.at("disk");
  const auto& q = s.at("quorum");
  fmt::print("\n");
  fmt::print("replicas          n {}, r {}, w {}\n", q.at("n").get<int>(), q.at("r").get<int>(), q.at("w").get<int>());
  fmt::print("under-replicated  {} (rows and blocks that {} keeps for hosts that lack them)\n",
             s.at("under_replicated").get<std::uint64_t>(), self);
  fmt::print("degraded          {} writes and {} reads since {} started, {} s ago\n",
             s.at("degraded_puts").get<std::uint64_t>(), s.at("degraded_reads").get<std::uint64_t>(), self,
             s.at("uptime_s").get<std::uint64_t>());
  fmt::print("conflicts         not counted here; kinfs conflicts lists them\n");
  if (const auto n = s.value("puts_beside_many", std::uint64_t{0}); n != 0) {
    fmt::print(
        "                  {} writes here found {} or more versions of one file or key, or made them; no write "
        "adds one to {}\n",
        n, kManySiblings, kMostSiblings);
  }
  fmt::print("disk              {}: {} of {} free, about {} rows, {} in blocks\n", text_at(disk, "path"),
             bytes_words(disk.at("free").get<std::uint64_t>()), bytes_words(disk.at("total").get<std::uint64_t>()),
             disk.at("rows").get<std::uint64_t>(), bytes_words(disk.at("block_bytes").get<std::uint64_t>()));
  for (const auto& task : s.value("tasks", Json::array())) {
    fmt::print("members           are changing: {}, {:.0f} % of {}'s; waits for {}\n", text_at(task, "step"),
               100 * task.value("done", 0.0), self,
               fmt::join(task.value("waits_for", std::vector<std::string>()), ", "));
    if (const auto words = obstacle_of(task); !words.empty()) fmt::print("                  {}\n", words);
  }
  if (s.contains("cluster") && s.at("cluster").value("knows_members", true) &&
      !s.at("cluster").value("is_member", true)) {
    fmt::print("members           {} is none any more, and serves nothing\n", self);
  }
  if (auto cut = s.at("cut").get<std::vector<std::string>>(); !cut.empty()) {
    std::sort(cut.begin(), cut.end());
    fmt::print("cut               all traffic with {} is dropped\n", fmt::join(cut, ", "));
  }
  print_refusals(s, self);
  if (const auto n = s.at("dot_clashes").get<std::uint64_t>(); n != 0) {
    fmt::print("damaged history   {}: two versions under one number; was a data directory copied?\n", n);
  }
  if (const auto n = s.value("unreadable", std::uint64_t{0}); n != 0) {
    fmt::print(
        "damaged data      {} times a row or block on {} could not be read; other hosts have it: look at the disk\n", n,
        self);
  }
  if (const auto removals = s.value("removals", Json::object()); removals.value("known_up_to", Json()).is_string()) {
    fmt::print("removals          known to all hosts up to {}, and {} rows of these forgotten since {} started\n",
               text_at(removals, "known_up_to"), removals.value("forgotten", std::uint64_t{0}), self);
  }
  if (const auto scrub = s.value("scrub", Json::object()); scrub.value("damaged", std::uint64_t{0}) != 0) {
    fmt::print(
        "damaged blocks    {} found on {} since it started, {} written anew from other hosts; {} that no host could "
        "give: look at the disk\n",
        scrub.value("damaged", std::uint64_t{0}), self, scrub.value("mended", std::uint64_t{0}),
        scrub.value("beyond_repair", std::uint64_t{0}));
  }
  fmt::print("\n{}\n", s.at("safe").get<bool>() ? "Everything is as it should be." : "This needs attention.");
}

}  // namespace

std::string obstacle_of(const Json& task) {
  if (!task.contains("obstacle")) return "";
  const auto& obstacle = task.at("obstacle");
  return fmt::format("{} says: {}", printable(text_at(obstacle, "host")), printable(text_at(obstacle, "error")));
}

Result<Json> follow_status(const std::string& socket, const std::function<std::string(const Json&, Session&)>& left) {
  constexpr int kLookMs = 200;
  for (std::string said;;) {
    auto session = Session::open(socket);
    auto status = session ? session->admin("status") : Result<Json>(tl::unexpected(session.error()));
    if (!status) return status;
    auto words = left(*status, *session);
    if (words.empty()) return status;
    if (words != said) complain(words);
    said = std::move(words);
    detail::pause_ms(kLookMs);
  }
}

int status(const StatusOptions& options) {
  auto session = Session::open(socket_path_of(options.socket));
  if (!session) return give_up(session.error());
  auto s = session->admin("status");
  if (!s) return give_up(s.error());
  try {
    const bool safe = s->at("safe").get<bool>();
    if (options.json) {
      print_json(*s);
    } else {
      print_status(*s);
    }
    return safe ? kExitDone : kExitAttention;
  } catch (const Json::exception& e) {
    return give_up_unreadable(e);
  }
}

int ring(const RingOptions& options) {
  VolumeId volume = kVolumeKv;
  if (options.volume == "home") {
    volume = kVolumeHome;
  } else if (options.volume != "kv") {
    return give_up(
        {Errc::kRefused, fmt::format("there is no volume {}; volumes: home, kv", printable(options.volume))});
  }
  auto session = Session::open(socket_path_of(options.socket));
  if (!session) return give_up(session.error());
  std::vector<std::string> arguments;
  if (options.key) arguments = {std::to_string(static_cast<std::uint32_t>(volume)), to_hex(*options.key)};
  auto r = session->admin("ring", std::move(arguments));
  if (!r) return give_up(r.error());
  if (options.key) {
    (*r)["key"]["name"] = *options.key;
    (*r)["key"]["name_base64"] = to_base64(*options.key);
  }
  if (options.json) {
    print_json(*r);
    return kExitDone;
  }
  try {
    fmt::print("{} partitions, layout {}\n\n", r->at("partitions").get<int>(),
               r->at("layout").at("number").get<std::uint64_t>());
    fmt::print("{:<16} {:>10} {:>10}\n", "HOST", "FIRST OF", "OWNER OF");
    for (const auto& h : r->at("hosts")) {
      fmt::print("{:<16} {:>10} {:>10}\n", text_at(h, "name"), h.at("first").get<int>(), h.at("owned").get<int>());
    }
    if (!options.key) return kExitDone;
    const auto& key = r->at("key");
    fmt::print("\n{}: partition {}, owners", printable(*options.key), key.at("partition").get<int>());
    for (const auto& owner : key.at("owners")) fmt::print(" {}", owner.get<std::string>());
    fmt::print("\n");
    return kExitDone;
  } catch (const Json::exception& e) {
    return give_up_unreadable(e);
  }
}

}  // namespace kinfs::daemon
