"""tar(1) unpacks a tree while a host, or the daemon below its own mount, is killed: it ends without an error, none of
its system calls takes 2 s, and soon after the start of what was killed all hosts have the same tree.

    untar.py [--tree DIR]      some 1,500 files of its own unless told, as /usr/include

The calls are timed by strace(1). In failover.py the calls of a program are timed by itself, and what is checked
afterwards goes further.
"""
import os
import re
import subprocess
import sys
import threading
import time

import lab as e2e
from lab import LabTest, SLACK, must, run, wait_until, write

FILES = 300 if e2e.SANITIZED else 1500
LARGE = 3 << 20
MOST_SECONDS = 2 * SLACK  # a call
SAME_SECONDS = 30         # after the start of what was killed
TREE = ""
CALL = re.compile(r"(?:<\.\.\. )?(\w+).* <(\d+\.\d+)>$")


def make_tree(root):
    """As a source package has it."""
    for number in range(FILES):
        folder = os.path.join(root, f"part{number % 20}", f"sub{number % 7}")
        os.makedirs(folder, exist_ok=True)
        write(os.path.join(folder, f"file{number}.h"), f"/* {number} */\n" * (number * 37 % 900))
        if number % 50 == 0:
            os.symlink(f"file{number}.h", os.path.join(folder, f"link{number}.h"))
    write(os.path.join(root, "large"), os.urandom(LARGE))


class Untar(LabTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.tree = TREE or os.path.join(cls.lab.directory, "tree")
        if not TREE:
            make_tree(cls.tree)
        cls.archive = os.path.join(cls.lab.directory, "tree.tar")
        must("tar", "-C", cls.tree, "-cf", cls.archive, ".", timeout=300)
        cls.total = len(must("tar", "-tf", cls.archive, timeout=300).splitlines())

    def untar_while(self, host, disturb):
        """Unpacks on `host`; disturb() is called when half is done."""
        trace, names = os.path.join(self.lab.directory, self.folder), []
        began = time.monotonic()
        tar = subprocess.Popen(["strace", "-f", "-T", "-o", trace, "tar", "-xvf", self.archive, "-C", self.path(host)],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(tar.kill)  # when a condition is not met; else it has ended
        threads = [threading.Thread(target=lambda: names.extend(iter(tar.stdout.readline, b""))),
                   threading.Thread(target=lambda: errors.append(tar.stderr.read()))]
        errors = []
        for thread in threads:
            thread.start()
        wait_until(lambda: len(names) >= self.total // 2 or tar.poll() is not None, 300,
                   lambda: f"half of {self.total} names unpacked: {len(names)}")
        self.assertIsNone(tar.poll(), f"tar ended after {len(names)} names: {errors}")
        at = time.monotonic() - began
        disturb()
        self.assertEqual(tar.wait(300 * SLACK), 0, errors)
        took = time.monotonic() - began
        for thread in threads:
            thread.join()
        tar.stdout.close()
        tar.stderr.close()
        self.assertEqual(errors, [b""])
        self.assertEqual(len(names), self.total)
        calls = self.calls(trace)
        print(f"{self.total} names in {took:.1f} s, killed at {at:.1f} s; {len(calls)} calls, the longest " +
              ", ".join(f"{seconds:.2f} s {name}" for seconds, name in calls[:3]), flush=True)
        self.assertLess(calls[0][0], MOST_SECONDS, calls[:10])

    def calls(self, trace):
        """(seconds, call), the longest first."""
        with open(trace, encoding="utf-8", errors="replace") as file:
            found = (CALL.match(line.split(maxsplit=1)[1]) for line in file)
            return sorted(((float(m[2]), m[1]) for m in found if m), reverse=True)

    def differences(self):
        """What diff -r says of each host and what was packed."""
        said = b""
        for host in self.lab.each():
            done = run("diff", "-r", "--no-dereference", self.tree, self.path(host), timeout=300)
            said += done.stdout + done.stderr
        return said

    def start_and_compare(self):
        began = time.monotonic()
        start = e2e.kinfs("lab", "start", self.lab.root, "2")
        # 1: it serves, and is still being given what the others kept for it, as is said.
        self.assertIn(start.returncode, (0, 1), start.stderr)
        print(start.stderr.decode(), end="")
        started, tries, last = time.monotonic(), [], [b""]

        def same():
            tries.append(time.monotonic() - began)
            last[0] = self.differences()
            return not last[0]
        wait_until(same, SAME_SECONDS, lambda: f"the same everywhere: {last[0][:2000]}")
        print(f"started in {started - began:.1f} s; a diff that began {tries[-1]:.1f} s after the start (try "
              f"{len(tries)}) found nothing and took {time.monotonic() - began - tries[-1]:.1f} s", flush=True)

    def setUp(self):
        super().setUp()
        # The other hosts have heard by which key the mount of host 2 will come to them.
        wait_until(lambda: all(self.lab.status(h)["safe"] for h in self.lab.each()), 30, "the hosts see each other")

    def test_another_host_is_killed(self):
        self.untar_while(1, lambda: self.lab.lab("kill", 2))
        self.start_and_compare()

    def test_the_own_daemon_is_killed(self):
        self.untar_while(2, lambda: self.lab.lab("kill", 2, "--daemon"))
        self.start_and_compare()


if __name__ == "__main__":
    if "--tree" in sys.argv:
        at = sys.argv.index("--tree")
        TREE = os.path.abspath(sys.argv[at + 1])
        del sys.argv[at:at + 2]
    e2e.main()
