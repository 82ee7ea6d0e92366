"""Steer along a direction, or ablate it, in the residual stream of a model: at layer outputs, at every position.

An intervention is a small value; `applied` puts some on a model for the length of a `with` block and leaves the model
as it was, also after an exception. Layer l means the output of decoder layer l, counted from 0.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from em_companion.artifacts import CompanionError


@dataclass(frozen=True)
class Steer:
    """x + strength * vector at the output of one layer, at every position (section 3.2). `vector` [width].

    With `header_tokens`, only at that many last tokens of the prompt, where a turn says who speaks. This needs prompts
    padded on the left and a key-value cache, as `sampling.generate` has them.
    """

    layer: int
    vector: torch.Tensor
    strength: float = 1.0
    header_tokens: int | None = None

    def hooks(self) -> dict[int, Callable[[torch.Tensor], torch.Tensor]]:
        return {self.layer: self._add}

    def _add(self, x: torch.Tensor) -> torch.Tensor:
        change = (self.strength * self.vector).to(x)
        if self.header_tokens is None:
            return x + change
        if x.shape[1] == 1:
            return x
        return torch.cat([x[:, : -self.header_tokens], x[:, -self.header_tokens :] + change], dim=1)


@dataclass(frozen=True)
class Ablate:
    """x - v̂ v̂ᵀ x at the output of every given layer (section 3.4), v̂ the unit vector of `vectors[layer]` [width].

    One direction at all layers is the paper's single-direction ablation, each layer's own its layer-wise ablation.
    """

    vectors: dict[int, torch.Tensor]

    def hooks(self) -> dict[int, Callable[[torch.Tensor], torch.Tensor]]:
        units = {layer: vector / vector.norm() for layer, vector in self.vectors.items()}
        return {layer: lambda x, unit=unit: _project_out(x, unit.to(x)) for layer, unit in units.items()}


Intervention = Steer | Ablate


def _project_out(x: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    return x - (x @ unit)[..., None] * unit


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """Return the decoder layers of a model, with or without adapters on it."""
    return next(module for name, module in model.named_modules() if name.split(".")[-1] == "layers")


@contextmanager
def applied(model: PreTrainedModel, interventions: Iterable[Intervention]) -> Iterator[None]:
    """Apply interventions, in their order, within the block; raise CompanionError for a layer the model lacks."""
    layers = decoder_layers(model)
    with ExitStack() as stack:
        for intervention in interventions:
            for layer, change in intervention.hooks().items():
                if not 0 <= layer < len(layers):
                    raise CompanionError(f"There is no layer {layer}; the model has {len(layers)} (from 0).")
                handle = layers[layer].register_forward_hook(lambda _, __, output, change=change: change(output))
                stack.callback(handle.remove)
        yield
