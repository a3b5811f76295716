"""What the shipped files are written for: pods of `shop` call the service `web` of their namespace, one pod of which is slow."""

import json
import os
import re
import subprocess
import sys

from .machine import HERE, PACKAGES, REPO, Failed

HOST = "web.shop.svc.cluster.local:8080"
QUICK, SLOW = 5, 100
# What cases replaced in shipped files, for the record.
REPLACED = set()


def shipped(file, *replaced):
    """A shipped file, with `replaced` pairs of texts in it. A text that is not there is a mistake of the test."""
    text = (REPO / "envoy" / file).read_text()
    for old, new in replaced:
        if old not in text:
            raise Failed(f"envoy/{file} has no {old!r}")
        text = text.replace(old, new)
        # Sums of what was built are others with every build.
        new = re.sub(r"(?!0{64})[0-9a-f]{64}", "…", new)
        REPLACED.add(f"- in `{file}`: `{' '.join(old.split())}` by `{' '.join(new.split())}`")
    return text


class Load:
    """Requests from within a pod's network namespace; begun at once, `result` waits for their end."""

    def __init__(self, inside, address, requests=600, rate=60, host=HOST, port=8080, headers=(), script="load.py"):
        command = ["ip", "netns", "exec", inside, sys.executable, HERE / script, address, port, host, requests, rate, *headers]
        self.process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True, env=os.environ | PACKAGES)

    def end(self):
        """No more requests; what came of those that there were."""
        self.process.terminate()
        return self.result()

    def result(self):
        told, _ = self.process.communicate(timeout=180)
        if not told:
            raise Failed("the load came to nothing")
        return json.loads(told)
