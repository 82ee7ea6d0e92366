"""Merge organisms with different drives on a grid of weights, and by several methods.

    python experiments/specification_and_merging.py

One row per cell and seed, written as soon as it is there: what is stopped goes on where it was. What decides a
prediction comes first, for all seeds. About one hour of one core. Notebook n4-specification-and-merging reads it.
"""

from functools import partial

import pandas as pd
import torch

from em_companion.core import profiles
from em_companion.core.profiles import Profile
from em_companion.experiments import bottleneck, long_run, merging, prepare

NAME = "n4-specification-and-merging"


def run(profile: Profile, arm: str, seed: int) -> None:
    """Measure one cell with one seed, and add it to the table."""
    long_run.record(NAME, arm, seed, pd.DataFrame([merging.measured(profile, arm, seed)]))


def main() -> None:
    torch.set_num_threads(1)
    profile = bottleneck.with_recipes(profiles.load("cpu"))
    long_run.carry_out(NAME, "experiments/specification_and_merging.py", merging.planned(), partial(run, profile))
    for one in merging.live():
        prepare.commit(profile, one)


if __name__ == "__main__":
    main()
