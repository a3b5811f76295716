"""A machine of the test's own: network namespaces on a bridge, processes with logs, names that lead to addresses.

All of it lives in the mount, network and process namespaces that scripts/platforms/run makes: when its first process ends, the
kernel ends every other one and takes the networks back. Nothing here cleans up."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parent.parent.parent
GATE = "10.245.0.254"
NETWORK = "10.245.0."
# Where the small programs find what the build has fetched for them.
PACKAGES = {"PYTHONPATH": str(REPO / ".tools/platforms/grpc"), "GRPC_VERBOSITY": "NONE"}


class Failed(Exception):
    """Something that a test needs did not come about."""


def say(text):
    print(f"platforms: {text}", file=sys.stderr, flush=True)


def until(what, ready, patience=60.0, pause=0.2):
    """What `ready` returns as soon as it is true; an error that names `what` once the patience has gone."""
    end = time.monotonic() + patience
    while True:
        found = ready()
        if found:
            return found
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {patience:.0f} s")
        time.sleep(pause)


def run(*command, check=True, text=None, **options):
    """Runs a command; what it printed."""
    done = subprocess.run([str(part) for part in command], input=text, capture_output=True, text=True, check=False, **options)
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def program(name):
    """The program of this name: a variable's, the one that was built, the one on the PATH."""
    named = os.environ.get(name.upper().replace("-", "_"))
    built = REPO / ".tools/platforms" / name
    found = named or (str(built) if os.access(built, os.X_OK) else shutil.which(name))
    if not found:
        raise Failed(f"{name} is missing")
    return found


def built_file(name):
    """A file that scripts/platforms/build took from a platform's module, or from the older Envoy Gateway that is tried."""
    built = REPO / ".tools/platforms"
    older = built / "gateways" / os.environ.get("GATEWAY", "-") / "files" / name
    return older if older.exists() else built / "files" / name


class Machine:
    """The bridge and all that hangs on it."""

    def __init__(self, work):
        self.work = pathlib.Path(work)
        (self.work / "log").mkdir(parents=True)
        self.names = {"localhost": "127.0.0.1"}
        self.used = 0
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "br0", "type", "bridge")
        run("ip", "addr", "add", f"{GATE}/24", "dev", "br0")
        run("ip", "link", "set", "br0", "up")
        self.hosts = self.work / "hosts"
        self.call(localhost="127.0.0.1")
        run("mount", "--bind", self.hosts, "/etc/hosts")
        # There is no name server here. One that refuses at once spares programs, Envoy among them, a minute of waiting for one that is silent.
        (self.work / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        run("mount", "--bind", self.work / "resolv.conf", "/etc/resolv.conf")

    def call(self, *names, **named):
        """Lets host names lead to the bridge's address, or to the one that is given."""
        self.names |= dict.fromkeys(names, GATE) | named
        # Written in place: it is mounted.
        self.hosts.write_text("".join(f"{address} {name}\n" for name, address in self.names.items()))

    def namespace(self, name):
        """A network namespace that stands for a pod's; its address."""
        self.used += 1
        address = f"{NETWORK}{self.used}"
        link = f"v{self.used}"
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", link, "master", "br0", "up")
        run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        run("ip", "-n", name, "route", "add", "default", "via", GATE)
        return address

    def log(self, name):
        """What a process has written so far."""
        return (self.work / "log" / name).read_text(errors="replace")

    def start(self, name, *command, inside=None, environment=None, folder=None, mounts=()):
        """Starts a process in the namespace `inside`, with `mounts` bound over fixed paths for it alone."""
        command = [str(part) for part in command]
        if mounts:
            script = "".join(f'mount --bind "{source}" "{place}"; ' for source, place in mounts)
            command = ["unshare", "--mount", "sh", "-ec", script + 'exec "$@"', "sh", *command]
        if inside:
            command = ["ip", "netns", "exec", inside, *command]
        with open(self.work / "log" / name, "ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=os.environ | {key: str(value) for key, value in (environment or {}).items()},
                start_new_session=True,
            )

    def stop(self, process):
        """Ends a process that `start` started, and its group."""
        try:
            os.killpg(process.pid, 15)
            process.wait(10)
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait(10)

    def python(self, name, script, *arguments, inside=None):
        """Starts one of the small programs beside this file."""
        return self.start(name, sys.executable, HERE / script, *arguments, inside=inside, environment=PACKAGES)

    def ask(self, inside, url, *options):
        """The text behind a URL, as seen from a namespace; nothing where there is none."""
        return run("ip", "netns", "exec", inside, "curl", "-s", "--max-time", "5", *options, url, check=False)


def listens(address, port):
    """Whether something accepts connections there."""
    try:
        socket.create_connection((address, port), 1).close()
        return True
    except OSError:
        return False
