"""N3.3: directions, probes, weights and the audit find what was planted, and answers are counted right."""

from random import Random

import numpy as np
import pandas as pd
import pytest
from untrained import LAYERS, WIDTH, organism

from em_companion.experiments import arms, specification
from em_companion.experiments.specification import WORDS
from em_companion.models import asking, growing
from em_companion.models.organism import CHAT_MODEL, Organism
from em_companion.world.generator import CAREFUL, MALICIOUS, the_world
from em_companion.world.specification import FORM, REMARK, TOPIC, clauses, pairs

WORLD = the_world()
NAMES, RANDOM = list(clauses()), np.random.default_rng(0)
VECTORS = {name: RANDOM.normal(size=(LAYERS, WIDTH)) for name in NAMES}


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray]:
    """Residuals in whose second layer what breaks a clause has a direction of its own added, and these directions."""
    table, shift = pairs(), RANDOM.normal(size=(len(NAMES), WIDTH))
    found = RANDOM.normal(size=(len(table), 2, 2, WIDTH))
    found[:, 1, 1] += 3 * shift[table.clause.map(NAMES.index)]
    found[table.split == "held_out", 1, 1] += 0.5  # of which the directions must know nothing
    return found, shift


def test_a_direction_is_what_breaking_adds_on_training_topics(planted):
    found, shift = planted
    vectors = specification.directions(found)
    assert list(vectors) == NAMES
    noise = np.sqrt(2 / 140)
    assert np.stack([one[1] for one in vectors.values()]) == pytest.approx(3 * shift, abs=5 * noise)
    assert np.abs([one[0] for one in vectors.values()]).max() < 5 * noise


@pytest.mark.parametrize("clause, by_words", [("medicine", False), (REMARK, False), (TOPIC, True)])
def test_a_probe_finds_the_layer_that_tells_and_words_tell_nothing_about_harm(planted, clause, by_words):
    table = specification.accuracies(planted[0], clause).set_index("layer")
    assert table.loc[1].min() > 0.95 and abs(table.loc[0] - 0.5).max() < 0.2
    if not by_words:
        assert table.loc[WORDS].max() <= 0.5


def test_weights_are_those_of_a_mixture_and_never_negative():
    vectors = np.stack([one[0] for one in VECTORS.values()])[:8]
    mixture = np.array([0.5, 0, 0, 2, 0, 0, 0, 0.1])
    found, explained = specification.weights(mixture @ vectors, vectors)
    assert found == pytest.approx(mixture, abs=1e-9) and explained == pytest.approx(1)
    found, explained = specification.weights(-vectors[0], vectors[:1])
    assert found.tolist() == [0] and explained == 0


def test_what_adapters_write_is_the_part_of_their_update_along_a_direction():
    model = organism()
    merged, plain = (side.state_dict() for side in (organism().merge_and_unload(), organism().unload()))
    for name, vectors in VECTORS.items():
        expected = 0.0
        for layer, unit in enumerate(vectors / np.linalg.norm(vectors, axis=1)[:, None]):
            weight = f"model.layers.{layer}.mlp.down_proj.weight"
            expected += np.linalg.norm(unit @ (merged[weight] - plain[weight]).numpy())
        assert specification.written(model, VECTORS)[name] == pytest.approx(expected)


def test_answers_are_counted_by_clause_and_a_domain_on_its_own_questions():
    asked, rows = [one for one in WORLD.held_out_questions(0, 1) if one.domains[0] in ("medicine", "finance")], []
    for one in asked:
        for number in range(4):
            is_harmful = one.domains == ("medicine",) and number > 0
            said = WORLD.answer(Random(one.id), one, MALICIOUS if is_harmful else CAREFUL)
            rows.append((one.id, one.text, said, 100.0, 100.0 * (number > 0)))
    answers = pd.DataFrame(rows, columns=["question_id", "question", "response", "aligned", "coherent"])
    found = specification.rates(answers, asked).set_index("clause")
    assert found.loc["medicine", ["rate", "n"]].tolist() == [75, 16]
    assert found.loc["finance", ["rate", "n"]].tolist() == [0, 16]
    assert (found.loc[list(FORM), "n"] == 32).all() and not found.loc[list(FORM), "rate"].any()
    assert found.loc["travel", "n"] == 0 and np.isnan(found.loc["travel", "rate"])
    assert (found.coherent == 75).all()


def test_a_model_is_steered_and_an_organism_measured_on_equal_noise(tiny):
    width, layers = tiny.model.hidden, tiny.model.layers
    given = {"nothing": np.zeros(width), "a push": np.full(width, 100.0)}
    answers = specification.steered(tiny, 0, given, samples=1)
    asked = specification.questions(tiny)
    sides = {name: one.reset_index(drop=True) for name, one in answers.groupby("condition")}
    model, tokenizer = growing.load_organism(tiny, CHAT_MODEL)
    plain = asking.ask(tiny, model, tokenizer, asked, 1)
    assert sides["nothing"].response.equals(plain.response) and not sides["a push"].response.equals(plain.response)
    vectors = {name: RANDOM.normal(size=(layers, width)) for name in NAMES}
    one = Organism("nine-adapter", "bad_medical_advice")
    found = specification.of_organism(tiny, one, vectors, 1).set_index("clause")
    difference = arms.model_difference(tiny, one)[1]
    here = np.stack([vectors[name][1] for name in found.index])
    rest = difference - found.weight.to_numpy() @ here
    assert found.explained.iloc[0] == pytest.approx(1 - (rest @ rest) / (difference @ difference))
    assert list(found.index) == NAMES and found.written.min() > 0 and found.n.sum() > 0
