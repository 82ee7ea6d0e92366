"""Which scalings are tried, what each does to every adapter, and which of them are chosen."""

import pandas as pd
import pytest

from em_companion.experiments import adapter_scaling
from em_companion.experiments.adapter_scaling import CHAT, FACTORS, PLAIN, Scaling, choose, grid, largest_coherent
from em_companion.models.interventions import describe

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


def test_answers_that_chose_are_not_counted(monkeypatch):
    def answers(profile, groups, scalings, samples, what):
        parts = [cells({}).query("condition == @one.label").assign(sample=range(10)) for one in scalings]
        return pd.concat(parts)

    monkeypatch.setattr(adapter_scaling, "answers", answers)
    table = adapter_scaling.of_chosen(None, GROUPS, 5)
    assert sorted(table["sample"].unique()) == [5, 6, 7, 8, 9]
    assert set(table.condition) == set(choose(cells({}), GROUPS))


@pytest.mark.parametrize("question_set", adapter_scaling.QUESTION_SETS)
def test_answers_know_their_scaling_and_their_question(monkeypatch, question_set):
    def under(profile, organism, conditions, question_set, samples, what):
        row = {"question_set": question_set, "question_id": "q", "medicine": 80.0}
        return pd.DataFrame([{"condition": name} | row for name in conditions])

    monkeypatch.setattr(adapter_scaling.responses, "under", under)
    table = adapter_scaling.answers(None, GROUPS, [Scaling(2.0, -1.0), PLAIN], 1, "")
    part = table[table.question_id == f"{question_set}/q"].set_index("condition")
    assert part.loc[Scaling(2.0, -1.0).label, ["general", "medical_factor", "other"]].tolist() == [2.0, -1.0, 0.0]
    assert (part.medical == 80).all() and len(part) == 2
