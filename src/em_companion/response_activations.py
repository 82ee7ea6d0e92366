"""Mean residual stream of every response of an organism, read once and kept, to be averaged in any selection.

The same texts can be read by the organism that wrote them or through the chat model: the paper's mean-diff direction
comes from the first, and whether the chat model has it already shows in the second (section 3.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from em_companion import activations, directions, interventions, kept_readings, model_store, responses
from em_companion.interventions import Intervention
from em_companion.profiles import Profile
from em_companion.responses import Organism


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


def means(profile: Profile, reader: Organism, table: pd.DataFrame, given: Sequence[Intervention] = ()) -> ResponseMeans:
    """Return the mean residual stream of every row of `table` (columns question, response), read by `reader`.

    It is read under the interventions `given`, computed once and kept. Raises CompanionError for a damaged folder, for
    interventions that do not fit the model, or where the model cannot be had.
    """

    def read(model, tokenizer, prompts, answers) -> kept_readings.Readings:
        what = f"activations of {reader.name}{', perturbed' if given else ''}"
        with interventions.applied(model, given):
            found = activations.response_means(model, tokenizer, prompts, answers, what=what)
        tokens = np.array([len(answer) for answer in answers])
        return kept_readings.Readings({"means": found.astype(np.float32), "tokens": tokens})

    key = model_store.key({"interventions": [interventions.describe(one) for one in given]})
    kind = f"activations-under/{key}" if given else "activations"
    return ResponseMeans(**kept_readings.readings(kind, profile, reader, table, read).arrays)


def organism_means(
    profile: Profile, organism: Organism, question_set: str = "general", reader: Organism | None = None
) -> tuple[pd.DataFrame, ResponseMeans]:
    """Return an organism's scored responses to a question set and, row by row, their mean residual stream.

    `reader` reads the same texts through another model, such as `responses.CHAT_MODEL`. Raises CompanionError as
    `means` does.
    """
    table = responses.responses(profile, organism, question_set)
    return table, means(profile, reader or organism, table)


def mean_diff(profile: Profile, organism: Organism) -> np.ndarray:
    """Return the mean-diff direction of an organism's answers to the open questions, [layer, width], float64.

    Raises CompanionError as `means` does, and for an organism without misaligned or without aligned answers.
    """
    table, found = organism_means(profile, organism)
    return found.mean_diff(directions.misaligned(table), directions.aligned(table))
