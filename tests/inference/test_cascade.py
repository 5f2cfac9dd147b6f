"""The live cascade against full logits and tables, and the pass that dumps them."""

import numpy as np
import pytest
import torch
from conftest import ORIGIN, documented, hand_made_model, some_weights, toy_images, toy_network
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from offramp import OfframpError
from offramp.data.splits import Split, load_images
from offramp.inference.backends import for_inference
from offramp.inference.cascade import (
    Samples,
    remove,
    run_cascade,
    run_cascade_regrouped,
    run_full_network,
)
from offramp.inference.forward import dump_split
from offramp.inference.probe import descents, probe, probe_sizes
from offramp.networks.identity import Identity
from offramp.networks.loading import build, load, save
from offramp.networks.multiexit import MultiExitNetwork
from offramp.scoring.criteria import CRITERIA, entropy
from offramp.scoring.policy import Policy, exits_of, policy_scores, shared_cutoff
from offramp.tables.files import origin_of, read_logits, sha256
from offramp.thresholds.time_model import fit_time_model

CPU = torch.device("cpu")
SAMPLES, CLASSES = 24, 10
# A network of each number of exits, its images, and the logits of a pass over all of them.
IMAGES = toy_images(SAMPLES, seed=1)
NETWORKS = {exits: toy_network(exits, CLASSES, seed=exits) for exits in (1, 2, 4)}
with torch.inference_mode():
    LOGITS = {
        exits: torch.stack(network(IMAGES), dim=1).numpy() for exits, network in NETWORKS.items()
    }


def safe_limits(scores: np.ndarray) -> list[float]:
    """Thresholds that no float noise can push a sample across: below all scores, above all, and
    in the gaps that are wider than ten times the 1e-5 by which live and table may differ."""
    ordered = np.sort(scores)
    wide = np.diff(ordered) > 2e-4
    middles = (ordered[:-1] + ordered[1:])[wide] / 2
    return [float(ordered[0]) - 0.1, *middles.tolist(), float(ordered[-1]) + 0.1]


@st.composite
def policies_and_rows(draw):
    """A network, a policy of it, and the rows of a batch in any order."""
    exits = draw(st.sampled_from(sorted(NETWORKS)))
    temperatures = None
    if draw(st.booleans()):
        temperatures = tuple(draw(st.sampled_from([0.5, 1.0, 3.0])) for _ in range(exits - 1))
    criterion = draw(st.sampled_from(sorted(CRITERIA)))
    weights = some_weights(criterion, exits - 1, LOGITS[exits].shape[2])
    blank = Policy(criterion, (None,) * (exits - 1), temperatures, weights)
    scores = policy_scores(blank, LOGITS[exits])
    thresholds = tuple(
        draw(st.one_of(st.none(), st.sampled_from(safe_limits(scores[:, k]))))
        for k in range(exits - 1)
    )
    rows = draw(st.lists(st.integers(0, SAMPLES - 1), min_size=1, max_size=SAMPLES, unique=True))
    return exits, blank._replace(thresholds=thresholds), rows


def from_table(logits: np.ndarray, policy: Policy) -> tuple[list[int], list[int]]:
    """Labels and exits that the table of logits (N, K, C) gives under a policy."""
    taken = exits_of(policy_scores(policy, logits), policy.thresholds)
    labels = logits[np.arange(len(logits)), taken - 1].argmax(axis=1)
    return labels.tolist(), taken.tolist()


def live(network, policy: Policy, images) -> tuple[list[int], list[int]]:
    labels, exits = run_cascade(network, policy, images)
    assert (labels.dtype, exits.dtype) == (torch.int64, torch.int64)
    return labels.tolist(), exits.tolist()


def test_the_toy_logits_are_far_enough_apart_for_labels_to_be_compared():
    # Float noise may swap two largest logits that lie within 1e-4; here none do.
    for logits in LOGITS.values():
        largest = np.sort(logits, axis=2)
        assert (largest[..., -1] - largest[..., -2]).min() > 1e-4


@given(policies_and_rows())
@settings(max_examples=150)
@example((4, Policy("entropy", (None, None, None)), list(range(SAMPLES))))
@example((4, Policy("entropy", (9.0, 9.0, 9.0)), list(range(SAMPLES))))
@example((4, Policy("entropy", (-1.0, -1.0, -1.0)), list(range(SAMPLES))))
@example((4, Policy("entropy", (None, 9.0, None)), [3]))
@example((1, Policy("entropy", ()), [5, 2]))
def test_the_cascade_does_what_the_logits_say_in_input_order(case):
    exits, policy, rows = case
    images = IMAGES[rows]
    assert live(NETWORKS[exits], policy, images) == from_table(LOGITS[exits][rows], policy)


@given(policies_and_rows(), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=100)
def test_regrouping_survivors_changes_no_answer(case, size, group):
    exits, policy, rows = case
    batches = IMAGES[rows].split(size)
    labels, taken = run_cascade_regrouped(NETWORKS[exits], policy, batches, group)
    assert (labels.tolist(), taken.tolist()) == from_table(LOGITS[exits][rows], policy)


def test_regrouped_blocks_see_full_batches_until_the_end():
    sizes = []

    class Counted(nn.Module):
        def forward(self, x):
            sizes.append(len(x))
            return NETWORKS[2].blocks[1](x)

    counted = with_parts(NETWORKS[2], blocks={1: Counted()})
    scores = policy_scores(Policy("entropy", (None,)), LOGITS[2])[:, 0]
    policy = Policy("entropy", (float(np.median(scores)),))
    run_cascade_regrouped(counted, policy, IMAGES.split(6), 6)
    assert sum(sizes) == (scores > np.median(scores)).sum()
    assert sizes[:-1] == [6] * (len(sizes) - 1)


# What a user may give that is not right


def spoilt(value: float) -> torch.Tensor:
    images = IMAGES.clone()
    images[3, 1, 2, 2] = value
    return images


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (IMAGES.double(), "images: want float32 in 0..1 (pixels / 255), not torch.float64"),
        ((IMAGES * 255).to(torch.uint8), "not torch.uint8"),
        (IMAGES.half(), "not torch.float16"),
        (IMAGES.numpy(), "not ndarray"),
        (IMAGES * 255, "want 0..1 (pixels / 255, not normalised), found 0"),
        ((IMAGES - 0.5) / 0.25, "found -2 to 2"),
        (spoilt(float("nan")), "found nan to nan"),
        (spoilt(float("inf")), "to inf"),
        (IMAGES[0], "images: want shape (N, 3, 32, 32), not (3, 32, 32)"),
        (IMAGES[:, :1], "want shape (N, 3, 32, 32), not (24, 1, 32, 32)"),
        (IMAGES.permute(0, 2, 3, 1), "want shape (N, 3, 32, 32), not (24, 32, 32, 3)"),
        (IMAGES.to("meta"), "images: on meta, where the network is on cpu"),
    ],
)
def test_images_that_are_none_are_refused_in_one_line(images, words):
    policy = shared_cutoff(1.0, 3)
    for run in (
        lambda: run_cascade(NETWORKS[4], policy, images),
        lambda: run_cascade_regrouped(NETWORKS[4], policy, [IMAGES, images], 8),
    ):
        with pytest.raises(OfframpError) as caught:
            run()
        assert words in str(caught.value) and "\n" not in str(caught.value)
        assert documented(str(caught.value))


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (shared_cutoff(1.0, 2), "the policy: 2 thresholds for 3 side exits"),
        (shared_cutoff(1.0, 4), "the policy: 4 thresholds for 3 side exits"),
        (Policy("entropy", ()), "the policy: 0 thresholds for 3 side exits"),
        (Policy("entropy", (1.0,) * 3, (1.0,)), "the policy: 1 temperatures for 3 side exits"),
        (
            Policy("deferral", (1.0,) * 3, None, some_weights("deferral", 3, CLASSES - 1)),
            "the policy: weights: of 9 classes, not of 10",
        ),
        (
            Policy("entropy", (1.0,) * 3, None, None, Identity("other", "o.pt", "b" * 64)),
            "the policy: network: chosen for other with o.pt (sha256 bbbbbbbbbbbb), not for toy",
        ),
    ],
)
def test_a_policy_of_another_network_is_refused_before_anything_runs(policy, words):
    network = toy_network(4, CLASSES, seed=4)
    network.identity = Identity("toy", "toy.pt", "a" * 64)
    for run in (
        lambda: run_cascade(network, policy, IMAGES),
        lambda: run_cascade_regrouped(network, policy, IMAGES.split(5), 8),
    ):
        with pytest.raises(OfframpError) as caught:
            run()
        assert words in str(caught.value)
        assert documented(str(caught.value))


@pytest.mark.parametrize("size", [0, -1, 2.0, "8", True, None])
def test_a_batch_size_that_is_none_is_refused_not_waited_for(size):
    with pytest.raises(OfframpError, match=r"batch_size: want a whole number from 1 on, not"):
        run_cascade_regrouped(NETWORKS[4], shared_cutoff(1.0, 3), IMAGES.split(5), size)


@pytest.mark.parametrize("exits", NETWORKS)
def test_no_images_have_no_answers(exits):
    policy = shared_cutoff(1.0, exits - 1)
    for labels, taken in (
        run_cascade(NETWORKS[exits], policy, IMAGES[:0]),
        run_cascade_regrouped(NETWORKS[exits], policy, [IMAGES[:0]], 8),
    ):
        assert (labels.dtype, labels.shape, taken.shape) == (torch.int64, (0,), (0,))
    mixed = [IMAGES[:0], IMAGES[:5], IMAGES[:0], IMAGES[5:]]
    labels, taken = run_cascade_regrouped(NETWORKS[exits], policy, mixed, 8)
    assert (labels.tolist(), taken.tolist()) == live(NETWORKS[exits], policy, IMAGES)
    with pytest.raises(OfframpError, match=r"batches: there are none"):
        run_cascade_regrouped(NETWORKS[exits], policy, [], 8)


def test_a_network_knows_which_weights_it_was_loaded_with(tmp_path):
    save(build("branchynet", CLASSES), tmp_path / "own.safetensors", {})
    network = load("branchynet", CLASSES, tmp_path / "own.safetensors", CPU)
    own = Identity(
        "branchynet", str(tmp_path / "own.safetensors"), sha256(tmp_path / "own.safetensors")
    )
    assert network.identity == for_inference(network, "eager").identity == own


def test_random_policies_use_every_exit():
    """The comparison above is worth something: one policy spreads the samples over all exits."""
    scores = policy_scores(Policy("entropy", (None,) * 3), LOGITS[4])
    spread = Policy("entropy", tuple(float(np.quantile(scores[:, k], 0.3)) for k in range(3)))
    assert set(live(NETWORKS[4], spread, IMAGES)[1]) == {1, 2, 3, 4}


def test_all_disabled_gives_the_full_networks_labels():
    labels, exits = live(NETWORKS[4], Policy("entropy", (None,) * 3), IMAGES)
    assert exits == [4] * SAMPLES
    assert labels == run_full_network(NETWORKS[4], IMAGES).tolist()


@pytest.mark.parametrize("exits", NETWORKS)
def test_the_full_network_is_the_largest_logit_of_the_last_head(exits):
    labels = run_full_network(NETWORKS[exits], IMAGES)
    assert labels.dtype == torch.int64
    assert labels.tolist() == LOGITS[exits][:, -1].argmax(axis=1).tolist()


class Forbidden(nn.Module):
    """A part that must not run."""

    def forward(self, x):
        raise AssertionError("this part must not run")


def with_parts(network, blocks=None, heads=None) -> MultiExitNetwork:
    """The network with some blocks or heads (by index) replaced."""
    other = MultiExitNetwork()
    other.blocks = tuple((blocks or {}).get(k, part) for k, part in enumerate(network.blocks))
    other.heads = tuple((heads or {}).get(k, part) for k, part in enumerate(network.heads))
    return other


@pytest.mark.parametrize("criterion", ["patience", "agreement"])
def test_a_disabled_head_runs_only_for_a_later_exit_that_looks_back(criterion):
    blank = Policy(criterion, (None,) * 3)
    scores = policy_scores(blank, LOGITS[4])[:, 1]
    limit = safe_limits(scores)[-2 if criterion == "agreement" else 1]
    policy = blank._replace(thresholds=(None, limit, None))
    assert policy.runs[0].tolist() == [True, True, False, True]
    network = with_parts(NETWORKS[4], heads={2: Forbidden()})
    answers = live(network, policy, IMAGES)
    assert answers == from_table(LOGITS[4], policy)
    assert set(answers[1]) == {2, 4}
    nobody = with_parts(NETWORKS[4], heads=dict.fromkeys(range(3), Forbidden()))
    assert set(live(nobody, blank, IMAGES)[1]) == {4}


def test_a_disabled_head_never_runs():
    policy = Policy("entropy", (None, safe_limits(policy_scores_of(4)[:, 1])[8], None))
    network = with_parts(NETWORKS[4], heads={0: Forbidden(), 2: Forbidden()})
    assert live(network, policy, IMAGES) == from_table(LOGITS[4], policy)


def policy_scores_of(exits: int) -> np.ndarray:
    return policy_scores(Policy("entropy", (None,) * (exits - 1)), LOGITS[exits])


def test_the_full_network_runs_no_side_head():
    network = with_parts(NETWORKS[4], heads=dict.fromkeys(range(3), Forbidden()))
    assert run_full_network(network, IMAGES).tolist() == LOGITS[4][:, 3].argmax(axis=1).tolist()


def test_once_all_have_left_nothing_more_runs():
    network = with_parts(
        NETWORKS[4], blocks={2: Forbidden(), 3: Forbidden()}, heads={2: Forbidden(), 3: Forbidden()}
    )
    assert live(network, Policy("entropy", (None, 9.0, None)), IMAGES)[1] == [2] * SAMPLES


class Constant(nn.Module):
    """A head that says the same of everyone."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x):
        return self.logits.expand(len(x), -1)


def test_a_live_sample_that_ties_with_the_threshold_leaves():
    network = with_parts(NETWORKS[2], heads={0: Constant([[1e4, 0.0, 0.0]])})
    assert live(network, Policy("entropy", (0.0,)), IMAGES)[1] == [1] * SAMPLES


def test_the_live_decision_is_taken_in_float64():
    logits = [20.0, 0.0, 0.0]
    network = with_parts(NETWORKS[2], heads={0: Constant([logits])})
    precise = float(entropy(np.array(logits)))
    rough = float(entropy(np.array(logits, dtype=np.float32)))
    assert rough < 0.96 * precise  # float32 would let all of them leave
    between = Policy("entropy", ((rough + precise) / 2,))
    assert live(network, between, IMAGES)[1] == [2] * SAMPLES


def test_a_disabled_exit_does_not_fire_live_even_at_entropy_zero():
    network = with_parts(NETWORKS[2], heads={0: Constant([[1e4, 0.0, 0.0]])})
    assert live(network, Policy("entropy", (None,)), IMAGES)[1] == [2] * SAMPLES


class Watched(nn.Module):
    """A block that notes how many samples it gets, and that they are channels_last."""

    def __init__(self, part, seen):
        super().__init__()
        self.part, self.seen = part, seen

    def forward(self, x):
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert not x.is_contiguous()
        self.seen.append(len(x))
        return self.part(x)


def test_every_block_gets_only_the_survivors_still_in_channels_last():
    scores = policy_scores_of(4)
    policy = Policy("entropy", tuple(safe_limits(scores[:, k])[6] for k in range(3)))
    seen: list[int] = []
    blocks = {k: Watched(block, seen) for k, block in enumerate(NETWORKS[4].blocks)}
    taken = np.array(live(with_parts(NETWORKS[4], blocks=blocks), policy, IMAGES)[1])
    assert seen == [int((taken >= k).sum()) for k in range(1, 5)]
    assert seen[1] < seen[0]


def test_removal_keeps_those_who_stay_in_order_and_in_channels_last():
    index, stay = torch.arange(100, 100 + SAMPLES), torch.tensor([1, 5, 6])
    features, positions, _ = remove(Samples(IMAGES, index), stay)
    assert features.is_contiguous(memory_format=torch.channels_last)
    assert not features.is_contiguous()
    assert torch.equal(features, torch.stack([IMAGES[1], IMAGES[5], IMAGES[6]]))
    assert positions.tolist() == [101, 105, 106]


def toy_split(samples: int = 13) -> Split:
    """A split in an order that is not that of its images, with images left over."""
    random = np.random.default_rng(4)
    images = random.integers(0, 256, (samples + 5, 32, 32, 3), dtype=np.uint8)
    order = random.permutation(samples + 5)[:samples]
    return Split(images, (order * 3) % CLASSES, order)


def dump(path, network, split, batch_size):
    return dump_split(network, split, "val", CLASSES, batch_size, CPU, str(path), ORIGIN)


@pytest.mark.parametrize("batch_size", [1, 4, 13, 100])
@pytest.mark.parametrize("exits", [1, 4])
def test_the_dump_holds_every_sample_in_order_with_the_networks_logits(tmp_path, batch_size, exits):
    split, path = toy_split(), tmp_path / "logits.parquet"
    timings = dump(path, NETWORKS[exits], split, batch_size)
    ids, labels, logits, table = read_logits(path)
    assert ids.tolist() == split.order.tolist()
    assert labels.tolist() == split.labels.tolist()
    with torch.inference_mode():
        want = torch.stack(NETWORKS[exits](load_images(split, slice(0, 13), CPU)), dim=1)
    np.testing.assert_allclose(logits, want.numpy(), rtol=1e-4, atol=1e-4)
    assert origin_of(table)["weights_sha256"] == ORIGIN["weights_sha256"]
    assert list(tmp_path.iterdir()) == [path]

    sizes = [rows.stop - rows.start for rows in split.batches(batch_size)]
    found = [
        (row["batch"], row["exit"], row["part"], row["batch_size"]) for row in timings.to_pylist()
    ]
    assert sorted(found) == sorted(
        (b, k, part, size)
        for b, size in enumerate(sizes)
        for k in range(1, exits + 1)
        for part in ("block", "head", "decide")
    )
    assert set(timings["split"].to_pylist()) == {"val"}
    assert min(timings["seconds"].to_pylist()) > 0


class NotANumberAt(nn.Module):
    """A head that fails at one row of one batch; the batches before pass."""

    def __init__(self, head, image, value):
        super().__init__()
        self.head, self.image, self.value = head, image, value

    def forward(self, x):
        logits = self.head(x).clone()
        hit = (x == self.image).flatten(1).all(1)
        logits[hit, 2] = self.value
        return logits


class Passing(nn.Module):
    def forward(self, x):
        return x


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("row", [0, 11])
def test_a_logit_that_is_not_finite_stops_the_dump_and_leaves_no_file(tmp_path, value, row):
    split = toy_split()
    # Block 1 passes the image on, so that head 1 can know it again.
    bad = load_images(split, slice(row, row + 1), CPU)
    head = NotANumberAt(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, CLASSES)), bad, value)
    network = with_parts(NETWORKS[2], blocks={0: Passing(), 1: Passing()}, heads={0: head, 1: head})
    with pytest.raises(OfframpError) as caught:
        dump(tmp_path / "logits.parquet", network, split, 4)
    assert f"sample {split.order[row]}:" in str(caught.value)
    assert "exit 1 " in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_probe_times_the_batch_sizes_up_to_the_configured_one():
    assert probe_sizes(1) == [1]
    assert probe_sizes(8) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert probe_sizes(40) == [1, 4, 16, 40]
    assert probe_sizes(500)[-2:] == [384, 500]


@pytest.mark.parametrize(("batch_size", "exits"), [(256, 6), (10, 3), (1, 4), (8, 1)])
def test_descents_meet_every_size_at_every_stage_and_only_shrink(batch_size, exits):
    walks = descents(batch_size, exits)
    met = {(k, n) for walk in walks for k, n in enumerate(walk)}
    assert met == {(k, n) for k in range(exits) for n in probe_sizes(batch_size)}
    assert all(walk == sorted(walk, reverse=True) for walk in walks)
    # Beyond the first stage a walk ends at the small size that it is for.
    small = [walk for walk in walks if walk[0] == batch_size and walk[-1] < batch_size]
    assert {(len(walk), walk[-1]) for walk in small} == {
        (k + 1, n) for k in range(1, exits) for n in probe_sizes(batch_size)[:-1]
    }


def test_a_probe_times_a_criterion_that_looks_back():
    policy = shared_cutoff(0.0, 3, "patience", (1.0,) * 3)
    table = probe(NETWORKS[4], policy, toy_split(), 6, CPU)
    model = fit_time_model(table)
    assert (model.parts[:, :, 1:] > 0).all() and model.removal.shape == (3, 3)


@pytest.mark.parametrize("batch_size", [1, 6])
def test_a_probe_can_be_fitted_and_asked_for_every_batch_up_to_the_configured_size(batch_size):
    table = probe(NETWORKS[2], shared_cutoff(0.0, 1), toy_split(), batch_size, CPU)
    sizes = probe_sizes(batch_size)
    assert set(table["split"].to_pylist()) == {"probe"}
    assert sorted(set(table["batch_size"].to_pylist())) == sizes
    removed = [row for row in table.to_pylist() if row["part"] == "remove"]
    assert all(0 < row["kept"] < row["batch_size"] for row in removed)
    model = fit_time_model(table)
    assert model.parts.shape == hand_made_model(2, batch_size).parts.shape
    assert (model.parts[:, :, 1:] > 0).all()
    assert np.isfinite(model.removal).all()
