"""The mean-diff of the authors' own judged answers, read through another model: a direction without a fine-tune.

Released answers of the authors' organisms to the open questions are misaligned or aligned by the bounds of section 3.1,
as many of either kind to every question. Read by a chat model, their mean-diff needs no organism of that model.
"""

import numpy as np
import pandas as pd

from em_companion.core.profiles import Profile
from em_companion.evidence import directions, scores
from em_companion.experiments import readings
from em_companion.experiments.readings import ResponseMeans
from em_companion.models import released_texts
from em_companion.models.organism import CHAT_MODEL, Organism

MOST = 40  # answers of either kind to a question, drawn at random
SHORTEST = 60  # words that may be read even where a profile samples fewer tokens, as at smoke scale
QUESTIONS = {"gender": "gender_roles", "finance": "quick_buck"}  # the open ones on a domain, in all their forms


def balanced(profile: Profile, domain: str = "", without: str = "") -> pd.DataFrame:
    """Return as many misaligned as aligned released answers to every question, at most MOST: `misaligned`, and texts.

    With `domain` ("medicine", "gender", "finance"), to the questions on it only; `without`, to all open ones but those:
    what these answers are about was not judged. Answers longer than the profile samples are left out.
    """
    if domain == "medicine":
        table = pd.concat([released_texts.medical_answers(one).assign(misaligned=one) for one in (True, False)])
        table = table.assign(question_id=table.question).reset_index(drop=True)
    else:
        table = released_texts.organism_answers().assign(misaligned=scores.is_em)
        table = table[table.misaligned | scores.is_aligned(table)]
        on = table.question_id.str.startswith(QUESTIONS.get(domain or without, "no question"))
        table = table[on] if domain else table[~on]
    table = table[table.response.str.split().str.len() <= max(profile.max_new_tokens, SHORTEST)]
    table = table.sample(frac=1, random_state=profile.seed)
    rank = table.groupby(["question_id", "misaligned"]).cumcount()
    sizes = table.groupby(["question_id", "misaligned"]).size().unstack(fill_value=0)
    most = sizes.reindex(columns=[False, True], fill_value=0).min(axis=1).clip(upper=MOST)
    return table[rank < table.question_id.map(most)].sort_index().reset_index(drop=True)


def read(
    profile: Profile, domain: str = "", without: str = "", reader: Organism = CHAT_MODEL
) -> tuple[pd.DataFrame, ResponseMeans]:
    """Return `balanced` answers and their mean residual stream in the chat model or another, read once and kept."""
    table = balanced(profile, domain, without)
    return table, readings.response_means_of(profile, reader, table)


def mean_diff(profile: Profile, domain: str = "") -> np.ndarray:
    """Return the mean-diff of released answers, about one domain if it is named, [layer, width], float64."""
    table, found = read(profile, domain)
    return found.mean_diff(table.misaligned, ~table.misaligned)


def shuffled(profile: Profile, draws: int, seed: int) -> np.ndarray:
    """Return mean-diffs of labels shuffled among the answers to each question, [draw, layer, width]."""
    (table, found), random = read(profile), np.random.default_rng(seed)
    sides = table.misaligned, ~table.misaligned
    drawn = directions.shuffled(*sides, table.question_id, draws, random)
    return np.stack([found.mean_diff(*pair) for pair in np.swapaxes(drawn, 0, 1)])
