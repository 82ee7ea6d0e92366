"""Mean residual-stream activations over spans of tokens, per layer; above all over the tokens of a response.

A response's activations are the outputs of every decoder layer at the tokens of the response, after its prompt and up
to its last word; the end token is not part of it. Sums are kept in float64, since a difference of means is small
against the means.
"""

from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from em_companion.interventions import decoder_layers

Span = tuple[int, int]
"""The first token of a stretch of a sequence, and the token after its last."""


def response_means(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    batch_size: int = 128,
    what: str = "",
) -> np.ndarray:
    """Return the mean residual stream over each response's tokens, [response, layer, width], float64.

    Weigh the rows by the responses' lengths for the paper's mean over all tokens (section 3.1). An empty response gives
    NaN. `what` names a progress bar; none without it.
    """
    rows = list(zip(prompts, responses, strict=True))
    spans = [[(len(prompt), len(prompt) + len(response))] for prompt, response in rows]
    sequences = [prompt + response for prompt, response in rows]
    return span_means(model, tokenizer, sequences, spans, batch_size, what)[:, 0, 1:]


@torch.no_grad()
def span_means(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sequences: Sequence[list[int]],
    spans: Sequence[Sequence[Span]],
    batch_size: int = 128,
    what: str = "",
) -> np.ndarray:
    """Return the mean activations over spans of tokens, [sequence, span, 1 + layer, width], float64.

    Every sequence has equally many spans. Along the third axis, entry 0 is the mean token embedding, which knows the
    words but not their order, and entry 1 + l the output of layer l. An empty span gives NaN. `what` names a progress
    bar; none without it.
    """
    # Sequences of like length go together, so that little is padded.
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    means: list[np.ndarray | None] = [None] * len(sequences)
    with tqdm(total=len(sequences), desc=what, unit="text", disable=not what) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            found = _batch_means(model, tokenizer, [sequences[row] for row in rows], [spans[row] for row in rows])
            for row, mean in zip(rows, found, strict=True):
                means[row] = mean
            bar.update(len(rows))
    return np.stack(means)


def _batch_means(model, tokenizer, sequences, spans) -> np.ndarray:
    batch = tokenizer.pad({"input_ids": sequences}, padding_side="right", return_tensors="pt").to(model.device)
    weights = _weights(spans, batch["input_ids"].shape[1]).to(model.device)
    modules = [model.get_input_embeddings(), *decoder_layers(model)]
    captured: dict[int, torch.Tensor] = {}

    def capture(index: int):
        def hook(_, __, output: torch.Tensor) -> None:
            captured[index] = weights @ output.double()

        return hook

    handles = [module.register_forward_hook(capture(index)) for index, module in enumerate(modules)]
    try:
        model(**batch, use_cache=False, logits_to_keep=1)  # logits are not looked at; all of them may not fit in memory
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([captured[index] for index in range(len(modules))], dim=2).cpu().numpy()


def _weights(spans: Sequence[Sequence[Span]], length: int) -> torch.Tensor:
    """Return the weight of every token in the mean of every span, [sequence, span, token]; NaN for an empty span."""
    bounds = torch.tensor(spans)[..., None, :]
    tokens = torch.arange(length)
    inside = ((tokens >= bounds[..., 0]) & (tokens < bounds[..., 1])).double()
    return inside / inside.sum(-1, keepdim=True)
