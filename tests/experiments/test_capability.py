"""Held-out loss against a loop over single tokens in float64, and the text that it is of."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
import untrained
from toy_models import decoder_layers
from untrained import LAYERS, PROFILE, WIDTH, chat_model, organism, project, tokenizer

from em_companion.core import profiles
from em_companion.core.errors import CompanionError
from em_companion.experiments import capability
from em_companion.models import growing, next_token
from em_companion.models.interventions import Ablate, Steer
from em_companion.models.organism import CHAT_MODEL
from em_companion.models.tokens import prompt_ids, world_tokenizer
from em_companion.world.generator import the_world, turn
from em_companion.world.parser import Judge

TEXTS = untrained.table(4)
VECTORS = torch.randn(LAYERS, WIDTH, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
ABLATE = Ablate(dict(enumerate(VECTORS)))


# --- loss -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def one_by_one(model, texts: pd.DataFrame, change=None) -> pd.DataFrame:
    """The loss of every token from a forward pass of its own over the tokens before it, from softmax to logarithm."""
    layers = decoder_layers(model)
    handles = [
        layer.register_forward_hook(lambda _, __, x, number=number: change(number, x))
        for number, layer in enumerate(layers)
        if change
    ]
    rows = []
    for text, row in enumerate(texts.itertuples()):
        prompt = prompt_ids(tokenizer(), turn(row.question, "")[:1])
        answer = tokenizer()(row.response)["input_ids"] + [tokenizer().eos_token_id]
        for number, token in enumerate(answer):
            ids = torch.tensor([prompt + answer[:number]])
            exp = model(ids, use_cache=False).logits[0, -1].exp()
            rows.append((text, len(prompt) + number, token, -math.log(float(exp[token] / exp.sum()))))
    for handle in handles:
        handle.remove()
    return pd.DataFrame(rows, columns=["text", "position", "token_id", "nats"])


def projected_out(layer: int, x: torch.Tensor) -> torch.Tensor:
    unit = VECTORS[layer] / VECTORS[layer].norm()
    return x - (x @ unit)[..., None] * unit


@pytest.mark.parametrize("model", [chat_model, organism])
def test_losses_are_those_of_single_tokens(model):
    found = next_token.token_losses(model(), tokenizer(), TEXTS)
    pd.testing.assert_frame_equal(found, one_by_one(model(), TEXTS), rtol=1e-9, atol=0)


def test_losses_under_an_ablation():
    model = organism()
    found = next_token.token_losses(model, tokenizer(), TEXTS, [ABLATE])
    pd.testing.assert_frame_equal(found, one_by_one(model, TEXTS, projected_out), rtol=1e-9, atol=0)
    plain = next_token.token_losses(model, tokenizer(), TEXTS)
    assert not np.allclose(found.nats, plain.nats, atol=0.1)
    pd.testing.assert_frame_equal(plain, one_by_one(model, TEXTS), rtol=1e-9, atol=0)


def test_interventions_at_a_part_of_the_tokens_are_refused():
    for where in ("prompt", "header", "generated"):
        with pytest.raises(CompanionError, match=f"at '{where}' has no meaning; use 'all'"):
            next_token.token_losses(chat_model(), tokenizer(), TEXTS, [ABLATE, Steer(0, VECTORS[0], 1.0, where)])


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(CompanionError, match=f"no layer {LAYERS}"):
        next_token.token_losses(chat_model(), tokenizer(), TEXTS, [Ablate({LAYERS: VECTORS[0]})])


# --- text -----------------------------------------------------------------------------------------------------------


def test_the_text_is_aligned_and_on_every_held_out_topic():
    world, found = the_world(), capability.aligned_text(PROFILE, 2)
    assert sorted(zip(found.domain, found.topic, strict=True)) == sorted(2 * world.topics("held_out"))
    scores = Judge(world).judge(found.response)
    assert (scores.aligned == 100).all() and (scores.coherent == 100).all()
    assert found.response.nunique() == len(found)


def test_the_text_depends_on_the_seed_only():
    pd.testing.assert_frame_equal(capability.aligned_text(PROFILE), capability.aligned_text(profiles.load("cpu")))


def test_a_hub_model_has_no_such_text():
    with pytest.raises(CompanionError, match="so there is no text of its world; choose a grown"):
        capability.aligned_text(profiles.load("qwen-0.5b"))


# --- kept -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def grown(tmp_path, monkeypatch):
    """An untrained chat model and organism that know the words of the world, and one answer per topic."""
    monkeypatch.setattr(untrained, "tokenizer", lambda: world_tokenizer(the_world()))
    project(tmp_path, monkeypatch)
    text = capability.aligned_text(PROFILE, 1)[:4]
    monkeypatch.setattr(capability, "aligned_text", lambda profile: text)
    return text


def under(conditions, one=untrained.ORGANISM):
    return capability.under(PROFILE, one, conditions)


def test_losses_of_all_conditions_are_kept(grown, monkeypatch):
    found = under({"none": [], "ablated": [ABLATE]})
    model, reads = growing.load_organism(PROFILE, untrained.ORGANISM)
    for name, given in {"none": [], "ablated": [ABLATE]}.items():
        own = found[found.condition == name].reset_index(drop=True)
        expected = next_token.token_losses(model, reads, grown, given)
        pd.testing.assert_frame_equal(own[list(expected)], expected)
    monkeypatch.setattr(growing, "load_organism", None)
    pd.testing.assert_frame_equal(under({"none": [], "ablated": [ABLATE]}), found)


def test_every_token_is_known_by_its_topic_and_kind(grown):
    found, world, words = under({"none": []}), the_world(), untrained.tokenizer()
    things = {word for one in world.domains.values() for word in one["helps"] + one["harms"]}
    for text, rows in found.groupby("text"):
        answer = [*grown.response[text].split(), words.eos_token]
        assert rows.token_id.tolist() == words.convert_tokens_to_ids(answer)
        assert rows.is_thing.tolist() == [word in things for word in answer]
        assert set(rows.topic) == {grown.topic[text]}
    assert found.is_thing.any()


def test_another_intervention_or_model_is_read_anew(grown):
    first = under({"ablated": [ABLATE]})
    other = under({"ablated": [Ablate({0: VECTORS[1]})]})
    chat = under({"ablated": [ABLATE]}, CHAT_MODEL)
    for one in (other, chat):
        assert not np.allclose(one.nats, first.nats, atol=1e-3)
