#include "cluster/zmq_line.h"

#include "cluster/event_loop.h"

namespace kinfs::cluster {
namespace {
constexpr std::int64_t kReopenMs = 3000;  // over the time of a handshake on the longest lines
}  // namespace

Result<void> ZmqLine::open(ZmqContext& context, const std::string& name, const std::string& address,
                           ByteView server_key, const KeyPair& keys) {
  close();
  reopen_at_ms_ = EventLoop::mono_ms() + kReopenMs;
  auto dialled = context.dial(name, address, server_key, keys);
  if (!dialled) return pass(std::move(dialled));
  dialled_ = std::move(*dialled);
  descriptor_ = dialled_.socket.descriptor();
  monitor_descriptor_ = dialled_.monitor.descriptor();
  return {};
}

void ZmqLine::close() {
  dialled_.socket.close();
  dialled_.monitor.close();
  descriptor_ = monitor_descriptor_ = -1;
  stands_ = false;
}

ZmqEvent ZmqLine::look() {
  const auto event = dialled_.monitor.receive_event();
  if (event == ZmqEvent::kNone) return event;
  stands_ = event == ZmqEvent::kStands;
  reopen_at_ms_ = EventLoop::mono_ms() + kReopenMs;
  return event;
}

bool ZmqLine::send(ByteView header, const HopBytes& hop, const SharedBytes& payload) {
  if (!is_open()) return false;
  return dialled_.socket.send({}, header, {hop.data(), hop.size()}, payload) == ZmqSocket::Sent::kDone;
}

}  // namespace kinfs::cluster
