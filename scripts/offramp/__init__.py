"""offramp: run a multi-exit network once, then answer every early-exit question from tables.

Rooms, each of which may import those below it and none above:

commands       the command line
documentation  README and docs, from the record
studies        what is measured by name, not in every run
inference      a network run, timed and proved (torch)
training       weights from nothing (torch)
report         what people read and look at
workflow       what every rule script shares
thresholds     which policy
scoring        who would leave
networks       blocks and heads (torch)
tables         files on disk
data           samples
common         what knows nothing of exits
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"


class OfframpError(Exception):
    """Something a user can mend; its message says what is wrong and what to do about it."""


def __getattr__(name: str) -> Any:
    """`offramp.Cascade`, imported when asked for: most of the library has no need of torch."""
    if name == "Cascade":
        return import_module("offramp.inference.deployed").Cascade
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
