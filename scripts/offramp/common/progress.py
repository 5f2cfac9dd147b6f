"""Progress of long work: a bar on a terminal, a line now and then in a log."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import IO, Any

from tqdm import tqdm

# A job's stderr goes to its log; job.py puts a handle on the user's own terminal here.
terminal: IO[str] | None = None


def bar(**options: Any) -> tqdm:
    """A tqdm bar on the terminal if there is one, else plain lines on stderr every ten seconds."""
    if terminal is not None:
        return tqdm(file=terminal, dynamic_ncols=True, **options)
    return tqdm(file=Lines(), mininterval=10, ncols=100, **options)


def progress(items: Iterable, what: str, unit: str) -> Iterator:
    """Iterate with a bar named ``what`` that counts in ``unit``."""
    with bar(iterable=items, desc=what, unit=unit) as shown:
        yield from shown


class Lines:
    """A file for tqdm that ends every state of a bar with a newline instead of rewriting it."""

    def write(self, text: str) -> None:
        """Print a state of the bar as a line."""
        line = text.strip("\r\n ")
        if line:
            print(line, file=sys.stderr)

    def flush(self) -> None:
        """Flush stderr."""
        sys.stderr.flush()


def open_terminal() -> IO[str] | None:
    """A handle on stderr as it is now, if it is a terminal."""
    if not sys.stderr.isatty():
        return None
    return os.fdopen(os.dup(sys.stderr.fileno()), "w")
