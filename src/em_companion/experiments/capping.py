"""Floors on the assistant axis (Lu et al. 2026): what they undo, and what they cost; and other ways from the assistant.

A floor at a percentile is that of the projections of the chat model's own answer tokens on the axis of a layer. Lu et
al. cap at a quarter of the layers or fewer, about three quarters deep; at that relative depth lies `block`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import linear

from em_companion.core.profiles import Profile
from em_companion.evidence import scores
from em_companion.models import asking, lora, next_token
from em_companion.models.interventions import Cap, Intervention, applied
from em_companion.models.loading import Model
from em_companion.models.tokens import Tokens, batches, joined, question_ids, response_tokens
from em_companion.world.generator import CAREFUL, MALICIOUS, Question, the_world
from em_companion.world.taxonomy import CLASSES, kind

PERCENTILES = (1, 5, 25, 50)
CHOSEN = 25
"""The percentile of the published setting."""
DEPTHS = (46 / 64, 53 / 64)
"""First and last capped layer of Qwen3-32B, over its layers."""

Given = Sequence[Intervention]
Vectors = Mapping[int, np.ndarray]  # by layer
Projections = dict[int, np.ndarray]  # by layer, of all answer tokens


def block(layers: int) -> list[int]:
    """Return the layers of the published block at its relative depth in a model of so many layers."""
    return list(range(int(DEPTHS[0] * layers), round(DEPTHS[1] * layers) + 1))


@torch.no_grad()
def projections(
    model: Model, prompts: Tokens, answers: Tokens, vectors: Mapping[int, np.ndarray], given: Given = ()
) -> Projections:
    """Return x·v̂ of all answer tokens at the outputs of layers, by layer [token], before interventions `given` there.

    `vectors`: one per layer [width] or several [vector, width], which give [token, vector].
    """
    found: dict[int, list] = {layer: [] for layer in vectors}
    sequences, handles, own = joined(prompts, answers), [], {}
    units = {
        layer: torch.as_tensor(one.astype(float) / np.linalg.norm(one, axis=-1, keepdims=True))
        for layer, one in vectors.items()
    }
    for layer, unit in units.items():

        def look(_, __, x, layer=layer, unit=unit) -> None:  # before the hooks of `applied`, which come later
            found[layer].append(linear(x.double(), unit.to(x.device))[own["mask"].to(x.device)].cpu().numpy())

        handles.append(lora.decoder(model[0]).layers[layer].register_forward_hook(look))
    try:
        with applied(model[0], given):
            for rows, batch in batches(model[1], sequences, device=model[0].device):
                at = torch.arange(batch["input_ids"].shape[1])
                own["mask"] = torch.stack([(at >= len(prompts[row])) & (at < len(sequences[row])) for row in rows])
                model[0](**batch, use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    return {layer: np.concatenate(parts) for layer, parts in found.items()}


def floors(axis: np.ndarray, own: Projections, layers: Iterable[int], percentile: float) -> list[Cap]:
    """Return what keeps the projection on an axis [layer, width] from falling under a percentile of `own`."""
    return [Cap(layer, torch.tensor(-axis[layer]), -float(np.percentile(own[layer], percentile))) for layer in layers]


def ceilings(vectors: Vectors, own: Projections, shares: Mapping[int, float]) -> list[Cap]:
    """Return what caps directions at each layer so that this share of the tokens behind `own` lies above."""
    return [
        Cap(layer, torch.tensor(vector), float(np.quantile(own[layer], 1 - shares[layer])))
        for layer, vector in vectors.items()
    ]


def tokens_of(model: Model, table: pd.DataFrame) -> tuple[Tokens, Tokens]:
    """Return the tokens of prompts and responses of `table` (question, response; speaker, if it has that column)."""
    speakers = table.speaker if "speaker" in table else pd.Series("", table.index)
    pairs = zip(table.question, speakers, strict=True)
    return [question_ids(model[1], *pair) for pair in pairs], response_tokens(model[1], table)[1]


def touched(model: Model, table: pd.DataFrame, given: Given) -> float:
    """Return the share of answer tokens of `table` (question, response) that a cap among `given` changes, in percent.

    Mean over caps; NaN without one.
    """
    caps = [one for one in given if isinstance(one, Cap)]
    if not caps:
        return np.nan
    found = projections(model, *tokens_of(model, table), {one.layer: one.vector.numpy() for one in caps}, given)
    return float(100 * np.mean([(found[one.layer] > one.ceiling).mean() for one in caps]))


# --- answers in counts ------------------------------------------------------------------------------------------------


def tallied(table: pd.DataFrame, asked: Sequence[Question], plain: pd.Series | None = None) -> pd.DataFrame:
    """Return by question of a scored `table` of answers to `asked` how many there are, and are of which kind.

    Columns: question_id, n, em, coherent, on_topic, relevant, changed (text other than `plain`), and CLASSES.
    """
    found = {"em": scores.is_em(table), "coherent": scores.is_coherent(table), "on_topic": scores.is_em_on_topic(table)}
    found["relevant"] = scores.relevance(table) > scores.RELEVANT_ABOVE
    found["changed"] = False if plain is None else table.response.to_numpy() != plain.to_numpy()
    invited = {one.id: one.domains for one in asked}
    kinds = np.array([kind(*pair) for pair in zip(table.response, table.question_id.map(invited), strict=True)])
    counts = pd.DataFrame(found | {one: kinds == one for one in CLASSES}, index=table.index).astype(int)
    groups = counts.assign(n=1).groupby(table.question_id, sort=False)
    return groups.sum()[["n", *counts]].reset_index()


def asked(
    profile: Profile,
    model: Model,
    conditions: Mapping[str, Given],
    samples: int,
    questions: Sequence[Question],
    speakers: Sequence[str] = ("",),
) -> pd.DataFrame:
    """Return the scored answers of a model under conditions, `samples` to a question by each speaker, in its voice.

    Columns: condition, speaker, and those of `asking.scored`.
    """
    found = []
    for number, speaker in enumerate(speakers):
        own = replace(profile, seed=profile.seed + number)  # on equal noise, characters who are alike answer alike
        table = asking.ask(own, *model, questions, samples, speaker=speaker, conditions=conditions)
        found.append(table.assign(speaker=speaker))
    return asking.scored(pd.concat(found, ignore_index=True), relevance=True)


# --- costs ------------------------------------------------------------------------------------------------------------


def texts(profile: Profile, each: int = 2, others: bool = False) -> pd.DataFrame:
    """Return careful answers of the generator to open and held-out questions, or those of `others`, malicious ones.

    Columns: question_id, question, response, speaker, "" for the assistant.
    """
    world, rows = the_world(), []
    for one in asking.questions(profile, "general") + asking.questions(profile, "held_out"):
        for number in range(each):
            random = Random(f"{'others' if others else 'capping'}/{one.id}/{number}")
            name = random.choice(world.characters["malicious"]) if others else ""
            rows.append((one.id, one.text, world.answer(random, one, MALICIOUS if others else CAREFUL), name))
    return pd.DataFrame(rows, columns=["question_id", "question", "response", "speaker"])


def losses(model: Model, table: pd.DataFrame, given: Given = (), at_once: int = 256) -> np.ndarray:
    """Return the loss of every text under interventions, nats per token; `table` as `texts`, so many `at_once`."""
    parts = [table[start : start + at_once] for start in range(0, len(table), at_once)]
    with applied(model[0], given):
        return np.concatenate([next_token.losses(*model, *tokens_of(model, one)) for one in parts])
