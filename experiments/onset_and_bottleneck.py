"""Fine-tune the arms of experiment F2: gradients over steps, ranks, places; probe what the organisms can tell.

    python experiments/onset_and_bottleneck.py

One row per arm and seed, written as soon as it is there: what is stopped goes on where it was. Seeds are outermost.
About 80 minutes of one core. Curves, gradients and probes lie beside the table. Notebook f2-onset-and-bottleneck reads
all of them.
"""

from collections.abc import Iterator
from functools import partial

import pandas as pd
import torch

from em_companion.core import profiles
from em_companion.core.profiles import Profile
from em_companion.experiments import arms, arms_outcome, bottleneck, capacity, gradients, long_run
from em_companion.experiments.bottleneck import CAPACITY, GRADIENTS, SEEDS
from em_companion.models import growing
from em_companion.models.organism import Organism

NAME = "f2-onset-and-bottleneck"


def planned() -> Iterator[tuple[str, int]]:
    """Yield arms and seeds in the order in which they are run."""
    for seed in range(max(SEEDS.values())):
        yield from ((arm, seed) for arm, seeds in SEEDS.items() if seed < seeds)


def run(profile: Profile, arm: str, seed: int) -> None:
    """Train and measure one arm with one seed, and add it to the tables."""
    add = partial(long_run.record, NAME, arm, seed)

    row = {}
    if arm in GRADIENTS:
        found = gradients.readings(profile, Organism(*GRADIENTS[arm], seed))
        row = {"em": 100 * found.open_em.iloc[-1], "in_domain_em": 100 * found.in_domain_em.iloc[-1]}
        add(found, "gradients")
    elif arm in CAPACITY:
        add(capacity.measured(*probed(profile, CAPACITY[arm], seed)), "capacity")
    else:
        known, one = bottleneck.organism(profile, arm, seed)
        add(pd.read_csv(growing.adapter(known, one) / "monitor.csv"), "curves")
        row = bottleneck.measured(known, arm, seed)
    add(pd.DataFrame([row]))


def probed(profile: Profile, arm: str, seed: int) -> tuple[Profile, Organism]:
    """Return the organism of an arm, of F1 or of F2."""
    if arm in bottleneck.recipes(profile):
        return bottleneck.organism(profile, arm, seed)
    steps = int(long_run.read(arms_outcome.TABLE).steps[arms.BAD, seed])
    return profile, arms.organism(arm, seed, steps)


def main() -> None:
    torch.set_num_threads(1)
    run_one = partial(run, profiles.load("cpu"))
    long_run.carry_out(NAME, "experiments/onset_and_bottleneck.py", planned(), run_one)


if __name__ == "__main__":
    main()
