// The store on a disk: rows, hints and the node's record in RocksDB, blocks in files of our own.
//
// A data directory holds
//   FORMAT     which version of these files it is; written last when a directory is made
//   CREATING   in its place until then; a directory with neither, and not empty, is refused as foreign
//   LOCK       locked by the process that uses it, whose number it holds
//   db/        RocksDB, a column family for each kind of record
//   MARK       manifest_mark.h
//   blocks/    block_files.h
//
// What a crash leaves. Of the process, whenever: everything applied, because each batch is in the kernel before
// apply() returns; a batch cut in the middle is dropped whole. Of the machine: a prefix of the batches, at least
// to the last sync(). A log that is damaged anywhere but at its end is refused (kCorrupt) rather than cut there:
// that would take back counters that this node promised never to use twice.
//
// Room: the last 64 MiB of a disk (a quarter, of a small one) are kept for RocksDB's own rewriting and for dropping
// things, and twice that is kept from blocks: so a full disk answers kNoSpace and stays usable.
#pragma once

#include <memory>
#include <string>

#include "storage/store.h"

namespace kinfs {

class RocksStore {
 public:
  static constexpr int kFormatVersion = 1;

  /// Opens, or makes in an empty or absent directory. Deletes nothing, whatever it finds.
  /// kFormat: foreign, or of another version. kRefused: another process, or this one, has it open.
  /// kCorrupt: files are missing or damaged. kIo, kNoSpace: the operating system said so.
  static Result<std::unique_ptr<Store>> open(const std::string& path);
};

}  // namespace kinfs
