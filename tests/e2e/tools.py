"""What people work with: editors, rsync, cp, mv, sed, temporary files that replace others."""
import fcntl
import mmap
import os
import shutil
import subprocess
import tempfile

import lab as e2e
from lab import LabTest, must, read, run, wait_until, write


class Tools(LabTest):
    def test_vim_saves(self):
        vim = shutil.which("vim.tiny") or shutil.which("vim")
        self.assertTrue(vim, "no vim: packaging/install-deps --tests installs one")
        env = {**os.environ, "HOME": self.lab.directory, "TERM": "dumb"}
        write(self.path(1, "text"), "one\ntwo\n")
        self.lab.hold({"text": "one\ntwo\n"}, self.folder)
        must(vim, "-u", "NONE", "-es", "-c", "%s/two/three/", "-c", "wq", self.path(2, "text"), env=env)
        self.lab.hold({"text": "one\nthree\n"}, self.folder)
        must(vim, "-u", "NONE", "-es", "-c", "set backup writebackup backupcopy=no", "-c", "%s/one/four/", "-c", "wq",
             self.path(3, "text"), env=env)
        self.lab.hold({"text": "four\nthree\n", "text~": "one\nthree\n"}, self.folder)

    def test_rsync_and_cp(self):
        source = os.path.join(self.lab.directory, "source")
        must("cp", "-a", "/usr/share/perl5" if os.path.isdir("/usr/share/perl5") else "/etc/ssl", source)
        must("rsync", "-a", source + "/", self.path(1, "rsynced"), timeout=240)
        must("cp", "-a", source, self.path(1, "copied"), timeout=240)
        for name in ("rsynced", "copied"):
            wait_until(lambda: os.path.isdir(self.path(2, name)), 5, f"{name} on host 2")
            done = run("diff", "-r", "--no-dereference", source, self.path(2, name), timeout=240)
            self.assertEqual((done.returncode, done.stdout), (0, b""), name)
        again = must("rsync", "-a", "--itemize-changes", source + "/", self.path(2, "rsynced"), timeout=240)
        self.assertEqual(again, b"", "a second rsync finds nothing to do")
        must("mv", self.path(2, "copied"), self.path(2, "moved"))
        self.lab.agree(["moved", "rsynced"], self.folder)
        done = run("diff", "-r", "--no-dereference", source, self.path(3, "moved"), timeout=240)
        self.assertEqual((done.returncode, done.stdout), (0, b""))

    def test_sed_in_place(self):
        write(self.path(1, "a"), "old\n")
        self.lab.hold({"a": "old\n"}, self.folder)
        must("sed", "-i", "s/old/new/", self.path(2, "a"))
        self.lab.hold({"a": "new\n"}, self.folder)

    def test_temporary_file_replaces(self):
        write(self.path(1, "settings.json"), "0")
        for i in range(1, 21):
            handle, name = tempfile.mkstemp(dir=self.path(1))
            with os.fdopen(handle, "w") as file:
                file.write(str(i))
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path(1, "settings.json"))
        self.lab.hold({"settings.json": "20"}, self.folder)
        self.assertEqual(self.lab.conflicts(1, self.folder), (0, ""))

    def test_shell_redirections(self):
        must("sh", "-c", "echo a > f && echo b >> f && cat f f > g && (echo c; echo d) >> g", cwd=self.path(1))
        self.lab.hold({"f": "a\nb\n", "g": "a\nb\na\nb\nc\nd\n"}, self.folder)

    def test_moving_directories(self):
        for at in ("x/y/z", "target"):
            os.makedirs(self.path(1, at))
        write(self.path(1, "x/y/z/deep"), "deep\n")
        os.rename(self.path(1, "x/y"), self.path(1, "target/y2"))
        os.rename(self.path(1, "target"), self.path(1, "t2"))
        wait_until(lambda: read(self.path(3, "t2/y2/z/deep")) == b"deep\n", 5, "the file at its new place on host 3")
        self.lab.agree(["t2", "x"], self.folder)
        with self.assertRaises(OSError):
            os.rename(self.path(1, "t2"), self.path(1, "t2/y2/inside-itself"))
        with self.assertRaises(OSError):
            os.rmdir(self.path(1, "t2"))

    def test_attributes_travel(self):
        write(self.path(1, "a"), "#!/bin/sh\necho ran\n")
        os.chmod(self.path(1, "a"), 0o4755)
        os.chown(self.path(1, "a"), 12345, 54321)
        os.chmod(self.path(1, "a"), 0o750)
        os.utime(self.path(1, "a"), ns=(1_000_000_007, 1_234_567_890_123_456_789))
        for host in self.lab.each():
            def same():
                s = os.stat(self.path(host, "a"))
                return (s.st_mode & 0o7777, s.st_uid, s.st_gid, s.st_mtime_ns) == \
                    (0o750, 12345, 54321, 1_234_567_890_123_456_789)
            wait_until(same, 5, lambda: f"mode, owner and time on host {host}: {os.stat(self.path(host, 'a'))}")
        os.chown(self.path(1, "a"), 0, 0)
        self.assertEqual(must(self.path(1, "a")), b"ran\n")

    def test_unlinked_while_open(self):
        with open(self.path(1, "a"), "w+b") as file:
            file.write(b"still here")
            file.flush()
            os.unlink(self.path(1, "a"))
            file.seek(0)
            self.assertEqual(file.read(), b"still here")
        self.lab.agree([], self.folder)

    def test_mmap_reads(self):
        write(self.path(1, "a"), b"mapped" * 10000)
        self.lab.hold({"a": b"mapped" * 10000}, self.folder)
        with open(self.path(2, "a"), "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            self.assertEqual(data[:12], b"mappedmapped")

    def test_locks_among_processes_of_one_host(self):
        write(self.path(1, "a"), "")
        with open(self.path(1, "a"), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            done = run("flock", "-n", self.path(1, "a"), "true")
            self.assertEqual(done.returncode, 1)

    def test_statfs(self):
        s = os.statvfs(self.path(1))
        self.assertGreater(s.f_blocks, 0)
        self.assertGreaterEqual(s.f_blocks, s.f_bavail)
        self.assertEqual(s.f_namemax, 255)

    def test_four_writers_in_one_directory(self):
        """Four processes make, rename and remove files of their own in one directory through two mounts."""
        count = 30 if e2e.SANITIZED else 150
        script = """i=0
            while [ $i -lt "$2" ]; do
              echo $i > "$1-$i" && mv "$1-$i" "$1-kept-$i" && echo more >> "$1-kept-$i" &&
              touch "$1-gone" && rm "$1-gone" || exit 1
              i=$((i+1))
            done"""
        started = [subprocess.Popen(["sh", "-c", script, "sh", self.path(1 + w % 2, f"w{w}"), str(count)],
                                    stderr=subprocess.PIPE) for w in range(4)]
        for process in started:
            _, words = process.communicate(timeout=240)
            self.assertEqual((process.returncode, words), (0, b""))
        self.lab.agree([f"w{w}-kept-{i}" for w in range(4) for i in range(count)], self.folder, 10)
        for w in range(4):
            self.assertEqual(read(self.path(3, f"w{w}-kept-7")), b"7\nmore\n")


if __name__ == "__main__":
    e2e.main()
