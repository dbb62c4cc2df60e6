#include "cluster/scrub.h"

#include <algorithm>

#include "cluster/replica.h"
#include "storage/record_codec.h"

namespace kinfs::cluster {
namespace {

constexpr std::int64_t kAfterStartMs = 60'000;
constexpr std::size_t kPage = 64;
constexpr std::size_t kPartitionsPerTick = 64;  // that hold nothing
constexpr std::uint64_t kUsualBlockBytes = 256 << 10;
constexpr std::size_t kMostBeyondRepair = 1000;  // that are remembered

}  // namespace

void Scrub::start() {
  next_ms_ = core_.now.mono_ms + std::min<std::int64_t>(kAfterStartMs, core_.config.scrub_interval_ms);
}

void Scrub::hurry() {
  hurries_ = true;
  next_ms_ = core_.now.mono_ms;
}

/// Between two blocks, so that a pass takes as long as it should.
std::int64_t Scrub::pause_ms() const {
  if (hurries_) return 0;
  const auto blocks = core_.store.usage().block_bytes / kUsualBlockBytes + 1;
  return core_.config.scrub_interval_ms / static_cast<std::int64_t>(blocks);
}

/// The next block to be read; nullopt: the pass ended, or there is nothing in the partitions that were looked at.
std::optional<BlockKey> Scrub::next() {
  for (std::size_t looks = 0; page_.empty() && partition_ < kPartitions && looks < kPartitionsPerTick; ++looks) {
    const auto partition = static_cast<std::uint16_t>(partition_);
    // What is not owned here is given up when the owners have it.
    auto page = last_page_ || !core_.owns(partition) ? ItemPage{}
                                                     : core_.store.items(ItemKind::kBlock, partition, after_, kPage);
    if (!page || page->items.empty()) {
      ++partition_;
      after_.clear();
      last_page_ = false;
      continue;
    }
    last_page_ = page->complete;
    after_ = page->items.back().key;
    page_.assign(std::make_move_iterator(page->items.begin()), std::make_move_iterator(page->items.end()));
  }
  while (!page_.empty()) {
    auto key = parse_block_key(page_.front().key);
    page_.pop_front();
    if (key) return std::move(*key);
  }
  return std::nullopt;
}

void Scrub::tick() {
  const auto now_ms = core_.now.mono_ms;
  if (mending_) {
    if (mending_->deadline_ms <= now_ms) ask_next();
    return;
  }
  if ((core_.config.scrub_interval_ms == 0 && !hurries_) || now_ms < next_ms_) return;
  if (const auto key = next()) {
    next_ms_ = now_ms + pause_ms();
    return look(*key);
  }
  if (partition_ < kPartitions) return;
  ++core_.counters.scrub_passes;
  partition_ = 0;
  hurries_ = false;
  next_ms_ = now_ms + pause_ms();
}

void Scrub::look(const BlockKey& key) {
  ++core_.counters.blocks_scrubbed;
  const auto block = core_.store.get_block(key);
  if (block || block.error().code != Errc::kCorrupt) {
    if (block) beyond_repair_.erase(key);
    return;
  }
  ++core_.counters.blocks_damaged;
  if (core_.bug(PlantedBug::kScrubLooksAway)) return;
  mending_.emplace();
  mending_->key = key;
  for (const auto owner : core_.placement.owners(partition_of(key.volume, block_partition_key(key)))) {
    if (owner != core_.config.self && core_.peers.healthy(owner)) mending_->left.push_back(owner);
  }
  ask_next();
}

void Scrub::ask_next() {
  if (mending_->left.empty()) {
    if (beyond_repair_.size() < kMostBeyondRepair) beyond_repair_.insert(mending_->key);
    return mending_.reset();
  }
  mending_->asked = mending_->left.back();
  mending_->left.pop_back();
  mending_->id = core_.new_id();
  mending_->deadline_ms = core_.now.mono_ms + core_.config.request_timeout_ms;
  core_.send(mending_->id, mending_->asked, mending_->id, core_.config.request_timeout_ms, ReadBlock{mending_->key});
}

bool Scrub::replied(std::uint64_t id, NodeId from, const ReadBlockReply& reply) {
  if (!mending_ || mending_->id != id || mending_->asked != from) return false;
  const auto key = mending_->key;
  if (reply.bytes == nullptr || sha256(*reply.bytes) != key.hash) {
    ask_next();
    return true;
  }
  mending_.reset();
  beyond_repair_.erase(key);
  ++core_.counters.blocks_mended;
  const auto origin = core_.new_id();
  core_.on_save_failure(origin, [this](const Error&) { --core_.counters.blocks_mended; });  // for the next pass
  // Over what is there: the store compares that with the hash first.
  core_.save_block(origin, key, reply.bytes);
  return true;
}

void Scrub::refused(std::uint64_t id, NodeId from) {
  if (mending_ && mending_->id == id && mending_->asked == from) ask_next();
}

}  // namespace kinfs::cluster
