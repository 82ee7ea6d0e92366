"""Mean residual-stream activations over spans of tokens, per layer; above all over the tokens of a response.

A response's activations are the outputs of every decoder layer at the tokens of the response, after its prompt and up
to its last word; the end token is not part of it. They are read with nnsight, many texts in one trace. Sums are kept in
float64, since a difference of means is small against the means.

Every `model` here is a loaded transformers model, one with PEFT adapters on it, or one opened by `reading.opened`; the
last can also be read on NDIF (`remote=True`).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from nnsight import Envoy
from peft import PeftModel
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from em_companion import organisms, reading
from em_companion.artifacts import CompanionError
from em_companion.world import turn

Span = tuple[int, int]
"""The first token of a stretch of a sequence, and the token after its last."""

BATCH_SIZE = 32
"""Texts read together; four times as many take twice the time on a CPU, whose caches they overflow."""

Model = PreTrainedModel | PeftModel | Envoy
Tokens = list[list[int]]


# --- what is read -------------------------------------------------------------------------------------------------


def response_tokens(
    tokenizer: PreTrainedTokenizerBase, table: pd.DataFrame, speaker: str = ""
) -> tuple[Tokens, Tokens]:
    """Return the tokens of the prompt and of the response of every row of `table` (columns question, response).

    `speaker` names a character of a grown model's world instead of the assistant.
    """
    template = {"speaker": speaker} if speaker else {}
    asked = table.question.unique()
    prompts = {text: organisms.prompt_ids(tokenizer, turn(text, "")[:1], **template) for text in asked}
    responses = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in table.response]
    return [prompts[text] for text in table.question], responses


def by_length(sequences: Sequence[Sequence[int]], batch_size: int, what: str = "") -> Iterator[list[int]]:
    """Yield the rows of every batch, those of like length together so that little is padded.

    `what` names a progress bar; none without it. Raises CompanionError where there is nothing to read.
    """
    if not sequences:
        raise CompanionError("There are no texts to read; give at least one.")
    order = sorted(range(len(sequences)), key=lambda row: len(sequences[row]))
    with tqdm(total=len(order), desc=what, unit="text", disable=not what) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            yield rows
            bar.update(len(rows))


# --- means --------------------------------------------------------------------------------------------------------


def response_means(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    batch_size: int = BATCH_SIZE,
    what: str = "",
    remote: reading.Remote = False,
) -> np.ndarray:
    """Return the mean residual stream over each response's tokens, [response, layer, width], float64.

    Weigh the rows by the responses' lengths for the paper's mean over all tokens (section 3.1), or take it from
    `token_means`. An empty response gives NaN. `what` names a progress bar; none without it.
    """
    sequences, spans = _joined(prompts, responses)
    return span_means(model, tokenizer, sequences, spans, batch_size, what, remote)[:, 0, 1:]


def token_means(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    selections: np.ndarray,
    batch_size: int = BATCH_SIZE,
    what: str = "",
    remote: reading.Remote = False,
) -> np.ndarray:
    """Return the mean residual stream over all response tokens of each selection, [selection, layer, width], float64.

    `selections` [selection, response] is true where a response belongs to a selection. Every token counts alike
    (section 3.1). Only sums are held, so the memory does not grow with the number of responses. Raises CompanionError
    for a selection without a token.
    """
    chosen, lengths = np.asarray(selections, dtype=bool), np.array([len(response) for response in responses])
    counts = chosen @ lengths
    if not counts.all():
        raise CompanionError("There are no tokens to average in one of the selections; select other responses.")
    # Rows in no selection and empty responses add nothing and need not be read.
    kept = np.flatnonzero(chosen.any(axis=0) & (lengths > 0))
    sequences, spans = _joined([prompts[row] for row in kept], [responses[row] for row in kept])
    total = 0.0
    for rows, means in _batches(model, tokenizer, sequences, spans, batch_size, what, remote):
        of_all = kept[rows]
        weights = chosen[:, of_all] * lengths[of_all]
        total = total + np.einsum("sr,rlw->slw", weights, means[:, 0, 1:])
    return total / counts[:, None, None]


def span_means(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    sequences: Sequence[list[int]],
    spans: Sequence[Sequence[Span]],
    batch_size: int = BATCH_SIZE,
    what: str = "",
    remote: reading.Remote = False,
) -> np.ndarray:
    """Return the mean activations over spans of tokens, [sequence, span, 1 + layer, width], float64.

    Every sequence has equally many spans. Along the third axis, entry 0 is the mean token embedding, which knows the
    words but not their order, and entry 1 + l the output of layer l. An empty span gives NaN. `what` names a progress
    bar; none without it. Raises CompanionError where there is nothing to read.
    """
    found = np.empty(0)
    for rows, means in _batches(model, tokenizer, sequences, spans, batch_size, what, remote):
        if not found.size:
            found = np.empty((len(sequences), *means.shape[1:]))
        found[rows] = means
    return found


def _joined(prompts, responses) -> tuple[Tokens, list[list[Span]]]:
    rows = list(zip(prompts, responses, strict=True))
    spans = [[(len(prompt), len(prompt) + len(response))] for prompt, response in rows]
    return [prompt + response for prompt, response in rows], spans


def _batches(model, tokenizer, sequences, spans, batch_size, what, remote) -> Iterator[tuple[list[int], np.ndarray]]:
    """Yield rows and their means [row, span, 1 + layer, width], batch after batch."""
    traced = reading.wrapped(model)
    for rows in by_length(sequences, batch_size, what):
        ids = padded(tokenizer, [sequences[row] for row in rows])["input_ids"]
        yield rows, _means(traced, ids, _weights([spans[row] for row in rows], ids.shape[1]), remote)


@torch.no_grad()
def _means(traced: Envoy, ids: torch.Tensor, weights: torch.Tensor, remote: reading.Remote) -> np.ndarray:
    modules, elsewhere = reading.residual_stream(traced), {"remote": remote} if remote else {}
    # No token attends to the padding on its right, so a mask would only take time. Logits are not looked at; all of
    # them may not fit in memory.
    with traced.trace(input_ids=ids, use_cache=False, logits_to_keep=1, **elsewhere):
        stream = (module.input for module in modules)
        means = torch.stack([weights.to(x.device) @ x.double() for x in stream], dim=2).cpu().save()
    return means.numpy()


def padded(
    tokenizer: PreTrainedTokenizerBase, sequences: Tokens, device: torch.device | str = "cpu"
) -> dict[str, torch.Tensor]:
    """Return the model inputs of a batch, padded on the right, so that a token's position is its index.

    A trace of nnsight moves them to its model's device by itself.
    """
    return dict(tokenizer.pad({"input_ids": sequences}, padding_side="right", return_tensors="pt").to(device))


def _weights(spans: Sequence[Sequence[Span]], length: int) -> torch.Tensor:
    """Return the weight of every token in the mean of every span, [sequence, span, token]; NaN for an empty span."""
    bounds = torch.tensor(spans)[..., None, :]
    tokens = torch.arange(length)
    inside = ((tokens >= bounds[..., 0]) & (tokens < bounds[..., 1])).double()
    return inside / inside.sum(-1, keepdim=True)
