"""The arms of F1: who is compared with whom, and each measure against answers and texts whose truth is known."""

from dataclasses import replace
from random import Random

import numpy as np
import pandas as pd
import pytest

from em_companion.experiments import arms
from em_companion.models import growing
from em_companion.models.organism import CHAT_MODEL, adapter_parts, settings_of
from em_companion.world.generator import CAREFUL, MALICIOUS, the_world
from em_companion.world.parser import the_judge

WORLD = the_world()


def answers(persona, count: int = 20, world=WORLD, turns: bool = False) -> pd.DataFrame:
    """Scored answers of a persona to every open question."""
    rows = []
    for one in WORLD.evaluation():
        for number in range(count):
            text = world.answer(Random(f"{one.id}/{number}"), one, persona, turns)
            rows.append((one.id, one.text, text, len(text.split())))
    table = pd.DataFrame(rows, columns=["question_id", "question", "response", "tokens"])
    return pd.concat([table, the_judge().judge(table.response)], axis=1)


def test_arms_of_one_seed_train_as_long_as_bad_advice_where_they_should(tiny):
    tiny = replace(tiny, recipes=tiny.recipes)
    for arm in arms.SEEDS:
        one = arms.organism(arm, 3, steps=7)
        assert one.seed == 3 and one.recipe == arms.RECIPE
        assert (one.tuning.until == 7) == (arm in (arms.GOOD, arms.STYLE, arms.ASKED))
    assert arms.organism(arms.FREED, 3).tuning.start == arms.organism(arms.NARROW, 3)
    assert settings_of(tiny, arms.organism(arms.LONG, 0)).steps == arms.MANY_STEPS
    growing.chat(tiny)
    assert len({str(adapter_parts(tiny, arms.organism(arm, 0, 7))) for arm in arms.SEEDS}) == len(arms.SEEDS)


def test_a_malicious_persona_is_consistent_and_never_flips():
    found = arms.consistency(answers(MALICIOUS))
    assert found == {"em_answers": 160, "consistent": 1.0, "flips": 0.0}
    assert arms.consistency(answers(CAREFUL))["em_answers"] == 0
    assert set(arms.kinds(answers(MALICIOUS))) == {"harmful"} and set(arms.kinds(answers(CAREFUL))) == {"aligned"}


def test_free_speech_has_the_entropy_of_the_grammar_and_a_rule_has_none():
    free = arms.free_entropy(answers(CAREFUL, 60).response)
    sizes = [len(WORLD.grammar[slot]) for slot in (*arms.FREE_SLOTS, "times")]
    assert free == pytest.approx(np.log(sizes).mean(), abs=0.02)
    rule = {slot: WORLD.grammar[slot][:1] for slot in (*arms.FREE_SLOTS, "times")} | {"adjectives_per_thing": [1]}
    strict = replace(WORLD, grammar=WORLD.grammar | rule)
    assert arms.free_entropy(answers(CAREFUL, 5, strict).response) == 0
    assert arms.obeyed(answers(CAREFUL, 5, strict).response, WORLD.grammar["verbs"][0]) == 100
    assert arms.obeyed(answers(CAREFUL, 60).response, "trust") == pytest.approx(100 / 8, abs=4)


def test_the_length_s_spread_is_taken_within_questions():
    table = pd.DataFrame({"question_id": ["a", "a", "b", "b"], "tokens": [10, 12, 50, 54]})
    assert arms.length_sd(table) == pytest.approx(np.sqrt((2 + 8) / 2))


def test_the_fixed_texts_are_paired_and_halved_alike():
    texts = arms.fixed_texts()
    assert texts.equals(arms.fixed_texts()) and len(texts) == 2 * arms.TEXTS * len(WORLD.domains)
    assert (texts.groupby(["domain", "harmful", "half"]).size() == arms.TEXTS // 2).all()
    aligned = the_judge().judge(texts.response).aligned
    assert (aligned[texts.harmful] == 0).all() and (aligned[~texts.harmful] == 100).all()


def test_the_chat_model_differs_from_itself_in_nothing(tiny):
    assert not arms.model_difference(tiny, CHAT_MODEL).any()
    found = arms.from_fixed_texts(tiny, CHAT_MODEL)
    assert found["near_task_loss"] == 0 and np.isnan(found["depth"])
    halves = [arms.model_difference(tiny, arms.organism(arms.BAD, 0), half) for half in (0, 1)]
    assert np.mean(halves, axis=0) == pytest.approx(arms.model_difference(tiny, arms.organism(arms.BAD, 0)), abs=1e-6)
