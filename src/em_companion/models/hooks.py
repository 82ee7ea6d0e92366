"""Put interventions on a model: to every row of a batch those of its condition, by hooks within a `with` block.

`applied` puts some on a whole model; `RowInterventions` does it for a batch in which every row has its own, and is what
`sampling.generate` works with. Either leaves the model as it was, also after an exception. What an intervention does
stands in `models.interventions`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, get_args

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from em_companion.core.errors import CompanionError
from em_companion.models import lora
from em_companion.models.interventions import (
    HEADER_TOKENS,
    Change,
    Intervention,
    Layer,
    PatchLoraScalars,
    ScaleLoraScalars,
    Where,
    place,
)

# --- the model's modules --------------------------------------------------------------------------------------------


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """Return the decoder layers of a model, with or without adapters on it."""
    return next(module for name, module in model.named_modules() if name.split(".")[-1] == "layers")


def _decoder(model: PreTrainedModel) -> nn.Module:
    """Return the module whose call reads tokens and runs all layers; PEFT calls the one around it in other ways."""
    path = next(name for name, _ in model.named_modules() if name.split(".")[-1] == "layers")
    return model.get_submodule(path.rpartition(".")[0])


@dataclass(frozen=True)
class Turn:
    """The changes of one kind at one module that are next in turn there, for all conditions that have one.

    line: each condition's line in `numbers`, or -1, [condition]; numbers: tensors [line, numbers].
    """

    function: Callable[..., torch.Tensor]
    at: Where
    line: torch.Tensor
    numbers: tuple[torch.Tensor, ...]

    def select(self, conditions: torch.Tensor) -> "Chosen":
        """Look up the numbers of every row of a batch, given the rows' conditions [row]; a single one is for all."""
        lines = self.line[conditions]
        rows = (lines >= 0).nonzero()[:, 0]
        own = tuple(numbers[lines[rows]][:, None] for numbers in self.numbers)
        return Chosen(self, slice(None) if len(rows) == len(lines) else rows, own)


class Chosen(NamedTuple):
    """A turn for the batch at hand: which rows have a change, and its numbers, tensors [row, 1, numbers]."""

    turn: Turn
    rows: torch.Tensor | slice
    own: tuple[torch.Tensor, ...]

    def acts(self, prompt: bool) -> bool:
        """Tell whether there is anything to do on the tokens at hand."""
        now = ("all", "prompt", "header") if prompt else ("all", "generated")
        return self.turn.at in now and len(self.own[0]) > 0

    def apply(self, x: torch.Tensor, position: torch.Tensor) -> None:
        """Make the change to x [row, token, width], in place."""
        tokens = slice(-HEADER_TOKENS, None) if self.turn.at == "header" else slice(None)
        positions = position[self.rows if len(position) > 1 else slice(None), tokens]
        x[self.rows, tokens] = self.turn.function(x[self.rows, tokens], positions, *self.own)


class RowInterventions:
    """Hooks that make to every row of a batch the interventions of its condition, within a `with` block.

    All conditions are laid out in turns once. `select` then says which of them the rows of the next forward passes
    have; without it, all have the first. Arithmetic is in float32 or better, whatever the model's precision.

    Raises CompanionError, before anything is computed, for a layer or an adapter that the model lacks, for a vector of
    the wrong width, and for numbers that are not finite.
    """

    def __init__(self, model: PreTrainedModel, conditions: Sequence[Sequence[Intervention]]) -> None:
        self.model = model
        self.dtype = torch.promote_types(model.dtype, torch.float32)
        self.modules = _modules(model, conditions)
        self.turns = self._turns(conditions)
        self.past, self.prompt, self.given = 0, True, {}
        self.hooks = ExitStack()
        self.select(torch.zeros(1, dtype=torch.long, device=model.device))

    def __enter__(self) -> Self:
        if self.turns:
            before = _decoder(self.model).register_forward_pre_hook(self._look, with_kwargs=True)
            self.hooks.callback(before.remove)
        for site in self.turns:
            after = self.modules[site].register_forward_hook(lambda _, __, x, site=site: self._change(x, site))
            self.hooks.callback(after.remove)
        return self

    def __exit__(self, *_: Any) -> None:
        self.hooks.close()

    def select(self, conditions: torch.Tensor) -> None:
        """Say which condition each row of the next forward passes has, [row]; a single one is for all rows."""
        self.chosen = {site: [turn.select(conditions) for turn in turns] for site, turns in self.turns.items()}

    def _turns(self, conditions: Sequence[Sequence[Intervention]]) -> dict[Layer | str, list[Turn]]:
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
            site: [self._turn(found[kind], len(conditions)) for kind in sorted(found, key=lambda kind: kind[0])]
            for site, found in kinds.items()
        }

    def _turn(self, changes: dict[int, Change], conditions: int) -> Turn:
        line = torch.full((conditions,), -1)
        line[list(changes)] = torch.arange(len(changes))
        columns = zip(*(change.numbers for change in changes.values()), strict=True)
        numbers = (pad_sequence(column, batch_first=True, padding_value=math.nan) for column in columns)
        first, device = next(iter(changes.values())), self.model.device
        return Turn(first.function, first.at, line.to(device), tuple(one.to(device, self.dtype) for one in numbers))

    def _look(self, _: nn.Module, __: tuple, given: dict[str, Any]) -> None:
        """Note, before a forward pass, whether it reads a prompt, and what tells the positions of its tokens."""
        cache = given.get("past_key_values")
        self.past = 0 if cache is None else int(cache.get_seq_length())
        self.prompt, self.given = self.past == 0, given

    def _change(self, output: torch.Tensor, site: Layer | str) -> torch.Tensor:
        acting = [chosen for chosen in self.chosen[site] if chosen.acts(self.prompt)]
        if not acting:
            return output
        x = output.to(self.dtype, copy=True)
        position = self._position(x)
        for chosen in acting:
            chosen.apply(x, position)
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
    return found | (lora.rank_one_adapters(model) if scalars else {})


def _check(intervention: Intervention, change: Change, modules: Mapping[Layer | str, nn.Module], width: int) -> None:
    site, what = change.site, f"{type(intervention).__name__} at {place(change.site)}"
    on_scalars = isinstance(intervention, ScaleLoraScalars | PatchLoraScalars)
    if site not in modules and on_scalars:
        adapters = ", ".join(str(one) for one in modules if isinstance(one, str) and one != "embedding")
        raise CompanionError(f"There is no rank-1 adapter '{site}'; the model has: {adapters}.")
    if site not in modules:
        layers = sum(isinstance(one, int) for one in modules)
        raise CompanionError(f"There is no {place(site)}; the model has {layers} (from 0).")
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
