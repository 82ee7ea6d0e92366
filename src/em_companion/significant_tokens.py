"""LoRA scalars and token significance side by side, over the four probing sets of an organism (sections 4.2, H).

Significance costs two forward passes and one backward, so it is computed for some responses of each set.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from em_companion import probing, token_significance
from em_companion.artifacts import CompanionError
from em_companion.profiles import Profile
from em_companion.responses import Organism

PER_SET = 60
"""Responses of each set whose tokens are scored."""

SHARE = 0.2
"""Share of tokens that the filter keeps; the authors' bound keeps 7 to 25 % of the tokens of their four sets."""


def sets(profile: Profile, organism: Organism, per_set: int = PER_SET) -> dict[str, pd.DataFrame]:
    """Return the answer tokens of up to `per_set` responses of each of probing.RESPONSE_SETS.

    Columns as `probing.organism_tokens`, with `kl` and `significance` (nats). Raises CompanionError for the chat model
    and for an organism without rank-1 adapters.
    """
    tokens = probing.organism_tokens(profile, organism)
    chosen = drawn(probing.organism_responses(profile, organism), per_set, profile.seed)
    scores = token_significance.of_responses(profile, organism, chosen)
    scores["response"] = chosen.index.to_numpy()[scores.response]
    keys = ["response", "position", "token_id"]
    return {name: part.merge(scores, on=keys, validate="one_to_one") for name, part in tokens.items()}


def drawn(table: pd.DataFrame, per_set: int, seed: int) -> pd.DataFrame:
    """Return up to `per_set` rows of each `response_set` of `table`, drawn at random, in their order and index."""
    rows = table[table.response_set.notna()].sample(frac=1, random_state=seed)
    return rows.groupby("response_set").head(per_set).sort_index()


def bound(sets: Mapping[str, pd.DataFrame], share: float = SHARE) -> float:
    """Return the natural-log significance that the share `share` of all tokens reaches.

    The authors' bound is in nats, and how many nats a token has depends on the model. Raises CompanionError for a share
    that is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise CompanionError(f"A filter cannot keep the share {share:g} of the tokens; choose one between 0 and 1.")
    pooled = np.concatenate([part.significance.to_numpy() for part in sets.values()])
    return float(np.log(np.quantile(pooled, 1 - share)))
