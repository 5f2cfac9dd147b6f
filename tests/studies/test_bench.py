"""The benchmarks: what they count and predict, against slow recounts; the page they make."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import hand_made_model, slow_exit, slow_stage_seconds, toy_network
from pictures import cut_off, texts_of
from torch.fx.experimental.optimization import fuse

from offramp.data.splits import Split, load_images
from offramp.figures.draw import draw
from offramp.figures.study_figures import draw_multiply_adds
from offramp.networks.loading import describe
from offramp.report.bench_page import (
    curve_points,
    page,
    prediction_errors,
    public_points,
    spread,
)
from offramp.scoring.policy import Policy, exits_of, policy_scores
from offramp.studies import (
    bench_curves,
    bench_live,
    bench_model,
    bench_public,
    bench_tables,
    bench_thresholds,
)
from offramp.studies.bench_public import PUBLIC, built, published_points
from offramp.thresholds.calibration import CalibrationData
from offramp.thresholds.sweep import sweep_split

CPU = torch.device("cpu")
EXITS, CLASSES, SAMPLES, BATCH = 4, 10, 90, 32
MULTIPLY_ADDS = np.array([[70, 30, 20, 10], [5, 4, 3, 2]])


def some_split() -> Split:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (SAMPLES, 32, 32, 3), dtype=np.uint8)
    return Split(images, draw.integers(0, CLASSES, SAMPLES), np.arange(SAMPLES))


@pytest.fixture(scope="module")
def run():
    """A network, a split, its logits and scores, and a policy that lets some leave everywhere."""
    network, split = toy_network(EXITS, CLASSES, seed=2), some_split()
    with torch.inference_mode():
        logits = torch.stack(network(load_images(split, slice(None), CPU)), dim=1).numpy()
    scores = policy_scores(Policy("entropy", (None,) * EXITS), logits)
    limits = tuple(float(np.quantile(scores[:, k], 0.3)) + 1e-3 for k in range(EXITS - 1))
    return network, split, logits, scores, Policy("entropy", limits)


def random_scores(samples=200, seed=0):
    draw = np.random.default_rng(seed)
    scores = draw.random((samples, EXITS))
    return scores, draw.random((samples, EXITS)) < 1 - 0.5 * scores


# The time model


def test_held_out_policies_are_of_three_kinds_and_all_different():
    policies = bench_model.held_out_policies(random_scores()[0])
    assert len(policies) == len(set(policies.values())) == 30
    disabled = [sum(t is None for t in p.thresholds) for p in policies.values()]
    assert disabled == [0] * 20 + [2] * 10
    shared = [len(set(p.thresholds)) == 1 for p in policies.values()]
    assert shared[:10] == [True] * 10 and not any(shared[10:20])


@pytest.mark.parametrize("thresholds", [(0.2, 0.3, 0.5), (None, 0.4, None), (None, None, None)])
def test_predictions_are_slow_sums_over_samples(thresholds):
    model, scores = hand_made_model(EXITS, BATCH), random_scores()[0]
    policy = Policy("entropy", thresholds)
    taken = exits_of(scores, thresholds)
    costs = bench_model.stand_ins(model, MULTIPLY_ADDS)
    found = bench_model.predictions(policy, taken, {"time model": model}, costs, BATCH)
    slow = [slow_exit(row, thresholds) for row in scores.tolist()]
    want = sum(slow_stage_seconds(model, slow, BATCH, *policy.runs))
    assert found["time model"] == pytest.approx(want)
    full = sum(slow_stage_seconds(model, [EXITS] * BATCH, BATCH, [False] * (EXITS - 1) + [True]))
    pace = full / BATCH / (MULTIPLY_ADDS[0].sum() + MULTIPLY_ADDS[1, -1])
    constant = multiply_adds = 0.0
    for exit_ in slow:
        for k in range(exit_):
            head = policy.runs[0, k]
            block, *rest = model.parts[:, k, BATCH] / BATCH
            constant += block + head * sum(rest)
            multiply_adds += pace * (MULTIPLY_ADDS[0, k] + head * MULTIPLY_ADDS[1, k])
    assert found["constant per exit"] == pytest.approx(constant)
    assert found["multiply-adds"] == pytest.approx(multiply_adds)


def test_every_policy_is_predicted_and_measured_at_every_batch_size(run, monkeypatch):
    monkeypatch.setattr(bench_model, "IMAGES", {32: 70, 1: 5, 256: 90})
    monkeypatch.setattr(bench_model, "PROBE_ROUNDS", {32: 2, 1: 2})
    network, split, _, scores, _ = run
    model = hand_made_model(EXITS, BATCH)
    rows = pd.DataFrame(bench_model.time_model(network, scores, model, MULTIPLY_ADDS, split, CPU))
    assert set(rows["batch_size"]) == {32, 1}  # the model was not measured at 256
    for size, images in ((32, 70), (1, 5)):
        here = rows[rows["batch_size"] == size]
        assert set(here["images"]) == {images}
        counts = here.groupby("contender")["case"].count()
        # 30 policies and the full network, measured on two halves; the pipeline's own model is of
        # its own batch size.
        assert counts.pop("measured") == 31 * 2
        own = ["time model of the pipeline"] if size == BATCH else []
        assert counts.to_dict() == dict.fromkeys(
            ["time model, probed between the runs", "constant per exit", "multiply-adds", *own], 31
        )
        assert (here["value"] > 0).all()


def test_prediction_errors_are_of_speedups_and_of_seconds_with_the_spread_of_the_halves():
    def seconds(contender, case, value, repeat=1):
        return {"batch_size": 1, "contender": contender, "case": case, "repeat": repeat,
                "value": value, "images": 10}  # fmt: skip

    rows = [
        seconds("measured", "full network", 4.0, 1),
        seconds("measured", "full network", 6.0, 2),
    ]
    rows += [seconds("measured", "a", 2.0, 1), seconds("measured", "a", 2.0, 2)]
    rows += [seconds("model", "full network", 12.0), seconds("model", "a", 4.0)]
    (found,) = prediction_errors(pd.DataFrame(rows)).to_dict("records")
    assert (found["contender"], found["case"]) == ("model", "a")
    # Predicted 12 / 4 = 3, measured 10 / 4 = 2.5, in the halves 4 / 2 and 6 / 2.
    assert found["error"] == pytest.approx(3 / 2.5 - 1)
    assert found["seconds_error"] == pytest.approx(0)
    assert found["spread"] == pytest.approx(3 / 2 - 1)


# The live cascade


def test_answers_count_the_samples_that_differ_from_the_tables(run):
    network, split, logits, _, policy = run
    other = logits[::-1].copy()
    for table, differ in ((logits, 0), (other, 1)):
        rows = bench_live.answers({"eager": network}, policy, split, table, BATCH, CPU)
        found = {row["contender"]: row["value"] for row in rows}
        assert (found["eager: differ"] > 0) == (found["eager: not excused"] > 0) == bool(differ)


def test_speed_overhead_and_profile_measure_what_they_name(run, monkeypatch):
    monkeypatch.setattr(bench_live, "SIZES", {256: 90, 32: 64, 1: 3})
    network, split, _, _, policy = run
    rows = bench_live.speed({"eager": network, "again": network}, policy, split, CPU)
    assert len(rows) == 3 * 6 * bench_live.REPEATS
    assert {(row["batch_size"], row["images"]) for row in rows} == {(256, 90), (32, 64), (1, 3)}
    rows = bench_live.overhead(network, split, BATCH, CPU)
    assert len(rows) == 2 * bench_live.REPEATS and {row["images"] for row in rows} == {90}
    shares = bench_live.profile(network, policy, split, BATCH, CPU)
    assert sum(row["value"] for row in shares) == pytest.approx(1, abs=0.02)
    names = {"Python and dispatch", "blocks: convolutions", "entropy and decision"}
    assert {row["contender"] for row in shares} >= {*names, "heads: linear layers"}
    assert all(row["value"] >= 0 for row in shares)


def test_the_work_behind_gflops_is_that_of_the_samples_that_reach_each_stage(run, monkeypatch):
    monkeypatch.setattr(bench_live, "PEAK_CONVOLUTIONS", ((4, 8),))
    seconds = iter([2.0, 4.0, 1.0] * 6)
    monkeypatch.setattr(bench_live, "seconds_of", lambda call, device: next(seconds))
    network, split, _, scores, policy = run
    taken = exits_of(scores, policy.thresholds)
    rows = bench_live.peak(network, policy, taken, MULTIPLY_ADDS, split, BATCH, CPU)
    work = sum(
        MULTIPLY_ADDS[0, k] + MULTIPLY_ADDS[1, k]
        for row in scores.tolist()
        for k in range(slow_exit(row, policy.thresholds))
    )
    found = {row["contender"]: row["value"] for row in rows}
    assert found["full network"] == pytest.approx(2e-9 * SAMPLES * 132 / 2)
    assert found["cascade"] == pytest.approx(2e-9 * work / 4)
    assert found["convolution of 4 channels, 8x8"] == pytest.approx(2e-9 * 4 * 64 * 16 * 9 * 64)


# The tables


def test_the_loop_of_masks_counts_what_the_sweep_counts():
    scores, correct = random_scores()
    cutoffs = np.linspace(0, 1, 21)
    found = bench_tables._masks(scores, correct, cutoffs)
    want = sweep_split(scores, correct, cutoffs, hand_made_model(EXITS, BATCH))
    np.testing.assert_array_equal(found[..., 0], want["n"])
    np.testing.assert_array_equal(found[..., 1], want["correct"])


@pytest.fixture(scope="module")
def choosing():
    """Logits of which later exits know more, and what thresholds are chosen from."""
    draw = np.random.default_rng(3)

    def some(samples):
        labels = draw.integers(0, CLASSES, samples)
        logits = draw.normal(0, 1, (samples, EXITS, CLASSES)).astype(np.float32)
        logits[np.arange(samples)[:, None], np.arange(EXITS), labels[:, None]] += [2, 3, 4, 5]
        scores = policy_scores(Policy("entropy", (None,) * EXITS), logits)
        return logits, labels, (scores, logits.argmax(axis=2) == labels[:, None])

    (logits, labels, val), (new, _, test) = some(600), some(300)
    model = hand_made_model(EXITS, BATCH)
    model.parts[0] *= 1_000  # blocks dear, heads cheap: leaving early pays
    known = {"val": val, "test": test}
    return bench_thresholds.threshold_data(logits, labels, new, known, MULTIPLY_ADDS, model)


def slow_multiply_adds(exits, runs):
    return [
        sum(MULTIPLY_ADDS[0, k] + runs[k] * MULTIPLY_ADDS[1, k] for k in range(e)) for e in exits
    ]


def test_thresholds_keep_to_the_drop_on_val_and_are_judged_on_test(choosing, monkeypatch):
    found, judge = {}, bench_thresholds.judged

    def noted(thresholds, criterion, given):
        found[len(found)] = thresholds, criterion
        return judge(thresholds, criterion, given)

    monkeypatch.setattr(bench_thresholds, "judged", noted)
    monkeypatch.setattr(bench_thresholds, "MAX_DROP", 0.05)
    monkeypatch.setattr(bench_thresholds, "TURNS", 1)
    rows = pd.DataFrame(bench_thresholds.at_equal_promise(choosing))
    names = rows["contender"].unique()
    assert len(names) == len(found) == 17
    for name, (thresholds, criterion) in zip(names, found.values(), strict=True):
        here = rows[rows["contender"] == name]
        assert (here["case"] == "to find").sum() == bench_thresholds.TURNS
        value = here[here["repeat"] == 1].set_index("case")["value"]
        for split, (values, right) in choosing.scores[criterion].items():
            taken = np.array([slow_exit(row, thresholds) for row in values.tolist()])
            lost = right[:, -1].mean() - right[np.arange(len(right)), taken - 1].mean()
            assert value[f"{split} loss"] == pytest.approx(100 * lost)
            assert value[f"{split} loss, low"] <= 100 * lost <= value[f"{split} loss, high"]
        assert value["val loss"] <= 5 + 1e-9
        if name.endswith("promised"):
            assert value["val loss"] <= 4.5
        runs = Policy("entropy", thresholds).runs
        spent = np.mean(slow_multiply_adds(taken, runs[0]))
        assert value["in multiply-adds"] == pytest.approx(132 / spent, rel=1e-5)
        final = [False] * (EXITS - 1) + [True]
        full = sum(slow_stage_seconds(choosing.model, [EXITS] * len(taken), BATCH, final, final))
        seconds = sum(slow_stage_seconds(choosing.model, taken.tolist(), BATCH, *runs))
        assert value["in predicted seconds"] == pytest.approx(full / seconds, rel=1e-5)
        for unit in ("multiply-adds", "predicted seconds"):
            low, middle, high = (value[f"in {unit}{end}"] for end in (", low", "", ", high"))
            assert low <= middle * (1 + 1e-6) and middle <= high * (1 + 1e-6)
    enabled = {name: any(t is not None for t in found[i][0]) for i, name in enumerate(names)}
    # Pareto Testing begins at the luckiest of the front, and may end there.
    assert all(on for name, on in enabled.items() if name != "Pareto Testing, promised")
    text = page(rows, {"device_name": "a", "threads": "2", "torch": "2", "model": "toy"})
    assert "| that or joint by seconds, promised |" in text


def test_what_each_way_needs_at_equal_accuracy_is_read_off_its_own_curve(choosing, monkeypatch):
    monkeypatch.setattr(bench_curves, "DROPS", [0.0, 0.05])
    monkeypatch.setattr(bench_curves, "RATIOS", np.geomspace(0.1, 10, 9))
    families = bench_curves.families(choosing)
    rows = pd.DataFrame(bench_curves.at_equal_accuracy(choosing, families))
    assert list(rows["contender"].unique()) == list(families) and len(families) == 11
    table = rows.pivot_table(index="contender", columns="case", values="value")
    full = choosing.scores["entropy"]["test"][1][:, -1].mean()
    for name, family in families.items():
        (values, right), kept = choosing.scores[family.criterion]["test"], []
        for policy in [*family.policies, Policy("entropy", (None,) * (EXITS - 1))]:
            taken = np.array([slow_exit(row, policy.thresholds) for row in values.tolist()])
            accuracy = right[np.arange(len(right)), taken - 1].mean()
            kept.append((np.mean(slow_multiply_adds(taken, policy.runs[0])), accuracy))
        for lost in ("0.5", "1"):
            found = table.loc[name, f"{lost} points lost, in multiply-adds"]
            # Between the cheapest that is as accurate, were all known from test data, and nothing.
            enough = [spent for spent, accuracy in kept if accuracy >= full - float(lost) / 100]
            assert 1 <= found <= 132 / min(enough) * 1.1
            low, high = (
                table.loc[name, f"{lost} points lost, in multiply-adds, {end}"]
                for end in ("low", "high")
            )
            assert 1 <= low <= high
        assert (
            table.loc[name, "1 points lost, in predicted seconds"]
            >= table.loc[name, "0.5 points lost, in predicted seconds"]
        )
    assert (table["1 points lost, in multiply-adds"] > 1).any()


def test_accuracy_over_multiply_adds_is_that_of_every_exit_of_cascades_and_as_published(
    choosing, monkeypatch, tmp_path
):
    monkeypatch.setattr(bench_curves, "DROPS", [0.05])
    published = {"ResNet": [(4e7, 0.926), (7e7, 0.9353)]}
    rows = pd.DataFrame(bench_curves.over_the_range(choosing, published))
    points = curve_points(rows[rows["benchmark"] == "multiply-adds"])
    anytime = points["anytime"]
    assert anytime["multiply-adds"].tolist() == [75, 109, 132, 144]
    correct = choosing.scores["entropy"]["test"][1]
    np.testing.assert_allclose(anytime["accuracy"], correct.mean(axis=0))
    assert points["ResNet, published"].to_numpy().tolist() == [[4e7, 0.926], [7e7, 0.9353]]
    for name in bench_curves.BUDGETED:
        spent = points[name]["multiply-adds"]
        assert len(spent) > 1 and spent.between(70, 144).all()
    assert published_points()["L2W-DEN"][1] == (18e6, 0.9407)
    assert published_points()["ResNet"][0] == pytest.approx((40.81e6, 0.926), abs=1e4)
    text = page(rows, {"device_name": "a", "threads": "2", "torch": "2", "model": "toy"})
    assert "| ResNet, published | 40.0 | 92.60 |" in text
    assert "| shared cutoff of deferral |" in text
    pictures = [tmp_path / number / "multiply_adds.svg" for number in "12"]
    for picture in pictures:
        picture.parent.mkdir()
        draw(picture, rows)
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    figure = draw_multiply_adds(rows)
    words = [text.get_text() for text in texts_of(figure)]
    assert {"anytime prediction", "joint of deferral", "every exit"} < set(words)
    assert words.count("ResNet") == 2  # beside its line in either panel
    assert cut_off(figure) == []


def test_public_networks_are_beside_the_cascade(monkeypatch, run):
    network, split, logits, scores, policy = run
    monkeypatch.setattr(bench_public, "PUBLIC", {"ResNet-20": PUBLIC["ResNet-20"]})
    monkeypatch.setattr(bench_public, "TURNS", 2)
    draw = np.random.default_rng(3)
    known = {s: (scores, draw.random(scores.shape) < 0.7) for s in ("val", "test")}
    model, val = hand_made_model(EXITS, BATCH), CalibrationData(*known["val"], logits, split.labels)
    rows = pd.DataFrame(
        bench_public.against_public_networks(
            network, policy, val, known["test"], MULTIPLY_ADDS, model, split, CPU
        )
    )
    points = public_points(rows)
    assert (points["low"] <= points["ms"]).all() and (points["ms"] <= points["high"]).all()
    assert points.loc["ResNet-20", "accuracy"] == 0.926
    assert points.loc["full network", "accuracy"] == known["test"][1][:, -1].mean()
    assert points.loc["full network", "multiply_adds"] == 132  # all blocks and the last head
    taken = [slow_exit(row, policy.thresholds) for row in scores.tolist()]
    right = [known["test"][1][i, k - 1] for i, k in enumerate(taken)]
    spent = [MULTIPLY_ADDS[0, :k].sum() + MULTIPLY_ADDS[1, :k].sum() for k in taken]
    best = points.loc["cascade, best policy"]
    assert best["accuracy"] == pytest.approx(np.mean(right))
    assert best["multiply_adds"] == pytest.approx(np.mean(spent))
    right = [known["val"][1][i, k - 1] for i, k in enumerate(taken)]
    assert best["on val"] == pytest.approx(np.mean(right)) and np.isnan(best["on val, crossed"])
    text = page(rows, {"device_name": "a", "threads": "2", "torch": "2", "model": "toy"})
    assert "| ResNet-20 | 92.60 |  |  |" in text


def test_crossed_accuracy_is_of_thresholds_that_did_not_see_the_sample():
    data = CalibrationData(*random_scores(400))
    model = hand_made_model(EXITS, BATCH)
    model.parts[0] *= 1_000  # leaving early pays
    fitted, crossed = bench_public._frontier(data, model), bench_public._crossed(data, model)
    first, second = (data.sample(np.arange(400)[rows]) for rows in (slice(200), slice(200, None)))
    for name, found in crossed.items():
        right = []
        for half, other in ((first, second), (second, first)):
            thresholds = bench_public._frontier(half, model)[name].thresholds
            for row, is_right in zip(other.scores.tolist(), other.correct, strict=True):
                right.append(is_right[slow_exit(row, thresholds) - 1])
        assert found == pytest.approx(np.mean(right))
    at_no_loss = "cascade, 0 points lost on val"
    taken = [slow_exit(row, fitted[at_no_loss].thresholds) for row in data.scores.tolist()]
    best = np.mean([data.correct[i, k - 1] for i, k in enumerate(taken)])
    assert best >= data.correct[:, -1].mean() > crossed[at_no_loss]


@pytest.mark.parametrize(
    ("name", "million", "parameters"),
    [("ResNet-20", 40.81, 0.27), ("ResNet-56", 125.75, 0.86), ("MobileNetV2 x0.5", 27.97, 0.70)],
)
def test_public_networks_are_as_large_as_their_authors_say(name, million, parameters):
    found = describe(built(name, CPU), torch.zeros(1, 3, 32, 32)).to_pylist()[0]
    assert found["multiply_adds"] / 1e6 == pytest.approx(million, abs=0.01)
    count = sum(p.numel() for p in PUBLIC[name].build().parameters())
    assert count / 1e6 == pytest.approx(parameters, abs=0.005)
    assert built(name, CPU)(torch.rand(2, 3, 32, 32))[0].shape == (2, 10)


def test_folding_a_public_network_changes_nothing():
    plain = PUBLIC["ResNet-20"].build().eval()
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(fuse(plain)(x), plain(x), atol=1e-4, rtol=1e-4)


def test_the_students_cascade_answers_as_ours_does(run):
    network, split, logits, scores, _ = run
    cutoff = float(np.median(scores[:, 0])) + 1e-3
    taken = exits_of(scores, (cutoff,) * (EXITS - 1))
    found = bench_tables._students_labels(network, cutoff, load_images(split, slice(None), CPU))
    assert found.tolist() == logits[np.arange(SAMPLES), taken - 1].argmax(1).tolist()


# The page


def test_the_page_has_every_benchmark_with_its_medians():
    def lines(benchmark, contender, values, unit="seconds", **where):
        return [bench_live.row(benchmark, contender, i, v, unit, **where)
                for i, v in enumerate(values, 1)]  # fmt: skip

    at = {"batch_size": 256, "images": 1000}
    rows = lines("speed", "eager: full network", [2.0, 2.2, 1.9], **at)
    rows += lines("speed", "eager: cascade", [1.0, 1.0, 1.0], **at)
    rows += lines("speed", "eager: cascade, regrouped", [0.5, 0.5, 0.5], **at)
    rows += lines("overhead", "cascade at cutoff 0", [1.06, 1.05, 1.0], **at)
    rows += lines("overhead", "sum of the parts", [1.0, 1.0, 1.1], **at)
    rows += lines("peak", "full network", [80.0], "Gflop/s", **at)
    rows += lines("peak", "cascade", [64.0], "Gflop/s", **at)
    rows += lines("peak", "convolution of 8 channels, 9x9", [100.0], "Gflop/s", **at)
    rows += lines("peak", "convolution of 9 channels, 9x9", [90.0], "Gflop/s", **at)
    rows += lines("sweep", "sweep of 50 cutoffs", [0.1], **at)
    rows += lines("sweep", "loop of masks over 50 cutoffs", [0.2], **at)
    rows += lines("sweep", "live run of cutoff 0.1", [6.0], **at)
    rows += lines("sweep", "live run of cutoff 1", [2.0], **at)
    rows += lines("memory", "dump", [512.0], "MiB", images=6000)
    rows += lines("memory", "dump", [520.0], "MiB", images=60000)
    origin = {"device_name": "some CPU", "threads": "2", "torch": "2", "model": "toy"}
    text = page(pd.DataFrame(rows), origin)
    assert "# Benchmarks of toy" in text and "some CPU, 2 threads" in text
    assert "| 256 | eager | 2 [1.9, 2.2] | 1 [1, 1] | 2.00x [1.90, 2.20] |" in text
    assert "| dump |  |  | 6000 | 512 | MiB |" in text
    assert "The cascade takes +5.0% against the sum of its parts." in text
    assert "80% of the best convolution; the cascade takes 1.25 times" in text
    assert "would take 200 s at the mean of those above: 2,000 times the sweep" in text
    assert "2.0 times as long as the sweep" in text
    assert "peak is +8 MiB from the smaller's" in text
    assert spread(pd.Series([0.123456])) == "0.123"
