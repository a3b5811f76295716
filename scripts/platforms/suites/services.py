"""The presets with real services behind them: what their libraries export is what the queries ask for, and the signals move traffic."""

import os
import pathlib
import subprocess
import threading
import time

from lab.fleet import HERE, INSTANCES, Fleet
from lab.machine import REPO, Failed, listens, program, run, until
from lab.parts import wanted
from lab.record import counts
from suites import services_alerts as told

NAME, FOLDER = "Services", "presets"
GO, NODE, SPRING, WORKERS, MACHINES = "go-service", "node-service", "spring-boot", "async-workers", "node-and-container-cpu"
# What stands behind these cannot be had here: processors for vLLM, cAdvisor's package. Istio's own extensions make the metrics of the last.
NOT_RUN = ("llm-vllm", "istio")
FILES = tuple(f"presets/{name}.json" for name in (GO, NODE, SPRING, WORKERS, MACHINES, *NOT_RUN))
SHARES = ("alerts", "go node spring", "workers overload machines")
# Half of a fair part of three.
SPARED = 1 / 6


def services():
    return REPO / ".tools/platforms/services"


def inside(machine):
    """A network namespace for each instance, and one for the client; the addresses are those that the presets name."""
    run("ip", "addr", "add", f"{HERE}/24", "dev", "br0")
    for number, name in enumerate((*INSTANCES, "client"), 1):
        machine.namespace(name)
        run("ip", "-n", name, "addr", "add", f"10.0.0.{number}/24", "dev", "eth0")


def wrong_signals(fleet, without=()):
    """A fault that tells of signals that do not match every instance."""
    signals = {signal["name"]: signal for signal in fleet.status()["signals"]}
    wrong = {name: signal for name, signal in signals.items() if name not in without and (signal["problem"] or signal["matched"] != len(INSTANCES))}
    return wrong and f"{wrong}"


def tried_with(fleet, record, what, spoilt, without=()):
    """A calm load, then one under which the third instance is spoilt in `spoilt`'s way: signal, at least, and how."""
    calm = fleet.load(30)
    before = calm.result()
    end = time.monotonic() + 60
    while wrong_signals(fleet, without) and time.monotonic() < end:
        time.sleep(1)
    signals = [signal["name"] for signal in fleet.status()["signals"] if signal["name"] not in without]
    record.case(f"`presets/{fleet.preset}.json`, {what}: its signals", f"{', '.join(signals)}: matched {len(INSTANCES)} of {len(INSTANCES)} instances each",
        wrong_signals(fleet, without))
    signal, least, how, spoil = spoilt
    load = fleet.load(200)
    spoil(True)
    until(f"{signal} of the third", lambda: (fleet.signal(signal, "three") or 0) >= least, 100, 1)
    # The next poll, and what is smoothed.
    time.sleep(15)
    value, others = fleet.signal(signal, "three"), max(fleet.signal(signal, name) or 0 for name in INSTANCES[:2])
    measured = fleet.load(15).result()
    rest = load.end()
    spoil(False)
    answered, got = sum(measured["pods"].values()), measured["pods"].get("three", 0)
    record.case(f"`presets/{fleet.preset}.json`, {what}: {how}", f"{signal} {value:.0f}, others at most {others:.0f}: {counts(measured)} (before: {counts(before)})",
        got >= SPARED * answered and f"the third still got {got} of {answered}", (measured["failed"] + rest["failed"] > 0) and f"failed: {measured['statuses']}, {rest['statuses']}")


def go_fleet(machine, wasm, running):
    labels = dict(zip(INSTANCES, ("status", "code", "otel"), strict=True))

    def start(name, address):
        # A process that is to be busy has to get its processor beside whatever else this machine does.
        return [machine.start(f"go-{name}", "nice", "-n", "-5", services() / "services", "web", name, f"{address}:8080", labels[name], inside=name, environment={"GOMAXPROCS": 1})]

    return Fleet(machine, wasm, GO, "my_service", start, running)


def go_service(machine, wasm, record, running):
    fleet = go_fleet(machine, wasm, running)
    tried_with(fleet, record, "gin with a middleware's metrics, with client_golang's and with OpenTelemetry's",
        ("cpu_percent", 60, "the third keeps a processor busy", lambda on: fleet.spoil("three", "burn", int(on))))


def node_service(machine, wasm, record, running):
    def start(name, address):
        return [machine.start(f"node-{name}", program("node"), services() / "node/server.js", name, address, 8080, inside=name)]

    fleet = Fleet(machine, wasm, NODE, "my_node_service", start, running)
    tried_with(fleet, record, "express and prom-client", ("event_loop_lag_ms", 60, "the third holds its event loop 70 ms of every 100",
        lambda on: fleet.spoil("three", "block", 70 * on)))


def spring_boot(machine, wasm, record, running):
    spring = services() / "spring"

    def start(name, address):
        return [machine.start(f"spring-{name}", program("java"), "-Xmx128m", f"-Dinstance={name}", "-cp", f"{spring}/classes:{spring}/libs/*", "shop.Service",
            f"--server.address={address}", "--server.port=8080", "--management.endpoints.web.exposure.include=prometheus", inside=name)]

    fleet = Fleet(machine, wasm, SPRING, "my_spring_service", start, running, path="/actuator/prometheus")
    tried_with(fleet, record, "Spring Boot's web starter and Micrometer", ("gc_percent", 10, "the third collects garbage all the time",
        lambda on: fleet.spoil("three", "garbage", 400 * on)))


def machines(machine, wasm, record, running):
    """Three node exporters, each with a /proc/stat of its own: there is one machine here."""
    stat = {name: machine.work / name / "stat" for name in INSTANCES}
    busy, ended = dict.fromkeys(INSTANCES, 0.1), threading.Event()

    def tick():
        used, begun = dict.fromkeys(INSTANCES, 1000.0), time.monotonic()
        while not ended.wait(0.2):
            now = time.monotonic()
            for name, place in stat.items():
                used[name] += 100 * busy[name] * (now - begun)
                idle = 100 * now - used[name]
                cpu = f"{used[name]:.0f} 0 0 {idle:.0f} 0 0 0 0 0 0"
                place.with_suffix(".new").write_text(f"cpu  {cpu}\ncpu0 {cpu}\n")
                place.with_suffix(".new").rename(place)
            begun = now

    def start(name, address):
        stat[name].parent.mkdir()
        exporter = machine.start(f"exporter-{name}", program("prometheus-node-exporter"), "--collector.disable-defaults", "--collector.cpu",
            f"--path.procfs={stat[name].parent}", f"--web.listen-address={address}:9100", inside=name)
        return [exporter, machine.start(f"behind-{name}", services() / "services", "web", name, f"{address}:8080", "code", inside=name)]

    fleet = Fleet(machine, wasm, MACHINES, "node", start, running, scraped=9100)
    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    containers = ("container_cpu_percent", "throttled_percent")
    tried_with(fleet, record, "the node exporter alone",
        ("node_cpu_percent", 70, "the third's machine is busy", lambda on: busy.update(three=0.95 if on else 0.1)), containers)
    told = {signal["name"]: signal["problem"] for signal in fleet.status()["signals"]}
    record.case(f"`presets/{MACHINES}.json` without cAdvisor: what is said", "; ".join(f"{name}: {told[name]}" for name in containers),
        not all(told[name] for name in containers) and "nothing is said")
    ended.set()


def worker_fleet(machine, wasm, running):
    redis = machine.start("redis", program("redis-server"), "--bind", HERE, "--port", "6379", "--protected-mode", "no",
        "--save", "", "--dir", machine.work)
    running.append(redis)
    until("Redis", lambda: listens(HERE, 6379))

    def start(name, address):
        process = machine.start(f"worker-{name}", services() / "services", "worker", name, f"{address}:8080", f"{HERE}:6379", INSTANCES.index(name), inside=name)
        return [process]

    return Fleet(machine, wasm, WORKERS, "worker_service", start, running)


def workers(machine, wasm, record, running):
    fleet = worker_fleet(machine, wasm, running)
    tried_with(fleet, record, "asynq, its exporter and Redis", ("queue_depth", 60, "the third's queue fills", lambda on: fleet.spoil("three", "slow", 400 * on)))


def alerts(machine, wasm, record, running):
    told.of_instances(go_fleet(machine, wasm, running), record)


def overload(machine, wasm, record, running):
    told.of_overload(worker_fleet(machine, wasm, running), record)


def version_of_exporter():
    done = subprocess.run([program("prometheus-node-exporter"), "--version"], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).split("version ")[1].split(" ")[0]


def tried(machine, wasm, record):
    """Everything of this platform, into the record."""
    inside(machine)
    redis = run(program("redis-server"), "--version").split("v=")[1].split(" ")[0]
    record.versions = {
        "gin": os.environ["GIN_VERSION"],
        "client_golang": os.environ["CLIENT_GOLANG_VERSION"],
        "otelhttp": os.environ["OTELHTTP_VERSION"],
        "asynq": os.environ["ASYNQ_VERSION"],
        "Redis": redis,
        "prom-client": os.environ["PROM_CLIENT_VERSION"],
        "express": os.environ["EXPRESS_VERSION"],
        "Node.js": run(program("node"), "--version").strip(),
        "Spring Boot": os.environ["SPRING_BOOT_VERSION"],
        "node exporter": version_of_exporter(),
        "Prometheus": run(os.environ["PROMETHEUS"], "--version").split("version ")[1].split(" ")[0],
        "Envoy": run(os.environ["ENVOY"], "--version").split("version: ")[1].split("/")[1],
    }
    parts = {"alerts": alerts, "go": go_service, "node": node_service, "spring": spring_boot, "workers": workers, "overload": overload, "machines": machines}
    for part in wanted(SHARES, parts):
        running = []
        try:
            parts[part](machine, pathlib.Path(wasm), record, running)
        except Failed as error:
            record.case(f"{part}", "was not tried to its end", str(error))
        for process in reversed(running):
            machine.stop(process)
