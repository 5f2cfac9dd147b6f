"""Runs made up for the interactive page: any number of samples, exits and classes."""

import numpy as np
from conftest import ORIGIN, hand_made_model

from offramp.report.explorer import Run
from offramp.scoring.criteria import scores_of
from offramp.scoring.policy import Policy, shared_cutoff
from offramp.scoring.scores import Scored, how_decided, scores_table


def made_run(samples=70, exits=4, classes=5, criterion="entropy", batch_size=16, **more) -> Run:
    """A run whose later exits are surer and more often right; ``more`` replaces parts of it."""
    draw = np.random.default_rng(samples + exits)
    sides = [scored_of(draw, samples, exits, classes, criterion) for _ in range(2)]
    (val, logits, label), (test, *_) = sides
    middle = np.median(val.scores[:, :-1], axis=0).tolist()
    some = tuple(None if k == 1 else score for k, score in enumerate(middle))
    model = hand_made_model(exits, batch_size)
    low, high = float(val.scores.min()), float(val.scores.max())
    policies = {"best": some, "report_cutoff": shared_cutoff(0.6, exits - 1).thresholds}
    made = Run(
        val,
        test,
        logits,
        label,
        model._replace(removal=model.removal - [2, 0, 0]),  # held at 0 for many a batch
        np.linspace(low, high, 9).tolist(),
        {name: (Policy(criterion, t), policy_said(criterion, t)) for name, t in policies.items()},
    )
    return made._replace(**more)


def scored_of(draw, samples, exits, classes, criterion):
    """Scores as a run reads them, with the logits (N, K, C) and labels (N,) that they are of."""
    label = draw.integers(0, classes, samples)
    noise = draw.normal(size=(samples, exits, classes)) * draw.choice([0.5, 2], (samples, 1, 1))
    sure = np.arange(1, exits + 1)[:, None] * np.eye(classes)[label][:, None, :]
    logits = np.round(sure + noise, 1).astype(np.float32)
    logits[: samples // 5] = logits[:1]  # ties
    scores = scores_of(criterion, logits)
    table = scores_table(np.arange(samples) + 7, label, logits, scores, criterion)
    table = table.replace_schema_metadata(ORIGIN | how_decided(criterion, None))
    correct = logits.argmax(axis=2) == label[:, None]
    return Scored(scores, correct, table), logits, label


def policy_said(criterion, thresholds) -> dict:
    return {
        "schema": "policy",
        "schema_version": 1,
        "criterion": criterion,
        "thresholds": list(thresholds),
        "temperatures": None,
        "weights": None,
        "origin": None,
        "selection": {},
        "provenance": ORIGIN,
    }
