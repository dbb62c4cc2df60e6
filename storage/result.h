// Result<T>: a value, or an Error from a closed set with the words that go with it.
//
// Invariant: an Error is never dropped silently; Result is nodiscard through tl::expected and every place
// that turns one into an errno or an exit code does so with an exhaustive switch (no default label), so that
// a new Errc does not compile until each of them has an answer for it.
#pragma once

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace kinfs {

enum class Errc {
  kNotFound,      // the thing named does not exist, concluded from enough replicas
  kExists,        // the name is taken
  kInvalid,       // the request makes no sense as it stands
  kNameTooLong,   // a name over 255 bytes, or a key over kMaxKeyBytes
  kTooLarge,      // a value over kMaxValueBytes, or a file over the limit
  kNotDirectory,  // a path component is not a directory
  kIsDirectory,   // a directory where a file is needed
  kNotEmpty,      // a directory that still has entries
  kNotPermitted,  // not supported for this kind of object (EPERM)
  kAccess,        // the caller may not (EACCES)
  kUnavailable,   // too few replicas can be reached to say (EHOSTUNREACH)
  kTimeout,       // the deadline passed; the outcome is unknown
  kBusy,          // refused now because a bounded queue is full
  kCancelled,     // the caller was interrupted and no longer waits
  kNoSpace,       // the disk, or the room for hints, is full
  kCorrupt,       // bytes on disk or on the wire are not what was written
  kFormat,        // a data directory or message of another version or product
  kRefused,       // the peer, or this node's configuration, does not allow it
  kUnsupported,   // a known request that this build does not serve
  kIo,            // the operating system failed a read or a write
  kInternal,      // an invariant did not hold; a bug
};

/// A short lower-case name of `code`, for logs and `--json`.
std::string_view errc_name(Errc code);

struct Error {
  Errc code;
  std::string text;  // names the thing and, where there is one, the way out

  bool operator==(const Error&) const = default;
};

template <class T>
using Result = tl::expected<T, Error>;

[[nodiscard]] inline tl::unexpected<Error> fail(Errc code, std::string text) {
  return tl::unexpected<Error>(Error{code, std::move(text)});
}

/// Passes the error of one Result on through a function that returns another.
template <class T>
[[nodiscard]] tl::unexpected<Error> pass(Result<T>&& failed) {
  return tl::unexpected<Error>(std::move(failed).error());
}

}  // namespace kinfs
