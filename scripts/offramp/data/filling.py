"""A dataset's folder: all its files or none."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path


def fill(folder: Path, files: Sequence[str], make: Callable[[Path], None]) -> None:
    """Put ``files`` into ``folder``; ``make`` writes them, and what else it needs, into a folder
    that it is given, which goes in any case."""
    # Of one name, so that what a killed run left is cleared by the next; inside, since the folder
    # may lie on another disk than what is around it.
    scratch = folder / ".part"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        make(scratch)
        for file in files:
            (scratch / file).replace(folder / file)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with suppress(OSError):  # it holds the dataset, or is a link
            folder.rmdir()
