"""The claims of the paper: `data/claims.yml` holds the reported side, a notebook adds a `Measurement`.

What follows from the two is in `verdicts`.
"""

from dataclasses import asdict, dataclass, fields
from functools import cache
from math import isfinite
from typing import Any

from em_companion.core import paths
from em_companion.core.errors import CompanionError
from em_companion.core.files import read_list
from em_companion.core.paths import relative

CLAIMS = paths.DATA / "claims.yml"
EVIDENCE = ("released", "grown", "hub")
RELEASED_DATA = {
    "own": "counted again from the data behind the paper's number",
    "stand-in": "tested on earlier, smaller or other runs",
    "set-up": "facts of the set-up",
}
UNITS = ("percent", "percent_change", "proportion", "cosine", "score", "ratio", "layer", "count")
RELATIONS = ("equals", "at_least", "at_most", "more_than", "less_than", "between")


@dataclass(frozen=True)
class Claim:
    """One quantitative statement of the paper; the fields are those of `data/claims.yml`."""

    id: str
    section: str
    place: str
    notebook: str
    statement: str
    relation: str
    reported: float | list[float]
    unit: str
    reference: float
    test: str
    evidence: list[str]
    released_data: str = ""
    sample_size: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Measurement:
    """A value measured for a claim by one evidence, in the claim's unit.

    `interval` is 95 % or as `how` says; one with an end that is not a number, as one question gives, counts as none.
    `n`: the rows behind the value.
    """

    claim: str
    value: float
    how: str
    evidence: str
    interval: tuple[float, float] | None = None
    n: int | None = None

    def __post_init__(self) -> None:
        if self.interval is not None and not all(isfinite(end) for end in self.interval):
            object.__setattr__(self, "interval", None)


# --- the registry -------------------------------------------------------------------------------------------------


@cache
def load_claims() -> dict[str, Claim]:
    """Return all claims by id; raise CompanionError naming the claim and key that is wrong."""
    where = relative(CLAIMS)
    entries = read_list(CLAIMS, "claims")
    claims: dict[str, Claim] = {}
    for entry in entries:
        claim = _parse(entry, where)
        if claim.id in claims:
            raise CompanionError(f"{where}: claim '{claim.id}' stands twice.")
        claims[claim.id] = claim
    return claims


def _parse(entry: dict[str, Any], where: str) -> Claim:
    name = entry.get("id", "(no id)")
    known = {field.name for field in fields(Claim)}
    required = known - {"released_data", "sample_size", "note"}
    if wrong := sorted(map(str, (set(entry) - known) | (required - set(entry)))):
        raise CompanionError(f"{where}: claim '{name}' has a missing or unknown key: {', '.join(wrong)}.")
    text = [key for key in entry if key not in ("reported", "reference", "evidence", "sample_size")]
    if odd := [key for key in text if not isinstance(entry[key], str)]:
        raise CompanionError(f"{where}: claim '{name}': '{odd[0]}' must be text.")
    claim = Claim(**entry)
    for problem, holds in _problems(claim).items():
        if holds:
            raise CompanionError(f"{where}: claim '{name}': {problem}.")
    return claim


def _problems(claim: Claim) -> dict[str, bool]:
    pair = isinstance(claim.reported, list)
    evidence = claim.evidence if isinstance(claim.evidence, list) else [claim.evidence]
    numbers = [*(claim.reported if pair else [claim.reported]), claim.reference]
    return {
        "'evidence' must be a list": not isinstance(claim.evidence, list),
        f"unknown relation '{claim.relation}'": claim.relation not in RELATIONS,
        f"unknown unit '{claim.unit}'": claim.unit not in UNITS,
        f"'released_data' must be one of {', '.join(RELEASED_DATA)} where released evidence can test it": (
            claim.released_data not in RELEASED_DATA if "released" in evidence else claim.released_data != ""
        ),
        "unknown evidence": not all(one in EVIDENCE for one in evidence),
        "'between' needs two reported values, every other relation one": (claim.relation == "between") != pair
        or (pair and len(claim.reported) != 2),
        "values must be numbers": not all(type(number) in (int, float) and isfinite(number) for number in numbers),
        "'sample_size' belongs to the unit 'percent' and is positive": claim.sample_size is not None
        and (claim.unit != "percent" or type(claim.sample_size) is not int or claim.sample_size < 1),
        "no text may be empty": not all(
            [claim.id, claim.section, claim.place, claim.statement, claim.test, claim.notebook]
        ),
    }


def reported_text(claim: Claim | dict[str, Any]) -> str:
    """Return the reported value as a reader would write it: "> 99 %", "0.04", "40 to 50"."""
    entry = asdict(claim) if isinstance(claim, Claim) else claim
    value, relation = entry["reported"], entry["relation"]
    text = " to ".join(f"{number:g}" for number in value) if isinstance(value, list) else f"{value:g}"
    sign = {"at_least": "≥ ", "at_most": "≤ ", "more_than": "> ", "less_than": "< "}.get(relation, "")
    return f"{sign}{text}{unit_text(entry['unit'])}"


def unit_text(unit: str) -> str:
    """Return what is written after a number of this unit."""
    return {"percent": " %", "percent_change": " %"}.get(unit, "")
