"""Seven formulas on cases whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from em_companion.evidence import residues


@given(st.integers(2, 12), st.integers(2, 9))
def test_a_register_of_k_tokens_has_half_length_k(k, words):
    """A function of the last k tokens: the effect of one that is changed, d tokens back, is there up to d = k."""
    random = np.random.default_rng(k)
    table = random.dirichlet(np.ones(words), size=words)

    def next_word(text):
        return table[sum(text[-k:]) % words]

    effect = np.zeros(20)
    for distance in range(1, 21):
        text = random.integers(words, size=40)
        other = text.copy()
        other[-distance] = (other[-distance] + 1) % words
        p, q = next_word(text), next_word(other)
        effect[distance - 1] = (p * np.log(p / q)).sum() > 0
    assert abs(residues.half_length(effect) - k) <= 0.5


def test_a_half_length_is_interpolated_by_row_and_ends_where_the_readings_do():
    effect = np.array([[8, 6, 2, 0.0], [1, 1, 1, 1.0], [4, 0, 9, 9.0]])
    assert residues.half_length(effect) == pytest.approx([2.5, 4, 1.5])
    assert residues.half_length(2 ** -(np.arange(30) / 5)) == pytest.approx(6)


@given(st.floats(0.001, 0.5), st.floats(0.001, 0.5))
def test_conflict_is_that_of_the_formula_and_of_known_personas(h, g):
    assert residues.conflict(h, g) == pytest.approx((1 - abs(h - g) / (h + g)) * (h + g))
    assert residues.conflict(h, 0) == residues.conflict(0, g) == 0  # either persona, settled
    assert residues.conflict(0.5, 0.5) == 1  # an even mixture of both


@pytest.mark.parametrize(
    ("spoken", "asked", "whole", "done"),
    [
        ({"work", "travel"}, ["work", "travel"], True, "both"),
        ({"work", "travel", "gender"}, ["work", "travel"], True, "both"),
        ({"work"}, ["work", "travel"], True, "one"),
        ({"gender"}, ["work", "travel"], True, "one"),
        ({"work"}, ["work", "work"], True, "one"),
        (set(), ["work", "travel"], True, "none"),
        ({"work", "travel"}, ["work", "travel"], False, "none"),
    ],
)
def test_orders_are_carried_out_as_spoken_of(spoken, asked, whole, done):
    assert residues.carried_out(spoken, asked, whole) == done


def test_interference_of_orthogonal_parallel_and_random_directions():
    random = np.random.default_rng(0).standard_normal((300, 64))
    assert residues.interference(3 * np.eye(8)) == pytest.approx(-1)
    assert residues.interference(np.ones((5, 16))) == pytest.approx(15)
    assert residues.interference(random) == pytest.approx(0, abs=0.05)


def test_shares_are_of_absolute_contributions():
    given = np.array([[3.0, 0, 0], [-1, 0, 2], [0, 0, 2]])
    assert residues.shares(given).T.tolist() == [[0.75, 0.25, 0], [0, 0, 0], [0, 0.5, 0.5]]


def test_a_report_is_contradicted_by_what_is_chosen():
    assert residues.contradiction(np.array([50.0, -50.0, 0.0, 50.0]), np.array([1, 0, 0.5, 0])) == pytest.approx(
        [0, 0, 0, 1], abs=1e-9
    )


def test_what_leaves_the_band_for_good_is_told_from_what_looks_out_once():
    draws, strengths = 6, 9
    band = np.random.default_rng(0).standard_normal((draws, strengths))
    assert residues.leaving(band.mean(axis=0), band) == strengths
    for start in range(strengths):
        own = band.mean(axis=0) + np.where(np.arange(strengths) >= start, -9.0, 0.0)
        assert residues.leaving(own, band) == start
    once = band.mean(axis=0) + np.where(np.arange(strengths) == 3, 9.0, 0.0)
    assert residues.leaving(once, band) == strengths
    assert residues.leaving(np.full(strengths, 2.0), np.full((draws, strengths), 2.0)) == strengths


def test_the_band_holds_a_further_draw_in_95_of_100_cases():
    random = np.random.default_rng(1)
    draws = random.standard_normal((4000, 7))
    middle, half = residues.spread(draws[:, :6, None])
    inside = np.abs(draws[:, 6] - middle[:, 0]) <= half[:, 0]
    assert inside.mean() == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 4000))


@given(st.integers(0, 100), st.integers(2, 5))
def test_areas_are_those_of_sklearn_with_ties_and_weights(seed, levels):
    random = np.random.default_rng(seed)
    labels = np.r_[0, 1, random.integers(2, size=30)]
    readings, weights = random.integers(levels, size=32).astype(float), random.integers(0, 4, size=(5, 32)) + 0.0
    weights[:, :2] = 1
    won, pairs = residues.pairs(readings, labels, weights)
    expected = [roc_auc_score(labels, readings, sample_weight=one) for one in weights]
    assert won / pairs == pytest.approx(expected)
    one, all_ = residues.pairs(readings, labels, np.ones((1, 32)))
    assert one[0] == pytest.approx(stats.mannwhitneyu(readings[labels == 1], readings[labels == 0]).statistic)
    assert all_[0] == labels.sum() * (1 - labels).sum()
