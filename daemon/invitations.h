// The invitations that this host has given, in data_dir/invitations.json (0600): which are open, by whom they were
// used, when they expire. The keys themselves are not kept, only their public halves.
//
// One invitation admits one host: which one is on disk before that host is taken in, so that no other is, also when
// this one dies in between. The same host may use it again, since the answer may have been lost. What is used up or
// expired is kept for kKeepS more, so that whoever comes with it learns why it is refused.
//
// Threading: the loop's thread.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cluster/key_pair.h"
#include "storage/result.h"
#include "storage/version.h"

namespace kinfs::daemon {

class Invitations {
 public:
  /// Reads the file, if there is one. kCorrupt, naming it, when it cannot be understood.
  static Result<Invitations> open(std::string file);

  /// A new one, on disk when this returns. kBusy when kMostOpen are.
  Result<cluster::KeyPair> issue(std::uint64_t now_s, std::uint64_t expires_s);
  /// The public keys of all, for the check of keys.
  std::set<Bytes> keys() const;
  /// Why `host` cannot come in by the key with the id `guest`; nullopt: it may, and nobody else by the same, which is
  /// on disk when this returns. Each is followed by ended().
  std::optional<Error> begin(NodeId guest, NodeId host, std::uint64_t now_s);
  enum class End {
    kTakenIn,
    kRefused,  // another host may use it, unless an earlier attempt of this one may have been carried out
    kAgain,    // it was not taken in, and asks again: no other host may
    kUnknown,  // whether it was: no other host may
  };
  /// An error: it is not on disk that others may use it, and they may not.
  Result<void> ended(NodeId guest, NodeId host, End end);

  static constexpr std::size_t kMostOpen = 200;
  static constexpr std::uint64_t kKeepS = 30ull * 24 * 3600;

 private:
  struct Entry {
    Bytes public_key;
    NodeId guest{};
    std::uint64_t expires_s = 0;
    NodeId used_by{};
    // Not on disk:
    std::uint32_t under_way = 0;  // attempts of that host
    bool is_open = false;         // one of them may have been carried out
  };
  explicit Invitations(std::string file) : file_(std::move(file)) {}
  Entry* find(NodeId guest);
  Result<void> save() const;

  std::string file_;
  std::vector<Entry> entries_;
};

}  // namespace kinfs::daemon
