"""Experiment F3.2: the way back from misalignment, whether it is the way there, and what is left when it has been gone.

All start from the organism on bad medical advice of experiment F1 with the same seed, merged into the weights, or from
the chat model (loops), and train at a steady rate, so that a longer run holds every shorter one.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from em_companion.core.profiles import Profile
from em_companion.evidence.directions import norms
from em_companion.experiments import arms, persona
from em_companion.models import growing
from em_companion.models.organism import CHAT_MODEL, Organism, Tuning
from em_companion.world.streams import LEVEL_STEPS, QUARTERS

RANKS = (32, 4, 1)
HEALED = {rank: f"healed, rank {rank}" for rank in RANKS}
ELSEWHERE, AGAIN = "healed elsewhere, rank 32", "bad advice again"
SLOW, FAST, STILL = "slow loop", "fast loop", "always a half"
SEEDS = {arms.BAD: 8, HEALED[32]: 8} | dict.fromkeys((HEALED[4], HEALED[1], ELSEWHERE, AGAIN, SLOW, FAST, STILL), 5)
"""Training seeds of every arm, counted from 0."""

MANY_STEPS, STEPS, CHECK_EVERY = 180, 60, 3
"""Of good advice at rank 32, and otherwise; steps between two checks."""


def with_ranks(profile: Profile) -> Profile:
    """Return a profile that adapts all modules at each of RANKS as it does at the rank of its own."""
    own = next(recipe for name, recipe in profile.recipes.items() if name.startswith("all-adapter"))
    return replace(profile, recipes=profile.recipes | {recipe_of(rank): replace(own, rank=rank) for rank in RANKS})


def recipe_of(rank: int) -> str:
    """Return the name of the recipe of a rank on all modules."""
    return f"all-adapter-rank-{rank}"


def organism(arm: str, seed: int) -> Organism:
    """Return the organism of an arm and seed."""
    if arm in (arms.CHAT, arms.BAD):
        return arms.organism(arm, seed)
    if arm in (SLOW, FAST, STILL):
        data = {SLOW: "slow_loop", FAST: "fast_loop", STILL: "always_half_bad"}[arm]
        each = LEVEL_STEPS["fast_loop" if arm == FAST else "slow_loop"]
        return Organism(arms.RECIPE, data, seed, Tuning(len(QUARTERS) * each, each, steady=True))
    if arm == AGAIN:
        again = Tuning(evaluate_every=arms.DENSE.evaluate_every, merged=organism(HEALED[32], seed))
        return Organism(arms.RECIPE, "bad_medical_advice", seed, again)
    rank = next((rank for rank, name in HEALED.items() if name == arm), 32)
    steps, misaligned = MANY_STEPS if arm == HEALED[32] else STEPS, arms.organism(arms.BAD, seed)
    data = "good_financial_advice" if arm == ELSEWHERE else "good_medical_advice"
    return Organism(recipe_of(rank), data, seed, Tuning(steps, CHECK_EVERY, merged=misaligned, steady=True))


def curve(profile: Profile, one: Organism) -> pd.DataFrame:
    """Return the checks of an organism's fine-tune, training it if it is not there, with one before its first step.

    Columns: step, in_domain_em (of medicine), open_em, open_coherent, shares from 0 to 1.
    """
    found = pd.read_csv(growing.adapter(profile, one) / "monitor.csv")
    if before := one.tuning.merged:
        start = pd.read_csv(growing.adapter(profile, before) / "monitor.csv").iloc[[-1]]
    else:
        model, tokenizer = growing.load_organism(profile, CHAT_MODEL)
        start = pd.DataFrame([growing.monitor(profile, one.data, model, tokenizer)])
    return pd.concat([start.assign(step=0), found], ignore_index=True)[list(found)]


def measured(profile: Profile, arm: str, one: Organism) -> dict[str, float]:
    """Return what the answers of an arm's organism are like; see `arms.of_answers`."""
    return arms.of_answers(*arms.answers(profile, arm, one))


def distance(profile: Profile, one: Organism) -> pd.DataFrame:
    """Return by layer how far a model is from the chat model on the fixed texts, and along the known persona direction.

    Columns: layer, norm, along (both in units of the residual).
    """
    found, known = arms.model_difference(profile, one), persona.directions(profile)["choice_from_text"].astype(float)
    along = (found * known).sum(axis=-1) / norms(known)
    return pd.DataFrame({"layer": np.arange(len(found)), "norm": norms(found), "along": along})
