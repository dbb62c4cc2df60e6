"""Thousands of real files through one host, seen by the others; a project built there; git."""
import itertools
import os
import stat
import tarfile

import lab as e2e
from lab import LabTest, must, read, run, wait_until, write

SOURCES = ["/usr/include", "/usr/share/doc", "/usr/lib/python3", "/usr/lib/python3.11"]  # what every machine has
FILES = 800 if e2e.SANITIZED else 4000


def real_files():
    """FILES paths of regular files and symbolic links, from as few folders as will do."""
    def walk():
        for source in SOURCES:
            for folder, folders, names in os.walk(source):
                folders.sort()
                for name in sorted(names):
                    path = os.path.join(folder, name)
                    found = os.lstat(path)
                    if stat.S_ISLNK(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and
                                                       found.st_size < 4 << 20):
                        yield path
    return list(itertools.islice(walk(), FILES))


class Tree(LabTest):
    def test_untar_and_compare(self):
        files = real_files()
        self.assertGreaterEqual(len(files), FILES)
        archive = os.path.join(self.lab.directory, "tree.tar")
        with tarfile.open(archive, "w") as tar:
            for path in files:
                tar.add(path)
        local = os.path.join(self.lab.directory, "local")
        os.mkdir(local)
        must("tar", "-xf", archive, "-C", local, timeout=120)
        must("tar", "-xf", archive, "-C", self.path(1), timeout=300)
        for host in self.lab.each():
            done = run("diff", "-r", "--no-dereference", local, self.path(host), timeout=300)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""), f"host {host}")
        listing = ["find", ".", "!", "-type", "d", "-printf", "%y %m %u %g %s %T@ %l %p\n"]
        expected = sorted(must(*listing, cwd=local).splitlines())
        for host in (1, 3):
            seen = must(*listing, cwd=self.path(host), timeout=120)
            self.assertEqual(sorted(seen.splitlines()), expected, f"host {host}")
        must("rm", "-rf", *[os.path.join(self.path(2), n) for n in os.listdir(self.path(2))], timeout=300)
        self.lab.agree([], self.folder)

    def test_what_another_host_made_longer_is_read_whole(self):
        """The kernel keeps a file's size for a second, and reads no further than that."""
        write(self.path(1, "grows"), "")
        self.lab.hold({"grows": ""}, self.folder)
        for i in range(1, 30):
            text = b"0123456789" * i
            self.assertEqual(os.stat(self.path(2, "grows")).st_size, 10 * (i - 1))
            write(self.path(1, "grows"), text)
            self.assertEqual(read(self.path(2, "grows")), text)

    def test_build_a_project(self):
        modules = 4 if e2e.SANITIZED else 12
        write(self.path(1, "Makefile"),
              "OBJECTS := $(patsubst %.cc,%.o,$(wildcard *.cc))\n"
              "program: $(OBJECTS)\n\t$(CXX) -o $@ $^\n"
              "%.o: %.cc all.h\n\t$(CXX) -O1 -c -o $@ $<\n")
        write(self.path(1, "all.h"), "".join(f"int f{i}();\n" for i in range(modules)))
        for i in range(modules):
            write(self.path(1, f"m{i}.cc"),
                  f'#include <string>\n#include "all.h"\nint f{i}() {{ return std::string({i}, \'x\').size(); }}\n')
        write(self.path(1, "main.cc"), '#include <cstdio>\n#include "all.h"\nint main() { printf("%d\\n", ' +
              " + ".join(f"f{i}()" for i in range(modules)) + "); }\n")
        wait_until(lambda: len(self.lab.names(2, self.folder)) == modules + 3, 5, "the sources on host 2")
        must("make", "-j2", cwd=self.path(2), timeout=240)
        expected = f"{sum(range(modules))}\n".encode()
        self.assertEqual(must(self.path(2, "program")), expected)
        wait_until(lambda: os.path.exists(self.path(3, "program")), 5, "the program on host 3")
        self.assertEqual(must(self.path(3, "program")), expected)
        again = must("make", "-j2", cwd=self.path(2), timeout=60)
        self.assertIn(b"up to date", again)
        write(self.path(2, "m1.cc"), '#include "all.h"\nint f1() { return 100; }\n')
        must("make", "-j2", cwd=self.path(2), timeout=120)
        self.assertEqual(must(self.path(2, "program")), f"{sum(range(modules)) + 99}\n".encode())

    def test_git(self):
        env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@b.c",
               "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@b.c", "HOME": self.lab.directory}

        def git(host, folder, *arguments):
            return must("git", "-C", self.path(host, folder), "-c", "safe.directory=*", *arguments, env=env,
                        timeout=120)
        os.mkdir(self.path(1, "repository"))
        git(1, "repository", "init", "-q", "-b", "main")
        for i in range(20):
            write(self.path(1, "repository", f"file{i}"), f"content {i}\n" * 50)
        git(1, "repository", "add", ".")
        git(1, "repository", "commit", "-q", "-m", "first")
        for i in range(10):
            write(self.path(1, "repository", f"file{i}"), f"changed {i}\n")
        git(1, "repository", "commit", "-q", "-a", "-m", "second")
        git(1, "repository", "mv", "file11", "moved")
        self.assertEqual(git(1, "repository", "status", "--porcelain").strip(), b"R  file11 -> moved")
        git(1, "repository", "commit", "-q", "-m", "third")
        git(1, "repository", "gc", "-q")
        git(1, "repository", "fsck", "--strict")
        must("git", "-c", "safe.directory=*", "clone", "-q", "--no-local", self.path(1, "repository"),
             self.path(1, "clone"), env=env, timeout=120)
        self.assertEqual(git(1, "clone", "log", "--format=%s"), b"third\nsecond\nfirst\n")
        head = git(1, "clone", "rev-parse", "HEAD")
        wait_until(lambda: os.path.exists(self.path(2, "clone", "moved")), 5, "the clone on host 2")
        self.assertEqual(git(2, "clone", "rev-parse", "HEAD"), head)
        self.assertEqual(git(2, "clone", "status", "--porcelain"), b"")
        git(2, "clone", "fsck", "--strict")
        self.assertEqual(read(self.path(3, "clone", "file0")), b"changed 0\n")


if __name__ == "__main__":
    e2e.main()
