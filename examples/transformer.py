"""A small transformer encoder over token ids, with an exit after every layer. Features are a tuple,
the states and which of them are words: `model.name: transformer.py:Encoder`. Token 0 is padding.

python examples/transformer.py [FOLDER [TRAINING_SAMPLES]]: made-up sentences, as a config takes
them. A sentence is of the topic that most of its words are of; the fewer those are, the harder.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention

WORDS, LENGTH, TOPICS = 41, 16, 4
States = tuple[torch.Tensor, torch.Tensor]


class Embed(nn.Module):
    """Token ids (N, L) to states (N, L, width), and which of them are words, bool (N, L)."""

    def __init__(self, words: int, length: int, width: int):
        super().__init__()
        self.word, self.place = nn.Embedding(words, width), nn.Embedding(length, width)

    def forward(self, tokens: torch.Tensor) -> States:
        """Ids to states and mask."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.word(tokens) + self.place(places), tokens != 0


class Layer(nn.Module):
    """Attention to all words of the sentence, then two linear layers; each after a layer norm."""

    def __init__(self, width: int, attending: int):
        super().__init__()
        self.attending = attending
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: States) -> States:
        """States and mask to new states and the same mask."""
        states, words = x
        n, length, width = states.shape
        qkv = self.qkv(self.norm1(states)).reshape(n, length, 3, self.attending, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(q, k, v, words[:, None, None, :])
        states = states + self.out(seen.transpose(1, 2).reshape(n, length, width))
        return states + self.down(gelu(self.up(self.norm2(states)))), words


class Head(nn.Module):
    """The mean over the words of a sentence, one linear layer."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: States) -> torch.Tensor:
        """States and mask to (N, classes) logits."""
        states, words = x[0], x[1][:, :, None]
        return self.linear(self.norm((states * words).sum(1) / words.sum(1).clamp(min=1)))


class Encoder(nn.Module):
    """As many exits as ``layers``."""

    def __init__(self, classes: int, layers: int = 3, width: int = 32, attending: int = 4):
        super().__init__()
        first = nn.Sequential(Embed(WORDS, LENGTH, width), Layer(width, attending))
        later = [Layer(width, attending) for _ in range(layers - 1)]
        self.blocks = nn.ModuleList([first, *later])
        self.heads = nn.ModuleList(Head(width, classes) for _ in range(layers))


def sentences(count: int, draw: np.random.Generator) -> dict[str, np.ndarray]:
    """Token ids (count, LENGTH) and topics: each topic has ten words of its own."""
    labels = np.arange(count) % TOPICS
    of_topic = draw.random((count, LENGTH)) < draw.uniform(0.3, 0.9, (count, 1))
    topics = np.where(of_topic, labels[:, None], draw.integers(0, TOPICS, (count, LENGTH)))
    tokens = 1 + 10 * topics + draw.integers(0, 10, (count, LENGTH))
    tokens[np.arange(LENGTH) >= draw.integers(4, LENGTH + 1, (count, 1))] = 0
    return {"inputs": tokens, "labels": labels}


if __name__ == "__main__":
    given = dict(enumerate(sys.argv))
    folder, training = Path(given.get(1, "data/sentences")), int(given.get(2, 4000))
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(3)
    for name, share in (("train", 1), ("val", 8), ("test", 4)):
        np.savez(folder / f"{name}.npz", **sentences(training // share, draw))
