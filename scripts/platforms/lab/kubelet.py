"""Plays the kubelet for the pods of a namespace: each is processes in a network namespace of its own."""

import datetime
import json
import ssl
import sys
import threading
import time
import traceback
import urllib.request

from .kubernetes import TOKEN
from .machine import GATE, HERE, listens, until


class Kubelet:
    """Follows the API server's list of pods, starts their containers and ends them as their specification says."""

    def __init__(self, kubernetes, space, changed):
        """`changed` is called with the pods' addresses whenever they are others."""
        self.kubernetes, self.machine, self.space, self.changed = kubernetes, kubernetes.machine, space, changed
        self.lock, self.pods, self.addresses, self.ending = threading.Lock(), {}, {}, set()
        threading.Thread(target=self.follow, daemon=True).start()

    def follow(self):
        url = f"https://127.0.0.1:6443/api/v1/namespaces/{self.space}/pods?watch=true"
        request = urllib.request.Request(url, headers={"authorization": f"Bearer {TOKEN}"})
        unchecked = ssl.create_default_context()
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        while True:
            with urllib.request.urlopen(request, context=unchecked, timeout=3600) as events:
                for line in events:
                    self.event(json.loads(line))

    def event(self, event):
        pod = event["object"]
        name = pod["metadata"]["name"]
        with self.lock:
            if event["type"] == "DELETED":
                return
            if name not in self.pods:
                self.pods[name] = None
                task = self.begin
            elif "deletionTimestamp" in pod["metadata"] and name not in self.ending:
                self.ending.add(name)
                task = self.end
            else:
                return
        threading.Thread(target=said, args=(task, name, pod), daemon=True).start()

    def begin(self, name, pod):
        container = pod["spec"]["containers"][0]
        arguments = [argument.replace("$(POD_NAME)", name) for argument in container["args"]]
        with self.lock:
            address = self.machine.namespace(name)
            self.pods[name] = self.machine.start("pods", sys.executable, HERE / container["command"][0], *arguments, inside=name)
        until(f"{name} listens", lambda: listens(address, container["ports"][0]["containerPort"]), 60)
        with self.lock:
            self.addresses[name] = address
            self.changed(self.addresses.values())
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "hostIP": GATE,
            "startTime": now,
            "conditions": [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in ("Ready", "ContainersReady")],
        }
        patch = json.dumps({"status": status})
        self.kubernetes.kubectl("patch", "pod", name, "-n", self.space, "--subresource=status", "--type=merge", "-p", patch, check=False)

    def end(self, name, pod):
        """The preStop hook, SIGTERM, and once the processes have gone the object."""
        hook = pod["spec"]["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {})
        time.sleep(hook.get("seconds", 0))
        # It may have been told to go before it was there.
        self.machine.stop(until(f"{name} runs", lambda: self.pods[name]))
        self.kubernetes.kubectl("delete", "pod", name, "-n", self.space, "--grace-period=0", "--force", check=False)
        with self.lock:
            del self.pods[name], self.addresses[name]
            self.changed(self.addresses.values())

    def processes(self):
        """The pods that run at present: their processes by name."""
        with self.lock:
            return {name: process.pid for name, process in self.pods.items() if process}


def said(task, *arguments):
    try:
        task(*arguments)
    except Exception:
        traceback.print_exc()
