#include "cluster/replica.h"

namespace kinfs::cluster {

Digest128 digest_of(const RowPage& page) {
  CanonicalWriter w;
  w.u64(page.complete ? 1 : 0).u64(page.rows.size());
  for (const auto& [sort_key, row] : page.rows) w.bytes(sort_key).bytes(view_of(row.fingerprint()));
  return short_sha256(w.out());
}

Result<void> merge_into_store(Core& core, VolumeId volume, const Bytes& partition_key,
                              const std::vector<std::pair<Bytes, Row>>& states, Batch& batch) {
  const auto floor = core.floor(partition_of(volume, partition_key));
  for (const auto& [sort_key, state] : states) {
    RowKey key{volume, partition_key, sort_key};
    const auto stored = core.row(key);
    if (!stored) return tl::unexpected(stored.error());
    core.observe(state);
    Row merged = merge(FlooredRow{*stored, floor}, FlooredRow{state, {}});
    if (has_dot_clash(merged)) ++core.counters.dot_clashes;
    if (merged != *stored) batch.rows.emplace_back(std::move(key), std::move(merged));
  }
  return {};
}

Result<bool> has_all(const Core& core, const BlockSet& blocks) {
  for (const auto& hash : blocks.hashes) {
    auto here = core.store.has_block(blocks.key(hash));
    if (!here || !*here) return here;
  }
  return true;
}

std::vector<NodeId> Replica::successors(std::uint16_t partition) const {
  const auto& head = core_.placement.head();
  if (!core_.placement.history().changing() || head.owns(core_.config.self, partition) || !core_.owns(partition))
    return {};
  if (core_.bug(PlantedBug::kKeepFromSuccessors)) return {};
  const auto owners = head.owners(partition);
  return {owners.begin(), owners.end()};
}

void Replica::write_rows(const Message& message, const WriteRows& write) {
  const auto origin = core_.new_id();
  const ReturnTo to{message.from, message.id};
  Batch batch;
  if (const auto merged = merge_into_store(core_, write.volume, write.partition_key, write.rows, batch); !merged) {
    return refuse(origin, to, merged.error());
  }
  if (!core_.bug(PlantedBug::kForgetHint)) {
    // What was here already was handed on before: else two such owners would hand it to each other without end.
    const auto heirs = successors(partition_of(write.volume, write.partition_key));
    for (const auto& [key, row] : batch.rows) {
      for (const auto owner : heirs) core_.keep_hint(batch, owner, key);
    }
    for (const auto owner : write.hint_for) {
      for (const auto& [sort_key, row] : write.rows) {
        core_.keep_hint(batch, owner, RowKey{write.volume, write.partition_key, sort_key});
      }
    }
  }
  if (core_.bug(PlantedBug::kHalfBatch) && batch.rows.size() > 1) batch.rows.resize(1);
  save_rows(origin, to, write.sync, std::move(batch));
}

void Replica::take_over(const Message& message, const HandOver& hand_over) {
  const auto origin = core_.new_id();
  const ReturnTo to{message.from, message.id};
  Batch batch;
  for (const auto& write : hand_over.writes) {
    const auto merged = merge_into_store(core_, write.volume, write.partition_key, write.rows, batch);
    if (!merged) return refuse(origin, to, merged.error());
    if (core_.bug(PlantedBug::kTakeOverFirst)) break;
  }
  save_rows(origin, to, hand_over.sync, std::move(batch));
}

void Replica::save_rows(std::uint64_t origin, ReturnTo to, bool sync, Batch batch) {
  core_.on_save_failure(origin, [this, origin, to](const Error& error) { refuse(origin, to, error); });
  if (!core_.bug(PlantedBug::kAckBeforeSave)) core_.save(origin, std::move(batch));
  confirm(origin, to, sync, WriteRowsReply{});
}

void Replica::read_row(const Message& message, const ReadRow& read) {
  const auto origin = core_.new_id();
  const ReturnTo to{message.from, message.id};
  auto row = core_.store.get(read.key);
  if (!row) return refuse(origin, to, std::move(row).error());
  ReadRowReply out;
  out.floor = core_.floor(partition_of(read.key.volume, read.key.partition_key));
  out.same = read.known && (row->fingerprint() == *read.known || core_.bug(PlantedBug::kSameUnseen));
  if (!out.same) out.row = std::move(*row);
  if (read.key.sort_key.empty()) {
    auto stat = core_.store.stat(read.key.volume, read.key.partition_key);
    if (!stat) return refuse(origin, to, std::move(stat).error());
    out.stat = *stat;
  }
  reply(origin, to, std::move(out));
}

void Replica::read_page(const Message& message, const ReadPage& read) {
  const auto origin = core_.new_id();
  const ReturnTo to{message.from, message.id};
  auto page = core_.store.scan(read.volume, read.partition_key, read.from, read.limit);
  if (!page) return refuse(origin, to, std::move(page).error());
  auto stat = core_.store.stat(read.volume, read.partition_key);
  if (!stat) return refuse(origin, to, std::move(stat).error());
  const bool same = read.known && (digest_of(*page) == *read.known || core_.bug(PlantedBug::kSameUnseen));
  const auto floor = core_.floor(partition_of(read.volume, read.partition_key));
  reply(origin, to, ReadPageReply{same ? RowPage{} : std::move(*page), *stat, same, floor});
}

void Replica::write_block(const Message& message, const WriteBlock& write) {
  const auto origin = core_.new_id();
  const ReturnTo to{message.from, message.id};
  core_.on_save_failure(origin, [this, origin, to](const Error& error) { refuse(origin, to, error); });
  core_.save_block(origin, write.key, write.bytes);
  Batch batch;
  if (!core_.bug(PlantedBug::kForgetBlockHint)) {
    auto heirs = successors(partition_of(write.key.volume, block_partition_key(write.key)));
    if (!heirs.empty() && core_.store.has_block(write.key).value_or(false)) heirs.clear();
    for (const auto owner : heirs) core_.keep_hint(batch, owner, write.key);
    for (const auto owner : write.hint_for) core_.keep_hint(batch, owner, write.key);
  }
  core_.save(origin, std::move(batch));
  confirm(origin, to, write.sync, WriteBlockReply{});
}

void Replica::read_block(const Message& message, const ReadBlock& read) {
  const auto origin = core_.new_id();
  const ReturnTo to{message.from, message.id};
  auto block = core_.store.get_block(read.key);
  // A block that is corrupt here is as good as absent: another replica has it, and the hash tells.
  if (!block && !is_lost(block.error())) return refuse(origin, to, std::move(block).error());
  reply(origin, to, ReadBlockReply{block ? std::move(*block) : nullptr});
}

void Replica::sync_blocks(const Message& message, const SyncBlocks& sync) {
  const auto origin = core_.new_id();
  const ReturnTo to{message.from, message.id};
  const auto here = has_all(core_, sync.blocks);
  if (!here) return refuse(origin, to, here.error());
  confirm(origin, to, *here, SyncBlocksReply{*here});
}

void Replica::sync_store(const Message& message) {
  confirm(core_.new_id(), {message.from, message.id}, true, SyncStoreReply{core_.config.run});
}

void Replica::confirm(std::uint64_t origin, ReturnTo to, bool sync, Body body) {
  if (!sync || core_.bug(PlantedBug::kConfirmBeforeSync)) return reply(origin, to, std::move(body));
  core_.after_sync(origin, [this, origin, to, body = std::move(body)] { reply(origin, to, body); });
}

void Replica::reply(std::uint64_t origin, ReturnTo to, Body body) {
  core_.send(origin, to.node, to.id, core_.config.request_timeout_ms, std::move(body));
}

void Replica::refuse(std::uint64_t origin, ReturnTo to, Error error) {
  ++core_.counters.refused;
  reply(origin, to, Refusal{std::move(error)});
}

}  // namespace kinfs::cluster
