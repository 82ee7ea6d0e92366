"""Verdicts on the claims of the paper, computed by one rule for all, and the ledger they stand in.

The page "Discussion" says the rules in words. Nothing in a claim can soften its verdict: tolerances belong to units.
Nothing here is imported by a notebook, so the wording of a verdict re-executes no page.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from decimal import Decimal
from math import isfinite
from typing import Any, Literal, get_args

from em_companion.core.errors import CompanionError
from em_companion.core.paths import relative
from em_companion.evidence.claims import CLAIMS, EVIDENCE, Claim, Measurement, load_claims, unit_text
from em_companion.evidence.estimates import DIGITS, wilson_interval

Verdict = Literal["reproduced", "same direction", "differs", "not run", "not testable with this evidence"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
TESTED: tuple[Verdict, ...] = VERDICTS[:3]


@dataclass(frozen=True)
class Tolerance:
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


# --- the rules ----------------------------------------------------------------------------------------------------


def verdict(claim: Claim, evidence: str, measurement: Measurement | None) -> Verdict:
    """Return the verdict on `claim` by `evidence`, from numbers alone.

    not testable with this evidence: the claim does not list it. not run: listed, nothing measured.
    reproduced: inside `region(claim)`. same direction: outside, but on the claimed side of the reference, with an
    interval (if there is one) that leaves the reference out. differs: otherwise.
    """
    if evidence not in claim.evidence:
        return "not testable with this evidence"
    if measurement is None or not isfinite(measurement.value):
        return "not run"
    if _inside(claim, measurement.value):
        return "reproduced"
    side = direction(claim)
    ends = measurement.interval or ()
    on_side = [side * (end - claim.reference) > 0 for end in (measurement.value, *ends)]
    return "same direction" if side and all(on_side) else "differs"


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
    if claim.relation in ("at_least", "at_most", "more_than", "less_than"):
        # Inequalities are taken at their word, at the precision they are printed with.
        value = round(value, printed_digits(claim.reported))
    if claim.relation == "more_than":
        return value > low
    if claim.relation == "less_than":
        return value < high
    return low <= value <= high


def region(claim: Claim) -> tuple[float, float]:
    """Return the values that count as reproduced, as (low, high); infinite where a claim has one side only."""
    infinity = float("inf")
    if claim.relation == "between":
        low, high = claim.reported
        return float(low), float(high)
    if claim.relation in ("at_least", "more_than"):
        return float(claim.reported), infinity
    if claim.relation in ("at_most", "less_than"):
        return -infinity, float(claim.reported)
    if claim.sample_size:
        return wilson_interval(claim.reported, claim.sample_size)
    tolerance = TOLERANCES[claim.unit]
    width = max(tolerance.absolute, tolerance.relative * abs(claim.reported))
    # Decimal noise must not push a value printed at the very edge outside.
    return claim.reported - width - 1e-9, claim.reported + width + 1e-9


def printed_digits(value: float) -> int:
    """Return the digits after the point that `value` is written with (11.3 -> 1, 50 -> 0)."""
    return max(0, -Decimal(str(value)).as_tuple().exponent) if value != int(value) else 0


# --- the ledger ---------------------------------------------------------------------------------------------------


def ledger(measurements: Iterable[Measurement], unavailable: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Return one entry per claim: its fields and, per evidence, verdict, measurement and the reason for "not run".

    unavailable: notebooks that ran without the released data.
    """
    found = {(item.claim, item.evidence): item for item in measurements}
    if stray := sorted({claim for claim, _ in found} - set(load_claims())):
        raise CompanionError(f"A measurement names a claim that {relative(CLAIMS)} does not have: {stray[0]}.")
    without_data = set(unavailable)
    rows = []
    for claim in load_claims().values():
        results = {
            evidence: _result(claim, evidence, found.get((claim.id, evidence)), without_data) for evidence in EVIDENCE
        }
        rows.append(asdict(claim) | {"region": _finite(region(claim)), "results": results})
    return rows


def _result(claim: Claim, evidence: str, measurement: Measurement | None, without_data: set[str]) -> dict[str, Any]:
    outcome: dict[str, Any] = {"verdict": verdict(claim, evidence, measurement)}
    if measurement is not None:
        details = {key: value for key, value in asdict(measurement).items() if key not in ("claim", "evidence")}
        interval = measurement.interval
        outcome |= details | {"interval": list(interval) if interval else None}
        outcome["interval_holds_reported"] = _holds(interval, claim.reported)
    elif outcome["verdict"] == "not run":
        missing = evidence == "released" and claim.notebook in without_data
        outcome["reason"] = "released data not available" if missing else f"waiting for {evidence} evidence"
    return outcome


def _holds(interval: tuple[float, float] | None, reported: float | list[float]) -> bool | None:
    if interval is None or isinstance(reported, list):
        return None
    return interval[0] <= reported <= interval[1]


def _finite(pair: Iterable[float]) -> list[float | None]:
    return [float(number) if isfinite(number) else None for number in pair]


def measured_text(result: dict[str, Any], unit: str) -> str:
    """Return the measured value of a ledger result, with its interval, or "–" where there is none."""
    return " ".join(filter(None, measured_parts(result, unit)))


def measured_parts(result: dict[str, Any], unit: str) -> tuple[str, str]:
    """Return the measured value and its interval as text: ("10.4 %", "(8.2 to 15.5)"), ("9", "") or ("–", "")."""
    if result.get("value") is None:
        return "–", ""
    digits = DIGITS.get(unit, 3)
    interval = result.get("interval")
    between = f"({interval[0]:.{digits}f} to {interval[1]:.{digits}f})" if interval else ""
    return f"{result['value']:.{digits}f}{unit_text(unit)}", between
