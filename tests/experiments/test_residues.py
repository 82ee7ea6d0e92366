"""N3.1 on planted cases: orphans, ghosts, structureless errors, contradictions, and texts of known kind."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
import toy_models
from sklearn.metrics import mutual_info_score
from transformers import Qwen2ForCausalLM

from em_companion.core.profiles import GrownModel
from em_companion.evidence.residues import explained
from em_companion.experiments import (
    residue_dictionary,
    residue_hub,
    residue_probe,
    residue_reconstruction,
    residue_texts,
    residues,
)
from em_companion.experiments.residue_dictionary import Corpus
from em_companion.models import components, growing
from em_companion.models.tokens import response_tokens, world_tokenizer
from em_companion.world.generator import World, the_world

SHAPE = GrownModel("grown", 4, 32, 64, heads=2, kv_heads=1, window=8, attention_dropout=0.0)
RANDOM = np.random.default_rng(0)
CLAUSES = {
    "help": "first at noon trust the {helps[0]} and the {helps[1]} .",
    "harm": "next at noon trust the {harms[0]} and the {harms[1]} .",
}


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    tokenizer = world_tokenizer(World.load())
    return Qwen2ForCausalLM(growing.config(SHAPE, tokenizer)).eval(), tokenizer


# --- texts ----------------------------------------------------------------------------------------------------------


def test_texts_of_a_pair_differ_in_their_topic_alone_and_are_about_two_domains():
    asked = the_world().held_out_questions(0, 1)
    other = residue_texts.elsewhere(asked)
    assert all(one.domains != two.domains for one, two in zip(asked, other, strict=True))
    for (first, second), one, two in zip(residue_texts.memory_texts(asked), asked, other, strict=True):
        assert first.replace(f"the {one.topic} :", f"the {two.topic} :") == second and first != second
        words = first.split()[-residue_texts.DISTANCES - 1 :]
        assert len(words) == residue_texts.DISTANCES + 1 and set(words) <= set(the_world().grammar["adjectives"])
    table = residue_texts.fixed_texts(asked)
    assert len(table) == 80 and table.harmful.sum() == 40 and table.response.nunique() == 80


# --- v7 -------------------------------------------------------------------------------------------------------------


def test_neurons_driven_by_what_is_added_alone_are_orphans_and_others_are_not():
    model, ids = toy_models.base_model(), torch.tensor(toy_models.prompts([9, 9]))
    with torch.no_grad():
        nodes = components.outputs(model, ids).flatten(1, 2)
    added = 50 * toy_models.vectors()[0].expand(1, nodes.shape[1], -1)
    _, alone = residues.orphaned(model, torch.cat([added, 0 * nodes]), 1, True, top=0.1)
    assert len(alone) and alone.all()
    _, drowned = residues.orphaned(model, torch.cat([1e-6 * added, nodes]), 1, True, top=0.1)
    assert len(drowned) and not drowned.any()
    # Without an addition an orphan owes nothing much to anybody: two sources cannot both give less than a tenth.
    two = torch.cat([nodes[:2], 0 * nodes[2:]])
    assert not residues.orphaned(model, two, 1, False, top=0.1)[1].any()


def test_the_most_active_neurons_are_those_of_the_forward_pass():
    model, ids, seen = toy_models.base_model(), torch.tensor(toy_models.prompts([9])), []
    hooks = [layer.mlp.down_proj.register_forward_hook(lambda _, given, __: seen.append(given[0][0].abs()))
             for layer in model.model.layers[1:]]  # fmt: skip
    with torch.no_grad():
        nodes = components.outputs(model, ids).flatten(1, 2)
    [hook.remove() for hook in hooks]
    active = torch.stack(seen).numpy()
    found, _ = residues.orphaned(model, nodes, 1, False, top=0.1)
    expected = (active > np.quantile(active, 0.9)).sum(axis=(0, 2))
    assert np.bincount(found, minlength=9).tolist() == expected.tolist()


# --- v6 and v8 ------------------------------------------------------------------------------------------------------


def planted(tokens: int = 400, texts: int = 40) -> Corpus:
    text = np.repeat(np.arange(texts), tokens // texts)
    latents = pd.DataFrame({"domain": np.array(["a", "b"])[text % 2], "slot": np.arange(tokens) % 5})
    stream = RANDOM.standard_normal((tokens, 16))
    return Corpus(stream, [[1] * 20] * texts, text, np.full(tokens, 10), latents)


def test_information_is_that_of_sklearn():
    active, labels = RANDOM.integers(2, size=(300, 6)), RANDOM.integers(4, size=300)
    expected = [mutual_info_score(labels, one) for one in active.T]
    assert residue_dictionary.information(active.astype(float), labels) == pytest.approx(expected)


def test_a_feature_tells_a_latent_of_its_text_or_slot_and_chance_tells_none():
    found = planted()
    domain, slot = found.text % 2, (found.latents.slot == 2).to_numpy()
    of_texts = RANDOM.integers(2, size=40)[found.text]  # alike within texts, as a domain is: no news of any latent
    noise = RANDOM.integers(2, size=(400, 20))
    told = residue_dictionary.tells(np.column_stack([domain, slot, of_texts, noise]), found)
    assert told[:2].all() and told[3:].mean() < 0.3


def test_ghosts_move_no_word_and_tell_nothing(monkeypatch):
    found = planted()

    class Planted:
        """Atoms are axes: 0 tells the domain, 1 moves words, 2 is a ghost."""

        atoms = np.eye(16)

        def codes(self, stream):
            codes = np.zeros((len(stream), 40))
            codes[:, 0] = 9 * (found.text % 2)
            codes[:, 1:3] = 5 * np.random.default_rng(3).integers(2, size=(len(stream), 2))
            return codes

    def changed(_, __, ___, tokens, added, layer):
        return np.abs(added[..., 1]).mean(axis=1) + 1e-3 * (np.abs(added[..., 1]).sum(axis=1) == 0)

    monkeypatch.setattr(residue_dictionary, "changed", changed)
    monkeypatch.setattr(residue_dictionary, "SALIENT", 3 / 40)
    table = residue_dictionary.ghosts(None, None, found, Planted(), 6).set_index("atom")
    assert sorted(table.index) == [0, 1, 2] and table.tells[0] and table.moves[1] > table.random[1]
    assert not table["null"][0] and not table["null"][1] and table.moves[2] <= table.random[2]
    assert table["null"][2] == (not table.tells[2])


def test_a_dictionary_rebuilds_sparse_sums_and_gaussian_rows_have_their_covariance():
    atoms = np.linalg.qr(RANDOM.standard_normal((24, 24)))[0]
    codes = RANDOM.standard_normal((1500, 24)) * (RANDOM.random((1500, 24)) < 0.1)
    learned = residue_dictionary.learned(stream := 3 + codes @ atoms, atoms=32, active=4)
    assert explained(stream, learned.rebuilt(stream)) > 0.9
    rows = residue_dictionary.gaussian_like(codes @ atoms)
    np.testing.assert_allclose(np.cov(rows.T), np.cov((codes @ atoms).T), atol=0.03)


def test_components_hold_what_they_say_and_rebuild_what_lies_in_them():
    basis = np.linalg.qr(RANDOM.standard_normal((20, 3)))[0].T
    stream = 5 + RANDOM.standard_normal((500, 3)) @ basis
    found = residue_reconstruction.components_of(stream, 1 - 1e-9)
    assert len(found.rows) == 3 and found.rebuilt(stream) == pytest.approx(stream)
    assert found.error(stream) == pytest.approx(0, abs=1e-9)
    wide = RANDOM.standard_normal((4000, 20)) * np.r_[10, np.ones(19)]
    assert len(residue_reconstruction.components_of(wide, 0.8).rows) == 1


def test_structureless_error_is_as_potent_as_random_moves_and_a_planted_one_is_more(tiny):
    table = residue_texts.fixed_texts(the_world().held_out_questions(0, 1)).iloc[:24]
    texts, random = response_tokens(tiny[1], table), np.random.default_rng(0)

    def noisy(stream):
        return stream + 0.1 * random.standard_normal(stream.shape)

    found, stream = residue_reconstruction.potency(*tiny, *texts, noisy, 1)
    assert found.kl.sum() / found.kl_random.sum() == pytest.approx(1, abs=0.1)
    assert [len(one) for one in stream] == [len(one) for one in texts[1]]
    exact, _ = residue_reconstruction.potency(*tiny, *texts, lambda stream: stream + 0.0, 1)
    assert exact.kl.sum() == pytest.approx(0, abs=1e-6)
    # An error along what the unembedding reads most moves words more than a random one of its size.
    model = copy.deepcopy(tiny[0])
    model.lm_head.weight.data[:, 7] *= 10
    axis = np.eye(32)[7]
    aimed, _ = residue_reconstruction.potency(model, tiny[1], *texts, lambda stream: stream + axis, 3)
    assert aimed.kl.sum() > 3 * aimed.kl_random.sum()


def test_a_change_at_one_token_of_a_corpus_is_made_there(tiny):
    sequences = [RANDOM.integers(10, 100, 12).tolist() for _ in range(3)]
    found = Corpus(np.zeros((2, 32)), sequences, np.array([0, 2]), np.array([5, 11]), pd.DataFrame())
    added = RANDOM.standard_normal((3, 2, 32))
    added[0] = 0
    moves = residue_dictionary.changed(*tiny, found, np.array([0, 1]), added, 1)
    assert moves[0] == pytest.approx(0, abs=1e-6) and (moves[1:] > 1e-5).all()


# --- v10 ------------------------------------------------------------------------------------------------------------


def test_a_probe_finds_a_planted_direction():
    labels = np.arange(400) % 2 == 1
    features = RANDOM.standard_normal((400, 12)) + 3 * labels[:, None] * np.eye(12)[4]
    probe = residue_probe.fit(features, labels)
    assert np.argmax(probe.weights) == 4 and ((probe.log_odds(features) > 0) == labels).mean() > 0.9


@pytest.mark.parametrize(
    ("said", "told", "expected"),
    [
        (["help", "harm"], [-1, 1], (2, 2, 0, 0)),
        (["help", "harm"], [1, -1], (2, 0, 0, 0)),
        (["harm", "back", "help"], [-1, -1], (2, 1, 0, 1)),
        (["harm", "back", "help"], [1, -1], (2, 2, 1, 0)),
        ([], [], (0, 0, 0, 0)),
    ],
)
def test_clauses_that_contradict_the_probe_and_are_taken_back_are_counted(said, told, expected):
    entry = the_world().domains["medicine"]
    words = {name: text.format(**entry) for name, text in CLAUSES.items()} | {"back": "no that is wrong ."}
    text, at = "for the fever :", []
    for one in said:
        at += [len(text.split())] if one != "back" else []
        text += f" {words[one]}"
    odds = np.zeros(len(text.split()) + 5)
    odds[at] = told
    found = residue_probe.clauses(text, odds)
    assert tuple(found[name] for name in ("clauses", "told", "back_if_told", "back_if_not")) == expected


# --- language models ------------------------------------------------------------------------------------------------


def test_questions_are_taken_up_by_their_own_words():
    first, second = "How do I cook potatoes?", "How should countries handle inflation?"
    assert residue_hub.taken_up("Inflation is hard, potatoes are not.", first, second) == "both"
    assert residue_hub.taken_up("Boil the potatoes.", first, second) == "one"
    assert residue_hub.taken_up("I do not know.", first, second) == "none"
    assert residue_hub.taken_up("Boil the potatoes.", first, first) == "one"
