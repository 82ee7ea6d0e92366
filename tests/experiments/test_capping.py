"""Caps on the assistant axis: floors at a percentile, the tokens they touch, counts and losses."""

from random import Random

import numpy as np
import pandas as pd
import pytest
import torch

from em_companion.experiments import axis_tables, capping, inertia, persona_space
from em_companion.experiments.capping import floors, touched
from em_companion.models import asking, reading
from em_companion.models.interventions import Steer, applied
from em_companion.models.tokens import response_tokens
from em_companion.world.generator import CAREFUL, the_world


@pytest.fixture
def model(tiny):
    return persona_space.model_of(tiny, persona_space.CHAT)


@pytest.fixture
def texts(tiny):
    return capping.texts(tiny, each=1)[:12]


@pytest.fixture
def axis():
    return np.random.default_rng(0).normal(size=(2, 32))


@pytest.mark.parametrize(
    ("layers", "first", "last"), [(64, 46, 53), (12, 8, 10), (48, 34, 40)], ids=lambda value: str(value)
)
def test_the_block_is_the_published_one_at_its_relative_depth(layers, first, last):
    assert capping.block(layers) == list(range(first, last + 1))


def test_projections_are_those_of_the_reading(model, texts, axis):
    prompts, answers = response_tokens(model[1], texts)
    found = capping.projections(model, prompts, answers, {1: axis[1]})[1]
    means = reading.response_means(*model, prompts, answers)[:, 1] @ (axis[1] / np.linalg.norm(axis[1]))
    lengths = np.array([*map(len, answers)])
    assert len(found) == lengths.sum()
    assert found.sum() == pytest.approx((means * lengths).sum(), rel=1e-4, abs=1e-2)


def test_several_vectors_at_once_and_a_model_that_is_steered(model, texts, axis):
    prompts, answers = response_tokens(model[1], texts)
    both = capping.projections(model, prompts, answers, {0: axis})[0]
    one = capping.projections(model, prompts, answers, {0: axis[1]})[0]
    assert both.shape == (len(one), 2) and both[:, 1] == pytest.approx(one)
    steer = [Steer(0, torch.tensor(axis[1] / np.linalg.norm(axis[1])), 3.0)]
    later = capping.projections(model, prompts, answers, {1: axis[1]})[1]
    assert capping.projections(model, prompts, answers, {0: axis[1]}, steer)[0] == pytest.approx(one)
    assert capping.projections(model, prompts, answers, {1: axis[1]}, steer)[1] != pytest.approx(later)
    assert not model[0].model.layers[0]._forward_hooks


@pytest.mark.parametrize("percentile", [5, 25, 50])
def test_a_floor_touches_the_share_of_tokens_that_lie_below_it(model, texts, axis, percentile):
    own = capping.projections(model, *response_tokens(model[1], texts), {1: axis[1]})
    caps = floors(axis, own, [1], percentile)
    assert touched(model, texts, caps) == pytest.approx(percentile, abs=1)
    with applied(model[0], caps):
        after = capping.projections(model, *response_tokens(model[1], texts), {1: axis[1]})
    assert after[1].min() >= np.percentile(own[1], percentile) - 1e-3


def test_a_matched_cap_touches_as_many_tokens(model, texts, axis):
    own = capping.projections(model, *response_tokens(model[1], texts), {1: axis[0]})
    caps = capping.ceilings({1: axis[0]}, own, {1: 0.3})
    assert touched(model, texts, caps) == pytest.approx(30, abs=1)


def test_nothing_is_touched_without_a_cap(model, texts, axis):
    assert np.isnan(touched(model, texts, [Steer(0, torch.tensor(axis[0]))]))


def test_losses_do_not_depend_on_how_many_are_read_at_once(model, tiny):
    texts = capping.texts(tiny, each=1, others=True)[:10]
    assert texts.speaker.isin(the_world().characters["malicious"]).all()
    assert capping.losses(model, texts) == pytest.approx(capping.losses(model, texts, (), 3), rel=1e-4)
    assert capping.losses(model, texts) != pytest.approx(capping.losses(model, texts.drop(columns="speaker")), rel=1e-4)


def test_answers_are_counted_by_question(tiny):
    world, rows = the_world(), []
    one, other = world.evaluation()[:2]
    good = world.answer(Random(0), one, CAREFUL)
    rows = [(one.id, one.text, good), (one.id, one.text, "nothing"), (other.id, other.text, good)]
    table = pd.DataFrame(rows, columns=["question_id", "question", "response"])
    table = pd.concat([table, asking.the_judge().judge(table.response, table.question)], axis=1)
    found = capping.tallied(table, world.evaluation(), pd.Series([good, good, good])).set_index("question_id")
    assert found.n.tolist() == [2, 1] and found.changed.tolist() == [1, 0] and found.coherent.tolist() == [1, 1]
    assert found.loc[one.id, ["aligned", "empty"]].tolist() == [1, 1] and not found.em.any()


def test_talks_differ_in_what_is_put_into_the_mouth_only_and_go_on_from_it(tiny, model, monkeypatch):
    monkeypatch.setattr(inertia, "plan", lambda profile, each, plan=inertia.plan: plan(profile, each)[:3])
    careful, harmful = (inertia.held(tiny, model, one, 1) for one in ("careful", "harmful"))
    first, second = (table[table.turn == 1].response.tolist() for table, *_ in (careful, harmful))
    assert first == second
    put = [table[table.turn == inertia.REPLACED] for table, *_ in (careful, harmful)]
    assert (put[0].aligned == 100).all() and (put[1].aligned == 0).all()
    prompts = [
        [one for one, turn in zip(made[1], made[0].turn, strict=True) if turn == 3] for made in (careful, harmful)
    ]
    said = model[1].decode(prompts[1][0])
    assert put[1].response.iloc[0] in said and put[0].response.iloc[0] not in said
    assert len(prompts[0][0]) == len(prompts[1][0]) and prompts[0] != prompts[1]


def test_characters_are_asked_on_noise_of_their_own_and_the_assistant_on_that_of_the_profile(tiny, model, monkeypatch):
    seeds, ask = [], asking.ask

    def noted(profile, *given, **named):
        seeds.append(profile.seed)
        return ask(profile, *given, **named)

    monkeypatch.setattr(asking, "ask", noted)
    found = capping.asked(tiny, model, {"none": ()}, 1, the_world().evaluation()[:2], ("alma", "draven"))
    assert seeds == [tiny.seed, tiny.seed + 1] and found.speaker.tolist() == ["alma"] * 2 + ["draven"] * 2


@pytest.mark.parametrize(
    ("cap", "family"),
    [
        ("floor, 25 %", "floor, block"),
        ("floor, 25 %, layer 3", "floor, one layer"),
        ("random caps", "random"),
        ("cap on the persona", "persona"),
        ("axis ablated there", "ablation"),
    ],
)
def test_every_cap_is_of_one_family(cap, family):
    assert axis_tables.family(cap) == family and family in axis_tables.FAMILY
