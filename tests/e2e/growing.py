"""A host joins a cluster that holds much, and another leaves, while it is worked with: no operation fails, and how far
the change is can be seen.

Usage: growing.py [--mib N]; what the cluster holds when the host joins, 48 unless told.
"""
import os
import statistics
import sys
import threading
import time
import unittest

import lab as e2e
from hosts import SHARED
from joining import DONE, Joining
from lab import SLACK, read, wait_until, write

MIB = 8 if e2e.SANITIZED else 48
SMALL = 200  # files, beside the large ones
FILE_MIB = 4


class Work(threading.Thread):
    """Small files are saved and read, one after the other, on one mount."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.phase = "before"
        self.took_ms = {}  # by phase
        self.failed = []
        self.contents = {}
        self.ends = threading.Event()

    def run(self):
        i = 0
        while not self.ends.is_set() and not self.failed:
            name = str(i % SMALL)
            start = time.monotonic()
            try:
                if name in self.contents and read(self.folder + name) != self.contents[name]:
                    self.failed.append(f"{name} is not what was written")
                self.save(name, f"{i} ".encode() * 500)
            except OSError as error:
                self.failed.append(str(error))
            self.took_ms.setdefault(self.phase, []).append((time.monotonic() - start) * 1000)
            i += 1

    def save(self, name, content):
        with open(self.folder + "new", "wb") as file:
            file.write(content)
            os.fsync(file.fileno())
        os.rename(self.folder + "new", self.folder + name)
        self.contents[name] = content

    def figures(self):
        return {phase: f"{len(t)} times, median {statistics.median(t):.1f} ms, "
                       f"99 % {sorted(t)[len(t) * 99 // 100]:.0f} ms, longest {max(t):.0f} ms"
                for phase, t in self.took_ms.items()}


class Growing(Joining):
    COUNT = 5

    def fill(self, host):
        """Bytes that do not compress, in files of which one can be read back whole."""
        self.files = {}
        for i in range(max(1, MIB // FILE_MIB)):
            content = os.urandom(FILE_MIB << 20)
            write(self.on(host, f"large{i}"), content)
            self.files[f"large{i}"] = hash(content)

    def work_on(self, operations):
        def done():
            return len(self.work.took_ms.get(self.work.phase, [])) >= operations or self.work.failed
        wait_until(done, 120 * SLACK, "the work goes on")

    def change(self, phase, host, *command):
        """Under load, with its progress as others see it; how long it took, in seconds."""
        self.work.phase = phase
        shown = []
        start = time.monotonic()
        runs = threading.Thread(target=lambda: self.says(host.run(*command, timeout=3600), DONE))
        runs.start()
        by = self.hosts[2]

        def done():
            tasks = by.status()["tasks"]
            shown.extend(f"{t['step']}: {100 * t['done']:.0f} %" for t in tasks)
            return not runs.is_alive() and not tasks
        wait_until(done, 3600, lambda: by.run("kinfs", "status").stdout.decode())
        runs.join()
        took = time.monotonic() - start
        self.work_on(1)  # however short it was, and however slow that is
        self.work.phase = "after " + phase
        self.assertEqual(self.work.failed, [])
        print(f"{phase}: {took:.1f} s; status said: {list(dict.fromkeys(shown))[:20]}", file=sys.stderr)

    def test_join_and_leave_under_load(self):
        one, two, three, four, five = self.hosts.all
        self.init(one, "--mount", SHARED)
        for host in (two, three, four):
            self.join(host, self.invite(one), "--mount", SHARED)
        start = time.monotonic()
        self.fill(one)
        print(f"{MIB} MiB written in {time.monotonic() - start:.1f} s", file=sys.stderr)
        wait_until(lambda: all(h.is_whole() for h in (one, two, three, four)), 60 * SLACK, one.log)
        one.must("kinfs", "umount", SHARED)
        os.mkdir(self.on(two, "work"))
        self.work = Work(self.on(two, "work/"))
        self.work.start()
        self.addCleanup(self.work.join)
        self.addCleanup(self.work.ends.set)
        self.work_on(SMALL)
        self.change("join", five, "kinfs", "join", self.invite(one), "--mount", SHARED)
        self.work_on(SMALL)
        self.change("leave", one, "kinfs", "leave")
        self.work_on(SMALL)
        self.work.ends.set()
        self.work.join()
        self.assertEqual(self.work.failed, [])
        for phase, figures in self.work.figures().items():
            print(f"{phase}: {figures}", file=sys.stderr)
        one.kill("kinfsd")
        for name, content in self.files.items():
            self.assertEqual(hash(read(self.on(five, name))), content)
        for name, content in self.work.contents.items():
            self.assertEqual(read(self.on(five, f"work/{name}")), content)


if __name__ == "__main__":
    if "--mib" in sys.argv:
        at = sys.argv.index("--mib")
        MIB = int(sys.argv[at + 1])
        del sys.argv[at:at + 2]
    unittest.main(verbosity=2)
