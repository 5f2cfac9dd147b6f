"""Logits of a text classifier with four exits and three classes, for examples/text.yaml.

Texts of 64 words are bad, mixed or good; an exit is a naive Bayes that has read the first 8, 16, 32
or all 64 words. It was fitted to the texts of the train split, so val and test are new to it.
"""

import sys
from pathlib import Path

import numpy as np

WORDS, CLASSES, VOCABULARY = (8, 16, 32, 64), 3, 500
SIZES = {"train": 4000, "val": 2000, "test": 2000}


def texts(draw: np.random.Generator, samples: int, chances: np.ndarray) -> tuple:
    """Texts int (samples, words), and their labels: some texts say clearly what they are."""
    labels = draw.integers(0, CLASSES, samples)
    clear = draw.beta(0.8, 2.5, samples)[:, None]
    of_class = [draw.choice(VOCABULARY, (samples, WORDS[-1]), p=p) for p in chances]
    plain = draw.integers(0, VOCABULARY, (samples, WORDS[-1]))
    telling = draw.random((samples, WORDS[-1])) < clear
    return np.where(telling, np.choose(labels[:, None], of_class), plain), labels


def write(folder: Path) -> None:
    """Write train.npz, val.npz and test.npz: logits (samples, exits, classes) and labels."""
    draw = np.random.default_rng(1)
    chances = draw.dirichlet(np.full(VOCABULARY, 0.5), CLASSES)
    splits = {split: texts(draw, size, chances) for split, size in SIZES.items()}
    words, labels = splits["train"]
    counts = np.ones((CLASSES, VOCABULARY))
    np.add.at(counts, (np.repeat(labels, WORDS[-1]), words.ravel()), 1)
    weight = np.log(counts / counts.sum(axis=1, keepdims=True))
    folder.mkdir(parents=True, exist_ok=True)
    for split, (words, labels) in splits.items():
        read = weight[:, words].cumsum(axis=2)  # (classes, samples, words)
        logits = np.stack([read[:, :, n - 1].T for n in WORDS], axis=1)
        np.savez(folder / f"{split}.npz", logits=logits.astype(np.float32), labels=labels)


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "data/text"))
