"""Token significance against finite differences in float64, on a tiny untrained model."""

import numpy as np
import pandas as pd
import pytest
import torch
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from untrained import ORGANISM, PROFILE, WIDTH, chat_model, organism, project, table, tokenizer

from em_companion.core.errors import CompanionError
from em_companion.experiments import readings
from em_companion.models import growing, next_token
from em_companion.models.organism import CHAT_MODEL
from em_companion.models.tokens import response_tokens

STEP = 1e-5


def tokens():
    return response_tokens(tokenizer(), table())


def read(model):
    return next_token.token_significance(model, tokenizer(), *tokens())


def divergences(model, chat, embeddings: torch.Tensor, start: int) -> torch.Tensor:
    """KL(chat || organism) at the answer's tokens, from softmax to sum, [row, token]."""
    with torch.no_grad():
        p, q = (one(inputs_embeds=embeddings).logits[:, start:].softmax(-1) for one in (chat, model))
    return (p * (p.log() - q.log())).sum(-1)


def norm_in_float64(self, x: torch.Tensor) -> torch.Tensor:
    return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)


def test_significance_is_the_finite_difference_of_the_divergence(monkeypatch):
    monkeypatch.setattr(Qwen2RMSNorm, "forward", norm_in_float64)  # its own rounds to float32
    model, chat = organism(), chat_model()
    found, (prompts, answers) = read(model), tokens()
    for row in (0, 2):
        prompt, answer = prompts[row], answers[row]
        embeddings = chat.get_input_embeddings()(torch.tensor([prompt + answer])).detach()
        length = embeddings.shape[1]
        moves = STEP * torch.eye(length * WIDTH, dtype=torch.float64).reshape(-1, length, WIDTH)
        ahead, behind = (divergences(model, chat, embeddings + sign * moves, len(prompt)).sum(-1) for sign in (1, -1))
        sizes = ((ahead - behind) / (2 * STEP)).reshape(length, WIDTH).norm(dim=-1)[len(prompt) :]
        kl = divergences(model, chat, embeddings, len(prompt))[0]
        own = found[found.response == row]
        np.testing.assert_allclose(own.kl, kl, rtol=1e-9)
        np.testing.assert_allclose(own.significance, sizes / sizes.sum() * kl.sum(), rtol=1e-6)
        assert own.significance.std() > 0.01 * own.significance.mean()


def test_every_answer_token_has_its_row_whatever_the_batch():
    found, (prompts, answers) = read(organism()), tokens()
    texts = zip(prompts, answers, strict=True)
    alone = pd.concat([next_token.token_significance(organism(), tokenizer(), [one], [other]) for one, other in texts])
    assert found.token_id.tolist() == [token for answer in answers for token in answer]
    starts = found.groupby("response").position.min()
    assert starts.tolist() == [len(prompt) for prompt in prompts]
    assert (found.kl > 0).all()
    np.testing.assert_allclose(found[["kl", "significance"]], alone[["kl", "significance"]], rtol=1e-9)


def test_significances_of_an_answer_add_up_to_its_divergence():
    sums = read(organism()).groupby("response")[["kl", "significance"]].sum()
    np.testing.assert_allclose(sums.kl, sums.significance, rtol=1e-12)


def test_equal_models_have_no_significant_token():
    model = organism()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.zero_()
    found = read(model)
    assert (found[["kl", "significance"]] == 0).all(axis=None)


def test_the_model_is_left_as_it_was():
    model = organism()
    for weight in model.parameters():
        weight.requires_grad_(False)
    with torch.no_grad():
        before = model(torch.tensor([[4, 5, 6]])).logits
        read(model)
        torch.testing.assert_close(model(torch.tensor([[4, 5, 6]])).logits, before, atol=0, rtol=0)
    assert not any(weight.requires_grad or weight.grad is not None for weight in model.parameters())


def test_an_empty_answer_has_no_rows():
    found = next_token.token_significance(organism(), tokenizer(), [[4, 5], [4, 5]], [[], [6]])
    assert found.response.tolist() == [1]


def test_a_model_without_adapters_is_refused():
    with pytest.raises(CompanionError, match="give a model with adapters"):
        read(chat_model())
    with pytest.raises(CompanionError, match="choose an organism"):
        readings.token_significance_of(PROFILE, CHAT_MODEL, table())


def test_significance_is_kept(tmp_path, monkeypatch):
    project(tmp_path, monkeypatch)
    first, expected = readings.token_significance_of(PROFILE, ORGANISM, table()), read(organism())
    np.testing.assert_allclose(first.significance, expected.significance, rtol=1e-5)
    assert first.drop(columns=["kl", "significance"]).equals(expected.drop(columns=["kl", "significance"]))
    monkeypatch.setattr(growing, "load_organism", lambda *_: pytest.fail("a model was loaded"))
    assert readings.token_significance_of(PROFILE, ORGANISM, table()).equals(first)


def test_the_loss_is_that_of_each_text_alone_without_the_tokens_left_out():
    model, (prompts, answers) = organism(), tokens()
    left_out = {answers[1][0], answers[6][2]}
    found = next_token.losses(model, tokenizer(), prompts, answers, left_out)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0].double()
        kept = [at for at, token in enumerate(answer) if token not in left_out]
        each = [-logits[len(prompt) + at - 1].softmax(-1)[answer[at]].log() for at in kept]
        assert found[row] == pytest.approx(float(sum(each) / len(each)), rel=1e-6) if each else np.isnan(found[row])
