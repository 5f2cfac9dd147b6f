"""Logits of a cascade of three models from small to large, for examples/cascade.yaml.

All three classify scikit-learn's handwritten digits: a linear model that sees 4 x 4 pixels, one
that sees all 8 x 8, and a network with a hidden layer of 128. They are fitted to a part of which no
logits are kept.
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

SIZES = {"val": 500, "test": 500}


def write(folder: Path) -> None:
    """Write val.npz and test.npz: logits (samples, models, classes) and labels."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(1).permutation(len(labels))
    images, labels = images[order] / 16, labels[order]
    small = images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)
    rest = sum(SIZES.values())
    linear = [
        LogisticRegression(max_iter=500).fit(x[rest:], labels[rest:]) for x in (small, images)
    ]
    network = MLPClassifier(128, learning_rate_init=0.01, random_state=1)
    network.fit(images[rest:], labels[rest:])
    logits = np.stack(
        [
            linear[0].decision_function(small),
            linear[1].decision_function(images),
            network.predict_log_proba(images),
        ],
        axis=1,
    )
    folder.mkdir(parents=True, exist_ok=True)
    start = 0
    for split, size in SIZES.items():
        rows, start = slice(start, start + size), start + size
        arrays = {"logits": logits[rows].astype(np.float32), "labels": labels[rows]}
        np.savez(folder / f"{split}.npz", **arrays)


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "data/cascade"))
