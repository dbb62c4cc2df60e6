"""mount.kinfs as mount(8) and systemd call it for a line of fstab."""
import ctypes
import fcntl
import os
import struct
import subprocess
import sys

import lab as e2e
from lab import program, read, run, wait_until, write

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "daemon"))
from common import REFUSED, USAGE, DaemonTest  # noqa: E402

LINE = "rw,user,noexec,nosuid,nodev,_netdev,nofail,auto,relatime,x-systemd.automount,x-systemd.requires=kinfsd.service"


def mounts_at(directory):
    """(source, type, options) of each mount at `directory`, the topmost last."""
    fields = [line.split() for line in read("/proc/mounts").decode().splitlines()]
    return [(f[0], f[2], f[3].split(",")) for f in fields if f[1] == directory]


class Automount:
    """A directory that waits to be mounted, as systemd makes it: autofs, mounted by the process group of this test."""
    READY, FAIL, OPENMOUNT = 0x76, 0x77, 0x74

    def __init__(self, directory):
        self.directory = directory
        self.requests, theirs = os.pipe()
        libc = ctypes.CDLL(None, use_errno=True)
        options = f"fd={theirs},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
        done = libc.mount(b"systemd-1", directory.encode(), b"autofs", 0, options.encode())
        os.close(theirs)
        if done != 0:
            os.close(self.requests)
            raise OSError(ctypes.get_errno(), "autofs")
        self.handle = self.control(self.OPENMOUNT, -1, (self.device(), 0), directory.encode() + b"\0")

    def device(self):
        line = next(l for l in read("/proc/self/mountinfo").decode().splitlines()
                    if l.split()[4] == self.directory and " autofs " in l)
        major, minor = map(int, line.split()[2].split(":"))
        return (minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)

    @staticmethod
    def control(number, handle, arguments, path=b""):
        """struct autofs_dev_ioctl: version 1.1, size, descriptor, arguments, path."""
        block = bytearray(struct.pack("IIIiII", 1, 1, 24 + len(path), handle, *arguments) + path)
        with open("/dev/autofs", "rb", buffering=0) as control:
            fcntl.ioctl(control, (3 << 30) | (24 << 16) | (0x93 << 8) | number, block)
        return struct.unpack_from("IIIiII", block)[3]

    def request(self):
        """Waits until somebody looks into the directory; the token to answer with."""
        return struct.unpack_from("iiI", os.read(self.requests, 4096))[2]

    def answer(self, token, mounted):
        self.control(self.READY if mounted else self.FAIL, self.handle, (token, 0 if mounted else 0xfffffffe))

    def close(self):
        os.close(self.handle)
        os.close(self.requests)
        run("umount", "-l", self.directory)


class Fstab(DaemonTest):
    def setUp(self):
        super().setUp()
        self.start(1)
        os.mkdir(self.at("mnt"))
        self.addCleanup(run, "umount", "-l", self.at("mnt"))

    def mount(self, *arguments, options=LINE, volume="home"):
        # The user option of fstab and what mount(8) adds for a verbose call without mtab, as it passes them.
        return run(program("mount.kinfs"), volume, self.at("mnt"), "-n", "-v", "-s", "-o",
                   f"{options},socket={self.socket(1)}", "-t", "kinfs", *arguments, timeout=30)

    def test_what_mount_passes(self):
        self.says(self.mount(options=LINE + ",dev,remount"), REFUSED, "unmount it")
        self.assertEqual(mounts_at(self.at("mnt")), [])
        # From / mount(8) makes /home of home, since there is such a directory.
        for volume in ("home", "/home"):
            self.says(self.mount(volume=volume), 0)
            (source, kind, options), = mounts_at(self.at("mnt"))
            self.assertEqual((source, kind), ("home", "fuse.kinfs"))
            self.assertIn("nosuid", options)
            write(self.at("mnt", "a"), volume)
            self.says(run("umount", self.at("mnt")), 0)
        self.says(self.mount("-r"), 0)
        with self.assertRaisesRegex(OSError, "Read-only"):
            write(self.at("mnt", "a"), "more")
        self.says(run("umount", self.at("mnt")), 0)
        self.says(self.mount(options="x-systemd.automount,nosuch"), USAGE, "nosuch")

    def test_busy_and_lazy(self):
        self.says(self.mount(), 0)
        file = open(self.at("mnt", "held"), "wb")
        self.assertNotEqual(run("umount", self.at("mnt")).returncode, 0)
        self.says(run("umount", "-l", self.at("mnt")), 0)
        self.assertEqual(mounts_at(self.at("mnt")), [])
        file.write(b"written to a file that was open\n")
        file.close()
        self.says(self.mount(), 0)
        wait_until(lambda: read(self.at("mnt", "held")) == b"written to a file that was open\n", 10, "what was written")
        self.says(run("umount", self.at("mnt")), 0)

    def test_automount(self):
        """systemd's mount(8) may look into the directory without asking for itself, and a child in a new process group
        may not: one that did would wait for ever."""
        try:
            automount = Automount(self.at("mnt"))
        except OSError as error:
            self.skipTest(f"no automounts here: {error}")
        self.addCleanup(automount.close)
        with subprocess.Popen(["cat", self.at("mnt", "absent")], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              start_new_session=True) as user:
            token = automount.request()
            mounted = self.mount()
            automount.answer(token, mounted.returncode == 0)
            self.assertIn(b"No such file", user.communicate(timeout=20)[1])
        self.says(mounted, 0)
        self.assertEqual([kind for _, kind, _ in mounts_at(self.at("mnt"))], ["autofs", "fuse.kinfs"])
        self.says(run("umount", self.at("mnt")), 0)


if __name__ == "__main__":
    e2e.main()
