// What a block costs the disk, by four ways of keeping it. Writes 128 MiB in blocks of 256 KiB, with a sync every
// 8 MiB, and prints how many bytes came to the disk for each byte of the user's (write_bytes of /proc/self/io, until
// everything is down, compaction included) and how fast it was.
//
//   kinfs-block-bench [DIRECTORY]    default: the current one, which must lie on a real disk
//
// Besides storage/rocks_store.cc the only file that includes RocksDB: it measures RocksDB's own ways.
#include <fcntl.h>
#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "storage/rocks_store.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kBlock = 256 << 10;
constexpr std::size_t kTotal = 128 << 20;
constexpr std::size_t kSyncEvery = 8 << 20;

struct Backend {
  std::function<bool(std::size_t, const kinfs::SharedBytes&)> put;
  std::function<bool()> sync;
  std::function<void()> finish;  // what is still to be written some day is written
};

std::uint64_t bytes_written() {
  std::ifstream io("/proc/self/io");
  std::string name;
  for (std::uint64_t value = 0; io >> name >> value;) {
    if (name == "write_bytes:") return value;
  }
  return 0;
}

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

Backend block_files(const std::string& path) {
  std::shared_ptr<kinfs::Store> store;
  if (auto opened = kinfs::RocksStore::open(path)) store = std::move(*opened);
  Backend b;
  if (store == nullptr) return b;
  b.put = [store](std::size_t, const kinfs::SharedBytes& bytes) {
    return store->put_block({kinfs::VolumeId{1}, "file", 0, kinfs::sha256(*bytes)}, bytes).has_value();
  };
  b.sync = [store] { return store->sync().has_value(); };
  b.finish = [] {};
  return b;
}

Backend rocks(const std::string& path, bool blobs, bool log) {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.compression = rocksdb::kNoCompression;
  options.enable_blob_files = blobs;
  options.min_blob_size = 4096;
  options.blob_compression_type = rocksdb::kNoCompression;
  rocksdb::DB* raw = nullptr;
  Backend b;
  if (!rocksdb::DB::Open(options, path, &raw).ok()) return b;
  const std::shared_ptr<rocksdb::DB> db(raw);
  b.put = [db, log](std::size_t, const kinfs::SharedBytes& bytes) {
    rocksdb::WriteOptions how;
    how.disableWAL = !log;
    // The same work as ours: the hash is the key.
    const auto hash = kinfs::sha256(*bytes);
    return db->Put(how, rocksdb::Slice(reinterpret_cast<const char*>(hash.data()), hash.size()), *bytes).ok();
  };
  b.sync = [db, log] { return (log ? db->SyncWAL() : db->Flush(rocksdb::FlushOptions())).ok(); };
  b.finish = [db] {
    const auto flushed = db->Flush(rocksdb::FlushOptions());
    const auto settled = db->CompactRange(rocksdb::CompactRangeOptions(), nullptr, nullptr);
    if (!flushed.ok() || !settled.ok()) std::fprintf(stderr, "kinfs-block-bench: %s\n", settled.ToString().c_str());
  };
  return b;
}

bool measure(const char* name, const std::string& path, const std::vector<kinfs::SharedBytes>& blocks,
             const std::function<Backend(const std::string&)>& make) {
  std::filesystem::remove_all(path);
  ::sync();
  const std::uint64_t before = bytes_written();
  Backend b = make(path);
  if (!b.put) return false;
  std::vector<double> syncs;
  const auto start = Clock::now();
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (!b.put(i, blocks[i])) return false;
    if ((i + 1) * kBlock % kSyncEvery != 0) continue;
    const auto sync_start = Clock::now();
    if (!b.sync()) return false;
    syncs.push_back(ms_since(sync_start));
  }
  const double seconds = ms_since(start) / 1000;
  b.finish();
  b = {};
  ::sync();
  const double written = static_cast<double>(bytes_written() - before);
  std::sort(syncs.begin(), syncs.end());
  std::printf("%-36s %7.1f MiB %6.2f %8.0f MB/s %8.1f ms\n", name, written / (1 << 20), written / kTotal,
              kTotal / seconds / 1e6, syncs[syncs.size() / 2]);
  std::filesystem::remove_all(path);
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  std::string directory = std::string(argc > 1 ? argv[1] : ".") + "/kinfs-block-bench-XXXXXX";
  if (::mkdtemp(directory.data()) == nullptr) {
    std::fprintf(stderr, "kinfs-block-bench: cannot make a directory like %s\n", directory.c_str());
    return 1;
  }
  std::mt19937_64 random(1);
  std::vector<kinfs::SharedBytes> blocks;
  for (std::size_t i = 0; i < kTotal / kBlock; ++i) {
    kinfs::Bytes bytes(kBlock, '\0');
    for (std::size_t at = 0; at < kBlock; at += 8) {
      const std::uint64_t word = random();
      std::copy_n(reinterpret_cast<const char*>(&word), 8, bytes.data() + at);
    }
    blocks.push_back(kinfs::share(std::move(bytes)));
  }
  std::printf("%-36s %11s %6s %13s %11s\n", "128 MiB in blocks of 256 KiB", "written", "each", "speed", "a sync");
  const std::string at = directory + "/data";
  const bool done =
      measure("block files", at, blocks, block_files) &&
      measure("RocksDB values", at, blocks, [](const std::string& p) { return rocks(p, false, true); }) &&
      measure("BlobDB with its log", at, blocks, [](const std::string& p) { return rocks(p, true, true); }) &&
      measure("BlobDB without, flushed at each sync", at, blocks,
              [](const std::string& p) { return rocks(p, true, false); });
  std::filesystem::remove_all(directory);
  if (!done) std::fprintf(stderr, "kinfs-block-bench: a write below %s failed\n", directory.c_str());
  return done ? 0 : 1;
}
