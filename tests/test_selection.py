"""Each rule against its statement, tried on every candidate in turn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.policy import Policy
from offramp.selection import RULES, Candidate, pareto_frontier

N = 20


def candidate(seconds: float, correct: int, n: int = N) -> Candidate:
    return Candidate(Policy("entropy", (0.5,)), {"cutoff": 0.5}, seconds, correct, n)


def choose(rule: str, candidates, **options):
    return RULES[rule](
        candidates, full_correct=N, **{"max_loss": 0.1, "min_accuracy": 0.8} | options
    )


# Few values, so that candidates are often equally fast or equally right.
CANDIDATES = st.lists(
    st.builds(candidate, st.sampled_from([1.0, 2.0, 3.0]), st.integers(0, N)), max_size=8
)


def assert_fastest(chosen, allowed):
    """The chosen one is allowed, none allowed is faster, and none as fast is more often right."""
    if not allowed:
        assert chosen is None
        return
    assert chosen in allowed
    assert chosen.seconds == min(c.seconds for c in allowed)
    assert chosen.correct == max(c.correct for c in allowed if c.seconds == chosen.seconds)


@given(CANDIDATES, st.integers(0, N), st.integers(0, N))
def test_fastest_within_loss_is_the_fastest_that_loses_little_enough(candidates, full, lost):
    chosen = RULES["fastest_within_loss"](candidates, full_correct=full, max_loss=lost / N)
    assert_fastest(chosen, [c for c in candidates if full - c.correct <= lost])


@given(CANDIDATES, st.integers(0, N))
def test_fastest_above_accuracy_is_the_fastest_that_is_accurate_enough(candidates, least):
    chosen = RULES["fastest_above_accuracy"](
        candidates, full_correct=N, min_accuracy=least / N, max_loss=0
    )
    assert_fastest(chosen, [c for c in candidates if c.correct >= least])


@given(CANDIDATES)
def test_best_accuracy_per_second_has_the_largest_ratio(candidates):
    chosen = choose("best_accuracy_per_second", candidates)
    if not candidates:
        assert chosen is None
    else:
        best = max(c.correct / c.n / c.seconds for c in candidates)
        assert chosen in candidates
        assert chosen.correct / chosen.n / chosen.seconds == best


@given(CANDIDATES)
def test_the_frontier_holds_exactly_those_whom_none_dominates(candidates):
    def dominated(c):
        return any(
            (o.seconds <= c.seconds and o.correct >= c.correct)
            and (o.seconds < c.seconds or o.correct > c.correct)
            for o in candidates
        )

    want = sorted({(c.seconds, c.correct) for c in candidates if not dominated(c)})
    assert [(c.seconds, c.correct) for c in pareto_frontier(candidates)] == want


@pytest.mark.parametrize("rule", RULES)
def test_without_candidates_every_rule_chooses_none(rule):
    assert choose(rule, []) is None


def test_when_every_candidate_loses_too_much_none_is_chosen():
    assert choose("fastest_within_loss", [candidate(1, 10), candidate(2, 17)]) is None
    assert choose("fastest_above_accuracy", [candidate(1, 10), candidate(2, 15)]) is None


@pytest.mark.parametrize("full_correct", [4000, 4321, 4999, 5000])
def test_the_largest_allowed_loss_still_passes_and_one_more_does_not(full_correct):
    rule, options = RULES["fastest_within_loss"], {"full_correct": full_correct, "max_loss": 0.005}
    passes = candidate(1.0, full_correct - 25, n=5000)
    assert rule([passes], **options) == passes
    assert rule([candidate(1.0, full_correct - 26, n=5000)], **options) is None


def test_what_was_fitted_to_validation_data_is_expected_to_lose_more():
    lucky = candidate(1.0, 4990, n=5000)._replace(optimism=0.004)
    honest = candidate(2.0, 4990, n=5000)
    rule = RULES["fastest_within_loss"]
    assert rule([lucky, honest], full_correct=5000, max_loss=0.005) == honest
    assert rule([lucky, honest], full_correct=5000, max_loss=0.006) == lucky
    assert choose("fastest_above_accuracy", [lucky, honest], min_accuracy=0.996) == honest
    assert pareto_frontier([honest, lucky]) == [lucky, honest]


def test_an_accuracy_of_exactly_the_minimum_passes():
    passes = candidate(1.0, 4000, n=5000)
    assert choose("fastest_above_accuracy", [passes], min_accuracy=0.8) == passes
    assert (
        choose("fastest_above_accuracy", [candidate(1.0, 3999, n=5000)], min_accuracy=0.8) is None
    )


def test_a_gain_over_the_full_network_is_no_loss():
    better = candidate(1.0, 20)
    assert RULES["fastest_within_loss"]([better], full_correct=15, max_loss=0.0) == better


def test_of_the_equally_fast_the_more_accurate_is_chosen():
    best = candidate(1.0, 19)
    assert choose("fastest_within_loss", [candidate(1.0, 18), best, candidate(2.0, 20)]) == best


def test_the_knee_is_the_corner_of_a_bent_frontier():
    # Steep up to 5 seconds, flat from there on: the corner is no matter of taste.
    steep = [candidate(s, 10 * s, n=100) for s in range(1, 6)]
    flat = [candidate(s, 45 + s, n=100) for s in range(6, 16)]
    dominated = [candidate(9.5, 3, n=100)]
    chosen = choose("knee", dominated + flat + steep)
    assert (chosen.seconds, chosen.correct) == (5, 50)


def test_a_frontier_of_fewer_than_three_has_no_knee():
    assert choose("knee", [candidate(1, 5), candidate(2, 9), candidate(3, 9)]) is None
