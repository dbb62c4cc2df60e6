// Coordinating put: Dynamo's four steps (DeCandia et al. 2007, section 4.5).
#pragma once

#include "cluster/horizon.h"
#include "cluster/replication.h"

namespace kinfs::cluster {

class PutCoordinator {
 public:
  PutCoordinator(Core& core, Replication& replication, const Horizon& horizon)
      : core_(core), replication_(replication), horizon_(horizon) {}
  void put(const Asker& asker, PutRequest request);

 private:
  struct Made {
    std::vector<std::pair<Bytes, Row>> states;  // of all rows, to be replicated
    std::vector<std::pair<Bytes, Row>> changed; // those that differ from what is stored here
    PutResult result;
  };
  Result<Made> make_versions(const PutRequest& request);
  Result<PutRowResult> make_row(std::uint16_t partition, const RowPut& put, Row& row);

  Core& core_;
  Replication& replication_;
  const Horizon& horizon_;
};

}  // namespace kinfs::cluster
