// A node that is a transport and nothing else: what it receives is kept, or answered by the test.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cluster/zmq_transport.h"
#include "loop_thread.h"

namespace kinfs::cluster {

/// A port of 127.0.0.1 that nobody uses now, nor is given by the kernel to a connection of another test (those are from
/// 32768 on, unless this machine was told otherwise).
inline std::uint16_t free_port() {
  std::random_device random;
  std::uniform_int_distribution<int> ports(20'000, 32'000);
  for (;;) {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(ports(random)));
    const bool free = ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    ::close(fd);
    if (free) return ntohs(address.sin_port);
  }
}

struct Identity {
  Identity() : keys(make_key_pair()) {
    const auto address = "tcp://127.0.0.1:" + std::to_string(free_port());
    member = {node_id_of(keys.public_key), "host", address, keys.public_key, 1, "", 1, client_keys().public_key};
  }
  NodeId id() const { return member.node; }
  KeyPair client_keys() const { return client_keys_of(keys); }
  KeyPair keys;
  Member member;
};

class TestNode {
 public:
  /// `handler` runs on the loop; without one, messages are kept.
  TestNode(Identity identity, std::vector<Member> members, std::function<void(TestNode&, Message)> handler = {})
      : self(std::move(identity)), members_(std::move(members)), handler_(std::move(handler)) {
    start();
  }
  ~TestNode() { stop(); }

  void start() {
    const auto error = thread.call([this] {
      auto opened =
          ZmqTransport::open(thread.loop(), {self.id(), self.member.address, self.keys}, members_,
                             [this](Message m) { handler_ ? handler_(*this, std::move(m)) : keep(std::move(m)); });
      if (!opened) return opened.error().text;
      transport = std::move(*opened);
      return std::string();
    });
    EXPECT_EQ(error, "");
  }
  void stop() {
    thread.call([this] { transport.reset(); });
  }
  void keep(Message m) { received.push_back(std::move(m)); }

  void send(NodeId to, std::uint64_t id, Body body, std::uint32_t ttl_ms = 5000) {
    send(Message{self.id(), to, id, {}, ttl_ms, {}, std::move(body)});
  }
  void send(const Message& message) {
    thread.call([&] { transport->send(message); });
  }
  bool wait_for(std::size_t count, std::chrono::milliseconds most = std::chrono::seconds(10)) {
    return thread.wait_until([&] { return received.size() >= count; }, most);
  }
  std::size_t count() {
    return thread.call([&] { return received.size(); });
  }
  TransportCounters counters() {
    return thread.call([&] { return transport->counters(); });
  }
  void cut(std::set<NodeId> peers) {
    thread.call([&] { transport->set_cut(peers); });
  }

  Identity self;
  LoopThread thread;
  // The rest on the loop only.
  std::unique_ptr<ZmqTransport> transport;
  std::vector<Message> received;

 private:
  std::vector<Member> members_;
  std::function<void(TestNode&, Message)> handler_;
};

}  // namespace kinfs::cluster
