"""One daemon: what it refuses, with which words and exit code, and how it stops."""
import glob
import os
import signal
import socket
import subprocess
import unittest

from common import DONE, INTERNAL, REFUSED, SLACK, USAGE, DaemonTest, address, program, read, run, write


class Kinfsd(DaemonTest):
    def kinfsd(self, *arguments):
        return run(program("kinfsd"), *arguments, timeout=30)

    def refused(self, file, code, *words):
        return self.says(self.kinfsd("--config", file), code, *words)

    def test_options(self):
        for arguments, words in ((["--confgi", "x"], ["--confgi", "mean --config?"]), (["serve"], ["serve"]),
                                 (["--config"], ["--config needs a value"]),
                                 (["--config", self.at("none.toml")], [self.at("none.toml")])):
            with self.subTest(arguments):
                self.says(self.kinfsd(*arguments), USAGE, *words)
        self.says(self.kinfsd("--help"), DONE, "--check-config")
        self.says(self.kinfsd("--version"), DONE, "kinfsd ")

    def test_check_config(self):
        file = self.configure(1)
        self.says(self.kinfsd("--check-config", "--config", file), DONE, file, "good")
        self.assertFalse(os.path.exists(self.at("1")), "--check-config made the data directory")
        write(file, read(file).replace(b"data_dir", b"data_dri"))
        line = read(file).decode().splitlines().index(f'data_dri = "{self.at("1")}"') + 1
        for arguments in (["--check-config"], []):
            self.says(self.kinfsd(*arguments, "--config", file), USAGE, f"{file}:{line}:",
                      "did you mean node.data_dir?")

    def test_key_file(self):
        file, key = self.configure(1), self.at("1.key")
        self.says(self.kinfsd("--make-key", key), REFUSED, key, "already")
        self.assertEqual(os.stat(key).st_mode & 0o777, 0o600)
        for mode in (0o644, 0o640, 0o604):
            os.chmod(key, mode)
            self.refused(file, REFUSED, key, f"{mode:04o}", "chmod 600")
        os.chmod(key, 0o600)
        write(key, read(key)[:100])
        self.refused(file, INTERNAL, key, "no key file, or is damaged")
        os.unlink(key)
        self.refused(file, REFUSED, key, "--make-key")
        os.mkdir(key)
        self.refused(file, REFUSED, key)

    def test_key_of_another_host(self):
        file = self.configure(1, hosts=2)
        write(self.at("1.key"), read(self.at("2.key")))
        self.refused(file, REFUSED, self.at("1.key"), self.key(1), self.key(2))

    def test_port_in_use(self):
        file = self.configure(1)
        host, port = address(1)[len("tcp://"):].split(":")
        with socket.socket() as taken:
            taken.bind((host, int(port)))
            taken.listen()
            self.refused(file, REFUSED, address(1))

    def test_data_directory_in_use(self):
        self.start(1)
        file = self.configure(1)
        self.refused(file, REFUSED, self.at("1"))
        self.put(1, "k", b"still served")

    def test_socket_of_another_daemon(self):
        self.start(1)
        file = self.configure(2, hosts=2)
        write(file, read(file).replace(self.socket(2).encode(), self.socket(1).encode()))
        self.refused(file, REFUSED, self.socket(1))
        self.put(1, "k", b"still served")

    def test_foreign_data_directory(self):
        os.mkdir(self.at("1"))
        write(self.at("1", "thesis.txt"), "mine\n")
        self.refused(self.configure(1), REFUSED, self.at("1"))
        self.assertEqual(os.listdir(self.at("1")), ["thesis.txt"])

    def test_data_directory_of_another_host_or_cluster(self):
        self.start(1)
        self.put(1, "k", b"v")
        self.stop(1)
        file = self.configure(1)
        text = read(file)
        write(file, text.replace(b'id = "test"', b'id = "other"'))
        self.refused(file, REFUSED, self.at("1"))
        write(file, text.replace(b"1.key", b"2.key").replace(self.key(1).encode(), self.key(2).encode()))
        self.refused(file, REFUSED, self.at("1"))
        self.start(1)
        self.assertEqual(self.get(1, "k"), b"v")

    def test_truncated_data_directory(self):
        for pattern in ("CURRENT", "MANIFEST-*"):
            with self.subTest(pattern):
                self.start(1)
                self.put(1, "k", b"v" * 10_000)
                self.stop(1)
                found = glob.glob(os.path.join(glob.escape(self.at("1")), "**", pattern), recursive=True)
                self.assertTrue(found)
                whole = {name: read(name) for name in found}
                for name in found:
                    os.truncate(name, 3)
                self.refused(self.configure(1), INTERNAL, self.at("1"))
                for name, data in whole.items():
                    write(name, data)
                self.start(1)
                self.assertEqual(self.get(1, "k"), b"v" * 10_000)
                self.stop(1)

    def test_log_that_cannot_be_written(self):
        write(self.at("file"), "")
        file = self.configure(1, more=f'[log]\nfile = "{self.at("file", "log")}"\n')
        self.refused(file, REFUSED, self.at("file", "log"))

    def test_log_file(self):
        log = self.at("its.log")
        self.start(1, more=f'[log]\nlevel = "info"\nfile = "{log}"\n')
        self.stop(1)
        self.assertIn("h1 serves", read(log).decode())
        self.assertIn("stopped", read(log).decode())

    def test_stops_cleanly(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            self.start(1)
            self.put(1, "k", b"v")
            daemon = self.running.pop(1)
            daemon.send_signal(number)
            try:
                self.assertEqual(daemon.wait(timeout=20 * SLACK), DONE)
            except subprocess.TimeoutExpired:
                daemon.kill()
                raise
            self.assertFalse(os.path.exists(self.socket(1)))

    def test_socket_mode_and_leftover(self):
        self.start(1)
        self.assertEqual(os.stat(self.socket(1)).st_mode & 0o777, 0o660)
        self.kill(1)
        self.assertTrue(os.path.exists(self.socket(1)))
        self.start(1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
