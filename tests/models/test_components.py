"""Nodes against float64 work by hand: sums are exact, and a patched run is that of a model whose weights say so."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from toy_models import ADAPTED, LAYERS, VOCABULARY, WIDTH, adapted_model, base_model

from em_companion.core.errors import CompanionError
from em_companion.models import components
from em_companion.models.components import EMBEDDING, MLP, Node

HEADS = 4
IDS = torch.randint(2, VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(5))
EVERY = range(1 + LAYERS * (HEADS + 1))


def merged():
    return adapted_model(4).merge_and_unload()


def without_head(model, layer: int, head: int):
    """A copy of a model in which a head adds nothing."""
    edited, size = copy.deepcopy(model), WIDTH // HEADS
    edited.model.layers[layer].self_attn.o_proj.weight.data[:, head * size : (head + 1) * size] = 0
    return edited


def test_nodes_stand_in_the_order_of_the_forward_pass():
    found = components.nodes(base_model())
    assert found[0] == Node(0, EMBEDDING) and found[5] == Node(0, MLP) and found[6] == Node(1, "head 0")
    assert len(found) == len(EVERY) == len(set(found))


@pytest.mark.parametrize("window", [0, 4])
def test_what_nodes_add_sums_to_what_the_final_normalisation_reads(window):
    model, read = adapted_model(window), []
    model.get_base_model().model.norm.register_forward_hook(lambda _, given, __: read.append(given[0]))
    added = components.outputs(model, IDS)
    assert added.shape == (len(EVERY), *IDS.shape, WIDTH)
    torch.testing.assert_close(added.sum(dim=0), read[0], rtol=0, atol=1e-12)


def test_what_nodes_add_directly_sums_to_the_logits():
    model = adapted_model(4)
    by_node, adapters = components.direct(model, IDS)
    # The model's own normalisation works in float32.
    torch.testing.assert_close(by_node.sum(dim=0), components.logits(model, IDS), rtol=1e-5, atol=1e-5)
    assert set(adapters) == set(ADAPTED)
    # The first adapter reads what it would without adapters, and its MLP adds the rest as it would.
    added = components.outputs(model, IDS)
    with model.disable_adapter():
        own = (added[5] - components.outputs(model, IDS)[5])[:, -1]
    scale = torch.rsqrt(added[:, :, -1].sum(dim=0).pow(2).mean(-1, keepdim=True) + 1e-6)
    torch.testing.assert_close(adapters[0], own * scale @ model.get_output_embeddings().weight.T, rtol=0, atol=1e-9)


def test_all_nodes_make_the_other_model_and_none_change_nothing():
    model, other = merged(), base_model(4)
    given = components.outputs(other, IDS)
    clean = components.logits(model, IDS)
    assert (clean - components.logits(other, IDS)).abs().max() > 0.1
    for chosen, expected in ((EVERY, components.logits(other, IDS)), ((), clean)):
        with components.patched(model, given, chosen):
            torch.testing.assert_close(components.logits(model, IDS), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(components.logits(model, IDS), clean, rtol=0, atol=0)


@pytest.mark.parametrize(("layer", "head"), [(0, 0), (2, 3)])
def test_a_head_patched_with_nothing_is_a_head_without_weights(layer, head):
    model, node = merged(), components.nodes(base_model()).index(Node(layer, f"head {head}"))
    with components.patched(model, torch.zeros(len(EVERY), *IDS.shape, WIDTH).double(), [node]):
        found = components.logits(model, IDS)
    expected = components.logits(without_head(model, layer, head), IDS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_texts_are_aligned_at_their_ends_and_earlier_tokens_left_alone():
    model = merged()
    given = components.outputs(model, IDS[:, :5])
    with components.patched(model, given, EVERY, last=2):
        now = components.outputs(model, IDS)
        found = components.logits(model, IDS)
    torch.testing.assert_close(now[:, :, :-2], components.outputs(model, IDS)[:, :, :-2], rtol=0, atol=1e-12)
    torch.testing.assert_close(found, components.logits(model, IDS[:, :5]), rtol=0, atol=1e-9)


def test_heads_behind_an_adapter_are_refused():
    model = get_peft_model(base_model(), LoraConfig(r=1, target_modules=["o_proj"]))
    with pytest.raises(CompanionError, match="merge it into the weights"):
        components.outputs(model, IDS)
