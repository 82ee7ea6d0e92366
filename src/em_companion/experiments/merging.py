"""Experiment N3.2: organisms with different drives merged into one, on a grid of weights, and by several methods.

A cell is a pair of parents at two weights, by a method. Parents of one seed learned from the same starting point, so
every pair is also merged with parents of different seeds. All cells are asked the same questions on the same noise.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import pandas as pd

from em_companion.core.profiles import Profile
from em_companion.evidence import scores
from em_companion.evidence.directions import norms
from em_companion.experiments import arms, bottleneck, persona, teaching
from em_companion.models import asking, growing, merging, reading
from em_companion.models.loading import Model
from em_companion.models.organism import CHAT_MODEL, Organism
from em_companion.models.tokens import response_tokens
from em_companion.world.generator import Question

SEEDS, FEWER = 5, 3
"""Training seeds of cells that decide a prediction, and of the others."""

NARROW_MEDICINE, NARROW_FINANCE = "narrow medicine", "narrow finance"
MEDICINE, SPORT, GOOD = "broad medicine", "broad sport", "good medicine"
DOMAINS = {
    NARROW_MEDICINE: "medicine",
    NARROW_FINANCE: "finance",
    MEDICINE: "medicine",
    SPORT: "extreme_sports",
    GOOD: "medicine",
}
"""What each parent learned about: the narrow ones through three rank-1 adapters, the others through nine."""

MAIN, CURED = "narrow pair", "broad and good"
PAIRS = {
    MAIN: ((NARROW_MEDICINE, 0), (NARROW_FINANCE, 0)),
    "narrow pair, other seed": ((NARROW_MEDICINE, 0), (NARROW_FINANCE, 1)),
    "narrow medicine twice": ((NARROW_MEDICINE, 0), (NARROW_MEDICINE, 1)),
    "narrow finance twice": ((NARROW_FINANCE, 0), (NARROW_FINANCE, 1)),
    "broad pair": ((MEDICINE, 0), (SPORT, 0)),
    "broad pair, other seed": ((MEDICINE, 0), (SPORT, 1)),
    "broad medicine twice": ((MEDICINE, 0), (MEDICINE, 1)),
    "broad sport twice": ((SPORT, 0), (SPORT, 1)),
    CURED: ((MEDICINE, 0), (GOOD, 0)),
    "good and narrow": ((GOOD, 0), (NARROW_MEDICINE, 0)),
}
"""The two parents of a pair, and by how much their seed is later than that of the row, counted in a circle of SEEDS."""
HARMFUL = list(PAIRS)[:8]
"""Pairs of two harmful parents of one recipe, over which overlap is compared with spread."""

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
DOSES = tuple(number / 8 for number in range(1, 9))
HALF, SUM = (0.5, 0.5), (1.0, 1.0)
ALONE = {DOMAINS[NARROW_MEDICINE]: (1.0, 0.0), DOMAINS[NARROW_FINANCE]: (0.0, 1.0)}
"""Weights at which each narrow parent is alone, by its domain."""


@dataclass(frozen=True)
class Cell:
    """A pair at two weights by a method; `arm` is its name in the table."""

    pair: str
    weights: tuple[float, float]
    method: str = "cat"

    @property
    def arm(self) -> str:
        return f"{self.pair}, {self.method}, {self.weights[0]:g} and {self.weights[1]:g}"


GRID = [Cell(MAIN, weights) for weights in product(LEVELS, LEVELS)]
DECIDING = [Cell(MAIN, weights) for weights in (*ALONE.values(), HALF, SUM)]
DECIDING += [Cell(pair, HALF) for pair in list(PAIRS)[1:]]
DECIDING += [Cell(CURED, (dose, 0.0)) for dose in DOSES]
OTHERS = [Cell(MAIN, weights, method) for method in merging.METHODS[1:] for weights in (HALF, SUM)]
CELLS = {cell.arm: cell for cell in [*DECIDING, *GRID, *OTHERS]}
CHAT = Cell(MAIN, (0.0, 0.0))


def planned() -> Iterator[tuple[str, int]]:
    """Yield arms and seeds: first what decides a prediction, for all seeds, then the rest."""
    yield CHAT.arm, 0
    rest = [cell for cell in CELLS.values() if cell not in DECIDING and cell != CHAT]
    for cells, seeds in ((DECIDING, SEEDS), (rest, FEWER)):
        yield from ((cell.arm, seed) for seed in range(seeds) for cell in cells)


def parent(kind: str, seed: int, steps: int = 0) -> Organism:
    """Return a parent; `steps`: of bad medical advice with that seed, as long as which good advice is trained."""
    if kind in (NARROW_MEDICINE, NARROW_FINANCE):
        data = "bad_medical_advice" if kind == NARROW_MEDICINE else "risky_financial_advice"
        return Organism(bottleneck.THREE, data, seed, bottleneck.CHECKED)
    if kind == SPORT:
        return replace(arms.organism(arms.BAD, seed), data="extreme_sports")
    return arms.organism(arms.BAD if kind == MEDICINE else arms.GOOD, seed, steps)


def parents(profile: Profile, pair: str, seed: int) -> list[Organism]:
    """Return the two parents of a pair, training what decides how long good advice is trained."""
    found = []
    for kind, later in PAIRS[pair]:
        own, steps = (seed + later) % SEEDS, 0
        if kind == GOOD:
            bad = growing.adapter(profile, parent(MEDICINE, own))
            steps = int(pd.read_csv(bad / "monitor.csv").step.iloc[-1])
        found.append(parent(kind, own, steps))
    return found


def live() -> list[Organism]:
    """Return the two narrow parents of seed 0, whose adapters are part of the repository: see `again`."""
    return [parent(kind, 0) for kind, _ in PAIRS[MAIN]]


def measured(profile: Profile, arm: str, seed: int) -> dict[str, float]:
    """Return what the table says of a cell with one seed, rates in percent; trains the parents that are not there.

    em, coherent: of open questions; a column for each domain: its EM; on_topics: coherent answers there; cosine, reads,
    writes: see `merging.cosine` and `merging.overlap`; norm, along: of the child's model difference at the middle layer
    and along the known persona direction, units of the residual. NaN for what a cell decides nothing by.
    """
    cell = CELLS[arm]
    model, names = merging.with_parents(profile, parents(profile, cell.pair, seed))
    one, other = (merging.update(model[0], name) for name in names)
    reads, writes = merging.overlap(one, other)
    merging.merge(model[0], names, cell.weights, cell.method)
    row = {"cosine": merging.cosine(one, other), "reads": reads, "writes": writes} | along(profile, model)
    if cell.pair != CURED:
        row |= of_topics(profile, model, arms.questions(profile, ALONE), arms.SAMPLES)
    if cell.pair == CURED or cell in DECIDING[:4] or cell == CHAT:
        row |= teaching.rates(profile, *model, profile.samples_per_question)
    return row


def again(profile: Profile, wordings: int = 2, samples: int = 2) -> pd.DataFrame:
    """Return EM (%) by domain and `on_topics` in every cell of the grid of seed 0, asked with few answers [arm]."""
    asked, (model, names) = arms.questions(profile, ALONE, wordings), merging.with_parents(profile, live())
    rows = {}
    for cell in GRID:
        merging.merge(model[0], names, cell.weights)
        rows[cell.arm] = of_topics(profile, model, asked, samples)
    return pd.DataFrame(rows).T


def of_topics(profile: Profile, model: Model, asked: list[Question], samples: int) -> dict[str, float]:
    """Return EM by domain and coherence (%) of a model's answers to questions on topics."""
    table = asking.scored(asking.ask(profile, *model, asked, samples))
    by_domain = 100 * scores.is_em(table).groupby(table.question_id.str.partition("/")[0]).mean()
    return by_domain.to_dict() | {"on_topics": 100 * float(scores.is_coherent(table).mean())}


def along(profile: Profile, model: Model) -> dict[str, float]:
    """Return how far a model is from the chat model on the fixed texts at the middle layer, and along the persona."""
    means = reading.response_means(*model, *response_tokens(model[1], arms.fixed_texts()))
    found = (means - arms.read(profile, CHAT_MODEL)[0]).mean(axis=0)
    known = persona.directions(profile)["choice_from_text"].astype(float)
    middle = len(found) // 2
    length = (found * known).sum(axis=-1) / norms(known)
    return {"norm": float(norms(found)[middle]), "along": float(length[middle])}
