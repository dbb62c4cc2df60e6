"""Hosts of one test program, each in namespaces of its own: network, mounts, processes, name.

They see one file system, but for the folders that make a host: /etc/kinfs, /var/lib/kinfs, /run/kinfs, /var/log and
/srv. Their only network is a bridge in one more namespace. All of it ends with the test, however that ends: a host is
the first process of its process namespace, and the kernel ends that one when the test is no more.
"""
import ctypes
import glob
import json
import os
import shutil
import signal
import subprocess
import tempfile

from lab import BIN, SLACK, wait_until

OWN = ("/etc/kinfs", "/var/lib/kinfs", "/run/kinfs", "/var/log", "/srv")
SHARED = "/srv/shared"
PREFIX = "192.0.2."  # RFC 5737: nobody's


def _die_with_the_test():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Namespace:
    """What runs below one `unshare`."""

    def __init__(self, flags, script):
        self.process = subprocess.Popen(["unshare", *flags, "--kill-child", "--fork", "sh", "-c",
                                         script + "\necho ready; exec sleep infinity"],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        preexec_fn=_die_with_the_test)
        if self.process.stdout.readline() != b"ready\n":
            self.end()
            raise AssertionError(f"no namespaces here: {flags} {script}")
        children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        with open(children, encoding="ascii") as file:
            self.pid = int(file.read().split()[0])

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Host(Namespace):
    programs = BIN  # where its kinfs is; "": where the system has it

    def __init__(self, directory, number, disk_mib=0):
        self.number = number
        self.name = f"host{number}"
        self.address = f"{PREFIX}{number}"
        self.directory = os.path.join(directory, self.name)
        script = ["set -e", "mount --make-rprivate /", f"hostname {self.name}", "ip link set lo up"]
        script += self.own_folders()
        if disk_mib:  # a disk of its own, that can be full; the loop device goes with its last mount
            image = self.directory + "/disk"
            script += [f"truncate -s {disk_mib}M {image}", f"mkfs.ext4 -q -O ^has_journal {image}",
                       f"mount -o loop {image} /var/lib/kinfs", "rmdir /var/lib/kinfs/lost+found"]
        super().__init__(["--net", "--mount", "--uts", "--pid", "--mount-proc"], "\n".join(script))
        self.enter = ["nsenter", "-t", str(self.pid), "-n", "-m", "-u", "-p", "--"]

    def own_folders(self):
        """The commands that give them to it."""
        script = []
        for folder in OWN:
            own = self.directory + folder
            os.makedirs(own)
            if not os.path.isdir(folder):
                os.makedirs(folder)
            script.append(f"mount --bind {own} {folder}")
        return script

    def path(self, name):
        """The path as this test sees what is `name` to the host, mounts included."""
        return f"/proc/{self.pid}/root{name}"

    def run(self, *command, stdin=b"", timeout=120, cwd="/"):
        path = os.environ.get("PATH", "")
        env = dict(os.environ, PATH=f"{self.programs}:{path}" if self.programs else path)
        return subprocess.run(self.enter + list(command), input=stdin, capture_output=True, timeout=timeout * SLACK,
                              env=env, cwd=cwd)

    def must(self, *command, **options):
        done = self.run(*command, **options)
        if done.returncode != 0:
            raise AssertionError(f"{self.name}: {command} returned {done.returncode}\n" +
                                 (done.stdout + done.stderr).decode("utf-8", "replace"))
        return done.stdout.decode()

    def pids(self, program):
        """Of its processes called `program`, as this test numbers them."""
        mine = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = []
        for folder in glob.glob("/proc/[0-9]*"):
            try:
                if os.readlink(folder + "/ns/pid") != mine:
                    continue
                with open(folder + "/cmdline", "rb") as file:
                    first = file.read().split(b"\0")[0].decode()
            except OSError:
                continue
            if os.path.basename(first) == program:
                found.append(int(os.path.basename(folder)))
        return found

    def signal(self, number, *programs):
        for pid in [p for name in programs for p in self.pids(name)]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def kill(self, *programs):
        """kill -9, and waits until they are gone."""
        self.signal(signal.SIGKILL, *programs)
        wait_until(lambda: not any(self.pids(p) for p in programs), 10, f"{programs} of {self.name} are gone")

    def start(self):
        """The daemon, and the mount at SHARED, whatever was left of them."""
        self.run("umount", "-l", SHARED)
        if not self.pids("kinfsd"):
            self.must("sh", "-c", "kinfsd >>/var/log/kinfsd.log 2>&1 </dev/null & exit 0")
        wait_until(lambda: self.run("kinfs", "mount", "home", SHARED).returncode == 0, 30,
                   lambda: f"{self.name} is mounted: {self.log()[-2000:]}")

    def status(self):
        return json.loads(self.run("kinfs", "status", "--json").stdout)

    def is_whole(self):
        """It sees all others, and keeps nothing for them that they lack."""
        try:
            status = self.status()
        except ValueError:
            return False
        return status["hints"] == 0 and all(h["state"] == "up" for h in status["hosts"])

    def log(self):
        try:
            with open(self.directory + "/var/log/kinfsd.log", encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return ""


class Machine(Host):
    """A host with a root of its own, in which packages can be installed: this machine's, and what is written there is
    kept in memory. A machine that is of a cluster itself is as new in it."""
    programs = ""

    def own_folders(self):
        at = self.directory + "/root"
        os.makedirs(at)
        # Not below /, of which it becomes the upper layer: the kernel refuses such a loop.
        return [f"mount -t tmpfs kinfs-root {self.directory}", f"cd {self.directory}", "mkdir upper work root",
                "mount -t overlay kinfs-root -o lowerdir=/,upperdir=upper,workdir=work root",
                "mount --rbind /dev root/dev", "mount --rbind /sys root/sys", "mount -t proc proc root/proc",
                "mount -t tmpfs run root/run", "cd root", "mkdir -p old-root", "pivot_root . old-root",
                "umount -l /old-root", "cd /", "test $(stat -f -c %T /) = overlayfs",
                "rm -rf /etc/kinfs /var/lib/kinfs /var/log/kinfsd.log"]


class Hosts:
    """`with Hosts(3) as hosts:`; hosts[1] is the first."""

    def __init__(self, count, disk_mib=0, kind=Host):
        self.kind = kind
        self.directory = tempfile.mkdtemp(prefix="kinfs-hosts-", dir="/var/tmp")
        self.all = []
        self.switch = None
        try:
            self.switch = Namespace(["--net"], "ip link add lan type bridge && ip link set lan up")
            for number in range(1, count + 1):
                self.add(number, disk_mib)
        except BaseException:
            self.end()
            raise

    def add(self, number, disk_mib=0):
        host = self.kind(self.directory, number, disk_mib)
        self.all.append(host)
        port = f"port{number}"
        self.at_switch("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        self.at_switch("ip", "link", "set", port, "master", "lan", "up")
        host.must("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
        host.must("ip", "link", "set", "eth0", "up")
        return host

    def at_switch(self, *command):
        subprocess.run(["nsenter", "-t", str(self.switch.pid), "-n", "--", *command], check=True, capture_output=True)

    def cut(self, host):
        """Nothing goes to this host or comes from it; nobody is told."""
        self.at_switch("ip", "link", "set", f"port{host.number}", "nomaster")

    def cut_one_way(self, host):
        """What comes to this host is dropped; what it sends arrives."""
        host.must("nft", "add table inet cut; add chain inet cut in { type filter hook input priority 0; }; "
                         "add rule inet cut in iifname eth0 drop")

    def cut_between(self, host, other):
        """These two do not hear from each other; all others hear from both."""
        host.must("nft", "add table inet cut; add chain inet cut in { type filter hook input priority 0; }; "
                         f"add rule inet cut in ip saddr {other.address} drop")

    def heal(self, host):
        self.at_switch("ip", "link", "set", f"port{host.number}", "master", "lan")
        host.run("nft", "delete table inet cut")

    def __getitem__(self, number):
        return self.all[number - 1]

    def __enter__(self):
        return self

    def __exit__(self, kind, *what):
        if kind:
            self.tell()
        self.end()

    def tell(self):
        """What there is to see of each host when a test has failed."""
        for host in self.all:
            pids = {name: host.pids(name) for name in ("kinfsd", "mount.kinfs")}
            print(f"--- {host.name}: {pids}; its log ends:\n{host.log()[-3000:]}", flush=True)

    def end(self):
        for namespace in self.all + ([self.switch] if self.switch else []):
            namespace.end()
        shutil.rmtree(self.directory, ignore_errors=True)
