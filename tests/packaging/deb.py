#!/usr/bin/env python3
"""The Debian package: made by cpack from the built tree, read, unpacked into a throwaway root and tried there.

    tests/packaging/deb.py BUILD-FOLDER VERSION

Nothing of the machine is changed: the maintainer scripts are run with programs in their way that only write down how
they were called.
"""
import glob
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest

BUILD, VERSION = sys.argv[1:3]
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAMS = ["usr/bin/kinfs", "usr/sbin/kinfsd", "usr/sbin/mount.kinfs"]
PAGES = ["man1/kinfs.1", "man5/kinfs.toml.5", "man7/kinfs.7", "man7/kinfs-internals.7", "man8/kinfsd.8",
         "man8/mount.kinfs.8"]
EXAMPLE = "usr/share/doc/kinfs/examples/kinfs.toml"
UNIT = "usr/lib/systemd/system/kinfsd.service"


def run(*argv, **how):
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **how)


class DebTest(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="kinfs-deb-", dir="/var/tmp")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        done = run("cpack", "-G", "DEB", "--config", os.path.join(BUILD, "CPackConfig.cmake"), "-B", cls.folder)
        packages = glob.glob(os.path.join(cls.folder, "*.deb"))
        if done.returncode != 0 or len(packages) != 1:
            raise AssertionError(f"cpack made {packages}:\n{done.stdout}")
        cls.package = packages[0]
        cls.root, cls.control = os.path.join(cls.folder, "root"), os.path.join(cls.folder, "control")
        for argument, at in (("-x", cls.root), ("-e", cls.control)):
            done = run("dpkg-deb", argument, cls.package, at)
            if done.returncode != 0:
                raise AssertionError(done.stdout)

    def at(self, *names):
        return os.path.join(self.root, *names)

    def must(self, *argv, **how):
        done = run(*argv, **how)
        self.assertEqual(done.returncode, 0, f"{argv}: {done.stdout}")
        return done.stdout

    def field(self, name):
        return self.must("dpkg-deb", "-f", self.package, name).strip()

    def test_control(self):
        self.assertRegex(os.path.basename(self.package), rf"^kinfs_{re.escape(VERSION)}_\w+\.deb$")
        self.assertEqual(self.field("Package"), "kinfs")
        self.assertEqual(self.field("Version"), VERSION)
        depends = self.field("Depends")
        for name in ("fuse3", "adduser", "libc6", "librocksdb", "libzmq5", "libsystemd0", "libprotobuf", "libfuse3-3"):
            self.assertIn(name, depends)
        # What kinfs init writes is the host's own: an upgrade never asks about it.
        self.assertFalse(os.path.exists(os.path.join(self.control, "conffiles")))

    def test_contents(self):
        expected = set(PROGRAMS) | {UNIT, EXAMPLE} | {f"usr/share/man/{p}.gz" for p in PAGES} | {
            f"usr/share/doc/kinfs/{name}" for name in ("README.md", "copyright", "changelog.gz")}
        links = {"usr/sbin/mount.fuse.kinfs": "mount.kinfs",
                 "usr/share/man/man8/mount.fuse.kinfs.8.gz": "mount.kinfs.8.gz"}
        found = set()
        for folder, folders, names in os.walk(self.root):
            for name in folders:
                self.assertEqual(stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode), 0o755, name)
            for name in names:
                path = os.path.relpath(os.path.join(folder, name), self.root)
                if path in links:
                    self.assertEqual(os.readlink(self.at(path)), links.pop(path))
                    continue
                found.add(path)
                mode = stat.S_IMODE(os.stat(self.at(path)).st_mode)
                self.assertEqual(mode, 0o755 if path in PROGRAMS else 0o644, path)
        self.assertEqual(found, expected)
        self.assertEqual(links, {})
        listing = self.must("dpkg-deb", "-c", self.package)
        self.assertEqual([line for line in listing.splitlines() if " root/root " not in line], [])

    def test_programs(self):
        self.assertIn("one shared directory", self.must(self.at("usr/bin/kinfs"), "--help"))
        self.assertIn(VERSION, self.must(self.at("usr/sbin/kinfsd"), "--version"))
        self.assertIn("good;", self.must(self.at("usr/sbin/kinfsd"), "--check-config", "--config",
                                         self.at(EXAMPLE)))

    def test_kinfs_finds_the_others_in_the_sbin_next_to_its_bin(self):
        prefix = os.path.join(self.folder, "prefix")
        for folder in ("bin", "sbin"):
            os.makedirs(os.path.join(prefix, folder))
        shutil.copy(self.at("usr/bin/kinfs"), os.path.join(prefix, "bin"))
        for name in ("kinfsd", "mount.kinfs"):
            with open(os.path.join(prefix, "sbin", name), "w", encoding="utf-8") as out:
                out.write(f"#!/bin/sh\necho the {name} below the prefix was called >&2\nexit 4\n")
            os.chmod(os.path.join(prefix, "sbin", name), 0o755)
        done = run(os.path.join(prefix, "bin/kinfs"), "lab", "up", "--nodes", "1", os.path.join(self.folder, "lab"))
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("the kinfsd below the prefix was called", done.stdout)

    def test_every_key_of_the_example_is_its_default(self):
        """With all comments of settings taken away, the example is the configuration that holds without it."""
        with open(self.at(EXAMPLE), encoding="utf-8") as file:
            text = file.read()
        settings = re.findall(r"^# ?(\w+) = ", text, re.M)
        with open(os.path.join(SOURCE, "daemon/config.h"), encoding="utf-8") as header:
            keys = re.findall(r"^//   [a-z]+\.(?:member\.)?(\w+) +(?:string|strings|integer|boolean) ",
                              header.read(), re.M)
        self.assertEqual(sorted(settings), sorted(keys))

    def test_manual(self):
        pages = []
        for page in PAGES:
            plain = os.path.join(self.folder, os.path.basename(page))
            with open(plain, "w", encoding="utf-8") as out:
                out.write(self.must("gzip", "-dc", self.at("usr/share/man", page + ".gz")))
            pages.append(plain)
        self.must("mandoc", "-T", "lint", "-W", "warning", *pages)

    def test_unit(self):
        with open(self.at(UNIT), encoding="utf-8") as unit:
            text = unit.read()
        for line in ("Type=notify", "User=kinfs", "ExecStart=/usr/sbin/kinfsd", "NoNewPrivileges=yes",
                     "ProtectSystem=strict", "ConditionPathExists=/etc/kinfs/node.key"):
            self.assertIn(line + "\n", text)
        if shutil.which("systemd-analyze"):
            self.assertEqual(self.must("systemd-analyze", "verify", "--man=no", "--recursive-errors=no",
                                       f"--root={self.root}", "kinfsd.service").strip(), "")

    def script(self, name, *arguments, root):
        """Runs a maintainer script with paths below `root` and programs that only say how they were called."""
        tools = os.path.join(root, "tools")
        os.makedirs(tools, exist_ok=True)
        for tool in ("adduser", "chown", "deb-systemd-helper", "deb-systemd-invoke", "dpkg-statoverride", "install",
                     "systemctl"):
            with open(os.path.join(tools, tool), "w", encoding="utf-8") as out:
                out.write(f'#!/bin/sh\necho "{tool} $*" >>"{root}/calls"\n[ {tool} != dpkg-statoverride ]\n')
            os.chmod(os.path.join(tools, tool), 0o755)
        with open(os.path.join(self.control, name), encoding="utf-8") as file:
            text = re.sub(r"(?<![\w.])/(etc|var|run|proc)/", lambda m: f"{root}/{m.group(1)}/", file.read())
        copy = os.path.join(root, name)
        with open(copy, "w", encoding="utf-8") as out:
            out.write(text)
        said = self.must("sh", copy, *arguments, env={"PATH": f"{tools}:/usr/bin:/bin"})
        calls = ""
        if os.path.exists(f"{root}/calls"):
            with open(f"{root}/calls", encoding="utf-8") as file:
                calls = file.read()
            os.remove(f"{root}/calls")
        return said, calls

    def fresh_root(self):
        root = tempfile.mkdtemp(dir=self.folder)
        for folder in ("etc/kinfs", "var/lib", "run/systemd/system", "proc"):
            os.makedirs(os.path.join(root, folder))
        return root

    def test_an_installation_starts_nothing_without_a_key(self):
        root = self.fresh_root()
        said, calls = self.script("postinst", "configure", "", root=root)
        self.assertIn("no key yet", said)
        self.assertIn("adduser --quiet --system --group", calls)
        self.assertIn(f"install -d -m 0700 -o kinfs -g kinfs {root}/var/lib/kinfs", calls)
        self.assertNotIn("start kinfsd", calls)
        open(f"{root}/etc/kinfs/node.key", "w", encoding="utf-8").close()
        said, calls = self.script("postinst", "configure", "", root=root)
        self.assertNotIn("start kinfsd", calls)
        open(f"{root}/etc/kinfs/kinfs.toml", "w", encoding="utf-8").close()
        said, calls = self.script("postinst", "configure", "", root=root)
        self.assertEqual(said, "")
        self.assertIn("deb-systemd-invoke start kinfsd.service", calls)
        said, calls = self.script("postinst", "configure", "0.0.9", root=root)
        self.assertIn("deb-systemd-invoke try-restart kinfsd.service", calls)

    def test_a_removal_stops_and_a_purge_leaves_data_and_key(self):
        root = self.fresh_root()
        with open(f"{root}/proc/mounts", "w", encoding="utf-8") as out:
            out.write("home /srv/shared fuse.kinfs rw 0 0\n")
        said, calls = self.script("prerm", "remove", root=root)
        self.assertIn("umount /srv/shared", said)
        self.assertIn("deb-systemd-invoke stop kinfsd.service", calls)
        self.assertEqual(self.script("prerm", "upgrade", VERSION, root=root), ("", ""))
        os.makedirs(f"{root}/var/lib/kinfs/rows")
        open(f"{root}/etc/kinfs/node.key", "w", encoding="utf-8").close()
        said, _ = self.script("postrm", "purge", root=root)
        self.assertIn("left in place", said)
        self.assertIn("/var/lib/kinfs ", said)
        self.assertTrue(os.path.isdir(f"{root}/var/lib/kinfs/rows"))
        self.assertTrue(os.path.exists(f"{root}/etc/kinfs/node.key"))

    def test_lintian(self):
        if not shutil.which("lintian"):
            self.skipTest("lintian is not installed")
        self.must("lintian", "--allow-root", "--fail-on", "error", "--display-level", ">=warning", self.package)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
