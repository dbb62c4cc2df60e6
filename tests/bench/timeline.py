#!/usr/bin/env python3
"""timeline.py LAB [--creates 300] [--show]: where the time of one small create goes, microsecond by microsecond.

LAB is the directory of a running lab (`kinfs lab up`). Makes small files in LAB/1 while the kernel's tracer (tracefs)
records the requests of FUSE and the system calls of the lab's processes. Prints the median time of each kind of request
and, of the create that took the median time, what each process did when. Tracing costs time itself: what counts here
are the shares, and what waits for what. Needs root.
"""
import argparse
import collections
import os
import re
import statistics
import subprocess
import sys
import time

TRACE = "/sys/kernel/tracing"
CALLS = ("write", "read", "writev", "sendmsg", "recvmsg", "sendto", "recvfrom", "epoll_wait", "pwrite64", "fdatasync",
         "futex", "poll")
LINE = re.compile(r"^\s*(.+)-(\d+)\s+\[(\d+)\]\s+\S+\s+(\d+\.\d+): (\w+)(.*)$")


def put(name, text):
    with open(f"{TRACE}/{name}", "w", encoding="ascii") as file:
        file.write(text)


def threads_of(lab):
    """Thread id -> label, of the lab's daemons and mounts, by the host directory in their arguments."""
    out = {}
    state = subprocess.run(["pgrep", "-af", "kinfsd|mount.kinfs"], capture_output=True, text=True, check=True).stdout
    for line in state.splitlines():
        pid, command = line.split(" ", 1)
        host = re.search(r"host(\d+)", command)
        if not host:
            continue
        program = "mount" if "mount.kinfs" in command else "kinfsd"
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/comm", encoding="ascii", errors="replace") as file:
                name = file.read().strip()
            out[int(thread)] = f"{program}{host.group(1)}" + ("" if thread == pid else f"/{name}")
    return out


def record(folder, creates, threads):
    put("tracing_on", "0")
    put("current_tracer", "nop")
    put("buffer_size_kb", "65536")
    put("trace", "")
    put("set_event", "")
    put("trace_clock", "mono")
    ids = " ".join(str(t) for t in list(threads) + [os.getpid()])
    put("set_event_pid", ids)
    put("options/event-fork", "1")
    events = [f"syscalls/sys_{side}_{call}" for call in CALLS for side in ("enter", "exit")]
    for event in events + ["fuse/fuse_request_send", "fuse/fuse_request_end"]:
        put(f"events/{event}/enable", "1")
    spans = []
    put("tracing_on", "1")
    for i in range(creates):
        name = f"{folder}/f{i}"
        began = time.monotonic()
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        os.write(fd, b"x" * 1024)
        os.close(fd)
        spans.append((began, time.monotonic()))
    put("tracing_on", "0")
    with open(f"{TRACE}/trace", encoding="ascii", errors="replace") as file:
        lines = file.readlines()
    put("set_event", "")
    put("set_event_pid", "")
    put("options/event-fork", "0")
    put("buffer_size_kb", "1408")
    put("trace_clock", "local")
    return spans, lines


def parse(lines):
    for line in lines:
        match = LINE.match(line)
        if match:
            yield float(match.group(4)), int(match.group(2)), int(match.group(3)), match.group(5), match.group(6)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lab")
    parser.add_argument("--creates", type=int, default=300)
    parser.add_argument("--show", action="store_true", help="the timeline of the median create")
    options = parser.parse_args()
    threads = threads_of(options.lab)
    if not threads:
        sys.exit("timeline.py: no lab runs; kinfs lab up --nodes 3 DIR")
    threads[os.getpid()] = "program"
    folder = f"{options.lab}/1/timeline-{os.getpid()}"
    os.mkdir(folder)
    try:
        spans, lines = record(folder, options.creates, threads)
    finally:
        subprocess.run(["rm", "-rf", folder], check=False)
    events = list(parse(lines))
    durations = [end - began for began, end in spans]
    middle = sorted(range(len(spans)), key=lambda i: durations[i])[len(spans) // 2]
    print(f"{options.creates} creates of 1 KiB, traced: median {statistics.median(durations) * 1e6:.0f} us")

    sent, took = {}, collections.defaultdict(list)
    calls = collections.Counter()
    for at, thread, _, event, rest in events:
        unique = re.search(r"req (\d+)", rest)
        if event == "fuse_request_send" and unique:
            sent[unique.group(1)] = (at, re.search(r"\((?:FUSE_)?(\w+)\)", rest).group(1))
        elif event == "fuse_request_end" and unique and unique.group(1) in sent:
            began, opcode = sent.pop(unique.group(1))
            took[opcode].append((at - began) * 1e6)
        elif event.startswith("sys_") and not rest.startswith("->") and "->" not in rest:
            if threads.get(thread, "program") != "program":
                calls[threads[thread].split("/")[0]] += 1
    for name, times in sorted(took.items(), key=lambda kv: -sum(kv[1])):
        print(f"  {name:10} {len(times) / options.creates:5.2f} a create, median {statistics.median(times):6.0f} us")
    print("  system calls a create:",
          ", ".join(f"{name} {count / options.creates:.1f}" for name, count in sorted(calls.items())))
    if options.show:
        began, end = spans[middle]
        for at, thread, cpu, event, rest in events:
            if began <= at <= end:
                who = threads.get(thread, str(thread))
                print(f"{(at - began) * 1e6:8.0f} us  cpu {cpu}  {who:24} {event} {rest[:70]}")


if __name__ == "__main__":
    main()
