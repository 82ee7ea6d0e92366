"""The claims of the paper: `data/claims.yml` holds the reported side, a notebook adds a `Measurement`."""

from dataclasses import asdict, dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field

from em_companion.core import paths
from em_companion.core.schema import Checked, Count, Number, Text, read_registry

CLAIMS = paths.DATA / "claims.yml"
Evidence = Literal["released", "grown", "hub"]
EVIDENCE: tuple[Evidence, ...] = get_args(Evidence)
Unit = Literal["percent", "percent_change", "proportion", "cosine", "score", "ratio", "layer", "count"]
ReleasedData = Literal["", "own", "stand-in", "set-up"]
Relation = Literal["equals", "at_least", "at_most", "more_than", "less_than", "between"]
Reported = Number | Annotated[int, Field(strict=True)]


@dataclass(frozen=True)
class Claim(Checked):
    """One quantitative statement of the paper; the fields are those of `data/claims.yml`."""

    id: Text
    section: Text
    place: Text
    notebook: Text
    statement: Text
    relation: Relation
    reported: Reported | Annotated[list[Reported], Field(min_length=2, max_length=2)]
    unit: Unit
    reference: Reported
    test: Text
    evidence: list[Evidence]
    released_data: ReleasedData = ""
    probe: str = ""
    sample_size: Count | None = None
    ours: bool = False
    note: str = ""


@dataclass(frozen=True)
class Measurement:
    """A value measured for a claim by one evidence, in the claim's unit, from `n` rows.

    `interval` is 95 % or as `how` says. `null`: what 95 % of the same measurements stay short of where there is nothing
    to find. `void`: why the value says nothing about the claim.
    """

    claim: str
    value: int | float
    how: str
    evidence: str
    interval: tuple[float, float] | None = None
    n: int | None = None
    null: float | None = None
    void: str = ""


@cache
def load_claims() -> dict[str, Claim]:
    """Return all claims by id; raise CompanionError naming the claim and key that is wrong."""
    return read_registry(CLAIMS, "claims", Annotated[Claim, AfterValidator(_consistent)])


def _consistent(claim: Claim) -> Claim:
    """Return `claim`; raise ValueError where two of its keys contradict each other."""
    if (claim.released_data == "") == ("released" in claim.evidence):
        kinds = ", ".join(filter(None, get_args(ReleasedData)))
        raise ValueError(f"needs 'released_data', one of {kinds}, where released evidence can test it, and only there")
    if (claim.relation == "between") != isinstance(claim.reported, list):
        raise ValueError("needs two reported values for 'between' and one for every other relation")
    if claim.sample_size is not None and claim.unit != "percent":
        raise ValueError("has a 'sample_size', which belongs to the unit 'percent'")
    return claim


def reported_text(claim: Claim | dict[str, Any]) -> str:
    """Return the reported value as a reader would write it: "> 99 %", "0.04", "40 to 50"."""
    entry = asdict(claim) if isinstance(claim, Claim) else claim
    value, relation = entry["reported"], entry["relation"]
    text = " to ".join(f"{number:g}" for number in value) if isinstance(value, list) else f"{value:g}"
    sign = {"at_least": "≥ ", "at_most": "≤ ", "more_than": "> ", "less_than": "< "}.get(relation, "")
    return f"{sign}{text}{' %' if entry['unit'].startswith('percent') else ''}"
