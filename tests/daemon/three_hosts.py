"""Three daemons without mounts: kill -9 of everything, cuts, siblings and contexts."""
import base64
import json
import os
import shutil
import unittest

from common import ATTENTION, DONE, DaemonTest, wait_until

ALL = (1, 2, 3)


class ThreeHosts(DaemonTest):
    def up(self, cuts=None):
        cuts = cuts or {}
        for host in ALL:
            self.start(host, hosts=3, cut=cuts.get(host, ()))
        for host in ALL:
            self.sees(host, set(ALL) - set(cuts.get(host, ())))

    def values(self, host, key):
        return sorted(base64.b64decode(v["value"]) for v in self.versions(host, key))

    def apart(self, key, one, three):
        """A value that 1 and 3 changed in a cut, with both versions back on all hosts."""
        self.up()
        self.put(1, key, b"before")
        for host in ALL:
            wait_until(lambda: self.get(host, key) == b"before", 10, f"{key} on h{host}")
        for host in ALL:
            self.kill(host)
        self.up(cuts={1: [3], 2: [3], 3: [1, 2]})
        self.put(1, key, one)
        # Cut off from both others: durable here, said to be degraded, not refused.
        self.says(self.kinfs(3, "put", key, stdin=three), DONE, "note")
        self.assertEqual(self.kinfs(3, "get", key).stdout, three)
        self.assertEqual(self.get(2, key), one)
        self.assertGreater(self.status(3)["degraded_puts"], 0)
        self.assertEqual(self.kinfs(3, "status").returncode, ATTENTION)
        for host in ALL:
            self.kill(host)
        self.up()
        for host in ALL:
            wait_until(lambda: self.values(host, key) == sorted([one, three]), 10,
                       lambda: f"both versions on h{host}: {self.values(host, key)}")

    def test_what_one_puts_another_gets_after_kill_9_of_all(self):
        self.up()
        for i in range(20):
            self.put(1 + i % 3, f"key{i}", b"value %d" % i)
            self.assertEqual(self.get(1 + (i + 1) % 3, f"key{i}"), b"value %d" % i)
        for host in ALL:
            self.kill(host)
        self.up()
        for i in range(20):
            self.assertEqual(self.get(1 + (i + 2) % 3, f"key{i}"), b"value %d" % i)
        for host in ALL:
            wait_until(lambda: self.status(host)["safe"], 10, lambda: f"h{host}: {self.status(host)}")
            self.says(self.kinfs(host, "status"), DONE, "h1", "h2", "h3")

    def test_one_host_down(self):
        self.up()
        self.kill(2)
        self.sees(1, (1, 3))
        self.put(1, "k", b"without 2")
        self.says(self.kinfs(1, "status"), ATTENTION, "down", "needs attention")
        self.start(2, hosts=3)
        self.sees(1, ALL)
        self.assertEqual(self.get(2, "k"), b"without 2")
        # The hint kept for it is delivered.
        wait_until(lambda: self.status(1)["safe"] and self.status(3)["safe"], 20,
                   lambda: f"{self.status(1)} {self.status(3)}")

    def test_status_of_a_host_that_is_cut_off(self):
        self.start(3, hosts=3, cut=(1, 2))
        self.says(self.kinfs(3, "status"), ATTENTION, "all traffic with h1, h2 is dropped")

    def test_get_shows_one_and_says_that_there_is_more(self):
        self.apart("k", b"of one", b"of three")
        shown = self.says(self.kinfs(2, "get", "k"), ATTENTION, "1 more concurrent version of k")
        self.assertTrue(shown.startswith("of three"), "the later write is shown")
        text = self.says(self.kinfs(2, "get", "--all", "k"), ATTENTION, "of one", "of three")
        self.assertIn("==> h1 at ", text)
        self.assertIn("==> h3 at ", text)

    def test_a_put_supersedes_what_get_prints_and_put_all_everything(self):
        self.apart("k", b"of one", b"of three")
        self.put(2, "k", b"of two")
        self.assertEqual(self.values(1, "k"), [b"of one", b"of two"])
        self.put(3, "k", b"chosen", "--all")
        for host in ALL:
            wait_until(lambda: self.kinfs(host, "get", "k").stdout == b"chosen", 10, f"the chosen value on h{host}")
            self.assertEqual(self.get(host, "k"), b"chosen")

    def test_a_context_supersedes_what_that_get_showed(self):
        self.apart("k", b"of one", b"of three")
        winner = json.loads(self.kinfs(1, "get", "--json", "k").stdout)
        both = self.versions(1, "k")
        self.assertEqual({v["host"] for v in both}, {"h1", "h3"})
        self.put(1, "k", b"over the winner", "--context", winner["context"])
        self.assertEqual(self.values(2, "k"), [b"of one", b"over the winner"])
        # This one saw both, and not what came after.
        self.put(2, "k", b"over both", "--context", both[0]["context"])
        self.assertEqual(self.values(3, "k"), [b"over both", b"over the winner"])
        self.says(self.kinfs(3, "del", "--all", "k"), DONE)
        for host in ALL:
            self.says(self.kinfs(host, "get", "k"), ATTENTION, "there is no key k")

    def test_del_leaves_what_was_not_shown(self):
        self.apart("k", b"of one", b"of three")
        self.says(self.kinfs(2, "del", "k"), DONE)
        self.assertEqual(self.get(1, "k"), b"of one")

    def test_ring_is_the_same_everywhere(self):
        self.up()
        rings = [json.loads(self.kinfs(h, "ring", "--json", "--key", "k").stdout) for h in ALL]
        self.assertEqual(rings[0], rings[1])
        self.assertEqual(rings[0], rings[2])
        self.assertEqual(sum(h["first"] for h in rings[0]["hosts"]), 1024)
        self.assertTrue(all(h["owned"] == 1024 for h in rings[0]["hosts"]), "three hosts, three replicas")
        self.assertEqual(sorted(rings[0]["key"]["owners"]), ["h1", "h2", "h3"])

    def test_a_stranger_gets_nothing(self):
        """A host whose key nobody lists, at the address of one that is: it sees nobody, and nobody sees it."""
        self.up()
        self.put(1, "k", b"secret")
        self.kill(3)
        os.unlink(self.at("3.key"))
        os.unlink(self.at("3.pub"))
        shutil.rmtree(self.at("3"))
        self.start(3, hosts=3)
        wait_until(lambda: all(h["state"] != "up" for h in self.status(1)["hosts"] if h["name"] == "h3"), 10, "h3 down")
        self.assertEqual(self.kinfs(3, "get", "k").stdout, b"")
        self.assertEqual([h["name"] for h in self.status(3)["hosts"] if h["state"] == "up"], ["h3"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
