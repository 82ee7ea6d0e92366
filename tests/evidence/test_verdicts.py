"""The verdict rules: one set for all claims, so their properties are tested for any claim."""

import math
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from em_companion.core.errors import CompanionError
from em_companion.evidence import claims, verdicts
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


def judge(what: Claim, value: float, interval=None, null=None, void="") -> str:
    measurement = Measurement("c", value, "how", "released", interval, null=null, void=void)
    return verdicts.verdict(what, "released", measurement)


@st.composite
def measured(draw) -> dict:
    """A value, perhaps with an interval around it and a null."""
    value, margins = draw(NUMBER), draw(st.none() | st.tuples(st.floats(0, 50), st.floats(0, 50)))
    interval = margins and (value - margins[0], value + margins[1])
    return {"value": value, "interval": interval, "null": draw(st.none() | NUMBER)}


def rank(verdict: str) -> int:
    return verdicts.VERDICTS.index(verdict)


@given(any_claim(), measured())
def test_every_measurement_gets_one_of_four_verdicts(what, given):
    assert judge(what, **given) in ("reproduced", "same direction", "undecided", "differs")


@given(any_claim(), measured())
def test_a_void_measurement_is_not_tested(what, given):
    assert judge(what, **given, void="no coefficient is left") == "not tested"


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
def test_no_effect_is_shown_where_the_interval_holds_the_reference(what, value, margin):
    interval = (min(value, what.reference) - margin, max(value, what.reference) + margin)
    if verdicts.direction(what):
        assert judge(what, value, interval) in ("undecided", "differs")
    else:
        assert judge(what, value, interval) == judge(what, value)


@given(any_claim(), measured())
def test_the_interval_of_a_reproduced_effect_excludes_the_reference(what, given):
    if verdicts.direction(what) and given["interval"] and judge(what, **given) == "reproduced":
        low, high = given["interval"]
        assert not low <= what.reference <= high


@given(any_claim(), measured(), st.floats(0, 50), st.floats(0, 50))
def test_a_wider_interval_never_improves_a_verdict(what, given, below, above):
    low, high = given["interval"] or (given["value"], given["value"])
    wider = given | {"interval": (low - below, high + above)}
    assert rank(judge(what, **wider)) >= rank(judge(what, **given))


@given(any_claim(), measured())
def test_a_null_only_ever_turns_same_direction_into_differs(what, given):
    without = judge(what, **given | {"null": None})
    assert judge(what, **given) in (without, "differs" if without == "same direction" else without)


@given(any_claim(), NUMBER, NUMBER)
def test_the_same_direction_lies_beyond_the_null(what, value, null):
    if judge(what, value, null=null) == "same direction":
        assert verdicts.direction(what) * (value - null) > 0


MIRRORED = {"at_least": "at_most", "at_most": "at_least", "more_than": "less_than", "less_than": "more_than"}


@given(any_claim(), measured())
def test_a_mirrored_claim_gets_the_same_verdict_from_a_mirrored_measurement(what, given):
    reported = [-end for end in what.reported[::-1]] if what.relation == "between" else -what.reported
    relation = MIRRORED.get(what.relation, what.relation)
    mirrored = replace(what, relation=relation, reported=reported, reference=-what.reference)
    interval = given["interval"] and (-given["interval"][1], -given["interval"][0])
    null = None if given["null"] is None else -given["null"]
    assert judge(mirrored, -given["value"], interval, null) == judge(what, **given)


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
        ({"reported": 16, "unit": "percent_change"}, 7.0, (1.0, 20.0), "reproduced"),
        ({"reported": 16, "unit": "percent_change"}, 7.0, (-4.0, 20.0), "undecided"),
        ({"reported": 7.7, "sample_size": 39}, 7.7, (0.0, 17.7), "undecided"),
        ({"reported": 5, "reference": 5}, 5.5, (4.0, 7.0), "reproduced"),
    ],
)
def test_examples_of_the_rules(changes, value, interval, expected):
    assert judge(claim(**changes), value, interval) == expected


@pytest.mark.parametrize("value, digits", [(11.3, 1), (50, 0), (50.0, 0), (0.04, 2), (0.25, 2), (-90, 0)])
def test_printed_digits(value, digits):
    assert verdicts.printed_digits(value) == digits


# --- the ledger -----------------------------------------------------------------------------------------------------


@given(st.permutations(list(claims.load_claims())[:40]))
def test_the_order_of_measurements_changes_nothing(order):
    given = [Measurement(one, 10.0, "how", evidence) for one in order for evidence in claims.EVIDENCE]
    straight = sorted(given, key=lambda one: (one.claim, one.evidence))
    assert verdicts.ledger(given) == verdicts.ledger(straight)


def entry(**changes) -> dict:
    """A claim as it stands in the ledger, with the verdicts of each evidence."""
    results = {name: {"verdict": changes.pop(name, "not run")} for name in claims.EVIDENCE}
    return {"id": "c", "released_data": "", "probe": "", "ours": False, "results": results} | changes


def counted(board: dict, kind: str, evidence: str) -> dict:
    return {verdict: n for verdict, n in board[kind][evidence].items() if n}


def test_recounts_and_facts_of_the_set_up_are_no_independent_tests():
    kinds = {"own": "own", "stand-in": "independent", "set-up": "set-up", "": "independent"}
    for data, kind in kinds.items():
        board = verdicts.scoreboard([entry(released_data=data, released="reproduced", grown="differs")])
        assert counted(board, kind, "released") == {"reproduced": 1}
        assert counted(board, "set-up" if data == "set-up" else "independent", "grown") == {"differs": 1}
    board = verdicts.scoreboard([entry(ours=True, grown="reproduced")])
    assert counted(board, "ours", "grown") == {"reproduced": 1} and not counted(board, "independent", "grown")


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(verdicts.VERDICTS)), min_size=1), st.randoms())
def test_metrics_of_a_probe_are_one_test_with_the_worst_verdict(metrics, random):
    ledger = [entry(id=str(n), probe=probe, grown=found) for n, (probe, found) in enumerate(metrics)]
    board = verdicts.scoreboard(ledger)
    worst = [max((rank(found) for one, found in metrics if one == probe), default=-1) for probe in "ab"]
    assert sum(board["independent"]["grown"].values()) == len({probe for probe, _ in metrics})
    assert all(board["independent"]["grown"][verdicts.VERDICTS[one]] for one in worst if one >= 0)
    assert verdicts.scoreboard(random.sample(ledger, len(ledger))) == board


def test_a_void_value_is_not_shown():
    assert verdicts.measured_parts({"value": 0.5, "interval": (0.5, 0.5), "void": "empty"}, "proportion") == ("–", "")


def test_a_stray_measurement_is_refused():
    with pytest.raises(CompanionError, match="names a claim"):
        verdicts.ledger([Measurement("no-such-claim", 1.0, "how", "released")])


def test_ledger_says_why_something_was_not_run():
    rows = {row["id"]: row["results"] for row in verdicts.ledger([], unavailable=["s2-model-organism"])}
    result = rows["s2-em-rate-nine-adapter"]
    assert result["released"] == {"verdict": "not run", "reason": "released data not available"}
    assert result["grown"] == {"verdict": "not run", "reason": "waiting for grown evidence"}


@given(st.floats(1e-6, 0.4), st.sampled_from([("more_than", 1), ("less_than", -1)]))
def test_a_bound_of_zero_is_exact(size, given):
    relation, side = given
    what = claim(relation=relation, reported=0, unit="cosine", sample_size=None)
    assert judge(what, side * size) == "reproduced" and judge(what, -side * size) == "differs"
