// Bytes to messages and back: the only decoder of anything that comes from a socket.
//
// A message is one protobuf header (wire.proto) and, for blocks, one more frame with the bytes as they are,
// which never passes through the serializer. Decoding checks every bound; what it returns is well formed.
#pragma once

#include "cluster/message.h"

namespace kinfs::cluster {

/// Exchanged in every header; a message of another major version is refused with kFormat.
inline constexpr std::uint32_t kProtocolVersion = 2;
inline constexpr std::size_t kMaxHeaderBytes = 8 << 20;

struct Encoded {
  Bytes header;
  SharedBytes payload;  // null when there is none
};

Encoded encode(const Message& message);
Encoded encode(const ClientFrame& frame);
/// kCorrupt for anything malformed, kFormat for another version; the text says what was wrong.
Result<Message> decode_message(ByteView header, SharedBytes payload);
Result<ClientFrame> decode_client_frame(ByteView header, SharedBytes payload);

}  // namespace kinfs::cluster
