// What only a store on a disk can meet: a process that dies, a directory that is another's, files that are cut or
// changed, a disk that is full.
#include "storage/rocks_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "child.h"
#include "samples.h"
#include "storage/block_files.h"
#include "store_fixture.h"

namespace {
std::mutex sync_mutex;
std::vector<std::string>* synced_files = nullptr;
}  // namespace

/// In place of the C library's, for all of this program: notes which file it is.
extern "C" int fdatasync(int fd) {
  {
    const std::lock_guard lock(sync_mutex);
    std::error_code ignored;
    if (synced_files != nullptr) {
      synced_files->push_back(std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd), ignored));
    }
  }
  return static_cast<int>(::syscall(SYS_fdatasync, fd));
}

/// The same for the cache of a file, given up.
extern "C" int posix_fadvise(int fd, off_t offset, off_t length, int advice) {
  {
    const std::lock_guard lock(sync_mutex);
    std::error_code ignored;
    if (synced_files != nullptr && advice == POSIX_FADV_DONTNEED) {
      synced_files->push_back("not cached: " +
                              std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd), ignored).string());
    }
  }
  return ::syscall(SYS_fadvise64, fd, offset, length, advice) == 0 ? 0 : errno;
}

namespace kinfs::test {
namespace {

namespace stdfs = std::filesystem;

/// The files that were synced while this lived.
class SyncWatch {
 public:
  SyncWatch() {
    const std::lock_guard lock(sync_mutex);
    synced_files = &files_;
  }
  ~SyncWatch() {
    const std::lock_guard lock(sync_mutex);
    synced_files = nullptr;
  }
  std::size_t count(const std::string& suffix) const {
    const std::lock_guard lock(sync_mutex);
    std::size_t n = 0;
    for (const auto& file : files_) n += file.ends_with(suffix);
    return n;
  }

 private:
  std::vector<std::string> files_;
};

void fill(Store& store, std::uint64_t rows) {
  std::mt19937_64 random(6);
  for (std::uint64_t i = 1; i <= rows; ++i) {
    Batch batch = one_row(i, "value " + std::to_string(i) + random_bytes(random, 500));
    batch.add_hints.push_back({NodeId{2}, i, {kVolume, "p", std::to_string(i)}});
    ASSERT_TRUE(store.apply(batch).has_value());
  }
  Batch batch;
  batch.meta = NodeMeta{NodeId{1}, Bytes(16, 'c'), rows, {rows}, 1};
  ASSERT_TRUE(store.apply(batch).has_value());
}

std::map<std::string, std::string> contents(const std::string& directory) {
  std::map<std::string, std::string> out;
  for (const auto& entry : stdfs::recursive_directory_iterator(directory)) {
    if (entry.is_regular_file()) out[entry.path()] = read_file(entry.path());
  }
  return out;
}

Error refused(const std::string& path) {
  const auto store = RocksStore::open(path);
  EXPECT_FALSE(store.has_value());
  if (store) return {Errc::kInternal, ""};
  EXPECT_NE(store.error().text.find(path), std::string::npos) << store.error().text;
  return store.error();
}

TEST(RocksStore, AProcessThatDiesLosesNothingItApplied) {
  const TempDirectory tmp;
  const std::string path = tmp / "data";
  ASSERT_EQ(Child("apply-and-exit", path).wait(), 0);
  const auto store = open_rocks(path);
  for (std::uint64_t i = 1; i <= 500; ++i) {
    EXPECT_EQ(store->get({kVolume, "p", std::to_string(i)}), sample_row(i, std::to_string(i)));
    if (i % 10 != 0) continue;
    const auto block = store->get_block(block_key(block_bytes(i)));
    ASSERT_TRUE(block.has_value()) << block.error().text;
    EXPECT_EQ(**block, block_bytes(i));
  }
  EXPECT_EQ(store->stat(kVolume, "p"), (PartitionStat{{500}, 500}));
}

// The bytes of a block that a killed process left in the kernel are in no sync() of its successor, unless it sees to
// it.
TEST(RocksStore, ASyncCoversTheBlocksOfAProcessThatDied) {
  const TempDirectory tmp;
  const std::string path = tmp / "data";
  ASSERT_EQ(Child("apply-and-exit", path).wait(), 0);
  const auto store = open_rocks(path);
  ASSERT_TRUE(store->put_block(block_key(block_bytes(10)), share(block_bytes(10))).has_value());  // known already
  const SyncWatch watch;
  ASSERT_TRUE(store->sync().has_value());
  EXPECT_EQ(watch.count(".blocks"), 1u);
  ASSERT_TRUE(store->sync().has_value());
  EXPECT_EQ(watch.count(".blocks"), 1u);
}

TEST(BlockFiles, OnlyWhatMayNotBeOnTheDiskIsSyncedAfterAnOpen) {
  const TempDirectory tmp;
  auto files = BlockFiles::open(tmp.path());
  ASSERT_TRUE((*files)->append("one").has_value());
  files = {};
  stdfs::resize_file(tmp / "0000000001.blocks", BlockFiles::kSegmentBytes);  // full
  const auto sync = [&] {
    files = {};
    files = BlockFiles::open(tmp.path());
    const SyncWatch watch;
    EXPECT_TRUE((*files)->sync().has_value());
    return std::pair{watch.count("1.blocks"), watch.count("2.blocks")};
  };
  EXPECT_EQ(sync(), (std::pair<std::size_t, std::size_t>{1, 0}));
  ASSERT_TRUE((*files)->append("two").has_value());
  EXPECT_EQ(sync(), (std::pair<std::size_t, std::size_t>{1, 1}));
  EXPECT_EQ(sync(), (std::pair<std::size_t, std::size_t>{0, 1}));
  // A damaged mark says nothing.
  std::string mark = read_file(tmp / "SYNCED");
  mark[9] = '9';
  write_file(tmp / "SYNCED", mark);
  EXPECT_EQ(sync(), (std::pair<std::size_t, std::size_t>{1, 1}));
}

TEST(RocksStore, KilledAtAnyMomentItKeepsWhatItConfirmed) {
  const TempDirectory tmp;
  const std::string path = tmp / "data";
  std::uint64_t first = 1;
  for (int round = 0; round < 5; ++round) {
    Child child("put-until-killed", path + " " + std::to_string(first));
    std::uint64_t last = 0;
    for (int n = 0; n < 200 + 37 * round; ++n) ASSERT_TRUE(child.read(last));
    child.kill();
    while (child.read(last)) continue;
    child.wait();  // the pipe closes a moment before the lock is let go
    const auto store = open_rocks(path);
    for (std::uint64_t i = 1; i <= last; ++i) {
      ASSERT_EQ(store->get({kVolume, "p", std::to_string(i)}), sample_row(i, Bytes(i % 5000, 'v')));
      ASSERT_TRUE(store->get_block(block_key(block_bytes(i))).has_value());
    }
    first = last + 1;
  }
}

TEST(RocksStore, ASecondOpenIsRefused) {
  const TempDirectory tmp;
  auto store = open_rocks(tmp / "data");
  const Error here = refused(tmp / "data");
  EXPECT_EQ(here.code, Errc::kRefused);
  EXPECT_NE(here.text.find(std::to_string(::getpid())), std::string::npos) << here.text;
  EXPECT_EQ(Child("second-open", tmp / "data").wait(), 0);
  store.reset();
  open_rocks(tmp / "data");
}

TEST(RocksStore, AForeignDirectoryIsLeftAsItWas) {
  const TempDirectory tmp;
  write_file(tmp / "notes.txt", "mine");
  const auto before = contents(tmp.path());
  const Error error = refused(tmp.path());
  EXPECT_EQ(error.code, Errc::kFormat);
  EXPECT_NE(error.text.find("notes.txt"), std::string::npos) << error.text;
  EXPECT_EQ(contents(tmp.path()), before);
  EXPECT_EQ(refused(tmp / "notes.txt").code, Errc::kFormat);
  EXPECT_EQ(refused(tmp / "notes.txt/below").code, Errc::kIo);
}

TEST(RocksStore, ALostAndFoundIsNotForeign) {
  const TempDirectory tmp;
  stdfs::create_directory(tmp / "lost+found");
  open_rocks(tmp.path());
}

TEST(RocksStore, AnotherFormatIsRefused) {
  const TempDirectory tmp;
  const std::string path = tmp / "data";
  open_rocks(path);
  EXPECT_EQ(read_file(path + "/FORMAT"), "kinfs data 1\n");
  for (const std::string text :
       {"kinfs data 2\n", "kinfs data 0\n", "kinfs data \n", "kinfs data 1", "something\n", ""}) {
    stdfs::remove(path + "/FORMAT");
    write_file(path + "/FORMAT", text);
    EXPECT_EQ(refused(path).code, Errc::kFormat) << text;
  }
  stdfs::remove(path + "/FORMAT");
  EXPECT_EQ(refused(path).code, Errc::kFormat);  // and not made anew over what is there
  write_file(path + "/FORMAT", "kinfs data 1\n");
  open_rocks(path);
}

TEST(RocksStore, AnInterruptedCreationIsFinished) {
  const TempDirectory tmp;
  const std::string path = tmp / "data";
  open_rocks(path);
  stdfs::rename(path + "/FORMAT", path + "/CREATING");
  const auto store = open_rocks(path);
  EXPECT_TRUE(stdfs::exists(path + "/FORMAT"));
  EXPECT_FALSE(stdfs::exists(path + "/CREATING"));
}

// --- Damage ---

struct Damage {
  const char* name;
  void (*make)(const std::string& file);
};

const Damage kDamages[] = {
    {"removed", [](const std::string& f) { stdfs::remove(f); }},
    {"emptied", [](const std::string& f) { stdfs::resize_file(f, 0); }},
    {"halved", [](const std::string& f) { stdfs::resize_file(f, stdfs::file_size(f) / 2); }},
    {"changed in the middle",
     [](const std::string& f) {
       std::string bytes = read_file(f);
       for (std::size_t i = 0; i < 16 && bytes.size() / 2 + i < bytes.size(); ++i) bytes[bytes.size() / 2 + i] ^= 0x5a;
       write_file(f, bytes);
     }},
    {"overwritten", [](const std::string& f) { write_file(f, std::string(stdfs::file_size(f), 'x')); }},
};

/// A store with tables, a log and blocks on the disk.
void make_store_with_tables(const std::string& path) {
  std::mt19937_64 random(7);
  auto store = open_rocks(path);
  for (std::uint64_t i = 1; i <= 60; ++i) {
    ASSERT_TRUE(store->apply(one_row(i, random_bytes(random, 20000))).has_value());
  }
  // What is found in the log when a store is opened is put into tables.
  store.reset();
  store = open_rocks(path);
  fill(*store, 50);
  ASSERT_TRUE(store->put_block(block_key(block_bytes(1)), share(block_bytes(1))).has_value());
}

/// What an opened store answers must be what was written, or an error. With `whole`, no row may be missing either.
void expect_no_wrong_answers(const Store& store, const std::map<Bytes, Row>& expected, bool whole) {
  for (const auto& [name, row] : expected) {
    const auto got = store.get({kVolume, "p", name});
    if (!got) {
      EXPECT_FALSE(got.error().text.empty());
    } else if (whole || !got->empty()) {
      EXPECT_EQ(*got, row) << name;
    }
  }
  if (const auto page = store.scan(kVolume, "p", "", {})) {
    for (const auto& [name, row] : page->rows) EXPECT_TRUE(expected.contains(name));
  }
  const auto block = store.get_block(block_key(block_bytes(1)));
  if (block) {
    EXPECT_EQ(**block, block_bytes(1));
  }
}

TEST(RocksStore, DamagedFilesAreRefusedOrReportedAndNothingIsDeleted) {
  const TempDirectory tmp;
  make_store_with_tables(tmp / "good");
  std::map<Bytes, Row> expected;
  {
    const auto store = open_rocks(tmp / "good");
    for (std::uint64_t i = 1; i <= 60; ++i) {
      expected[std::to_string(i)] = *store->get({kVolume, "p", std::to_string(i)});
    }
  }
  int tables = 0, logs = 0, refusals = 0;
  for (const auto& [file, bytes] : contents(tmp / "good")) {
    const std::string name = file.substr((tmp / "good/").size());
    if (!name.starts_with("db/") && !name.starts_with("blocks/")) continue;
    const bool is_log = name.ends_with(".log");
    tables += name.ends_with(".sst");
    logs += is_log;
    for (const Damage& damage : kDamages) {
      SCOPED_TRACE(name + " " + damage.name);
      const std::string path = tmp / "damaged";
      stdfs::remove_all(path);
      stdfs::copy(tmp / "good", path, stdfs::copy_options::recursive);
      damage.make(path + "/" + name);
      const auto before = contents(path);
      const auto store = RocksStore::open(path);
      if (store) {
        // A log that was cut is what a crash leaves: it may end anywhere. Nothing else may lose a row in silence.
        const bool cut = is_log && (std::string(damage.name) == "halved" || std::string(damage.name) == "emptied");
        expect_no_wrong_answers(**store, expected, !cut);
        continue;
      }
      ++refusals;
      EXPECT_NE(store.error().text.find(path), std::string::npos) << store.error().text;
      EXPECT_TRUE(store.error().code == Errc::kCorrupt || store.error().code == Errc::kFormat) << store.error().text;
      for (const auto& [kept, size] : before) {
        const bool diary = kept.find("/db/LOG") != std::string::npos;  // RocksDB's own, which it rotates
        EXPECT_TRUE(diary || stdfs::exists(kept)) << kept;
      }
    }
  }
  EXPECT_GE(tables, 1);
  EXPECT_GE(logs, 1);
  EXPECT_GE(refusals, 10);
}

TEST(RocksStore, MissingPartsAreRefused) {
  const TempDirectory tmp;
  const std::string path = tmp / "data";
  for (const std::string part : {"db", "blocks"}) {
    stdfs::remove_all(path);
    open_rocks(path);
    stdfs::remove_all(path + "/" + part);
    const Error error = refused(path);
    EXPECT_EQ(error.code, Errc::kCorrupt) << error.text;
  }
}

TEST(RocksStore, BlocksThatAPowerCutTookAreMissedAndCanBePutAgain) {
  const TempDirectory tmp;
  const std::string path = tmp / "data";
  auto store = open_rocks(path);
  for (std::uint64_t i = 1; i <= 3; ++i) {
    ASSERT_TRUE(store->put_block(block_key(block_bytes(i)), share(block_bytes(i))).has_value());
  }
  store.reset();
  // The index came to the disk and the last block did not.
  const std::string segment = stdfs::directory_iterator(path + "/blocks")->path();
  stdfs::resize_file(segment, stdfs::file_size(segment) - 5000);
  store = open_rocks(path);
  EXPECT_TRUE(store->get_block(block_key(block_bytes(2))).has_value());
  EXPECT_EQ(store->has_block(block_key(block_bytes(3))), false);
  EXPECT_EQ(store->get_block(block_key(block_bytes(3))).error().code, Errc::kCorrupt);
  ASSERT_TRUE(store->put_block(block_key(block_bytes(4)), share(block_bytes(4))).has_value());
  EXPECT_EQ(store->get_block(block_key(block_bytes(3))).error().code, Errc::kCorrupt);
  ASSERT_TRUE(store->put_block(block_key(block_bytes(3)), share(block_bytes(3))).has_value());
  for (std::uint64_t i = 1; i <= 4; ++i) {
    EXPECT_TRUE(store->get_block(block_key(block_bytes(i))).has_value()) << i;
  }
}

TEST(RocksStore, WhatAPowerCutTookIsMissedAlsoWhereOthersWereWrittenSince) {
  const TempDirectory tmp;
  const std::string path = tmp / "data";
  auto store = open_rocks(path);
  ASSERT_TRUE(store->put_block(block_key(block_bytes(1)), share(block_bytes(1))).has_value());
  const std::string segment = stdfs::directory_iterator(path + "/blocks")->path();
  const auto before = stdfs::file_size(segment);
  ASSERT_TRUE(store->put_block(block_key(block_bytes(2)), share(block_bytes(2))).has_value());
  EXPECT_EQ(store->has_block(block_key(block_bytes(2))), true);
  store.reset();
  stdfs::resize_file(segment, before);  // all of the second block
  store = open_rocks(path);
  ASSERT_TRUE(store->put_block(block_key(block_bytes(3)), share(block_bytes(3))).has_value());
  ASSERT_TRUE(store->put_block(block_key(block_bytes(4)), share(block_bytes(4))).has_value());
  EXPECT_EQ(store->has_block(block_key(block_bytes(1))), true);
  EXPECT_EQ(store->has_block(block_key(block_bytes(2))), false);
  EXPECT_EQ(store->has_block(block_key(block_bytes(3))), true);
}

TEST(RocksStore, BlocksThatAPowerCutTookAreForgottenAtTheStart) {
  const TempDirectory tmp;
  const std::string path = tmp / "data";
  auto store = open_rocks(path);
  const auto put = [&](std::uint64_t i) {
    ASSERT_TRUE(store->put_block(block_key(block_bytes(i)), share(block_bytes(i))).has_value());
  };
  const auto items = [&] {
    std::size_t n = 0;
    for (std::uint32_t p = 0; p < kPartitions; ++p) {
      n += store->items(ItemKind::kBlock, static_cast<std::uint16_t>(p), {}, 100)->items.size();
    }
    return n;
  };
  for (std::uint64_t i = 1; i <= 3; ++i) put(i);
  ASSERT_TRUE(store->sync().has_value());
  for (std::uint64_t i = 4; i <= 6; ++i) put(i);
  const auto written = store->written();
  store.reset();
  const std::string segment = path + "/blocks/0000000001.blocks";
  stdfs::resize_file(segment, stdfs::file_size(segment) - block_bytes(6).size() - 1);  // the last two
  store = open_rocks(path);
  EXPECT_EQ(store->written(), written);
  EXPECT_EQ(items(), 6u);
  {
    const SyncWatch watch;
    EXPECT_EQ(store->forget_lost_blocks(), 2u);
    EXPECT_EQ(watch.count("not cached: " + segment), 1u);
  }
  EXPECT_GT(store->written(), written);
  EXPECT_EQ(items(), 4u);
  EXPECT_EQ(store->get_block(block_key(block_bytes(5))).error().code, Errc::kNotFound);
  EXPECT_TRUE(store->get_block(block_key(block_bytes(4))).has_value());
  put(5);
  EXPECT_EQ(store->forget_lost_blocks(), 0u);
  EXPECT_TRUE(store->get_block(block_key(block_bytes(5))).has_value());
}

// --- A full disk: children with a small file system in a mount namespace of their own, which goes with them ---

/// What the child says, after nothing of its disk is left here.
int with_small_disk(const char* what) {
  const TempDirectory tmp;
  const int said = Child(what, tmp.path()).wait();
  ::umount2(tmp.path().c_str(), MNT_DETACH);
  return said;
}

TEST(RocksStore, AFullDiskSaysSoAndHarmsNothing) {
  EXPECT_EQ(with_small_disk("fill-the-disk"), 0) << "(100: needs root)";
}

TEST(RocksStore, ItGoesOnWhenTheDiskHasRoomAgain) {
  EXPECT_EQ(with_small_disk("lose-the-race-for-room"), 0) << "(100: needs root)";
}

}  // namespace
}  // namespace kinfs::test
