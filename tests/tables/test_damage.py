"""Tables that something happened to: a flipped bit, a change by hand. Each is refused in one line
that names the file, or reads as it was written; never as other numbers."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ORIGIN, documented, probe_table
from hypothesis import example, given, settings
from hypothesis import strategies as st

from offramp import OfframpError
from offramp.scoring.criteria import scores_of
from offramp.scoring.scores import how_decided, read_scores, scores_table
from offramp.tables.files import TableWriter, origin_of, read, read_logits, write
from offramp.tables.schemas import BASELINE, SCHEMAS, SWEEP, logits_schema

SAMPLES, EXITS, CLASSES = 24, 3, 4
draw = np.random.default_rng(7)
LOGITS = draw.normal(size=(SAMPLES, EXITS, CLASSES)).astype(np.float32)
IDS, LABELS = draw.permutation(100)[:SAMPLES], draw.integers(0, CLASSES, SAMPLES)
TABLES = {
    "logits": pa.Table.from_arrays(
        [
            pa.array(IDS),
            pa.array(LABELS),
            *(
                pa.FixedSizeListArray.from_arrays(LOGITS[:, k].ravel(), CLASSES)
                for k in range(EXITS)
            ),
        ],
        schema=logits_schema(EXITS, CLASSES),
    ),
    "scores": scores_table(IDS, LABELS, LOGITS, scores_of("entropy", LOGITS), "entropy"),
    "timings": probe_table(2, sizes=(1, 2)),
}
READERS = {"logits": read_logits, "scores": read_scores, "timings": lambda p: read(p, "timings")}
ABOUT = {"logits": ORIGIN, "scores": ORIGIN | how_decided("entropy", (1.5, 2.0, 1.0))}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A good file of each table, by name."""
    folder = tmp_path_factory.mktemp("good")
    for name, table in TABLES.items():
        write(folder / f"{name}.parquet", table, name, ABOUT.get(name, ORIGIN))
    return {name: folder / f"{name}.parquet" for name in TABLES}


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """Where the changed file lies."""
    return tmp_path_factory.mktemp("changed") / "table.parquet"


def found_in(name, path):
    """What a reader gives, as plain numbers, and the origin; None if it refuses the file, in one
    line that names it and the way out."""
    try:
        found = READERS[name](path)
    except OfframpError as error:
        assert str(error).startswith(f"{path}: ")
        assert "\n" not in str(error)
        assert "rerun" in str(error)
        return None
    table = found if isinstance(found, pa.Table) else found.table
    return table.to_pydict(), origin_of(table)


def pages(path):
    """Where the file's pages end and its footer begins."""
    return path.stat().st_size - 8 - int.from_bytes(path.read_bytes()[-8:-4], "little")


@given(name=st.sampled_from(sorted(TABLES)), place=st.floats(0, 1), bit=st.integers(0, 7))
@settings(max_examples=600)
def test_a_flipped_bit_is_refused_or_changes_nothing(written, changed, name, place, bit):
    content = bytearray(written[name].read_bytes())
    content[int(place * (len(content) - 1))] ^= 1 << bit
    changed.write_bytes(content)
    found, good = found_in(name, changed), found_in(name, written[name])
    if found is not None:
        assert found[0] == good[0]
        # What is looked at when tables are put together may differ; all that decides may not.
        assert {**good[1], "weights_sha256": ""}.items() <= {
            **found[1],
            "weights_sha256": "",
        }.items()


def test_a_flipped_byte_of_a_page_is_refused_wherever_it_lies(written, changed):
    whole = written["logits"].read_bytes()
    seen = set()
    for place in range(4, pages(written["logits"]), 7):
        content = bytearray(whole)
        content[place] ^= 0xFF
        changed.write_bytes(content)
        found = found_in("logits", changed)
        seen.add(found is None)
        assert found is None or found[0] == TABLES["logits"].to_pydict()
    assert True in seen
    with pytest.raises(OfframpError) as caught:
        content = bytearray(whole)
        content[pages(written["logits"]) // 2] ^= 0xFF
        changed.write_bytes(content)
        read_logits(changed)
    assert documented(str(caught.value))


def other_type(table, column):
    nested = pa.types.is_nested(table[column].type)
    values = table[column].cast(pa.list_(pa.float64()) if nested else pa.string())
    return table.set_column(table.column_names.index(column), column, values)


def with_value(table, column, row, value):
    values = table[column].to_pylist()
    values[row] = value
    kind = table.schema.field(column).type
    return table.set_column(table.column_names.index(column), column, pa.array(values, kind))


@st.composite
def changes(draw, name):
    """A change by hand to a table of this name, which makes it wrong."""
    table = TABLES[name]
    column, row = draw(st.sampled_from(table.column_names)), draw(st.integers(0, len(table) - 1))
    some = draw(st.lists(st.integers(0, len(table) - 1), max_size=len(table) + 3))
    kinds = {
        "other rows": lambda: table.take(pa.array(some, pa.int64())),
        "doubled rows": lambda: pa.concat_tables([table, table.slice(row)]),
        "a dropped column": lambda: table.drop_columns([column]),
        "a renamed column": lambda: table.rename_columns(
            [f"{c}x" if c == column else c for c in table.column_names]
        ),
        "one column more": lambda: table.append_column("more", table[column]),
        "another order of columns": lambda: table.select(table.column_names[::-1]),
        "another type": lambda: other_type(table, column),
    }
    if not table.schema.field(column).nullable:
        kinds["a null"] = lambda: with_value(table, column, row, None)
    if name == "logits":
        wrong = draw(st.sampled_from([-1, CLASSES, 99, 2**40]))
        kinds["a label"] = lambda: with_value(table, "label", row, wrong)
        kinds["a sample twice"] = lambda: with_value(table, "sample_id", row, int(IDS[row - 1]))
        bad = [0.0] * (CLASSES - 1) + [draw(st.sampled_from([np.nan, np.inf, None]))]
        kinds["a logit"] = lambda: with_value(table, "exit_2", row, bad)
    if pa.types.is_floating(table.schema.field(column).type):
        wrong = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
        kinds["not finite"] = lambda: with_value(table, column, row, wrong)
    return kinds[draw(st.sampled_from(sorted(kinds)))]()


def by_hand(path, like, table):
    """As someone else's program writes a changed table, with the metadata that it had."""
    metadata = pq.read_schema(like).metadata
    fields = [pa.field(f.name, f.type) for f in table.schema]
    pq.write_table(table.cast(pa.schema(fields, metadata=metadata)), path)


@given(st.sampled_from(sorted(TABLES)).flatmap(lambda n: st.tuples(st.just(n), changes(n))))
@settings(max_examples=600)
@example(("logits", TABLES["logits"].slice(0, 0)))
@example(("logits", TABLES["logits"].take(np.arange(SAMPLES)[::-1])))
@example(("logits", TABLES["logits"].drop_columns(["exit_3"])))
@example(("scores", TABLES["scores"].drop_columns(["entropy_3", "correct_3"])))
def test_a_table_changed_by_hand_is_refused_in_one_line(written, changed, case):
    name, table = case
    by_hand(changed, written[name], table)
    found = found_in(name, changed)
    # By chance the same rows again, or two equal ones of the timings swapped, is no change.
    assert found is None or found[0] == TABLES[name].to_pydict()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: pa.concat_tables([t, t.slice(0, 2)]), "26 rows, where 24 were written"),
        (lambda t: t.slice(1), "23 rows, where 24 were written"),
        (lambda t: with_value(t, "sample_id", 1, int(IDS[0])), f"sample_id {IDS[0]} is there 2"),
        (lambda t: t.take(np.arange(SAMPLES)[::-1]), "not in their order"),
        (lambda t: with_value(t, "label", 3, 99), "label 99 is none of 0 to 3"),
        (lambda t: with_value(t, "label", 3, None), "column label has 1 nulls"),
        (lambda t: with_value(t, "exit_1", 3, None), "column exit_1 has 1 nulls"),
        (lambda t: t.drop_columns(["exit_3"]), "column exit_3 is missing"),
        (lambda t: other_type(t, "label"), "column label holds string, where int64 is wanted"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_in_its_own_words(written, changed, change, words):
    by_hand(changed, written["logits"], change(TABLES["logits"]))
    with pytest.raises(OfframpError) as caught:
        read_logits(changed)
    assert words in str(caught.value)
    assert str(caught.value).endswith("; delete it and rerun")
    assert documented(str(caught.value))


def test_a_wrong_table_that_its_own_writer_wrote_is_refused_too(tmp_path):
    """A note of what was written says nothing of whether that was right."""
    for change, words in (
        (lambda t: pa.concat_tables([t, t]), "is there 2 times"),
        (lambda t: with_value(t, "label", 0, CLASSES), "label 4"),
        (lambda t: t.slice(0, 0), "no rows"),
    ):
        write(tmp_path / "t.parquet", change(TABLES["logits"]), "logits", ORIGIN)
        with pytest.raises(OfframpError, match=words):
            read_logits(tmp_path / "t.parquet")


def test_a_table_of_a_split_is_not_taken_for_one_of_another(tmp_path):
    write(tmp_path / "test.parquet", TABLES["logits"], "logits", ORIGIN | {"split": "val"})
    with pytest.raises(OfframpError) as caught:
        read_logits(tmp_path / "test.parquet")
    assert "a table of val, not of test" in str(caught.value)
    assert documented(str(caught.value))


@pytest.mark.parametrize("key", ["temperatures", "criterion", "split"])
def test_changed_metadata_that_decides_is_refused(written, changed, key):
    metadata = dict(pq.read_schema(written["scores"]).metadata)
    new = metadata[key.encode()].replace(b"1.5", b"1.6").replace(b"entropy", b"margin")
    metadata[key.encode()] = new.replace(b"val", b"test")
    table = TABLES["scores"].rename_columns(
        [
            c.replace("entropy", "margin") if key == "criterion" else c
            for c in TABLES["scores"].column_names
        ]
    )
    pq.write_table(table.replace_schema_metadata(metadata), changed)
    with pytest.raises(OfframpError, match=r"missing|metadata"):
        read_scores(changed)


def test_tables_of_the_version_before_are_read(tmp_path):
    """They have no note of what was written, no page checksums, and may have nulls anywhere by
    their schema."""
    plain = pa.schema([pa.field(f.name, f.type) for f in TABLES["logits"].schema])
    about = ORIGIN | {"schema": "logits", "schema_version": "1"}
    table = TABLES["logits"].cast(plain.with_metadata(about))
    pq.write_table(table, tmp_path / "val.parquet")
    np.testing.assert_array_equal(read_logits(tmp_path / "val.parquet").logits, LOGITS)


def test_nulls_are_where_the_schema_says_and_nowhere_else(tmp_path):
    rows = [{"split": "val", "criterion": "entropy", "cutoff": 0.5, "exit": 1, "n": 0}]
    rows[0] |= {"correct": 0, "seconds": 0.1}
    path = tmp_path / "sweep.parquet"
    write(path, pa.Table.from_pylist(rows, schema=SWEEP), "sweep", ORIGIN)
    assert read(path, "sweep")["accuracy"].to_pylist() == [None]
    for column in ("n", "seconds", "split"):
        by_hand(path, path, with_value(pq.read_table(path), column, 0, None))
        with pytest.raises(OfframpError, match=f"column {column} has 1 nulls"):
            read(path, "sweep")
        write(path, pa.Table.from_pylist(rows, schema=SWEEP), "sweep", ORIGIN)


def test_a_table_with_a_null_where_none_may_be_is_not_even_written(tmp_path):
    table = pa.Table.from_pylist([{"network": "full"}], schema=BASELINE)
    with (
        pytest.raises(ValueError, match="null"),
        TableWriter(tmp_path / "t.parquet", BASELINE, "baseline", ORIGIN) as writer,
    ):
        writer.append(table)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_an_empty_table_of_every_schema_is_written_and_read_back(tmp_path, name):
    write(tmp_path / "t.parquet", SCHEMAS[name].empty_table(), name, ORIGIN)
    assert read(tmp_path / "t.parquet", name).schema.names == SCHEMAS[name].names
