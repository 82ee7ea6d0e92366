"""Numbers with their 95 % intervals, from one percentile bootstrap that resamples whole clusters.

Rows of one cluster (question, topic, prompt) are alike; an interval over single rows would be far too narrow. Where
resampling can show no spread - one cluster, or the same value in every resample - the ends are NaN, never equal.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite, isnan, nan, sqrt

import numpy as np
import pandas as pd

Values = pd.Series | np.ndarray
Z_95 = 1.959963984540054
DIGITS = {"percent": 1, "percent_change": 1, "points": 1, "score": 1, "layer": 0, "count": 0, "ratio": 2}
"""Digits after the point that a unit is written with; two for any other unit."""


@dataclass(frozen=True)
class Estimate:
    """A value in a unit, its 95 % interval (NaN where there is none) and the number of rows behind it."""

    value: float
    low: float = nan
    high: float = nan
    n: int = 0
    unit: str = "percent"

    @property
    def interval(self) -> tuple[float, float] | None:
        """The ends of the interval, None where there is none."""
        return (self.low, self.high) if isfinite(self.low) and isfinite(self.high) else None

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the interval, or the value twice."""
        return self.interval or (self.value, self.value)

    def above(self, other: "Estimate | float") -> bool:
        """Tell whether the whole interval lies above that of `other`, or above a number."""
        return self.ends[0] > (other.ends[1] if isinstance(other, Estimate) else other)

    def in_unit(self, unit: str, factor: float = 1.0) -> "Estimate":
        """Return the same times `factor`, in another unit."""
        return replace(self, value=factor * self.value, low=factor * self.low, high=factor * self.high, unit=unit)

    def columns(self, name: str) -> dict[str, float]:
        """Return value and ends under the names that tables give them: `name`, `name_low`, `name_high`."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}

    def text(self, digits: int | None = None) -> str:
        """Return value and unit: "10.4 %", "0.83", "12"; "–" where there is no value."""
        if isnan(self.value):
            return "–"
        digits = DIGITS.get(self.unit, 2) if digits is None else digits
        return f"{self.value:.{digits}f}{' %' if self.unit.startswith('percent') else ''}"

    def __str__(self) -> str:
        if self.interval is None:
            return self.text()
        digits = DIGITS.get(self.unit, 2)
        return f"{self.text()} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def resampled(random: np.random.Generator, clusters: int, resamples: int) -> np.ndarray:
    """Return how often each cluster is drawn in each resample, [resample, cluster]."""
    return random.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples)


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], clusters: int, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the ends of the 95 % percentile interval of a statistic over resampled clusters, NaN below two of them.

    `statistic` maps weights [resample, cluster] to its values [resample]; see `quantiles`.
    """
    if clusters < 2:
        return nan, nan
    with np.errstate(invalid="ignore", divide="ignore"):
        found = statistic(resampled(np.random.default_rng(seed), clusters, resamples))
    return quantiles(found)


def over_clusters(
    statistic: Callable[[np.ndarray], np.ndarray],
    clusters: int,
    unit: str,
    resamples: int = 10_000,
    seed: int = 0,
    n: int | None = None,
) -> Estimate:
    """Return a statistic of weights of clusters with its interval; see `bootstrap`. `n` is by default theirs."""
    value = float(statistic(np.ones((1, clusters), dtype=int))[0])
    return Estimate(value, *bootstrap(statistic, clusters, resamples, seed), clusters if n is None else n, unit)


def quantiles(found: np.ndarray) -> tuple[float, float]:
    """Return the 2.5 and 97.5 % quantiles of the finite values, (NaN, NaN) where they show no spread."""
    found = found[np.isfinite(found)]
    if not len(found) or np.ptp(found) < 1e-9:
        return nan, nan
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def mean(
    values: Values, clusters: Values, resamples: int = 10_000, seed: int = 0, readings: np.ndarray | None = None
) -> Estimate:
    """Return the mean of `values` [row] with its interval over whole `clusters` [row]; NaN values are left out.

    readings [row, reading]: `values` as each of several judges reads them. Every resample then draws one reading, too,
    so that the interval also holds what the judges disagree about; the mean stays that of `values`.
    """
    values, clusters = np.asarray(values, dtype=float), np.asarray(clusters)
    read = values[:, None] if readings is None else np.asarray(readings, dtype=float)
    known = values[~np.isnan(values)]
    if not len(known):
        return Estimate(nan, unit="score")
    kept = ~np.isnan(read).all(axis=1)
    labels, index = np.unique(clusters[kept], return_inverse=True)
    columns = [(np.bincount(index, np.nan_to_num(one)), np.bincount(index, ~np.isnan(one))) for one in read[kept].T]
    drawn = np.random.default_rng([seed, 1]).integers(len(columns), size=resamples)

    def means(weights: np.ndarray) -> np.ndarray:
        found = [(weights @ sums) / (weights @ sizes) for sums, sizes in columns]
        return np.choose(drawn, found)

    return Estimate(float(known.mean()), *bootstrap(means, len(labels), resamples, seed), len(known), "score")


def rate(
    found: Values, clusters: Values, resamples: int = 10_000, seed: int = 0, readings: np.ndarray | None = None
) -> Estimate:
    """Return the share of 1 among 0/1 values [row] in percent; see `mean`."""
    return mean(found, clusters, resamples, seed, readings).in_unit("percent", 100)


def change(
    before: Values, after: Values, clusters: Values, relative: bool = False, resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """Return mean(after) - mean(before) of paired rows [row], or 100 (mean(after) / mean(before) - 1) if `relative`.

    The interval resamples whole `clusters` [row]. A mean before of 0 has no relative change, in a resample neither.
    """
    labels, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.stack([np.bincount(index, weights=np.asarray(one, dtype=float)) for one in (before, after)], axis=1)
    sizes = np.bincount(index)

    def moved(weights: np.ndarray) -> np.ndarray:
        first, second = ((weights @ sums) / (weights @ sizes)[..., None]).T
        return 100 * (second - first) / np.where(first == 0, nan, first) if relative else second - first

    return over_clusters(moved, len(labels), "percent_change" if relative else "", resamples, seed, len(index))


def balanced_accuracy(predictions: pd.DataFrame, resamples: int = 10_000, seed: int = 0) -> Estimate:
    """Return the balanced accuracy of `probes.held_out_predictions`, 0 to 1, with its interval over questions."""
    right = predictions.assign(right=predictions.label == predictions.predicted)
    counts = right.groupby(["question", "label"]).right.agg(["sum", "size"]).unstack(fill_value=0).to_numpy()
    hits, sizes = counts[:, :2], counts[:, 2:]
    value = float((hits.sum(axis=0) / sizes.sum(axis=0)).mean())
    ends = bootstrap(lambda weights: ((weights @ hits) / (weights @ sizes)).mean(axis=1), len(counts), resamples, seed)
    return Estimate(value, *ends, len(predictions), "proportion")


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Return mean, standard deviation and the 2.5 and 97.5 % quantiles over fits, one row per column of `runs`."""
    quantiles = {"low": runs.quantile(0.025), "high": runs.quantile(0.975)}
    table = pd.DataFrame({"mean": runs.mean(), "sd": runs.std()} | quantiles)
    return table.rename_axis("quantity").reset_index()


def relative_change(table: pd.DataFrame, resamples: int, seed: int) -> dict[str, float]:
    """Return the EM rates (%) `clean` and `patched` of pooled pairs, the relative `change` (%), its `low` and `high`.

    table: `question_id`, `donor_id`, `patched` (bool) and `em` (0 or 1). Pairs share prompts, so the bootstrap draws
    prompts and donors, each on their own, and weights a pair by the product; a prompt with itself is drawn once. NaN
    for one prompt, and where no clean answer is misaligned.
    """
    counts = table.groupby(["question_id", "donor_id", "patched"]).em.agg(["sum", "size"]).unstack()
    hits, sizes = counts["sum"].to_numpy(), counts["size"].to_numpy()  # [pair, (clean, patched)]
    clean, patched = 100 * hits.sum(axis=0) / sizes.sum(axis=0)
    random = np.random.default_rng(seed)
    (prompts, names), (donors, donor_names) = (pd.factorize(counts.index.get_level_values(level)) for level in (0, 1))
    weights = resampled(random, len(names), resamples if len(names) > 1 else 0)[:, prompts]  # [resample, pair]
    if (names[prompts] != donor_names[donors]).any():
        weights = weights * resampled(random, len(donor_names), len(weights))[:, donors]
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = (weights @ hits) / (weights @ sizes)
        low, high = quantiles(100 * (drawn[:, 1] / drawn[:, 0] - 1))
    change = 100 * (patched / clean - 1) if clean else nan
    return {"clean": clean, "patched": patched, "change": change, "low": low, "high": high}


def wilson_interval(percent: float, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval, in percent, of a share of `percent` among `n`."""
    share = percent / 100
    centre = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
    # At 0 and 100 % the bound is exact; floating point would leave a trace of 1e-16.
    low, high = (0.0 if percent == 0 else centre - half), (1.0 if percent == 100 else centre + half)
    return 100 * low, 100 * high


def over_seeds(values: Values, unit: str) -> Estimate:
    """Return the mean over training seeds with its Student t interval; NaN values are left out.

    For arms that are paired by seed, give the differences. Below two seeds there is no interval.
    """
    from scipy import stats  # slow to import

    known = np.asarray(values, float)[np.isfinite(values)]
    if not len(known):
        return Estimate(nan, unit=unit)
    half = stats.t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / sqrt(len(known)) if len(known) > 1 else nan
    half = half or nan  # seeds that are all alike show no spread
    return Estimate(float(known.mean()), float(known.mean() - half), float(known.mean() + half), len(known), unit)


def ratio_over_seeds(first: Values, second: Values, added: float = 0.0) -> Estimate:
    """Return the geometric mean over seeds of first / second, paired, with its interval on the log scale.

    `added` to both keeps a rate of zero from being infinitely small.
    """
    logs = np.log((np.asarray(first, float) + added) / (np.asarray(second, float) + added))
    found = over_seeds(logs, "ratio")
    return replace(found, **{name: float(np.exp(getattr(found, name))) for name in ("value", "low", "high")})


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rank correlation of two rows of numbers, NaN where one of them is constant."""
    from scipy import stats  # slow to import; most commands need no rank

    first, second = np.round(first, 9), np.round(second, 9)  # sums in another order are ties all the same
    return float(stats.spearmanr(first, second).statistic) if np.ptp(first) and np.ptp(second) else nan


def rank_correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of every row of `first` with that of `second`, [row]."""
    from scipy import stats  # slow to import

    one, other = (stats.rankdata(np.round(values, 9), axis=-1) for values in (first, second))
    one, other = (ranks - ranks.mean(axis=-1, keepdims=True) for ranks in (one, other))
    return (one * other).sum(axis=-1) / np.sqrt((one**2).sum(axis=-1) * (other**2).sum(axis=-1))
