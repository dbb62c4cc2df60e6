"""Hosts that join beyond the number of copies, leave, and are lost."""
import os
import unittest

import lab as e2e
from hosts import SHARED
from joining import ATTENTION, DONE, REFUSED, USAGE, Joining
from lab import SLACK, read, wait_until, write

FILES = 300


class Leaving(Joining):
    COUNT = 5

    def settled(self, *hosts):
        for host in hosts:
            wait_until(lambda: host.status()["safe"] and not host.status()["tasks"], 60 * SLACK,
                       lambda: host.run("kinfs", "status").stdout.decode() + host.log())

    def write_files(self, host, where):
        os.makedirs(self.on(host, where))
        for i in range(FILES):
            # Some are in blocks, not in their rows.
            write(self.on(host, f"{where}/{i}"), f"{where} {i} " * (1 if i % 10 else 5000))

    def read_files(self, host, where):
        self.assertEqual(sorted(os.listdir(self.on(host, where))), sorted(str(i) for i in range(FILES)))
        for i in range(FILES):
            self.assertEqual(read(self.on(host, f"{where}/{i}")),
                             (f"{where} {i} " * (1 if i % 10 else 5000)).encode(), f"{where}/{i} on {host.name}")

    def three_copies_remain(self, hosts):
        """What its new owners have, the hosts that owned it before give up, with its space."""
        one_copy = sum(len(read(self.on(hosts[0], f"{where}/{i}")))
                       for where in ("first", "second") for i in range(0, FILES, 10))
        kept = {host: host.status()["disk"]["block_bytes"] for host in hosts}

        def all_given_up():
            kept.update((host, host.status()["disk"]["block_bytes"]) for host in hosts)
            return 0 <= sum(kept.values()) - 3 * one_copy < 1000  # each host's file begins with some words
        # What is lost on the way of one pass waits for the next, for a tenth of ten minutes or so.
        wait_until(all_given_up, 120 * SLACK, lambda: f"3 copies are {3 * one_copy} bytes: {[*kept.values()]}")
        self.assertGreater(sum(host.status()["rows_surrendered"] for host in hosts), 0)

    def a_host_takes_more(self, host):
        def nodes():
            return {h["name"]: h for h in e2e.json.loads(host.must("kinfs", "nodes", "--json"))}
        before = nodes()[host.name]["owned"]
        self.says(host.run("kinfs", "nodes", host.name, "--weight", "2", "--zone", "cellar"), DONE, "cellar")
        after = nodes()
        self.assertEqual((after[host.name]["weight"], after[host.name]["zone"]), (2, "cellar"))
        self.assertGreater(after[host.name]["owned"], 1.2 * before)
        self.says(host.run("kinfs", "nodes", host.name, "--weight", "2"), DONE)  # as it is
        self.says(host.run("kinfs", "nodes", "nobody", "--weight", "2"), ATTENTION, "no host of this cluster")
        self.says(host.run("kinfs", "nodes", host.name, "--weight", "0"), USAGE, "--weight")
        self.says(host.run("kinfs", "nodes", host.name, "--zone", "two words"), USAGE, "a zone's name")
        self.says(host.run("kinfs", "nodes", host.name), USAGE, "--weight")
        self.says(host.run("kinfs", "nodes", "--weight", "2"), USAGE, "name the host")
        self.says(host.run("kinfs", "nodes", host.name, "--zone", "", "--weight", "1"), DONE)
        self.assertEqual(nodes()[host.name]["owned"], before)

    def a_broken_way_is_not_a_lost_host(self, host, other):
        self.hosts.cut_between(host, other)

        def reached_by():
            return [h["reached_by"] for h in host.status()["hosts"] if h["name"] == other.name][0]
        rest = [h.name for h in self.hosts.all if h not in (host, other)]
        wait_until(lambda: reached_by() == rest, 20 * SLACK, lambda: host.run("kinfs", "status").stdout.decode())
        self.says(host.run("kinfs", "status"), ATTENTION, f"{other.name} does not answer {host.name}, but it answers")
        self.says(host.run("kinfs", "leave", "--lost", other.name), REFUSED, "it is not lost")
        for one in (host, other):
            self.read_files(one, "first")
        self.hosts.heal(host)
        self.settled(host, other)

    def test_what_a_host_had_is_on_the_others_when_it_has_left_or_is_lost(self):
        one, two, three, four, five = self.hosts.all
        self.init(one, "--mount", SHARED)
        for host in (two, three, four):
            self.join(host, self.invite(one), "--mount", SHARED)
        self.write_files(one, "first")
        self.join(five, self.invite(two), "--mount", SHARED)
        self.write_files(five, "second")
        self.settled(*self.hosts.all)
        self.three_copies_remain(self.hosts.all)
        owned = {h["name"]: h["owned"] for h in e2e.json.loads(five.must("kinfs", "ring", "--json"))["hosts"]}
        self.assertEqual(sum(owned.values()), 3 * 1024)
        self.assertEqual(sorted(owned), [host.name for host in self.hosts.all])

        self.a_host_takes_more(three)
        self.a_broken_way_is_not_a_lost_host(two, five)

        # One leaves: what it had, and all that it alone stood in for, is on the others.
        self.says(one.run("kinfs", "leave"), REFUSED, "is mounted here", "kinfs umount")
        one.must("kinfs", "umount", SHARED)
        one.run("timeout", "0.05", "kinfs", "leave")  # interrupted, it goes on; given again, it says so
        for _ in range(2):
            self.says(one.run("kinfs", "leave"), DONE, "host1 has left cluster")
        self.says(one.run("kinfs", "status"), ATTENTION, "host1 is none any more")
        self.says(one.run("kinfs", "put", "key", stdin=b"value"), None, "has left")
        one.kill("kinfsd")
        rest = [two, three, four, five]
        self.settled(*rest)
        for host in rest:
            self.assertEqual([h["name"] for h in host.status()["hosts"]], [h.name for h in rest])
            self.read_files(host, "first")
            self.read_files(host, "second")

        # One is lost, and excused.
        self.says(two.run("kinfs", "leave", "--lost", "host5"), REFUSED, "host5 answers")
        five.kill("kinfsd", "mount.kinfs")
        wait_until(lambda: two.run("kinfs", "status").returncode == ATTENTION, 10 * SLACK, "host5 is missed")
        self.says(two.run("kinfs", "leave", "--lost", "host6"), ATTENTION, "no host of this cluster is called host6")
        self.says(two.run("kinfs", "leave", "--lost", "host5"), DONE, "host5 is no member any more")
        self.settled(two, three, four)
        self.read_files(four, "first")

        # Half of the hosts may be cut off, not lost: only a person knows.
        three.kill("kinfsd", "mount.kinfs")
        four.kill("kinfsd", "mount.kinfs")
        wait_until(lambda: [h["state"] for h in two.status()["hosts"]] == ["up", "down", "down"], 10 * SLACK, two.log)
        self.says(two.run("kinfs", "leave", "--lost", "host4"), REFUSED, "1 of 3 hosts", "--force")
        four_gone = ("kinfs", "leave", "--lost", "host4", "--force")
        self.says(two.run("timeout", "3", *four_gone), None, "waits for host3")
        three.start()
        self.says(two.run(*four_gone), DONE, "host4 is no member any more")
        self.settled(two, three)
        # The excused host learns it when it comes back, and serves nobody with what it has.
        four.must("sh", "-c", "kinfsd >>/var/log/kinfsd.log 2>&1 </dev/null & exit 0")
        wait_until(lambda: b"none any more" in four.run("kinfs", "status").stdout, 20 * SLACK, four.log)
        self.read_files(two, "first")
        self.read_files(two, "second")


if __name__ == "__main__":
    unittest.main(verbosity=2)
