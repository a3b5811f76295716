"""envoy/envoy-gateway/evenkeel.yaml beside what users have of their own: policies, zones, several rules and routes."""

import json
import time

from lab.edge import DECISIONS, NOT_FOLLOWED, PLAIN, PODS, SPARED, backend, route
from lab.machine import until
from lab.record import below, counts, none_failed
from lab.shop import QUICK, SLOW

CLUSTER = "httproute/shop/web/rule/0"
POLICY = "backendtrafficpolicy"
EXTENSIONS = "envoyextensionpolicy"
RETRIES = {"retry": {"numRetries": 3, "retryOn": {"triggers": ["connect-failure", "reset", "gateway-error"]}, "perRetry": {"timeout": "2s"}}}
HEALTH = {
    "healthCheck": {
        "active": {"type": "HTTP", "http": {"path": "/"}, "interval": "1s", "timeout": "500ms", "unhealthyThreshold": 2, "healthyThreshold": 1},
        "passive": {"consecutive5XxErrors": 5, "interval": "2s", "baseEjectionTime": "5s", "maxEjectionPercent": 50},
    }
}
# An extension of the user's: the endpoints see what it writes.
LUA = {"lua": [{"type": "Inline", "inline": 'function envoy_on_request(handle) handle:headers():add("x-track", "users") end'}]}
LIMITS = {"circuitBreaker": {"maxConnections": 500, "maxPendingRequests": 500, "maxParallelRequests": 500}, "timeout": {"http": {"connectionIdleTimeout": "7s"}}}


def policy(kind, name, of="BackendTrafficPolicy", **spec):
    """A policy of the user's, of the kind `of`, for a Gateway or a route."""
    target = {"group": "gateway.networking.k8s.io", "kind": kind, "name": name}
    return {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": of,
        "metadata": {"name": "of-the-user", "namespace": "shop"},
        "spec": {"targetRefs": [target], **spec},
    }


def idle_timeout(edge):
    """What the cluster in force says of idle connections."""
    dump = json.loads(edge.gateway.admin(edge.serving, "config_dump?resource=dynamic_active_clusters"))
    clusters = {item["cluster"]["name"]: item["cluster"] for item in dump["configs"]}
    options = clusters[CLUSTER].get("typed_extension_protocol_options", {})
    return next((each["common_http_protocol_options"].get("idle_timeout") for each in options.values()), None)


def with_a_dead_pod(edge):
    """Load while the process of one pod is away that is listed all the same."""
    load = edge.begin("gateway", 60 * 20)
    time.sleep(5)
    edge.ended(PODS[1])
    time.sleep(8)
    edge.revive(PODS[1], QUICK)
    return load.result()


def gateways_policy(edge, record, file, text):
    """Retries, health checks and limits for the whole gateway: the route's policy does not take them away."""
    for name, spec in (("retries and limits", RETRIES | LIMITS), ("retries, health checks and limits", RETRIES | HEALTH | LIMITS)):
        edge.kubernetes.apply(policy("Gateway", "shop", **spec))
        until("the gateway's policy in force", lambda: idle_timeout(edge) == "7s", 60)
        time.sleep(5)
        alone = with_a_dead_pod(edge)
        load = edge.under_load(lambda: edge.kubernetes.apply(text))
        record.case(f"{file} beside {name} of the Gateway, while requests run", counts(load), none_failed(load))
        edge.steers()
        kept = idle_timeout(edge)
        load = with_a_dead_pod(edge)
        record.case(f"{file} beside {name} of the Gateway, a pod's process ends and returns (alone: {counts(alone)})", counts(load),
            load["failed"] > alone["failed"] and f"{load['statuses']}, {load['failures'][:2]}", below(load, PODS[2], SPARED),
            kept != "7s" and f"its idle time-out of 7s is {kept}")
        edge.take_out(text)
        edge.kubernetes.delete(policy("Gateway", "shop", **spec))
    # Hashing is what the user chose for the gateway; the file says least_request for its route.
    hashing = policy("Gateway", "shop", loadBalancer={"type": "ConsistentHash", "consistentHash": {"type": "SourceIP"}})
    edge.kubernetes.apply(hashing)
    time.sleep(5)
    load = edge.under_load(lambda: edge.kubernetes.apply(text))
    told = edge.gateway.conditions(POLICY, "evenkeel", "shop")
    edge.steers()
    after = edge.load("gateway")
    record.case(f"{file} beside ConsistentHash of the Gateway, while requests run", counts(load), none_failed(load), "; ".join(told))
    record.case(f"{file} beside ConsistentHash of the Gateway, steers", counts(after), none_failed(after), below(after, PODS[2], SPARED))
    edge.take_out(text)
    edge.kubernetes.delete(hashing)


def routes_policy(edge, record, file, text, without_policy):
    """A policy of the user's for the same route: the older one counts; then both in one, as the page says."""
    users = policy("HTTPRoute", "web", **RETRIES, **HEALTH, **LIMITS)
    edge.kubernetes.apply(users)
    until("the user's policy in force", lambda: idle_timeout(edge) == "7s", 60)
    load = edge.under_load(lambda: edge.kubernetes.apply(text))
    told = edge.gateway.conditions(POLICY, "evenkeel", "shop")
    record.case(f"{file} beside an older policy of the same route", f"{counts(load)}; {'; '.join(told)}", none_failed(load),
        not told and "its conditions do not tell")
    load = edge.load("gateway")
    lost = edge.counted(NOT_FOLLOWED)
    record.case(f"{file} beside an older policy of the same route, nothing steered", f"{counts(load)}; not_followed {lost}", none_failed(load), not lost and "not_followed is 0")
    edge.take_out(text)
    override = {"type": "LeastRequest", "endpointOverride": {"extractFrom": [{"header": "x-evenkeel-endpoint"}]}}
    edge.kubernetes.apply(policy("HTTPRoute", "web", loadBalancer=override, **RETRIES, **HEALTH, **LIMITS))
    load = edge.under_load(lambda: edge.kubernetes.apply(without_policy))
    record.case(f"{file}, its policy merged into the user's, while requests run", counts(load), none_failed(load))
    edge.steers()
    load = with_a_dead_pod(edge)
    record.case(f"{file}, merged, a pod's process ends and returns", counts(load), none_failed(load), below(load, PODS[2], SPARED))
    load = edge.load("gateway")
    seen = load["steering_header_seen"]
    record.case(f"{file}, merged, steers", counts(load), none_failed(load), below(load, PODS[2], SPARED),
        seen and f"{seen} endpoints saw the steering header")
    edge.take_out(without_policy)
    edge.kubernetes.delete(users)


def in_force(edge, load=None):
    """Whether the user's extension acts on all requests; `None` where on some of them."""
    tracks = (load or edge.load("gateway", 20, 20))["tracks"]
    return {("users",): True, ("-",): False}.get(tuple(tracks))


def extensions(edge, record, file, text):
    """An EnvoyExtensionPolicy of the user's, of the Gateway or of the same route."""
    of_gateway = policy("Gateway", "shop", "EnvoyExtensionPolicy", **LUA)
    edge.kubernetes.apply(of_gateway)
    until("the Gateway's extension in force", lambda: in_force(edge), 60)
    load = edge.under_load(lambda: edge.kubernetes.apply(text))
    status = json.dumps(edge.kubernetes.get(EXTENSIONS, "of-the-user", "-n", "shop")["status"])
    edge.steers()
    after = edge.load("gateway")
    record.case(f"{file} beside an extension of the Gateway, which is out of force for the route", f"{counts(load)}, then {counts(after)}",
        none_failed(load), none_failed(after), below(after, PODS[2], SPARED), "Overridden" not in status and f"no condition tells: {status}",
        in_force(edge, after) is not False and f"it acts: {after['tracks']}")
    both = text.replace("\n  wasm:\n", f"\n  lua: {json.dumps(LUA['lua'])}\n  wasm:\n", 1)
    load = edge.under_load(lambda: edge.kubernetes.apply(both))
    edge.steers()
    after = edge.load("gateway")
    record.case(f"{file}, its entries and the Gateway's in one policy", f"{counts(load)}, then {counts(after)}", none_failed(load),
        none_failed(after), below(after, PODS[2], SPARED), in_force(edge, after) is not True and f"not both act: {after['tracks']}")
    edge.take_out(both)
    edge.kubernetes.delete(of_gateway)
    of_route = policy("HTTPRoute", "web", "EnvoyExtensionPolicy", **LUA)
    edge.kubernetes.apply(of_route)
    until("the route's extension in force", lambda: in_force(edge), 60)
    load = edge.under_load(lambda: edge.kubernetes.apply(text))
    told = edge.gateway.conditions(EXTENSIONS, "evenkeel", "shop")
    decisions = edge.counted(DECISIONS)
    after = edge.load("gateway")
    record.case(f"{file} beside an older extension of the same route", f"{counts(load)}, then {counts(after)}; {'; '.join(told)}",
        none_failed(load), none_failed(after), not told and "its conditions do not tell", in_force(edge, after) is not True and "the older one does not act",
        edge.counted(DECISIONS) > decisions and "the filter decides all the same")
    edge.take_out(text)
    edge.kubernetes.delete(of_route)
    until("no extension", lambda: in_force(edge) is False, 60)


def zones(edge, record, file, text, with_patches):
    """Zone-aware routing gives each backend a cluster of its own, which the file's patches do not know by name."""
    local = {"preferLocal": {"minEndpointsThreshold": 1, "force": {"minEndpointsInZoneThreshold": 1}}}
    own = policy("Gateway", "shop", loadBalancer={"type": "LeastRequest", "zoneAware": local})
    edge.kubernetes.apply(own)
    until("a cluster for each backend", lambda: edge.gateway.members(edge.serving, f"{CLUSTER}/backend/0"), 60)
    alone = edge.load("gateway")
    for what, each in (("unchanged", text), ("its patches for the backend's cluster", with_patches)):
        load = edge.under_load(lambda each=each: edge.kubernetes.apply(each))
        told = edge.gateway.conditions("envoypatchpolicy", "evenkeel", "shop")
        record.case(f"{file} with zone-aware routing, {what}, while requests run (alone: {counts(alone)})", f"{counts(load)}; {'; '.join(told)}",
            none_failed(load), each == text and not told and "no condition tells of the patches", each != text and "; ".join(told))
        edge.steers()
        load = edge.load("gateway")
        seen = load["steering_header_seen"]
        record.case(f"{file} with zone-aware routing, {what}, steers", f"{counts(load)}; {seen} endpoints saw the header", none_failed(load),
            below(load, PODS[2], SPARED), each != text and seen and "the header is seen")
    load = edge.under_load(lambda: edge.take_out(with_patches))
    record.case(f"{file} with zone-aware routing, taken out", counts(load), none_failed(load))
    edge.kubernetes.delete(own)
    until("one cluster again", lambda: edge.gateway.members(edge.serving, CLUSTER), 60)


def rules(edge, record, file, with_route):
    """A route of two rules, and a second route, whose clusters no entry names."""
    edge.kubernetes.service("shop", "api", 8080)
    for number, pod in enumerate(("api-0", "api-1", "api-2")):
        edge.answering(pod, SLOW if number == 2 else QUICK, "api")
    header = {"matches": [{"headers": [{"name": "x-api", "value": "1"}]}], "backendRefs": [backend("api")]}
    own = route([backend("web")], header)
    other = route([backend("api")], name="other")
    other["spec"]["hostnames"] = ["other.example.com"]
    edge.kubernetes.apply(other)
    edge.kubernetes.apply(own)
    api = {"headers": ["x-api: 1"]}
    until("the second rule", lambda: {pod[:3] for pod in edge.load("gateway", 10, 50, **api)["pods"]} == {"api"}, 60)
    edge.settled()
    text = with_route(own)
    second = edge.begin("gateway", 60 * 45, 60, **api)
    load = edge.under_load(lambda: edge.kubernetes.apply(text))
    second = second.result()
    record.case(f"{file} for a route of two rules, while requests run", f"{counts(load)}; second rule {counts(second)}",
        none_failed(load), none_failed(second))
    edge.steers()
    for name, load in (("the rule that it names", edge.load("gateway")), ("the other rule", edge.load("gateway", **api)),
            ("another route", edge.load("gateway", host="other.example.com"))):
        record.case(f"{file}, {name}", counts(load), none_failed(load), name.startswith("the rule") and below(load, PODS[2], SPARED))
    edge.take_out(text, own)
    both = with_route(own, (f'- cluster: "{CLUSTER}*"', '- cluster: "httproute/shop/web/rule/*"'))
    edge.kubernetes.apply(both)
    edge.steers()
    edge.load("gateway", 400, **api)
    for name, load, slow in (("rule 0", edge.load("gateway"), PODS[2]), ("rule 1", edge.load("gateway", **api), "api-2")):
        record.case(f"{file} with the pattern of all rules, {name}", counts(load), none_failed(load), below(load, slow, SPARED))
    edge.take_out(both, own)
    edge.kubernetes.delete(other)
    edge.kubernetes.apply(PLAIN)


def without_patches(edge, record, file, text):
    """Envoy Gateway's own configuration does not allow patches; it restarts while requests run."""
    load = edge.under_load(lambda: edge.gateway.serve(patches=False))
    record.case("Envoy Gateway restarts, without patch policies", counts(load), none_failed(load))
    load = edge.under_load(lambda: edge.kubernetes.apply(text))
    record.case(f"{file} without patch policies, while requests run", counts(load), none_failed(load))
    edge.steers()
    load = edge.load("gateway")
    seen = load["steering_header_seen"]
    record.case(f"{file} without patch policies, steers", f"{counts(load)}; {seen} endpoints saw the header", none_failed(load),
        below(load, PODS[2], SPARED))
    edge.take_out(text)
    edge.gateway.serve()
