"""Curves over a fine-tune: where misalignment sets in, how far it has spread by then, how sharp the rise is.

A curve has one row per check: `step`, `in_domain_em` and `open_em`, shares from 0 to 1.
"""

from dataclasses import dataclass
from math import log, nan

import numpy as np
import pandas as pd


def crossing(steps: np.ndarray, values: np.ndarray, level: float) -> float:
    """Return where `values` first reach `level`, linearly between two checks; NaN where they never do."""
    reached = np.flatnonzero(values >= level)
    if not len(reached):
        return nan
    at = reached[0]
    if at == 0:
        return float(steps[0])
    before, after = values[at - 1], values[at]
    return float(steps[at - 1] + (steps[at] - steps[at - 1]) * (level - before) / (after - before))


def spillover(curve: pd.DataFrame, level: float = 0.75) -> float:
    """Return open EM where in-domain EM first reaches `level` (S75 by default), both interpolated; NaN if never.

    Arms of different speed compare: each is looked at where it does equal harm in its own domain.
    """
    step = crossing(curve.step.to_numpy(), curve.in_domain_em.to_numpy(), level)
    return float(np.interp(step, curve.step, curve.open_em)) if step == step else nan


def onset(curve: pd.DataFrame, least: float = 0.1) -> float:
    """Return the first step at which open EM has half of its last value; NaN for one that ends below `least`."""
    last = curve.open_em.iloc[-1]
    return float(curve.step[curve.open_em >= last / 2].iloc[0]) if last >= least else nan


@dataclass(frozen=True)
class Fit:
    """A model of a rise: its name, its Bayesian information criterion, its values, and steps from 10 to 90 %."""

    name: str
    bic: float
    values: np.ndarray
    width: float


def fits(steps: np.ndarray, values: np.ndarray) -> dict[str, Fit]:
    """Return the least-squares fits of a line, of one step and of a logistic curve a + b / (1 + exp(-(t - t0) / s)).

    The logistic is searched on a grid of t0 and s, then refined; a and b follow from linear regression. Errors are
    taken to be Gaussian with a floor of 1e-9 on their mean square, so that a perfect fit has a finite criterion.
    """
    from scipy import optimize  # slow to import

    steps, values = np.asarray(steps, float), np.asarray(values, float)
    span = np.ptp(steps)

    def regressed(shape: np.ndarray) -> tuple[float, np.ndarray]:
        columns = np.column_stack([np.ones_like(steps), shape])
        fitted = columns @ np.linalg.lstsq(columns, values, rcond=None)[0]
        return float(((values - fitted) ** 2).sum()), fitted

    def logistic(given: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-np.clip((steps - given[0]) / np.exp(given[1]), -50, 50)))

    def bic(squares: float, parameters: int) -> float:
        return len(steps) * log(max(squares / len(steps), 1e-9)) + parameters * log(len(steps))

    grid = [(t0, log(s * span)) for t0 in np.linspace(steps[0], steps[-1], 25) for s in (0.005, 0.02, 0.05, 0.1, 0.2)]
    start = min(grid, key=lambda given: regressed(logistic(given))[0])
    best = optimize.minimize(lambda given: regressed(logistic(given))[0], start, method="Nelder-Mead").x
    step = min(((steps >= at).astype(float) for at in steps[1:]), key=lambda shape: regressed(shape)[0])
    found = {"line": (steps, 3, 0.8 * span), "one step": (step, 4, 0.0)}
    found |= {"logistic": (logistic(best), 5, 2 * log(9) * float(np.exp(best[1])))}
    return {
        name: Fit(name, bic(squares, parameters), fitted, width)
        for name, (shape, parameters, width) in found.items()
        for squares, fitted in [regressed(shape)]
    }
