// mount_fake DIRECTORY: the file layer mounted over a ring within this process, until it is unmounted or interrupted.
// What a program costs here is the kernel's and the file layer's share; the ring's is none.
#include <fmt/format.h>
#include <signal.h>
#include <time.h>

#include <atomic>
#include <cstdio>
#include <mutex>
#include <thread>

#include "fake_client.h"
#include "fs/filesystem.h"
#include "fs/fuse_ops.h"
#include "fs/system_env.h"

namespace kinfs::fs::test {
namespace {

constexpr long kTickNs = 250'000'000;

int run(const char* directory) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::mutex strand;
  FakeCluster cluster(3);
  cluster.answer_at_once(true);
  FakeClient client(cluster, 0, "fake", ClientId{1});
  SystemEnv env;
  Filesystem filesystem(client, env, kVolumeHome);
  FuseOptions options;
  options.directory = directory;
  auto server = FuseServer::mount(filesystem, strand, options);
  if (!server) {
    fmt::print(stderr, "mount_fake: {}\n", server.error().text);
    return 1;
  }
  std::atomic<bool> served{false};
  std::thread timer([&] {
    const timespec pause{0, kTickNs};
    bool stopping = false;
    while (!served) {
      stopping = sigtimedwait(&signals, nullptr, &pause) > 0 || stopping;
      if (stopping) (*server)->stop();
      std::vector<std::uint64_t> stale;
      {
        const std::lock_guard lock(strand);
        const auto now_ms = env.wall_ns() / 1'000'000;
        cluster.advance_ms(now_ms - cluster.now_ms());
        filesystem.tick();
        stale = filesystem.take_stale();
      }
      (*server)->invalidate(stale);
    }
  });
  (*server)->serve([] { fmt::print("serving\n"); });
  served = true;
  timer.join();
  for (const auto& [name, count] : (*server)->counters()) fmt::print("{}={} ", name, count);
  const auto& calls = cluster.calls;
  fmt::print("\ngets={} scans={} puts={} rows={} blocks_put={} blocks_got={}\n", calls.gets, calls.scans, calls.puts,
             calls.put_rows, calls.blocks_put, calls.blocks_got);
  server->reset();
  return 0;
}

}  // namespace
}  // namespace kinfs::fs::test

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: mount_fake DIRECTORY\n");
    return 2;
  }
  return kinfs::fs::test::run(argv[1]);
}
