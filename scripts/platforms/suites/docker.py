"""docker-compose.yaml and the image on a real Docker engine, with each of its stores of images."""

import json
import os
import pathlib
import shutil
import time

from lab.demo import BACKENDS, Demo, checkout, ready
from lab.docker import INSIDE, STORES, Engine
from lab.docker_images import Images
from lab.machine import REPO, Failed, run, until
from lab.parts import wanted

NAME, FOLDER, FILES = "Docker", None, ()
SHARES = ("starts misspelt archive configurations", "course chosen")
FIRST_STARTS = 6
# Bootstraps beside envoy.yaml that a user may name in ENVOY_CONFIG. module.yaml wants the native module, which this image has not.
OTHERS = sorted(path.name for path in (REPO / "envoy").glob("envoy-*.yaml"))
PAGES = {"ENVOY_PORT": (10000, "/_evenkeel"), "PROMETHEUS_PORT": (9090, "/-/ready"), "ALERTMANAGER_PORT": (9093, "/-/ready"), "GRAFANA_PORT": (3000, "/")}


def not_running(demo):
    """A fault that names the services whose container does not run."""
    states = {name: state for name, state in demo.services().items() if state != "running"}
    return states and f"not running: {states}"


def failed_in(rounds):
    """A fault where a round of the load is not one of requests, or some of it failed."""
    wrong = [told for told in rounds if isinstance(told, str) or told[1]]
    return (not rounds and "no round was told") or (wrong and f"the load tells {wrong[:2]}")


def told(rounds):
    return f"{sum(one[0] for one in rounds)} requests, {sum(one[1] for one in rounds)} failed" if rounds and all(isinstance(one, tuple) for one in rounds) else str(rounds[:2])


def shared_out(demo, seconds):
    """The part of the requests that each backend had in this time, by its own count."""
    before = demo.counted()
    time.sleep(seconds)
    had = {name: count - before[name] for name, count in demo.counted().items()}
    return {name: count / max(1, sum(had.values())) for name, count in had.items()}


def in_words(shares):
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items())


def first_starts(engine, record, place):
    """Every one of them as on an engine that has pulled its images and has built none."""
    demo, refused, slowest = Demo(engine, place), [], 0
    for _ in range(FIRST_STARTS):
        begun = time.monotonic()
        good, words = demo.up()
        slowest = max(slowest, time.monotonic() - begun)
        wrong = (not good and words.strip().splitlines()[-1]) or not_running(demo)
        refused += [str(wrong)] if wrong else []
        demo.down()
        engine.docker("rmi", "-f", "evenkeel-envoy", "evenkeel-backend")
        engine.docker("builder", "prune", "-af")
    record.case(f"first `up`, {engine.store} image store", f"{len(refused)} of {FIRST_STARTS} failed, {slowest:.0f} s the slowest", "; ".join(refused))


def course(engine, record, place):
    """Four minutes of the demo: a slow backend, one that becomes slow after one minute, one that fails after three."""
    demo = Demo(engine, place)
    begun = time.monotonic()
    good, words = demo.up()
    ready(demo)
    until("the first rounds of the load", lambda: len(demo.rounds()) >= 2, 60)
    first = demo.rounds()
    record.case("the first lines of `load`", "; ".join(f"{one[0]} requests, {one[1]} failed, p99 {one[2]} ms" if isinstance(one, tuple) else one for one in first[:2]),
        not good and words, failed_in(first), not_running(demo))
    parts = shared_out(demo, 10)
    record.case("the demo, a backend ten times slower", in_words(parts), parts["slow"] > 0.05 and "the slow one is not spared")
    answered = {name: bool(demo.ask(path, port)) for name, (port, path) in PAGES.items()}
    targets = json.loads(demo.ask("/api/v1/targets", 9090))["data"]["activeTargets"]
    away = [target["labels"]["instance"] for target in targets if target["health"] != "up"]
    status = demo.status()
    problems = [signal for upstream in status["upstreams"] for signal in upstream.get("signals", []) if signal.get("problem")]
    record.case("the demo's pages and Prometheus' targets", f"{sum(answered.values())} of {len(answered)} pages, {len(targets) - len(away)} of {len(targets)} targets",
        not all(answered.values()) and str(answered), away and f"not up: {away}", problems and str(problems))
    time.sleep(max(0, begun + 135 - time.monotonic()))
    parts = shared_out(demo, 10)
    record.case("the demo after 135 s, one more slow", in_words(parts), parts["slow"] + parts["degrading"] > 0.08 and "the slow ones are not spared")
    time.sleep(max(0, begun + 200 - time.monotonic()))
    before = len(demo.rounds())
    parts = shared_out(demo, 10)
    rounds = demo.rounds()
    lost, sent = (sum(one[index] for one in rounds[before:] if isinstance(one, tuple)) for index in (1, 0))
    record.case("the demo after 200 s, one fails", f"{in_words(parts)}; {told(rounds)} since the start; alerts: {', '.join(firing(demo)) or 'none'}",
        parts["failing"] > 0.03 and "the failing one is not spared", lost > 0.01 * sent and f"{lost} of {sent} failed after the first ten seconds")
    prometheus_away(demo, record)
    killed(demo, record)
    good, words = demo.down()
    left = engine.leftovers()
    record.case("`down -v`", f"left: {left or 'nothing'}", not good and words, left and "something is left")


def firing(demo):
    found = json.loads(demo.ask("/api/v1/alerts", 9090) or "{}").get("data", {}).get("alerts", [])
    return sorted({alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"})


def words_on_prometheus(demo, since):
    """What Envoy's log says of polls that failed, from this line on."""
    lines = demo.log("envoy").splitlines()[since:]
    return [line.split("prometheus poll failed", 1)[1] for line in lines if "prometheus poll failed" in line]


def prometheus_away(demo, record):
    """First for an Envoy that had found it, then for one that starts without it, to which its name means nothing."""
    for what in ("Prometheus stops", "Envoy starts without Prometheus"):
        since = len(demo.log("envoy").splitlines())
        demo.compose("rm", "-sf", "prometheus")
        if what.startswith("Envoy"):
            demo.compose("stop", "-t", "2", "envoy")
            since = len(demo.log("envoy").splitlines())
            demo.compose("start", "envoy")
            ready(demo)
        line = until("a word on Prometheus", lambda since=since: words_on_prometheus(demo, since), 60)[0]
        before = len(demo.rounds())
        until("rounds without Prometheus", lambda before=before: len(demo.rounds()) >= before + 2, 60)
        # Without the round in which it happened.
        rounds = demo.rounds()[before + 1:]
        demo.compose("up", "-d", "--no-deps", "prometheus")
        until("Prometheus read again", lambda since=since: "poll succeeded again" in "\n".join(demo.log("envoy").splitlines()[since:]), 90)
        record.case(what, f"`prometheus poll failed{line[:220]}`; {told(rounds)}; read again once it is back", "unknown to Envoy" in line and "its cluster is called unknown",
            failed_in(rounds))


def killed(demo, record):
    """One of the healthy is killed: it stays down, as the file says, until it is started again."""
    demo.compose("kill", "healthy-3")
    time.sleep(15)
    state = demo.services()["healthy-3"]
    rounds = demo.rounds()
    demo.compose("start", "healthy-3")
    # Not all within a moment: it starts slowly.
    until("requests to it", lambda: shared_out(demo, 3)["healthy-3"] > 0.1, 90)
    parts = shared_out(demo, 5)
    record.case("a healthy backend is killed and started again", f"{state}; meanwhile {told(rounds[-1:])}; afterwards {in_words(parts)}",
        state == "running" and "it came back by itself")


def configurations(engine, record, place):
    """Each other bootstrap in ENVOY_CONFIG, in a network of the user's own."""
    for file in OTHERS:
        demo = Demo(engine, place, {"ENVOY_CONFIG": file, "DEMO_NETWORK": "10.99.99"})
        good, words = demo.up()
        if not good:
            record.case(f"`ENVOY_CONFIG={file}`", "does not start", words.strip().splitlines()[-1], demo.log("envoy")[-300:])
            demo.down()
            continue
        until("rounds of the load", lambda demo=demo: len(demo.rounds()) >= 2, 60)
        parts, rounds = shared_out(demo, 5), demo.rounds()
        record.case(f"`ENVOY_CONFIG={file}`, `DEMO_NETWORK=10.99.99`", f"{in_words(parts)}; {told(rounds)}",
            not_running(demo), parts["slow"] > 0.05 and "the slow one is not spared", failed_in(rounds))
        demo.down()


def misspelt(engine, record, place):
    demo = Demo(engine, place, {"ENVOY_CONFIG": "envoy-discvery.yaml"})
    good, words = demo.up()
    made = (place / "envoy/envoy-discvery.yaml").exists()
    record.case(f"`ENVOY_CONFIG` misspelt, {engine.store} image store", words.strip().splitlines()[-1].replace(str(INSIDE), ""), good and "it is not refused", made and "a folder was made of it",
        "envoy-discvery.yaml" not in words and "the file is not named")
    demo.down()


def chosen(engine, record, machine):
    """A checkout that only its owner may read, other ports, another network."""
    place = checkout(machine, "strict", 0o077)
    ports = {"ENVOY_PORT": 18000, "PROMETHEUS_PORT": 18090, "ALERTMANAGER_PORT": 18093, "GRAFANA_PORT": 18030}
    demo = Demo(engine, place, {**{name: str(port) for name, port in ports.items()}, "DEMO_NETWORK": "10.99.98", "LOAD_RATE": "100"})
    good, words = demo.up()
    ready(demo)
    until("the first round of the load", demo.rounds, 60)
    until("the pages", lambda: all(demo.ask(PAGES[name][1], port) for name, port in ports.items()), 30)
    rounds = demo.rounds()
    targets = json.loads(demo.ask("/api/v1/targets", 18090))["data"]["activeTargets"]
    away = [target["labels"]["instance"] for target in targets if target["health"] == "down"]
    record.case("a checkout with umask 077, `…_PORT`, `DEMO_NETWORK` and `LOAD_RATE` changed", f"all {len(ports)} pages, {len(targets)} targets, {told(rounds)}",
        not good and words, not_running(demo), away and f"not up: {away}", failed_in(rounds))
    demo.down()
    shutil.rmtree(place)


def archive(engine, record, machine, wasm):
    """What scripts/image packs, loaded into the store."""
    folder = machine.work / "shared/image"
    run(REPO / "scripts/image", wasm, folder, cwd=REPO, env=os.environ | {"IMAGE": "registry.example.com/evenkeel:0.1.0"})
    done = engine.call("docker", "load", "-i", f"{INSIDE}/image/evenkeel.oci.tar")
    words = (done.stdout + done.stderr).strip()
    same = False
    if done.returncode == 0:
        engine.docker("create", "--name", "packed", "registry.example.com/evenkeel:0.1.0", "/plugin.wasm")
        engine.docker("cp", "packed:/plugin.wasm", f"{INSIDE}/image/copied.wasm")
        engine.docker("rm", "packed")
        same = (folder / "copied.wasm").read_bytes() == pathlib.Path(wasm).read_bytes()
    record.case(f"`docker load -i evenkeel.oci.tar`, {engine.store} image store", words, not same and "the filter does not come out of it")


def tried(machine, wasm, record):
    """Everything of this platform, into the record."""
    images, place = Images(machine, wasm), checkout(machine)
    parts = {
        "starts": lambda engine: first_starts(engine, record, place),
        "misspelt": lambda engine: misspelt(engine, record, place),
        "archive": lambda engine: archive(engine, record, machine, wasm),
        # What no store makes a difference to.
        "course": lambda engine: course(engine, record, place),
        "configurations": lambda engine: configurations(engine, record, place),
        "chosen": lambda engine: chosen(engine, record, machine),
    }
    newest = list(STORES)[-1]
    for store in STORES:
        engine = Engine(machine, store)
        engine.up()
        record.versions = {
            "Docker": engine.docker("version", "--format", "{{.Server.Version}}").strip(),
            "Compose": engine.docker("compose", "version", "--short").strip(),
            "BuildKit's client": engine.docker("buildx", "version").split()[1],
            "Envoy": run(os.environ["ENVOY"], "--version").split("version: ")[1].split("/")[1],
        }
        images.put(engine)
        for part in wanted(SHARES, parts):
            if store != newest and part in ("course", "configurations", "chosen"):
                continue
            try:
                parts[part](engine)
            except Failed as error:
                record.case(f"{part}, {store} image store", "was not tried to its end", str(error))
            engine.empty()
        engine.down()
