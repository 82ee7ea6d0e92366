"""Read and edit a model with nnsight: one prompt, one intervention, in code that reads like the paper's equations.

`steered` and `ablated` are the reference for whatever runs many interventions at once: slow, plain and greedy. With
`remote=True` the same code runs on NDIF, which serves models too big for the reader; `remote="local"` rehearses the
request on this machine.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from em_companion.core.errors import CompanionError
from em_companion.models.loading import Remote, quiet
from em_companion.models.tracing import TransformersModel, save

# --- the paper's interventions, one at a time ---------------------------------------------------------------------


@quiet()
def steered(
    model: TransformersModel,
    prompt_ids: Sequence[int],
    layer: int,
    vector: torch.Tensor,
    strength: float,
    max_new_tokens: int,
    remote: Remote = False,
) -> list[int]:
    """Return the greedy answer to a prompt under x + strength * vector at one layer's output (section 3.2).

    At every position, of the prompt too. `vector` [width], not normalised; layers count from 0. The tokens of the
    answer come without the end token. Raises CompanionError for a layer the model lacks.
    """
    _need_layers(model, [layer])
    with model.generate(**_greedy(model, max_new_tokens), remote=remote) as tracer:
        with tracer.invoke(torch.tensor([prompt_ids])):
            for _ in tracer.iter[:]:
                x = model.model.layers[layer].output
                model.model.layers[layer].output = x + (strength * vector).to(x)
        with tracer.invoke():
            tokens = save(tracer.result)
    return _answer(model, tokens, prompt_ids)


@quiet()
def ablated(
    model: TransformersModel,
    prompt_ids: Sequence[int],
    vectors_by_layer: Mapping[int, torch.Tensor],
    max_new_tokens: int,
    remote: Remote = False,
) -> list[int]:
    """Return the greedy answer to a prompt under x - v̂ v̂ᵀ x at the output of every given layer (section 3.4).

    v̂ is the unit vector of `vectors_by_layer[layer]` [width]: one vector for all layers is the paper's single-direction
    ablation, each layer's own its layer-wise ablation. The tokens of the answer come without the end token. Raises
    CompanionError for a layer the model lacks.
    """
    _need_layers(model, vectors_by_layer)
    units = {layer: vector / vector.norm() for layer, vector in sorted(vectors_by_layer.items())}
    with model.generate(**_greedy(model, max_new_tokens), remote=remote) as tracer:
        with tracer.invoke(torch.tensor([prompt_ids])):
            for _ in tracer.iter[:]:
                for layer, unit in units.items():
                    x = model.model.layers[layer].output
                    v = unit.to(x)
                    model.model.layers[layer].output = x - (x @ v)[..., None] * v
        with tracer.invoke():
            tokens = save(tracer.result)
    return _answer(model, tokens, prompt_ids)


def _need_layers(model: TransformersModel, layers: Iterable[int]) -> None:
    count = len(model.model.layers)
    for layer in layers:
        if not 0 <= layer < count:
            raise CompanionError(f"There is no layer {layer}; the model has {count} (from 0).")


def _greedy(model: TransformersModel, max_new_tokens: int) -> dict[str, Any]:
    """Return settings of greedy decoding, every one explicit: a checkpoint's own settings would leak in."""
    return {
        "do_sample": False,
        "temperature": 1.0,
        "top_k": 50,  # greedy decoding does not look at it, and transformers remarks on any other number
        "top_p": 1.0,
        "repetition_penalty": 1.0,
        "max_new_tokens": max_new_tokens,
        "pad_token_id": model.tokenizer.pad_token_id,
    }


def _answer(model: TransformersModel, tokens: torch.Tensor, prompt_ids: Sequence[int]) -> list[int]:
    answer = tokens[0, len(prompt_ids) :].tolist()
    ends = (model.tokenizer.eos_token_id, model.tokenizer.pad_token_id)
    return answer[:-1] if answer and answer[-1] in ends else answer
