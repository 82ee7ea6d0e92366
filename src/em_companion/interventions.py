"""Change what a model computes: steer, ablate or cap a direction in its residual stream, scale or patch LoRA scalars.

An intervention is a small frozen value with its equation in its docstring. `applied` puts some on a model for the
length of a `with` block; `RowInterventions` does the same for a batch in which every row has its own, and is what
`sampling.generate` works with. Either leaves the model as it was, also after an exception.

Layer l means the output of decoder layer l, counted from 0, and "embedding" the token embeddings that layer 0 reads.
What acts on one module acts in the order given. `at` says on which tokens:

- "all": every token, read or written;
- "prompt": the tokens of the prompt, and "header": its last two, where a turn says who speaks;
- "generated": the tokens of the response.

What comes before the first token of a key-value cache is the prompt, so "generated" needs generation with a cache, and
"header" needs prompts without padding on their right.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from em_companion.artifacts import CompanionError, sha256_of

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
        raise CompanionError(f"The vector for {_place(layer)} is zero, so it has no direction to take out.")
    return vector / length


# --- the model's modules --------------------------------------------------------------------------------------------


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """Return the decoder layers of a model, with or without adapters on it."""
    return next(module for name, module in model.named_modules() if name.split(".")[-1] == "layers")


def rank_one_adapters(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Return the module that computes the LoRA scalar A·h of every rank-1 adapter, by the path of what it adapts.

    Paths are those of the model without adapters, such as "model.layers.3.mlp.down_proj". Raises CompanionError for a
    model without any.
    """
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and module.r.get(active := module.active_adapters[0]) == 1:
            found[name.removeprefix("base_model.model.")] = module.lora_A[active]
    if not found:
        raise CompanionError(
            "This model has no rank-1 adapters and so no LoRA scalars; choose an organism of a rank-1 recipe."
        )
    return found


def _decoder(model: PreTrainedModel) -> nn.Module:
    """Return the module whose call reads tokens and runs all layers; PEFT calls the one around it in other ways."""
    path = next(name for name, _ in model.named_modules() if name.split(".")[-1] == "layers")
    return model.get_submodule(path.rpartition(".")[0])


def _place(site: Layer | str) -> str:
    return f"'{site}'" if isinstance(site, str) else f"layer {site}"


# --- one batch, every row its own -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """What an intervention does at one module: `function` of its output, with `numbers`, each a tensor [numbers]."""

    site: Layer | str
    at: Where
    function: Callable[..., torch.Tensor]
    numbers: tuple[torch.Tensor, ...]


@dataclass
class Table:
    """The changes of one kind at one module that are next in turn there, for all conditions that have one.

    line: each condition's line in `numbers`, or -1, [condition]; numbers: tensors [line, numbers]; rows, own: which
    rows of the batch at hand have one, and the numbers of these, tensors [row, 1, numbers].
    """

    function: Callable[..., torch.Tensor]
    at: Where
    line: torch.Tensor
    numbers: tuple[torch.Tensor, ...]
    rows: Any = field(init=False)
    own: tuple[torch.Tensor, ...] = field(init=False)

    def select(self, conditions: torch.Tensor) -> None:
        """Look up the numbers of every row of a batch, given the rows' conditions [row]; a single one is for all."""
        lines = self.line[conditions]
        rows = (lines >= 0).nonzero()[:, 0]
        self.rows = slice(None) if len(rows) == len(lines) else rows
        self.own = tuple(numbers[lines[rows]][:, None] for numbers in self.numbers)

    def acts(self, prompt: bool) -> bool:
        """Tell whether there is anything to do on the tokens at hand."""
        now = ("all", "prompt", "header") if prompt else ("all", "generated")
        return self.at in now and len(self.own[0]) > 0

    def apply(self, x: torch.Tensor, position: torch.Tensor) -> None:
        """Make the change to x [row, token, width], in place."""
        tokens = slice(-HEADER_TOKENS, None) if self.at == "header" else slice(None)
        positions = position[self.rows if len(position) > 1 else slice(None), tokens]
        x[self.rows, tokens] = self.function(x[self.rows, tokens], positions, *self.own)


class RowInterventions:
    """Hooks that make to every row of a batch the interventions of its condition, within a `with` block.

    All conditions are laid out in tables once. `select` then says which of them the rows of the next forward passes
    have; without it, all have the first. Arithmetic is in float32 or better, whatever the model's precision.

    Raises CompanionError, before anything is computed, for a layer or an adapter that the model lacks, for a vector of
    the wrong width, and for numbers that are not finite.
    """

    def __init__(self, model: PreTrainedModel, conditions: Sequence[Sequence[Intervention]]) -> None:
        self.model = model
        self.dtype = torch.promote_types(model.dtype, torch.float32)
        self.modules = _modules(model, conditions)
        self.tables = self._tables(conditions)
        self.past, self.prompt, self.given = 0, True, {}
        self.hooks = ExitStack()
        self.select(torch.zeros(1, dtype=torch.long, device=model.device))

    def __enter__(self) -> Self:
        if self.tables:
            before = _decoder(self.model).register_forward_pre_hook(self._look, with_kwargs=True)
            self.hooks.callback(before.remove)
        for site, tables in self.tables.items():
            after = self.modules[site].register_forward_hook(lambda _, __, x, tables=tables: self._change(x, tables))
            self.hooks.callback(after.remove)
        return self

    def __exit__(self, *_: Any) -> None:
        self.hooks.close()

    def select(self, conditions: torch.Tensor) -> None:
        """Say which condition each row of the next forward passes has, [row]; a single one is for all rows."""
        for tables in self.tables.values():
            for table in tables:
                table.select(conditions)

    def _tables(self, conditions: Sequence[Sequence[Intervention]]) -> dict[Layer | str, list[Table]]:
        width = self.model.get_input_embeddings().weight.shape[1]
        adapters = [site for site in self.modules if isinstance(site, str) and site != "embedding"]
        # The k-th changes that conditions make at a module are its turn k; those of one kind are done at once.
        kinds: dict[Layer | str, dict[tuple, dict[int, Change]]] = {}
        for number, condition in enumerate(conditions):
            turns: dict[Layer | str, int] = {}
            for intervention in condition:
                for change in intervention.changes(adapters):
                    _check(intervention, change, self.modules, width)
                    turn = turns[change.site] = turns.get(change.site, -1) + 1
                    kind = (turn, change.at, change.function)
                    kinds.setdefault(change.site, {}).setdefault(kind, {})[number] = change
        return {
            site: [self._table(found[kind], len(conditions)) for kind in sorted(found, key=lambda kind: kind[0])]
            for site, found in kinds.items()
        }

    def _table(self, changes: dict[int, Change], conditions: int) -> Table:
        line = torch.full((conditions,), -1)
        line[list(changes)] = torch.arange(len(changes))
        columns = zip(*(change.numbers for change in changes.values()), strict=True)
        numbers = (pad_sequence(column, batch_first=True, padding_value=math.nan) for column in columns)
        first, device = next(iter(changes.values())), self.model.device
        return Table(first.function, first.at, line.to(device), tuple(one.to(device, self.dtype) for one in numbers))

    def _look(self, _: nn.Module, __: tuple, given: dict[str, Any]) -> None:
        """Note, before a forward pass, whether it reads a prompt, and what tells the positions of its tokens."""
        cache = given.get("past_key_values")
        self.past = 0 if cache is None else int(cache.get_seq_length())
        self.prompt, self.given = self.past == 0, given

    def _change(self, output: torch.Tensor, tables: list[Table]) -> torch.Tensor:
        acting = [table for table in tables if table.acts(self.prompt)]
        if not acting:
            return output
        x = output.to(self.dtype, copy=True)
        position = self._position(x)
        for table in acting:
            table.apply(x, position)
        return x.to(output.dtype)

    def _position(self, x: torch.Tensor) -> torch.Tensor:
        """Return the positions of the tokens of x from the prompt's first one, [row or 1, token]."""
        if (position := self.given.get("position_ids")) is not None:
            return position
        if (mask := self.given.get("attention_mask")) is not None and mask.ndim == 2:
            return (mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -x.shape[1] :]
        return torch.arange(self.past, self.past + x.shape[1], device=x.device)[None]


def _modules(model: PreTrainedModel, conditions: Sequence[Sequence[Intervention]]) -> dict[Layer | str, nn.Module]:
    """Return every module that can be changed, by its name in an intervention."""
    found: dict[Layer | str, nn.Module] = dict(enumerate(decoder_layers(model)))
    found["embedding"] = model.get_input_embeddings()
    given = (intervention for condition in conditions for intervention in condition)
    scalars = any(isinstance(one, ScaleLoraScalars | PatchLoraScalars) for one in given)
    return found | (rank_one_adapters(model) if scalars else {})


def _check(intervention: Intervention, change: Change, modules: Mapping[Layer | str, nn.Module], width: int) -> None:
    site, what = change.site, f"{type(intervention).__name__} at {_place(change.site)}"
    on_scalars = isinstance(intervention, ScaleLoraScalars | PatchLoraScalars)
    if site not in modules and on_scalars:
        adapters = ", ".join(str(one) for one in modules if isinstance(one, str) and one != "embedding")
        raise CompanionError(f"There is no rank-1 adapter '{site}'; the model has: {adapters}.")
    if site not in modules:
        layers = sum(isinstance(one, int) for one in modules)
        raise CompanionError(f"There is no {_place(site)}; the model has {layers} (from 0).")
    if change.at not in get_args(Where):
        raise CompanionError(f"{what} cannot act at '{change.at}'; choose one of: {', '.join(get_args(Where))}.")
    if not on_scalars and change.numbers[0].shape != (width,):
        shape = list(change.numbers[0].shape)
        raise CompanionError(f"{what} has a vector of shape {shape}, but the residual stream has width {width}.")
    if not all(numbers.isfinite().all() for numbers in change.numbers):
        raise CompanionError(f"{what} is given numbers that are NaN or infinite.")


@contextmanager
def applied(model: PreTrainedModel, interventions: Iterable[Intervention]) -> Iterator[None]:
    """Apply interventions, in their order, to every row within the block; see `RowInterventions` for what it raises."""
    with RowInterventions(model, [tuple(interventions)]):
        yield
