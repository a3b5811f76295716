"""What was tried, what came of it, and the table of it that docs/platforms/ keeps."""

import datetime
import sys

from .machine import REPO, say

PAGE = REPO / "docs/platforms/results.md"


class Record:
    """One platform's results. A case that does not hold fails the run, after all others have had their turn."""

    def __init__(self, platform):
        self.platform, self.versions, self.rows, self.faults = platform, {}, [], []

    def case(self, what, figures, *faults):
        """Notes a case: `figures` in words, and each of `faults` that is not empty."""
        faults = [fault for fault in faults if fault]
        self.rows.append((what, figures, faults))
        self.faults += [f"{what}: {fault}" for fault in faults]
        say(f"{'FAILED' if faults else 'ok'}  {self.platform}: {what}: {figures}{' <- ' if faults else ''}{'; '.join(faults)}")
        write([self])


def none_failed(load):
    """A fault where any of a load's requests failed."""
    return load["failed"] and f"{load['failed']} of {load['sent']} failed: {load['statuses']}, {load['failures'][:2]}"


def below(load, pod, share):
    """A fault where a pod got this share of the answers or more."""
    answered = sum(load["pods"].values())
    got = load["pods"].get(pod, 0)
    return got >= share * answered and f"{pod} got {got} of {answered}, not below {share:.1%}"


def counts(load):
    """A load in words: answers by pod in the order of their names, and what failed."""
    pods = ", ".join(str(load["pods"][pod]) for pod in sorted(load["pods"]))
    return f"{pods} of {load['sent']}; {load['failed']} failed"


def write(records):
    """The page of results: a section for each platform that was run now, the other sections as they were."""
    sections = {}
    if PAGE.exists():
        for part in PAGE.read_text().split("\n## ")[1:]:
            sections[part.split("\n", 1)[0]] = "## " + part.rstrip() + "\n"
    for record in records:
        if record.versions:
            sections[record.platform] = section(record)
    head = (
        "# What ran on the real platforms\n\n"
        "`make platforms` builds Istio's control plane and agent from their published sources, runs the shipped files on them, unchanged, under\n"
        "STRICT mTLS, and writes this page. Envoy is the stock one, so that Istio's own extensions are not in it; Kubernetes' API server is a\n"
        "stand-in. Four pods answer, the third twenty times slower than the others and the fourth in another region; numbers are answers by pod.\n\n"
    )
    PAGE.write_text(head + "\n".join(sections[name] for name in sorted(sections)))


def section(record):
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    day = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    rows = [f"| {what} | {figures} | {'**' + '; '.join(faults).replace('|', '/') + '**' if faults else 'holds'} |" for what, figures, faults in record.rows]
    return "\n".join([f"## {record.platform}", "", f"{day}: {versions}.", "", "| tried | seen | result |", "|---|---|---|", *rows, ""])


def finish(records):
    faults = [f"{record.platform}: {fault}" for record in records for fault in record.faults]
    for fault in faults:
        say(f"FAILED {fault}")
    cases = sum(len(record.rows) for record in records)
    say(f"{cases} cases, {len(faults)} faults; {PAGE.relative_to(REPO)} has the table")
    sys.exit(bool(faults))
