"""Numbers with their uncertainty: against loops, against scipy, and by their properties."""

import math
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from em_companion.evidence import estimates
from em_companion.evidence.estimates import Estimate

CLUSTERS = np.repeat(list("abcde"), [3, 7, 5, 9, 6])
VALUES = (np.random.default_rng(3).random(30) < 0.3).astype(float)


def loop(statistic, clusters: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Resample whole clusters one by one, from the same counts; `statistic` takes the rows of a resample."""
    labels = np.unique(clusters)
    members = [np.flatnonzero(clusters == label) for label in labels]
    draws = estimates.resampled(np.random.default_rng(seed), len(labels), resamples)
    rows = [np.concatenate([np.tile(one, count) for one, count in zip(members, draw, strict=True)]) for draw in draws]
    return np.nanquantile([statistic(one) for one in rows], [0.025, 0.975])


# --- the bootstrap --------------------------------------------------------------------------------------------------


def test_a_mean_equals_a_loop_over_resamples():
    found = estimates.mean(VALUES, CLUSTERS, 300, 5)
    assert found.interval == pytest.approx(loop(lambda rows: VALUES[rows].mean(), CLUSTERS, 300, 5))
    assert found.value == VALUES.mean() and found.n == 30


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("abc"), *[st.sampled_from([0.0, 1.0, 7.0, math.nan])] * 4), min_size=1))
def test_a_mean_of_several_readings_equals_a_loop_over_resamples_that_draws_one_in_each(rows):
    clusters, values = np.array([one for one, *_ in rows]), np.array([one[1:] for one in rows])
    own, readings = values[:, 0], values[:, 1:]
    found = estimates.mean(own, clusters, 40, 3, readings)
    assert found.n == (~np.isnan(own)).sum() and str(found.value) == str(estimates.mean(own, clusters, 1).value)
    kept = ~np.isnan(readings).all(axis=1)
    labels = np.unique(clusters[kept])
    if not found.n or len(labels) < 2:
        assert found.interval is None
        return
    draws = estimates.resampled(np.random.default_rng(3), len(labels), 40)
    chosen = np.random.default_rng([3, 1]).integers(3, size=40)
    means = []
    for counts, reading in zip(draws, chosen, strict=True):
        drawn = [one for label, times in zip(labels, counts, strict=True) for one in [label] * times]
        sample = [value for label in drawn for value in readings[clusters == label, reading] if not math.isnan(value)]
        means += [sum(sample) / len(sample)] if sample else []
    if found.interval:
        assert found.interval == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))
    else:
        assert not means or np.ptp(means) < 1e-9


def test_readings_that_agree_change_nothing_and_readings_that_differ_widen_the_interval():
    random = np.random.default_rng(0)
    values, clusters = random.integers(0, 2, 400).astype(float), np.repeat(np.arange(8), 50)
    plain = estimates.mean(values, clusters, 500)
    assert estimates.mean(values, clusters, 500, readings=np.stack([values] * 5, axis=1)) == plain
    apart = np.stack([values * (random.random(400) < share) for share in (0.2, 1)], axis=1)
    wider = estimates.mean(values, clusters, 500, readings=apart)
    assert wider.value == plain.value and np.diff(wider.interval) > 2 * np.diff(plain.interval)


@pytest.mark.parametrize("relative", [False, True])
def test_a_change_equals_a_loop_over_resamples(relative):
    before, after = np.random.default_rng(0).gamma(2, size=(2, 30))

    def moved(rows):
        first, second = before[rows].mean(), after[rows].mean()
        return 100 * (second / first - 1) if relative else second - first

    found = estimates.change(before, after, CLUSTERS, relative, 300, 5)
    assert found.interval == pytest.approx(loop(moved, CLUSTERS, 300, 5))
    assert found.value == pytest.approx(moved(np.arange(30)))


def test_a_balanced_accuracy_equals_a_loop_over_resamples():
    random = np.random.default_rng(0)
    table = pd.DataFrame({"label": random.integers(0, 2, 30), "predicted": random.integers(0, 2, 30)})

    def accuracy(rows):
        part = table.iloc[rows]
        recalls = (part.label == part.predicted).groupby(part.label).mean()
        return recalls.mean() if len(recalls) == 2 else math.nan

    found = estimates.balanced_accuracy(table.assign(question=CLUSTERS), 300, 5)
    assert found.interval == pytest.approx(loop(accuracy, CLUSTERS, 300, 5))
    assert found.value == pytest.approx(accuracy(np.arange(30)))


def test_an_interval_is_that_of_scipy_but_for_the_draws():
    """Of one row per cluster, the cluster bootstrap is the ordinary one."""
    values = np.random.default_rng(0).normal(size=60)
    expected = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    found = estimates.mean(values, np.arange(60), 20_000, 1)
    assert found.interval == pytest.approx((expected.low, expected.high), abs=0.01)


def test_an_interval_is_wider_where_rows_of_a_cluster_are_alike():
    alike, mixed = np.repeat([0.0, 1.0] * 4, 50), np.tile([0.0, 1.0], 200)
    widths = [np.diff(estimates.mean(values, np.repeat(np.arange(8), 50)).ends)[0] for values in (alike, mixed)]
    assert widths[0] > 0.3 and widths[1] < 0.01


@pytest.mark.parametrize("values, clusters", [([0, 1, 1], "aaa"), ([1, 1, 1], "abc")])
def test_where_resampling_shows_no_spread_there_is_no_interval(values, clusters):
    found = estimates.mean(np.array(values), np.array(list(clusters)), 100)
    assert found.interval is None and math.isnan(found.low) and math.isnan(found.high)
    assert found.ends == (found.value, found.value)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(-1e3, 1e3) | st.just(math.nan)), max_size=40))
def test_an_interval_lies_within_the_values_and_repeats(rows):
    clusters, values = np.array([one for one, _ in rows]), np.array([value for _, value in rows], dtype=float)
    found, again = (estimates.mean(values, clusters, 50) for _ in range(2))
    kept = values[~np.isnan(values)]
    assert found.n == len(kept) and str(found) == str(again)
    if len(kept):
        slack = 1e-9 * (1 + np.abs(kept).max())
        assert kept.min() - slack <= found.ends[0] <= found.ends[1] <= kept.max() + slack
    else:
        assert math.isnan(found.value) and found.text() == "–"


def test_ten_thousand_resamples_of_400_rows_take_well_under_a_second():
    values, questions = np.tile([0.0, 1.0], 200), np.repeat(np.arange(8), 50)
    start = time.process_time()
    estimates.mean(values, questions, 10_000)
    assert time.process_time() - start < 0.5


def test_a_relative_change_from_nothing_is_no_number():
    assert math.isnan(estimates.change(np.zeros(3), np.ones(3), np.arange(3), relative=True, resamples=10).value)


# --- patched pairs --------------------------------------------------------------------------------------------------


def pairs(prompts: int = 4, answers: int = 6) -> pd.DataFrame:
    random = np.random.default_rng(0)
    rows = [
        (prompt, donor, patched, int(random.random() < (0.3 if patched else 0.6)))
        for prompt in range(prompts)
        for donor in range(prompts)
        for patched in (False, True)
        for _ in range(answers)
    ]
    return pd.DataFrame(rows, columns=["question_id", "donor_id", "patched", "em"])


def test_the_change_of_pooled_pairs():
    table = pairs()
    found = estimates.relative_change(table, 500, 0)
    clean, patched = (100 * table[table.patched == one].em.mean() for one in (False, True))
    assert (found["clean"], found["patched"]) == pytest.approx((clean, patched))
    assert found["change"] == pytest.approx(100 * (patched / clean - 1))
    assert found["low"] < found["change"] < found["high"]


def test_pairs_of_one_prompt_have_no_interval():
    found = estimates.relative_change(pairs(prompts=1), 500, 0)
    assert math.isnan(found["low"]) and math.isnan(found["high"]) and not math.isnan(found["change"])


# --- one number -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, text",
    [
        (Estimate(10.44, 8.2, 15.46), "10.4 % (8.2 to 15.5)"),
        (Estimate(10.44), "10.4 %"),
        (Estimate(0.834, 0.8, 0.9, unit="cosine"), "0.83 (0.80 to 0.90)"),
        (Estimate(12.0, unit="count"), "12"),
        (Estimate(math.nan), "–"),
    ],
)
def test_text(given, text):
    assert str(given) == text


def test_above_needs_the_whole_interval():
    one, other = Estimate(5, 4, 6), Estimate(2, 1, 3)
    assert one.above(other) and not one.above(Estimate(2, 1, 4.5)) and not other.above(one)
    assert one.above(3.9) and not one.above(4.1) and Estimate(5).above(4.9)


def test_a_share_in_percent():
    found = estimates.rate(VALUES, CLUSTERS, 50)
    share = estimates.mean(VALUES, CLUSTERS, 50)
    assert (found.value, found.low, found.high, found.n) == (100 * share.value, 100 * share.low, 100 * share.high, 30)
    assert found.unit == "percent"


@given(st.integers(1, 2000), st.floats(0, 1))
def test_wilson_interval_agrees_with_scipy(n, share):
    hits = round(share * n)
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    found = estimates.wilson_interval(100 * hits / n, n)
    assert found == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-6)


def test_rank_correlation_takes_rounding_for_a_tie_and_a_constant_for_none():
    assert estimates.spearman(np.array([1, 2, 3.0]), np.array([10, 20, 30.0])) == pytest.approx(1)
    tied = estimates.spearman(np.array([0.1 + 0.2, 0.3, 1]), np.array([1, 1, 2.0]))
    assert tied == pytest.approx(1)
    assert math.isnan(estimates.spearman(np.ones(3), np.arange(3.0)))


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=12))
def test_the_interval_over_seeds_is_student_s(values):
    found, scipy = estimates.over_seeds(values, "points"), stats.ttest_1samp(values, 0.0)
    assert found.n == len(values) and found.value == pytest.approx(np.mean(values), abs=1e-9)
    if np.ptp(values) > 1e-6:
        assert found.ends == pytest.approx(tuple(scipy.confidence_interval()), rel=1e-6, abs=1e-6)
    assert estimates.over_seeds([values[0], np.nan], "points").interval is None


@given(st.lists(st.tuples(st.floats(0, 90), st.floats(0, 90)), min_size=2, max_size=8))
def test_a_ratio_over_seeds_turns_over_with_its_arms(pairs):
    first, second = np.array(pairs).T
    one, other = estimates.ratio_over_seeds(first, second, 0.5), estimates.ratio_over_seeds(second, first, 0.5)
    assert one.value == pytest.approx(1 / other.value)
    if np.ptp(np.log((first + 0.5) / (second + 0.5))) > 1e-9:  # equal ratios may differ by rounding, either way
        assert one.ends == pytest.approx((1 / other.high, 1 / other.low))
