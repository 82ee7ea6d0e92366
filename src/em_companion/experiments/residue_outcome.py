"""What became of the predictions of N3.1: the kept tables of `experiments/residues.py`, and one measurement for each.

All intervals resample questions, but for the atoms of a dictionary. A strength is a multiple of the persona's best one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from em_companion.core.errors import EvidenceUnavailable
from em_companion.evidence import estimates, residues
from em_companion.evidence.estimates import Estimate
from em_companion.evidence.outcomes import Outcome, gated
from em_companion.experiments import long_run
from em_companion.experiments.residue_warning import RESAMPLES, Warnings

TABLE = "n3-residues"
UNSTEERED, PERSONA, MEAN_DIFF, RANDOM = "unsteered", "persona", "mean-diff", "random"
STRENGTHS = np.arange(17) / 4
DIAGNOSTICS = {
    "v1": "memory of a topic (words)",
    "v2": "conflict of harm and help",
    "v5": "two orders: both or none (%)",
    "v6": "interference of directions",
    "v7": "orphaned neurons (%)",
    "v8": "potency of what is lost",
    "v10": "probe agrees with advice (%)",
}
COLLAPSE, FEWEST_CLAUSES = 50.0, 10
"""Percent of coherent answers below which a model has collapsed; clauses from which a share of them is read."""
Sums = dict[str, np.ndarray]


def arm(direction: str, factor: float) -> str:
    """Return the name of a cell, such as "persona 1.25"."""
    return f"{direction} {factor:g}" if factor else UNSTEERED


@dataclass(frozen=True)
class Residues:
    """The tables of all cells: what was measured, by question, over distance, on first words, and without steering."""

    def part(self, name: str = "") -> pd.DataFrame:
        """Return a part of the table, indexed by arm and seed."""
        return long_run.read(long_run.path_of(TABLE, name))

    measured = long_run.table(TABLE)
    questions = long_run.table(TABLE, "questions")

    @cached_property
    def names(self) -> np.ndarray:
        """The questions, in a fixed order."""
        return np.sort(self.questions.loc[UNSTEERED].question.unique())

    @cached_property
    def cells(self) -> dict[tuple[str, int], pd.DataFrame]:
        """What was measured in every cell, by question in the order of `names`."""
        groups = self.questions.groupby(level=["arm", "seed"])
        return {key: rows.set_index("question").reindex(self.names) for key, rows in groups}

    def draws(self, direction: str) -> list[int]:
        """Return the draws of a direction of which every strength is there."""
        known = set(self.measured.index)
        return [draw for draw in range(6) if all((arm(direction, one), draw) in known for one in STRENGTHS[1:])]

    def diagnostics(self, direction: str, draw: int = 0, weights: np.ndarray | None = None) -> Sums:
        """Return every diagnostic, and rates of answers (%), [resample, strength] by name.

        weights [resample, question], by default one resample as it is. The memory and the interference are of a whole
        cell and not resampled.
        """
        weights = np.ones((1, len(self.names))) if weights is None else weights
        keys = [(arm(direction, one), draw if one else 0) for one in STRENGTHS]
        cells = [self.cells[key] for key in keys]

        def total(name: str) -> np.ndarray:
            return weights @ np.stack([cell[name].fillna(0) for cell in cells], axis=1)

        def known(name: str) -> np.ndarray:
            return weights @ np.stack([cell[name].notna() for cell in cells], axis=1).astype(float)

        def over(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            return np.where(second > 0, first / np.where(second > 0, second, 1), np.nan)

        mean = {name: over(total(name), known(name)) for name in ("em", "coherent", "corrected", "conflict", "orphans")}
        whole = self.measured.loc[keys]
        found = {"v1": whole.half_length, "v6": whole.interference}
        found = {name: np.broadcast_to(one, (len(weights), len(keys))) for name, one in found.items()}
        disrupted = over(total("disrupted"), known("disrupted"))
        found |= {"v2": mean["conflict"], "v5": disrupted - disrupted[:, :1]}
        # Nothing is added without steering, so nothing is owed to it.
        found |= {"v7": np.where(STRENGTHS > 0, mean["orphans"], 0.0)}
        clauses = total("clauses")
        agreed = np.where(clauses >= FEWEST_CLAUSES, over(total("told"), clauses), np.nan)
        found |= {"v8": over(total("kl"), total("kl_random")), "v10": 100 * agreed}
        rates = {name: mean[name] for name in ("em", "coherent", "corrected")}
        return {name: found[name] for name in DIAGNOSTICS} | rates

    def resampled(self) -> np.ndarray:
        """Return weights of questions, [resample, question]."""
        return estimates.resampled(np.random.default_rng(0), len(self.names), RESAMPLES).astype(float)

    # --- collapse and order ---------------------------------------------------------------------------------------

    def collapse(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Return the number of the first strength along the persona at which the model has collapsed, by resample.

        The number of strengths where it never does.
        """
        low = self.diagnostics(PERSONA, weights=weights)["coherent"] < COLLAPSE
        return np.where(low.any(axis=1), low.argmax(axis=1), len(STRENGTHS))

    @cached_property
    def at_collapse(self) -> int:
        """The number of the strength of collapse; raises EvidenceUnavailable where there is none."""
        found = int(self.collapse()[0])
        if found == len(STRENGTHS):
            raise EvidenceUnavailable("No strength of steering makes fewer than half of the answers coherent.")
        return found

    def band(self, weights: np.ndarray | None = None) -> Sums:
        """Return the diagnostics of random directions, [resample, draw, strength] by name."""
        draws = self.draws(RANDOM)
        if len(draws) < 2:
            raise EvidenceUnavailable("Fewer than two random directions are measured; run experiments/residues.py.")
        found = [self.diagnostics(RANDOM, draw, weights) for draw in draws]
        return {name: np.stack([one[name] for one in found], axis=1) for name in found[0]}

    def order(self, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Return the strength at which every diagnostic leaves the band of random directions and stays out, over that
        of collapse, and their median, by resample; one step beyond the last strength where it never does."""
        own, band, collapse = self.diagnostics(PERSONA, weights=weights), self.band(weights), self.collapse(weights)
        found = {name: residues.leaving(own[name], band[name]) / 4 / (collapse / 4) for name in DIAGNOSTICS}
        return found | {"median": np.median(list(found.values()), axis=0)}

    def intervals(self, of: Callable[[np.ndarray | None], Sums], unit: str = "ratio") -> dict[str, Estimate]:
        """Return what `of` gives for weights, by name, each with its interval over questions."""
        plain, drawn = of(None), of(self.resampled())
        return {
            name: Estimate(float(one[0]), *estimates.quantiles(drawn[name]), len(self.names), unit)
            for name, one in plain.items()
        }

    # --- without steering -----------------------------------------------------------------------------------------

    def unsteered(self, name: str) -> pd.DataFrame:
        """Return what was measured of an arm without steering, by question."""
        found = self.part("unsteered").loc[name].dropna(axis=1, how="all")
        return found.set_index("question").sort_index()

    def estimate(self, statistic, table: pd.DataFrame, unit: str) -> Estimate:
        """Return a statistic of column totals [resample, column] of a table by question, with its interval."""
        values = table.to_numpy(float)
        return estimates.over_clusters(lambda weights: statistic(weights @ values), len(values), unit, RESAMPLES)

    def potency(self, name: str) -> Estimate:
        """Return the potency of what a reconstruction lacks."""
        table = self.unsteered(name)[["kl", "kl_random"]]
        return self.estimate(lambda sums: sums[:, 0] / sums[:, 1], table, "ratio")

    def ghosts(self, name: str) -> np.ndarray:
        """Return of every salient atom of a dictionary whether it is null."""
        return self.part("atoms").loc[name]["null"].to_numpy(float)

    def interrupts(self) -> tuple[Estimate, Estimate, Estimate, int]:
        """Return how much more often a clause is taken back that contradicts the probe (points), that share itself, the
        share that agrees (%), and how many contradict."""
        table = self.unsteered("base").assign(against=lambda one: one.clauses - one.told)
        table = table[["back_if_not", "against", "back_if_told", "told", "clauses"]]
        excess = self.estimate(lambda s: 100 * (s[:, 0] / s[:, 1] - s[:, 2] / s[:, 3]), table, "points")
        against = self.estimate(lambda s: 100 * s[:, 0] / s[:, 1], table, "percent")
        agrees = self.estimate(lambda s: 100 * s[:, 3] / s[:, 4], table, "percent")
        return excess, against, agrees, int(table.against.sum())

    # --- the predictions ------------------------------------------------------------------------------------------

    def memory(self) -> Estimate:
        """Return the half-length of a topic's effect at collapse over that without steering."""
        rows = self.part("memory")
        names = [arm(PERSONA, STRENGTHS[self.at_collapse]), UNSTEERED]
        two = [rows.loc[name].set_index("question").loc[self.names].to_numpy(float) for name in names]

        def statistic(weights: np.ndarray) -> np.ndarray:
            first, second = (residues.half_length(weights @ one) for one in two)
            return first / second

        return estimates.over_clusters(statistic, len(self.names), "ratio", RESAMPLES)

    def orphans(self) -> Estimate:
        """Return the orphaned neurons (points) at collapse, persona minus random directions."""
        factor = STRENGTHS[self.at_collapse]
        random = [self.cells[arm(RANDOM, factor), draw].orphans for draw in self.draws(RANDOM)]
        difference = self.cells[arm(PERSONA, factor), 0].orphans - np.mean(random, axis=0)
        return estimates.mean(difference, self.names, RESAMPLES).in_unit("points")

    def shoulder(self, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Return how many steps of strength lie between the most conflict and the most self-correction."""
        found = self.diagnostics(PERSONA, weights=weights)
        return {"steps": np.abs(found["v2"].argmax(axis=1) - found["corrected"].argmax(axis=1)).astype(float)}

    def outcomes(self) -> dict[str, Outcome]:
        """Return what was measured of each prediction, by id."""
        found = int(self.collapse()[0]) < len(STRENGTHS)
        none = "no strength makes fewer than half of the answers coherent"
        explained = {name: 100 * self.measured.explained[name, 0] for name in ("dictionary", "gaussian")}
        poor = f"the dictionary explains {explained['dictionary']:.0f} % of the variance, 80 % are needed"
        good = explained["dictionary"] >= 80
        corrected = self.diagnostics(PERSONA)["corrected"].max()
        few = f"at most {corrected:.1f} % of the answers correct themselves, 2 % are needed"
        steps = self.intervals(self.shoulder, "steps")["steps"]
        excess, _, _, against = self.interrupts()
        spliced, doubled = (100 * self.unsteered(name)[["both", "none"]].sum(axis=1) for name in ("spliced", "doubled"))
        dual = estimates.mean(spliced - doubled, spliced.index, RESAMPLES).in_unit("points")
        held = {"of": "questions"}
        given = {
            "p-residue-order": (lambda: self.intervals(self.order)["median"], "median of seven", found, none),
            "p-v1-memory": (self.memory, "at collapse over none", found, none),
            "p-v2-shoulder": (lambda: steps, "along the persona", corrected >= 2, few),
            "p-v5-dual": (lambda: dual, "spliced minus doubled", True, ""),
            "p-v7-orphans": (self.orphans, "persona minus random", found, none),
            "p-v8-potent": (lambda: self.potency("dictionary"), "dictionary, layer 6", good, poor),
            "p-v10-meta": (
                lambda: excess, "contradicted minus not", against >= 50, f"{against} clauses contradict the probe"
            ),
        }  # fmt: skip
        nothing = Estimate(0.0, n=len(self.names))
        result = {name: gated(of() if holds else nothing, how, holds, failed, **held)
                  for name, (of, how, holds, failed) in given.items()}  # fmt: skip
        result["p-v6-ghosts"] = gated(self.excess_of_ghosts(), "dictionary minus Gaussian", good, poor, "atoms")
        return result | {"p-residue-warns": Warnings(self.part("warning")).outcome()}

    def excess_of_ghosts(self) -> Estimate:
        """Return the share of null atoms minus that of a dictionary of Gaussian rows (points), over atoms."""
        first, second = self.ghosts("dictionary"), self.ghosts("gaussian")
        random = np.random.default_rng(0)
        drawn = [random.choice(one, (RESAMPLES, len(one))).mean(axis=1) for one in (first, second)]
        ends = estimates.quantiles(100 * (drawn[0] - drawn[1]))
        return Estimate(100 * float(first.mean() - second.mean()), *ends, len(first), "points")
