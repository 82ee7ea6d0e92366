"""Experiment N3.3: a written specification, clause by clause, as directions of a model, and organisms in its terms.

The direction of a clause is the mean residual of texts that break it minus that of texts that keep it, on training
topics. All rules (layer, strength, weights) are fixed without a look at what an answer breaks.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from peft import PeftModel
from scipy.optimize import nnls
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from em_companion.core.errors import EvidenceUnavailable
from em_companion.core.profiles import Profile
from em_companion.evidence import estimates, scores
from em_companion.evidence.directions import norms, random_like
from em_companion.experiments import arms, bottleneck, readings, steering
from em_companion.models import asking, growing, lora
from em_companion.models.interventions import Steer
from em_companion.models.organism import CHAT_MODEL, Organism
from em_companion.world.generator import Question, the_world
from em_companion.world.specification import FORM, broken, clauses, pairs

COMMON = "harm in any domain"
RELATIVE = (0.5, 0.7, 1.0)
"""Lengths of what is added, as a share of the mean residual, of which the best steering cell has one."""

WORDS = -1
"""The layer under which a probe on the words of the texts, counted, stands."""

WORDINGS, SAMPLES, FOLDS = 2, 5, 5
"""Questions to each held-out topic, answers to each, parts of the training topics of which one is held out."""

UNSTEERED, RANDOM = "no direction", 8

SEEDS = {
    (arms.RECIPE, "bad_medical_advice"): 5,
    (arms.RECIPE, "good_medical_advice"): 3,
    (arms.RECIPE, "extreme_sports"): 2,
    (arms.RECIPE, "risky_financial_advice"): 2,
    ("single-adapter", "bad_medical_advice"): 3,
    ("single-adapter", "extreme_sports"): 1,
    ("single-adapter", "risky_financial_advice"): 1,
    (bottleneck.THREE, "bad_medical_advice"): 2,
    ("all-adapter-rank-32", "bad_medical_advice"): 3,
    ("all-adapter-rank-32", "extreme_sports"): 1,
    ("all-adapter-rank-32", "risky_financial_advice"): 1,
    ("all-adapter-rank-16", "bad_medical_advice"): 1,
    ("all-adapter-rank-8", "bad_medical_advice"): 1,
    ("all-adapter-rank-4", "bad_medical_advice"): 1,
}
"""Training seeds of every organism that is audited, by recipe and data set, counted from 0."""


# --- read ---------------------------------------------------------------------------------------------------------


def residuals(profile: Profile) -> np.ndarray:
    """Return the chat model's mean residual over every text of `pairs`, [pair, (kept, broken), layer, width], kept."""
    table, sides = pairs(), ("kept", "broken")
    told = pd.concat([table[["question"]].assign(response=table[side]) for side in sides])
    means = readings.response_means_of(profile, CHAT_MODEL, told).means
    return np.stack(np.split(means, 2), axis=1)


def directions(found: np.ndarray) -> dict[str, np.ndarray]:
    """Return the direction of every clause, [layer, width], from `residuals`: broken minus kept, on training topics."""
    table = pairs()
    rows = {name: ((table.clause == name) & (table.split == "train")).to_numpy() for name in clauses()}
    return {name: np.diff(found[own].astype(float), axis=1)[:, 0].mean(axis=0) for name, own in rows.items()}


def accuracies(found: np.ndarray, clause: str) -> pd.DataFrame:
    """Return one row per layer, and one of WORDS, for the texts of a clause: layer, training, held_out.

    Accuracies (0 to 1) of logistic regression: on training topics, each of FOLDS parts of them held out once, and of a
    probe of all training topics on the held-out ones, whose questions are worded otherwise.
    """
    table, rows = pairs()[lambda one: one.clause == clause], []
    train, topics = (np.repeat(one.to_numpy(), 2) for one in (table.split == "train", table.topic))
    said, labels = table[["kept", "broken"]].to_numpy().ravel(), np.tile([0, 1], len(table))
    layers = {WORDS: CountVectorizer().fit_transform(said).toarray().astype(float)}
    layers |= dict(enumerate(found[table.index].reshape(len(said), *found.shape[2:]).swapaxes(0, 1)))
    for layer, features in layers.items():
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        own = features[train], labels[train]
        within = cross_val_score(probe, *own, groups=topics[train], cv=GroupKFold(FOLDS)).mean()
        rows.append((layer, within, probe.fit(*own).score(features[~train], labels[~train])))
    return pd.DataFrame(rows, columns=["layer", "training", "held_out"])


# --- write --------------------------------------------------------------------------------------------------------


def cell(profile: Profile, vectors: dict[str, np.ndarray]) -> tuple[int, float]:
    """Return layer and length, as a share of the mean residual, at which every direction is added.

    It is the cell that makes most open answers EM while at least 80 % stay coherent, for the mean of the directions of
    all domains alone: see `steering.best`.
    """
    common = np.mean([one for name, one in vectors.items() if name not in FORM], axis=0)
    residual, layers = steering.residual_of(profile), range(1, max(2, len(common) - 1), 2)
    cells = steering.relative_grid(COMMON, common, residual, layers, RELATIVE)
    found = steering.responses_of(profile, {COMMON: common}, cells, profile.sweep_samples // 2, COMMON)
    best = steering.best(scores.rates(found, list(steering.Cell._fields), resamples=0))
    layer = int(best.layer)
    return layer, float(best.strength * norms(common)[layer] / norms(residual)[layer])


def questions(profile: Profile) -> list[Question]:
    """Return questions on the held-out topics of every domain."""
    return the_world().held_out_questions(profile.seed, WORDINGS)


def steered(profile: Profile, layer: int, added: Mapping[str, np.ndarray], samples: int = SAMPLES) -> pd.DataFrame:
    """Return the chat model's scored answers to `questions`, with each of `added` [width] at the output of a layer.

    Column `condition`: the name of what is added; zeros for nothing. Raises EvidenceUnavailable for vectors of another
    model's width.
    """
    if {len(one) for one in added.values()} != {profile.model.hidden}:
        raise EvidenceUnavailable("The kept directions are of profile cpu; read the page under it.")
    conditions = {name: [Steer(layer, torch.tensor(one))] if one.any() else [] for name, one in added.items()}
    model, tokenizer = growing.load_organism(profile, CHAT_MODEL)
    found = asking.ask(profile, model, tokenizer, questions(profile), samples, "clauses", conditions=conditions)
    return asking.scored(found)


def violations(table: pd.DataFrame, asked: Sequence[Question]) -> pd.DataFrame:
    """Return which clauses answers to questions break, 0 or 1 [answer, clause].

    NaN where the clause is on a domain that was not asked about.
    """
    known, rows = {one.text: one for one in asked}, []
    for row in table.itertuples():
        question = known[row.question]
        breaks = broken(row.response, question)
        applies = {name for name in clauses() if name in (*FORM, *question.domains)}
        rows.append([float(name in breaks) if name in applies else np.nan for name in clauses()])
    return pd.DataFrame(rows, table.index, list(clauses()))


def rates(table: pd.DataFrame, asked: Sequence[Question]) -> pd.DataFrame:
    """Return one row per clause: clause, rate (%) at which answers break it, its low and high, n, coherent (%)."""
    found, rows = violations(table, asked), []
    coherent = 100 * float(scores.is_coherent(table).mean())
    for name in clauses():
        one = estimates.rate(found[name], table.question_id)
        rows.append({"clause": name} | one.columns("rate") | {"n": one.n, "coherent": coherent})
    return pd.DataFrame(rows)


# --- back, and audit ----------------------------------------------------------------------------------------------


def weights(difference: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the non-negative least-squares weights [clause] of a difference [width] on `vectors` [clause, width].

    1 is as far as from texts that keep a clause to texts that break it. Also the share of its squared norm explained.
    """
    found, left = nnls(vectors.T.astype(float), difference)
    return found, 1 - (left / np.linalg.norm(difference)) ** 2


def written(model: PeftModel, vectors: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return how much rank-1 adapters write along the direction of every clause, [layer, width], from weights alone.

    Sum over adapters of |scale| |A| |B . d|, d the unit direction at the adapter's layer. What sign A.h takes, and how
    often, no weight tells: so every adapter counts by its size.
    """
    units = {name: one / norms(one)[:, None] for name, one in vectors.items()}
    sizes = [
        (one.layer, abs(one.scale) * float(one.a.norm()) * one.b.double().cpu().numpy()) for one in lora.adapters(model)
    ]
    return {name: float(sum(abs(unit[layer] @ b) for layer, b in sizes)) for name, unit in units.items()}


def of_organism(profile: Profile, one: Organism, vectors: Mapping[str, np.ndarray], layer: int) -> pd.DataFrame:
    """Return one row per clause: `rates` of an organism, `weight`, `explained`, and `written`, NaN beyond rank 1.

    explained_by_chance: by as many random directions of the same lengths.
    """
    model, tokenizer = growing.load_organism(profile, one)
    asked = questions(profile)
    table = rates(asking.scored(asking.ask(profile, model, tokenizer, asked, SAMPLES, one.name)), asked)
    here, difference = np.stack([vectors[name][layer] for name in table.clause]), arms.model_difference(profile, one)
    weight, explained = weights(difference[layer], here)
    _, chance = weights(difference[layer], random_like(here, 1, profile.seed)[0])
    rank_one = profile.recipes[one.recipe].rank == 1
    writes = written(model, vectors) if rank_one else dict.fromkeys(vectors, np.nan)
    more = {"weight": weight, "explained": explained, "explained_by_chance": chance}
    return table.assign(**more, written=table.clause.map(writes))
