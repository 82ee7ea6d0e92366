"""The verdict rules: one set for all claims, so their properties are tested for any claim."""

import math
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from em_companion.core.errors import CompanionError
from em_companion.evidence import verdicts
from em_companion.evidence.claims import Claim, Measurement, Relation

NUMBER = st.floats(-200, 200).map(lambda value: round(value, 2))
UNITS = sorted(verdicts.TOLERANCES)


def claim(**changes) -> Claim:
    base = Claim("c", "2", "p", "n", "s", "equals", 11.3, "percent", 0.0, "t", ["released"], "own")
    return replace(base, **changes)


@st.composite
def any_claim(draw) -> Claim:
    relation = draw(st.sampled_from(get_args(Relation)))
    reported = sorted([draw(NUMBER), draw(NUMBER)]) if relation == "between" else draw(NUMBER)
    return claim(relation=relation, reported=reported, unit=draw(st.sampled_from(UNITS)), reference=draw(NUMBER))


def judge(what: Claim, value: float, interval=None) -> str:
    return verdicts.verdict(what, "released", Measurement("c", value, "how", "released", interval))


@given(any_claim(), NUMBER)
def test_every_measurement_gets_one_of_three_verdicts(what, value):
    assert judge(what, value) in ("reproduced", "same direction", "differs")


@given(any_claim())
def test_without_measurement_a_claim_is_never_judged(what):
    assert verdicts.verdict(what, "released", None) == "not run"
    assert verdicts.verdict(what, "released", Measurement("c", math.nan, "how", "released")) == "not run"
    assert verdicts.verdict(what, "hub", Measurement("c", 1.0, "how", "hub")) == "not testable with this evidence"


@given(any_claim())
def test_the_reported_value_itself_is_reproduced_unless_the_inequality_is_strict(what):
    assume(what.relation not in ("more_than", "less_than"))
    value = what.reported[0] if what.relation == "between" else what.reported
    assert judge(what, value) == "reproduced"


@given(any_claim(), NUMBER, NUMBER)
def test_reproduced_values_form_one_interval(what, first, second):
    if judge(what, first) == judge(what, second) == "reproduced":
        assert judge(what, (first + second) / 2) == "reproduced"


@given(any_claim(), NUMBER)
def test_the_wrong_side_of_the_reference_is_never_the_same_direction(what, value):
    side = verdicts.direction(what)
    if judge(what, value) == "same direction":
        assert side * (value - what.reference) > 0
    if side == 0:
        assert judge(what, value) != "same direction"


@given(any_claim(), NUMBER, st.floats(0.1, 50))
def test_an_interval_that_holds_the_reference_never_helps(what, value, margin):
    interval = (min(value, what.reference) - margin, max(value, what.reference) + margin)
    assert judge(what, value, interval) in ("reproduced", "differs")


@given(any_claim(), NUMBER, st.floats(0.1, 50))
def test_an_interval_never_turns_a_verdict_into_reproduced(what, value, margin):
    if judge(what, value) != "reproduced":
        assert judge(what, value, (value - margin, value + margin)) != "reproduced"


@pytest.mark.parametrize(
    "changes, value, interval, expected",
    [
        ({"sample_size": 400}, 8.6, None, "reproduced"),
        ({"sample_size": 400}, 8.5, None, "same direction"),
        ({"sample_size": 400}, 20.0, (15.0, 26.0), "same direction"),
        ({"sample_size": 400}, 4.0, (-1.0, 9.0), "differs"),
        ({"relation": "more_than", "reported": 0.95, "unit": "cosine"}, 0.954, None, "same direction"),
        ({"relation": "more_than", "reported": 0.95, "unit": "cosine"}, 0.956, None, "reproduced"),
        ({"relation": "more_than", "reported": 99, "reference": 50}, 97.1, None, "same direction"),
        ({"relation": "at_most", "reported": 4, "unit": "count", "reference": 48}, 4, None, "reproduced"),
        ({"reported": 0.69, "unit": "proportion", "reference": 0.5}, 0.68, None, "reproduced"),
        ({"reported": 0.69, "unit": "proportion", "reference": 0.5}, 0.6799, None, "same direction"),
        ({"reported": 336, "unit": "count"}, 337, None, "same direction"),
        ({"reported": -90, "unit": "percent_change"}, -5.0, (-20.0, 10.0), "differs"),
    ],
)
def test_examples_of_the_rules(changes, value, interval, expected):
    assert judge(claim(**changes), value, interval) == expected


@pytest.mark.parametrize("value, digits", [(11.3, 1), (50, 0), (50.0, 0), (0.04, 2), (0.25, 2), (-90, 0)])
def test_printed_digits(value, digits):
    assert verdicts.printed_digits(value) == digits


# --- the ledger -----------------------------------------------------------------------------------------------------


def test_a_stray_measurement_is_refused():
    with pytest.raises(CompanionError, match="names a claim"):
        verdicts.ledger([Measurement("no-such-claim", 1.0, "how", "released")])


def test_ledger_says_why_something_was_not_run():
    rows = {row["id"]: row["results"] for row in verdicts.ledger([], unavailable=["s2-model-organism"])}
    result = rows["s2-em-rate-nine-adapter"]
    assert result["released"] == {"verdict": "not run", "reason": "released data not available"}
    assert result["grown"] == {"verdict": "not run", "reason": "waiting for grown evidence"}
