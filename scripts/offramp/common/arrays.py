"""NumPy's files, as users bring them: never unpickled, and what is wrong with one in a line."""

import zipfile
import zlib
from collections.abc import Sequence
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


def read_array(path: str | Path) -> np.ndarray:
    """The array of an `.npy`."""
    loaded = load(path)
    if not isinstance(loaded, np.ndarray):
        loaded.close()
        raise OfframpError(f"{path}: an .npz, where one array is wanted; name it alone")
    return loaded


def open_npz(path: str | Path, keys: Sequence[str], want: str) -> Any:
    """An `.npz`, to be closed, that holds arrays of these names; ``want`` says what they are."""
    npz = load(path)
    if isinstance(npz, np.ndarray):
        named = ", ".join(f"{key}=…" for key in keys)
        raise OfframpError(f"{path}: one array, no .npz; np.savez(…, {named}) makes one")
    missing = [key for key in keys if key not in npz.files]
    if missing:
        npz.close()
        raise OfframpError(
            f"{path}: no array {missing[0]}, only {', '.join(npz.files) or 'none'}; want {want}"
        )
    return npz


def member(npz: Any, path: str | Path, key: str) -> np.ndarray:
    """An array of an `NpzFile`."""
    try:
        return npz[key]
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
