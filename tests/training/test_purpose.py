"""What makes a training another one, and what does not."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from offramp.networks.loading import NETWORKS
from offramp.tables.files import write
from offramp.tables.schemas import TRAINING
from offramp.training.purpose import (
    NETWORK_FILES,
    PURPOSE,
    _statements_digest,
    changes,
    keep_trained,
    mismatches_of,
    purpose,
    purpose_of,
    put_back,
)

SETTINGS = {"epochs": 3, "seed": 7, "learning_rate": {"convolutions": 0.05, "others": 0.004}}
CONFIG = {
    "model": {"name": "branchynet"},
    "dataset": {"name": "digits", "validation": None},
    "train": SETTINGS,
}


def now() -> dict:
    return purpose("branchynet", "digits", None, SETTINGS)


def trained(path: Path, **noted: str) -> Path:
    write(path, TRAINING.empty_table(), "training", noted)
    return path


def test_every_network_s_code_is_looked_for_where_it_stands():
    where = {
        name: kind.__module__.removeprefix("offramp.networks.") for name, kind in NETWORKS.items()
    }
    assert {name: f"{module}.py" for name, module in where.items()} == NETWORK_FILES


def test_another_model_recipe_split_or_dataset_is_named(tmp_path):
    curves = trained(tmp_path / "training.parquet", **{PURPOSE: json.dumps(now())})
    assert mismatches_of(curves, CONFIG) == []
    other = {**CONFIG, "train": {**SETTINGS, "epochs": 5}}
    assert mismatches_of(curves, other) == ["train.epochs: 3 then, 5 now"]
    fewer = {**CONFIG, "dataset": {"name": "digits", "validation": 100}}
    assert mismatches_of(curves, fewer) == ["training samples: 1258 then, 1338 now"]
    (model, code) = mismatches_of(curves, {**CONFIG, "model": {"name": "cpunet"}})
    assert model == 'model.name: "branchynet" then, "cpunet" now'
    assert code.startswith("the network's code: ")
    assert "dataset.name" in " ".join(
        mismatches_of(curves, {**CONFIG, "dataset": {"name": "cifar10", "validation": None}})
    )


def test_comments_docstrings_and_layout_are_no_other_network(tmp_path):
    one, two, other = (tmp_path / f"{name}.py" for name in ("one", "two", "other"))
    one.write_text('"""Old."""\n\n\nclass A:\n    """Doc."""\n\n    width = 3  # wide\n')
    moved = "from offramp.networks.multiexit import B"  # and where the library's modules lie
    two.write_text(f'"""New."""\n{moved}\nclass A:\n    # Wider once.\n    width   =   3\n')
    other.write_text("class A:\n    width = 4\n")
    first, second, third = map(_statements_digest, (one, two, other))
    assert first == second != third


def test_what_an_older_table_did_not_note_is_passed_over(tmp_path):
    about = {"model": "branchynet", "dataset": "digits", "recipe": json.dumps(SETTINGS)}
    curves = trained(tmp_path / "training.parquet", **about)
    assert mismatches_of(curves, CONFIG) == []
    assert purpose_of(curves).keys() <= now().keys()
    assert changes({"train.seed": 8}, now()) == ["train.seed: 8 then, 7 now"]


@pytest.mark.parametrize("damage", [b"", b"PAR1 but no more"])
def test_a_table_that_cannot_be_read_does_not_pass_for_another_training(tmp_path, damage):
    curves = tmp_path / "training.parquet"
    curves.write_bytes(damage)
    (line,) = mismatches_of(curves, CONFIG)
    assert "can't be read" in line and "not known" in line


def test_a_table_says_what_was_trained_for_as_long_as_it_exists(tmp_path):
    table = pa.Table.from_pylist([], schema=TRAINING)
    write(tmp_path / "t.parquet", table, "training", {PURPOSE: json.dumps(now())})
    assert purpose_of(tmp_path / "t.parquet") == now()


def test_what_was_kept_is_put_back_for_the_same_purpose_alone(tmp_path):
    weights = tmp_path / "model/weights.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"learned")
    curves = trained(tmp_path / "training.parquet", **{PURPOSE: json.dumps(now())})
    table = curves.read_bytes()
    assert not put_back(weights, curves, now())
    keep_trained(weights, curves)
    weights.unlink()
    curves.unlink()
    assert not put_back(weights, curves, {**now(), "train.epochs": 9})
    assert not weights.exists() and not curves.exists()
    assert put_back(weights, curves, now())
    assert weights.read_bytes() == b"learned" and curves.read_bytes() == table
    # A newer training takes the place of the one kept.
    weights.unlink()
    weights.write_bytes(b"learned more")
    keep_trained(weights, curves)
    weights.unlink()
    assert put_back(weights, curves, now()) and weights.read_bytes() == b"learned more"
