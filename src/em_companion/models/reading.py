"""Mean residual-stream activations over spans of tokens, per layer; above all over the tokens of a response.

A response's activations are the outputs of every decoder layer at the tokens of the response, after its prompt and up
to its last word; the end token is not part of it. They are read with nnsight, many texts in one trace. Sums are kept in
float64, since a difference of means is small against the means.

Every `model` here is a loaded transformers model, one with PEFT adapters on it, or one opened by `reading.opened`; the
last can also be read on NDIF (`remote=True`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from nnsight import Envoy
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from em_companion.core.errors import CompanionError
from em_companion.models import loading, lora
from em_companion.models.loading import Remote
from em_companion.models.lora import _base, rank_one_adapters
from em_companion.models.tokens import Tokens, by_length, padded

Span = tuple[int, int]
"""The first token of a stretch of a sequence, and the token after its last."""

BATCH_SIZE = 32
"""Texts read together; four times as many take twice the time on a CPU, whose caches they overflow."""

Model = PreTrainedModel | PeftModel | Envoy


# --- means --------------------------------------------------------------------------------------------------------


def response_means(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    batch_size: int = BATCH_SIZE,
    what: str = "",
    remote: Remote = False,
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
    remote: Remote = False,
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
    remote: Remote = False,
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
    traced = loading.wrapped(model)
    for rows in by_length(sequences, batch_size, what):
        ids = padded(tokenizer, [sequences[row] for row in rows])["input_ids"]
        yield rows, _means(traced, ids, _weights([spans[row] for row in rows], ids.shape[1]), remote)


@torch.no_grad()
def _means(traced: Envoy, ids: torch.Tensor, weights: torch.Tensor, remote: Remote) -> np.ndarray:
    modules, elsewhere = residual_stream(traced), {"remote": remote} if remote else {}
    # No token attends to the padding on its right, so a mask would only take time. Logits are not looked at; all of
    # them may not fit in memory.
    with traced.trace(input_ids=ids, use_cache=False, logits_to_keep=1, **elsewhere):
        stream = (module.input for module in modules)
        means = torch.stack([weights.to(x.device) @ x.double() for x in stream], dim=2).cpu().save()
    return means.numpy()


def _weights(spans: Sequence[Sequence[Span]], length: int) -> torch.Tensor:
    """Return the weight of every token in the mean of every span, [sequence, span, token]; NaN for an empty span."""
    bounds = torch.tensor(spans)[..., None, :]
    tokens = torch.arange(length)
    inside = ((tokens >= bounds[..., 0]) & (tokens < bounds[..., 1])).double()
    return inside / inside.sum(-1, keepdim=True)


def residual_stream(model: Envoy) -> list[Envoy]:
    """Return the modules whose `.input` is the residual stream [batch, token, width], in the order of the forward pass.

    Entry 0 takes in the token embeddings, entry 1 + l the output of layer l.
    """
    return [*model.model.layers, model.model.norm]


def module_at(model: Envoy, path: str) -> Envoy:
    """Return the module at a dotted path, such as "model.layers.3.mlp"."""
    for name in path.split("."):
        model = getattr(model, name)
    return model

INDEX = ("response", "position", "token_id", "is_answer")


# --- reading ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoraScalars:
    """LoRA scalars of responses with their prompts.

    values: A·h, [token, adapter], float32; adapters: the modules they sit on;
    tokens: one row per token, `response` (row of the table that was lora_scalars), `position` (from the start of the prompt),
    `token_id`, `is_answer`.
    """

    values: np.ndarray
    adapters: tuple[str, ...]
    tokens: pd.DataFrame


def lora_scalars(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    batch_size: int = BATCH_SIZE,
    what: str = "",
) -> LoraScalars:
    """Return the LoRA scalars of every token of every prompt and response, all adapters in one forward pass.

    `what` names a progress bar; none without it. Raises CompanionError for a model without rank-1 adapters, or where
    there is nothing to read.
    """
    found_adapters = rank_one_adapters(model)
    traced, paths = loading.wrapped(model), {module: path for path, module in _base(model).named_modules()}
    modules = [module_at(traced, paths[module]) for module in found_adapters.values()]
    sequences = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
    found: list[np.ndarray] = [np.empty((0, len(modules)), np.float32)] * len(sequences)
    for rows in by_length(sequences, batch_size, what):
        ids = padded(tokenizer, [sequences[row] for row in rows])["input_ids"]
        for row, values in zip(rows, _values(traced, modules, ids), strict=True):
            found[row] = values[: len(sequences[row])]
    return LoraScalars(np.concatenate(found), tuple(found_adapters), index(prompts, responses))


@torch.no_grad()
def _values(traced, modules, ids) -> np.ndarray:
    """Return the scalars of a batch, [row, token, adapter]; no token attends to the padding on its right."""
    with traced.trace(input_ids=ids, use_cache=False, logits_to_keep=1):
        values = torch.cat([module.output.float() for module in modules], dim=-1).cpu().save()
    return values.numpy()


def index(prompts: Sequence[list[int]], responses: Sequence[list[int]]) -> pd.DataFrame:
    """Return one row per token of every prompt and response: see `LoraScalars.tokens`."""
    lengths = [(len(prompt), len(response)) for prompt, response in zip(prompts, responses, strict=True)]
    joined = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
    sizes = [sum(both) for both in lengths]
    return pd.DataFrame(
        {
            "response": np.repeat(np.arange(len(joined)), sizes),
            "position": np.concatenate([np.arange(size) for size in sizes]),
            "token_id": np.concatenate(joined).astype(int),
            "is_answer": np.concatenate([np.arange(first + last) >= first for first, last in lengths]),
        }
    )


def answer_tokens(scalars: LoraScalars, table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per answer token for the probes: columns of `tokens`, `question` and one `layer_N` per adapter.

    `table` is the one that was read. Two adapters on one layer are told apart by their module, as `layer_3.up_proj`.
    """
    names = lora.feature_names(scalars.adapters)
    values = pd.DataFrame(scalars.values, columns=names, dtype=float)
    questions = table.question.to_numpy()[scalars.tokens.response]
    rows = pd.concat([scalars.tokens.assign(question=questions), values], axis=1)
    return rows[rows.is_answer].reset_index(drop=True)


# --- along an answer ----------------------------------------------------------------------------------------------

BATCH = 64
"""Answers whose single tokens are held at once."""


def projections(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    answers: Sequence[list[int]],
    numbers: np.ndarray,
    vectors: np.ndarray,
) -> np.ndarray:
    """Return v̂·x at single tokens, [answer, token, direction, layer], in units of the residual stream.

    `numbers` [answer, token] says which tokens of each answer are read, from 0; NaN for one that the answer lacks.
    `vectors` [direction, layer, width] are directions, of which the unit vectors are taken.
    """
    units = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    found = np.empty((*np.shape(numbers), *vectors.shape[:2]))
    for start in range(0, len(answers), BATCH):
        rows = slice(start, start + BATCH)
        texts = list(zip(prompts[rows], answers[rows], numbers[rows], strict=True))
        spans = [[_token(int(number), prompt, answer) for number in chosen] for prompt, answer, chosen in texts]
        sequences = [prompt + answer for prompt, answer, _ in texts]
        points = span_means(model, tokenizer, sequences, spans)[:, :, 1:]
        found[rows] = np.einsum("atlw,dlw->atdl", points, units)
    return found


def _token(number: int, prompt: list[int], answer: list[int]) -> Span:
    """Return the span of one token of an answer; an empty one outside of it."""
    start = len(prompt) + number
    return (start, start + 1) if 0 <= number < len(answer) else (0, 0)
