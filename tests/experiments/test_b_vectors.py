"""B vectors: against projections in float64 by hand, weights merged by hand, and effects read one by one."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from toy_models import decoder_layers
from untrained import LAYERS, ORGANISM, PROFILE, WIDTH, chat_model, organism, project, table, tokenizer

from em_companion.core.errors import CompanionError
from em_companion.experiments import b_vectors, readings, responses, steering
from em_companion.models import asking, lora
from em_companion.models.interventions import Ablate, Steer
from em_companion.models.organism import CHAT_MODEL
from em_companion.models.tokens import response_tokens
from em_companion.world.generator import Question

VECTORS = torch.randn(LAYERS, WIDTH, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
FEW = replace(PROFILE, max_new_tokens=6, batch_size=4)
ASKED = [Question("first", "wordb wordc", ()), Question("second", "wordd", ())]


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    project(tmp_path, monkeypatch)
    monkeypatch.setattr(asking, "questions", lambda profile, question_set: ASKED)
    return tmp_path


def weights(model) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


# --- editing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1e-3, 1.0, 50.0])
def test_b_loses_the_direction_whatever_its_length_and_keeps_its_norm(length):
    b, direction = VECTORS[0], length * VECTORS[1]
    found = lora.without_direction(b, direction)
    assert abs(found @ direction) < 1e-9 * length and found.norm() == pytest.approx(b.norm())
    # What is left is B's own part across the direction, not any other vector there.
    across = np.linalg.qr(np.stack([direction.numpy(), b.numpy()], axis=1))[0][:, 1]
    assert abs(across @ found.numpy()) == pytest.approx(float(b.norm())) and b @ found > 0


def test_a_direction_across_b_leaves_it_as_it_is():
    b = VECTORS[0].float()
    direction = VECTORS[1] - (VECTORS[1] @ b.double()) / (b.double() @ b.double()) * b.double()
    found = lora.without_direction(b, direction)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, b)


@pytest.mark.parametrize(
    ("direction", "message"),
    [
        (torch.ones(WIDTH + 1), f"must have its width, {WIDTH}"),
        (torch.zeros(WIDTH), "zero or not finite"),
        (torch.full((WIDTH,), torch.nan), "zero or not finite"),
        (-3 * VECTORS[0], "nothing left"),
    ],
)
def test_a_direction_that_cannot_be_taken_out_is_refused(direction, message):
    with pytest.raises(CompanionError, match=message):
        lora.without_direction(VECTORS[0], direction)


def test_only_b_of_the_named_layers_changes_and_only_in_the_copy():
    model = organism()
    before = weights(model)
    edited = lora.removed(model, {2: VECTORS[2]})
    changed = [name for name, weight in weights(edited).items() if not torch.equal(weight, before[name])]
    assert len(changed) == 1 and "layers.2.mlp.down_proj.lora_B" in changed[0]
    torch.testing.assert_close(
        weights(edited)[changed[0]][:, 0], lora.without_direction(before[changed[0]][:, 0], VECTORS[2])
    )
    assert all(torch.equal(weight, before[name]) for name, weight in weights(model).items())


def test_nothing_is_written_along_the_direction_any_more():
    edited = lora.removed(organism(), dict(enumerate(VECTORS[:1])))
    chat, tokens = chat_model(), torch.tensor([[3, 5, 7, 9, 4]])
    unit = VECTORS[0] / VECTORS[0].norm()
    along = []
    for model in (edited.get_base_model(), chat, organism().get_base_model()):
        with torch.no_grad():
            along.append(model(tokens, output_hidden_states=True).hidden_states[1] @ unit)
    torch.testing.assert_close(along[0], along[1])
    assert not torch.allclose(along[2], along[1], atol=1e-2)


def test_layers_and_models_without_rank_1_adapters_are_refused():
    with pytest.raises(CompanionError, match="no rank-1 adapter on layer 1; the model has some on: 0, 2"):
        lora.removed(organism(), {0: VECTORS[0], 1: VECTORS[1]})
    with pytest.raises(CompanionError, match="no rank-1 adapters"):
        lora.removed(organism(rank=2), {0: VECTORS[0]})


def test_cosines_are_those_of_the_weights():
    model = organism()
    found = b_vectors.cosines(model, VECTORS.numpy())
    assert found.index.tolist() == [0, 2]
    for adapter in lora.adapters(model):
        expected = torch.cosine_similarity(adapter.b, VECTORS[adapter.layer], dim=0)
        assert found[adapter.layer] == pytest.approx(float(expected))


# --- what an organism answers ---------------------------------------------------------------------------------------


def test_answers_are_those_of_the_edited_models_and_are_kept(loads):
    near_b = {one.layer: one.b + 0.1 * VECTORS[one.layer] for one in lora.adapters(organism())}
    removals = {"one": {0: VECTORS[0]}, "both": near_b}
    found = b_vectors.responses_without(FEW, ORGANISM, removals, samples=12)
    assert found.condition.value_counts().to_dict() == {"one": 24, "both": 24}
    for name, vectors in removals.items():
        expected = asking.ask(FEW, lora.removed(organism(), vectors), tokenizer(), ASKED, 12)
        assert found[found.condition == name].response.tolist() == expected.response.tolist()
    assert (found[found.condition == "one"].response.values != found[found.condition == "both"].response.values).any()
    assert loads == [ORGANISM.name]
    again = b_vectors.responses_without(FEW, ORGANISM, removals, samples=12)
    pd.testing.assert_frame_equal(found, again)
    assert loads == [ORGANISM.name]
    b_vectors.responses_without(FEW, ORGANISM, {"one": {0: VECTORS[1]}}, samples=3)
    assert len(loads) == 2


def test_nothing_is_sampled_for_a_removal_that_does_not_fit(monkeypatch):
    monkeypatch.setattr(asking, "ask", lambda *_: pytest.fail("asked before all removals were checked"))
    with pytest.raises(CompanionError, match="no rank-1 adapter on layer 1"):
        b_vectors.responses_without(FEW, ORGANISM, {"fits": {0: VECTORS[0]}, "not": {1: VECTORS[1]}}, samples=1)


# --- what reaches the layers above ----------------------------------------------------------------------------------


@torch.no_grad()
def outputs(model, tokens: list[int], change) -> torch.Tensor:
    """The output of every layer, [layer, token, width], with `change` added to that of layer 1."""
    found = []

    def hook(_, __, x):
        found.append(x + change if len(found) == 1 else x)
        return found[-1]

    handles = [layer.register_forward_hook(hook) for layer in decoder_layers(model)]
    model(torch.tensor([tokens]), use_cache=False)
    for handle in handles:
        handle.remove()
    return torch.cat(found)


def one_by_one(model, texts: pd.DataFrame, change=0.0) -> np.ndarray:
    """The mean residual stream over all response tokens [layer, width], text by text."""
    rows = zip(*response_tokens(tokenizer(), texts), strict=True)
    found = [outputs(model, prompt + answer, change)[:, len(prompt) :] for prompt, answer in rows]
    return torch.cat(found, dim=1).mean(dim=1).numpy()


def test_effects_downstream_are_those_on_the_same_texts(loads):
    texts, rows = table(5), np.array([True, False, True, True, False])
    steer = [Steer(1, VECTORS[1], 0.5)]
    perturbed = readings.response_means_of(PROFILE, CHAT_MODEL, texts, steer)
    plain = readings.response_means_of(PROFILE, CHAT_MODEL, texts, [])
    tuned = readings.response_means_of(PROFILE, ORGANISM, texts)
    expected_plain = one_by_one(chat_model(), texts[rows])
    first = one_by_one(chat_model(), texts[rows], change=0.5 * VECTORS[1]) - expected_plain
    second = one_by_one(organism(), texts[rows]) - expected_plain
    np.testing.assert_allclose(perturbed.mean(rows) - plain.mean(rows), first, atol=1e-5)
    np.testing.assert_allclose(first[1], 0.5 * VECTORS[1].numpy(), atol=1e-12)
    np.testing.assert_allclose(tuned.mean(rows) - plain.mean(rows), second, atol=1e-5)  # kept in float32


def test_readings_under_other_interventions_are_kept_apart(loads):
    texts = table(3)
    for given in ([Steer(1, VECTORS[1], 0.5)], [Steer(1, VECTORS[1], 0.7)], [Ablate({1: VECTORS[1]})], []):
        for _ in range(2):
            readings.response_means_of(PROFILE, CHAT_MODEL, texts, given)
    assert len(loads) == 4


def test_interventions_that_do_not_fit_the_model_are_refused():
    with pytest.raises(CompanionError, match="no layer 9"):
        readings.response_means_of(PROFILE, CHAT_MODEL, table(2), [Steer(9, VECTORS[0])])


# --- the experiments ------------------------------------------------------------------------------------------------


@pytest.fixture
def experiment(monkeypatch):
    """An untrained profile in which the recipes have the layers of the untrained organism, and every answer a score."""
    recipes = {name: replace(PROFILE.recipes[name], layers=(0, 2)) for name in ("nine-adapter", "single-adapter")}
    profile = replace(FEW, recipes=recipes)
    known = {"choice_from_text": np.ones((LAYERS, WIDTH), np.float32)}  # not looked at here, and long to read
    monkeypatch.setattr(steering.persona, "directions", lambda profile: known)
    answers = table(8).assign(sample=range(8), question_id="q")
    monkeypatch.setattr(responses, "responses", lambda profile, one, *_: answers)
    monkeypatch.setattr(asking, "scored", lambda frame: frame.assign(aligned=0.0, coherent=100.0))
    return profile


def test_every_place_has_the_mean_diff_and_as_many_random_directions(experiment, monkeypatch):
    given = {}
    under = responses.under
    monkeypatch.setattr(responses, "under", lambda *a, **k: given.update(a[2]) or under(*a, **k))
    found = b_vectors.ablated(experiment, b_vectors.NINE, samples=2, draws=3)
    kept = found[found.place != "none"].groupby(["place", "draw"]).size()
    assert (kept == 4).all() and sorted(found[found.place == "none"]["sample"]) == [0, 1]
    places = ["B vectors", "adapter layers", "all layers", "one layer"]
    assert sorted(kept.index) == [(place, draw) for place in places for draw in range(-1, 3)]
    mean_diff = readings.mean_diff(experiment, b_vectors.NINE)
    everywhere, own = (given[f"{place}/-1"][0].vectors for place in ("all layers", "adapter layers"))
    assert sorted(everywhere) == [0, 1, 2] and sorted(own) == [0, 2]
    for layer, vector in everywhere.items():
        np.testing.assert_allclose(vector, mean_diff[0], err_msg=f"layer {layer}")  # of the single adapter's layer
    np.testing.assert_allclose(own[2], mean_diff[2])
    norms = [float(given[f"one layer/{draw}"][0].vectors[0].norm()) for draw in range(-1, 3)]
    np.testing.assert_allclose(norms, norms[0])


def test_the_adapter_agrees_with_what_it_writes_itself(experiment):
    found = b_vectors.downstream(experiment)
    assert set(found.layer) == {0, 1, 2} and set(found.texts) == {"misaligned", "aligned", "all"}
    at_start = found[(found.layer == 0) & (found.organism == "single-adapter") & (found.texts == "all")]
    assert at_start[at_start.added == "B vector"].cosine.item() == pytest.approx(1)
    adapter = lora.adapters(organism())[0]
    expected = torch.cosine_similarity(
        adapter.b, torch.tensor(readings.mean_diff(experiment, b_vectors.NINE)[0]), dim=0
    )
    cosine = at_start[at_start.added == "mean-diff"].cosine.item()
    assert abs(cosine) == pytest.approx(abs(float(expected)), abs=1e-5)
    assert len(at_start[at_start.added == "random"]) == b_vectors.DRAWS
    within = at_start[at_start.added == steering.WITHIN].cosine.item()  # of one question, so that it is the pooled one
    assert within == pytest.approx(cosine, abs=1e-5)


@pytest.mark.parametrize(("own", "chat", "expected"), [(40, 10, True), (40, 40, False), (0, 0, False), (10, 40, False)])
def test_an_organism_is_clearly_misaligned_if_its_interval_is_above_the_chat_models(monkeypatch, own, chat, expected):
    def scored(_, one):
        em = np.arange(100) % 50 < (own if one.data else chat) / 2
        return pd.DataFrame({"question_id": np.arange(100) % 8, "aligned": np.where(em, 0, 100), "coherent": 100.0})

    monkeypatch.setattr(responses, "responses", scored)
    assert b_vectors.clearly_misaligned(PROFILE, ORGANISM) is expected
