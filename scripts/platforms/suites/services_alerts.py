"""The shipped alerts on a real Prometheus with real services behind a preset, unchanged but for the job's name: what fires, and what does not."""

from lab.fleet import INSTANCES
from lab.machine import Failed, until
from lab.record import counts

RISE = {"EndpointErrorsRiseUnderTraffic", "EvenkeelEndpointErrorsRiseUnderTraffic"}
# Where all fail alike, evenkeel holds it against none of them: `EvenkeelNobodyEligible` is about endpoints that are worse than others.
NONE_LEFT = {"NoHealthyEndpoint", "TooManyServerErrors", "EvenkeelTooManyFailures"}
UNSEEN = {"TargetNotScraped", "EvenkeelSignalMissing"}
OVERLOAD = {"EvenkeelEveryEndpointOverloaded"}
OBSERVE = ('  "upstreams": [{', '  "mode": "observe",\n  "upstreams": [{')


def fires(fleet, record, what, wanted, of="", seconds=240):
    """Load until all of `wanted` fire, told of the instance `of` where an alert tells of one."""
    address, load = fleet.addresses.get(of), fleet.load(seconds + 30)

    def seen():
        return {name for name, place in fleet.firing() if name in wanted and (not address or place == address)}

    try:
        until(f"{wanted} firing", lambda: seen() >= wanted, seconds, 1)
    except Failed:
        pass
    missing, firing = wanted - seen(), sorted({name for name, _ in fleet.firing()})
    load = load.end()
    record.case(what, f"firing: {', '.join(firing)} ({counts(load)})", missing and f"not firing: {', '.join(sorted(missing))}; {sorted(fleet.firing())}")


def quiet(fleet):
    """Nothing is broken any more: what fired has gone."""
    load = fleet.load(300)
    until("no alert firing", lambda: not fleet.firing(), 270, 1)
    load.end()


def of_instances(fleet, record):
    preset = f"alerts with `presets/{fleet.preset}.json`"
    fleet.envoy(OBSERVE)
    fleet.load(30).result()
    fleet.spoil("three", "fail", 1)
    fires(fleet, record, f"{preset} and `observe`, the third fails every request", RISE, "three")
    fleet.spoil("three", "fail", 0)
    fleet.envoy()
    quiet(fleet)
    # Steered, a failing instance loses its traffic: twice as long as it takes the alert to fire, it does not.
    fleet.spoil("two", "fail", 1)
    load = fleet.load(150)
    rises = set()
    for _ in range(10):
        rises |= {name for name, _ in fleet.firing() if name in RISE}
        fleet.load(13, 5).result()
    load = load.end()
    record.case(f"{preset}, the second fails every request and loses its traffic", f"firing: {', '.join(sorted({name for name, _ in fleet.firing()})) or 'none'} ({counts(load)})",
        rises and f"{rises} fires")
    for name in INSTANCES:
        fleet.spoil(name, "fail", 1)
    fires(fleet, record, f"{preset}, every instance fails", NONE_LEFT)
    for name in INSTANCES:
        fleet.spoil(name, "fail", 0)
    quiet(fleet)
    # It answers users, and Prometheus finds nothing where it scrapes.
    fleet.scrape(broken="three")
    fires(fleet, record, f"{preset}, the third cannot be scraped", UNSEEN, "three", 300)


def of_overload(fleet, record):
    for name in INSTANCES:
        fleet.spoil(name, "slow", 2000)
    fires(fleet, record, f"alerts with `presets/{fleet.preset}.json`, every queue is full", OVERLOAD)
