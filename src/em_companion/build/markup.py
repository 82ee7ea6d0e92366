"""HTML fragments shown on pages. Whatever is not written here is escaped."""

from collections.abc import Iterable
from math import isfinite
from typing import Any

import pandas as pd

from em_companion.book import typography
from em_companion.evidence import claims, verdicts


def box(title: str, text: str) -> str:
    """Return a visible box."""
    heading = f'<p class="admonition-title">{typography.escape(title)}</p>'
    return f'<div class="admonition note em-box">{heading}<p>{typography.escape(text)}</p></div>'


def table(heads: Iterable[str], rows: Iterable[str], classes: str = "", table_id: str = "", outer: str = "") -> str:
    """Return a table that scrolls sideways on a narrow screen; heads are escaped, rows are ready `<tr>` fragments.

    A head ending in "#" stands over numbers and is right-aligned.
    """
    head = "".join(_head(name) for name in heads)
    head = f"<thead><tr>{head}</tr></thead>" if head else ""
    name = f' id="{table_id}"' if table_id else ""
    inner = f'<table{name} class="table em-table {classes}">{head}<tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="em-scroll {outer}">{inner}</div>'


def _head(name: str) -> str:
    numeric = ' class="em-number"' if name.endswith("#") else ""
    return f'<th scope="col"{numeric}>{typography.escape(name.removesuffix("#"))}</th>'


def row(cells: Iterable[str], attributes: str = "") -> str:
    """Return a table row of ready `<td>` or `<th>` fragments."""
    return f"<tr{attributes}>{''.join(cells)}</tr>"


def number_cell(text: str) -> str:
    """Return a right-aligned cell."""
    return f'<td class="em-number">{typography.typeset(text)}</td>'


def frame_table(frame: pd.DataFrame, formats: dict[str, str] | None = None, number: str = "{:.3g}") -> str:
    """Return a frame as a table; numbers use `formats` per column, else `number`; a missing value is a dash."""
    formats = formats or {}
    numeric = {
        column for column in frame if pd.api.types.is_numeric_dtype(frame[column]) and frame[column].dtype != bool
    }
    rows = [
        row(_cell(value, formats.get(column, number), column in numeric) for column, value in record.items())
        for record in frame.to_dict("records")
    ]
    return table([f"{column}#" if column in numeric else str(column) for column in frame], rows)


def _cell(value: Any, pattern: str, numeric: bool) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and not isfinite(value)):
        text = "–"
    else:
        text = pattern.format(value) if isinstance(value, float) else str(value)
    return number_cell(text) if numeric else f"<td>{typography.typeset(text)}</td>"


def verdict_badge(verdict: str) -> str:
    """Return a verdict as a coloured label that also reads without colour."""
    return f'<span class="em-verdict em-{verdict.replace(" ", "-")}">{typography.escape(verdict)}</span>'


def measured(result: dict[str, Any], unit: str) -> str:
    """Return a measured value with its interval below it."""
    value, interval = verdicts.measured_parts(result, unit)
    return typography.typeset(value) + (f"<br><small>{typography.typeset(interval)}</small>" if interval else "")


def measured_table(measurements: Iterable[claims.Measurement]) -> str:
    """Return the reported-beside-measured table of some measurements, with verdicts."""
    heads = ("Claim", "Reported#", "Measured#", "Evidence", "Verdict")
    return table(heads, map(_measured_row, measurements), classes="em-claims")


def _measured_row(measurement: claims.Measurement) -> str:
    claim = claims.load_claims()[measurement.claim]
    result = {"value": measurement.value, "interval": measurement.interval}
    small = f"<small>{typography.escape(claim.place.rstrip('.'))}. {typography.sentence(measurement.how)}</small>"
    return row(
        [
            f'<td><a href="../discussion.html#{claim.id}">{typography.typeset(claim.statement)}</a><br>{small}</td>',
            number_cell(claims.reported_text(claim)),
            f'<td class="em-number">{measured(result, claim.unit)}</td>',
            f"<td>{typography.escape(measurement.evidence)}</td>",
            f"<td>{verdict_badge(verdicts.verdict(claim, measurement.evidence, measurement))}</td>",
        ]
    )
