"""Change what a model computes: steer, ablate or cap a direction in its residual stream, scale or patch LoRA scalars.

Layer l means the output of decoder layer l, counted from 0, and "embedding" the token embeddings that layer 0 reads.
`applied` puts interventions on a whole model, `RowInterventions` on a batch in which every row has its own. What acts
on one module acts in the order given. An intervention acts as its equation says or is refused in one sentence before
anything is computed: also one of the wrong type, and one that does nothing or is too large in the model's precision.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from em_companion.core.errors import CompanionError
from em_companion.core.files import sha256_of
from em_companion.models import lora

Layer = int | Literal["embedding"]
Where = Literal["all", "prompt", "header", "generated"]
"""On all tokens, those of the prompt, its HEADER_TOKENS, or those of the response.

"generated" needs generation with a cache, and "header" prompts without padding on their right.
"""

HEADER_TOKENS = 2
"""Tokens of a turn header that a grown model reads last before it answers: the speaker's name and the colon."""


@dataclass(frozen=True)
class Change:
    """What an intervention does at one module: `function` of its output, with `numbers`, each a tensor [numbers]."""

    site: Layer | str
    at: Where
    function: Callable[..., torch.Tensor]
    numbers: tuple[torch.Tensor, ...]


@dataclass(frozen=True, eq=False)
class Steer:
    """x + strength * vector at the output of one layer (section 3.2). `vector` [width]."""

    layer: Layer
    vector: torch.Tensor
    strength: float = 1.0
    at: Where = "all"

    def changes(self, adapters: Sequence[str]) -> Iterator[Change]:
        vector = _float64(self.vector)
        if not vector.any():
            raise CompanionError(f"The vector for {place(self.layer)} is zero, so it steers nowhere.")
        yield Change(self.layer, self.at, _add, (_number(self.strength) * vector,))


@dataclass(frozen=True, eq=False)
class Ablate:
    """x - v̂ v̂ᵀ x at the output of every given layer (section 3.4), v̂ the unit vector of `vectors[layer]` [width].

    One direction at all layers is the paper's single-direction ablation, each layer's own its layer-wise ablation.
    """

    vectors: Mapping[Layer, torch.Tensor]
    at: Where = "all"

    def changes(self, adapters: Sequence[str]) -> Iterator[Change]:
        if not isinstance(self.vectors, Mapping) or not self.vectors:
            raise CompanionError(f"An ablation needs vectors by layer, at least one; got {shortened(self.vectors)}.")
        for layer, vector in self.vectors.items():
            yield Change(layer, self.at, _project_out, (_unit(vector, layer, "take out"),))


@dataclass(frozen=True, eq=False)
class Cap:
    """x - max(0, x·v̂ - ceiling) v̂ at the output of one layer, v̂ the unit vector of `vector` [width] (Lu et al. 2026).

    A floor f on v is a cap on -v at -f. `ceiling` is in units of the residual stream.
    """

    layer: Layer
    vector: torch.Tensor
    ceiling: float
    at: Where = "all"

    def changes(self, adapters: Sequence[str]) -> Iterator[Change]:
        yield Change(self.layer, self.at, _cap, (_unit(self.vector, self.layer, "cap"), _number(self.ceiling)[None]))


@dataclass(frozen=True, eq=False)
class ScaleLoraScalars:
    """factor * (A·h) in place of the LoRA scalar A·h of rank-1 adapters (section 4.3).

    `factors` gives every named adapter its own, or all of them one: 1 leaves it, 0 switches it off.
    """

    factors: Mapping[str, float] | float
    at: Where = "all"

    def changes(self, adapters: Sequence[str]) -> Iterator[Change]:
        factors = self.factors if isinstance(self.factors, Mapping) else dict.fromkeys(adapters, self.factors)
        if not factors:
            raise CompanionError("LoRA scalars are scaled by a factor for each of some adapters; got none.")
        for adapter, factor in factors.items():
            yield Change(adapter, self.at, _scale, (_number(factor)[None],))


@dataclass(frozen=True, eq=False)
class PatchLoraScalars:
    """scalars[adapter, position] in place of the LoRA scalar A·h, counted from the prompt's first token (appendix J).

    `scalars` are before the scale of the adapter; tokens beyond the last position keep their own. `adapters` names
    the rows, by default all rank-1 adapters of the model in their order.
    """

    scalars: torch.Tensor
    adapters: Sequence[str] | None = None
    at: Where = "all"

    def changes(self, adapters: Sequence[str]) -> Iterator[Change]:
        names, scalars = adapters if self.adapters is None else self.adapters, _float64(self.scalars)
        if isinstance(names, str) or not names:
            raise CompanionError(f"LoRA scalars are patched in a list of adapters; got {shortened(names)}.")
        if (shape := list(scalars.shape))[:1] != [len(names)] or len(shape) != 2 or not scalars.numel():
            raise CompanionError(f"LoRA scalars to patch must be [adapter, position], {len(names)} rows; got {shape}.")
        for adapter, values in zip(names, scalars, strict=True):
            yield Change(adapter, self.at, _patch, (values,))


ON_SCALARS = ScaleLoraScalars | PatchLoraScalars
Intervention = Steer | Ablate | Cap | ON_SCALARS


def describe(intervention: Intervention) -> dict[str, Any]:
    """Return what tells an intervention from others, fit for JSON; tensors by shape and sha256 of their float64."""
    named = {name: _described(value) for name, value in vars(checked([intervention])[0]).items()}
    return {"intervention": type(intervention).__name__} | named


def _described(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _described(one) for key, one in value.items()}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Sequence) and all(isinstance(one, str) for one in value):
        return list(value)
    tensor = _float64(value)
    return {"shape": list(tensor.shape), "sha256": sha256_of(tensor.contiguous().numpy().tobytes())}


# --- what they do to an activation ----------------------------------------------------------------------------------
# x [row, token, width], position [row or 1, token] from the prompt's first token, the rest [row or 1, 1, numbers].


def _add(x: torch.Tensor, position: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    return x + vector


def _project_out(x: torch.Tensor, position: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    return x - (x * unit).sum(dim=-1, keepdim=True) * unit


def _cap(x: torch.Tensor, position: torch.Tensor, unit: torch.Tensor, ceiling: torch.Tensor) -> torch.Tensor:
    return x - ((x * unit).sum(dim=-1, keepdim=True) - ceiling).clamp(min=0) * unit


def _scale(x: torch.Tensor, position: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return factor * x


def _patch(x: torch.Tensor, position: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    values, position = values[:, 0].expand(len(x), -1), position.expand(len(x), -1)
    given = values.gather(1, position.clamp(max=values.shape[1] - 1))
    kept = (position >= values.shape[1]) | given.isnan()  # shorter patches of other rows are filled up with NaN
    return torch.where(kept[..., None], x, given[..., None])


def _float64(values: Any) -> torch.Tensor:
    try:
        if "complex" in str(getattr(values, "dtype", "")):
            raise TypeError
        return torch.as_tensor(values, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise CompanionError(f"An intervention takes real numbers; got {shortened(values)}.") from error


def _unit(vector: Any, site: Layer | str, use: str) -> torch.Tensor:
    exact = _float64(vector)
    if exact.isfinite().all() and not 0 < exact.norm() < math.inf:
        wrong = "too long" if exact.any() and exact.norm() else "zero"
        raise CompanionError(f"The vector for {place(site)} is {wrong}, so it has no direction to {use}.")
    return exact / exact.norm()


def _number(value: Any) -> torch.Tensor:
    one = _float64(value)
    if one.numel() != 1:
        raise CompanionError(f"A strength or factor is one number; got {shortened(value)}.")
    return one.reshape(())


def shortened(value: Any) -> str:
    """Return a value of any type on one line, not too long."""
    return " ".join(repr(value).split())[:60]


def checked(given: Any) -> tuple[Intervention, ...]:
    """Return a list of interventions as a tuple; raise CompanionError where it is no such list."""
    if not isinstance(given, Iterable) or (odd := [one for one in given if not hasattr(one, "changes")]):
        said = shortened(odd[0] if isinstance(given, Iterable) else given)
        raise CompanionError(f"Interventions are given as a list of such as Steer and Ablate; got {said}.")
    return tuple(given)


def place(site: Layer | str) -> str:
    """Return a module as a sentence names it."""
    return f"'{site}'" if isinstance(site, str) else f"layer {site}"


class Turn:
    """The changes of one kind at one module that are next in turn there, for all conditions that have one."""

    def __init__(self, changes: Mapping[int, Change], conditions: int, like: torch.Tensor) -> None:
        first = next(iter(changes.values()))
        self.function, self.at = first.function, first.at
        self.line = torch.full((conditions,), -1)  # each condition's line in `numbers`, or -1
        self.line[list(changes)] = torch.arange(len(changes))
        columns = zip(*(change.numbers for change in changes.values()), strict=True)
        numbers = (pad_sequence(column, batch_first=True, padding_value=math.nan) for column in columns)
        self.numbers = [one.to(like) for one in numbers]  # [line, numbers] each

    def select(self, conditions: torch.Tensor) -> tuple:
        """Return what to do for conditions [row]: the function, where, in which rows, its numbers [row, 1, numbers]."""
        lines, device = self.line[conditions.cpu()], self.numbers[0].device
        rows = (lines >= 0).nonzero()[:, 0]
        own = [numbers[lines[rows].to(device)][:, None] for numbers in self.numbers]
        return self.function, self.at, slice(None) if len(rows) == len(lines) else rows.to(device), own


class RowInterventions(ExitStack):
    """Hooks that make to every row of a batch the interventions of its condition, within a `with` block.

    `select` says which condition the rows of the next forward passes have; without it, all have the first. Arithmetic
    is in float32 or better. Raises CompanionError, before anything is computed, for what cannot be done to the model.
    """

    def __init__(self, model: PreTrainedModel, conditions: Sequence[Sequence[Intervention]]) -> None:
        super().__init__()
        conditions = [checked(condition) for condition in conditions]
        self.model, self.decoder = lora.without_peft(model), lora.decoder(model)
        self.dtype = torch.promote_types(model.dtype, torch.float32)
        self.layers: dict[Layer, nn.Module] = dict(enumerate(lora.decoder(model).layers))
        self.layers["embedding"] = self.model.get_input_embeddings()
        found = lora.adapters(model) if any(isinstance(one, ON_SCALARS) for one in chain(*conditions)) else []
        self.adapters = {one.module: self.model.get_submodule(one.scalar) for one in found}
        self.modules: dict[Layer | str, nn.Module] = self.layers | self.adapters
        # The k-th changes that conditions make at a module are its turn k; those of one kind are done at once.
        kinds: dict[tuple, dict[int, Change]] = defaultdict(dict)
        for number, condition in enumerate(conditions):
            turns: Counter[Layer | str] = Counter()
            for intervention in condition:
                for change in intervention.changes(list(self.adapters)):
                    self._check(intervention, change)
                    turns[change.site] += 1
                    kinds[turns[change.site], change.site, change.at, change.function][number] = change
        self.turns: dict[Layer | str, list[Turn]] = defaultdict(list)
        for (_, site, *_), changes in sorted(kinds.items(), key=lambda kind: kind[0][0]):
            weight = next(self.modules[site].parameters())  # a model may lie on several devices
            self.turns[site].append(Turn(changes, len(conditions), weight.new_empty(0, dtype=self.dtype)))
        self.past, self.given = 0, {}
        self.select(torch.zeros(1, dtype=torch.long, device=model.device))

    def __enter__(self) -> Self:
        if self.turns:
            self.callback(self.decoder.register_forward_pre_hook(self._look, with_kwargs=True).remove)
        for site in self.turns:
            after = self.modules[site].register_forward_hook(lambda _, __, x, site=site: self._change(x, site))
            self.callback(after.remove)
        return self

    def select(self, conditions: torch.Tensor) -> None:
        """Say which condition each row of the next forward passes has, [row]; a single one is for all rows."""
        self.chosen = {site: [turn.select(conditions) for turn in turns] for site, turns in self.turns.items()}

    def _look(self, _: nn.Module, __: tuple, given: dict[str, Any]) -> None:
        cache = given.get("past_key_values")
        self.past, self.given = 0 if cache is None else int(cache.get_seq_length()), given

    def _change(self, output: torch.Tensor, site: Layer | str) -> torch.Tensor:
        now = ("all", "generated") if self.past else ("all", "prompt", "header")
        acting = [(act, at, rows, own) for act, at, rows, own in self.chosen[site] if at in now and len(own[0])]
        if not acting:
            return output
        x = output.to(self.dtype, copy=True)
        position = self.given.get("position_ids")  # from the prompt's first token, [row or 1, token]
        if position is None:
            position = torch.arange(self.past, self.past + x.shape[1], device=x.device)[None]
        position = position.to(x.device)
        for act, at, rows, own in acting:
            tokens = slice(-HEADER_TOKENS, None) if at == "header" else slice(None)
            positions = position[rows if len(position) > 1 else slice(None), tokens]
            x[rows, tokens] = act(x[rows, tokens], positions, *own)
        return x.to(output.dtype)

    def _check(self, intervention: Intervention, change: Change) -> None:
        site, vector, width = change.site, change.numbers[0], self.layers["embedding"].weight.shape[1]
        what, on_scalars = f"{type(intervention).__name__} at {place(site)}", isinstance(intervention, ON_SCALARS)
        # True and 1.0 count as 1 in a dictionary.
        known = isinstance(site, int | np.integer | str) and not isinstance(site, bool)
        if on_scalars and not (known and site in self.adapters):
            names = ", ".join(self.adapters)
            raise CompanionError(f"There is no rank-1 adapter {shortened(site)}; the model has: {names}.")
        if not on_scalars and not (known and site in self.layers):
            raise CompanionError(f"There is no {place(site)}; the model has {len(self.layers) - 1} (from 0).")
        if change.at not in get_args(Where):
            raise CompanionError(f"{what} cannot act at '{change.at}'; choose one of: {', '.join(get_args(Where))}.")
        if not on_scalars and (shape := list(vector.shape)) != [width]:
            raise CompanionError(f"{what} has a vector of shape {shape}, but the residual stream has width {width}.")
        for numbers in change.numbers:
            here = numbers.to(self.model.dtype)
            if not numbers.isfinite().all():
                raise CompanionError(f"{what} is given numbers that are NaN or infinite.")
            if not here.isfinite().all() or numbers.any() and not here.any():
                raise CompanionError(f"{what} is given numbers too large or too small for {self.model.dtype}.")


def applied(model: PreTrainedModel, interventions: Iterable[Intervention]) -> RowInterventions:
    """Apply interventions, in their order, to every row within a `with` block."""
    return RowInterventions(model, [checked(interventions)])
