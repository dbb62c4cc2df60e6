"""Daemons for one test program: made, started, killed and cleaned up whatever happens to the test.

Every test program has loopback addresses of its own, so that tests may run beside each other with the usual port.
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from lab import SLACK, must, program, read, run, wait_until, write  # noqa: E402,F401

DONE, ATTENTION, USAGE, UNREACHABLE, REFUSED, INTERNAL = range(6)


def address(host, port=7946):
    pid = os.getpid()
    return f"tcp://127.{1 + (pid >> 14) % 250}.{(pid >> 6) % 256}.{(pid % 64) * 4 + host}:{port}"


class DaemonTest(unittest.TestCase):
    maxDiff = 4000

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="kinfs-daemon-", dir="/var/tmp")
        self.running = {}
        self.addCleanup(self.clean_up)

    def clean_up(self):
        for daemon in list(self.running.values()):
            daemon.kill()
            daemon.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def at(self, *names):
        return os.path.join(self.directory, *names)

    def socket(self, host):
        return self.at(f"{host}.sock")

    def says(self, done, code, *words):
        text = (done.stdout + done.stderr).decode("utf-8", "replace")
        self.assertEqual(done.returncode, code, text)
        for word in words:
            self.assertIn(word, text)
        self.assertNotIn("internal error", text)
        self.assertNotIn("Sanitizer", text)
        return text

    def key(self, host):
        """The public key of a host; its key file is made at the first call."""
        if not os.path.exists(self.at(f"{host}.pub")):
            write(self.at(f"{host}.pub"), must(program("kinfsd"), "--make-key", self.at(f"{host}.key")).strip())
        return read(self.at(f"{host}.pub")).decode()

    def configure(self, host, hosts=1, cut=(), more=""):
        """The configuration of h1, h2, …: a file."""
        self.key(host)
        members = "".join(f'[[cluster.member]]\nname = "h{h}"\naddress = "{address(h)}"\npublic_key = "{self.key(h)}"\n'
                          for h in range(1, hosts + 1))
        write(self.at(f"{host}.toml"),
              f'[node]\nname = "h{host}"\nlisten = "{address(host)}"\ndata_dir = "{self.at(str(host))}"\n'
              f'socket = "{self.socket(host)}"\nkey_file = "{self.at(f"{host}.key")}"\n{more}'
              f'[cluster]\nid = "test"\ncut = {json.dumps([f"h{h}" for h in cut])}\n{members}')
        return self.at(f"{host}.toml")

    def log(self, host):
        try:
            return read(self.at(f"{host}.log")).decode("utf-8", "replace")
        except OSError:
            return ""

    def start(self, host, **how):
        """Returns when the daemon answers."""
        file = self.configure(host, **how)
        with open(self.at(f"{host}.log"), "ab") as log:
            self.running[host] = subprocess.Popen([program("kinfsd"), "--config", file], stdin=subprocess.DEVNULL,
                                                  stdout=log, stderr=log)
        wait_until(lambda: self.status(host) is not None or self.running[host].poll() is not None, 20,
                   lambda: f"h{host} answers:\n{self.log(host)}")
        self.assertIsNone(self.running[host].poll(), self.log(host))

    def kill(self, host):
        daemon = self.running.pop(host)
        daemon.kill()
        daemon.wait()

    def stop(self, host):
        daemon = self.running.pop(host)
        daemon.send_signal(signal.SIGTERM)
        try:
            code = daemon.wait(timeout=20 * SLACK)
        finally:
            daemon.kill()
        self.assertEqual(code, 0, self.log(host))

    def kinfs(self, host, *arguments, stdin=b""):
        return run(program("kinfs"), "--socket", self.socket(host), *arguments, stdin=stdin)

    def status(self, host):
        done = self.kinfs(host, "status", "--json")
        return json.loads(done.stdout) if done.returncode in (DONE, ATTENTION) else None

    def sees(self, host, hosts):
        """Until `host` believes exactly these hosts to be up."""
        names = sorted(f"h{h}" for h in hosts)
        wait_until(lambda: sorted(h["name"] for h in self.status(host)["hosts"] if h["state"] == "up") == names, 20,
                   lambda: f"h{host} sees {names}: {self.status(host)}")

    def put(self, host, key, value, *options):
        self.says(self.kinfs(host, "put", *options, key, stdin=value), DONE)

    def get(self, host, key):
        done = self.kinfs(host, "get", key)
        self.assertEqual(done.returncode, DONE, done.stderr)
        return done.stdout

    def versions(self, host, key):
        """What `get --all --json` prints, without removed ones."""
        done = self.kinfs(host, "get", "--all", "--json", key)
        self.assertIn(done.returncode, (DONE, ATTENTION), done.stderr)
        return [v for v in map(json.loads, done.stdout.splitlines()) if not v["removed"]]
