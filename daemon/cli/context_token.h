// What `kinfs get` showed, as one opaque word for `kinfs put --context`.
//
// It names the dots that were shown and the causal context of the row then, and the key that they are of: a token of
// another key, or one with a typing error, is refused, as superseding by it would be nonsense.
#pragma once

#include <string>
#include <vector>

#include "storage/base64.h"
#include "storage/key.h"
#include "storage/result.h"
#include "storage/version.h"

namespace kinfs::daemon {

struct ContextToken {
  std::vector<Dot> shown;
  bool all = false;  // every live version of the row was shown, so that the whole context may be superseded
  CausalContext context;
  bool operator==(const ContextToken&) const = default;
};

std::string encode_token(const ContextToken& token, const RowKey& key);
/// kInvalid, in words, for anything that encode_token did not return for this key.
Result<ContextToken> decode_token(const std::string& word, const RowKey& key);

}  // namespace kinfs::daemon
