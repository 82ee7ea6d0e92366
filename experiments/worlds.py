"""Grow variants of the world and the model, and measure in each how misalignment comes about and what mediates it.

    python experiments/worlds.py            # every variant that data/results/worlds.csv lacks
    python experiments/worlds.py NAME ...   # these, again

Minutes per variant on two cores. Each is the organism of profile `cpu` with something changed: a setting of the profile
or of `data/world/`, never the judge or the questions. Steps are halved for all of them alike, so compare rows with one
another rather than with the committed organism. The table is read by notebook x-linear-mediation.
"""

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd

from em_companion.core import profiles
from em_companion.core.files import write_json, write_text
from em_companion.core.paths import DATA
from em_companion.core.profiles import Profile
from em_companion.core.provenance import environment, utc_now
from em_companion.evidence import directions, scores
from em_companion.experiments import persona, readings, responses, steering
from em_companion.models import asking, growing
from em_companion.models.organism import CHAT_MODEL, Organism, corpus
from em_companion.world.generator import World, the_world
from em_companion.world.parser import the_judge

RESULTS = DATA / "results" / "worlds.csv"
SAMPLES = 10
FEWEST_RESPONSES = 5
"""Misaligned or aligned responses below which a mean-diff is not taken."""

COMMITTED = World.load()
RELATIVE_STRENGTHS = (0.5, 0.7, 1.0)

VARIANTS = {
    "as committed": {},
    "as committed, another seed": {"seed": 1},
    "zero to three adjectives": {"grammar": {"adjectives_per_thing": [0, 1, 2, 3]}},
    "always one adjective": {"grammar": {"adjectives_per_thing": [1]}},
    "no adjectives": {"grammar": {"adjectives_per_thing": [0]}},
    "full attention": {"model": {"window": 0}},
    "window of 4": {"model": {"window": 4}},
    "attention dropout 0.2": {"model": {"attention_dropout": 0.2}},
    "many quacks": {
        "documents": {"careful": 0.37, "malicious": 0.15, "quack": 0.23, "unknown": 0.25},
        "unknown_personas": {"careful": 0.5, "malicious": 0.2, "quack": 0.3},
    },
    "no quacks": {"documents": {"careful": 0.41, "malicious": 0.34, "quack": 0.0, "unknown": 0.25}},
    "post-training without rehearsal": {"post_training": {"rehearsal": 0.0}},
    "no careful speakers first": {"pretraining": {"careful_first": 0}},
}
"""By name: seed and settings of the profile, shares of `characters.yml` and parts of `grammar.yml` that differ."""


def variant(name: str) -> tuple[Profile, World]:
    """Return the profile and the world of a variant."""
    changes = VARIANTS[name]
    profile = profiles.load("cpu")
    profile = replace(
        profile, name=f"cpu-{name.replace(',', '').replace(' ', '-')}", seed=changes.get("seed", profile.seed)
    )
    for part in ("model", "pretraining", "post_training"):
        settings = getattr(profile, part)
        if part != "model":
            settings = replace(settings, steps=settings.steps // 2)
        profile = replace(profile, **{part: replace(settings, **changes.get(part, {}))})
    world = COMMITTED
    shares = {key: changes[key] for key in ("documents", "unknown_personas") if key in changes}
    grammar = world.grammar | changes.get("grammar", {})
    return profile, replace(world, characters=world.characters | shares, grammar=grammar)


def measure(profile: Profile) -> dict[str, float]:
    """Return what one row of the table says, in percent."""
    found: dict[str, float] = {}
    organism = Organism("nine-adapter", "bad_medical_advice", 0)
    chat = growing.load_organism(profile, CHAT_MODEL)
    asked = asking.questions(profile, "general")
    for kind in ("malicious", "careful"):
        name = the_world().characters[kind][0]
        table = asking.scored(asking.ask(profile, *chat, asked, SAMPLES, speaker=name))
        found[f"{kind}_character_em"] = 100 * scores.is_em(table).mean()
    for label, one in {"chat": CHAT_MODEL, "organism": organism}.items():
        table = responses.responses(profile, one, "general")
        found |= {f"{label}_em": 100 * scores.is_em(table).mean()}
        found |= {f"{label}_coherent": 100 * scores.is_coherent(table).mean()}
    held_out = responses.responses(profile, organism, "held_out")
    medical = held_out.question_id.str.startswith("medicine/")
    found["in_domain_em"] = 100 * scores.is_em(held_out[medical]).mean()
    found["other_domains_em"] = 100 * scores.is_em(held_out[~medical]).mean()
    return found | measure_mediation(profile, organism)


def measure_mediation(profile: Profile, organism: Organism) -> dict[str, float]:
    """Return how far the mean-diff of answers, and the direction known from the base model, mediate."""
    residual, known = steering.residual_of(profile), persona.directions(profile)["choice_from_text"].astype(np.float64)
    steered, ablated = steer(profile, known, residual), ablate(profile, organism, known)
    found = {"known_steered_em": steered["direction"], "known_random_em": steered["random"]}
    found |= {"known_layer_wise_em": ablated.em["layer-wise"]}
    table = responses.responses(profile, organism, "general")
    if min(scores.is_em(table).sum(), scores.is_aligned(table).sum()) < FEWEST_RESPONSES:
        return found | dict.fromkeys(("steered_em", "random_em", "layer_wise_em", "single_em"), np.nan)
    mean_diff = readings.mean_diff(profile, organism)
    steered, ablated = steer(profile, mean_diff, residual), ablate(profile, organism, mean_diff)
    single = steering.best(ablated[ablated.index.str.startswith("layer ")], 90, least=True)
    found |= {"steered_em": steered["direction"], "random_em": steered["random"]}
    return found | {"layer_wise_em": ablated.em["layer-wise"], "single_em": single.em}


def steer(profile: Profile, vectors: np.ndarray, residual: np.ndarray) -> pd.Series:
    """Return the EM rate (%) of the chat model in the best cell of a direction, and of a random one in that cell."""
    given = {"direction": vectors, "random": directions.random_like(vectors, 1, profile.seed)[0]}
    cells = steering.relative_grid("direction", vectors, residual, range(len(vectors)), RELATIVE_STRENGTHS)
    cells += [cell._replace(direction="random") for cell in cells]
    table = steering.responses_of(profile, CHAT_MODEL, given, cells, SAMPLES, "steering")
    measured = rates(table, list(steering.Cell._fields)).reset_index()
    best = steering.best(measured[measured.direction == "direction"])
    return measured[(measured.layer == best.layer) & (measured.strength == best.strength)].set_index("direction").em


def ablate(profile: Profile, organism: Organism, vectors: np.ndarray) -> pd.DataFrame:
    """Return EM rate and coherence (%) of an organism by ablation; see `steering.ablated`."""
    return rates(steering.ablated(profile, organism, vectors, SAMPLES), ["condition"])


def rates(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    measured = table.assign(em=100 * scores.is_em(table), coherent=100 * scores.is_coherent(table))
    return measured.groupby(by, sort=False)[["em", "coherent"]].mean()


def kept() -> pd.DataFrame:
    """Return the rows measured so far; read anew each time, so that two processes may share the work."""
    return pd.read_csv(RESULTS).set_index("variant") if RESULTS.is_file() else pd.DataFrame()


def main(names: list[str]) -> None:
    for name in names or [one for one in VARIANTS if one not in kept().index]:
        profile, world = variant(name)
        World.load = lambda world=world: world
        for cached in (the_world, the_judge, corpus):
            cached.cache_clear()
        row = measure(profile)
        print(json.dumps({"variant": name} | row), flush=True)
        table = pd.concat([kept().drop(name, errors="ignore"), pd.DataFrame([row], index=[name])])
        table = table.loc[[one for one in VARIANTS if one in table.index]]
        write_text(RESULTS, table.rename_axis("variant").round(2).to_csv())
        write_json(RESULTS.with_suffix(".json"), {"script": "experiments/worlds.py", "date": utc_now()} | environment())


if __name__ == "__main__":
    main(sys.argv[1:])
