"""Change what a model computes: steer, ablate or cap a direction in its residual stream, scale or patch LoRA scalars.

An intervention is a small frozen value with its equation in its docstring; `models.hooks` puts it on a model.

Layer l means the output of decoder layer l, counted from 0, and "embedding" the token embeddings that layer 0 reads.
What acts on one module acts in the order given. `at` says on which tokens:

- "all": every token, read or written;
- "prompt": the tokens of the prompt, and "header": its last two, where a turn says who speaks;
- "generated": the tokens of the response.

What comes before the first token of a key-value cache is the prompt, so "generated" needs generation with a cache, and
"header" needs prompts without padding on their right.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch

from em_companion.core.errors import CompanionError
from em_companion.core.files import sha256_of

Where = Literal["all", "prompt", "header", "generated"]
Layer = int | Literal["embedding"]

HEADER_TOKENS = 2
"""Tokens of a turn header that a grown model reads last before it answers: the speaker's name and the colon."""


# --- interventions --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Steer:
    """x + strength * vector at the output of one layer (section 3.2). `vector` [width]."""

    layer: Layer
    vector: torch.Tensor
    strength: float = 1.0
    at: Where = "all"

    def changes(self, adapters: Sequence[str]) -> Iterator["Change"]:
        yield Change(self.layer, self.at, _add, (self.strength * _float64(self.vector),))


@dataclass(frozen=True, eq=False)
class Ablate:
    """x - v̂ v̂ᵀ x at the output of every given layer (section 3.4), v̂ the unit vector of `vectors[layer]` [width].

    One direction at all layers is the paper's single-direction ablation, each layer's own its layer-wise ablation.
    """

    vectors: Mapping[Layer, torch.Tensor]
    at: Where = "all"

    def changes(self, adapters: Sequence[str]) -> Iterator["Change"]:
        for layer, vector in self.vectors.items():
            yield Change(layer, self.at, _project_out, (_unit(vector, layer),))


@dataclass(frozen=True, eq=False)
class Cap:
    """x - v̂ max(v̂ᵀx - ceiling, 0) at the output of one layer: the part along v̂ is never more than `ceiling`.

    v̂ is the unit vector of `vector` [width]; `ceiling` is in the units of the residual stream.
    """

    layer: Layer
    vector: torch.Tensor
    ceiling: float
    at: Where = "all"

    def changes(self, adapters: Sequence[str]) -> Iterator["Change"]:
        yield Change(self.layer, self.at, _cap, (_unit(self.vector, self.layer), _float64([self.ceiling])))


@dataclass(frozen=True, eq=False)
class ScaleLoraScalars:
    """factor * (A·h) in place of the LoRA scalar A·h of rank-1 adapters (section 4.3).

    `factors` gives every named adapter its own, or all of them one: 1 leaves it, 0 switches it off, -2 reverses and
    doubles it.
    """

    factors: Mapping[str, float] | float
    at: Where = "all"

    def changes(self, adapters: Sequence[str]) -> Iterator["Change"]:
        factors = self.factors if isinstance(self.factors, Mapping) else dict.fromkeys(adapters, self.factors)
        for adapter, factor in factors.items():
            yield Change(adapter, self.at, _scale, (_float64([factor]),))


@dataclass(frozen=True, eq=False)
class PatchLoraScalars:
    """scalars[adapter, position] in place of the LoRA scalar A·h, counted from the prompt's first token (appendix J).

    `scalars` [adapter, position] are values before the scale of the adapter; tokens beyond the last position keep
    their own. `adapters` names the rows; without it they are all the rank-1 adapters of the model in their order.
    """

    scalars: torch.Tensor
    adapters: Sequence[str] | None = None
    at: Where = "all"

    def changes(self, adapters: Sequence[str]) -> Iterator["Change"]:
        names, scalars = self.adapters or adapters, _float64(self.scalars)
        if scalars.ndim != 2 or len(scalars) != len(names):
            shape = list(scalars.shape)
            raise CompanionError(f"LoRA scalars to patch must be [adapter, position], {len(names)} rows; got {shape}.")
        for adapter, values in zip(names, scalars, strict=True):
            yield Change(adapter, self.at, _patch, (values,))


Intervention = Steer | Ablate | Cap | ScaleLoraScalars | PatchLoraScalars


def describe(intervention: Intervention) -> dict[str, Any]:
    """Return what tells an intervention from others, fit for JSON; a tensor by its shape and the sha256 of its bytes.

    Tensors are read as float64, so that precision alone makes no difference.
    """
    named = {one.name: _described(getattr(intervention, one.name)) for one in fields(intervention)}
    return {"intervention": type(intervention).__name__} | named


def _described(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _described(one) for key, one in value.items()}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | int | float):
        return value
    if all(isinstance(one, str) for one in value):
        return list(value)
    tensor = _float64(value)
    return {"shape": list(tensor.shape), "sha256": sha256_of(tensor.contiguous().numpy().tobytes())}


# --- what they do to an activation ----------------------------------------------------------------------------------
# x [row, token, width], position [row or 1, token] from the prompt's first token, the rest [row or 1, 1, numbers].


def _add(x: torch.Tensor, position: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    return x + vector


def _project_out(x: torch.Tensor, position: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    return x - _along(x, unit) * unit


def _cap(x: torch.Tensor, position: torch.Tensor, unit: torch.Tensor, ceiling: torch.Tensor) -> torch.Tensor:
    return x - (_along(x, unit) - ceiling).clamp(min=0) * unit


def _along(x: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    return (x * unit).sum(dim=-1, keepdim=True)


def _scale(x: torch.Tensor, position: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return factor * x


def _patch(x: torch.Tensor, position: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    values, position = values[:, 0].expand(len(x), -1), position.expand(len(x), -1)
    given = values.gather(1, position.clamp(max=values.shape[1] - 1))
    kept = (position >= values.shape[1]) | given.isnan()  # shorter patches of other rows are filled up with NaN
    return torch.where(kept[..., None], x, given[..., None])


def _float64(values: Any) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64).detach().cpu()


def _unit(vector: torch.Tensor, layer: Layer) -> torch.Tensor:
    vector = _float64(vector)
    length = vector.norm()
    if length == 0:
        raise CompanionError(f"The vector for {place(layer)} is zero, so it has no direction to take out.")
    return vector / length


# --- one batch, every row its own -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """What an intervention does at one module: `function` of its output, with `numbers`, each a tensor [numbers]."""

    site: Layer | str
    at: Where
    function: Callable[..., torch.Tensor]
    numbers: tuple[torch.Tensor, ...]


def place(site: Layer | str) -> str:
    """Return a module as a sentence names it."""
    return f"'{site}'" if isinstance(site, str) else f"layer {site}"
