// A connection to one host that is kept up: ZeroMQ makes it anew by itself when it breaks, but gives an address up for
// good after one failed handshake (a stranger had the port, or the host did not list us yet). So a monitor tells
// whether it stands, and one that has not stood for a while is to be made from nothing.
//
// Threading: one thread. Whoever owns it watches descriptor() and monitor_descriptor(); see zmq_socket.h.
#pragma once

#include <cstdint>
#include <string>

#include "cluster/hop.h"
#include "cluster/zmq_socket.h"

namespace kinfs::cluster {

class ZmqLine {
 public:
  /// As ZmqContext::dial; what was open is closed.
  Result<void> open(ZmqContext& context, const std::string& name, const std::string& address, ByteView server_key,
                    const KeyPair& keys);
  void close();
  bool is_open() const { return static_cast<bool>(dialled_.socket); }
  /// To be asked when the monitor's descriptor fires, and once after open().
  ZmqEvent look();
  bool stands() const { return stands_; }
  /// It has not stood for so long that it must be opened anew, or was not opened.
  bool lost(std::int64_t mono_ms) const { return !stands_ && mono_ms >= reopen_at_ms_; }
  /// False: it takes nothing now.
  bool send(ByteView header, const HopBytes& hop, const SharedBytes& payload);

  ZmqSocket& socket() { return dialled_.socket; }
  int descriptor() const { return descriptor_; }
  int monitor_descriptor() const { return monitor_descriptor_; }

 private:
  ZmqDialled dialled_;
  int descriptor_ = -1;
  int monitor_descriptor_ = -1;
  bool stands_ = false;
  std::int64_t reopen_at_ms_ = 0;
};

}  // namespace kinfs::cluster
