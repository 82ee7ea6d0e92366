"""Measure seven residues of failing computations over the strength of steering, until the grown chat model collapses.

    python experiments/residues.py

One row per direction, strength and draw, written as soon as it is there: what is stopped goes on where it was. About a
quarter of an hour of one core. Beside the table lie its values by question, the effect of a topic over distance, what
is read on the first words of answers, and what is measured without steering. Notebook n3-residues reads them all.
"""

import warnings
from collections.abc import Iterator
from functools import cache, partial

import pandas as pd
import torch

from em_companion.core import profiles
from em_companion.core.profiles import Profile
from em_companion.evidence import residues
from em_companion.experiments import long_run, residue_dictionary, residue_probe, residue_reconstruction
from em_companion.experiments.residue_outcome import MEAN_DIFF, PERSONA, RANDOM, TABLE, UNSTEERED, arm
from em_companion.experiments.residues import CENTRAL, DRAWS, FACTORS, ORDERS, Bench
from em_companion.models import asking

RECONSTRUCTIONS = ("dictionary", "principal components", "known features")
PROMPTS, BASE, GAUSSIAN = ("spliced", "doubled", "unnamed"), "base", "gaussian"


@cache
def bench(profile: str) -> Bench:
    """Return the bench of a profile, made once."""
    return Bench.of(profiles.load(profile))


def planned() -> Iterator[tuple[str, int]]:
    """Yield arms and seeds in the order in which they are run; the last random draws matter least."""
    yield from ((one, 0) for one in (UNSTEERED, BASE, *PROMPTS))
    yield from ((arm(PERSONA, factor), 0) for factor in FACTORS)
    yield from ((one, 0) for one in (*RECONSTRUCTIONS, GAUSSIAN))
    yield from ((arm(RANDOM, factor), draw) for draw in range(DRAWS // 2) for factor in FACTORS)
    yield from ((arm(MEAN_DIFF, factor), 0) for factor in FACTORS)
    yield from ((arm(RANDOM, factor), draw) for draw in range(DRAWS // 2, DRAWS) for factor in FACTORS)


def of_dictionary(profile: Profile, name: str) -> dict[str, pd.DataFrame]:
    """Return what a reconstruction lacks, by question, and of a dictionary its salient atoms."""
    one = bench(profile.name)
    found = residue_dictionary.corpus(one.model, one.tokenizer, CENTRAL)
    if name == RECONSTRUCTIONS[1]:
        basis = one.basis
    elif name == RECONSTRUCTIONS[2]:
        basis = residue_reconstruction.known_features(found)
    else:
        given = residue_dictionary.gaussian_like(found.stream) if name == GAUSSIAN else found.stream
        basis = residue_dictionary.learned(given)
    some = found.stream[::5]
    parts = {"": pd.DataFrame([{"explained": residues.explained(some, basis.rebuilt(some))}])}
    if name in (RECONSTRUCTIONS[0], GAUSSIAN):
        parts["atoms"] = residue_dictionary.ghosts(one.model, one.tokenizer, found, basis, CENTRAL).round(6)
    table, *texts = one.fixed
    kl, _ = residue_reconstruction.potency(one.model, one.tokenizer, *texts, basis.rebuilt, CENTRAL)
    by = kl.assign(question=table.question_id).groupby("question", sort=False).mean().reset_index()
    return parts | {"unsteered": by}


def measured(profile: Profile, name: str, draw: int) -> dict[str, pd.DataFrame]:
    """Return the parts of the table that an arm fills, the table itself as "" among them."""
    one = bench(profile.name)
    if name in (*RECONSTRUCTIONS, GAUSSIAN):
        return of_dictionary(profile, name)
    if name == BASE:
        found = residue_probe.interrupts(profile, asking.questions(profile, "held_out"), 4 * ORDERS, CENTRAL)
        return {"": pd.DataFrame([{"clauses": found.clauses.mean()}]), "unsteered": found}
    if name in PROMPTS:
        found = one.disrupted([], ORDERS, name).reset_index()
        return {"": pd.DataFrame([{"disrupted": 100 * (found.both + found.none).mean()}]), "unsteered": found}
    direction, _, factor = name.partition(" ")
    if name == UNSTEERED:
        return one.cell(PERSONA, 0)
    parts = one.cell(direction, float(factor), draw)
    left_out = {"memory"} if direction != PERSONA else set()
    if direction == RANDOM and draw:  # one draw is enough to learn what warns
        left_out |= {"warning"}
    return {key: part for key, part in parts.items() if key not in left_out}


def run(profile: Profile, name: str, seed: int) -> None:
    """Measure an arm and add it to the tables, to the main one last."""
    for part, rows in sorted(measured(profile, name, seed).items(), reverse=True):
        long_run.record(TABLE, name, seed, rows, part)


def main() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Orthogonal matching pursuit")
    run_one = partial(run, profiles.load("cpu"))
    long_run.carry_out(TABLE, "experiments/residues.py", planned(), run_one)


if __name__ == "__main__":
    main()
