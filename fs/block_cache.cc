// See block_cache.h.
#include "fs/block_cache.h"

#include <utility>

namespace kinfs::fs {

std::size_t BlockCache::HashOfDigest::operator()(const Digest256& d) const {
  return static_cast<std::size_t>(read_be64(kinfs::view_of(d)));
}

SharedBytes BlockCache::Recent::find(const Digest256& hash) {
  const auto it = index_.find(hash);
  if (it == index_.end()) return nullptr;
  slots_.splice(slots_.begin(), slots_, it->second);
  return it->second->bytes;
}

void BlockCache::Recent::insert(const Digest256& hash, SharedBytes bytes) {
  if (bytes == nullptr || bytes->size() > limit_bytes_ || index_.contains(hash)) return;
  bytes_ += bytes->size();
  slots_.push_front({hash, std::move(bytes)});
  index_[hash] = slots_.begin();
  while (bytes_ > limit_bytes_) {
    bytes_ -= slots_.back().bytes->size();
    index_.erase(slots_.back().hash);
    slots_.pop_back();
  }
}

SharedBytes BlockCache::find(const Digest256& hash) {
  auto bytes = kept_.find(hash);
  return bytes != nullptr ? bytes : streamed_.find(hash);
}

void BlockCache::insert(const Digest256& hash, SharedBytes bytes, BlockUse use) {
  (use == BlockUse::kStreamed ? streamed_ : kept_).insert(hash, std::move(bytes));
}

}  // namespace kinfs::fs
