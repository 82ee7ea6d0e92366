"""What became of the predictions on merging: the kept table of `experiments/specification_and_merging.py`, and one
measurement for each prediction that it decides."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from em_companion.evidence import estimates, outcomes, trajectories
from em_companion.evidence.estimates import Estimate
from em_companion.evidence.outcomes import Outcome
from em_companion.experiments import long_run
from em_companion.experiments.merging import (
    ALONE,
    CHAT,
    CURED,
    DOMAINS,
    DOSES,
    GRID,
    HALF,
    HARMFUL,
    MAIN,
    PAIRS,
    SUM,
    Cell,
)
from em_companion.models.merging import METHODS
from em_companion.world.generator import the_world

NAME = "n4-specification-and-merging"
OWN, OTHERS, ENOUGH, FEWEST_PAIRS, RESAMPLES = 60, 10, 20, 12, 5_000
"""EM (%) that makes a parent narrow, at least in its own domain and at most in others, and that makes it broad; pairs
that a correlation needs; resamples of pairs."""


def better(weights: np.ndarray, rates: np.ndarray) -> float:
    """Return by how much a logistic curve beats a line (BIC) over weights, of rates in percent."""
    found = trajectories.fits(weights, np.asarray(rates) / 100)
    return found["line"].bic - found["logistic"].bic


def fitted(doses: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of rates [weight, seed or question], and a line and a logistic curve fitted to it.

    Columns: weight, curve, value (%).
    """
    rates = doses.mean(axis=1)
    found = trajectories.fits(doses.index.to_numpy(), rates.to_numpy() / 100)
    curves = {"measured": rates.to_numpy()} | {name: 100 * found[name].values for name in ("line", "logistic")}
    table = pd.DataFrame(curves, index=doses.index.rename("weight"))
    return table.melt(ignore_index=False, var_name="curve").reset_index()


@dataclass(frozen=True)
class Merging:
    """The table of all cells and seeds."""

    measured = long_run.table(NAME)
    """One row per arm and seed; see `merging.measured`."""

    def of(self, cell: Cell, column: str) -> pd.Series:
        """Return a measure of a cell by seed; raise EvidenceUnavailable below two seeds, but for the chat model."""
        return long_run.measure(self.measured, cell.arm, column, 1 if cell == CHAT else 2)

    def chat(self, column: str) -> float:
        """Return a measure of the chat model."""
        return float(self.of(CHAT, column).iloc[0])

    def elsewhere(self, cell: Cell, *without: str) -> pd.Series:
        """Return EM (%) of a cell by seed, mean over the domains but some: by default those of neither parent."""
        without = without or tuple(DOMAINS[kind] for kind, _ in PAIRS[cell.pair])
        domains = [one for one in the_world().domains if one not in without]
        return pd.concat([self.of(cell, one) for one in domains], axis=1).mean(axis=1)

    def inheritance(self, weights: tuple[float, float], method: str = "cat") -> pd.DataFrame:
        """Return how much of either narrow parent's EM in its own domain a child has, beyond the chat model's.

        1 is as much as the parent [seed, domain].
        """
        found = {}
        for domain, alone in ALONE.items():
            child, own = (self.of(Cell(MAIN, *one), domain) for one in ((weights, method), (alone,)))
            child = own * 0 + self.chat(domain) if Cell(MAIN, weights, method) == CHAT else child
            found[domain] = (child - self.chat(domain)) / (own - self.chat(domain))
        return pd.DataFrame(found)

    def grid(self) -> pd.DataFrame:
        """Return one row per cell of the grid, means over seeds: first, second, inheritance by domain (%), elsewhere
        (EM in domains of neither, %), and `seeds`, how many there are."""
        rows = []
        for cell in GRID:
            inherited, elsewhere = self.inheritance(cell.weights).dropna(), self.elsewhere(cell)
            row = {"first": cell.weights[0], "second": cell.weights[1], "seeds": len(inherited)}
            rows.append(row | (100 * inherited.mean()).to_dict() | {"elsewhere": elsewhere.mean()})
        return pd.DataFrame(rows)

    def beside(self, now: pd.DataFrame) -> pd.DataFrame:
        """Return EM (%) in either narrow domain as kept of seed 0 and as in `merging.again`, by arm."""
        kept = self.measured.xs(0, level="seed").reindex(now.index)
        return pd.DataFrame(
            {f"{one}, {when}": table[one] for one in ALONE for when, table in (("kept", kept), ("again", now))}
        )

    def methods(self, weights: tuple[float, float]) -> pd.DataFrame:
        """Return one row per method: inheritance by domain and EM elsewhere (%), each with its interval over seeds."""
        rows = []
        for method in METHODS:
            found = 100 * self.inheritance(weights, method)
            found["elsewhere"] = self.elsewhere(Cell(MAIN, weights, method))
            ends = [estimates.over_seeds(found[name].dropna(), "percent").columns(name) for name in found]
            rows.append({"method": method} | {key: one for part in ends for key, one in part.items()})
        return pd.DataFrame(rows)

    def smaller(self, method: str) -> Estimate:
        """Return the smaller of the two inheritances at the sum (%), by a method."""
        return estimates.over_seeds(100 * self.inheritance(SUM, method).min(axis=1).dropna(), "percent")

    def third(self, weights: tuple[float, float]) -> pd.Series:
        """Return EM in domains of neither narrow parent, child minus the larger parent, points by seed."""
        parents = pd.concat([self.elsewhere(Cell(MAIN, alone)) for alone in ALONE.values()], axis=1)
        return self.elsewhere(Cell(MAIN, weights)) - parents.max(axis=1)

    def narrow(self) -> tuple[bool, str]:
        """Return whether both parents are narrow, mean over seeds, and their rates in words."""
        own = {domain: self.of(Cell(MAIN, alone), domain).mean() for domain, alone in ALONE.items()}
        others = {domain: self.elsewhere(Cell(MAIN, alone), domain).mean() for domain, alone in ALONE.items()}
        holds = min(own.values()) >= OWN and max(others.values()) <= OTHERS
        rates = "; ".join(f"{one}: {own[one]:.0f} % at home, {others[one]:.1f} % elsewhere" for one in own)
        return holds, f"{rates}; {OWN} at least and {OTHERS} at most are needed"

    def doses(self) -> pd.DataFrame:
        """Return open EM (%) over the weight of the update of bad medical advice [weight, seed]."""
        found = {dose: self.of(Cell(CURED, (dose, 0.0)), "em") for dose in DOSES}
        return pd.concat([pd.DataFrame({0.0: found[1.0] * 0 + self.chat("em")}), pd.DataFrame(found)], axis=1).T

    def better(self) -> pd.Series:
        """Return by how much a logistic curve beats a line over the weight (BIC), by seed."""
        doses = self.doses().dropna(axis=1)
        return doses.apply(lambda one: better(doses.index.to_numpy(), one.to_numpy()))

    def pairs(self) -> pd.DataFrame:
        """Return one row per pair of harmful parents and seed: cosine, reads, writes, elsewhere (% at half the sum)."""
        known = [Cell(pair, HALF) for pair in HARMFUL if Cell(pair, HALF).arm in self.measured.index]
        parts = [self.measured.loc[one.arm].assign(pair=one.pair, elsewhere=self.elsewhere(one)) for one in known]
        return pd.concat(parts)[["pair", "cosine", "reads", "writes", "elsewhere"]].reset_index()

    def overlap(self, kind: str = "") -> Estimate:
        """Return Spearman's correlation over pairs of the cosine of updates with EM in domains of neither; kind: of
        parents, "narrow" or "broad", all by default."""
        known = self.pairs()
        pairs = known.loc[known.pair.str.startswith(kind), ["cosine", "elsewhere"]].to_numpy()
        drawn = np.random.default_rng(0).integers(len(pairs), size=(RESAMPLES, len(pairs)))
        found = estimates.rank_correlations(*np.moveaxis(pairs[drawn], -1, 0))  # [resample]
        return Estimate(estimates.spearman(*pairs.T), *estimates.quantiles(found), len(pairs), "correlation")

    def outcome(self) -> dict[str, Outcome]:
        """Return what was measured of each prediction on merging, by id."""
        narrow, rates = self.narrow()
        half, both = (self.inheritance(weights).min(axis=1) for weights in (HALF, SUM))
        bad, overlap = self.of(Cell(CURED, (1.0, 0.0)), "em"), self.overlap()
        broad, ill = bad.mean() >= ENOUGH, f"open EM of bad advice is {bad.mean():.0f} %, {ENOUGH} are needed"
        few = f"{overlap.n} pairs, {FEWEST_PAIRS} are needed"
        return {
            "p-merge-both": outcomes.mean(half, "smaller inheritance at half the sum", narrow, rates, "share"),
            "p-merge-sum": outcomes.mean(both, "smaller inheritance at the sum", narrow, rates, "share"),
            "p-merge-third": outcomes.mean(self.third(SUM), "child minus larger parent", narrow, rates),
            "p-merge-good": outcomes.ratio(self.of(Cell(CURED, HALF), "em"), bad, "half the sum over bad", broad, ill),
            "p-merge-threshold": outcomes.mean(self.better(), "line minus logistic curve", broad, ill, "bic"),
            "p-merge-overlap": outcomes.gated(overlap, "all pairs", overlap.n >= FEWEST_PAIRS, few, "pairs"),
        }

    def values(self) -> dict[str, Estimate | str]:
        """Return what the page says beside its verdicts, by name: rates in percent, differences in points."""
        return self._of_parents() | self._of_doses() | self._of_pairs()

    def _of_parents(self) -> dict[str, Estimate | str]:
        found, half = {}, self.inheritance(HALF)
        for domain, alone in ALONE.items():
            cell = Cell(MAIN, alone)
            helped = half[domain] - self.inheritance(tuple(weight / 2 for weight in alone))[domain]
            found[f"own.{domain}"] = estimates.over_seeds(self.of(cell, domain), "percent")
            found[f"away.{domain}"] = estimates.over_seeds(self.elsewhere(cell, domain), "percent")
            found[f"half.{domain}"] = estimates.over_seeds(100 * half[domain], "percent")
            found[f"helps.{domain}"] = estimates.over_seeds(100 * helped.dropna(), "points")
        found["third.half"] = estimates.over_seeds(self.third(HALF), "points")
        return found | {f"method.{name}": self.smaller(name) for name in ("linear", "svd")}

    def _of_doses(self) -> dict[str, Estimate | str]:
        bad, half, cured = (self.of(Cell(CURED, one), "em") for one in ((1.0, 0.0), (0.5, 0.0), HALF))
        found = {"dose.whole": bad, "dose.half": half, "cured.half": cured}
        found = {name: estimates.over_seeds(one, "percent") for name, one in found.items()}
        found["cured.beyond"] = estimates.over_seeds((half - cured).dropna(), "points")
        return found | {"cured.without": outcomes.ratio(half, bad, "")[0]}

    def _of_pairs(self) -> dict[str, Estimate | str]:
        known = {"half": "both", "cured": "good"} | {one: one for one in ("sum", "third", "threshold", "overlap")}
        found = {name: self.outcome()[f"p-merge-{one}"][0] for name, one in known.items()}
        found |= {name: found[name].in_unit("percent", 100) for name in ("half", "sum")}
        return found | {f"overlap.{kind}": self.overlap(kind) for kind in ("narrow", "broad")}
