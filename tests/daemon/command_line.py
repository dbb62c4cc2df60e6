"""kinfs: arguments, exit codes and words, with one daemon and without any."""
import base64
import json
import os
import subprocess
import unittest

from common import ATTENTION, DONE, REFUSED, UNREACHABLE, USAGE, DaemonTest, program, run, wait_until, write


class CommandLine(DaemonTest):
    def test_usage(self):
        for arguments in ([], ["statsu"], ["status", "--jsno"], ["get"], ["put"], ["del"], ["get", "a", "b"],
                          ["get", "--context", "x", "k"], ["put", "--all", "--context", "x", "k"],
                          ["put", "--json", "k"], ["get", "--r", "many", "k"], ["ring", "k"], ["mount", "home"],
                          ["umount"], ["lab"], ["lab", "op"], ["lab", "up"],
                          ["lab", "up", "--nodes", "0", self.at("x")],
                          ["lab", "up", "--nodes", "33", self.at("x")], ["lab", "up", "--nodes", "few", self.at("x")],
                          ["lab", "cut", self.at("x")], ["lab", "kill", self.at("x")], ["lab", "start", self.at("x")]):
            with self.subTest(arguments):
                self.says(run(program("kinfs"), *arguments), USAGE)
        for arguments, words in ((["bogus"], ["bogus", "commands: init, invite,"]),
                                 (["statsu"], ["statsu", "mean status?"]),
                                 (["stat"], ["stat", "mean status?"]), (["--sokcet", "x"], ["--sokcet", "--socket?"]),
                                 (["--bogus"], ["no option --bogus"]), (["status", "--jsn"], ["--jsn", "--json?"]),
                                 (["--socket", "x", "statsu", "--json"], ["statsu", "mean status?"]),
                                 (["lab", "staus"], ["kinfs lab", "staus", "mean status?"]),
                                 (["get", "a", "b"], ["kinfs get", "argument b"]), (["get"], ["KEY"]),
                                 (["--socket"], ["--socket needs a value"]), ([], ["commands: init, invite,"]),
                                 (["lab", "up", "--nodes", "few", "x"], ["--nodes", "few", "from 1 to 32"]),
                                 (["get", "--r", "many", "k"], ["--r", "many", "from 1 to 15"])):
            with self.subTest(arguments):
                self.says(run(program("kinfs"), *arguments), USAGE, *words)
        for arguments in (["--help"], ["get", "--help"], ["lab", "up", "--help"], ["--version"]):
            with self.subTest(arguments):
                self.says(run(program("kinfs"), *arguments), DONE)
        self.assertFalse(os.path.exists(self.at("x")))

    def test_no_daemon(self):
        nobody = self.at("nobody.sock")
        for arguments in (["status"], ["ring"], ["get", "k"], ["put", "k"], ["del", "k"], ["conflicts"],
                          ["mount", "home", self.directory]):
            with self.subTest(arguments):
                text = self.says(run(program("kinfs"), "--socket", nobody, *arguments), UNREACHABLE, nobody,
                                 "kinfsd --config")
                self.assertNotIn("systemctl", text)
        env = dict(os.environ, KINFS_SOCKET=nobody)
        self.says(run(program("kinfs"), "status", env=env), UNREACHABLE, nobody)
        self.says(run(program("kinfs"), "--socket", "/" + "s" * 107, "status"), REFUSED, "108 bytes", "at most 107")
        # A socket that nobody serves any more.
        self.start(1)
        self.kill(1)
        self.says(self.kinfs(1, "status"), UNREACHABLE, self.socket(1))

    def test_refusals_that_need_no_daemon(self):
        write(self.at("file"), "")
        os.mkdir(self.at("full"))
        write(self.at("full", "thesis.txt"), "mine\n")
        for arguments, words in ((["get", "--volume", "home", "k"], ["kind fs", "kinfs mount home DIR"]),
                                 (["put", "--volume", "hoem", "k"], ["hoem", "did you mean home?"]),
                                 (["del", "--volume", "other", "k"], ["other", "volumes: home"]),
                                 (["put", "x" * 65537], ["65537", "65536"]),
                                 (["ring", "--volume", "vk"], ["vk"]),
                                 (["mount", "kv", self.directory], ["kind kv"]),
                                 (["mount", "homr", self.directory], ["homr", "did you mean home?"]),
                                 (["mount", "home", self.at("absent")], [self.at("absent"), "mkdir"]),
                                 (["mount", "home", self.at("file")], [self.at("file"), "no directory"]),
                                 (["umount", self.directory], [self.directory, "nothing is mounted"]),
                                 (["umount", "/proc"], ["/proc", "not kinfs"]),
                                 (["conflicts", self.directory], [self.directory, "no mount of kinfs"]),
                                 (["lab", "up", self.at("full")], [self.at("full"), "not empty", "thesis.txt"]),
                                 (["lab", "up", self.at("file")], [self.at("file")]),
                                 (["lab", "up", self.at("no", "parent")], [self.at("no"), "mkdir -p"]),
                                 (["lab", "status", self.at("full")], [self.at("full"), "no lab"]),
                                 (["lab", "cut", self.at("full"), "1"], ["no lab"]),
                                 (["lab", "heal", self.at("full")], ["no lab"]),
                                 (["lab", "kill", self.at("full"), "1"], ["no lab"]),
                                 (["lab", "start", self.at("full"), "1"], ["no lab"]),
                                 (["lab", "down", self.at("full")], ["no lab"])):
            with self.subTest(arguments[:3]):
                self.says(run(program("kinfs"), *arguments, env=dict(os.environ, KINFS_SOCKET=self.at("nobody"))),
                          REFUSED, *words)
        self.assertEqual(os.listdir(self.at("full")), ["thesis.txt"])

    def test_bytes_in_and_out(self):
        self.start(1)
        for key, value in ((b"k", b"value\n"), (b"empty", b""), (b"\xff\n", bytes(range(256))),
                           (b"x" * 65536, b"at the longest key"), (b"large", os.urandom(1 << 20))):
            self.put(1, key, value)
            self.assertEqual(self.get(1, key), value)
        self.says(self.kinfs(1, "put", "k", stdin=bytes((1 << 20) + 1)), REFUSED, "1048576")
        self.assertEqual(self.get(1, "k"), b"value\n")
        self.says(self.kinfs(1, "put", "--", "-k", stdin=b"dash"), DONE)
        self.assertEqual(self.kinfs(1, "get", "--", "-k").stdout, b"dash")

    def test_absent_and_removed(self):
        self.start(1)
        self.says(self.kinfs(1, "get", "k"), ATTENTION, "there is no key k")
        self.says(self.kinfs(1, "get", "--all", "--json", "k"), ATTENTION)
        self.says(self.kinfs(1, "del", "k"), ATTENTION, "there is no key k")
        self.put(1, "k", b"v")
        self.says(self.kinfs(1, "del", "k"), DONE)
        self.assertEqual(self.kinfs(1, "get", "k").stdout, b"")
        self.says(self.kinfs(1, "get", "k"), ATTENTION)
        self.says(self.kinfs(1, "del", "k"), ATTENTION)
        self.put(1, "k", b"again")
        self.assertEqual(self.get(1, "k"), b"again")

    def test_json_of_a_version(self):
        self.start(1)
        self.put(1, "k", b"\x00\xff")
        found = json.loads(self.kinfs(1, "get", "--json", "k").stdout)
        self.assertEqual(base64.b64decode(found["value"]), b"\x00\xff")
        self.assertEqual((found["key"], found["host"], found["removed"], found["winner"]), ("k", "h1", False, True))
        self.assertRegex(found["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$")
        self.assertTrue(found["event"] and found["context"])
        self.put(1, b"\xff\n", b"v")
        found = json.loads(self.kinfs(1, "get", "--json", b"\xff\n").stdout)
        self.assertEqual(base64.b64decode(found["key_base64"]), b"\xff\n")

    def test_a_context_is_what_was_shown(self):
        self.start(1)
        self.put(1, "k", b"one")
        shown = json.loads(self.kinfs(1, "get", "--json", "k").stdout)["context"]
        self.put(1, "k", b"two")
        # "two" was not shown to whoever has this context, so it stays.
        self.put(1, "k", b"three", "--context", shown)
        self.says(self.kinfs(1, "get", "k"), ATTENTION, "three", "1 more concurrent version")
        self.assertEqual([base64.b64decode(v["value"]) for v in self.versions(1, "k")], [b"three", b"two"])
        both = self.versions(1, "k")[0]["context"]
        self.put(1, "k", b"four", "--context", both)
        self.assertEqual(self.get(1, "k"), b"four")
        for wrong, words in ((shown[:-4], "part of it is missing"), ("hello", "no context"), ("", "no context")):
            self.says(self.kinfs(1, "put", "--context", wrong, "k", stdin=b"x"), USAGE, words)
        self.put(1, "other", b"o")
        self.says(self.kinfs(1, "put", "--context", shown, "other", stdin=b"x"), USAGE, "another key")
        self.assertEqual(self.get(1, "other"), b"o")

    def test_quorums_other_than_the_volumes_are_refused(self):
        self.start(1)
        self.says(self.kinfs(1, "put", "--w", "1", "k", stdin=b"v"), DONE)
        self.says(self.kinfs(1, "get", "--r", "1", "k"), DONE, "v")
        self.says(self.kinfs(1, "get", "--r", "2", "k"), REFUSED, "--r 2", "[quorum]")
        self.says(self.kinfs(1, "put", "--w", "3", "k", stdin=b"x"), REFUSED, "--w 3")
        self.assertEqual(self.get(1, "k"), b"v")

    def test_many_writers_at_once_lose_nothing(self):
        """Each adds a value beside the others (an empty context shows nothing), so all must be there."""
        self.start(1)
        self.put(1, "k", b"first")
        shown = json.loads(self.kinfs(1, "get", "--json", "k").stdout)["context"]
        writers = [subprocess.Popen([program("kinfs"), "--socket", self.socket(1), "put", "--context", shown, "k"],
                                    stdin=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(12)]
        for i, writer in enumerate(writers):
            writer.stdin.write(b"%d" % i)
            writer.stdin.close()
        for writer in writers:
            self.assertEqual(writer.wait(timeout=60), 0, writer.stderr.read())
            writer.stderr.close()
        values = {base64.b64decode(v["value"]) for v in self.versions(1, "k")}
        self.assertEqual(values, {b"%d" % i for i in range(12)})

    def test_many_versions_are_told_of(self):
        self.start(1)
        self.put(1, "k", b"first")
        shown = json.loads(self.kinfs(1, "get", "--json", "k").stdout)["context"]
        for i in range(24):
            done = self.kinfs(1, "put", "--context", shown, "k", stdin=b"%d" % i)
            self.says(done, DONE)
            self.assertNotIn(b"versions", done.stderr)
        self.assertNotIn(b"25 or more", self.kinfs(1, "status").stdout)
        self.says(self.kinfs(1, "put", "--context", shown, "k", stdin=b"one more"), DONE, "25", "versions")
        self.says(self.kinfs(1, "status"), DONE, "1 writes", "25 or more versions")

    def test_status_and_ring(self):
        self.start(1)
        status = json.loads(self.says(self.kinfs(1, "status", "--json"), DONE))
        self.assertEqual([h["name"] for h in status["hosts"]], ["h1"])
        for field in ("safe", "hosts", "under_replicated", "hints", "conflicts", "tasks", "disk"):
            self.assertIn(field, status)
        self.assertEqual(set(status["hosts"][0]), {"name", "address", "public_key", "state", "last_seen", "full",
                                                      "reached_by"})
        self.assertTrue(status["safe"])
        self.says(self.kinfs(1, "status"), DONE, "h1 *", "up", "Everything is as it should be.")
        ring = json.loads(self.says(self.kinfs(1, "ring", "--json", "--key", "k"), DONE))
        self.assertEqual(ring["partitions"], 1024)
        share = {"name": "h1", "first": 1024, "owned": 1024, "weight": 1, "zone": ""}
        self.assertEqual(len(ring["hosts"]), 1)
        self.assertEqual({name: ring["hosts"][0].get(name) for name in share}, share)
        self.assertEqual(ring["key"]["owners"], ["h1"])
        self.assertEqual(ring["key"]["name"], "k")
        self.says(self.kinfs(1, "ring", "--key", "k"), DONE, "1024", "owners h1")
        ring = json.loads(self.kinfs(1, "ring", "--json", "--key", b"\xff").stdout)
        self.assertEqual(base64.b64decode(ring["key"]["name_base64"]), b"\xff")

    def test_conflicts_of_an_empty_volume(self):
        self.start(1)
        self.says(self.kinfs(1, "conflicts"), DONE)
        self.assertEqual(self.kinfs(1, "conflicts", "--json").stdout, b"")

    def test_a_full_standard_output_is_an_error(self):
        self.start(1)
        self.put(1, "k", b"v" * 100_000)
        with open("/dev/full", "wb") as full:
            for arguments in (["get", "k"], ["status"]):
                done = subprocess.run([program("kinfs"), "--socket", self.socket(1), *arguments], stdout=full,
                                      stderr=subprocess.PIPE, timeout=60)
                self.assertEqual(done.returncode, 5, arguments)
                self.assertIn(b"standard output", done.stderr)

    def test_a_restart_is_not_seen_by_a_command(self):
        self.start(1)
        self.put(1, "k", b"v")
        self.stop(1)
        self.start(1)
        wait_until(lambda: self.get(1, "k") == b"v", 5, "the value after the restart")


if __name__ == "__main__":
    unittest.main(verbosity=2)
