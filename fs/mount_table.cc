#include "fs/mount_table.h"

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace kinfs::fs {
namespace {

/// What mountinfo has written with octal numbers for blanks and the like.
std::string unescaped(const std::string& field) {
  std::string plain;
  for (std::size_t i = 0; i < field.size(); ++i) {
    if (field[i] == '\\' && i + 3 < field.size()) {
      plain += static_cast<char>(std::strtol(field.substr(i + 1, 3).c_str(), nullptr, 8));
      i += 3;
    } else {
      plain += field[i];
    }
  }
  return plain;
}

}  // namespace

std::optional<Mounted> mounted_at(const std::string& directory) {
  std::ifstream mounts("/proc/self/mountinfo");
  std::optional<Mounted> topmost;
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream fields(line);
    std::string skip, device, at, word;
    fields >> skip >> skip >> device >> skip >> at;
    if (unescaped(at) != directory) continue;
    while (fields >> word && word != "-") {
    }
    fields >> word;
    topmost = Mounted{word, device};
  }
  return topmost;
}

bool enlarge_read_ahead(const std::string& directory, std::size_t bytes) {
  const auto mounted = mounted_at(directory);
  if (!mounted) return false;
  std::ofstream setting("/sys/class/bdi/" + mounted->device + "/read_ahead_kb");
  setting << bytes / 1024 << '\n';
  return static_cast<bool>(setting.flush());
}

}  // namespace kinfs::fs
