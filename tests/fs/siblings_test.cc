// Which names a row shows: name forms by table, and the rules of winning, leaving and naming by small histories.
#include "fs/siblings.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

namespace kinfs::fs::test {
namespace {

// --- names ---

struct NameCase {
  const char* plain;
  const char* sibling;
};

TEST(SiblingNames, Table) {
  const NameCase cases[] = {
      {"report.txt", "report.+h-abcd.txt"},
      {"archive.tar.gz", "archive.+h-abcd.tar.gz"},
      {"a.b.tar.xz", "a.b.+h-abcd.tar.xz"},
      {".bashrc", ".bashrc.+h-abcd"},
      {".config.json", ".config.+h-abcd.json"},
      {"Makefile", "Makefile.+h-abcd"},
      {"a.b.c", "a.b.+h-abcd.c"},
      {"ends.", "ends..+h-abcd"},
      {"...", "....+h-abcd"},
      {"..a", "..a.+h-abcd"},
      {".tar.gz", ".tar.+h-abcd.gz"},
      {"tar.gz", "tar.+h-abcd.gz"},
      {"x.tar", "x.+h-abcd.tar"},
      {"-", "-.+h-abcd"},
      {"a.+h-abcd.txt", "a.+h-abcd.+h-abcd.txt"},
      {"a.+h-abcd", "a.+h-abcd.+h-abcd"},
      {"a.+other-2345", "a.+h-abcd.+other-2345"},
      {"c++.+x", "c++.+h-abcd.+x"},
      {"a.this-is-longer-than-an-extension-ever-is", "a.this-is-longer-than-an-extension-ever-is.+h-abcd"},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(sibling_name(c.plain, "h", "abcd"), c.sibling);
    const auto parsed = parse_sibling_name(c.sibling);
    ASSERT_TRUE(parsed) << c.sibling;
    EXPECT_EQ(parsed->plain_name, c.plain);
    EXPECT_FALSE(parsed->may_be_cut);
  }
}

TEST(SiblingNames, WhatIsNone) {
  for (const char* name :
       {"report.txt", "a.+h", "a.+h-", "a.+h-abc", "a.+h-ABCD", "a.+h-abc1", "a.+-abcd", "a.+thirteenchars-abcd",
        ".+h-abcd", "a.+h-abcd.x.y", "a.+h_abcd", "", "a+h-abcd.txt", ".+h-abcd.txt"}) {
    EXPECT_FALSE(parse_sibling_name(name)) << name;
  }
}

TEST(SiblingNames, FitAndStayWhole) {
  const std::string ascii(251, 'x');
  std::string name = sibling_name(ascii + ".txt", "host1", "abcd");
  EXPECT_EQ(name.size(), kMaxNameBytes);
  EXPECT_EQ(name.substr(name.size() - 16), ".+host1-abcd.txt");
  EXPECT_TRUE(parse_sibling_name(name)->may_be_cut);
  EXPECT_EQ(parse_sibling_name(name)->plain_name, std::string(239, 'x') + ".txt");
  // A character of 2, 3 or 4 bytes is never split, wherever the cut falls.
  for (const std::string c : {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"}) {
    for (int lead = 0; lead < 4; ++lead) {
      std::string plain(static_cast<std::size_t>(lead), 'a');
      while (plain.size() + c.size() <= kMaxNameBytes) plain += c;
      name = sibling_name(plain, "host1", "abcd");
      EXPECT_LE(name.size(), kMaxNameBytes);
      EXPECT_GT(name.size(), kMaxNameBytes - c.size());
      const auto stem = name.substr(0, name.find(".+"));
      EXPECT_EQ((stem.size() - static_cast<std::size_t>(lead)) % c.size(), 0u);
      ASSERT_TRUE(parse_sibling_name(name));
      EXPECT_TRUE(parse_sibling_name(name)->may_be_cut);
    }
  }
  const std::string broken(255, '\xbf');
  EXPECT_LE(sibling_name(broken, "host1", "abcd").size(), kMaxNameBytes);
}

TEST(SiblingNames, AnyNameComesBack) {
  std::mt19937_64 random(1);
  const std::string alphabet = ".+-ah2tr \xc3\xa9";
  for (int i = 0; i < 100'000; ++i) {
    std::string plain(1 + random() % 20, 'a');
    for (auto& c : plain) c = alphabet[random() % alphabet.size()];
    const auto name = sibling_name(plain, "host1", "abcd");
    const auto parsed = parse_sibling_name(name);
    ASSERT_TRUE(parsed) << plain;
    ASSERT_EQ(parsed->plain_name, plain);
  }
}

TEST(SiblingNames, HostLabels) {
  EXPECT_EQ(host_label("host1"), "host1");
  EXPECT_EQ(host_label("Web-01.example.org"), "web01example");
  EXPECT_EQ(host_label("---"), "host");
  EXPECT_EQ(host_label(""), "host");
  EXPECT_EQ(host_label("\xc3\xa9"), "host");
}

// --- rows ---

/// A row written by hand: `n` is client, node and host of a writer.
struct History {
  Row row;
  std::uint64_t clock = 0;
  std::map<std::uint64_t, std::uint64_t> sequences;

  static Entry file(const std::string& content) {
    Entry e;
    e.file_id[0] = 1;
    e.content = content;
    e.size = content.size();
    return e;
  }
  static Entry dir(std::uint8_t id) {
    Entry e;
    e.type = FileType::kDirectory;
    e.directory_id[0] = id;
    e.generation = id;
    return e;
  }
  Version make(std::uint64_t n, Bytes value, bool tombstone, const Version* base) {
    Version v;
    const auto s = ++sequences[n];
    v.dot = {NodeId{n}, s};
    v.event = {ClientId{n}, 1, s};
    v.hlc = Hlc{++clock};
    v.host = "host" + std::to_string(n);
    v.tombstone = tombstone;
    v.value = std::move(value);
    if (base != nullptr) v.lineage = extend_lineage(*base, "");
    return v;
  }
  Version add(std::uint64_t n, const Entry& e, const Version* base = nullptr) {
    const Version v = make(n, encode(e), false, base);
    add_version(row, v, v.dot);
    return v;
  }
  void drop(const std::vector<Dot>& dots) { row = superseding(row, dots); }
  void mark(std::uint64_t n, const Marker& m) {
    const Version v = make(n, encode(m), true, nullptr);
    add_version(row, v, v.dot);
  }
  View view(std::string_view name = "f.txt") const {
    const View v = view_of(row, name);
    // Whatever the row: every dot once, names unique, order of versions without effect.
    std::set<std::string> names;
    std::size_t dots = v.hidden.size();
    for (const auto& s : v.names) {
      EXPECT_TRUE(names.insert(s.name).second);
      dots += s.dots.size();
    }
    EXPECT_EQ(dots, row.versions.size());
    EXPECT_EQ(v.all_dots().size(), row.versions.size());
    Row turned = row;
    std::reverse(turned.versions.begin(), turned.versions.end());
    const View w = view_of(turned, name);
    EXPECT_EQ(v.names.size(), w.names.size());
    for (std::size_t i = 0; i < v.names.size() && i < w.names.size(); ++i) {
      EXPECT_EQ(v.names[i].name, w.names[i].name);
      EXPECT_EQ(v.names[i].version, w.names[i].version);
    }
    return v;
  }
};

/// Writes over a shown version as a mount does: the branch is kept when there was more than one name.
Version edit(History& h, std::uint64_t n, const View& view, const Shown& shown, const std::string& content) {
  Entry e = History::file(content);
  if (view.has_siblings()) e.branch = shown.branch;
  const Version base = shown.version;
  const auto dots = shown.dots;
  h.drop(dots);
  return h.add(n, e, &base);
}

TEST(Siblings, OneVersionHasThePlainName) {
  History h;
  const auto v = h.add(1, History::file("a"));
  const auto view = h.view();
  ASSERT_EQ(view.names.size(), 1u);
  EXPECT_EQ(view.plain()->name, "f.txt");
  EXPECT_EQ(view.plain()->branch.event, v.event);
  EXPECT_TRUE(view.plain()->keeps_number);
  EXPECT_FALSE(view.has_siblings());
  EXPECT_TRUE(view_of(Row{}, "f").names.empty());
}

TEST(Siblings, LaterBranchWinsAndEditingDoesNotSwap) {
  History h;
  const auto base = h.add(1, History::file("base"));
  h.drop({base.dot});
  h.add(1, History::file("one"), &base);
  h.add(2, History::file("two"), &base);
  auto view = h.view();
  ASSERT_EQ(view.names.size(), 2u);
  EXPECT_EQ(view.plain()->entry.content, "two");
  EXPECT_FALSE(view.plain()->keeps_number);
  const std::string sibling = view.names[1].name;
  EXPECT_EQ(sibling.rfind("f.+host1-", 0), 0u);
  EXPECT_EQ(sibling.size(), std::string("f.+host1-abcd.txt").size());
  EXPECT_EQ(parse_sibling_name(sibling)->plain_name, "f.txt");
  // Forty edits of the sibling by another host, then forty of the winner: longer than any lineage.
  for (int i = 0; i < 40; ++i) {
    edit(h, 3, view, *view.find(sibling), "sibling" + std::to_string(i));
    view = h.view();
    ASSERT_EQ(view.plain()->entry.content, "two");
    ASSERT_NE(view.find(sibling), nullptr);
    ASSERT_TRUE(view.find(sibling)->keeps_number);
  }
  for (int i = 0; i < 40; ++i) {
    edit(h, 2, view, *view.plain(), "winner" + std::to_string(i));
    view = h.view();
    ASSERT_EQ(view.plain()->entry.content, "winner" + std::to_string(i));
    ASSERT_EQ(view.find(sibling)->entry.content, "sibling39");
  }
}

TEST(Siblings, UnwrittenSiblingKeepsItsNameWhileTheWinnerIsEdited) {
  History h;
  const auto base = h.add(1, History::file("base"));
  h.drop({base.dot});
  const auto one = h.add(1, History::file("one"), &base);
  h.drop({one.dot});
  h.add(1, History::file("one, again"), &one);  // its branch begins at `one`
  h.add(2, History::file("two"), &base);
  auto view = h.view();
  const std::string sibling = view.names[1].name;
  EXPECT_EQ(view.names[1].branch.event, one.event);
  for (int i = 0; i < 40; ++i) {
    edit(h, 2, view, *view.plain(), std::to_string(i));
    view = h.view();
    ASSERT_EQ(view.names[1].name, sibling);
    ASSERT_EQ(view.plain()->entry.content, std::to_string(i));
  }
}

TEST(Siblings, EqualBytesAndEqualEventsAreOne) {
  History h;
  Entry a = History::file("same"), b = a;
  b.mode = 0600;
  const auto va = h.add(1, a), vb = h.add(2, b);
  auto view = h.view();
  ASSERT_EQ(view.names.size(), 1u);
  EXPECT_EQ(view.plain()->entry.mode, 0600u);
  EXPECT_EQ(view.plain()->version, vb);
  EXPECT_EQ(view.plain()->dots, (std::vector<Dot>{va.dot, vb.dot}));
  // One event under two dots; the second copy says something else, which a retry never does.
  Version again = vb;
  again.value = encode(History::file("other"));
  add_version(h.row, again, Dot{NodeId{9}, 1});
  view = h.view();
  ASSERT_EQ(view.names.size(), 1u);
  EXPECT_EQ(view.plain()->dots.size(), 3u);
}

TEST(Siblings, LiveBeatsRemoved) {
  History h;
  h.mark(1, Marker{{}, {}, {}, 5});
  EXPECT_TRUE(h.view().names.empty());
  EXPECT_EQ(h.view().hidden.size(), 1u);
  EXPECT_EQ(h.view().generation, 5u);
  h.add(2, History::file("edit"));
  EXPECT_EQ(h.view().plain()->entry.content, "edit");
  EXPECT_EQ(h.view().hidden.size(), 1u);
}

TEST(Siblings, RemovingThePlainNameLeavesTheOthersWhereTheyAre) {
  History h;
  const auto base = h.add(1, History::file("base"));
  h.drop({base.dot});
  const auto one = h.add(1, History::file("one"), &base);
  h.add(2, History::file("two"), &base);
  const auto unseen_base = *h.row.find(h.view().plain()->version.dot);
  auto view = h.view();
  const Shown left = view.names[1];
  h.drop(view.plain()->dots);
  h.mark(3, Marker{{}, {left.branch.event}, left.dots, 0});
  view = h.view();
  ASSERT_EQ(view.names.size(), 1u);
  EXPECT_EQ(view.plain(), nullptr);
  EXPECT_TRUE(view.has_siblings());
  EXPECT_EQ(view.names[0].name, left.name);
  // An edit of it stays there, known by its branch or by its lineage alone.
  History by_branch = h, by_lineage = h;
  edit(by_branch, 2, view, view.names[0], "more");
  EXPECT_EQ(by_branch.view().names[0].name, left.name);
  EXPECT_FALSE(by_branch.view().names[0].plain);
  by_lineage.drop({one.dot});
  by_lineage.add(1, History::file("offline"), &one);
  EXPECT_EQ(by_lineage.view().names[0].name, left.name);
  // An edit that the remover did not see comes back under the plain name.
  h.add(4, History::file("unseen"), &unseen_base);
  view = h.view();
  ASSERT_EQ(view.names.size(), 2u);
  EXPECT_EQ(view.plain()->entry.content, "unseen");
  EXPECT_EQ(view.names[1].name, left.name);
}

TEST(Siblings, DirectoryKeepsTheName) {
  History h;
  h.add(1, History::dir(1));
  h.add(2, History::file("later file"));
  auto view = h.view("name");
  EXPECT_EQ(view.plain()->entry.type, FileType::kDirectory);
  EXPECT_EQ(view.names[1].name.rfind("name.+host2-", 0), 0u);
  h.add(3, History::dir(1));  // mkdir twice
  view = h.view("name");
  EXPECT_EQ(view.names.size(), 2u);
  EXPECT_EQ(view.plain()->dots.size(), 2u);
  h.add(4, History::dir(2));
  view = h.view("name");
  EXPECT_EQ(view.plain()->entry.directory_id[0], 1);
  EXPECT_EQ(view.generation, 2u);
}

TEST(Siblings, SiblingEditedByTwoHostsForksWithoutTakingThePlainName) {
  History h;
  const auto base = h.add(1, History::file("base"));
  h.drop({base.dot});
  h.add(1, History::file("one"), &base);
  h.add(2, History::file("two"), &base);
  auto view = h.view();
  const Shown shown = view.names[1];
  Entry e = History::file("by 3");
  e.branch = shown.branch;
  h.drop(shown.dots);
  h.add(3, e, &shown.version);
  e.content = "by 4";
  h.add(4, e, &shown.version);
  view = h.view();
  ASSERT_EQ(view.names.size(), 3u);
  EXPECT_EQ(view.plain()->entry.content, "two");
  ASSERT_NE(view.find(shown.name), nullptr);
  EXPECT_EQ(view.find(shown.name)->entry.content, "by 4");
  std::vector<std::string> before;
  for (const auto& s : view.names) before.push_back(s.name);
  for (std::size_t i = 0; i < 3; ++i) {  // and stays so when each is edited
    edit(h, 5, view, *view.find(before[i]), "again" + std::to_string(i));
    view = h.view();
    ASSERT_EQ(view.names.size(), 3u);
    for (const auto& name : before) ASSERT_NE(view.find(name), nullptr);
    ASSERT_EQ(view.plain()->version.lineage.empty(), false);
  }
  EXPECT_EQ(view.plain()->entry.content, "again0");
}

TEST(Siblings, ThousandSiblingsHaveNamesOfTheirOwn) {
  History h;
  for (std::uint64_t n = 1; n <= 1000; ++n) {
    Version v = h.make(n, encode(History::file(std::to_string(n))), false, nullptr);
    v.host = "host";
    add_version(h.row, v, v.dot);
  }
  const auto view = h.view(std::string(255, 'x'));
  EXPECT_EQ(view.names.size(), 1000u);
  std::size_t numbers = 0;
  for (const auto& s : view.names) {
    numbers += s.keeps_number;
    EXPECT_LE(s.name.size(), kMaxNameBytes);
  }
  EXPECT_EQ(numbers, 1u);
}

TEST(Siblings, UnreadableVersionsAreKeptAndNotShown) {
  History h;
  h.add(1, History::file("good"));
  Version bad = h.make(2, "\xff", false, nullptr);
  add_version(h.row, bad, bad.dot);
  Version marker = h.make(3, "\xff", true, nullptr);
  add_version(h.row, marker, marker.dot);
  const View view = view_of(h.row, "f");
  ASSERT_EQ(view.names.size(), 1u);
  EXPECT_TRUE(view.names[0].plain);
  EXPECT_EQ(view.all_dots().size(), 1u);
}

}  // namespace
}  // namespace kinfs::fs::test
