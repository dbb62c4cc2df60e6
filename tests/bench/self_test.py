#!/usr/bin/env python3
"""The benchmark itself, tried on plain directories: that it runs, that its tables hold what was measured, and that a
figure is refused when another host sees another tree."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
PLAIN = """#!/usr/bin/env bash
case $1 in
  up) rm -rf {0}; mkdir {0} ;;
  down) rm -rf {0} ;;
  mountpoint) echo {0} ;;
  mountpoint_other) {1} ;;
  settle) : ;;
  round_trips) echo 0 ;;
  version) echo plain ;;
esac
"""


class BenchTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="kinfs-bench-test-", dir="/var/tmp")
        self.addCleanup(shutil.rmtree, self.folder)

    def bench(self, other, *arguments):
        peer, out = os.path.join(self.folder, "peer"), os.path.join(self.folder, "out")
        with open(peer, "w", encoding="utf-8") as file:
            file.write(PLAIN.format(os.path.join(self.folder, "data"), other))
        os.chmod(peer, 0o755)
        done = subprocess.run([sys.executable, "-B", os.path.join(HERE, "bench.py"), "--scale", "0.005", "--out", out,
                               f"--peers=kinfs={peer}", *arguments], capture_output=True, text=True, check=False)
        self.assertTrue(os.path.exists(os.path.join(out, "results.json")), done.stderr)
        with open(os.path.join(out, "results.json"), encoding="utf-8") as file:
            return done, json.load(file)

    def test_rounds_and_table(self):
        done, record = self.bench(f"echo {self.folder}/data", "--rounds=2",
                                  "--only=ls-lR-warm,unlink,save,append-fsync")
        self.assertEqual(done.returncode, 0, done.stderr)
        names = [r["name"] for r in record["runs"][0]["results"]]
        self.assertEqual(names, ["untar", "ls-lR-warm", "create", "rename", "unlink", "save", "append-fsync"])
        self.assertEqual([run["round"] for run in record["runs"]], [1, 2])
        for word in ("- kernel: ", "- command: tests/bench/run --scale 0.005", "- kinfs: plain", "| untar | files |",
                     "| workload | unit | kinfs | kinfs: round trips a unit |"):
            self.assertIn(word, done.stdout)

    def test_no_figure_for_what_another_host_does_not_see(self):
        done, record = self.bench(f"mkdir -p {self.folder}/empty/bench; echo {self.folder}/empty", "--rounds=1",
                                  "--only=save")
        self.assertEqual(done.returncode, 1)
        self.assertIn("another tree", record["runs"][0]["results"][0]["wrong"])
        self.assertIn("| failed |", done.stdout)


if __name__ == "__main__":
    unittest.main()
