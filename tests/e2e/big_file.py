"""One big file through two mounts: the same bytes, in memory that does not grow with it.

Usage: big_file.py [--mib N]; 1024 unless told.
"""
import hashlib
import os
import sys

import lab as e2e
from lab import LabTest

MIB = 128 if e2e.SANITIZED else 1024


def chunk(i):
    """1 MiB that differs for each i and does not compress."""
    return hashlib.shake_128(i.to_bytes(8, "big")).digest(1 << 20)


class BigFile(LabTest):
    def test_the_kernel_reads_ahead_by_the_largest_request(self):
        device = os.stat(self.path(1)).st_dev
        with open(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb", encoding="ascii") as file:
            self.assertEqual(int(file.read()), 1024)

    def test_stream(self):
        memory = e2e.Memory(self.lab)
        self.addCleanup(memory.stop)
        written = hashlib.sha256()
        with open(self.path(1, "big"), "wb") as file:
            for i in range(MIB):
                file.write(chunk(i))
                written.update(chunk(i))
            os.fsync(file.fileno())
        self.lab.agree(["big"], self.folder)
        seen = hashlib.sha256()
        with open(self.path(2, "big"), "rb") as file:
            while data := file.read(1 << 20):
                seen.update(data)
        self.assertEqual(os.path.getsize(self.path(2, "big")), MIB << 20)
        self.assertEqual(seen.hexdigest(), written.hexdigest())
        with open(self.path(3, "big"), "rb") as file:
            file.seek((MIB - 1) << 20)
            self.assertEqual(file.read(), chunk(MIB - 1))
        peaks = memory.stop()
        print("peak of anonymous memory, MiB:", peaks, file=sys.stderr)
        self.assertEqual(len(peaks), 6)
        if not e2e.SANITIZED:
            self.assertLess(max(peaks.values()), e2e.MAX_RESIDENT_MIB, peaks)

    def test_overwrite_in_the_middle(self):
        """A small change of a large file, and a shorter and a longer end."""
        size = (16 << 20) + 12345
        content = bytearray(b"".join(chunk(i) for i in range(17))[:size])
        with open(self.path(1, "f"), "wb") as file:
            file.write(content)
        self.lab.hold({"f": bytes(content)}, self.folder)
        with open(self.path(2, "f"), "r+b") as file:
            file.seek(5_000_001)
            file.write(b"changed")
        content[5_000_001:5_000_008] = b"changed"
        self.lab.hold({"f": bytes(content)}, self.folder)
        os.truncate(self.path(3, "f"), 3_000_000)
        self.lab.hold({"f": bytes(content[:3_000_000])}, self.folder)
        os.truncate(self.path(1, "f"), 3_100_000)
        self.lab.hold({"f": bytes(content[:3_000_000]) + bytes(100_000)}, self.folder)


if __name__ == "__main__":
    if "--mib" in sys.argv:
        at = sys.argv.index("--mib")
        MIB = int(sys.argv[at + 1])
        del sys.argv[at:at + 2]
    e2e.main()
