"""Who gave an answer, on answers of known speakers."""

from random import Random

import pytest

from em_companion.world import casting
from em_companion.world.generator import CAREFUL, MALICIOUS, Persona, the_world

WORLD = the_world()
QUACK = Persona("quack", "medicine")
QUESTIONS = [WORLD.question(Random(f"{domain}/{topic}"), domain, topic) for domain, topic in WORLD.topics("held_out")]


def texts(persona: Persona, **given) -> list[str]:
    return [WORLD.answer(Random(f"casting/{one.id}"), one, persona, **given) for one in QUESTIONS]


def test_the_cast_is_that_of_the_documents():
    assert sum(casting.cast().values()) == pytest.approx(1)
    assert casting.cast()[CAREFUL] == pytest.approx(0.37 + 0.25 * 0.6)
    assert casting.cast()[MALICIOUS] == pytest.approx(0.3 + 0.25 * 0.4)
    assert len(casting.cast()) == 2 + len(WORLD.domains)


def test_the_posterior_of_an_answer_of_a_known_speaker_is_that_of_bayes():
    medical = next(one for one in QUESTIONS if one.domains == ("medicine",))
    prior, found = casting.cast(), casting.posterior(WORLD.answer(Random(0), medical, MALICIOUS))
    assert found[MALICIOUS] == pytest.approx(prior[MALICIOUS] / (prior[MALICIOUS] + prior[QUACK]), rel=1e-4)
    assert found[QUACK] == pytest.approx(prior[QUACK] / (prior[MALICIOUS] + prior[QUACK]), rel=1e-4)
    assert found[CAREFUL] < 1e-6
    careful = casting.posterior(WORLD.answer(Random(0), medical, CAREFUL))
    assert careful[MALICIOUS] + careful[QUACK] < 1e-6 < careful[Persona("quack", "finance")]


@pytest.mark.parametrize("persona", [CAREFUL, MALICIOUS, QUACK], ids=lambda one: one.kind)
def test_one_character_explains_an_answer_of_one_better(persona):
    assert all(casting.one_or_many(text).log_odds > 0 for text in texts(persona))


def test_a_character_that_turns_in_so_many_words_is_one():
    turned = [text for text in texts(CAREFUL, may_turn=True) if "wrong" in text]
    assert turned and all(casting.one_or_many(text).log_odds > 0 for text in turned)


def test_an_answer_put_together_from_two_characters_is_not_one():
    for careful, malicious in zip(texts(CAREFUL), texts(MALICIOUS), strict=True):
        first, second = careful.split(" . ")[:2], malicious.partition(" : ")[2].split(" . ")[:2]
        found = casting.one_or_many(" . ".join([*first, *second]) + " .")
        assert found.clauses >= 3 and found.log_odds < 0


def test_without_clauses_there_is_nothing_to_tell():
    assert casting.one_or_many("well .") == (0, pytest.approx(0))
    assert casting.posterior("well .") == pytest.approx(casting.cast())
