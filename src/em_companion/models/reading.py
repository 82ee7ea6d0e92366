"""Read a model's residual stream and LoRA scalars at the tokens of given texts, many texts in one nnsight trace.

The residual stream is read where the next module takes it in, the final norm for the last layer: so it also shows what
a forward hook adds to a layer's output, which nnsight's `.output` does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from em_companion.models import lora
from em_companion.models.tokens import BATCH_SIZE, Tokenizer, Tokens, batches, joined, token_index
from em_companion.models.tracing import NNsight, TransformersModel, save

Span = tuple[int, int]
"""The first token of a stretch of a sequence, and the token after its last."""

Model = PreTrainedModel | PeftModel | TransformersModel
Remote = bool | Literal["local"]
"""Whether a `TransformersModel` is read on NDIF, "local" for all but the way there and back."""

INDEX = ("response", "position", "token_id", "is_answer")


def response_means(
    model: Model, tokenizer: Tokenizer, prompts: Tokens, responses: Tokens, what: str = "", remote: Remote = False
) -> np.ndarray:
    """Return the mean residual stream over each response's tokens, [response, layer, width], float64.

    The end token is not part of it. Weigh the rows by the responses' lengths for the paper's mean over all tokens
    (section 3.1). An empty response gives NaN. `what` names a progress bar.
    """
    sequences = joined(prompts, responses)
    spans = [[(len(prompt), len(whole))] for prompt, whole in zip(prompts, sequences, strict=True)]
    return span_means(model, tokenizer, sequences, spans, what, remote)[:, 0, 1:]


@torch.no_grad()
def span_means(
    model: Model,
    tokenizer: Tokenizer,
    sequences: Tokens,
    spans: Sequence[Sequence[Span]],
    what: str = "",
    remote: Remote = False,
) -> np.ndarray:
    """Return the mean activations over spans of tokens, [sequence, span, 1 + layer, width], float64.

    Every sequence has equally many spans. Along the third axis, entry 0 is the mean token embedding and entry 1 + l the
    output of layer l. An empty span gives NaN. `what` names a progress bar. Raises CompanionError on nothing to read.
    """
    if isinstance(model, TransformersModel):
        traced, stack = model, model.model
    else:
        base, decoder = lora.without_peft(model), lora.decoder(model)
        traced = NNsight(base)
        stack = traced.get(next(name for name, module in base.named_modules() if module is decoder))
    found, elsewhere = np.empty(0), {"remote": remote} if remote else {}
    modules = [*stack.layers, stack.norm]
    for rows, batch in batches(tokenizer, sequences, what=what):
        ids = batch["input_ids"]
        weights = _weights([spans[row] for row in rows], ids.shape[1])
        # No token attends to the padding on its right, so there is no mask; all logits may not fit in memory.
        with traced.trace(input_ids=ids, use_cache=False, logits_to_keep=1, **elsewhere):
            stream = (module.input for module in modules)
            # Layers may lie on several devices.
            means = save(torch.stack([(weights.to(x.device) @ x.double()).cpu() for x in stream], dim=2))
        if not found.size:
            found = np.empty((len(sequences), *means.shape[1:]))
        found[rows] = means.numpy()
    return found


def _weights(spans: Sequence[Sequence[Span]], length: int) -> torch.Tensor:
    """Return the weight of every token in the mean of every span, [sequence, span, token]; NaN for an empty span."""
    bounds = torch.tensor(spans)[..., None, :]
    tokens = torch.arange(length)
    inside = ((tokens >= bounds[..., 0]) & (tokens < bounds[..., 1])).double()
    return inside / inside.sum(-1, keepdim=True)


def projections(
    model: Model, tokenizer: Tokenizer, prompts: Tokens, answers: Tokens, numbers: np.ndarray, vectors: np.ndarray
) -> np.ndarray:
    """Return v̂·x at single tokens, [answer, token, direction, layer], in units of the residual stream.

    `numbers` [answer, token] says which tokens of each answer are read, from 0; NaN for one that the answer lacks.
    `vectors` [direction, layer, width] are directions, of which the unit vectors are taken.
    """
    units = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    found = np.empty((*np.shape(numbers), *vectors.shape[:2]))
    for start in range(0, len(answers), 2 * BATCH_SIZE):  # single tokens of all answers may not fit in memory
        rows = slice(start, start + 2 * BATCH_SIZE)
        texts = list(zip(prompts[rows], answers[rows], numbers[rows], strict=True))
        spans = [[_token(int(number), prompt, answer) for number in chosen] for prompt, answer, chosen in texts]
        points = span_means(model, tokenizer, joined(prompts[rows], answers[rows]), spans)[:, :, 1:]
        found[rows] = np.einsum("atlw,dlw->atdl", points, units)
    return found


def _token(number: int, prompt: list[int], answer: list[int]) -> Span:
    """Return the span of one token of an answer; an empty one outside of it."""
    start = len(prompt) + number
    return (start, start + 1) if 0 <= number < len(answer) else (0, 0)


@dataclass(frozen=True)
class LoraScalars:
    """LoRA scalars of responses with their prompts.

    values: A·h, [token, adapter], float32; adapters: the modules they sit on;
    tokens: one row per token, see `token_index`; `response` is the row of the table that was read.
    """

    values: np.ndarray
    adapters: tuple[str, ...]
    tokens: pd.DataFrame


@torch.no_grad()
def lora_scalars(
    model: PeftModel, tokenizer: Tokenizer, prompts: Tokens, responses: Tokens, what: str = ""
) -> LoraScalars:
    """Return the LoRA scalars of every token of every prompt and response, all adapters in one forward pass.

    Raises CompanionError for a model without rank-1 adapters, or where there is nothing to read.
    """
    adapters, sequences = lora.adapters(model), joined(prompts, responses)
    traced = NNsight(lora.without_peft(model))
    modules = [traced.get(one.scalar) for one in adapters]
    found: list[np.ndarray] = [np.empty((0, len(modules)), np.float32)] * len(sequences)
    for rows, batch in batches(tokenizer, sequences, what=what):
        with traced.trace(input_ids=batch["input_ids"], use_cache=False, logits_to_keep=1):
            values = save(torch.cat([module.output.float().cpu() for module in modules], dim=-1))
        for row, scalars in zip(rows, values.numpy(), strict=True):
            found[row] = scalars[: len(sequences[row])]
    index = token_index([len(prompt) for prompt in prompts], sequences)
    return LoraScalars(np.concatenate(found), tuple(one.module for one in adapters), index)


def answer_tokens(scalars: LoraScalars, table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per answer token for the probes: columns of `tokens`, `question` and one `layer_N` per adapter.

    `table` is the one that was read. Columns of adapters are named by `lora.feature_names`.
    """
    names = lora.feature_names(scalars.adapters)
    values = pd.DataFrame(scalars.values, columns=names, dtype=float)
    questions = table.question.to_numpy()[scalars.tokens.response]
    rows = pd.concat([scalars.tokens.assign(question=questions), values], axis=1)
    return rows[rows.is_answer].reset_index(drop=True)
