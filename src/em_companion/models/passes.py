"""Forward passes over given texts under interventions: next-token probabilities and the residual stream of each.

The stream may also be put in another's place on its way, at one layer: what a reconstruction lacks is then seen in the
next token.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from transformers import PreTrainedModel

from em_companion.models import lora
from em_companion.models.interventions import Intervention, applied
from em_companion.models.tokens import Tokenizer, Tokens, batches, joined

Replace = tuple[int, Callable[[list[int], torch.Tensor], torch.Tensor]]
"""A layer, and what takes the numbers of the texts of a batch and its output [row, token, width] to what follows."""


@torch.no_grad()
def passes(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    sequences: Tokens,
    given: Sequence[Intervention] = (),
    layers: Sequence[int] = (),
    replace: Replace | None = None,
) -> Iterator[tuple[int, torch.Tensor, dict[int, torch.Tensor]]]:
    """Yield of every text its number, log-probabilities [token, word], and the streams asked for; short texts first.

    Streams are the outputs of `layers`, [token, width] by layer, before `replace`. Read all texts, or close the
    generator: interventions stay on the model until then.
    """
    decoder, stream = lora.decoder(model).layers, {}
    with ExitStack() as hooks:
        hooks.enter_context(applied(model, given))
        for layer in layers:

            def keep(_, __, output: torch.Tensor, layer: int = layer) -> None:
                stream[layer] = output.float()

            hooks.callback(decoder[layer].register_forward_hook(keep).remove)
        now: list[int] = []
        if replace:

            def put(_, __, output: torch.Tensor) -> torch.Tensor:
                return replace[1](now, output.float()).to(output.dtype)

            hooks.callback(decoder[replace[0]].register_forward_hook(put).remove)
        for rows, batch in batches(tokenizer, sequences, device=model.device):
            now[:] = rows
            said = model(**batch, use_cache=False).logits.float().log_softmax(-1)
            read = dict(stream)  # whoever reads may use the model in between
            for at, row in enumerate(rows):
                inside = slice(len(sequences[row]))
                yield row, said[at, inside], {layer: one[at, inside] for layer, one in read.items()}


def answer_streams(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    prompts: Tokens,
    answers: Tokens,
    layer: int,
    given: Sequence[Intervention] = (),
) -> list[np.ndarray]:
    """Return the output of a layer at the tokens of every answer, [token, width], float64."""
    found = {
        row: stream[layer][len(prompts[row]) :].double().cpu().numpy()
        for row, _, stream in passes(model, tokenizer, joined(prompts, answers), given, (layer,))
    }
    return [found[row] for row in range(len(found))]


def divergence(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the Kullback-Leibler divergence (nats) of log-probabilities [..., word], [...]; never below 0."""
    return (first.exp() * (first - second)).sum(-1).clamp(min=0)
