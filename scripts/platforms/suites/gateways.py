"""envoy/envoy-gateway/evenkeel.yaml on an older Envoy Gateway, which GATEWAY names: what it is for."""

import os

from lab.edge import PODS, POLICIES, SPARED, Edge
from lab.machine import run
from lab.record import below, counts, none_failed
from lab.shop import shipped

NAME, FOLDER = "Envoy Gateway versions", None
FILE = "envoy-gateway/evenkeel.yaml"


def tried(machine, wasm, record):
    """A line for this version; those of others stay."""
    edge = Edge(machine, wasm)
    envoy = run(os.environ["ENVOY"], "--version").split("version: ")[1].split("/")[1]
    record.adds = True
    record.columns = ("Envoy Gateway, Envoy", "without evenkeel", "applied while requests run", "steers", "a client names the slow pod",
        "a proxy that starts", "taken out while requests run", "its policies")
    record.versions = {"Kubernetes": edge.kubernetes.version()}
    slow = PODS[2]
    alone = edge.load("gateway")
    coming = edge.under_load(lambda: edge.kubernetes.apply(shipped(FILE)))
    refused = [told for kind in POLICIES.split(",") for told in edge.gateway.conditions(kind, "evenkeel", "shop")]
    edge.steers()
    steered, named = edge.load("gateway"), edge.load("gateway", headers=[f"x-evenkeel-endpoint: {edge.address(slow)}:8080"])
    seen = steered["steering_header_seen"]
    starting, _ = edge.starting()
    leaving = edge.under_load(lambda: edge.take_out(shipped(FILE)))
    record.line(f"{os.environ['GATEWAY']}, {envoy}", [
        (counts(alone), none_failed(alone)),
        (counts(coming), none_failed(coming)),
        (counts(steered), none_failed(steered), below(steered, slow, SPARED), seen and f"{seen} endpoints saw the steering header"),
        (counts(named), none_failed(named), below(named, slow, SPARED)),
        (counts(starting), none_failed(starting)),
        (counts(leaving), none_failed(leaving)),
        ("accepted", "; ".join(refused)),
    ])
