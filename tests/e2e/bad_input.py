"""What is typed wrong, in use, or not ours, where mounts and labs are concerned: a message that names the thing, the
documented exit code, nothing lost. (The programs without mounts: tests/daemon.)"""
import os
import socket
import sys

import lab as e2e
from lab import kinfs, must, program, read, run, write

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "daemon"))
from common import REFUSED, UNREACHABLE, USAGE, DaemonTest, address  # noqa: E402


class BadInput(DaemonTest):
    def mount(self, *arguments):
        return run(program("mount.kinfs"), *arguments, timeout=30)

    def test_options_of_mount(self):
        os.mkdir(self.at("mnt"))
        for arguments in ([], ["home"], ["home", self.at("mnt"), "more"], ["home", self.at("mnt"), "--verbose"],
                          ["home", self.at("mnt"), "-o"], ["home", self.at("mnt"), "-o", "socket=/x,sokcet=/x"],
                          ["home", self.at("mnt"), "-o", "client=not-hexadecimal"]):
            with self.subTest(arguments):
                text = self.says(self.mount(*arguments), USAGE)
                for wrong in ("--verbose", "sokcet", "not-hexadecimal"):
                    if any(wrong in a for a in arguments):
                        self.assertIn(wrong, text)
        self.assertFalse(os.path.ismount(self.at("mnt")))

    def test_no_daemon(self):
        os.mkdir(self.at("mnt"))
        self.says(self.mount("home", self.at("mnt"), "-o", f"socket={self.at('nobody')}"), UNREACHABLE,
                  self.at("nobody"))
        self.assertFalse(os.path.ismount(self.at("mnt")))

    def test_mountpoints(self):
        self.start(1)
        options = ["-o", f"socket={self.socket(1)}"]
        self.says(self.mount("home", self.at("absent"), *options), REFUSED, self.at("absent"))
        write(self.at("file"), "")
        self.says(self.mount("home", self.at("file"), *options), REFUSED, self.at("file"))
        os.mkdir(self.at("mnt"))
        self.says(self.mount("hoem", self.at("mnt"), *options), REFUSED, "hoem")
        self.says(self.kinfs(1, "mount", "home", self.at("mnt")), 0)
        try:
            self.says(self.mount("home", self.at("mnt"), *options), REFUSED, self.at("mnt"))
            self.says(self.kinfs(1, "mount", "home", self.at("mnt")), REFUSED, self.at("mnt"))
            write(self.at("mnt", "a"), "still served\n")
            self.assertEqual(read(self.at("mnt", "a")), b"still served\n")
            with open(self.at("mnt", "a"), "rb"):
                self.says(self.kinfs(1, "umount", self.at("mnt")), REFUSED, self.at("mnt"))
        finally:
            self.says(self.kinfs(1, "umount", self.at("mnt")), 0)
        self.says(self.kinfs(1, "umount", self.at("mnt")), REFUSED, self.at("mnt"))
        # What was written is there when it is mounted again.
        must(program("kinfs"), "--socket", self.socket(1), "mount", "home", self.at("mnt"))
        try:
            self.assertEqual(read(self.at("mnt", "a")), b"still served\n")
        finally:
            self.says(self.kinfs(1, "umount", self.at("mnt")), 0)
        self.stop(1)

    def test_lab_places(self):
        os.mkdir(self.at("full"))
        write(self.at("full", "thesis.txt"), "mine\n")
        self.says(kinfs("lab", "up", "--nodes", "3", self.at("full")), REFUSED, self.at("full"), "thesis.txt")
        self.assertEqual(read(self.at("full", "thesis.txt")), b"mine\n")
        for verb in (["status"], ["heal"], ["down"]):
            self.says(kinfs("lab", *verb, self.at("no-lab")), REFUSED, self.at("no-lab"))
        with e2e.Lab(hosts=2) as lab:
            self.says(kinfs("lab", "up", "--nodes", "2", lab.root), REFUSED, lab.root)
            for verb in ("cut", "kill", "start"):
                self.says(kinfs("lab", verb, lab.root, "7"), USAGE, "7", "host1, host2")
            write(lab.at(1, "a"), "there\n")
            lab.hold({"a": "there\n"})

    def test_noise_on_the_sockets(self):
        self.start(1)
        host, port = address(1)[len("tcp://"):].split(":")
        for noise in (b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 4096, b"\x00\x00\x00\x05hello", os.urandom(100_000), b""):
            for family, at in ((socket.AF_UNIX, self.socket(1)), (socket.AF_INET, (host, int(port)))):
                with socket.socket(family) as s:
                    s.settimeout(5)
                    s.connect(at)
                    try:
                        s.sendall(noise)
                        s.shutdown(socket.SHUT_WR)
                        while s.recv(65536):
                            pass
                    except OSError:  # that it hangs up is as good as that it does not
                        pass
        self.put(1, "k", b"v")
        self.assertEqual(self.get(1, "k"), b"v")
        self.stop(1)


if __name__ == "__main__":
    e2e.main()
