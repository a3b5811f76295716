"""envoy/envoy-gateway/evenkeel.yaml where all Gateways of a class share their proxies (`mergeGateways`)."""

import json
import time

from lab.edge import GATEWAY, PLAIN, PODS, SPARED, route
from lab.envoy_gateway import CLASS, SPACE
from lab.machine import until
from lab.record import below, counts, none_failed

MERGED = {
    "apiVersion": "gateway.envoyproxy.io/v1alpha1",
    "kind": "EnvoyProxy",
    "metadata": {"name": "merged", "namespace": SPACE},
    "spec": {"mergeGateways": True},
}
WITH_PARAMETERS = CLASS.replace("spec: {", f"spec: {{ parametersRef: {{ group: gateway.envoyproxy.io, kind: EnvoyProxy, name: merged, namespace: {SPACE} }},")
GRANT = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: { name: from-market, namespace: shop }
spec: { from: [{ group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: market }], to: [{ group: "", kind: Service }] }
"""
FOR_GATEWAY, FOR_CLASS = "    kind: Gateway\n    name: shop\n", "    kind: GatewayClass\n    name: eg\n"
# What Envoy Gateway lets a proxy listen to for the second Gateway's port 81.
PORT = 10081
MARKET = {"host": "market.example.com", "port": PORT}


def gateway(name, port):
    return GATEWAY.replace("name: shop, namespace: shop", f"name: {name}, namespace: market").replace("port: 80", f"port: {port}")


def of_market():
    """A route of the second Gateway, to the same pods."""
    own = route([{"name": "web", "namespace": "shop", "port": 8080}])
    own["metadata"]["namespace"], own["spec"]["parentRefs"] = "market", [{"name": "market"}]
    return own


def merged(edge, record, file, text, for_market):
    """Two Gateways, each with a route and a file of its own; `for_market` makes of a route the file without the shipped one."""
    kubernetes = edge.kubernetes
    kubernetes.space("market")
    kubernetes.apply(GRANT)
    kubernetes.apply(MERGED)
    kubernetes.apply(WITH_PARAMETERS)
    kubernetes.apply(gateway("market", 81))
    kubernetes.apply(of_market())
    edge.owner = "gatewayclass=eg"
    edge.rolled_out()
    until("the second Gateway", lambda: not edge.load("gateway", 10, 50, **MARKET)["failed"], 60)
    alone = edge.load("gateway")
    what = f"{file} with `mergeGateways`"
    for title, each in (("unchanged", text), ("its patches for the GatewayClass", text.replace(FOR_GATEWAY, FOR_CLASS))):
        market = edge.begin("gateway", 60 * 45, 60, **MARKET)
        load = edge.under_load(lambda each=each: kubernetes.apply(each))
        market = market.result()
        told = "; ".join(edge.gateway.conditions("envoypatchpolicy", "evenkeel", "shop"))
        record.case(f"{what}, {title}, while requests run (alone: {counts(alone)})", f"{counts(load)}; the other Gateway {counts(market)}; {told or 'no condition is false'}",
            none_failed(load), none_failed(market), each != text and told)
        edge.steers()
        load, other = edge.load("gateway"), edge.load("gateway", **MARKET)
        seen = load["steering_header_seen"]
        record.case(f"{what}, {title}, steers", f"{counts(load)}; {seen} endpoints saw the header; the other Gateway {counts(other)}", none_failed(load), none_failed(other),
            below(load, PODS[2], SPARED), each != text and seen and "the header is seen")
    second = for_market(of_market()).replace(FOR_GATEWAY, FOR_CLASS)
    for old, new in (("namespace: shop", "namespace: market"), ("httproute/shop/", "httproute/market/"), ("- name: shop", "- name: market")):
        second = second.replace(old, new)
    second = second.replace("  name: prometheus-for-evenkeel\n", "  name: prometheus-for-evenkeel-of-market\n")
    load = edge.under_load(lambda: kubernetes.apply(second))
    told = "; ".join(each for kind in ("envoyextensionpolicy", "envoypatchpolicy", "backendtrafficpolicy") for each in edge.gateway.conditions(kind, "evenkeel", "market"))
    record.case(f"{what}, a second one for the other Gateway, while requests run", counts(load), none_failed(load), told)
    edge.steers()
    until("the other Gateway's endpoints", lambda: not below(edge.load("gateway", 200, **MARKET), PODS[2], SPARED), 90)
    for name, load in (("first", edge.load("gateway")), ("other", edge.load("gateway", **MARKET))):
        seen = load["steering_header_seen"]
        record.case(f"{what}, both, the {name} Gateway", counts(load), none_failed(load), below(load, PODS[2], SPARED), seen and "the header is seen")
    same_port(edge, record, what)
    kubernetes.kubectl("delete", "envoyextensionpolicy,envoypatchpolicy,backendtrafficpolicy", "evenkeel", "-n", "market")
    load = edge.under_load(lambda: edge.take_out(text))
    record.case(f"{what} taken out while requests run", counts(load), none_failed(load))
    apart(edge)


def same_port(edge, record, what):
    """A third Gateway with the first one's port: Envoy Gateway says that they collide."""
    third = gateway("third", 80)
    load = edge.under_load(lambda: edge.kubernetes.apply(third), 30)
    listeners = (edge.kubernetes.get("gateway", "third", "-n", "market") or {})["status"].get("listeners", [])
    told = "; ".join(f"{condition['type']}: {condition['message']}" for listener in listeners for condition in listener["conditions"]
        if (condition["type"], condition["status"]) in (("Conflicted", "True"), ("Programmed", "False")))
    record.case(f"{what}, a third Gateway with the port of the first", f"{counts(load)}; {told}", none_failed(load), not told and "no condition tells")
    edge.kubernetes.delete(third)


def apart(edge):
    """Each Gateway has proxies of its own again."""
    kubernetes = edge.kubernetes
    for thing in (gateway("market", 81), json.dumps(of_market())):
        kubernetes.delete(thing)
    kubernetes.kubectl("patch", "gatewayclass", "eg", "--type=json", "-p", '[{"op":"remove","path":"/spec/parametersRef"}]')
    kubernetes.apply(PLAIN)
    edge.owner = "gateway-name=shop"
    time.sleep(2)
    edge.rolled_out()
