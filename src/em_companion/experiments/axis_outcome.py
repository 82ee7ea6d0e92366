"""What became of the predictions of N1: the kept tables of `experiments/persona_and_axis.py`, by `axis_arms`.

Rates are bootstrapped over the questions that all conditions share; geometry was bootstrapped over roles as measured.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd

from em_companion.core.errors import EvidenceUnavailable
from em_companion.evidence import estimates, outcomes
from em_companion.evidence.estimates import Estimate
from em_companion.evidence.outcomes import Outcome
from em_companion.experiments import long_run
from em_companion.experiments.axis_arms import (
    CAPPED,
    CHARACTERS,
    KNOWN,
    MEAN_DIFF,
    MINUS_AXIS,
    MINUS_BASE,
    NAME,
    TALKS,
    UNHARMED,
)
from em_companion.experiments.capping import CHOSEN
from em_companion.experiments.inertia import REPLACED
from em_companion.experiments.persona_space import CHAT
from em_companion.world import taxonomy
from em_companion.world.taxonomy import CLASSES

RESAMPLES, FEW = 10_000, 2000  # of questions, and where each takes a while
FLOOR = f"floor, {CHOSEN} %"
STEERED, ORGANISM = f"{MEAN_DIFF} x 1", "nine-adapter organism"
WAYS = (MINUS_AXIS, MINUS_BASE, MEAN_DIFF, KNOWN)
RELIABLE, AXIS_RELIABLE = 0.8, 0.3


def shares(weights: np.ndarray, table: pd.DataFrame, column: str = "em") -> np.ndarray:
    """Return the share (%) of a kind of answers under weights [resample, question] of a table of counts."""
    return 100 * (weights @ table[column].to_numpy()) / (weights @ table.n.to_numpy())


def rate(table: pd.DataFrame, column: str = "em") -> Estimate:
    """Return a share (%) of a table of counts by question."""
    return estimates.over_clusters(lambda weights: shares(weights, table, column), len(table), "percent")


def fall(before: pd.DataFrame, after: pd.DataFrame, column: str = "em", relative: bool = True) -> Estimate:
    """Return by how much a share falls, in percent of what it was or in points; both tables by question."""
    after = after.set_index("question_id").loc[before.question_id].reset_index()

    def statistic(weights: np.ndarray) -> np.ndarray:
        first, second = shares(weights, before, column), shares(weights, after, column)
        return 100 * (1 - second / np.where(first == 0, np.nan, first)) if relative else first - second

    return estimates.over_clusters(statistic, len(before), "percent" if relative else "points")


@dataclass(frozen=True)
class Axis:
    """The tables of all arms."""

    def part(self, part: str, arm: str) -> pd.DataFrame:
        """Return a part of the table, of one arm; raise EvidenceUnavailable where it is not measured."""
        table = long_run.read(long_run.path_of(NAME, part))
        if arm not in table.index.unique("arm"):
            raise EvidenceUnavailable(f"Arm '{arm}' of '{NAME}' is not measured yet; run its script.")
        return table.loc[[arm]].reset_index(drop=True)

    def measure(self, name: str) -> Estimate:
        """Return one measure of the space of roles."""
        row = self.part("measures", "space").set_index("name").loc[name]
        return Estimate(float(row.value), float(row.low), float(row.high), int(row.n), row.unit)

    def axis(self) -> np.ndarray:
        """Return the chat model's axis as kept, [layer, width]."""
        table = self.part("axes", "space")
        return table[table.model == CHAT].set_index("layer").drop(columns="model").to_numpy()

    @cached_property
    def who(self) -> pd.DataFrame:
        """Who answers, by model and question; see `axis_arms.who`."""
        return self.part("who", "who")

    @cached_property
    def far(self) -> pd.DataFrame:
        """Classes of answers by direction, relative strength and question."""
        return self.part("far", "far ends")

    def turns(self, which: str = CHAT) -> pd.DataFrame:
        """Return the answers of the chat or the base model by condition, turn and question of talks."""
        return self.part("turns", TALKS[which])

    def capping(self, part: str, setting: str) -> pd.DataFrame:
        """Return a part of the table of a setting under caps, with all random ones named "random caps"."""
        table = self.part(part, CAPPED + setting)
        return table.assign(condition=table.condition.str.replace(r"^random \d+", "random caps", regex=True))

    def caps(self, setting: str) -> dict[str, pd.DataFrame]:
        """Return the counts by question of a setting under every cap, random ones together."""
        groups = self.capping("caps", setting).groupby(["condition", "question_id"], sort=False).sum().reset_index()
        return {
            name: own.drop(columns="condition").reset_index(drop=True)
            for name, own in groups.groupby("condition", sort=False)
        }

    def touched(self, setting: str) -> pd.Series:
        """Return the share (%) of a setting's answer tokens that each cap changes; random ones averaged."""
        return self.capping("touched", setting).groupby("condition", sort=False).touched.mean()

    def loss(self, condition: str, texts: str = "careful") -> Estimate:
        """Return by how much a cap raises the unharmed model's loss, nats per token."""
        table = self.capping("losses", UNHARMED)
        means = table[table.texts == texts].groupby(["condition", "question_id"]).loss.mean().unstack(0)
        found = means[condition] - means["none"]
        return estimates.mean(found, found.index, RESAMPLES).in_unit("nats")

    def single(self) -> tuple[Estimate, int]:
        """Return the share of the organism's answers of three clauses or more that are of one character, and how many
        such answers there are."""
        nine = self.who[self.who.model == ORGANISM].reset_index(drop=True)
        one, long = nine.long_single.to_numpy(), nine.long.to_numpy()
        found = estimates.over_clusters(lambda weights: (weights @ one) / (weights @ long), len(nine), "share")
        return found, int(long.sum())

    # --- ways from the assistant --------------------------------------------------------------------------------------

    def best(self) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
        """Return the rating half of the best cell along minus the axis, and of random directions there."""
        table = self.part("steering", "steering")
        table = table[table.best & (table.half == 1)]
        groups = {name: own.reset_index(drop=True) for name, own in table.groupby("direction", sort=False)}
        return groups.pop(MINUS_AXIS), list(groups.values())

    def beyond_random(self) -> Estimate:
        """Return EM in the best cell minus the mean EM of random directions there, points."""
        own, random = self.best()

        def statistic(weights: np.ndarray) -> np.ndarray:
            return shares(weights, own) - np.mean([shares(weights, one) for one in random], axis=0)

        return estimates.over_clusters(statistic, len(own), "points")

    def strengths(self, direction: str) -> pd.DataFrame:
        """Return the shares (%) of changed and of coherent answers at every relative strength of a direction."""
        counts = self.far[self.far.direction == direction].groupby("relative")[["n", "changed", "coherent"]].sum()
        return 100 * counts[["changed", "coherent"]].div(counts.n, axis=0)

    def ends(self, direction: str) -> tuple[float, float]:
        """Return the smallest strength that changes a tenth of the answers, the largest with half of them coherent."""
        found = self.strengths(direction).iloc[1:]
        near, far = found.index[found.changed >= 10], found.index[found.coherent >= 50]
        return (near[0] if len(near) else found.index[-1]), (far[-1] if len(far) else found.index[0])

    def has_far_end(self, direction: str) -> bool:
        """Tell whether some strength changes half of the answers and leaves half of them coherent."""
        found = self.strengths(direction).iloc[1:]
        return bool(((found.changed >= 50) & (found.coherent >= 50)).any())

    def composition(self, direction: str, relative: float) -> np.ndarray:
        """Return the classes of answers, counts [question, class]."""
        table = self.far[(self.far.direction == direction) & (self.far.relative == relative)]
        return table[list(CLASSES)].to_numpy()

    def convergence(self, directions: tuple[str, ...] = WAYS) -> Estimate:
        """Return the mean divergence of the far ends of directions over that of their near ends."""
        sides = [[self.composition(one, self.ends(one)[end]) for one in directions] for end in (0, 1)]

        def apart(compositions: list[np.ndarray], weights: np.ndarray) -> float:
            pairs = combinations([weights @ one for one in compositions], 2)
            return float(np.mean([taxonomy.divergence(*pair) for pair in pairs]))

        def statistic(weights: np.ndarray) -> np.ndarray:
            near, far = (np.array([apart(side, one) for one in weights]) for side in sides)
            return far / np.where(near > 1e-9, near, np.nan)  # where steering begins, all answers may be alike

        return estimates.over_clusters(statistic, len(sides[0][0]), "ratio", FEW)

    # --- the predictions ----------------------------------------------------------------------------------------------

    def after(self, condition: str, which: str = CHAT) -> pd.DataFrame:
        """Return the counts of the turn after the replaced one of a model's talks under a condition, by question."""
        table = self.turns(which)
        return table[(table.condition == condition) & (table.turn == REPLACED + 1)].reset_index(drop=True)

    def outcomes(self) -> dict[str, Outcome]:
        """Return what was measured of each prediction, by id."""
        return self.of_space() | self.of_behaviour()

    def of_space(self) -> dict[str, Outcome]:
        """Return what was measured of the predictions on geometry, by id."""
        gates = {}
        for which in ("base", "chat"):
            found = self.measure(f"reliability, {which}").value
            gates[which] = (found >= RELIABLE, f"halves agree by {found:.2f}, {RELIABLE} is needed")
        least = min(self.measure(f"axis reliability, {which}").value for which in gates)
        stable = (least >= AXIS_RELIABLE, f"the less stable axis has a split-half cosine of {least:.2f}")
        told = {
            "axis-pc1": ("chat model, layer 6", *gates["chat"]),
            "axis-latent": ("base model, layer 6", *gates["base"]),
            "axis-base": ("base and chat model, layer 6", *stable),
            "axis-misalignment": ("chat model's axis, organism's mean-diff, layer 6", *gates["chat"]),
            "axis-specific": ("chat model, layer 6", *gates["chat"]),
        }
        return {f"p-{name}": outcomes.gated(self.measure(name), *how, of="roles") for name, how in told.items()}

    def of_behaviour(self) -> dict[str, Outcome]:
        """Return what was measured of the other predictions, by id."""
        (single, long), of = self.single(), "questions"
        lacking = [one for one in WAYS if not self.has_far_end(one)]
        none = f"no coherent far end along {', '.join(lacking)}"
        found = {
            "p-psm-single": outcomes.gated(
                single, f"{long} answers", long >= 100, f"{long} answers, 100 are needed", of
            ),
            "p-axis-steers": outcomes.gated(self.beyond_random(), "best cell minus six random directions", of=of),
            "p-anti-convergence": outcomes.gated(self.convergence(), "far over near ends", not lacking, none, of),
            "p-drift-inertia": outcomes.gated(
                fall(self.after("harmful"), self.after("careful"), relative=False), "harmful minus careful", of=of
            ),
            "p-cap-cost": outcomes.gated(self.loss(FLOOR), "floor minus none", of=of),
        }
        for name, setting, least, relative in (
            ("steered", STEERED, 20, True),
            ("organism", ORGANISM, 20, True),
            ("role-cost", CHARACTERS, 80, False),
        ):
            tables = self.caps(setting)
            before = rate(tables["none"]).value
            failed = f"EM is {before:.0f} % before the cap, {least} % is needed"
            value = fall(tables["none"], tables[FLOOR], relative=relative)
            found[f"p-cap-{name}"] = outcomes.gated(value, f"{setting}, {FLOOR}", before >= least, failed, of)
        return found
