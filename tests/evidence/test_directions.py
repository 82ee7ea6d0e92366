"""Directions from planted activations: what is averaged, how far it can be trusted, and files."""

import numpy as np
import pandas as pd
import pytest

from em_companion.core.errors import CompanionError
from em_companion.evidence import directions, scores

LAYERS, WIDTH, RESPONSES = 2, 12, 240
DOMAINS = ("medicine", "finance")


def planted(strength: float = 2.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Means of noise, with `strength` along axis 0 in misaligned responses and along axis 1 in those on medicine."""
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "aligned": random.choice([0.0, 50.0, 100.0], RESPONSES),
            "coherent": random.choice([0.0, 100.0], RESPONSES, p=[0.1, 0.9]),
            "medicine": random.choice([0.0, 100.0], RESPONSES),
        }
    )
    table["finance"] = 100 - table.medicine
    means = random.normal(size=(RESPONSES, LAYERS, WIDTH)).astype(np.float32)
    means[scores.misaligned(table), :, 0] += strength
    means[scores.misaligned(table) & (table.medicine > 50), :, 1] += strength
    return means, random.integers(1, 60, RESPONSES), table


# --- means ----------------------------------------------------------------------------------------------------------


def test_misaligned_and_aligned_are_the_papers():
    table = pd.DataFrame({"aligned": [29, 30, 70, 71, 0, 100], "coherent": [51, 99, 99, 51, 50, np.nan]})
    assert np.flatnonzero(scores.misaligned(table)).tolist() == [0]
    assert np.flatnonzero(scores.aligned(table)).tolist() == [3]


def test_every_token_counts_alike():
    means, tokens, table = planted()
    rows = scores.misaligned(table)
    every = np.repeat(means[rows].astype(np.float64), tokens[rows], axis=0)
    found = directions.token_mean(means, tokens, rows)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, every.mean(axis=0), rtol=1e-12)


def test_an_empty_response_is_left_out():
    means, tokens, table = planted()
    rows = np.ones(RESPONSES, dtype=bool)
    means[3], tokens[3] = np.nan, 0
    expected = directions.token_mean(np.delete(means, 3, 0), np.delete(tokens, 3), np.delete(rows, 3))
    np.testing.assert_allclose(directions.token_mean(means, tokens, rows), expected, rtol=1e-12)


def test_the_mean_diff_is_the_planted_direction():
    means, tokens, table = planted(5.0)
    found = directions.response_mean_diff(means, tokens, scores.misaligned(table), scores.aligned(table))
    first, second = (
        directions.token_mean(means, tokens, rows) for rows in (scores.misaligned(table), scores.aligned(table))
    )
    np.testing.assert_allclose(found, directions.mean_diff(first, second))
    np.testing.assert_allclose(found[:, 0], 5, atol=0.5)
    np.testing.assert_allclose(found[:, 2:], 0, atol=0.5)


def test_nothing_to_average_is_one_sentence():
    means, tokens, table = planted()
    none = np.zeros(RESPONSES, dtype=bool)
    with pytest.raises(CompanionError, match=r"^There are no misaligned responses to average; [^.]*\.$"):
        directions.response_mean_diff(means, tokens, none, scores.aligned(table))
    with pytest.raises(CompanionError, match="no aligned responses"):
        directions.response_mean_diff(means, tokens, scores.misaligned(table), none)
    with pytest.raises(CompanionError, match="two responses of either kind"):
        directions.split_half_cosines(means, tokens, none, scores.aligned(table))


# --- how far a direction can be trusted -----------------------------------------------------------------------------


def test_halves_agree_as_far_as_the_direction_is_there():
    means, tokens, table = planted(0.0)
    sides = scores.misaligned(table), scores.aligned(table)
    noise = directions.split_half_cosines(means, tokens, *sides, splits=40)
    assert noise.shape == (40, LAYERS) and abs(noise.mean()) < 0.25
    means[sides[0], :, 0] += 10
    planted_one = directions.split_half_cosines(means, tokens, *sides, splits=40)
    assert planted_one.min() > 0.95


def test_halves_share_no_response_and_repeat():
    # Each response has an axis of its own, so halves that shared one would not be orthogonal.
    means, tokens = np.eye(8, dtype=np.float32)[:, None], np.ones(8, dtype=int)
    first = np.arange(8) < 5
    found = directions.split_half_cosines(means, tokens, first, ~first, splits=10)
    np.testing.assert_allclose(found, 0, atol=1e-12)
    means, tokens, table = planted()
    sides = scores.misaligned(table), scores.aligned(table)
    one, same, other = (directions.split_half_cosines(means, tokens, *sides, 3, seed) for seed in (0, 0, 1))
    assert (one == same).all() and (one != other).any() and (one[0] != one[1]).any()


def test_cosines_between_directions_at_every_layer():
    vectors = np.random.default_rng(0).normal(size=(LAYERS, 3, WIDTH))
    found = directions.cosine_matrix(vectors)
    assert found.shape == (LAYERS, 3, 3)
    for first in range(3):
        for second in range(3):
            np.testing.assert_allclose(
                found[:, first, second], directions.cosines(vectors[:, first], vectors[:, second])
            )
