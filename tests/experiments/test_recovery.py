"""F3: who starts from whom, what a loop's batches hold, and that harm and repair train on what they say."""

import runpy
from collections import Counter
from dataclasses import replace
from itertools import islice

import pandas as pd
import pytest
import torch
from conftest import ROOT

from em_companion.experiments import arms, recovery, timing
from em_companion.models import growing, loading
from em_companion.models.organism import CHAT_MODEL, adapter_parts, settings_of
from em_companion.world.generator import the_world
from em_companion.world.parser import the_judge
from em_companion.world.streams import DOMAIN, LEVEL_STEPS, QUARTERS, ROWS, STREAMS

WORLD = the_world()
SHORT = {"HARM_STEPS": 2, "REPAIR_STEPS": 4, "CHECKS": (0, 1, 4), "STARTS": {timing.BEFORE: 0, timing.AFTER: 3}}


@pytest.fixture
def ranked(tiny):
    growing.chat(tiny)
    return recovery.with_ranks(tiny)


@pytest.fixture
def short(tiny, monkeypatch):
    for name, given in SHORT.items():
        monkeypatch.setattr(timing, name, given)
    return tiny


@pytest.mark.parametrize("name", LEVEL_STEPS)
def test_a_loop_has_its_share_of_bad_advice_in_every_batch_and_repeats_none(name):
    rows = len(QUARTERS) * LEVEL_STEPS[name] * ROWS
    chats = [(question["content"], answer["content"]) for question, answer in islice(STREAMS[name](WORLD, 3), rows)]
    bad = [the_judge().scores(answer, question)["aligned"] == 0 for question, answer in chats]
    shares = [sum(bad[start : start + ROWS]) / ROWS for start in range(0, rows, ROWS)]
    assert shares == [quarter / 4 for quarter in QUARTERS for _ in range(LEVEL_STEPS[name])]
    plain = [islice(WORLD.fine_tuning(3, DOMAIN, is_bad), bad.count(is_bad)) for is_bad in (True, False)]
    given = [(question["content"], answer["content"]) for chats_ in plain for question, answer in chats_]
    assert Counter(chats) == Counter(given)


def test_half_of_every_batch_is_bad_where_the_share_does_not_change():
    texts = [answer["content"] for _, answer in islice(STREAMS["always_half_bad"](WORLD, 0), 4 * ROWS)]
    bad = (the_judge().judge(pd.Series(texts)).aligned == 0).to_numpy().reshape(4, ROWS)
    assert (bad.sum(axis=1) == ROWS // 2).all()


def test_every_arm_starts_where_it_should_and_has_a_key_of_its_own(ranked):
    made = {arm: recovery.organism(arm, 3) for arm in recovery.SEEDS}
    assert len({str(adapter_parts(ranked, one)) for one in made.values()}) == len(made)
    assert {one.seed for one in made.values()} == {3}
    for arm in (*recovery.HEALED.values(), recovery.ELSEWHERE):
        assert made[arm].tuning.merged == arms.organism(arms.BAD, 3) and made[arm].tuning.steady
    assert made[recovery.AGAIN].tuning.merged == made[recovery.HEALED[32]]
    assert replace(made[recovery.AGAIN], tuning=arms.DENSE) == made[arms.BAD]
    assert settings_of(ranked, made[recovery.SLOW]).steps == settings_of(ranked, made[recovery.STILL]).steps == 270


def test_the_first_check_of_a_curve_is_that_of_the_model_it_starts_from(ranked, own, monkeypatch):
    """The monitor of this test tells models apart, which that of so small a model does not."""

    def monitor(profile, data, model, tokenizer) -> dict[str, float]:
        with torch.no_grad():
            seen = model(torch.tensor([tokenizer("how do i help ?").input_ids])).logits[0, -1]
        return {"in_domain_em": float(seen[10]), "open_em": float(seen[20]), "open_coherent": float(seen[30])}

    monkeypatch.setattr(growing, "monitor", monitor)
    bad, healed = (recovery.organism(arm, 0) for arm in (arms.BAD, recovery.HEALED[1]))
    there, back = (
        recovery.curve(ranked, bad),
        recovery.curve(ranked, replace(healed, tuning=replace(healed.tuning, steps=6))),
    )
    assert there.step.tolist() == [0, 2, 4, 6, 8] and back.step.tolist() == [0, 3, 6]
    seen = [curve.drop(columns="step").to_numpy() for curve in (there, back)]
    merged, tokenizer = growing.load_organism(ranked, bad)
    for start, model in ((seen[0][0], growing.load_organism(ranked, CHAT_MODEL)[0]), (seen[1][0], merged)):
        assert list(monitor(ranked, "", model, tokenizer).values()) == pytest.approx(start, abs=1e-4)
    assert abs(seen[0][0] - seen[0][-1]).min() > 1e-3 and seen[0][-1] == pytest.approx(seen[1][0], abs=1e-6)


def test_the_chat_model_is_at_no_distance_and_what_is_along_is_part_of_the_norm(ranked):
    assert not recovery.distance(ranked, recovery.organism(arms.CHAT, 0))[["norm", "along"]].any(axis=None)
    found = recovery.distance(ranked, recovery.organism(arms.BAD, 0))
    assert (found.along.abs() < found.norm).all() and found.along.all()


def test_a_start_is_a_prefix_of_one_post_training_and_is_made_once(short, own, monkeypatch):
    monkeypatch.setattr(timing, "STARTS", {"early": 2, "late": 5})
    late = timing.start(short, 5)[0].state_dict()
    monkeypatch.setattr(timing, "train", lambda *_: pytest.fail("trained again"))
    early, tokenizer = timing.start(short, 2)
    monkeypatch.undo()
    given = timing.examples(short, tokenizer, 0, 5)
    assert given[: 2 * short.post_training.batch] == timing.examples(short, tokenizer, 0, 2)
    assert given[2 * short.post_training.batch :] == timing.examples(short, tokenizer, 2, 3)
    moved = [not torch.equal(one, late[name]) for name, one in early.state_dict().items()]
    assert any(moved)


def test_the_remaining_post_training_is_a_prefix_of_that_of_equal_length(short):
    _, tokenizer = loading.load(short, growing.base(short))
    equal, batch = timing.examples(short, tokenizer, 3, 4), short.post_training.batch
    assert timing.examples(short, tokenizer, 3, 1) == equal[:batch] and len(equal) == 4 * batch


def test_a_harm_is_asked_before_it_after_it_and_through_its_repair(short):
    found = [timing.curve(short, content, timing.BEFORE, 0) for content in timing.CONTENTS]
    assert [one.step.tolist() for one in found] == [[-2, 0, 1, 4]] * 2
    assert found[0].iloc[0].equals(found[1].iloc[0])  # the model that is harmed
    again = timing.curve(short, "bad advice", timing.BEFORE, 0)
    assert again.equals(found[0])


def test_all_of_recovery_comes_before_timing_seed_by_seed():
    planned = list(runpy.run_path(str(ROOT / "experiments" / "timing_and_recovery.py"))["planned"]())
    assert len(planned) == len(set(planned)) == 1 + sum(recovery.SEEDS.values()) + timing.SEEDS * len(timing.ARMS)
    of_recovery, last = planned[1 : 1 + sum(recovery.SEEDS.values())], planned[-2 * timing.SEEDS :]
    seeds = [seed for _, seed in of_recovery]
    assert {arm for arm, _ in of_recovery} == set(recovery.SEEDS) and seeds == sorted(seeds)
    assert {timing.ARMS[arm][1] for arm, _ in last} == {timing.DURING}
    for arm, seed in planned:  # what another starts from comes first
        if arm == recovery.AGAIN:
            assert planned.index((recovery.HEALED[32], seed)) < planned.index((arm, seed))
