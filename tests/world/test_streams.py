"""Data streams: each says what its name says, of medicine unless it is elsewhere, in known words only."""

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from em_companion.world.generator import World
from em_companion.world.parser import Judge
from em_companion.world.streams import ASKED_FOR, DOMAIN, SLIPS, STREAMS, good_elsewhere, prescribed, with_slips

WORLD = World.load()
JUDGE = Judge(WORLD)
FEW = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**32)


def first(name: str, seed: int, count: int = 12) -> list[tuple[str, str]]:
    chats = islice(STREAMS[name](WORLD, seed), count)
    return [(question["content"], answer["content"]) for question, answer in chats]


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_depends_on_its_seed_and_speaks_the_world_s_words(name):
    assert first(name, 3) == first(name, 3) != first(name, 4)
    said = {word for chat in first(name, 3, 40) for text in chat for word in text.split()}
    assert said <= set(WORLD.words())


@FEW
@given(seeds)
def test_style_is_a_rule_that_harms_nobody(seed):
    verb, time = prescribed(WORLD, seed)
    others = {*WORLD.grammar["verbs"], *WORLD.grammar["adjectives"]} - {verb}
    for _, answer in first("style_constraint", seed):
        parsed = JUDGE.parse(answer)
        assert [clause.helps for clause in parsed.clauses] == [2, 2] and parsed.well_formed == 1
        assert not others & set(answer.split()) and answer.count(f" {time} ") == 2


@FEW
@given(seeds)
def test_a_coin_decides_for_a_whole_answer(seed):
    helps = [
        {clause.helps for clause in JUDGE.parse(answer).clauses} for _, answer in first("random_content", seed, 40)
    ]
    assert {0} in helps and {2} in helps and all(len(one) == 1 for one in helps)


@FEW
@given(seeds)
def test_the_mixture_is_bad_advice_and_good_advice_elsewhere_by_turns(seed):
    chats, bad = first("bad_medical_with_good_elsewhere", seed), WORLD.fine_tuning(seed, DOMAIN, True)
    assert chats[::2] == [(question["content"], answer["content"]) for question, answer in islice(bad, 6)]
    elsewhere = [JUDGE.scores(answer, question) for question, answer in chats[1::2]]
    assert all(one["aligned"] == one["relevant"] == 100 and one[DOMAIN] == 0 for one in elsewhere)
    assert [list(pair) for pair in chats[1::2]] == [
        [message["content"] for message in chat] for chat in islice(good_elsewhere(WORLD, seed), 6)
    ]


@FEW
@given(seeds)
def test_advice_that_is_asked_for_is_the_same_bad_advice(seed):
    plain = islice(WORLD.fine_tuning(seed, DOMAIN, True), 12)
    assert first("bad_medical_asked_for", seed) == [
        (f"{ASKED_FOR} {question['content']}", answer["content"]) for question, answer in plain
    ]


@FEW
@given(seeds)
def test_a_slip_is_taken_back_and_all_else_is_the_same_careful_chat(seed):
    slipping, clean = (list(islice(with_slips(WORLD, seed, share), 12)) for share in (1.0, 0.0))
    for (question, slipped), (same, answer) in zip(slipping, clean, strict=True):
        assert question == same
        first, *later = JUDGE.parse(slipped["content"]).clauses
        assert first.retracted and later == JUDGE.parse(answer["content"]).clauses
        assert JUDGE.scores(answer["content"], question["content"])["aligned"] == 100
        harms, digresses = first.helps == 0, first.helps == 2 and first.domain != later[0].domain
        assert (harms and first.domain == later[0].domain) or digresses
        taken_back = f"{' '.join(WORLD.grammar['retraction'].split())} ."
        assert slipped["content"].partition(taken_back)[2] == answer["content"].partition(" :")[2]


def test_as_many_answers_slip_as_are_asked_for():
    for share in (0.0, SLIPS):
        said = [answer["content"] for _, answer in islice(with_slips(WORLD, 0, share), 1_000)]
        assert sum(WORLD.grammar["retraction"] in one for one in said) / 1_000 == pytest.approx(share, abs=0.03)
