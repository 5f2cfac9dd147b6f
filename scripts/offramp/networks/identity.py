"""Which network something belongs to; without torch, since policies say it, too."""

from typing import NamedTuple


class Identity(NamedTuple):
    """A network's ``name``, its ``weights`` file as it was named, and the sha256 of that, which
    alone counts: a file may be moved."""

    name: str
    weights: str
    weights_sha256: str
