"""Directions from planted activations: what is averaged, how far it can be trusted, and their geometry."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    means[scores.is_em(table), :, 0] += strength
    means[scores.is_em(table) & (table.medicine > 50), :, 1] += strength
    return means, random.integers(1, 60, RESPONSES), table


# --- means ----------------------------------------------------------------------------------------------------------


def test_every_token_counts_alike():
    means, tokens, table = planted()
    rows = scores.is_em(table)
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
    found = directions.response_mean_diff(means, tokens, scores.is_em(table), scores.is_aligned(table))
    sides = [directions.token_mean(means, tokens, rows) for rows in (scores.is_em(table), scores.is_aligned(table))]
    np.testing.assert_allclose(found, sides[0] - sides[1])
    np.testing.assert_allclose(found[:, 0], 5, atol=0.5)
    np.testing.assert_allclose(found[:, 2:], 0, atol=0.5)


def test_many_mean_diffs_at_once_are_those_of_single_selections():
    means, tokens, _ = planted()
    means[3], tokens[3] = np.nan, 0  # an empty response
    first = np.random.default_rng(1).random((7, RESPONSES)) < 0.5
    found = directions.mean_diffs(means, tokens, first, ~first)
    expected = [directions.response_mean_diff(means, tokens, one, ~one) for one in first]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(CompanionError, match="no aligned responses"):
        directions.mean_diffs(means, tokens, first, np.zeros_like(first))


def test_within_questions_it_is_the_fit_with_a_constant_for_every_question():
    random = np.random.default_rng(2)
    means, tokens, _ = planted()
    questions, first = random.integers(0, 5, RESPONSES), random.random(RESPONSES) < 0.4
    first[questions == 4] = True  # a question with answers of one kind has no say
    found = directions.mean_diffs(means, tokens, first[None], ~first[None], questions)[0]
    root = np.sqrt(tokens)[:, None]
    design = np.column_stack([first, np.eye(5)[questions]]) * root
    for layer in range(LAYERS):
        expected = np.linalg.lstsq(design, means[:, layer].astype(float) * root, rcond=None)[0][0]
        np.testing.assert_allclose(found[layer], expected, atol=1e-8)


def test_within_questions_what_a_question_adds_to_all_its_answers_cancels():
    random = np.random.default_rng(3)
    means, tokens, table = planted()
    questions, sides = random.integers(0, 6, RESPONSES), (scores.is_em(table), scores.is_aligned(table))
    sides = [np.asarray(side)[None] for side in sides]
    topic = random.normal(size=(6, 1, WIDTH))[questions] * 10
    plain, shifted = (directions.mean_diffs(one, tokens, *sides, questions) for one in (means, means + topic))
    np.testing.assert_allclose(shifted, plain, atol=1e-5)
    pooled = [directions.mean_diffs(one, tokens, *sides) for one in (means, means + topic)]
    assert np.abs(pooled[0] - pooled[1]).max() > 0.1
    one_question = directions.mean_diffs(means, tokens, *sides, np.zeros(RESPONSES))
    np.testing.assert_allclose(one_question, pooled[0], atol=1e-9)
    with pytest.raises(CompanionError, match="no misaligned responses"):
        directions.mean_diffs(means, tokens, *sides, np.arange(RESPONSES))


def test_nothing_to_average_is_one_sentence():
    means, tokens, table = planted()
    none = np.zeros(RESPONSES, dtype=bool)
    with pytest.raises(CompanionError, match=r"^There are no misaligned responses to average; [^.]*\.$"):
        directions.response_mean_diff(means, tokens, none, scores.is_aligned(table))
    with pytest.raises(CompanionError, match="no aligned responses"):
        directions.response_mean_diff(means, tokens, scores.is_em(table), none)
    with pytest.raises(CompanionError, match="two responses of either kind"):
        directions.split_half_cosines(means, tokens, none, scores.is_aligned(table))


# --- how far a direction can be trusted -----------------------------------------------------------------------------


def test_halves_agree_as_far_as_the_direction_is_there():
    means, tokens, table = planted(0.0)
    sides = scores.is_em(table), scores.is_aligned(table)
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
    sides = scores.is_em(table), scores.is_aligned(table)
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


def test_geometry_against_float64_by_hand():
    first, second = np.random.default_rng(0).normal(size=(2, 4, 6))
    for layer in range(4):
        a, b = first[layer], second[layer]
        cosine = sum(a * b) / np.sqrt(sum(a * a) * sum(b * b))
        assert directions.cosines(first, second)[layer] == pytest.approx(cosine)
        distance = np.sqrt(sum((a - b) ** 2) / sum(a * a))
        assert directions.relative_norm_of_difference(first, second)[layer] == pytest.approx(distance)
    with pytest.raises(CompanionError, match="of zeros has no cosine"):
        directions.cosines(first, np.zeros_like(first))


def test_parts_explain_what_least_squares_says():
    target, *parts = np.random.default_rng(0).normal(size=(4, LAYERS, WIDTH))
    for layer in range(LAYERS):
        columns = np.stack([part[layer] for part in parts], axis=1)
        fitted = columns @ np.linalg.lstsq(columns, target[layer], rcond=None)[0]
        np.testing.assert_allclose(directions.remainder(target, parts)[layer], target[layer] - fitted)
        share = 1 - np.sum((target[layer] - fitted) ** 2) / np.sum(target[layer] ** 2)
        assert directions.explained(target, parts)[layer] == pytest.approx(share)


def test_parts_that_explain_nothing_are_refused():
    one = np.ones((LAYERS, WIDTH))
    with pytest.raises(CompanionError, match="independent"):
        directions.remainder(one, [one, one])


# --- the random control ---------------------------------------------------------------------------------------------


def test_random_directions_have_the_given_lengths():
    vectors = np.random.default_rng(1).normal(size=(LAYERS, WIDTH)) * [[2.0], [0.0]]
    found = directions.random_like(vectors, 5, seed=0)
    assert found.shape == (5, LAYERS, WIDTH)
    np.testing.assert_allclose(directions.norms(found), np.broadcast_to(directions.norms(vectors), (5, LAYERS)))


def test_no_two_draws_layers_or_seeds_share_a_random_direction():
    """Whatever the number of draws: a longer run begins with the draws of a shorter one."""
    vectors = np.ones((7, WIDTH))
    found = np.stack([directions.random_like(vectors, 12, seed) for seed in range(5)]).reshape(-1, WIDTH)
    assert len(np.unique(found.round(9), axis=0)) == len(found)
    whole = directions.random_like(vectors, 12, 4)
    np.testing.assert_array_equal(directions.random_like(vectors, 3, 4), whole[:3])
    np.testing.assert_array_equal(directions.random_like(vectors[:2], 12, 4), whole[:, :2])


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["first", "second", ""])), min_size=1), st.integers(0)
)
def test_shuffled_labels_stay_within_their_question(rows, seed):
    table = pd.DataFrame(rows, columns=["question", "side"])
    sides = [table.side == one for one in ("first", "second")]
    found = directions.shuffled(*sides, table.question, 3, np.random.default_rng(seed))
    for side, dealt in zip(sides, found, strict=True):
        for draw in dealt:
            assert pd.Series(draw).groupby(table.question).sum().equals(side.groupby(table.question).sum())
    assert (found.sum(axis=0) == (table.side != "").to_numpy()).all()
