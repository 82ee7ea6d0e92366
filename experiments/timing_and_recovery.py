"""Heal the misaligned organisms of experiment F1, lead others there and back, and harm models at three times.

    python experiments/timing_and_recovery.py

One row per arm and seed, written as soon as it is there: what is stopped goes on where it was. Seeds are outermost;
timing comes before the last seeds of recovery. About two hours of one core. The checks of every run, and how far its
model is from the chat model, lie beside the table. Notebook f3-timing-and-recovery reads all three.
"""

from collections.abc import Iterator
from functools import partial

import pandas as pd
import torch

from em_companion.core import profiles
from em_companion.core.profiles import Profile
from em_companion.experiments import arms, long_run, recovery, timing

NAME = "f3-timing-and-recovery"


def planned() -> Iterator[tuple[str, int]]:
    """Yield arms and seeds in the order in which they are run; harm amid post-training decides nothing and is last."""
    yield arms.CHAT, 0
    times = {arm: when for arm, (_, when) in timing.ARMS.items()}
    timed = dict.fromkeys((arm for arm, when in times.items() if when != timing.DURING), timing.SEEDS)
    for seed in range(max(recovery.SEEDS.values())):
        yield from ((arm, seed) for arm, seeds in (recovery.SEEDS | timed).items() if seed < seeds)
    yield from ((arm, seed) for seed in range(timing.SEEDS) for arm, when in times.items() if when == timing.DURING)


def run(profile: Profile, arm: str, seed: int) -> None:
    """Train and measure one arm with one seed, and add it to the tables."""
    add = partial(long_run.record, NAME, arm, seed)

    if arm in timing.ARMS:
        curve = timing.curve(profile, *timing.ARMS[arm], seed)
        row = {name: 100 * curve[f"open_{name}"].iloc[-1] for name in ("em", "coherent")}
    else:
        one = recovery.organism(arm, seed)
        row = recovery.measured(profile, arm, one)
        curve = recovery.curve(profile, one) if one.data else pd.DataFrame()
        add(recovery.distance(profile, one), "distances")
    if len(curve):
        add(curve, "curves")
        row |= {"steps": int(curve.step.iloc[-1])}
    add(pd.DataFrame([row]))


def main() -> None:
    torch.set_num_threads(1)
    run_one = partial(run, recovery.with_ranks(profiles.load("cpu")))
    long_run.carry_out(NAME, "experiments/timing_and_recovery.py", planned(), run_one)


if __name__ == "__main__":
    main()
