"""The loss of every token against a loop over single tokens in float64."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
import untrained
from untrained import LAYERS, WIDTH, chat_model, organism, tokenizer

from em_companion.core.errors import CompanionError
from em_companion.models import hooks, next_token
from em_companion.models.interventions import Ablate, Steer
from em_companion.models.tokens import prompt_ids
from em_companion.world.generator import turn

TEXTS = untrained.table(4)
VECTORS = torch.randn(LAYERS, WIDTH, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
ABLATE = Ablate(dict(enumerate(VECTORS)))


@torch.no_grad()
def one_by_one(model, texts: pd.DataFrame, change=None) -> pd.DataFrame:
    """The loss of every token from a forward pass of its own over the tokens before it, from softmax to logarithm."""
    layers = hooks.decoder_layers(model)
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
