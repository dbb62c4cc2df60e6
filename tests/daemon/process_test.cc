// Other processes: the one meant is signalled or none, and nothing hangs.
#include "daemon/cli/process.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#include "daemon/cli/lab_state.h"

namespace kinfs::daemon {
namespace {

[[noreturn]] void wait_to_be_killed() {
  while (true) ::pause();
}

/// A child that waits to be ended, and is at the end of the test.
class Child {
 public:
  explicit Child(void (*main)() = [] { wait_to_be_killed(); }) : pid_(::fork()) {
    if (pid_ == 0) main();
  }
  ~Child() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

TEST(Process, IsKnownByItsStart) {
  Child child;
  const auto process = process_of(child.pid());
  ASSERT_TRUE(process);
  EXPECT_TRUE(runs(*process));
  auto former = *process;
  former.start -= 1;
  EXPECT_FALSE(runs(former));
  EXPECT_FALSE(signal_process(former, SIGKILL)) << "a process that only has the number of the former one was signalled";
  EXPECT_TRUE(wait_for_end(former, 0));
  auto other_boot = *process;
  other_boot.boot = "another";
  EXPECT_FALSE(signal_process(other_boot, SIGKILL));
  EXPECT_TRUE(runs(*process));
  EXPECT_FALSE(wait_for_end(*process, 1));
  EXPECT_TRUE(end_process(*process, 10'000));
  EXPECT_FALSE(runs(*process));
}

/// A killed process of many threads loses its first one at any moment before the last.
TEST(Process, RunsUntilItsLastThreadIsOver) {
  Child child([] {
    const std::thread other([] { wait_to_be_killed(); });
    ::syscall(SYS_exit, 0);  // ends the first thread alone
  });
  const auto state = [&] {
    std::ifstream in(fmt::format("/proc/{}/stat", child.pid()));
    std::string line;
    std::getline(in, line);
    return line.at(line.rfind(')') + 2);
  };
  ASSERT_TRUE(wait_until(10'000, [&] { return state() == 'Z'; }));
  const auto process = process_of(child.pid());
  ASSERT_TRUE(process) << "taken for gone";
  EXPECT_TRUE(runs(*process));
  EXPECT_FALSE(wait_for_end(*process, 1));
  EXPECT_TRUE(signal_process(*process, SIGKILL));
  EXPECT_TRUE(wait_for_end(*process, 10'000));
  EXPECT_FALSE(runs(*process));
}

TEST(Process, NobodyIsSignalledForZero) {
  EXPECT_FALSE(runs({}));
  EXPECT_FALSE(signal_process({}, SIGKILL));
  EXPECT_TRUE(end_process({}, 0));
}

TEST(RunProgram, CodeOutputAndTimeout) {
  std::string output;
  EXPECT_EQ(run_program({"/bin/sh", "-c", "echo out; echo err >&2; exit 7"}, 10'000, &output).value(), 7);
  EXPECT_EQ(output, "out\nerr\n");
  EXPECT_EQ(run_program({"/nonexistent"}, 10'000, &output).value(), 127);
  EXPECT_EQ(run_program({"/bin/sh", "-c", "kill -9 $$"}, 10'000).value(), 128 + 9);
  EXPECT_EQ(run_program({"/bin/cat", "/dev/zero"}, 50, &output).error().code, Errc::kTimeout);
  // What a program leaves behind may hold its output open; the program's own end counts. Not `tail -f`: that ends when
  // nobody reads its output any more.
  output.clear();
  EXPECT_EQ(run_program({"/bin/sh", "-c", "sleep 1000 & echo $!"}, 10'000, &output).value(), 0);
  const auto left = process_of(std::stoi(output));
  ASSERT_TRUE(left) << output;
  EXPECT_TRUE(end_process(*left, 10'000));
}

TEST(Mounts, ProcIsThereAndNotOurs) {
  ASSERT_TRUE(mount_at("/proc"));
  EXPECT_FALSE(is_kinfs(*mount_at("/proc")));
  EXPECT_FALSE(mount_above("/proc/self/status"));
  EXPECT_FALSE(mount_at("/nonexistent"));
  EXPECT_FALSE(mount_process_of("/nonexistent"));
  EXPECT_TRUE(mount_answers("/", 10'000));
  EXPECT_FALSE(mount_answers("/nonexistent", 10'000));
}

TEST(Paths, AbsoluteWithoutLooking) {
  EXPECT_EQ(absolute_path("/"), "/");
  EXPECT_EQ(absolute_path("/nonexistent/"), "/nonexistent");
  EXPECT_EQ(absolute_path("/usr/../nonexistent"), "/nonexistent");
  EXPECT_EQ(absolute_path("/proc/self/.."), "/proc");
}

TEST(Paths, Tail) {
  char name[] = "/tmp/kinfs-tail-XXXXXX";
  ::close(::mkstemp(name));
  std::ofstream(name) << "1\n2\n3\n";
  EXPECT_EQ(tail_of(name, 2), "2\n3\n");
  EXPECT_EQ(tail_of(name, 9), "1\n2\n3\n");
  std::filesystem::remove(name);
  EXPECT_EQ(tail_of(name, 2), "");
}

TEST(Ports, AreFreeAndDifferent) {
  const auto ports = free_ports(5);
  ASSERT_TRUE(ports) << ports.error().text;
  EXPECT_EQ(std::set<std::uint16_t>(ports->begin(), ports->end()).size(), 5u);
}

TEST(LabCuts, EachCutHostIsAlone) {
  char folder[] = "/tmp/kinfs-lab-XXXXXX";
  ASSERT_NE(::mkdtemp(folder), nullptr);
  {
    auto lab = LabState::create(folder);
    ASSERT_TRUE(lab) << lab.error().text;
    for (const char* name : {"host1", "host2", "host3", "host4"}) lab->hosts.push_back({name});
    lab->cut = {"host2", "host3"};
    using Names = std::vector<std::string>;
    EXPECT_EQ(lab->cut_from(lab->hosts[0]), (Names{"host2", "host3"}));
    EXPECT_EQ(lab->cut_from(lab->hosts[1]), (Names{"host1", "host3", "host4"}));
    EXPECT_EQ(lab->find("3"), &lab->hosts[2]);
    EXPECT_EQ(lab->find("host3"), &lab->hosts[2]);
    EXPECT_EQ(lab->find("5"), nullptr);
    ASSERT_TRUE(lab->save());
    EXPECT_EQ(LabState::create(folder).error().code, Errc::kExists) << "a lab was made twice";
  }
  {
    auto again = LabState::open(folder);
    ASSERT_TRUE(again) << again.error().text;
    EXPECT_EQ(again->cut, (std::set<std::string>{"host2", "host3"}));
    EXPECT_EQ(again->hosts.size(), 4u);
    EXPECT_TRUE(again->erase());
  }
  EXPECT_EQ(LabState::open(folder).error().code, Errc::kRefused);
  std::filesystem::remove(folder);
}

}  // namespace
}  // namespace kinfs::daemon
