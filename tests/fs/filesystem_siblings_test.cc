// What a cut leaves behind, on three hosts: which names there are, and what each way of resolving them does.
#include <gtest/gtest.h>

#include <tuple>

#include "mount_fixture.h"

namespace kinfs::fs::test {
namespace {

class Siblings : public Hosts {
 protected:
  /// `name` is written on a and on c while c is cut off; returns the sibling's name.
  std::string apart(const std::string& name, const std::string& on_a, const std::string& on_c,
                    const std::string& before = "before") {
    if (!before.empty()) {
      EXPECT_TRUE(a.write(name, before));
      later();
      EXPECT_TRUE(c.exists(name));
    }
    cut(c);
    EXPECT_TRUE(a.write(name, on_a));
    cluster.advance_ms(10);
    EXPECT_TRUE(c.write(name, on_c));
    heal();
    return other_than(name);
  }
  std::string other_than(const std::string& name) {
    const auto slash = name.rfind('/');
    const auto folder = slash == std::string::npos ? std::string() : name.substr(0, slash);
    const auto plain = Mount::name_in(name);
    std::string found;
    for (const auto& listed : b.ls(folder)) {
      const auto parsed = parse_sibling_name(listed);
      if (parsed && parsed->plain_name == plain) found = folder.empty() ? listed : folder + "/" + listed;
    }
    EXPECT_FALSE(found.empty()) << "no sibling of " << name;
    return found;
  }
};

TEST_F(Siblings, EditEdit) {
  const auto sibling = apart("report.txt", "by a", "by c");
  EXPECT_EQ(sibling.rfind("report.+host1-", 0), 0u) << sibling;
  agree({"report.txt", sibling});
  everywhere("report.txt", "by c");
  everywhere(sibling, "by a");
  EXPECT_NE(b.stat("report.txt")->node, b.stat(sibling)->node);
  EXPECT_EQ(b.lookup(sibling)->valid_ms, 0u);
  EXPECT_EQ(b.lookup("report.txt")->valid_ms, 0u);
}

TEST_F(Siblings, MvChooses) {
  const auto sibling = apart("report.txt", "by a", "by c");
  MUST(b.mv(sibling, "report.txt"));
  EXPECT_EQ(b.read("report.txt"), "by a");
  agree({"report.txt"});
  everywhere("report.txt", "by a");
  MUST(c.write("report.txt", "on"));
  everywhere("report.txt", "on");
  agree({"report.txt"});
}

TEST_F(Siblings, ALateSaveGoesOnWithThePlainNameAndTheOtherLeavesIt) {
  const auto sibling = apart("f.txt", "by a", "by c");
  EXPECT_EQ(a.read("f.txt"), "by c");
  later();
  MUST(c.write("f.txt", "c again"));
  cluster.advance_ms(10);
  MUST(a.write("f.txt", "on what a was shown"));
  later();
  const auto names = b.ls();
  ASSERT_EQ(names.size(), 3u);
  EXPECT_EQ(b.read("f.txt"), "on what a was shown");
  EXPECT_EQ(b.read(sibling), "by a");
  const auto left = names[0] == "f.txt" ? names[1] == sibling ? names[2] : names[1] : names[0] == sibling ? names[1]
                                                                                                        : names[0];
  EXPECT_EQ(left.rfind("f.+host3-", 0), 0u) << left;
  EXPECT_EQ(b.read(left), "c again");
  agree(names);
}

TEST_F(Siblings, ANameDoesNotChangeWhenAThirdVersionTurnsUp) {
  MUST(a.write("f", "A"));
  later();
  for (auto* host : {&a, &b, &c}) EXPECT_EQ(host->read("f"), "A");
  cut(b);
  MUST(c.write("f", "B by c"));
  later();
  EXPECT_EQ(a.read("f"), "B by c");
  cut(c);
  MUST(c.write("f", "C by c"));
  cluster.advance_ms(10);
  MUST(a.write("f", "C by a"));
  cluster.advance_ms(10);
  MUST(b.write("f", "D by b"));
  // a and b meet first: c stays away, with a version that shares more of its past with that of a.
  Mount reader(cluster, 1);
  cluster.heal(2);
  later();
  const auto before = reader.ls();
  ASSERT_EQ(before.size(), 2u);
  const auto by_a = before[1];
  EXPECT_EQ(by_a.rfind("f.+host1-", 0), 0u);
  EXPECT_EQ(reader.read(by_a), "C by a");
  heal();
  const auto after = b.ls();
  EXPECT_EQ(after.size(), 3u);
  EXPECT_NE(std::find(after.begin(), after.end(), by_a), after.end());
  EXPECT_EQ(b.read(by_a), "C by a");
}

TEST_F(Siblings, RmOfTheSiblingDiscardsIt) {
  const auto sibling = apart("a.c", "one", "three");
  MUST(b.rm(sibling));
  agree({"a.c"});
  everywhere("a.c", "three");
}

TEST_F(Siblings, RmOfThePlainNameLeavesTheSibling) {
  const auto sibling = apart("a.c", "one", "three");
  MUST(b.rm("a.c"));
  agree({sibling});
  everywhere(sibling, "one");
  EXPECT_FALSE(c.exists("a.c"));
  MUST(c.write("a.c", "new"));
  agree({"a.c", sibling});
  everywhere("a.c", "new");
  everywhere(sibling, "one");
  MUST(a.mv(sibling, "a.c"));
  agree({"a.c"});
  everywhere("a.c", "one");
}

TEST_F(Siblings, TheLastSiblingBecomesThePlainOneByMv) {
  const auto sibling = apart("a.c", "one", "three");
  MUST(b.rm("a.c"));
  later();
  MUST(c.mv(sibling, "a.c"));
  agree({"a.c"});
  everywhere("a.c", "one");
}

TEST_F(Siblings, EditingKeepsNames) {
  const auto sibling = apart("notes", "one", "three");
  MUST(b.write(sibling, "edited"));
  agree({"notes", sibling});
  everywhere(sibling, "edited");
  everywhere("notes", "three");
  MUST(c.write("notes", "edited too"));
  MUST(a.write(sibling, "once more"));
  agree({"notes", sibling});
  everywhere(sibling, "once more");
  everywhere("notes", "edited too");
  const auto file = a.open(sibling, OpenFlags{false, true, false, false});
  MUST(file);
  MUST(a.write_at(*file, 0, "+", true));
  MUST(a.close(*file));
  everywhere(sibling, "once more+");
  agree({"notes", sibling});
}

TEST_F(Siblings, AttributesOfASiblingAreItsOwn) {
  const auto sibling = apart("f", "one", "three");
  Change change;
  change.mode = 0600;
  MUST(cluster.wait(b.fs.setattr(*b.node_of(sibling), change, 0, b.caller)));
  later();
  EXPECT_EQ(c.stat(sibling)->mode, 0600u);
  EXPECT_EQ(c.stat("f")->mode, 0644u);
  agree({"f", sibling});
}

TEST_F(Siblings, MvElsewhereMakesAFileOfItsOwn) {
  const auto sibling = apart("a.txt", "one", "three");
  MUST(b.mkdir("d"));
  MUST(b.mv(sibling, "d/kept.txt"));
  agree({"a.txt", "d"});
  everywhere("d/kept.txt", "one");
  everywhere("a.txt", "three");
  EXPECT_NE(b.stat("a.txt")->node, b.stat("d/kept.txt")->node);
}

TEST_F(Siblings, ALargeSiblingTakesItsBlocksAlong) {
  const std::string one(700'000, '1');
  const std::string three(700'001, '3');
  const auto sibling = apart("big", one, three);
  const auto open = b.open(sibling, OpenFlags{true, true, false, false});
  MUST(open);
  MUST(b.mv(sibling, "kept"));
  EXPECT_EQ(b.read_at(*open), one);
  MUST(b.close(*open));
  agree({"big", "kept"});
  everywhere("kept", one);
  everywhere("big", three);
}

TEST_F(Siblings, MvOfThePlainOverTheSibling) {
  const auto sibling = apart("f", "one", "three");
  MUST(b.mv("f", sibling));
  agree({sibling});
  everywhere(sibling, "three");
}

TEST_F(Siblings, MvOfThePlainElsewhereLeavesTheSibling) {
  const auto sibling = apart("f", "one", "three");
  MUST(b.mv("f", "g"));
  agree({sibling, "g"});
  everywhere("g", "three");
  everywhere(sibling, "one");
}

TEST_F(Siblings, RenameOverThePlainNameKeepsTheSibling) {
  const auto sibling = apart("f", "one", "three");
  MUST(b.write("tmp", "saved"));
  MUST(b.mv("tmp", "f"));
  agree({"f", sibling});
  everywhere("f", "saved");
  everywhere(sibling, "one");
}

TEST_F(Siblings, CreateCreate) {
  const auto sibling = apart("new.txt", "by a", "by c", "");
  agree({"new.txt", sibling});
  EXPECT_NE(b.stat("new.txt")->node, b.stat(sibling)->node);
}

TEST_F(Siblings, EditAgainstRemove) {
  MUST(a.write("f", "old"));
  later();
  (void)c.read("f");
  cut(c);
  MUST(a.rm("f"));
  MUST(c.write("f", "edited"));
  heal();
  agree({"f"});
  everywhere("f", "edited");
  MUST(b.rm("f"));
  agree({});
}

TEST_F(Siblings, RemoveRemove) {
  MUST(a.write("f", "old"));
  later();
  (void)c.read("f");
  cut(c);
  MUST(a.rm("f"));
  MUST(c.rm("f"));
  heal();
  agree({});
  MUST(b.write("f", "again"));
  everywhere("f", "again");
}

TEST_F(Siblings, MkdirMkdirIsOneDirectory) {
  cut(c);
  MUST(a.mkdir("d"));
  MUST(c.mkdir("d"));
  MUST(a.write("d/one", "1"));
  MUST(c.write("d/three", "3"));
  MUST(a.write("d/same", "1"));
  cluster.advance_ms(10);
  MUST(c.write("d/same", "3"));
  heal();
  agree({"d"});
  const auto sibling = Mount::name_in(other_than("d/same"));
  agree({"one", "three", "same", sibling}, "d");
  EXPECT_EQ(a.stat("d")->node, c.stat("d")->node);
  Change change;
  change.mode = 0711;
  MUST(cluster.wait(b.fs.setattr(*b.node_of("d"), change, 0, b.caller)));
  later();
  EXPECT_EQ(c.stat("d")->mode, 0711u);
}

TEST_F(Siblings, EqualBytesAreNoConflict) {
  MUST(a.write("f", "old"));
  later();
  (void)c.read("f");
  cut(c);
  for (auto* host : {&a, &c}) {
    MUST(host->write("f", "the same"));
    MUST(host->write("g", "the same"));
  }
  heal();
  agree({"f", "g"});
  everywhere("f", "the same");
  MUST(b.write("f", "on"));
  everywhere("f", "on");
  agree({"f", "g"});
}

TEST_F(Siblings, RmRfTakesThemAlong) {
  MUST(a.mkdir("d"));
  later();
  (void)c.ls("d");
  cut(c);
  for (const auto* name : {"a.txt", "b", "c.o"}) {
    MUST(a.write(std::string("d/") + name, "one"));
    cluster.advance_ms(10);
    MUST(c.write(std::string("d/") + name, "three"));
  }
  heal();
  EXPECT_EQ(b.ls("d").size(), 6u);
  MUST(b.remove_all("d"));
  agree({});
}

TEST_F(Siblings, ThreeOfThem) {
  MUST(a.write("f", "old"));
  later();
  (void)b.read("f");
  (void)c.read("f");
  cut(b);
  cut(c);
  MUST(a.write("f", "by a"));
  cluster.advance_ms(10);
  MUST(b.write("f", "by b"));
  cluster.advance_ms(10);
  MUST(c.write("f", "by c"));
  heal();
  EXPECT_EQ(a.ls().size(), 3u);
  agree(a.ls());
  const auto names = b.ls();
  for (const auto& name : names) {
    if (name == "f") continue;
    MUST(b.rm(name));
  }
  agree({"f"});
  everywhere("f", "by c");
}

// --- what a save goes on top of ---

TEST_F(Siblings, AChangeBetweenOpenAndWriteBecomesASibling) {
  MUST(a.write("f", "old"));
  later();
  const auto file = a.open("f", OpenFlags{true, true, false, false});
  MUST(file);
  MUST(b.write("f", "by b"));
  MUST(a.write_at(*file, 0, "by a"));
  MUST(a.close(*file));
  later();
  const auto sibling = other_than("f");
  agree({"f", sibling});
  EXPECT_EQ(std::minmax(c.read("f"), c.read(sibling)), std::minmax(std::string("by a"), std::string("by b")));
}

TEST_F(Siblings, ASaveInPlaceGoesOnTopOfWhatTheEditorRead) {
  MUST(a.write("f", "old"));
  later();
  a.caller.thread = 11;
  EXPECT_EQ(a.read("f"), "old");  // the editor loads
  MUST(b.write("f", "by b"));
  later();
  a.caller.thread = 12;  // another thread of the editor saves: O_TRUNC
  MUST(a.write("f", "by a"));
  later();
  const auto sibling = other_than("f");
  agree({"f", sibling});
  // Saved again: on top of its own.
  MUST(a.write("f", "by a, again"));
  agree({"f", sibling});
  MUST(a.rm(sibling));
  agree({"f"});
}

TEST_F(Siblings, ATruncatingSaveWithoutTheFlagIsTheSame) {
  MUST(a.write("f", "old"));
  later();
  EXPECT_EQ(a.read("f"), "old");
  MUST(b.write("f", "by b"));
  later();
  const auto file = a.open("f", OpenFlags{false, true, false, false});
  MUST(file);
  Change change;
  change.size = 0;
  MUST(cluster.wait(a.fs.setattr(file->node, change, file->handle, a.caller)));
  MUST(a.write_at(*file, 0, "by a"));
  MUST(a.close(*file));
  later();
  agree({"f", other_than("f")});
}

TEST_F(Siblings, ARenameOverIsTheSame) {
  MUST(a.write("f", "old"));
  later();
  EXPECT_EQ(a.read("f"), "old");
  MUST(b.write("f", "by b"));
  later();
  MUST(a.write("f.tmp", "by a"));
  MUST(a.mv("f.tmp", "f"));
  later();
  agree({"f", other_than("f")});
}

TEST_F(Siblings, AnotherProcessReplacesWhatIsShownNow) {
  MUST(a.write("f", "old"));
  later();
  EXPECT_EQ(a.read("f"), "old");
  MUST(b.write("f", "by b"));
  later();
  a.caller.thread = 20;  // sh -c 'echo by a > f'
  MUST(a.write("f", "by a"));
  agree({"f"});
  everywhere("f", "by a");
}

TEST_F(Siblings, WhatIsOnlyOpenDoesNotStandInTheWay) {
  MUST(a.write("f", "old"));
  later();
  const auto file = a.open("f", OpenFlags{true, true, false, false});
  MUST(file);
  MUST(b.write("f", "by b"));
  Change change;
  change.mode = 0600;
  MUST(cluster.wait(a.fs.setattr(file->node, change, 0, a.caller)));
  agree({"f"});
  everywhere("f", "by b");
  MUST(b.write("f", "by b again"));
  later();
  MUST(a.mv("f", "g"));
  EXPECT_EQ(a.read_at(*file), "by b again");
  MUST(a.write_at(*file, 0, "By"));
  MUST(a.close(*file));
  agree({"g"});
  everywhere("g", "By b again");
  EXPECT_EQ(c.stat("g")->mode, 0600u);
}

TEST_F(Siblings, CutAgainWhileThereAreSiblings) {
  const auto sibling = apart("f", "one", "three");
  (void)c.read("f");
  cut(c);
  MUST(a.write("f", "plain by a"));
  cluster.advance_ms(10);
  MUST(c.write(sibling, "sibling by c"));
  heal();
  agree({"f", sibling});
  everywhere("f", "plain by a");
  everywhere(sibling, "sibling by c");
}

}  // namespace
}  // namespace kinfs::fs::test
