"""Three instances of a service at the addresses that a preset names, the real Prometheus that scrapes them, and a stock Envoy with
the filter and the preset in front of them."""

import json
import os
import pathlib
import signal
import tempfile
import urllib.parse
import urllib.request

from .machine import listens, run, until
from .shop import Load, shipped

# The addresses of the presets, and of the proxy.
NETWORK, HERE = "10.0.0.", "10.0.0.254"
INSTANCES = ("one", "two", "three")
PAGE = '{\n  "status": { "path": "/_evenkeel" },\n  "prometheus"'
TYPES = "type.googleapis.com/envoy.extensions."


def typed(kind, **fields):
    return {"@type": TYPES + kind, **fields}


def endpoint(address, port):
    return {"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}}


def static(name, hosts, **more):
    return {"name": name, "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint(*host) for host in hosts]}]}, **more}


def bootstrap(cluster, hosts, configuration, wasm):
    """As envoy-minimal.yaml."""
    header = "x-evenkeel-endpoint"
    fallback = {"policies": [{"typed_extension_config": {"name": "fallback", "typed_config": typed("load_balancing_policies.least_request.v3.LeastRequest")}}]}
    override = typed("load_balancing_policies.override_host.v3.OverrideHost", override_host_sources=[{"header": header}], fallback_policy=fallback)
    hidden = typed("filters.http.header_mutation.v3.HeaderMutation", mutations={"request_mutations": [{"remove": header}]})
    options = typed("upstreams.http.v3.HttpProtocolOptions", explicit_http_config={"http_protocol_options": {}}, http_filters=[
        {"name": "hide", "typed_config": hidden},
        {"name": "codec", "typed_config": typed("filters.http.upstream_codec.v3.UpstreamCodec")},
    ])
    filter_config = {
        "name": "evenkeel",
        "failure_policy": "FAIL_RELOAD",
        "vm_config": {"runtime": "envoy.wasm.runtime.v8", "code": {"local": {"filename": str(wasm)}}},
        "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": configuration},
    }
    connections = typed("filters.network.http_connection_manager.v3.HttpConnectionManager", stat_prefix="ingress",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}]}]},
        http_filters=[
            {"name": "evenkeel", "typed_config": typed("filters.http.wasm.v3.Wasm", config=filter_config)},
            {"name": "router", "typed_config": typed("filters.http.router.v3.Router")},
        ])
    listener = {"address": endpoint(HERE, 10000)["endpoint"]["address"], "filter_chains": [{"filters": [{"name": "http", "typed_config": connections}]}]}
    policy = {"policies": [{"typed_extension_config": {"name": "override", "typed_config": override}}]}
    web = static(cluster, hosts, load_balancing_policy=policy, typed_extension_protocol_options={TYPES[20:] + "upstreams.http.v3.HttpProtocolOptions": options})
    return {"admin": {"address": endpoint(HERE, 9902)["endpoint"]["address"]}, "static_resources": {"listeners": [listener], "clusters": [web, static("prometheus", [(HERE, 9090)])]}}


class Fleet:
    """The instances' namespaces, and what is asked of the parts; `start` is called with each instance's name and address, and what runs is put into `running`."""

    def __init__(self, machine, wasm, preset, job, start, running, scraped=8080, path="/metrics"):
        self.machine, self.preset, self.processes = machine, preset, running
        # Of its own, because several parts bring the same preset.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{preset}-", dir=machine.work))
        self.addresses = {name: f"{NETWORK}{number}" for number, name in enumerate(INSTANCES, 1)}
        self.wasm, self.upstream = wasm, json.loads(shipped(f"presets/{preset}.json"))["upstreams"][0]
        for name, address in self.addresses.items():
            self.processes.extend(start(name, address))
            until(name, lambda address=address: listens(address, 8080), 60)
        self.prometheus(job, scraped, path)
        self.process = None
        self.envoy()

    def envoy(self, *replaced):
        """Starts Envoy with the preset, in the place of the one that runs."""
        text = shipped(f"presets/{self.preset}.json", ('{\n  "prometheus"', PAGE), *replaced)
        hosts = [(address, 8080) for address in self.addresses.values()]
        (self.folder / "envoy.json").write_text(json.dumps(bootstrap(self.upstream["cluster"], hosts, text, self.wasm)))
        if self.process:
            self.machine.stop(self.process)
        self.process = self.run(f"envoy-{self.preset}", os.environ["ENVOY"], "-c", self.folder / "envoy.json", "--concurrency", "2", "--use-dynamic-base-id")
        until("Envoy", self.status, 60)

    def run(self, name, *command, **options):
        self.processes.append(self.machine.start(name, *command, **options))
        return self.processes[-1]

    def prometheus(self, job, port, path):
        """It scrapes the instances, Envoy and evenkeel, and has the shipped alerts, for this job."""
        self.scraped = (job, port, path)
        (self.folder / "alerts.yml").write_text(shipped("prometheus/alerts.yml", ('job="web"', f'job="{job}"')))
        (self.folder / "alerts-evenkeel.yml").write_text(shipped("prometheus/alerts-evenkeel.yml"))
        self.scrape()
        self.scraper = self.run(f"prometheus-{self.preset}", os.environ["PROMETHEUS"], f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/data", f"--web.listen-address={HERE}:9090")
        until("Prometheus", lambda: listens(HERE, 9090))

    def scrape(self, broken=None):
        """What Prometheus scrapes; at the instance `broken` it asks for what is not there."""
        job, port, path = self.scraped

        def scraped(name, metrics, targets, **more):
            return {"job_name": name, "scrape_interval": "1s", "scrape_timeout": "1s", "metrics_path": metrics, "static_configs": targets, **more}
        instances = [{"targets": [f"{address}:{port}"], "labels": {"__metrics_path__": "/nothing"} if name == broken else {}}
            for name, address in self.addresses.items()]
        dropped = {"source_labels": ["__name__"], "regex": "evenkeel_fleet_.*", "action": "drop"}
        jobs = [
            scraped(job, path, instances),
            scraped("evenkeel", "/_evenkeel/metrics", [{"targets": [f"{HERE}:10000"]}]),
            scraped("envoy", "/stats/prometheus", [{"targets": [f"{HERE}:9902"]}], metric_relabel_configs=[dropped]),
        ]
        rules = ["alerts.yml", "alerts-evenkeel.yml"]
        (self.folder / "prometheus.yml").write_text(json.dumps({"scrape_configs": jobs, "rule_files": rules}))
        if broken:
            self.scraper.send_signal(signal.SIGHUP)

    def asked(self, path):
        with urllib.request.urlopen(f"http://{HERE}:9090/api/v1/{path}", timeout=5) as answer:
            return json.load(answer)["data"]

    def firing(self):
        """The alerts that fire: their names, with the instance or endpoint that they tell of."""
        alerts = [alert["labels"] for alert in self.asked("alerts")["alerts"] if alert["state"] == "firing"]
        return {(alert["alertname"], (alert.get("endpoint") or alert.get("instance") or "").split(":")[0]) for alert in alerts}

    def value(self, query, name):
        """What a query says of an instance."""
        found = self.asked("query?" + urllib.parse.urlencode({"query": query}))["result"]
        mine = [one["value"][1] for one in found if one["metric"]["instance"].split(":")[0] == self.addresses[name]]
        return float(mine[0]) if mine else None

    def signal(self, signal, name):
        """The value that a signal's query has for an instance in Prometheus, nothing while there is none."""
        return self.value(next(one["query"] for one in self.upstream["signals"] if one["name"] == signal), name)

    def status(self):
        try:
            return json.loads(run("curl", "-s", "--max-time", "5", f"http://{HERE}:10000/_evenkeel/status.json", check=False))["upstreams"][0]
        except ValueError:
            return None

    def spoil(self, name, fault, value):
        run("curl", "-s", "-X", "PUT", f"http://{self.addresses[name]}:8080/fault/{fault}/{value}")

    def load(self, seconds, rate=60):
        return Load("client", HERE, seconds * rate, rate, host="web", port=10000)
