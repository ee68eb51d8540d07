"""Means over seeds and documents: closed forms, and how often an interval covers a mean that is known."""

import math

import numpy as np
import pytest
from relora_study.analysis.effects import EQUAL, HIGHER, LOWER, UNDECIDED, Effect, holm, verdicts
from scipy.stats import t, ttest_1samp, ttest_rel

TRUTH = 0.05


def made_up(
    random, seeds: int, documents: int, deviations: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Differences in nats [seeds, documents] with known deviations of seeds, documents and the rest, and tokens."""
    of_seed, of_document, of_rest = deviations
    tokens = random.integers(50, 2000, documents).astype(float)
    loss = TRUTH + of_seed * random.normal(size=(seeds, 1)) + of_document * random.normal(size=(1, documents))
    return (loss + of_rest * random.normal(size=(seeds, documents))) * tokens, tokens


def pigeonhole(nats: np.ndarray, tokens: np.ndarray, random) -> tuple[float, float]:
    """The 95 % percentile interval of Owen and Eckles's bootstrap, which resamples seeds and documents."""
    seeds, documents = nats.shape
    means = []
    for _ in range(300):
        rows, columns = random.integers(seeds, size=seeds), random.integers(documents, size=documents)
        means.append(nats[rows][:, columns].sum() / seeds / tokens[columns].sum())
    return tuple(np.quantile(means, [0.025, 0.975]))


@pytest.mark.parametrize("deviations", [(0.03, 0.15, 0.1), (0.05, 0.02, 0.02), (0.002, 0.3, 0.05)])
@pytest.mark.parametrize("seeds", [3, 5])
def test_an_interval_covers_the_truth_as_often_as_it_says(seeds, deviations):
    random = np.random.default_rng(0)
    found = [Effect.of(*made_up(random, seeds, 120, deviations)).interval for _ in range(1500)]
    covered = np.mean([low <= TRUTH <= high for low, high in found])
    assert 0.93 <= covered <= 0.985, "19 of 20, and somewhat more where the rest counts twice"


def test_the_pigeonhole_bootstrap_of_three_seeds_covers_less_than_it_says():
    """Why it is not ours: it draws 27 combinations of three seeds, and takes no account of how few they are."""
    random = np.random.default_rng(1)
    drawn = [made_up(random, 3, 60, (0.05, 0.05, 0.02)) for _ in range(200)]
    covered = np.mean([low <= TRUTH <= high for low, high in (pigeonhole(*pair, random) for pair in drawn)])
    assert covered < 0.87
    assert np.mean([Effect.of(*pair).interval[0] <= TRUTH <= Effect.of(*pair).interval[1] for pair in drawn]) > 0.92


def test_an_interval_of_seeds_alone_misses_the_chance_of_documents():
    random = np.random.default_rng(2)
    misses = 0
    for _ in range(300):
        nats, tokens = made_up(random, 5, 120, (0.002, 0.3, 0.05))
        low, high = ttest_1samp(nats.sum(1) / tokens.sum(), 0).confidence_interval(0.95)
        misses += not low <= TRUTH <= high
    assert misses > 150


def test_one_value_a_seed_gives_students_interval_and_test():
    ours, other = np.array([5.1, 5.4, 5.2, 5.0]), np.array([5.0, 5.2, 5.05, 5.02])
    found, oracle = Effect.over_seeds(ours - other), ttest_rel(ours, other)
    assert found.interval == pytest.approx(tuple(oracle.confidence_interval(0.95)))
    assert (found.p, found.seeds, found.chance) == (pytest.approx(oracle.pvalue), 4, "seeds")


def test_documents_of_equal_length_at_one_seed_give_students_interval_over_documents():
    losses = np.random.default_rng(3).normal(5, 0.3, 50)
    found = Effect.of(losses * 100, np.full(50, 100.0))
    assert found.interval == pytest.approx(tuple(ttest_1samp(losses, 0).confidence_interval(0.95)))
    assert found.chance == "documents, one seed"


def test_one_seed_on_one_document_and_no_seed_at_all_have_no_interval():
    for found in (Effect.over_seeds([0.3]), Effect.over_seeds([])):
        assert math.isnan(found.interval[0]) and math.isnan(found.p) and found.chance == ""
        assert verdicts([found], 0.03) == [("", pytest.approx(math.nan, nan_ok=True))]


def at(mean: float, error: float = 0.005, df: float = 30, seeds: int = 3) -> Effect:
    return Effect(mean, error, df, seeds, 100)


EDGE = t.ppf(0.975, 30) * 0.005  # half of the interval


@pytest.mark.parametrize(
    ("mean", "verdict"),
    [
        (0.03 + EDGE + 1e-4, HIGHER),
        (0.03 + EDGE - 1e-4, UNDECIDED),
        (0.03 - EDGE + 1e-4, UNDECIDED),
        (0.03 - EDGE - 1e-4, EQUAL),
        (-0.03 + EDGE + 1e-4, EQUAL),
        (-0.03 + EDGE - 1e-4, UNDECIDED),
        (-0.03 - EDGE - 1e-4, LOWER),
    ],
)
def test_a_verdict_is_the_interval_against_the_margin(mean, verdict):
    assert verdicts([at(mean)], 0.03)[0][0] == verdict


def test_without_a_margin_nothing_is_equal():
    assert [found for found, _ in verdicts([at(0.0), at(0.1)], 0.0)] == [UNDECIDED, HIGHER]
    assert verdicts([Effect(0.0, 0.0, 5, 3)], 0.0)[0][0] == EQUAL, "equal to the bit is equal"


def test_many_verdicts_of_a_table_share_its_level():
    near = at(0.03 + EDGE + 1e-4)
    assert verdicts([near], 0.03)[0][0] == HIGHER
    assert [found for found, _ in verdicts([near, at(0.03), at(0.4)], 0.03)] == [UNDECIDED, UNDECIDED, HIGHER]


def test_a_verdict_of_one_seed_says_so():
    assert verdicts([at(0.4, seeds=1)], 0.03)[0][0] == "higher, one seed"


def test_holm_multiplies_the_smallest_by_all_and_never_falls():
    """Holm 1979: sorted p-values times the number of tests not yet rejected, made monotone."""
    corrected = holm([0.01, 0.04, 0.03, math.nan])
    assert corrected[:3].tolist() == pytest.approx([0.03, 0.06, 0.06]) and math.isnan(corrected[3])
