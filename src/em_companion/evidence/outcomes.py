"""What became of a prediction: its quantity over training seeds, and whether its gate held."""

from collections.abc import Mapping

import pandas as pd

from em_companion.evidence import estimates, predictions
from em_companion.evidence.claims import Measurement
from em_companion.evidence.estimates import Estimate

Outcome = tuple[Estimate, str, dict[str, str]]
"""The value with its interval, how it was measured, and `void` where the gate failed."""


def mean(values: pd.Series, how: str, holds: bool = True, failed: str = "", unit: str = "points") -> Outcome:
    """Return the mean over seeds of values, or of differences within seeds; `failed` says how the gate failed."""
    return gated(estimates.over_seeds(values, unit), how, holds, failed)


def ratio(first: pd.Series, second: pd.Series, how: str, holds=True, failed: str = "", added: float = 0.5) -> Outcome:
    """Return the ratio of two measures over the seeds that both have; `added` to either."""
    both = pd.concat([first, second], axis=1).dropna()
    return gated(estimates.ratio_over_seeds(both.iloc[:, 0], both.iloc[:, 1], added), how, holds, failed)


def gated(found: Estimate, how: str, holds: bool = True, failed: str = "", of: str = "seeds") -> Outcome:
    """Return an estimate as an outcome; behind a gate that failed there may be no number at all, and none is shown."""
    if holds:
        return found, f"{how}, {found.n} {of}", {}
    return Estimate(0.0, n=found.n, unit=found.unit), f"{how}, {found.n} {of}", {"void": f"Gate: {failed}"}


def stands(name: str, outcome: Outcome) -> tuple[bool, str]:
    """Return the gate of a prediction that needs another one not to be contradicted."""
    found = verdict(name, outcome)
    return found in ("supported", "undecided"), f"{name} is {found}"


def verdict(name: str, outcome: Outcome) -> predictions.Verdict:
    """Return the verdict on a prediction with this outcome."""
    found, how, held = outcome
    measurement = Measurement(name, found.value, how, "grown", found.interval, found.n, **held)
    return predictions.verdict(predictions.load_predictions()[name], measurement)


def tally(found: Mapping[str, Outcome]) -> dict[str, int]:
    """Return how many predictions have an outcome, and how many of these are supported and how many contradicted."""
    verdicts = [verdict(*one) for one in found.items()]
    return {"predictions": len(verdicts)} | {one: verdicts.count(one) for one in ("supported", "contradicted")}
