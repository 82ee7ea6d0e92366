"""Rank-1 LoRA adapters of a model: finding them, their read and write directions, and editing what they write.

An adapter counts only where it alone takes part in the forward pass: one that is merged, switched off, of a variant or
beside another is refused in one sentence. Decoder layers are those of the language model, by its own structure.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from em_companion.core.errors import CompanionError

Vectors = Mapping[int, torch.Tensor]
"""A direction [width] for each of some layers, counted from 0."""

PARALLEL = 1 - 1e-6
"""Squared cosine from which too little of a B vector is left to be rescaled."""


@dataclass(frozen=True)
class Adapter:
    """A rank-1 adapter: the module it sits on, the one that computes A·h, and the scale of what it adds.

    Modules are paths in the model without PEFT's; layer: of the decoder, from 0; a: [width of the module's input] and
    b: [width of its output] are views of the adapter's weights.
    """

    module: str
    scalar: str
    a: torch.Tensor
    b: torch.Tensor
    scale: float
    layer: int


def adapters(model: PreTrainedModel | PeftModel) -> list[Adapter]:
    """Return the rank-1 adapters of a model in the order of its forward pass.

    Raises CompanionError for none, for one outside of decoder layers, and as `acting` does.
    """
    layers = {id(module): number for number, one in enumerate(decoder(model).layers) for module in one.modules()}
    found = []
    for path, name, module in acting(model):
        if module.r[name] != 1:
            continue
        if id(module) not in layers or name not in module.lora_A:
            raise CompanionError(f"The adapter on '{path}' is in no decoder layer, so it has no LoRA scalars.")
        a, b = module.lora_A[name].weight.detach()[0], module.lora_B[name].weight.detach()[:, 0]
        found.append(Adapter(path, f"{path}.lora_A.{name}", a, b, module.scaling[name], layers[id(module)]))
    if not found:
        raise CompanionError(
            "This model has no rank-1 adapters and so no LoRA scalars; choose an organism of a rank-1 recipe."
        )
    return found


def acting(model: PreTrainedModel | PeftModel) -> Iterator[tuple[str, str, LoraLayer]]:
    """Yield path, adapter and module of all that adapters sit on; raise CompanionError where what they do is unclear.

    That is where they are merged, switched off or of a variant, or where several are active.
    """
    for path, module in without_peft(model).named_modules():
        if not isinstance(module, LoraLayer):
            continue
        names = [name for name in module.active_adapters if name in module.r]
        problems = {
            "are merged into the weights: unmerge them": module.merged,
            "are switched off: switch them on": module.disable_adapters or not all(map(module.scaling.get, names)),
            "are several at once: set one active": len(names) > 1,
            "are of a variant such as DoRA, which has no LoRA scalars": not {*names}.isdisjoint(module.lora_variant),
        }
        if problem := next((said for said, there in problems.items() if there), None):
            raise CompanionError(f"The adapters on '{path}' {problem}.")
        for name in names:
            yield path, name, module


def decoder(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """Return the language model's stack of decoder layers, without the head; raise CompanionError without one."""
    found = without_peft(model).get_decoder()
    if not isinstance(getattr(found, "layers", None), nn.ModuleList) or not hasattr(found, "norm"):
        raise CompanionError(f"'{type(found).__name__}' has no decoder layers that are known; choose another model.")
    return found


def without_peft(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """Return the model inside PEFT's, its adapters still in place, whose modules have the paths of a plain model."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def feature_names(modules: Sequence[str]) -> list[str]:
    """Return short names of adapters, `layer_N`, as in the released scalars; `layer_N.MODULE` if a layer has two."""
    layers = [module.split("layers.")[1].split(".") for module in modules]
    alone = len({layer[0] for layer in layers}) == len(layers)
    return [f"layer_{layer[0]}" if alone else f"layer_{layer[0]}.{layer[-1]}" for layer in layers]


def without_direction(b: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Return B - v̂ v̂ᵀ B [width], rescaled to the norm of B (appendix D; the rescaling is the authors' code).

    Raises CompanionError for a direction of another width, one that is zero or not finite, and where B lies along it.
    """
    given = torch.as_tensor(direction, dtype=torch.float64)
    if given.shape != b.shape:
        shape = list(given.shape)
        raise CompanionError(f"A direction to take out of a B vector must have its width, {len(b)}; got {shape}.")
    if not given.isfinite().all() or given.norm() == 0:
        raise CompanionError("The direction to take out of a B vector is zero or not finite; choose another one.")
    old, unit = b.detach().to("cpu", torch.float64), given / given.norm()
    rest = old - (unit @ old) * unit
    if (unit @ old) ** 2 >= PARALLEL * (old @ old):
        raise CompanionError("A B vector along the direction has nothing left without it; choose another direction.")
    return (rest * old.norm() / rest.norm()).to(b)


def removed(model: PreTrainedModel | PeftModel, vectors: Vectors) -> PreTrainedModel | PeftModel:
    """Return a copy of a model in which B of every rank-1 adapter on a given layer lacks the direction of that layer.

    Raises CompanionError for a layer without rank-1 adapters, and as `without_direction` does.
    """
    edited = copy.deepcopy(model)
    found = adapters(edited)
    layers = sorted({one.layer for one in found})
    if missing := sorted(set(vectors) - set(layers)):
        names = ", ".join(map(str, layers))
        raise CompanionError(f"There is no rank-1 adapter on layer {missing[0]}; the model has some on: {names}.")
    for adapter in found:
        if adapter.layer in vectors:
            adapter.b.copy_(without_direction(adapter.b, vectors[adapter.layer]))
    return edited
