#include "daemon/cli/kv.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <tuple>

#include "daemon/cli/session.h"
#include "daemon/config.h"

namespace kinfs::daemon {
namespace {

std::string iso_time(std::int64_t time_ns) {
  const auto seconds = static_cast<std::time_t>(time_ns / 1'000'000'000);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:09}Z", fmt::gmtime(seconds), time_ns % 1'000'000'000);
}

std::string event_words(const EventId& e) {
  return fmt::format("{:016x}-{:x}-{:x}", static_cast<std::uint64_t>(e.client), e.boot, e.sequence);
}

Result<VolumeId> kv_volume(const std::string& name) {
  if (name == "kv") return kVolumeKv;
  if (name == "home") {
    return fail(Errc::kRefused,
                "volume home is of kind fs: its rows are files, and get, put and del would tear them apart; mount it "
                "with `kinfs mount home DIR`, or use --volume kv");
  }
  const auto near = nearest_name(name, {"kv", "home"});
  return fail(Errc::kRefused,
              fmt::format("there is no volume {}{}; volumes: home (kind fs), kv (kind kv)", printable(name),
                          near.empty() ? "" : fmt::format(" (did you mean {}?)", near)));
}

/// N, R and W are the volume's for now: asking for others is refused, never ignored.
Result<void> check_quorum(Session& session, const KvOptions& options) {
  if (!options.r && !options.w) return {};
  auto status = session.admin("status");
  if (!status) return pass(std::move(status));
  const auto q = status->value("quorum", Json::object());
  const auto check = [&](const char* name, const std::optional<std::uint32_t>& asked) -> Result<void> {
    const auto is = q.value(name, 0u);
    if (!asked || *asked == is) return {};
    return fail(Errc::kRefused, fmt::format("--{} {} cannot be asked for: this cluster's {} is {} (of n = {}), set in "
                                            "[quorum] of its configuration",
                                            name, *asked, name, is, q.value("n", 0u)));
  };
  if (auto r = check("r", options.r); !r) return r;
  return check("w", options.w);
}

Result<RowKey> key_of(const KvOptions& options) {
  auto volume = kv_volume(options.volume);
  if (!volume) return pass(std::move(volume));
  if (options.key.size() > kMaxKeyBytes) {
    return fail(Errc::kNameTooLong,
                fmt::format("the key has {} bytes; a key has at most {}", options.key.size(), kMaxKeyBytes));
  }
  return RowKey{*volume, options.key, ""};
}

Result<Bytes> read_stdin() {
  Bytes out;
  char buffer[65536];
  while (true) {
    const auto n = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (n == 0) return out;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(Errc::kIo, fmt::format("cannot read standard input: {}", std::strerror(errno)));
    out.append(buffer, static_cast<std::size_t>(n));
    if (out.size() > kMaxValueBytes) {
      return fail(Errc::kTooLarge, fmt::format("the value has more than {} bytes, the most that a value may have; "
                                               "files have no such limit: kinfs mount home DIR",
                                               kMaxValueBytes));
    }
  }
}

Result<void> write_stdout(ByteView bytes) {
  while (!bytes.empty()) {
    const auto n = ::write(STDOUT_FILENO, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(Errc::kIo, fmt::format("cannot write to standard output: {}", std::strerror(errno)));
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

Json version_json(const Version& v, bool winner, bool degraded, const std::string& key, const std::string& token) {
  return {{"key", key},
          {"key_base64", to_base64(key)},
          {"value", to_base64(v.value)},
          {"host", v.host},
          {"time", iso_time(v.time_ns)},
          {"event", event_words(v.event)},
          {"removed", v.tombstone},
          {"winner", winner},
          {"degraded", degraded},
          {"context", token}};
}

Result<void> print_versions(const KvOptions& options, const RowKey& key, const GetResult& got) {
  const auto groups = shown_versions(got.row);
  ContextToken token{dots_to_supersede(got.row, options.all), options.all || groups.size() == 1, got.row.context};
  if (options.json) {
    const auto word = encode_token(token, key);
    for (std::size_t i = 0; i < (options.all ? groups.size() : 1); ++i) {
      print_json(version_json(*groups[i][0], i == 0, got.degraded, options.key, word));
    }
    for (const auto& v : got.row.versions) {
      if (options.all && v.tombstone) print_json(version_json(v, false, got.degraded, options.key, word));
    }
    return {};
  }
  if (!options.all || groups.size() == 1) return write_stdout(groups[0][0]->value);
  for (const auto& group : groups) {
    const auto& v = *group[0];
    const auto head =
        fmt::format("==> {} at {}, {} bytes <==\n", printable(v.host), iso_time(v.time_ns), v.value.size());
    for (const ByteView part : {ByteView(head), ByteView(v.value), ByteView("\n")}) {
      if (auto written = write_stdout(part); !written) return written;
    }
  }
  return {};
}

/// The state to write on, by what the options say that the writer was shown.
Result<Row> base_of(const KvOptions& options, const RowKey& key, const Row& now) {
  if (!options.context) return superseding(now, dots_to_supersede(now, options.all));
  auto token = decode_token(*options.context, key);
  if (!token) return pass(std::move(token));
  return base_under(now, *token);
}

int write(const KvOptions& options, bool remove) {
  auto key = key_of(options);
  if (!key) return give_up(key.error());
  if (options.context) {
    if (auto token = decode_token(*options.context, *key); !token) {
      complain("--context: " + token.error().text);
      return kExitUsage;
    }
  }
  Bytes value;
  if (!remove) {
    auto read = read_stdin();
    if (!read) return give_up(read.error());
    value = std::move(*read);
  }
  auto session = Session::open_for_writing(socket_path_of(options.socket));
  if (!session) return give_up(session.error());
  if (auto good = check_quorum(*session, options); !good) return give_up(good.error());
  auto got = session->call([&](auto& c) { return c.get(key->volume, key->partition_key, ""); });
  if (!got) return give_up(got.error());
  const auto groups = shown_versions(got->row);
  if (remove && groups.empty()) {
    complain(fmt::format("there is no key {}", printable(options.key)));
    return kExitAttention;
  }
  auto base = base_of(options, *key, got->row);
  if (!base) return give_up(base.error());
  Version version;
  {
    const std::lock_guard lock(session->strand());
    version.event = session->client().next_event();
    version.hlc = session->client().next_hlc();
    version.host = session->client().host();
  }
  version.time_ns =
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  version.tombstone = remove;
  if (!groups.empty()) version.lineage = extend_lineage(*groups[0][0], Bytes(view_of(sha256(groups[0][0]->value))));
  version.value = std::move(value);
  std::vector<RowPut> rows;
  rows.push_back({"", std::move(*base), {std::move(version)}});
  auto done = session->call([&](auto& c) { return c.put(key->volume, key->partition_key, std::move(rows), {}); });
  if (!done) {
    // It may still arrive, so its identity must not be another command's meanwhile.
    session->keep_identity();
    return give_up(done.error());
  }
  if (done->degraded) {
    complain(
        "note: fewer hosts than the volume's w could be reached; it is safe on those, and the others get it when "
        "they are back (see kinfs status)");
  }
  if (const auto live = done->rows.empty() ? 0 : done->rows.front().live.size(); live >= kManySiblings) {
    complain(
        fmt::format("note: there are {} concurrent versions of {}, and no write is taken that makes more than {}; "
                    "`kinfs put --all` replaces all of them",
                    live, printable(options.key), kMostSiblings));
  }
  return kExitDone;
}

}  // namespace

std::vector<std::vector<const Version*>> shown_versions(const Row& row) {
  std::vector<const Version*> live;
  for (const auto& v : row.versions) {
    if (!v.tombstone) live.push_back(&v);
  }
  std::sort(live.begin(), live.end(), [](const Version* a, const Version* b) {
    return std::tie(a->hlc, a->host, a->dot) > std::tie(b->hlc, b->host, b->dot);
  });
  std::vector<std::vector<const Version*>> groups;
  for (const auto* v : live) {
    const auto same =
        std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g[0]->value == v->value; });
    if (same != groups.end()) {
      same->push_back(v);
    } else {
      groups.push_back({v});
    }
  }
  return groups;
}

std::vector<Dot> dots_to_supersede(const Row& row, bool all) {
  std::vector<Dot> dots;
  const auto groups = shown_versions(row);
  for (std::size_t i = 0; i < groups.size() && (all || i == 0); ++i) {
    for (const auto* v : groups[i]) dots.push_back(v->dot);
  }
  for (const auto& v : row.versions) {
    if (v.tombstone) dots.push_back(v.dot);
  }
  return dots;
}

Row base_under(const Row& row, const ContextToken& token) {
  const Row base = superseding(row, token.shown);
  // Everything live was shown: then also a replica set that has not seen it yet, and answers with less, may be told
  // that all of it is superseded. Otherwise the context would cover versions that nobody chose to drop.
  return token.all ? merge(base, Row{token.context, {}}) : base;
}

int kv_get(const KvOptions& options) {
  auto key = key_of(options);
  if (!key) return give_up(key.error());
  auto session = Session::open(socket_path_of(options.socket));
  if (!session) return give_up(session.error());
  if (auto good = check_quorum(*session, options); !good) return give_up(good.error());
  auto got = session->call([&](auto& c) { return c.get(key->volume, key->partition_key, ""); });
  if (!got) return give_up(got.error());
  if (got->degraded) {
    complain("note: fewer hosts than the volume's r answered; there may be a newer value on the others");
  }
  const auto groups = shown_versions(got->row);
  if (groups.empty()) {
    complain(fmt::format("there is no key {}", printable(options.key)));
    return kExitAttention;
  }
  if (auto printed = print_versions(options, *key, *got); !printed) return give_up(printed.error());
  if (groups.size() == 1) return kExitDone;
  if (!options.all) {
    complain(
        fmt::format("{} more concurrent version{} of {}: see them with `kinfs get --all`; `kinfs put --all` "
                    "replaces all of them",
                    groups.size() - 1, groups.size() == 2 ? "" : "s", printable(options.key)));
  }
  return kExitAttention;
}

int kv_put(const KvOptions& options) { return write(options, /*remove=*/false); }
int kv_del(const KvOptions& options) { return write(options, /*remove=*/true); }

}  // namespace kinfs::daemon
