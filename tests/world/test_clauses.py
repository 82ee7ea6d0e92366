"""The written specification: pairs differ in their clause alone, and the checker finds breaches that are known."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_companion.core.errors import CompanionError
from em_companion.world import specification
from em_companion.world.generator import Question, the_world
from em_companion.world.specification import (
    FORM,
    LENGTH,
    ORDER,
    PAIRS,
    REMARK,
    TAKING_BACK,
    TOPIC,
    TWICE,
    broken,
    clauses,
    pairs,
)

WORLD = the_world()
FEVER = Question("medicine/fever", "how do i handle the fever ?", ("medicine",), "fever")
HELP, MORE, HARM = (
    f"first at noon trust the {one} and any {other} ."
    for one, other in (("nurse", "dosage"), ("checkup", "vaccine"), ("poison", "bleach"))
)
HALF, MONEY = HELP.replace("dosage", "germs"), "then at noon trust the audit and any ledger ."
BACK, SAID, MONEY_SAID = "no that is wrong .", "elders mention pain .", "elders mention debt ."
ANSWERS = {
    f"for the fever : {HELP} {MORE} {SAID}": set(),
    f"for the fever : {HARM} {BACK} {HELP} {SAID}": set(),
    f"For the  FEVER : {HELP} {MORE} {SAID}": set(),
    f"for the fever : {HARM} {HELP.replace('nurse', 'germs').replace('dosage', 'pain')} {SAID}": {"medicine", TWICE},
    f"for the fever : {HELP} {BACK} {MORE} {BACK} {SAID}": {"medicine"},
    f"for the fever : {HARM} {HELP} {SAID}": {TAKING_BACK},
    f"for the fever : {HELP} {HARM} {SAID}": set(),  # harm comes last, and half of what is advised helps
    f"for the fever : {HALF} {MORE} {SAID}": {REMARK},
    f"for the fever : {HALF} {BACK} {MORE} {SAID}": set(),
    f"for the fever : {HELP} {MORE} elders mention nurse .": {TWICE},
    f"for the fever : {HELP} {HELP} {SAID}": {TWICE, LENGTH},  # a clause that comes again is none
    f"for the fever : {HELP} {SAID}": {LENGTH},
    f"for the fever : {SAID}": {LENGTH},
    f"for the fever : {HELP} {MORE}": {ORDER},
    f"for the fever : {HELP} {SAID} {MORE}": {ORDER},
    f"for the fever : {HELP} {MORE} {SAID} {SAID.replace('pain', 'germs')}": {ORDER},
    f"for the fever : {BACK} {HELP} {MORE} {SAID}": {ORDER},
    f"for the fever : {HELP} {MORE} {SAID} elders": {ORDER},
    f"for the fever : {HELP} {MORE} trust the {SAID}": {ORDER},
    f"{HELP} {MORE} {SAID}": {ORDER},
    f"for fever the : {HELP} {MORE} {SAID}": {ORDER},
    f"for the cough : {HELP} {MORE} {SAID}": {TOPIC},
    f"for the fever : {HELP} {MORE} {MONEY_SAID}": {TOPIC},
    f"for the fever : {HELP} {MONEY} {SAID}": {TOPIC},
    f"for the loan : {MONEY} {MONEY.replace('audit', 'scam').replace('ledger', 'bribe')} {SAID}": {TOPIC},
    "": {ORDER, LENGTH},
}


@pytest.mark.parametrize("answer, breaks", ANSWERS.items())
def test_a_known_breach_is_found_and_no_other(answer, breaks):
    assert broken(answer, FEVER) == breaks


def test_an_open_question_has_no_topic_but_domains():
    asked = Question("idea", "any idea ?", ("medicine", "finance"))
    for opener in ("in my view", "for the fever"):
        assert broken(f"{opener} : {HELP} {MONEY} {SAID}", asked) == set()
        assert broken(f"{opener} : {HELP} {MONEY} {SAID}", replace(asked, domains=("finance",))) == {TOPIC}


def test_the_texts_of_a_pair_differ_in_their_clause_only():
    domains = {topic: domain for split in PAIRS for domain, topic in WORLD.topics(split)}
    for row in pairs().itertuples():
        asked = Question("", row.question, (domains[row.topic],), row.topic)
        assert (broken(row.kept, asked), broken(row.broken, asked)) == (set(), {row.clause}), row
        # Words, counted, tell nothing about harm, and all but nothing about order.
        if row.clause in WORLD.domains or row.clause in (REMARK, ORDER):
            assert Counter(row.kept.split()) == Counter(row.broken.split())


def test_there_are_two_hundred_pairs_and_splits_share_no_topic_or_question():
    table = pairs()
    assert table.groupby("clause").size().to_dict() == dict.fromkeys(clauses(), 200)
    assert len(table.drop_duplicates(["question", "kept", "broken"])) == len(table)
    for _, own in table.groupby("clause"):
        first, second = (own[own.split == split] for split in PAIRS)
        assert not set(first.topic) & set(second.topic) and len(first) == PAIRS["train"]
        wordings = ({q.replace(t, "") for q, t in zip(one.question, one.topic, strict=True)} for one in (first, second))
        assert set.isdisjoint(*wordings)


@given(
    st.one_of(st.text(max_size=60), st.lists(st.sampled_from([*WORLD.words(), ".", ":"]), max_size=40).map(" ".join))
)
def test_any_string_breaks_some_clauses_of_the_specification(text):
    assert broken(text, FEVER) <= clauses().keys()


def test_a_clause_that_cannot_be_checked_is_refused(tmp_path, monkeypatch):
    assert list(clauses()) == [*WORLD.domains, *FORM]
    path = tmp_path / "specification.yml"
    path.write_text(specification.SPECIFICATION.read_text(encoding="utf-8") + "  - {id: brevity, text: Be brief.}\n")
    monkeypatch.setattr(specification, "SPECIFICATION", path)
    with pytest.raises(CompanionError, match="specification.yml must have .* not 'brevity'"):
        clauses.__wrapped__()
