"""A real Docker engine in a root of its own: Debian's, over what scripts/platforms/build has unpacked, with an empty store."""

import json
import os
import pathlib
import shutil
import subprocess

from .machine import REPO, Failed, run, until

# Both ways in which an engine keeps images; the second is what new installations have.
STORES = {"classic": False, "containerd": True}
CGROUP = "evenkeel-platforms"
# The folder of the test's own, as engine and client see it.
INSIDE = "/work"


def unpacked(name):
    """A root that was unpacked: `engine`, or `base`, which the images are made of."""
    named = os.environ.get("DOCKER_ENGINE") if name == "engine" else None
    return pathlib.Path(named) if named else REPO / ".tools/platforms/docker" / name


class Engine:
    """The engine while it runs; what it writes goes into the test's folder."""

    def __init__(self, machine, store):
        self.machine, self.store = machine, store
        self.work = machine.work / store
        self.root, self.shared = self.work / "root", machine.work / "shared"
        self.shared.mkdir(exist_ok=True)
        for folder in ("upper", "overlay", "root", "data"):
            (self.work / folder).mkdir(parents=True)
        self.mounts()
        self.process = self.started = None

    def mounts(self):
        """In the mount namespace that scripts/platforms/run made: the machine sees none of it."""
        layers = f"lowerdir={unpacked('engine')},upperdir={self.work}/upper,workdir={self.work}/overlay"
        run("mount", "-t", "overlay", "overlay", "-o", layers, self.root)
        run("mount", "--rbind", "/proc", self.root / "proc")
        run("mount", "--rbind", "/dev", self.root / "dev")
        # Anew, as it shows the network namespace's own devices.
        run("mount", "-t", "sysfs", "sysfs", self.root / "sys")
        run("mount", "--rbind", "/sys/fs/cgroup", self.root / "sys/fs/cgroup")
        for folder in ("run", "tmp"):
            run("mount", "-t", "tmpfs", "tmpfs", self.root / folder)
        for source, place in ((self.work / "data", "var/lib/docker"), (self.shared, INSIDE[1:])):
            (self.root / place).mkdir(parents=True, exist_ok=True)
            run("mount", "--bind", source, self.root / place)

    def up(self):
        settings = {"cgroup-parent": f"/{CGROUP}", "features": {"containerd-snapshotter": STORES[self.store]}}
        (self.root / "etc/docker").mkdir(exist_ok=True)
        (self.root / "etc/docker/daemon.json").write_text(json.dumps(settings))
        # The real root of its mount namespace, as runc wants it.
        inside = f'cd "{self.root}"; mkdir -p old; pivot_root . old; umount -l old; exec dockerd'
        self.process = self.machine.start(f"dockerd-{self.store}", "unshare", "--mount", "--propagation", "private", "sh", "-ec", inside)
        until("the Docker engine", lambda: self.told("info", "--format", "{{.ServerVersion}}"))

    def down(self):
        """Ends the engine and gives back what it wrote."""
        self.machine.stop(self.process)
        run("umount", "-R", self.root)
        shutil.rmtree(self.work)

    def call(self, *command, environment=None, patience=600):
        """Runs a client of the engine; how it ended, its output and its words."""
        named = [f"{name}={value}" for name, value in {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **(environment or {})}.items()]
        command = ["chroot", self.root, "env", "-i", *named, *command]
        return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=patience)

    def docker(self, *arguments):
        done = self.call("docker", *arguments)
        if done.returncode != 0:
            raise Failed(f"docker {' '.join(map(str, arguments))}: {done.stderr.strip()}")
        return done.stdout

    def told(self, *arguments):
        """The same; nothing where it fails."""
        done = self.call("docker", *arguments)
        return done.stdout.strip() if done.returncode == 0 else ""

    def empty(self):
        """Takes away what a test that broke off has left."""
        left = self.leftovers()
        for kind, command in (("container", ("rm", "-f")), ("network", ("network", "rm")), ("volume", ("volume", "rm"))):
            if left.get(kind):
                self.docker(*command, *left[kind])

    def leftovers(self):
        """Containers, volumes and networks that are there beside the engine's own networks."""
        kinds = {"container": ("ps", "-aq"), "volume": ("volume", "ls", "-q"), "network": ("network", "ls", "-q", "--filter", "type=custom")}
        return {kind: found for kind, command in kinds.items() if (found := self.told(*command).split())}
