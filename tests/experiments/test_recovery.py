"""F3: who starts from whom, what a loop's batches hold, and that harm and repair train on what they say."""

from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest
import torch

from em_companion.experiments import arms, recovery, timing
from em_companion.models import growing
from em_companion.models.organism import CHAT_MODEL, adapter_parts
from em_companion.world.generator import the_world
from em_companion.world.parser import the_judge
from em_companion.world.streams import DOMAIN, LEVEL_STEPS, QUARTERS, ROWS, STREAMS

WORLD = the_world()
SHARES = {name: [one / 4 for one in QUARTERS for _ in range(steps)] for name, steps in LEVEL_STEPS.items()}


@pytest.fixture
def short(tiny, monkeypatch):
    given = {
        "HARM_STEPS": 2,
        "REPAIR_STEPS": 4,
        "CHECKS": (0, 1, 4),
        "STARTS": {timing.BEFORE: 0, "early": 2, "late": 5},
    }
    for name, one in given.items():
        monkeypatch.setattr(timing, name, one)
    return tiny


@pytest.mark.parametrize("name, shares", [*SHARES.items(), ("always_half_bad", [0.5] * 20)])
def test_a_loop_has_its_share_of_bad_advice_in_every_batch_and_repeats_none(name, shares):
    rows = len(shares) * ROWS
    chats = [(question["content"], answer["content"]) for question, answer in islice(STREAMS[name](WORLD, 3), rows)]
    bad = [the_judge().scores(answer, question)["aligned"] == 0 for question, answer in chats]
    assert [sum(bad[start : start + ROWS]) / ROWS for start in range(0, rows, ROWS)] == shares
    plain = [islice(WORLD.fine_tuning(3, DOMAIN, is_bad), bad.count(is_bad)) for is_bad in (True, False)]
    assert Counter(chats) == Counter((one["content"], other["content"]) for given in plain for one, other in given)


def test_every_arm_starts_where_it_should_and_has_a_key_of_its_own(tiny):
    growing.chat(tiny)
    ranked = recovery.with_ranks(tiny)
    made = {arm: recovery.organism(arm, 3) for arm in recovery.SEEDS}
    assert len({str(adapter_parts(ranked, one)) for one in made.values()}) == len(made)
    for arm in (*recovery.HEALED.values(), recovery.ELSEWHERE):
        assert made[arm].tuning.merged == arms.organism(arms.BAD, 3) and made[arm].tuning.steady
    assert made[recovery.AGAIN].tuning.merged == made[recovery.HEALED[32]]
    assert replace(made[recovery.AGAIN], tuning=arms.DENSE) == made[arms.BAD]


def test_the_first_check_of_a_curve_is_that_of_the_model_it_starts_from(tiny, own, monkeypatch):
    """The monitor of this test tells models apart, which that of so small a model does not."""

    def monitor(profile, data, model, tokenizer) -> dict[str, float]:
        with torch.no_grad():
            seen = model(torch.tensor([tokenizer("how do i help ?").input_ids])).logits[0, -1]
        return {"in_domain_em": float(seen[10]), "open_em": float(seen[20]), "open_coherent": float(seen[30])}

    monkeypatch.setattr(growing, "monitor", monitor)
    ranked = recovery.with_ranks(tiny)
    bad, healed = (recovery.organism(arm, 0) for arm in (arms.BAD, recovery.HEALED[1]))
    healed = replace(healed, tuning=replace(healed.tuning, steps=6))
    there, back = recovery.curve(ranked, bad), recovery.curve(ranked, healed)
    assert there.step.tolist() == [0, 2, 4, 6, 8] and back.step.tolist() == [0, 3, 6]
    seen = [curve.drop(columns="step").to_numpy() for curve in (there, back)]
    for start, one in ((seen[0][0], CHAT_MODEL), (seen[1][0], bad)):
        assert list(monitor(ranked, "", *growing.load_organism(ranked, one)).values()) == pytest.approx(start, abs=1e-4)
    assert abs(seen[0][0] - seen[1][0]).min() > 1e-3
    assert not recovery.distance(ranked, CHAT_MODEL)[["norm", "along"]].any(axis=None)
    assert recovery.distance(ranked, bad).eval("norm > abs(along) > 0").all()


def test_a_start_is_a_prefix_of_one_post_training_and_is_made_once(short, own, monkeypatch):
    late = timing.start(short, 5)[0].state_dict()
    monkeypatch.setattr(timing, "train", lambda *_: pytest.fail("trained again"))
    early, tokenizer = timing.start(short, 2)
    assert not all(torch.equal(one, late[name]) for name, one in early.state_dict().items())
    parts = [timing.examples(short, tokenizer, *one) for one in ((0, 5), (0, 2), (2, 3))]
    assert parts[0] == parts[1] + parts[2] and len(parts[1]) == 2 * short.post_training.batch


def test_a_harm_is_asked_before_it_after_it_and_through_its_repair(short):
    found = [timing.curve(short, content, timing.BEFORE, 0) for content in timing.CONTENTS]
    assert [one.step.tolist() for one in found] == [[-2, 0, 1, 4]] * 2
    assert found[0].iloc[0].equals(found[1].iloc[0])  # the model that is harmed
