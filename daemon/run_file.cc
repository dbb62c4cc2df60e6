#include "daemon/run_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <random>

namespace kinfs::daemon {
namespace {

std::string random_name() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}", device(), device());
}

/// The run and what it had written; an empty name: not known.
std::pair<Bytes, std::uint64_t> read(const std::string& path) {
  std::ifstream file(path);
  Bytes name;
  std::uint64_t written = 0;
  std::string end;
  if (!(file >> name >> written >> end) || end != ".") return {};
  return {name, written};
}

}  // namespace

RunFile::RunFile(std::string path, Bytes machine_boot)
    : path_(std::move(path)), machine_boot_(std::move(machine_boot)), name_(machine_boot_ + ":" + random_name()) {}

Bytes RunFile::believed(const Store& store) const {
  const auto [name, written] = read(path_);
  if (machine_boot_.empty() || !name.starts_with(machine_boot_ + ":")) return {};
  const auto meta = store.meta();
  if (!meta || !*meta || (**meta).run != name || store.written() < written) return {};
  return name;
}

void RunFile::note(std::uint64_t written) {
  if (forgotten_ || written == noted_) return;
  // Not synced: it speaks to processes of this boot of the machine alone.
  const std::string fresh = path_ + ".new";
  std::ofstream file(fresh, std::ios::trunc);
  file << name_ << ' ' << written << " .\n";
  file.close();
  if (file && std::rename(fresh.c_str(), path_.c_str()) == 0) noted_ = written;
}

void RunFile::forget() {
  forgotten_ = true;
  ::unlink(path_.c_str());
}

}  // namespace kinfs::daemon
