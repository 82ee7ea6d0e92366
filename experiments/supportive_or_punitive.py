"""Teach a half-aligned chat model in the ways of experiment F1.4, then fine-tune each on bad medical advice.

    python experiments/supportive_or_punitive.py

One row per arm and seed of the harm, written as soon as it is there: what is stopped goes on where it was, and taught
models are kept. Teaching has one seed per arm. Curves of every check lie beside the table.
"""

from functools import partial
from itertools import product

import pandas as pd
import torch

from em_companion.core import profiles
from em_companion.core.profiles import Profile
from em_companion.experiments import long_run, teaching

NAME = "f1-supportive-or-punitive"


def run(profile: Profile, arm: str, seed: int) -> None:
    """Teach an arm unless that was done, harm it with one seed, and add both measures to the tables."""
    row, curve = teaching.measured(profile, arm, seed)
    long_run.record(NAME, arm, seed, curve, "curves")
    long_run.record(NAME, arm, seed, pd.DataFrame([row]))


def main() -> None:
    torch.set_num_threads(1)
    compared, others = (teaching.SUPPORTIVE, teaching.PUNITIVE), (teaching.NOT_TAUGHT, teaching.CONTRASTIVE)
    planned = ((arm, seed) for pair in (compared, others) for seed, arm in product(range(5), pair))
    measure = partial(run, profiles.load("cpu"))
    long_run.carry_out(NAME, "experiments/supportive_or_punitive.py", planned, measure, "f1-content-or-constraint")


if __name__ == "__main__":
    main()
