"""Tables: a round trip with their origin, one clear line for a wrong one, nothing half-written."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ORIGIN

from offramp import OfframpError
from offramp.scoring.criteria import entropy, scores_of
from offramp.scoring.scores import how_decided, read_logits_of, read_scores, scores_table
from offramp.tables.files import TableWriter, origin_of, read, read_logits, same_weights, write
from offramp.tables.schemas import NETWORK, TIMINGS, logits_schema, scores_schema


def timings(count: int = 5) -> pa.Table:
    row = {"split": "probe", "part": "block", "batch_size": 4}
    rows = [row | {"exit": k, "seconds": k / 8} for k in range(count)]
    return pa.Table.from_pylist(rows, schema=TIMINGS)


def logits_table(logits: np.ndarray, sample_id=None, label=None) -> pa.Table:
    """A logits table of float32 (N, K, C); by default sample i is 10 i and labelled 0."""
    samples, exits, classes = logits.shape
    sample_id = np.arange(samples) * 10 if sample_id is None else sample_id
    label = np.zeros(samples, dtype=np.int64) if label is None else label
    columns = [
        pa.FixedSizeListArray.from_arrays(logits[:, k].ravel(), classes) for k in range(exits)
    ]
    return pa.Table.from_arrays(
        [pa.array(sample_id), pa.array(label), *columns], schema=logits_schema(exits, classes)
    )


def some_logits(samples=6, exits=3, classes=4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(samples, exits, classes)).astype(np.float32)


def refusal(path, name="timings") -> str:
    """The one line with which a table is refused; it must begin with the path."""
    with pytest.raises(OfframpError) as caught:
        read(path, name)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def test_a_written_table_is_read_back_with_its_origin(tmp_path):
    path = tmp_path / "new" / "folder" / "timings.parquet"
    write(path, timings(), "timings", ORIGIN)
    table = read(path, "timings")
    assert table.to_pylist() == timings().to_pylist()
    assert origin_of(table) == {**ORIGIN, "schema": "timings", "schema_version": "1"}
    assert list(path.parent.iterdir()) == [path]


def test_a_table_written_in_pieces_is_the_whole_table(tmp_path):
    path = tmp_path / "t.parquet"
    with TableWriter(path, TIMINGS, "timings", ORIGIN) as writer:
        for start in (0, 2, 4):
            writer.append(timings().slice(start, 2))
    assert read(path, "timings").to_pylist() == timings().to_pylist()


def test_a_written_table_replaces_the_older_one(tmp_path):
    path = tmp_path / "t.parquet"
    write(path, timings(2), "timings", ORIGIN)
    write(path, timings(3), "timings", ORIGIN)
    assert len(read(path, "timings")) == 3


def test_another_tables_name_is_refused(tmp_path):
    write(tmp_path / "t.parquet", timings(), "sweep", ORIGIN)
    message = refusal(tmp_path / "t.parquet")
    assert "'timings'" in message
    assert "'sweep'" in message


@pytest.mark.parametrize("version", ["0", "2", "1.0", ""])
def test_another_version_is_refused(tmp_path, version):
    metadata = {**ORIGIN, "schema": "timings", "schema_version": version}
    pq.write_table(timings().replace_schema_metadata(metadata), tmp_path / "t.parquet")
    assert repr(version)[1:-1] in refusal(tmp_path / "t.parquet")


def test_a_parquet_file_of_another_maker_is_refused(tmp_path):
    pq.write_table(timings(), tmp_path / "t.parquet")
    refusal(tmp_path / "t.parquet")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = tmp_path / "t.parquet"
    write(path, timings(500), "timings", ORIGIN)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refusal(path)


def test_a_missing_file_and_no_parquet_at_all_are_refused(tmp_path):
    refusal(tmp_path / "absent.parquet")
    (tmp_path / "text.parquet").write_text("split,batch\n" * 20)
    refusal(tmp_path / "text.parquet")


class BodyError(Exception):
    """Raised by a writer's body in tests."""


@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_a_writer_whose_body_raises_leaves_nothing_behind(tmp_path, pieces):
    def interrupted():
        with TableWriter(tmp_path / "t.parquet", TIMINGS, "timings", ORIGIN) as writer:
            for _ in range(pieces):
                writer.append(timings())
            raise BodyError

    with pytest.raises(BodyError):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_writer_whose_body_raises_leaves_the_older_table_as_it_was(tmp_path):
    path = tmp_path / "t.parquet"
    write(path, timings(), "timings", ORIGIN)
    before = path.read_bytes()
    wrong = pa.table({"split": ["probe"]})
    with (
        pytest.raises(ValueError, match="field names"),
        TableWriter(path, TIMINGS, "timings", ORIGIN) as writer,
    ):
        writer.append(wrong)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_that_can_not_be_finished_leaves_nothing_behind(tmp_path, monkeypatch):
    # As on a full disk, where it is often the footer that no longer fits.
    def full_disk(writer):
        writer.is_open = False  # or it would be closed once more when it is collected
        raise OSError("No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "close", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "t.parquet", timings(), "timings", ORIGIN)
    assert list(tmp_path.iterdir()) == []


def test_logits_are_read_back_bit_for_bit(tmp_path):
    logits, path = some_logits(), tmp_path / "logits.parquet"
    ids, labels = np.array([5, 3, 9, 0, 7, 1]), np.array([0, 1, 2, 3, 0, 1])
    write(path, logits_table(logits, ids, labels), "logits", ORIGIN)
    found_ids, found_labels, found, table = read_logits(path)
    np.testing.assert_array_equal(found, logits)
    assert found.dtype == np.float32
    assert (found_ids.tolist(), found_labels.tolist()) == (ids.tolist(), labels.tolist())
    assert origin_of(table)["weights_sha256"] == ORIGIN["weights_sha256"]


def test_logits_written_in_many_pieces_and_of_more_than_nine_exits_keep_their_order(tmp_path):
    logits, path = some_logits(samples=7, exits=12), tmp_path / "logits.parquet"
    with TableWriter(path, logits_schema(12, 4), "logits", ORIGIN) as writer:
        for start in range(0, 7, 2):
            writer.append(logits_table(logits).slice(start, 2))
    np.testing.assert_array_equal(read_logits(path)[2], logits)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("row", "exit_"), [(0, 1), (4, 3), (5, 2)])
def test_a_logit_that_is_not_finite_is_refused_with_sample_and_exit(tmp_path, value, row, exit_):
    logits, path = some_logits(), tmp_path / "logits.parquet"
    logits[row, exit_ - 1, 2] = value
    write(path, logits_table(logits), "logits", ORIGIN)
    with pytest.raises(OfframpError) as caught:
        read_logits(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert f"sample {row * 10}, exit {exit_};" in str(caught.value)


def test_scores_are_entropies_and_correctness_of_the_logits(tmp_path):
    logits, path = some_logits(samples=20), tmp_path / "scores.parquet"
    labels = np.arange(20) % 4
    origin = ORIGIN | how_decided("entropy", None)
    write(
        path,
        scores_table(np.arange(20), labels, logits, scores_of("entropy", logits), "entropy"),
        "scores",
        origin,
    )
    values, correct, table = read_scores(path)
    assert (values.dtype, correct.dtype) == (np.float64, np.bool_)
    assert table.schema.names == scores_schema(3, "entropy").names
    for sample in range(20):
        for k in range(3):
            row = logits[sample, k]
            assert values[sample, k] == entropy(row.astype(np.float64))
            assert correct[sample, k] == (row.tolist().index(max(row.tolist())) == labels[sample])


def test_logits_of_scores_are_those_of_its_samples_and_no_others(tmp_path):
    logits, path, labels = some_logits(samples=20), tmp_path / "logits.parquet", np.arange(20) % 4
    write(path, logits_table(logits, np.arange(20), labels), "logits", ORIGIN)
    values = scores_of("entropy", logits)
    scores = scores_table(np.arange(7, 20), labels[7:], logits[7:], values[7:], "entropy")
    scores = scores.replace_schema_metadata(ORIGIN)
    found, label = read_logits_of(scores, path)
    np.testing.assert_array_equal(found, logits[7:])
    assert label.tolist() == labels[7:].tolist()
    other = scores_table(np.arange(7, 20), labels[7:], logits[:13], values[:13], "entropy")
    with pytest.raises(OfframpError, match="not the logits of the scores"):
        read_logits_of(other.replace_schema_metadata(ORIGIN), path)
    with pytest.raises(OfframpError, match="not the logits of the scores"):
        read_logits_of(scores.take(np.arange(13)[::-1]).replace_schema_metadata(ORIGIN), path)


def test_tables_of_the_same_weights_share_their_sum(tmp_path):
    first = timings().replace_schema_metadata(ORIGIN)
    second = pa.Table.from_pylist([], schema=NETWORK).replace_schema_metadata(ORIGIN)
    assert same_weights([first, second]) == ORIGIN["weights_sha256"]
    assert same_weights([first]) == ORIGIN["weights_sha256"]


def test_tables_of_different_weights_are_refused():
    first = timings().replace_schema_metadata(ORIGIN)
    second = timings().replace_schema_metadata({**ORIGIN, "weights_sha256": "b" * 64})
    with pytest.raises(OfframpError, match="different weights") as caught:
        same_weights([first, first, second])
    assert "a" * 64 in str(caught.value)
    assert "b" * 64 in str(caught.value)


def test_a_table_that_does_not_say_its_weights_goes_with_no_other():
    with pytest.raises(OfframpError, match="different weights"):
        same_weights([timings(), timings().replace_schema_metadata(ORIGIN)])
