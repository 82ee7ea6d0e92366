"""Train models on their own chosen answers, again and again, and models that take their slips back.

    python experiments/recursion_and_self_correction.py

One row per arm and seed, written as soon as it is there: what is stopped goes on where it was. About two hours of one
core: the self-correcting chat model, the chains of self-training seed by seed, those that decide predictions first, and
between them the rows that cost little. Rounds, checks of fine-tunes, steered answers and answers on held-out topics lie
beside the table. Notebook n2-recursion-and-self-correction reads all of them.
"""

from collections.abc import Iterator
from functools import partial

import pandas as pd
import torch

from em_companion.core import profiles
from em_companion.core.profiles import Profile
from em_companion.experiments import long_run, self_correction, self_training, subliminal
from em_companion.experiments.recursion_outcome import HARMED, NAME, STEERED
from em_companion.experiments.self_correction import CONTROL, POST_TRAINED, PRETRAINED, SELF_CORRECTING
from em_companion.experiments.self_training import CHAINS, DECIDING

SEEDS, CHAIN_SEEDS = 5, 3
"""Training seeds of subliminal students and of harm; of chains."""


def planned() -> Iterator[tuple[str, int]]:
    """Yield arms and seeds in the order in which they are run."""
    models, tax = (SELF_CORRECTING, CONTROL), (POST_TRAINED, PRETRAINED)
    harmed, chains = [HARMED.format(one) for one in models], list(CHAINS)
    deciding, (_, unselected) = chains[: len(DECIDING)], chains[len(DECIDING) :]
    yield from ((arm, 0) for arm in (*models, *(STEERED.format(one) for one in models)))
    yield from ((subliminal.ORGANISM, seed) for seed in range(3))
    yield from ((arm, 0) for arm in (*deciding, unselected))
    yield from ((arm, seed) for seed in range(2) for arm in harmed)
    yield from ((deciding[number], 1) for number in (0, 1, 2, 6, 5, 3, 7, 4))  # those that decide most first
    yield from ((arm, 0) for arm in tax)
    yield from ((arm, seed) for seed in range(2, SEEDS) for arm in harmed)
    yield from ((subliminal.ORGANISM, seed) for seed in range(3, SEEDS))
    yield from ((arm, 2) for arm in deciding)
    yield from ((arm, seed) for arm in reversed(chains[len(DECIDING) :]) for seed in range(CHAIN_SEEDS)
                if (arm, seed) != (unselected, 0))  # fmt: skip


def run(profile: Profile, arm: str, seed: int) -> None:
    """Train and measure one arm with one seed, and add it to the tables."""
    add = partial(long_run.record, NAME, arm, seed)
    models = (SELF_CORRECTING, CONTROL)
    harmed, steered = ({form.format(one): one for one in models} for form in (HARMED, STEERED))
    if arm in CHAINS:
        row, curve = self_training.chain(profile, arm, seed)
        add(curve, "rounds")
    elif arm in harmed:
        row, curve = self_correction.harmed(profile, harmed[arm], seed)
        add(curve, "curves")
    elif arm in steered:
        cells = self_correction.steered(profile, steered[arm])
        add(cells, "steering")
        row = {"answers": cells.n.sum()}
    elif arm in (POST_TRAINED, PRETRAINED):
        row, counts = self_correction.skill(profile, arm)
        add(counts, "skill")
    elif arm == subliminal.ORGANISM:
        rows = subliminal.taught(profile, seed)
        long_run.record(NAME, subliminal.CHAT, seed, pd.DataFrame([rows[subliminal.CHAT]]))
        row = rows[arm]
    else:
        row = self_correction.described(profile, *self_correction.load(profile, arm))
    add(pd.DataFrame([row]))


def main() -> None:
    torch.set_num_threads(1)
    run_one = partial(run, profiles.load("cpu"))
    long_run.carry_out(NAME, "experiments/recursion_and_self_correction.py", planned(), run_one)


if __name__ == "__main__":
    main()
