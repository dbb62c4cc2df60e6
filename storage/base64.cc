#include "storage/base64.h"

#include <cstdint>

namespace kinfs {
namespace {
constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
}  // namespace

std::string to_base64(ByteView bytes) {
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t v = 0;
    const std::size_t n = std::min<std::size_t>(3, bytes.size() - i);
    for (std::size_t j = 0; j < 3; ++j) v = v << 8 | (j < n ? static_cast<unsigned char>(bytes[i + j]) : 0u);
    for (std::size_t j = 0; j < 4; ++j) out.push_back(j <= n ? kAlphabet[v >> (18 - 6 * j) & 63] : '=');
  }
  return out;
}

Result<Bytes> from_base64(const std::string& text) {
  const auto bad = [] { return fail(Errc::kInvalid, "this is not base64"); };
  if (text.size() % 4 != 0) return bad();
  Bytes out;
  for (std::size_t i = 0; i < text.size(); i += 4) {
    std::uint32_t v = 0;
    std::size_t padding = 0;
    for (std::size_t j = 0; j < 4; ++j) {
      const char c = text[i + j];
      if (c == '=' && i + 4 == text.size() && j >= 2) {
        ++padding;
        v <<= 6;
        continue;
      }
      const auto at = kAlphabet.find(c);
      if (at == std::string_view::npos || padding != 0) return bad();
      v = v << 6 | static_cast<std::uint32_t>(at);
    }
    for (std::size_t j = 0; j + padding < 3; ++j) out.push_back(static_cast<char>(v >> (16 - 8 * j) & 255));
  }
  return out;
}

}  // namespace kinfs
