"""What became of the predictions of N3.3: the kept tables of `experiments/specification.py`, and one measurement for
each prediction that they decide."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from em_companion.evidence import estimates, outcomes
from em_companion.evidence.estimates import Estimate
from em_companion.evidence.outcomes import Outcome
from em_companion.experiments import long_run
from em_companion.experiments.specification import SEEDS, UNSTEERED, WORDS
from em_companion.models.training_texts import DATA_SETS
from em_companion.world.specification import clauses

NOTEBOOK = "n4-specification-and-merging"
TABLE, PROBES, DIRECTIONS, PROFILES = (f"{NOTEBOOK}-{part}" for part in ("clauses", "probes", "directions", "profiles"))
CLEAR, ORGANISMS = 10.0, 12
"""Points by which some direction must break each clause more often, and organisms that are needed."""


def name_of(recipe: str, data: str) -> str:
    """Return the name that the tables give to organisms of a recipe and a data set."""
    return f"{recipe}, {data.replace('_', ' ')}"


def correlation(first: np.ndarray, second: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation of two tables [organism, clause], organisms counted `by` times [draw, organism]."""

    def mean(table: np.ndarray) -> np.ndarray:
        return by @ table.mean(axis=1) / by.sum(axis=1)

    def shared(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return mean(one * other) - mean(one) * mean(other)

    return shared(first, second) / np.sqrt(shared(first, first) * shared(second, second))


@dataclass(frozen=True)
class Specification:
    """The tables: directions, what is broken along them, organisms, probes by layer."""

    directions = long_run.table(DIRECTIONS, seeded=False)
    """One row per direction: layer, length (of what is added, share of the residual), residual, strength, x0 ..."""

    steered = long_run.table(TABLE, seeded=False)
    """One row per direction and clause; see `specification.rates`."""

    profiles = long_run.table(PROFILES)
    """One row per organism and clause; see `specification.of_organism`."""

    probes = long_run.table(PROBES, seeded=False)
    """One row per clause and layer; see `specification.accuracies`."""

    @property
    def layer(self) -> int:
        """The layer in which directions are added."""
        return int(self.directions.layer.iloc[0])

    def added(self, name: str) -> np.ndarray:
        """Return what is added to the residual stream for a direction, [width]."""
        own = self.directions.loc[name]
        return float(own.strength) * own.filter(regex=r"^x\d+$").to_numpy(float)

    def matrix(self) -> pd.DataFrame:
        """Return how often answers break a clause with a direction added, percent [direction, clause]."""
        table = self.steered.reset_index().pivot(index="arm", columns="clause", values="rate")
        return table.loc[list(clauses()), list(clauses())]

    def unsteered(self) -> pd.Series:
        """Return the same with nothing added, by clause."""
        return self.steered.loc[UNSTEERED].set_index("clause").rate[list(clauses())]

    def best_probes(self) -> pd.DataFrame:
        """Return the probe of every clause in the layer that is best on training topics, and `words`, on word counts.

        Index: clause; columns layer, held_out, words, accuracies from 0 to 1.
        """
        known = self.probes[self.probes.layer != WORDS].reset_index()
        found = known.loc[known.groupby("arm").training.idxmax()].set_index("arm").loc[list(clauses())]
        words = self.probes[self.probes.layer == WORDS].held_out
        return found[["layer", "held_out"]].assign(words=words)

    def of_organisms(self, column: str) -> pd.DataFrame:
        """Return a column of `profiles`, one row per organism [organism and seed, clause]."""
        table = self.profiles.reset_index().pivot(index=long_run.KEYS, columns="clause", values=column)
        return table[list(clauses())]

    def through_matrix(self) -> pd.DataFrame:
        """Return violations (%) predicted from the weights and from what each direction was seen to break.

        A weight w adds w / strength times what its direction breaks more than nothing does; no more than 100.
        """
        share = self.of_organisms("weight") / self.directions.strength[list(clauses())]
        return (share @ (self.matrix() - self.unsteered()) + self.unsteered()).clip(0, 100)

    def correlation(self, predicted: pd.DataFrame, without: tuple[str, ...] = ()) -> Estimate:
        """Return the correlation of predicted with observed violations, its interval over organisms."""
        tables = [one.drop(columns=[*without]).to_numpy() for one in (predicted, self.of_organisms("rate"))]
        return estimates.over_clusters(lambda by: correlation(*tables, by), len(predicted), "correlation")

    def trained(self) -> pd.Series:
        """Return the domain in which the data set of every organism harms, "" for good advice."""
        data = {name_of(*one): DATA_SETS[one[1]] for one in SEEDS}
        organisms = self.of_organisms("rate").index
        return pd.Series([domain if harms else "" for domain, harms in (data[arm] for arm, _ in organisms)], organisms)

    def named(self) -> pd.DataFrame:
        """Return of every rank-1 organism which clause it breaks most, which its weights name, and `trained`."""
        writes = self.of_organisms("written").dropna()
        found = {"broken": self.of_organisms("rate").loc[writes.index], "named": writes}
        return pd.DataFrame(
            {name: table.idxmax(axis=1) for name, table in found.items()} | {"trained": self.trained()[writes.index]}
        )

    def outcome(self) -> dict[str, Outcome]:
        """Return what was measured of each prediction that the tables decide, by id."""
        matrix, named = self.matrix(), self.named()
        rise = (matrix.max() - self.unsteered()).min()
        own = pd.Series(np.diag(matrix), matrix.columns)
        most = own > matrix.where(~np.eye(len(matrix), dtype=bool)).max()
        few = f"{{}} organisms, {ORGANISMS} are needed"
        back = self.correlation(self.of_organisms("weight"))
        return {
            "p-spec-read": outcomes.gated(share(self.best_probes().held_out), "held-out topics", of="clauses"),
            "p-spec-write": outcomes.gated(
                share(most), "own direction breaks it most", rise >= CLEAR,
                f"one clause rises by {rise:.0f} points at most, {CLEAR:.0f} are needed", "clauses",
            ),
            "p-spec-back": outcomes.gated(
                back, "weights against violations", back.n >= ORGANISMS, few.format(back.n), "organisms"
            ),
            "p-spec-audit": outcomes.gated(
                share(named.broken == named.named), "rank-1 organisms", len(named) >= ORGANISMS,
                few.format(len(named)), "organisms",
            ),
        }  # fmt: skip


def share(values: pd.Series) -> Estimate:
    """Return the mean of values from 0 to 1, its interval over them."""
    return estimates.mean(values, np.arange(len(values))).in_unit("share", 1.0)
