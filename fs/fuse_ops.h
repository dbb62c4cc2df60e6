// The kernel's side of a mount: requests in, calls of Filesystem, replies out. The one place that knows libfuse.
//
// Threading: worker threads read requests, take the strand, start the call and let go; whatever thread ends the call
// replies, still inside the strand. A call that waits for the ring thus holds no thread and no lock. Notifications to
// the kernel (invalidate) are sent by a thread that serves no request, without the strand, because the kernel may make
// them wait for requests.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "fs/filesystem.h"
#include "storage/result.h"

namespace kinfs::fs {

struct FuseOptions {
  std::string source = "kinfs";  // as /proc/mounts names it: the volume
  std::string directory;
  std::vector<std::string> kernel_options;  // ro, nosuid, … as mount(8) has them
  bool allow_other = false;
  unsigned threads = 4;
  bool debug = false;
};

class FuseServer {
 public:
  /// Mounts. kIo when the kernel refuses; libfuse prints why on standard error.
  static Result<std::unique_ptr<FuseServer>> mount(Filesystem& filesystem, std::mutex& strand, FuseOptions options);
  /// Unmounts if it is still mounted. Called without the strand, after serve() has returned.
  ~FuseServer();

  /// Until the directory is unmounted (true) or stop() is called (false). `ready` is called when the kernel has begun.
  bool serve(std::function<void()> ready);
  /// From any thread; call it again until serve() has returned, as a wake-up may come before the sleep.
  void stop();
  void unmount();
  /// Has the kernel drop its pages of these nodes. Not from a callback.
  void invalidate(const std::vector<std::uint64_t>& nodes);
  /// (name, requests so far) of each kind that came. Inside the strand.
  std::vector<std::pair<std::string, std::uint64_t>> counters() const;

  struct Impl;  // named here for the callbacks in fuse_ops.cc

 private:
  explicit FuseServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kinfs::fs
