"""What generated pages say: figures, tables, ledger, scoreboard, numbers in prose; `templates/` holds how they look.

Everything from outside is escaped by the templates' environment.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from em_companion.book import registry
from em_companion.book.records import FigureRecord, RunRecord, ValueRecord, table_of
from em_companion.book.typography import typography
from em_companion.build import citation
from em_companion.core.errors import CompanionError
from em_companion.evidence import claims, verdicts
from em_companion.evidence.claims import Measurement

PARTS = {"2": "2 Model organism", "3": "3 Directions, steering, ablation", "4": "4 LoRA adapters"}
APPENDICES = "Appendices"
DOWNLOADS = {
    "figure.svg": "SVG",
    "figure.png": "PNG",
    "figure.pdf": "PDF",
    "data.csv": "Data (CSV)",
    "provenance.json": "Provenance",
    "cite.bib": "BibTeX",
    "cite.json": "CSL-JSON",
}

_environment = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
_environment.filters |= {"typography": typography, "sentence": lambda text: typography(text[:1].upper() + text[1:])}
_environment.globals |= {"reported_text": claims.reported_text, "measured_parts": verdicts.measured_parts}


def _page(template: str, **given: Any) -> str:
    return _environment.get_template(template).render(given)


# --- numbers in prose ---------------------------------------------------------------------------------------------

VALUE = re.compile(r"\{value\}`([^`|]+)(?:\|([^`]+))?`")
"""{value}`name`, or with a way to print it: {value}`name|interval`, {value}`name|.1f`."""


def names_asked_for(text: str) -> set[str]:
    """Return the names of the values that some prose asks for."""
    return {name for name, _ in VALUE.findall(text)}


def filled(text: str, values: Mapping[str, ValueRecord]) -> str:
    """Return prose with every {value}`name` replaced by what was recorded under that name, or "not run"."""
    return VALUE.sub(lambda found: printed(values[found[1]], found[2]) if found[1] in values else "not run", text)


def printed(value: ValueRecord, style: str | None = None) -> str:
    """Return a value as it stands in prose; `style`: "interval", or a format such as ".1f"; raise CompanionError."""
    if value.text is not None or value.value is None:
        return "–" if value.text is None else typography(value.text)
    if style == "interval":
        return typography(str(value.estimate()))
    percent = value.unit.startswith("percent")
    usual = f".{0 if abs(value.value) >= 10 else 1}f" if percent else ".0f" if value.unit in WHOLE else ".2f"
    try:
        return typography(format(value.value, style or usual) + (" %" if percent else ""))
    except ValueError as error:
        raise CompanionError(f"Value '{value.name}' cannot be printed as '{style}'.") from error


WHOLE = ("count", "layer")
"""Units of whole numbers."""


# --- what a notebook shows ----------------------------------------------------------------------------------------


def shown(kind: str, record: Any) -> str:
    """Return a record that a notebook shows, other than a figure, as HTML; `kind` is one of `records.KINDS`."""
    if kind == "measurements":
        record = [_beside_claim(Measurement(**one)) for one in record]
    return _page(f"{kind}.html", record=record)


def _beside_claim(one: Measurement) -> tuple[Measurement, claims.Claim, str]:
    claim = claims.load_claims()[one.claim]
    return one, claim, verdicts.verdict(claim, one.evidence, one)


def footer(run: RunRecord) -> str:
    """Return the foot of a page: how to rerun it and how to cite its figures."""
    return _page(
        "footer.md", run=run, figures=list(dict.fromkeys(one.id for one in run.figures if one.status == "made"))
    )


# --- figures ------------------------------------------------------------------------------------------------------


def figure_directive(record: FigureRecord, image: str, label: str) -> str:
    """Return a numbered, captioned MyST figure, with `label` as a target, that links to its record page."""
    return _page("figure.md", record=record, image=image, label=label, entry=registry.load_figures()[record.id])


def figure_page(record: FigureRecord, provenance: citation.Provenance | None, others: Iterable[str]) -> str:
    """Return the record page of a figure: picture, downloads, permalink, citation, provenance.

    others: what other evidence it was drawn from.
    """
    given = {"record": record, "entry": registry.load_figures()[record.id], "provenance": provenance, "others": others}
    cite = citation.files(provenance) if provenance else {}
    place = {"downloads": DOWNLOADS, "permalink": citation.permalink(record.id)}
    return _page("figure_page.md", **given, **place, cite=cite)


def gallery(records: Iterable[FigureRecord]) -> str:
    """Return the page that lists every figure as a card, in the order of the registry."""
    by_id = {record.id: record for record in records}
    figures = [(by_id[one], entry) for one, entry in registry.load_figures().items() if one in by_id]
    return _page("gallery.md", figures=figures)


# --- claims -------------------------------------------------------------------------------------------------------


def scoreboard(ledger: list[dict[str, Any]]) -> str:
    """Return the verdicts as a page fragment: released by part of the paper and kind of data, grown by part."""
    by_data = {text: Counter() for text in claims.RELEASED_DATA.values()}
    for claim in ledger:
        if claim["released_data"]:
            by_data[claims.RELEASED_DATA[claim["released_data"]]][claim["results"]["released"]["verdict"]] += 1
    return _page(
        "scoreboard.md",
        claims=len(ledger),
        released=_by_part(ledger, "released"),
        grown=_by_part(ledger, "grown"),
        by_data=by_data,
        verdicts=list(verdicts.VERDICTS),
        tested=lambda counts: sum(counts[verdict] for verdict in verdicts.TESTED),
    )


def _by_part(ledger: list[dict[str, Any]], evidence: str) -> dict[str, Counter]:
    """Return the verdicts of one evidence by part of the paper, as sections tell it, and of all parts."""
    counts = {name: Counter() for name in (*PARTS.values(), APPENDICES)}
    for claim in ledger:
        counts[PARTS.get(claim["section"][0], APPENDICES)][claim["results"][evidence]["verdict"]] += 1
    return counts | {"All": sum(counts.values(), Counter())}


def ledger_table(ledger: list[dict[str, Any]]) -> str:
    """Return the ledger as one sortable, filterable table."""
    measured = [name for name in claims.EVIDENCE if any("value" in claim["results"][name] for claim in ledger)]
    return _page("ledger.md", ledger=ledger, shown=measured or list(claims.EVIDENCE[:1]))


def tolerances() -> str:
    """Return the tolerance of every unit as a Markdown table."""
    return _page("tolerances.md", tolerances=verdicts.TOLERANCES)


# --- this build ---------------------------------------------------------------------------------------------------


def machine(runs: Iterable[dict[str, Any]], environment: dict[str, Any]) -> str:
    """Return the table of executed notebooks and the versions of this build."""
    columns = ["notebook", "profile", "seed", "seconds", "commit"]
    frame = pd.DataFrame([{name: run[name] for name in columns} for run in runs], columns=columns)
    shown = table_of(frame.assign(commit=frame.commit.str[:12]), {"seconds": "{:.1f}"})
    return _page("machine.md", runs=shown, environment=environment)


def benchmarks(path: Path) -> str:
    """Return the table of what `make bench` last measured and kept at `path`, or that it was not run."""
    if not path.is_file():
        return "Benchmarks: not run. `make bench` runs them.\n"
    kept = json.loads(path.read_text(encoding="utf-8"))
    rows = [_benchmark(**one) for one in kept["measurements"]]
    frame = pd.DataFrame(rows, columns=["benchmark", "times as fast", "details", "script"])
    return _page("benchmarks.md", kept=kept, shown=table_of(frame, number="{:.1f}"))


def _benchmark(benchmark: str, ratio: float, script: str, **details: float) -> tuple[str, float, str, str]:
    told = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in details.items())
    return benchmark, ratio, told, script
