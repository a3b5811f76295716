"""envoy/envoy-gateway/evenkeel.yaml on an older Envoy Gateway, which GATEWAY names: what it is for."""

import os

from lab.edge import Edge
from lab.machine import run
from suites.envoy_gateway import steering

NAME, FOLDER = "Envoy Gateway versions", None


def tried(machine, wasm, record):
    """The cases of this version; those of others stay."""
    envoy = run(os.environ["ENVOY"], "--version").split("version: ")[1].split("/")[1]
    record.adds, record.prefix = True, f"{os.environ['GATEWAY']}, Envoy {envoy}: "
    edge = Edge(machine, wasm)
    record.versions = {"Kubernetes": edge.kubernetes.version()}
    steering(edge, record)
