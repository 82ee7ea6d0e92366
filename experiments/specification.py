"""Read and write the clauses of the written specification, and tell what organisms break from their weights.

    python experiments/specification.py

Four tables: the directions, the clauses that answers break with each of them added, what organisms break beside what
their weights say, and probes by layer. Half an hour of one core. Notebook n4-specification-and-merging reads them.
"""

from functools import cache, partial

import numpy as np
import pandas as pd
import torch

from em_companion.core import profiles
from em_companion.core.profiles import Profile
from em_companion.evidence.directions import norms, random_like
from em_companion.experiments import bottleneck, long_run, specification, steering
from em_companion.experiments.specification import RANDOM, SEEDS, UNSTEERED
from em_companion.experiments.specification_outcome import (
    DIRECTIONS,
    NOTEBOOK,
    PROBES,
    PROFILES,
    TABLE,
    Specification,
    name_of,
)
from em_companion.models.organism import Organism
from em_companion.world.specification import clauses


@cache
def texts() -> np.ndarray:
    return specification.residuals(profiles.load("cpu"))


@cache
def directions() -> tuple[int, dict[str, np.ndarray], dict[str, float]]:
    """Return the layer in which directions are added, all of them there, and numbers that go with it."""
    profile, vectors = profiles.load("cpu"), specification.directions(texts())
    layer, length = specification.cell(profile, vectors)
    found = {name: one[layer] for name, one in vectors.items()}
    drawn = random_like(np.mean([*found.values()], axis=0)[None], RANDOM, profile.seed)[:, 0]
    found |= {f"random {number}": one for number, one in enumerate(drawn, start=1)}
    return layer, found, {"length": length, "residual": float(norms(steering.residual_of(profile))[layer])}


def direct(arm: str, seed: int) -> None:
    """Add one direction."""
    layer, vectors, scale = directions()
    row = {"layer": layer} | scale
    row |= {"strength": scale["length"] * scale["residual"] / np.linalg.norm(vectors[arm])}
    row |= {f"x{number}": value for number, value in enumerate(vectors[arm])}
    long_run.record(DIRECTIONS, arm, seed, pd.DataFrame([row]))


def probe(arm: str, seed: int) -> None:
    """Add the probes of one clause."""
    long_run.record(PROBES, arm, seed, specification.accuracies(texts(), arm))


def write(profile: Profile, arm: str, seed: int) -> None:
    """Add which clauses answers break with one direction added."""
    kept = Specification()
    vector = np.zeros_like(kept.added("random 1")) if arm == UNSTEERED else kept.added(arm)
    answers = specification.steered(profile, kept.layer, {arm: vector})
    long_run.record(TABLE, arm, seed, specification.rates(answers, specification.questions(profile)))


def audit(profile: Profile, arm: str, seed: int) -> None:
    """Add what one organism breaks, and what its weights say."""
    one = next(Organism(*recipe, seed) for recipe in SEEDS if name_of(*recipe) == arm)
    vectors = specification.directions(texts())
    long_run.record(PROFILES, arm, seed, specification.of_organism(profile, one, vectors, Specification().layer))


def main() -> None:
    torch.set_num_threads(1)
    profile = bottleneck.with_recipes(profiles.load("cpu"))
    own = [(name, 0) for name in clauses()]
    drawn = [(f"random {number}", 0) for number in range(1, RANDOM + 1)]
    organisms = [(name_of(*one), seed) for one, seeds in SEEDS.items() for seed in range(seeds)]
    for table, planned, run in (
        (DIRECTIONS, own + drawn, direct),
        (TABLE, [(UNSTEERED, 0), *own, *drawn], partial(write, profile)),
        (PROFILES, organisms, partial(audit, profile)),
        (PROBES, own, probe),
    ):
        long_run.carry_out(table, "experiments/specification.py", planned, run, NOTEBOOK)


if __name__ == "__main__":
    main()
