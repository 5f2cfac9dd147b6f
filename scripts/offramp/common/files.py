"""Files that are there whole or not at all, and what is said when there is no room for them."""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from offramp import OfframpError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)

LEAST = 2**18  # bytes that Snakemake's own notes of a run may take


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A name beside ``path`` to write to; renamed to it when the body ends well, deleted when not.

    Raises OfframpError that names the file where the disk has no room for it or refuses it.
    """
    part = Path(f"{path}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb") as file:  # what is still on its way may meet a full disk, too
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        if error.errno in (*FULL, *REFUSED):
            raise OfframpError(unwritten(path, error)) from None
        raise
    finally:
        # Where nothing can be written nothing was, and the reason is on its way.
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a whole text file; raises as `replacing` does."""
    with replacing(path) as part:
        part.write_text(text)


def check_is_file(path: str | Path) -> None:
    """Raise OfframpError where there is no file to read: nothing, a folder, or what has no end."""
    try:
        is_file = Path(path).is_file()
    except OSError as error:
        raise OfframpError(f"{path}: can't be read: {error.strerror}") from None
    if not is_file:
        raise OfframpError(f"{path}: {'not a file' if os.path.lexists(path) else 'no such file'}")


def unwritten(path: str | Path, error: OSError) -> str:
    """Why a file could not be written, and the way out, in one line."""
    why = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in FULL:
        return (
            f"{path}: can't be written: {why} ({room(path)} free there); make room (or raise the "
            "limit) and run again: what is finished is kept"
        )
    return f"{path}: can't be written: {why}; make its folder writable and run again"


def check_room(folder: str | Path) -> None:
    """Raise OfframpError where a folder can't be worked in before anything began: its disk is full,
    or Snakemake can't keep its notes there."""
    if shutil.disk_usage(folder).free < LEAST:
        raise OfframpError(unwritten(Path(folder).resolve() / "", OSError(errno.ENOSPC, "")))
    notes = Path(folder, ".snakemake")
    if not os.access(notes if notes.exists() else folder, os.W_OK):
        raise OfframpError(
            f"{notes.resolve()}: can't be written, and without it Snakemake doesn't run; mend its "
            "permissions, or work in a folder of your own, with snakemake -s and this Snakefile"
        )


def check_wanted(files: Iterable[str | Path]) -> None:
    """Raise OfframpError where one of these files is missing and its folder can't be written."""
    for path in map(Path, files):
        folder = next(p for p in path.absolute().parents if p.exists())
        if not path.exists() and not os.access(folder, os.W_OK):
            raise OfframpError(
                f"{path}: has to be made, but {folder} can't be written; mend its permissions, or "
                "work in a folder of your own, with snakemake -s and this Snakefile"
            )


def room(path: str | Path) -> str:
    """How much room there is where ``path`` lies, or is to lie."""
    folder = next(p for p in Path(path).absolute().parents if p.is_dir())
    return f"{shutil.disk_usage(folder).free / 1e6:.1f} MB"
