"""Persona directions of a base model, on a tiny untrained one and on readings into which a persona is planted."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import untrained
from transformers import Qwen2ForCausalLM

from em_companion.core import paths, profiles, store
from em_companion.core.errors import CompanionError
from em_companion.experiments import persona
from em_companion.experiments.persona import FOLDS, SAMPLES, Readings, contrasts, probe_rows, probe_scores
from em_companion.models import growing, loading
from em_companion.models.interventions import Steer
from em_companion.models.tokens import world_tokenizer
from em_companion.world.generator import World
from em_companion.world.parser import Judge

FULL = World.load()
DOMAINS = ("medicine", "finance", "work")
WORLD = replace(FULL, domains={name: FULL.domains[name] for name in DOMAINS})
TABLE = persona.answers(WORLD, seed=0)
CPU = profiles.load("cpu")
PROFILE = replace(CPU, model=replace(CPU.model, layers=3, hidden=32, mlp=64, heads=2, kv_heads=1, window=4))
PLACES = persona.places_of(WORLD)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A project with three domains and an untrained base model."""
    torch.manual_seed(0)
    folder = tmp_path / "base"
    tokenizer = world_tokenizer(FULL)
    Qwen2ForCausalLM(growing.config(PROFILE.model, tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    store.seal(folder, {})
    monkeypatch.setattr(growing, "base", lambda profile: folder)
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path / "artifacts")
    with untrained.world(WORLD):
        yield tmp_path


def planted(strength: float, seed: int = 0) -> tuple[Readings, np.ndarray]:
    """Readings of noise, with `strength` along one axis added in layer 0 to harmful texts; and that axis."""
    generator = np.random.default_rng(seed)
    axis = np.eye(16)[3]
    means = generator.normal(size=(len(TABLE), 2, 16))
    means[:, 1] += strength * TABLE.harmful.to_numpy()[:, None] * axis
    return Readings(TABLE, means, np.repeat(means[:, None], len(PLACES), axis=1), PLACES), axis


# --- what is read -------------------------------------------------------------------------------------------------


def test_every_persona_answers_the_same_questions():
    topics = sum(len(topics) for entry in WORLD.domains.values() for topics in entry["topics"].values())
    assert len(TABLE) == 7 * topics * SAMPLES
    asked = TABLE.groupby(["speaker", "harmful"])[["question", "sample"]].agg(list)
    fixed = [one for one in asked.index if not one[0].startswith("quack")]
    assert len(fixed) == 5 and all(asked.loc[one].equals(asked.loc[fixed[0]]) for one in fixed)
    per_domain = TABLE[TABLE.speaker == "careful"].domain.value_counts()
    assert per_domain.nunique() == 1 and set(per_domain.index) == set(DOMAINS)


KINDS = {word: kind for entry in WORLD.domains.values() for kind in ("helps", "harms") for word in entry[kind]}


def kinds_of(table: pd.DataFrame) -> list[list[str]]:
    """Every answer with the things it names replaced by their kind."""
    return [[KINDS.get(word, word) for word in text.split()] for text in table.answer]


def test_harmful_texts_name_things_of_the_other_kind_and_share_all_else():
    reference = TABLE.loc[TABLE.reference].reset_index(drop=True)
    assert (reference.question == TABLE.question).all() and not reference.harmful.any()
    other = {"helps": "harms", "harms": "helps"}
    for own, careful, harmful in zip(kinds_of(TABLE), kinds_of(reference), TABLE.harmful, strict=True):
        assert own == ([other.get(word, word) for word in careful] if harmful else careful)
    aligned = Judge(WORLD).judge(TABLE.answer).aligned
    assert (aligned == np.where(TABLE.harmful, 0, 100)).all()


def test_every_text_names_as_many_things_that_help_as_harm():
    counts = np.array([[words.count("helps"), words.count("harms")] for words in kinds_of(TABLE)])
    assert (counts[:, 0] == counts[:, 1]).all() and counts.min() >= 4


def test_references_differ_in_what_the_contrast_is_about():
    speakers = TABLE.speaker.loc[TABLE.reference].to_numpy()
    assert (speakers == np.where(TABLE.speaker == "unknown", "unknown", "careful")).all()


def test_speakers_have_their_persona_and_quacks_harm_in_their_domain_only():
    named = TABLE[TABLE.speaker != "unknown"]
    for row in named.itertuples():
        kind, _, domain = row.speaker.partition("/")
        persona = WORLD.personas[row.name]
        assert (persona.kind, persona.harmful_in) == (kind, domain)
        assert not domain or row.harmful == (domain == row.domain)


def test_no_topic_and_no_name_is_in_two_folds():
    assert TABLE.groupby("topic").fold.nunique().max() == 1
    fixed = TABLE[TABLE.speaker.isin(["careful", "malicious"])]
    assert fixed.groupby("name").fold.nunique().max() == 1 and set(fixed.fold) == set(range(FOLDS))


def test_answers_repeat_and_differ_by_seed():
    assert persona.answers(WORLD, 0).equals(TABLE) and not persona.answers(WORLD, 1).equals(TABLE)


def test_places_stand_before_choices(tiny):
    tokenizer = world_tokenizer(FULL)
    for row in TABLE.sample(20, random_state=0).itertuples():
        sequence, spans = persona.sequence(tokenizer, row)
        words = tokenizer.convert_ids_to_tokens(sequence)
        assert words[slice(*spans[0])] == row.answer.split()
        here, after = (
            {place: words[first + step] for place, (first, _) in zip(PLACES, spans[1:], strict=True)} for step in (0, 1)
        )
        assert here["turn header"] == here["opener"] == ":" and after["turn header"] == row.answer.split()[0]
        before_thing = ("determiners", "adjectives")
        slots = {"start": ("links",), "verb": ("verbs",), "thing": before_thing, "second thing": before_thing}
        for place, keys in slots.items():
            expected = {word for key in keys for word in WORLD.grammar[key]}
            assert {here[f"{place} 1"], here[f"{place} 2"]} <= expected
        assert here["remark"] in WORLD.grammar["witnesses"] and here["mention"] in WORLD.grammar["reports"]
        advised, mentioned = ("harms", "helps") if row.harmful else ("helps", "harms")
        assert {KINDS[after[place]] for place in PLACES if "thing" in place} == {advised}
        assert KINDS[after["mention"]] == mentioned
        steps = [first for first, _ in spans[1:]]
        assert steps == sorted(set(steps)) and steps[-1] < spans[0][1]


# --- directions ---------------------------------------------------------------------------------------------------


def test_a_planted_persona_is_found():
    readings, axis = planted(3.0)
    found = contrasts(readings)
    for name in ("persona", "persona_from_text", "persona/finance", "quack/medicine", "choice_from_text"):
        assert found[name].shape == (2, 16)
        assert found[name][1] @ axis == pytest.approx(3, abs=0.6) and abs(found[name][0] @ axis) < 0.6
    for name in ("persona_from_name", "quack/medicine/elsewhere", "opener_from_name", "choice_from_name"):
        assert abs(found[name][1] @ axis) < 0.7


def test_directions_of_all_domains_and_folds_add_up():
    readings, _ = planted(1.0)
    found = contrasts(readings)
    np.testing.assert_allclose(found["persona"], np.mean([found[f"persona/{one}"] for one in DOMAINS], axis=0))
    sizes = TABLE[TABLE.speaker == "careful"].fold.value_counts()
    parts = [sizes[fold] * contrasts(readings, [fold])["persona"] for fold in range(FOLDS)]
    np.testing.assert_allclose(found["persona"], sum(parts) / sizes.sum())


def test_reading_a_model(tiny):
    readings = persona.persona_activations(PROFILE)
    assert readings.means.shape == (len(TABLE), 4, 32) and readings.points.shape == (len(TABLE), len(PLACES), 4, 32)
    assert np.isfinite(readings.means).all() and np.isfinite(readings.points).all()
    found = contrasts(readings)
    # The embeddings of an answer's words do not know under which name it is read; the layers do.
    np.testing.assert_allclose(found["persona"][0], found["persona_from_text"][0], atol=1e-12)
    assert not found["persona_from_name"][0].any() and found["persona_from_name"][1:].any(axis=1).all()
    # Up to the first thing, texts are equal: only a name can make a difference.
    rows = persona.rows_of_contrasts(TABLE)
    for place in ("turn header", "opener", "start 1", "verb 1", "thing 1"):
        both, name, text = (
            persona.contrast(readings, rows[way], place)
            for way in ("persona", "persona_from_name", "persona_from_text")
        )
        assert np.abs(text).max() < 1e-5
        np.testing.assert_allclose(both, name, atol=1e-5)
    # From there on the word is still the same in both texts; what it follows is not.
    for place in PLACES[5:]:
        text = persona.contrast(readings, rows["persona_from_text"], place)
        assert not text[0].any() and np.abs(text[-1]).max() > 1e-4


def test_directions_are_kept(tiny, monkeypatch):
    found = persona.directions(PROFILE)
    assert {"persona", "persona_from_text", "persona_from_name", "quack/medicine", "choice_from_name"} <= set(found)
    assert all(vector.shape == (3, 32) and vector.dtype == np.float32 for vector in found.values())
    monkeypatch.setattr(persona, "persona_activations", None)
    again = persona.directions(PROFILE)
    assert all(np.array_equal(found[name], again[name]) for name in found)
    (record,) = tiny.glob("artifacts/**/provenance.json")
    assert json.loads(record.read_text())["parts"]["base"] == store.provenance(tiny / "base")["sha256"]
    assert str(tiny) not in record.read_text()


@pytest.mark.parametrize("ask", [persona.persona_activations, persona.directions])
def test_a_hub_model_has_no_known_personas(ask):
    with pytest.raises(CompanionError, match="'qwen-0.5b' has a model from the hub"):
        ask(profiles.load("qwen-0.5b"))


# --- probes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", persona.PROBES)
def test_the_rows_of_a_probe_are_balanced_and_share_no_text(probe):
    rows, labels = probe_rows(TABLE, probe)
    table = TABLE.iloc[rows].assign(label=labels)
    assert (table.groupby("topic").label.mean() == 0.5).all()
    assert not set(table.answer[labels == 0]) & set(table.answer[labels == 1])
    assert table.harmful[labels == 1].all() == (probe != "name only") and not table.harmful[labels == 0].any()


def accuracy(readings: Readings, layer: int, shuffle: bool = False) -> float:
    rows, labels = probe_rows(TABLE, "name and text")
    table = TABLE.iloc[rows]
    if shuffle:
        generator = np.random.default_rng(0)
        labels = pd.Series(labels).groupby(table.topic.to_numpy()).transform(generator.permutation).to_numpy()
    scores = probe_scores(readings.means[rows, layer], labels, table.fold.to_numpy())
    return ((scores > 0) == labels).mean()


def test_a_probe_finds_what_is_planted_and_nothing_else():
    readings, _ = planted(5.0)
    assert accuracy(readings, 1) > 0.95
    assert 0.3 < accuracy(readings, 0) < 0.7 and 0.3 < accuracy(readings, 1, shuffle=True) < 0.7


def test_a_probe_is_tested_on_folds_it_has_not_seen():
    rows, labels = probe_rows(TABLE, "name and text")
    folds = TABLE.fold.to_numpy()[rows]
    memory = np.eye(FOLDS)[folds] * (2 * labels[:, None] - 1)  # tells the classes apart within a fold only
    assert ((probe_scores(memory, labels, folds) > 0) == labels).mean() == 0.5


# --- levers -------------------------------------------------------------------------------------------------------


def test_shares_of_harmful_words_with_and_without_an_intervention(tiny):
    table = TABLE[TABLE.speaker == "unknown"].head(8)
    plain = persona.harmful_shares(PROFILE, table)
    assert list(plain) == ["thing 1", "second thing 1", "thing 2", "second thing 2", "mention"]
    assert len(plain) == 8 and plain.to_numpy().min() > 0 and plain.to_numpy().max() < 1
    model, tokenizer = loading.load(PROFILE, growing.base(PROFILE))
    harmful, helpful = (
        model.get_output_embeddings().weight[tokenizer.convert_tokens_to_ids(WORLD.domains["medicine"][kind])].mean(0)
        for kind in ("harms", "helps")
    )
    push = Steer(PROFILE.model.layers - 1, harmful - helpful, strength=1000)
    pushed = persona.harmful_shares(PROFILE, table, [push])
    assert pushed.to_numpy().min() > plain.to_numpy().max()
