"""What a page records, as data: figures, tables, measurements, values, gaps. How it looks is decided in `build`.

A notebook's output carries a record under its own MIME type beside a plain fall-back for Jupyter; `build` puts the
page's own look in its place.
"""

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite, nan
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from pydantic import TypeAdapter

from em_companion.core.errors import CompanionError
from em_companion.core.files import write_json
from em_companion.evidence.claims import Measurement
from em_companion.evidence.estimates import Estimate

MIME = "application/vnd.em-companion.{kind}+json"
KINDS = ("figure", "table", "measurements", "box", "answers", "cells")


@dataclass(frozen=True)
class FigureRecord:
    """A figure of one evidence; `status`: "made", "waiting" (for evidence) or "unavailable" (released data)."""

    id: str
    evidence: str
    status: Literal["made", "waiting", "unavailable"]
    caption: str
    alt: str
    title: str = ""
    """What its numbers say, in a line; none for a box."""

    @property
    def text(self) -> str:
        """What stands for the picture where it cannot be seen: its title and what it looks like."""
        return " ".join(f"{self.title}{'. ' if self.title else ''}{self.alt}".split())


@dataclass(frozen=True)
class ValueRecord:
    """A number, or a text, under the name by which prose asks for it: {value}`name`."""

    name: str
    evidence: str
    value: int | float | None = None
    unit: str = ""
    low: int | float | None = None
    high: int | float | None = None
    n: int | None = None
    text: str | None = None

    def estimate(self) -> Estimate:
        """Return a number with its interval."""
        low, high = (nan if end is None else end for end in (self.low, self.high))
        return Estimate(self.value, low, high, self.n or 0, self.unit)


@dataclass(frozen=True)
class Gap:
    """Evidence that was not at hand, and why."""

    evidence: str
    why: str


@dataclass(frozen=True)
class RunRecord:
    """All that one execution of a notebook recorded, in order; it is whole once it is `finished`."""

    notebook: str
    profile: str
    seed: int
    finished: bool = False
    seconds: float = 0.0
    figures: list[FigureRecord] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    values: list[ValueRecord] = field(default_factory=list)
    unavailable: list[Gap] = field(default_factory=list)
    no_number: list[tuple[str, str]] = field(default_factory=list)
    """Claims, with their evidence, whose measurement came out as no number."""

    def write(self, folder: Path) -> None:
        """Write this as `records.json` into the folder of a run."""
        write_json(folder / "records.json", asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "RunRecord":
        """Return what was written into the folder of a run; raise OSError or ValueError if it is damaged."""
        return TypeAdapter(cls).validate_json((folder / "records.json").read_bytes())


def table_of(frame: pd.DataFrame, formats: Mapping[str, str] | None = None, number: str = "{:.3g}") -> dict[str, list]:
    """Return a frame as it is shown: heads, which of them stand over numbers (`numeric`), and rows of texts.

    Numbers use `formats` per column, else `number`; a missing value is a dash.
    """
    patterns = [(formats or {}).get(column, number) for column in frame]
    numeric = [is_numeric_dtype(kind) and not is_bool_dtype(kind) for kind in frame.dtypes]
    rows = [list(map(_cell, row, patterns)) for row in frame.itertuples(index=False, name=None)]
    return {"heads": list(map(str, frame)), "numeric": numeric, "rows": rows}


def _cell(value: Any, pattern: str) -> str:
    if isinstance(value, Estimate):
        return str(value)
    if value is None or value is pd.NA or (isinstance(value, float) and not isfinite(value)):
        return "–"
    return pattern.format(value) if isinstance(value, float) else str(value)


def value_of(name: str, evidence: str, given: Any) -> ValueRecord:
    """Return the record of a number, an `Estimate` or a text; raise CompanionError for anything else."""
    if isinstance(given, str):
        return ValueRecord(name, evidence, text=given)
    if isinstance(given, Real) and not isinstance(given, bool):
        given = Estimate(given, unit="count" if isinstance(given, Integral) else "")
    if not isinstance(given, Estimate):
        raise CompanionError(f"Value '{name}' must be a number, an Estimate or a text, not {type(given).__name__}.")
    value, low, high = map(finite, (given.value, given.low, given.high))
    return ValueRecord(name, evidence, value, given.unit, low, high, int(finite(given.n) or 0) or None)


def finite(number: Any) -> float | None:
    """Return a number as a plain one that JSON can hold, None where it is not finite."""
    number = number.item() if hasattr(number, "item") else number
    return number if number is not None and isfinite(number) else None


def bundle(kind: str, record: Any, fallback: str | pd.DataFrame, picture: Path | None = None) -> dict[str, Any]:
    """Return a display bundle: the record under its MIME type, and what Jupyter shows in its place."""
    data = record if isinstance(record, dict | list) else asdict(record)
    shown: dict[str, Any] = {MIME.format(kind=kind): data, "text/plain": str(fallback)}
    if isinstance(fallback, pd.DataFrame):
        shown["text/html"] = fallback.to_html(index=False)
    if picture is not None and picture.is_file():
        shown["image/png"] = base64.b64encode(picture.read_bytes()).decode()
    return shown
