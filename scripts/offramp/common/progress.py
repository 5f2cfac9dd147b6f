"""Progress of long work: a bar on a terminal, a line now and then in a log."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import IO, Any

from tqdm import tqdm

# The user's own terminal, where a job's stderr goes to its log.
_terminal: IO[str] | None = None


def bar(**options: Any) -> tqdm:
    """A tqdm bar on the terminal if there is one, else plain lines on stderr every five seconds."""
    if _terminal is not None:
        return tqdm(file=_terminal, dynamic_ncols=True, **options)
    return tqdm(file=Lines(), mininterval=5, ncols=100, **options)


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


def keep_terminal() -> None:
    """Show bars on stderr as it is now, if it is a terminal, wherever stderr goes from here on."""
    global _terminal
    _terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w") if sys.stderr.isatty() else None
