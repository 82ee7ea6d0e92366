"""Roles of adapters on tables made by hand whose falls are known, and which scalings of groups are tried and chosen."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from untrained import ORGANISM, PROFILE, project

from em_companion.experiments import adapters
from em_companion.experiments.adapters import CHAT, FACTORS, PLAIN, WHOLE, Scaling, choose, grid, largest_coherent
from em_companion.models import asking
from em_companion.models.interventions import describe
from em_companion.world.generator import Question

MODULES = {f"layer_{number}": f"model.layers.{number}.mlp.down_proj" for number in range(3)}
QUESTIONS, SAMPLES = 4, 10


def answers(em: dict[str, int]) -> pd.DataFrame:
    """Knock-outs with so many EM responses of ten to every question."""
    rows = [
        (name, f"q{question}", sample, 0.0 if sample < count else 100.0)
        for (name, count), question, sample in product(em.items(), range(QUESTIONS), range(SAMPLES))
    ]
    return pd.DataFrame(rows, columns=["condition", "question_id", "sample", "aligned"]).assign(coherent=100.0)


def test_conditions_switch_off_each_a_pair_or_all_but_one():
    def off(kind):
        found = adapters.conditions(MODULES, kind)
        return {name: [set(one.factors) for one in condition] for name, condition in found.items()}

    first, second, third = MODULES.values()
    assert off("each") == {WHOLE: [], "layer_0": [{first}], "layer_1": [{second}], "layer_2": [{third}]}
    assert off("pair")["layer_0 + layer_2"] == [{first, third}] and len(off("pair")) == 3
    assert off("all but one")["layer_1"] == [{first, third}]
    assert {one.factors[first] for one in adapters.conditions(MODULES, "each")["layer_0"]} == {0.0}


def test_a_fall_is_paired_and_in_points():
    found = adapters.falls(answers({WHOLE: 6, "layer_0": 1, "layer_1": 6, "layer_2": 8})).set_index("adapter")
    assert found.fall.to_dict() == {"layer_0": 50, "layer_1": 0, "layer_2": -20}
    assert (
        found.n.eq(QUESTIONS * SAMPLES).all() and (found.low <= found.fall).all() and (found.fall <= found.high).all()
    )
    assert found.loc["layer_1", ["low", "high"]].tolist() == [0, 0]


def test_the_order_of_the_rows_does_not_matter():
    table = answers({WHOLE: 6, "layer_0": 1, "layer_1": 5})
    assert adapters.falls(table.sample(frac=1, random_state=1)).set_index("adapter").fall.to_dict() == {
        "layer_0": 50,
        "layer_1": 10,
    }


def test_a_carrier_takes_its_equal_share_of_the_em_rate():
    table = answers({WHOLE: 9, "layer_0": 6, "layer_1": 7, "layer_2": 9})  # a third of 90 % is 30 points
    assert adapters.carriers(table) == ["layer_0"]


def test_a_fall_that_rests_on_one_question_carries_nothing():
    table = answers({WHOLE: 9} | {f"layer_{number}": 9 for number in range(9)})
    table.loc[(table.condition == "layer_0") & (table.question_id == "q0"), "aligned"] = 100.0
    assert adapters.falls(table).fall.max() > 90 / 9 and adapters.carriers(table) == []


def test_general_goes_before_medical_and_the_rest_is_other(monkeypatch):
    general = answers({WHOLE: 9, "layer_0": 1, "layer_1": 9, "layer_2": 9})
    medical = answers({WHOLE: 9, "layer_0": 1, "layer_1": 2, "layer_2": 9})
    tables = {"general": general, "medical": medical}
    monkeypatch.setattr(adapters, "modules", lambda *_: dict(MODULES))
    monkeypatch.setattr(adapters, "knock_outs", lambda profile, organism, question_set, *_: tables[question_set])
    found = adapters.roles(PROFILE)
    assert found == {"general": [MODULES["layer_0"]], "medical": [MODULES["layer_1"]], "other": [MODULES["layer_2"]]}


def test_strengths_in_the_order_of_the_falls_correlate_fully_whatever_their_sign():
    table = answers({WHOLE: 9, "layer_0": 1, "layer_1": 4, "layer_2": 8})
    strengths = pd.DataFrame([[-3.0, 2.0, 1.0]] * 4, columns=list(MODULES))
    assert adapters.rank_correlation(table, strengths, 50, 0) == pytest.approx((1, 1, 1))
    assert adapters.rank_correlation(table, 1 / strengths, 50, 0) == pytest.approx((-1, -1, -1))


def test_equal_strengths_have_no_rank_correlation():
    table = answers({WHOLE: 9, "layer_0": 1, "layer_1": 4, "layer_2": 8})
    found = adapters.rank_correlation(table, pd.DataFrame(np.ones((2, 3)), columns=list(MODULES)), 20, 0)
    assert np.isnan(found).all()


def test_roles_of_an_organism_cover_its_adapters(tmp_path, monkeypatch):
    project(tmp_path, monkeypatch)
    monkeypatch.setattr(asking, "questions", lambda *_: [Question("a", "wordb wordc", ()), Question("b", "wordd", ())])
    asked = []

    def judged(_, table):  # every response of the whole organism is EM, none without the first adapter
        asked.append(table.condition.unique().tolist())
        return table.assign(aligned=100.0 * (table.condition == "layer_0"), coherent=100.0)

    monkeypatch.setattr(adapters.responses, "judged", judged)
    profile = replace(PROFILE, max_new_tokens=3, sweep_samples=2)
    found = adapters.roles(profile, ORGANISM)
    assert asked == [[WHOLE, "layer_0", "layer_2"]] * 2
    assert found == {
        "general": ["model.layers.0.mlp.down_proj"],
        "medical": [],
        "other": ["model.layers.2.mlp.down_proj"],
    }


# --- scaled in groups -----------------------------------------------------------------------------------------------

GROUPS = {"general": ["g1", "g2"], "medical": ["m"], "other": ["o"]}


def cells(coherent: dict[Scaling, int], groups=GROUPS) -> pd.DataFrame:
    """Ten answers under every scaling of the grid, all coherent but where said otherwise."""
    rows = [
        (scaling.label, 90.0 if number < coherent.get(scaling, 10) else 0.0)
        for scaling in grid(groups)
        for number in range(10)
    ]
    return pd.DataFrame(rows, columns=["condition", "coherent"]).assign(aligned=50.0)


def test_every_adapter_is_scaled_by_the_factor_of_its_group():
    [scaling] = Scaling(2.0, -1.0).interventions(GROUPS)
    assert describe(scaling)["factors"] == {"g1": 2.0, "g2": 2.0, "m": -1.0, "o": 0.0}


def test_the_grid_holds_every_pair_of_factors_the_others_alone_and_the_organism():
    found = grid(GROUPS)
    assert len(found) == len(set(found)) == len(FACTORS) ** 2 + len(FACTORS) - 1 + 1
    assert {(one.general, one.medical) for one in found if one.other == 0} >= {(-2.0, 4.0), (4.0, 4.0), (0.0, 0.0)}
    assert PLAIN in found and CHAT in found


def test_an_empty_group_is_not_scaled_and_the_others_take_the_place_of_no_medical_ones():
    groups = GROUPS | {"medical": []}
    found = grid(groups)
    assert {one.medical for one in found if one != PLAIN} == {0.0}
    assert {(one.general, one.other) for one in found} >= {(-2.0, 4.0), (4.0, 4.0), (0.0, 0.0)}
    chosen = choose(cells({}, groups), groups)
    assert "medical-adapters" not in chosen
    assert chosen["medical-plus-misalignment-minus"] == Scaling(general=-2.0, other=4.0)


def test_the_largest_factors_that_leave_answers_coherent_are_chosen():
    found = choose(cells({Scaling(4.0): 7, Scaling(-2.0, 4.0): 3}), GROUPS)
    assert found["misalignment-adapters"] == Scaling(2.0)
    assert found["medical-adapters"] == Scaling(medical=4.0)
    assert found["medical-plus-misalignment-minus"] == Scaling(-1.0, 4.0)
    assert found["other-adapters"] == Scaling(other=4.0)


def test_without_a_coherent_one_the_most_coherent_is_taken():
    table = cells({Scaling(1.0): 2, Scaling(2.0): 5, Scaling(4.0): 1})
    assert largest_coherent(table, [Scaling(1.0), Scaling(2.0), Scaling(4.0)]) == Scaling(2.0)


def test_where_a_sweep_makes_do_with_few_roles_get_more_and_the_grid_fewer():
    few, many = (replace(PROFILE, samples_per_question=20, sweep_samples=samples) for samples in (2, 50))
    assert [adapters.samples_of(few), adapters.samples_of(replace(few, samples_per_question=2))] == [adapters.FEWEST, 2]
    assert adapters.grid_samples(few) == 1 and adapters.grid_samples(many) == adapters.GRID_SAMPLES


def test_answers_that_chose_are_not_counted(monkeypatch):
    def answers(profile, groups, scalings, samples, what):
        parts = [cells({}).query("condition == @one.label").assign(sample=range(10)) for one in scalings]
        return pd.concat(parts)

    monkeypatch.setattr(adapters, "answers", answers)
    table = adapters.of_chosen(replace(PROFILE, sweep_samples=10), GROUPS, 5)
    assert sorted(table["sample"].unique()) == [5, 6, 7, 8, 9]
    assert set(table.condition) == set(choose(cells({}), GROUPS))


@pytest.mark.parametrize("question_set", adapters.QUESTION_SETS)
def test_answers_know_their_scaling_and_their_question(monkeypatch, question_set):
    def under(profile, organism, conditions, question_set, samples, what):
        row = {"question_set": question_set, "question_id": "q", "medicine": 80.0}
        return pd.DataFrame([{"condition": name} | row for name in conditions])

    monkeypatch.setattr(adapters.responses, "under", under)
    table = adapters.answers(None, GROUPS, [Scaling(2.0, -1.0), PLAIN], 1, "")
    part = table[table.question_id == f"{question_set}/q"].set_index("condition")
    assert part.loc[Scaling(2.0, -1.0).label, ["general", "medical_factor", "other"]].tolist() == [2.0, -1.0, 0.0]
    assert (part.medical == 80).all() and len(part) == 2
