// See system_env.h.
#include "fs/system_env.h"

#include <time.h>
#include <unistd.h>

#include <fstream>
#include <optional>
#include <sstream>

namespace kinfs::fs {
namespace {

constexpr std::int64_t kNsPerSecond = 1'000'000'000;

std::int64_t now_ns(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return t.tv_sec * kNsPerSecond + t.tv_nsec;
}

std::optional<std::uint32_t> process_of_thread(std::uint32_t thread) {
  std::ifstream status("/proc/" + std::to_string(thread) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("Tgid:", 0) == 0) return static_cast<std::uint32_t>(std::stoul(line.substr(5)));
  }
  return std::nullopt;
}

/// Field 22 of stat: clock ticks after boot. A number that was given to another process since shows by it.
std::optional<std::int64_t> started_ms(std::uint32_t process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/stat");
  std::string line;
  std::getline(file, line);
  const auto name_end = line.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(line.substr(name_end + 1));
  std::string field;
  constexpr int kStartField = 20;  // of those after the name
  for (int i = 0; i < kStartField; ++i) fields >> field;
  if (field.empty()) return std::nullopt;
  return std::stoll(field) * 1000 / ::sysconf(_SC_CLK_TCK);
}

}  // namespace

std::int64_t SystemEnv::mono_us() { return now_ns(CLOCK_BOOTTIME) / 1000; }

std::int64_t SystemEnv::wall_ns() { return now_ns(CLOCK_REALTIME); }

bool SystemEnv::same_process(std::uint32_t then, std::int64_t then_ms, std::uint32_t now) {
  if (then == 0 || now == 0) return false;
  try {
    const auto process = process_of_thread(now);
    if (!process) return false;
    if (then != *process &&
        ::access(("/proc/" + std::to_string(*process) + "/task/" + std::to_string(then)).c_str(), F_OK) != 0) {
      return false;
    }
    const auto started = started_ms(*process);
    return started && *started <= then_ms;
  } catch (const std::exception&) {
    return false;  // /proc is not what it should be: it cannot be told
  }
}

}  // namespace kinfs::fs
