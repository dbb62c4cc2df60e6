// File system calls on a fake ring: what each does, and what each costs.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "mount_fixture.h"

namespace kinfs::fs::test {
namespace {

using Files = Hosts;
using Costs = Hosts;

// What a value of Result<T> holds, or a failure that prints the error.
#define REFUSED(expression, errc)                  \
  do {                                             \
    const auto refused_result = (expression);      \
    ASSERT_FALSE(refused_result);                  \
    EXPECT_EQ(refused_result.error().code, errc);  \
  } while (false)

TEST_F(Files, CloseToOpen) {
  MUST(a.write("f", "hello"));
  EXPECT_EQ(b.read("f"), "hello");
  MUST(b.write("f", "changed"));
  EXPECT_EQ(a.read("f"), "changed");
  // No time passes: each open must still see the close before it.
  for (int i = 0; i < 5; ++i) {
    MUST(a.write("f", "a" + std::to_string(i)));
    EXPECT_EQ(b.read("f"), "a" + std::to_string(i));
    MUST(b.write("f", "b" + std::to_string(i)));
    EXPECT_EQ(a.read("f"), "b" + std::to_string(i));
  }
  EXPECT_EQ(c.ls(), std::vector<std::string>{"f"});
  agree({"f"});
}

TEST_F(Files, ACreatedFileIsSeenHereAtOnceAndElsewhereAfterClose) {
  const auto file = a.create("f");
  MUST(file);
  MUST(a.write_at(*file, 0, "abc"));
  EXPECT_EQ(a.ls(), std::vector<std::string>{"f"});
  EXPECT_EQ(a.stat("f")->size, 3u);
  EXPECT_TRUE(b.ls().empty());
  EXPECT_FALSE(b.exists("f"));
  MUST(a.close(*file));
  everywhere("f", "abc");
}

TEST_F(Files, ManyFilesThatAreWrittenToAtOnceHoldABoundedPart) {
  constexpr std::size_t kFiles = 700, kPiece = 40'000, kPieces = 5;
  std::vector<Mount::Open> files;
  for (std::size_t i = 0; i < kFiles; ++i) {
    const auto file = a.create("f" + std::to_string(i));
    MUST(file);
    files.push_back(*file);
  }
  for (std::size_t piece = 0; piece < kPieces; ++piece) {
    for (std::size_t i = 0; i < kFiles; ++i) {
      MUST(a.write_at(files[i], piece * kPiece, std::string(kPiece, static_cast<char>('a' + (i + piece) % 26))));
      ASSERT_LE(a.fs.written_bytes(), kMaxWrittenBytes);
    }
  }
  EXPECT_GT(cluster.calls.blocks_put, 0u);
  EXPECT_LE(cluster.calls.blocks_put, 2 * kFiles);
  for (std::size_t i = 0; i < kFiles; ++i) MUST(a.close(files[i]));
  EXPECT_EQ(a.fs.written_bytes(), 0u);
  for (const std::size_t i : {std::size_t{0}, kFiles / 2, kFiles - 1}) {
    std::string whole;
    for (std::size_t n = 0; n < kPieces; ++n) whole.append(kPiece, static_cast<char>('a' + (i + n) % 26));
    EXPECT_EQ(b.read("f" + std::to_string(i)), whole);
  }
}

TEST_F(Files, WhatIsNeverClosedIsPublishedInTime) {
  const auto file = a.create("f");
  MUST(file);
  MUST(a.write_at(*file, 0, "abc"));
  later(4500);
  EXPECT_EQ(b.read("f"), "abc");
  MUST(a.write_at(*file, 3, "def"));
  later(4500);
  EXPECT_EQ(b.read("f"), "abcdef");
  MUST(a.close(*file));
}

TEST_F(Files, Attributes) {
  MUST(a.write("f", "x"));
  const auto node = *a.node_of("f");
  Change change;
  change.mode = 04750;
  change.uid = 7;
  change.gid = 8;
  change.mtime_ns = 1'234'567'890'123'456'789;
  change.atime_ns = 1'000'000'007;
  MUST(cluster.wait(a.fs.setattr(node, change, 0, a.caller)));
  later();
  const auto attr = b.stat("f");
  MUST(attr);
  EXPECT_EQ(attr->mode, 04750u);
  EXPECT_EQ(attr->uid, 7u);
  EXPECT_EQ(attr->gid, 8u);
  EXPECT_EQ(attr->mtime_ns, 1'234'567'890'123'456'789);
  EXPECT_EQ(attr->atime_ns, 1'000'000'007);
  EXPECT_EQ(attr->node, *b.node_of("f"));
  EXPECT_EQ(b.read("f"), "x");
}

TEST_F(Files, Truncate) {
  MUST(a.write("f", "0123456789"));
  Change change;
  change.size = 4;
  MUST(cluster.wait(a.fs.setattr(*a.node_of("f"), change, 0, a.caller)));
  everywhere("f", "0123");
  change.size = 6;
  MUST(cluster.wait(b.fs.setattr(*b.node_of("f"), change, 0, b.caller)));
  everywhere("f", std::string("0123\0\0", 6));
  REFUSED(cluster.wait(a.fs.setattr(kRootNode, change, 0, a.caller)), Errc::kIsDirectory);
}

TEST_F(Files, LargeFilesAndAppends) {
  std::string data(1'000'000, 'x');
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7 + i / 1000);
  MUST(a.write("big", data));
  EXPECT_EQ(b.read("big"), data);
  const auto file = b.open("big", OpenFlags{false, true, false, false});
  MUST(file);
  MUST(b.write_at(*file, 5, "end", true));  // the offset is a stale idea of the end
  MUST(b.close(*file));
  EXPECT_EQ(b.fs.take_stale(), std::vector<std::uint64_t>{file->node});
  everywhere("big", data + "end");
}

TEST_F(Files, Directories) {
  MUST(a.mkdir("d"));
  MUST(a.mkdir("d/e"));
  MUST(a.write("d/e/f", "deep"));
  later();
  REFUSED(b.mkdir("d"), Errc::kExists);
  REFUSED(b.rmdir("d"), Errc::kNotEmpty);
  REFUSED(b.rm("d"), Errc::kIsDirectory);
  REFUSED(b.rmdir("d/e/f"), Errc::kNotDirectory);
  REFUSED(b.rmdir("none"), Errc::kNotFound);
  REFUSED(b.rm("none"), Errc::kNotFound);
  REFUSED(b.lookup("d/e/f/g"), Errc::kNotDirectory);
  EXPECT_EQ(b.stat("d")->type, FileType::kDirectory);
  EXPECT_EQ(b.stat("d")->links, 2u);
  MUST(b.remove_all("d"));
  agree({});
  MUST(c.mkdir("d"));
  EXPECT_TRUE(c.ls("d").empty());
  EXPECT_FALSE(c.exists("d/e"));
}

TEST_F(Files, AnUnpublishedFileKeepsItsDirectory) {
  MUST(a.mkdir("d"));
  const auto file = a.create("d/f");
  MUST(file);
  REFUSED(a.rmdir("d"), Errc::kNotEmpty);
  MUST(a.rm("d/f"));
  MUST(a.rmdir("d"));
  MUST(a.close(*file));
  agree({});
}

TEST_F(Files, TimesOfDirectories) {
  MUST(a.mkdir("d"));
  const auto node = *a.node_of("d");
  Change change;
  change.mtime_ns = 77;
  change.mode = 0700;
  MUST(cluster.wait(a.fs.setattr(node, change, 0, a.caller)));
  EXPECT_EQ(a.stat("d")->mtime_ns, 77);
  later();
  EXPECT_EQ(b.stat("d")->mtime_ns, 77);
  EXPECT_EQ(b.stat("d")->mode, 0700u);
  MUST(a.write("d/f", "1"));
  EXPECT_GT(a.stat("d")->mtime_ns, 77);
  later();
  EXPECT_EQ(b.stat("d")->mtime_ns, a.stat("d")->mtime_ns);
}

TEST_F(Files, OtherTypes) {
  MUST(cluster.wait(a.fs.symlink(kRootNode, "link", "over/there", a.caller)));
  MUST(cluster.wait(a.fs.mknod(kRootNode, "fifo", FileType::kFifo, 0600, a.caller)));
  later();
  EXPECT_EQ(cluster.wait(b.fs.readlink(*b.node_of("link"))).value(), "over/there");
  EXPECT_EQ(b.stat("link")->size, 10u);
  EXPECT_EQ(b.stat("fifo")->type, FileType::kFifo);
  REFUSED(cluster.wait(b.fs.readlink(*b.node_of("fifo"))), Errc::kInvalid);
}

TEST_F(Files, GroupOfTheDirectory) {
  MUST(a.mkdir("d"));
  Change change;
  change.mode = 02775;
  change.gid = 55;
  MUST(cluster.wait(a.fs.setattr(*a.node_of("d"), change, 0, a.caller)));
  MUST(a.write("d/f", ""));
  MUST(a.mkdir("d/e"));
  EXPECT_EQ(a.stat("d/f")->gid, 55u);
  EXPECT_EQ(a.stat("d/e")->gid, 55u);
  EXPECT_EQ(a.stat("d/e")->mode, 02755u);
}

TEST_F(Files, Renames) {
  MUST(a.write("x", "1"));
  MUST(a.mkdir("d"));
  const auto node = *a.node_of("x");
  MUST(a.mv("x", "y"));
  EXPECT_EQ(*a.node_of("y"), node);
  EXPECT_FALSE(a.exists("x"));
  MUST(a.mv("y", "d/z"));
  everywhere("d/z", "1");
  agree({"d"});
  MUST(b.write("w", "2"));
  MUST(b.mv("w", "d/z"));
  everywhere("d/z", "2");
  agree({"z"}, "d");
  REFUSED(a.mv("none", "n"), Errc::kNotFound);
  REFUSED(a.mv("d", "d/e/f"), Errc::kNotFound);
  MUST(a.mkdir("d/e"));
  REFUSED(a.mv("d", "d/e/f"), Errc::kInvalid);
  REFUSED(a.mv("d", "d/z"), Errc::kInvalid);
  MUST(a.write("file", "3"));
  REFUSED(a.mv("d", "file"), Errc::kNotDirectory);
  REFUSED(a.mv("file", "d"), Errc::kIsDirectory);
  MUST(a.mkdir("full"));
  MUST(a.write("full/f", "4"));
  REFUSED(a.mv("d/e", "full"), Errc::kNotEmpty);
  REFUSED(a.mv("file", "d/z", RenameFlags{true, false}), Errc::kExists);
  MUST(a.mv("full", "d/e"));
  everywhere("d/e/f", "4");
  agree({"d", "file"});
}

TEST_F(Files, MovedDirectoriesKeepWhatIsBelow) {
  MUST(a.mkdir("p"));
  MUST(a.mkdir("p/q"));
  MUST(a.write("p/q/f", "1"));
  MUST(a.mkdir("r"));
  MUST(a.mv("p/q", "r/s"));
  everywhere("r/s/f", "1");
  MUST(b.mkdir("p/q"));
  EXPECT_TRUE(b.ls("p/q").empty()) << "a new directory, not the one that was moved away";
}

TEST_F(Files, OpenFilesAreFollowed) {
  const auto file = a.create("tmp");
  MUST(file);
  MUST(a.write_at(*file, 0, "one"));
  MUST(a.write("f", "old"));
  const auto old = a.open("f", OpenFlags{true, true, false, false});
  MUST(old);
  MUST(a.mv("tmp", "f"));
  everywhere("f", "one");
  MUST(a.write_at(*file, 3, " two"));
  EXPECT_EQ(a.read_at(*old), "old");
  MUST(a.write_at(*old, 0, "gone"));
  EXPECT_EQ(cluster.wait(a.fs.getattr(old->node))->links, 0u);
  MUST(a.close(*old));
  MUST(a.close(*file));
  everywhere("f", "one two");
  agree({"f"});
}

TEST_F(Files, UnlinkedFilesLiveUntilTheyAreClosed) {
  MUST(a.write("f", "data"));
  const auto file = a.open("f", OpenFlags{true, true, false, false});
  MUST(file);
  MUST(a.write_at(*file, 4, "+more"));
  MUST(a.rm("f"));
  EXPECT_EQ(a.read_at(*file), "data+more");
  MUST(a.write("f", "another"));
  EXPECT_NE(*a.node_of("f"), file->node);
  MUST(a.close(*file));
  everywhere("f", "another");
}

TEST_F(Files, ExclusiveCreate) {
  MUST(a.create("lock", true));
  const auto mine = a.create("lock", true);
  REFUSED(mine, Errc::kExists);
  MUST(a.write("done", ""));
  cluster.advance_ms(200);
  REFUSED(b.create("done", true), Errc::kExists);
}

TEST_F(Files, NamesAtTheLimits) {
  const std::string longest(255, '\xff');
  MUST(a.write(longest, "x"));
  everywhere(longest, "x");
  REFUSED(a.create(std::string(256, 'x')), Errc::kNameTooLong);
  REFUSED(a.mkdir(std::string(256, 'x')), Errc::kNameTooLong);
  REFUSED(a.lookup(std::string(256, 'x')), Errc::kNameTooLong);
  MUST(a.write("report.+host1-abcd.txt", "only looks like a sibling"));
  everywhere("report.+host1-abcd.txt", "only looks like a sibling");
}

TEST_F(Files, ListingsNeitherSkipNorRepeat) {
  MUST(a.mkdir("d"));
  std::set<std::string> names;
  for (int i = 0; i < 700; ++i) {
    names.insert("n" + std::to_string(i));
    MUST(a.write("d/n" + std::to_string(i), std::string(1000, 'x')));
  }
  std::vector<Mount::Open> unpublished;
  for (int i = 0; i < 20; ++i) {
    const auto file = a.create("d/new" + std::to_string(i));
    MUST(file);
    unpublished.push_back(*file);
    names.insert("new" + std::to_string(i));
  }
  for (const std::size_t size : {600u, 4096u, 100'000u}) {
    for (const bool attributes : {false, true}) {
      std::multiset<std::string> listed;
      for (const auto& name : a.listing("d", size, attributes)) {
        listed.insert(name.name);
        EXPECT_EQ(name.found.has_value(), attributes);
      }
      EXPECT_EQ(listed, std::multiset<std::string>(names.begin(), names.end())) << size;
    }
  }
  // What is there all along is listed once, also when everything around it goes meanwhile.
  const auto handle = a.fs.opendir(*a.node_of("d"));
  MUST(handle);
  std::multiset<std::string> listed;
  for (std::uint64_t cookie = 0;;) {
    const auto page = cluster.wait(a.fs.readdir(*handle, cookie, 2000, false));
    MUST(page);
    if (page->empty()) break;
    cookie = page->back().cookie;
    for (const auto& name : *page) {
      listed.insert(name.name);
      if (name.name.size() > 2 && name.name[1] != 'e') MUST(a.rm("d/" + name.name));
    }
  }
  for (const auto& name : names) EXPECT_EQ(listed.count(name), 1u) << name;
  for (const auto& file : unpublished) MUST(a.close(file));
}

TEST_F(Files, ForgottenNodesAreGone) {
  MUST(a.write("f", "1"));
  a.fs.forget(*a.node_of("f"), 1000);
  const auto node = *a.node_of("f");
  a.fs.forget(node, 1);
  REFUSED(cluster.wait(a.fs.getattr(node)), Errc::kNotFound);
  EXPECT_EQ(a.read("f"), "1");
}

TEST_F(Files, NothingIsAbsentThatCannotBeAskedFor) {
  MUST(a.write("f", "1"));
  later();
  cluster.fail_reads(Errc::kUnavailable, 3);
  REFUSED(b.lookup("f"), Errc::kUnavailable);
  REFUSED(b.create("g"), Errc::kUnavailable);
  const auto handle = b.fs.opendir(kRootNode);
  MUST(handle);
  const auto page = cluster.wait(b.fs.readdir(*handle, 2, 4096, false));
  REFUSED(page, Errc::kUnavailable);
  EXPECT_EQ(b.read("f"), "1");
}

TEST_F(Files, AbsenceIsNotKept) {
  (void)b.ls();
  const auto found = b.lookup("f");
  MUST(found);
  EXPECT_EQ(found->attr.node, 0u);
  EXPECT_EQ(found->valid_ms, 0u);
  cluster.advance_ms(2);
  MUST(a.write("f", "made elsewhere"));
  EXPECT_EQ(b.read("f"), "made elsewhere");
  // Neither does a look at the name make an open of a while later, or of another process, any older.
  EXPECT_TRUE(b.exists("f"));
  later();
  EXPECT_TRUE(b.exists("f"));
  MUST(a.write("f", "written since"));
  cluster.advance_ms(2);
  EXPECT_EQ(b.read("f"), "written since");
  later();
  EXPECT_TRUE(b.exists("f"));
  MUST(a.write("f", "and again"));
  b.caller.thread = 99;
  EXPECT_EQ(b.read("f"), "and again");
  b.caller.thread = 10;
  MUST(a.write("f.tmp", "replaced elsewhere"));
  MUST(a.mv("f.tmp", "f"));
  EXPECT_EQ(b.read("f"), "replaced elsewhere");
}

TEST_F(Files, RefusedPutsKeepTheData) {
  const auto file = a.create("f");
  MUST(file);
  MUST(a.write_at(*file, 0, "abc"));
  cluster.fail_puts(Errc::kNoSpace, 1);
  REFUSED(a.flush(*file), Errc::kNoSpace);
  EXPECT_EQ(a.read_at(*file), "abc");
  MUST(a.close(*file));
  everywhere("f", "abc");
}

TEST_F(Files, LostAnswersMakeNoSiblings) {
  const auto file = a.create("f");
  MUST(file);
  MUST(a.write_at(*file, 0, "abc"));
  cluster.lose_put_answers(1);
  REFUSED(a.flush(*file), Errc::kTimeout);
  MUST(a.write_at(*file, 3, "def"));
  MUST(a.close(*file));
  everywhere("f", "abcdef");
  agree({"f"});
}

TEST_F(Files, DeferredErrorsAreToldOnce) {
  const auto file = a.create("f");
  MUST(file);
  MUST(a.write_at(*file, 0, "abc"));
  cluster.fail_puts(Errc::kNoSpace, 2);
  later(4500);
  REFUSED(a.flush(*file), Errc::kNoSpace);
  MUST(a.flush(*file));
  MUST(a.close(*file));
  everywhere("f", "abc");
}

TEST_F(Files, ReleasedFilesGoOnTrying) {
  const auto file = a.create("f");
  MUST(file);
  MUST(a.write_at(*file, 0, "abc"));
  cluster.fail_puts(Errc::kUnavailable, 2);
  EXPECT_FALSE(a.close(*file));
  EXPECT_EQ(a.fs.unpublished(), std::vector<std::string>{"f"});
  later(6000);
  EXPECT_TRUE(a.fs.unpublished().empty());
  everywhere("f", "abc");
}

TEST_F(Files, PublishAll) {
  for (int i = 0; i < 10; ++i) MUST(a.create("f" + std::to_string(i)));
  EXPECT_EQ(a.fs.unpublished().size(), 10u);
  MUST(cluster.wait(a.fs.publish_all()));
  EXPECT_EQ(b.ls().size(), 10u);
}

TEST_F(Files, TwoCallsAtOnce) {
  MUST(a.write("x", "1"));
  const auto file = a.open("x", OpenFlags{true, true, false, false});
  MUST(file);
  MUST(a.write_at(*file, 0, "2"));
  int done = 0;
  spawn(a.fs.flush(file->handle), [&](Result<Unit>&& r) { done += r ? 1 : 0; });
  spawn(a.fs.rename(kRootNode, "x", kRootNode, "y", RenameFlags{}, a.caller),
        [&](Result<Unit>&& r) { done += r ? 1 : 0; });
  spawn(a.fs.fsync(file->handle), [&](Result<Unit>&& r) { done += r ? 1 : 0; });
  cluster.run();
  EXPECT_EQ(done, 3);
  MUST(a.close(*file));
  everywhere("y", "2");
  agree({"y"});
}

// --- what it costs ---

TEST_F(Costs, CreateWriteChmodUtimensClose) {
  MUST(a.mkdir("d"));
  (void)a.stat("d");
  cluster.calls = {};
  const auto file = a.create("d/f", true);
  MUST(file);
  MUST(a.write_at(*file, 0, std::string(1024, 'x')));
  Change change;
  change.mode = 0600;
  MUST(cluster.wait(a.fs.setattr(file->node, change, file->handle, a.caller)));
  Change times;
  times.mtime_ns = 5;
  MUST(cluster.wait(a.fs.setattr(file->node, times, 0, a.caller)));
  MUST(a.close(*file));
  EXPECT_EQ(cluster.calls.puts, 1u);
  EXPECT_EQ(cluster.calls.put_rows, 1u);
  EXPECT_EQ(cluster.calls.round_trips(), 1u);
  EXPECT_EQ(a.stat("d")->mode, 0755u);
  EXPECT_EQ(cluster.calls.round_trips(), 1u) << "the directory's times after an own change are known";
  MUST(a.stat("d/f"));
  EXPECT_EQ(cluster.calls.round_trips(), 1u);
}

TEST_F(Costs, ACreateInADirectoryOfOthersIsOneLookMore) {
  MUST(a.mkdir("d"));
  later();
  (void)b.stat("d");
  cluster.calls = {};
  EXPECT_FALSE(b.exists("d/f"));
  MUST(b.create("d/f", true));
  EXPECT_EQ(cluster.calls.round_trips(), 1u);
}

TEST_F(Costs, Renames) {
  MUST(a.write("x", "1"));
  MUST(a.write("y", "2"));
  MUST(a.mkdir("d"));
  (void)a.exists("z");
  cluster.calls = {};
  MUST(a.mv("x", "z"));
  EXPECT_EQ(cluster.calls.puts, 1u);
  EXPECT_EQ(cluster.calls.put_rows, 2u);
  EXPECT_EQ(cluster.calls.round_trips(), 1u);
  MUST(a.mv("y", "z"));
  EXPECT_EQ(cluster.calls.puts, 2u);
  EXPECT_EQ(cluster.calls.round_trips(), 2u);
  MUST(a.mv("z", "d/z"));
  EXPECT_EQ(cluster.calls.puts, 4u);
  EXPECT_EQ(cluster.calls.round_trips(), 4u);
}

TEST_F(Costs, ListingThenReading) {
  MUST(a.mkdir("d"));
  for (int i = 0; i < 50; ++i) MUST(a.write("d/f" + std::to_string(i), "small"));
  MUST(a.mkdir("d/e"));
  later();
  (void)b.stat("d");
  cluster.calls = {};
  const auto names = b.listing("d", 1 << 20, true);
  EXPECT_EQ(names.size(), 51u);
  EXPECT_EQ(cluster.calls.scans, 1u);
  EXPECT_EQ(cluster.calls.gets, 1u) << "the subdirectory's own row";
  for (const auto& name : names) MUST(b.stat("d/" + name.name));
  EXPECT_EQ(cluster.calls.round_trips(), 2u);
  for (const auto& name : names) {
    if (name.type == FileType::kRegular) {
      EXPECT_EQ(b.read("d/" + name.name), "small");
    }
  }
  EXPECT_EQ(cluster.calls.round_trips(), 52u) << "open(2) asks once, as long as nobody tells of changes";
  EXPECT_EQ(cluster.calls.puts, 0u);
}

TEST_F(Costs, NamesOfOneDirectoryThatAreLookedUpInARowAreFetchedByThePage) {
  MUST(a.mkdir("d"));
  for (int i = 0; i < 50; ++i) MUST(a.write("d/f" + std::to_string(i), "small"));
  later();
  (void)b.stat("d");
  cluster.calls = {};
  for (int i = 0; i < 50; ++i) MUST(b.stat("d/f" + std::to_string(i)));
  EXPECT_EQ(cluster.calls.scans, 1u);
  EXPECT_EQ(cluster.calls.gets, 3u);
}

TEST_F(Costs, NamesThatAreNotThereAreAskedForOneByOne) {
  MUST(a.mkdir("d"));
  for (int i = 0; i < 50; ++i) MUST(a.write("d/f" + std::to_string(i), "small"));
  later();
  (void)b.stat("d");
  cluster.calls = {};
  for (int i = 0; i < 50; ++i) EXPECT_FALSE(b.exists("d/g" + std::to_string(i)));
  EXPECT_EQ(cluster.calls.scans, 1u) << "what is there is known after it, and that is no answer for a new name";
  EXPECT_EQ(cluster.calls.gets, 50u);
  MUST(a.write("d/g7", "new"));
  EXPECT_TRUE(b.exists("d/g7"));
}

TEST_F(Costs, OpenAfterALookupIsOneTripForBoth) {
  MUST(a.write("f", "1"));
  later();
  cluster.calls = {};
  EXPECT_EQ(b.read("f"), "1");
  EXPECT_EQ(cluster.calls.round_trips(), 1u);
  EXPECT_EQ(b.read("f"), "1");
  EXPECT_EQ(cluster.calls.round_trips(), 2u);
}

TEST_F(Costs, FlushOfWhatIsPublishedIsFree) {
  const auto file = a.create("f");
  MUST(file);
  MUST(a.write_at(*file, 0, "1"));
  MUST(a.flush(*file));
  cluster.calls = {};
  MUST(a.flush(*file));
  MUST(a.close(*file));
  EXPECT_EQ(cluster.calls.round_trips(), 0u);
}

TEST_F(Costs, FsyncIsOneSyncedPut) {
  const auto file = a.create("f");
  MUST(file);
  MUST(a.write_at(*file, 0, "1"));
  cluster.calls = {};
  MUST(cluster.wait(a.fs.fsync(file->handle)));
  EXPECT_EQ(cluster.calls.sync_puts, 1u);
  MUST(cluster.wait(a.fs.fsync(file->handle)));
  EXPECT_EQ(cluster.calls.puts, 1u);
  MUST(a.close(*file));
  MUST(a.write("g", "2"));
  const auto again = a.open("g", OpenFlags{true, true, false, false});
  MUST(again);
  cluster.calls = {};
  MUST(cluster.wait(a.fs.fsync(again->handle)));
  EXPECT_EQ(cluster.calls.sync_puts, 1u) << "what was published without it is synced";
  MUST(a.close(*again));
  everywhere("g", "2");
  agree({"f", "g"});
}

TEST_F(Costs, NothingLastsLongerThanASecond) {
  MUST(a.write("f", "1"));
  (void)b.stat("f");
  cluster.calls = {};
  cluster.advance_ms(900);
  MUST(b.stat("f"));
  EXPECT_EQ(cluster.calls.round_trips(), 0u);
  cluster.advance_ms(100);
  MUST(b.stat("f"));
  EXPECT_GE(cluster.calls.round_trips(), 1u);
  const auto found = b.lookup("f");
  MUST(found);
  EXPECT_LE(found->valid_ms, 900u);
  cluster.advance_ms(600);
  EXPECT_LE(b.lookup("f")->valid_ms, 350u);
}

TEST_F(Costs, PagesAreKeptWhereTheVersionIsTheSame) {
  MUST(a.write("f", "1"));
  const OpenFlags reading{true, false, false, false};
  const auto node = *a.node_of("f");
  const auto first = cluster.wait(a.fs.open(node, reading, a.caller));
  MUST(first);
  EXPECT_TRUE(first->keep_cache) << "written here";
  a.fs.release(first->handle);
  MUST(b.write("f", "2"));
  later();
  const auto second = cluster.wait(a.fs.open(node, reading, a.caller));
  MUST(second);
  EXPECT_FALSE(second->keep_cache);
  const auto third = cluster.wait(a.fs.open(node, reading, a.caller));
  MUST(third);
  EXPECT_TRUE(third->keep_cache);
}

}  // namespace
}  // namespace kinfs::fs::test
