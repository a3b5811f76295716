"""The sidecar's file for other services than pods that speak HTTP/1.1: outside the mesh, by address or by name, and with gRPC."""

from lab.machine import until
from lab.record import below, counts, none_failed
from lab.shop import HOST, QUICK, SLOW, shipped

from suites.istio_beside import rules

WEB = "- cluster: outbound|8080||web.shop.svc.cluster.local"
GRPC = {"script": "grpc_endpoint.py"}


def service(shop, record, what, text, slow, there):
    """The file comes while requests run to the service, of whose pods one is slow, and goes after it has steered."""
    until("answers of the service", lambda: not shop.load("shop-0", 20, 50, **there)["failed"], 60)
    alone = shop.load("shop-0", **there)
    load = shop.under_load("shop-0", lambda: shop.kubernetes.apply(text), **there)
    record.case(f"{what}, while requests run (alone: {counts(alone)})", counts(load), none_failed(load))
    shop.steers("shop-0", **there)
    load = shop.load("shop-0", **there)
    record.case(f"{what}, steers", counts(load), none_failed(load), below(load, slow, 1 / 8))
    shop.kubernetes.delete(text)


def external(shop, record, file):
    """Services outside the mesh, as a ServiceEntry names them: their clusters are balanced like any other."""
    pods = [f"outside-{number}" for number in range(3)]
    for number, pod in enumerate(pods):
        shop.kubernetes.pod("shop", pod, {"app": "outside"})
        shop.machine.python(pod, "endpoint.py", pod, SLOW if number == 2 else QUICK, inside=pod)
    names = {f"{pod}.example.org": shop.address(pod) for pod in pods}
    shop.machine.call(**names)
    ports = [{"number": 8080, "name": "http", "protocol": "HTTP"}]
    for number, (resolution, endpoints) in enumerate((("STATIC", names.values()), ("DNS", names))):
        host, address = f"{resolution.lower()}.example.org", f"10.96.77.{number}"
        shop.kubernetes.apply(rules("ServiceEntry", hosts=[host], addresses=[address], location="MESH_EXTERNAL", resolution=resolution, ports=ports,
            endpoints=[{"address": endpoint} for endpoint in endpoints]))
        text = shipped(file, (WEB, f"- cluster: outbound|8080||{host}"))
        there = {"address": address, "host": f"{host}:8080"}
        service(shop, record, f"`{file}` for a ServiceEntry with `resolution: {resolution}`", text, pods[2], there)


def calls(shop, record, file):
    """A service that speaks gRPC: calls and streams, of which one pod first answers late and then answers UNAVAILABLE."""
    pods = [f"calls-{number}" for number in range(3)]
    for number, pod in enumerate(pods):
        shop.answering(pod, SLOW if number == 2 else QUICK, labels={"app": "calls"}, **GRPC)
    for pod in pods:
        shop.istio.serving(pod)
    address = shop.kubernetes.service("shop", "calls", 8080, protocol="grpc")
    there = {"address": address, "host": HOST.replace("web", "calls"), "script": "grpc_load.py"}
    text, what = shipped(file, ("web.shop.svc", "calls.shop.svc"), ('service="web"', 'service="calls"')), f"`{file}` for a service that speaks gRPC"
    service(shop, record, what, text, pods[2], there)
    shop.ended(pods[2])
    shop.started_again(pods[2], "unavailable", **GRPC)
    alone = shop.load("shop-0", **there)
    shop.kubernetes.apply(text)
    shop.steers("shop-0", **there)
    load = shop.load("shop-0", **there)
    record.case(f"{what}, one answers UNAVAILABLE (alone: {counts(alone)})", counts(load), none_failed(load, alone["failed"]),
        load["failed"] > 6 and f"{load['failed']} failed")
    shop.kubernetes.delete(text)
