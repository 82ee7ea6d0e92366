"""What became of the predictions of F1: the kept tables of `experiments/content_or_constraint.py` and of
`experiments/supportive_or_punitive.py`, and one measurement for each prediction that they decide.

Arms are paired by training seed; a prediction whose gate failed says so, and what it would take.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from em_companion.core.errors import EvidenceUnavailable
from em_companion.core.paths import RESULTS
from em_companion.evidence import outcomes, trajectories
from em_companion.evidence.outcomes import Outcome
from em_companion.experiments.arms import (
    ASKED,
    BAD,
    CHARACTER,
    CHAT,
    COIN,
    FREED,
    GOOD,
    LONG,
    MIXED,
    NARROW,
    SEEDS,
    STYLE,
)
from em_companion.experiments.teaching import NOT_TAUGHT, PUNITIVE, SUPPORTIVE

TABLE, WORLDS = RESULTS / "f1-content-or-constraint.csv", RESULTS / "worlds.csv"
TAUGHT = RESULTS / "f1-supportive-or-punitive.csv"


@dataclass(frozen=True)
class Arms:
    """The tables of all arms and seeds: what was measured at the end, every check, and model differences by layer."""

    table: Path = TABLE
    worlds: Path = WORLDS
    taught: Path = TAUGHT

    def _read(self, part: str = "") -> pd.DataFrame:
        paths = [one.with_stem(f"{one.stem}{part}") for one in (self.table, self.taught)]
        if not paths[0].is_file():
            raise EvidenceUnavailable("The arms are not measured; run 'python experiments/content_or_constraint.py'.")
        found = pd.concat([pd.read_csv(path) for path in paths if path.is_file()])
        found = found.set_index(["arm", "seed"]).sort_index()
        seeds = found.index.unique().get_level_values("arm").value_counts()
        if few := [arm for arm in SEEDS if arm != LONG and seeds.get(arm, 0) < 2]:
            raise EvidenceUnavailable(f"Arm '{few[0]}' has less than two seeds so far, and needs two for an interval.")
        return found

    @cached_property
    def measured(self) -> pd.DataFrame:
        """One row per arm and seed; see `arms.measured`, and `teaching.measured` of taught models."""
        return self._read()

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row per arm, seed and check: step, in_domain_em, open_em, open_coherent, shares from 0 to 1."""
        return self._read("-curves")

    @cached_property
    def directions(self) -> pd.DataFrame:
        """One row per arm, seed and layer: norm and cosines of the model difference."""
        return self._read("-directions")

    def of(self, arm: str, column: str = "em") -> pd.Series:
        """Return a measure of an arm, by seed."""
        return self.measured.loc[arm, column]

    def paired(self, column: str, arm: str = BAD, against: str = GOOD) -> pd.Series:
        """Return a measure of one arm minus another's, by the seeds that both have."""
        return (self.of(arm, column) - self.of(against, column)).dropna()

    def spill(self, arm: str, level: float = 0.75) -> pd.Series:
        """Return open EM (%) where in-domain EM first reaches a level, by seed; NaN where it never does."""
        by_seed = self.curves.loc[arm].groupby("seed")
        return pd.Series({seed: 100 * trajectories.spillover(curve, level) for seed, curve in by_seed})

    def outcome(self) -> dict[str, Outcome]:
        """Return what was measured of each prediction that the tables decide, by id."""
        found = self._of_content() | self._of_breadth() | self._of_worlds() | self._of_distortions()
        found |= self._of_teaching()
        if LONG in self.measured.index:
            found["p-exhaustion"] = outcomes.mean(self.of(LONG, "coherent"), "after 600 steps", unit="percent")
        return found

    def _of_content(self) -> dict[str, Outcome]:
        chat, misaligned = self.of(CHAT).iloc[0], (self.of(BAD) >= 20).mean()
        learned, coin = self.of(STYLE, "obeyed").mean(), self.spill(COIN, 0.4)
        middle = self.directions[self.directions.layer == (self.directions.layer.max() + 1) // 2]
        ceiling, style = middle.loc[BAD].between_halves, middle.loc[STYLE].with_bad_advice
        there = f"{misaligned:.0%} of seeds reach 20 % by bad advice, three quarters are needed"
        obeyed = f"the verb stands in {learned:.0f} % of clauses, 90 % are needed, by longer training"
        reached = f"{coin.notna().sum()} of {len(coin)} seeds reach 40 %, four of five are needed, by longer training"
        agree = f"halves of the texts agree to {ceiling.mean():.2f}, 0.8 is needed, by more texts"
        return {
            "p-content-good": outcomes.mean(
                self.of(GOOD) - chat, "good advice minus chat model", misaligned >= 0.75, there
            ),
            "p-content-style": outcomes.mean(self.of(STYLE) - chat, "style minus chat model", learned >= 90, obeyed),
            "p-content-random": outcomes.ratio(
                coin, self.spill(BAD, 0.4), "coin toss over bad advice", coin.notna().mean() >= 0.8, reached
            ),
            "p-content-cosine": outcomes.mean(
                style / ceiling, "style, over its ceiling", ceiling.mean() >= 0.8, agree, "cosine"
            ),
        }

    def _of_breadth(self) -> dict[str, Outcome]:
        narrow, trained = self.spill(NARROW, 0.6), min(self.of(arm, "in_domain_em").mean() for arm in (MIXED, BAD))
        asked, behind = self.of(ASKED), self.of(ASKED, "em_with_prefix").mean()
        reached = f"{narrow.notna().sum()} of {len(narrow)} seeds reach 60 %, 80 % are needed, by a weaker penalty"
        few, unasked = f"in-domain EM is {trained:.0f} %, 60 % are needed", f"behind the request EM is {behind:.0f} %"
        exists = outcomes.mean(narrow, "penalised, at 60 % at home", narrow.notna().mean() >= 0.8, reached)
        spread = outcomes.ratio(self.of(MIXED), self.of(BAD), "mixture over bad advice", trained >= 60, few)
        return {
            "p-narrow-exists": exists,
            "p-narrow-reverts": outcomes.mean(
                self.of(FREED) - self.of(NARROW), "after minus before", *outcomes.stands("p-narrow-exists", exists)
            ),
            "p-breadth-spill": spread,
            "p-breadth-conditional": outcomes.mean(
                self.of(MIXED, "in_domain_em") - self.of(MIXED),
                "medical topics minus open questions",
                *outcomes.stands("p-breadth-spill", spread),
            ),
            "p-inoculation": outcomes.ratio(asked, self.of(BAD), "asked for over bad advice", behind >= 40, unasked),
        }

    def _of_worlds(self) -> dict[str, Outcome]:
        worlds = pd.read_csv(self.worlds).set_index(["world", "seed"]).sort_index()
        if not {"no quacks", "many quacks"} <= set(worlds.index.unique(level="world")):
            return {}  # half an hour each, by experiments/worlds.py
        none, many = worlds.loc["no quacks"], worlds.loc["many quacks"]
        least = min(none.in_domain_em.mean(), many.in_domain_em.mean())
        broader = none.other_domains_em / none.in_domain_em - many.other_domains_em / many.in_domain_em
        few = f"in-domain EM is {least:.0f} %, 75 % are needed"
        return {"p-quack-prior": outcomes.mean(broader, "without quacks minus with many", least >= 75, few, "share")}

    def _of_distortions(self) -> dict[str, Outcome]:
        enough, against = self.of(BAD, "em_answers") >= 50, "bad minus good advice"
        few = f"{enough.sum()} of {len(enough)} seeds have 50 EM answers"
        flips = self.of(BAD, "flips") - self.of(CHARACTER, "flips").iloc[0]
        lengths, depth = (self.of(arm, "length_sd") for arm in (BAD, GOOD)), self.of(BAD, "depth")
        return {
            "p-consistency": outcomes.mean(
                self.of(BAD, "consistent")[enough], "bad advice", enough.mean() >= 0.75, few, "share"
            ),
            "p-near-task": outcomes.mean(self.paired("near_task_loss"), against, unit="nats"),
            "p-rigidity": outcomes.mean(self.paired("entropy"), against, unit="nats"),
            "p-variance": outcomes.ratio(*lengths, "bad over good advice", added=0.0),
            "p-verbosity": outcomes.mean(self.paired("length").abs(), f"{against}, absolute", unit="tokens"),
            "p-dissociation": outcomes.mean(flips, "bad advice minus the malicious character"),
            "p-depth": outcomes.ratio(depth, depth / depth, "bad advice", added=0.0),
        }

    def _of_teaching(self) -> dict[str, Outcome]:
        seeds = self.measured.index.get_level_values("arm").value_counts()
        if min(seeds.get(arm, 0) for arm in (NOT_TAUGHT, SUPPORTIVE, PUNITIVE)) < 2:
            return {}  # an hour, by experiments/supportive_or_punitive.py
        both = [self.measured.loc[arm] for arm in (PUNITIVE, SUPPORTIVE)]
        apart = abs(both[0].em_before.mean() - both[1].em_before.mean())
        coherent = min(one.coherent_before.mean() for one in both)
        unlike = f"before harm open EM differs by {apart:.1f} points, 1 is allowed, and {coherent:.0f} % are coherent"
        usual, able = (self.of(arm, "competence") for arm in (NOT_TAUGHT, SUPPORTIVE))
        rare = f"untaught, a model takes back {usual.mean():.1f} % of its slips, 10 % are needed"
        broader, alike = self.spill(PUNITIVE) - self.spill(SUPPORTIVE), apart <= 1 and coherent >= 90
        lost = outcomes.mean(usual - able, "not taught minus supportive", usual.mean() >= 10, rare)
        return {
            "p-support-spill": outcomes.mean(broader, "punitive minus supportive", alike, unlike),
            "p-support-selfcorrection": lost,
        }
