// Dynamo's stories as text: one command a line, played on the simulator, each expectation checked on the spot.
//
//   hosts HOSTS [N R W] [reaping] [joining]    first; N, R, W are 3, 2, 2. joining: host 1 is alone at first
//   key KEY                                    names its owners owner1..owner3, and the first host that stands in:
//   other put VALUE to KEY via HOST [over V ...] [is ok|degraded|refused]
//                                              over: what it replaces, of what the last get of KEY showed
//   remove NAME to KEY via HOST [over V ...] [is ...]   a tombstone, called NAME where versions are named
//   get KEY via HOST shows V ... [degraded]    "nothing" for absent
//   get KEY via HOST is refused
//   replica HOST has V ... of KEY              what lies on its disk; "nothing" for none
//   hints on HOST for HOST are N
//   cut HOST | cut HOST to HOST | heal | kill HOST | lose-power HOST | start HOST
//   back-up HOST | restore HOST                its disk, and the process starts anew on it
//   join HOST via HOST | leave HOST via HOST | excuse HOST via HOST   and that change comes to its end
//   reaped KEY                                 within a minute no host has anything of it
//   kept KEY                                   in half a minute some host still has something of it
//   compare                                    hosts compare what they have, twice
//   notice                                     waits until suspicion has settled
//   settle                                     waits until nothing is under way and all hints are handed over
#pragma once

#include <string>

#include "sim/world.h"
#include "storage/result.h"

namespace kinfs::sim {

/// Plays the scenario; the error says which line, what was expected and what was there.
Result<void> play_scenario(const std::string& path, bool trace, PlantedBug bug);

}  // namespace kinfs::sim
