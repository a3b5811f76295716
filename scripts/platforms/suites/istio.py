"""The files of envoy/istio on the real istiod and agent: what they are for, and what becomes of requests when something is broken."""

import json
import os
import time

from lab.images import Registry
from lab.istio import Istio
from lab.machine import REPO, run, until
from lab.parts import wanted
from lab.prometheus import Prometheus
from lab.record import below, counts, none_failed
from lab.shop import HOST, QUICK, SLOW, Load, shipped
from lab.standin import cluster
from suites.istio_beside import beside, metrics
from suites.istio_services import calls, external

MTLS = {"security.istio.io/tlsMode": "istio"}
STRICT = {
    "apiVersion": "security.istio.io/v1",
    "kind": "PeerAuthentication",
    "metadata": {"name": "default", "namespace": "istio-system"},
    "spec": {"mtls": {"mode": "STRICT"}},
}
INGRESS = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: { name: shop, namespace: shop }
spec:
  selector: { istio: ingressgateway }
  servers: [{ port: { number: 8080, name: http, protocol: HTTP }, hosts: ["*"] }]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: shop, namespace: shop }
spec:
  hosts: ["*"]
  gateways: [shop]
  http: [{ route: [{ destination: { host: web.shop.svc.cluster.local, port: { number: 8080 } } }] }]
"""
SIDECAR, SIDECAR_OVERRIDE = "istio/sidecar-stateful-session.yaml", "istio/sidecar-override-host.yaml"
EXTENSION = "istio/traffic-extension.yaml"
GATEWAYS = ("istio/gateway-stateful-session.yaml", "istio/gateway-override-host.yaml")
NAME = "Istio"
FILES = (SIDECAR, SIDECAR_OVERRIDE, EXTENSION, *GATEWAYS)
# After an outage nothing that counts requests applies a file at once: Envoy keeps what it had of the filter until old listeners have drained, and
# begins with that. Replacing comes last, because it leaves no pod that is slow.
SHARES = (
    "steering others beside outages-override",
    "external calls metrics without-istiod collisions headless",
    "outages extension-config replacing",
)
IMAGE = "registry.example.com/evenkeel:0.1.0"
DECISIONS, NOT_FOLLOWED = "policy.*fleet_decisions_total", "fleet_not_followed_total"
CRASH = "proxy_on_request_headers failed"
NEAR, FAR = ("web-0", "web-1", "web-2"), "web-3"


class Shop:
    """The mesh with its pods; callers ask through their own sidecars or through the gateway."""

    def __init__(self, machine, wasm):
        self.machine, self.kubernetes, self.processes = machine, cluster(machine), {}
        self.registry = Registry(machine, wasm)
        self.istio = Istio(self.kubernetes, self.registry)
        self.kubernetes.space("shop", "istio-ingress")
        self.kubernetes.apply(STRICT)
        self.kubernetes.apply(INGRESS)
        self.web = self.kubernetes.service("shop", "web", 8080)
        for number, pod in enumerate([*NEAR, FAR]):
            self.answering(pod, SLOW if number == 2 else QUICK, "far" if pod == FAR else "near")
        Prometheus(self.kubernetes, "istio-system", os.environ["PROMETHEUS"], [self.address(pod) for pod in [*NEAR, FAR]])
        self.calling("shop-0")
        gateway = {"istio": "ingressgateway"}
        self.kubernetes.pod("istio-ingress", "ingress", gateway)
        self.kubernetes.service("istio-ingress", "ingress", 8080, **gateway)
        self.istio.proxy("ingress", gateway, role="router")
        for pod in ("shop-0", "ingress", *NEAR, FAR):
            self.istio.serving(pod)
        until("requests that arrive", lambda: not self.load("shop-0", 20, 50)["failed"], 60)
        until("requests that arrive by the gateway", lambda: not self.load("ingress", 20, 50)["failed"], 60)
        self.started = 0

    def replace(self, old, new):
        """One pod takes another's place, as a Deployment does it: ready first, then the old one leaves the list and ends later."""
        self.answering(new, QUICK)
        self.istio.serving(new)
        until(f"{new} among the endpoints", lambda: self.address(new) in self.kubernetes.endpoints("shop", "web"))
        self.kubernetes.forget(old)
        # What a pod's preStop hook waits for: that all proxies have heard of it.
        time.sleep(5)
        for process in self.processes.pop(old):
            self.machine.stop(process)

    def address(self, pod):
        return self.kubernetes.pods[pod][1]

    def answering(self, pod, delay, node="near", labels=None, script="endpoint.py"):
        labels = {"app": "web", "version": "v1", **MTLS, **(labels or {})}
        self.kubernetes.pod("shop", pod, labels, node=node)
        self.processes[pod] = [self.istio.proxy(pod, labels), self.machine.python(pod, script, pod, delay, inside=pod)]

    def ended(self, pod):
        """The pod's application ends; its proxy and its object stay."""
        self.machine.stop(self.processes[pod].pop())

    def started_again(self, pod, how, script="endpoint.py"):
        """An application that has ended starts again, and perhaps answers otherwise."""
        self.processes[pod].append(self.machine.python(pod, script, pod, how, inside=pod))

    def calling(self, pod, settings=None):
        labels = {"app": "shop", **MTLS}
        self.kubernetes.pod("shop", pod, labels)
        process = self.istio.proxy(pod, labels, drain="1s", settings=settings)
        self.istio.serving(pod)
        return process

    def begin(self, pod, requests=600, rate=60, headers=(), address=None, host=HOST, script="load.py"):
        """Load through this pod's proxy: the sidecar takes what is sent to the service, the gateway listens itself."""
        return Load(pod, address or (self.address(pod) if pod == "ingress" else self.web), requests, rate, host, headers=headers, script=script)

    def load(self, *arguments, **named):
        return self.begin(*arguments, **named).result()

    def starting(self, requests=300, **named):
        """Load through a proxy that is started for it; the load, and the proxy's log."""
        self.started += 1
        pod = f"starting-{self.started}"
        process = self.calling(pod)
        load = self.load(pod, requests, 60, **named)
        self.machine.stop(process)
        self.kubernetes.forget(pod)
        return load, self.machine.log(f"proxy-{pod}")

    def counted(self, pod, what):
        return sum(self.istio.stats(pod, what).values())

    def steers(self, pod, **named):
        """Waits until requests are decided about and the decisions followed, and then until the filter has seen enough of them."""
        def followed():
            decisions, lost = self.counted(pod, DECISIONS), self.counted(pod, NOT_FOLLOWED)
            failed = self.load(pod, 10, 50, **named)["failed"]
            return not failed and self.counted(pod, DECISIONS) > decisions + 5 and self.counted(pod, NOT_FOLLOWED) == lost
        until(f"decisions in {pod} that are followed", followed, 60)
        self.load(pod, 400, 60, **named)

    def under_load(self, pod, change, seconds=10, **named):
        """Makes a change while requests run; what came of them."""
        load = self.begin(pod, seconds * 60, 60, **named)
        time.sleep(1)
        change()
        return load.result()

    def take_out(self, file):
        """As each page says: `observe` first, then everything."""
        self.kubernetes.apply(observing(file))
        time.sleep(1)
        self.kubernetes.delete(shipped(file))


def observing(file):
    indent = "      " if file == EXTENSION else "    "
    return shipped(file, (f"{indent}steering:\n", f"{indent}mode: observe\n{indent}steering:\n"))


def caller(file):
    return "ingress" if file in GATEWAYS else "shop-0"


def steering(shop, record, file):
    """What the file is for, put in and taken out while requests run."""
    pod, slow = caller(file), NEAR[2]
    alone = shop.load(pod)
    load = shop.under_load(pod, lambda: shop.kubernetes.apply(shipped(file)))
    record.case(f"`{file}` applied, unchanged, while requests run", counts(load), none_failed(load))
    shop.steers(pod)
    load = shop.load(pod)
    seen = load["steering_header_seen"]
    record.case(f"`{file}` steers (before: {counts(alone)})", counts(load), none_failed(load), below(load, slow, 1 / 8),
        seen and f"{seen} endpoints saw the steering header")
    named = shop.load(pod, headers=[f"x-evenkeel-endpoint: {shop.address(slow)}:8080"])
    record.case(f"`{file}`: a client names the slow pod", counts(named), none_failed(named), below(named, slow, 1 / 8))
    load = shop.under_load(pod, lambda: shop.take_out(file))
    record.case(f"`{file}` taken out while requests run", counts(load), none_failed(load))


def outage(shop, record, file, what, text, told, before=lambda: None, after=lambda: None, good_first=False):
    """Something is broken when the file comes: proxies that run and proxies that start serve as Istio alone does."""
    if good_first:
        shop.kubernetes.apply(shipped(file))
        shop.steers("shop-0")
    before()
    crashes = shop.machine.log("proxy-shop-0").count(CRASH)
    running = shop.under_load("shop-0", lambda: shop.kubernetes.apply(text))
    crashes = shop.machine.log("proxy-shop-0").count(CRASH) - crashes
    starting, log = shop.starting()
    # Envoy asks `fail_open` of a request that is in a VM as it crashes, and Istio sets `failure_policy`: that one request is lost.
    record.case(f"`{file}`, {what}, a proxy that runs", with_crashes(running, crashes), none_failed(running, crashes),
        good_first and below(running, NEAR[2], 1 / 8))
    record.case(f"`{file}`, {what}, a proxy that starts", with_crashes(starting, log.count(CRASH)), none_failed(starting, log.count(CRASH)),
        not any(word in log for word in told) and f"its log has none of {told}")
    shop.kubernetes.delete(shipped(file))
    after()


def with_crashes(load, crashes):
    return counts(load) + (f"; {crashes} VMs crashed" if crashes else "")


def outages(shop, record, file):
    registry = shop.registry
    unknown = f"registry.example.com/evenkeel@sha256:{'0' * 64}"
    fresh = shipped(file, (IMAGE, IMAGE.replace("0.1.0", "0.1.1")))
    outage(shop, record, file, "registry away", fresh, ["applying allow RBAC filter"], registry.away, registry.up)
    back(shop, record, file)
    outage(shop, record, file, "unknown digest", shipped(file, (IMAGE, unknown)), ["applying allow RBAC filter"])
    outage(shop, record, file, "an image without a module", shipped(file, (IMAGE, IMAGE.replace("0.1.0", "text"))), ["Failed to load Wasm code"])
    outage(shop, record, file, "configuration refused", shipped(file, ("max: 100", "max: -1")), ["configuration refused"], good_first=True)
    outage(shop, record, file, "the VM crashes with every request", shipped(file, (IMAGE, IMAGE.replace("0.1.0", "crashing"))), ["Wasm VM failed", "unreachable"])


def by_extension_config(shop):
    """The sidecar's file with the plugin loaded as the page for users says: by the EnvoyFilter itself."""
    plugin, own = (json.loads(part) for part in (shop.kubernetes.as_json(part) for part in shipped(SIDECAR).split("\n---\n")))
    page = (REPO / "docs/platforms/istio-sidecar.md").read_text()
    told = "    - applyTo: EXTENSION_CONFIG\n" + page.split("    - applyTo: EXTENSION_CONFIG\n")[1].split("```")[0]
    first = json.loads(shop.kubernetes.as_json("kind: EnvoyFilter\napiVersion: networking.istio.io/v1alpha3\nmetadata: { name: evenkeel }\n"
        "spec:\n  configPatches:\n" + told))["spec"]["configPatches"]
    first[0]["patch"]["value"]["typed_config"]["value"]["config"]["configuration"]["value"] = json.dumps(plugin["spec"]["pluginConfig"])
    kept = [patch for patch in own["spec"]["configPatches"] if patch["patch"]["operation"] != "REPLACE"]
    own["spec"]["configPatches"] = first + kept
    return json.dumps(own)


def extension_config(shop, record):
    """What istio-sidecar.md says for those for which a crash must not cost a request."""
    text, what = by_extension_config(shop), "the filter loaded by `EXTENSION_CONFIG`"
    shop.kubernetes.apply(text)
    shop.steers("shop-0")
    load = shop.load("shop-0")
    record.case(f"{what}, steers", counts(load), none_failed(load), below(load, NEAR[2], 1 / 8))
    shop.kubernetes.delete(text)
    for case, tag in (("the VM crashes with every request", "crashing"), ("an image without a module", "text")):
        broken = text.replace(IMAGE, IMAGE.replace("0.1.0", tag))
        crashes = shop.machine.log("proxy-shop-0").count(CRASH)
        running = shop.under_load("shop-0", lambda broken=broken: shop.kubernetes.apply(broken))
        crashes = shop.machine.log("proxy-shop-0").count(CRASH) - crashes
        starting, log = shop.starting()
        record.case(f"{what}, {case}, a proxy that runs", with_crashes(running, crashes), none_failed(running),
            tag == "crashing" and not crashes and "none did")
        record.case(f"{what}, {case}, a proxy that starts", with_crashes(starting, log.count(CRASH)), none_failed(starting))
        shop.kubernetes.delete(broken)


def back(shop, record, file):
    """Once the registry is back, the next push brings the filter to proxies that went without it."""
    shop.kubernetes.apply(shipped(file))
    shop.steers("shop-0")
    load = shop.load("shop-0")
    record.case(f"`{file}`, the registry is back and the plugin applied again", counts(load), none_failed(load), below(load, NEAR[2], 1 / 8))
    shop.take_out(file)


def rule(**policy):
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "web-of-the-user", "namespace": "shop"},
        "spec": {"host": "web.shop.svc.cluster.local", "trafficPolicy": policy},
    }


EJECTION = {"consecutive5xxErrors": 5, "interval": "5s"}
RULES = {
    "failover": rule(outlierDetection=EJECTION, loadBalancer={"localityLbSetting": {"failover": [{"from": "near", "to": "far"}]}}),
    "failoverPriority": rule(outlierDetection=EJECTION, loadBalancer={"localityLbSetting": {"failoverPriority": ["topology.kubernetes.io/region"]}}),
    "distribute": rule(loadBalancer={"localityLbSetting": {"distribute": [{"from": "near/*", "to": {"near/*": 80, "far/*": 20}}]}}),
    "consistentHash": rule(loadBalancer={"consistentHash": {"httpHeaderName": "x-user"}}),
    "PASSTHROUGH": rule(loadBalancer={"simple": "PASSTHROUGH"}),
    "outlier detection, warm-up and connection pools": rule(outlierDetection=EJECTION, loadBalancer={"warmup": {"duration": "10s"}},
        connectionPool={"http": {"http2MaxRequests": 1000}}),
}


def without_istiod(shop, record, file):
    """istiod is away, and a pod's application ends meanwhile, which no proxy is told."""
    failed = {}
    for text in (None, shipped(file)):
        if text:
            shop.kubernetes.apply(text)
            shop.steers("shop-0")
        shop.istio.away()
        load = shop.under_load("shop-0", lambda: shop.ended(NEAR[0]), seconds=20)
        failed[text] = load["failed"]
        record.case(f"istiod away and a pod's application ends, {f'`{file}`' if text else 'without evenkeel'}", counts(load),
            load["failed"] > failed[None] and f"{load['failures']}", text and below(load, NEAR[2], 1 / 8))
        shop.started_again(NEAR[0], QUICK)
        shop.istio.istiod()
        # Not before istiod serves again.
        shop.starting(20)
    shop.take_out(file)


def collisions(shop, record, file):
    """A user's own DestinationRule beside the file: what Istio alone would have served is served."""
    for name, beside in RULES.items():
        shop.kubernetes.apply(beside)
        # PASSTHROUGH goes to the address that the client asked for, which must be a pod's.
        collision(shop, record, f"`{file}` beside {name}", shipped(file), shop.address(NEAR[0]) if name == "PASSTHROUGH" else None)
        shop.kubernetes.delete(beside)


def headless(shop, record, file):
    """The client names the pod: the cluster is one of original destinations."""
    shop.kubernetes.service("shop", "heads", 8080, headless=True, app="web")
    text = shipped(file, ("web.shop.svc", "heads.shop.svc"), ('service="web"', 'service="heads"'))
    collision(shop, record, f"`{file}` for a headless service", text, shop.address(NEAR[0]), HOST.replace("web", "heads"))


def collision(shop, record, what, text, address=None, host=HOST):
    until("the rule in force", lambda: not shop.load("shop-0", 20, 50, address=address, host=host)["failed"])
    alone = shop.load("shop-0", 300, address=address, host=host)
    running = shop.under_load("shop-0", lambda: shop.kubernetes.apply(text), address=address, host=host)
    starting, _ = shop.starting(address=address, host=host)
    for proxy, load in (("runs", running), ("starts", starting)):
        far = load["pods"].get(FAR, 0)
        record.case(f"{what}, a proxy that {proxy} (alone: {counts(alone)})", counts(load), none_failed(load),
            not alone["pods"].get(FAR) and far and f"{far} went to the far region, which Istio alone spares")
    shop.kubernetes.delete(text)


def replacing(shop, record):
    """Each pod of the near region is replaced by another while requests run: no more may fail than without evenkeel."""
    pods, failed = list(NEAR), {}
    for generation, file in enumerate((None, SIDECAR, SIDECAR_OVERRIDE)):
        if file:
            shop.kubernetes.apply(shipped(file))
            shop.steers("shop-0")
        load = shop.begin("shop-0", 60 * 45, 60)
        for number, old in enumerate(pods):
            pods[number] = f"next-{generation}-{number}"
            shop.replace(old, pods[number])
        load = load.result()
        failed[file] = load["failed"]
        record.case(f"every near pod replaced, {f'`{file}`' if file else 'without evenkeel'}", counts(load),
            load["failed"] > failed[None] and f"{load['failures']}", len(load["pods"]) < 4 and "the new pods got nothing")
        if file:
            shop.take_out(file)


def tried(machine, wasm, record):
    """Everything of this platform, into the record."""
    shop = Shop(machine, wasm)
    record.versions = {
        "Istio": os.environ["ISTIO_MODULE_VERSION"],
        "Kubernetes": shop.kubernetes.version(),
        "Envoy": run(os.environ["ENVOY"], "--version").split("version: ")[1].split("/")[1],
    }
    parts = {
        "steering": lambda: [steering(shop, record, file) for file in (SIDECAR, SIDECAR_OVERRIDE)],
        "outages": lambda: outages(shop, record, SIDECAR),
        "collisions": lambda: collisions(shop, record, SIDECAR),
        "headless": lambda: headless(shop, record, SIDECAR),
        "beside": lambda: beside(shop, record, SIDECAR, NEAR[2]),
        "external": lambda: external(shop, record, SIDECAR),
        "calls": lambda: calls(shop, record, SIDECAR),
        "without-istiod": lambda: without_istiod(shop, record, SIDECAR),
        "metrics": lambda: metrics(shop, record, SIDECAR),
        "others": lambda: [steering(shop, record, file) for file in (EXTENSION, *GATEWAYS)],
        "outages-override": lambda: outages(shop, record, SIDECAR_OVERRIDE),
        "extension-config": lambda: extension_config(shop, record),
        "replacing": lambda: replacing(shop, record),
    }
    for part in wanted(SHARES, parts):
        parts[part]()
