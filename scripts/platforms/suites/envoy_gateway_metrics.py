"""What Prometheus gets of evenkeel from the proxies of Envoy Gateway, as docs/platforms/envoy-gateway.md says."""

import json
import re

from lab.edge import GATEWAY
from lab.machine import REPO, until
from lab.shop import shipped
from suites import envoy_gateway_module as native

REFERRED = GATEWAY.replace("gatewayClassName: eg,", "gatewayClassName: eg, infrastructure: { parametersRef: { group: gateway.envoyproxy.io, kind: EnvoyProxy, name: evenkeel } },")


def page(kind):
    """The page's manifest of this kind."""
    text = (REPO / "docs/platforms/envoy-gateway.md").read_text()
    return next(block.split("\n", 1)[1] for block in text.split("```")[1::2] if f"kind: {kind}\n" in block)


def scraped(edge, record, what, new):
    """What stands on the port `metrics` of a proxy whose arguments have `new` in them, where a PodMonitor finds it."""
    until("the Deployment's new arguments", lambda: new in json.dumps(edge.gateway.deployment(edge.owner)["spec"]), 60)
    edge.rolled_out()
    edge.steers()
    told = edge.machine.ask(edge.serving, f"http://{edge.proxies[edge.serving]}:19001/stats/prometheus")
    names = set(re.findall(r"^(\w*evenkeel_fleet_\w+)\{", told, re.MULTILINE))
    decided = [line for line in told.splitlines() if line.startswith("evenkeel_fleet_decisions_total{") and 'upstream="httproute/shop/web/rule/0"' in line and 'reason="policy"' in line]
    record.case(f"{what}: the proxies' metrics", f"{len(names)} metrics with labels", not decided and f"no decisions by upstream and reason among {sorted(names)}",
        any(not name.startswith("evenkeel_") for name in names) and f"other names: {sorted(names)[:3]}")


def metrics(edge, record, file):
    edge.kubernetes.apply(page("EnvoyProxy"))
    edge.kubernetes.apply(REFERRED)
    edge.kubernetes.apply(shipped(file))
    scraped(edge, record, f"`{file}` with the page's `EnvoyProxy`", "tag_name: upstream")
    template = edge.gateway.deployment(edge.owner)["spec"]["template"]
    ports = [port["name"] for container in template["spec"]["containers"] for port in container.get("ports", [])]
    wanted = dict(re.findall(r"(app\.kubernetes\.io/[\w-]+): ([\w-]+)", page("PodMonitor")))
    record.case("the page's `PodMonitor` finds the proxies", f"{', '.join(wanted)}; ports {', '.join(ports)}",
        not (wanted and wanted.items() <= template["metadata"]["labels"].items()) and f"labels {template['metadata']['labels']}", "metrics" not in ports and "no such port")
    edge.take_out(shipped(file))
    edge.kubernetes.apply(GATEWAY)
    edge.kubernetes.apply(native.module(edge))
    scraped(edge, record, f"`{native.FILE}`", "dynamic_modules_strip_custom_stat_prefix")
    native.policy_first(edge)
