"""Getting a dataset: addresses and local files tried in turn, checked, never half-written."""

import os
import queue
import shutil
import tarfile
import threading
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import requests
import urllib3
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10

from offramp import OfframpError
from offramp.common.progress import bar
from offramp.data.datasets import pool_files

ARCHIVE = "cifar-10-python.tar.gz"
FOLDER = CIFAR10.base_folder
# An address that does not answer is given up after this many seconds and tried again once; three
# addresses that are all out of reach so take less than half a minute.
REACH_SECONDS = 4
TRIES = 2
STALL_SECONDS = 30
CHUNK = 1 << 18


def get_dataset(name: str, sources: Sequence[str], folder: str | Path) -> None:
    """Fill ``folder`` with the dataset's arrays (see datasets.py), all of them or none.

    Raises OfframpError, with what was tried and the ways out, when no source serves.
    """
    folder = Path(folder)
    # Of one name, so that what a killed run left is cleared by the next; inside, since the folder
    # may lie on another disk than what is around it.
    scratch = folder / ".part"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        arrays = digits_arrays() if name == "digits" else cifar10_arrays(sources, scratch)
        for file in pool_files(name):
            np.save(scratch / file, arrays[file.removesuffix(".npy")])
        for file in pool_files(name):
            (scratch / file).replace(folder / file)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with suppress(OSError):  # it holds the dataset, or is a link
            folder.rmdir()


def digits_arrays() -> dict[str, np.ndarray]:
    """scikit-learn's digits: 8x8 in 0..16 raised to 32x32x3 in 0..255, each pixel a 4x4 square."""
    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    large = grey.repeat(4, axis=1).repeat(4, axis=2)
    return {
        "all_images": np.repeat(large[..., None], 3, axis=3),
        "all_labels": digits.target.astype(np.int64),
    }


def cifar10_arrays(sources: Sequence[str], scratch: Path) -> dict[str, np.ndarray]:
    """CIFAR-10 from the first source whose files have the official md5 sums.

    ``OFFRAMP_DATA``, a folder (or the archive itself), comes before all sources.
    """
    local = os.environ.get("OFFRAMP_DATA")
    failures = []
    for source in ([local] if local else []) + list(sources):
        try:
            return _cifar10_from(source, scratch)
        except (OSError, OfframpError, tarfile.TarError, EOFError, zlib.error) as error:
            failures.append(f"  {source}: {_reason(error)}")
            shutil.rmtree(scratch / FOLDER, ignore_errors=True)
    tried = "\n".join(failures) or "  (dataset.sources is empty)"
    raise OfframpError(
        f"CIFAR-10 could not be had. Tried:\n{tried}\n"
        "Three ways out:\n"
        f"  1. name a local {ARCHIVE}, or a folder that holds it, in config.yaml: dataset.sources\n"
        f"  2. set the environment variable OFFRAMP_DATA to the folder that holds {ARCHIVE}\n"
        "  3. run `make demo`, which needs no download"
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _cifar10_from(source: str, scratch: Path) -> dict[str, np.ndarray]:
    if "://" in source:
        archive = scratch / ARCHIVE
        fetch(source, archive)
        extract(archive, scratch)
        archive.unlink()
    else:
        _take_local(Path(source).expanduser(), scratch)
    try:
        # torchvision checks the md5 sums of all files before it reads any.
        train, test = (CIFAR10(scratch, train=train) for train in (True, False))
    except (RuntimeError, OSError) as error:
        raise OfframpError(
            "its files do not have the official md5 sums: damaged, or another dataset"
        ) from error
    return {
        f"{pool}_{what}": array
        for pool, data in (("train", train), ("test", test))
        for what, array in (
            ("images", data.data),
            ("labels", np.array(data.targets, dtype=np.int64)),
        )
    }


def _take_local(path: Path, scratch: Path) -> None:
    if not path.exists():
        raise OfframpError("no such file or folder")
    if path.is_file():
        extract(path, scratch)
    elif (path / ARCHIVE).is_file():
        extract(path / ARCHIVE, scratch)
    elif (path / FOLDER).is_dir():
        shutil.copytree(path / FOLDER, scratch / FOLDER)
    else:
        raise OfframpError(f"holds neither {ARCHIVE} nor {FOLDER}/")


def extract(archive: Path, scratch: Path) -> None:
    """Extract the dataset's own files, and only those, by name: no path, link or device that an
    archive may hold is followed."""
    target = scratch / FOLDER
    target.mkdir()
    lists = CIFAR10.train_list + CIFAR10.test_list
    names = [name for name, _ in lists] + [CIFAR10.meta["filename"]]
    size = archive.stat().st_size
    # The outer bar counts compressed bytes, since the unpacked size is not known beforehand.
    with (
        bar(desc="extract", total=size, unit="B", unit_scale=True) as shown,
        open(archive, "rb") as raw,
        tarfile.open(fileobj=raw, mode="r:gz") as tar,
    ):
        for member in tar:
            name = member.name.removeprefix(f"{FOLDER}/")
            source = tar.extractfile(member) if name in names and member.isfile() else None
            if source is not None:
                with open(target / name, "wb") as out:
                    shutil.copyfileobj(source, out)
            shown.update(raw.tell() - shown.n)


def fetch(address: str, path: Path) -> None:
    """Download an address to ``path`` with a progress bar, in at most TRIES tries.

    Raises OfframpError with the last try's reason; nothing is left at ``path`` then.
    """
    for attempt in range(TRIES):
        try:
            with reach(address) as response:
                response.raise_for_status()
                _save(response, path)
            return
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            path.unlink(missing_ok=True)
            reason = _reason(error)
            time.sleep(0.5 * (attempt + 1 < TRIES))
    raise OfframpError(f"{reason} (tried {TRIES} times)")


def reach(address: str) -> requests.Response:
    """The response to a GET, its body not yet read.

    Looking up a name has no time limit of its own, so the request runs in a thread of its own.
    Raises TimeoutError after REACH_SECONDS without an answer.
    """
    answers: queue.Queue = queue.Queue()

    def ask() -> None:
        try:
            timeout = (REACH_SECONDS, STALL_SECONDS)
            headers = {"Accept-Encoding": "identity"}
            answers.put(requests.get(address, stream=True, timeout=timeout, headers=headers))
        except Exception as error:  # handed on to the caller's thread, whatever it is
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=REACH_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {REACH_SECONDS} seconds") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _save(response: requests.Response, path: Path) -> None:
    total = int(response.headers.get("Content-Length", 0)) or None
    with (
        open(path, "wb") as out,
        bar(desc="download", total=total, unit="B", unit_scale=True) as shown,
    ):
        # Undecoded: a server may call the archive's own gzip an encoding, to be undone on arrival.
        for chunk in response.raw.stream(CHUNK, decode_content=False):
            out.write(chunk)
            shown.update(len(chunk))
