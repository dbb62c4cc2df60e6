"""Hosts that die: kill -9 of one, of all, of a daemon alone. What was closed is whole, and the others go on."""
import glob
import hashlib
import os
import random
import shutil

import lab as e2e
from lab import LabTest, read, wait_until, write


def bytes_of(name, size):
    """Bytes that belong to a name, so that a file that is not whole, or another, shows."""
    block = hashlib.sha256(name.encode()).digest()
    return (block * (size // len(block) + 1))[:size]


class Faults(LabTest):
    def test_kill_all(self):
        sizes = {f"file{i}": size for i, size in enumerate([0, 1, 100, 5000, 70_000, 1 << 20] * 20)}
        sizes["large"] = 20 << 20
        for i, (name, size) in enumerate(sizes.items()):
            write(self.path(1 + i % 3, name), bytes_of(name, size))
        self.lab.agree(sizes, self.folder, 10)
        os.mkdir(self.path(2, "d"))
        # Host 1 made this directory, and may take names in it for absent for a second (mount.kinfs(8)).
        wait_until(lambda: os.path.exists(self.path(1, "file5")), 2, "host 1 does not see file5")
        os.rename(self.path(1, "file5"), self.path(1, "renamed"))
        os.unlink(self.path(3, "file4"))
        for host in self.lab.each():
            self.lab.lab("kill", host)
        self.assertEqual(e2e.processes_of(self.lab.root), [])
        for host in self.lab.each():
            self.lab.lab("start", host)
        del sizes["file4"]
        for host in self.lab.each():
            self.lab.agree([*(set(sizes) - {"file5"}), "d", "renamed"], self.folder, 10, [host])
            for name, size in sizes.items():
                shown = "renamed" if name == "file5" else name
                self.assertEqual(hashlib.sha256(read(self.path(host, shown))).digest(),
                                 hashlib.sha256(bytes_of(name, size)).digest(), f"{name} on host {host}")
        self.assertEqual(self.lab.conflicts(1, self.folder), (0, ""))

    def test_one_host_dies_and_returns(self):
        write(self.path(2, "before"), "by 2\n")
        self.lab.hold({"before": "by 2\n"}, self.folder)
        self.lab.lab("kill", 2)
        for host in (1, 3):
            for i in range(20):
                write(self.path(host, f"meanwhile{host}-{i}"), f"by {host}, {i}\n")
        write(self.path(1, "before"), "changed\n")
        expected = {f"meanwhile{h}-{i}": f"by {h}, {i}\n" for h in (1, 3) for i in range(20)}
        expected["before"] = "changed\n"
        self.lab.hold(expected, self.folder, hosts=[1, 3])
        self.lab.lab("start", 2)
        self.lab.hold(expected, self.folder, seconds=10)
        write(self.path(2, "after"), "by 2 again\n")
        self.lab.hold({**expected, "after": "by 2 again\n"}, self.folder)

    def test_a_daemon_restarts_below_its_mount(self):
        write(self.path(2, "a"), "before\n")
        self.lab.lab("kill", 2, "--daemon")
        self.lab.lab("start", 2)
        wait_until(lambda: read(self.path(2, "a")) == b"before\n", 10, "the mount of host 2 reads again")
        write(self.path(2, "b"), "after\n")
        self.lab.hold({"a": "before\n", "b": "after\n"}, self.folder)

    def test_killed_while_writing(self):
        """Each write closed before the kill is there after it, whole."""
        for i in range(100):
            write(self.path(3, f"n{i}"), bytes_of(f"n{i}", 3000))
        self.lab.lab("kill", 3)
        self.lab.lab("start", 3)
        self.lab.hold({f"n{i}": bytes_of(f"n{i}", 3000) for i in range(100)}, self.folder, seconds=10)


class EmptiedDisk(LabTest):
    def test_an_emptied_disk_fills_by_itself(self):
        """With no reads and no help: afterwards this host alone has all that the others had."""
        sizes = {f"file{i}": size for i, size in enumerate([0, 1, 100, 5000, 70_000, 1 << 20] * 10)}
        sizes["large"] = 8 << 20
        for i, (name, size) in enumerate(sizes.items()):
            write(self.path(1 + i % 3, name), bytes_of(name, size))
        self.lab.agree(sizes, self.folder, 10)
        full = self.lab.status(1)["disk"]
        self.lab.lab("kill", 2)
        shutil.rmtree(self.lab.state("host2", "data"))
        self.lab.lab("start", 2)

        def filled():
            disk = self.lab.status(2)["disk"]
            return disk["rows"] >= len(sizes) + 2 and disk["block_bytes"] >= full["block_bytes"]
        wait_until(filled, 30, lambda: f"host 2 has what host 1 has, {full}: {self.lab.status(2)['disk']}")
        self.lab.lab("kill", 1)
        self.lab.lab("kill", 3)
        self.lab.agree(sizes, self.folder, 10, [2])
        for name, size in sizes.items():
            self.assertEqual(read(self.path(2, name)), bytes_of(name, size), name)
        self.lab.lab("start", 1)
        self.lab.lab("start", 3)


class PowerCut(LabTest):
    """What a power cut does, done by hand: the index of blocks came to the disk, and the last blocks did not."""
    LOST = "what was not synced"

    def test_blocks_that_it_took_come_back(self):
        large = random.Random(1).randbytes(8 << 20)  # no block like the other
        write(self.path(1, "large"), large)
        full = wait_until(self.stored_by_all, 30, "all hosts have all blocks")
        self.lab.lab("kill", 2)
        self.lab.lab("start", 2)
        self.assertNotIn(self.LOST, self.log())  # a killed process loses nothing
        self.lab.lab("kill", 2)
        segment = max(glob.glob(self.lab.state("host2", "data", "blocks", "*.blocks")))
        os.truncate(segment, os.path.getsize(segment) - (3 << 20))
        os.unlink(glob.glob(self.lab.state("host2", "*.run"))[0])  # which is not there after a start of the machine
        self.lab.lab("start", 2)
        self.assertIn(self.LOST, self.log())
        wait_until(lambda: self.lab.status(2)["disk"]["block_bytes"] >= full, 30,
                   lambda: f"host 2 has all blocks again, {full}: {self.lab.status(2)['disk']}")
        for host in (1, 3):
            self.lab.lab("kill", host)
        self.assertEqual(read(self.path(2, "large")), large)
        for host in (1, 3):
            self.lab.lab("start", host)

    def stored_by_all(self):
        stored = {self.lab.status(host)["disk"]["block_bytes"] for host in self.lab.each()}
        return stored.pop() if len(stored) == 1 and min(stored) > 8 << 20 else None

    def log(self):
        return read(self.lab.state("host2", "kinfsd.log")).decode()


class FlippedBit(LabTest):
    def test_a_flipped_bit_is_found_and_mended(self):
        content = random.Random(2).randbytes(2 << 20)
        write(self.path(1, "f"), content)
        wait_until(lambda: self.flip_in(content[300_000:300_100]), 30, "host 2 has the file's blocks")
        env = {**os.environ, "KINFS_SOCKET": self.lab.state("host2", "kinfsd.sock")}
        found = e2e.kinfs("scrub", env=env, timeout=60)
        self.assertEqual((found.returncode, found.stdout.decode().split(";")[1].strip()),
                         (1, "1 were damaged, and 1 of them are written anew from other hosts"))
        self.assertEqual(self.lab.status(2)["scrub"]["beyond_repair"], 0)
        self.assertIn(b"1 found on host2", e2e.kinfs("status", env=env).stdout)
        self.assertTrue(self.flip_in(content[1_300_000:1_300_100]))
        self.assertEqual(read(self.path(2, "f")), content)  # what is damaged is not served
        e2e.kinfs("scrub", env=env, timeout=60)
        again = e2e.kinfs("scrub", env=env, timeout=60)
        self.assertEqual(again.returncode, 0, again.stdout)
        for host in (1, 3):
            self.lab.lab("kill", host)
        self.assertEqual(read(self.path(2, "f")), content)
        for host in (1, 3):
            self.lab.lab("start", host)

    def flip_in(self, some):
        """A bit of what host 2 has stored; False when it has not got it yet."""
        for name in glob.glob(self.lab.state("host2", "data", "blocks", "*.blocks")):
            at = read(name).find(some)
            if at < 0:
                continue
            with open(name, "r+b") as file:
                file.seek(at)
                file.write(bytes([some[0] ^ 1]))
            return True
        return False


if __name__ == "__main__":
    e2e.main()
