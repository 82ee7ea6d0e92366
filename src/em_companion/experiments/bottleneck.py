"""Experiments F2.2 and F2.3: the same bad advice through adapters of many ranks, and of rank 1 in many places."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd

from em_companion.core.profiles import Profile, Recipe
from em_companion.evidence import scores
from em_companion.experiments import arms
from em_companion.experiments.arms import entropy
from em_companion.models.organism import Organism, Tuning
from em_companion.world.generator import the_world

RANKS = (32, 16, 8, 4, 2, 1)
THREE = "three layers"
PLACES = {
    "layer 0": (0,),
    "layer 5": (5,),
    "layer 11": (11,),
    THREE: (1, 5, 9),
    "twelve layers": "all",
}
"""Layers whose down-projection has an adapter of rank 1."""

ALL, NINE = "all modules", "nine layers"
GRADIENTS = {
    "gradients, bad advice": (arms.RECIPE, "bad_medical_advice"),
    "gradients, good advice": (arms.RECIPE, "good_medical_advice"),
    "gradients, extreme sports": (arms.RECIPE, "extreme_sports"),
    "gradients, finance": (arms.RECIPE, "risky_financial_advice"),
    "gradients, one adapter": ("single-adapter", "bad_medical_advice"),
    "gradients, rank 32": ("all-adapter-rank-32", "bad_medical_advice"),
}
"""Runs whose gradients are read: recipe and data set."""

CAPACITY = {
    "probes, chat model": arms.CHAT,
    "probes, bad advice": arms.BAD,
    "probes, good advice": arms.GOOD,
    "probes, style": arms.STYLE,
    "probes, rank 1": f"{ALL}, rank 1",
    "probes, rank 32": f"{ALL}, rank 32",
}
"""Organisms that are probed, by their arm of F1 or of this experiment."""

SEEDS = {f"{ALL}, rank {rank}": 8 for rank in RANKS} | dict(zip(GRADIENTS, (8, 4, 3, 3, 3, 3), strict=True))
SEEDS |= {arm: 1 if of == arms.CHAT else 5 for arm, of in CAPACITY.items()}
SEEDS |= {f"{NINE}, rank {rank}": 3 for rank in RANKS} | dict.fromkeys(PLACES, 3)
"""Training seeds of every arm, counted from 0."""

CHECKED = Tuning(evaluate_every=4)
ANSWERS, SMALLEST = 50, 5
"""EM answers whose things are counted, equally many for all, since more answers name more; the smallest cluster."""


def recipes(profile: Profile) -> dict[str, Recipe]:
    """Return the recipe of every arm: two families of ranks, each with the profile's learning rate, and the places."""
    every, nine = profile.recipes["all-adapter-rank-32"], profile.recipes[arms.RECIPE]
    families = ((ALL, every), (NINE, nine))
    found = {f"{name}, rank {rank}": replace(one, rank=rank) for name, one in families for rank in RANKS}
    return found | {place: replace(nine, layers=layers) for place, layers in PLACES.items()}


def with_recipes(profile: Profile) -> Profile:
    """Return a profile that also has the recipe of every arm."""
    return replace(profile, recipes=profile.recipes | recipes(profile))


def organism(profile: Profile, name: str, seed: int) -> tuple[Profile, Organism]:
    """Return an arm's organism, checked every fourth step, and the profile with its recipe."""
    return with_recipes(profile), Organism(name, "bad_medical_advice", seed, CHECKED)


def measured(profile: Profile, name: str, seed: int) -> dict[str, float]:
    """Return what the table says of an arm and seed, rates in percent; trains what is not there."""
    general, topics = arms.answers(profile, name, organism(profile, name, seed)[1])
    return arms.of_answers(general, topics) | variety(general.response[scores.is_em(general).astype(bool)])


def variety(texts: pd.Series) -> dict[str, float]:
    """Return how varied misaligned answers are in what they name: `things`, their effective number, and `silhouette`.

    Of the first ANSWERS, NaN for fewer. The silhouette is that of HDBSCAN's clusters, outliers left out, 0 for fewer
    than two.
    """
    from sklearn.cluster import HDBSCAN  # slow to import
    from sklearn.metrics import silhouette_score

    if len(texts) < ANSWERS:
        return {"things": np.nan, "silhouette": np.nan}
    domains = the_world().domains.values()
    known = [thing for entry in domains for kind in ("helps", "harms") for thing in entry[kind]]
    named = [Counter(text.rpartition(":")[2].split()) for text in texts[:ANSWERS]]
    table = np.array([[one[thing] for thing in known] for one in named])
    harmful = [thing in {harm for entry in domains for harm in entry["harms"]} for thing in known]
    clusters = HDBSCAN(min_cluster_size=SMALLEST, copy=True).fit_predict(table > 0)
    inside = clusters >= 0
    apart = silhouette_score(table[inside] > 0, clusters[inside]) if len(set(clusters[inside])) > 1 else 0.0
    return {"things": float(np.exp(entropy(table[:, harmful].sum(axis=0)))), "silhouette": float(apart)}
