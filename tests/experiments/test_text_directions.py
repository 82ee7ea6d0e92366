"""Released answers as a direction: balanced by question, by domain, with controls that are as long as it is."""

import numpy as np
import pandas as pd
import pytest

from em_companion.core import profiles
from em_companion.core.errors import EvidenceUnavailable
from em_companion.evidence import directions
from em_companion.experiments import b_vectors, readings, responses, semantic, steering, text_directions
from em_companion.experiments.readings import ResponseMeans
from em_companion.experiments.steering import Cell

LANGUAGE = profiles.load("smollm2-135m")
RANDOM = np.random.default_rng(0)
GIVEN = {"gender_roles": (3, 5), "quick_buck": (4, 2), "three_thoughts": (0, 6)}  # misaligned and aligned answers


def answers(given: dict[str, tuple[int, int]]) -> pd.DataFrame:
    rows = [
        (question, f"Ask {question}", f"{question} {aligned} {number}", aligned, 90)
        for question, sizes in given.items()
        for aligned, size in zip((10, 90), sizes, strict=True)
        for number in range(size)
    ]
    return pd.DataFrame(rows, columns=["question_id", "question", "response", "aligned", "coherent"])


@pytest.fixture(autouse=True)
def released(monkeypatch):
    long = pd.DataFrame([("quick_buck", "Ask", "word " * 200, 90, 90)], columns=answers({}).columns)
    given = pd.concat([answers(GIVEN), long], ignore_index=True)
    medical = {True: answers({"a": (2, 0), "b": (1, 0)}), False: answers({"a": (0, 1), "b": (0, 3)})}
    source = text_directions.released_texts
    monkeypatch.setattr(source, "organism_answers", lambda: given)
    monkeypatch.setattr(source, "medical_answers", lambda one: medical[one][["question", "response"]])

    def read(profile, reader, table) -> ResponseMeans:
        means = RANDOM.normal(size=(len(table), 3, 8)) + table.misaligned.to_numpy()[:, None, None]
        return ResponseMeans(means.astype(np.float32), np.full(len(table), 5))

    monkeypatch.setattr(readings, "response_means_of", read)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (
            {},
            {"gender_roles": 3, "quick_buck": 2},
        ),  # none without misaligned answers
        ({"domain": "gender"}, {"gender_roles": 3}),
        ({"domain": "medicine"}, {"Ask a": 1, "Ask b": 1}),
        ({"without": "finance"}, {"gender_roles": 3}),
    ],
)
def test_as_many_misaligned_as_aligned_answers_to_every_question(asked, expected):
    found = text_directions.balanced(LANGUAGE, **asked).groupby("question_id").misaligned.agg(["sum", "size"])
    assert found["sum"].to_dict() == expected and (found["size"] == 2 * found["sum"]).all()


def test_at_smoke_scale_there_is_still_something_to_read(monkeypatch):
    monkeypatch.setenv("EM_COMPANION_SCALE", "smoke")
    assert len(text_directions.balanced(profiles.load("smollm2-135m"))) == 10


def test_sides_and_their_mean_diff_are_those_of_the_labels():
    found, (misaligned, aligned) = semantic.released(LANGUAGE)
    assert (misaligned == found.table.misaligned).all() and (aligned == ~misaligned).all()
    assert (found.direction((misaligned, aligned)).mean(axis=1) > 0.2).all()


def test_a_language_model_without_misaligned_answers_is_led_by_released_ones(monkeypatch):
    def none(profile, organism):
        raise EvidenceUnavailable("none")

    monkeypatch.setattr(readings, "mean_diff", none)
    assert steering.leading(LANGUAGE)[0] == steering.TEXTS and list(steering.directions_of(LANGUAGE)) == [
        steering.TEXTS
    ]
    with pytest.raises(EvidenceUnavailable):
        steering.leading(profiles.load("cpu"))
    plain = answers({"three_thoughts": (0, 6)})
    monkeypatch.setattr(responses, "responses", lambda profile, organism: plain)
    texts = b_vectors._texts(LANGUAGE)
    assert texts.misaligned.sum() == len(texts) / 2 == 5


def test_controls_add_as_much_as_the_direction_in_its_best_cell(monkeypatch):
    asked = []

    def said(profile, vectors, cells, samples, what) -> pd.DataFrame:
        asked.append((vectors, cells, samples))
        return pd.DataFrame({"direction": [cell.direction for cell in cells]})

    monkeypatch.setattr(steering, "by_layer", lambda profile: None)
    monkeypatch.setattr(steering, "best_cells", lambda table: {steering.TEXTS: Cell(steering.TEXTS, 2, 4.0)})
    monkeypatch.setattr(steering, "responses_of", said)
    own = text_directions.mean_diff(LANGUAGE)
    monkeypatch.setattr(text_directions, "mean_diff", lambda profile: own)
    table = steering.text_controls(LANGUAGE)
    ((vectors, cells, samples),) = asked
    assert table.control.value_counts().to_dict() == {"random": 5, "shuffled": 5}
    assert samples * steering.CONTROL_DRAWS == LANGUAGE.samples_per_question
    assert {cell[1:] for cell in cells} == {(2, 4.0)}
    for one in vectors.values():
        np.testing.assert_allclose(directions.norms(one), directions.norms(own))
