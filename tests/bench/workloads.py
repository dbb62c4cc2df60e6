"""What the benchmark does in a directory: programs as people run them, and system calls one by one.

A workload is a function of a Place and returns how many units it did; whoever calls it takes the time. It raises when
what it read is not what was written: a file system that is fast because it loses things gets no figure.
"""
import json
import os
import subprocess
import time


class Place:
    """Where one peer is measured: `root` in its mount, `scratch` outside of it."""

    def __init__(self, root, scratch, source, scale):
        self.root, self.scratch, self.source, self.scale = root, scratch, source, scale
        self.latencies = []  # seconds, of the workload that runs
        self.seconds = None  # what it took, where the workload knows better than the clock around it

    def at(self, *names):
        return os.path.join(self.root, *names)

    def many(self, count):
        return max(4, round(count * self.scale))

    def shell(self, command, timeout=600):
        environment = {**os.environ, "LC_ALL": "C", "HOME": self.scratch, "GIT_CONFIG_NOSYSTEM": "1",
                       **{f"GIT_{who}_{what}": "bench@localhost" for who in ("AUTHOR", "COMMITTER")
                          for what in ("NAME", "EMAIL")}}
        done = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", command], cwd=self.root, env=environment,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{command}: returned {done.returncode}: {done.stderr[-300:]}")
        return done.stdout

    def each(self, count, act):
        self.latencies = []
        for number in range(count):
            began = time.perf_counter()
            act(number)
            self.latencies.append(time.perf_counter() - began)
        return count


def put(path, data, sync=False, append=False):
    fd = os.open(path, os.O_WRONLY | (os.O_CREAT | os.O_APPEND if append else os.O_CREAT | os.O_EXCL), 0o644)
    try:
        if os.write(fd, data) != len(data):
            raise RuntimeError(f"{path}: a short write")
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


# --- trees, with the programs that people use ---

def untar(place):
    place.shell(f"mkdir tree && tar -xf '{place.source.tar}' -C tree")
    return place.source.files


def list_tree(place):
    if (found := int(place.shell("ls -lR tree | grep -c '^-'"))) != place.source.files:
        raise RuntimeError(f"{found} of {place.source.files} files are listed")
    return place.source.files


def read_tree(place):
    if (found := int(place.shell("find tree -type f -print0 | xargs -0 cat | wc -c"))) != place.source.bytes:
        raise RuntimeError(f"{found} of {place.source.bytes} bytes are read")
    return place.source.files


def copy_tree(place):
    place.shell("cp -a tree copy")
    return place.source.files


def git_commit(place):
    place.shell("cd tree && git -c init.defaultBranch=main init -q && git add -A && git -c gc.auto=0 commit -q -m all")
    return place.source.files


def git_status(place):
    if place.shell("cd tree && git -c safe.directory='*' status --porcelain"):
        raise RuntimeError("git finds changes that nobody made")
    return place.source.files


def remove_tree(place):
    place.shell("rm -r copy")
    return place.source.files


# --- one big file ---

def fio(place, *arguments):
    command = ["fio", "--name=job", f"--filename={place.at('big')}", "--ioengine=psync", "--fallocate=none", "--thread",
               f"--size={place.many(256)}M", "--output-format=json", *arguments]
    done = subprocess.run(command, cwd=place.scratch, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"fio returned {done.returncode}: {done.stderr[-300:]}")
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    place.seconds = sum(job[way]["runtime"] for way in ("read", "write")) / 1000  # fio's start takes 0.3 s
    return job


def write_big(place):
    return fio(place, "--rw=write", "--bs=1M", "--end_fsync=1")["write"]["io_bytes"] / 2**20


def read_big(place):
    return fio(place, "--rw=read", "--bs=1M")["read"]["io_bytes"] / 2**20


def read_random(place):
    return fio(place, "--rw=randread", "--bs=4k", f"--number_ios={place.many(8000)}")["read"]["total_ios"]


# --- system calls ---

def create(place):
    os.mkdir(place.at("small"))
    return place.each(place.many(2000), lambda n: put(place.at("small", f"{n:06}.txt"), b"x" * 1024))


def stat(place):
    def one(number):
        if os.lstat(place.at("small", f"{number:06}.txt")).st_size != 1024:
            raise RuntimeError(f"{number:06}.txt has not the size that was written")
    return place.each(place.many(2000), one)


def rename(place):
    return place.each(place.many(2000), lambda n: os.rename(place.at("small", f"{n:06}.txt"),
                                                             place.at("small", f"moved-{n:06}.txt")))


def unlink(place):
    return place.each(place.many(2000), lambda n: os.unlink(place.at("small", f"moved-{n:06}.txt")))


def save(place):
    """As editors do: a new file, on disk, over the old one."""
    os.mkdir(place.at("docs"))

    def one(number):
        put(place.at("docs", f".doc.swp{number}"), b"x" * 16384, sync=True)
        os.rename(place.at("docs", f".doc.swp{number}"), place.at("docs", "doc.txt"))
    return place.each(place.many(300), one)


def append(place):
    fd = os.open(place.at("log"), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    try:
        def one(number):
            os.write(fd, b"%098d\n\n" % number)
            os.fsync(fd)
        return place.each(place.many(500), one)
    finally:
        os.close(fd)


# name, unit, whether the kernel's caches are dropped before, what must have gone well before, function
WORKLOADS = [
    ("untar", "files", False, (), untar),
    ("ls-lR-cold", "files", True, ("untar",), list_tree),
    ("ls-lR-warm", "files", False, ("untar",), list_tree),
    ("cat-all-cold", "files", True, ("untar",), read_tree),
    ("cat-all-warm", "files", False, ("untar",), read_tree),
    ("cp-a", "files", False, ("untar",), copy_tree),
    ("rm-r", "files", False, ("cp-a",), remove_tree),
    ("git-commit", "files", False, ("untar",), git_commit),
    ("git-status", "files", False, ("git-commit",), git_status),
    ("write-1M", "MiB", False, (), write_big),
    ("read-1M-cold", "MiB", True, ("write-1M",), read_big),
    ("read-4k-random-cold", "reads", True, ("write-1M",), read_random),
    ("create", "files", False, (), create),
    ("stat", "files", False, ("create",), stat),
    ("rename", "files", False, ("create",), rename),
    ("unlink", "files", False, ("rename",), unlink),
    ("save", "saves", False, (), save),
    ("append-fsync", "appends", False, (), append),
]
