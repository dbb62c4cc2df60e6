"""What a cut leaves behind: siblings, named the same on every host, and what each way of resolving them does."""
import json
import os
import shutil

import lab as e2e
from lab import LabTest, read, wait_until, write


class Siblings(LabTest):
    def tearDown(self):
        self.lab.heal()

    def apart(self, name, on_1, on_3, before="before\n"):
        """`name` holds `before` everywhere, then is written on 1 and on 3 while 3 is cut off. Returns the sibling."""
        if before is not None:
            write(self.path(1, name), before)
            self.lab.hold({name: before}, self.folder)
        self.lab.cut(3)
        write(self.path(1, name), on_1)
        write(self.path(3, name), on_3)
        self.lab.heal()
        sibling = self.lab.siblings(name, self.folder)
        contents = {n: read(self.path(1, n)) for n in (name, sibling)}
        self.assertEqual(sorted(contents.values()), sorted([on_1.encode(), on_3.encode()]))
        writer = "host1" if contents[sibling] == on_1.encode() else "host3"
        self.assertEqual(e2e.SIBLING.match(sibling)["host"], writer)
        self.lab.hold(contents, self.folder)
        return sibling

    def test_edit_edit_mv_chooses(self):
        sibling = self.apart("report.txt", "from one\n", "from three\n")
        chosen = read(self.path(2, sibling))
        os.rename(self.path(2, sibling), self.path(2, "report.txt"))
        self.lab.hold({"report.txt": chosen}, self.folder)

    def test_each_side_goes_on_while_cut(self):
        write(self.path(1, "a"), "old\n")
        self.lab.hold({"a": "old\n"}, self.folder)
        self.lab.cut(3)
        write(self.path(1, "a"), "new\n")
        self.lab.hold({"a": "new\n"}, self.folder, hosts=[1, 2])
        self.assertEqual(read(self.path(3, "a")), b"old\n")
        write(self.path(3, "b"), "made apart\n")
        self.assertEqual(read(self.path(3, "b")), b"made apart\n")
        self.lab.heal()
        self.lab.hold({"a": "new\n", "b": "made apart\n"}, self.folder)

    def test_rm_discards_the_sibling(self):
        sibling = self.apart("a.c", "int one;\n", "int three;\n")
        plain = read(self.path(1, "a.c"))
        os.unlink(self.path(2, sibling))
        self.lab.hold({"a.c": plain}, self.folder)

    def test_rm_of_the_plain_name_leaves_the_sibling(self):
        sibling = self.apart("a.c", "int one;\n", "int three;\n")
        other = read(self.path(1, sibling))
        os.unlink(self.path(2, "a.c"))
        self.lab.hold({sibling: other}, self.folder)

    def test_editing_keeps_names(self):
        sibling = self.apart("notes", "one\n", "three\n")
        plain = read(self.path(1, "notes"))
        write(self.path(2, sibling), "the sibling, edited\n")
        self.lab.hold({"notes": plain, sibling: "the sibling, edited\n"}, self.folder)
        write(self.path(3, "notes"), "the plain one, edited\n")
        self.lab.hold({"notes": "the plain one, edited\n", sibling: "the sibling, edited\n"}, self.folder)
        with open(self.path(1, sibling), "ab") as file:
            file.write(b"and appended to\n")
        self.lab.hold({"notes": "the plain one, edited\n", sibling: "the sibling, edited\nand appended to\n"},
                      self.folder)

    def test_an_own_save_that_makes_a_sibling_is_what_its_name_leads_to_at_once(self):
        """No cut: another host's edit comes between reading and saving, and the kernel still has the name cached."""
        saves = {
            "moved": lambda f: os.rename(f, f + "-moved"),
            "again": lambda f: write(f, "mine\nagain\n"),
            "appended": lambda f: write(f, "again\n", mode="a"),
        }
        for name, after in saves.items():
            mine = self.path(1, name)
            write(mine, "base\n")
            self.lab.hold({name: "base\n"}, self.folder, only=False)
            read(mine)
            # A process of its own: what this one opened must not count as seen.
            e2e.must("sh", "-c", f"echo other > '{self.path(3, name)}'")
            write(mine, "mine\n")
            after(mine)
            saved = "mine\n" if name == "moved" else "mine\nagain\n"
            kept = name + "-moved" if name == "moved" else name
            self.assertEqual(read(self.path(1, kept)), saved.encode())
            sibling = next(n for n in self.lab.names(1, self.folder) if n.startswith(name + ".+host3-"))
            self.lab.hold({kept: saved, sibling: "other\n"}, self.folder, only=False)

    def test_the_plain_name_moved_away_shares_nothing_with_its_sibling(self):
        sibling = self.apart("doc.txt", "one\n", "three, longer\n")
        contents = {"moved.txt": read(self.path(1, "doc.txt")), sibling: read(self.path(1, sibling))}
        os.rename(self.path(2, "doc.txt"), self.path(2, "moved.txt"))
        self.lab.hold(contents, self.folder)
        for host in (1, 2, 3):
            numbers = {os.stat(self.path(host, n)).st_ino for n in contents}
            self.assertEqual(len(numbers), 2)
        write(self.path(1, sibling), "X\n")
        contents[sibling] = b"X\n"
        self.lab.hold(contents, self.folder)

    def test_moved_here_and_edited_there_are_two_files(self):
        for size in (0, 200_000):
            name, moved = f"f{size}", f"g{size}"
            write(self.path(1, name), "base" + "x" * size)
            self.lab.hold({name: "base" + "x" * size}, self.folder, only=False)
            self.lab.cut(3)
            os.rename(self.path(1, name), self.path(1, moved))
            write(self.path(3, name), "edited" + "y" * size)
            self.lab.heal()
            self.lab.hold({name: "edited" + "y" * size, moved: "base" + "x" * size}, self.folder, only=False)
            write(self.path(1, name), "precious\n")
            os.unlink(self.path(1, moved))
            self.lab.hold({name: "precious\n"}, self.folder, only=False)

    def test_pages_of_an_older_version_do_not_outlive_a_change_of_mode(self):
        write(self.path(1, "h"), "AAAA")
        self.lab.hold({"h": "AAAA"}, self.folder)
        e2e.must("sh", "-c", f"printf BBBB > '{self.path(2, 'h')}'")
        os.chmod(self.path(1, "h"), 0o600)
        self.assertEqual(read(self.path(1, "h")), b"BBBB")
        self.lab.hold({"h": "BBBB"}, self.folder)

    def test_mv_elsewhere_makes_a_file_of_its_own(self):
        sibling = self.apart("a.txt", "one\n", "three\n")
        plain, other = read(self.path(1, "a.txt")), read(self.path(1, sibling))
        os.rename(self.path(2, sibling), self.path(2, "kept.txt"))
        self.lab.hold({"a.txt": plain, "kept.txt": other}, self.folder)

    def test_create_create(self):
        self.apart("new.txt", "made by one\n", "made by three\n", before=None)

    def test_two_extensions_and_a_leading_dot(self):
        self.lab.cut(3)
        for name in (".profile", "src.tar.gz"):
            write(self.path(1, name), "one\n")
            write(self.path(3, name), "three\n")
        self.lab.heal()
        wait_until(lambda: all(len(self.lab.names(h, self.folder)) == 4 for h in self.lab.each()), 5, "four names")
        names = self.lab.names(1, self.folder)
        self.assertTrue(any(n.startswith(".profile.+host") for n in names), names)
        self.assertTrue(any(n.startswith("src.+host") and n.endswith(".tar.gz") for n in names), names)

    def test_edit_remove(self):
        write(self.path(1, "a"), "old\n")
        self.lab.hold({"a": "old\n"}, self.folder)
        self.lab.cut(3)
        os.unlink(self.path(1, "a"))
        write(self.path(3, "a"), "edited by one who did not know\n")
        self.lab.heal()
        self.lab.hold({"a": "edited by one who did not know\n"}, self.folder)

    def test_remove_remove(self):
        write(self.path(1, "a"), "old\n")
        self.lab.hold({"a": "old\n"}, self.folder)
        self.lab.cut(3)
        os.unlink(self.path(1, "a"))
        os.unlink(self.path(3, "a"))
        self.lab.heal()
        self.lab.agree([], self.folder)

    def test_mkdir_mkdir(self):
        self.lab.cut(3)
        for host in (1, 3):
            os.mkdir(self.path(host, "d"))
            write(self.path(host, "d", f"from{host}"), f"by {host}\n")
            write(self.path(host, "d", "same name.txt"), f"by {host}\n")
        self.lab.heal()
        self.lab.agree(["d"], self.folder)
        inside = os.path.join(self.folder, "d")
        wait_until(lambda: all(len(self.lab.names(h, inside)) == 4 for h in self.lab.each()), 5, "one directory of 4")
        self.assertLessEqual({"from1", "from3", "same name.txt"}, set(self.lab.names(2, inside)))

    def test_equal_bytes_are_no_conflict(self):
        write(self.path(1, "a"), "old\n")
        self.lab.hold({"a": "old\n"}, self.folder)
        self.lab.cut(3)
        for host in (1, 3):
            write(self.path(host, "a"), "the same\n")
            write(self.path(host, "b"), "the same\n")
        self.lab.heal()
        self.lab.hold({"a": "the same\n", "b": "the same\n"}, self.folder)
        self.assertEqual(self.lab.conflicts(2, self.folder), (0, ""))

    def test_rm_rf_of_a_directory_with_siblings(self):
        os.mkdir(self.path(1, "d"))
        for host in self.lab.each():
            wait_until(lambda: os.path.isdir(self.path(host, "d")), 5, f"d on host {host}")
        self.lab.cut(3)
        for name in ("a.txt", "b", "c.o"):
            write(self.path(1, "d", name), "one\n")
            write(self.path(3, "d", name), "three\n")
        self.lab.heal()
        inside = os.path.join(self.folder, "d")
        wait_until(lambda: all(len(self.lab.names(h, inside)) == 6 for h in self.lab.each()), 5, "three siblings")
        e2e.must("rm", "-rf", self.path(2, "d"))
        self.lab.agree([], self.folder)

    def test_diff_and_cp_tell_siblings_apart(self):
        sibling = self.apart("a.txt", "one\n", "three\n")
        self.assertNotEqual(os.stat(self.path(2, sibling)).st_ino, os.stat(self.path(2, "a.txt")).st_ino)
        self.assertEqual(e2e.run("diff", "-q", self.path(2, "a.txt"), self.path(2, sibling)).returncode, 1)
        other = read(self.path(2, sibling))
        shutil.copyfile(self.path(2, sibling), self.path(2, "copy"))
        self.assertEqual(read(self.path(2, "copy")), other)

    def test_kinfs_conflicts_lists_them(self):
        self.assertEqual(self.lab.conflicts(1, self.folder), (0, ""))
        sibling = self.apart("report.txt", "one\n", "three\n")
        code, lines = self.lab.conflicts(2, self.folder)
        self.assertEqual(code, 1)
        self.assertEqual(len(lines.splitlines()), 1, lines)
        found = json.loads(lines)
        self.assertTrue(found["path"].endswith("report.txt"), found)
        entry = [s for s in found["siblings"] if s["name"] == sibling]
        self.assertEqual(len(entry), 1, found)
        self.assertEqual(entry[0]["size"], len(read(self.path(1, sibling))))
        self.assertIn(entry[0]["host"], ("host1", "host3"))
        os.unlink(self.path(2, sibling))
        wait_until(lambda: self.lab.conflicts(2, self.folder) == (0, ""), 5, "no conflict")


if __name__ == "__main__":
    e2e.main()
