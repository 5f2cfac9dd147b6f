"""What every rule script does around its work: its log, and errors as a user should meet them."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from offramp import OfframpError
from offramp.common.progress import keep_terminal


@contextmanager
def job_log(path: str) -> Iterator[None]:
    """Send stdout and stderr to the log; bars stay on the terminal.

    An OfframpError ends the job with its message alone, anything else with its traceback.
    """
    keep_terminal()
    sys.stdout.flush()
    sys.stderr.flush()
    with open(path, "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        yield
    except OfframpError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
