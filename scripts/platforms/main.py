"""Runs a suite, or those of its parts that ONLY names, in the namespaces that scripts/platforms/run has made: `main.py FOLDER PLATFORM`.

`main.py shares PLATFORM` prints the parts, those for one process in a line."""

import importlib
import os
import pathlib
import subprocess
import sys
import traceback

from lab.machine import REPO, Failed, Machine
from lab.record import Record, finish

WORK, PLATFORM = sys.argv[1:]


def complete(platform, suite):
    """Every file that is shipped for the platform is run by its suite."""
    folder = getattr(suite, "FOLDER", platform)
    if folder is None:
        return
    shipped = {f"{folder}/{path.name}" for path in (REPO / "envoy" / folder).iterdir()}
    if shipped != set(suite.FILES):
        raise Failed(f"the suite of {platform} runs {sorted(suite.FILES)}, shipped are {sorted(shipped)}")


def main():
    suite = importlib.import_module("suites." + PLATFORM.replace("-", "_"))
    if WORK == "shares":
        print("\n".join(getattr(suite, "SHARES", ("",))))
        return
    complete(PLATFORM, suite)
    work = pathlib.Path(WORK)
    record = Record(suite.NAME, work)
    try:
        suite.tried(Machine(work), pathlib.Path(os.environ["EVENKEEL_WASM"]), record)
    except (Failed, OSError, subprocess.SubprocessError) as error:
        traceback.print_exc()
        record.case("the rest", "was not tried", str(error))
    finish(record)


main()
