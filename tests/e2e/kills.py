"""kill -9 of all three hosts at once while programs write, again and again: what was closed or fsynced is whole.

    kills.py [--rounds N] [--seed S]      three rounds unless told

In each round programs on each host create, write, edit in place, fsync, close and rename files of some bytes to some
MiB. At a random moment all daemons and mounts of all hosts are killed: in every second round right after some close(2)
has returned, in the others maybe one host shortly after the other. All are started again, and every file is read on
each host:

- what close(2), fsync(2) or rename(2) returned 0 for is there, byte for byte;
- of what came after it, any state that the file has had since may be found: a file that was never closed or synced may
  be absent, hold what was written so far, or an earlier state. Never bytes that were not written there;
- of a rename, one of the two names is there;
- there are no other names: nobody wrote to a file of another host, so there are no siblings.

In the end all that was left by all rounds is read once more.
"""
import argparse
import collections
import hashlib
import os
import random
import signal
import sys
import tempfile
import threading
import time

from hosts import SHARED, Hosts
from lab import SLACK, wait_until, write
from soak import say, together

SHORTLY_S = 0.05
ALL_THERE_S = 60 * SLACK  # after the mounts are back: hints are handed over, hosts find each other again
SMALL = [0, 1, 100, 3000, 12000, 60000]
EDITED = [3000, 200000, 3 << 20]
LARGE_MIB = 8
KEPT_BYTES = 1 << 20      # larger files are removed after their round


def bytes_of(words, size):
    """That differ for each `words`."""
    return hashlib.shake_128(words.encode()).digest(size)


class File:
    """One file, and what may be found of it: its contents after each step, from the last step that was promised to the
    last that was begun. The first step makes it."""

    def __init__(self, name):
        self.name = name
        self.steps = []       # (kind, offset or size, bytes)
        self.promised = 0     # so many steps a call that returned 0 has covered; none: it may be absent
        self.closed = False   # and no call has been made since
        self.leaving = False  # a rename to another name has begun
        self.removed = False

    def begin(self, kind, at=0, data=b""):
        self.steps.append((kind, at, data))
        self.closed = False

    def promise(self, closed=False):
        self.promised, self.closed = len(self.steps), closed

    def bytes_for(self, size):
        """New ones, for the next step."""
        return bytes_of(f"{self.name} {len(self.steps)}", size)

    def states(self):
        """(number of steps done, how many bytes of the state before it begins with, content), one after the other; the
        content is the same object each time."""
        content = bytearray()
        for number, (kind, at, data) in enumerate(self.steps, 1):
            before = len(content)
            if kind == "write":
                content[before:at] = bytes(max(0, at - before))
                content[at:at + len(data)] = data
            elif kind == "truncate":
                content[at:] = bytes(max(0, at - before))
            elif kind == "replace":
                content[:] = data
            # A write at the end may be found in part: the kernel hands a large one on in pieces.
            yield number, before if kind == "write" and at >= before else None, content

    def is_state(self, data, promised=None):
        """Whether data, None when it is absent, may be found."""
        promised = self.promised if promised is None else promised
        if self.removed:
            return data is None
        if data is None:
            return promised == 0 or self.leaving
        for number, before, content in self.states():
            if number >= promised and data == content:
                return True
            if number > promised and before is not None and before < len(data) < len(content) and \
                    content.startswith(data):
                return True
        return False

    def size(self):
        return max((len(content) for _, _, content in self.states()), default=0)


class Killer:
    """Of all daemons and mounts; once a round. With a gap one host goes after the other, in some order: what is
    written meanwhile is on fewer hosts."""

    def __init__(self, hosts, seed):
        chance = random.Random(seed)
        self.pids = [[p for name in ("kinfsd", "mount.kinfs") for p in host.pids(name)] for host in hosts.all]
        for pids in self.pids:
            chance.shuffle(pids)
        chance.shuffle(self.pids)
        self.gap = 0
        self.lock = threading.Lock()
        self.gone = 0      # that had ended by themselves
        self.at = None
        self.after = None  # the writer whose next close it follows
        self.done = threading.Event()

    def kill(self):
        with self.lock:
            if self.at is None:
                self.at = time.monotonic()
                for pids in self.pids:
                    for pid in pids:
                        try:
                            os.kill(pid, signal.SIGKILL)
                        except ProcessLookupError:
                            self.gone += 1
                    self.done.wait(self.gap)  # the others go on for so long
                self.done.set()


class Writer(threading.Thread):
    """One program on one host, until its calls fail."""

    def __init__(self, host, kind, folder, killer, seed):
        super().__init__(daemon=True)
        self.host, self.folder, self.killer = host, folder, killer
        self.title = f"{host.name}-{kind}"
        self.work = getattr(self, kind)
        self.random = random.Random(f"{seed} {folder} {self.title}")
        self.files = []
        self.saves = []     # (temporary file, target, the content) of each rename that was begun
        self.closes = []    # when they returned
        self.fsyncs = 0
        self.wrong = ""

    def run(self):
        try:
            while True:
                self.work()
        except OSError as error:
            if self.killer.at is None:
                self.wrong = f"{self.title}: {error}, while nothing was broken"
        except BaseException as error:  # told by the test's own thread
            self.wrong = f"{self.title}: {error!r}"

    def path(self, file):
        return self.host.path(f"{SHARED}/{file.name}")

    def new(self):
        file = File(f"{self.folder}/{self.title}-{len(self.files)}")
        self.files.append(file)
        file.begin("make")
        return file, os.open(self.path(file), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)

    def write(self, file, descriptor, at, data):
        file.begin("write", at, data)
        done = os.pwrite(descriptor, data, at)
        if done != len(data):
            # The kernel hands a large one on in pieces, of which the kill let some through.
            raise OSError(f"{done} of {len(data)} bytes written to {file.name}")

    def sync(self, file, descriptor):
        os.fsync(descriptor)
        file.promise()
        self.fsyncs += 1

    def close(self, file, descriptor):
        os.close(descriptor)
        if self.killer.after is self:
            self.killer.kill()
        file.promise(closed=True)
        self.closes.append(time.monotonic())

    def fill(self, size, piece, sync_after):
        """A new file, written piece by piece; sync_after: how probable an fsync is after each."""
        file, descriptor = self.new()
        for at in range(0, size, piece):
            self.write(file, descriptor, at, file.bytes_for(min(piece, size - at)))
            if self.random.random() < sync_after:
                self.sync(file, descriptor)
        self.close(file, descriptor)
        return file

    def small(self):
        size = self.random.choice(SMALL)
        self.fill(size, self.random.choice([size or 1, 1 + size // 3]), 0.3)

    def large(self):
        size = self.random.randint(1 << 20, LARGE_MIB << 20)
        self.fill(size, self.random.choice([100_000, 1 << 18, 1 << 20]), self.random.choice([0, 0, 0.1]))

    def edit(self):
        if len(self.files) < len(EDITED):
            self.fill(EDITED[len(self.files)], 1 << 18, 0)
            return
        file = self.random.choice(self.files)
        size = [len(content) for _, _, content in file.states()][-1]
        descriptor = os.open(self.path(file), os.O_RDWR)
        for _ in range(self.random.randint(1, 3)):
            piece = self.random.choice([10, 4096, 50000])
            kind = self.random.choices(["over", "append", "truncate"], [6, 2, 1])[0]
            if kind == "truncate":
                size = self.random.randint(size // 2, size)
                file.begin("truncate", size)
                os.ftruncate(descriptor, size)
            else:
                at = size if kind == "append" else self.random.randint(0, max(0, size - piece))
                self.write(file, descriptor, at, file.bytes_for(piece))
                size = max(size, at + piece)
            if self.random.random() < 0.5:
                self.sync(file, descriptor)
        self.close(file, descriptor)

    def save(self):
        """As editors do it: a temporary file that is renamed over the file."""
        if not self.files:
            self.fill(100, 100, 0)
        target = self.files[0]
        temporary = self.fill(self.random.choice([100, 5000, 150000]), 1 << 18, self.random.choice([0, 1]))
        data = b"".join(data for _, _, data in temporary.steps)
        self.saves.append((temporary, target, data))
        target.begin("replace", 0, data)
        temporary.leaving, temporary.closed = True, False
        os.rename(self.path(temporary), self.path(target))
        target.promise(closed=True)
        temporary.removed = True


class Left:
    """What rounds have left behind, and what each host shows of it."""

    def __init__(self, hosts):
        self.hosts = hosts
        self.folders = collections.defaultdict(dict)  # folder -> name -> File
        self.saves = collections.defaultdict(list)
        self.foreign = set()  # what no state has had, whatever is shown later

    def add(self, folder, writers):
        for writer in writers:
            self.folders[folder].update((file.name, file) for file in writer.files)
            self.saves[folder] += writer.saves

    def shown(self, host, folder):
        """name -> content."""
        found = {}
        for name in sorted(os.listdir(host.path(f"{SHARED}/{folder}"))):
            with open(host.path(f"{SHARED}/{folder}/{name}"), "rb", buffering=0) as file:
                found[f"{folder}/{name}"] = file.read()
        return found

    def complaints_of(self, host, folder):
        """What is wrong with what this host shows."""
        try:
            found = self.shown(host, folder)
        except OSError as error:
            return [f"{host.name}: {error}"]
        wrong = [f"{host.name} shows {name}, which nobody wrote" for name in set(found) - set(self.folders[folder])]
        for name, file in self.folders[folder].items():
            data = found.get(name)
            if not file.is_state(data):
                what = "absent" if data is None else f"{len(data)} bytes"
                wrong.append(f"{host.name} shows {name} {what}: {len(file.steps)} steps, {file.promised} promised" +
                             (", removed" if file.removed else ""))
                if not file.removed and not file.is_state(data, 0):
                    self.foreign.add(f"{host.name} showed {name} with bytes that it never had: {told(file, data)}")
        for temporary, target, data in self.saves[folder]:
            if temporary.name not in found and not temporary.removed and found.get(target.name) != data:
                wrong.append(f"{host.name} shows neither {temporary.name} nor what was renamed to {target.name}")
        return wrong

    def look(self, seconds):
        """Until all hosts show the right things; what is wrong then, and how long it took."""
        began, wrong = time.monotonic(), []

        def right():
            wrong[:] = [words for folder in self.folders for host_words in together(
                lambda host: self.complaints_of(host, folder), self.hosts.all, 300 * SLACK) for words in host_words]
            return not wrong
        try:
            wait_until(right, seconds / SLACK, "all is right")
        except AssertionError:
            pass
        return wrong + sorted(self.foreign), time.monotonic() - began


def told(file, data):
    """How data differs from the last state of the file."""
    content = [bytes(content) for _, _, content in file.states()][-1]
    first = next((i for i, (a, b) in enumerate(zip(content, data)) if a != b), min(len(content), len(data)))
    same = [sum(a == b for a, b in zip(content[at:at + 4096], data[at:at + 4096])) for at in range(0, len(data), 4096)]
    return f"{len(data)} bytes for {len(content)}, differs from {first} on, bytes alike in each 4 KiB {same[:64]}"


def settle(hosts):
    together(lambda host: host.kill("kinfsd", "mount.kinfs"), hosts.all, 60 * SLACK)
    together(lambda host: host.start(), hosts.all, 120 * SLACK)


def one_round(hosts, left, number, seed, counts):
    folder, chance = f"round{number}", random.Random(f"{seed} {number}")
    os.mkdir(hosts[1].path(f"{SHARED}/{folder}"))
    for host in hosts.all:
        wait_until(lambda: os.path.isdir(host.path(f"{SHARED}/{folder}")), 20, f"{folder} on {host.name}")
    killer = Killer(hosts, f"{seed} {number}")
    writers = [Writer(host, kind, folder, killer, seed) for host in hosts.all
               for kind in ("small", "large", "edit", "save")]
    for writer in writers:
        writer.start()
    moment = chance.uniform(0.1, 3)
    if not killer.done.wait(moment):  # the load goes on for a time, whatever becomes of it
        if number % 2:
            killer.after = chance.choice(writers)
            killer.done.wait(5 * SLACK)
        else:
            killer.gap = chance.choice([0, 0.02, 0.3, 1.5])
        killer.kill()
    settle(hosts)
    for writer in writers:
        writer.join(30 * SLACK)
        if writer.is_alive():
            raise AssertionError(f"{writer.title} still waits for an answer of a mount that was killed")
    left.add(folder, writers)
    wrong, took = left.look(ALL_THERE_S)
    wrong += [writer.wrong for writer in writers if writer.wrong]
    if killer.gone:
        wrong.append(f"{killer.gone} daemons or mounts had ended before they were killed")
    files = [file for writer in writers for file in writer.files]
    now = {"closed": sum(len(w.closes) for w in writers), "fsynced": sum(w.fsyncs for w in writers),
           "closed in the last 50 ms": sum(killer.at - SHORTLY_S < at for w in writers for at in w.closes),
           "in flight": sum(not f.closed and not f.removed for f in files)}
    counts.update(now)
    after = f"after a close of {killer.after.title}" if killer.after else f"{moment:.2f} s in, {killer.gap} s apart"
    say(f"round {number}, killed {after}: {', '.join(f'{n} {what}' for what, n in now.items())}; "
        f"{'not ' if wrong else ''}all there {took:.1f} s after the mounts")
    if wrong:
        say("\n".join(wrong))
    else:
        forget_large(hosts, left, folder, chance)
    return [f"round {number}: {words}" for words in wrong]


def forget_large(hosts, left, folder, chance):
    """What is closed, and large, is removed, or fifty rounds would fill the disk. What was in flight may still come."""
    for file in left.folders[folder].values():
        if file.closed and not file.removed and file.size() > KEPT_BYTES:
            os.unlink(chance.choice(hosts.all).path(f"{SHARED}/{file.name}"))
            file.removed, file.steps = True, []


def kills(rounds, seed):
    counts, wrong = collections.Counter(), []
    with Hosts(3) as hosts:
        hosts[1].must("kinfs", "init", "--mount", SHARED)
        for host in hosts.all[1:]:
            host.must("kinfs", "join", hosts[1].must("kinfs", "invite").strip(), "--mount", SHARED)
        everything = Left(hosts)
        for number in range(1, rounds + 1):
            left = Left(hosts)
            wrong += one_round(hosts, left, number, seed, counts)
            everything.folders.update(left.folders)
            everything.saves.update(left.saves)
        late, took = everything.look(ALL_THERE_S)
        wrong += [f"in the end: {words}" for words in late]
        say(f"all rounds are read again, {took:.1f} s")
    print(f"{rounds} rounds: {', '.join(f'{n} {what}' for what, n in counts.items())}")
    return wrong


def test_left(root):
    """What is said of a folder of this machine, in which a file was being renamed over another."""
    class Here:
        name = "here"

        @staticmethod
        def path(name):
            return root + name
    os.makedirs(root + SHARED + "/round1")
    new, target = File("round1/new"), File("round1/target")
    for file, data in ((new, b"new"), (target, b"old")):
        file.begin("write", 0, data)
        file.promise(closed=True)
    target.begin("replace", 0, b"new")
    new.leaving = True
    left = Left(None)
    left.folders["round1"] = {file.name: file for file in (new, target)}
    left.saves["round1"] = [(new, target, b"new")]
    for shown, wrong in [({"new": b"new", "target": b"old"}, 0), ({"new": b"new", "target": b"new"}, 0),
                         ({"target": b"new"}, 0), ({"target": b"old"}, 1), ({"new": b"ne", "target": b"old"}, 1),
                         ({"new": b"new"}, 1), ({"target": b"new", "target.+here-aaaa": b"old"}, 1)]:
        for name in os.listdir(root + SHARED + "/round1"):
            os.unlink(root + SHARED + "/round1/" + name)
        for name, data in shown.items():
            write(root + SHARED + "/round1/" + name, data)
        said = left.complaints_of(Here, "round1")
        assert len(said) == wrong, (shown, said)


def test_file():
    file = File("f")
    file.begin("make")
    assert file.is_state(None) and file.is_state(b"")
    file.begin("write", 0, b"abcd")
    file.promise()
    file.begin("write", 4, b"efgh")
    for data, good in [(None, False), (b"", False), (b"abc", False), (b"abcd", True), (b"abcdef", True),
                       (b"abcdefgh", True), (b"abcdefg\0", False), (b"abcdefghi", False), (b"abcd\0\0\0\0", False)]:
        assert file.is_state(data) == good, data
    file.promise()
    assert not file.is_state(b"abcdef") and file.is_state(b"abcdefgh")
    file.begin("write", 2, b"CD")
    file.begin("truncate", 3)
    for data, good in [(b"abcdefgh", True), (b"abCDefgh", True), (b"abC", True), (b"abc", False), (b"abCdefgh", False)]:
        assert file.is_state(data) == good, data
    file.begin("replace", 0, b"new")
    file.promise(closed=True)
    assert file.is_state(b"new") and not file.is_state(b"abC") and not file.is_state(b"ne")
    assert file.is_state(b"abC", 0) and not file.is_state(b"xyz", 0)
    file.leaving = True
    assert file.is_state(None) and file.is_state(b"new") and not file.is_state(b"ne")
    file.removed = True
    assert file.is_state(None) and not file.is_state(b"new")
    assert "3 bytes for 3, differs from 2 on" in told(file, b"neu")


def self_test():
    """The checker finds what it is there for."""
    test_file()
    with tempfile.TemporaryDirectory(prefix="kinfs-kills-", dir="/var/tmp") as folder:
        test_left(folder)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seed", type=int, default=1)
    arguments = arguments.parse_args()
    self_test()
    wrong = kills(arguments.rounds, arguments.seed)
    print("\n".join(wrong) or "all that was promised is there")
    sys.exit(1 if wrong else 0)
