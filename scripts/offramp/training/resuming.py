"""The state of a training between its epochs, and that no two trainings write the same one."""

import copy
import fcntl
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from offramp import OfframpError
from offramp.networks.multiexit import MultiExitNetwork
from offramp.training.optimisers import Optimisers
from offramp.training.purpose import changes


@contextmanager
def sole_trainer(resume: str | Path) -> Iterator[None]:
    """Be the only process that trains towards this resume file. The kernel ends that with the
    process, however it dies; so the file that is locked may stay.

    Raises OfframpError that names the process which does already.
    """
    path = Path(resume).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            process, _, host = (lock.read().strip() or "unknown").partition(" ")
            raise OfframpError(
                f"{resume}: process {process} on {host or 'this machine'} is training towards it, "
                f"perhaps left over by a run that was killed; wait for it, or end it with "
                f"kill {process} there, then rerun"
            ) from None
        except OSError as error:  # a file system without locks
            print(f"{path}: no lock can be had here ({error.strerror})", file=sys.stderr)
        lock.truncate(0)
        lock.write(f"{os.getpid()} {socket.gethostname()}\n")
        lock.flush()
        yield


def store(
    path: Path,
    about: Mapping[str, Any],
    network: MultiExitNetwork,
    optimisers: Optimisers,
    history: list[dict],
) -> None:
    """Write the state after a whole epoch; it is there whole or not at all."""
    state = {
        "purpose": about,
        "network": network.state_dict(),
        # The name that older versions gave them.
        "learners": optimisers.state_dict(),
        "history": history,
    }
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())  # else after a power cut the name may stand for nothing
    part.replace(path)


def restore(
    path: Path, about: Mapping[str, Any], network: MultiExitNetwork, optimisers: Optimisers
) -> list[dict]:
    """The history so far, network and optimisers set to where it ends; none when it is to begin.

    A file that is damaged or of something else is put aside, and they stay as they are. Raises
    OfframpError when it can't be read at all.
    """
    if not path.exists():
        return []
    state = _read_state(path)
    reason = state if isinstance(state, str) else _go_to(state, about, network, optimisers)
    if reason is None:
        print(f"going on after epoch {len(state['history'])}, from {path}", file=sys.stderr)
        return state["history"]
    places = (path.with_name(f"{path.stem}.{n}.pt") for n in range(1, 1000))
    aside = next(place for place in places if not place.exists())
    path.replace(aside)
    print(f"{path} {reason}; put aside as {aside.name}, training starts anew", file=sys.stderr)
    return []


def _read_state(path: Path) -> Any:
    """What `store` wrote; words that say what else it is."""
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise OfframpError(
            f"{path}: can't be read ({error.strerror or error}); mend that, or delete it to train "
            "from the start"
        ) from None
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    # Damaged bytes make the weights-only unpickler raise nearly anything.
    except Exception as error:
        sentence = (str(error).strip() or repr(error)).splitlines()[0].split(". ")[0]
        return f"is damaged ({'empty' if empty else sentence})"
    keys = {"purpose", "network", "learners", "history"}
    if not isinstance(state, dict) or not keys <= state.keys():
        return "is no state of a training"
    return state


def _go_to(
    state: Mapping[str, Any],
    about: Mapping[str, Any],
    network: MultiExitNetwork,
    optimisers: Optimisers,
) -> str | None:
    """Set network and optimisers to a stored state, or say why not and leave them alone."""
    before = copy.deepcopy((network.state_dict(), optimisers.state_dict()))
    try:
        changed = changes(state["purpose"], about)
        if changed:
            return "is of another training (" + "; ".join(changed) + ")"
        network.load_state_dict(state["network"])
        optimisers.load_state_dict(state["learners"])
        return None
    # What lies within a foreign file's parts may be anything.
    except Exception as error:
        network.load_state_dict(before[0])
        optimisers.load_state_dict(before[1])
        return f"is damaged ({type(error).__name__}: {str(error).splitlines()[0][:100]})"
