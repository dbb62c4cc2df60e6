// What a node id, a handle and the kernel's pages go on standing for when other hosts' versions come in between.
#include <gtest/gtest.h>

#include <set>

#include "mount_fixture.h"

namespace kinfs::fs::test {
namespace {

constexpr OpenFlags kRead{true, false, false, false};
constexpr OpenFlags kAppend{false, true, false, false};
constexpr OpenFlags kReplace{false, true, true, false};

class Identity : public Hosts {
 protected:
  /// By node, as the kernel does that has the name cached.
  std::string read_node(Mount& host, std::uint64_t node) {
    const auto opened = cluster.wait(host.fs.open(node, kRead, host.caller));
    if (!opened) return "error: " + opened.error().text;
    const Mount::Open file{node, opened->handle};
    const auto out = host.read_at(file);
    (void)host.close(file);
    return out;
  }
  Result<Unit> write_node(Mount& host, std::uint64_t node, const std::string& data, OpenFlags flags = kReplace) {
    const auto opened = cluster.wait(host.fs.open(node, flags, host.caller));
    if (!opened) return tl::unexpected(opened.error());
    const Mount::Open file{node, opened->handle};
    auto written = host.write_at(file, 0, data, !flags.truncate);
    if (!written) return tl::unexpected(written.error());
    return host.close(file);
  }
  /// Each name has a number of its own and shows its own bytes, through the kernel's cached numbers too.
  void distinct(Mount& host, const std::vector<std::pair<std::string, std::string>>& files) {
    std::set<std::uint64_t> nodes;
    for (const auto& [name, data] : files) {
      const auto node = host.node_of(name);
      ASSERT_TRUE(node) << name;
      EXPECT_TRUE(nodes.insert(*node).second) << name << " shares its number on " << host.client.host();
      EXPECT_EQ(read_node(host, *node), data) << name << " on " << host.client.host();
      EXPECT_EQ(cluster.wait(host.fs.getattr(*node))->size, data.size()) << name << " on " << host.client.host();
    }
  }
  std::string sibling_of(const std::string& name) {
    for (const auto& listed : b.ls()) {
      const auto parsed = parse_sibling_name(listed);
      if (parsed && parsed->plain_name == name) return listed;
    }
    return {};
  }
};

TEST_F(Identity, AnOwnSaveThatMakesASiblingKeepsTheNumberThatTheKernelHas) {
  MUST(a.write("f", "base"));
  EXPECT_EQ(a.read("f"), "base");
  const auto node = *a.node_of("f");
  MUST(c.write("f", "other"));
  MUST(write_node(a, node, "mine"));
  EXPECT_EQ(read_node(a, node), "mine");
  EXPECT_EQ(*a.node_of("f"), node);
  MUST(write_node(a, node, "+", kAppend));
  MUST(a.mv("f", "g"));
  EXPECT_EQ(read_node(a, node), "mine+");
  const auto sibling = sibling_of("f");
  agree({"g", sibling});
  everywhere("g", "mine+");
  everywhere(sibling, "other");
}

TEST_F(Identity, AnOwnSaveThatMakesASiblingIsNotLostByTheNextOne) {
  MUST(a.write("f", "base"));
  EXPECT_EQ(a.read("f"), "base");
  const auto node = *a.node_of("f");
  MUST(c.write("f", "other"));
  MUST(write_node(a, node, "mine"));
  MUST(write_node(a, node, "mine2"));
  everywhere("f", "mine2");
  everywhere(sibling_of("f"), "other");
}

TEST_F(Identity, ASaveThatIsShownUnderAnotherNameHasTheKernelLookAgain) {
  MUST(a.write("f", "base"));
  EXPECT_EQ(a.read("f"), "base");
  const auto node = *a.node_of("f");
  const auto file = a.open("f", kAppend);
  MUST(file);
  MUST(a.write_at(*file, 4, "+"));
  c.client.skew_ms = 60'000;  // the clock of a is behind: its version is the sibling
  MUST(c.write("f", "other"));
  (void)a.fs.take_stale_names();
  MUST(a.close(*file));
  const auto stale = a.fs.take_stale_names();
  ASSERT_EQ(stale.size(), 1u);
  EXPECT_EQ(stale[0].name, "f");
  EXPECT_EQ(stale[0].parent, kRootNode);
  EXPECT_EQ(read_node(a, node), "base+");
  EXPECT_EQ(a.read("f"), "other");
}

TEST_F(Identity, ThePlainNameMovedAwayLeavesTheSiblingANumberOfItsOwn) {
  MUST(a.write("f.txt", "base"));
  later();
  cut(c);
  MUST(a.write("f.txt", "one"));
  cluster.advance_ms(10);
  MUST(c.write("f.txt", "three, longer"));
  heal();
  MUST(b.mv("f.txt", "g.txt"));
  later();
  const auto sibling = sibling_of("f.txt");
  for (auto* host : {&a, &b, &c}) distinct(*host, {{"g.txt", "three, longer"}, {sibling, "one"}});
  MUST(a.mv(sibling, "f.txt"));
  later();
  for (auto* host : {&a, &b, &c}) distinct(*host, {{"g.txt", "three, longer"}, {"f.txt", "one"}});
}

TEST_F(Identity, MovedHereAndEditedThereAreTwoFiles) {
  for (const bool large : {false, true}) {
    const std::string tail = large ? std::string(100'000, 'x') : "";
    const std::string f = large ? "F" : "f", g = large ? "G" : "g";
    MUST(a.write(f, "base" + tail));
    later();
    (void)c.node_of(f);
    cut(c);
    MUST(a.mv(f, g));
    MUST(c.write(f, "edited" + tail + tail));
    heal();
    for (auto* host : {&a, &b, &c}) distinct(*host, {{f, "edited" + tail + tail}, {g, "base" + tail}});
    MUST(a.write(f, "precious"));
    later();
    MUST(a.rm(g));
    everywhere(f, "precious");
  }
}

TEST_F(Identity, MovedToTwoNamesAreTwoFiles) {
  MUST(a.write("f", "base"));
  later();
  (void)c.node_of("f");
  cut(c);
  MUST(a.mv("f", "g"));
  MUST(c.mv("f", "h"));
  heal();
  for (auto* host : {&a, &b, &c}) distinct(*host, {{"g", "base"}, {"h", "base"}});
  MUST(a.write("g", "gg"));
  MUST(c.write("h", "hhhh"));
  later();
  for (auto* host : {&a, &b, &c}) distinct(*host, {{"g", "gg"}, {"h", "hhhh"}});
}

TEST_F(Identity, AMoveOnAnotherHostTakesTheNumberAlong) {
  MUST(a.write("f", "base"));
  const auto node = *b.node_of("f");
  MUST(a.mv("f", "g"));
  later();
  EXPECT_EQ(b.ls(), std::vector<std::string>{"g"});
  EXPECT_EQ(*b.node_of("g"), node);
}

TEST_F(Identity, AHandleOfARemovedSiblingDoesNotTakeThePlainName) {
  MUST(a.write("e", "base"));
  later();
  cut(c);
  MUST(a.write("e", "one"));
  cluster.advance_ms(10);
  MUST(c.write("e", "three"));
  heal();
  const auto sibling = sibling_of("e");
  for (const auto& held_name : {sibling, std::string("e")}) {
    const auto kept = held_name == "e" ? sibling : std::string("e");
    const auto bytes = a.read(kept);
    const auto held = a.open(held_name, kRead);
    MUST(held);
    MUST(a.rm(held_name));
    EXPECT_NE(*a.node_of(kept), held->node);
    EXPECT_EQ(a.read(kept), bytes);
    MUST(write_node(a, *a.node_of(kept), "+", kAppend));
    everywhere(kept, bytes + "+");
    MUST(a.close(*held));
    EXPECT_EQ(a.read(kept), bytes + "+");
    if (held_name == "e") break;
    cut(c);
    MUST(a.write("e", "again"));
    cluster.advance_ms(10);
    MUST(c.write("e", "again on c"));
    heal();
    break;
  }
}

TEST_F(Identity, AnUnlinkedFileThatComesBackIsNotTheOneThatHandlesHold) {
  MUST(a.write("f", "base"));
  later();
  (void)c.node_of("f");
  const auto held = a.open("f", kRead);
  MUST(held);
  cut(c);
  MUST(a.rm("f"));
  MUST(c.write("f", "edited"));
  heal();
  EXPECT_NE(*a.node_of("f"), held->node);
  EXPECT_EQ(a.read("f"), "edited");
  EXPECT_EQ(a.read_at(*held), "base");
  MUST(a.close(*held));
  everywhere("f", "edited");
}

TEST_F(Identity, PagesOfAnOlderVersionAreNotKeptWhenAttributesChange) {
  MUST(a.write("h", "AAAA"));
  later();
  const auto node = *a.node_of("h");
  auto opened = cluster.wait(a.fs.open(node, kRead, a.caller));
  MUST(opened);
  a.fs.release(opened->handle);
  MUST(b.write("h", "BBBB"));
  later();
  Change change;
  change.mode = 0600;
  MUST(cluster.wait(a.fs.setattr(node, change, 0, a.caller)));
  EXPECT_EQ(a.fs.take_stale(), std::vector<std::uint64_t>{node});
  opened = cluster.wait(a.fs.open(node, kRead, a.caller));
  MUST(opened);
  EXPECT_FALSE(opened->keep_cache);
  a.fs.release(opened->handle);
  // What was read since is of the version that the change made, and own changes keep it.
  change.mode = 0644;
  MUST(cluster.wait(a.fs.setattr(node, change, 0, a.caller)));
  opened = cluster.wait(a.fs.open(node, kRead, a.caller));
  MUST(opened);
  EXPECT_TRUE(opened->keep_cache);
  a.fs.release(opened->handle);
}

TEST_F(Identity, PagesOfAnOlderVersionAreNotKeptByAMove) {
  MUST(a.write("h", "AAAA"));
  later();
  const auto node = *a.node_of("h");
  auto opened = cluster.wait(a.fs.open(node, kRead, a.caller));
  MUST(opened);
  MUST(b.write("h", "BBBB"));
  later();
  MUST(a.mv("h", "i"));
  EXPECT_EQ(a.fs.take_stale(), std::vector<std::uint64_t>{node});
  a.fs.release(opened->handle);
  opened = cluster.wait(a.fs.open(node, kRead, a.caller));
  MUST(opened);
  EXPECT_FALSE(opened->keep_cache);
  a.fs.release(opened->handle);
  everywhere("i", "BBBB");
}

TEST_F(Identity, AFileThatMeetsAnotherAtItsFirstPutKeepsItsBranch) {
  MUST(a.mkdir("d"));
  later();
  const auto created = a.create("d/log");
  MUST(created);
  MUST(a.write_at(*created, 0, "one"));
  MUST(c.write("d/log", "other"));
  cluster.advance_ms(10);
  MUST(a.flush(*created));
  MUST(a.write_at(*created, 3, ", two"));
  MUST(a.close(*created));
  later();
  const auto names = b.ls("d");
  ASSERT_EQ(names.size(), 2u);
  EXPECT_EQ(names[1].rfind("log.+host", 0), 0u);
  EXPECT_EQ(b.read("d/log"), "one, two");
  EXPECT_EQ(b.read("d/" + names[1]), "other");
  EXPECT_EQ(names[1].substr(0, 10), "log.+host3");
}

TEST_F(Identity, ADirectoryThatCannotBeAskedIsListedAllTheSame) {
  for (const char* name : {"one", "two", "three"}) MUST(a.mkdir(name));
  later();
  const auto handle = b.fs.opendir(kRootNode);
  ASSERT_TRUE(handle);
  const auto first = cluster.wait(b.fs.readdir(*handle, 0, 4096, false));
  ASSERT_TRUE(first);
  EXPECT_EQ(first->size(), 5u);
  cluster.fail_reads(Errc::kUnavailable, 4);  // the page is here, the directories' own rows are not at first
  const auto names = cluster.wait(b.fs.readdir(*handle, first->at(1).cookie, 4096, true));
  ASSERT_TRUE(names);
  EXPECT_EQ(names->size(), 3u);
  std::size_t bare = 0;
  for (const auto& name : *names) {
    EXPECT_EQ(name.type, FileType::kDirectory);
    EXPECT_NE(name.node, 0u);
    if (!name.found) ++bare;
  }
  EXPECT_GE(bare, 1u);
  b.fs.releasedir(*handle);
}

TEST_F(Identity, FsyncOfADirectorySyncsTheRowsThatWerePutIntoIt) {
  MUST(a.mkdir("d"));
  MUST(a.write("d/x", "1"));
  MUST(a.write("d/y", "2"));
  cluster.calls = {};
  MUST(cluster.wait(a.fs.fsync_directory(*a.node_of("d"))));
  EXPECT_EQ(cluster.calls.sync_puts, 1u);
  EXPECT_EQ(cluster.calls.put_rows, 3u);  // its own, and both names
  cluster.calls = {};
  MUST(cluster.wait(a.fs.fsync_directory(*a.node_of("d"))));
  EXPECT_EQ(cluster.calls.sync_puts, 0u);
  MUST(a.rm("d/x"));
  MUST(cluster.wait(a.fs.fsync_directory(*a.node_of("d"))));
  EXPECT_EQ(cluster.calls.put_rows, 2u);  // the marker, and once more
}

TEST_F(Identity, ASecondFsyncOfADirectoryWaitsForTheFirst) {
  MUST(a.mkdir("d"));
  MUST(a.write("d/x", "1"));
  const auto node = *a.node_of("d");
  int ended = 0;
  for (int i = 0; i < 2; ++i) {
    spawn(a.fs.fsync_directory(node), [&](Result<Unit>&& done) {
      EXPECT_TRUE(done);
      ++ended;
    });
  }
  EXPECT_EQ(ended, 0);
  cluster.run();
  EXPECT_EQ(ended, 2);
}

TEST_F(Identity, FsyncOfALargeFileThatFindsNoRoomStopsSending) {
  std::string data(60 * kBlockBytes, 'x');
  for (std::size_t i = 0; i < data.size(); i += kBlockBytes) data[i] = static_cast<char>('A' + i / kBlockBytes);
  MUST(a.write("big", data));
  later();
  const auto file = b.open("big", kAppend);
  MUST(file);
  cluster.fail_block_puts(Errc::kNoSpace, 1000);
  cluster.forget_sync(true);
  cluster.calls = {};
  EXPECT_EQ(cluster.wait(b.fs.fsync(file->handle)).error().code, Errc::kNoSpace);
  EXPECT_LE(cluster.calls.blocks_put, 2 * kBlocksInFlight);  // what failed is kept in memory
  cluster.fail_block_puts(Errc::kNoSpace, 0);
  cluster.forget_sync(false);
  MUST(cluster.wait(b.fs.fsync(file->handle)));
  EXPECT_GE(cluster.calls.blocks_synced, 60u);
  MUST(b.close(*file));
}

TEST_F(Identity, FsyncOfAFileThatSomebodyWroteBeforeSyncsItsBlocks) {
  const std::string data(3 * kBlockBytes, 'x');
  MUST(a.write("big", data + "a"));
  later();
  cluster.calls = {};
  const auto file = b.open("big", kAppend);
  MUST(file);
  MUST(cluster.wait(b.fs.fsync(file->handle)));
  EXPECT_GE(cluster.calls.blocks_synced, 3u);  // two distinct data blocks and the node above them
  MUST(b.close(*file));
}

TEST_F(Identity, WhatWasFsyncedOnceIsNotSentAgain) {
  std::string data(40 * kBlockBytes, 'x');
  for (std::size_t i = 0; i < data.size(); i += kBlockBytes) data[i] = static_cast<char>('a' + i / kBlockBytes);
  const auto file = a.create("big");
  MUST(file);
  MUST(a.write_at(*file, 0, data));
  MUST(cluster.wait(a.fs.fsync(file->handle)));
  MUST(a.close(*file));
  later();
  cluster.calls = {};
  const auto again = b.open("big", kAppend);
  MUST(again);
  MUST(b.write_at(*again, 0, "y"));
  MUST(cluster.wait(b.fs.fsync(again->handle)));
  MUST(b.close(*again));
  EXPECT_LE(cluster.calls.blocks_synced, 2u);
}

TEST_F(Identity, APutThatFoundNoRoomIsRepeatedAsTheSameEvent) {
  MUST(a.write("f", "base"));
  const auto file = a.open("f", kAppend);
  MUST(file);
  MUST(a.write_at(*file, 0, "mine"));
  cluster.fail_puts(Errc::kNoSpace, 1);
  EXPECT_EQ(a.flush(*file).error().code, Errc::kNoSpace);
  MUST(a.write_at(*file, 4, "+"));
  MUST(a.close(*file));
  everywhere("f", "mine+");
  agree({"f"});
}

}  // namespace
}  // namespace kinfs::fs::test
