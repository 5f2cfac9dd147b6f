"""The schemas of the Parquet tables: columns and their types."""

import pyarrow as pa

TIMINGS = pa.schema(
    {
        "split": pa.string(),
        "batch": pa.int32(),
        "part": pa.string(),
        "exit": pa.int32(),
        "batch_size": pa.int32(),
        "kept": pa.int32(),
        "repeat": pa.int32(),
        "seconds": pa.float64(),
    }
)


SWEEP = pa.schema(
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
    }
)


CALIBRATION = pa.schema(
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
    }
)


OPTIMISM = pa.schema({"target": pa.float64(), "optimism": pa.float64()})


VERIFICATION = pa.schema(
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
    }
)


NETWORK = pa.schema(
    {
        "part": pa.string(),
        "exit": pa.int32(),
        "input_shape": pa.string(),
        "output_shape": pa.string(),
        "parameters": pa.int64(),
        "multiply_adds": pa.int64(),
    }
)


TRAINING = pa.schema(
    {
        "epoch": pa.int32(),
        "exit": pa.int32(),
        "loss": pa.float64(),
        "accuracy": pa.float64(),
        "val_accuracy": pa.float64(),
        "seconds": pa.float64(),
    }
)


BASELINE = pa.schema(
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


BENCHMARKS = pa.schema(
    {
        "benchmark": pa.string(),
        "contender": pa.string(),
        "case": pa.string(),
        "batch_size": pa.int32(),
        "images": pa.int64(),
        "repeat": pa.int32(),
        "value": pa.float64(),
        "unit": pa.string(),
    }
)


COVERAGE = pa.schema(
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
    }
)


TEMPERATURES = pa.schema(
    {
        "exit": pa.int32(),
        "temperature": pa.float64(),
        "n": pa.int64(),
        "nll": pa.float64(),
        "nll_scaled": pa.float64(),
    }
)


RELIABILITY = pa.schema(
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
    }
)


FRONTIERS = pa.schema(
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


EQUAL_ACCURACY = pa.schema(
    {
        "criterion": pa.string(),
        "scaled": pa.bool_(),
        "method": pa.string(),
        "points_lost": pa.float64(),
        **{
            f"{name}{end}": pa.float64()
            for name in ("seconds", "over_shared", "speedup")
            for end in ("", "_low", "_high")
        },
    }
)


RISK = pa.schema({"part": pa.int32(), "exit": pa.int32(), "weights": pa.list_(pa.float64())})


LEAVING = pa.schema(
    {"exit": pa.int32(), "label": pa.int64(), "predicted": pa.int64(), "n": pa.int64()}
)


AGREEMENT = pa.schema(
    {
        "first": pa.int32(),
        "second": pa.int32(),
        "n": pa.int64(),
        "same_label": pa.int64(),
        "both_right": pa.int64(),
        "only_first_right": pa.int64(),
    }
)


ORACLE = pa.schema(
    {
        "exit_rule": pa.string(),
        "exit": pa.int32(),
        "n": pa.int64(),
        "correct": pa.int64(),
        "accuracy": pa.float64(),
        "seconds": pa.float64(),
        "speedup": pa.float64(),
    }
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
    columns = [("sample_id", pa.int64()), ("label", pa.int64())]
    return pa.schema(
        columns + [(f"exit_{k}", pa.list_(pa.float32(), classes)) for k in range(1, exits + 1)]
    )


def scores_schema(exits: int, criterion: str) -> pa.Schema:
    """One row a sample: sample_id, the criterion's score (``entropy_k``, in nats, say) and
    ``correct_k`` for every exit."""
    numbers = range(1, exits + 1)
    return pa.schema(
        [("sample_id", pa.int64())]
        + [(f"{criterion}_{k}", pa.float64()) for k in numbers]
        + [(f"correct_{k}", pa.bool_()) for k in numbers]
    )
