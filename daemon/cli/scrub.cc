#include "daemon/cli/scrub.h"

#include <fmt/format.h>

#include "daemon/cli/session.h"
#include "daemon/cli/status.h"

namespace kinfs::daemon {
namespace {

std::uint64_t count_of(const Json& scrub, const char* what) { return scrub.at(what).get<std::uint64_t>(); }

/// As it is when a pass has ended that began after `before`.
Result<Json> follow(const std::string& socket, const Json& before) {
  // One that was under way may have read already what is damaged now.
  const auto enough = count_of(before, "passes") + (before.at("done").get<double>() > 0 ? 2 : 1);
  const auto is_of_another_start = [&](const Json& now) {
    return count_of(now, "passes") < count_of(before, "passes") || count_of(now, "blocks") < count_of(before, "blocks");
  };
  auto status = follow_status(socket, [&](const Json& status, Session& session) {
    const auto& now = status.at("scrub");
    if (is_of_another_start(now) || count_of(now, "passes") >= enough) return std::string();
    (void)session.admin("scrub");  // the next pass is not to wait, nor one after a start that nobody saw
    return fmt::format("{:.0f} % of all blocks are read", 100 * now.at("done").get<double>());
  });
  if (!status) return status;
  if (is_of_another_start(status->at("scrub"))) {
    return fail(Errc::kUnavailable, "kinfsd was started anew meanwhile: give kinfs scrub again");
  }
  return status->at("scrub");
}

}  // namespace

int scrub(const ScrubOptions& options) {
  const auto socket = socket_path_of(options.socket);
  auto session = Session::open(socket);
  if (!session) return give_up(session.error());
  auto before = session->admin("scrub");
  if (!before) return give_up(before.error());
  try {
    auto after = follow(socket, *before);
    if (!after) return give_up(after.error());
    const auto since = [&](const char* what) { return count_of(*after, what) - count_of(*before, what); };
    const auto lost = count_of(*after, "beyond_repair");
    fmt::print("{} blocks were read; {} were damaged, and {} of them are written anew from other hosts\n",
               since("blocks"), since("damaged"), since("mended"));
    if (lost != 0) fmt::print("{} are damaged that no other host could give: see kinfs status\n", lost);
    return since("damaged") == 0 && lost == 0 ? kExitDone : kExitAttention;
  } catch (const Json::exception& e) {
    return give_up_unreadable(e);
  }
}

}  // namespace kinfs::daemon
