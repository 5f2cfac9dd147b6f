"""The network that a policy was chosen for, and its weights file: found by its sha256."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from offramp import OfframpError
from offramp.common.hashing import sha256
from offramp.networks.index import INDEX, read_index

SUFFIXES = {".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".h5"}
# How far above the policy a clone's or a results folder's own weights lie.
LEVELS = 6


class ChosenFor(NamedTuple):
    """What a policy file says of its network: the ``model``'s name, the ``dataset`` it was chosen
    on, the ``sha256`` of the weights, and the ``file`` that these were read from, if known; and
    ``known``, all of the dataset (see `offramp.data.datasets.dataset_of`), where its name alone
    does not say it; ``options`` are those of a factory."""

    model: str
    dataset: str
    sha256: str
    file: str | None
    known: str | None = None
    options: dict[str, Any] | None = None


def chosen_for(path: str | Path, about: dict[str, Any]) -> ChosenFor:
    """The network of a policy file, from ``about``, all that it says.

    Raises OfframpError when it does not say so.
    """
    origin, network = about.get("provenance") or {}, about.get("network") or {}
    recorded: dict[str, Any] = {
        "model": network.get("name", origin.get("model")),
        "dataset": origin.get("dataset"),
        "sha256": network.get("weights_sha256", origin.get("weights_sha256")),
    }
    missing = [name for name, value in recorded.items() if not isinstance(value, str)]
    if missing:
        raise OfframpError(
            f"{path}: provenance: does not say the {missing[0]} that the policy was chosen for; "
            "take a policy that a run wrote"
        )
    file, options = network.get("weights"), network.get("options")
    return ChosenFor(**recorded, file=file, known=origin.get("known"), options=options)


def find_weights(policy: str | Path, chosen: ChosenFor, given: str | Path | None) -> Path:
    """The weights file that a policy was chosen for: the one ``given``, if it is that, or the
    first that is, of those beside the policy, in its results folder and in the clone.

    Raises OfframpError when the given file is another, or none is found.
    """
    if given is not None:
        return _given_file(policy, chosen, Path(given))
    for file in _candidates(Path(policy), chosen.file):
        if sha256(file) == chosen.sha256:
            return file
    raise OfframpError(
        f"{policy}: chosen for {_known_as(chosen.model, chosen.sha256)}; no such weights lie "
        "beside it, in model/ of its results folder or in weights/: name the file"
    )


def _given_file(policy: str | Path, chosen: ChosenFor, given: Path) -> Path:
    if not given.is_file():
        raise OfframpError(f"{given}: no such file")
    digest = sha256(given)
    if digest != chosen.sha256:
        entries = read_index(given.parent / INDEX).values()
        model = next((entry["model"] for entry in entries if entry["sha256"] == digest), None)
        raise OfframpError(
            f"{policy}: chosen for {_known_as(chosen.model, chosen.sha256)}, not for {given} "
            f"({_known_as(model, digest)}); name the weights it was chosen for, or another policy"
        )
    return given


def _known_as(model: str | None, digest: str) -> str:
    return f"{model or 'an unknown network'} with weights of sha256 {digest[:12]}"


def _candidates(policy: Path, file: str | None) -> Iterator[Path]:
    """Files that may be the weights, the likeliest first."""
    above = list(policy.absolute().parents)[:LEVELS]
    if file:
        yield from (p for p in [Path(file), *(folder / file for folder in above)] if p.is_file())
    folders = [above[0]]
    for folder in (*above[1:], Path.cwd()):
        folders += [folder / "model", folder / "model/trained", folder / "weights"]
    for folder in folders:
        if folder.is_dir():
            files = sorted(folder.iterdir())
            yield from (f for f in files if f.suffix in SUFFIXES and f.is_file())


def read_about(path: str | Path) -> dict[str, Any]:
    """All that a policy file says, one that `load_policy` has read before."""
    return json.loads(Path(path).read_text())
