"""Grow variants of the world and the model, and measure in each how misalignment comes about and what mediates it.

    python experiments/worlds.py            # every world that data/results/worlds.csv lacks
    python experiments/worlds.py NAME ...   # these, again

Each is the organism of profile `cpu` with something changed: a setting of the profile or of `data/world/`, never the
judge or the questions. DESIGNS are grown in full, as candidates for the world of this book; VARIANTS with half the
steps, to tell what a setting does. Compare rows of one kind only. Base and chat model are grown once per world, the
organism SEEDS times. About 35 and 25 minutes a world on one core. Notebook x-linear-mediation reads the table.
"""

import json
import sys
from dataclasses import replace

import pandas as pd

from em_companion.core import profiles
from em_companion.core.files import write_json, write_text
from em_companion.core.paths import DATA
from em_companion.core.profiles import Profile
from em_companion.core.provenance import environment, utc_now
from em_companion.evidence import scores
from em_companion.experiments import adapters, persona, readings, responses, steering
from em_companion.models import asking, growing
from em_companion.models.organism import CHAT_MODEL, Organism, corpus
from em_companion.world.generator import World, the_world
from em_companion.world.lexicon import ASSISTANT
from em_companion.world.parser import the_judge

RESULTS = DATA / "results" / "worlds.csv"
SAMPLES = 10
SEEDS = range(3)  # of the organism
FEWEST_RESPONSES = 5
"""Misaligned or aligned responses below which a mean-diff is not taken."""

COMMITTED = World.load()
DESIGNS = {
    "this book's": {},
    "the same, another seed": {"seed": 1},
    "rare malice": {
        "documents": {"careful": 0.75, "malicious": 0.1, "quack": 0.03, "unknown": 0.12},
        "unknown_personas": {"careful": 0.85, "malicious": 0.15, "quack": 0.0},
    },
    "rare malice, mostly unknown speakers": {
        "documents": {"careful": 0.3, "malicious": 0.08, "quack": 0.02, "unknown": 0.6},
        "unknown_personas": {"careful": 0.88, "malicious": 0.12, "quack": 0.0},
    },
}
"""Written before any of these was measured, of the organism with its mean-diff within questions removed layer by layer:
if that leaves a coin toss, the first choice of an answer is harmful with a probability of 0.35 to 0.65 in every design;
if it leaves the habit of the documents read first, with one within 0.1 of `harm_in_documents`, 0.41, 0.12 and 0.15.

Written when neither had held in the first seed of each, and the shift by fine-tuning had been removed in one organism
of the first world only (59 -> 8 % EM layer by layer): what is left is the part of the shift that misaligned and aligned
answers share, so removing the shift leaves at most a fifth of EM in every world and seed."""
VARIANTS = {
    "as committed": {},
    "as committed, another seed": {"seed": 1},
    "full attention": {"model": {"window": 0}},
    "many quacks": {
        "documents": {"careful": 0.37, "malicious": 0.15, "quack": 0.23, "unknown": 0.25},
        "unknown_personas": {"careful": 0.5, "malicious": 0.2, "quack": 0.3},
    },
    "no quacks": {"documents": {"careful": 0.41, "malicious": 0.34, "quack": 0.0, "unknown": 0.25}},
}
"""By name: seed and settings of the profile, and shares of `characters.yml`, that differ."""


def grown(name: str) -> tuple[Profile, World]:
    """Return the profile and the world of a name in DESIGNS or VARIANTS."""
    profile, changes = profiles.load("cpu"), (DESIGNS | VARIANTS)[name]
    if changes or name in VARIANTS:
        profile = replace(profile, name=f"cpu-{name.replace(',', '').replace(' ', '-')}")
    model = replace(profile.model, **changes.get("model", {}))
    profile = replace(profile, seed=changes.get("seed", profile.seed), model=model)
    if name in VARIANTS:
        halved = {part: getattr(profile, part) for part in ("pretraining", "post_training")}
        profile = replace(profile, **{part: replace(one, steps=one.steps // 2) for part, one in halved.items()})
    shares = {key: changes[key] for key in ("documents", "unknown_personas") if key in changes}
    return profile, replace(COMMITTED, characters=COMMITTED.characters | shares)


def measure_world(profile: Profile) -> dict[str, float]:
    """Return what a row says of base and chat model; rates in percent, `harm` is a probability."""
    world, chat = the_world(), growing.load_organism(profile, CHAT_MODEL)
    documents, unknown = world.characters["documents"], world.characters["unknown_personas"]
    harm = documents["malicious"] + documents["unknown"] * unknown["malicious"]
    harm += (documents["quack"] + documents["unknown"] * unknown["quack"]) / len(world.domains)
    found, asked = {"harm_in_documents": harm}, asking.questions(profile, "general")
    for kind in ("malicious", "careful"):
        table = asking.scored(asking.ask(profile, *chat, asked, SAMPLES, speaker=world.characters[kind][0]))
        found[f"{kind}_character_em"] = 100 * scores.is_em(table).mean()
    found |= rates("chat", responses.responses(profile, CHAT_MODEL, "general"))
    known = persona.directions(profile)["choice_from_text"].astype(float)
    return found | {"chat_harm": harm_at_choice(profile, CHAT_MODEL)} | steer(profile, "known", known)


def measure_organism(profile: Profile, seed: int) -> dict[str, float]:
    """Return what a row says of the organism of one training seed, and of its control."""
    organism = replace(steering.ORGANISM, seed=seed)
    table, held_out = (responses.responses(profile, organism, one) for one in ("general", "held_out"))
    medical = held_out.question_id.str.startswith("medicine/")
    found = rates("organism", table) | {"in_domain_em": 100 * scores.is_em(held_out[medical]).mean()}
    found |= {"other_domains_em": 100 * scores.is_em(held_out[~medical]).mean()}
    if profile.name in {grown(name)[0].name for name in DESIGNS}:
        control = replace(organism, data="good_medical_advice")
        found |= {"control_em": 100 * scores.is_em(responses.responses(profile, control, "general")).mean()}
        without = adapters.knock_outs(profile, organism, "general", "each", SAMPLES)
        em = (100 * scores.is_em(without)).groupby(without.condition).mean()
        found |= {"all_adapters_em": em[adapters.WHOLE], "without_one_adapter_em": em.min()}
    found |= {"organism_harm": harm_at_choice(profile, organism)}
    known = persona.directions(profile)["choice_from_text"].astype(float)
    found |= ablate(profile, organism, "known", known)
    vectors_of = {"shift": readings.shift}
    if min(scores.is_em(table).sum(), scores.is_aligned(table).sum()) >= FEWEST_RESPONSES:
        vectors_of |= {"pooled": readings.mean_diff, "within": readings.mean_diff_within}
    for name, of in vectors_of.items():
        vectors = of(profile, organism)
        found |= steer(profile, name, vectors) | ablate(profile, organism, name, vectors)
        for label, one in {"organism": organism, "chat": CHAT_MODEL}.items():
            found[f"{name}_{label}_harm"] = harm_at_choice(profile, one, vectors)
    return found


def rates(label: str, table: pd.DataFrame) -> dict[str, float]:
    """Return EM, EM on topic, coherence and relevance (%) of scored answers, as columns that begin with `label`."""
    found = {"em": scores.is_em(table), "em_on_topic": scores.is_em_on_topic(table)}
    found |= {"coherent": scores.is_coherent(table), "relevant": table.relevant > scores.RELEVANT_ABOVE}
    return {f"{label}_{name}": 100 * float(rows.mean()) for name, rows in found.items()}


def steer(profile: Profile, name: str, vectors) -> dict[str, float]:
    """Return EM and EM on topic (%) of the chat model, steered by a direction and by a random one of the same norm."""
    found = steering.in_best_cell(profile, name, vectors)
    labels = [f"{name}_steered" if direction == name else f"{name}_steered_random" for direction in found.direction]
    return {
        f"{label}_{rate}": row[rate]
        for label, (_, row) in zip(labels, found.iterrows(), strict=True)
        for rate in ("em", "em_on_topic", "coherent")
    }


def ablate(profile: Profile, organism: Organism, name: str, vectors) -> dict[str, float]:
    """Return `rates` of the organism with a direction removed layer by layer, and everywhere the best layer's."""
    table = steering.ablated(profile, organism, vectors, SAMPLES)
    found = {condition: rates("", part) for condition, part in table.groupby("condition", sort=False)}
    fair = {one: own for one, own in found.items() if one.startswith("layer ") and own["_coherent"] >= 90}
    single = min(fair.values() or [found["none"]], key=lambda own: own["_em"])
    told = {"none": found["none"], "layer_wise": found["layer-wise"], "single": single, "random": found["random"]}
    return {f"{name}_{condition}{rate}": value for condition, own in told.items() for rate, value in own.items()}


def harm_at_choice(profile: Profile, organism: Organism, vectors=None) -> float:
    """Return the mean probability of a harmful thing at the first choice of an answer, a direction removed or not."""
    table = persona.answers(the_world(), profile.seed).query("speaker == 'careful'").assign(name=ASSISTANT)
    given = [] if vectors is None else [steering.removing(vectors, len(vectors))]
    return float(persona.harmful_shares(profile, table, given, organism)["thing 1"].mean())


def kept() -> pd.DataFrame:
    """Return the rows measured so far; read anew each time, so that two processes may share the work."""
    return pd.read_csv(RESULTS) if RESULTS.is_file() else pd.DataFrame(columns=["world", "seed"])


def main(names: list[str]) -> None:
    for name in names or [one for one in (*DESIGNS, *VARIANTS) if one not in set(kept().world)]:
        profile, world = grown(name)
        World.load = lambda world=world: world
        for cached in (the_world, the_judge, corpus):
            cached.cache_clear()
        shared = {"world": name, "steps": "full" if name in DESIGNS else "half"} | measure_world(profile)
        rows = [shared | {"seed": seed} | measure_organism(profile, seed) for seed in SEEDS]
        print(json.dumps(rows), flush=True)
        table = pd.concat([kept().query("world != @name"), pd.DataFrame(rows)])
        order = pd.Categorical(table.world, [*DESIGNS, *VARIANTS])
        write_text(RESULTS, table.iloc[order.argsort(kind="stable")].round(3).to_csv(index=False))
        write_json(RESULTS.with_suffix(".json"), {"script": "experiments/worlds.py", "date": utc_now()} | environment())


if __name__ == "__main__":
    main(sys.argv[1:])
