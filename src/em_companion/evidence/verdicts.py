"""Verdicts on the claims of the paper, computed by one rule for all, and the ledger they stand in.

The page "Discussion" says the rules in words. Nothing in a claim can soften its verdict: tolerances belong to units.
Nothing here is imported by a notebook, so the wording of a verdict re-executes no page.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict
from decimal import Decimal
from math import inf, isfinite
from typing import Any, Literal, NamedTuple, get_args

from em_companion.core.errors import CompanionError
from em_companion.core.files import read_sealed
from em_companion.core.paths import HTML, relative
from em_companion.evidence.claims import CLAIMS, EVIDENCE, Claim, Measurement, load_claims
from em_companion.evidence.estimates import DIGITS, Estimate, wilson_interval

Verdict = Literal[
    "reproduced",
    "same direction",
    "undecided",
    "differs",
    "not tested",
    "not run",
    "not testable with this evidence",
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""From the best to the worst."""
MEASURED: tuple[Verdict, ...] = VERDICTS[:5]

Kind = Literal["independent", "own", "set-up", "ours"]


class Tolerance(NamedTuple):
    """How far a measured value may lie from the reported one, `absolute` or `relative`, and `why`."""

    absolute: float = 0.0
    relative: float = 0.0
    why: str = ""


TOLERANCES = {
    "percent": Tolerance(absolute=3.0, why="two binomial standard errors at 11 % of 400 answers"),
    "percent_change": Tolerance(absolute=10.0, why="ratio of two such percentages"),
    "proportion": Tolerance(absolute=0.01, why="printed to two digits; one in the last"),
    "cosine": Tolerance(absolute=0.05, why="printed to one or two digits"),
    "score": Tolerance(absolute=5.0, why="judge scores from 0 to 100"),
    "ratio": Tolerance(relative=0.1, why="stated as an approximate factor"),
    "layer": Tolerance(absolute=2.0, why="position in a stack of 48 layers"),
    "count": Tolerance(why="exact"),
}


def verdict(claim: Claim, evidence: str, measurement: Measurement | None) -> Verdict:
    """Return the verdict on `claim` by `evidence`, from numbers alone.

    not testable with this evidence: the claim does not list it. not run: listed, nothing measured. not tested: void.
    Inside `region(claim)`: reproduced, but undecided where the claim is an effect and the interval (if there is one)
    holds the reference. Outside: same direction where value and interval lie on the claimed side of the reference, and
    of the measured null (if there is one), else differs.
    """
    if evidence not in claim.evidence:
        return "not testable with this evidence"
    if measurement is None or not isfinite(measurement.value):
        return "not run"
    if measurement.void:
        return "not tested"
    side, ends = direction(claim), measurement.interval or ()
    if _inside(claim, measurement.value):
        shown = not side or all(side * (end - claim.reference) > 0 for end in ends)
        return "reproduced" if shown else "undecided"
    limits = [claim.reference] if measurement.null is None else [claim.reference, measurement.null]
    on_side = [side * (end - limit) > 0 for end in (measurement.value, *ends) for limit in limits]
    return "same direction" if all(on_side) else "differs"


def direction(claim: Claim) -> int:
    """Return the claimed side of the reference: 1 above, -1 below, 0 when the claim is that there is no effect."""
    if claim.relation in ("at_least", "more_than"):
        return 1
    if claim.relation in ("at_most", "less_than"):
        return -1
    middle = sum(claim.reported) / 2 if isinstance(claim.reported, list) else claim.reported
    return (middle > claim.reference) - (middle < claim.reference)


def _inside(claim: Claim, value: float) -> bool:
    low, high = region(claim)
    if claim.relation not in ("equals", "between") and claim.reported:
        # Inequalities are taken at their word, at the precision they are printed with; zero is exact.
        value = round(value, printed_digits(claim.reported))
    return low < value < high if claim.relation in ("more_than", "less_than") else low <= value <= high


def region(claim: Claim) -> tuple[float, float]:
    """Return the values that count as reproduced, as (low, high); infinite where a claim has one side only."""
    if claim.relation == "between":
        return tuple(map(float, claim.reported))
    if claim.relation in ("at_least", "more_than"):
        return float(claim.reported), inf
    if claim.relation in ("at_most", "less_than"):
        return -inf, float(claim.reported)
    if claim.sample_size:
        return wilson_interval(claim.reported, claim.sample_size)
    tolerance = TOLERANCES[claim.unit]
    # Decimal noise must not push a value printed at the very edge outside.
    width = max(tolerance.absolute, tolerance.relative * abs(claim.reported))
    return claim.reported - width - 1e-9, claim.reported + width + 1e-9


def printed_digits(value: float) -> int:
    """Return the digits after the point that `value` is written with (11.3 -> 1, 50 -> 0)."""
    return max(0, -Decimal(str(value)).as_tuple().exponent) if value != int(value) else 0


def ledger(
    measurements: Iterable[Measurement], unavailable: Collection[str] = (), odd: Collection[tuple[str, str]] = ()
) -> list[dict[str, Any]]:
    """Return one entry per claim: its fields and, per evidence, verdict, measurement and the reason for "not run".

    unavailable: notebooks that ran without the released data; odd: claims, with their evidence, measured as no number.
    """
    found = {(item.claim, item.evidence): item for item in measurements}
    if stray := sorted({claim for claim, _ in found} - set(load_claims())):
        raise CompanionError(f"A measurement names a claim that {relative(CLAIMS)} does not have: {stray[0]}.")
    rows = []
    for claim in load_claims().values():
        reasons = {name: f"waiting for {name} evidence" for name in EVIDENCE}
        reasons |= {"released": "released data not available"} if claim.notebook in unavailable else {}
        reasons |= {name: "its value is no number" for name in EVIDENCE if (claim.id, name) in odd}
        results = {name: _result(claim, name, found.get((claim.id, name)), reasons[name]) for name in EVIDENCE}
        limits = [end if isfinite(end) else None for end in region(claim)]
        rows.append(asdict(claim) | {"region": limits, "results": results})
    return rows


def _result(claim: Claim, evidence: str, measurement: Measurement | None, reason: str) -> dict[str, Any]:
    outcome: dict[str, Any] = {"verdict": verdict(claim, evidence, measurement)}
    if measurement is not None:
        outcome |= {key: value for key, value in asdict(measurement).items() if key not in ("claim", "evidence")}
    elif outcome["verdict"] == "not run":
        outcome["reason"] = reason
    return outcome


def scoreboard(ledger: Iterable[dict[str, Any]]) -> dict[Kind, dict[str, dict[Verdict, int]]]:
    """Return how many tests gave each verdict, by kind of test and evidence.

    independent: on data that are not the paper's. own: recounts of the paper's data. set-up: facts that any file shows.
    ours: of claims that this book makes, and not the paper. The metrics of one probe are one test, whose verdict is the
    worst of theirs.
    """
    tests: dict[tuple[Kind, str, str], Verdict] = {}
    for claim in ledger:
        for evidence, result in claim["results"].items():
            recount = claim["released_data"] == "set-up" or (evidence, claim["released_data"]) == ("released", "own")
            kind = "ours" if claim["ours"] else claim["released_data"] if recount else "independent"
            test = kind, evidence, claim["probe"] or claim["id"]
            tests[test] = max(tests.get(test, VERDICTS[0]), result["verdict"], key=VERDICTS.index)
    counts = Counter((kind, evidence, found) for (kind, evidence, _), found in tests.items())
    return {
        kind: {name: {found: counts[kind, name, found] for found in VERDICTS} for name in EVIDENCE}
        for kind in get_args(Kind)
    }


def measured_parts(result: dict[str, Any], unit: str) -> tuple[str, str]:
    """Return the measured value and its interval as text: ("10.4 %", "(8.2 to 15.5)"), ("9", ""); ("–", "") if void."""
    if result.get("value") is None or result.get("void"):
        return "–", ""
    digits, interval = DIGITS.get(unit, 3), result.get("interval")
    between = f"({interval[0]:.{digits}f} to {interval[1]:.{digits}f})" if interval else ""
    return Estimate(result["value"], unit=unit).text(digits), between


def of_last_build(name: str = "claims.json") -> dict[str, Any]:
    """Return what a ledger of the built book says; raise CompanionError where there is none or it was edited."""
    if not (path := HTML / name).is_file():
        raise CompanionError("There is no built book yet; run 'make book'.")
    return read_sealed(path, "delete the folder _build/html and run 'make book'")
