"""From nothing to a cluster: kinfs init, invite and join, on hosts of their own."""
import os
import stat
import unittest

import lab as e2e
from hosts import SHARED, Hosts
from lab import SLACK, read, wait_until, write

DONE, ATTENTION, USAGE, UNREACHABLE, REFUSED, INTERNAL = range(6)


class Joining(unittest.TestCase):
    def setUp(self):
        self.hosts = Hosts(self.COUNT)
        self.addCleanup(self.hosts.end)

    def says(self, done, code, *words):
        text = (done.stdout + done.stderr).decode("utf-8", "replace")
        if code is not None:
            self.assertEqual(done.returncode, code, text)
        for word in words:
            self.assertIn(word, text)
        return text

    def init(self, host, *options):
        return self.says(host.run("kinfs", "init", *options), DONE, "first host of cluster")

    def invite(self, host, *options):
        return host.must("kinfs", "invite", *options).strip()

    def join(self, host, word, *options):
        return self.says(host.run("kinfs", "join", word, *options), DONE, "has joined cluster")

    def on(self, host, name):
        return host.path(f"{SHARED}/{name}")


class FromNothing(Joining):
    COUNT = 3

    def test_three_hosts_share_a_folder(self):
        one, two, three = self.hosts.all
        words = self.init(one, "--mount", SHARED)
        self.assertIn("tcp://192.0.2.1:7946", words)
        self.assertIn("/etc/fstab", words)
        write(self.on(one, "before"), "written while it was alone\n")
        # Two words at once: each is for one host.
        first, second = self.invite(one), self.invite(one)
        self.join(two, first, "--mount", SHARED)
        self.assertEqual(read(self.on(two, "before")), b"written while it was alone\n")
        self.join(three, second, "--mount", SHARED)
        for host in self.hosts.all:
            write(self.on(host, f"from {host.name}"), host.name)
            for other in self.hosts.all:
                wait_until(lambda: read(self.on(other, f"from {host.name}")) == host.name.encode(), 5,
                           f"{other.name} sees what {host.name} wrote")
        for host in self.hosts.all:
            wait_until(lambda: host.run("kinfs", "status").returncode == DONE, 30,
                       lambda: host.run("kinfs", "status").stdout.decode())
            text = host.must("kinfs", "status")
            for name in ("host1", "host2", "host3", "replicas          n 3, r 2, w 2"):
                self.assertIn(name, text)
            key = host.path("/etc/kinfs/node.key")
            self.assertEqual(stat.S_IMODE(os.stat(key).st_mode), 0o600)
            self.assertFalse(os.path.exists(host.path("/var/lib/kinfs/founding")))
        self.what_is_refused(first)
        self.all_copies_arrive()
        self.an_emptied_host_comes_back()

    def what_is_refused(self, used):
        one, two, three = self.hosts.all
        self.says(two.run("kinfs", "init"), REFUSED, "belongs to cluster")
        self.says(two.run("kinfs", "join", used), REFUSED, "belongs to cluster")
        config = ["--config", "/srv/other/kinfs.toml", "--name", "other"]
        os.makedirs(three.path("/srv/other"))
        write(three.path("/srv/other/kinfs.toml"),
              '[node]\nname = "other"\nlisten = "tcp://0.0.0.0:7950"\ndata_dir = "/srv/other/data"\n'
              'socket = "/srv/other/sock"\nkey_file = "/srv/other/key"\n')
        self.says(three.run("kinfs", "join", used, *config), REFUSED, "used by another host")
        self.says(three.run("kinfs", "join", used[:-3], *config), USAGE, "not whole")
        self.says(three.run("kinfs", "join", "secret", *config), USAGE, "no invitation")
        short = self.invite(two, "--valid", "1s")
        taken = config + ["--address", "192.0.2.1:7946"]  # refused for that until then
        wait_until(lambda: b"expired" in three.run("kinfs", "join", short, *taken).stderr, 10,
                   lambda: three.run("kinfs", "join", short, *taken).stderr.decode())
        self.says(one.run("kinfs", "invite", "--valid", "soon"), USAGE, "--valid")
        self.says(one.run("kinfs", "invite", "--valid", "31d"), REFUSED, "at most 30 days")

    def all_copies_arrive(self):
        """What one host wrote while it was alone, each has on its own disk in the end: two may be away."""
        one, two, three = self.hosts.all
        for host in (one, two):
            host.kill("kinfsd", "mount.kinfs")
        self.assertEqual(read(self.on(three, "before")), b"written while it was alone\n")
        for host in (one, two):
            host.start()

    def an_emptied_host_comes_back(self):
        """A new disk in the host that made the cluster: it must not take itself for a cluster of its own."""
        one, two, _ = self.hosts.all
        one.kill("kinfsd", "mount.kinfs")
        one.run("umount", "-l", SHARED)
        one.must("sh", "-c", "rm -rf /var/lib/kinfs/*")
        self.says(one.run("kinfsd"), REFUSED, "names no other host")
        config = two.run("kinfs", "status", "--json").stdout
        key = [h for h in e2e.json.loads(config)["hosts"] if h["name"] == "host2"][0]
        write(one.path("/etc/kinfs/kinfs.toml"),
              f'\n[[cluster.member]]\nname = "host2"\naddress = "{key["address"]}"\n'
              f'public_key = "{key["public_key"]}"\n', "a")
        one.start()
        wait_until(lambda: sorted(os.listdir(self.on(one, ""))) == sorted(os.listdir(self.on(two, ""))), 20,
                   "it shows what the others have")


class OneHost(Joining):
    """What kinfs init and the first start leave, and find."""
    COUNT = 1

    def start(self, host):
        host.must("sh", "-c", "kinfsd >>/var/log/kinfsd.log 2>&1 </dev/null & exit 0")
        wait_until(lambda: host.run("kinfs", "status").returncode == DONE, 20 * SLACK, host.log)

    def test_a_cluster_is_founded_once(self):
        """As kinfs init leaves it when it is killed before it starts the daemon: that is started later, alone."""
        host = self.hosts[1]
        mark = host.path("/var/lib/kinfs/founding")
        host.must("kinfsd", "--make-key", "/etc/kinfs/node.key")
        write(host.path("/etc/kinfs/kinfs.toml"),
              '[cluster]\nid = "c"\nby_invitation = true\naddress = "tcp://192.0.2.1:7946"\n')
        self.says(host.run("kinfsd"), REFUSED, "names no other host", "kinfs init")
        host.must("sh", "-c", "rm -rf /var/lib/kinfs/*")
        write(mark, "")
        self.start(host)
        self.assertFalse(os.path.exists(mark))
        host.kill("kinfsd")
        host.must("sh", "-c", "rm -rf /var/lib/kinfs/*")
        self.says(host.run("kinfsd"), REFUSED, "names no other host")
        # Killed after the cluster was there and before the mark was gone.
        host.must("sh", "-c", "rm -rf /var/lib/kinfs/*")
        write(mark, "")
        self.start(host)
        host.kill("kinfsd")
        write(mark, "")
        self.start(host)
        self.assertFalse(os.path.exists(mark))

    def test_what_is_wrong_is_said_before_anything_is_made(self):
        host = self.hosts[1]
        for options, words in ((["--name", "two words"], ["two words", "--name"]),
                               (["--address", "alma:port"], ["no address"]),
                               (["--address", "0.0.0.0"], ["all addresses"]),
                               # Too long for a name: that needs no name server to be known.
                               (["--address", "a" * 64 + ".example"], ["no host is called", "--address"])):
            self.says(host.run("kinfs", "init", *options), REFUSED, *words)
            self.assertEqual(os.listdir(host.path("/etc/kinfs")), [])
            self.assertEqual(os.listdir(host.path("/var/lib/kinfs")), [])
        file = host.path("/etc/kinfs/kinfs.toml")
        for listen, address in (("tcp://0.0.0.0:7946", "2001:db8::1"), ("tcp://[2001:db8::1]:7946", "192.0.2.1")):
            write(file, f'[node]\nlisten = "{listen}"\n')
            self.says(host.run("kinfs", "init", "--address", address), REFUSED, "IPv4", "IPv6", listen)
            self.assertEqual(os.listdir(host.path("/etc/kinfs")), ["kinfs.toml"])
        os.unlink(file)
        write(host.path("/var/lib/kinfs/thesis.txt"), "mine\n")
        self.says(host.run("kinfs", "init"), REFUSED, "thesis.txt")
        self.assertEqual(os.listdir(host.path("/var/lib/kinfs")), ["thesis.txt"])

    def test_it_listens_at_the_port_that_it_names(self):
        host = self.hosts[1]
        self.init(host, "--address", "192.0.2.1:7950")
        self.assertIn('listen = "tcp://0.0.0.0:7950"', read(host.path("/etc/kinfs/kinfs.toml")).decode())
        host.must("python3", "-c", "import socket; socket.create_connection(('192.0.2.1', 7950), 5)")

    def test_a_key_that_was_there_is_given_to_the_user_of_the_daemon(self):
        host = self.hosts[1]
        host.must("sh", "-c", "(grep -v ^kinfs: /etc/passwd; echo kinfs:x:12345:12346::/:/bin/false) >/srv/passwd && "
                              "mount --bind /srv/passwd /etc/passwd")
        host.must("kinfsd", "--make-key", "/etc/kinfs/node.key")
        self.init(host)
        key = os.stat(host.path("/etc/kinfs/node.key"))
        self.assertEqual((key.st_uid, key.st_gid, stat.S_IMODE(key.st_mode)), (12345, 12346, 0o600))

    def test_a_unit_that_systemd_skips_is_no_daemon(self):
        """A stand-in for systemctl: the unit is known, is started without a complaint, and does not run."""
        host = self.hosts[1]
        write(host.path("/srv/systemctl"),
              '#!/bin/sh\necho "$*" >>/srv/calls\n[ "$1" = is-active ] || exit 0\necho inactive\nexit 3\n')
        host.must("sh", "-c", "chmod 755 /srv/systemctl && mount --bind /srv/systemctl /usr/bin/systemctl && "
                              "mount -t tmpfs none /run && mkdir -p /run/kinfs /run/systemd/system")
        self.says(host.run("kinfs", "init"), INTERNAL, "it does not run", "journalctl -u kinfsd", "inactive")
        self.assertIn("enable --now kinfsd.service\nis-active kinfsd.service\n", read(host.path("/srv/calls")).decode())
        # What is needed is there: the daemon, once it is started, makes the cluster.
        self.assertTrue(os.path.exists(host.path("/var/lib/kinfs/founding")))
        self.start(host)


class Trouble(Joining):
    COUNT = 3

    def test_hosts_that_are_away(self):
        one, two, three = self.hosts.all
        self.says(one.run("kinfs", "invite"), UNREACHABLE, "no kinfsd answers")
        # A daemon that was started by hand, alone: neither it nor what it wrote is taken for a cluster's.
        three.must("kinfsd", "--make-key", "/etc/kinfs/node.key")
        three.must("sh", "-c", "kinfsd >>/var/log/kinfsd.log 2>&1 </dev/null & exit 0")
        wait_until(lambda: three.run("kinfs", "status").returncode == DONE, 10, "it serves")
        self.says(three.run("kinfs", "init"), REFUSED, "runs on this host already")
        three.kill("kinfsd")
        self.says(three.run("kinfs", "init"), REFUSED, "/var/lib/kinfs holds the data", "move it away")
        three.must("sh", "-c", "rm -rf /var/lib/kinfs/*")
        self.init(one)
        word = self.invite(one)
        self.hosts.cut(one)
        self.says(two.run("kinfs", "join", word), UNREACHABLE, "host1 does not answer")
        self.hosts.heal(one)
        # Nor by what is wrong here, or is refused there.
        self.says(two.run("kinfs", "join", word, "--name", "two words"), REFUSED, "two words")
        self.says(two.run("kinfs", "join", word, "--address", "0.0.0.0"), REFUSED, "all addresses")
        self.says(two.run("kinfs", "join", word, "--name", "host1"), REFUSED, "choose another name")
        # The same word, given again: nothing was lost but time.
        self.join(two, word)
        self.hosts.cut(two)
        wait_until(lambda: one.run("kinfs", "status").returncode == ATTENTION, 10, "host1 misses host2")
        # Nobody waits for host2 but the end of the change.
        self.says(three.run("kinfs", "join", self.invite(one)), ATTENTION, "has joined", "host2 cannot be reached")
        self.says(one.run("kinfs", "status"), ATTENTION, "members           are changing", "waits for host2")
        self.says(three.run("kinfs", "put", "key", stdin=b"value"), DONE)
        self.hosts.heal(two)
        for host in self.hosts.all:
            wait_until(lambda: host.status()["safe"] and not host.status()["tasks"], 30 * SLACK, host.log)
        self.assertEqual(two.must("kinfs", "get", "key"), "value")

    def test_a_host_is_taken_in_under_one_name_and_by_one_word(self):
        one, two, three = self.hosts.all
        self.init(one)
        word = self.invite(one)
        self.join(two, word)
        # It was killed before it had written its configuration, and is told to join by another name.
        two.kill("kinfsd")
        two.must("sh", "-c", "rm -rf /etc/kinfs/kinfs.toml /var/lib/kinfs/*")
        self.says(two.run("kinfs", "join", word, "--name", "other"), REFUSED, "is called host2", "--name host2")
        one.kill("kinfsd")
        one.must("sh", "-c", "kinfsd >>/var/log/kinfsd.log 2>&1 </dev/null & exit 0")
        wait_until(lambda: b"used by another" in three.run("kinfs", "join", word).stderr, 10 * SLACK,
                   "host1 knows whose the word is")
        self.join(two, word)

    def test_a_host_killed_while_it_joins(self):
        """kinfs join ends at any moment; given again, it goes on."""
        one, two, _ = self.hosts.all
        self.init(one)
        word = self.invite(one)
        for patience in (0.02, 0.05, 0.1, 0.2, 0.4):
            two.run("timeout", "-s", "KILL", str(patience), "kinfs", "join", word)
            if os.path.exists(two.path("/etc/kinfs/kinfs.toml")):
                break
        again = two.run("kinfs", "join", word)
        if again.returncode != DONE:  # it had come as far as its configuration
            self.says(again, REFUSED, "belongs to cluster", "kinfsd")
            if not two.pids("kinfsd"):
                two.must("sh", "-c", "kinfsd >>/var/log/kinfsd.log 2>&1 </dev/null & exit 0")
        for host in (one, two):
            wait_until(lambda: host.run("kinfs", "status").returncode == DONE, 20,
                       lambda: host.run("kinfs", "status").stdout.decode())
            self.assertIn("replicas          n 2", host.must("kinfs", "status"))


if __name__ == "__main__":
    e2e.main()
