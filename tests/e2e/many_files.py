"""A directory of many files, and many files open at once: all there, and in bounded memory.

Usage: many_files.py [--files N]; 20000 unless told.
"""
import concurrent.futures
import os
import resource
import sys

import lab as e2e
from lab import LabTest

FILES = 2000 if e2e.SANITIZED else 20000
OPEN = 1000
PIECE, PIECES = 40 << 10, 5  # OPEN * PIECE * PIECES is far more than a mount may hold
AT_ONCE = 4


def name(i):
    return f"file-{i:06d}"


def content(i):
    return f"{i} ".encode() * 20


def piece(i, n):
    return bytes([(i + 7 * n) % 251]) * PIECE


def each(function, count):
    """Calls function(i) for all i below count, a few at once."""
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(function, range(count), chunksize=64):
            pass


class ManyFiles(LabTest):
    def setUp(self):
        super().setUp()
        self.memory = e2e.Memory(self.lab)
        self.addCleanup(self.memory.stop)

    def hold_memory(self):
        peaks = self.memory.stop()
        print("peak of anonymous memory, MiB:", peaks, file=sys.stderr)
        self.assertEqual(len(peaks), 6)
        if not e2e.SANITIZED:
            self.assertLess(max(peaks.values()), e2e.MAX_RESIDENT_MIB, peaks)

    def test_one_directory(self):
        def create(i):
            e2e.write(self.path(1, name(i)), content(i))

        def check(i):
            self.assertEqual(os.stat(self.path(2, name(i))).st_size, len(content(i)))

        each(create, FILES)
        names = [name(i) for i in range(FILES)]
        self.lab.agree(names, self.folder, seconds=60)
        for host in self.lab.each():
            with os.scandir(self.path(host)) as listing:
                sizes = {entry.name: entry.stat().st_size for entry in listing}
            self.assertEqual(sizes, {name(i): len(content(i)) for i in range(FILES)})
        each(check, FILES)
        for i in range(0, FILES, FILES // 100):
            self.assertEqual(e2e.read(self.path(3, name(i))), content(i))
        each(lambda i: os.unlink(self.path(1, name(i))), FILES)
        self.lab.agree([], self.folder, seconds=60)
        os.rmdir(self.path(3))
        self.hold_memory()

    def test_open_at_once(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, OPEN + 200)), hard))
        files = [os.open(self.path(1, name(i)), os.O_CREAT | os.O_WRONLY) for i in range(OPEN)]
        for n in range(PIECES):
            for i, file in enumerate(files):
                self.assertEqual(os.write(file, piece(i, n)), PIECE)
        for file in files:
            os.close(file)
        files = [os.open(self.path(2, name(i)), os.O_RDONLY) for i in range(OPEN)]
        for n in range(PIECES):
            for i, file in enumerate(files):
                self.assertEqual(os.read(file, PIECE), piece(i, n), f"piece {n} of {name(i)}")
        for file in files:
            self.assertEqual(os.read(file, 1), b"")
            os.close(file)
        self.hold_memory()


if __name__ == "__main__":
    if "--files" in sys.argv:
        at = sys.argv.index("--files")
        FILES = int(sys.argv[at + 1])
        del sys.argv[at:at + 2]
    e2e.main()
