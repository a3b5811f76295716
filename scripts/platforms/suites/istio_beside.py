"""The sidecar's file beside what users have in a mesh: traffic split over subsets, retries, time-outs and mirrors, and the metrics."""

import json
import re

from lab.machine import REPO, until
from lab.record import below, counts, none_failed
from lab.shop import QUICK, shipped

NAMED = "web.shop.svc.cluster.local"


def rules(kind, name="of-the-user", **spec):
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": name, "namespace": "shop"}, "spec": spec}


def destination(host=NAMED, **more):
    return {"destination": {"host": host, "port": {"number": 8080}, **more}}


def split():
    """80 to 20 between two subsets of the service, each a cluster of its own."""
    subsets = [{"name": version, "labels": {"version": version}} for version in ("v1", "v2")]
    parts = [{**destination(subset=version), "weight": weight} for version, weight in (("v1", 80), ("v2", 20))]
    return [rules("DestinationRule", host=NAMED, subsets=subsets), rules("VirtualService", hosts=[NAMED], http=[{"route": parts}])]


def retries():
    """Retries, a time-out, and every request once more to a mirror."""
    retry = {"attempts": 2, "perTryTimeout": "2s", "retryOn": "5xx,reset,connect-failure"}
    http = {"route": [destination()], "retries": retry, "timeout": "10s", "mirror": destination("mirror.shop.svc.cluster.local")["destination"], "mirrorPercentage": {"value": 100.0}}
    return [rules("VirtualService", hosts=[NAMED], http=[http])]


def under(shop, what, record, own, slow, text, *faults):
    """The user's rules first, then the file while requests run."""
    for rule in own:
        shop.kubernetes.apply(rule)
    until("the user's rules in force", lambda: not shop.load("shop-0", 20, 50)["failed"], 60)
    alone = shop.load("shop-0")
    load = shop.under_load("shop-0", lambda: shop.kubernetes.apply(text))
    record.case(f"{what}, while requests run (alone: {counts(alone)})", counts(load), none_failed(load))
    shop.steers("shop-0")
    load = shop.load("shop-0", 1200)
    record.case(f"{what}, steers", counts(load), none_failed(load), below(load, slow, 1 / 8), *(fault(load) for fault in faults))
    load, _ = shop.starting()
    record.case(f"{what}, a proxy that starts", counts(load), none_failed(load))
    shop.kubernetes.delete(text)
    for rule in own:
        shop.kubernetes.delete(rule)


def within(load, pods, percent):
    part = 100 * sum(load["pods"].get(pod, 0) for pod in pods) / max(1, sum(load["pods"].values()))
    # Five in a hundred are 4.3 standard deviations of a draw of 1,200.
    return abs(part - percent) > 5 and f"{', '.join(pods)} got {part:.0f} %, not {percent}"


def beside(shop, record, file, slow):
    what, canary = f"`{file}`", ("canary-0", "canary-1")
    for pod in canary:
        shop.answering(pod, QUICK, labels={"version": "v2"})
    shop.answering("mirror-0", QUICK, labels={"app": "mirror"})
    for pod in (*canary, "mirror-0"):
        shop.istio.serving(pod)
    shop.kubernetes.service("shop", "mirror", 8080)
    # By the pattern that Istio's subsets have: each of them is balanced by itself.
    pattern = ("- cluster: outbound|8080||web.shop.svc.cluster.local", '- cluster: "outbound|8080|*|web.shop.svc.cluster.local"')
    under(shop, f"{what} for all subsets, beside 80/20 between two", record, split(), slow, shipped(file, pattern), lambda load: within(load, canary, 20))
    for pod in canary:
        shop.kubernetes.forget(pod)
        for process in shop.processes.pop(pod):
            shop.machine.stop(process)
    under(shop, f"{what} beside retries, a time-out and a mirror", record, retries(), slow, shipped(file))


def metrics(shop, record, file):
    """What the page says of `proxyStatsMatcher` and `extraStatTags`: what a mesh scrapes has evenkeel's figures with labels."""
    page = (REPO / "docs/platforms/istio-sidecar.md").read_text()
    settings = page.split("proxy.istio.io/config: |\n")[1].split("```")[0]
    settings = json.loads(shop.kubernetes.as_json("kind: EnvoyFilter\napiVersion: networking.istio.io/v1alpha3\nmetadata: { name: settings }\nspec:\n" + settings))["spec"]
    shop.kubernetes.apply(shipped(file))
    shop.calling("told", settings)
    shop.steers("told")
    told = shop.machine.ask("told", "http://127.0.0.1:15090/stats/prometheus")
    names = set(re.findall(r"^(\w*evenkeel_fleet_\w+)\{", told, re.MULTILINE))
    labelled = [line for line in told.splitlines() if line.startswith("evenkeel_fleet_decisions_total{") and 'upstream="outbound|8080||web' in line and 'reason="policy"' in line]
    record.case(f"`{file}`: Envoy's stats as a mesh scrapes them, with the two settings", f"{len(names)} metrics, {', '.join(sorted(names)[:3])}, …",
        not labelled and f"no decisions by upstream and reason: {[line for line in told.splitlines() if 'fleet_decisions' in line][:2]}",
        any(not name.startswith("evenkeel_") for name in names) and f"other names than the page's: {sorted(names)}")
    shop.take_out(file)
