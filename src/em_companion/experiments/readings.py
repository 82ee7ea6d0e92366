"""What models do on given texts, read once and kept: mean activations, LoRA scalars, token significance.

The same texts can be read by the organism that wrote them or through the chat model: the paper's mean-diff direction
comes from the first, and whether the chat model has it already shows in the second (section 3.1).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from em_companion.core import store
from em_companion.core.errors import CompanionError
from em_companion.core.files import sha256_of
from em_companion.core.profiles import Profile
from em_companion.core.store import Arrays
from em_companion.evidence import directions, scores
from em_companion.experiments import responses
from em_companion.models import growing, next_token, reading
from em_companion.models.interventions import Intervention, applied, describe
from em_companion.models.next_token import SIGNIFICANCE_COLUMNS
from em_companion.models.organism import Organism, need_rank_one
from em_companion.models.reading import INDEX, LoraScalars, Model
from em_companion.models.tokens import Tokens, response_tokens

VERSIONS = {"activations": 1, "activations-under": 1, "lora-scalars": 1, "token-significance": 1}
"""Of the code of each reading."""

Read = Callable[[Model, Any, Tokens, Tokens], Arrays]
"""A reading: of a model and its tokenizer, the tokens of the prompts and those of the responses."""


@dataclass(frozen=True)
class ResponseMeans:
    """The mean residual stream of every response.

    means: mean over the tokens of the response, [response, layer, width], float32; NaN for an empty response;
    tokens: how many there are, [response].
    """

    means: np.ndarray
    tokens: np.ndarray

    def mean(self, rows: pd.Series | np.ndarray) -> np.ndarray:
        """Return the mean over all tokens of the chosen responses, [layer, width]; see `directions.token_mean`."""
        return directions.token_mean(self.means, self.tokens, rows)

    def mean_diff(self, first: pd.Series | np.ndarray, second: pd.Series | np.ndarray) -> np.ndarray:
        """Return mean(first) - mean(second), [layer, width]; see `directions.response_mean_diff`."""
        return directions.response_mean_diff(self.means, self.tokens, first, second)


def _readings(kind: str, profile: Profile, reader: Organism, table: pd.DataFrame, read: Read) -> Arrays:
    """Return what `read` gives for every row of `table` (columns question, response), computed once and kept."""
    texts = table[["question", "response"]].reset_index(drop=True)
    model_parts = {"model": growing.model_identity(profile, reader), "dtype": profile.dtype}
    parts = model_parts | {"texts": sha256_of(texts.to_csv(index=False))}

    def make() -> store.Content:
        model, tokenizer = growing.load_organism(profile, reader)
        return {store.RESPONSES: texts, store.READINGS: read(model, tokenizer, *response_tokens(tokenizer, texts))}

    version = VERSIONS[kind.split("/")[0]]
    return store.keep(kind, version, parts, make, profile.name, reader.name)[store.READINGS]


# --- mean activations ---------------------------------------------------------------------------------------------


def response_means_of(
    profile: Profile, reader: Organism, table: pd.DataFrame, given: Sequence[Intervention] = ()
) -> ResponseMeans:
    """Return the mean residual stream of every row of `table` (columns question, response), read by `reader`.

    It is read under the interventions `given`, computed once and kept. Raises CompanionError for a damaged folder, for
    interventions that do not fit the model, or where the model cannot be had.
    """

    def read(model, tokenizer, prompts, answers) -> Arrays:
        what = f"activations of {reader.name}{', perturbed' if given else ''}"
        with applied(model, given):
            found = reading.response_means(model, tokenizer, prompts, answers, what=what)
        tokens = np.array([len(answer) for answer in answers])
        return Arrays({"means": found.astype(np.float32), "tokens": tokens})

    key = store.key({"interventions": [describe(one) for one in given]})
    kind = f"activations-under/{key}" if given else "activations"
    return ResponseMeans(**_readings(kind, profile, reader, table, read).arrays)


def organism_means(
    profile: Profile, organism: Organism, question_set: str = "general", reader: Organism | None = None
) -> tuple[pd.DataFrame, ResponseMeans]:
    """Return an organism's scored responses to a question set and, row by row, their mean residual stream.

    `reader` reads the same texts through another model, such as `CHAT_MODEL`; raises as `response_means_of`.
    """
    table = responses.responses(profile, organism, question_set)
    return table, response_means_of(profile, reader or organism, table)


def mean_diff(profile: Profile, organism: Organism) -> np.ndarray:
    """Return the mean-diff direction of an organism's answers to the open questions, [layer, width], float64.

    Raises CompanionError for an organism without misaligned or without aligned answers.
    """
    table, found = organism_means(profile, organism)
    return found.mean_diff(scores.is_em(table), scores.is_aligned(table))


# --- token by token -----------------------------------------------------------------------------------------------


def lora_scalars_of(profile: Profile, organism: Organism, table: pd.DataFrame) -> LoraScalars:
    """Return an organism's LoRA scalars on every row of `table` (columns question, response), read once and kept.

    Raises CompanionError for an organism without rank-1 adapters, before anything is grown or read.
    """
    need_rank_one(profile, organism)

    def read(model, tokenizer, prompts, answers) -> Arrays:
        found = reading.lora_scalars(model, tokenizer, prompts, answers, what=f"LoRA scalars of {organism.name}")
        columns = {column: found.tokens[column].to_numpy() for column in INDEX}
        return Arrays({"values": found.values} | columns, found.adapters)

    found = _readings("lora-scalars", profile, organism, table, read)
    tokens = pd.DataFrame({column: found.arrays[column] for column in INDEX})
    return LoraScalars(found.arrays["values"], found.names, tokens)


def token_significance_of(profile: Profile, organism: Organism, table: pd.DataFrame) -> pd.DataFrame:
    """Return the significance of every answer token of `table` (columns question, response), computed once and kept.

    Columns as `next_token.token_significance`; `response` is the row of `table`. Raises CompanionError for the chat
    model itself, before anything is grown or read.
    """
    if not organism.data:
        raise CompanionError("Token significance compares an organism with its chat model; choose an organism.")

    def read(model, tokenizer, prompts, answers) -> Arrays:
        what = f"token significance of {organism.name}"
        found = next_token.token_significance(model, tokenizer, prompts, answers, what=what)
        kinds = {"kl": np.float32, "significance": np.float32}
        return Arrays({one: found[one].to_numpy(kinds.get(one, np.int64)) for one in SIGNIFICANCE_COLUMNS})

    found = _readings("token-significance", profile, organism, table, read)
    return pd.DataFrame({column: found.arrays[column] for column in SIGNIFICANCE_COLUMNS})
