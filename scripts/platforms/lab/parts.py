"""The parts of a suite: which of them run, and which in one process. `shares` names them all, those of one process in a text."""

import os

from .machine import Failed


def wanted(shares, parts):
    """The names of the parts that ONLY picks, or of all."""
    every = " ".join(shares).split()
    if set(every) != set(parts):
        raise Failed(f"there are the parts {sorted(parts)}, and run are {sorted(every)}")
    return os.environ.get("ONLY", " ".join(every)).split()
