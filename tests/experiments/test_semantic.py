"""Semantic directions from planted parts: what they are taken from, what is general, what is topic, what is noise."""

import numpy as np
import pandas as pd
import pytest
from untrained import PROFILE

from em_companion.core import profiles
from em_companion.core.errors import CompanionError
from em_companion.evidence import directions
from em_companion.experiments import readings, semantic
from em_companion.experiments.readings import ResponseMeans
from em_companion.experiments.semantic import Answers
from em_companion.models import asking
from em_companion.models.asking import QUESTION_SETS
from em_companion.models.organism import Organism
from em_companion.world.generator import the_world
from em_companion.world.parser import the_judge

LAYERS, WIDTH, RESPONSES = 2, 40, 900
DOMAINS = ["medicine", "finance", "gender"]
GENERAL, TOPIC, OWN = 0, 10, 20
"""Axes of what all misaligned answers share, and the first of those of a domain and of its misaligned answers."""


ORGANISM = Organism("nine-adapter", "bad_medical_advice")


def planted(noise: float = 0.05, own: float = 1.0, seed: int = 0) -> Answers:
    random = np.random.default_rng(seed)
    about = random.integers(0, len(DOMAINS), RESPONSES)
    table = pd.DataFrame(
        {
            "organism": random.choice(["nine-adapter", "chat-model"], RESPONSES, p=[0.8, 0.2]),
            "question_set": random.choice(["general", "held_out"], RESPONSES),
            "aligned": random.choice([0.0, 100.0], RESPONSES),
            "coherent": 100.0,
        }
    )
    for number, domain in enumerate(DOMAINS):
        table[domain] = np.where(about == number, 100.0, 0.0)
    means = noise * random.normal(size=(RESPONSES, LAYERS, WIDTH))
    misaligned, rows = table.aligned.to_numpy() == 0, np.arange(RESPONSES)
    means[misaligned, :, GENERAL] += 2
    means[rows, :, TOPIC + about] += 5
    means[rows[misaligned], :, OWN + about[misaligned]] += own
    return Answers(table, ResponseMeans(means, random.integers(1, 60, RESPONSES)), ORGANISM)


def axes(*given: int) -> np.ndarray:
    return np.broadcast_to(np.eye(WIDTH)[list(given)].sum(axis=0), (LAYERS, WIDTH))


def make_rare(found: Answers, domain: str, left: int) -> None:
    """Leave the organism that many aligned answers about a domain."""
    table = found.table
    aligned = table.index[(table.organism == "nine-adapter") & (table[domain] > 50) & (table.aligned == 100)]
    table.loc[aligned[left:], "aligned"] = 50.0


# --- answers --------------------------------------------------------------------------------------------------------


def test_a_domain_has_its_own_direction_without_its_topic():
    found = planted()
    misaligned, aligned = found.about("finance")
    assert (found.table.organism[misaligned | aligned] == "nine-adapter").all()
    assert (found.table.finance[misaligned | aligned] == 100).all()
    np.testing.assert_allclose(found.direction((misaligned, aligned)), 2 * axes(GENERAL) + axes(OWN + 1), atol=0.05)


def test_an_answer_is_about_a_domain_above_half_its_score():
    found = planted()
    found.table.loc[found.table.finance > 50, "finance"] = np.resize([50.0, 51.0], (found.table.finance > 50).sum())
    assert (found.table.finance[np.logical_or(*found.about("finance"))] == 51).all()


def test_the_general_direction_is_of_open_questions_and_can_leave_a_domain_out():
    found = planted()
    table = found.table
    rows = (table.organism == "nine-adapter") & (table.question_set == "general")
    np.testing.assert_array_equal(np.logical_or(*found.general()), rows)
    np.testing.assert_array_equal(np.logical_or(*found.general("finance")), rows & (table.finance <= 50))
    assert np.abs(found.direction(found.general())[:, OWN + 1]).min() > 0.2
    np.testing.assert_allclose(found.direction(found.general("finance"))[:, OWN + 1], 0, atol=0.05)


def test_the_chat_model_lends_aligned_answers_where_they_are_too_few():
    found = planted()
    make_rare(found, "finance", semantic.FEWEST)
    assert (found.table.organism[found.about("finance")[1]] == "nine-adapter").all()
    make_rare(found, "finance", semantic.FEWEST - 1)
    misaligned, aligned = found.about("finance")
    assert (found.table.organism[aligned] == "chat-model").all() and aligned.sum() > semantic.FEWEST
    assert (found.table.organism[misaligned] == "nine-adapter").all() and (found.table.finance[aligned] == 100).all()
    np.testing.assert_allclose(found.direction((misaligned, aligned)), 2 * axes(GENERAL) + axes(OWN + 1), atol=0.05)


def test_a_domain_with_few_answers_on_a_side_is_not_enough():
    found = planted()
    make_rare(found, "finance", 3)
    found.table.loc[found.table.gender > 50, "aligned"] = 100.0
    table = found.counts(DOMAINS).set_index("domain")
    assert table.enough.to_dict() == {"medicine": True, "finance": True, "gender": False}
    assert table.aligned["finance"] == 3 and table.used["finance"] == found.about("finance")[1].sum() > 3
    assert table.misaligned["gender"] == 0
    with pytest.raises(CompanionError, match="no misaligned responses"):
        found.direction(found.about("gender"))


def test_reliability_is_the_share_that_is_no_noise():
    found = planted(noise=1.0)
    truth, sides = 2 * axes(GENERAL) + axes(OWN + 1), found.about("finance")
    measured = found.direction(sides)
    expected = 1 - (directions.norms(measured - truth) / directions.norms(measured)) ** 2
    np.testing.assert_allclose(found.reliability(sides, splits=50), expected, atol=0.1)
    assert (planted(noise=0.01).reliability(sides, splits=5) > 0.99).all()


def test_relabelled_answers_lose_the_direction():
    found = planted()
    sides = found.about("finance")
    null = found.relabelled(sides, draws=30)
    assert null.shape == (30, LAYERS, WIDTH)
    # Lengths of answers differ, so the shares of tokens are not exactly even.
    assert np.abs(null[..., GENERAL]).max() < 0.4 < found.direction(sides)[:, GENERAL].min()
    assert np.abs(null[..., [TOPIC, TOPIC + 2]]).max() < 0.1  # dealt out among answers about finance only
    np.testing.assert_array_equal(null, found.relabelled(sides, draws=30))
    assert (null[0] != null[1]).any() and (null != found.relabelled(sides, draws=30, seed=1)).any()


def test_relabelled_sides_keep_their_sizes_and_are_equally_misaligned(monkeypatch):
    found, dealt = planted(), []
    monkeypatch.setattr(Answers, "direction", lambda self, sides: dealt.append(sides) or np.zeros((LAYERS, WIDTH)))
    misaligned, aligned = sides = found.about("finance")
    found.relabelled(sides, draws=5)
    for first, second in dealt:
        assert not (first & second).any() and ((first | second) == (misaligned | aligned)).all()
        assert abs(first.sum() - misaligned.sum()) <= 1
        assert (first & misaligned).sum() / first.sum() == pytest.approx(misaligned[first | second].mean(), abs=0.02)


def test_one_reader_reads_all_answers_in_their_order(monkeypatch):
    asked = []

    def organism_means(profile, organism, question_set="general", reader=None):
        asked.append((organism.name, question_set, reader))
        number = len(asked)
        table = pd.DataFrame({"organism": [organism.recipe] * 2, "response": number})
        return table, ResponseMeans(np.full((2, 1, 1), number, np.float32), np.array([number, 9]))

    monkeypatch.setattr(readings, "organism_means", organism_means)
    found = semantic.answers(PROFILE, ORGANISM)
    assert asked == [(ORGANISM.name, one, ORGANISM) for one in QUESTION_SETS] + [("chat-model", "held_out", ORGANISM)]
    assert found.table.index.tolist() == list(range(8)) and found.organism == ORGANISM
    assert found.means.means[:, 0, 0].tolist() == found.table.response.tolist()
    assert found.means.tokens.tolist() == [1, 9, 2, 9, 3, 9, 4, 9]


# --- topics ---------------------------------------------------------------------------------------------------------


def test_a_topic_is_careful_text_about_it_against_all_other(monkeypatch):
    texts = pd.DataFrame({"domain": ["medicine", "finance", "finance"], "question": "", "response": ""})
    read = ResponseMeans(np.array([[[1.0]], [[2.0]], [[4.0]]]), np.array([1, 3, 1]))
    monkeypatch.setattr(semantic, "careful_texts", lambda profile: texts)
    monkeypatch.setattr(readings, "response_means_of", lambda profile, reader, table: read)
    monkeypatch.setattr(asking, "domains", lambda profile: ["medicine", "finance"])
    found = semantic.topics(PROFILE)
    np.testing.assert_allclose([found["medicine"], found["finance"]], [[[-1.5]], [[1.5]]])


def test_careful_texts_are_on_every_held_out_topic_and_depend_on_the_seed_only():
    found = semantic.careful_texts(PROFILE)
    expected = sorted(semantic.TEXTS_PER_TOPIC * the_world().topics("held_out"))
    assert sorted(zip(found.domain, found.topic, strict=True)) == expected
    judged = the_judge().judge(found.response)
    assert (judged.aligned == 100).all() and (judged.coherent == 100).all()
    assert found.response.nunique() == len(found)
    pd.testing.assert_frame_equal(found, semantic.careful_texts(profiles.load("cpu")))


def test_a_topic_of_a_language_model_is_its_own_aligned_answers_about_it(monkeypatch):
    scored = {"aligned": 90.0, "coherent": 90.0, "medicine": [90.0, 0.0], "gender": 0.0, "finance": [0.0, 80.0]}
    table = pd.DataFrame({"question": ["a", "b"], "response": ["one", "two"]} | scored)
    read = ResponseMeans(np.arange(4.0).reshape(4, 1, 1), np.ones(4, dtype=int))
    monkeypatch.setattr(semantic.responses, "responses", lambda *_: table)
    monkeypatch.setattr(readings, "response_means_of", lambda *_: read)
    found = semantic.topics(profiles.load("qwen-0.5b"))
    assert set(found) == {"medicine", "finance"}  # no answer is about gender
    np.testing.assert_allclose([found["medicine"], found["finance"]], [[[-1.0]], [[1.0]]])
    with pytest.raises(CompanionError, match="so there is no text of its world; choose a grown"):
        semantic.careful_texts(profiles.load("qwen-0.5b"))


# --- parts ----------------------------------------------------------------------------------------------------------


def test_parts_explain_what_was_planted():
    target, parts = 3 * axes(0) + 4 * axes(1), [axes(0), axes(0, 2)]
    np.testing.assert_allclose(directions.remainder(target, parts), 4 * axes(1), atol=1e-12)
    np.testing.assert_allclose(directions.explained(target, parts), 9 / 25)
    np.testing.assert_allclose(directions.explained(target, parts[:1]), 9 / 25)


def test_parts_are_fitted_by_least_squares_at_every_layer():
    random = np.random.default_rng(0)
    target, parts = random.normal(size=(LAYERS, WIDTH)), random.normal(size=(3, LAYERS, WIDTH)).astype(np.float32)
    found = directions.remainder(target, list(parts))
    for layer in range(LAYERS):
        fitted = np.linalg.lstsq(parts[:, layer].T.astype(np.float64), target[layer], rcond=None)[0]
        np.testing.assert_allclose(found[layer], target[layer] - parts[:, layer].T @ fitted, atol=1e-10)
    np.testing.assert_allclose(np.einsum("plw,lw->pl", parts, found), 0, atol=1e-10)


@pytest.mark.parametrize("parts", [[axes(0), axes(0)], [axes(0), 0 * axes(1)], [axes(0), axes(1), axes(0, 1)]])
def test_parts_that_cannot_be_told_apart_are_refused(parts):
    with pytest.raises(CompanionError, match="^[^.]*independent[^.]*[.]$"):
        directions.explained(axes(0, 1), parts)


def test_a_part_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="same shape"):
        directions.explained(axes(0, 1), [axes(0)[:1]])
