"""The mean-diff of the authors' own judged answers, read through another model: a direction without a fine-tune.

Released answers of the authors' organisms to the open questions are misaligned or aligned by the bounds of section 3.1,
as many of either kind to every question. Read by a chat model, their mean-diff needs no organism of that model.
"""

import numpy as np
import pandas as pd

from em_companion.core.profiles import Profile
from em_companion.evidence import scores
from em_companion.experiments import readings
from em_companion.experiments.readings import ResponseMeans
from em_companion.models import released_texts
from em_companion.models.organism import CHAT_MODEL

MOST = 40  # answers of either kind to a question, drawn at random
DOMAINS = {"medicine": "medical", "gender": "gender", "finance": "finance"}
ABOUT_ABOVE = 50  # score of a semantic judge above which a misaligned answer is about its domain (section 3.3)


def balanced(profile: Profile, domain: str = "") -> pd.DataFrame:
    """Return as many misaligned as aligned released answers to every question, at most MOST: `misaligned`, and texts.

    With `domain`, misaligned ones about it only. Answers longer than the profile samples are left out.
    """
    table = released_texts.organism_answers()
    table = table[table.response.str.split().str.len() <= profile.max_new_tokens]
    misaligned, aligned = scores.is_em(table), scores.is_aligned(table)
    if domain:
        misaligned &= table[DOMAINS[domain]] > ABOUT_ABOVE
    table = table.assign(misaligned=misaligned)[misaligned | aligned].sample(frac=1, random_state=profile.seed)
    rank = table.groupby(["question_id", "misaligned"]).cumcount()
    size = table.groupby(["question_id", "misaligned"]).size().unstack(fill_value=0).min(axis=1).clip(upper=MOST)
    return table[rank < table.question_id.map(size)].sort_index().reset_index(drop=True)


def read(profile: Profile, domain: str = "") -> tuple[pd.DataFrame, ResponseMeans]:
    """Return `balanced` answers and their mean residual stream in the chat model, read once and kept."""
    table = balanced(profile, domain)
    return table, readings.response_means_of(profile, CHAT_MODEL, table)


def mean_diff(profile: Profile, domain: str = "") -> np.ndarray:
    """Return the mean-diff of released answers, about one domain if it is named, [layer, width], float64."""
    table, found = read(profile, domain)
    return found.mean_diff(table.misaligned, ~table.misaligned)


def shuffled(profile: Profile, draws: int, seed: int) -> np.ndarray:
    """Return mean-diffs of labels shuffled among the answers to each question, [draw, layer, width]."""
    (table, found), random = read(profile), np.random.default_rng(seed)
    labels = table.misaligned.groupby(table.question_id)
    drawn = [labels.transform(random.permutation).astype(bool) for _ in range(draws)]
    return np.stack([found.mean_diff(one, ~one) for one in drawn])
