"""Datasets of the user's own, brought into `data/`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from offramp.data.arrays import own_arrays
from offramp.data.datasets import dataset_of, pool_files
from offramp.data.filling import fill
from offramp.data.pictures import write_pictures
from offramp.data.splits import check_splits


def take_own(data: Mapping[str, Any], known: str, folder: str | Path) -> None:
    """Fill ``folder`` with the arrays of a config's ``dataset``, which is ``known`` by this text.

    Raises OfframpError that names file and place of what is wrong, or the class that has no sample
    in a split.
    """
    dataset = dataset_of(known)

    def make(scratch: Path) -> None:
        if data["name"] == "folder":
            write_pictures(data, dataset, scratch)
        else:
            for name, values in own_arrays(data, dataset).items():
                np.save(scratch / f"{name}.npy", values)
        check_splits(scratch, known, data["validation"])

    fill(Path(folder), pool_files(known), make)
