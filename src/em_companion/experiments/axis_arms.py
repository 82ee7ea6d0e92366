"""The arms of experiment N1, for `experiments/persona_and_axis.py`: each measures one thing, in tables by part."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import numpy as np
import pandas as pd
import torch

from em_companion.core.profiles import Profile
from em_companion.evidence import directions, scores
from em_companion.experiments import capping, inertia, long_run, persona_space, readings, responses, steering
from em_companion.experiments.capping import Given
from em_companion.experiments.persona_space import BASE, CHAT, cast
from em_companion.models import asking, growing
from em_companion.models.interventions import Ablate, Steer
from em_companion.models.loading import Model
from em_companion.models.organism import CHAT_MODEL, Organism
from em_companion.models.tokens import response_tokens
from em_companion.world import casting
from em_companion.world.generator import CAREFUL, MALICIOUS, the_world
from em_companion.world.taxonomy import CLASSES

NAME = "n1-persona-and-axis"
LAYER = 6  # of the predictions
NINE, SPORT = Organism("nine-adapter", "bad_medical_advice"), Organism("all-adapter-rank-32", "extreme_sports")
SAMPLES, DRAWS = 16, 6
RELATIVE = (0.25, 0.5, 0.75, 1.0, 1.5)
"""Strengths of steering along minus the axis, 1 being the length of the mean residual stream."""
FAR = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0, 1.5, 2.0, 3.0)
FACTORS = (0.5, 1.0, 1.5)
"""Of the strength of the best cell, where steered models are capped."""
MEAN_DIFF, KNOWN, MINUS_AXIS = steering.MEAN_DIFF, steering.KNOWN, "minus the axis"
MINUS_BASE = "minus the axis, base model"
CHARACTERS, UNHARMED = "malicious characters", "chat"
SETTINGS = {UNHARMED: CHAT_MODEL}
SETTINGS |= {f"{name} x {factor:g}": CHAT_MODEL for name in (MEAN_DIFF, KNOWN) for factor in FACTORS}
SETTINGS |= {"nine-adapter organism": NINE, "rank-32 sport organism": SPORT, CHARACTERS: CHAT_MODEL}
"""Models to cap: whose weights; see `steers` for what steers some of them."""
CAP_DRAWS, READ = 4, 64
"""Random directions that are capped; answers of which tokens are read."""
EACH = 2  # talks on every question

Parts = dict[str, pd.DataFrame]


def axes(profile: Profile) -> dict[str, np.ndarray]:
    """Return the directions that lead from the assistant, [layer, width], by name."""
    known = steering.directions_of(profile)
    found = {name: -cast(profile, which).axis() for name, which in ((MINUS_AXIS, CHAT), (MINUS_BASE, BASE))}
    return found | {MEAN_DIFF: known[MEAN_DIFF], KNOWN: known[KNOWN]}


# --- the space --------------------------------------------------------------------------------------------------------


def space(profile: Profile) -> Parts:
    """Measure the space of roles: what the predictions ask for, every role's place, cosines and axes by layer."""
    both = {which: cast(profile, which) for which in (BASE, CHAT)}
    base, chat = both.values()
    table, found = readings.organism_means(profile, NINE)
    kinds = scores.is_em(table), scores.is_aligned(table)
    mean_diff = found.mean_diff(*kinds)
    halves = directions.split_half_cosines(found.means, found.tokens, *kinds, splits=20).mean(axis=0)
    harm = {name: persona_space.harmful_share(name) for name in base.names}
    measured = {
        "axis-pc1": persona_space.component_and_axis(chat, LAYER),
        "axis-pc1, base": persona_space.component_and_axis(base, LAYER),
        "axis-latent": persona_space.component_and_harm(base, LAYER, [*harm.values()]),
        "axis-latent, chat": persona_space.component_and_harm(chat, LAYER, [*harm.values()]),
        "axis-base": persona_space.agreement(base, chat, LAYER),
        "axis-misalignment": persona_space.along(chat, LAYER, mean_diff[LAYER], halves[LAYER]),
        "axis-specific": persona_space.apart(chat, LAYER),
    }
    rows = [(name, one.value, one.low, one.high, one.n, one.unit) for name, one in measured.items()]
    for which, roles in both.items():
        rows.append((f"reliability, {which}", roles.reliability(LAYER), np.nan, np.nan, len(roles.names), "cosine"))
        rows.append((f"axis reliability, {which}", roles.axis_reliability(LAYER), np.nan, np.nan, 1, "cosine"))
        for number, share in enumerate(persona_space.components(roles.vectors[roles.others, LAYER])[0][:8], start=1):
            rows.append((f"component {number}, {which}", 100 * share, np.nan, np.nan, len(roles.others), "percent"))
    known = {"mean-diff of the organism": mean_diff, "axis of the base model": base.axis()}
    places = [persona_space.places(one, LAYER, harm).assign(model=which) for which, one in both.items()]
    cosines = [persona_space.cosines_by_layer(one, known if one is chat else {}).assign(model=which)
               for which, one in both.items()]  # fmt: skip
    own = pd.concat([pd.DataFrame(one.axis()).rename_axis("layer").reset_index().assign(model=which)
                     for which, one in both.items()])  # fmt: skip
    measures = pd.DataFrame(rows, columns=["name", "value", "low", "high", "n", "unit"])
    return {"measures": measures, "places": pd.concat(places), "cosines": pd.concat(cosines), "axes": own}


# --- who answers ------------------------------------------------------------------------------------------------------


def who(profile: Profile) -> Parts:
    """Ask models the open questions and tell by Bayes who of the cast answers; counts and sums by question."""
    rows = []
    for name, table in _answers_of_models(profile):
        for question, own in table.groupby("question_id", sort=False):
            compared = [casting.one_or_many(text) for text in own.response]
            single = [one.log_odds >= 0 for one in compared]
            sums = pd.DataFrame(
                [casting.posterior(text) for text in own.response[single]], columns=casting.cast()
            ).sum()
            row = {"model": name, "question_id": question, "n": len(own), "careful": sums[CAREFUL]}
            row |= {"malicious": sums[MALICIOUS], "quack": sums.sum() - sums[CAREFUL] - sums[MALICIOUS]}
            long = [one.log_odds > 0 for one in compared if one.clauses >= 3]
            rows.append(row | {"mixed": len(own) - sum(single), "long": len(long), "long_single": sum(long)})
    return {"who": pd.DataFrame(rows)}


def _answers_of_models(profile: Profile) -> Iterator[tuple[str, pd.DataFrame]]:
    asked = asking.questions(profile, "general")
    yield "base model", asking.ask(profile, *persona_space.model_of(profile, BASE), asked, SAMPLES)
    yield "chat model", responses.responses(profile, CHAT_MODEL)
    chat = persona_space.model_of(profile, CHAT)
    conditions = {f"chat, {name}": given for name, given in steers(profile, (1.0,)).items()}
    for name, table in asking.ask(profile, *chat, asked, SAMPLES, conditions=conditions).groupby(
        "condition", sort=False
    ):
        yield name.removesuffix(" x 1"), table
    yield "nine-adapter organism", responses.responses(profile, NINE)
    yield "rank-32 sport organism", responses.responses(profile, SPORT)
    yield CHARACTERS, capping.asked(profile, chat, {"": ()}, 2, asked, the_world().characters["malicious"])


# --- ways from the assistant ------------------------------------------------------------------------------------------


def steers(profile: Profile, factors=FACTORS) -> dict[str, list[Steer]]:
    """Return what steers the chat model along mean-diff and known persona, in multiples of the best cell's strength."""
    vectors, cells = steering.directions_of(profile), steering.best_cells(steering.by_layer(profile))
    return {
        f"{name} x {factor:g}": [Steer(cells[name].layer, torch.tensor(vectors[name][cells[name].layer]),
                                       factor * cells[name].strength)]
        for name in (MEAN_DIFF, KNOWN) for factor in factors
    }  # fmt: skip


def residual_of(profile: Profile, which: str) -> np.ndarray:
    """Return the mean residual of the assistant's own answers to held-out questions, [layer, width]."""
    roles = cast(profile, which)
    return roles.vectors[roles.place]


def steer(vectors: np.ndarray, residual: np.ndarray, layer: int, relative: float) -> list[Steer]:
    """Return what adds a direction [layer, width] at a layer, `relative` lengths of the mean residual there."""
    strength = relative * directions.norms(residual)[layer] / directions.norms(vectors)[layer]
    return [Steer(layer, torch.tensor(vectors[layer]), float(strength))]


def minus_axis(profile: Profile) -> Parts:
    """Steer the chat model along minus its axis, cell by cell, and along random directions in the best cell.

    `half` tells the answers that choose the cell (0) from those that rate it (1).
    """
    chat, asked = persona_space.model_of(profile, CHAT), asking.questions(profile, "general")
    vectors, residual = axes(profile)[MINUS_AXIS], residual_of(profile, CHAT)
    places = {f"{layer}/{one}": (layer, one) for layer in range(len(vectors) - 1) for one in RELATIVE}
    cells = {name: steer(vectors, residual, *place) for name, place in places.items()}
    table = capping.asked(profile, chat, cells, SAMPLES, asked)
    first = table[table["sample"] < SAMPLES // 2]
    chosen = steering.best(scores.rates(first, "condition", resamples=0)).condition
    drawn = directions.random_like(vectors, DRAWS, profile.seed)
    random = {f"random {draw}": steer(one, residual, *places[chosen]) for draw, one in enumerate(drawn)}
    rows = []
    for name, own in pd.concat([table, capping.asked(profile, chat, random, SAMPLES, asked)]).groupby("condition"):
        layer, relative = places.get(name, places[chosen])
        what = {"direction": MINUS_AXIS if name in places else name, "layer": layer, "relative": relative}
        for half in (0, 1):
            part = own[(own["sample"] >= SAMPLES // 2) == bool(half)]
            counts = capping.tallied(part, asked).drop(columns=[*CLASSES])
            rows.append(counts.assign(**what, best=name == chosen or name in random, half=half))
    return {"steering": pd.concat(rows)}


def best_layers(profile: Profile, steered: pd.DataFrame) -> dict[str, int]:
    """Return the layer of the best cell of every direction; of the base model's axis that of the chat model's."""
    cells = steering.best_cells(steering.by_layer(profile))
    own = int(steered[steered.best & (steered.direction == MINUS_AXIS)].layer.iloc[0])
    return {MINUS_AXIS: own, MINUS_BASE: own, MEAN_DIFF: cells[MEAN_DIFF].layer, KNOWN: cells[KNOWN].layer}


def far_ends(profile: Profile, steered: pd.DataFrame) -> Parts:
    """Steer along every direction of `axes`, and random ones, ever farther; the classes of answers by question."""
    asked, rows = asking.questions(profile, "general"), []
    vectors, layers = axes(profile), best_layers(profile, steered)
    drawn = directions.random_like(vectors[MINUS_AXIS], DRAWS, profile.seed + 1)
    vectors |= {f"random {draw}": one for draw, one in enumerate(drawn)}
    models = {which: persona_space.model_of(profile, which) for which in (BASE, CHAT)}
    for name, vector in vectors.items():
        which = BASE if name == MINUS_BASE else CHAT
        samples, layer = SAMPLES // 2 if name.startswith("random") else SAMPLES, layers.get(name, layers[MINUS_AXIS])
        residual = residual_of(profile, which)
        given = {0.0: ()} | {relative: steer(vector, residual, layer, relative) for relative in FAR}
        table = capping.asked(profile, models[which], given, samples, asked)
        plain = table[table.condition == 0].response
        for relative, own in table.groupby("condition"):
            found = capping.tallied(own, asked, plain).drop(columns=["relevant", "on_topic"])
            rows.append(found.assign(direction=name, layer=layer, relative=relative))
    return {"far": pd.concat(rows)}


# --- talks and caps ---------------------------------------------------------------------------------------------------


def talks(profile: Profile, which: str = CHAT, conditions: Iterable[str] = inertia.EVERY) -> Parts:
    """Hold talks in which an answer is put into a model's mouth; see `inertia`. The axis is the chat model's."""
    model, rows = persona_space.model_of(profile, which), []
    found = {"axis": -axes(profile)[MINUS_AXIS][LAYER], "persona": axes(profile)[KNOWN][LAYER]}
    units = {name: one / np.linalg.norm(one) for name, one in found.items()}
    for condition in conditions:
        rows.append(inertia.tallied(profile, model, condition, EACH, units, LAYER).assign(condition=condition))
    return {"turns": pd.concat(rows)}


def own_projections(profile: Profile, vectors: Mapping[int, np.ndarray]) -> capping.Projections:
    """Return the projections of the chat model's own answers to the open questions, all tokens, by layer."""
    chat = persona_space.model_of(profile, CHAT)
    return capping.projections(chat, *response_tokens(chat[1], responses.responses(profile, CHAT_MODEL)), vectors)


def caps(profile: Profile) -> dict[str, Given]:
    """Return what is done against a misaligned model, by name, but for random caps, which depend on it."""
    axis, known = -axes(profile)[MINUS_AXIS], axes(profile)[KNOWN]
    own = own_projections(profile, dict(enumerate(axis)))
    middle = capping.block(len(axis))
    found = {f"floor, {percent} %": capping.floors(axis, own, middle, percent) for percent in capping.PERCENTILES}
    for layer in range(len(axis)):
        found[f"floor, {capping.CHOSEN} %, layer {layer}"] = capping.floors(axis, own, [layer], capping.CHOSEN)
    along = {layer: known[layer] for layer in middle}
    found["cap on the persona"] = capping.ceilings(
        along, own_projections(profile, along), dict.fromkeys(middle, capping.CHOSEN / 100)
    )
    everywhere = {"axis": axis, "mean-diff": axes(profile)[MEAN_DIFF]}
    found |= {f"{name} ablated": [steering.removing(one, len(one))] for name, one in everywhere.items()}
    found |= {f"{name} ablated there": [Ablate({layer: torch.tensor(one[layer]) for layer in middle})]
              for name, one in everywhere.items()}  # fmt: skip
    return found


def random_caps(profile: Profile, model: Model, table: pd.DataFrame, given: Given, floors: Given) -> list[Given]:
    """Return caps along random directions that touch as large a share of the tokens of answers as the floors do."""
    width = len(floors[0].vector)
    drawn = np.random.default_rng(profile.seed).normal(size=(CAP_DRAWS, len(floors), width))
    vectors = {one.layer: np.stack([one.vector.numpy(), *drawn[:, at]]) for at, one in enumerate(floors)}
    found = capping.projections(model, *capping.tokens_of(model, table), vectors, given)
    shares = {one.layer: (found[one.layer][:, 0] > one.ceiling).mean() for one in floors}
    return [
        capping.ceilings(
            {layer: many[draw + 1] for layer, many in vectors.items()},
            {layer: tokens[:, draw + 1] for layer, tokens in found.items()},
            shares,
        )
        for draw in range(CAP_DRAWS)
    ]


def capped(profile: Profile, setting: str) -> Parts:
    """Ask one of SETTINGS under every cap, and measure what caps cost: counts by question, and tokens touched.

    Of the unharmed model also the loss on careful texts and on those of malicious characters, by question.
    """
    given = steers(profile).get(setting, ())
    speakers = the_world().characters["malicious"] if setting == CHARACTERS else [""]
    model, asked = growing.load_organism(profile, SETTINGS[setting]), asking.questions(profile, "general")
    samples = SAMPLES if len(speakers) == 1 else 2
    every = {"none": ()} | caps(profile)
    table = capping.asked(
        profile, model, {name: (*given, *cap) for name, cap in every.items()}, samples, asked, speakers
    )
    plain = spread(table[table.condition == "none"])
    random = random_caps(profile, model, plain, given, every[f"floor, {capping.CHOSEN} %"])
    drawn = {f"random {draw}": cap for draw, cap in enumerate(random)}
    few = max(1, samples // CAP_DRAWS)
    more = capping.asked(profile, model, {name: (*given, *cap) for name, cap in drawn.items()}, few, asked, speakers)
    rows, costs = [], []
    for name, own in pd.concat([table, more]).groupby("condition", sort=False):
        cap = (every | drawn)[name]
        rows.append(capping.tallied(own, asked).drop(columns=[*CLASSES, "changed"]).assign(condition=name))
        costs.append({"condition": name, "touched": capping.touched(model, spread(own), (*given, *cap))})
    found = {"caps": pd.concat(rows), "touched": pd.DataFrame(costs)}
    return found | ({"losses": lost(profile, model, every | drawn)} if setting == UNHARMED else {})


def live(profile: Profile, axis: np.ndarray) -> pd.DataFrame:
    """Return the chat model's scored answers in the best cell of the mean-diff without and with the floor on an axis
    [layer, width], `sweep_samples` to a question, kept; column `condition`: "none" or "floor"."""
    (given,) = (one for name, one in steers(profile, (1.0,)).items() if name.startswith(MEAN_DIFF))
    layers = capping.block(len(axis))
    own = own_projections(profile, {layer: axis[layer] for layer in layers})
    floors = capping.floors(axis, own, layers, capping.CHOSEN)
    conditions = {"none": given, "floor": [*given, *floors]}
    return responses.under(profile, CHAT_MODEL, conditions, samples=profile.sweep_samples, what="floor, live")


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """Return READ rows of a table from all over it, all where it has fewer."""
    return table.iloc[np.unique(np.linspace(0, len(table) - 1, READ).astype(int))]


def lost(profile: Profile, model: Model, conditions: Mapping[str, Given]) -> pd.DataFrame:
    """Return the mean loss (nats per token) by condition and question, on careful texts and those of others."""
    rows = []
    for texts, table in {"careful": capping.texts(profile), "others": capping.texts(profile, others=True)}.items():
        for name, given in conditions.items():
            found = (
                table.assign(loss=capping.losses(model, table, given)).groupby("question_id", sort=False).loss.mean()
            )
            rows.append(found.reset_index().assign(texts=texts, condition=name))
    return pd.concat(rows)


TALKS, CAPPED = {CHAT: "talks", BASE: "talks, base model"}, "capping, "
ARMS: dict[str, Callable[[Profile], Parts]] = {
    "space": space,
    "who": who,
    "steering": minus_axis,
    "far ends": lambda profile: far_ends(profile, long_run.read(long_run.path_of(NAME, "steering"))),
    TALKS[CHAT]: talks,
} | {f"{CAPPED}{name}": partial(capped, setting=name) for name in SETTINGS}
ARMS[TALKS[BASE]] = partial(talks, which=BASE, conditions=inertia.CONDITIONS)
"""What measures the tables of an arm, by part."""
