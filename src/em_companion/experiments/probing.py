"""The LoRA scalars of an organism's own answers, in the four sets of appendix F, as tables for the probes of section 4.

Of each set, appendix H keeps the tokens where the organism leaves the chat model.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from em_companion.core.errors import EvidenceUnavailable
from em_companion.core.profiles import Profile
from em_companion.evidence import scores
from em_companion.evidence.probes import FEWEST_QUESTIONS, FEWEST_RESPONSES
from em_companion.evidence.scores import RESPONSE_SETS
from em_companion.experiments import readings, responses
from em_companion.models import asking, reading
from em_companion.models.organism import Organism
from em_companion.released import tables

PER_SET = 60  # responses of each set whose tokens are scored
SHARE = 0.2  # of tokens that the filter keeps; the authors' bound keeps 7 to 25 % of the tokens of their four sets


def organism_responses(profile: Profile, organism: Organism) -> pd.DataFrame:
    """Return an organism's own responses to every question set of a profile, with the column `response_set`."""
    table = pd.concat(
        [responses.responses(profile, organism, one) for one in asking.question_sets(profile)], ignore_index=True
    )
    return table.assign(response_set=scores.response_set(table))


def organism_tokens(profile: Profile, organism: Organism) -> dict[str, pd.DataFrame]:
    """Return `reading.answer_tokens` of an organism's own responses by set of RESPONSE_SETS; one may have no rows."""
    table = organism_responses(profile, organism)
    tokens = reading.answer_tokens(readings.lora_scalars_of(profile, organism, table), table)
    found = table.response_set.to_numpy()[tokens.response]
    return {one: tokens[found == one].reset_index(drop=True) for one in RESPONSE_SETS}


def adapters(tokens: pd.DataFrame) -> list[str]:
    """Return the columns of a token table that hold LoRA scalars."""
    return [column for column in tokens if column.startswith("layer_")]


def shortage(sets: Mapping[str, pd.DataFrame]) -> str:
    """Return which of the named token tables have fewer than FEWEST_RESPONSES, and how many, or "" where none has."""
    counts = {name.replace("medical-", "medical "): tokens.response.nunique() for name, tokens in sets.items()}
    short = {name: count for name, count in counts.items() if count < FEWEST_RESPONSES}
    return "; ".join(f"{name} has {count} of {FEWEST_RESPONSES} responses needed" for name, count in short.items())


def none_fitted(shortages: Iterable[str]) -> EvidenceUnavailable:
    """Return the error for a page that can fit none of its probes, with each shortage once."""
    why = dict.fromkeys(part for one in shortages for part in one.split("; "))
    return EvidenceUnavailable(f"No probe can be fitted: {'; '.join(why)}.")


def short_of_questions(sets: Mapping[str, pd.DataFrame]) -> str:
    """Return why the named token tables leave no question to be held out, or "" where they leave one."""
    asked = [set(tokens.question) for tokens in sets.values()]
    if min(map(len, asked)) > 1 and len(set.union(*asked)) >= FEWEST_QUESTIONS:
        return ""
    return f"{' and '.join(sets)} answer too few questions".replace("medical-", "medical ")


def sets(profile: Profile, organism: Organism) -> dict[str, pd.DataFrame]:
    """Return `organism_tokens` of PER_SET random responses of each set, with `kl` and `significance` (nats).

    Without rank-1 adapters there are no LoRA scalars among the columns. Raises EvidenceUnavailable where every response
    is between the bounds of the sets.
    """
    table = organism_responses(profile, organism)
    chosen = drawn(table, profile.seed)
    if chosen.empty:
        raise EvidenceUnavailable(f"No answer of {organism.name} is clearly of one of the four sets of appendix F.")
    significance = readings.token_significance_of(profile, organism, chosen)
    significance["response"] = chosen.index.to_numpy()[significance.response]
    if profile.recipes[organism.recipe].rank > 1:
        found = table.response_set.to_numpy()[significance.response]
        return {one: significance[found == one].reset_index(drop=True) for one in RESPONSE_SETS}
    tokens = organism_tokens(profile, organism)
    keys = ["response", "position", "token_id"]
    return {name: part.merge(significance, on=keys, validate="one_to_one") for name, part in tokens.items()}


def drawn(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return up to PER_SET rows of each `response_set` of `table`, drawn at random, in their order and index."""
    rows = table[table.response_set.notna()].sample(frac=1, random_state=seed)
    return rows.groupby("response_set").head(PER_SET).sort_index()


def bound(sets: Mapping[str, pd.DataFrame]) -> float:
    """Return the natural-log significance that SHARE of all tokens reaches; models differ in nats per token."""
    pooled = np.concatenate([part.significance.to_numpy() for part in sets.values()])
    return float(np.log(np.quantile(pooled, 1 - SHARE)))


@dataclass(frozen=True)
class ProbeTokens:
    """The token tables behind the probes of `tables.PROBES`: "released" and "own", of `organism`'s own answers."""

    profile: Profile
    organism: Organism

    @cached_property
    def own(self) -> dict[str, pd.DataFrame]:
        """What `organism_tokens` returns, read once."""
        return organism_tokens(self.profile, self.organism)

    def sides(self, evidence: str, probe: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the two token tables of a probe, the one labelled 0 first."""
        if evidence == "released":
            return tables.read_probe(probe)
        negative, positive = tables.PROBES[probe]
        return self.own[negative], self.own[positive]

    def own_shortage(self, probe: str) -> str:
        """Return `shortage` of the organism's own two tables of a probe, or of the questions that they answer."""
        sides = dict(zip(tables.PROBES[probe], self.sides("own", probe), strict=True))
        return shortage(sides) or short_of_questions(sides)
