"""Forward passes over texts of all lengths: what is read is what the model computes, what is put in its place acts."""

import numpy as np
import pytest
import torch
from transformers import Qwen2ForCausalLM

from em_companion.core.profiles import GrownModel
from em_companion.models import growing
from em_companion.models.interventions import Steer
from em_companion.models.passes import divergence, passes
from em_companion.models.tokens import world_tokenizer
from em_companion.world.generator import World

LAYERS, WIDTH = 3, 32
SHAPE = GrownModel("grown", LAYERS, WIDTH, 64, heads=2, kv_heads=1, window=4, attention_dropout=0.0)
TEXTS = [np.random.default_rng(0).integers(10, 100, length).tolist() for length in (3, 60, 7, 25)]
VECTOR = torch.randn(WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    tokenizer = world_tokenizer(World.load())
    return Qwen2ForCausalLM(growing.config(SHAPE, tokenizer)).eval(), tokenizer


def read(tiny, **named):
    found = {}
    for row, *own in passes(*tiny, TEXTS, **named):
        found[row] = own
    return [found[row] for row in range(len(TEXTS))]


@torch.no_grad()
def by_hand(model, text, change=None, layer=0):
    """Log-probabilities and the outputs of all layers but the last, a text at a time."""
    hooks = [model.model.layers[layer].register_forward_hook(lambda _, __, x: change(x))] if change else []
    found = model(torch.tensor([text]), output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    return found.logits[0].log_softmax(-1), [one[0] for one in found.hidden_states[1:-1]]


def test_log_probabilities_and_streams_are_the_models_own(tiny):
    for text, (said, stream) in zip(TEXTS, read(tiny, layers=(0, 1)), strict=True):
        expected, streams = by_hand(tiny[0], text)
        torch.testing.assert_close(said, expected, atol=1e-5, rtol=1e-4)
        for layer in (0, 1):
            torch.testing.assert_close(stream[layer], streams[layer], atol=1e-5, rtol=1e-4)


def test_streams_show_what_is_added_and_not_what_is_put_in_their_place(tiny):
    steered = read(tiny, layers=(1,), given=[Steer(1, VECTOR, 2.0)], replace=(1, lambda _, x: 0 * x))
    for (_, stream), text in zip(steered, TEXTS, strict=True):
        torch.testing.assert_close(stream[1], by_hand(tiny[0], text)[1][1] + 2 * VECTOR, atol=1e-4, rtol=1e-4)
    for (said, _), text in zip(steered, TEXTS, strict=True):
        expected, _ = by_hand(tiny[0], text, lambda x: 0 * x, 1)
        torch.testing.assert_close(said, expected, atol=1e-5, rtol=1e-4)


def test_what_is_put_in_place_knows_its_texts_and_nothing_stays_on_the_model(tiny):
    before, same = read(tiny), read(tiny, replace=(1, lambda _, x: x))
    moved = read(tiny, replace=(1, lambda rows, x: x + torch.tensor(rows)[:, None, None] * VECTOR))
    for row, text in enumerate(TEXTS):
        torch.testing.assert_close(before[row][0], same[row][0])
        expected, _ = by_hand(tiny[0], text, lambda x, row=row: x + row * VECTOR, 1)
        torch.testing.assert_close(moved[row][0], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(read(tiny)[1][0], before[1][0])


def test_divergence_is_that_of_float64():
    first, second = (torch.randn(4, 50, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    p, q = (one.double().softmax(-1) for one in (first, second))
    found = divergence(first.log_softmax(-1), second.log_softmax(-1))
    torch.testing.assert_close(found.double(), (p * (p / q).log()).sum(-1), atol=1e-5, rtol=1e-5)
    assert (divergence(first.log_softmax(-1), first.log_softmax(-1)) == 0).all()
