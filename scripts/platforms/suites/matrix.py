"""The configurations for plain Envoy, unchanged, in every Envoy that is supported: what each of them steers by, and what differs."""

import json
import os
import shutil

from lab.machine import REPO, Failed, listens, run, until
from lab.record import below, none_failed
from lab.shop import QUICK, SLOW, Load

NAME, FOLDER = "Envoy versions", None
NETWORK, PROXY, PROMETHEUS = "172.31.254.", "172.31.254.2", "172.31.254.3"
ENDPOINTS = range(11, 17)
SLOW_ONE = 14
# Less than a third of a fair part of six.
SPARED = 1 / 20
MODULE, MODULE_LB = "module.yaml", "module-lb.yaml"
# What each file is there for. The module's interface of Envoy is there from 1.38 on.
FILES = {
    "envoy-minimal.yaml": "override_host",
    "envoy.yaml": "override_host, signals of Prometheus",
    "envoy-stateful-session.yaml": "stateful_session",
    "envoy-cluster-header.yaml": "cluster_header",
    "envoy-original-dst.yaml": "original_dst",
    "envoy-attempts.yaml": "retries seen by the upstream filter",
    "envoy-discovery.yaml": "endpoints by the admin interface",
    MODULE: "native module, by a call",
    MODULE_LB: "native module, by a call and as the cluster's policy",
}
FROM = {MODULE: (1, 38), MODULE_LB: (1, 38)}


def surroundings(machine, wasm):
    """The endpoints and their Prometheus at the addresses that the files name, and what the files want in /etc/envoy."""
    run("ip", "addr", "add", f"{NETWORK}1/24", "dev", "br0")
    for number in ENDPOINTS:
        name = f"web-{number}"
        machine.namespace(name)
        run("ip", "-n", name, "addr", "add", f"{NETWORK}{number}/24", "dev", "eth0")
        machine.python(name, "endpoint.py", name, SLOW if number == SLOW_ONE else QUICK, inside=name)
        until(f"{name} listens", lambda number=number: listens(f"{NETWORK}{number}", 8080), 20)
    for name, address in (("proxy", PROXY), ("prometheus", PROMETHEUS)):
        machine.namespace(name)
        run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
    machine.namespace("client")
    run("ip", "-n", "client", "addr", "add", f"{NETWORK}4/24", "dev", "eth0")
    machine.call(prometheus=PROMETHEUS)
    scraped = [{"targets": [f"{NETWORK}{number}:9464"], "labels": {"instance": f"{NETWORK}{number}:8080"}} for number in ENDPOINTS]
    jobs = [{"job_name": "web", "scrape_interval": "1s", "static_configs": scraped}]
    (machine.work / "prometheus.json").write_text(json.dumps({"scrape_configs": jobs}))
    machine.start("prometheus", os.environ["PROMETHEUS"], f"--config.file={machine.work}/prometheus.json",
        f"--storage.tsdb.path={machine.work}/data", f"--web.listen-address={PROMETHEUS}:9090", inside="prometheus")
    folder = machine.work / "etc-envoy"
    (folder / "modules").mkdir(parents=True)
    shutil.copytree(REPO / "envoy/eds", folder / "eds")
    shutil.copy(wasm, folder / "evenkeel.wasm")
    shutil.copy(os.environ["EVENKEEL_MODULE"], folder / "modules")
    return folder


def status(machine):
    """What the proxy's status page says of its upstream; nothing where it has none."""
    try:
        return json.loads(machine.ask("client", f"http://{PROXY}:10000/_evenkeel/status.json"))["upstreams"][0]
    except ValueError:
        return None


def tried_file(machine, folder, envoy, name, file):
    """What a file's cell says, and faults."""
    log = f"{name}-{file}"
    process = machine.start(log, envoy, "-c", REPO / "envoy" / file, "--concurrency", "2", "--use-dynamic-base-id", inside="proxy",
        environment={"ENVOY_DYNAMIC_MODULES_SEARCH_PATH": "/etc/envoy/modules"}, mounts=[(folder, "/etc/envoy")])
    try:
        if tuple(map(int, name.split(".")[:2])) < FROM.get(file, (0, 0)):
            ended = until("Envoy's refusal", lambda: process.poll() is not None or listens(PROXY, 10000), 60)
            return ("–", process.poll() is None and ended and "starts, though it has no such interface")
        until(f"Envoy {name} with {file}", lambda: process.poll() is not None or listens(PROXY, 10000), 60)
        until(f"answers of Envoy {name} with {file}", lambda: not load(200, 100)["failed"], 60)
        load(600, 100)
        told, answers = status(machine), load(600, 100)
        slow = f"web-{SLOW_ONE}"
        cell = f"{answers['pods'].get(slow, 0)} of {answers['sent']}"
        return (cell, none_failed(answers), below(answers, slow, SPARED), *wrong(file, told))
    finally:
        machine.stop(process)


def load(requests, rate):
    return Load("client", PROXY, requests, rate, host="web", port=10000).result()


def wrong(file, told):
    """Faults of signals and endpoints, as the status page tells of them."""
    if not told:
        return ["no status page"]
    # One of them is draining by the file that Envoy watches.
    endpoints = len(told["endpoints"])
    faults = [endpoints not in (5, 6) and f"{endpoints} endpoints are known"]
    for signal in told.get("signals", []):
        faults.append((signal["problem"] or signal["matched"] != len(ENDPOINTS)) and f"{signal}")
    return faults


def tried(machine, wasm, record):
    """A line for each version."""
    shipped = {path.name for path in (REPO / "envoy").glob("*.yaml")} - {"docker-compose.yaml"}
    if shipped != set(FILES):
        raise Failed(f"the table has {sorted(FILES)}, shipped are {sorted(shipped)}")
    folder = surroundings(machine, wasm)
    record.columns = ("Envoy", *(f"`{file}`: {what}" for file, what in FILES.items()))
    record.versions = {"Prometheus": run(os.environ["PROMETHEUS"], "--version").split("version ")[1].split(" ")[0]}
    wanted = os.environ.get("ONLY", os.environ["SUPPORTED_ENVOYS"]).split()
    record.versions = {"Envoy": " ".join(wanted)} | record.versions
    for version in wanted:
        envoy = next((REPO / ".tools/envoys" / version).glob("lib/python3*/site-packages/envoy/**/envoy"))
        record.line(version, [tried_file(machine, folder, envoy, version, file) for file in FILES])
