// kinfs get, put, del: plain keys and values, on volumes of kind kv.
//
// What a write supersedes is exactly what its writer was shown: the value that `get` would print; with --all every
// version; with --context what that get showed. Everything else lives on beside it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "daemon/cli/context_token.h"
#include "storage/result.h"
#include "storage/version.h"

namespace kinfs::daemon {

struct KvOptions {
  std::string socket;
  std::string key;
  std::string volume = "kv";
  std::optional<std::uint32_t> r;
  std::optional<std::uint32_t> w;
  std::optional<std::string> context;  // get: unused
  bool all = false;
  bool json = false;  // get only
};

int kv_get(const KvOptions& options);
int kv_put(const KvOptions& options);
int kv_del(const KvOptions& options);

/// The live versions of a row, the one that `get` prints first: the greatest hybrid clock, then the greatest host
/// name, then the greatest dot, so that every host prints the same. Versions with equal bytes stand for one: they
/// are in one group.
std::vector<std::vector<const Version*>> shown_versions(const Row& row);
/// The dots that a write without --context supersedes. Markers of a removal hold nothing that could be lost, and go
/// with any write.
std::vector<Dot> dots_to_supersede(const Row& row, bool all);
/// `row` as it is now, without what the token's get was shown: the base of a put with --context.
Row base_under(const Row& row, const ContextToken& token);

}  // namespace kinfs::daemon
