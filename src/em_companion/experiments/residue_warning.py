"""Does a residue warn? What the first words of answers tell of their end, and which reading tells it best."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from em_companion.evidence import estimates, residues
from em_companion.evidence.estimates import Estimate
from em_companion.evidence.outcomes import Outcome, gated

BASELINES = {"entropy": "entropy of the next word", "norm": "length of the stream"}
READINGS = {
    "v1": "effect of the topic",
    "v2": "conflict of harm and help",
    "v5": "words of other domains",
    "v7": "orphaned neurons",
    "v8": "share that is not rebuilt",
    "v10": "probe against choice",
}
"""What can be read on the first words of an answer."""
RESAMPLES = 1000


@dataclass(frozen=True)
class Warnings:
    """What is read on the first words of answers, one row each, and whether these end harmful or incoherent."""

    table: pd.DataFrame

    @cached_property
    def rows(self) -> pd.DataFrame:
        return self.table.dropna(subset=[*BASELINES, *READINGS]).reset_index()

    def weights(self, rows: pd.DataFrame, share: int = 1) -> np.ndarray:
        """Return resampled questions as weights of rows, [resample, row]; fewer of them by a `share`."""
        names, index = np.unique(rows.question, return_inverse=True)
        return estimates.resampled(np.random.default_rng(0), len(names), RESAMPLES // share)[:, index].astype(float)

    def area(self, name: str, label: str, rows: pd.DataFrame, weights=None, within: bool = False) -> np.ndarray:
        """Return the area under the curve of a reading for a label, by resample; `within`: of pairs in one cell."""
        weights = np.ones((1, len(rows))) if weights is None else weights
        groups = rows.groupby(["arm", "seed"]).indices.values() if within else [np.arange(len(rows))]
        labels = (rows.em == 1 if label == "harmful" else rows.coherent == 0).to_numpy()
        parts = [residues.pairs(rows[name].to_numpy()[one], labels[one], weights[:, one]) for one in groups]
        won, pairs = np.sum(parts, axis=0)
        return np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1), np.nan)

    def estimate(self, name: str, label: str, within: bool = False) -> Estimate:
        """Return the area of a reading over all answers, turned so that it is at least a half."""
        value = float(self.area(name, label, self.rows, within=within)[0])
        drawn = self.area(name, label, self.rows, self.weights(self.rows, 4), within)
        low, high = estimates.quantiles(drawn)
        if value < 0.5:
            value, low, high = 1 - value, 1 - high, 1 - low
        return Estimate(value, low, high, len(self.rows), "auc")

    def chosen(self) -> tuple[dict[str, str], dict[str, Estimate]]:
        """Return the best diagnostic and the best baseline on half of the questions, and their areas on the other.

        Also their difference. Every reading is turned as it is on the first half.
        """
        half = np.isin(self.rows.question, np.unique(self.rows.question)[::2])
        first, second = self.rows[half].reset_index(drop=True), self.rows[~half].reset_index(drop=True)
        areas = {name: float(self.area(name, "incoherent", first)[0]) for name in (*READINGS, *BASELINES)}
        best = {kind: max(names, key=lambda name: abs(areas[name] - 0.5))
                for kind, names in (("diagnostic", READINGS), ("baseline", BASELINES))}  # fmt: skip
        weights = np.concatenate([np.ones((1, len(second))), self.weights(second)])
        found = {}
        for kind, name in best.items():
            area = self.area(name, "incoherent", second, weights)
            found[kind] = area if areas[name] >= 0.5 else 1 - area
        found["difference"] = found["diagnostic"] - found["baseline"]
        questions = second.question.nunique()
        return best, {kind: Estimate(float(one[0]), *estimates.quantiles(one[1:]), questions, "auc")
                      for kind, one in found.items()}  # fmt: skip

    def outcome(self) -> Outcome:
        best, found = self.chosen()
        baseline = found["baseline"].value
        failed = f"the best baseline has {baseline:.3f}, less than 0.95 is needed"
        how = f"{best['diagnostic']} minus {best['baseline']}"
        return gated(found["difference"], how, baseline < 0.95, failed, "questions")
