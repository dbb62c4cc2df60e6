"""kinfs lab, mount and umount as programs that start and end others: nothing is left, nothing else is touched."""
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import unittest

from common import ATTENTION, DONE, REFUSED, SLACK, DaemonTest, must, program, read, run, wait_until, write
from lab import processes_of, state_of, take_down


def mounted_below(directory):
    points = [line.split()[1] for line in read("/proc/mounts").decode().splitlines()]
    return [point for point in points if point.startswith(directory + "/")]


class LabTest(DaemonTest):
    def setUp(self):
        super().setUp()
        self.root = self.at("lab")
        self.addCleanup(take_down, self.root)  # before what it lies in is deleted

    def lab(self, verb, *arguments, code=DONE, words=(), root=None, **options):
        return self.says(run(program("kinfs"), "lab", verb, root or self.root, *map(str, arguments), **options), code,
                         *words)

    def hosts(self, root=None):
        done = run(program("kinfs"), "lab", "status", "--json", root or self.root)
        self.assertIn(done.returncode, (DONE, ATTENTION), done.stderr)
        return {h["name"]: h for h in json.loads(done.stdout)["hosts"]}

    def state(self, host, of):
        """What `host` believes of host `of`."""
        text = run(program("kinfs"), "--socket", self.hosts()[f"host{host}"]["socket"], "status", "--json").stdout
        return {h["name"]: h["state"] for h in json.loads(text)["hosts"]}[f"host{of}"]

    def path(self, host, *names):
        return os.path.join(self.root, str(host), *names)

    def nothing_is_left(self, root=None):
        root = root or self.root
        self.assertEqual(processes_of(root), [])
        self.assertEqual(mounted_below(root), [])
        self.assertEqual(state_of(root), "")

    def test_a_lab_has_a_name(self):
        self.says(run(program("kinfs"), "lab", "up", ""), REFUSED, "kinfs lab up DIR")

    def test_up_and_down_leave_nothing(self):
        text = self.lab("up", "--nodes", 2, words=["host1", "host2", self.path(1), "kinfs lab down"])
        self.assertNotIn("host3", text)
        self.assertEqual(sorted(os.listdir(self.root)), ["1", "2"])
        for host in self.hosts().values():
            for kind in ("daemon", "mount"):
                self.assertEqual(os.getsid(host[kind]), host[kind], f"the {kind} outlives the terminal")
        state = state_of(self.root)
        self.assertEqual(os.stat(state).st_mode & 0o777, 0o700)
        self.lab("up", "--nodes", 2, code=REFUSED, words=[self.root, "already"])
        self.lab("down")
        self.nothing_is_left()
        self.assertFalse(os.path.exists(self.root), "the folder that up made")
        os.mkdir(self.root)
        self.lab("up", "--nodes", 1)
        busy = os.open(self.path(1), os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.lab("down")
        finally:
            os.close(busy)
        self.nothing_is_left()
        self.assertEqual(os.listdir(self.root), [], "the folder that was there stays, empty")

    def test_two_labs(self):
        other = self.at("other")
        self.addCleanup(take_down, other)
        both = [subprocess.Popen([program("kinfs"), "lab", "up", "--nodes", "2", root], stdout=subprocess.DEVNULL)
                for root in (self.root, other)]
        self.assertEqual([p.wait(timeout=60 * SLACK) for p in both], [DONE, DONE])
        addresses = [h["address"] for root in (self.root, other) for h in self.hosts(root).values()]
        self.assertEqual(len(set(addresses)), 4)
        everything = run(program("kinfs"), "lab", "status")
        for root in (self.root, other):
            self.assertIn(root.encode() + b"\n", everything.stdout)
        write(self.path(1, "mine"), "x")
        self.lab("down", root=other)
        self.nothing_is_left(other)
        self.assertEqual(read(self.path(1, "mine")), b"x")

    def test_kill_and_start(self):
        self.lab("up", "--nodes", 3)
        write(self.path(1, "a"), "kept\n")
        wait_until(lambda: os.path.exists(self.path(2, "a")), 5, "a on host 2")
        self.lab("kill", 2)
        self.assertIn(self.path(2), mounted_below(self.root), "a plain folder would take files that nobody shares")
        for use in (os.listdir, lambda at: write(os.path.join(at, "stray"), "x")):
            with self.assertRaises(OSError) as dead:
                use(self.path(2))
            self.assertEqual(dead.exception.errno, errno.ENOTCONN)
        self.assertEqual((self.hosts()["host2"]["daemon"], self.hosts()["host2"]["mount"]), (None, None))
        self.lab("status", code=ATTENTION, words=["dead"])
        wait_until(lambda: self.state(1, 2) == "down", 10, "host1 misses host2")
        self.lab("kill", 2, words=["was dead already"])
        write(self.path(1, "b"), "meanwhile\n")
        self.lab("start", "host2", words=[self.path(2)])
        self.assertEqual(self.state(1, 2), "up")
        self.assertEqual(sorted(os.listdir(self.path(2))), ["a", "b"])
        self.assertEqual(mounted_below(self.root).count(self.path(2)), 1, "the dead mount is gone")
        self.lab("start", 2, words=["up already"])
        mount = self.hosts()["host2"]["mount"]
        self.lab("kill", 2, "--daemon")
        self.assertEqual((self.hosts()["host2"]["daemon"], self.hosts()["host2"]["mount"]), (None, mount))
        self.lab("status", code=ATTENTION, words=["no daemon"])
        self.lab("start", 2)
        self.assertEqual(self.hosts()["host2"]["mount"], mount)
        self.assertEqual(read(self.path(2, "b")), b"meanwhile\n")
        self.lab("status")

    def test_a_cut_survives_kill_and_start(self):
        self.lab("up", "--nodes", 3)
        self.lab("cut", 3)
        for one, other in ((1, 3), (3, 1), (2, 3), (3, 2)):
            wait_until(lambda: self.state(one, other) == "down", 10, f"host{one} misses host{other}")
        self.assertEqual(self.state(1, 2), "up")
        self.lab("status", code=ATTENTION, words=["cut off"])
        for host in (3, 1):
            self.lab("kill", host)
            self.lab("start", host)
        write(self.path(3, "a"), "three\n")
        self.assertEqual(self.state(3, 1), "unseen", "it never spoke with host1 since it was started")
        self.assertEqual(self.state(1, 2), "up")
        self.assertFalse(os.path.exists(self.path(1, "a")))
        self.lab("heal")
        wait_until(lambda: self.state(1, 3) == self.state(3, 1) == "up", 10, "they see each other")
        wait_until(lambda: os.path.exists(self.path(1, "a")), 5, "a on host 1")
        self.lab("heal", words=["no host was cut off"])

    def test_down_takes_dead_mounts_away(self):
        self.lab("up", "--nodes", 2)
        self.lab("kill", 1)
        self.lab("down")
        self.nothing_is_left()
        self.assertFalse(os.path.exists(self.root))

    def test_start_names_a_file_in_its_place(self):
        self.lab("up", "--nodes", 2)
        self.lab("kill", 2)
        must("umount", "-l", self.path(2))
        write(self.path(2, "stray.txt"), "mine\n")
        text = self.lab("start", 2, code=REFUSED, words=["stray.txt", self.path(2)])
        self.assertEqual(len(text.splitlines()), 1, text)
        self.assertEqual(read(self.path(2, "stray.txt")), b"mine\n")
        os.unlink(self.path(2, "stray.txt"))
        self.lab("start", 2)

    def test_heal_returns_when_all_hosts_are_back(self):
        """What was written apart is then there on every host, at once."""
        self.lab("up", "--nodes", 3)
        write(self.path(1, "a.txt"), "draft\n")
        wait_until(lambda: os.path.exists(self.path(3, "a.txt")), 5, "a.txt on host 3")
        self.lab("cut", 3)
        for one, other in ((1, 3), (2, 3), (3, 1), (3, 2)):
            wait_until(lambda: self.state(one, other) == "down", 10, f"host{one} misses host{other}")
        for host in (1, 3):
            write(self.path(host, "a.txt"), f"as host {host} sees it\n")
            write(self.path(host, f"by{host}"), "x")
        self.lab("heal", words=["all hosts reach each other"])
        for host in (2, 1, 3):
            names = sorted(os.listdir(self.path(host)))
            self.assertEqual((len(names), names[1:]), (4, ["a.txt", "by1", "by3"]), f"on host {host}")
            self.says(run(program("kinfs"), "--socket", self.hosts()[f"host{host}"]["socket"], "status"), DONE)

    def test_start_says_who_is_not_back(self):
        self.lab("up", "--nodes", 3)
        stuck = self.hosts()["host3"]["daemon"]
        os.kill(stuck, signal.SIGSTOP)
        try:
            text = self.lab("start", 1, code=ATTENTION, words=["host3 is not back yet", "does not answer"])
            self.assertNotIn("host2", text.replace("host2 does not see it", ""))
        finally:
            os.kill(stuck, signal.SIGCONT)
        self.lab("start", 1)

    def test_up_that_fails_ends_what_it_began(self):
        """With a mount.kinfs that refuses, and with one that hangs until the user interrupts."""
        folder = self.at("bin")
        os.mkdir(folder)
        for name in ("kinfs", "kinfsd"):
            shutil.copy(program(name), folder)
        helper = os.path.join(folder, "mount.kinfs")
        write(helper, "#!/bin/sh\necho no mounting today >&2\nexit 4\n")
        os.chmod(helper, 0o755)
        done = run(os.path.join(folder, "kinfs"), "lab", "up", "--nodes", "2", self.root)
        self.says(done, REFUSED, "no mounting today", "mount.log", "has been ended")
        self.nothing_is_left()
        self.assertFalse(os.path.exists(self.root))

        write(helper, f"#!/bin/sh\necho began > {self.at('began')}\nexec tail -f /dev/null\n")
        up = subprocess.Popen([os.path.join(folder, "kinfs"), "lab", "up", self.root], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE)
        try:
            wait_until(lambda: os.path.exists(self.at("began")), 30, "mounting began")
            self.assertNotEqual(processes_of(self.root), [])
            up.send_signal(signal.SIGINT)
            _, words = up.communicate(timeout=30 * SLACK)
        finally:
            up.kill()
        self.assertEqual(up.returncode, REFUSED, words)
        self.assertIn(b"interrupted", words)
        self.nothing_is_left()
        self.assertFalse(os.path.exists(self.root))

    def test_mount_and_umount(self):
        self.lab("up", "--nodes", 2)
        socket, at = self.hosts()["host1"]["socket"], self.at("mnt")
        os.mkdir(at)
        try:
            self.says(run(program("kinfs"), "--socket", socket, "mount", "home", at), DONE)
            self.says(run(program("kinfs"), "--socket", socket, "mount", "home", at), REFUSED, at, "already")
            write(os.path.join(at, "a"), b"x" * 3_000_000)
            with open(os.path.join(at, "a"), "rb"):
                self.says(run(program("kinfs"), "umount", at), REFUSED, at, "in use")
            self.says(run(program("kinfs"), "umount", at), DONE)
            ours = [args for _, args in processes_of(self.directory) if at in args.split()]
            self.assertEqual(ours, [], "umount returned before the mount's process had ended")
            wait_until(lambda: os.path.exists(self.path(2, "a")), 5, "a on host 2")
            self.assertEqual(read(self.path(2, "a")), b"x" * 3_000_000)
        finally:
            if os.path.ismount(at):
                must("umount", "-l", at)

    def test_conflicts_finds_the_daemon_of_each_mount(self):
        self.lab("up", "--nodes", 2)
        os.mkdir(self.path(1, "d"))
        write(self.path(1, "d", "a"), "x\n")
        for path in (self.path(1), self.path(2), self.path(1, "d"), self.path(1, "d", "a")):
            self.says(run(program("kinfs"), "conflicts", path), DONE)
        self.says(run(program("kinfs"), "conflicts", self.path(1, "none")), ATTENTION, self.path(1, "none"))
        self.says(run(program("kinfs"), "conflicts", self.path(1, "d", "a", "b")), REFUSED, "no folder")
        self.says(run(program("kinfs"), "conflicts", self.root), REFUSED, "no mount of kinfs")

    def test_conflicts_says_what_a_sibling_is(self):
        """A directory made on one side of a cut, a file of that name on the other."""
        self.lab("up", "--nodes", 2)
        self.lab("cut", 2)
        os.mkdir(self.path(1, "x"))
        write(self.path(2, "x"), "four")
        self.lab("heal")
        text = self.says(run(program("kinfs"), "conflicts", self.path(1)), ATTENTION, "directory)", "4 bytes)")
        self.assertNotIn(" 0 bytes", text)
        found = json.loads(run(program("kinfs"), "conflicts", "--json", self.path(1)).stdout)
        self.assertEqual([s["type"] for s in found["siblings"]], ["directory", "file"])
        self.assertEqual(found["siblings"][1]["size"], 4)


if __name__ == "__main__":
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        sys.exit("this test mounts file systems: it needs root and /dev/fuse")
    unittest.main(verbosity=2)
