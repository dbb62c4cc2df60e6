"""Names, keys and sizes at their limits, and what is beyond them."""
import ctypes
import errno
import os
import random
import stat

import lab as e2e
from lab import LabTest, kinfs, read, wait_until, write


class Names(LabTest):
    def test_255_bytes_in_any_encoding(self):
        folder = os.fsencode(self.path(1))
        dice = random.Random(7)
        names = [b"a" * 255, b"\xff" * 255, "ä".encode("latin-1") * 255, ("é" * 127).encode() + b"x", b"\x01" * 255,
                 b"line\nend", b"-rf", b" ", b"a\tb", b"'\"$`\\", "日本語".encode(), b"report.+host1-abcd.txt"]
        names += [bytes(dice.choice([c for c in range(1, 256) if c != 47]) for _ in range(255)) for _ in range(20)]
        for i, name in enumerate(names):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(b"%d" % i)
        for host in self.lab.each():
            seen = os.fsencode(self.path(host))
            wait_until(lambda: sorted(os.listdir(seen)) == sorted(names), 5, f"all names on host {host}")
            for i, name in enumerate(names):
                self.assertEqual(read(os.path.join(seen, name)), b"%d" % i)
        os.mkdir(os.path.join(folder, b"\xfe" * 255))
        os.rename(os.path.join(folder, b"a" * 255), os.path.join(folder, b"\xfe" * 255, b"b" * 255))
        self.assertEqual(read(os.path.join(os.fsencode(self.path(1)), b"\xfe" * 255, b"b" * 255)), b"0")

    def test_too_long(self):
        for call in (lambda p: open(p, "wb"), os.mkdir, os.stat, lambda p: os.symlink("x", p), os.unlink,
                     lambda p: os.rename(self.path(1), p)):
            with self.assertRaises(OSError) as caught:
                call(self.path(1, "x" * 256))
            self.assertEqual(caught.exception.errno, errno.ENAMETOOLONG)

    def test_empty_files_and_links(self):
        write(self.path(1, "empty"), b"")
        os.symlink("x" * 1000, self.path(1, "link"))
        os.symlink("empty", self.path(1, "to-empty"))
        self.lab.agree(["empty", "link", "to-empty"], self.folder)
        for host in self.lab.each():
            self.assertEqual(os.stat(self.path(host, "empty")).st_size, 0)
            self.assertEqual(read(self.path(host, "to-empty")), b"")
            self.assertEqual(os.readlink(self.path(host, "link")), "x" * 1000)

    def test_many_names_in_one_directory(self):
        count = 300 if e2e.SANITIZED else 3000
        for i in range(count):
            write(self.path(1, f"n{i}"), b"")
        self.lab.agree([f"n{i}" for i in range(count)], self.folder, 10)

    def test_sizes_around_the_block_limits(self):
        for size in (1, 511, 4095, 4096, 4097, 65535, 65536, 65537, (1 << 20) - 1, 1 << 20, (1 << 20) + 1):
            data = random.Random(size).randbytes(size)
            write(self.path(1, "f"), data)
            self.lab.hold({"f": data}, self.folder)

    def test_what_is_not_there_yet_is_refused_as_the_manual_says(self):
        """kinfs(7), CAVEATS: programs fall back by these very errors."""
        write(self.path(1, "f"), b"1")
        write(self.path(1, "g"), b"2")
        os.makedirs(self.path(1, "folder", "inner"))
        name, device = self.path(1, "f"), os.makedev(1, 3)
        libc = ctypes.CDLL(None, use_errno=True)

        def system(done):
            if done != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

        punch, exchange = 3, 2  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, RENAME_EXCHANGE
        with open(name, "r+b") as file:
            for number, call in (
                    (errno.EPERM, lambda: os.link(name, self.path(1, "hard"))),
                    (errno.EPERM, lambda: os.mknod(self.path(1, "null"), stat.S_IFCHR | 0o600, device)),
                    (errno.EPERM, lambda: os.mknod(self.path(1, "disk"), stat.S_IFBLK | 0o600, device)),
                    (errno.EOPNOTSUPP, lambda: os.setxattr(name, "user.a", b"1")),
                    (errno.EOPNOTSUPP, lambda: os.getxattr(name, "user.a")),
                    (errno.EOPNOTSUPP, lambda: os.setxattr(name, "system.posix_acl_access", b"\2\0\0\0")),
                    (errno.EOPNOTSUPP, lambda: system(libc.fallocate(file.fileno(), punch, ctypes.c_long(0),
                                                                     ctypes.c_long(1)))),
                    (errno.EINVAL, lambda: system(libc.renameat2(-100, name.encode(), -100,
                                                                 self.path(1, "g").encode(), exchange)))):
                with self.assertRaises(OSError) as caught:
                    call()
                self.assertEqual(caught.exception.errno, number)
        self.lab.agree(["f", "folder", "g"], self.folder)
        self.assertEqual((read(name), read(self.path(1, "g"))), (b"1", b"2"))
        self.assertEqual(os.stat(self.path(1, "folder")).st_nlink, 2)

    def test_a_hole(self):
        with open(self.path(1, "sparse"), "wb") as file:
            file.seek(50 << 20)
            file.write(b"end")
        wait_until(lambda: os.path.getsize(self.path(2, "sparse")) == (50 << 20) + 3, 5, "its size on host 2")
        with open(self.path(2, "sparse"), "rb") as file:
            self.assertEqual(file.read(1 << 20), bytes(1 << 20))
            file.seek(50 << 20)
            self.assertEqual(file.read(), b"end")
            # As the manual says: the holes are counted, and not found.
            self.assertEqual(os.lseek(file.fileno(), 0, os.SEEK_HOLE), (50 << 20) + 3)
            self.assertGreaterEqual(os.fstat(file.fileno()).st_blocks * 512, 50 << 20)


class Pairs(LabTest):
    """kinfs put, get and del on the volume kv, asked at each host."""

    def socket(self, host):
        return os.path.join(e2e.state_of(self.lab.root), f"host{host}", "kinfsd.sock")

    def on(self, host, *arguments, stdin=b""):
        done = kinfs(*arguments[:1], "--socket", self.socket(host), *arguments[1:], stdin=stdin)
        return done.returncode, done.stdout, done.stderr.decode("utf-8", "replace")

    def put(self, host, key, value):
        code, _, words = self.on(host, "put", key, stdin=value)
        self.assertEqual(code, 0, words)

    def get(self, host, key):
        code, value, words = self.on(host, "get", key)
        self.assertEqual(code, 0, words)
        return value

    def test_bytes(self):
        for key, value in ((b"k", b"value"), (b"empty", b""), (b"\xff\xfe\n", bytes(range(256))),
                           (b"x" * 65536, b"at the longest key"), (b"large", random.Random(1).randbytes(1 << 20))):
            self.put(1, key, value)
            for host in self.lab.each():
                self.assertEqual(self.get(host, key), value)

    def test_absent_and_removed(self):
        code, out, words = self.on(2, "get", "never written")
        self.assertEqual((code, out), (1, b""))
        self.assertIn("never written", words)
        self.put(1, "k1", b"v")
        self.assertEqual(self.on(3, "del", "k1")[0], 0)
        self.assertEqual(self.on(2, "get", "k1")[:2], (1, b""))

    def test_beyond_the_limits(self):
        code, _, words = self.on(1, "put", b"x" * 65537, stdin=b"v")
        self.assertEqual(code, 4, words)
        self.assertIn("65536", words)
        code, _, words = self.on(1, "put", "k2", stdin=bytes((1 << 20) + 1))
        self.assertEqual(code, 4, words)
        self.assertIn("1048576", words)
        self.assertEqual(self.on(1, "get", "k2")[0], 1)

    def test_a_volume_of_files_is_refused(self):
        code, _, words = self.on(1, "put", "--volume", "home", "k", stdin=b"v")
        self.assertEqual(code, 4, words)
        self.assertIn("home", words)

    def test_written_apart(self):
        self.put(1, "both", b"before")
        self.lab.cut(3)
        self.put(1, "both", b"one")
        self.put(3, "both", b"three")
        self.lab.heal()
        wait_until(lambda: self.on(2, "get", "both")[0] == 1, 5, "two versions on host 2: exit code 1")
        code, out, words = self.on(2, "get", "--all", "both")
        self.assertEqual(code, 1, words)
        self.assertIn(b"one", out)
        self.assertIn(b"three", out)


if __name__ == "__main__":
    e2e.main()
