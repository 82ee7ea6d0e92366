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
from em_companion.evidence import scores
from em_companion.experiments import mediation, persona, responses
from em_companion.models import asking, growing
from em_companion.models.loading import Model
from em_companion.models.organism import CHAT_MODEL, Organism, corpus
from em_companion.world.generator import World, the_world
from em_companion.world.parser import the_judge

RESULTS = DATA / "results" / "worlds.csv"
SAMPLES = 10
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
    world = World.load()
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
    return found | measure_mediation(profile, organism, chat)


def measure_mediation(profile: Profile, organism: Organism, chat: Model) -> dict[str, float]:
    """Return how far the mean-diff of answers, and the direction of the turn header, mediate."""
    own = growing.load_organism(profile, organism)
    residual = mediation.token_mean(*chat, responses.responses(profile, CHAT_MODEL, "general"))
    settings = (residual, RELATIVE_STRENGTHS, range(profile.model.layers), SAMPLES)
    known = persona.directions(profile)["choice_from_text"]
    best = mediation.best_cell(mediation.steering(profile, *chat, known, *settings))
    ablated = mediation.ablation(profile, *own, known, SAMPLES).set_index("ablation")
    found = {"known_steered_em": best.em, "known_random_em": best.random_em}
    found |= {"known_layer_wise_em": ablated.em["layer-wise"]}
    table = responses.responses(profile, organism, "general")
    if min(scores.is_em(table).sum(), (table.aligned > scores.ALIGNED_ABOVE).sum()) < mediation.FEWEST_RESPONSES:
        return found | dict.fromkeys(("steered_em", "random_em", "layer_wise_em", "single_em"), np.nan)
    directions = mediation.mean_diff(*own, table)
    best = mediation.best_cell(mediation.steering(profile, *chat, directions, *settings))
    ablated = mediation.ablation(profile, *own, directions, SAMPLES)
    layer_wise = ablated[ablated.ablation == "layer-wise"].iloc[0]
    found |= {"steered_em": best.em, "random_em": best.random_em}
    return found | {"layer_wise_em": layer_wise.em, "single_em": mediation.best_single(ablated).em}


def kept() -> pd.DataFrame:
    """Return the rows measured so far; read anew each time, so that two processes may share the work."""
    return pd.read_csv(RESULTS).set_index("variant") if RESULTS.is_file() else pd.DataFrame()


def main(names: list[str]) -> None:
    for name in names or [one for one in VARIANTS if one not in kept().index]:
        profile, world = variant(name)
        the_world = lambda world=world: world
        corpus.cache_clear()
        the_judge.cache_clear()
        row = measure(profile)
        print(json.dumps({"variant": name} | row), flush=True)
        table = pd.concat([kept().drop(name, errors="ignore"), pd.DataFrame([row], index=[name])])
        table = table.loc[[one for one in VARIANTS if one in table.index]]
        write_text(RESULTS, table.rename_axis("variant").round(2).to_csv())
        write_json(RESULTS.with_suffix(".json"), {"script": "experiments/worlds.py", "date": utc_now()} | environment())


if __name__ == "__main__":
    main(sys.argv[1:])
