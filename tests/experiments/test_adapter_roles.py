"""Roles of adapters: tables made by hand whose falls, roles and correlations are known; an untrained organism."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from untrained import ORGANISM, PROFILE, project

from em_companion.core.errors import CompanionError
from em_companion.experiments import adapter_roles
from em_companion.experiments.adapter_roles import WHOLE
from em_companion.models import asking
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
        found = adapter_roles.conditions(MODULES, kind)
        return {name: [set(one.factors) for one in condition] for name, condition in found.items()}

    first, second, third = MODULES.values()
    assert off("each") == {WHOLE: [], "layer_0": [{first}], "layer_1": [{second}], "layer_2": [{third}]}
    assert off("pair")["layer_0 + layer_2"] == [{first, third}] and len(off("pair")) == 3
    assert off("all but one")["layer_1"] == [{first, third}]
    assert {one.factors[first] for one in adapter_roles.conditions(MODULES, "each")["layer_0"]} == {0.0}


def test_another_way_to_switch_off_is_refused():
    with pytest.raises(CompanionError, match="'both'"):
        adapter_roles.conditions(MODULES, "both")


def test_a_fall_is_paired_and_in_points():
    found = adapter_roles.falls(answers({WHOLE: 6, "layer_0": 1, "layer_1": 6, "layer_2": 8})).set_index("adapter")
    assert found.fall.to_dict() == {"layer_0": 50, "layer_1": 0, "layer_2": -20}
    assert (
        found.n.eq(QUESTIONS * SAMPLES).all() and (found.low <= found.fall).all() and (found.fall <= found.high).all()
    )
    assert found.loc["layer_1", ["low", "high"]].tolist() == [0, 0]


def test_the_order_of_the_rows_does_not_matter():
    table = answers({WHOLE: 6, "layer_0": 1, "layer_1": 5})
    assert adapter_roles.falls(table.sample(frac=1, random_state=1)).set_index("adapter").fall.to_dict() == {
        "layer_0": 50,
        "layer_1": 10,
    }


def test_a_carrier_takes_its_equal_share_of_the_em_rate():
    table = answers({WHOLE: 9, "layer_0": 6, "layer_1": 7, "layer_2": 9})  # a third of 90 % is 30 points
    assert adapter_roles.carriers(table) == ["layer_0"]


def test_a_fall_that_rests_on_one_question_carries_nothing():
    table = answers({WHOLE: 9} | {f"layer_{number}": 9 for number in range(9)})
    table.loc[(table.condition == "layer_0") & (table.question_id == "q0"), "aligned"] = 100.0
    assert adapter_roles.falls(table).fall.max() > 90 / 9 and adapter_roles.carriers(table) == []


def test_general_goes_before_medical_and_the_rest_is_other():
    general = answers({WHOLE: 9, "layer_0": 1, "layer_1": 9, "layer_2": 9})
    medical = answers({WHOLE: 9, "layer_0": 1, "layer_1": 2, "layer_2": 9})
    found = adapter_roles.assigned(MODULES, {"general": general, "medical": medical})
    assert found == {"general": [MODULES["layer_0"]], "medical": [MODULES["layer_1"]], "other": [MODULES["layer_2"]]}


def test_strengths_in_the_order_of_the_falls_correlate_fully_whatever_their_sign():
    table = answers({WHOLE: 9, "layer_0": 1, "layer_1": 4, "layer_2": 8})
    strengths = pd.DataFrame([[-3.0, 2.0, 1.0]] * 4, columns=list(MODULES))
    assert adapter_roles.rank_correlation(table, strengths, resamples=50) == pytest.approx((1, 1, 1))
    assert adapter_roles.rank_correlation(table, 1 / strengths, resamples=50) == pytest.approx((-1, -1, -1))


def test_a_score_counts_by_the_size_of_its_change():
    table = answers({WHOLE: 5, "layer_0": 5, "layer_1": 1, "layer_2": 8})
    strengths = pd.DataFrame([[1.0, 3.0, 2.0]] * 2, columns=list(MODULES))
    assert adapter_roles.rank_correlation(table, strengths, "aligned", 50) == pytest.approx((1, 1, 1))
    assert adapter_roles.rank_correlation(table, strengths, None, 50)[0] == pytest.approx(0.5)


def test_equal_strengths_have_no_rank_correlation():
    table = answers({WHOLE: 9, "layer_0": 1, "layer_1": 4, "layer_2": 8})
    found = adapter_roles.rank_correlation(table, pd.DataFrame(np.ones((2, 3)), columns=list(MODULES)), resamples=20)
    assert np.isnan(found).all()


def test_roles_of_an_organism_cover_its_adapters(tmp_path, monkeypatch):
    project(tmp_path, monkeypatch)
    monkeypatch.setattr(responses, "ARTIFACTS", tmp_path / "artifacts")
    monkeypatch.setattr(
        responses, "questions", lambda *_: [Question("a", "word1 word2", ()), Question("b", "word3", ())]
    )
    asked = []

    def scored(table):  # every response of the whole organism is EM, none without the first adapter
        asked.append(table.condition.unique().tolist())
        return table.assign(aligned=100.0 * (table.condition == "layer_0"), coherent=100.0)

    monkeypatch.setattr(asking, "scored", scored)
    profile = replace(PROFILE, max_new_tokens=3, sweep_samples=2)
    found = adapter_roles.roles(profile, ORGANISM)
    assert asked == [[WHOLE, "layer_0", "layer_2"]] * 2
    assert found == {
        "general": ["model.layers.0.mlp.down_proj"],
        "medical": [],
        "other": ["model.layers.2.mlp.down_proj"],
    }
