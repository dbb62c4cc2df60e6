// net_bench [COUNT]: how long one round trip takes, one at a time: a get from a client to its daemon over the Unix
// socket, and a ping between two nodes over CURVE. Daemon and nodes answer at once, so this is what sockets,
// threads and the codec cost.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <thread>
#include <vector>

#include "cluster/hop.h"
#include "cluster/socket_client.h"
#include "cluster/unix_server.h"
#include "cluster/zmq_transport.h"

using namespace kinfs;
using namespace kinfs::cluster;

namespace {

struct Loop {
  Loop() : thread([this] { loop.run(); }) {}
  ~Loop() {
    loop.stop();
    thread.join();
  }
  template <class F>
  void call(F f) {
    std::promise<void> done;
    loop.post([&] {
      f();
      done.set_value();
    });
    done.get_future().wait();
  }
  EventLoop loop;
  std::thread thread;
};

void report(std::string_view what, std::vector<std::int64_t> us) {
  std::sort(us.begin(), us.end());
  fmt::print("{}: median {} us, p10 {} us, p99 {} us ({} times)\n", what, us[us.size() / 2], us[us.size() / 10],
             us[us.size() * 99 / 100], us.size());
}

template <class T>
T must(Result<T> result) {
  if (result) return std::move(*result);
  fmt::print(stderr, "net_bench: {}\n", result.error().text);
  std::exit(5);
}

void bench_unix(int count) {
  const auto path = (std::filesystem::temp_directory_path() / fmt::format("kinfs-bench-{}", ::getpid())).string();
  Loop server_loop;
  std::unique_ptr<UnixServer> server;
  server_loop.call([&] {
    server = must(UnixServer::open(server_loop.loop, path,
                                   [&](std::uint64_t connection, std::uint64_t id, Request request, std::uint32_t) {
                                     if (std::holds_alternative<PutBlockRequest>(request)) {
                                       server->reply(connection, id, BlockStored{});
                                     } else {
                                       server->reply(connection, id, GetResult{});
                                     }
                                   }));
  });
  std::mutex strand;
  auto client = must(SocketClient::connect({path, ClientId{1}, 1, "host", 10'000}, strand));
  // The next call starts where the last ended, on the client's I/O thread, as the file system's do.
  const auto chain = [&](auto call) {
    auto run = [](auto make, int n) -> Task<std::vector<std::int64_t>> {
      std::vector<std::int64_t> us;
      for (int i = 0; i < n; ++i) {
        const auto began = mono_us();
        auto task = make();
        (void)co_await task;
        us.push_back(mono_us() - began);
      }
      co_return us;
    };
    return wait_for(strand, run(call, count));
  };
  report("unix socket, get, client's I/O thread -> daemon", chain([&] { return client->get(kVolumeKv, "key", ""); }));
  std::vector<std::int64_t> us;
  for (int i = 0; i < count; ++i) {
    const auto began = mono_us();
    (void)wait_for(strand, client->get(kVolumeKv, "key", "")).has_value();
    us.push_back(mono_us() - began);
  }
  report("unix socket, get, another thread waits", std::move(us));
  const auto block = share(Bytes(kMaxBlockBytes, 'b'));
  report("unix socket, put_block of 1 MiB", chain([&] {
           return client->put_block({kVolumeHome, "file", 0, {}}, block, {});
         }));
  client.reset();
  server_loop.call([&] { server.reset(); });
}

struct BenchNode {
  BenchNode(int port, KeyPair k) : keys(std::move(k)) {
    member = {node_id_of(keys.public_key), "host", fmt::format("tcp://127.0.0.1:{}", port), keys.public_key, 1, "", 1};
  }
  void open(const std::vector<Member>& members, std::function<void(Message)> f) {
    loop.call([&] {
      transport = must(ZmqTransport::open(loop.loop, {member.node, member.address, keys}, members, f));
    });
  }
  void close() {
    loop.call([&] { transport.reset(); });
  }
  KeyPair keys;
  Member member;
  Loop loop;
  std::unique_ptr<ZmqTransport> transport;
};

void bench_nodes(int count, Body question, std::string_view what) {
  BenchNode a(47'946, make_key_pair());
  BenchNode b(47'947, make_key_pair());
  const std::vector<Member> members{a.member, b.member};
  std::vector<std::int64_t> us;
  std::promise<void> done;
  std::int64_t began = 0;
  const auto ask = [&] {
    began = mono_us();
    a.transport->send({a.member.node, b.member.node, us.size(), {}, 10'000, {}, question});
  };
  b.open(members, [&](Message m) { b.transport->send({b.member.node, m.from, m.id, {}, m.ttl_ms, {}, Pong{}}); });
  a.open(members, [&](Message) {
    us.push_back(mono_us() - began);
    if (us.size() == static_cast<std::size_t>(count)) return done.set_value();
    ask();
  });
  a.loop.call(ask);
  done.get_future().wait();
  us.erase(us.begin());  // it waited for the connection
  report(what, std::move(us));
  a.close();
  b.close();
}

}  // namespace

int main(int argc, char** argv) {
  const int count = argc > 1 ? std::max(std::atoi(argv[1]), 2) : 5000;
  bench_unix(count);
  bench_nodes(count, Ping{}, "node to node over CURVE, ping");
  bench_nodes(std::max(count / 10, 2),
              WriteBlock{{kVolumeHome, "file", 0, {}}, share(Bytes(kMaxBlockBytes, 'b')), false, {}},
              "node to node over CURVE, 1 MiB block");
  return 0;
}
