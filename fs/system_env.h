// The clocks and processes of this machine.
#pragma once

#include "fs/namespace.h"

namespace kinfs::fs {

class SystemEnv : public Env {
 public:
  std::int64_t mono_us() override;
  std::int64_t wall_ns() override;
  /// By /proc: thread `then` is still one of the process of `now`, and that process is older than `then_ms`.
  bool same_process(std::uint32_t then, std::int64_t then_ms, std::uint32_t now) override;
};

}  // namespace kinfs::fs
