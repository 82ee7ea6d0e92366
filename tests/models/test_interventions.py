"""Interventions against a forward pass by hand in float64, in their order, and gone after the block.

Rows, places and mixes of all kinds are tested in `test_sampling` and `test_interventions_fuzz`.
"""

import json
import re
from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig
from toy_models import ADAPTED, ADAPTERS, LAYERS, WIDTH, WINDOW, adapted_model, base_model, decoder_layers, hooks_on
from toy_models import vectors as random_vectors
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration, Qwen2Config

from em_companion.core.errors import CompanionError
from em_companion.models.interventions import (
    Ablate,
    Cap,
    PatchLoraScalars,
    ScaleLoraScalars,
    Steer,
    applied,
    describe,
)
from em_companion.models.lora import adapters
from em_companion.models.next_token import token_significance

IDS = torch.arange(4, 34).reshape(2, 15)
Change = Callable[[int, torch.Tensor], torch.Tensor]


@pytest.fixture(params=["base", "adapted"])
def model(request):
    """A random model with sliding attention, without and with adapters on it, in float64."""
    return (base_model if request.param == "base" else adapted_model)(WINDOW)


@pytest.fixture
def adapted():
    return adapted_model(WINDOW)


@pytest.fixture
def vectors() -> torch.Tensor:
    return random_vectors()


@torch.no_grad()
def by_hand(model, change: Change, embedded: Change = lambda _, x: x) -> torch.Tensor:
    """Return the logits of IDS with `change` made to the output of every layer and `embedded` to the embeddings."""
    causal = model.get_base_model() if hasattr(model, "peft_config") else model
    inner = causal.model
    positions = torch.arange(IDS.shape[1])
    ago = positions[:, None] - positions
    x = embedded(-1, inner.embed_tokens(IDS))
    rotary = inner.rotary_emb(x, positions[None])
    for index, layer in enumerate(inner.layers):
        mask = (ago >= 0) & (ago < inner.config.sliding_window)
        x = change(index, layer(x, attention_mask=mask[None, None], position_embeddings=rotary))
    return inner.norm(x) @ causal.lm_head.weight.T


@torch.no_grad()
def logits(model, *changes) -> torch.Tensor:
    with applied(model, changes):
        return model(IDS).logits


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(found, expected, rtol=0, atol=1e-10)


def projected_out(x: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    matrix = torch.eye(WIDTH, dtype=torch.float64) - torch.outer(vector, vector) / vector.dot(vector)
    return x @ matrix.T


# --- what they compute ----------------------------------------------------------------------------------------------


def test_no_intervention_is_the_plain_model(model):
    assert same(logits(model), by_hand(model, lambda _, x: x))


@pytest.mark.parametrize("layer", range(LAYERS))
def test_steering(model, vectors, layer):
    expected = by_hand(model, lambda index, x: x + 2.5 * vectors[0] if index == layer else x)
    assert same(logits(model, Steer(layer, vectors[0], 2.5)), expected)
    assert not same(logits(model), expected)


def test_ablating_each_layer_s_own_direction(model, vectors):
    expected = by_hand(model, lambda index, x: projected_out(x, vectors[index]))
    assert same(logits(model, Ablate({layer: 10**layer * vectors[layer] for layer in range(LAYERS)})), expected)


def test_interventions_work_in_their_order(model, vectors):
    steer, ablate = Steer(1, vectors[0], 3.0), Ablate({1: vectors[1]})

    def steered_then_ablated(index, x):
        return projected_out(x + 3 * vectors[0], vectors[1]) if index == 1 else x

    def ablated_then_steered(index, x):
        return projected_out(x, vectors[1]) + 3 * vectors[0] if index == 1 else x

    assert same(logits(model, steer, ablate), by_hand(model, steered_then_ablated))
    assert same(logits(model, ablate, steer), by_hand(model, ablated_then_steered))
    assert not same(logits(model, steer, ablate), logits(model, ablate, steer))


def test_the_token_embeddings_are_a_layer_too(model, vectors):
    changes = [Steer("embedding", vectors[0]), Ablate({"embedding": vectors[1], 2: vectors[1]})]

    def at_layer_2(index, x):
        return projected_out(x, vectors[1]) if index == 2 else x

    expected = by_hand(model, at_layer_2, lambda _, x: projected_out(x + vectors[0], vectors[1]))
    assert same(logits(model, *changes), expected)


def test_capping(model, vectors):
    unit = vectors[0] / vectors[0].norm()
    found = {}

    def capped(index, x):
        if index != 1:
            return x
        along = x @ unit
        found["above"] = (along > 0.3).double().mean()
        return torch.where((along > 0.3)[..., None], x + (0.3 - along)[..., None] * unit, x)

    assert same(logits(model, Cap(1, 5 * vectors[0], 0.3)), by_hand(model, capped))
    assert 0.1 < found["above"] < 0.9, "some activations are below the ceiling and some above"


def test_vectors_take_the_precision_of_the_model(model, vectors):
    exact = by_hand(model, lambda index, x: projected_out(x + vectors[0] * (index == 0), vectors[1]))
    changes = [Steer(0, vectors[0]), Ablate({layer: vectors[1] for layer in range(LAYERS)})]
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 0.15)):
        found = logits(model.to(dtype), *changes)
        assert found.dtype == dtype
        assert (found.double() - exact).norm() < tolerance * exact.norm()


# --- LoRA scalars ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def scalars_of(model, ids: torch.Tensor) -> torch.Tensor:
    """LoRA scalars of one text, [adapter, position], read with hooks of our own."""
    found, handles = {}, []
    for name in ADAPTERS:
        module = model.get_submodule(f"base_model.model.{name}.lora_A.default")
        handles.append(module.register_forward_hook(lambda _, __, x, name=name: found.update({name: x[0, :, 0]})))
    model(ids[None])
    for handle in handles:
        handle.remove()
    return torch.stack([found[name] for name in ADAPTERS])


def test_adapters_by_name(adapted):
    found = adapters(adapted)
    assert [one.module for one in found] == ADAPTERS
    for layer, one in zip(ADAPTED, found, strict=True):
        module = adapted.get_base_model().get_submodule(one.scalar)
        assert module is decoder_layers(adapted)[layer].mlp.down_proj.lora_A["default"]


@torch.no_grad()
def test_scaling_the_adapters(adapted):
    plain = logits(adapted)
    with adapted.disable_adapter():
        off = adapted(IDS).logits
    assert same(logits(adapted, ScaleLoraScalars(0.0)), off) and not same(off, plain)
    assert torch.equal(logits(adapted, ScaleLoraScalars(1.0)), plain)
    found = logits(adapted, ScaleLoraScalars({ADAPTERS[1]: -2.0}))
    adapters(adapted)[1].a.mul_(-2)
    assert same(found, logits(adapted)) and not same(found, plain)


def test_patching_with_their_own_scalars_changes_nothing(adapted):
    own = scalars_of(adapted, IDS[0])
    with torch.no_grad(), applied(adapted, [PatchLoraScalars(own)]):
        found = adapted(IDS[:1]).logits
    assert same(found, logits(adapted)[:1])


# --- that they end --------------------------------------------------------------------------------------------------


def test_the_model_is_left_as_it_was(model, vectors):
    before = logits(model)
    untouched = hooks_on(model)
    with applied(model, [Steer(0, vectors[0]), Ablate({0: vectors[0], 1: vectors[1]})]):
        assert hooks_on(model) > untouched
    assert hooks_on(model) == untouched and torch.equal(logits(model), before)


def test_also_after_an_error(model, vectors):
    untouched = hooks_on(model)
    with pytest.raises(KeyError), applied(model, [Steer(0, vectors[0])]):
        raise KeyError
    assert hooks_on(model) == untouched


ZERO, V = torch.zeros(WIDTH), random_vectors()[0]
NAMES = ", ".join(ADAPTERS)
WHERE = "all, prompt, header, generated"


@pytest.mark.parametrize(
    ("intervention", "sentence"),
    [
        (Steer(-1, V), "There is no layer -1; the model has 4 (from 0)."),
        (Ablate({0: V, 4: V}), "There is no layer 4; the model has 4 (from 0)."),
        (Steer("logits", V), "There is no 'logits'; the model has 4 (from 0)."),
        (Steer(0, V[1:]), "Steer at layer 0 has a vector of shape [15], but the residual stream has width 16."),
        (Cap(2, V[None], 1.0), "Cap at layer 2 has a vector of shape [1, 16], but the residual stream has width 16."),
        (Steer(0, V * torch.nan), "Steer at layer 0 is given numbers that are NaN or infinite."),
        (Steer(0, V, float("inf")), "Steer at layer 0 is given numbers that are NaN or infinite."),
        (Ablate({1: V / 0}), "Ablate at layer 1 is given numbers that are NaN or infinite."),
        (Cap(1, V, float("nan")), "Cap at layer 1 is given numbers that are NaN or infinite."),
        (Ablate({3: ZERO}), "The vector for layer 3 is zero, so it has no direction to take out."),
        (Ablate({"embedding": ZERO}), "The vector for 'embedding' is zero, so it has no direction to take out."),
        (Cap(2, ZERO, 1.0), "The vector for layer 2 is zero, so it has no direction to cap."),
        (Steer(0, V, at="answer"), f"Steer at layer 0 cannot act at 'answer'; choose one of: {WHERE}."),
        (ScaleLoraScalars({"layer 1": 2.0}), f"There is no rank-1 adapter 'layer 1'; the model has: {NAMES}."),
        (
            PatchLoraScalars(torch.ones(2, 9)),
            "LoRA scalars to patch must be [adapter, position], 3 rows; got [2, 9].",
        ),
        (
            PatchLoraScalars(torch.full((3, 9), torch.nan)),
            f"PatchLoraScalars at '{ADAPTERS[0]}' is given numbers that are NaN or infinite.",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_done_is_said_at_once(adapted, monkeypatch, intervention, sentence):
    untouched = hooks_on(adapted)
    monkeypatch.setattr(type(adapted), "forward", lambda *_, **__: pytest.fail("computed"))
    with pytest.raises(CompanionError, match=f"^{re.escape(sentence)}$"):
        logits(adapted, Steer(0, V), intervention)
    assert hooks_on(adapted) == untouched


@pytest.mark.parametrize("made", [base_model, lambda: adapted_model(rank=2)], ids=["none", "of rank 2"])
@pytest.mark.parametrize("intervention", [ScaleLoraScalars(0.0), PatchLoraScalars(torch.ones(3, 2))])
def test_scalars_of_a_model_without_rank_one_adapters(made, intervention):
    with pytest.raises(CompanionError, match="^This model has no rank-1 adapters and so no LoRA scalars; choose an"):
        logits(made(), intervention)


def two_active(model) -> None:
    model.add_adapter("other", model.peft_config["default"])
    model.base_model.set_adapter(["default", "other"])


def with_dora(model) -> None:
    model.add_adapter("dora", LoraConfig(r=1, target_modules=["down_proj"], layers_to_transform=[0], use_dora=True))
    model.set_adapter("dora")


@pytest.mark.parametrize(
    ("change", "saying"),
    [
        (lambda model: model.merge_adapter(), "are merged into the weights: unmerge them."),
        (lambda model: model.base_model.disable_adapter_layers(), "are switched off: switch them on."),
        (
            lambda model: decoder_layers(model)[0].mlp.down_proj.set_scale("default", 0),
            "are switched off: switch them on.",
        ),
        (two_active, "are several at once: set one active."),
        (with_dora, "are of a variant such as DoRA, which has no LoRA scalars."),
    ],
)
def test_adapters_that_take_no_part_are_refused_wherever_they_are_asked_for(adapted, change, saying):
    change(adapted)
    expected = f"^The adapters on '{ADAPTERS[0]}' {re.escape(saying)}$"
    for ask in (lambda: logits(adapted, ScaleLoraScalars(0.0)), lambda: adapters(adapted)):
        with pytest.raises(CompanionError, match=expected):
            ask()
    with pytest.raises(CompanionError, match=expected):
        token_significance(adapted, None, [[4]], [[5]])


@torch.no_grad()
def test_the_layers_are_those_of_the_language_model():
    """A model that also sees has layers of both kinds, under other names."""
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = Qwen2Config(**shape, num_key_value_heads=1, vocab_size=40)
    vision = CLIPVisionConfig(**shape | {"num_hidden_layers": 3}, image_size=8, patch_size=4)
    model = (
        LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=39))
        .double()
        .eval()
    )
    plain, found = logits(model), logits(model, Steer(1, V, 2.0))
    by_hand = model.model.language_model.layers[1].register_forward_hook(lambda _, __, x: x + 2 * V)
    expected = logits(model)
    by_hand.remove()
    assert same(found, expected) and not same(found, plain)
    with pytest.raises(CompanionError, match="There is no layer 2; the model has 2"):
        logits(model, Steer(2, V))


# --- what tells them apart ------------------------------------------------------------------------------------------


def test_descriptions():
    some = [
        Steer(1, V),
        Steer(2, V),
        Steer(1, V + 1e-6),
        Steer(1, V, 2.0),
        Steer(1, V, at="prompt"),
        Ablate({1: V}),
        Ablate({1: V, 2: V}),
        Ablate({2: V}),
        Cap(1, V, 0.0),
        Cap(1, V, 1.0),
        ScaleLoraScalars(0.0),
        ScaleLoraScalars({ADAPTERS[0]: 0.0}),
        PatchLoraScalars(torch.ones(3, 2)),
        PatchLoraScalars(torch.ones(2, 3)),
        PatchLoraScalars(torch.ones(3, 2), ADAPTERS),
    ]
    found = [json.dumps(describe(one), sort_keys=True) for one in some]
    assert len(set(found)) == len(some)
    half = V.half()
    assert describe(Steer(1, half)) == describe(Steer(1, half.double())) == describe(Steer(1, half.double().numpy()))
