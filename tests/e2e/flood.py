"""Too much at once: clients that send and never read, a host that stands still, bursts, and disks that are full.

    flood.py [--puts N] [--mib N]     the burst, and what is written past a host that stands still

By hand: what it asks of the machine's speed is more than a busy one has.

A daemon's memory stays bounded, all others are served meanwhile, and nothing that was confirmed is lost.
"""
import argparse
import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import unittest

import lab as e2e
from hosts import SHARED, Hosts
from lab import BIN, LabTest, MAX_RESIDENT_MIB, Memory, SLACK, kinfs, read, wait_until, write

FLOOD = os.environ.get("KINFS_FLOOD", os.path.join(BIN, "..", "tests", "net", "flood"))
PUTS = 20_000
MIB = 200
SERVED_SECONDS = 2 * SLACK
MOST_SECONDS = 15 * SLACK  # to write a file and read it, beside two dozen clients that take all that they can get
DISK_MIB = 320


def bytes_of(name, size):
    block = hashlib.sha256(name.encode()).digest()
    return (block * (size // len(block) + 1))[:size]


class Served(threading.Thread):
    """Somebody else, who goes on working on the same hosts: each step is timed."""

    def __init__(self, *steps):
        super().__init__(daemon=True)
        self.steps, self.stopping = steps, threading.Event()
        self.longest, self.count, self.failed = (0.0, ""), 0, None
        self.start()

    def run(self):
        while not self.stopping.is_set() and self.failed is None:
            for step in self.steps:
                began = time.monotonic()
                try:
                    step(self.count)
                except (OSError, AssertionError, subprocess.SubprocessError) as error:
                    self.failed = error
                self.longest = max(self.longest, (time.monotonic() - began, step.__name__))
                self.count += 1

    def end(self):
        self.stopping.set()
        self.join()

    def stop(self):
        self.end()
        if self.failed is not None:
            raise AssertionError("others were not served") from self.failed
        print(f"  others: {self.count} calls, the longest {self.longest[0]:.2f} s ({self.longest[1]})")
        return self.longest[0]


class Flooded(LabTest):
    def socket(self, host):
        return self.lab.state(f"host{host}", "kinfsd.sock")

    def on(self, host, *command, **options):
        return kinfs(*command, env={**os.environ, "KINFS_SOCKET": self.socket(host)}, **options)

    def counters(self, host):
        return self.lab.status(host)["overload"]

    def flood(self, host, what, **options):
        words = [f"{name}={value}" for name, value in {"prefix": self.folder, **options}.items()]
        process = subprocess.Popen([FLOOD, what, self.socket(host), *words], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE)
        self.addCleanup(self.end, process)
        return process

    def end(self, process):
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()

    def outcome(self, process):
        """What it prints when its input ends, or all is done."""
        process.stdin.close()
        text = process.stdout.read().decode()
        self.assertEqual(process.wait(), 0, text)
        process.stdin = open(os.devnull, "wb")
        return json.loads(text.splitlines()[-1])

    def others(self, host=1):
        """Who works on this host: by the mount, and by the command line."""
        def file_of_the_mount(number):
            name, data = self.path(host, f"other{number % 50}"), b"%d" % number
            write(name, data)
            self.assertEqual(read(name), data)

        def put_and_get(number):
            put = self.on(host, "put", "other", stdin=b"%d" % number)
            self.assertEqual(put.returncode, 0, put.stderr)
            self.assertEqual(self.on(host, "get", "other").stdout, b"%d" % number)
        return self.served(file_of_the_mount, put_and_get)

    def served(self, *steps):
        served = Served(*steps)
        self.addCleanup(served.end)  # a test that fails must not go on beside the next
        return served

    def bounded(self, memory):
        peaks = memory.stop()
        print(f"  memory: {peaks} MiB")
        if not e2e.SANITIZED:
            self.assertLess(max(peaks.values()), MAX_RESIDENT_MIB, peaks)

    def safe(self, seconds=120):
        wait_until(lambda: all(self.lab.status(h)["safe"] for h in self.lab.each()), seconds,
                   lambda: str([self.lab.status(h) for h in self.lab.each()]))


class Clients(Flooded):
    def test_clients_that_never_read(self):
        memory, others = Memory(self.lab), self.others()
        floods = [self.flood(1, "mute-gets", bytes=1_000_000, connections=8, count=20_000),
                  self.flood(1, "mute-blocks", bytes=1 << 20, connections=8, count=2000),
                  self.flood(1, "mute-puts", connections=8, count=1_000_000),
                  self.flood(1, "mute-gets", bytes=1_000_000, connections=4, count=20_000, through="host2"),
                  self.flood(1, "mute-puts", bytes=100_000, connections=4, count=20_000, through="host2",
                             prefix=self.folder + "-far")]
        seen = others.count
        wait_until(lambda: self.counters(1)["cut_off"] >= 8, 20, lambda: str(self.counters(1)))
        wait_until(lambda: others.failed or others.count > seen + 8, 60, "others are served")
        for flood in floods:
            print("  flood:", self.outcome(flood))
        print("  counted:", self.counters(1), self.counters(2))
        self.assertLess(others.stop(), MOST_SECONDS)
        self.bounded(memory)
        self.safe()

    def test_a_burst(self):
        memory, others = Memory(self.lab), self.others()
        for through in ("", "host2"):
            options = {"through": through} if through else {}
            flood = self.flood(1, "puts", count=PUTS, bytes=1000, prefix=f"{self.folder}-{through}", **options)
            out = self.outcome(flood)
            print("  burst:", out)
            self.assertEqual(out["ok"] + sum(out["errors"].values()), PUTS, out)
            self.assertEqual((out["unanswered"], out["late"], out["missing"]), (0, 0, 0), out)
            self.assertLessEqual(set(out["errors"]), {"busy"}, out)
            self.assertGreater(out["ok"], 0, out)
        self.assertLess(others.stop(), SERVED_SECONDS)
        self.bounded(memory)
        self.safe()


class StandsStill(Flooded):
    def test_a_host_that_stands_still(self):
        daemons = {h: next(p for p, words in e2e.processes_of(self.lab.root) if "kinfsd" in words.split()[0] and
                           self.lab.state(f"host{h}", "kinfsd.toml") in words) for h in self.lab.each()}
        memory, others = Memory(self.lab), self.others(2)
        os.kill(daemons[3], signal.SIGSTOP)
        try:
            rows = self.flood(1, "puts", count=PUTS // 4, bytes=1000, together=1)
            longest = 0.0
            for number in range(MIB):
                began = time.monotonic()
                write(self.path(1, f"file{number}"), bytes_of(f"file{number}", 1 << 20))
                longest = max(longest, time.monotonic() - began)
            out = self.outcome(rows)
            print(f"  {MIB} MiB, the longest write {longest:.2f} s; rows: {out}")
            self.assertLess(longest, SERVED_SECONDS)
            self.assertEqual((out["ok"], out["missing"]), (PUTS // 4, 0), out)
        finally:
            os.kill(daemons[3], signal.SIGCONT)
        self.assertLess(others.stop(), SERVED_SECONDS)
        self.safe()
        for number in range(MIB):
            self.assertEqual(read(self.path(3, f"file{number}")), bytes_of(f"file{number}", 1 << 20), number)
        self.bounded(memory)


class FullDisk(unittest.TestCase):
    def setUp(self):
        self.hosts = Hosts(3, DISK_MIB)
        self.addCleanup(self.hosts.end)
        one = self.hosts[1]
        one.must("kinfs", "init", "--mount", SHARED)
        for host in self.hosts.all[1:]:
            host.must("kinfs", "join", one.must("kinfs", "invite").strip(), "--mount", SHARED)
        self.kept = {}

    def path(self, host, name):
        return host.path(f"{SHARED}/{name}")

    def keep(self, host, name, size):
        """Writes a file, which from then on must be there; raises what the program is told."""
        data = bytes_of(name, size)
        with open(self.path(host, name), "xb", buffering=0) as file:
            for at in range(0, size, 1 << 17):
                file.write(data[at:at + (1 << 17)])
            os.fsync(file.fileno())
        self.kept[name] = hashlib.sha256(data).hexdigest()

    def all_kept(self, hosts):
        for host in hosts:
            for name, digest in self.kept.items():
                self.assertEqual(hashlib.sha256(read(self.path(host, name))).hexdigest(), digest,
                                 f"{name} on {host.name}")

    def fill(self, host, leave_mib=0):
        """Others take the room, up to the last MiB or all but some."""
        stat = os.statvfs(host.path("/var/lib/kinfs"))
        mib = (stat.f_bavail * stat.f_frsize >> 20) - leave_mib if leave_mib else DISK_MIB
        host.run("sh", "-c", f"head -c {mib}M /dev/zero >>/var/lib/kinfs/filler")

    def free(self, host):
        host.must("rm", "-f", "/var/lib/kinfs/filler")

    def status(self, host):
        return json.loads(host.run("kinfs", "status", "--json").stdout)

    def says_who_is_full(self, host, names):
        def told():
            return sorted(h["name"] for h in self.status(host)["hosts"] if h["full"]) == names
        wait_until(told, 10, lambda: f"{host.name} says that {names} are full: {self.status(host)['hosts']}")
        text = host.run("kinfs", "status").stdout.decode()
        for name in names:
            self.assertRegex(text, re.compile(f"^{name}( \\*)? .* full", re.MULTILINE))

    def go_on(self, host, names, size=3 << 20):
        """Until it takes writes again."""
        def taken():
            name = f"{host.name}-{len(self.kept)}-{time.monotonic()}"
            self.keep(host, name, size)
            names.append(name)
            return True
        wait_until(taken, 30, f"{host.name} takes writes")

    def settled(self):
        wait_until(lambda: all(self.status(h)["safe"] for h in self.hosts.all), 60,
                   lambda: "\n".join(h.run("kinfs", "status").stdout.decode() for h in self.hosts.all))

    def refused(self, host, prefix):
        """A program that goes on writing is told ENOSPC and nothing else."""
        for number in range(400):
            try:
                self.keep(host, f"{prefix}{number}", 1 << 20)
            except OSError as error:
                self.assertEqual(error.errno, errno.ENOSPC)
                return number
        raise AssertionError(f"{host.name} wrote 400 MiB to a full disk")

    def test_full_disks(self):
        one, two, three = self.hosts.all
        daemons = [h.pids("kinfsd") for h in self.hosts.all]
        for host in self.hosts.all:
            self.keep(host, f"before-{host.name}", 5 << 20)
            self.keep(host, f"small-{host.name}", 100)
        # One of them: the others go on, and say whose disk it is.
        self.fill(three)
        for host in self.hosts.all:
            self.says_who_is_full(host, ["host3"])
        for number in range(10):
            began = time.monotonic()
            self.keep(one, f"meanwhile-{number}", 1 << 20)
            self.keep(two, f"meanwhile-small-{number}", 1000)
            self.assertLess(time.monotonic() - began, SERVED_SECONDS)
        self.refused(three, "full-")
        self.all_kept(self.hosts.all)
        self.free(three)
        back = []
        self.go_on(three, back)
        self.settled()
        self.all_kept(self.hosts.all)
        # All of them.
        for host in self.hosts.all:
            self.fill(host, leave_mib=140)
        print("  until all are full they take", [self.refused(h, f"all-{h.name}-") for h in self.hosts.all], "MiB")
        for host in self.hosts.all:
            self.fill(host)
        for host in self.hosts.all:
            self.says_who_is_full(host, ["host1", "host2", "host3"])
            self.refused(host, f"none-{host.name}-")
        self.all_kept(self.hosts.all)
        for host in self.hosts.all:
            self.free(host)
        for host in self.hosts.all:
            self.go_on(host, back)
        self.settled()
        self.all_kept(self.hosts.all)
        self.assertEqual([h.pids("kinfsd") for h in self.hosts.all], daemons, "none was started again")
        names = [sorted(os.listdir(self.path(h, ""))) for h in self.hosts.all]
        self.assertEqual(names[0], names[1])
        self.assertEqual(names[0], names[2])


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--puts", type=int, default=PUTS)
    arguments.add_argument("--mib", type=int, default=MIB)
    known, rest = arguments.parse_known_args()
    PUTS, MIB = known.puts, known.mib
    sys.argv[1:] = rest
    e2e.main()
