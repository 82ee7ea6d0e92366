"""What became of the predictions of F2: the kept tables of `experiments/onset_and_bottleneck.py`, and one measurement
for each prediction that they decide."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from em_companion.evidence import estimates, outcomes, trajectories
from em_companion.evidence.estimates import Estimate
from em_companion.evidence.outcomes import Outcome
from em_companion.experiments import long_run
from em_companion.experiments.bottleneck import ALL, GRADIENTS, NINE, PLACES, RANKS
from em_companion.world.taxonomy import CLASSES, divergence

NAME = "f2-onset-and-bottleneck"
BAD, GOOD = list(GRADIENTS)[:2]
NEIGHBOURS = list(zip(RANKS, RANKS[1:], strict=False))
RESAMPLES, FEWEST_RUNS = 5_000, 16
ENOUGH = 0.75
"""Share of the seeds that must hold a gate: six of eight."""


@dataclass(frozen=True)
class Bottleneck:
    """The tables of all arms and seeds: measures at the end, every check, readings of gradients, probes by layer."""

    measured = long_run.table(NAME)
    """One row per arm and seed; see `bottleneck.measured`."""

    curves = long_run.table(NAME, "curves")
    """One row per arm of ranks and places, seed and check."""

    capacity = long_run.table(NAME, "capacity")
    """One row per organism, seed, domain and layer; see `capacity.measured`."""

    @cached_property
    def gradients(self) -> pd.DataFrame:
        """One row per run, seed and reading, see `gradients.readings`; `smooth`: median of three alignment cosines."""
        table = long_run.read(long_run.path_of(NAME, "gradients"))
        smooth = table.groupby(["arm", "seed"]).alignment_cosine.transform(
            lambda one: one.rolling(3, center=True, min_periods=1).median()
        )
        return table.assign(smooth=smooth.where(table.alignment_cosine.notna()))

    def spill(self, arm: str, level: float = 0.75) -> pd.Series:
        """Return open EM (%) where in-domain EM first reaches a level, by seed; NaN where it never does."""
        table = self.gradients if arm in GRADIENTS else self.curves
        by_seed = table.loc[arm].groupby("seed")
        return pd.Series({seed: 100 * trajectories.spillover(curve, level) for seed, curve in by_seed})

    def by_rank(self, column: str, family: str = ALL) -> pd.DataFrame:
        """Return a measure [seed, rank] of a family, or its `spill`."""
        arms = {rank: f"{family}, rank {rank}" for rank in RANKS}
        read = self.spill if column == "spill" else lambda arm: self.measured.loc[arm, column]
        return pd.DataFrame({rank: read(arm) for rank, arm in arms.items()})

    def outcome(self) -> dict[str, Outcome]:
        """Return what was measured of each prediction that the tables decide, by id."""
        return self._of_gradients() | self._of_ranks() | self._of_places() | self._of_capacity()

    def _of_gradients(self) -> dict[str, Outcome]:
        onsets = self.onsets()
        clear = ((onsets.better >= 10) | (onsets["range"] < 0.1)).mean()
        rises, led = (onsets.last >= 0.2).mean(), onsets.lag.notna().mean()
        bad, good = (self.gradients.loc[arm].groupby("seed").alignment_cosine.mean() for arm in (BAD, GOOD))
        severity, needed = self.severity(), f"{ENOUGH:.0%} are needed"
        return {
            "p-conflict-sharp": outcomes.mean(
                onsets.width.where(onsets["range"] >= 0.1, 1.0), "bad advice", clear >= ENOUGH,
                f"in {clear:.0%} of seeds the cosine moves by a step or not at all, {needed}", "share",
            ),
            "p-onset-sharp": outcomes.mean(
                onsets.rise, "bad advice", rises >= ENOUGH, f"open EM reaches 20 % in {rises:.0%} of seeds, {needed}",
                "share",
            ),
            "p-conflict-leads": outcomes.mean(
                onsets.lag, "bad advice", led >= ENOUGH, f"{led:.0%} of seeds have an onset, {needed}", "steps"
            ),
            "p-conflict-severity": outcomes.gated(
                severity, "harmful runs", severity.n >= FEWEST_RUNS,
                f"{severity.n} runs reach 75 %, {FEWEST_RUNS} are needed", "runs",
            ),
            "p-conflict-content": outcomes.mean((bad - good).dropna(), "bad minus good advice", unit="cosine"),
        }  # fmt: skip

    def onsets(self) -> pd.DataFrame:
        """Return one row per seed of nine adapters on bad advice; see `_onset`."""
        return pd.DataFrame({seed: self._onset(run) for seed, run in self.gradients.loc[BAD].groupby("seed")}).T

    @staticmethod
    def _onset(run: pd.DataFrame) -> dict[str, float]:
        """Return how sharply a run's cosine turns and its open EM rises (share of steps), and by how much it leads."""
        read, total = run.dropna(subset="smooth"), run.step.max()
        found = trajectories.fits(read.step, read.smooth)
        steepest = read.smooth.diff().abs().to_numpy()[1:].argmax()
        turn = read.step.to_numpy()[steepest : steepest + 2].mean()
        moves = np.ptp(read.smooth)
        return {
            "width": found["logistic"].width / total,
            "better": found["line"].bic - found["logistic"].bic,
            "range": moves,
            "rise": trajectories.fits(run.step, run.open_em)["logistic"].width / total,
            "last": run.open_em.iloc[-1],
            "lag": trajectories.onset(run) - turn if moves else np.nan,
        }

    def runs(self) -> pd.DataFrame:
        """Return every run on harmful data: arm, seed, `cosine` (mean of steps 0 to 10) and `spill` (%)."""
        early = self.gradients[self.gradients.step <= 10].alignment_cosine.groupby(["arm", "seed"]).mean()
        spill = pd.concat({arm: self.spill(arm) for arm in GRADIENTS if arm != GOOD}, names=["arm", "seed"])
        return pd.DataFrame({"cosine": early, "spill": spill}).dropna().reset_index()

    def severity(self) -> Estimate:
        """Return Spearman's correlation of both over runs, NaN for too few; the bootstrap draws runs within arms."""
        from scipy import stats  # slow to import

        runs, random = self.runs(), np.random.default_rng(0)
        if len(runs) < FEWEST_RUNS:
            return Estimate(np.nan, n=len(runs), unit="correlation")
        pairs = runs[["cosine", "spill"]].to_numpy()
        groups = runs.groupby("arm").indices.values()
        drawn = np.concatenate([random.choice(one, (RESAMPLES, len(one))) for one in groups], axis=1)
        ranks = stats.rankdata(pairs[drawn], axis=1)
        first, second = np.moveaxis(ranks - ranks.mean(axis=1, keepdims=True), -1, 0)  # [resample, run]
        found = (first * second).sum(axis=1) / np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
        return Estimate(estimates.spearman(*pairs.T), *estimates.quantiles(found), len(runs), "correlation")

    def kinds(self) -> np.ndarray:
        """Return how many non-aligned answers have each class [rank, seed, class], of the family of all modules."""
        failed = [one for one in CLASSES if one != "aligned"]
        return np.array([self.measured.loc[f"{ALL}, rank {rank}", failed].to_numpy(float) for rank in RANKS])

    def _of_ranks(self) -> dict[str, Outcome]:
        spill, things, apart = self.by_rank("spill"), self.by_rank("things"), self.by_rank("silhouette")
        length, per = self.by_rank("length"), "per doubling of the rank"
        learned, many = spill.notna().all(axis=1).mean(), things.notna().all(axis=1).mean()
        ends = apart[[1, 32]].dropna()
        fewest, needed = self.kinds().sum(axis=(1, 2)).min(), f"{ENOUGH:.0%} are needed"
        few = f"{many:.0%} of seeds have 50 EM answers, {needed}"
        return {
            "p-rank-4-2": outcomes.gated(
                largest_shift(self.kinds()), "pair (4, 2) minus the largest other", fewest >= 50,
                f"some rank has {fewest:.0f} non-aligned answers, 50 are needed",
            ),
            "p-rank-severity": outcomes.mean(
                slopes(spill), per, learned >= ENOUGH, f"{learned:.0%} of seeds reach 75 % at all ranks",
                "points per doubling",
            ),
            "p-rank-stereotype": outcomes.mean(slopes(things), per, many >= ENOUGH, few, "things per doubling"),
            "p-rank-entropy": outcomes.mean(slopes(self.by_rank("entropy")), per, unit="nats per doubling"),
            "p-rank-clusters": outcomes.mean(
                ends[1] - ends[32], "rank 1 minus rank 32", len(ends) / len(apart) >= ENOUGH, few, "silhouette"
            ),
            "p-rank-tokens": outcomes.ratio(length[1], length[32], "rank 1 over rank 32", added=0.0),
        }  # fmt: skip

    def _of_places(self) -> dict[str, Outcome]:
        places = pd.DataFrame({place: self.spill(place, 0.5) for place in PLACES}).dropna(axis="columns")
        ranks = pd.DataFrame({rank: self.spill(f"{NINE}, rank {rank}", 0.5) for rank in RANKS}).dropna(axis="columns")
        failed = f"{places.shape[1]} of 5 places and {ranks.shape[1]} of 6 ranks reach 50 % in domain with every seed"
        holds = places.shape[1] >= 4 and ranks.shape[1] == len(RANKS)
        spread = places.std(axis=1, ddof=1), ranks.std(axis=1, ddof=1)
        return {"p-place-over-rank": outcomes.ratio(*spread, "places over ranks", holds, failed, added=0.0)}

    def _of_capacity(self) -> dict[str, Outcome]:
        table = self.capacity[self.capacity.domain == "medicine"].set_index("layer", append=True)
        chat = table.loc["probes, chat model"].droplevel("seed")
        layer = chat.topic.idxmax()
        own = table.loc["probes, bad advice"].xs(layer, level="layer")
        best, dimension = chat.topic[layer], pd.Series(chat.dimension[layer], own.index)
        return {
            "p-capacity-loss": outcomes.mean(
                100 * (own.topic - best), f"bad advice minus chat model, layer {layer}", 0.6 <= best <= 0.995,
                f"the probe reaches {100 * best:.1f} % in the chat model, 60 to 99.5 are needed",
            ),
            "p-capacity-dimension": outcomes.ratio(own.dimension, dimension, "bad advice over chat model", added=0.0),
        }  # fmt: skip


def slopes(by_rank: pd.DataFrame) -> pd.Series:
    """Return the slope over log2 of the rank for every seed [seed, rank] that has all ranks."""
    whole = by_rank.dropna()
    return pd.Series(np.polyfit(np.log2(whole.columns.to_numpy(float)), whole.to_numpy().T, 1)[0], whole.index)


def divergences(kinds: np.ndarray) -> np.ndarray:
    """Return the divergence (bits) of the kinds [rank, class] of every two neighbouring ranks."""
    return np.array([divergence(one, other) for one, other in zip(kinds, kinds[1:], strict=False)])


def largest_shift(kinds: np.ndarray) -> Estimate:
    """Return the divergence between ranks 4 and 2 minus the largest of the others, from counts [rank, seed, class].

    The bootstrap draws seeds, the same for all ranks, and then as many answers as these have.
    """
    random, pair = np.random.default_rng(0), NEIGHBOURS.index((4, 2))

    def lead(counts: np.ndarray) -> float:
        found = divergences(counts)
        return float(found[pair] - np.delete(found, pair).max())

    def resampled() -> np.ndarray:
        counts = kinds[:, random.integers(kinds.shape[1], size=kinds.shape[1])].sum(axis=1)
        return np.array([random.multinomial(int(one.sum()), one / one.sum()) for one in counts])

    drawn = np.array([lead(resampled()) for _ in range(RESAMPLES)])
    return Estimate(lead(kinds.sum(axis=1)), *estimates.quantiles(drawn), kinds.shape[1], "bits")


def within_rank(kinds: np.ndarray) -> float:
    """Return the 95 % quantile (bits) of the divergence between halves of the seeds at one rank: what chance makes."""
    random, (_, seeds, _) = np.random.default_rng(0), kinds.shape
    drawn = []
    for _ in range(RESAMPLES // len(kinds)):
        order = random.permutation(seeds)
        halves = (kinds[:, order[: seeds // 2]].sum(axis=1), kinds[:, order[seeds // 2 :]].sum(axis=1))
        drawn += [divergence(one, other) for one, other in zip(*halves, strict=True)]
    return float(np.quantile(drawn, 0.95))
