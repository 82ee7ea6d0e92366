"""The verdict rules: one set for all claims, so their properties are tested for any claim."""

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binomtest

from em_companion.evidence import claims
from em_companion.evidence.claims import Claim, Measurement

NUMBER = st.floats(-200, 200).map(lambda value: round(value, 2))
UNITS = sorted(claims.TOLERANCES)


def claim(**changes) -> Claim:
    base = Claim("c", "2", "p", "n", "s", "equals", 11.3, "percent", 0.0, "t", ["released"], "own")
    return replace(base, **changes)


@st.composite
def any_claim(draw) -> Claim:
    relation = draw(st.sampled_from(claims.RELATIONS))
    reported = sorted([draw(NUMBER), draw(NUMBER)]) if relation == "between" else draw(NUMBER)
    return claim(relation=relation, reported=reported, unit=draw(st.sampled_from(UNITS)), reference=draw(NUMBER))


def judge(what: Claim, value: float, interval=None) -> str:
    return claims.verdict(what, "released", Measurement("c", value, "how", interval=interval))


@given(any_claim(), NUMBER)
def test_every_measurement_gets_one_of_three_verdicts(what, value):
    assert judge(what, value) in ("reproduced", "same direction", "differs")


@given(any_claim())
def test_without_measurement_a_claim_is_never_judged(what):
    assert claims.verdict(what, "released", None) == "not run"
    assert claims.verdict(what, "released", Measurement("c", math.nan, "how")) == "not run"
    assert claims.verdict(what, "hub", Measurement("c", 1.0, "how", "hub")) == "not testable with this evidence"


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
    side = claims.direction(what)
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


@given(st.integers(1, 2000), st.floats(0, 1))
def test_wilson_interval_agrees_with_scipy(n, share):
    hits = round(share * n)
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert claims.wilson_interval(100 * hits / n, n) == pytest.approx(
        (100 * expected.low, 100 * expected.high), abs=1e-6
    )


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
    assert claims.printed_digits(value) == digits


# --- the registry of the paper's claims -------------------------------------------------------------------------------


def test_registry_loads_and_covers_the_paper():
    registry = claims.load_claims()
    assert len(registry) >= 60
    assert {"2", "3.1", "3.2", "3.3", "3.4", "3.5", "4.1", "4.2", "4.3", "C", "D", "F", "H", "I", "J"} <= {
        c.section for c in registry.values()
    }
    assert all(c.evidence for c in registry.values())
    assert len([c for c in registry if c.startswith("s4-1-tab-1-")]) == 20


def test_a_stray_measurement_is_refused():
    with pytest.raises(claims.CompanionError, match="names a claim"):
        claims.ledger([Measurement("no-such-claim", 1.0, "how")])


def test_ledger_says_why_something_was_not_run():
    rows = {row["id"]: row["results"] for row in claims.ledger([], unavailable=["s2-model-organism"])}
    result = rows["s2-em-rate-nine-adapter"]
    assert result["released"] == {"verdict": "not run", "reason": "released data not available"}
    assert result["grown"] == {"verdict": "not run", "reason": "waiting for grown evidence"}
