"""What every rule script does around its work: its log, and errors as a user should meet them."""

import errno
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from offramp import OfframpError
from offramp.common.files import FULL, REFUSED, unwritten
from offramp.common.progress import keep_terminal

NEXT_TO_NOTHING = 2**16  # bytes free on a disk that is full


@contextmanager
def job_log(path: str, lasting: Path | None = None) -> Iterator[None]:
    """Send stdout and stderr to the log; bars stay on the terminal.

    Snakemake deletes a log before a job runs again. Where several runs make one work, ``lasting``
    names a file that holds what all of them said; the log is then another name of it.

    An OfframpError, or a disk that is full or refuses to be written on, ends the job with its
    message alone, anything else with its traceback; on the terminal where the log can't hold it,
    since it lies on the same disk as a rule.
    """
    keep_terminal()
    sys.stdout.flush()
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        with open(lasting or path, "a" if lasting else "w") as log:
            if lasting:
                _name(log, lasting, path)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        yield
        sys.stdout.flush()
    except Exception as error:
        _tell(_reason(error, path), terminal)
        sys.exit(1)


def _name(log: IO[str], lasting: Path, path: str) -> None:
    """Give a lasting log its other name, and this run its heading."""
    Path(path).unlink(missing_ok=True)
    try:
        os.link(lasting, path)
    except OSError:  # file systems without hard links
        Path(path).symlink_to(os.path.relpath(lasting, Path(path).parent))
    print(time.strftime("-- %Y-%m-%d %H:%M:%S"), file=log, flush=True)


def _reason(error: Exception, path: str) -> str:
    if isinstance(error, OfframpError):
        return f"error: {error}"
    if isinstance(error, OSError) and error.errno in (*FULL, *REFUSED):
        return f"error: {unwritten(error.filename or path, error)}"
    if shutil.disk_usage(Path(path).parent).free < NEXT_TO_NOTHING:
        # Libraries that write by themselves have errors of their own for a full disk.
        full = OSError(errno.ENOSPC, f"{type(error).__name__}: {error}")
        return f"error: {unwritten(Path(path).parent / 'a file', full)} ({full.strerror})"
    return traceback.format_exc()


def _tell(text: str, terminal: int) -> None:
    """Print on stderr, which is the log, or if that can't be written on the terminal."""
    try:
        print(text.rstrip("\n"), file=sys.stderr, flush=True)
    except OSError:
        os.write(terminal, f"{text.rstrip()}\n".encode())
