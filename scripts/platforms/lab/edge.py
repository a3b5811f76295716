"""A shop behind a gateway of Envoy Gateway: three pods of the service `web`, the third of them slow, and a client outside."""

import json
import os
import time

from .envoy_gateway import EnvoyGateway
from .images import Registry
from .kubernetes import Kubernetes
from .machine import listens, until
from .prometheus import Prometheus
from .shop import QUICK, SLOW, Load

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: shop, namespace: shop }
spec: { gatewayClassName: eg, listeners: [{ name: http, protocol: HTTP, port: 80 }] }
"""
# What Envoy Gateway lets a proxy listen to for the listener's port.
PORT = 10080
PODS = ("web-0", "web-1", "web-2")
# A fair part of three pods would be a third, and Envoy's least_request gives the slow one a sixth.
SPARED = 1 / 10
# The module's stats have their labels behind the name.
DECISIONS, NOT_FOLLOWED = "policy.*fleet_decisions_total|fleet_decisions_total.*policy", "fleet_not_followed_total"
POLICIES = "envoyextensionpolicy,envoypatchpolicy,backendtrafficpolicy"


def route(*rules, name="web"):
    """The user's own route, whose rules have these backendRefs, or are rules themselves."""
    rules = [rule if isinstance(rule, dict) else {"backendRefs": rule} for rule in rules]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"parentRefs": [{"name": "shop"}], "rules": rules},
    }


def backend(name, weight=1, **more):
    return {"name": name, "port": 8080, "weight": weight, **more}


PLAIN = route([backend("web")])


class Edge:
    """The cluster, its gateway, and the proxies that this test starts for it."""

    def __init__(self, machine, wasm):
        self.machine, self.kubernetes, self.applications = machine, Kubernetes(machine), {}
        self.registry = Registry(machine, wasm)
        self.gateway = EnvoyGateway(self.kubernetes, self.registry)
        self.kubernetes.space("shop", "monitoring")
        self.kubernetes.service("shop", "web", 8080)
        self.pods()
        self.kubernetes.apply(GATEWAY)
        self.kubernetes.apply(PLAIN)
        machine.namespace("client")
        self.proxies, self.started, self.serving, self.owner = {}, 0, "gateway", "gateway-name=shop"
        self.process = self.proxy("gateway")

    def pods(self):
        """What stands behind the gateway, and the Prometheus that scrapes it."""
        for number, pod in enumerate(PODS):
            self.answering(pod, SLOW if number == 2 else QUICK)
        Prometheus(self.kubernetes, "monitoring", os.environ["PROMETHEUS"], [self.address(pod) for pod in PODS])

    def address(self, pod):
        return self.kubernetes.pods[pod][1]

    def answering(self, pod, delay, app="web", node="near"):
        address = self.kubernetes.pod("shop", pod, {"app": app}, ready=False, node=node)
        self.revive(pod, delay)
        self.kubernetes.ready(pod)
        return address

    def revive(self, pod, delay):
        """The pod's process starts, or starts again."""
        self.applications[pod] = self.machine.python(pod, "endpoint.py", pod, delay, inside=pod)
        until(f"{pod} listens", lambda: listens(self.address(pod), 8080), 20)

    def ended(self, pod):
        """The pod's process ends; what becomes of its object is another matter."""
        self.machine.stop(self.applications.pop(pod))

    def replace(self, old, new):
        """One pod takes another's place, as a Deployment does it: ready first, then the old one leaves the list and ends later."""
        address = self.answering(new, QUICK)
        until(f"{new} among the endpoints", lambda: address in self.kubernetes.endpoints("shop", "web"))
        gone = self.address(old)
        self.kubernetes.forget(old)
        # What a pod's preStop hook waits for: that all proxies have heard of it.
        until(f"{old} among the endpoints no more", lambda: gone not in self.kubernetes.endpoints("shop", "web"))
        time.sleep(5)
        self.ended(old)

    def proxy(self, name, patience=180):
        """A proxy that starts, up to its first answers."""
        process, self.proxies[name] = self.gateway.proxy(name, self.owner)
        until(f"requests that arrive by {name}", lambda: not self.load(name, 10, 50)["failed"], patience)
        return process

    def rolled_out(self):
        """The proxy is replaced by another, as a Deployment does it whose proxies get other variables or arguments."""
        self.started += 1
        old, self.serving = self.process, f"gateway-{self.started}"
        self.process = self.proxy(self.serving)
        self.proxies["gateway"] = self.proxies[self.serving]
        self.machine.stop(old)

    def begin(self, proxy, requests=600, rate=60, host="web.example.com", headers=(), port=PORT):
        return Load("client", self.proxies[proxy], requests, rate, host, port, headers)

    def load(self, *arguments, **named):
        return self.begin(*arguments, **named).result()

    def under_load(self, change, seconds=45):
        """Makes a change while requests run, long enough for it to come into force; what came of them.

        A proxy takes new listeners once new clusters have their endpoints, up to fifteen seconds for each change of them."""
        load = self.begin("gateway", seconds * 60)
        time.sleep(1)
        change()
        return load.result()

    def starting(self, requests=300):
        """Load through a proxy that is started for it; the load, and the proxy's log."""
        self.started += 1
        name = f"starting-{self.started}"
        process = self.proxy(name)
        load = self.load(name, requests)
        self.machine.stop(process)
        return load, self.machine.log(f"proxy-{name}")

    def settled(self):
        """Waits until changed clusters are in force, each of which awaits its endpoints for some fifteen seconds."""
        def told(state):
            dump = json.loads(self.gateway.admin(self.serving, f"config_dump?resource=dynamic_{state}_clusters") or "{}")
            return {(item["cluster"]["name"], item["last_updated"]) for item in dump.get("configs", [])}
        active, quiet = told("active"), time.monotonic()
        def unchanged():
            nonlocal active, quiet
            now = told("active")
            if now != active or told("warming"):
                active, quiet = now, time.monotonic()
            return time.monotonic() > quiet + 5
        until("clusters in force", unchanged, 120, 1)

    def counted(self, what):
        return sum(self.gateway.stats(self.serving, what).values())

    def steers(self):
        """Waits until requests are decided about and the decisions followed, and then until the filter has seen enough of them."""
        def followed():
            decisions, lost = self.counted(DECISIONS), self.counted(NOT_FOLLOWED)
            self.load("gateway", 10, 50)
            return self.counted(DECISIONS) > decisions + 5 and self.counted(NOT_FOLLOWED) == lost
        until("decisions that are followed", followed, 120)
        self.settled()
        self.load("gateway", 400)

    def take_out(self, text, own=PLAIN):
        """As the page says: `observe` first, then the policies; the user's own route stays."""
        self.kubernetes.apply(text.replace("        steering:\n", "        mode: observe\n        steering:\n"))
        self.kubernetes.apply(own)
        time.sleep(2)
        self.kubernetes.kubectl("delete", "--ignore-not-found", POLICIES, "evenkeel", "-n", "shop")
