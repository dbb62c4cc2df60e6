// RFC 4648, section 4 (with padding).
#pragma once

#include <string>

#include "storage/bytes.h"
#include "storage/result.h"

namespace kinfs {

std::string to_base64(ByteView bytes);
/// kInvalid for anything that to_base64 does not return, but for bits that its last character does not need.
Result<Bytes> from_base64(const std::string& text);

}  // namespace kinfs
