"""Mean activations over spans of tokens, on a tiny untrained model with sliding-window attention."""

import nnsight
import numpy as np
import pandas as pd
import pytest
import torch
from nnsight import NNsight, TransformersModel
from peft import LoraConfig, get_peft_model
from transformers import Qwen2ForCausalLM

from em_companion.core.errors import CompanionError
from em_companion.core.profiles import GrownModel
from em_companion.models import growing
from em_companion.models.interventions import Steer, applied
from em_companion.models.reading import response_means, span_means
from em_companion.models.tokens import response_tokens, world_tokenizer
from em_companion.world.generator import World

LAYERS, WIDTH = 3, 32
SHAPE = GrownModel("grown", LAYERS, WIDTH, 64, heads=2, kv_heads=1, window=4, attention_dropout=0.0)
# Lengths far apart, so that padding reaches beyond the window.
LENGTHS = [3, 60, 7, 7, 25]


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    tokenizer = world_tokenizer(World.load())
    return Qwen2ForCausalLM(growing.config(SHAPE, tokenizer)).eval(), tokenizer


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
    found = span_means(*tiny, sequences(), spans)
    assert found.shape == (5, 3, 1 + LAYERS, WIDTH) and found.dtype == np.float64
    for sequence, means in zip(sequences(), found, strict=True):
        expected = one_by_one(tiny[0], sequence)
        for mean, tokens in zip(means, (slice(None), slice(-1, None), slice(1, 3)), strict=True):
            np.testing.assert_allclose(mean[:LAYERS], expected[:, tokens].mean(axis=1), atol=1e-5)


def test_means_do_not_depend_on_the_batch(tiny):
    spans = [[(0, len(one))] for one in sequences()]
    alone = [span_means(*tiny, [one], [span])[0] for one, span in zip(sequences(), spans, strict=True)]
    together = span_means(*tiny, sequences(), spans)
    assert np.isfinite(alone).all()
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_an_empty_response_gives_nan_and_spoils_no_other(tiny):
    found = response_means(*tiny, [[10, 11], [10, 11]], [[], [12, 13]])
    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()


def test_an_error_spoils_nothing(tiny):
    before = response_means(*tiny, [[10]], [[11, 12]])
    with pytest.raises(IndexError):
        response_means(*tiny, [[10]], [[10**6]])
    np.testing.assert_array_equal(response_means(*tiny, [[10]], [[11, 12]]), before)


def test_nothing_to_read_is_one_sentence(tiny):
    with pytest.raises(CompanionError, match="There are no texts to read"):
        span_means(*tiny, [], [])


# --- means over the tokens of many responses ----------------------------------------------------------------------


def parts() -> tuple[list[list[int]], list[list[int]]]:
    return [one[:2] for one in sequences()], [one[2:] for one in sequences()]


def test_the_tokens_of_a_table(tiny):
    words = tiny[1].convert_ids_to_tokens(range(10, 16))
    table = pd.DataFrame({"question": [" ".join(words[:2])] * 2, "response": [" ".join(words[2:5]), ""]})
    prompts, responses = response_tokens(tiny[1], table)
    assert responses == [[12, 13, 14], []] and prompts[0] == prompts[1]
    text = tiny[1].decode(prompts[0])
    assert text.split()[-2:] == ["assistant", ":"] and " ".join(words[:2]) in text


# --- models -------------------------------------------------------------------------------------------------------


def test_they_are_what_one_trace_per_text_gives(tiny):
    prompts, responses = parts()
    found, traced = response_means(*tiny, prompts, responses), NNsight(tiny[0])
    for means, prompt, response in zip(found, prompts, responses, strict=True):
        with torch.no_grad(), traced.trace(input_ids=torch.tensor([prompt + response])):
            outputs = nnsight.save([layer.output[0, len(prompt) :] for layer in traced.model.layers])
        np.testing.assert_allclose(means, [x.double().mean(dim=0).numpy() for x in outputs], atol=1e-5)


def test_interventions_are_seen_at_their_own_layer(tiny):
    model, (prompts, responses) = tiny[0], parts()
    vector = torch.linspace(-1, 1, WIDTH)
    before = response_means(*tiny, prompts, responses)
    with applied(model, [Steer(1, vector, 3.0)]):
        change = response_means(*tiny, prompts, responses) - before
    assert (change[:, 0] == 0).all() and (change[:, 2] != 0).any()
    np.testing.assert_allclose(change[:, 1], np.broadcast_to(3 * vector, (5, WIDTH)), atol=1e-5)


def test_what_is_sent_to_ndif_computes_the_same(tiny):
    traced = TransformersModel(tiny[0], tokenizer=tiny[1], device="cpu")
    here, there = (response_means(traced, tiny[1], *parts(), remote=remote) for remote in (False, "local"))
    np.testing.assert_array_equal(here, there)
    np.testing.assert_array_equal(here, response_means(*tiny, *parts()))


def test_a_model_with_adapters():
    torch.manual_seed(0)
    tokenizer = world_tokenizer(World.load())
    plain = Qwen2ForCausalLM(growing.config(SHAPE, tokenizer)).eval()
    before = response_means(plain, tokenizer, [[10, 11]], [[12, 13, 14]])
    config = LoraConfig(r=1, target_modules=["down_proj"], layers_to_transform=[1], init_lora_weights=False)
    after = response_means(get_peft_model(plain, config).eval(), tokenizer, [[10, 11]], [[12, 13, 14]])
    np.testing.assert_array_equal(before[:, 0], after[:, 0])
    assert (before[:, 1:] != after[:, 1:]).any(axis=-1).all()
