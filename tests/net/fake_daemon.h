// Daemons that answer as a test tells them to: requests are kept until they are answered. One on the Unix socket, and
// one that clients of other hosts come to.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cluster/introduction.h"
#include "cluster/socket_client.h"
#include "cluster/unix_server.h"
#include "loop_thread.h"
#include "test_node.h"

namespace kinfs::cluster {

class FakeDaemon {
 public:
  struct Asked {
    std::uint64_t connection;
    std::uint64_t id;
    Request request;
    std::uint32_t ttl_ms;
  };
  /// nullopt: the request is kept in `open`.
  using Handler = std::function<std::optional<Answer>(const Request&)>;

  explicit FakeDaemon(std::string path, Handler handler = {}, UnixServerLimits limits = {})
      : path_(std::move(path)), handler_(std::move(handler)), limits_(limits) {
    start();
  }
  ~FakeDaemon() { stop(); }

  void start() {
    thread.call([this] {
      auto opened = UnixServer::open(
          thread.loop(), path_,
          [this](std::uint64_t connection, std::uint64_t id, Request request, std::uint32_t ttl_ms) {
            const auto* command = std::get_if<AdminRequest>(&request);
            if (command != nullptr && command->command == kIntroductionCommand) {
              return server->reply(connection, id, AdminAnswer{introduction});
            }
            ++asked;
            if (auto answer = handler_ ? handler_(request) : std::nullopt) {
              server->reply(connection, id, std::move(*answer));
            } else {
              open.push_back({connection, id, std::move(request), ttl_ms});
            }
          },
          [this] { return hlc; }, limits_);
      ASSERT_TRUE(opened) << opened.error().text;
      server = std::move(*opened);
    });
  }
  void stop() {
    thread.call([this] {
      server.reset();
      open.clear();
    });
  }
  bool wait_for_open(std::size_t count) {
    return thread.wait_until([&] { return open.size() >= count; });
  }
  /// Answers the request that was kept at `index`.
  void answer(std::size_t index, Answer what) {
    thread.call([&] {
      const auto asked_for = open.at(index);
      open.erase(open.begin() + static_cast<std::ptrdiff_t>(index));
      server->reply(asked_for.connection, asked_for.id, std::move(what));
    });
  }

  void answer_all(const Answer& what) {
    thread.call([&] {
      for (const auto& asked_for : std::exchange(open, {})) server->reply(asked_for.connection, asked_for.id, what);
    });
  }

  LoopThread thread;
  // The rest on the loop only.
  std::unique_ptr<UnixServer> server;
  std::deque<Asked> open;
  std::size_t asked = 0;
  Hlc hlc;
  std::string introduction;  // what it tells of other hosts; each client asks

 private:
  std::string path_;
  Handler handler_;
  UnixServerLimits limits_;
};

class FakeRemote {
 public:
  FakeRemote(Identity identity, std::vector<Member> members, FakeDaemon::Handler handler = {},
             UnixServerLimits limits = {})
      : node(std::move(identity), std::move(members)), handler_(std::move(handler)), limits_(limits) {
    serve();
  }
  ~FakeRemote() { stop(); }  // before what its loop keeps is gone
  void start() {
    node.start();
    serve();
  }
  void stop() {
    node.stop();
    node.thread.call([this] { open.clear(); });
  }
  bool wait_for_open(std::size_t count) {
    return node.thread.wait_until([&] { return open.size() >= count; });
  }
  void answer(std::size_t index, Answer what) {
    node.thread.call([&] {
      const auto asked_for = open.at(index);
      open.erase(open.begin() + static_cast<std::ptrdiff_t>(index));
      node.transport->reply(Visitor::kClient, asked_for.connection, asked_for.id, std::move(what));
    });
  }
  void hang_up() {
    node.thread.call([&] { node.transport->hang_up(Visitor::kClient, open.at(0).connection); });
  }
  UnixServerCounters counters() {
    return node.thread.call([&] { return node.transport->client_counters(); });
  }
  OtherHost as_other() const { return {"other", node.self.member.address, node.self.keys.public_key}; }

  TestNode node;
  // The rest on the loop only.
  std::deque<FakeDaemon::Asked> open;
  std::size_t asked = 0;
  std::optional<bool> ready;  // what it says of itself; nullopt: it does not know the question

 private:
  void serve() {
    node.thread.call([this] {
      node.transport->serve(
          Visitor::kClient,
          [this](std::uint64_t connection, std::uint64_t id, Request request, std::uint32_t ttl_ms) {
            if (const auto* command = std::get_if<AdminRequest>(&request)) {
              if (ready && command->command == kReadyCommand) {
                return node.transport->reply(Visitor::kClient, connection, id, AdminAnswer{encode_ready(*ready)});
              }
              return node.transport->reply(Visitor::kClient, connection, id, Error{Errc::kRefused, "not here"});
            }
            ++asked;
            if (auto answer = handler_ ? handler_(request) : std::nullopt) {
              node.transport->reply(Visitor::kClient, connection, id, std::move(*answer));
            } else {
              open.push_back({connection, id, std::move(request), ttl_ms});
            }
          },
          {}, limits_);
    });
  }

  FakeDaemon::Handler handler_;
  UnixServerLimits limits_;
};

struct TestClient {
  explicit TestClient(const std::string& path, std::uint32_t timeout_ms = 10'000) {
    const auto note = [this](const std::string& words) {
      std::lock_guard lock(notes_mutex);
      notes.push_back(words);
    };
    auto made = SocketClient::connect({path, ClientId{5}, 2, "host1", timeout_ms, note}, strand);
    EXPECT_TRUE(made) << made.error().text;
    client = std::move(*made);
  }
  ~TestClient() { client.reset(); }

  template <class T>
  T wait(Task<T> task) {
    return wait_for(strand, std::move(task));
  }
  /// Starts `task`; its value is there when the future is ready.
  template <class T>
  std::future<T> start(Task<T> task) {
    auto promise = std::make_shared<std::promise<T>>();
    auto future = promise->get_future();
    std::lock_guard lock(strand);
    spawn(std::move(task), [promise](T&& value) { promise->set_value(std::move(value)); });
    return future;
  }
  Task<Result<PutResult>> put(std::vector<Bytes> sort_keys) {
    std::vector<RowPut> rows;
    for (auto& key : sort_keys) {
      Version version;
      {
        std::lock_guard lock(strand);
        version.event = client->next_event();
        version.hlc = client->next_hlc();
      }
      rows.push_back({std::move(key), {}, {std::move(version)}});
    }
    return client->put(kVolumeKv, "p", std::move(rows), {});
  }

  /// How many of its notices hold these words.
  std::size_t noted(const std::string& words) {
    std::lock_guard lock(notes_mutex);
    return static_cast<std::size_t>(std::count_if(
        notes.begin(), notes.end(), [&](const auto& note) { return note.find(words) != std::string::npos; }));
  }

  std::mutex strand;
  std::mutex notes_mutex;
  std::vector<std::string> notes;
  std::unique_ptr<SocketClient> client;
};

template <class T>
bool ready(const std::future<T>& future, std::chrono::milliseconds within = std::chrono::seconds(10)) {
  return future.wait_for(within) == std::future_status::ready;
}

}  // namespace kinfs::cluster
