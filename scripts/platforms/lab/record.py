"""What was tried, what came of it, and the table of it that docs/platforms/ keeps."""

import datetime
import fcntl
import json
import os
import sys
import time

from .machine import REPO, say
from .shop import REPLACED

PAGE = REPO / "docs/platforms/results.md"


class Record:
    """One platform's results, or those of some parts of its suite. A case that does not hold fails the run, after all others have had their turn."""

    def __init__(self, platform, work):
        self.platform, self.versions, self.rows, self.faults = platform, {}, [], []
        self.begun = time.monotonic()
        # Where it lies until the page is written, beside those of the suite's other parts.
        self.file = work.with_suffix(".json")
        # The table's columns where it is no list of cases.
        self.columns = ("tried", "seen", "result")
        # What each case begins with.
        self.prefix = ""
        # Whether earlier rows stay that are about something else: where all parts are run, each by a process of its own, they do not.
        self.adds = bool(os.environ.get("ONLY")) and not os.environ.get("ALL_PARTS")

    def case(self, what, figures, *faults):
        """Notes a case: `figures` in words, and each of `faults` that is not empty."""
        what, faults = self.prefix + what, [fault for fault in faults if fault]
        self.rows.append((what, figures, faults))
        self.faults += [f"{what}: {fault}" for fault in faults]
        say(f"{'FAILED' if faults else 'ok'}  {self.platform}: {what}: {figures}{' <- ' if faults else ''}{'; '.join(faults)}")
        write(self)

    def line(self, what, cells):
        """Notes a line of a table with columns of its own: figures and faults for each column behind the first."""
        told = []
        for column, (figures, *faults) in zip(self.columns[1:], cells, strict=True):
            faults = [fault for fault in faults if fault]
            self.faults += [f"{what}, {column}: {fault}" for fault in faults]
            told.append(f"**{figures}: {'; '.join(faults)}**" if faults else figures)
        self.rows.append((what, *told))
        say(f"{'FAILED' if '**' in ''.join(told) else 'ok'}  {self.platform}: {what}: {' | '.join(told)}")
        write(self)


def none_failed(load, but=0):
    """A fault where any of a load's requests failed, or more than the few that the page for users speaks of."""
    return load["failed"] > but and f"{load['failed']} of {load['sent']} failed: {load['statuses']}, {load['failures'][:2]}"


def below(load, pod, share):
    """A fault where a pod got this share of the answers or more."""
    answered = sum(load["pods"].values())
    got = load["pods"].get(pod, 0)
    return got >= share * answered and f"{pod} got {got} of {answered}, not below {share:.1%}"


def counts(load):
    """A load in words: answers by pod in the order of their names, and what failed."""
    pods = ", ".join(str(load["pods"][pod]) for pod in sorted(load["pods"]))
    return f"{pods} of {load['sent']}; {load['failed']} failed"


HEAD = """# What ran on the real platforms

Do the shipped files work on the real platforms? `make platforms` builds the control planes from their published sources, runs the files
on them, unchanged except where a case says so, and writes this page. Envoy is the stock one. Numbers are answers by pod.

"""
INTRODUCTIONS = {
    "Envoy versions": "Each shipped configuration for plain Envoy, unchanged, in each supported Envoy, with the same filter and the same module. Six\n"
    "endpoints answer, 172.31.254.14 twenty times slower than the others. A cell has the number of answers from that one, and of\n"
    "all; a sixth would be 100. No request failed. PyPI has no package of an Envoy before 1.36.",
    "Envoy Gateway versions": "`envoy-gateway/evenkeel.yaml`, unchanged, with older versions, each in front of an Envoy like the one that it was made for.\n"
    "Three pods answer, the third twenty times slower than the others. `PLATFORMS=gateways make platforms` builds and runs them; the newest\n"
    "version, with all cases, is above.",
    "Services": "Three instances of each service run behind a stock Envoy with the preset and a status page, and are scraped every second.\n"
    "Numbers are answers by instance in the order one, three, two; the third is degraded. With a busy processor, event loop or garbage\n"
    "collector its answers are late as well, which evenkeel sees without a signal; the full queue and the busy machine show in the signal only. The\n"
    "node exporters read a `/proc/stat` of their own. `llm-vllm.json` and `istio.json` are not run: vLLM and Istio's extensions are not available.",
    "Docker": "The engine, Compose and BuildKit are Debian's, in a root of their own with an empty image store of either kind. No image can be\n"
    "pulled there: the images of the files are Debian with the tests' programs, Grafana is a server that answers 200 if it can read\n"
    "its mounts, and cargo is a script that copies the output of `make build`. Percentages are parts of the requests.",
    "Kubernetes": "API server, etcd and controller manager are the real ones, and so is Envoy Gateway with `envoy-gateway/evenkeel.yaml` in front of a\n"
    "Deployment, whose pods are processes that the test starts and ends as a kubelet would: two requests at a time, 50 ms each. A hundred\n"
    "lines that read the shipped rules replace prometheus-adapter, whose module is not available, and metrics-server.",
    "Istio": "Sidecars and agent are Istio's own, under STRICT mTLS; Istio's own extensions are not in a stock Envoy. Four pods answer, the third\n"
    "twenty times slower than the others and the fourth in another region.",
    "Envoy Gateway": "Proxies run with the arguments of the Deployment that Envoy Gateway makes. Three pods answer, the third twenty times slower\n"
    "than the others.",
}


def write(record):
    """The page of results: the platform's section with what all parts of its suite have found so far, the other sections as they were."""
    if not record.versions:
        return
    with open(REPO / ".tools/platforms/.page", "a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record.file.write_text(json.dumps({"platform": record.platform, "rows": record.rows, "replaced": sorted(REPLACED)}))
        parts = [json.loads(file.read_text()) for file in sorted(record.file.parent.glob("*.json"))]
        parts = [part for part in parts if part["platform"] == record.platform]
        sections = {}
        if PAGE.exists():
            for part in PAGE.read_text().split("\n## ")[1:]:
                sections[part.split("\n", 1)[0]] = "## " + part.rstrip() + "\n"
        sections[record.platform] = section(record, parts, sections.get(record.platform, ""))
        PAGE.write_text(HEAD + "\n".join(sections[name] for name in sorted(sections)))


def cells(what, *told):
    """A line of the table: figures and faults of a case, or what stands in each column."""
    if isinstance(told[-1], list):
        figures, faults = told
        told = (figures, f"**{'; '.join(faults)}**" if faults else "holds")
    return f"| {what} | {' | '.join(each.replace('|', '/') for each in told)} |"


def key(row):
    """What a row of the table is about, without the figures in it."""
    return row.split(" | ")[0].split(" (")[0]


def section(record, parts, old):
    """Where parts of a suite were picked, their rows take the places of the old ones, and the other rows stay."""
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    day = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    new = [cells(*row) for part in parts for row in part["rows"]]
    rows = {key(row): row for row in old.splitlines()[2:] if row.startswith("| ")} if record.adds else {}
    for gone in (f"| {record.columns[0]}", "| the rest"):
        rows.pop(gone, None)
    rows |= {key(row): row for row in new}
    first = old.splitlines()[2][:len(day)] if rows.keys() - {key(row) for row in new} else day
    days = day if first == day else f"{first} to {day}"
    told = f"{days}: {versions}.\n{INTRODUCTIONS[record.platform]}"
    files = [line for line in old.splitlines() if line.startswith("- in `")] if record.adds else []
    replaced = sorted({*files, *(line for part in parts for line in part["replaced"])})
    table = [f"## {record.platform}", "", told, "", f"| {' | '.join(record.columns)} |", "|---" * len(record.columns) + "|", *rows.values(), ""]
    return "\n".join([*table, "What some of these cases replace; the others leave the files as they are:", "", *replaced, ""] if replaced else table)


def finish(record):
    for fault in record.faults:
        say(f"FAILED {record.platform}: {fault}")
    say(f"{record.platform}: {len(record.rows)} cases, {len(record.faults)} faults in {(time.monotonic() - record.begun) / 60:.0f} minutes; {PAGE.relative_to(REPO)} has the table")
    sys.exit(bool(record.faults))
