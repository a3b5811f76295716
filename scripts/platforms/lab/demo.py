"""docker-compose.yaml in a checkout of the test's own, brought up by a real engine."""

import json
import os
import re
import shutil
import subprocess

from .docker import INSIDE
from .machine import REPO, run, until

COMPOSE = "envoy/docker-compose.yaml"
NETWORK = "172.31.254"
# The last number of their addresses.
BACKENDS = {"healthy-1": 11, "healthy-2": 12, "healthy-3": 13, "slow": 14, "degrading": 15, "failing": 16}


def checkout(machine, name="checkout", umask=0o022):
    """The files of this repository as `git clone` would lay them under an umask."""
    place = machine.work / "shared" / name
    files = run("git", "ls-files", "-co", "--exclude-standard", cwd=REPO).splitlines()
    before = os.umask(umask)
    for file in files:
        source = REPO / file
        if source.is_file() and not source.is_symlink():
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place / file)
            (place / file).chmod((0o777 if os.access(source, os.X_OK) else 0o666) & ~umask)
    os.umask(before)
    return place


class Demo:
    """One checkout's services on one engine."""

    def __init__(self, engine, place, environment=None):
        self.engine, self.place, self.environment = engine, place, environment or {}
        self.network = self.environment.get("DEMO_NETWORK", NETWORK)
        self.port = self.environment.get("ENVOY_PORT", 10000)

    def compose(self, *arguments, **options):
        """Whether the command succeeded, and what it printed."""
        done = self.engine.call("docker", "compose", "-f", f"{INSIDE}/{self.place.name}/{COMPOSE}", *arguments,
            environment=self.environment, **options)
        return done.returncode == 0, done.stdout + done.stderr

    def up(self):
        return self.compose("up", "-d", "--quiet-build")

    def services(self):
        """Each service's container: its state and, where it ended, how."""
        _, told = self.compose("ps", "-a", "--format", "json")
        rows = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
        return {row["Service"]: row["State"] if row["State"] == "running" else f"{row['State']} ({row['ExitCode']})" for row in rows}

    def log(self, service):
        return self.compose("logs", "--no-log-prefix", service)[1]

    def rounds(self):
        """What the load has told, round by round: requests, failed, p99 in ms; other lines as they are."""
        told = []
        for line in self.log("load").splitlines():
            found = re.match(r"(\d+) requests, (\d+) failed, .*p99 (\d+) ms", line)
            told.append(tuple(map(int, found.groups())) if found else line)
        return told

    def ask(self, path, port=None):
        """What this machine's side of a published port answers."""
        done = subprocess.run(["curl", "-s", "--max-time", "5", f"http://127.0.0.1:{port or self.port}{path}"], capture_output=True, text=True, check=False)
        return done.stdout

    def status(self):
        """The status page of the only upstream; nothing while there is none."""
        try:
            return json.loads(self.ask("/_evenkeel/status.json"))
        except ValueError:
            return None

    def counted(self):
        """Requests that each backend has had, by its own count."""
        found = {}
        for name, number in BACKENDS.items():
            text = run("curl", "-s", "--max-time", "5", f"http://{self.network}.{number}:8080/metrics", check=False)
            found[name] = sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("http_requests_total"))
        return found

    def down(self):
        return self.compose("down", "-v", "-t", "2")


def ready(demo):
    return until("the demo's status page", demo.status)
