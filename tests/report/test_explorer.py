"""The interactive page: what it carries, what its script computes, and that it holds together."""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from made_runs import made_run
from PIL import Image
from scipy.stats import beta

from offramp.report import explorer
from offramp.report.explorer import page_data, page_of, write_explorer
from offramp.scoring.policy import Policy, exits_of
from offramp.thresholds.evaluation import evaluate
from offramp.thresholds.sweep import sweep_split

LOGIC_TESTS = Path(__file__).with_name("logic.test.js")
# Beside the usual: one exit, one side exit, a criterion that looks back, more than 256 classes.
RUNS = {
    "usual": made_run(),
    "one exit": made_run(exits=1),
    "two exits": made_run(exits=2),
    "twelve exits": made_run(exits=12, samples=40),
    "agreement": made_run(criterion="agreement"),
    "patience": made_run(criterion="patience"),
    "energy": made_run(criterion="energy"),
    "one batch": made_run(samples=5),
    "many classes": made_run(classes=300),
}
# What was vendored: d3 7.9.2 and axe-core 4.14.1, from npm.
VENDORED = {
    "scripts/offramp/report/explorer_page/vendor/d3.min.js": (
        "912111098ea99503a6f4967361d2bbdc9dbf58cf9c678c8e27e5b02d1a07f0c1"
    ),
    "tests/report/vendor/axe.min.js": (
        "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
    ),
}
ROOT = Path(__file__).parents[2]


def outcomes_of(run):
    """What the library says of some thresholds: the run's own, and those on its frontiers."""
    side_exits = run.val.scores.shape[1] - 1
    draw = np.random.default_rng(3)
    wanted = [policy.thresholds for policy, _ in run.policies.values()]
    wanted += [(c,) * side_exits for c in run.cutoffs] + [(None,) * side_exits]
    for _ in range(10):  # scores of samples, with which they tie; some exits disabled
        rows = draw.integers(0, len(run.label), side_exits)
        some = run.val.scores[rows, np.arange(side_exits)].tolist()
        wanted.append(tuple(None if draw.random() < 0.3 else score for score in some))
    criterion, found = run.policies["best"][0].criterion, []
    for thresholds in wanted:
        policy = Policy(criterion, thresholds)
        result = evaluate(run.val.scores, run.val.correct, policy, run.model)
        exits = exits_of(run.val.scores, thresholds)
        found.append({"thresholds": thresholds, "exits": exits.tolist()})
        found[-1] |= {name: np.asarray(value).tolist() for name, value in result.items()}
    return found


def intervals():
    """Counts and their Clopper-Pearson intervals by scipy's own words for them."""
    draw = np.random.default_rng(4)
    cases = [(0, 1), (1, 1), (0, 10_000), (10_000, 10_000), (9_105, 10_000), (1, 1_000_000)]
    for n in [2, 3, 7, 30, 179, 1_000, 5_000, 45_000, 400_000]:
        cases += [(int(draw.binomial(n, p)), n) for p in (0.001, 0.2, 0.5, 0.9, 0.995) * 3]
    for c, n in cases:
        low = beta.ppf(0.025, c, n - c + 1) if c else 0.0
        yield c, n, float(low), float(beta.ppf(0.975, c + 1, n - c) if c < n else 1.0)


def needs(program):
    """The path of a program that the tests of the page run; in CI a missing one is a failure."""
    found = shutil.which(program)
    assert found or not os.environ.get("CI"), f"CI must have {program}: see .ci/run"
    return found or pytest.skip(f"needs {program} (Debian: apt install nodejs)")


def test_the_script_computes_what_the_library_does(tmp_path):
    cases = [
        {"name": name, "data": page_data(run), "outcomes": outcomes_of(run)}
        for name, run in RUNS.items()
    ]
    file = tmp_path / "cases.json"
    file.write_text(json.dumps({"runs": cases, "intervals": list(intervals())}))
    done = subprocess.run(
        [needs("node"), "--test", LOGIC_TESTS],
        env=os.environ | {"OFFRAMP_CASES": str(file)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = int(re.search(r"^(?:#|ℹ) pass (\d+)", done.stdout, re.MULTILINE)[1])
    assert passed == 5 * len(RUNS) + 4


def test_what_is_vendored_is_what_was_published():
    for path, digest in VENDORED.items():
        assert hashlib.sha256((ROOT / path).read_bytes()).hexdigest() == digest, path
        assert list((ROOT / path).parent.glob("*LICENSE*")), path


def test_a_page_needs_no_network_and_nothing_in_it_ends_its_script(tmp_path):
    names = ["</script><b>", "a&b", '"', "@view@", "é"]
    write_explorer(tmp_path / "explorer.html", made_run(names=names))
    page = (tmp_path / "explorer.html").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["explorer.html"]
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert json.loads(data[1])["classes"] == names
    policy = re.search(r'http-equiv="Content-Security-Policy"\s+content="([^"]+)"', page)[1]
    assert policy.startswith("default-src 'none';") and "http" not in policy
    assert not re.search(r"<(?:script|img|link)[^>]+(?:src|href)=[\"']?(?!data:)", page)
    assert "Permission to use, copy, modify" in page


def array(packed):
    return np.frombuffer(base64.b64decode(packed["data"]), dtype=packed["dtype"])


def test_the_points_of_a_frontier_are_what_the_tables_say_of_them():
    run = RUNS["usual"]
    scores, correct = run.val.scores, run.val.correct
    swept = sweep_split(scores, correct, np.array(run.cutoffs), run.model)
    known = {
        cutoff: (int(swept["correct"][m].sum()), float(swept["seconds"][m].sum()))
        for m, cutoff in enumerate(run.cutoffs)
    }
    frontiers = {f["kind"]: f["points"] for f in page_data(run)["frontiers"]}
    assert set(frontiers) == {"shared", "targets", "joint"}
    for point in frontiers["shared"]:
        right, seconds = known[point["thresholds"][0]]
        assert point["correct"] == right
        assert point["seconds"] == pytest.approx(seconds, rel=1e-12)
    for points in frontiers.values():
        assert points
        for before, after in pairwise(points):
            assert before["correct"] < after["correct"] and before["seconds"] < after["seconds"]
    # Nothing was left out but for a better one.
    for right, seconds in known.values():
        assert any(
            p["correct"] >= right and p["seconds"] <= seconds + 1e-12 for p in frontiers["shared"]
        )


def test_test_data_speak_of_the_saved_policies_alone():
    run = RUNS["usual"]
    data = page_data(run)
    assert [policy["name"] for policy in data["policies"]] == list(run.policies)
    for found in data["policies"]:
        policy = run.policies[found["name"]][0]
        exits = exits_of(run.test.scores, policy.thresholds)
        right = run.test.correct[np.arange(len(exits)), exits - 1].sum()
        assert found["test"]["correct"] == right
        assert found["live"] is None
    text = json.dumps(data)
    for column in (run.test.scores.T, run.test.correct.T):
        assert base64.b64encode(column.tobytes()).decode()[:40] not in text


def test_pictures_are_the_samples_own():
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (77, 1, 1, 3)).repeat(32, 1).repeat(32, 2).astype(np.uint8)
    run = made_run(images=images)
    data = page_data(run)
    pictures, order, ids = data["pictures"], array(data["order"]), array(data["ids"])
    assert pictures["count"] == len(order) == 70
    assert sorted(order) == list(range(70)) != list(order)
    encoded = base64.b64decode(pictures["address"].split(",")[1])
    sheet = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).astype(int)
    for place, sample in enumerate(order):
        row, column = divmod(place, pictures["columns"])
        middle = sheet[row * 32 + 16, column * 32 + 16]
        assert np.abs(middle - images[ids[sample], 0, 0]).max() < 12


@pytest.mark.parametrize("shape", [(8, 8, 1), (300, 200, 3), (5, 400, 3)])
def test_pictures_of_any_size_become_small(shape):
    images = np.random.default_rng(0).integers(0, 256, (77, *shape)).astype(np.uint8)
    pictures = page_data(made_run(images=images))["pictures"]
    longer = max(pictures["width"], pictures["height"])
    assert longer == min(max(shape[:2]), explorer.PICTURE)
    assert pictures["count"] == 70


@pytest.mark.parametrize(
    "inputs", [np.zeros((77, 12)), np.zeros((77, 8, 8, 3)), np.zeros((77, 8, 8, 7), np.uint8)]
)
def test_inputs_that_are_no_pictures_are_not_shown(inputs):
    data = page_data(made_run(images=inputs))
    assert data["pictures"] is None
    assert len(array(data["order"])) == 70


def test_a_page_stays_small_whatever_the_run(monkeypatch):
    monkeypatch.setattr(explorer, "MOST_DATA", 6_000)
    monkeypatch.setattr(explorer, "MOST_PICTURES", 4_000)
    images = np.random.default_rng(0).integers(0, 256, (500, 8, 8, 3)).astype(np.uint8)
    run = made_run(samples=400, images=images)
    data = page_data(run)
    assert data["of"] == 400
    assert data["samples"] == 96  # whole batches of 16
    carried = [data[name]["data"] for name in ("scores", "predicted", "labels", "ids", "order")]
    assert 5_000 < sum(map(len, carried)) <= 6_000
    assert 0 < data["pictures"]["count"] == len(array(data["order"])) < 96
    assert len(data["pictures"]["address"]) <= 4_000 * 4 / 3 + 100
    part = run.val.correct[:96]
    assert data["full"]["correct"] == part[:, -1].sum()


def test_the_largest_page_has_less_than_ten_megabytes():
    program = sum((explorer.PAGE / file).stat().st_size for file in explorer.PARTS.values())
    assert program + explorer.MOST_DATA + explorer.MOST_PICTURES * 4 / 3 < 9_500_000


def test_every_part_of_the_page_has_one_place():
    page = page_of({"some": "data"})
    assert not re.search(r"@(data|style|licence|d3|logic|view|words)@", page)
