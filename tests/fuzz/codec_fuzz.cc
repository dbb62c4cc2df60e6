// libFuzzer: any bytes as a header, with and without a payload. What decodes must encode, and decode to the same.
#include <cstdint>
#include <cstdlib>

#include "cluster/codec.h"

using namespace kinfs;
using namespace kinfs::cluster;

namespace {

template <class T>
void check(const Result<T>& decoded, Result<T> (*decode)(ByteView, SharedBytes)) {
  if (!decoded) return;
  const auto once = encode(*decoded);
  const auto again = decode(once.header, once.payload);
  if (!again || encode(*again).header != once.header) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::size_t payload_bytes = data[0] % 2 == 0 ? 0 : data[0] / 2;
  const ByteView header(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto payload = payload_bytes == 0 ? nullptr : share(Bytes(payload_bytes, 'p'));
  check(decode_message(header, payload), decode_message);
  check(decode_client_frame(header, payload), decode_client_frame);
  return 0;
}
