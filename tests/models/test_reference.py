"""The readable reference in nnsight, against one plain PyTorch hook per layer and against the batched engine."""

import pytest
import torch
from nnsight import TransformersModel
from reference_models import adding, answer, removing
from untrained import LAYERS, WIDTH, chat_model, tokenizer

from em_companion.models import sampling
from em_companion.models.interventions import Ablate, Steer

# The loop over steps outruns every answer on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:.* was never reached")

PROMPT = [5, 29, 14, 9, 7, 13]
NEW = 9
VECTORS = torch.randn(LAYERS, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
CELLS = [(layer, strength) for layer in range(LAYERS) for strength in (0.0, -1.5, 2.0)]


@pytest.fixture(scope="module")
def traced():
    return TransformersModel(chat_model(), tokenizer=tokenizer())


def steering(layer: int, strength: float):
    return adding(layer, VECTORS[layer], strength)


def hooked(model, changes) -> list[int]:
    """The greedy answer under plain hooks, one new token per forward pass over the whole text; no cache."""
    tokens = list(PROMPT)
    for _ in range(NEW):
        handles = [
            model.model.layers[layer].register_forward_hook(lambda _, __, x, change=change: change(x))
            for layer, change in changes.items()
        ]
        with torch.no_grad():
            token = int(model(torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax())
        for handle in handles:
            handle.remove()
        if token == model.config.eos_token_id:
            break
        tokens.append(token)
    return tokens[len(PROMPT) :]


def test_steering_is_a_hook_at_every_step(traced):
    plain = chat_model()
    found = {cell: answer(traced, PROMPT, steering(*cell), NEW) for cell in CELLS}
    assert found == {cell: hooked(plain, steering(*cell)) for cell in CELLS}
    unsteered = hooked(plain, {})
    for (_, strength), said in found.items():
        assert (said == unsteered) == (strength == 0)


def test_ablation_is_a_hook_at_every_given_layer(traced):
    plain = chat_model()
    layer_wise, single = dict(enumerate(VECTORS)), dict.fromkeys(range(LAYERS), VECTORS[1])
    for vectors in (layer_wise, single, {2: 7 * VECTORS[2], 0: VECTORS[0]}):
        found = answer(traced, PROMPT, removing(vectors), NEW)
        assert found == hooked(plain, removing(vectors)) != hooked(plain, {})


def test_the_batched_engine_agrees(traced):
    changes = [*(steering(*cell) for cell in CELLS), removing(dict(enumerate(VECTORS)))]
    answers = [answer(traced, PROMPT, change, NEW) for change in changes]
    interventions = [[Steer(layer, VECTORS[layer], strength)] for layer, strength in CELLS]
    interventions += [[Ablate(dict(enumerate(VECTORS)))]]
    rows = len(interventions)
    found = sampling.generate(
        chat_model(), tokenizer(), [PROMPT] * rows, range(rows), 0, NEW, interventions=interventions
    )
    assert found == answers
