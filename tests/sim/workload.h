// Clients that read, write over what they were shown, make siblings, discard, retry and give up; and an enemy
// that cuts, kills, stops and fills. One run is one seed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sim/history.h"
#include "sim/world.h"

namespace kinfs::sim {

struct RunOptions {
  std::uint64_t seed = 1;
  PlantedBug bug = PlantedBug::kNone;
  bool trace = false;
  bool members = false;  // they change; else they do in a quarter of the runs
};

struct RunResult {
  std::vector<std::string> violations;
  Faults faults;
  cluster::Counters counters;
  std::uint64_t operations = 0;
  std::uint64_t answered = 0;
  std::uint64_t true_siblings = 0;
  std::size_t hosts = 0;
  cluster::Quorum quorum;
  std::string census() const;
};

RunResult run_seed(const RunOptions& options);

}  // namespace kinfs::sim
