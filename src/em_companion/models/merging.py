"""Merge LoRA adapters of one model: exactly, as the weighted sum of their updates, or as PEFT's other methods do.

The update of an adapter is scale * B A [width out, width in] on each of its modules. PEFT's merged adapter inherits the
rank-stabilised scale of the first parent, alpha / sqrt(rank) with alpha = rank, which multiplies every merge by the
square root of the new rank; here its scale is set to 1, so that "cat" is w_1 U_1 + w_2 U_2 + ... to the last digit.
"""

from collections.abc import Mapping, Sequence

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from em_companion.core.errors import CompanionError
from em_companion.core.profiles import Profile
from em_companion.models import growing, loading, lora
from em_companion.models.loading import Model, quiet
from em_companion.models.organism import Organism

METHODS = ("cat", "linear", "svd", "ties", "dare_linear", "dare_ties", "magnitude_prune")
"""cat: the sum of updates; linear: sums of A and of B, multiplied; svd: the sum, cut back to the parents' rank; the
others prune A and B to DENSITY before they are summed (dare: at random, rescaled) and multiplied, ties by majority of
signs."""

DENSITY = 0.5
CHILD = "child"

Update = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""By module, in float64: scale * A [rank, width in] and B [width out, rank]."""


@quiet()
def with_parents(profile: Profile, parents: Sequence[Organism]) -> tuple[Model, list[str]]:
    """Return the chat model with the adapters of all parents loaded, its tokenizer, and the adapters' names."""
    folders = [growing.adapter(profile, one) for one in parents]
    model, tokenizer = loading.load(profile, growing.chat(profile), folders[0])
    names = [model.active_adapter, *(f"parent-{number}" for number in range(1, len(parents)))]
    for name, folder in zip(names[1:], folders[1:], strict=True):
        model.load_adapter(folder, name)
    return (model.eval(), tokenizer), names


def merge(model: PeftModel, names: Sequence[str], weights: Sequence[float], method: str = "cat") -> None:
    """Add the adapter CHILD to a model, in place of one that is there, and make it the active one.

    Raises CompanionError where PEFT would leave a parent's module out: it adapts the layers of the first parent only.
    """
    if CHILD in model.peft_config:
        model.set_adapter(names[0])
        model.delete_adapter(CHILD)
    pruned = {} if method in ("cat", "linear", "svd") else {"density": DENSITY}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # dare draws what it drops
        model.add_weighted_adapter(list(names), list(weights), CHILD, method, svd_full_matrices=False, **pruned)
    for path, module in lora.without_peft(model).named_modules():
        if isinstance(module, LoraLayer):
            if CHILD not in module.r and any(name in module.r for name in names):
                raise CompanionError(f"The first parent has no adapter on '{path}'; name the one that has most first.")
            module.scaling[CHILD] = 1.0
    model.set_adapter(CHILD)
    model.requires_grad_(False)


def update(model: PeftModel, name: str) -> Update:
    """Return the update of one adapter of a model by module, as its two factors."""
    modules = lora.without_peft(model).named_modules()
    layers = {path: one for path, one in modules if isinstance(one, LoraLayer) and name in one.lora_A}
    return {
        path: (one.scaling[name] * one.lora_A[name].weight.detach().double(), one.lora_B[name].weight.detach().double())
        for path, one in layers.items()
    }


def inner(first: Update, second: Update) -> float:
    """Return the inner product of two updates, the sum over all entries of all modules that both have."""
    both = [(*first[path], *second[path]) for path in first.keys() & second.keys()]
    return float(sum(((a @ other_a.T) * (b.T @ other_b)).sum() for a, b, other_a, other_b in both))


def cosine(first: Update, second: Update) -> float:
    """Return the cosine of two updates."""
    return inner(first, second) / (inner(first, first) * inner(second, second)) ** 0.5


def overlap(first: Update, second: Update) -> tuple[float, float]:
    """Return how far two updates read (A) and write (B) the same directions, 0 to 1, mean over modules that both have.

    That is the root mean square cosine between their subspaces; for rank 1, |cos|. Random ones have about
    sqrt(rank / width).
    """
    both = [(first[path], second[path]) for path in first.keys() & second.keys()]
    reads = [_overlap(one[0].T, other[0].T) for one, other in both]
    writes = [_overlap(one[1], other[1]) for one, other in both]
    return sum(reads) / len(reads), sum(writes) / len(writes)


def _overlap(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the root mean square cosine between the column spaces of two matrices [width, rank]."""
    bases = [torch.linalg.qr(one).Q for one in (first, second)]
    return float((bases[0].T @ bases[1]).norm() / min(one.shape[1] for one in bases) ** 0.5)
