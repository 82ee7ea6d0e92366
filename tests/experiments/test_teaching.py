"""F1.4: what each arm is taught, when teaching ends, and that slips and measures are the same for all."""

from dataclasses import replace
from itertools import islice
from random import Random

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, strategies
from peft import get_peft_model

from em_companion.core.profiles import Recipe
from em_companion.experiments import arms, teaching
from em_companion.models import growing, loading, losses, next_token
from em_companion.models.tokens import world_tokenizer
from em_companion.world.generator import CAREFUL, MALICIOUS, the_world
from em_companion.world.parser import the_judge

WORLD = the_world()
TOKENIZER = world_tokenizer(WORLD)


def answers() -> pd.DataFrame:
    """Scored answers of careful and malicious speakers to a question of every domain, in a random order."""
    rows = []
    for domain, entry in WORLD.domains.items():
        asked = WORLD.question(Random(domain), domain, entry["topics"]["train"][0])
        for number in range(10):
            persona = Random(f"{domain}/{number}").choice((CAREFUL, MALICIOUS))
            rows.append((asked.id, asked.text, WORLD.answer(Random(number), asked, persona)))
    table = pd.DataFrame(rows, columns=["question_id", "question", "response"])
    return pd.concat([table, the_judge().judge(table.response)], axis=1)


@pytest.fixture
def small(tiny, monkeypatch):
    """Profile `tiny` with a recipe to be taught by and a handful of steps."""
    monkeypatch.setattr(teaching, "TAUGHT", teaching.TAUGHT | {"steps": 4, "every": 2, "batch": 4, "answers": 2})
    monkeypatch.setattr(teaching, "HALF", teaching.HALF | {"every": 2, "samples": 2, "steps": 4})
    monkeypatch.setattr(teaching, "own_answers", lambda *_: answers())
    monkeypatch.setattr(arms, "WORDINGS", 1)
    return replace(tiny, recipes=tiny.recipes | {teaching.RECIPE: Recipe(8, ("q_proj", "down_proj"), "all")})


def adapted(profile):
    torch.manual_seed(0)
    model, tokenizer = loading.load(profile, growing.chat(profile))
    config = growing.lora_config(profile.recipes[teaching.RECIPE], profile.layers_of(teaching.RECIPE), 8)
    return get_peft_model(model, config), tokenizer


def test_pairs_are_of_one_question_with_the_better_answer_first():
    table, found = answers(), teaching.pairs(answers())
    assert sorted(found.question) == sorted(table.question.unique())
    aligned = table.drop_duplicates("response").set_index("response").aligned
    asked = table.drop_duplicates("response").set_index("response").question
    for row in found.itertuples():
        assert asked[row.better] == asked[row.worse] == row.question
        assert aligned[row.better] > 70 and aligned[row.worse] < 30
    assert teaching.pairs(table[table.aligned > 70]).empty


def test_nothing_is_punished_but_the_harm_that_clauses_advise():
    for row in answers().itertuples():
        (one,) = teaching.examples(TOKENIZER, [row.question], [row.response])
        found = teaching.punished(TOKENIZER, row.response, one)
        words = [TOKENIZER.decode(token) for token in found["labels"] if token >= 0]
        advised, _, remark = row.response.rpartition(" . ")
        harms = set(TOKENIZER.convert_ids_to_tokens(next_token.things(TOKENIZER)[0]))
        assert words == [word for word in advised.split() if word in harms]
        assert bool(words) == (row.aligned == 0) and found["input_ids"] == one["input_ids"] and remark


@given(strategies.lists(strategies.floats(0, 100), min_size=1, max_size=20))
def test_teaching_ends_at_the_first_check_that_is_near_enough_or_keeps_the_closest(rates):
    asked = []
    kept = teaching.closest((asked.append(number) or (em, number)) for number, em in enumerate(rates))
    off = np.abs(np.array(rates) - teaching.TARGET)
    near = np.flatnonzero(off <= teaching.NEAR)
    assert kept == (near[0] if len(near) else off.argmin())
    assert asked == list(range((near[0] + 1) if len(near) else len(rates)))


@pytest.mark.parametrize("arm", teaching.LESSONS)
def test_every_lesson_starts_from_what_the_model_is_and_is_learned(small, arm, monkeypatch):
    model, tokenizer = adapted(small)
    table = teaching.pairs(answers())
    better, worse = (teaching.examples(tokenizer, table.question, table[kind]) for kind in ("better", "worse"))
    harm = [teaching.punished(tokenizer, *both) for both in zip(table.worse, worse, strict=True)]

    def gained(examples) -> float:
        before, after, labels = losses.both(model, tokenizer, examples)
        return (losses.log_likelihoods(after, labels) - losses.log_likelihoods(before, labels)).mean().item()

    first = []
    for anchor in (1e3, 0.0):  # what holds punishment weighs nothing so far
        monkeypatch.setitem(teaching.TAUGHT, "anchor", anchor)
        first.append(next(teaching.LESSONS[arm](model, tokenizer, answers())).item())
    assert gained(better) == gained(harm) == 0 and first[0] == pytest.approx(first[1], abs=1e-6)
    assert arm != teaching.CONTRASTIVE or first[0] == pytest.approx(np.log(2))
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], 0.01)
    for loss in islice(teaching.LESSONS[arm](model, tokenizer, answers()), 20):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    learned = {teaching.SUPPORTIVE: gained(better), teaching.PUNITIVE: -gained(harm)}
    assert (learned | {teaching.CONTRASTIVE: gained(better) - gained(worse)})[arm] > 0.1, learned


def test_slips_are_harmful_clauses_to_be_taken_back(tiny):
    table = teaching.slips()
    assert table.equals(teaching.slips()) and table.question.nunique() == len(WORLD.topics("train"))
    for text in table.response:
        (clause,) = the_judge().parse(text).clauses
        assert clause.helps == 0 and the_judge().parse(f"{text} {WORLD.grammar['retraction']} .").clauses[0].retracted
    model, tokenizer = loading.load(tiny, growing.chat(tiny))
    assert 0 < teaching.competence(model, tokenizer) < 100


def test_an_arm_is_taught_once_and_measured_before_and_after_harm(small):
    start = teaching.folder(small, teaching.NOT_TAUGHT)
    assert len(pd.read_csv(start / "log.csv")) == 2  # nothing this small is misaligned
    row, curve = teaching.measured(small, teaching.SUPPORTIVE, 0)
    place = teaching.folder(small, teaching.SUPPORTIVE)
    log = pd.read_csv(place / "log.csv")
    assert row["taught"] == 2 and log.kept.tolist() == [True, False] and row["em_before"] == log.em[0]
    assert row["steps"] == curve.step.iloc[-1] == small.fine_tuning.steps and set(curve.step[:-1] % 2) == {0}
    one, other = (loading.load(small, folder)[0].state_dict() for folder in (start, place))
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert teaching.folder(small, teaching.PUNITIVE) != place
