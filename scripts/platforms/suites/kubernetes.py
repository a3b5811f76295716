"""The files of envoy/autoscaling on a real API server, Deployment and autoscalers: the whole loop from a queue to replicas and back."""

import os
import threading
import time

from lab.autoscaling import Adapter, Keda
from lab.edge import PORT, Edge
from lab.kubelet import Kubelet
from lab.machine import run, until
from lab.parts import wanted
from lab.prometheus import Prometheus
from lab.record import none_failed
from lab.shop import shipped

NAME, FOLDER = "Kubernetes", "autoscaling"
KEDA, HPA, RULES = "autoscaling/keda.yaml", "autoscaling/hpa.yaml", "autoscaling/prometheus-adapter.yaml"
FILES = (KEDA, HPA, RULES)
SHARES = ("keda", "hpa")
FILTER = "envoy-gateway/evenkeel.yaml"
UPSTREAM = ('upstream="web"', 'upstream="httproute/shop/web/rule/0"')
# Each pod works on two requests at a time, 50 ms each: 40 a second. Three are enough for the calm, and not for the rush.
WORK, AT_ONCE = 50, 2
FEWEST, CALM, RUSH = 3, 20, 125
WEB = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "replicas": FEWEST,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                # There is no scheduler here.
                "nodeName": "near",
                "containers": [{
                    "name": "app",
                    "image": "app",
                    "command": ["endpoint.py"],
                    "args": ["$(POD_NAME)", str(WORK), "8080", str(AT_ONCE)],
                    "ports": [{"containerPort": 8080}],
                    "resources": {"requests": {"cpu": "200m"}},
                    "lifecycle": {"preStop": {"sleep": {"seconds": 10}}},
                }],
            },
        },
    },
}
# What a test cannot wait for: thirty seconds and five minutes by default.
AUTOSCALE = f"autoscale: {{ min: {FEWEST}, max: 20, period: 5s, cool_down: 30s, pressure: [{{ signal: queue_depth, at: 2.5 }}] }}"


def filter_file():
    """The shipped file with what autoscaling.md adds to it."""
    return shipped(FILTER, ("        upstreams:\n", "        status: { path: /_evenkeel }\n        upstreams:\n"),
        ("            signals:\n", f"            {AUTOSCALE}\n            signals:\n"))


class Scaled(Edge):
    """The shop behind its gateway, its pods those of a Deployment."""

    def pods(self):
        self.prometheus = Prometheus(self.kubernetes, "monitoring", os.environ["PROMETHEUS"], [])
        self.kubelet = Kubelet(self.kubernetes, "shop", self.prometheus.scrape)
        self.kubernetes.apply(WEB)
        until("the Deployment's pods", lambda: self.replicas("readyReplicas") == FEWEST, 60)

    def replicas(self, which="replicas"):
        deployment = self.kubernetes.get("deployment", "web", "-n", "shop")
        return deployment["spec"]["replicas"] if which == "wanted" else deployment["status"].get(which, 0)

    def number(self):
        found = self.prometheus.value("max(evenkeel_upstream_desired_replicas)")
        return found and int(found)

    def scraped(self, proxy="gateway"):
        self.prometheus.proxies(f"{self.proxies[proxy]}:{PORT}")


class Watch:
    """Notes every second the number that evenkeel asks for, and the replicas that there are to be."""

    def __init__(self, scaled, every=lambda: None):
        self.scaled, self.every, self.seen, self.ended = scaled, every, [], threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        while not self.ended.wait(1):
            self.every()
            self.seen.append((time.monotonic(), self.scaled.number(), self.scaled.replicas("wanted")))

    def end(self):
        self.ended.set()
        self.thread.join()

    def course(self, since=0):
        """The replicas one after the other."""
        wanted = [replicas for when, _, replicas in self.seen if when >= since]
        return [one for one, before in zip(wanted, [None, *wanted]) if one != before]

    def told(self):
        return ", ".join(map(str, self.course()))


def loop(scaled, record, file, gone, gone_how, back, every=lambda: None):
    """A queue grows, the number goes away and comes back, the queue is empty."""
    watch, calm = Watch(scaled, every), scaled.begin("gateway", 60_000, CALM)
    time.sleep(10)
    begun, rush = time.monotonic(), scaled.begin("gateway", RUSH * 60, RUSH)
    until("more replicas", lambda: scaled.replicas("wanted") > FEWEST, 90, 0.5)
    more = time.monotonic() - begun
    until("the replicas that are asked for", lambda: scaled.replicas("readyReplicas") == scaled.number(), 60, 0.5)
    following = time.monotonic() - begun
    busy, grown = rush.result(), watch.told()
    record.case(f"`{file}`: a queue grows", f"{grown} replicas, the first of them after {more:.0f} s, as many as asked for after {following:.0f} s; "
        f"{busy['sent']} requests, {busy['failed']} failed", none_failed(busy), max(watch.course()) <= FEWEST + 1 and "hardly any more")
    gone()
    until("the number that goes away", lambda: scaled.number() is None, 60)
    # A decision that was on its way.
    time.sleep(6)
    missing, since = scaled.replicas("wanted"), time.monotonic()
    time.sleep(100)
    held = watch.course(since)
    record.case(f"`{file}`: {gone_how}", f"{', '.join(map(str, held))} replicas for 100 s in which {FEWEST} would have been enough",
        min(held) < missing and f"from {missing} to {min(held)}", missing <= FEWEST and "nothing there that could shrink")
    back()
    until("the number that is back", scaled.number, 60)
    until("as few as before", lambda: scaled.replicas() == FEWEST and len(scaled.kubelet.processes()) == FEWEST, 180, 1)
    watch.end()
    calm = calm.end()
    record.case(f"`{file}`: the number is back, the queue empty", f"{watch.told()} replicas in all; {calm['sent']} requests meanwhile to "
        f"{len(calm['pods'])} pods, {calm['failed']} failed", none_failed(calm))


def keda(scaled, record):
    running, file = Keda(scaled.kubernetes), shipped(KEDA, UPSTREAM)
    scaled.kubernetes.apply(file, "-n", "shop")
    until("KEDA's autoscaler", lambda: scaled.kubernetes.get("hpa", "keda-hpa-web", "-n", "shop"), 60)
    loop(scaled, record, KEDA, scaled.prometheus.away, "Prometheus is away", scaled.prometheus.up)
    scaled.kubernetes.delete(file, "-n", "shop")
    running.away()


def hpa(scaled, record):
    adapter = Adapter(scaled.kubernetes, shipped(RULES, UPSTREAM), scaled.prometheus, scaled.kubelet.processes)
    scaled.kubernetes.apply(shipped(HPA), "-n", "shop")
    loop(scaled, record, HPA, scaled.prometheus.proxies, "the number is in no series any more", scaled.scraped, adapter.listed)
    scaled.kubernetes.delete(shipped(HPA), "-n", "shop")


def tried(machine, wasm, record):
    """Everything of this platform, into the record."""
    scaled = Scaled(machine, wasm)
    machine.call(**{"prometheus.monitoring.svc": scaled.prometheus.address})
    record.versions = {
        "Kubernetes": scaled.kubernetes.version(),
        "KEDA": os.environ["KEDA_MODULE_VERSION"],
        "Envoy Gateway": os.environ["ENVOY_GATEWAY_MODULE_VERSION"],
        "Envoy": run(os.environ["ENVOY"], "--version").split("version: ")[1].split("/")[1],
    }
    scaled.kubernetes.apply(filter_file())
    scaled.steers()
    scaled.scraped()
    until("evenkeel's number", lambda: scaled.number() == FEWEST, 60)
    parts = {"keda": keda, "hpa": hpa}
    for part in wanted(SHARES, parts):
        parts[part](scaled, record)
