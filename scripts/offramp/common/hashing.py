"""What a file is, by its bytes."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from offramp import OfframpError

# Snakemake's own folder, where there is one: every job reads the config again, and with it the sums
# of a user's data.
MEMORY = Path(".snakemake/offramp_sums.json")
# A file changed so shortly before may change again without a change of its time.
SETTLED_NS = 2 * 10**9


def sha256(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sums_of(paths: Sequence[str | Path]) -> list[str]:
    """`sha256` of each file, remembered for as long as its size and time stay the same.

    Raises OfframpError for a file that can't be read.
    """
    memory: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        memory = dict(json.loads(MEMORY.read_text()))
    sums, changed = [], False
    for path in paths:
        try:
            stat = Path(path).stat()
            key, state = str(Path(path).absolute()), [stat.st_size, stat.st_mtime_ns]
            *state_then, digest = memory.get(key, [None])
            if state_then != state:
                digest = sha256(path)
                if time.time_ns() - stat.st_mtime_ns > SETTLED_NS:
                    memory[key], changed = [*state, digest], True
        except OSError as error:
            raise OfframpError(f"{path}: can't be read ({error.strerror})") from None
        sums.append(digest)
    if changed and MEMORY.parent.is_dir():
        part = MEMORY.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            part.write_text(json.dumps(memory))
            part.replace(MEMORY)
    return sums
