// Byte strings and the canonical encoding that hashes are computed over.
//
// Hashes never cover protobuf bytes: a serializer may order or drop fields differently from one release to
// the next. CanonicalWriter is fixed for ever; a new field is appended, never inserted.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace kinfs {

using Bytes = std::string;           // owned; any byte value, embedded zeros included
using ByteView = std::string_view;   // borrowed
using SharedBytes = std::shared_ptr<const Bytes>;  // a block on its way: never copied between layers

inline SharedBytes share(Bytes bytes) { return std::make_shared<const Bytes>(std::move(bytes)); }

using Digest128 = std::array<std::uint8_t, 16>;
using Digest256 = std::array<std::uint8_t, 32>;

inline ByteView view_of(const Digest128& d) { return {reinterpret_cast<const char*>(d.data()), d.size()}; }
inline ByteView view_of(const Digest256& d) { return {reinterpret_cast<const char*>(d.data()), d.size()}; }

/// MD5 (RFC 1321): placement and names only, never integrity.
Digest128 md5(ByteView bytes);
/// SHA-256 (FIPS 180-4): the identity of blocks and the digest of versions.
Digest256 sha256(ByteView bytes);
/// Its first 128 bits.
Digest128 short_sha256(ByteView bytes);

/// Lower-case hexadecimal, two characters a byte.
std::string to_hex(ByteView bytes);
/// Of digits in either case; nullopt when it is none.
std::optional<Bytes> from_hex(std::string_view hex);

/// Big-endian, so that bytes compare as the numbers do.
void append_be16(Bytes& out, std::uint16_t v);
void append_be32(Bytes& out, std::uint32_t v);
void append_be64(Bytes& out, std::uint64_t v);
/// Reads 8 bytes at `at`; the caller has checked that they are there.
std::uint64_t read_be64(ByteView in, std::size_t at = 0);

/// Writes values so that no two different sequences of calls give the same bytes: integers are 8 bytes
/// big-endian, byte strings are preceded by their length.
class CanonicalWriter {
 public:
  CanonicalWriter() { out_.reserve(kUsualBytes); }
  CanonicalWriter& u64(std::uint64_t v);
  CanonicalWriter& i64(std::int64_t v) { return u64(static_cast<std::uint64_t>(v)); }
  CanonicalWriter& bytes(ByteView b);
  const Bytes& out() const { return out_; }

 private:
  static constexpr std::size_t kUsualBytes = 128;
  Bytes out_;
};

}  // namespace kinfs
