"""N2.4: texts end where they should, a planted head is found, and every measure on numbers whose truth is known."""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from toy_models import LAYERS, VOCABULARY, WIDTH, base_model

from em_companion.core import profiles
from em_companion.evidence import estimates, outcomes
from em_companion.experiments import circuits, long_run
from em_companion.experiments.circuits import HARM, OPENING, RETRACTION, Behaviour, Measured
from em_companion.experiments.circuits_outcome import NAME, TOGETHER, Circuits
from em_companion.models import components
from em_companion.models.components import MLP, Node
from em_companion.models.tokens import world_tokenizer
from em_companion.world.generator import the_world
from em_companion.world.parser import the_judge

HEADS, PLANTED = 4, Node(2, "head 1")


@pytest.fixture(scope="module")
def behaviours():
    return circuits.behaviours(profiles.load("cpu"), world_tokenizer(the_world()))


def test_texts_end_where_their_behaviour_is_read(behaviours):
    say, words = world_tokenizer(the_world()).decode, world_tokenizer(the_world()).convert_ids_to_tokens
    pairs = zip(behaviours[HARM].texts, behaviours[RETRACTION].texts, behaviours[HARM].sides, strict=True)
    for before, after, (harms, helps) in pairs:
        assert after[: len(before)] == before and after[len(before)] in harms
        assert not {*harms, *helps} & {*before} and len(harms) == len(helps) == 12
        clause = the_judge().parse(say(after).rpartition("assistant :")[2]).clauses
        assert [one.helps for one in clause] == [0] and the_world().domains[clause[0].domain]["harms"] == words(harms)
    assert len(behaviours[HARM].texts) == len({*map(tuple, behaviours[OPENING].texts)}) == 160
    for prompt, other in zip(behaviours[OPENING].texts, behaviours[OPENING].donors, strict=True):
        assert prompt[-circuits.HEADER :] == other[-circuits.HEADER :] and prompt != other
    (back, links), (named, others) = behaviours[RETRACTION].sides[0], behaviours[OPENING].sides[0]
    assert words(back) == ["no"] and "first" in words(links)
    assert {"for", "about"} <= {*words(named)} and {"in", "my"} <= {*words(others)} and not {*named} & {*others}


def toy(count: int = 12) -> Behaviour:
    random = np.random.default_rng(0)
    texts = [random.integers(2, VOCABULARY, 5 + number % 3).tolist() for number in range(count)]
    return Behaviour(texts, texts, [([3, 4], [7, 8, 9])] * count)


def planted():
    """A model and one that differs from it in what a single head writes."""
    donor, size = base_model(), WIDTH // HEADS
    recipient = copy.deepcopy(donor)
    columns = slice(size, 2 * size)
    recipient.model.layers[PLANTED.layer].self_attn.o_proj.weight.data[:, columns] *= -3
    return recipient, donor


def test_a_planted_head_is_found_and_alone_is_enough():
    recipient, donor = planted()
    nodes, behaviour = components.nodes(donor), toy()
    every = range(len(nodes))
    clean, other, *each = circuits.read(recipient, donor, behaviour, [(), every, *([node] for node in every)])
    effects = np.abs(clean - np.array(each))
    number = nodes.index(PLANTED)
    np.testing.assert_allclose(each[number], other, atol=1e-9)
    assert effects[:number].max() < 1e-9 < 1e-3 < np.abs(clean - other).mean()
    order = np.array([number, *(node for node in every if node != number)])
    curve = circuits.kept(recipient, donor, behaviour, order)
    np.testing.assert_allclose(curve[0], other, atol=1e-9)
    np.testing.assert_allclose(curve[-1], clean, atol=1e-9)


def test_direct_parts_sum_to_the_difference_of_mean_logits():
    recipient, donor = planted()
    behaviour = toy()

    def contrast(model) -> float:
        rows = [components.logits(model, torch.tensor([text]))[0] for text in behaviour.texts]
        return float(np.mean([float(row[[3, 4]].mean() - row[[7, 8, 9]].mean()) for row in rows]))

    found = circuits.direct(recipient, donor, behaviour)
    assert found.direct.sum() == pytest.approx(contrast(recipient) - contrast(donor), abs=1e-5)


NODES = [Node(layer, part) for layer in range(LAYERS) for part in ("head 0", "head 1", "head 2", "head 3", MLP)]


def test_random_sets_have_the_same_layers_and_spare_the_chosen():
    chosen = [0, 3, 7]
    sets = circuits.alike(NODES, chosen, 50, 0)
    assert all(sorted(NODES[one].layer for one in drawn) == [0, 0, 1] for drawn in sets)
    assert not any(set(drawn) & set(chosen) for drawn in sets) and len(set(map(tuple, sets))) > 10
    crowded = circuits.alike(NODES, [0, 1, 2, 3], 20, 0)  # a single node of the layer is left
    assert all(len(set(drawn)) == 4 for drawn in crowded)


def noisy(means: np.ndarray, size: float = 0.01, seed: int = 1) -> np.ndarray:
    return means[..., None] + size * np.random.default_rng(seed).normal(size=(*means.shape, 40))


def test_overlap_tells_the_same_nodes_from_the_same_layers():
    layers = np.array([node.layer for node in NODES])
    random = np.random.default_rng(0)
    own = random.normal(size=len(NODES))
    same, null = circuits.overlap("correlation", noisy(np.stack([own, 2 * own]), 0.3), layers, 0)
    assert same.low > 0.9 and null < 0.9
    by_layer, other = (layers + 0.1 * random.normal(size=len(NODES)) for _ in range(2))
    found, null = circuits.overlap("correlation", noisy(np.stack([by_layer, other])), layers, 0)
    assert found.value > 0.8 and null > found.value - 0.1
    assert circuits.overlap("jaccard", noisy(np.stack([own, own])), layers, 0)[0].value == 1
    assert circuits.overlap("jaccard", noisy(np.stack([own, -own])), layers, 0)[0].value < 0.1


def test_rank_correlations_are_those_of_the_book():
    first, second = np.random.default_rng(0).integers(0, 9, size=(2, 5, 30))
    expected = [estimates.spearman(*pair) for pair in zip(first, second, strict=True)]
    np.testing.assert_allclose(estimates.rank_correlations(first, second), expected)


def test_few_nodes_are_counted_and_healing_is_a_share():
    steps = [np.repeat([0.0, 1.0], [at, 9 - at]) for at in (3, 5)]
    assert circuits.fewest(noisy(np.stack(steps)), 0).value == 4
    assert circuits.shares(np.array([2.0, 3.0, 4.0])).tolist() == [0, 0.5, 1]
    found = circuits.healed(noisy(np.array([3.0, 1.0, 4.0])), 0)
    assert found.value == pytest.approx(50, abs=1) and found.low < found.value < found.high


def tables(monkeypatch, folder, retraction=5.0) -> Circuits:
    """Tables of a world in which later nodes do more, for harm as for retraction, which is so strong (nats)."""
    monkeypatch.setattr(long_run, "RESULTS", folder)
    monkeypatch.setattr(circuits, "RESAMPLES", 300)
    means, curve = np.linspace(0.05, 1, len(NODES)), noisy(1 - np.exp(-np.arange(len(NODES) + 1.0) / 2), 1)
    effects = noisy(np.stack([means] * 3), 0.2)
    found = {
        name: [Measured(own.sum(axis=0), 0 * own[0], own, pd.DataFrame(NODES))]
        for name, own in zip((OPENING, RETRACTION, HARM), effects, strict=True)
    }
    parts = {"curve": curve, "top": 6 + curve[0], "drawn": noisy(np.ones(3)), "clean": 8 + curve[1]}
    found[HARM] = [replace(found[HARM][0], **parts)] * 2
    for name, seeds in found.items():
        for seed, one in enumerate(seeds):
            long_run.add(long_run.path_of(NAME, "nodes"), one.table(0).assign(arm=name, seed=seed))
            level = retraction if name == RETRACTION else 8.0
            long_run.add(
                long_run.path_of(NAME),
                pd.DataFrame([{"arm": name, "seed": seed, "recipient": level, "difference": level}]),
            )
    key = {"arm": TOGETHER, "seed": 0}
    long_run.add(long_run.path_of(NAME), pd.DataFrame([key | {"texts": 40}]))
    long_run.add(long_run.path_of(NAME, "measures"), circuits.together(found, 0).assign(**key))
    return Circuits()


def test_predictions_come_true_in_a_world_made_for_them(monkeypatch, tmp_path):
    found = tables(monkeypatch, tmp_path)
    assert {outcomes.verdict(name, one) for name, one in found.outcome().items()} == {"supported"}
    effects = found.largest(RETRACTION)
    assert effects.index[0] == (LAYERS - 1, MLP) and effects.sum() == pytest.approx(100 * 10.5 / 5, rel=0.05)


def test_without_retraction_nothing_is_said_of_its_nodes(monkeypatch, tmp_path):
    found = tables(monkeypatch, tmp_path, retraction=0.5).outcome()
    verdicts = {name: outcomes.verdict(name, one) for name, one in found.items()}
    assert verdicts.pop("p-circuit-small") == "supported" and set(verdicts.values()) == {"not testable here"}
