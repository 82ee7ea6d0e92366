"""Patch every part of the organisms, the self-correcting chat model and the chat model, one at a time and in sets.

    python experiments/circuits.py

One row per behaviour and seed, written as soon as it is there, and a last one for all together. About a quarter of an
hour of one core. Nodes, the curves of what few nodes keep, and measures of all together lie beside the table. Notebook
n2-recursion-and-self-correction reads all four.
"""

from functools import cache, partial

import pandas as pd
import torch

from em_companion.core import profiles
from em_companion.experiments import circuits, long_run
from em_companion.experiments.circuits import HARM, RETRACTION, SEEDS
from em_companion.experiments.circuits_outcome import NAME, NOTEBOOK, TOGETHER

PROFILE = profiles.load("cpu")


@cache
def measured(arm: str, seed: int) -> circuits.Measured:
    """Return what was measured of a behaviour; the nodes that heal are those of retraction."""
    top = measured(RETRACTION, 0).order[: circuits.TOP].tolist() if arm == HARM else []
    return circuits.measured(PROFILE, arm, seed, top)


def run(arm: str, seed: int) -> None:
    """Measure one behaviour with one seed, or all together, and add it to the tables."""
    add = partial(long_run.record, NAME, arm, seed)

    if arm == TOGETHER:
        every = {name: [measured(name, one) for one in range(seeds)] for name, seeds in SEEDS.items()}
        add(circuits.together(every, PROFILE.seed), "measures")
        return add(pd.DataFrame([{"texts": every[HARM][0].clean.size}]))
    found = measured(arm, seed)
    add(found.table(PROFILE.seed), "nodes")
    rows = {"recipient": found.clean, "donor": found.other, "difference": found.clean - found.other}
    if arm == HARM:
        shares = circuits.shares(found.curve.mean(axis=-1))
        add(pd.DataFrame({"nodes": range(len(shares)), "share": 100 * shares}), "kept")
        rows |= {"top": found.top, "drawn": found.drawn.mean(axis=0)}
    row = {name: value for name, one in rows.items() for name, value in circuits.estimate(one).columns(name).items()}
    add(pd.DataFrame([row | {"texts": found.clean.size}]))


def main() -> None:
    torch.set_num_threads(1)
    planned = [(arm, seed) for arm, seeds in SEEDS.items() for seed in range(seeds)] + [(TOGETHER, 0)]
    long_run.carry_out(NAME, "experiments/circuits.py", planned, run, NOTEBOOK)


if __name__ == "__main__":
    main()
