"""NumPy's files, as users bring them: never unpickled, and what is wrong with one in a line."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from offramp import OfframpError

# Of a zip file that is locked, or a header that lies: RuntimeError, MemoryError.
DAMAGED = (
    *(ValueError, OSError, EOFError, KeyError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)


def load(path: str | Path) -> Any:
    """What an `.npy` or `.npz` holds: an array, or an `NpzFile` to be closed."""
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise OfframpError(f"{path}: no such file") from None
    except DAMAGED as error:
        raise OfframpError(unreadable(path, error)) from None


def member(found: Any, path: str | Path, key: str) -> np.ndarray:
    """An array of an `NpzFile`."""
    try:
        return found[key]
    except DAMAGED as error:
        raise OfframpError(unreadable(f"{path}: {key}", error)) from None


def unreadable(place: str | Path, error: Exception) -> str:
    """What to say of a file, or a place in one, that NumPy can't read."""
    if "pickle" in str(error):
        return (
            f"{place}: pickled objects, which could run code and are never loaded; save arrays of "
            "plain numbers, all samples of one shape"
        )
    return f"{place}: not a readable file of arrays ({error}); save it again"
