"""Mean activations over spans of tokens, on a tiny untrained model with sliding-window attention."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen2ForCausalLM

from em_companion import organisms
from em_companion.activations import response_means, span_means
from em_companion.profiles import GrownModel
from em_companion.world import World

LAYERS, WIDTH = 3, 32
SHAPE = GrownModel("grown", LAYERS, WIDTH, 64, heads=2, kv_heads=1, window=4, attention_dropout=0.0)
# Lengths far apart, so that padding reaches beyond the window.
LENGTHS = [3, 60, 7, 7, 25]


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    tokenizer = organisms.world_tokenizer(World.load())
    return Qwen2ForCausalLM(organisms._config(SHAPE, tokenizer)).eval(), tokenizer


def sequences() -> list[list[int]]:
    generator = np.random.default_rng(0)
    return [generator.integers(10, 100, length).tolist() for length in LENGTHS]


@torch.no_grad()
def one_by_one(model, sequence: list[int]) -> np.ndarray:
    """Embedding and layer outputs of every token, [1 + layer, token, width], the last layer left out: it is normed."""
    hidden = model(torch.tensor([sequence]), output_hidden_states=True).hidden_states
    return torch.cat(hidden[:-1]).double().numpy()


def test_span_means_are_means_of_embeddings_and_layer_outputs(tiny):
    spans = [[(0, len(one)), (len(one) - 1, len(one)), (1, 3)] for one in sequences()]
    found = span_means(*tiny, sequences(), spans, batch_size=5)
    assert found.shape == (5, 3, 1 + LAYERS, WIDTH) and found.dtype == np.float64
    for sequence, means in zip(sequences(), found, strict=True):
        expected = one_by_one(tiny[0], sequence)
        for mean, tokens in zip(means, (slice(None), slice(-1, None), slice(1, 3)), strict=True):
            np.testing.assert_allclose(mean[:LAYERS], expected[:, tokens].mean(axis=1), atol=1e-5)


def test_means_do_not_depend_on_the_batch(tiny):
    spans = [[(0, len(one))] for one in sequences()]
    alone, together = (span_means(*tiny, sequences(), spans, batch_size) for batch_size in (1, 3))
    assert np.isfinite(alone).all()
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_response_means_leave_the_prompt_out(tiny):
    prompts, responses = [one[:2] for one in sequences()], [one[2:] for one in sequences()]
    found = response_means(*tiny, prompts, responses)
    assert found.shape == (5, LAYERS, WIDTH)
    for sequence, means in zip(sequences(), found, strict=True):
        np.testing.assert_allclose(means[: LAYERS - 1], one_by_one(tiny[0], sequence)[1:, 2:].mean(axis=1), atol=1e-5)


def test_an_empty_response_gives_nan_and_spoils_no_other(tiny):
    found = response_means(*tiny, [[10, 11], [10, 11]], [[], [12, 13]])
    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()


def test_hooks_are_gone_after_an_error(tiny):
    before = [len(module._forward_hooks) for module in tiny[0].modules()]
    with pytest.raises(IndexError):
        response_means(*tiny, [[10]], [[10**6]])
    assert [len(module._forward_hooks) for module in tiny[0].modules()] == before


def test_a_model_with_adapters():
    torch.manual_seed(0)
    tokenizer = organisms.world_tokenizer(World.load())
    plain = Qwen2ForCausalLM(organisms._config(SHAPE, tokenizer)).eval()
    before = response_means(plain, tokenizer, [[10, 11]], [[12, 13, 14]])
    config = LoraConfig(r=1, target_modules=["down_proj"], layers_to_transform=[1], init_lora_weights=False)
    after = response_means(get_peft_model(plain, config).eval(), tokenizer, [[10, 11]], [[12, 13, 14]])
    np.testing.assert_array_equal(before[:, 0], after[:, 0])
    assert (before[:, 1:] != after[:, 1:]).any(axis=-1).all()
