"""Every part of a model as a node: what it adds to the residual stream, and a run in which nodes are as in another run.

Nodes are the token embedding, every attention head and every MLP with the adapter in it, in the order of the forward
pass. What they add sums to what the final normalisation reads. With that normalisation taken as it was, every logit is
a sum over nodes, too (direct attribution). Texts are read without padding, so those of a batch are equally long.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from em_companion.core.errors import CompanionError
from em_companion.models import lora

EMBEDDING, MLP = "embedding", "MLP"
Each = Callable[[], torch.Tensor]
"""Gets what every node of a module adds, [node, row, token, width]."""


class Node(NamedTuple):
    """One part of a model: its layer, counted from 0 (which reads the embedding), and what it is there."""

    layer: int
    part: str


def nodes(model: PreTrainedModel) -> list[Node]:
    """Return the nodes of a model in the order of its forward pass."""
    parts = [*(f"head {head}" for head in range(model.config.num_attention_heads)), MLP]
    layers = range(len(lora.decoder(model).layers))
    return [Node(0, EMBEDDING), *(Node(layer, part) for layer in layers for part in parts)]


@contextmanager
def _at_nodes(
    model: PreTrainedModel, act: Callable[[range, Each, torch.Tensor], torch.Tensor | None]
) -> Iterator[None]:
    """Call `act` with nodes, what each adds and their sum at every module that adds to the residual stream."""
    decoder, heads = lora.decoder(model), model.config.num_attention_heads

    def by_head(module: nn.Module, given: torch.Tensor) -> torch.Tensor:
        weight = module.weight.unflatten(-1, (heads, -1))
        return torch.einsum("rthd,whd->hrtw", given.unflatten(-1, (heads, -1)), weight)

    with ExitStack() as hooks:

        def add(module: nn.Module, own: range) -> None:
            def hook(module: nn.Module, given: tuple, output: torch.Tensor) -> torch.Tensor | None:
                return act(own, lambda: by_head(module, given[0]) if len(own) > 1 else output[None], output)

            hooks.callback(module.register_forward_hook(hook).remove)

        add(model.get_input_embeddings(), range(1))
        for first, layer in zip(range(1, len(nodes(model)), heads + 1), decoder.layers, strict=True):
            if type(layer.self_attn.o_proj) is not nn.Linear:
                raise CompanionError("An adapter sits behind the heads of this model; merge it into the weights first.")
            add(layer.self_attn.o_proj, range(first, first + heads))
            add(layer.mlp, range(first + heads, first + heads + 1))
        yield


@torch.no_grad()
def outputs(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Return what every node adds to the residual stream on texts `ids` [row, token]: [node, row, token, width]."""
    found: list[torch.Tensor] = []
    with _at_nodes(model, lambda _, each, __: found.append(each())):
        lora.decoder(model)(ids, use_cache=False)
    return torch.cat(found)


@contextmanager
def patched(model: PreTrainedModel, given: torch.Tensor, chosen: Collection[int], last: int = 0) -> Iterator[None]:
    """Let the nodes `chosen`, by number, add what is `given` [node, row, token, width] in place of what they would.

    last: how many of the last tokens, 0 for all; the ends of texts are aligned.
    """
    tokens = slice(-last, None)

    def act(own: range, each: Each, output: torch.Tensor) -> torch.Tensor | None:
        taken = [node for node in own if node in chosen]
        if not taken:
            return None
        now = given[taken][:, :, tokens].sum(dim=0)
        if len(taken) < len(own):
            now = now + output[:, tokens] - each()[[node - own.start for node in taken]][:, :, tokens].sum(dim=0)
        return torch.cat([output[:, : output.shape[1] - now.shape[1]], now], dim=1)

    with _at_nodes(model, act):
        yield


@torch.no_grad()
def logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Return the logits after the last token of texts [row, token]: [row, word]."""
    return model(ids, use_cache=False, logits_to_keep=1).logits[:, -1]


@torch.no_grad()
def direct(model: PreTrainedModel, ids: torch.Tensor) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
    """Return what every node adds to the logits after the last token, [node, row, word], which sums to the logits.

    Beside it what the adapters on the down-projections add, [row, word] by layer, which is part of their MLP's.
    """
    decoder, adapters = lora.decoder(model), {}
    with ExitStack() as hooks:
        for layer, block in enumerate(decoder.layers):
            if isinstance(module := block.mlp.down_proj, LoraLayer):

                def hook(module: LoraLayer, given: tuple, output: torch.Tensor, layer: int = layer) -> None:
                    adapters[layer] = (output - module.base_layer(given[0]))[:, -1]

                hooks.callback(module.register_forward_hook(hook).remove)
        added = outputs(model, ids)[:, :, -1]
    size = added.sum(dim=0).pow(2).mean(dim=-1, keepdim=True) + decoder.norm.variance_epsilon

    def to_logits(part: torch.Tensor) -> torch.Tensor:
        return model.get_output_embeddings()(decoder.norm.weight * part * size.rsqrt())

    return to_logits(added), {layer: to_logits(part) for layer, part in adapters.items()}
