#include "daemon/cli/conflicts.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <set>
#include <utility>
#include <vector>

#include "daemon/cli/process.h"
#include "daemon/cli/session.h"
#include "fs/entry.h"
#include "fs/keys.h"
#include "fs/siblings.h"

namespace kinfs::daemon {
namespace {

std::string time_words(std::int64_t time_ns) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}Z", fmt::gmtime(static_cast<std::time_t>(time_ns / 1'000'000'000)));
}

std::string join_path(const std::string& folder, std::string_view name) {
  return folder + (folder.ends_with('/') ? "" : "/") + std::string(name);
}

const char* type_name(fs::FileType type) {
  switch (type) {
    case fs::FileType::kRegular:
      return "file";
    case fs::FileType::kDirectory:
      return "directory";
    case fs::FileType::kSymlink:
      return "symlink";
    case fs::FileType::kFifo:
      return "fifo";
    case fs::FileType::kSocket:
      return "socket";
  }
  return "file";
}

class Walk {
 public:
  Walk(Session& session, bool json) : session_(session), json_(json) {}

  /// Everything below `directory`, which is called `path` in what is printed.
  Result<void> tree(const fs::DirectoryId& directory, const std::string& path) {
    std::vector<std::pair<fs::DirectoryId, std::string>> left = {{directory, path}};
    while (!left.empty()) {
      auto [id, name] = std::move(left.back());
      left.pop_back();
      // One directory may be found twice while it is being moved.
      if (!seen_.insert(id).second) continue;
      if (auto done = folder(id, name, "", left); !done) return done;
    }
    return {};
  }

  /// The one row of `directory` that shows `name`, and, if that is a folder, everything below it. kNotFound.
  Result<void> entry(const fs::DirectoryId& directory, const std::string& path, const std::string& name) {
    std::vector<std::pair<fs::DirectoryId, std::string>> left;
    if (auto done = folder(directory, path, name, left); !done) return done;
    if (!found_) return fail(Errc::kNotFound, fmt::format("there is no {}", printable(join_path(path, name))));
    for (const auto& [id, below] : left) {
      if (auto done = tree(id, below); !done) return done;
    }
    return {};
  }

  /// The directory that `name` shows in `directory`.
  Result<fs::DirectoryId> step(const fs::DirectoryId& directory, const std::string& name, const std::string& path) {
    auto got =
        session_.call([&](auto& c) { return c.get(kVolumeHome, fs::partition_key(directory), fs::sort_key(name)); });
    if (!got) return pass(std::move(got));
    const auto view = fs::view_of(got->row, name);
    const auto* shown = view.plain();
    if (shown == nullptr) return fail(Errc::kNotFound, fmt::format("there is no {}", printable(path)));
    if (shown->entry.type != fs::FileType::kDirectory) {
      return fail(Errc::kNotDirectory, fmt::format("{} is no folder", printable(path)));
    }
    return shown->entry.directory_id;
  }

  std::uint64_t count() const { return count_; }
  bool degraded() const { return degraded_; }

 private:
  /// One directory, page by page; subfolders are added to `left`. `only`: the one name to look at, if not empty.
  Result<void> folder(const fs::DirectoryId& id, const std::string& path, const std::string& only,
                      std::vector<std::pair<fs::DirectoryId, std::string>>& left) {
    Bytes from;
    while (true) {
      auto page = session_.call([&](auto& c) { return c.scan(kVolumeHome, fs::partition_key(id), from, {}); });
      if (!page) return pass(std::move(page));
      degraded_ = degraded_ || page->degraded;
      for (const auto& [key, row] : page->rows) {
        const auto name = fs::name_of(key);
        if (!name.empty()) look_at(row, name, path, only, left);
      }
      if (page->complete || page->rows.empty()) return {};
      from = page->rows.back().first + '\0';
    }
  }

  void look_at(const Row& row, std::string_view name, const std::string& path, const std::string& only,
               std::vector<std::pair<fs::DirectoryId, std::string>>& left) {
    const auto view = fs::view_of(row, name);
    if (!only.empty() && view.find(only) == nullptr) return;
    found_ = true;
    for (const auto& shown : view.names) {
      if (shown.entry.type == fs::FileType::kDirectory && (only.empty() || shown.name == only)) {
        left.emplace_back(shown.entry.directory_id, join_path(path, shown.name));
      }
    }
    if (!view.has_siblings()) return;
    ++count_;
    print(view, join_path(path, name), name);
  }

  void print(const fs::View& view, const std::string& path, std::string_view plain) const {
    if (json_) {
      Json siblings = Json::array();
      for (const auto& s : view.names) {
        siblings.push_back({{"name", s.name},
                            {"host", s.version.host},
                            {"time", time_words(s.version.time_ns)},
                            {"type", type_name(s.entry.type)},
                            {"size", s.entry.size}});
      }
      print_json({{"path", path}, {"plain", std::string(plain)}, {"siblings", std::move(siblings)}});
      return;
    }
    fmt::print("{}:", printable(path));
    for (const auto& s : view.names) {
      const bool is_file = s.entry.type == fs::FileType::kRegular;
      fmt::print(" {} ({}, {}, {})", printable(s.name), printable(s.version.host), time_words(s.version.time_ns),
                 is_file ? fmt::format("{} bytes", s.entry.size) : type_name(s.entry.type));
    }
    fmt::print("\n");
  }

  Session& session_;
  const bool json_;
  std::set<fs::DirectoryId> seen_;
  std::uint64_t count_ = 0;
  bool found_ = false;
  bool degraded_ = false;
};

Result<void> walk_path(Walk& walk, const std::string& root, const std::string& path) {
  std::vector<std::string> names;
  for (std::size_t at = root.size(); at < path.size();) {
    const auto begin = path.find_first_not_of('/', at);
    if (begin == std::string::npos) break;
    at = std::min(path.find('/', begin), path.size());
    names.push_back(path.substr(begin, at - begin));
  }
  auto directory = fs::root_directory();
  auto so_far = root;
  if (names.empty()) return walk.tree(directory, so_far);
  for (std::size_t i = 0; i + 1 < names.size(); ++i) {
    const auto next = join_path(so_far, names[i]);
    auto below = walk.step(directory, names[i], next);
    if (!below) return pass(std::move(below));
    directory = *below;
    so_far = next;
  }
  return walk.entry(directory, so_far, names.back());
}

}  // namespace

int conflicts(const ConflictsOptions& options) {
  std::string socket = socket_path_of(options.socket);
  std::string root = "/";
  std::string path = "/";
  if (options.path) {
    path = absolute_path(*options.path);
    const auto mounted = mount_above(path);
    if (!mounted) {
      return give_up({Errc::kRefused, fmt::format("{} lies in no mount of kinfs; without a path, all of volume home is "
                                                  "looked through",
                                                  printable(path))});
    }
    root = mounted->directory;
    // The mount's own daemon, so that every mount of this machine can be asked about.
    const auto process = mount_process_of(root);
    if (options.socket.empty() && process && process->options.count("socket") != 0) {
      socket = process->options.at("socket");
    }
  }
  auto session = Session::open(socket);
  if (!session) return give_up(session.error());
  Walk walk(*session, options.json);
  if (auto done = walk_path(walk, root, path); !done) return give_up(done.error());
  if (walk.degraded()) {
    complain("note: fewer hosts than the volume's r answered; the others may know of more");
  }
  return walk.count() == 0 ? kExitDone : kExitAttention;
}

}  // namespace kinfs::daemon
