"""envoy/envoy-gateway/evenkeel.yaml on the real Envoy Gateway: what it is for, beside what users have, and when something is broken."""

import json
import os

from lab.edge import PLAIN, PODS, POLICIES, SPARED, Edge, backend, route
from lab.machine import Failed, run, until
from lab.parts import wanted
from lab.record import below, counts, none_failed
from lab.shop import QUICK, shipped
from suites import envoy_gateway_beside as beside
from suites import envoy_gateway_merged as combined
from suites import envoy_gateway_metrics as figures
from suites import envoy_gateway_module as native

FILE = "envoy-gateway/evenkeel.yaml"
NAME = "Envoy Gateway"
FILES = (FILE, native.FILE)
IMAGE = "registry.example.com/evenkeel:0.1.0"
CODE = "        type: Image\n        image:\n          url: " + IMAGE
CLUSTER = "httproute/shop/web/rule/0"
KINDS = POLICIES.split(",")


def with_route(own, *replaced):
    """The shipped file, its route `web` left out for the user's own."""
    documents = shipped(FILE, *replaced).split("\n---\n")
    kept = [document for document in documents if "kind: HTTPRoute\nmetadata:\n  name: web\n" not in document]
    if len(kept) != len(documents) - 1:
        raise Failed(f"envoy/{FILE} has no route of its own")
    return "\n---\n".join([*kept, json.dumps(own)])


def steering(edge, record):
    """Put in and taken out while requests run."""
    alone = edge.load("gateway")
    load = edge.under_load(lambda: edge.kubernetes.apply(shipped(FILE)))
    record.case(f"`{FILE}` applied, unchanged, while requests run", counts(load), none_failed(load))
    refused = [told for kind in KINDS for told in edge.gateway.conditions(kind, "evenkeel", "shop")]
    record.case("conditions of its policies", "all hold" if not refused else f"{len(refused)} do not hold", "; ".join(refused))
    edge.steers()
    load = edge.load("gateway")
    seen = load["steering_header_seen"]
    record.case(f"`{FILE}` steers (before: {counts(alone)})", counts(load), none_failed(load), below(load, PODS[2], SPARED),
        seen and f"{seen} endpoints saw the steering header")
    named = edge.load("gateway", headers=[f"x-evenkeel-endpoint: {edge.address(PODS[2])}:8080"])
    record.case("a client names the slow pod", counts(named), none_failed(named), below(named, PODS[2], SPARED))
    refused = edge.load("gateway", 20, 20, host="prometheus.evenkeel.invalid")
    record.case("Prometheus' route from outside", f"{refused['statuses']}", refused["statuses"] != {"403": 20} and "not 403")
    load, _ = edge.starting()
    record.case("a proxy that starts", counts(load), none_failed(load))
    load = edge.under_load(lambda: edge.take_out(shipped(FILE)))
    record.case(f"`{FILE}` taken out while requests run", counts(load), none_failed(load))


def replacing(edge, record):
    """Each pod is replaced by another while requests run: no more may fail than without evenkeel."""
    pods, failed = list(PODS), {}
    for generation, what in enumerate(("without evenkeel", f"`{FILE}`")):
        if generation:
            edge.kubernetes.apply(shipped(FILE))
            edge.steers()
        load = edge.begin("gateway", 60 * 45)
        for number, old in enumerate(pods):
            pods[number] = f"next-{generation}-{number}"
            edge.replace(old, pods[number])
        load = load.result()
        failed[generation] = load["failed"]
        record.case(f"every pod replaced, {what}", counts(load), load["failed"] > failed[0] and f"{load['failures']}",
            len(load["pods"]) < 6 and "not all pods got requests")
    edge.take_out(shipped(FILE))


def outage(edge, record, what, text, told, before=lambda: None, after=lambda: None, good_first=False):
    """Something is broken when the file comes: proxies that run and proxies that start serve as Envoy Gateway alone does."""
    if good_first:
        edge.kubernetes.apply(shipped(FILE))
        edge.steers()
    before()
    running = edge.under_load(lambda: edge.kubernetes.apply(text))
    starting, log = edge.starting()
    said = log + edge.machine.log(f"proxy-{edge.serving}") + " ".join(edge.gateway.conditions(KINDS[0], "evenkeel", "shop"))
    record.case(f"{what}, a proxy that runs", counts(running), none_failed(running))
    record.case(f"{what}, a proxy that starts", counts(starting), none_failed(starting), told not in said and f"nothing says {told!r}")
    after()
    edge.take_out(text)


def fetched(url, digest=""):
    """The file with its code from an HTTP server in the place of a registry."""
    digest = f'\n          sha256: "{digest}"' if digest else ""
    return shipped(FILE, (CODE, f"        type: HTTP\n        http:\n          url: {url}{digest}"))


def image(tag):
    return shipped(FILE, (IMAGE, IMAGE.replace(":0.1.0", tag)))


def steering_again(edge, record, what, text):
    edge.kubernetes.apply(text)
    edge.steers()
    load = edge.load("gateway")
    record.case(what, counts(load), none_failed(load), below(load, PODS[2], SPARED))
    edge.take_out(text)


def images(edge, record):
    registry = edge.registry
    outage(edge, record, "registry away", image(":0.1.1"), "connection refused", registry.away, registry.up)
    steering_again(edge, record, "the registry is back and the file applied again", image(":0.1.1"))
    outage(edge, record, "unknown digest", image(f"@sha256:{'0' * 64}"), "MANIFEST_UNKNOWN")
    outage(edge, record, "an image without a module", image(":text"), "Failed to load Wasm code")


def files(edge, record):
    """Code from an HTTP server in the place of a registry."""
    registry = edge.registry
    web = f"https://{registry.name}/files"
    steering_again(edge, record, "code from an HTTP server with its sum", fetched(f"{web}/evenkeel.wasm", registry.sum))
    outage(edge, record, "code from an HTTP server that is away", fetched(f"{web}/other.wasm"), "download failed", registry.away, registry.up)
    outage(edge, record, "code from an HTTP server with a wrong sum", fetched(f"{web}/evenkeel.wasm", "0" * 64), "checksum")


def refusals(edge, record):
    outage(edge, record, "configuration refused", shipped(FILE, ("max: 100", "max: -1")), "configuration refused", good_first=True)
    outage(edge, record, "the VM crashes with every request", image(":crashing"), "unreachable")


def part_of(load, prefix):
    """How many in a hundred answers came from pods of this name."""
    return 100 * sum(count for pod, count in load["pods"].items() if pod.startswith(prefix)) / max(1, sum(load["pods"].values()))


def track(name):
    modifier = {"set": [{"name": "x-track", "value": name}]}
    return {"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": modifier}]}


ONE_CLUSTER = route([backend("web", 80), backend("canary", 20)])
TWO_CLUSTERS = route([backend("web", 80, **track("stable")), backend("canary", 20, **track("canary"))])


def patched(text, backends=2):
    """The patches once for each backend's cluster, as docs/platforms/envoy-gateway.md says."""
    start = text.index("    - type: type.googleapis.com/envoy.config.cluster.v3.Cluster")
    end = text.index("\n---", start) + 1
    both = [text[start:end].replace(f"name: {CLUSTER}", f"name: {CLUSTER}/backend/{number}") for number in range(backends)]
    return text[:start] + "".join(both) + text[end:]


def only(text, *kinds):
    """The documents of these kinds."""
    return "\n---\n".join(document for document in text.split("\n---\n") if any(f"kind: {kind}\n" in document for kind in kinds))


def canary(edge, record):
    """80 to 20 between two services of three and two pods."""
    edge.kubernetes.service("shop", "canary", 8080)
    for pod in ("canary-0", "canary-1"):
        edge.answering(pod, QUICK, "canary")

    def measured(what, requests=2400):
        load = edge.load("gateway", requests, 120)
        part = part_of(load, "canary")
        # Three in a hundred are 3.7 standard deviations of a draw of so many requests.
        record.case(f"canary 80/20, {what}", f"{100 - part:.1f}/{part:.1f} ({counts(load)})", none_failed(load),
            abs(part - 20) > 3 and "not 80/20 within 3")
        return load

    for own, shape, change in ((ONE_CLUSTER, "one cluster", str), (TWO_CLUSTERS, "a cluster for each backend", patched)):
        text = change(with_route(own))
        edge.kubernetes.apply(own)
        until("the canary", lambda: part_of(edge.load("gateway", 40, 40), "canary") > 0, 60)
        measured(f"{shape}, without evenkeel")
        edge.kubernetes.apply(only(text, "BackendTrafficPolicy", "EnvoyPatchPolicy"))
        edge.settled()
        measured(f"{shape}, the policies without the filter")
        load = edge.under_load(lambda: edge.kubernetes.apply(text))
        record.case(f"canary 80/20, {shape}, the filter comes while requests run", counts(load), none_failed(load))
        edge.steers()
        load = measured(f"{shape}, `{FILE}`")
        record.case(f"canary 80/20, {shape}, the slow pod's part of its service", f"{load['pods'].get(PODS[2], 0)} of {load['sent']}",
            below(load, PODS[2], 0.8 * SPARED))
        edge.take_out(text, own)
    edge.kubernetes.apply(PLAIN)


def without_policy():
    """The shipped file without the policy that users are to merge into their own."""
    return "\n---\n".join(document for document in shipped(FILE).split("\n---\n") if "kind: BackendTrafficPolicy\n" not in document)


WHAT = f"`{FILE}`"
PARTS = {
    "steering": steering,
    "canary": canary,
    "images": images,
    "files": files,
    "refusals": refusals,
    "gateways-policy": lambda edge, record: beside.gateways_policy(edge, record, WHAT, shipped(FILE)),
    "routes-policy": lambda edge, record: beside.routes_policy(edge, record, WHAT, shipped(FILE), without_policy()),
    "extensions": lambda edge, record: beside.extensions(edge, record, WHAT, shipped(FILE)),
    "zones": lambda edge, record: beside.zones(edge, record, WHAT, shipped(FILE), patched(shipped(FILE), 1)),
    "rules": lambda edge, record: beside.rules(edge, record, WHAT, with_route),
    "without-patches": lambda edge, record: beside.without_patches(edge, record, WHAT, shipped(FILE)),
    "merged": lambda edge, record: combined.merged(edge, record, WHAT, shipped(FILE), with_route),
    "module": native.tried,
    "module-outages": native.outages,
    "metrics": lambda edge, record: figures.metrics(edge, record, FILE),
    "replacing": replacing,
}
# Replacing comes last, because it leaves no pod that is slow.
SHARES = (
    "without-patches merged",
    "canary steering",
    "module metrics",
    "gateways-policy routes-policy",
    "images files refusals",
    "module-outages replacing",
    "zones rules",
    "extensions",
)


def tried(machine, wasm, record):
    """Everything of this platform, into the record."""
    edge = Edge(machine, wasm)
    record.versions = {
        "Envoy Gateway": os.environ["ENVOY_GATEWAY_MODULE_VERSION"],
        "Kubernetes": edge.kubernetes.version(),
        "Envoy": run(os.environ["ENVOY"], "--version").split("version: ")[1].split("/")[1],
    }
    for part in wanted(SHARES, PARTS):
        PARTS[part](edge, record)
