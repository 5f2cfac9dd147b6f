"""Which network something belongs to; without torch, since policies say it, too."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Identity(NamedTuple):
    """A network's ``name`` or factory, its ``weights`` file as it was named, and the sha256 of
    that, which alone counts: a file may be moved. Where a factory loads its own, ``weights`` is
    none, and the sha256 is that of the tensors. ``options`` are those that a factory was called
    with."""

    name: str
    weights: str
    weights_sha256: str
    options: Mapping[str, Any] | None = None
