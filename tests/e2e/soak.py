"""Load on three hosts of their own, with a fault every few seconds; then everything that was promised is looked for.

    soak.py [--minutes M] [--seed S] [--every SECONDS] [--faults KIND,KIND]

Two minutes with a fault every ten seconds unless told; which faults, and where, follows from the seed. Kinds: cut,
one_way, daemon, host, stop, full, all.

What is promised: a value whose close(2) returned without an error is there in the end, under its name or as a sibling,
or what is there was written over it by somebody who had read it; on all hosts alike. No host says that a file is not
there, or lists a folder without it, that it has closed itself. No operation hangs. What was removed stays removed.
Errors while something is broken are allowed, and counted.

Each version of a file holds one value: a new file is closed once, and an edit is one pwrite(2) over all of it. So who
reads a file always knows what it would write over.
"""
import argparse
import collections
import errno
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time

from hosts import SHARED, Hosts
from lab import SLACK, wait_until

FOLDERS = 7
SHARED_SIZES = [64, 20000] * 4           # in the row, and as a block of its own
NEW_SIZES = [(10, 3), (100, 3), (10000, 2), (20000, 2), (400000, 1)]  # bytes, and how often
HANG_S = 60 * SLACK                      # while no daemon answers, one call may take 20 s, an operation several
QUIET_S = 20 * SLACK
VALUE = re.compile(rb"<(\w+)>")


def say(words):
    print(time.strftime("%H:%M:%S"), words, flush=True)


def record(value, size):
    """What a version that holds `value` consists of."""
    unit = b"<%s>" % value.encode()
    return (unit * (size // len(unit) + 1))[:size]


def values_in(data):
    """The values in data; whether it is one value and nothing else."""
    first = VALUE.match(data)
    if first and data == record(first[1].decode(), len(data)):
        return frozenset([first[1].decode()]), True
    return frozenset(v.decode() for v in VALUE.findall(data)), False


def together(function, arguments, seconds):
    """function(each of the arguments) at the same time. A call that hangs does not hang the test."""
    results = {}

    def work(at, argument):
        try:
            results[at] = function(argument)
        except BaseException as error:  # told by the test's own thread
            results[at] = error
    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in enumerate(arguments)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    for at, argument in enumerate(arguments):
        if at not in results:
            raise AssertionError(f"after {seconds} s no answer: {function.__name__} {argument}")
        if isinstance(results[at], BaseException):
            raise results[at]
    return [results[at] for at in range(len(arguments))]


class Checker:
    """What was written over what, and what was said of it."""

    def __init__(self, tell=lambda words: None):
        self.tell = tell
        self.lock = threading.Lock()
        self.next = 0
        self.over = {}          # value -> the values that its writer had read from what it wrote over
        self.name = {}          # value -> the file
        self.size = {}          # value -> bytes
        self.acknowledged = set()
        self.closed = set()     # names of files that were closed
        self.removing = set()   # names whose removal was tried
        self.removed = set()    # and was done
        self.errors = collections.Counter()
        self.wrong = []
        self.slowest = (0.0, "")

    def begin(self, host, name, size, read=()):
        with self.lock:
            self.next += 1
            value = f"h{host}v{self.next}"
            self.over[value], self.name[value], self.size[value] = set(read), name, size
            return value

    def acknowledge(self, value):
        with self.lock:
            self.acknowledged.add(value)
            self.closed.add(self.name[value])

    def violation(self, words):
        with self.lock:
            self.wrong.append(f"{time.strftime('%H:%M:%S')} {words}")
            self.tell("WRONG: " + words)

    def failed(self, error):
        with self.lock:
            self.errors[errno.errorcode.get(error.errno, str(error.errno))] += 1

    def took(self, seconds, words):
        with self.lock:
            self.slowest = max(self.slowest, (seconds, words))

    def is_whole(self, name, data):
        """Whether the file, which is closed, holds one value as its writer wrote it."""
        values, whole = values_in(data)
        return whole and all(self.size.get(v) == len(data) for v in values)

    def lost(self, found):
        """(value, name) of what was acknowledged and is not accounted for: it is neither among `found` nor did a
        writer whose value is, or whose value is accounted for so, read it and write over it. That somebody tried to
        write over a value says nothing: it may have failed, or been lost with it."""
        accounted, todo = set(), list(found)
        while todo:
            value = todo.pop()
            if value not in accounted:
                accounted.add(value)
                todo += self.over.get(value, ())
        return sorted((v, self.name[v]) for v in self.acknowledged - accounted
                      if self.name[v] not in self.removing)

    def look_through(self, tree):
        """What is wrong with the files that all hosts show in the end, path -> (values, whole, size)."""
        found = set().union(*(values for values, _, _ in tree.values()))
        for value, name in self.lost(found):
            self.violation(f"{value}, acknowledged in {name}, is lost")
        for value in sorted(found - set(self.over)):
            self.violation(f"{value} was never written")
        for name in sorted(self.removed & set(tree)):
            self.violation(f"{name} was removed and is there")
        for path, (values, whole, size) in sorted(tree.items()):
            # A new file that was not closed may be there in part.
            if (path in self.closed or path.startswith("shared")) and not (
                    whole and all(self.size.get(v) == size for v in values)):
                self.violation(f"{path} has {size} bytes, of {sorted(values)[:5]}: not one version")


class Writer(threading.Thread):
    """The programs of one host."""

    def __init__(self, host, checker, seed):
        super().__init__(daemon=True)
        self.host, self.checker = host, checker
        self.random = random.Random(seed * 100 + host.number)
        self.stopping = threading.Event()
        self.known = collections.deque(maxlen=100)  # names that this host has written or seen
        self.own = collections.defaultdict(set)     # folder -> files that this host has closed and not removed
        self.now = None                             # since when it does what
        self.told = None
        self.done = 0
        self.files = 0

    def path(self, name):
        return self.host.path(f"{SHARED}/{name}")

    def run(self):
        actions = [(self.new_file, 4), (self.edit, 3), (self.look, 3), (self.remove, 3)]
        while not self.stopping.is_set():
            action = self.random.choices([a for a, _ in actions], [w for _, w in actions])[0]
            began = time.monotonic()
            self.now = (began, f"{action.__name__} on {self.host.name}")
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
            except BaseException as error:
                self.checker.violation(f"{self.now[1]}: {error!r}")
                raise
            self.checker.took(time.monotonic() - began, self.now[1])
            self.now = None

    def watch(self):
        """Reports an operation that takes too long, once. True while there is one."""
        now = self.now
        if now and time.monotonic() - now[0] > HANG_S and self.told != now:
            self.told = now
            self.checker.violation(f"{now[1]} has taken {HANG_S} s and goes on")
        return now is not None and self.told == now

    def mount(self):
        """Which mount is there; None when none is, or it does not answer."""
        try:
            at, below = os.stat(self.path("")), os.stat(self.host.path("/srv"))
        except OSError:
            return None
        return at.st_dev if at.st_dev != below.st_dev else None

    def new_file(self):
        self.files += 1
        folder, own = f"dir{self.files % FOLDERS}", f"{self.host.name}-{self.files}"
        name = f"{folder}/{own}"
        size = self.random.choices([s for s, _ in NEW_SIZES], [w for _, w in NEW_SIZES])[0]
        value = self.checker.begin(self.host.number, name, size)
        with open(self.path(name), "xb", buffering=0) as file:
            file.write(record(value, size))
            if self.random.random() < 0.2:
                os.fsync(file.fileno())
        self.checker.acknowledge(value)
        self.known.append(name)
        self.own[folder].add(own)

    def edit(self):
        number = self.random.randrange(len(SHARED_SIZES))
        name, size = f"shared{number}", SHARED_SIZES[number]
        with open(self.path(name), "r+b", buffering=0) as file:
            data = file.read()
            if not self.checker.is_whole(name, data):
                self.checker.violation(f"{self.host.name} shows {name} with {len(data)} bytes {data[:100]!r}")
            value = self.checker.begin(self.host.number, name, size, values_in(data)[0])
            os.pwrite(file.fileno(), record(value, size), 0)
        self.checker.acknowledge(value)
        self.known.append(name)

    def remove(self):
        folder = f"dir{self.random.randrange(FOLDERS)}"
        if not self.own[folder]:
            return
        own = self.random.choice(sorted(self.own[folder]))
        self.own[folder].remove(own)
        self.checker.removing.add(f"{folder}/{own}")
        os.unlink(self.path(f"{folder}/{own}"))
        self.checker.removed.add(f"{folder}/{own}")

    def look(self):
        if self.known:
            self.read(self.random.choice(self.known))
        self.list(f"dir{self.random.randrange(FOLDERS)}")

    def read(self, name):
        closed = name in self.checker.closed
        try:
            with open(self.path(name), "rb", buffering=0) as file:
                data = file.read()
        except FileNotFoundError:
            if name in self.checker.removing:
                return
            raise
        if closed and not self.checker.is_whole(name, data):
            self.checker.violation(f"{self.host.name} shows {name} with {len(data)} bytes {data[:100]!r}")

    def list(self, folder):
        # Where nothing is mounted there is no such folder: what is listed is of the mount.
        names = set(os.listdir(self.path(folder)))
        for own in sorted(self.own[folder] - names):
            self.checker.violation(f"{self.host.name} lists {folder} without {own}, which it has closed")
        plain = sorted(n for n in names if ".+" not in n)
        if plain:
            self.known.append(f"{folder}/{self.random.choice(plain)}")


class Faults:
    """One at a time; each returns how it is undone."""
    KINDS = ["cut", "one_way", "daemon", "host", "stop", "full", "all"]

    def __init__(self, hosts, seed, kinds=None):
        self.hosts = hosts
        self.random = random.Random(seed)
        self.kinds = kinds or self.KINDS
        self.seen = collections.Counter()

    def next(self):
        # Each kind comes before one comes again.
        least = min(self.seen[k] for k in self.kinds)
        kind = self.random.choice([k for k in self.kinds if self.seen[k] == least])
        self.seen[kind] += 1
        host = self.random.choice(self.hosts.all)
        if kind in ("daemon", "stop", "cut", "one_way"):
            # What a host accepted while it saw no other is with it alone, and what its mount wrote through the others
            # while its daemon was away is not with it, until all is handed over. Left with the others' replicas alone,
            # or with its own, it rightly does not show that.
            try:
                wait_until(lambda: all(h.is_whole() for h in self.hosts.all), QUIET_S, "handed over")
            except AssertionError as error:
                say(f"no {kind}: {error}")
                return lambda: None
        say(f"{kind} {host.name if kind != 'all' else ''}")
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
        return lambda: together(lambda host: host.start(), self.hosts.all, 120 * SLACK)

    def stop(self, host):
        host.signal(signal.SIGSTOP, "kinfsd")
        return lambda: host.signal(signal.SIGCONT, "kinfsd")

    def full(self, host):
        # Most of it at once, the rest until nothing fits.
        host.run("sh", "-c", "cd /var/lib/kinfs && fallocate -l $(($(stat -f -c '%a * %S' .) - 16777216)) filler; "
                             "head -c 64M /dev/zero >filler2")
        return lambda: host.must("rm", "-f", "/var/lib/kinfs/filler", "/var/lib/kinfs/filler2")


def tree_of(host):
    """path -> (values, whether it is one and nothing else, size), everywhere below the mount."""
    found = {}
    for folder, _, names in os.walk(host.path(SHARED)):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb", buffering=0) as file:
                data = file.read()
            found[os.path.relpath(path, host.path(SHARED))] = (*values_in(data), len(data))
    return found


def set_up(hosts, checker):
    one = hosts[1]
    one.must("kinfs", "init", "--mount", SHARED)
    for host in hosts.all[1:]:
        host.must("kinfs", "join", one.must("kinfs", "invite").strip(), "--mount", SHARED)
    for i in range(FOLDERS):
        os.mkdir(one.path(f"{SHARED}/dir{i}"))
    for i, size in enumerate(SHARED_SIZES):
        value = checker.begin(1, f"shared{i}", size)
        with open(one.path(f"{SHARED}/shared{i}"), "xb", buffering=0) as file:
            file.write(record(value, size))
        checker.acknowledge(value)


def revive(hosts, checker):
    """Daemons and mounts end when they are killed, and not otherwise: it is reported, and the load goes on."""
    for host in hosts.all:
        if gone := [name for name in ("kinfsd", "mount.kinfs") if not host.pids(name)]:
            last = (host.log().strip().splitlines() or [""])[-1]
            checker.violation(f"{' and '.join(gone)} of {host.name} ended by itself; its log ends: {last}")
            host.start()


def load(hosts, checker, writers, faults, minutes, every):
    """The writers work while one fault comes after another."""
    idle = threading.Event()  # never set: the load goes on for a time, whatever becomes of it

    def pace(until):
        while (left := until - time.monotonic()) > 0:
            idle.wait(min(left, 1))
            for writer in writers:
                writer.watch()
    for writer in writers:
        writer.start()
    end = time.monotonic() + minutes * 60
    while time.monotonic() < end:
        began = time.monotonic()
        undo = faults.next()
        pace(time.monotonic() + faults.random.uniform(0.2 * every, 0.7 * every))
        undo()
        pace(min(end, began + every))
        revive(hosts, checker)
    for writer in writers:
        writer.stopping.set()
    wait_until(lambda: all(not w.is_alive() or w.watch() for w in writers), HANG_S + 10,
               lambda: f"an end of {[w.now for w in writers if w.is_alive()]}")
    say("the load has ended")


def soak(minutes, seed, every, kinds):
    checker, tree = Checker(say), {}
    with Hosts(3, 1024 + int(minutes * 200)) as hosts:
        set_up(hosts, checker)
        writers = [Writer(host, checker, seed) for host in hosts.all]
        faults = Faults(hosts, seed, kinds)
        load(hosts, checker, writers, faults, minutes, every)
        if not any(w.is_alive() for w in writers):
            tree = compare(hosts, checker)
            checker.look_through(tree)
    siblings = sum(".+" in name for name in tree)
    print(f"{sum(w.done for w in writers)} operations, {len(checker.acknowledged)} values acknowledged, "
          f"{len(checker.removed)} files removed, {sum(checker.errors.values())} errors {dict(checker.errors)}, "
          f"{siblings} siblings in the end, faults {dict(faults.seen)}; "
          f"the slowest operation took {checker.slowest[0]:.1f} s ({checker.slowest[1]})")
    return checker.wrong


def compare(hosts, checker):
    """Until all hosts show the same, which is returned."""
    def whole():
        revive(hosts, checker)
        return all(host.is_whole() for host in hosts.all)
    wait_until(whole, 60, lambda: "\n".join(host.run("kinfs", "status").stdout.decode() for host in hosts.all))
    say("all is handed over")
    trees = []

    def agree():
        trees[:] = together(tree_of, hosts.all, 300 * SLACK)
        return trees[0] == trees[1] == trees[2]
    wait_until(agree, 60, lambda: f"the hosts show the same: {differences(trees)}")
    say(f"all show the same {len(trees[0])} files")
    return trees[0]


def differences(trees):
    """A few of the names that differ."""
    names = set().union(*trees)
    return [(n, [t.get(n, "absent") for t in trees]) for n in sorted(names) if len({t.get(n) for t in trees}) > 1][:5]


def test_lost():
    checker = Checker()
    a, b = checker.begin(1, "f", 64), checker.begin(1, "g", 64)
    c = checker.begin(2, "f", 64, {a})
    d = checker.begin(3, "f", 64, {a})  # d's close failed
    e = checker.begin(1, "f", 64, {d})
    for value in (a, b, c):
        checker.acknowledge(value)
    cases = [({b, c, d}, []),                       # a was read and written over
             ({b, d}, [(c, "f")]),                  # d came on top of a, not of c
             ({c}, [(b, "g")]),
             ({b}, [(a, "f"), (c, "f")]),           # what c and d wrote over is lost with them
             ({b, c, e}, []),
             ({b, e}, [(c, "f")])]                  # d happened: e's writer has read it
    for found, lost in cases:
        assert checker.lost(found) == lost, (found, checker.lost(found))
    checker.acknowledge(e)
    assert checker.lost({b, c}) == [(e, "f")], "e, acknowledged over d, of which nobody heard"
    checker.removing.add("g")
    assert checker.lost({c, e}) == [], "g was removed"


def test_trees():
    checker = Checker()
    a, b, part = checker.begin(1, "dir0/a", 64), checker.begin(1, "shared1", 20000), checker.begin(2, "dir0/part", 100)
    for value in (a, b):
        checker.acknowledge(value)
    good = {"dir0/a": record(a, 64), "shared1": record(b, 20000), "dir0/part": record(part, 50)}
    bad = [("dir0/a", None), ("dir0/a", b""), ("dir0/a", record(a, 63)), ("dir0/a", record(a, 60) + bytes(4)),
           ("shared1", record(b, 19000) + record(a, 1000)), ("shared1", b""), ("shared1.+host1-aaaa", b""),
           ("shared1", record(b, 64)), ("dir0/more", record("h1v99", 64)), ("dir0/gone", record(a, 64))]
    checker.removed.add("dir0/gone")
    for path, data in [("dir0/part", b""), *bad]:
        files = {**good, path: data}
        checker.wrong = []
        checker.look_through({p: (*values_in(d), len(d)) for p, d in files.items() if d is not None})
        assert bool(checker.wrong) == ((path, data) in bad), (path, data and data[:100], checker.wrong)


def test_writer(folder):
    """What a writer sees while it works, in a folder of this machine."""
    class Here:
        number, name = 1, "here"

        @staticmethod
        def path(name):
            return folder + name
    os.makedirs(folder + SHARED + "/dir1")
    checker = Checker()
    writer = Writer(Here, checker, 1)
    writer.new_file()
    writer.list("dir1")
    writer.read("dir1/here-1")
    assert not checker.wrong, checker.wrong
    at = writer.path("dir1/here-1")
    os.truncate(at, 5)
    writer.read("dir1/here-1")
    os.rename(at, at + ".+here-aaaa")
    writer.list("dir1")
    for i, size in enumerate(SHARED_SIZES):
        with open(writer.path(f"shared{i}"), "wb") as file:
            file.write(record(checker.begin(1, f"shared{i}", size), size) if i else b"")
    while not os.path.getsize(writer.path("shared0")):  # an edit of the empty one, by and by
        writer.edit()
    writer.now = (time.monotonic() - HANG_S - 1, "edit")
    assert writer.watch() and writer.watch()
    said = ["shows dir1/here-1 with 5", "lists dir1 without here-1", "shows shared0 with 0 bytes", "goes on"]
    assert len(checker.wrong) == len(said) and all(s in w for s, w in zip(said, checker.wrong)), checker.wrong


def self_test():
    """The checker finds what it is there for."""
    test_lost()
    test_trees()
    folder = tempfile.mkdtemp(prefix="kinfs-soak-", dir="/var/tmp")
    try:
        test_writer(folder)
    finally:
        shutil.rmtree(folder)


def kinds_of(text):
    kinds = text.split(",")
    if unknown := [k for k in kinds if k not in Faults.KINDS]:
        raise argparse.ArgumentTypeError(f"no such faults: {unknown}; there are {Faults.KINDS}")
    return kinds


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--minutes", type=float, default=2)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--every", type=float, default=10, help="seconds from fault to fault")
    arguments.add_argument("--faults", type=kinds_of, help="all kinds unless told")
    arguments = arguments.parse_args()
    self_test()
    wrong = soak(arguments.minutes, arguments.seed, arguments.every, arguments.faults)
    print("\n".join(wrong) or "nothing is lost")
    sys.exit(1 if wrong else 0)
