"""A lab of several hosts for one test program, and what the tests share: commands, waiting, cleaning up.

Every lab lies in a directory of its own under /var/tmp and is taken down whatever happens to the test: at the end,
on an exception, and, by a process that outlives the test for that alone, when the test itself is killed.
"""
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

# The folder with kinfs, kinfsd and mount.kinfs; "": they are where the system has them.
BIN = os.environ.get("KINFS_BIN", "") and os.path.abspath(os.environ["KINFS_BIN"])
SIBLING = re.compile(r"^(?P<stem>.*)\.\+(?P<host>[a-z0-9]{1,12})-(?P<tag>[a-z2-7]{4,})(?P<ext>(\.[^.]+)?)$")
# Under a sanitizer everything is slower: promises in seconds are held in release.
SANITIZED = os.environ.get("KINFS_SANITIZED", "") != ""
SLACK = 6 if SANITIZED else 1
MAX_RESIDENT_MIB = 300  # of a daemon, and of a mount


def wait_until(holds, seconds, what):
    """Calls holds() until it returns something true, and returns that; fails with `what` after `seconds`."""
    deadline, last = time.monotonic() + seconds * SLACK, None
    while True:
        try:
            if value := holds():
                return value
        except OSError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds * SLACK} s still not: {what() if callable(what) else what}" +
                                 (f" ({last})" if last else ""))
        time.sleep(0.05)


def run(*command, stdin=b"", cwd=None, timeout=60, env=None):
    """Runs a command to its end; stdout and stderr are bytes."""
    return subprocess.run([os.fspath(c) if isinstance(c, os.PathLike) else c for c in command], input=stdin, cwd=cwd,
                          timeout=timeout * SLACK, capture_output=True, env=env)


def must(*command, **options):
    done = run(*command, **options)
    if done.returncode != 0:
        raise AssertionError(f"{command} returned {done.returncode}\n{done.stdout.decode('utf-8', 'replace')}"
                             f"{done.stderr.decode('utf-8', 'replace')}")
    return done.stdout


def program(name):
    return os.path.join(BIN, name) if BIN else name


def kinfs(*arguments, **options):
    return run(program("kinfs"), *arguments, **options)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, data, mode="w"):
    with open(path, mode + "b") as file:
        file.write(data if isinstance(data, bytes) else data.encode())


def _after_the_test(directory, pipe):
    """A process of its own, not the test's child: waits for the test's end and removes what is left of it."""
    if os.fork():
        os.wait()
        return
    if os.fork():
        os._exit(0)
    os.setsid()
    for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.close(pipe[1])
    while os.read(pipe[0], 1):
        pass
    if os.path.isdir(directory):
        take_down(os.path.join(directory, "lab"))
    shutil.rmtree(directory, ignore_errors=True)
    os._exit(0)


def take_down(directory):
    """Ends the lab at `directory`; when `kinfs lab down` cannot, by hand. Returns what was wrong."""
    try:
        down = kinfs("lab", "down", directory, timeout=60)
        wrong = "" if down.returncode == 0 else (down.stdout + down.stderr).decode("utf-8", "replace")
    except (subprocess.TimeoutExpired, OSError) as error:
        wrong = str(error)
    for line in reversed(read("/proc/mounts").decode("utf-8", "surrogateescape").splitlines()):
        at = line.split()[1]
        if at.startswith(directory + "/"):
            subprocess.run(["umount", "-l", at], capture_output=True)
            wrong += f"{at} was still mounted\n"
    for pid, arguments in processes_of(directory):
        try:
            os.kill(pid, signal.SIGKILL)
            wrong += f"{arguments} was still running\n"
        except ProcessLookupError:
            pass
    return wrong


def processes_of(directory):
    """(pid, command line) of the daemons and mounts that serve the lab at `directory`."""
    state = state_of(directory)
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            arguments = read(f"/proc/{pid}/cmdline").decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        if os.path.basename(arguments[0]) in ("kinfsd", "mount.kinfs") and any(
                a.startswith(directory + "/") or (state and a.startswith(state + "/")) for a in arguments):
            found.append((int(pid), " ".join(arguments)))
    return found


def state_of(directory):
    """The folder in /var/tmp/kinfs-lab that belongs to the lab at `directory`, as its lab.json says; "" when none."""
    for record in glob.glob("/var/tmp/kinfs-lab/*/lab.json"):
        try:
            if json.loads(read(record))["directory"] == directory:
                return os.path.dirname(record)
        except (OSError, ValueError, KeyError):
            pass
    return ""


class Lab:
    """`with Lab() as lab:`, or start() and stop(). lab.at(2, "name") is a path as host 2 sees it."""

    def __init__(self, hosts=3):
        self.hosts = hosts
        self.directory = tempfile.mkdtemp(prefix="kinfs-e2e-", dir="/var/tmp")
        self.root = os.path.join(self.directory, "lab")
        self._pipe = os.pipe()
        _after_the_test(self.directory, self._pipe)
        os.close(self._pipe[0])
        # The sanitizers of daemons and mounts, whose output nobody sees, write here; stop() looks.
        self.reports = os.path.join(self.directory, "sanitizer")
        for name in ("ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"):
            options = [o for o in os.environ.get(name, "").split(":") if o and not o.startswith("log_path=")]
            os.environ[name] = ":".join(options + [f"log_path={self.reports}"])

    def start(self):
        must(program("kinfs"), "lab", "up", "--nodes", str(self.hosts), self.root, timeout=60)
        return self

    def stop(self):
        wrong = take_down(self.root)
        if os.path.isdir(self.root) and os.listdir(self.root):
            wrong += f"left in {self.root}: {os.listdir(self.root)}\n"
        for report in glob.glob(self.reports + ".*"):
            wrong += read(report).decode("utf-8", "replace")
        shutil.rmtree(self.directory, ignore_errors=True)
        os.close(self._pipe[1])
        if wrong:
            raise AssertionError(wrong)

    __enter__ = start

    def __exit__(self, kind, value, trace):
        try:
            self.stop()
        except AssertionError:
            if kind is None:
                raise

    def at(self, host, *names):
        return os.path.join(self.root, str(host), *names)

    def each(self):
        return range(1, self.hosts + 1)

    def lab(self, verb, *arguments):
        return must(program("kinfs"), "lab", verb, self.root, *map(str, arguments))

    def cut(self, *hosts):
        for host in hosts:
            self.lab("cut", host)

    def heal(self):
        self.lab("heal")

    def names(self, host, folder=""):
        return sorted(os.listdir(self.at(host, folder)))

    def agree(self, names, folder="", seconds=5, hosts=None):
        """Until all hosts list exactly `names` in `folder`."""
        hosts = hosts or self.each()
        wait_until(lambda: all(self.names(h, folder) == sorted(names) for h in hosts), seconds,
                   lambda: f"{sorted(names)} in {folder or '/'} on hosts {list(hosts)}: " +
                   str([self.names(h, folder) for h in hosts]))

    def hold(self, contents, folder="", seconds=5, hosts=None, only=True):
        """Until all hosts list the names in `contents`, and no others when `only`, and read its bytes under them."""
        if only:
            self.agree(contents, folder, seconds, hosts)
        for host in hosts or self.each():
            wait_until(lambda: set(contents) <= set(self.names(host, folder)), seconds,
                       lambda: f"{sorted(contents)} on host {host}: {self.names(host, folder)}")
        for host in hosts or self.each():
            for name, data in contents.items():
                data = data if isinstance(data, bytes) else data.encode()
                wait_until(lambda: read(self.at(host, folder, name)) == data, seconds,
                           lambda: f"{data!r} in {name} on host {host}: {read(self.at(host, folder, name))!r}")

    def siblings(self, plain, folder="", seconds=5):
        """Until all hosts list `plain` and one sibling of it and nothing else; returns the sibling's name."""
        stem, extension = os.path.splitext(plain)

        def two_names():
            names = self.names(1, folder)
            others = [n for n in names if n != plain]
            match = SIBLING.match(others[0]) if len(others) == 1 and plain in names else None
            return match and (match["stem"], match["ext"]) == (stem, extension) and \
                all(self.names(h, folder) == names for h in self.each()) and others[0]
        return wait_until(two_names, seconds, lambda: f"{plain} and one sibling of it, in {folder or '/'}: " +
                          str([self.names(h, folder) for h in self.each()]))

    def state(self, *names):
        """A path in the folder where the lab keeps what its hosts have."""
        return os.path.join(state_of(self.root), *names)

    def status(self, host):
        """What `kinfs status --json` says on a host."""
        env = {**os.environ, "KINFS_SOCKET": self.state(f"host{host}", "kinfsd.sock")}
        return json.loads(kinfs("status", "--json", env=env).stdout)

    def conflicts(self, host=1, folder=""):
        """(exit code, output) of `kinfs conflicts`."""
        done = kinfs("conflicts", "--json", self.at(host, folder))
        return done.returncode, done.stdout.decode()


class Memory:
    """Watches how much memory of its own each daemon and mount of a lab takes: anonymous and shared pages. Those of
    files are the system's to drop."""
    EVERY_SECONDS = 0.1

    def __init__(self, lab):
        self._names = {pid: f"{os.path.basename(arguments.split()[0])} {pid}"
                       for pid, arguments in processes_of(lab.root)}
        self._peaks = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _look(self):
        for pid, name in self._names.items():
            try:
                status = read(f"/proc/{pid}/status").decode()
            except OSError:
                continue
            kib = sum(map(int, re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+) kB", status, re.MULTILINE)))
            self._peaks[name] = max(self._peaks.get(name, 0), kib >> 10)

    def _watch(self):
        while not self._end.wait(self.EVERY_SECONDS):
            self._look()

    def stop(self):
        """The peak of each so far, in MiB, by program and pid."""
        self._end.set()
        self._thread.join()
        self._look()
        return self._peaks


class LabTest(unittest.TestCase):
    """One lab for all tests of a class; each test gets a folder of its own, seen by all hosts."""
    hosts = 3
    maxDiff = 4000

    @classmethod
    def setUpClass(cls):
        cls.lab = Lab(cls.hosts)
        try:
            cls.lab.start()
        except BaseException:
            try:
                cls.lab.stop()
            except AssertionError as error:
                print(error, file=sys.stderr)
            raise
        cls.addClassCleanup(cls.lab.stop)

    def setUp(self):
        self.folder = self.id().rsplit(".", 1)[-1]
        os.mkdir(self.lab.at(1, self.folder))
        for host in self.lab.each():
            wait_until(lambda: os.path.isdir(self.path(host)), 5, f"{self.folder} on host {host}")

    def path(self, host, *names):
        return self.lab.at(host, self.folder, *names)


def main():
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        sys.exit("this test mounts file systems: it needs root and /dev/fuse")
    unittest.main(verbosity=2)
