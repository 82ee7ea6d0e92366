"""Steering and ablation one layer at a time: how strongly, the responses, and which cell is best.

Sections 3.2 and 3.6 are about two sweeps at the end: `by_layer`, layers and strengths, and `by_strength`, more
strengths at the best layer. Section 3.4 plans its ablations on its page.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from em_companion.core.errors import EvidenceUnavailable
from em_companion.core.profiles import GrownModel, Profile
from em_companion.evidence import directions, scores
from em_companion.experiments import persona, readings, responses, text_directions
from em_companion.models import asking, growing, reading
from em_companion.models.interventions import HEADER_TOKENS, Ablate, Steer, Where
from em_companion.models.organism import CHAT_MODEL, Organism, medical
from em_companion.models.tokens import question_ids
from em_companion.world.generator import the_world

COHERENT_ENOUGH = 80.0  # percent that a cell must keep to be the best one; the quality bar of a grown world
NO_LENGTH = 1e-3  # below which a direction is taken for zero
ORGANISM = Organism("nine-adapter", "bad_medical_advice", 0)  # whose answers give the mean-diff direction
MEAN_DIFF = "mean-diff"  # what the chat model is steered with; see `directions_of`
WITHIN = "mean-diff within questions"
KNOWN, TEXTS = "known persona", "released answers"  # beside it, in a grown world and for a language model
CONTROL_DRAWS = 5  # random vectors, and as many mean-diffs of shuffled labels, beside that of released answers
FACTORS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)  # strengths of `by_strength`, as multiples of the best cell's


class Cell(NamedTuple):
    """strength * v is added to the output of a layer, v being the direction's own row for it, not normalised."""

    direction: str
    layer: int
    strength: float


def relative_lengths(vectors: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """Return |v_l| / |x_l| for the direction `vectors` and the mean residual stream, both [layer, width]: [layer]."""
    return directions.norms(vectors) / directions.norms(residual)


def strengths(vectors: np.ndarray, residual: np.ndarray) -> tuple[float, ...]:
    """Return five strengths for all layers, powers of two in rising order. `vectors`, `residual` [layer, width].

    The largest is the first at which every layer gets at least the length of its mean residual stream added.
    """
    largest = np.ceil(-np.log2(relative_lengths(vectors, residual).min()))
    return tuple(float(2.0 ** (largest - step)) for step in (4, 3, 2, 1, 0))


def relative_grid(
    direction: str, vectors: np.ndarray, residual: np.ndarray, layers: Iterable[int], relative: Sequence[float]
) -> list[Cell]:
    """Return a cell for every layer and relative strength, 1 being the length of the mean residual stream.

    `vectors`, `residual` [layer, width]. None for layers in which the direction is zero, as one from names is where
    attention does not reach the name.
    """
    lengths, there = directions.norms(vectors), directions.norms(residual)
    kept = [layer for layer in layers if lengths[layer] >= NO_LENGTH]
    return [Cell(direction, layer, float(one * there[layer] / lengths[layer])) for layer in kept for one in relative]


def responses_of(
    profile: Profile, vectors: Mapping[str, np.ndarray], cells: Iterable[Cell], samples: int, what="", at: Where = "all"
) -> pd.DataFrame:
    """Return the chat model's responses in every cell, as one generation that is kept; see `responses.under`.

    `vectors` are directions [layer, width] by the names that cells use; `at`: the tokens at which they are added. The
    columns direction, layer and strength come before those of `responses.under`.
    """
    named = {f"{cell.direction}, layer {cell.layer}, strength {cell.strength:g}": cell for cell in cells}
    steers = {
        name: Steer(cell.layer, torch.tensor(vectors[cell.direction][cell.layer]), cell.strength, at)
        for name, cell in named.items()
    }
    conditions = {name: [steer] if steer.strength else [] for name, steer in steers.items()}
    table = responses.under(profile, CHAT_MODEL, conditions, samples=samples, what=what)
    columns = pd.DataFrame([named[name] for name in table.condition], columns=Cell._fields, index=table.index)
    return pd.concat([columns, table], axis=1)


def in_best_cell(profile: Profile, name: str, vectors: np.ndarray, at: Where = "all", **resampling) -> pd.DataFrame:
    """Return EM rate and coherence (as `scores.rates`) of the chat model in the best layer and strength of a direction
    [layer, width], and along a random one of the same norm there.

    Nothing longer than the mean residual stream is added. The cell is chosen on half of `sweep_samples` to a question
    and rated on twice as many others. The last layer is left out: a vector there acts on the next word directly.
    """
    samples, by = profile.sweep_samples, list(Cell._fields)
    given = {name: vectors, "random": directions.random_like(vectors, 1, profile.seed)[0]}
    layers = range(1, max(2, len(vectors) - 1), 2)
    cells = relative_grid(name, vectors, residual_of(profile), layers, (0.5, 0.7, 1.0))
    first, every = samples // 2, samples // 2 + 2 * samples
    row = best(scores.rates(responses_of(profile, given, cells, first, f"{name}, {at}", at), by, resamples=0))
    chosen = Cell(name, int(row.layer), float(row.strength))
    pair = [chosen, chosen._replace(direction="random")]
    table = responses_of(profile, given, pair, every, f"{name}, {at}, best", at)
    return scores.rates(table[table["sample"] >= first], by, **resampling)


def removing(vectors: np.ndarray, layers: int) -> Ablate:
    """Return what projects each layer's own row [layer, width], or one direction [width], out of all layer outputs.

    Layers in which the direction is zero are left alone.
    """
    rows = torch.tensor(np.broadcast_to(vectors, (layers, vectors.shape[-1])))
    return Ablate({layer: row for layer, row in enumerate(rows) if row.norm() >= NO_LENGTH})


def ablated(profile: Profile, organism: Organism, vectors: np.ndarray, samples: int) -> pd.DataFrame:
    """Return a model's responses with a direction [layer, width] projected out at layer outputs, one kept generation.

    Column `condition`: "none"; "layer-wise", each layer's own row; "layer N", that layer's row at all layers; "random",
    a random one at all layers. Layers in which the direction is zero are left out. Else as `responses.under`.
    """
    own = removing(vectors, len(vectors))
    random = directions.random_like(vectors, 1, profile.seed)[0, max(own.vectors)]
    everywhere = {"random": random} | {f"layer {layer}": vectors[layer] for layer in own.vectors}
    conditions = {"none": [], "layer-wise": [own]}
    conditions |= {name: [removing(one, len(vectors))] for name, one in everywhere.items()}
    return responses.under(profile, organism, conditions, samples=samples, what="ablation")


def best(rates: pd.DataFrame, coherent: float = COHERENT_ENOUGH, least: bool = False) -> pd.Series:
    """Return the row of `rates` with the highest `em` among those that keep enough coherence, both in percent.

    With `least`, the lowest (ablations). Of equals, the more coherent one, then the first. Where no row keeps enough,
    the most coherent one.
    """
    kept = rates[rates.coherent >= coherent]
    if kept.empty:
        return rates.loc[rates.coherent.idxmax()]
    return kept.sort_values(["em", "coherent"], ascending=[least, False], kind="stable").iloc[0]


def directions_of(profile: Profile) -> dict[str, np.ndarray]:
    """Return the directions to steer with by name, [layer, width], float64: the `leading` one, then `second`'s.

    Between them WITHIN, where the organism's misaligned and aligned answers have a question in common.
    """
    found = dict([leading(profile)])
    if MEAN_DIFF in found:
        with suppress(EvidenceUnavailable):
            found[WITHIN] = readings.mean_diff_within(profile, medical(profile))
    if second(profile) == KNOWN:
        return found | {KNOWN: persona.directions(profile)["choice_from_text"].astype(np.float64)}
    return found | {TEXTS: text_directions.mean_diff(profile)}


def leading(profile: Profile) -> tuple[str, np.ndarray]:
    """Return the name of the organism's mean-diff, and that, [layer, width].

    A language model whose organism gives no misaligned answer has the direction of released answers in its place.
    """
    try:
        return MEAN_DIFF, readings.mean_diff(profile, medical(profile))
    except EvidenceUnavailable:
        if second(profile) == KNOWN:
            raise
        return TEXTS, text_directions.mean_diff(profile)


def second(profile: Profile) -> str:
    """Return the name of what stands beside the organism's mean-diff: the known persona, or released answers."""
    return KNOWN if isinstance(profile.model, GrownModel) else TEXTS


def residual_of(profile: Profile) -> np.ndarray:
    """Return the chat model's mean residual stream over its own aligned answers, [layer, width], float64."""
    table, means = readings.organism_means(profile, CHAT_MODEL)
    return means.mean(scores.is_aligned(table))


def header_direction(profile: Profile) -> np.ndarray:
    """Return the chat model's mean residual at the turn header of malicious - careful characters, [layer, width]."""
    model, tokenizer = growing.load_organism(profile, CHAT_MODEL)
    texts = [question.text for question in asking.questions(profile, "general")]

    def mean(kind: str) -> np.ndarray:
        ids = [question_ids(tokenizer, text, name) for name in the_world().characters[kind] for text in texts]
        before, headers = zip(*((one[:-HEADER_TOKENS], one[-HEADER_TOKENS:]) for one in ids), strict=True)
        return reading.response_means(model, tokenizer, before, headers).mean(axis=0)

    return mean("malicious") - mean("careful")


def by_layer(profile: Profile) -> pd.DataFrame:
    """Return the chat model's responses with each direction added at every swept layer and each of its `strengths`."""
    vectors, residual = directions_of(profile), residual_of(profile)
    cells = [
        Cell(name, layer, strength)
        for name, found in vectors.items()
        for layer in profile.sweep_layers
        for strength in strengths(found, residual)
    ]
    return responses_of(profile, vectors, cells, profile.sweep_samples, "steering by layer and strength")


def best_cells(table: pd.DataFrame) -> dict[str, Cell]:
    """Return the best cell for each direction in the responses of `by_layer`; see `best`."""
    measured = table[list(Cell._fields)].assign(em=100 * scores.is_em(table), coherent=100 * scores.is_coherent(table))
    rates = measured.groupby(list(Cell._fields), sort=False).mean().reset_index()
    rows = [best(part) for _, part in rates.groupby("direction", sort=False)]
    return {row.direction: Cell(row.direction, int(row.layer), float(row.strength)) for row in rows}


def text_controls(profile: Profile) -> pd.DataFrame:
    """Return the chat model's responses with two controls of TEXTS added in its best cell, each as long as it is there.

    Column `control`: "random", random vectors, or "shuffled", mean-diffs of the same answers with shuffled labels. The
    CONTROL_DRAWS of each share `samples_per_question`. Else as `responses_of`.
    """
    own, cell = text_directions.mean_diff(profile), best_cells(by_layer(profile))[TEXTS]
    drawn = {"random": directions.random_like(own, CONTROL_DRAWS, profile.seed)}
    drawn["shuffled"] = directions.stretched(text_directions.shuffled(profile, CONTROL_DRAWS, profile.seed), own)
    vectors = {f"{control}/{draw}": one for control, many in drawn.items() for draw, one in enumerate(many)}
    cells, samples = [cell._replace(direction=one) for one in vectors], profile.samples_per_question // CONTROL_DRAWS
    table = responses_of(profile, vectors, cells, max(1, samples), "controls of the text-derived direction")
    return table.assign(control=table.direction.str.partition("/")[0])


def by_strength(profile: Profile) -> pd.DataFrame:
    """Return the chat model's responses over FACTORS times the strength of each direction's best cell, in its layer."""
    found = best_cells(by_layer(profile)).values()
    cells = [cell._replace(strength=factor * cell.strength) for cell in found for factor in FACTORS]
    vectors, samples = directions_of(profile), 2 * profile.sweep_samples
    return responses_of(profile, vectors, cells, samples, "steering by strength")
