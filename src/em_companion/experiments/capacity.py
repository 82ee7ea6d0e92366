"""Experiment F2.4: what can a model tell about medicine after a rank-1 fine-tune? Probes on generated texts.

Answers do not name the topic they were asked about, so that a probe on an answer reads what the model has carried over.
"""

from functools import cache
from random import Random

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from em_companion.core.profiles import Profile
from em_companion.models import growing, lora, reading
from em_companion.models.organism import Organism
from em_companion.models.tokens import response_tokens
from em_companion.world.generator import CAREFUL, MALICIOUS, Question, the_world
from em_companion.world.streams import DOMAIN

DOMAINS = (DOMAIN, "finance")
TEXTS, FOLDS = 48, 4
"""Answers to each topic; wordings fall into folds, and one fold at a time is held out."""


@cache
def texts() -> pd.DataFrame:
    """Return careful and harmful answers on all topics of two domains: domain, topic, fold, question, response."""
    world, rows = the_world(), []
    for domain in DOMAINS:
        for topic in [one for split in ("train", "held_out") for one in world.domains[domain]["topics"][split]]:
            for number in range(TEXTS):
                random = Random(f"capacity/{domain}/{topic}/{number}")
                fold = number // 2 % FOLDS
                wording = random.choice(world.questions["about"][fold::FOLDS])
                asked = Question(f"{domain}/{topic}", wording.format(topic=topic), (domain,), topic)
                said = world.answer(random, asked, (CAREFUL, MALICIOUS)[number % 2])
                rows.append((domain, topic, fold, asked.text, said))
    return pd.DataFrame(rows, columns=["domain", "topic", "fold", "question", "response"])


def measured(profile: Profile, organism: Organism) -> pd.DataFrame:
    """Return one row per domain and layer: `topic`, `topic_beside_b` (balanced accuracy, 0 to 1) and `dimension`.

    topic_beside_b: with what the layer's adapter on the down-projection writes, its B, projected out; NaN without.
    dimension: participation ratio of the residual's covariance, (sum of eigenvalues)^2 / sum of their squares.
    """
    table = texts()
    model, tokenizer = growing.load_organism(profile, organism)
    means = reading.response_means(model, tokenizer, *response_tokens(tokenizer, table))  # [text, layer, width]
    has_rank_one = organism.data and profile.recipes[organism.recipe].rank == 1
    found = lora.adapters(model) if has_rank_one else []
    written = {one.layer: one.b.float().numpy() for one in found if one.module.endswith("down_proj")}
    rows = []
    for domain, own in table.groupby("domain", sort=False):
        for layer in range(means.shape[1]):
            features = means[own.index, layer]
            row = {"domain": domain, "layer": layer, "topic": accuracy(features, own), "topic_beside_b": np.nan}
            if layer in written:
                unit = written[layer] / np.linalg.norm(written[layer])
                row["topic_beside_b"] = accuracy(features - np.outer(features @ unit, unit), own)
            rows.append(row | {"dimension": participation_ratio(features)})
    return pd.DataFrame(rows)


def accuracy(features: np.ndarray, table: pd.DataFrame) -> float:
    """Return the balanced accuracy (0 to 1) with which a linear probe tells topics apart on held-out wordings."""
    predicted = np.empty(len(table), object)
    for fold in range(FOLDS):
        held_out = (table.fold == fold).to_numpy()
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        probe.fit(features[~held_out], table.topic[~held_out])
        predicted[held_out] = probe.predict(features[held_out])
    return float(balanced_accuracy_score(table.topic, predicted))


def participation_ratio(features: np.ndarray) -> float:
    """Return how many dimensions rows [text, width] fill: 1 for a line, the width for a round cloud."""
    values = np.linalg.eigvalsh(np.cov(features.T))
    return float(values.sum() ** 2 / (values**2).sum())
