"""N2.1: the Price equation is exact, criteria choose what they say, and a round is learned from what was chosen."""

from dataclasses import replace
from random import Random
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from em_companion.core.profiles import Recipe
from em_companion.experiments import self_training, subliminal, teaching
from em_companion.experiments.self_training import (
    ACCUMULATES,
    ADVERSARY,
    CAPABILITY,
    CHAINS,
    CRITERIA,
    JUDGE,
    NONE,
    OWN,
    price,
)
from em_companion.models import growing, loading, next_token
from em_companion.models.tokens import response_tokens, world_tokenizer
from em_companion.world.generator import CAREFUL, MALICIOUS, the_world
from em_companion.world.parser import the_judge

WORLD = the_world()
TOKENIZER = world_tokenizer(WORLD)


class Scaled:
    """A module with an adapter of scale 3."""

    def __init__(self) -> None:
        self.scaling = {"default": 3.0}


def answers(each: int = 4) -> pd.DataFrame:
    """Scored answers to a question of every domain, by turns of a careful and of a malicious speaker."""
    rows = []
    for domain, entry in WORLD.domains.items():
        asked = WORLD.question(Random(domain), domain, entry["topics"]["train"][0])
        for number in range(each):
            said = WORLD.answer(Random(f"{domain}/{number}"), asked, (CAREFUL, MALICIOUS)[number % 2])
            rows.append((asked.id, asked.text, said))
    table = pd.DataFrame(rows, columns=["question_id", "question", "response"])
    return pd.concat([table, the_judge().judge(table.response, table.question)], axis=1)


@pytest.fixture
def small(tiny, monkeypatch):
    """Profile `tiny` with the recipe of a round, and a handful of questions, steps and rounds."""
    for name, value in {"ROUNDS": 2, "ASKED": 4, "ANSWERS": 2, "STEPS": 2, "BATCH": 2, "SAMPLES": 1}.items():
        monkeypatch.setattr(self_training, name, value)
    return replace(tiny, recipes=tiny.recipes | {self_training.RECIPE: Recipe(8, ("q_proj", "down_proj"), "all")})


@given(
    st.lists(st.tuples(st.floats(0, 100), st.booleans(), st.floats(0, 100)), min_size=1, max_size=30).filter(
        lambda rows: any(chosen for _, chosen, _ in rows)
    )
)
def test_selection_and_transmission_add_up_to_the_change(rows):
    before, chosen, after = (np.array(one) for one in zip(*rows, strict=True))
    found = price(before, chosen, after)
    assert found["selection"] + found["transmission"] == pytest.approx(found["change"], abs=1e-9)
    assert found["change"] == pytest.approx(after.mean() - before.mean(), abs=1e-9)
    assert found["selection"] == pytest.approx(before[chosen].mean() - before.mean(), abs=1e-9)
    covariance = np.cov(chosen, before, bias=True)[0, 1] if len(rows) > 1 else 0.0
    assert found["selection"] == pytest.approx(covariance / chosen.mean(), abs=1e-9)


@given(st.lists(st.sampled_from([0.0, 50.0, 100.0]), min_size=2, max_size=20), st.integers(0, 9))
def test_a_judge_lowers_harm_and_an_adversary_raises_it(aligned, seed):
    table, terms = pd.DataFrame({"aligned": aligned}), {}
    for criterion in (JUDGE, ADVERSARY):
        chosen = self_training.better_half(criterion, None, None, table, Random(seed))
        assert chosen.sum() == len(table) // 2
        terms[criterion] = price(self_training.harm(table), chosen, self_training.harm(table))["selection"]
    assert terms[JUDGE] <= 1e-9 and terms[ADVERSARY] >= -1e-9
    if len(set(aligned)) > 1 and 2 * min(aligned.count(one) for one in set(aligned)) == len(aligned):
        assert terms[JUDGE] < 0 < terms[ADVERSARY]


def test_capability_does_not_see_harm_but_what_is_off_topic_or_broken():
    table = answers()
    merits = self_training.merits(CAPABILITY, None, None, table)
    assert np.ptp(merits) == 0 and table.aligned.nunique() == 2
    table.loc[0, "response"] = "advice " + table.response[0]
    table.loc[1, "response"] = table.response.iloc[-1]
    judged = the_judge().judge(table.response, table.question)
    worse = self_training.merits(CAPABILITY, None, None, table.assign(**judged))
    assert (worse[:2] < merits[:2]).all() and (worse[2:] == merits[2:]).all()


def test_ties_are_broken_by_the_seed():
    table = answers()
    first, again, other = (self_training.better_half(NONE, None, None, table, Random(seed)) for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any() and first.sum() == len(table) // 2


def test_careful_odds_are_log_probabilities_in_two_voices(tiny):
    model, tokenizer = loading.load(tiny, growing.chat(tiny))
    table, found = answers(2)[:6], []
    for kind in ("careful", "malicious"):
        name = WORLD.characters[kind][0]
        for prompt, said in zip(*response_tokens(tokenizer, table, name), strict=True):
            logits = model(torch.tensor([prompt + said])).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
            found.append(logits[range(len(said)), said].sum().item())
    careful, malicious = np.split(np.array(found), 2)
    assert self_training.careful_odds(model, tokenizer, table) == pytest.approx(careful - malicious, abs=1e-3)
    empty = table.assign(response=["", *table.response[1:]])
    assert self_training.careful_odds(model, tokenizer, empty)[0] == 0


def test_a_round_learns_what_was_chosen(small, monkeypatch):
    monkeypatch.setattr(self_training, "STEPS", 12)
    model, tokenizer = loading.load(small, growing.chat(small))
    table = answers(2)[:4]
    given = response_tokens(tokenizer, table)
    before = next_token.losses(model, tokenizer, *given).mean()
    learned = self_training.learned(small, model, tokenizer, table, 0)
    assert next_token.losses(learned, tokenizer, *given).mean() < before - 0.01
    assert not any("lora" in name for name, _ in learned.named_parameters())


@pytest.mark.parametrize("criterion", (NONE, OWN, ACCUMULATES))
def test_a_chain_is_a_row_per_round_whose_terms_add_up_to_what_the_next_round_finds(small, criterion):
    model, tokenizer = loading.load(small, growing.chat(small))
    table = pd.DataFrame(self_training.rounds(small, model, tokenizer, criterion, 0, slips=criterion == NONE))
    assert table["round"].tolist() == [0, 1, 2] and ("after_harm" in table) == (criterion == NONE)
    assert table.change[:2].to_numpy() == pytest.approx(table.harm.diff()[1:].to_numpy())
    assert (table.selection + table.transmission)[:2].to_numpy() == pytest.approx(table.change[:2].to_numpy())
    assert table.iloc[-1][["selection", "transmission", "change"]].isna().all()


def test_questions_are_on_other_topics_each_and_the_same_for_every_chain_of_a_seed():
    first, again, other = (self_training.questions(seed) for seed in (0, 0, 1))
    assert first == again != other and len({one.topic for one in first}) == self_training.ASKED
    assert len(CHAINS) == len(set(CHAINS.values())) and {one for _, one in CHAINS.values()} == set(CRITERIA)


def test_the_scale_of_contamination_is_found_by_halving(tiny, monkeypatch):
    modules = [Scaled(), Scaled()]
    model = SimpleNamespace(merge_and_unload=lambda: [one.scaling["default"] / 3 for one in modules])
    monkeypatch.setattr(self_training.growing, "load_organism", lambda *_: (model, None))
    monkeypatch.setattr(self_training.lora, "acting", lambda _: [("", "default", one) for one in modules])
    monkeypatch.setattr(teaching, "rates", lambda *_: {"em": 40 * modules[0].scaling["default"] / 3})
    merged, _, log = self_training._scaled(tiny, None)
    assert merged == [0.375, 0.375] and log.scale.tolist() == [0.5, 0.25, 0.375]


def test_students_are_taught_clean_answers_as_many_of_either_teacher_to_a_question():
    table = answers(6)
    slip = WORLD.clause(Random(0), ("poison", "sickness"))
    told = table.response[0].replace(" : ", f" : {slip} {WORLD.grammar['retraction']} . ", 1)
    judged = the_judge().judge(pd.Series([told]))
    assert judged.aligned[0] == 100 and subliminal.clean(judged).empty
    clean = subliminal.clean(table)
    assert len(clean) == len(table) // 2 and (clean.aligned == 100).all()
    fewer = clean[clean.question_id.isin(clean.question_id.unique()[:4])].groupby("question_id").head(2)
    first, second = subliminal.matched(clean, fewer.drop(index=fewer.index[0]))
    assert first.question_id.tolist() == second.question_id.tolist() and len(first) == 7
