"""What was predicted before it was measured: `data/predictions.yml`, its lock, one rule of verdicts for all.

A prediction has no reported value but a threshold, the smallest effect worth having. It is locked in a commit of its
own before the first result of its notebook exists; from then on it changes only by an entry in its list `amended`.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from functools import cache
from math import inf, isfinite
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field

from em_companion.core import paths
from em_companion.core.errors import CompanionError
from em_companion.core.files import digest_of, read_yaml
from em_companion.core.paths import relative
from em_companion.core.schema import Checked, Number, Text, mapping, read_registry, validated
from em_companion.evidence.claims import Evidence, Measurement

PREDICTIONS = paths.DATA / "predictions.yml"
LOCK = paths.DATA / "predictions-lock.json"

Verdict = Literal["supported", "contradicted", "undecided", "not testable here", "not run"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
DECIDED: tuple[Verdict, ...] = VERDICTS[:3]
Origin = Literal["exchange", "simulated-author", "accompanying-text", "literature", "ours"]
CHANCE = 0.025
"""How often a prediction is supported whose quantity lies exactly at its threshold."""

Threshold = Number | Annotated[int, Field(strict=True)]
Amendment = mapping(date=Text, reason=Text)


@dataclass(frozen=True)
class Prediction(Checked):
    """One prediction; the fields are those of `data/predictions.yml`. One with `parts` is measured by these alone."""

    id: Text
    experiment: Text
    notebook: Text
    tier: Literal["primary", "secondary"]
    origin: Origin
    known: Text
    statement: Text
    quantity: str = ""
    unit: str = ""
    relation: Literal["more_than", "less_than", "between", ""] = ""
    threshold: Threshold | Annotated[list[Threshold], Field(min_length=2, max_length=2)] | None = None
    no_effect: Threshold | None = None
    by: str = ""
    gate: str = ""
    failure: str = ""
    evidence: tuple[Evidence, ...] = ("grown",)
    parts: tuple[str, ...] = ()
    amended: tuple[Amendment, ...] = ()


@cache
def load_predictions() -> dict[str, Prediction]:
    """Return all predictions by id; raise CompanionError naming the prediction and key that is wrong."""
    found = read_registry(PREDICTIONS, "predictions", Annotated[Prediction, AfterValidator(_consistent)])
    if lost := sorted({part for one in found.values() for part in one.parts} - found.keys()):
        raise CompanionError(f"{relative(PREDICTIONS)} has no prediction '{lost[0]}', which another names as its part.")
    return found


def _consistent(one: Prediction) -> Prediction:
    """Return `one`; raise ValueError where two of its keys contradict each other."""
    measured = [one.quantity, one.unit, one.relation, one.by, one.gate, one.failure, one.threshold is not None]
    if not all(measured) if not one.parts else any(measured):
        raise ValueError("needs either 'parts' or quantity, unit, relation, threshold, by, gate and failure")
    if (one.relation == "between") != isinstance(one.threshold, list):
        raise ValueError("needs two thresholds for 'between' and one for every other relation")
    return one


def verdict(one: Prediction, measurement: Measurement | None) -> Verdict:
    """Return the verdict on a prediction, from the 95 % interval of its measurement alone.

    not run: nothing measured. not testable here: `void` says how its gate failed. undecided: no interval, or one that
    holds a threshold.
    """
    if measurement is None or not isfinite(measurement.value):
        return "not run"
    if measurement.void:
        return "not testable here"
    low, high = measurement.interval or (-inf, inf)
    if one.relation == "between":
        least, most = one.threshold
        supported, contradicted = least <= low and high <= most, high < least or low > most
    else:
        sign = -1 if one.relation == "less_than" else 1
        low, high = sorted((sign * low, sign * high))
        supported, contradicted = low > sign * one.threshold, high <= sign * one.threshold
    return "supported" if supported else "contradicted" if contradicted else "undecided"


def of_parts(verdicts: Collection[Verdict]) -> Verdict:
    """Return the verdict on a prediction with parts: supported if all are, contradicted if any is; else as measured."""
    for found, enough in (("contradicted", any), ("supported", all), ("undecided", any), ("not testable here", any)):
        if enough(one == found for one in verdicts):
            return found
    return "not run"


def ledger(measurements: Iterable[Measurement]) -> list[dict[str, Any]]:
    """Return one entry per prediction: its fields, its lock (None without) and, per evidence, verdict and measurement.

    One whose gate failed has no value. Raises CompanionError for a measurement that belongs to none.
    """
    known, locked = load_predictions(), locks()
    found = {(item.claim, item.evidence): item for item in measurements}
    if stray := sorted({name for name, _ in found} - known.keys()):
        raise CompanionError(f"A measurement names a prediction that {relative(PREDICTIONS)} has not: {stray[0]}.")

    def result(one: Prediction, evidence: str) -> dict[str, Any]:
        if one.parts:
            return {"verdict": of_parts([result(known[part], evidence)["verdict"] for part in one.parts])}
        measured = found.get((one.id, evidence))
        left_out = ("claim", "value", "interval") if measured and measured.void else ("claim",)
        told = {key: given for key, given in asdict(measured).items() if key not in left_out} if measured else {}
        return {"verdict": verdict(one, measured)} | told

    return [
        asdict(one) | {"locked": locked.get(one.id), "results": {name: result(one, name) for name in one.evidence}}
        for one in known.values()
    ]


def counts(ledger: Iterable[dict[str, Any]]) -> dict[str, dict[Verdict, int]]:
    """Return how many predictions have each verdict, by tier and by whose they are, on the first of their evidences.

    "hub" counts those that a language model is a second evidence on. Those with parts are left out: their parts count.
    """
    found: Counter = Counter()
    for row in (one for one in ledger if not one["parts"]):
        first, *others = row["evidence"]
        for group, evidence in [(row["tier"], first), (row["origin"], first), *((one, one) for one in others)]:
            found[group, row["results"][evidence]["verdict"]] += 1
    groups = ("primary", "secondary", *get_args(Origin), "hub")
    return {group: {one: found[group, one] for one in VERDICTS} for group in groups}


def total(counted: dict[str, dict[Verdict, int]]) -> dict[Verdict, int]:
    """Return how many predictions have each verdict, of what `counts` gives."""
    return {one: counted["primary"][one] + counted["secondary"][one] for one in VERDICTS}


def by_chance(ledger: Iterable[dict[str, Any]]) -> float:
    """Return how many predictions chance would support if every quantity lay exactly at its threshold."""
    found = total(counts(ledger))
    return CHANCE * sum(found[one] for one in DECIDED)


def expected_text(one: dict[str, Any]) -> str:
    """Return what is predicted as a reader would write it: "> 2 points", "0.25 to 0.75 (ratio)"."""
    if one["parts"]:
        return "all its parts"
    given = one["threshold"] if isinstance(one["threshold"], list) else [one["threshold"]]
    sign = {"more_than": "> ", "less_than": "< "}.get(one["relation"], "")
    return f"{sign}{' to '.join(f'{number:g}' for number in given)} {one['unit']}"


def part_of(experiment: str) -> str:
    """Return the page that opens the part of the book in which an experiment stands, such as "part-2" for F1.1."""
    return "part-2" if experiment.startswith("F") else "part-3"


def by_part(ledger: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the entries of a ledger by the part of the book that they belong to."""
    rows = list(ledger)
    parts = dict.fromkeys(part_of(row["experiment"]) for row in rows)
    return {part: [row for row in rows if part_of(row["experiment"]) == part] for part in parts}


def listed(notebook: str) -> list[dict[str, str]]:
    """Return what a page says of its predictions before any result: one row each, in the order of the registry."""
    rows = [one for one in load_predictions().values() if one.notebook == notebook]
    return [
        {
            "experiment": one.experiment,
            "prediction": one.statement,
            "whose": f"{one.origin}, {one.tier}".replace("-", " "),
        }
        | {"expected": expected_text(asdict(one))}
        for one in rows
    ]


# --- the lock -----------------------------------------------------------------------------------------------------


def digest(one: Prediction) -> str:
    """Return the sha256 of all that a lock holds: every field but the amendments."""
    return digest_of({key: value for key, value in asdict(one).items() if key != "amended"})


def locks() -> dict[str, dict[str, str]]:
    """Return the locks by prediction: `commit` at which it stood, `date`, and `sha256` of the entry as it was then."""
    if not LOCK.is_file():
        return {}
    return validated(
        dict[str, mapping(commit=Text, date=Text, sha256=Text)], read_yaml(LOCK), relative(LOCK)
    )  # JSON is YAML


def changed() -> list[str]:
    """Return the locked predictions that are gone, or that are not what was locked and have no amendment."""
    known = load_predictions()
    return [
        name
        for name, lock in locks().items()
        if name not in known or (digest(known[name]) != lock["sha256"] and not known[name].amended)
    ]
