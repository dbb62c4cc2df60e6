"""From the Debian package to a shared folder, on three machines: at most ten commands, whose transcript is printed.

    packages.py BUILD-FOLDER VERSION      the package is made by cpack from what is built there

Each machine has a root of its own, in which apt installs the package as on any other; systemd runs on none of them.
"""
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

import lab as e2e
from hosts import Hosts, Machine

BUILD, VERSION = "", ""
MOST_COMMANDS = 10


class Packages(unittest.TestCase):
    def setUp(self):
        folder = tempfile.mkdtemp(prefix="kinfs-deb-", dir="/var/tmp")
        self.addCleanup(shutil.rmtree, folder)
        config = os.path.join(BUILD, "CPackConfig.cmake")
        done = subprocess.run(["cpack", "-G", "DEB", "--config", config, "-B", folder], capture_output=True)
        packages = glob.glob(folder + "/*.deb")
        self.assertEqual(len(packages), 1, done.stdout.decode() + done.stderr.decode())
        self.package = os.path.basename(packages[0])
        self.hosts = Hosts(3, kind=Machine)
        self.addCleanup(self.hosts.end)
        for host in self.hosts.all:
            shutil.copy(packages[0], host.path("/root"))
        self.commands = 0

    def types(self, host, line):
        """As root in its home, and as a person would see it."""
        self.commands += 1
        print(f"root@{host.name}:~# {line}", flush=True)
        done = host.run("sh", "-c", "cd /root; exec 2>&1; " + line, timeout=240)
        said = done.stdout.decode("utf-8", "replace")
        print(said, end="", flush=True)
        self.assertEqual(done.returncode, 0, said)
        return said

    def test_three_machines(self):
        one, two, three = self.hosts.all
        for host in self.hosts.all:
            self.types(host, f"apt-get -qq install ./{self.package}")
        self.assertIn("mounted at /srv/shared", self.types(one, "kinfs init --mount /srv/shared"))
        for host in (two, three):
            said = self.types(one, "kinfs invite").splitlines()
            word = next(line for line in said if line.startswith("kinfs-"))
            self.assertIn("mounted at /srv/shared", self.types(host, f"kinfs join {word} --mount /srv/shared"))
        self.types(one, "echo written at host1 > /srv/shared/file")
        self.assertEqual(self.types(three, "cat /srv/shared/file"), "written at host1\n")
        self.assertLessEqual(self.commands, MOST_COMMANDS)
        for host in self.hosts.all:
            self.assertEqual(host.must("sh", "-c", "command -v kinfs"), "/usr/bin/kinfs\n")
            self.assertIn(VERSION, host.must("kinfsd", "--version"))
            self.assertIn(f"kinfs\t{VERSION}\tinstalled",
                          host.must("dpkg-query", "-W", "-f", "${Package}\t${Version}\t${db:Status-Status}\n", "kinfs"))
            self.assertEqual(host.must("stat", "-c", "%a %U:%G", "/var/lib/kinfs"), "700 kinfs:kinfs\n")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    BUILD, VERSION = sys.argv[1:3]
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    del sys.argv[1:3]
    e2e.main()
