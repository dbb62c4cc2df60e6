#include "daemon/config.h"

#include <fmt/format.h>
#include <toml++/toml.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>

#include "cluster/unix_path.h"

namespace kinfs::daemon {
namespace {

constexpr std::size_t kMaxMembers = 1024;
constexpr std::size_t kMaxConfigBytes = 4 << 20;

const std::vector<std::string> kSections = {"node", "cluster", "quorum", "log"};
const std::vector<std::string> kNodeKeys = {"name", "listen", "data_dir", "socket", "key_file"};
const std::vector<std::string> kClusterKeys = {"id", "by_invitation", "address", "seeds", "cut", "member"};
const std::vector<std::string> kMemberKeys = {"name", "address", "public_key"};
const std::vector<std::string> kQuorumKeys = {"n", "r", "w"};
const std::vector<std::string> kLogKeys = {"level", "file"};
const std::vector<std::string> kLogLevels = {"trace", "debug", "info", "warn", "error"};

/// Insertions, deletions, replacements, and swaps of neighbours, each once (optimal string alignment): two swapped
/// letters are the most frequent typing error.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

std::string lower(std::string_view s) {
  std::string out(s);
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return std::tolower(c); });
  return out;
}

std::string join(const std::vector<std::string>& words) { return fmt::format("{}", fmt::join(words, ", ")); }

bool good_name(const std::string& name) {
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '.' || c == '_' || c == '-';
  });
}

std::string type_words(toml::node_type type) {
  switch (type) {
    case toml::node_type::none:
      return "nothing";
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "a list";
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a number with a fraction";
    case toml::node_type::boolean:
      return "true or false";
    case toml::node_type::date:
      return "a date";
    case toml::node_type::time:
      return "a time";
    case toml::node_type::date_time:
      return "a date and time";
  }
  return "something else";
}

/// Walks the tables of one file and gathers what is wrong.
class Parser {
 public:
  Parser(std::string file, std::string host_name) : file_(std::move(file)) { config_.name = std::move(host_name); }

  Result<Config> run(const toml::table& root) {
    known_keys(root, "", kSections);
    if (const auto* t = section(root, "node")) node(*t);
    if (const auto* t = section(root, "cluster")) cluster(*t);
    if (const auto* t = section(root, "log")) log(*t);
    check_members(root);
    quorum(section(root, "quorum"));
    if (!errors_.empty()) return fail(Errc::kInvalid, fmt::format("{}", fmt::join(errors_, "\n")));
    return std::move(config_);
  }

 private:
  void error(const toml::source_region& where, const std::string& words) {
    errors_.push_back(fmt::format("{}:{}: {}", file_, where.begin.line, words));
  }

  static std::string full(const std::string& prefix, std::string_view key) {
    return prefix.empty() ? std::string(key) : fmt::format("{}.{}", prefix, key);
  }

  void known_keys(const toml::table& table, const std::string& prefix, const std::vector<std::string>& known) {
    for (const auto& [key, value] : table) {
      const std::string name(key.str());
      if (std::find(known.begin(), known.end(), name) != known.end()) continue;
      const auto near = nearest_name(name, known);
      const auto elsewhere = near.empty() ? other_section_of(name) : "";
      error(key.source(), fmt::format("there is no key {}{}; known here: {}", full(prefix, name),
                                      !near.empty()        ? fmt::format(" (did you mean {}?)", full(prefix, near))
                                      : !elsewhere.empty() ? fmt::format(" (did you mean {}?)", elsewhere)
                                                           : "",
                                      join(known)));
    }
  }

  /// A key that is spelt rightly and stands in the wrong section.
  static std::string other_section_of(const std::string& name) {
    const std::pair<const char*, const std::vector<std::string>*> all[] = {
        {"node", &kNodeKeys}, {"cluster", &kClusterKeys}, {"quorum", &kQuorumKeys}, {"log", &kLogKeys}};
    for (const auto& [section, keys] : all) {
      const auto near = nearest_name(name, *keys);
      if (!near.empty()) return fmt::format("{}.{}", section, near);
    }
    return "";
  }

  const toml::table* section(const toml::table& root, const std::string& name) {
    const auto* found = root.get(name);
    if (!found) return nullptr;
    if (const auto* t = found->as_table()) return t;
    error(found->source(), fmt::format("{} must be a section, [{}], and is {}", name, name, type_words(found->type())));
    return nullptr;
  }

  bool text(const toml::table& table, const std::string& prefix, const char* key, std::string& out) {
    const auto* found = table.get(key);
    if (!found) return false;
    const auto* value = found->as_string();
    if (!value) {
      error(found->source(),
            fmt::format("{} must be a string and is {}", full(prefix, key), type_words(found->type())));
      return false;
    }
    if (value->get().empty() && std::string_view(key) != "file") {
      error(found->source(), fmt::format("{} is empty; leave it out for its default", full(prefix, key)));
      return false;
    }
    if (value->get().find('\0') != std::string::npos) {
      error(found->source(), fmt::format("{} holds a zero byte", full(prefix, key)));
      return false;
    }
    out = value->get();
    return true;
  }

  void flag(const toml::table& table, const std::string& prefix, const char* key, bool& out) {
    const auto* found = table.get(key);
    if (!found) return;
    if (const auto* value = found->as_boolean()) {
      out = value->get();
    } else {
      error(found->source(),
            fmt::format("{} must be true or false and is {}", full(prefix, key), type_words(found->type())));
    }
  }

  void name_list(const toml::table& table, const std::string& prefix, const char* key, std::vector<std::string>& out) {
    const auto* found = table.get(key);
    if (!found) return;
    const auto* list = found->as_array();
    if (!list) {
      error(found->source(), fmt::format("{} must be a list of names, [\"host1\", …], and is {}", full(prefix, key),
                                         type_words(found->type())));
      return;
    }
    for (const auto& item : *list) {
      if (const auto* value = item.as_string()) {
        out.push_back(value->get());
      } else {
        error(item.source(),
              fmt::format("{} holds {} where a name is needed", full(prefix, key), type_words(item.type())));
      }
    }
  }

  bool address(const toml::table& table, const std::string& prefix, const char* key, std::string& out) {
    if (!text(table, prefix, key, out)) return false;
    if (auto parsed = parse_address(out); !parsed) {
      error(table.get(key)->source(), fmt::format("{}: {}", full(prefix, key), parsed.error().text));
      return false;
    }
    return true;
  }

  void path(const toml::table& table, const std::string& prefix, const char* key, std::string& out) {
    if (!text(table, prefix, key, out) || out.empty() || out[0] == '/') return;
    error(table.get(key)->source(),
          fmt::format("{} must be an absolute path, and {} does not begin with /", full(prefix, key), out));
  }

  void node(const toml::table& t) {
    known_keys(t, "node", kNodeKeys);
    const bool read = text(t, "node", "name", config_.name);
    name_is_wrong_ = t.contains("name") && (!read || !good_name(config_.name));
    if (read && name_is_wrong_) {
      error(t.get("name")->source(), "node.name must be 1 to 64 characters of a-z, A-Z, 0-9, '.', '_', '-'");
    }
    address(t, "node", "listen", config_.listen);
    path(t, "node", "data_dir", config_.data_dir);
    path(t, "node", "socket", config_.socket);
    if (config_.socket.size() > cluster::kMaxSocketPath) {
      error(t.get("socket")->source(), fmt::format("node.socket is longer than the {} bytes that a Unix socket's path "
                                                   "may have",
                                                   cluster::kMaxSocketPath));
    }
    path(t, "node", "key_file", config_.key_file);
  }

  void cluster(const toml::table& t) {
    known_keys(t, "cluster", kClusterKeys);
    if (text(t, "cluster", "id", config_.cluster_id) && config_.cluster_id.size() > 64) {
      error(t.get("id")->source(), "cluster.id is longer than 64 characters");
    }
    flag(t, "cluster", "by_invitation", config_.by_invitation);
    address(t, "cluster", "address", config_.address);
    if (config_.by_invitation && !t.contains("address")) {
      error(t.source(),
            "cluster.by_invitation is true, and cluster.address, under which others dial this host, is not "
            "there; kinfs init and kinfs join write both");
    }
    if (!config_.by_invitation && t.contains("address")) {
      error(t.get("address")->source(),
            "cluster.address holds with cluster.by_invitation = true; without it, the "
            "address stands in this host's own [[cluster.member]]");
    }
    name_list(t, "cluster", "seeds", config_.seeds);
    name_list(t, "cluster", "cut", config_.cut);
    const auto* found = t.get("member");
    if (!found) return;
    const auto* list = found->as_array();
    if (!list || !list->is_array_of_tables()) {
      error(found->source(), "cluster.member must be written as [[cluster.member]], once for each host");
      return;
    }
    if (list->size() > kMaxMembers) {
      error(found->source(), fmt::format("{} members; a cluster has at most {}", list->size(), kMaxMembers));
      return;
    }
    for (const auto& item : *list) member(*item.as_table());
  }

  void member(const toml::table& t) {
    const std::string prefix = "cluster.member";
    known_keys(t, prefix, kMemberKeys);
    for (const auto& key : kMemberKeys) {
      if (!t.contains(key)) error(t.source(), fmt::format("this [[{}]] has no {}", prefix, key));
    }
    MemberConfig m;
    if (text(t, prefix, "name", m.name) && !good_name(m.name)) {
      error(t.get("name")->source(), "cluster.member.name must be 1 to 64 characters of a-z, A-Z, 0-9, '.', '_', '-'");
    }
    address(t, prefix, "address", m.address);
    std::string hex;
    if (text(t, prefix, "public_key", hex)) {
      auto key = from_hex(hex);
      if (key && key->size() == 32) {
        m.public_key = std::move(*key);
      } else {
        error(t.get("public_key")->source(),
              "cluster.member.public_key must be 64 hexadecimal digits, as `kinfsd --make-key FILE` prints them");
      }
    }
    for (const auto& other : config_.members) {
      if (!m.name.empty() && other.name == m.name) {
        error(t.source(), fmt::format("two members are called {}", m.name));
      } else if (!m.public_key.empty() && other.public_key == m.public_key) {
        error(t.source(), fmt::format("{} and {} have the same public_key; every host needs a key pair of its own",
                                      other.name, m.name));
      } else if (!m.address.empty() && other.address == m.address) {
        error(t.source(), fmt::format("{} and {} have the same address {}", other.name, m.name, m.address));
      }
    }
    config_.members.push_back(std::move(m));
  }

  void check_members(const toml::table& root) {
    // What is said of a wrong name in the file is enough.
    const bool good = !name_is_wrong_ && good_name(config_.name);
    if (!good && !name_is_wrong_) {
      errors_.push_back(
          fmt::format("{}: this machine's name, {:?}, cannot be used as node.name; set one", file_, config_.name));
    }
    std::vector<std::string> names;
    for (const auto& m : config_.members) {
      if (!m.name.empty() && std::find(names.begin(), names.end(), m.name) == names.end()) names.push_back(m.name);
    }
    if (names.empty() || config_.by_invitation) names.push_back(config_.name);
    const auto* t = root.get_as<toml::table>("cluster");
    const auto check = [&](const std::vector<std::string>& list, const char* key) {
      for (const auto& name : list) {
        if (std::find(names.begin(), names.end(), name) != names.end()) continue;
        const auto near = nearest_name(name, names);
        error(t->get(key)->source(),
              fmt::format("cluster.{} names {}, which is no member{}", key, name,
                          near.empty() ? "; members: " + join(names) : fmt::format(" (did you mean {}?)", near)));
      }
    };
    check(config_.seeds, "seeds");
    check(config_.cut, "cut");
    if (good && !config_.members.empty() && std::find(names.begin(), names.end(), config_.name) == names.end()) {
      const auto near = nearest_name(config_.name, names);
      error(t->source(),
            fmt::format("node.name is {}, and no [[cluster.member]] has that name{}; members: {}", config_.name,
                        near.empty() ? "" : fmt::format(" (did you mean {}?)", near), join(names)));
    }
  }

  std::optional<std::uint32_t> number(const toml::table& t, const char* key) {
    const auto* found = t.get(key);
    if (!found) return std::nullopt;
    const auto* value = found->as_integer();
    if (!value) {
      error(found->source(), fmt::format("quorum.{} must be an integer and is {}", key, type_words(found->type())));
      return std::nullopt;
    }
    if (value->get() < 1 || value->get() > 15) {
      error(found->source(), fmt::format("quorum.{} is {} and must be between 1 and 15", key, value->get()));
      return std::nullopt;
    }
    return static_cast<std::uint32_t>(value->get());
  }

  /// N is never more than there are hosts; R and W, where they are not given, are majorities of what N became.
  void quorum(const toml::table* t) {
    std::optional<std::uint32_t> n, r, w;
    if (t) {
      known_keys(*t, "quorum", kQuorumKeys);
      n = number(*t, "n");
      r = number(*t, "r");
      w = number(*t, "w");
    }
    auto& q = config_.quorum;
    const auto asked = n.value_or(3);
    if (config_.by_invitation) {
      q = {asked, 0, 0};
      if (r || w) {
        error(t->source(),
              "quorum.r and quorum.w cannot be set with cluster.by_invitation: they are the majority of "
              "the hosts that keep a row, and grow as hosts join");
      }
      return;
    }
    const auto hosts = static_cast<std::uint32_t>(std::max<std::size_t>(1, config_.members.size()));
    q.n = std::min(asked, hosts);
    q.r = std::min(r.value_or(q.n / 2 + 1), q.n);
    q.w = std::min(w.value_or(q.n / 2 + 1), q.n);
    if (!t) return;
    if (r.value_or(1) > asked || w.value_or(1) > asked) {
      error(t->source(), fmt::format("quorum.r and quorum.w cannot be greater than n, which is {}", asked));
    } else if (q.r + q.w <= q.n) {
      error(t->source(), fmt::format("quorum: r + w must be greater than n, so that a read meets the last write; "
                                     "r {} + w {} is not greater than {}",
                                     q.r, q.w, q.n));
    }
  }

  void log(const toml::table& t) {
    known_keys(t, "log", kLogKeys);
    if (text(t, "log", "level", config_.log_level) &&
        std::find(kLogLevels.begin(), kLogLevels.end(), config_.log_level) == kLogLevels.end()) {
      const auto near = nearest_name(config_.log_level, kLogLevels);
      error(t.get("level")->source(),
            fmt::format("log.level is {:?}{}; known: {}", config_.log_level,
                        near.empty() ? "" : fmt::format(" (did you mean {}?)", near), join(kLogLevels)));
    }
    path(t, "log", "file", config_.log_file);
  }

  std::string file_;
  Config config_;
  bool name_is_wrong_ = false;  // node.name as it stands in the file
  std::vector<std::string> errors_;
};

}  // namespace

std::string nearest_name(std::string_view word, const std::vector<std::string>& known) {
  // Longer than any name there is: near to none, and the table of distances would be large.
  if (word.size() > 256) return "";
  const std::string w = lower(word);
  std::string best;
  std::size_t best_distance = 1 + std::max<std::size_t>(1, w.size() / 3);
  for (const auto& name : known) {
    // Very short names are near to everything: for them only the case may differ.
    if (name.size() <= 2 && lower(name) != w) continue;
    const auto distance = edit_distance(w, lower(name));
    if (distance < best_distance) {
      best_distance = distance;
      best = name;
    }
  }
  // The beginning of one name alone.
  if (!best.empty() || w.size() < 3) return best;
  for (const auto& name : known) {
    if (!lower(name).starts_with(w)) continue;
    if (!best.empty()) return "";
    best = name;
  }
  return best;
}

std::string toml_string(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') out += '\\';
    if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\u{:04x}", byte);
    } else {
      out += c;
    }
  }
  return out + "\"";
}

Result<std::pair<std::string, std::uint16_t>> parse_address(const std::string& address) {
  const auto bad = [&](std::string_view why) {
    return fail(Errc::kInvalid, fmt::format("{} is no address: {}; it looks like tcp://192.0.2.1:7946", address, why));
  };
  constexpr std::string_view kScheme = "tcp://";
  if (address.rfind(kScheme, 0) != 0) return bad("it does not begin with tcp://");
  const auto colon = address.rfind(':');
  if (colon == std::string::npos || colon < kScheme.size()) return bad("it has no port");
  const std::string host = address.substr(kScheme.size(), colon - kScheme.size());
  if (host.empty()) return bad("it names no host");
  for (const unsigned char c : host) {
    if (!std::isalnum(c) && !std::strchr(".-_[]:%*", c)) return bad("its host holds a character that none may have");
  }
  const std::string_view digits = std::string_view(address).substr(colon + 1);
  unsigned port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc() || end != digits.data() + digits.size() || port < 1 || port > 65535) {
    return bad("its port is not a number from 1 to 65535");
  }
  return std::pair{host, static_cast<std::uint16_t>(port)};
}

Result<void> check_dialled(const std::string& address) {
  const auto parsed = parse_address(address);
  if (!parsed) return tl::unexpected(parsed.error());
  for (const char* all : {"0.0.0.0", "[::]", "*"}) {
    if (parsed->first != all) continue;
    return fail(Errc::kInvalid, fmt::format("{} is no address under which another host can reach this one: {} stands "
                                            "for all addresses of a host",
                                            address, all));
  }
  return {};
}

Result<void> check_family(const std::string& listen, const std::string& address) {
  const auto at = parse_address(listen);
  const auto dialled = parse_address(address);
  if (!at) return tl::unexpected(at.error());
  if (!dialled) return tl::unexpected(dialled.error());
  if (at->first == "[::]") return {};  // listens on IPv4 too
  const bool ipv6 = at->first.starts_with('[');
  const bool dials_ipv6 = dialled->first.starts_with('[');
  const bool dials_ipv4 = !dials_ipv6 && dialled->first.find_first_not_of("0123456789.") == std::string::npos;
  if (ipv6 ? !dials_ipv4 : !dials_ipv6) return {};
  return fail(Errc::kInvalid, fmt::format("the others would dial {}, which is IPv{}, and node.listen is {}, IPv{} "
                                          "alone: set it to tcp://[::]:{}, which is both, or say with --address under "
                                          "which address of the other kind they reach this host",
                                          address, dials_ipv6 ? 6 : 4, listen, ipv6 ? 6 : 4, at->second));
}

Result<void> check_name(const std::string& name, std::string_view of) {
  if (good_name(name)) return {};
  return fail(Errc::kInvalid, fmt::format("{:?} cannot be {}, which is 1 to 64 characters of a-z, A-Z, 0-9, '.', "
                                          "'_', '-'",
                                          name, of));
}

std::string own_host_name() {
  char name[256] = {};
  if (gethostname(name, sizeof(name) - 1) != 0) return "localhost";
  const std::string_view whole(name);
  return std::string(whole.substr(0, whole.find('.')));
}

Result<Config> parse_config(std::string_view text, const std::string& file, const std::string& host_name) {
  try {
    const toml::table root = toml::parse(text, file);
    return Parser(file, host_name).run(root);
  } catch (const toml::parse_error& e) {
    return fail(Errc::kInvalid, fmt::format("{}:{}:{}: this is not TOML: {}", file, e.source().begin.line,
                                            e.source().begin.column, e.description()));
  } catch (const std::exception& e) {
    return fail(Errc::kInvalid, fmt::format("{}: cannot be parsed: {}", file, e.what()));
  }
}

Result<Config> load_config(const std::string& file) {
  errno = 0;
  std::ifstream in(file, std::ios::binary);
  if (!in) {
    const int error = errno;
    return fail(error == ENOENT ? Errc::kNotFound : Errc::kIo,
                fmt::format("cannot read the configuration {}: {}", file, std::strerror(error)));
  }
  std::string text;
  char buffer[65536];
  while (in.read(buffer, sizeof(buffer)) || in.gcount() > 0) {
    text.append(buffer, static_cast<std::size_t>(in.gcount()));
    if (text.size() > kMaxConfigBytes) {
      return fail(Errc::kInvalid, fmt::format("{}: larger than {} MiB; this is no configuration of kinfsd", file,
                                              kMaxConfigBytes >> 20));
    }
  }
  if (in.bad() || (text.empty() && !in.eof())) {
    return fail(Errc::kIo, fmt::format("cannot read the configuration {}: is it a directory?", file));
  }
  return parse_config(text, file, own_host_name());
}

Config default_config() {
  Config config;
  config.name = own_host_name();
  config.quorum = {1, 1, 1};
  return config;
}

}  // namespace kinfs::daemon
