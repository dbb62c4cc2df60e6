"""Load on three hosts of their own, with a fault every ten seconds; then everything that was promised is looked for.

    soak.py [--minutes M] [--seed S]      two minutes unless told; the faults follow from the seed

What is promised: a value whose close(2) returned without an error is there in the end, under its name or as a sibling,
unless somebody who had read it wrote over it; on all hosts alike. No host says that a file is not there that it has
written or read itself. Errors while something is broken are allowed, and counted.
"""
import argparse
import collections
import errno
import os
import random
import re
import signal
import sys
import threading
import time

from hosts import SHARED, Hosts
from lab import SLACK, wait_until

FAULT_EVERY_S = 10
SHARED_FILES = 8
DISK_MIB = 1024
VALUE = re.compile(rb"<(\w+)>")


def say(words):
    print(time.strftime("%H:%M:%S"), words, flush=True)


class Checker:
    """What was written over what, and what was said of it."""

    def __init__(self):
        self.lock = threading.Lock()
        self.next = 0
        self.over = {}          # value -> the values that its writer had read from what it wrote over
        self.name = {}          # value -> the file
        self.acknowledged = set()
        self.closed = set()     # names of files that are written once, and were closed
        self.errors = collections.Counter()
        self.wrong = []
        self.slowest = (0.0, "")

    def begin(self, host, name, read):
        with self.lock:
            self.next += 1
            value = f"h{host}v{self.next}"
            self.over[value], self.name[value] = set(read), name
            return value

    def acknowledge(self, value):
        with self.lock:
            self.acknowledged.add(value)
            self.closed.add(self.name[value])

    def violation(self, words):
        with self.lock:
            self.wrong.append(f"{time.strftime('%H:%M:%S')} {words}")

    def failed(self, error):
        with self.lock:
            self.errors[errno.errorcode.get(error.errno, str(error.errno))] += 1

    def took(self, seconds, words):
        with self.lock:
            self.slowest = max(self.slowest, (seconds, words))

    def lost(self, found):
        """Acknowledged values that are not among `found` and that nobody wrote over. What a writer read that was itself
        written over is superseded too."""
        superseded = set()
        for value in self.over:
            todo = list(self.over[value])
            while todo:
                one = todo.pop()
                if one not in superseded:
                    superseded.add(one)
                    todo += self.over.get(one, ())
        return sorted((v, self.name[v]) for v in self.acknowledged if v not in found and v not in superseded)


class Writer(threading.Thread):
    """The programs of one host."""

    def __init__(self, host, checker, seed):
        super().__init__(daemon=True)
        self.host, self.checker = host, checker
        self.random = random.Random(seed * 100 + host.number)
        self.stopping = threading.Event()
        self.known = set()   # names that this host has written or read
        self.done = 0
        self.files = 0

    def path(self, name):
        return self.host.path(f"{SHARED}/{name}")

    def run(self):
        while not self.stopping.is_set():
            action = self.random.choices([self.new_file, self.edit, self.look], [4, 3, 3])[0]
            began = time.monotonic()
            mount = self.mount()
            try:
                action()
                self.done += 1
            except FileNotFoundError as error:
                # All that is opened is there, or its folder is; but not where nothing is mounted.
                if mount is not None and mount == self.mount():
                    self.checker.violation(f"{self.host.name} says that {error.filename} is not there")
                self.checker.failed(error)
                self.stopping.wait(0.05)
            except OSError as error:
                self.checker.failed(error)
                self.stopping.wait(0.05)
            self.checker.took(time.monotonic() - began, f"{action.__name__} on {self.host.name}")

    def mount(self):
        """Which mount is there; None when none is, or it does not answer."""
        try:
            at, below = os.stat(self.path("")), os.stat(self.host.path("/srv"))
        except OSError:
            return None
        return at.st_dev if at.st_dev != below.st_dev else None

    def new_file(self):
        self.files += 1
        name = f"dir{self.files % 7}/{self.host.name}-{self.files}"
        value = self.checker.begin(self.host.number, name, ())
        data = b"<%s>" % value.encode() * self.random.choice([1, 10, 1000, 40000])
        with open(self.path(name), "xb", buffering=0) as file:
            file.write(data)
            if self.random.random() < 0.2:
                os.fsync(file.fileno())
        self.checker.acknowledge(value)
        self.known.add(name)

    def edit(self):
        name = f"shared{self.random.randrange(SHARED_FILES)}"
        with open(self.path(name), "r+b", buffering=0) as file:
            read = {v.decode() for v in VALUE.findall(file.read())}
            value = self.checker.begin(self.host.number, name, read)
            file.seek(0)
            file.truncate()
            file.write(b"<%s>" % value.encode())
        self.checker.acknowledge(value)
        self.known.add(name)

    def look(self):
        if not self.known:
            return
        name = self.random.choice(sorted(self.known)[-50:])
        closed = name in self.checker.closed
        with open(self.path(name), "rb") as file:
            data = file.read()
        if name.startswith("dir") and closed and len(set(VALUE.findall(data))) != 1:
            self.checker.violation(f"{self.host.name} shows {name} with {data[:100]!r}")
        other = self.random.choice(os.listdir(self.path(f"dir{self.random.randrange(7)}")) or [""])
        if other and ".+" not in other:
            self.known.add(f"dir{int(other.split('-')[1]) % 7}/{other}")


class Faults:
    """One at a time; each returns how it is undone."""

    def __init__(self, hosts, seed):
        self.hosts = hosts
        self.random = random.Random(seed)
        self.kinds = ["cut", "one_way", "daemon", "host", "stop", "full", "all"]
        self.seen = collections.Counter()

    def next(self):
        # Each kind comes before one comes again.
        least = min(self.seen[k] for k in self.kinds)
        kind = self.random.choice([k for k in self.kinds if self.seen[k] == least])
        self.seen[kind] += 1
        host = self.random.choice(self.hosts.all)
        say(f"{kind} {host.name}")
        return getattr(self, kind)(host)

    def cut(self, host):
        self.hosts.cut(host)
        return lambda: self.hosts.heal(host)

    def one_way(self, host):
        self.hosts.cut_one_way(host)
        return lambda: self.hosts.heal(host)

    def daemon(self, host):
        host.kill("kinfsd")
        return lambda: host.must("sh", "-c", "kinfsd >>/var/log/kinfsd.log 2>&1 </dev/null & exit 0")

    def host(self, host):
        host.kill("kinfsd", "mount.kinfs")
        return host.start

    def all(self, _):
        for host in self.hosts.all:
            host.signal(signal.SIGKILL, "kinfsd", "mount.kinfs")
        for host in self.hosts.all:
            host.kill("kinfsd", "mount.kinfs")

        def start():
            for host in self.hosts.all:
                host.start()
        return start

    def stop(self, host):
        host.signal(signal.SIGSTOP, "kinfsd")
        return lambda: host.signal(signal.SIGCONT, "kinfsd")

    def full(self, host):
        host.run("sh", "-c", "head -c 2G /dev/zero >/var/lib/kinfs/filler")
        return lambda: host.must("rm", "-f", "/var/lib/kinfs/filler")


def values_on(host):
    """path -> values in it, everywhere below the mount."""
    found = {}
    for folder, _, names in os.walk(host.path(SHARED)):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                values = frozenset(v.decode() for v in VALUE.findall(file.read()))
            found[os.path.relpath(path, host.path(SHARED))] = values
    return found


def soak(minutes, seed):
    checker = Checker()
    with Hosts(3, DISK_MIB) as hosts:
        one = hosts[1]
        one.must("kinfs", "init", "--mount", SHARED)
        for host in hosts.all[1:]:
            host.must("kinfs", "join", one.must("kinfs", "invite").strip(), "--mount", SHARED)
        for i in range(7):
            os.mkdir(one.path(f"{SHARED}/dir{i}"))
        for i in range(SHARED_FILES):
            open(one.path(f"{SHARED}/shared{i}"), "wb").close()
        writers = [Writer(host, checker, seed) for host in hosts.all]
        for writer in writers:
            writer.start()
        faults = Faults(hosts, seed)
        pace = threading.Event()  # never set: the load goes on for a time, whatever becomes of it
        end = time.monotonic() + minutes * 60
        while time.monotonic() < end:
            began = time.monotonic()
            undo = faults.next()
            pace.wait(faults.random.uniform(2, 7))
            undo()
            pace.wait(max(0, began + FAULT_EVERY_S - time.monotonic()))
        for writer in writers:
            writer.stopping.set()
        for writer in writers:
            writer.join(60 * SLACK)
        say("the load has ended")
        wait_until(lambda: all(host.is_whole() for host in hosts.all), 60,
                   lambda: "\n".join(host.run("kinfs", "status").stdout.decode() for host in hosts.all))
        say("all is handed over")
        trees = []

        def agree():
            trees[:] = [values_on(host) for host in hosts.all]
            return trees[0] == trees[1] == trees[2]
        wait_until(agree, 60, lambda: f"the hosts show the same: {differences(trees)}")
        say("all show the same")
        found = set().union(*trees[0].values())
        for value, name in checker.lost(found):
            checker.violation(f"{value}, acknowledged in {name}, is lost")
        siblings = sum(".+" in name for name in trees[0])
    print(f"{sum(w.done for w in writers)} operations, {len(checker.acknowledged)} values acknowledged, "
          f"{sum(checker.errors.values())} errors {dict(checker.errors)}, {siblings} siblings in the end, "
          f"faults {dict(faults.seen)}; the slowest operation took {checker.slowest[0]:.1f} s ({checker.slowest[1]})")
    return checker.wrong


def differences(trees):
    """A few of the names that differ."""
    names = set().union(*trees)
    return [(n, [sorted(t.get(n, ["absent"])) for t in trees]) for n in sorted(names)
            if len({t.get(n) for t in trees}) > 1][:5]


def self_test():
    """The checker finds what it is there for."""
    checker = Checker()
    a, b = checker.begin(1, "f", ()), checker.begin(1, "g", ())
    c = checker.begin(2, "f", {a})
    d = checker.begin(3, "f", {a})
    for value in (a, b, c):
        checker.acknowledge(value)
    assert checker.lost({b, c, d}) == [], "a was read and written over"
    assert checker.lost({b, d}) == [(c, "f")], "c is lost, whatever d wrote over"
    assert checker.lost({c}) == [(b, "g")]


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--minutes", type=float, default=2)
    arguments.add_argument("--seed", type=int, default=1)
    arguments = arguments.parse_args()
    self_test()
    wrong = soak(arguments.minutes, arguments.seed)
    print("\n".join(wrong) or "nothing is lost")
    sys.exit(1 if wrong else 0)
