// Whether a start may believe that its disk has all that the run before it wrote.
#include "daemon/run_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "storage/mem_store.h"

namespace kinfs::daemon {
namespace {

class CountedStore : public MemStore {
 public:
  std::uint64_t written_ = 10;
  std::uint64_t written() const override { return written_; }
  void names(const Bytes& run) {
    Batch batch;
    batch.meta = NodeMeta{NodeId{1}, Bytes(16, 'c')};
    batch.meta->run = run;
    ASSERT_TRUE(apply(batch));
  }
};

class RunFileTest : public testing::Test {
 protected:
  RunFileTest() {
    std::string pattern = testing::TempDir() + "/run.XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
  }
  ~RunFileTest() override { std::filesystem::remove_all(folder_); }
  /// What a start of the machine `boot` makes of what is there.
  Bytes believed(const Bytes& boot = "boot") const { return RunFile(path(), boot).believed(store); }
  std::string path() const { return folder_ + "/s.run"; }

  CountedStore store;
  std::string folder_;
};

TEST_F(RunFileTest, ARunIsBelievedWhenTheStoreNamesItAndHasAsMuch) {
  EXPECT_EQ(believed(), "");
  RunFile run(path(), "boot");
  EXPECT_NE(run.name(), RunFile(path(), "boot").name());
  run.note(10);
  EXPECT_EQ(believed(), "");  // a fresh store
  store.names("another");
  EXPECT_EQ(believed(), "");
  store.names(run.name());
  EXPECT_EQ(believed(), run.name());
  store.written_ = 9;  // a copy of an earlier moment of this run
  EXPECT_EQ(believed(), "");
  store.written_ = 11;
  EXPECT_EQ(believed(), run.name());
  run.note(12);
  EXPECT_EQ(believed(), "");
}

TEST_F(RunFileTest, AnotherStartOfTheMachineBelievesNothing) {
  RunFile run(path(), "boot");
  store.names(run.name());
  run.note(10);
  EXPECT_EQ(believed("another"), "");
  EXPECT_EQ(believed("boo"), "");
  EXPECT_EQ(believed(""), "");
  EXPECT_EQ(believed(), run.name());
}

TEST_F(RunFileTest, ADiskThatFailedIsNotBelieved) {
  RunFile run(path(), "boot");
  store.names(run.name());
  run.note(9);
  run.forget();
  EXPECT_EQ(believed(), "");
  run.note(10);
  EXPECT_EQ(believed(), "");
}

TEST_F(RunFileTest, ADamagedFileSaysNothing) {
  RunFile run(path(), "boot");
  store.names(run.name());
  run.note(9);
  for (const auto* text : {"", "boot:", " 9", " 9 ", " nine .", " 9 .."}) {
    std::ofstream(path()) << run.name() << text;
    EXPECT_EQ(believed(), "") << text;
  }
  std::ofstream(path()) << run.name() << " 9 .\n";
  EXPECT_EQ(believed(), run.name());
}

}  // namespace
}  // namespace kinfs::daemon
