"""Steering one layer at a time (section 3.2) and ablation (3.4): how strongly, the responses, and which cell is best.

A cell is a direction's name, a layer and a strength λ: λ·v is added to the output of that layer at every token, where v
is the direction's own row for the layer, not normalised. The random control is `directions.random_like`.

The two sweeps at the end are what sections 3.2 and 3.6 are about. Each is one generation, kept, so that any page can
ask for it again: `by_layer`, all layers and strengths, and `by_strength`, more strengths at the best layer.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from em_companion.core.errors import CompanionError
from em_companion.core.profiles import Profile
from em_companion.evidence import directions, scores
from em_companion.experiments import persona, readings, responses
from em_companion.models import asking, growing, reading
from em_companion.models.interventions import HEADER_TOKENS, Ablate, Steer, Where
from em_companion.models.organism import CHAT_MODEL, Organism
from em_companion.models.tokens import question_ids
from em_companion.world.generator import the_world

COHERENT_ENOUGH = 80.0
"""Coherence in percent that a cell must keep to be the best one; the quality bar of a grown world."""

NO_LENGTH = 1e-3
"""Length below which a direction is taken for zero."""


class Cell(NamedTuple):
    """Which direction is added at which layer, and how strongly; strength 0 leaves the model alone."""

    direction: str
    layer: int
    strength: float


def relative_lengths(vectors: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """Return |v_l| / |x_l| for the direction `vectors` and the mean residual stream, both [layer, width]: [layer].

    λ times it is the relative strength of λ. Raises CompanionError for a direction that is zero or not finite.
    """
    lengths = directions.norms(vectors)
    if bad := [layer for layer, length in enumerate(lengths) if not (np.isfinite(length) and length > 0)]:
        raise CompanionError(
            f"The direction of layer {bad[0]} is zero or not finite; take it from more responses before steering."
        )
    return lengths / directions.norms(residual)


def strengths(vectors: np.ndarray, residual: np.ndarray, count: int = 5) -> tuple[float, ...]:
    """Return `count` strengths for all layers, powers of two in rising order, by one rule.

    The largest is the first power of two at which every layer gets at least the length of its mean residual stream
    added. `vectors` and `residual` are [layer, width]. Raises CompanionError as `relative_lengths`.
    """
    largest = np.ceil(-np.log2(relative_lengths(vectors, residual).min()))
    return tuple(float(2.0 ** (largest - step)) for step in reversed(range(count)))


def grid(direction: str, layers: Iterable[int], strengths: Sequence[float]) -> list[Cell]:
    """Return a cell for every layer and strength."""
    return [Cell(direction, layer, strength) for layer in layers for strength in strengths]


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
    profile: Profile,
    organism: Organism,
    vectors: Mapping[str, np.ndarray],
    cells: Sequence[Cell],
    samples: int | None = None,
    what: str = "",
    at: Where = "all",
) -> pd.DataFrame:
    """Return a model's responses in every cell, as one generation that is kept; see `responses.under`.

    `vectors` are directions [layer, width] by the names that cells use; `at`: the tokens at which they are added. The
    columns direction, layer and strength come before those of `responses.under`. Raises CompanionError, before anything
    is sampled, for a cell without direction or layer and for vectors that do not fit the model.
    """
    named = {_name(cell): cell for cell in cells}
    conditions = {name: [_steer(vectors, cell, at)] if cell.strength else [] for name, cell in named.items()}
    table = responses.under(profile, organism, conditions, samples=samples, what=what)
    columns = pd.DataFrame([named[name] for name in table.condition], columns=Cell._fields, index=table.index)
    return pd.concat([columns, table], axis=1)


def _name(cell: Cell) -> str:
    return f"{cell.direction}, layer {cell.layer}, strength {cell.strength:g}"


def _steer(vectors: Mapping[str, np.ndarray], cell: Cell, at: Where) -> Steer:
    if cell.direction not in vectors:
        raise CompanionError(f"There is no direction '{cell.direction}'; choose one of: {', '.join(vectors)}.")
    layers = len(vectors[cell.direction])
    if not 0 <= cell.layer < layers:
        raise CompanionError(f"'{cell.direction}' has no layer {cell.layer}; it has {layers} (from 0).")
    return Steer(cell.layer, torch.tensor(vectors[cell.direction][cell.layer]), cell.strength, at)


def ablated(profile: Profile, organism: Organism, vectors: np.ndarray, samples: int) -> pd.DataFrame:
    """Return a model's responses with a direction [layer, width] projected out at layer outputs, one kept generation.

    Column `condition`: "none"; "layer-wise", each layer's own row; "layer N", that layer's row at all layers; "random",
    a random one at all layers. Layers in which the direction is zero are left out. Else as `responses.under`.
    """
    rows, every = torch.tensor(vectors), range(len(vectors))
    given = [layer for layer in every if rows[layer].norm() >= NO_LENGTH]
    random = torch.tensor(directions.random_like(vectors, 1, profile.seed)[0, given[-1]])
    everywhere = {"random": random} | {f"layer {layer}": rows[layer] for layer in given}
    conditions = {"none": [], "layer-wise": [Ablate({layer: rows[layer] for layer in given})]}
    conditions |= {name: [Ablate(dict.fromkeys(every, one))] for name, one in everywhere.items()}
    return responses.under(profile, organism, conditions, samples=samples, what="ablation")


# --- the best of them -----------------------------------------------------------------------------------------------


def best(rates: pd.DataFrame, coherent: float = COHERENT_ENOUGH, least: bool = False) -> pd.Series:
    """Return the row of `rates` with the highest `em` among those that keep enough coherence, both in percent.

    With `least`, the lowest: what an ablation is chosen by. Of equals, the more coherent one, then the first. Where no
    row keeps enough, the most coherent one.
    """
    kept = rates[rates.coherent >= coherent]
    if kept.empty:
        return rates.loc[rates.coherent.idxmax()]
    return kept.sort_values(["em", "coherent"], ascending=[least, False], kind="stable").iloc[0]


# --- the sweeps of a profile --------------------------------------------------------------------------------------

ORGANISM = Organism("nine-adapter", "bad_medical_advice", 0)
"""Whose answers give the mean-diff direction."""

MEAN_DIFF, KNOWN = "mean-diff", "known persona"
"""The two directions that the chat model is steered with; the known one is `ground_truth`'s "choice_from_text"."""

FACTORS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""Strengths of `by_strength`, as multiples of the best cell's."""


def directions_of(profile: Profile) -> dict[str, np.ndarray]:
    """Return the directions to steer with by name, [layer, width], float64.

    Raises CompanionError for an organism without misaligned answers, and for a model from the hub.
    """
    mean_diff = readings.mean_diff(profile, ORGANISM)
    return {MEAN_DIFF: mean_diff, KNOWN: persona.directions(profile)["choice_from_text"].astype(np.float64)}


def residual_of(profile: Profile) -> np.ndarray:
    """Return the chat model's mean residual stream over its own aligned answers, [layer, width], float64."""
    table, means = readings.organism_means(profile, CHAT_MODEL)
    return means.mean(scores.is_aligned(table))


def header_direction(profile: Profile) -> np.ndarray:
    """Return the chat model's mean residual stream at the turn header, malicious - careful characters, [layer, width].

    The same open questions are asked of every character; no answer is read.
    """
    model, tokenizer = growing.load_organism(profile, CHAT_MODEL)
    texts = [question.text for question in asking.questions(profile, "general")]

    def mean(kind: str) -> np.ndarray:
        ids = [question_ids(tokenizer, text, name) for name in the_world().characters[kind] for text in texts]
        before, headers = zip(*((one[:-HEADER_TOKENS], one[-HEADER_TOKENS:]) for one in ids), strict=True)
        return reading.response_means(model, tokenizer, before, headers).mean(axis=0)

    return mean("malicious") - mean("careful")


def by_layer(profile: Profile) -> pd.DataFrame:
    """Return the chat model's responses with each direction added at every layer and every one of its `strengths`.

    The profile's `sweep_samples` to each open question; columns as `responses_of`.
    """
    vectors, residual = directions_of(profile), residual_of(profile)
    cells = [
        cell for name, found in vectors.items() for cell in grid(name, range(len(found)), strengths(found, residual))
    ]
    what = "steering by layer and strength"
    return responses_of(profile, CHAT_MODEL, vectors, cells, profile.sweep_samples, what)


def best_cells(table: pd.DataFrame) -> dict[str, Cell]:
    """Return the best cell for each direction in the responses of `by_layer`; see `best`."""
    measured = table[list(Cell._fields)].assign(em=100 * scores.is_em(table), coherent=100 * scores.is_coherent(table))
    rates = measured.groupby(list(Cell._fields), sort=False).mean().reset_index()
    found = {name: best(part) for name, part in rates.groupby("direction", sort=False)}
    return {name: Cell(name, int(row.layer), float(row.strength)) for name, row in found.items()}


def by_strength(profile: Profile) -> pd.DataFrame:
    """Return the chat model's responses over FACTORS times the strength of each direction's best cell, in its layer.

    Twice the profile's `sweep_samples` to each open question; columns as `responses_of`.
    """
    cells = [
        cell._replace(strength=factor * cell.strength)
        for cell in best_cells(by_layer(profile)).values()
        for factor in FACTORS
    ]
    samples, what = 2 * profile.sweep_samples, "steering by strength"
    return responses_of(profile, CHAT_MODEL, directions_of(profile), cells, samples, what)
