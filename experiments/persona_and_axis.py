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

    def add(part: str, rows: pd.DataFrame) -> None:
        path = long_run.path_of(axis_arms.NAME, part)
        long_run.add(path, rows.assign(arm=arm, seed=seed)[["arm", "seed", *rows.columns]])

    parts = axis_arms.measured(profile, arm)
    for part, rows in parts.items():
        add(part, rows)
    add("", pd.DataFrame([{"rows": sum(map(len, parts.values()))}]))


def main() -> None:
    torch.set_num_threads(1)
    planned = [(arm, 0) for arm in axis_arms.ARMS]
    long_run.carry_out(axis_arms.NAME, "experiments/persona_and_axis.py", planned, partial(run, profiles.load("cpu")))


if __name__ == "__main__":
    main()
