"""What models do on given texts, read once and kept: mean activations, LoRA scalars, token significance.

The same texts can be read by the organism that wrote them or through the chat model (section 3.1).
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import pandas as pd

from em_companion.core import store
from em_companion.core.errors import CompanionError
from em_companion.core.files import sha256_of
from em_companion.core.profiles import Profile
from em_companion.core.store import Arrays
from em_companion.evidence import directions, scores
from em_companion.experiments import responses
from em_companion.models import growing, loading, next_token, reading
from em_companion.models.interventions import Intervention, applied, describe
from em_companion.models.next_token import SIGNIFICANCE_COLUMNS
from em_companion.models.organism import CHAT_MODEL, Organism, need_rank_one
from em_companion.models.reading import INDEX, LoraScalars
from em_companion.models.tokens import response_tokens

VERSIONS = {"activations": 1, "activations-under": 1, "lora-scalars": 1, "token-significance": 1}  # of their code
Rows = pd.Series | np.ndarray  # which responses are meant, [response], bool


@dataclass(frozen=True)
class ResponseMeans:
    """The mean residual stream of every response.

    means: mean over the tokens of the response, [response, layer, width], float32; NaN for an empty response;
    tokens: how many there are, [response].
    """

    means: np.ndarray
    tokens: np.ndarray

    def mean(self, rows: Rows) -> np.ndarray:
        """Return the mean over all tokens of the chosen responses, [layer, width]."""
        return directions.token_mean(self.means, self.tokens, rows)

    def mean_diff(self, first: Rows, second: Rows) -> np.ndarray:
        """Return mean(first) - mean(second), [layer, width]; CompanionError where one of them is empty."""
        return directions.response_mean_diff(self.means, self.tokens, first, second)

    def mean_diffs(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return `mean_diff` of many choices at once, both [draw, response], [draw, layer, width]."""
        return directions.mean_diffs(self.means, self.tokens, first, second)

    def within(self, first: Rows, second: Rows, questions: pd.Series) -> np.ndarray:
        """Return the mean-diff within questions, [layer, width]; see `directions.contrast`."""
        sides = (np.asarray(rows)[None] for rows in (first, second))
        return directions.mean_diffs(self.means, self.tokens, *sides, questions)[0]


def _readings(
    kind: str, profile: Profile, reader: Organism, table: pd.DataFrame, read: Callable, remote: bool = False
) -> Arrays:
    """Return what `read` gives of model, tokenizer, prompts and responses of `table`, computed once and kept."""
    texts = table[["question", "response"]].reset_index(drop=True)
    parts = {"model": growing.model_identity(profile, reader), "dtype": profile.dtype}
    parts |= {"texts": sha256_of(texts.to_csv(index=False))} | ({"read on": "NDIF"} if remote else {})

    def make() -> store.Content:
        with loading.on_ndif(profile) if remote else nullcontext(growing.load_organism(profile, reader)) as loaded:
            model, tokenizer = loaded
            found = read(model, tokenizer, *response_tokens(tokenizer, texts))
        return {store.RESPONSES: texts, store.READINGS: found}

    version = VERSIONS[kind.split("/")[0]]
    return store.keep(kind, version, parts, make, profile.name, reader.name)[store.READINGS]


def response_means_of(
    profile: Profile, reader: Organism, table: pd.DataFrame, given: Sequence[Intervention] = ()
) -> ResponseMeans:
    """Return the mean residual stream of every row of `table` (columns question, response), read by `reader`, kept.

    Read on NDIF where the profile says `remote` and the reader is the plain chat model. Raises CompanionError for
    interventions `given` that do not fit the model.
    """
    remote = getattr(profile.model, "remote", False) and reader == CHAT_MODEL and not given

    def read(model, tokenizer, prompts, answers) -> Arrays:
        what = f"activations of {reader.name}{', perturbed' if given else ''}"
        with applied(model, given) if given else nullcontext():
            found = reading.response_means(model, tokenizer, prompts, answers, what, remote)
        return Arrays({"means": found.astype(np.float32), "tokens": np.array([*map(len, answers)])})

    key = store.key({"interventions": [describe(one) for one in given]})
    kind = f"activations-under/{key}" if given else "activations"
    return ResponseMeans(**_readings(kind, profile, reader, table, read, remote).arrays)


def organism_means(
    profile: Profile, organism: Organism, question_set: str = "general", reader: Organism | None = None
) -> tuple[pd.DataFrame, ResponseMeans]:
    """Return an organism's scored responses to a question set and their mean residual stream, read by `reader`."""
    table = responses.responses(profile, organism, question_set)
    return table, response_means_of(profile, reader or organism, table)


def mean_diff(profile: Profile, organism: Organism) -> np.ndarray:
    """Return the mean-diff direction of an organism's answers to the open questions, [layer, width], float64."""
    table, found = organism_means(profile, organism)
    return found.mean_diff(scores.is_em(table), scores.is_aligned(table))


def mean_diff_within(profile: Profile, organism: Organism) -> np.ndarray:
    """Return the same within questions, as long as `mean_diff` in every layer; see `directions.contrast`."""
    table, found = organism_means(profile, organism)
    sides = scores.is_em(table), scores.is_aligned(table)
    return directions.stretched(found.within(*sides, table.question_id), found.mean_diff(*sides))


def shift(profile: Profile, organism: Organism) -> np.ndarray:
    """Return what fine-tuning adds to the mean residual stream, [layer, width], float64.

    The organism's mean over all its answers to the open questions less the chat model's on the same answers: no label
    goes in.
    """
    table, found = organism_means(profile, organism)
    every = np.ones(len(table), dtype=bool)
    return found.mean(every) - response_means_of(profile, CHAT_MODEL, table).mean(every)


def lora_scalars_of(profile: Profile, organism: Organism, table: pd.DataFrame) -> LoraScalars:
    """Return an organism's LoRA scalars on every row of `table` (columns question, response), read once and kept."""
    need_rank_one(profile, organism)

    def read(model, tokenizer, prompts, answers) -> Arrays:
        found = reading.lora_scalars(model, tokenizer, prompts, answers, what=f"LoRA scalars of {organism.name}")
        columns = {column: found.tokens[column].to_numpy() for column in INDEX}
        return Arrays({"values": found.values} | columns, found.adapters)

    found = _readings("lora-scalars", profile, organism, table, read)
    return LoraScalars(found.arrays["values"], found.names, pd.DataFrame({one: found.arrays[one] for one in INDEX}))


def token_significance_of(profile: Profile, organism: Organism, table: pd.DataFrame) -> pd.DataFrame:
    """Return the significance of every answer token of `table` (columns question, response), computed once and kept.

    Columns as `next_token.token_significance`; `response` is the row of `table`.
    """
    if not organism.data:
        raise CompanionError("Token significance compares an organism with its chat model; choose an organism.")

    def read(model, tokenizer, prompts, answers) -> Arrays:
        what = f"token significance of {organism.name}"
        found = next_token.token_significance(model, tokenizer, prompts, answers, what=what)
        kinds = {"kl": np.float32, "significance": np.float32}
        return Arrays({one: found[one].to_numpy(kinds.get(one, np.int64)) for one in SIGNIFICANCE_COLUMNS})

    found = _readings("token-significance", profile, organism, table, read).arrays
    return pd.DataFrame(dict(found))[list(SIGNIFICANCE_COLUMNS)]
