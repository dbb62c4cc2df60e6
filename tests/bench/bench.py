#!/usr/bin/env python3
"""Measures file systems beside each other: kinfs, GlusterFS with three replicas, a FUSE pass-through.

    tests/bench/run [--rounds 3] [--scale 0.25] [--peers kinfs,glusterfs,passthrough] [--only NAME,...] [--out FOLDER]

In each round every peer is brought up afresh, measured and taken down before the next has its turn, so that what the
machine does meanwhile meets all of them. A figure counts only when it is true on all hosts: after each workload that
writes, whatever waits to be handed over is waited for, and the tree as another host sees it is compared with the one
that was written. Figures of other runs, and of other machines, cannot be compared with these.

A peer is a program (peers/NAME; kinfs: peer-script): up, down, mountpoint, version, and where there are more hosts
than one, mountpoint_other (the same directory as another host sees it), settle (returns when all replicas have what
was written) and round_trips (how many requests the mount has sent so far, a number).
"""
import argparse
import contextlib
import datetime
import hashlib
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from workloads import WORKLOADS, Place

HERE = os.path.dirname(os.path.abspath(__file__))
PEERS = {"kinfs": os.path.join(HERE, "peer-script"), "glusterfs": os.path.join(HERE, "peers", "glusterfs"),
         "passthrough": os.path.join(HERE, "peers", "passthrough")}
READS = {"ls-lR-cold", "ls-lR-warm", "cat-all-cold", "cat-all-warm", "git-status", "read-1M-cold",
         "read-4k-random-cold", "stat"}


class Peer:
    """One file system, by its program."""

    def __init__(self, name, program):
        self.name, self.program = name, program

    def ask(self, word, timeout=120):
        done = subprocess.run([self.program, word], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=timeout, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{self.name} {word} returned {done.returncode}: {(done.stdout + done.stderr)[-500:]}")
        return done.stdout.strip()

    def can(self, word):
        with open(self.program, encoding="utf-8") as file:
            return f"  {word})" in file.read()


class Source:
    """The tree that is unpacked: a part of this machine's headers, as a tar file."""

    def __init__(self, folder, share):
        everything = []  # the files of each folder
        for root, folders, names in os.walk("/usr/include"):
            folders.sort()
            files = [os.path.join(root, n) for n in sorted(names)]
            everything.append([file for file in files if os.path.isfile(file) and not os.path.islink(file)])
        # Every so many folders with all that is in them: as many files to a folder as in the whole.
        step = max(1, round(sum(map(len, everything)) / max(1, 6000 * share)))
        chosen = [file for files in [files for files in everything if files][::step] for file in files]
        self.tar, self.files = os.path.join(folder, "tree.tar"), len(chosen)
        self.bytes = sum(os.path.getsize(path) for path in chosen)
        subprocess.run(["tar", "-C", "/", "--owner=0", "--group=0", "-cf", self.tar, "--null", "-T", "-"],
                       input=b"\0".join(path[1:].encode() for path in chosen), check=True)


def tree_hash(root):
    """Of all names, types, modes and contents below `root`."""
    total = hashlib.sha256()
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(folders + names):
            path = os.path.join(folder, name)
            info = os.lstat(path)
            total.update(f"{os.path.relpath(path, root)}\0{info.st_mode:o}\0".encode("utf-8", "surrogateescape"))
            if os.path.islink(path):
                total.update(os.readlink(path).encode("utf-8", "surrogateescape"))
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    while part := file.read(1 << 20):
                        total.update(part)
    return total.hexdigest()


def drop_caches():
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("3\n")
        return True
    except OSError:
        return False


def compare_hosts(peer, place_name):
    if peer.can("settle"):
        peer.ask("settle", timeout=300)
    # Where there is nothing to compare too, so that what the kernel has cached afterwards is the same for all peers.
    here = tree_hash(os.path.join(peer.ask("mountpoint"), place_name))
    if not peer.can("mountpoint_other"):
        return
    there = tree_hash(os.path.join(peer.ask("mountpoint_other"), place_name))
    if here != there:
        raise RuntimeError("another host sees another tree than the one that was written")


def measure(peer, source, scratch, options):
    """One round of one peer: a result for each workload."""
    results, good = [], set()
    root = os.path.join(peer.ask("mountpoint"), "bench")
    os.mkdir(root)
    place = Place(root, scratch, source, options.scale)
    counts = peer.can("round_trips")
    for name, unit, cold, needs, work in WORKLOADS:
        if options.only and name not in options.only:
            continue
        result = {"name": name, "unit": unit}
        results.append(result)
        if missing := [n for n in needs if n not in good]:
            result["wrong"] = f"needs {missing[0]}"
            continue
        place.latencies, place.seconds = [], None
        os.sync()  # what an earlier one has left to be written is not this one's to pay
        if cold and not drop_caches():
            result["wrong"] = "caches cannot be dropped: be root"
            continue
        before = int(peer.ask("round_trips")) if counts else 0
        try:
            began = time.perf_counter()
            done = work(place)
            seconds = place.seconds or time.perf_counter() - began
            if counts:
                result["round_trips"] = (int(peer.ask("round_trips")) - before) / done
            if name not in READS:
                compare_hosts(peer, "bench")
            result["rate"] = done / seconds
            good.add(name)
            if place.latencies:
                result["p50_us"] = statistics.median(place.latencies) * 1e6
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            result["wrong"] = str(error)
    return results


def run_rounds(peers, options, scratch):
    source = Source(scratch, options.scale)
    print(f"tree: {source.files} files, {source.bytes / 1e6:.1f} MB", file=sys.stderr)
    record = {"machine": machine(), "tree": {"files": source.files, "bytes": source.bytes}, "versions": {}, "runs": []}
    for round_number in range(1, options.rounds + 1):
        for peer in peers:
            began = time.monotonic()
            results, wrong = [], None
            try:
                peer.ask("up")
                record["versions"].setdefault(peer.name, peer.ask("version"))
                results = measure(peer, source, scratch, options)
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                wrong = str(error)
            finally:
                with contextlib.suppress(RuntimeError, subprocess.SubprocessError):
                    peer.ask("down", timeout=300)
            record["runs"].append({"round": round_number, "peer": peer.name, "wrong": wrong, "results": results})
            with open(os.path.join(options.out, "results.json"), "w", encoding="utf-8") as file:
                json.dump(record, file, indent=1)
            for text in [wrong] + [f"{r['name']}: {r['wrong']}" for r in results if "wrong" in r]:
                if text:
                    print(f"round {round_number}, {peer.name}: {text}", file=sys.stderr)
            print(f"round {round_number}, {peer.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return record


# --- what is printed ---

def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown")
    with open("/proc/meminfo", encoding="utf-8") as file:
        memory_gib = int(file.readline().split()[1]) / 2**20
    disk = subprocess.run(["stat", "-f", "-c", "%T", "/var/tmp"], capture_output=True, text=True, check=False)
    return {"cpu": f"{os.cpu_count()} x {model}", "memory": f"{memory_gib:.0f} GiB", "disk": disk.stdout.strip(),
            "kernel": platform.release(), "date": datetime.datetime.now(datetime.timezone.utc).strftime("%F %R UTC"),
            "load": open("/proc/loadavg", encoding="ascii").read().split()[0],
            "command": shlex.join(["tests/bench/run"] + sys.argv[1:])}


def short(number):
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def values(record, peer, workload, key):
    return [r[key] for run in record["runs"] if run["peer"] == peer for r in run["results"]
            if r["name"] == workload and key in r]


def cell(record, peer, workload, rounds):
    rates = values(record, peer, workload, "rate")
    if not rates:
        return "failed"
    text = short(statistics.median(rates))
    if len(rates) > 1:
        text += f" ±{50 * (max(rates) - min(rates)) / statistics.median(rates):.0f}%"
    return text if len(rates) == rounds else f"{text} ({len(rates)} of {rounds})"


def tables(record):
    peers = list(dict.fromkeys(run["peer"] for run in record["runs"]))
    rounds = max((run["round"] for run in record["runs"]), default=0)
    units = {r["name"]: r["unit"] for run in record["runs"] for r in run["results"]}
    others = [p for p in peers if p != "kinfs"] if "kinfs" in peers else []
    lines = [f"- {name}: {text}" for name, text in record["machine"].items()]
    lines += [f"- {name}: {text.splitlines()[0]}" for name, text in record["versions"].items()]
    lines += [f"- tree: {record['tree']['files']} files, {record['tree']['bytes'] / 1e6:.1f} MB; {rounds} rounds, "
              "interleaved", "",
              "Units a second, medians; ± half of the range of the rounds. kinfs / X: above 1 kinfs is faster.", ""]
    counted = any("round_trips" in r for run in record["runs"] for r in run["results"])
    head = ["workload", "unit"] + peers + [f"kinfs / {p}" for p in others]
    head += ["kinfs: round trips a unit"] if counted else []
    lines += ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    for workload, unit in units.items():
        row = [workload, unit] + [cell(record, p, workload, rounds) for p in peers]
        mine = values(record, "kinfs", workload, "rate")
        for other in others:
            theirs = values(record, other, workload, "rate")
            row.append(short(statistics.median(mine) / statistics.median(theirs)) if mine and theirs else "-")
        if counted:
            trips = values(record, "kinfs", workload, "round_trips")
            row.append(short(statistics.median(trips)) if trips else "-")
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each peer has its turn (3)")
    parser.add_argument("--scale", type=float, default=0.25, help="share of the files and of the calls (0.25)")
    parser.add_argument("--peers", default=",".join(PEERS), help="which of " + ", ".join(PEERS) + "; or NAME=PROGRAM")
    parser.add_argument("--only", type=lambda text: set(text.split(",")), help="these workloads, with what they need")
    parser.add_argument("--out", help="a folder for results.json and table.md (a new one in /var/tmp)")
    options = parser.parse_args()
    peers = []
    for word in options.peers.split(","):
        name, _, program = word.partition("=")
        if not program and name not in PEERS:
            parser.error(f"there is no peer {name}: {', '.join(PEERS)}, or NAME=PROGRAM")
        peers.append(Peer(name, program or PEERS[name]))
    known = {name: needs for name, _, _, needs, _ in WORKLOADS}
    if unknown := sorted((options.only or set()) - set(known)):
        parser.error(f"there is no workload {unknown[0]}: {', '.join(known)}")
    while options.only and (more := {n for w in options.only for n in known[w]} - options.only):
        options.only |= more
    options.out = options.out or tempfile.mkdtemp(prefix="kinfs-bench-", dir="/var/tmp")
    os.makedirs(options.out, exist_ok=True)
    scratch = tempfile.mkdtemp(prefix="kinfs-bench-scratch-", dir="/var/tmp")
    try:
        record = run_rounds(peers, options, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    text = tables(record)
    with open(os.path.join(options.out, "table.md"), "w", encoding="utf-8") as file:
        file.write(text)
    print(text, end="")
    print(f"results.json and table.md are in {options.out}", file=sys.stderr)
    wrong = any(run["wrong"] or any("wrong" in r for r in run["results"]) for run in record["runs"])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
