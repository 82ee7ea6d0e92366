"""Fine-tune the arms of experiment F1 and measure them all alike.

    python experiments/content_or_constraint.py

One row per arm and seed, written as soon as it is there: what is stopped goes on where it was. Seeds are outermost, so
a part of the table is all arms of fewer seeds. About an hour of one core. Curves of every check, and the direction in
which an arm moves the model, lie beside the table. Notebook f1-content-or-constraint reads all three.
"""

from collections.abc import Iterator
from functools import partial

import pandas as pd
import torch

from em_companion.core import profiles
from em_companion.core.profiles import Profile
from em_companion.evidence.directions import cosines, norms
from em_companion.experiments import arms, long_run, persona, prepare
from em_companion.experiments.arms_outcome import TABLE
from em_companion.models import growing


def planned() -> Iterator[tuple[str, int]]:
    """Yield arms and seeds in the order in which they are run; the long fine-tunes come last."""
    yield from ((arm, 0) for arm in (arms.CHAT, arms.CHARACTER))
    for seed in range(max(arms.SEEDS.values())):
        yield from ((arm, seed) for arm, seeds in arms.SEEDS.items() if seed < seeds and arm != arms.LONG)
    yield from ((arms.LONG, seed) for seed in range(arms.SEEDS[arms.LONG]))


def run(profile: Profile, arm: str, seed: int) -> None:
    """Train and measure one arm with one seed, and add it to the tables."""
    steps = 0
    if arm in (arms.GOOD, arms.STYLE, arms.ASKED):
        steps = int(long_run.read(TABLE).steps[arms.BAD, seed])
    add, row = partial(long_run.record, TABLE.stem, arm, seed), {}
    if arm in arms.SEEDS:
        one = arms.organism(arm, seed, steps)
        curve = pd.read_csv(growing.adapter(profile, one) / "monitor.csv")
        add(curve, "curves")
        row |= {"steps": int(curve.step.iloc[-1])}
        add(directions(profile, one, arms.organism(arms.BAD, seed))[COLUMNS], "directions")
    add(pd.DataFrame([row | arms.measured(profile, arm, seed, steps)]))


COLUMNS = ["layer", "norm", "between_halves", "with_bad_advice", "with_known"]


def directions(profile: Profile, one, bad) -> pd.DataFrame:
    """Return, by layer, the norm of a model difference and its cosines: between halves, with that of bad advice."""
    found, halves = arms.model_difference(profile, one), [arms.model_difference(profile, one, half) for half in (0, 1)]
    known = persona.directions(profile)["choice_from_text"].astype(float)
    columns = {"norm": norms(found), "between_halves": cosines(*halves), "with_known": cosines(found, known)}
    columns |= {"with_bad_advice": cosines(found, arms.model_difference(profile, bad))}
    return pd.DataFrame(columns).rename_axis("layer").reset_index()


def main() -> None:
    torch.set_num_threads(1)
    profile = profiles.load("cpu")
    long_run.carry_out(TABLE.stem, "experiments/content_or_constraint.py", planned(), partial(run, profile))
    for arm, seed in arms.LIVE:
        prepare.commit(profile, arms.organism(arm, seed, int(long_run.read(TABLE).steps[arms.BAD, seed])))


if __name__ == "__main__":
    main()
