// See child.h: the roles, and main() of the tests of stores. A role returns 0 when all went as it should, else the
// number of the step that did not.
#include "child.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <random>
#include <sstream>
#include <vector>

#include "samples.h"
#include "storage/rocks_store.h"
#include "store_fixture.h"

namespace kinfs::test {
namespace {

constexpr int kReports = 3;  // the descriptor that numbers are reported on

int apply_and_exit(const std::string& path) {
  const auto store = RocksStore::open(path);
  if (!store) return 1;
  for (std::uint64_t i = 1; i <= 500; ++i) {
    if (!(*store)->apply(one_row(i, std::to_string(i)))) return 2;
    if (i % 10 == 0 && !(*store)->put_block(block_key(block_bytes(i)), share(block_bytes(i)))) return 3;
  }
  ::_exit(0);  // nothing is closed, flushed or synced
}

int put_until_killed(const std::string& argument) {
  std::istringstream words(argument);
  std::string path;
  std::uint64_t i = 0;
  words >> path >> i;
  const auto store = RocksStore::open(path);
  if (!store) return 1;
  for (;; ++i) {
    const bool done = (*store)->put_block(block_key(block_bytes(i)), share(block_bytes(i))) &&
                      (*store)->apply(one_row(i, Bytes(i % 5000, 'v')));
    if (!done || ::write(kReports, &i, sizeof i) != sizeof i) return 2;
  }
}

int second_open(const std::string& path) {
  const auto store = RocksStore::open(path);
  if (store) return 1;
  return store.error().code == Errc::kRefused ? 0 : 2;
}

bool have_small_disk(const std::string& at) {
  if (::unshare(CLONE_NEWNS) != 0) return false;
  // Below a chroot / is no mount, and cannot be made private: whoever started this unmounts what comes through.
  const bool is_private = ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  return (is_private || errno == EINVAL) && ::mount("tmpfs", at.c_str(), "tmpfs", 0, "size=320m") == 0;
}

/// Puts blocks, then rows, until the store says that there is no room.
int fill_until_refused(Store& store, std::vector<SharedBytes>& blocks, std::uint64_t& rows) {
  std::mt19937_64 random(8);
  Result<void> done;
  while (done && blocks.size() < 1000) {
    auto bytes = share(random_bytes(random, 256 << 10));
    done = store.put_block(block_key(*bytes), bytes);
    if (done) blocks.push_back(std::move(bytes));
  }
  if (done || done.error().code != Errc::kNoSpace || blocks.size() < 50) return 2;
  for (done = {}; done && rows < 100000;) {
    done = store.apply(one_row(rows + 1, random_bytes(random, 4096)));
    if (done) ++rows;
  }
  return done || done.error().code != Errc::kNoSpace || rows == 0 ? 3 : 0;
}

int fill_the_disk(const std::string& tmp) {
  if (!have_small_disk(tmp)) return 100;
  auto store = RocksStore::open(tmp + "/data");
  if (!store) return 1;
  std::vector<SharedBytes> blocks;
  std::uint64_t rows = 0;
  if (const int step = fill_until_refused(**store, blocks, rows); step != 0) return step;
  // What was stored is read, what makes room is done, and all of it is there after opening again.
  Batch erase;
  erase.erase_rows.push_back({kVolume, "p", "1"});
  if (!(*store)->apply(erase) || !(*store)->sync()) return 4;
  store->reset();
  store = RocksStore::open(tmp + "/data");
  if (!store) return 5;
  for (const auto& bytes : blocks) {
    if (!(*store)->get_block(block_key(*bytes))) return 6;
  }
  for (std::uint64_t i = 2; i <= rows; ++i) {
    const auto row = (*store)->get({kVolume, "p", std::to_string(i)});
    if (!row || row->empty()) return 7;
  }
  return (*store)->get({kVolume, "p", "1"})->empty() ? 0 : 8;
}

/// Somebody else takes the last byte while the store has room by its own count.
int lose_the_race_for_room(const std::string& tmp) {
  if (!have_small_disk(tmp)) return 100;
  auto store = RocksStore::open(tmp + "/data");
  if (!store) return 1;
  Result<void> done = (*store)->apply(one_row(1, "before"));
  if (!done) return 2;
  write_file(tmp + "/hog", std::string(330 << 20, 'h'));
  std::uint64_t rows = 1;
  while (done && rows < 10000) {
    done = (*store)->apply(one_row(rows + 1, Bytes(100000, 'r')));
    if (done) ++rows;
  }
  if (done || done.error().code != Errc::kNoSpace) return 3;
  std::filesystem::remove(tmp + "/hog");
  for (int attempt = 0; attempt < 100000 && !done; ++attempt) done = (*store)->apply(one_row(rows + 1, "after"));
  if (!done) return 4;
  store->reset();
  store = RocksStore::open(tmp + "/data");
  if (!store) return 5;
  if ((*store)->get({kVolume, "p", "1"}) != sample_row(1, "before")) return 6;
  return (*store)->get({kVolume, "p", std::to_string(rows + 1)}) == sample_row(rows + 1, "after") ? 0 : 7;
}

const std::map<std::string, int (*)(const std::string&)> kRoles{
    {"apply-and-exit", apply_and_exit},
    {"put-until-killed", put_until_killed},
    {"second-open", second_open},
    {"fill-the-disk", fill_the_disk},
    {"lose-the-race-for-room", lose_the_race_for_room},
};

}  // namespace

Child::Child(const std::string& role, const std::string& argument) {
  int ends[2];
  if (::pipe(ends) != 0) return;
  reports_ = ends[0];
  pid_ = ::fork();
  if (pid_ == 0) {
    ::close(ends[0]);
    if (ends[1] != kReports && ::dup2(ends[1], kReports) < 0) ::_exit(126);
    ::execl("/proc/self/exe", "store-test", ("--child=" + role).c_str(), argument.c_str(), nullptr);
    ::_exit(127);
  }
  ::close(ends[1]);
}

Child::~Child() {
  kill();
  wait();
  if (reports_ >= 0) ::close(reports_);
}

bool Child::read(std::uint64_t& number) { return ::read(reports_, &number, sizeof number) == sizeof number; }

void Child::kill() {
  if (pid_ > 0) ::kill(pid_, SIGKILL);
}

int Child::wait() {
  int status = 0;
  if (pid_ > 0 && ::waitpid(pid_, &status, 0) == pid_) status_ = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  pid_ = -1;
  return status_;
}

}  // namespace kinfs::test

int main(int argc, char** argv) {
  const std::string flag = "--child=";
  if (argc == 3 && std::string(argv[1]).starts_with(flag)) {
    const auto role = kinfs::test::kRoles.find(argv[1] + flag.size());
    return role == kinfs::test::kRoles.end() ? 125 : role->second(argv[2]);
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
