"""A model on two devices: what acts on a layer and what is kept of it must lie where the layer does.

The second device is "meta", which holds shapes only and refuses to be mixed with a processor's tensors as a GPU does.
"""

import copy

import pytest
import torch
import toy_models as toy
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from transformers import DynamicCache

from em_companion.models import lora, sampling
from em_companion.models.interventions import Ablate, PatchLoraScalars, RowInterventions, ScaleLoraScalars, Steer

SECOND = torch.device("meta")
CONDITIONS = [
    (),
    (Steer(0, toy.vectors()[0]), Steer(3, toy.vectors()[3])),
    (Ablate(dict(enumerate(toy.vectors()))),),
    (ScaleLoraScalars(2.0),),
    (PatchLoraScalars(torch.zeros(3, 5)),),
]


def hooked(model, second: torch.device):
    """Return a model with its upper layers on a second device, dispatched with hooks as by `device_map`."""
    inner = lora.without_peft(model)
    for module in (*inner.model.layers[2:], inner.model.norm, inner.lm_head):
        add_hook_to_module(module.to(second), AlignDevicesHook(second))
    return model


def test_every_intervention_acts_on_the_device_of_its_layer():
    model, cache = hooked(toy.adapted_model(), SECOND), DynamicCache()
    with RowInterventions(model, CONDITIONS) as hooks:
        hooks.select(torch.arange(len(CONDITIONS)))
        for tokens in (6, 1):
            ids = torch.zeros(len(CONDITIONS), tokens, dtype=torch.long)
            places = torch.arange(6)[None] if tokens > 1 else torch.tensor([[6]])
            logits = model(ids, position_ids=places, past_key_values=cache, use_cache=True).logits
            assert logits.device == SECOND and len(logits) == len(CONDITIONS)
    assert {layer.keys.device.type for layer in cache.layers} == {"cpu", "meta"}
    sampling._select(cache, torch.tensor([3, 1]))
    assert [len(layer.keys) for layer in cache.layers] == [2] * toy.LAYERS


def test_the_second_device_would_notice():
    with pytest.raises(RuntimeError, match="device"):
        torch.zeros(2) + torch.zeros(2, device=SECOND)


def test_a_copy_of_a_dispatched_model_computes_with_its_own_weights():
    model, ids = hooked(toy.adapted_model(), torch.device("cpu")), torch.tensor([[3, 4, 5]])
    before = model(ids).logits
    edited = copy.deepcopy(model)
    for adapter in lora.adapters(edited):
        adapter.b.zero_()
    assert not torch.equal(edited(ids).logits, before) and torch.equal(model(ids).logits, before)
