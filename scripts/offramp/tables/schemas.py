"""The schemas of the Parquet tables: columns, their types, and which may be null."""

from collections.abc import Iterable, Mapping

import pyarrow as pa


def _schema(columns: Mapping[str, pa.DataType], nulls: Iterable[str] = ()) -> pa.Schema:
    """A schema of these columns, of which only ``nulls`` may have no value in a row."""
    return pa.schema([pa.field(name, kind, name in nulls) for name, kind in columns.items()])


TIMINGS = _schema(
    {
        "split": pa.string(),
        "batch": pa.int32(),
        "part": pa.string(),
        "exit": pa.int32(),
        "batch_size": pa.int32(),
        "kept": pa.int32(),
        "repeat": pa.int32(),
        "seconds": pa.float64(),
    },
    nulls=["batch", "kept", "repeat"],
)


SWEEP = _schema(
    {
        "split": pa.string(),
        "criterion": pa.string(),
        "cutoff": pa.float64(),
        "exit": pa.int32(),
        "n": pa.int64(),
        "correct": pa.int64(),
        "accuracy": pa.float64(),
        "seconds": pa.float64(),
        "speedup": pa.float64(),
    },
    nulls=["accuracy", "speedup"],
)


CALIBRATION = _schema(
    {
        "calibrated_on": pa.string(),
        "method": pa.string(),
        "target": pa.float64(),
        "exit": pa.int32(),
        "threshold": pa.float64(),
        "split": pa.string(),
        "n": pa.int64(),
        "correct": pa.int64(),
        "accuracy": pa.float64(),
        "seconds": pa.float64(),
        "speedup": pa.float64(),
    },
    nulls=["threshold", "accuracy", "speedup"],
)


OPTIMISM = _schema({"target": pa.float64(), "optimism": pa.float64()})


VERIFICATION = _schema(
    {
        "policy": pa.string(),
        "chosen": pa.bool_(),
        "exit": pa.int32(),
        "threshold": pa.float64(),
        "n_table": pa.int64(),
        "n_live": pa.int64(),
        "correct_table": pa.int64(),
        "correct_live": pa.int64(),
        "differ": pa.int64(),
        "excused": pa.int64(),
        "seconds_predicted": pa.float64(),
        "seconds_measured": pa.float64(),
        "speedup_predicted": pa.float64(),
        "speedup_measured": pa.float64(),
        "speedup_low": pa.float64(),
        "speedup_high": pa.float64(),
    },
    nulls=[
        "threshold",
        "seconds_measured",
        "speedup_predicted",
        "speedup_measured",
        "speedup_low",
        "speedup_high",
    ],
)


NETWORK = _schema(
    {
        "part": pa.string(),
        "exit": pa.int32(),
        "input_shape": pa.string(),
        "output_shape": pa.string(),
        "parameters": pa.int64(),
        "multiply_adds": pa.int64(),
    }
)


TRAINING = _schema(
    {
        "epoch": pa.int32(),
        "exit": pa.int32(),
        "loss": pa.float64(),
        "accuracy": pa.float64(),
        "val_accuracy": pa.float64(),
        "seconds": pa.float64(),
    }
)


BASELINE = _schema(
    {
        "network": pa.string(),
        "repeat": pa.int32(),
        "n": pa.int64(),
        "correct": pa.int64(),
        "difference": pa.float64(),
        "difference_low": pa.float64(),
        "difference_high": pa.float64(),
        "seconds": pa.float64(),
    }
)


BENCHMARKS = _schema(
    {
        "benchmark": pa.string(),
        "contender": pa.string(),
        "case": pa.string(),
        "batch_size": pa.int32(),
        "images": pa.int64(),
        "repeat": pa.int32(),
        "value": pa.float64(),
        "unit": pa.string(),
    },
    nulls=["case", "batch_size", "images"],
)


COVERAGE = _schema(
    {
        "promise": pa.string(),
        "population": pa.string(),
        "n": pa.int64(),
        "stated": pa.float64(),
        "draws": pa.int32(),
        "broken": pa.int32(),
        "rate": pa.float64(),
        "rate_low": pa.float64(),
        "rate_high": pa.float64(),
        "speedup": pa.float64(),
    },
    nulls=["stated", "speedup"],
)


TEMPERATURES = _schema(
    {
        "exit": pa.int32(),
        "temperature": pa.float64(),
        "n": pa.int64(),
        "nll": pa.float64(),
        "nll_scaled": pa.float64(),
    }
)


RELIABILITY = _schema(
    {
        "split": pa.string(),
        "exit": pa.int32(),
        "scaled": pa.bool_(),
        "bin": pa.int32(),
        "n": pa.int64(),
        "confidence": pa.float64(),
        "correct": pa.int64(),
        "ece": pa.float64(),
        "ece_low": pa.float64(),
        "ece_high": pa.float64(),
        "nll": pa.float64(),
    },
    nulls=["ece", "ece_low", "ece_high", "nll"],
)

CONFIDENCE = _schema(
    {
        "split": pa.string(),
        "exit": pa.int32(),
        "scaled": pa.bool_(),
        "low": pa.float64(),
        "high": pa.float64(),
        "n": pa.int64(),
        "correct": pa.int64(),
    }
)


FRONTIERS = _schema(
    {
        "criterion": pa.string(),
        "scaled": pa.bool_(),
        "method": pa.string(),
        "thresholds": pa.list_(pa.float64()),
        "n": pa.int64(),
        "correct": pa.int64(),
        "accuracy": pa.float64(),
        "accuracy_low": pa.float64(),
        "accuracy_high": pa.float64(),
        "seconds": pa.float64(),
    }
)


_REACHED = [
    f"{name}{end}"
    for name in ("seconds", "over_shared", "speedup")
    for end in ("", "_low", "_high")
]
EQUAL_ACCURACY = _schema(
    {
        "criterion": pa.string(),
        "scaled": pa.bool_(),
        "method": pa.string(),
        "points_lost": pa.float64(),
        **dict.fromkeys(_REACHED, pa.float64()),
    },
    nulls=_REACHED,
)


DEFERRAL = _schema({"part": pa.int32(), "exit": pa.int32(), "weights": pa.list_(pa.float64())})


LEAVING = _schema(
    {"exit": pa.int32(), "label": pa.int64(), "predicted": pa.int64(), "n": pa.int64()}
)


AGREEMENT = _schema(
    {
        "first": pa.int32(),
        "second": pa.int32(),
        "n": pa.int64(),
        "same_label": pa.int64(),
        "both_right": pa.int64(),
        "only_first_right": pa.int64(),
    }
)


ORACLE = _schema(
    {
        "exit_rule": pa.string(),
        "exit": pa.int32(),
        "n": pa.int64(),
        "correct": pa.int64(),
        "accuracy": pa.float64(),
        "seconds": pa.float64(),
        "speedup": pa.float64(),
    },
    nulls=["accuracy", "speedup"],
)


EXPORT = pa.schema(
    {
        "contender": pa.string(),
        "batch_size": pa.int32(),
        "repeat": pa.int32(),
        "batch": pa.int32(),
        "seconds": pa.float64(),
    }
)


def logits_schema(exits: int, classes: int) -> pa.Schema:
    """One row a sample: sample_id, label, and ``exit_1`` .. ``exit_K`` lists of C float32."""
    columns = {"sample_id": pa.int64(), "label": pa.int64()}
    logits = pa.list_(pa.float32(), classes)
    return _schema(columns | {f"exit_{k}": logits for k in range(1, exits + 1)})


def scores_schema(exits: int, criterion: str) -> pa.Schema:
    """One row a sample: sample_id, the criterion's score (``entropy_k``, in nats, say) and
    ``correct_k`` for every exit."""
    numbers = range(1, exits + 1)
    scores = {f"{criterion}_{k}": pa.float64() for k in numbers}
    correct = {f"correct_{k}": pa.bool_() for k in numbers}
    return _schema({"sample_id": pa.int64(), **scores, **correct})


SCHEMAS = {
    "timings": TIMINGS,
    "sweep": SWEEP,
    "calibration": CALIBRATION,
    "optimism": OPTIMISM,
    "verification": VERIFICATION,
    "network": NETWORK,
    "training": TRAINING,
    "baseline": BASELINE,
    "benchmarks": BENCHMARKS,
    "coverage": COVERAGE,
    "temperatures": TEMPERATURES,
    "reliability": RELIABILITY,
    "confidence": CONFIDENCE,
    "frontiers": FRONTIERS,
    "equal_accuracy": EQUAL_ACCURACY,
    "deferral": DEFERRAL,
    "leaving": LEAVING,
    "agreement": AGREEMENT,
    "oracle": ORACLE,
}


def schema_of(name: str, stored: pa.Schema, criterion: str) -> pa.Schema:
    """The schema that a table of this name should have. How many exits and classes a table of
    samples has, it says itself, by its ``stored`` columns; so it does for the criterion."""
    if name == "logits":
        exits = sum(column.startswith("exit_") for column in stored.names)
        kind = stored.field("exit_1").type if "exit_1" in stored.names else pa.null()
        return logits_schema(exits, kind.list_size if pa.types.is_fixed_size_list(kind) else 1)
    if name == "scores":
        return scores_schema(sum(c.startswith("correct_") for c in stored.names), criterion)
    return SCHEMAS[name]
