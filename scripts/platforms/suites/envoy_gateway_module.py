"""envoy/envoy-gateway/module.yaml on the real Envoy Gateway: evenkeel as a native module that Envoy fetches, or finds in a file."""

from lab.edge import GATEWAY, PLAIN, PODS, SPARED, backend, route
from lab.machine import Failed, until
from lab.record import below, counts, none_failed
from lab.shop import QUICK, shipped
from suites import envoy_gateway_beside as beside

FILE, FILTER = "envoy-gateway/module.yaml", "envoy-gateway/evenkeel.yaml"
URL, SUM = "https://registry.example.com/files/libevenkeel.so", "0" * 64
REMOTE = f"        type: Remote\n        remote:\n          url: {URL}\n          sha256: \"{SUM}\"\n"


def module(edge, *replaced):
    """The shipped file with the sum of the module that was built."""
    return shipped(FILE, *replaced, (SUM, edge.registry.module_sum))


def local(path):
    return shipped(FILE, (REMOTE, f"        type: Local\n        local:\n          path: {path}\n"))


def policy_first(edge, own=PLAIN):
    """Taken out as the page says: the policy first, which needs what the EnvoyProxy has."""
    edge.kubernetes.kubectl("delete", "--ignore-not-found", "envoyextensionpolicy", "evenkeel", "-n", "shop")
    edge.settled()
    edge.kubernetes.apply(GATEWAY)
    edge.kubernetes.apply(own)
    edge.settled()
    edge.kubernetes.kubectl("delete", "--ignore-not-found", "envoyproxy", "evenkeel", "-n", "shop")


def conditions(edge):
    return "; ".join(edge.gateway.conditions("envoyextensionpolicy", "evenkeel", "shop"))


def tried(edge, record):
    """Put in, beside what users have, and taken out."""
    what, alone, dead = f"`{FILE}`", edge.load("gateway"), beside.with_a_dead_pod(edge)
    text = module(edge)
    load = edge.under_load(lambda: edge.kubernetes.apply(text))
    record.case(f"{what} applied while requests run", counts(load), none_failed(load), conditions(edge))
    # Its variables and arguments have changed.
    edge.rolled_out()
    edge.steers()
    load = edge.load("gateway")
    record.case(f"{what} steers (before: {counts(alone)})", counts(load), none_failed(load), below(load, PODS[2], SPARED))
    named = edge.load("gateway", headers=[f"x-evenkeel-endpoint: {edge.address(PODS[2])}:8080"])
    seen = named["steering_header_seen"]
    record.case(f"{what}, a client names the slow pod", counts(named), none_failed(named), below(named, PODS[2], SPARED), seen and f"{seen} endpoints saw its header")
    load, _ = edge.starting()
    record.case(f"{what}, a proxy that starts", counts(load), none_failed(load))
    load = beside.with_a_dead_pod(edge)
    record.case(f"{what}, a pod's process ends and returns (alone: {counts(dead)})", counts(load), load["failed"] > dead["failed"] and f"{load['statuses']}", below(load, PODS[2], SPARED))
    canary(edge, record, what, text)
    load = edge.under_load(lambda: policy_first(edge))
    record.case(f"{what} taken out while requests run", counts(load), none_failed(load))
    edge.kubernetes.apply(shipped(FILTER))
    edge.steers()
    load = edge.under_load(lambda: edge.kubernetes.apply(text))
    record.case(f"`{FILTER}` replaced by {what} while requests run", counts(load), none_failed(load), conditions(edge))
    edge.steers()
    load = edge.load("gateway")
    record.case(f"{what} beside the policies of `{FILTER}`", counts(load), none_failed(load), below(load, PODS[2], SPARED))
    load = edge.under_load(lambda: (policy_first(edge), edge.take_out(shipped(FILTER))))
    record.case(f"{what} and `{FILTER}` taken out while requests run", counts(load), none_failed(load))


def canary(edge, record, what, text):
    """80 to 20 between two services."""
    edge.kubernetes.service("shop", "canary", 8080)
    for pod in ("canary-0", "canary-1"):
        if pod not in edge.applications:
            edge.answering(pod, QUICK, "canary")
    own = route([backend("web", 80), backend("canary", 20)])
    edge.kubernetes.apply(own)
    until("the canary", lambda: any(pod.startswith("canary") for pod in edge.load("gateway", 40, 40)["pods"]), 60)
    edge.steers()
    load = edge.load("gateway", 2400, 120)
    part = 100 * sum(count for pod, count in load["pods"].items() if pod.startswith("canary")) / max(1, sum(load["pods"].values()))
    # Three in a hundred are 3.7 standard deviations of a draw of so many requests.
    record.case(f"{what}, canary 80/20, one cluster", f"{100 - part:.1f}/{part:.1f} ({counts(load)})", none_failed(load),
        abs(part - 20) > 3 and "not 80/20 within 3", below(load, PODS[2], 0.8 * SPARED))
    edge.kubernetes.apply(PLAIN)


def outage(edge, record, what, text, told, after=lambda: None, good_first=False):
    """Something is broken when the file comes: proxies that run and proxies that start serve as Envoy Gateway alone does."""
    if good_first:
        edge.kubernetes.apply(module(edge))
        edge.steers()
    running = edge.under_load(lambda: edge.kubernetes.apply(text))
    starting, log = edge.starting()
    record.case(f"`{FILE}`, {what}, a proxy that runs", counts(running), none_failed(running), good_first and below(running, PODS[2], SPARED))
    record.case(f"`{FILE}`, {what}, a proxy that starts", counts(starting), none_failed(starting), told not in log and f"nothing says {told!r}")
    after()
    policy_first(edge)


def outages(edge, record):
    """The module cannot be had, or is refused."""
    registry = edge.registry
    registry.away()
    outage(edge, record, "the server with the module is away", module(edge), "module will not be loaded", after=registry.up)
    outage(edge, record, "another sum", shipped(FILE, (SUM, "1" * 64)), "module will not be loaded")
    outage(edge, record, "a file that is no module", shipped(FILE, (URL, URL.replace("libevenkeel", "text")), (SUM, registry.text_sum)), "Failed to load remote dynamic module")
    outage(edge, record, "configuration refused", module(edge, ("max: 100", "max: -1")), "configuration refused", good_first=True)
    edge.kubernetes.apply(local("/etc/envoy/libevenkeel.so"))
    edge.steers()
    load = edge.load("gateway")
    record.case(f"`{FILE}` with `type: Local`", counts(load), none_failed(load), below(load, PODS[2], SPARED))
    policy_first(edge)
    without(edge, record)
    unknown(edge, record)


def without(edge, record):
    """A path at which there is nothing: what the page warns of."""
    text = local("/nowhere/libevenkeel.so")
    load = edge.under_load(lambda: edge.kubernetes.apply(text))
    record.case(f"`{FILE}` with `type: Local` and no file, a proxy that runs", counts(load), none_failed(load))
    try:
        edge.proxy("without", 45)
        record.case(f"`{FILE}` with `type: Local` and no file, a proxy that starts", "serves", "the page says that it does not")
    except Failed:
        log = edge.machine.log("proxy-without")
        record.case(f"`{FILE}` with `type: Local` and no file, a proxy that starts", "has no listener, as the file and the page say",
            "Failed to load dynamic module" not in log and "nothing says it")
    policy_first(edge)


def unknown(edge, record):
    """A policy for a module that no EnvoyProxy has."""
    documents = module(edge).split("\n---\n")
    policy = next(document for document in documents if "kind: EnvoyExtensionPolicy\n" in document)
    load = edge.under_load(lambda: edge.kubernetes.apply(policy), 20)
    record.case(f"the policy of `{FILE}` alone, without the EnvoyProxy", f"{counts(load)}; {conditions(edge)}", not conditions(edge) and "no condition tells")
    edge.kubernetes.kubectl("delete", "envoyextensionpolicy", "evenkeel", "-n", "shop")
    edge.settled()
