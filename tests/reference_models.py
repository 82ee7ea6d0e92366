"""The paper's interventions in nnsight, one prompt and one greedy answer at a time, in code that reads as equations."""

from collections.abc import Callable, Mapping

import torch
from nnsight import TransformersModel

from em_companion.models.tracing import save

Changes = Mapping[int, Callable[[torch.Tensor], torch.Tensor]]
"""By layer, what is made of its output [row, token, width]."""


def adding(layer: int, vector: torch.Tensor, strength: float) -> Changes:
    """x + strength * vector at one layer's output (section 3.2)."""
    return {layer: lambda x: x + strength * vector}


def removing(vectors: Mapping[int, torch.Tensor]) -> Changes:
    """x - v̂ v̂ᵀ x at the output of every given layer (section 3.4)."""
    return {layer: lambda x, v=v: x - (x @ v)[..., None] * v / v.square().sum() for layer, v in vectors.items()}


def answer(model: TransformersModel, prompt: list[int], changes: Changes, max_new_tokens: int) -> list[int]:
    """The greedy answer to a prompt, at every position of which layers are changed, without the end token."""
    ends = (model.tokenizer.eos_token_id, model.tokenizer.pad_token_id)
    with model.generate(do_sample=False, max_new_tokens=max_new_tokens, pad_token_id=ends[1]) as tracer:
        with tracer.invoke(torch.tensor([prompt])):
            for _ in tracer.iter[:]:
                for layer, change in sorted(changes.items()):
                    x = model.model.layers[layer].output
                    model.model.layers[layer].output = change(x)
        with tracer.invoke():
            tokens = save(tracer.result)
    found = tokens[0, len(prompt) :].tolist()
    return found[:-1] if found and found[-1] in ends else found
