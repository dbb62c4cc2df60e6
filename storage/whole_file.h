// Small files that are written whole: configurations, lists, keys.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "storage/result.h"

namespace kinfs {

/// Puts `text` into the place of what is at `path`, with `mode`, and returns when it is on disk: after a crash there is
/// the old content or the new. kIo with words.
Result<void> write_whole_file(const std::string& path, std::string_view text, mode_t mode);
/// kNotFound when there is none; kIo when it cannot be read, kTooLarge when it has more than `limit` bytes.
Result<std::string> read_whole_file(const std::string& path, std::size_t limit);

}  // namespace kinfs
