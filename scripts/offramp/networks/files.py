"""What a file given as weights is, without torch: told before any job, and once more when read."""

import zipfile
from pathlib import Path

from offramp.common.filetypes import kind_of

LARGEST_HEADER = 100_000_000  # safetensors' own limit
UNPACK = "unpack it and name the file inside"
SAVE_THERE = "save the network's state_dict() where it was made: torch.save(net.state_dict(), path)"
WAYS_OUT = {
    "empty": "copy or download it again",
    "nothing but zero bytes": "copy or download it again",
    "a Git LFS pointer": "fetch the file that it stands for: git lfs pull",
    "a web page": "download the file itself, not the page that offers it",
    "an HDF5 file": "that is how Keras saves; what is wanted comes from torch or is safetensors",
    "a NumPy array": "what is wanted holds all tensors by name: a torch state dict or safetensors",
}


def unusable(path: str | Path) -> str | None:
    """Why a file holds no weights that could be read here, by its content, and the way out; None
    when it may hold some."""
    try:
        header = safetensors_header(path)
        if header is not None:
            if 8 + header > Path(path).stat().st_size:
                return "is a safetensors file that is cut off; copy or download it again"
            return None
        kind = kind_of(path)
        if kind == "a zip archive":
            return _unusable_zip(path)
    except OSError as error:
        return f"can't be read ({error.strerror or error})"
    if kind is None:
        return None
    archive = kind.endswith(" archive")
    way_out = WAYS_OUT.get(kind, UNPACK if archive else "download or copy the file itself again")
    return f"is {kind}, no weights; {way_out}"


def safetensors_header(path: str | Path) -> int | None:
    """The length that a safetensors file gives its header; None when the file is none. Raises
    OSError when it can't be read."""
    with open(path, "rb") as file:
        head = file.read(9)
    length = int.from_bytes(head[:8], "little")
    return length if head[8:] == b"{" and length <= LARGEST_HEADER else None


def _unusable_zip(path: str | Path) -> str | None:
    """The same of a zip archive, which is what torch saves."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return "is cut off or damaged (a zip archive without its end); copy or download it again"
    # Those of torch lie in one folder, of any name.
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner:
        return f"is a TorchScript archive, which holds a program; {SAVE_THERE}"
    if "data.pkl" in inner:
        return None
    listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"is a zip archive that torch did not save (it holds {listed or 'nothing'}); {UNPACK}"
