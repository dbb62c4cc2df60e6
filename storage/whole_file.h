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
/// Returns when it is on disk what is in the folder of `path`, and what is not any more. kIo with words.
Result<void> sync_folder_of(const std::string& path);
/// kNotFound when there is none; kIo when it cannot be read, kTooLarge when it has more than `limit` bytes.
Result<std::string> read_whole_file(const std::string& path, std::size_t limit);

}  // namespace kinfs
