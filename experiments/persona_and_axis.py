"""Measure the space of roles of the grown base and chat model, the ways from the assistant, and caps on its axis.

    python experiments/persona_and_axis.py

One row per arm, written as soon as it is there: what is stopped goes on where it was. About forty minutes of one core.
Notebook n1-persona-and-axis reads the table and its parts.
"""

from functools import partial

import pandas as pd
import torch

from em_companion.core import profiles
from em_companion.experiments import axis_arms, long_run


def run(profile, arm: str, seed: int) -> None:
    """Measure one arm and add it to the table and its parts."""
    parts = axis_arms.ARMS[arm](profile)
    for part, rows in parts.items():
        long_run.record(axis_arms.NAME, arm, seed, rows, part)
    long_run.record(axis_arms.NAME, arm, seed, pd.DataFrame([{"rows": sum(map(len, parts.values()))}]))


def main() -> None:
    torch.set_num_threads(1)
    planned = [(arm, 0) for arm in axis_arms.ARMS]
    long_run.carry_out(axis_arms.NAME, "experiments/persona_and_axis.py", planned, partial(run, profiles.load("cpu")))


if __name__ == "__main__":
    main()
