"""Runs the suites that are named, in the namespaces that scripts/platforms/run has made."""

import importlib
import os
import pathlib
import subprocess
import sys
import traceback

from lab.machine import REPO, Failed, Machine
from lab.record import Record, finish

WORK, PLATFORMS = sys.argv[1], sys.argv[2:]


def complete(platform, suite):
    """Every file that is shipped for the platform is run by its suite."""
    folder = getattr(suite, "FOLDER", platform)
    if folder is None:
        return
    shipped = {f"{folder}/{path.name}" for path in (REPO / "envoy" / folder).iterdir()}
    if shipped != set(suite.FILES):
        raise Failed(f"the suite of {platform} runs {sorted(suite.FILES)}, shipped are {sorted(shipped)}")


def main():
    records = []
    for platform in PLATFORMS:
        suite = importlib.import_module("suites." + platform.replace("-", "_"))
        complete(platform, suite)
        record = Record(suite.NAME)
        records.append(record)
        try:
            suite.tried(Machine(pathlib.Path(WORK) / platform), pathlib.Path(os.environ["EVENKEEL_WASM"]), record)
        except (Failed, OSError, subprocess.SubprocessError) as error:
            traceback.print_exc()
            record.case("the rest", "was not tried", str(error))
    finish(records)


main()
