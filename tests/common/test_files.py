"""Files are there whole or not at all; a disk that is full or refuses is named in one line."""

import errno
import os
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import ORIGIN, documented

from offramp import OfframpError
from offramp.common import files
from offramp.common.files import check_room, check_wanted, replacing, write_text
from offramp.scoring.policy import Policy, save_policy
from offramp.tables.files import TableWriter, write
from offramp.tables.schemas import OPTIMISM


def table(rows: int) -> pa.Table:
    numbers = [float(i) ** 0.5 for i in range(rows)]
    return pa.table({"target": numbers, "optimism": numbers}, schema=OPTIMISM)


def write_in_pieces(path):
    with TableWriter(path, OPTIMISM, "optimism", ORIGIN) as writer:
        for _ in range(50):
            writer.append(table(20_000))


WRITERS = {
    "a table": lambda path: write(path, table(3), "optimism", ORIGIN),
    "a large table": lambda path: write(path, table(200_000), "optimism", ORIGIN),
    "a table in pieces": write_in_pieces,
    "a policy": lambda path: save_policy(path, Policy("entropy", (0.5,))),
    "a page": lambda path: write_text(path, "# Summary\n" * 10_000),
    "a short page": lambda path: write_text(path, "# Summary\n"),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("older", [False, True])
def test_a_full_disk_is_named_with_file_and_room_and_leaves_nothing(tmp_path, writer, older):
    path = tmp_path / "file"
    if older:
        path.write_text("older")
    (tmp_path / "file.part").symlink_to("/dev/full")  # where every write finds the disk full
    with pytest.raises(OfframpError) as caught:
        WRITERS[writer](path)
    message = str(caught.value)
    assert message.startswith(f"{path}: can't be written: No space left on device (")
    assert "MB free there)" in message and "run again" in message and "\n" not in message
    assert documented(message)
    assert [p.read_text() for p in tmp_path.iterdir()] == (["older"] if older else [])


@pytest.mark.parametrize("writer", WRITERS)
def test_with_room_again_the_same_call_completes(tmp_path, writer):
    (tmp_path / "file.part").symlink_to("/dev/full")
    with pytest.raises(OfframpError):
        WRITERS[writer](tmp_path / "file")
    WRITERS[writer](tmp_path / "file")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES])
def test_a_quota_a_limit_and_a_read_only_folder_are_named(tmp_path, number):
    with pytest.raises(OfframpError) as caught, replacing(tmp_path / "file"):
        raise OSError(number, os.strerror(number))
    assert os.strerror(number) in str(caught.value)
    assert "run again" in str(caught.value)


def test_an_error_that_is_not_of_the_disk_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file") as part:
        part.write_text("begun")
        (tmp_path / "absent").read_text()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_from_the_start_is_named(tmp_path, monkeypatch):
    check_room(tmp_path)
    monkeypatch.setattr(files, "LEAST", 2**80)
    with pytest.raises(OfframpError, match="No space left on device"):
        check_room(tmp_path)


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_of_somebody_else_is_named(tmp_path, monkeypatch, there):
    asked = tmp_path / ".snakemake" if there else tmp_path
    if there:
        asked.mkdir()
    check_room(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != asked)
    with pytest.raises(OfframpError, match="work in a folder of your own") as caught:
        check_room(tmp_path)
    assert documented(str(caught.value))


def test_a_file_that_can_not_be_made_is_named_and_one_that_is_there_is_not(tmp_path, monkeypatch):
    wanted = [tmp_path / "data/cifar10/train.npy", tmp_path / "data/there.npy"]
    (tmp_path / "data").mkdir()
    wanted[1].touch()
    check_wanted(wanted)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "data")
    check_wanted(wanted[1:])
    with pytest.raises(OfframpError, match="has to be made, but") as caught:
        check_wanted(wanted)
    assert str(caught.value).startswith(str(wanted[0]))
    assert documented(str(caught.value))
