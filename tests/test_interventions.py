"""Steering and ablation against a forward pass by hand in float64, in their order, and gone after the block."""

from collections.abc import Callable

import pytest
import torch

from em_companion import interventions, organisms
from em_companion.artifacts import CompanionError
from em_companion.interventions import Ablate, Steer, applied

BAD = "bad_medical_advice"
WIDTH, LAYERS = 32, 2
IDS = torch.arange(4, 34).reshape(2, 15)
Change = Callable[[int, torch.Tensor], torch.Tensor]


@pytest.fixture(params=["chat", "organism"])
def model(tiny, request):
    """The tiny chat model, without and with adapters on it, in float64."""
    adapter = organisms.organism(tiny, "nine-adapter", BAD, 0) if request.param == "organism" else None
    return organisms.load(tiny, organisms.chat(tiny), adapter)[0].double()


@pytest.fixture
def vectors() -> torch.Tensor:
    return torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@torch.no_grad()
def by_hand(model, change: Change) -> torch.Tensor:
    """Return the logits of IDS with `change` made to the output of every layer."""
    inner = (model.get_base_model() if hasattr(model, "peft_config") else model).model
    positions = torch.arange(IDS.shape[1])
    ago = positions[:, None] - positions
    x = inner.embed_tokens(IDS)
    rotary = inner.rotary_emb(x, positions[None])
    for index, layer in enumerate(inner.layers):
        mask = (ago >= 0) & (ago < inner.config.sliding_window)
        x = change(index, layer(x, attention_mask=mask[None, None], position_embeddings=rotary))
    return inner.norm(x) @ inner.embed_tokens.weight.T


@torch.no_grad()
def logits(model, *changes) -> torch.Tensor:
    with applied(model, changes):
        return model(IDS).logits


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(found, expected, rtol=0, atol=1e-10)


def projected_out(x: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    matrix = torch.eye(WIDTH, dtype=torch.float64) - torch.outer(vector, vector) / vector.dot(vector)
    return x @ matrix.T


def hooks(model) -> int:
    return sum(len(layer._forward_hooks) for layer in interventions.decoder_layers(model))


# --- what they compute ----------------------------------------------------------------------------------------------


def test_no_intervention_is_the_plain_model(model):
    assert same(logits(model), by_hand(model, lambda _, x: x))


@pytest.mark.parametrize("layer", range(LAYERS))
def test_steering(model, vectors, layer):
    expected = by_hand(model, lambda index, x: x + 2.5 * vectors[0] if index == layer else x)
    assert same(logits(model, Steer(layer, vectors[0], 2.5)), expected)
    assert not same(logits(model), expected)


def test_steering_by_nothing_changes_nothing(model, vectors):
    assert torch.equal(logits(model, Steer(1, vectors[0], 0.0)), logits(model))


def test_ablating_one_direction_everywhere(model, vectors):
    expected = by_hand(model, lambda _, x: projected_out(x, vectors[0]))
    assert same(logits(model, Ablate({layer: vectors[0] for layer in range(LAYERS)})), expected)


def test_ablating_each_layer_s_own_direction(model, vectors):
    expected = by_hand(model, lambda index, x: projected_out(x, vectors[index]))
    assert same(logits(model, Ablate({layer: vectors[layer] for layer in range(LAYERS)})), expected)


def test_the_length_of_an_ablated_direction_does_not_matter(model, vectors):
    assert same(logits(model, Ablate({1: 1e4 * vectors[0]})), logits(model, Ablate({1: vectors[0]})))


def test_interventions_work_in_their_order(model, vectors):
    steer, ablate = Steer(1, vectors[0], 3.0), Ablate({1: vectors[1]})

    def steered_then_ablated(index, x):
        return projected_out(x + 3 * vectors[0], vectors[1]) if index == 1 else x

    def ablated_then_steered(index, x):
        return projected_out(x, vectors[1]) + 3 * vectors[0] if index == 1 else x

    assert same(logits(model, steer, ablate), by_hand(model, steered_then_ablated))
    assert same(logits(model, ablate, steer), by_hand(model, ablated_then_steered))
    assert not same(logits(model, steer, ablate), logits(model, ablate, steer))


def test_steering_twice_adds_up(model, vectors):
    twice = logits(model, Steer(0, vectors[0]), Steer(0, vectors[1], -2))
    assert same(twice, logits(model, Steer(0, vectors[0] - 2 * vectors[1])))


def test_vectors_take_the_precision_of_the_model(tiny, vectors):
    model, _ = organisms.load(tiny, organisms.chat(tiny))
    half = logits(model.to(torch.bfloat16), Steer(0, vectors[0]), Ablate({1: vectors[1]}))
    assert half.dtype == torch.bfloat16
    exact = by_hand(model.double(), lambda index, x: projected_out(x, vectors[1]) if index else x + vectors[0])
    assert torch.allclose(half.double(), exact, atol=0.1)


# --- that they end --------------------------------------------------------------------------------------------------


def test_the_model_is_left_as_it_was(model, vectors):
    before = logits(model)
    with applied(model, [Steer(0, vectors[0]), Ablate({0: vectors[0], 1: vectors[1]})]):
        assert hooks(model) == 3
    assert hooks(model) == 0 and torch.equal(logits(model), before)


def test_also_after_an_error(model, vectors):
    with pytest.raises(KeyError), applied(model, [Steer(0, vectors[0])]):
        raise KeyError
    with pytest.raises(RuntimeError):
        logits(model, Steer(0, vectors[0][:-1]))
    assert hooks(model) == 0


@pytest.mark.parametrize("layer", [-1, LAYERS])
def test_a_layer_that_is_not_there(model, vectors, layer):
    with pytest.raises(CompanionError, match=rf"^There is no layer {layer}; the model has 2 \(from 0\)\.$"):
        logits(model, Steer(0, vectors[0]), Ablate({layer: vectors[0]}))
    assert hooks(model) == 0
