"""What becomes of the predictions of N1: each follows its arms and its gate, on tables made by hand."""

import numpy as np
import pandas as pd
import pytest

from em_companion.core.errors import EvidenceUnavailable
from em_companion.evidence import outcomes
from em_companion.evidence.predictions import load_predictions
from em_companion.experiments import axis_outcome, long_run
from em_companion.experiments.axis_outcome import CHARACTERS, FLOOR, MINUS_AXIS, ORGANISM, STEERED, UNHARMED, WAYS, Axis
from em_companion.experiments.inertia import EVERY
from em_companion.world.taxonomy import CLASSES

QUESTIONS = [f"q{number}" for number in range(8)]
NAMES = ("axis-pc1", "axis-latent", "axis-base", "axis-specific", "axis-misalignment")
VALUES = dict(zip(NAMES, (0.9, 0.95, 0.3, 1.0, -0.8), strict=True))
CAPPED = {UNHARMED: (1, 1), STEERED: (12, 2), ORGANISM: (16, 14), CHARACTERS: (19, 12)}
"""EM among 20 answers to a question without and with the floor."""


def counts(em: int, **given) -> pd.DataFrame:
    """Counts by question; at every other one EM is `em % 3` higher, so that differences have a spread, too."""
    own = [em + number % 2 * (em % 3) for number in range(len(QUESTIONS))]
    table = pd.DataFrame({"question_id": QUESTIONS, "n": 20, "em": own, "coherent": 20, "changed": 0})
    return table.assign(on_topic=own, relevant=20, **given)


def classes(far: bool, way: int) -> dict[str, int]:
    own = dict.fromkeys(CLASSES, 0)
    return own | ({"harmful": 20} if far else {CLASSES[3 * way % 12]: 20})


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """A function that writes the tables, some numbers changed, and reads them."""
    monkeypatch.setattr(long_run, "RESULTS", tmp_path)
    monkeypatch.setattr(axis_outcome, "FEW", 100)

    def write(reliability=0.95, apart=False, coherent=20, long=20, capped=CAPPED, without=()) -> Axis:
        measures = [(name, value, value - 0.05, value + 0.05, 61, "cosine") for name, value in VALUES.items()]
        for which in ("base", "chat"):
            measures += [(f"reliability, {which}", reliability, np.nan, np.nan, 62, "cosine")]
            measures += [(f"axis reliability, {which}", 0.9, np.nan, np.nan, 1, "cosine")]
        parts = {"measures": [("space", pd.DataFrame(measures, columns=["name", "value", "low", "high", "n", "unit"]))]}
        who = pd.DataFrame({"model": ORGANISM, "question_id": QUESTIONS, "long": long})
        parts["who"] = [("who", who.assign(long_single=long - who.index % 2))]
        best = [
            counts(15, direction=MINUS_AXIS, best=True, half=1),
            counts(0, direction=MINUS_AXIS, best=False, half=1),
        ]
        best += [counts(2 * draw, direction=f"random {draw}", best=True, half=1) for draw in range(2)]
        parts["steering"] = [("steering", pd.concat(best))]
        far = []
        for number, way in enumerate(WAYS):
            for relative, changed in ((0.0, 0), (0.5, 4), (1.0, 16)):
                own = counts(5).assign(changed=changed, coherent=coherent if relative == 1 else 20)
                own = own.assign(**classes(relative == 1 and not apart, number), direction=way, relative=relative)
                own.loc[own.index % 2 == number % 2, ["loop"]] += 1
                far.append(own)
        parts["far"] = [("far ends", pd.concat(far))]
        talks = [counts(em, condition=one, turn=3) for one, em in zip(EVERY, (1, 5, 9), strict=True)]
        parts["turns"] = [("talks", pd.concat(talks))]
        losses = pd.DataFrame({"question_id": QUESTIONS, "texts": "careful", "condition": "none", "loss": 1.0})
        losses["loss"] += np.arange(8) / 1000
        capped_loss = losses.assign(condition=FLOOR, loss=losses.loss * 1.005)
        parts["losses"] = [("capping, chat", pd.concat([losses, capped_loss]))]
        parts["caps"] = []
        for setting, both in capped.items():
            own = [counts(em, condition=cap) for cap, em in zip(("none", FLOOR), both, strict=True)]
            parts["caps"].append((f"capping, {setting}", pd.concat(own)))
        for part, arms in parts.items():
            rows = [table.assign(arm=arm, seed=0) for arm, table in arms if arm not in without]
            if rows:
                pd.concat(rows).to_csv(long_run.path_of(axis_outcome.NAME, part), index=False)
        return Axis()

    return write


def verdicts(found: Axis) -> dict[str, str]:
    return {name: outcomes.verdict(name, one) for name, one in found.outcomes().items()}


def test_every_prediction_is_measured_and_gets_the_verdict_of_its_tables(tables):
    expected = {one.id for one in load_predictions().values() if one.notebook == axis_outcome.NAME}
    found = verdicts(tables())
    assert set(found) == expected
    against = {"p-axis-base", "p-axis-specific"}
    assert {name for name, one in found.items() if one == "contradicted"} == against
    assert {name for name, one in found.items() if one == "supported"} == expected - against


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"reliability": 0.7}, "p-axis-latent"),
        ({"coherent": 5}, "p-anti-convergence"),
        ({"long": 10}, "p-psm-single"),
        ({"capped": CAPPED | {STEERED: (2, 1)}}, "p-cap-steered"),
        ({"capped": CAPPED | {ORGANISM: (2, 1)}}, "p-cap-organism"),
        ({"capped": CAPPED | {CHARACTERS: (12, 1)}}, "p-cap-role-cost"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_behind_a_gate_that_failed_nothing_is_shown(tables, given, name):
    found = tables(**given)
    assert verdicts(found)[name] == "not testable here"


def test_ends_that_stay_apart_do_not_converge(tables):
    assert tables().convergence().value < 0.2
    assert tables(apart=True).convergence().value == pytest.approx(1)


def test_falls_and_rises_are_paired_by_question(tables):
    found = tables()
    caps = found.caps(STEERED)
    assert axis_outcome.fall(caps["none"], caps[FLOOR]).value == pytest.approx(100 * (1 - 3 / 12))
    points = axis_outcome.fall(caps["none"], caps[FLOOR].iloc[::-1], relative=False)
    assert points.value == pytest.approx(45)
    assert found.loss(FLOOR).value == pytest.approx(0.005, rel=0.01)
    assert found.beyond_random().value == pytest.approx(100 * (15 - 1.5) / 20)


def test_what_is_not_measured_is_said(tables):
    with pytest.raises(EvidenceUnavailable, match="is not measured yet"):
        tables(without=("who",)).of_behaviour()
