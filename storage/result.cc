// Names of error codes. The switch has no default label, so that a new code does not compile without a name.
#include "storage/result.h"

namespace kinfs {

std::string_view errc_name(Errc code) {
  switch (code) {
    case Errc::kNotFound:
      return "not found";
    case Errc::kExists:
      return "exists";
    case Errc::kInvalid:
      return "invalid";
    case Errc::kNameTooLong:
      return "name too long";
    case Errc::kTooLarge:
      return "too large";
    case Errc::kNotDirectory:
      return "not a directory";
    case Errc::kIsDirectory:
      return "is a directory";
    case Errc::kNotEmpty:
      return "not empty";
    case Errc::kNotPermitted:
      return "not permitted";
    case Errc::kAccess:
      return "access denied";
    case Errc::kUnavailable:
      return "unavailable";
    case Errc::kTimeout:
      return "timeout";
    case Errc::kBusy:
      return "busy";
    case Errc::kCancelled:
      return "cancelled";
    case Errc::kNoSpace:
      return "no space";
    case Errc::kCorrupt:
      return "corrupt";
    case Errc::kFormat:
      return "format";
    case Errc::kRefused:
      return "refused";
    case Errc::kUnsupported:
      return "unsupported";
    case Errc::kIo:
      return "io";
    case Errc::kInternal:
      return "internal";
  }
  return "unknown";  // only for a value that was never an Errc
}

}  // namespace kinfs
