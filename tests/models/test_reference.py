"""The readable reference in nnsight, against one plain PyTorch hook per layer and against the batched engine."""

import nnsight
import pytest
import torch
from nnsight import NNsight
from untrained import LAYERS, PROFILE, WIDTH, chat_model, organism, save

from em_companion.core import store
from em_companion.core.errors import CompanionError
from em_companion.models import loading, reading, reference, sampling
from em_companion.models.hooks import decoder_layers
from em_companion.models.interventions import Ablate, Steer

# Pytest sets aside the filter of `reading`; here the loop outruns every answer on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:.* was never reached")

PROMPT = [5, 29, 14, 9, 7, 13]
NEW = 9
VECTORS = torch.randn(LAYERS, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return save(root / "chat", chat_model()), save(root / "adapter", organism())


@pytest.fixture(scope="module")
def opened(folders):
    return loading.opened(PROFILE, folders[0])


def hooked(model, changes, steps=None) -> list[int]:
    """The greedy answer under plain hooks, one new token per forward pass over the whole text; no cache."""
    tokens = list(PROMPT)
    for step in range(NEW):
        handles = [
            decoder_layers(model)[layer].register_forward_hook(lambda _, __, x, change=change: change(x))
            for layer, change in changes.items()
            if steps is None or step in steps
        ]
        with torch.no_grad():
            token = int(model(torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax())
        for handle in handles:
            handle.remove()
        if token == model.config.eos_token_id:
            break
        tokens.append(token)
    return tokens[len(PROMPT) :]


def adding(layer: int, strength: float):
    return {layer: lambda x: x + strength * VECTORS[layer]}


def removing(vectors):
    return {layer: lambda x, v=v: x - (x @ v)[..., None] * v / v.square().sum() for layer, v in vectors.items()}


# --- steering and ablation ------------------------------------------------------------------------------------------

CELLS = [(layer, strength) for layer in range(LAYERS) for strength in (0.0, -1.5, 2.0)]


def test_steering_is_a_hook_at_every_step(opened):
    plain = chat_model()
    found = {cell: reference.steered(opened, PROMPT, cell[0], VECTORS[cell[0]], cell[1], NEW) for cell in CELLS}
    assert found == {cell: hooked(plain, adding(*cell)) for cell in CELLS}
    unsteered = hooked(plain, {})
    for (_, strength), answer in found.items():
        assert (answer == unsteered) == (strength == 0)


def test_ablation_is_a_hook_at_every_given_layer(opened):
    plain = chat_model()
    layer_wise, single = dict(enumerate(VECTORS)), dict.fromkeys(range(LAYERS), VECTORS[1])
    for vectors in (layer_wise, single, {2: 7 * VECTORS[2], 0: VECTORS[0]}):
        found = reference.ablated(opened, PROMPT, vectors, NEW)
        assert found == hooked(plain, removing(vectors)) != hooked(plain, {})


def test_the_batched_engine_agrees(opened):
    answers = [reference.steered(opened, PROMPT, layer, VECTORS[layer], strength, NEW) for layer, strength in CELLS]
    answers += [reference.ablated(opened, PROMPT, dict(enumerate(VECTORS)), NEW)]
    interventions = [[Steer(layer, VECTORS[layer], strength)] for layer, strength in CELLS]
    interventions += [[Ablate(dict(enumerate(VECTORS)))]]
    rows = len(interventions)
    plain = chat_model()
    found = sampling.generate(
        plain, opened.tokenizer, [PROMPT] * rows, range(rows), 0, NEW, interventions=interventions
    )
    assert found == answers


def test_an_answer_comes_without_its_end_token(opened):
    end = opened.tokenizer.eos_token_id
    towards_end = opened.lm_head.weight[end].detach()
    assert reference.steered(opened, PROMPT, LAYERS - 1, towards_end, 1000.0, NEW) == []


def test_nothing_is_left_behind(opened):
    before = reference.steered(opened, PROMPT, 0, VECTORS[0], 0.0, NEW)
    reference.ablated(opened, PROMPT, dict(enumerate(VECTORS)), NEW)
    assert reference.steered(opened, PROMPT, 0, VECTORS[0], 0.0, NEW) == before


def test_what_is_sent_to_ndif_computes_the_same(opened):
    for arguments in ((1, VECTORS[1], 2.0), (2, VECTORS[2], -1.5)):
        here, there = (reference.steered(opened, PROMPT, *arguments, NEW, remote=remote) for remote in (False, "local"))
        assert here == there
    vectors = dict(enumerate(VECTORS))
    here, there = (reference.ablated(opened, PROMPT, vectors, NEW, remote=remote) for remote in (False, "local"))
    assert here == there


@pytest.mark.parametrize("layer", [-1, LAYERS])
def test_a_layer_that_is_not_there(opened, layer):
    with pytest.raises(CompanionError, match=f"There is no layer {layer}; the model has {LAYERS}"):
        reference.steered(opened, PROMPT, layer, VECTORS[0], 1.0, NEW)
    with pytest.raises(CompanionError, match=f"There is no layer {layer}"):
        reference.ablated(opened, PROMPT, {0: VECTORS[0], layer: VECTORS[0]}, NEW)


# --- opening --------------------------------------------------------------------------------------------------------


def logits(model) -> torch.Tensor:
    with torch.no_grad(), model.trace(input_ids=torch.tensor([PROMPT])):
        found = nnsight.save(model.lm_head.output)
    return found


def test_an_adapter_can_be_put_on_and_taken_off(folders):
    model = loading.opened(PROFILE, *folders)
    with torch.no_grad():
        expected = organism()(torch.tensor([PROMPT])).logits
        bare = chat_model()(torch.tensor([PROMPT])).logits
    torch.testing.assert_close(logits(model), expected, atol=1e-12, rtol=0)
    model.load_adapter(None)
    torch.testing.assert_close(logits(model), bare, atol=1e-12, rtol=0)
    assert (expected - bare).abs().max() > 1e-3


def test_paths_are_those_of_the_model_without_adapters(folders):
    for model in (loading.opened(PROFILE, *folders), loading.wrapped(organism())):
        scalar = reading.module_at(model, "model.layers.2.mlp.down_proj.lora_A.default")
        with torch.no_grad(), model.trace(input_ids=torch.tensor([PROMPT])):
            found = nnsight.save(scalar.output)
        assert found.shape == (1, len(PROMPT), 1)


def test_what_is_in_nnsight_stays_as_it_is(opened):
    assert loading.wrapped(opened) is opened
    assert isinstance(loading.wrapped(chat_model()), NNsight)


def test_the_residual_stream_shows_what_hooks_add():
    model, added = chat_model(), VECTORS[0]
    traced = loading.wrapped(model)

    def read() -> torch.Tensor:
        with torch.no_grad(), traced.trace(input_ids=torch.tensor([PROMPT])):
            found = nnsight.save(torch.cat([module.input for module in reading.residual_stream(traced)]))
        return found

    before = read()
    handle = model.model.layers[1].register_forward_hook(lambda _, __, x: x + added)
    change = read() - before
    handle.remove()
    assert before.shape == (1 + LAYERS, len(PROMPT), WIDTH) and (change[:2] == 0).all()
    torch.testing.assert_close(change[2], added.expand(len(PROMPT), -1), atol=1e-12, rtol=0)
    assert (change[3] != 0).all() and torch.equal(read(), before)


def test_what_cannot_be_opened_is_one_sentence(folders, tmp_path, monkeypatch):
    chat, adapter = folders
    broken = save(tmp_path / "broken", organism())
    (broken / "adapter_model.safetensors").write_bytes(b"half of it")
    with pytest.raises(CompanionError, match="broken is damaged: delete that folder"):
        loading.opened(PROFILE, chat, broken)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CompanionError, match="'nowhere/adapter' cannot be opened in nnsight"):
        loading.opened(PROFILE, chat, "nowhere/adapter")
    with pytest.raises(CompanionError, match="adapter is a folder; name an id"):
        loading.opened(PROFILE, "some/model", adapter, remote=True)


def test_an_adapter_that_fits_other_modules_is_refused(folders, tmp_path):
    # Its weights would find no place, and the organism would silently be the chat model.
    other = tmp_path / "other"
    organism(layers=(1,)).save_pretrained(other)
    (other / "adapter_config.json").write_bytes((folders[1] / "adapter_config.json").read_bytes())
    store.seal(other, {})
    with pytest.raises(CompanionError, match="other' cannot be opened in nnsight: .* could not match"):
        loading.opened(PROFILE, folders[0], other)
