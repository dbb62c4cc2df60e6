#include "daemon/exit_code.h"

namespace kinfs::daemon {

ExitCode exit_code_of(Errc code) {
  switch (code) {
    case Errc::kNotFound:
      return kExitAttention;
    case Errc::kUnavailable:
    case Errc::kTimeout:
      return kExitUnreachable;
    case Errc::kExists:
    case Errc::kInvalid:
    case Errc::kNameTooLong:
    case Errc::kTooLarge:
    case Errc::kNotDirectory:
    case Errc::kIsDirectory:
    case Errc::kNotEmpty:
    case Errc::kNotPermitted:
    case Errc::kAccess:
    case Errc::kBusy:
    case Errc::kCancelled:
    case Errc::kNoSpace:
    case Errc::kFormat:
    case Errc::kRefused:
    case Errc::kUnsupported:
      return kExitRefused;
    case Errc::kCorrupt:
    case Errc::kIo:
    case Errc::kInternal:
      return kExitInternal;
  }
  return kExitInternal;
}

}  // namespace kinfs::daemon
