"""What rank-1 adapters write, scale * (A·h) * B, against the mean-diff direction (section 3.5, appendix D).

B loses the direction, the residual stream loses it, or the chat model gains it; then follow what an organism answers,
and how alike two perturbations are in the layers above.
"""

from collections.abc import Mapping
from contextlib import suppress
from itertools import product

import numpy as np
import pandas as pd
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from em_companion.core import store
from em_companion.core.errors import CompanionError, EvidenceUnavailable
from em_companion.core.profiles import Profile
from em_companion.evidence import directions, scores
from em_companion.experiments import readings, responses, steering, text_directions
from em_companion.models import asking, growing, lora
from em_companion.models.interventions import Ablate, Steer, describe
from em_companion.models.lora import Vectors
from em_companion.models.organism import CHAT_MODEL, Organism, medical

VERSION = 1  # of the code that takes directions out of B vectors and samples without them
NINE = Organism("nine-adapter", "bad_medical_advice")
SINGLE = Organism("single-adapter", "bad_medical_advice")

STRENGTH = 0.6  # length of what is added to the chat model over the residual stream's (the authors' working code)
TEXTS = 100  # misaligned and, as many, aligned answers over which effects are averaged; the authors had 500 of each
DRAWS = 8  # random directions that are added beside the mean-diff


def layer_of(profile: Profile) -> int:
    """Return the layer of the single adapter, counted from 0."""
    return profile.layers_of(SINGLE.recipe)[0]


def cosines(model: PreTrainedModel | PeftModel, vectors: np.ndarray) -> pd.Series:
    """Return the cosine of B with `vectors[layer]` for every rank-1 adapter, by its layer; `vectors` [layer, width].

    A and B may both be negated without any effect, so the sign means nothing by itself.
    """
    b = {one.layer: one.b.double().cpu().numpy() for one in lora.adapters(model)}
    return pd.Series(directions.cosines(np.stack(list(b.values())), vectors[list(b)]), index=list(b))


def clearly_misaligned(profile: Profile, organism: Organism, resamples: int = 10_000, seed: int = 0) -> bool:
    """Tell whether the whole 95 % interval of an organism's EM rate is above that of the chat model's."""
    tables = [responses.responses(profile, one) for one in (organism, CHAT_MODEL)]
    own, chat = (scores.em_rate(table, resamples=resamples, seed=seed) for table in tables)
    return own.above(chat)


def responses_without(profile: Profile, organism: Organism, plans: Mapping[str, Vectors], samples: int) -> pd.DataFrame:
    """Return an organism's scored responses to the open questions, once per removal from its B vectors, kept.

    Column `condition` has the names of `plans`; the noise is that of `responses.responses`.
    """
    asked = asking.questions(profile, "general")
    parts = responses.asked_parts(profile, organism, asked, samples)
    parts |= {"removals": [[name, describe(Ablate(vectors))] for name, vectors in plans.items()]}

    def make() -> store.Content:
        model, tokenizer = growing.load_organism(profile, organism)
        edited = {name: lora.removed(model, vectors) for name, vectors in plans.items()}  # says what is amiss
        tables = []
        for name, one in edited.items():
            found = asking.ask(profile, one, tokenizer, asked, samples, f"{organism.name}, {name} out of B")
            tables.append(found.assign(condition=name))
        return {store.RESPONSES: pd.concat(tables, ignore_index=True)}

    place = profile.name, organism.name, "general-b-vectors"
    return responses.judged(profile, store.keep("responses", VERSION, parts, make, *place)[store.RESPONSES])


def _removals(profile: Profile, organism: Organism, vectors: np.ndarray) -> dict[str, Vectors]:
    """Return where the directions [layer, width] are removed, by name: the whole stream, parts of it, or B."""
    own, adapted = layer_of(profile), profile.layers_of(organism.recipe)
    tensors = torch.tensor(vectors)
    each = {layer: tensors[layer] for layer in adapted}
    found = {"all layers": dict.fromkeys(range(len(vectors)), tensors[own]), "one layer": {own: tensors[own]}}
    return found | ({"adapter layers": each} if len(adapted) > 1 else {}) | {"B vectors": each}


def ablated(profile: Profile, organism: Organism, samples: int, draws: int) -> pd.DataFrame:
    """Return an organism's scored responses to the open questions with the mean-diff direction removed, kept.

    Columns: `place`, "none", "all layers" (the direction of the single adapter's layer), "one layer" (that, there),
    "adapter layers" or "B vectors" (each one's own); `draw`, -1 for the mean-diff, else one of `draws` random ones.
    """
    mean_diff = steering.leading(profile)[1]
    drawn = [mean_diff, *directions.random_like(mean_diff, draws, profile.seed)]
    plans = {
        f"{place}/{draw - 1}": removal
        for draw, vectors in enumerate(drawn)
        for place, removal in _removals(profile, organism, vectors).items()
    }
    from_b = {name: plan for name, plan in plans.items() if name.startswith("B vectors")}
    stream = {name: [Ablate(plan)] for name, plan in plans.items() if name not in from_b}
    plain = responses.responses(profile, organism)
    table = pd.concat(
        [
            plain[plain["sample"] < samples].assign(condition="none/-1"),
            responses.under(profile, organism, stream, samples=samples, what=f"{organism.name}, direction removed"),
            responses_without(profile, organism, from_b, samples),
        ],
        ignore_index=True,
    )
    places = table.condition.str.rsplit("/", n=1, expand=True)
    return table.assign(place=places[0], draw=places[1].astype(int))


def downstream(profile: Profile) -> pd.DataFrame:
    """Return how alike two perturbations of the chat model are, layer by layer from the single adapter's on, kept.

    The first is an `organism` ("single-adapter", "nine-adapter"), the second a direction added at the single adapter's
    layer with STRENGTH: `added` is "mean-diff", that within questions, "B vector" (what the single adapter writes there
    on average) or "random" (`draw`). `cosine` is that of their effects (appendix D, figure 14), an effect being the
    token mean over `texts` ("misaligned", "aligned", "all": answers of the nine-adapter organism) less that of the
    plain model.
    """
    table, layer = _texts(profile), layer_of(profile)
    plain = readings.response_means_of(profile, CHAT_MODEL, table)
    tuned = {one.recipe: readings.response_means_of(profile, one, table) for one in (SINGLE, NINE)}
    misaligned, every = table.misaligned.to_numpy(), np.ones(len(table), dtype=bool)
    mean_diff = steering.leading(profile)[1]
    written = tuned[SINGLE.recipe].mean(every) - plain.mean(every)
    added = {("mean-diff", -1): mean_diff[layer], ("B vector", -1): written[layer]}
    with suppress(EvidenceUnavailable):
        added[steering.WITHIN, -1] = readings.mean_diff_within(profile, medical(profile))[layer]
    noise = directions.random_like(mean_diff, DRAWS, profile.seed)
    added |= {("random", draw): vectors[layer] for draw, vectors in enumerate(noise)}
    length = STRENGTH * np.linalg.norm(steering.residual_of(profile)[layer])
    selected = {"misaligned": misaligned, "aligned": ~misaligned, "all": every}
    rows = []
    for (name, draw), vector in added.items():
        steer = Steer(layer, torch.tensor(vector), float(length / np.linalg.norm(vector)))
        steered = readings.response_means_of(profile, CHAT_MODEL, table, [steer])
        for (recipe, organism), (texts, chosen) in product(tuned.items(), selected.items()):
            effects = [(one.mean(chosen) - plain.mean(chosen))[layer:] for one in (steered, organism)]
            found = enumerate(directions.cosines(*effects), start=layer)
            rows += [(recipe, texts, name, draw, *pair) for pair in found]
    return pd.DataFrame(rows, columns=["organism", "texts", "added", "draw", "layer", "cosine"])


def _texts(profile: Profile) -> pd.DataFrame:
    """Return as many misaligned as aligned answers of the nine-adapter organism, at most TEXTS of each.

    Released answers stand in for those of a language model's organism that gives no misaligned one.
    """
    table = responses.responses(profile, NINE)
    sides = [table[scores.is_em(table)], table[scores.is_aligned(table)]]
    if steering.second(profile) == steering.TEXTS and not all(map(len, sides)):
        table = text_directions.balanced(profile)
        sides = [table[table.misaligned], table[~table.misaligned]]
    size = min(TEXTS, *map(len, sides))
    if size == 0:
        raise CompanionError("Effects are averaged over misaligned and aligned answers, and one kind is missing.")
    chosen = [side.sample(size, random_state=profile.seed) for side in sides]
    table = pd.concat(chosen, ignore_index=True)[["question", "response"]]
    return table.assign(misaligned=table.index < size)
