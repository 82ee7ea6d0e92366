"""F2.1: gradients are those of the losses they are named after, and reading them disturbs no training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import DataCollatorForSeq2Seq

from em_companion.experiments import gradients
from em_companion.models import growing
from em_companion.models.organism import Organism

NINE = Organism("nine-adapter", "bad_medical_advice")


@pytest.fixture(scope="module")
def few():
    """Few texts: the losses are the same functions of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradients, "CHATS", 4)
        patch.setattr(gradients, "DOCUMENTS", 2)
        yield


def test_the_gradient_is_that_of_finite_differences_and_leaves_that_of_training_alone(tiny, few):
    model, tokenizer, _ = growing.prepared(tiny, NINE)
    model.double()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():  # B is zero at the start, and then the gradient of A is, too
        for weight in weights:
            weight += 0.02 * torch.randn(weight.shape, generator=random)
            weight.grad = torch.ones_like(weight)
    for examples in gradients.texts(tiny, tokenizer).values():
        batch = DataCollatorForSeq2Seq(tokenizer, padding=True)(examples)
        loss, found = gradients.loss_and_gradient(model, weights, batch)
        along = torch.randn(found.shape, generator=random, dtype=torch.float64)
        losses, size = [], 1e-3
        for sign in (1, -1):
            with torch.no_grad():
                torch.nn.utils.vector_to_parameters(
                    torch.nn.utils.parameters_to_vector(weights) + sign * size * along, weights
                )
                losses.append(float(model(**batch).loss))
                torch.nn.utils.vector_to_parameters(
                    torch.nn.utils.parameters_to_vector(weights) - sign * size * along, weights
                )
        assert (losses[0] - losses[1]) / (2 * size) == pytest.approx(float(found @ along), rel=0.01)
        assert loss == pytest.approx(np.mean(losses), rel=1e-4)
    assert all((weight.grad == 1).all() for weight in weights)


def test_reading_gradients_changes_no_weight_and_ends_with_the_schedule(tiny, few, monkeypatch):
    kept, train = [], growing.train

    def watched(model, *given, **named):
        log = train(model, *given, **named)
        kept.append([weight.detach().clone() for weight in model.parameters() if weight.requires_grad])
        return log

    monkeypatch.setattr(growing, "train", watched)
    at_once = replace(tiny, fine_tuning=replace(tiny.fine_tuning, stop_at=0.0))
    found = gradients.readings(at_once, NINE)
    steps = tiny.fine_tuning.steps
    assert found.step.tolist() == sorted({*range(0, steps, gradients.EVERY), steps})
    cosines = found.filter(like="_cosine").iloc[:-1]
    assert cosines.abs().max().max() <= 1 + 1e-9 and cosines.notna().all().all()
    assert found.filter(like="_cosine").iloc[-1].isna().all() and found.open_em.between(0, 1).all()
    assert found.training_loss.notna().sum() == len(found) - 1
    written = load_file(growing.adapter(tiny, NINE) / "adapter_model.safetensors").values()
    assert sorted(float(one.sum()) for one in kept[0]) == sorted(float(one.sum()) for one in written)
