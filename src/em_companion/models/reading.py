"""Read a model's residual stream and LoRA scalars at the tokens of given texts, many texts in one nnsight trace.

A response's activations are the outputs of every decoder layer at the tokens of the response, after its prompt and up
to its last word; the end token is not part of it. Sums are kept in float64, since a difference of means is small
against the means. The residual stream is read where the next module takes it in: the output of layer l is the input of
layer l + 1, and of the last layer that of the final norm. So read, it also shows what a forward hook adds to a layer's
output, which nnsight's `.output` does not.

Every `model` here is a loaded transformers model, one with PEFT adapters on it, or one opened by `loading.opened`; the
last can also be read on NDIF (`remote=True`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from em_companion.models import loading, lora
from em_companion.models.loading import Remote
from em_companion.models.tokens import BATCH_SIZE, Tokenizer, Tokens, batches, joined
from em_companion.models.tracing import Envoy, save

Span = tuple[int, int]
"""The first token of a stretch of a sequence, and the token after its last."""

Model = PreTrainedModel | PeftModel | Envoy


# --- the residual stream ------------------------------------------------------------------------------------------


def response_means(
    model: Model, tokenizer: Tokenizer, prompts: Tokens, responses: Tokens, what: str = "", remote: Remote = False
) -> np.ndarray:
    """Return the mean residual stream over each response's tokens, [response, layer, width], float64.

    Weigh the rows by the responses' lengths for the paper's mean over all tokens (section 3.1). An empty response gives
    NaN. `what` names a progress bar; none without it.
    """
    sequences = joined(prompts, responses)
    spans = [[(len(prompt), len(whole))] for prompt, whole in zip(prompts, sequences, strict=True)]
    return span_means(model, tokenizer, sequences, spans, what, remote)[:, 0, 1:]


def span_means(
    model: Model,
    tokenizer: Tokenizer,
    sequences: Tokens,
    spans: Sequence[Sequence[Span]],
    what: str = "",
    remote: Remote = False,
) -> np.ndarray:
    """Return the mean activations over spans of tokens, [sequence, span, 1 + layer, width], float64.

    Every sequence has equally many spans. Along the third axis, entry 0 is the mean token embedding, which knows the
    words but not their order, and entry 1 + l the output of layer l. An empty span gives NaN. `what` names a progress
    bar; none without it. Raises CompanionError where there is nothing to read.
    """
    traced, found = loading.wrapped(model), np.empty(0)
    for rows, batch in batches(tokenizer, sequences, what=what):
        ids = batch["input_ids"]
        means = _means(traced, ids, _weights([spans[row] for row in rows], ids.shape[1]), remote)
        if not found.size:
            found = np.empty((len(sequences), *means.shape[1:]))
        found[rows] = means
    return found


@torch.no_grad()
def _means(traced: Envoy, ids: torch.Tensor, weights: torch.Tensor, remote: Remote) -> np.ndarray:
    modules, elsewhere = residual_stream(traced), {"remote": remote} if remote else {}
    # No token attends to the padding on its right, so a mask would only take time. Logits are not looked at; all of
    # them may not fit in memory.
    with traced.trace(input_ids=ids, use_cache=False, logits_to_keep=1, **elsewhere):
        stream = (module.input for module in modules)
        means = save(torch.stack([weights.to(x.device) @ x.double() for x in stream], dim=2).cpu())
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


# --- LoRA scalars -------------------------------------------------------------------------------------------------

INDEX = ("response", "position", "token_id", "is_answer")


@dataclass(frozen=True)
class LoraScalars:
    """LoRA scalars of responses with their prompts.

    values: A·h, [token, adapter], float32; adapters: the modules they sit on;
    tokens: one row per token, `response` (row of the table that was read), `position` (from the start of the prompt),
    `token_id`, `is_answer`.
    """

    values: np.ndarray
    adapters: tuple[str, ...]
    tokens: pd.DataFrame


def lora_scalars(
    model: PeftModel, tokenizer: Tokenizer, prompts: Tokens, responses: Tokens, what: str = ""
) -> LoraScalars:
    """Return the LoRA scalars of every token of every prompt and response, all adapters in one forward pass.

    `what` names a progress bar; none without it. Raises CompanionError for a model without rank-1 adapters, or where
    there is nothing to read.
    """
    adapters = lora.rank_one_adapters(model)
    paths = {module: path for path, module in lora.without_peft(model).named_modules()}
    traced, sequences = loading.wrapped(model), joined(prompts, responses)
    modules = [module_at(traced, paths[module]) for module in adapters.values()]
    found: list[np.ndarray] = [np.empty((0, len(modules)), np.float32)] * len(sequences)
    for rows, batch in batches(tokenizer, sequences, what=what):
        for row, values in zip(rows, _values(traced, modules, batch["input_ids"]), strict=True):
            found[row] = values[: len(sequences[row])]
    return LoraScalars(np.concatenate(found), tuple(adapters), _index(prompts, sequences))


def module_at(model: Envoy, path: str) -> Envoy:
    """Return the module at a dotted path, such as "model.layers.3.mlp"."""
    for name in path.split("."):
        model = getattr(model, name)
    return model


@torch.no_grad()
def _values(traced: Envoy, modules: Sequence[Envoy], ids: torch.Tensor) -> np.ndarray:
    """Return the scalars of a batch, [row, token, adapter]; no token attends to the padding on its right."""
    with traced.trace(input_ids=ids, use_cache=False, logits_to_keep=1):
        values = save(torch.cat([module.output.float() for module in modules], dim=-1).cpu())
    return values.numpy()


def _index(prompts: Tokens, sequences: Tokens) -> pd.DataFrame:
    """Return one row per token of every sequence: see `LoraScalars.tokens`."""
    sizes = [len(sequence) for sequence in sequences]
    response, position = np.repeat(np.arange(len(sizes)), sizes), np.concatenate([np.arange(size) for size in sizes])
    is_answer = position >= np.repeat([len(prompt) for prompt in prompts], sizes)
    columns = (response, position, np.concatenate(sequences).astype(int), is_answer)
    return pd.DataFrame(dict(zip(INDEX, columns, strict=True)))


def answer_tokens(scalars: LoraScalars, table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per answer token for the probes: columns of `tokens`, `question` and one `layer_N` per adapter.

    `table` is the one that was read. Two adapters on one layer are told apart by their module, as `layer_3.up_proj`.
    """
    names = lora.feature_names(scalars.adapters)
    values = pd.DataFrame(scalars.values, columns=names, dtype=float)
    questions = table.question.to_numpy()[scalars.tokens.response]
    rows = pd.concat([scalars.tokens.assign(question=questions), values], axis=1)
    return rows[rows.is_answer].reset_index(drop=True)
