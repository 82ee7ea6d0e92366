"""What generated pages say: figures and citations, tables, ledger, numbers in prose; `templates/` holds how they look.

Everything from outside is escaped by the templates' environment.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pybtex.database import BibliographyData, Entry
from pybtex.database.output.bibtex import Writer

from em_companion.book import registry
from em_companion.book.records import FigureRecord, RunRecord, ValueRecord
from em_companion.book.typography import typography
from em_companion.build import publication
from em_companion.core.errors import CompanionError
from em_companion.evidence import claims, predictions, verdicts
from em_companion.evidence.claims import Measurement

COMPANION = "The executable companion to 'Convergent Linear Representations of Emergent Misalignment'"
AUTHOR = "The executable companion contributors"
LICENCE = "CC BY 4.0"
"""Of text and figures."""
KINDS = {*claims.EVIDENCE, "reported"}
WHOLE = ("count", "layer")
"""Units of whole numbers."""
DOWNLOADS = {
    "figure.svg": "SVG",
    "figure.png": "PNG",
    "figure.pdf": "PDF",
    "data.csv": "Data (CSV)",
    "provenance.json": "Provenance",
    "cite.bib": "BibTeX",
    "cite.json": "CSL-JSON",
}


@dataclass(frozen=True)
class Variant:
    """A figure from one evidence: its place below `figures/`, the folder of its files, what its evidence is called."""

    record: FigureRecord
    place: str
    folder: Path
    name: str
    of_pack: bool = False

    @property
    def entry(self) -> registry.FigureEntry:
        return registry.load_figures()[self.record.id]


Variants = Mapping[str, list[Variant]]  # by figure

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
_environment.globals |= {"tolerances": verdicts.TOLERANCES, "kinds": KINDS}
_environment.globals |= {"expected_text": predictions.expected_text, "part_of": predictions.part_of}


def page(template: str, **given: Any) -> str:
    """Return what a template of `templates/` makes of some data."""
    return _environment.get_template(template).render(given)


VALUE = re.compile(r"\{value\}`([^`|]+)(?:\|([^`]+))?`")
"""{value}`name`, or with a way to print it: {value}`name|interval`, {value}`name|.1f`."""


def names_asked_for(text: str) -> set[str]:
    """Return the names of the values that some prose asks for."""
    return {name for name, _ in VALUE.findall(text)}


BADGE = re.compile(r"\{(evidence|verdict)\}`([^`|]+)(?:\|([^`]+))?`")
"""{evidence}`grown`, or the verdict on a claim by an evidence: {verdict}`s2-em-rate-chat-model|grown`."""


def filled(text: str, values: Mapping[str, ValueRecord], ledger: Sequence[dict[str, Any]] = ()) -> str:
    """Return prose with every {value}`name` replaced by what was recorded under that name, or "not run", and badges.

    Raises CompanionError for a badge of an evidence or a claim that there is not.
    """
    parts = _environment.get_template("parts.html").module

    def badge(asked: re.Match) -> str:
        kind, name, by = asked.groups()
        results = next((claim["results"] for claim in ledger if claim["id"] == name), {})
        if kind == "evidence" and by is None and name in KINDS:
            return parts.evidence(name)
        if kind == "verdict" and by in results:
            return parts.badge(results[by]["verdict"])
        raise CompanionError(f"Prose asks for {asked[0]}, which there is not.")

    text = BADGE.sub(badge, text)
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


def shown(kind: str, record: Any) -> str:
    """Return a record that a notebook shows, other than a figure, as HTML; `kind` is one of `records.KINDS`."""
    if kind == "measurements":
        if any(one["claim"] in predictions.load_predictions() for one in record):
            return page("predicted.html", record=predictions.ledger(Measurement(**one) for one in record))
        measured = [(Measurement(**one), claims.load_claims()[one["claim"]]) for one in record]
        record = [(asdict(one), claim, verdicts.verdict(claim, one.evidence, one)) for one, claim in measured]
    return page(f"{kind}.html", record=record)


def footer(run: RunRecord, variants: Variants) -> str:
    """Return the foot of a page: how to rerun it and how to cite its figures."""
    drawn = [shown for one in dict.fromkeys(one.id for one in run.figures) for shown in variants[one]]
    return page("footer.md", run=run, places=[one.place for one in drawn if one.record.status == "made"])


def figure_directive(shown: Variant) -> str:
    """Return a captioned MyST figure that links to its record page; its place is its target, but a pack's has none."""
    return page("figure.md", shown=shown, record=shown.record, entry=shown.entry)


def figure_page(
    shown: Variant, provenance: dict[str, Any], cite: dict[str, str], others: Iterable[Variant], files: Iterable[str]
) -> str:
    """Return the record page of a variant; `others`: those of the same figure, `files`: the names of its own."""
    return page(
        "figure_page.md",
        place=shown.place,
        record=shown.record,
        entry=shown.entry,
        provenance=provenance,
        others=others,
        downloads={file: name for file, name in DOWNLOADS.items() if file in {*files, *cite}},
        permalink=permalink(shown.place),
        cite=cite,
    )


def gallery(variants: Variants, titles: Mapping[str, str]) -> str:
    """Return the page that shows every variant of every figure as a card, under the titles of their notebooks."""
    shown = [one for figure in registry.load_figures() for one in variants.get(figure, [])]
    sections = {title: [one for one in shown if one.entry.notebook == name] for name, title in titles.items()}
    return page("gallery.md", sections=sections, evidence=sorted({one.record.evidence for one in shown}))


def permalink(place: str) -> str:
    """Return the address of a figure in the published book, or its path in the book when no address is known."""
    return f"{publication.address()}figures/{place}/"


def citations(provenance: dict[str, Any], place: str) -> dict[str, str]:
    """Return by file how to cite the figure at `place`: `cite.bib` (BibTeX), `cite.json` (CSL), `credit.txt`.

    provenance: what its `provenance.json` holds; an address and a DOI stand in them where the book has one.
    """
    given = SimpleNamespace(**provenance)
    name = f"{place}-{given.evidence}" if place == given.figure else place
    key, commit = f"em-companion-{name}", given.commit[:12]
    counterpart = f", after {given.paper} of the paper" if given.paper else ""
    title = f"{given.title} (figure {given.figure}, {given.evidence} evidence{counterpart})"
    note = f"profile {given.profile}, seed {given.seed}"
    date = [[int(part) for part in given.date[:10].split("-")]]
    item = {"id": key, "type": "figure", "title": title, "author": [{"literal": AUTHOR}], "container-title": COMPANION}
    item |= {"issued": {"date-parts": date}, "version": commit, "note": note}
    fields = {"title": f"{{{title}}}", "author": f"{{{AUTHOR}}}", "year": given.date[:4], "howpublished": COMPANION}
    fields["note"] = f"commit {commit}, {note}, {LICENCE}"
    known = {"URL": publication.address() and permalink(place), "DOI": publication.doi()}
    item |= {name: text for name, text in known.items() if text}
    fields |= {name.lower(): text for name, text in known.items() if text}
    source = [f"{COMPANION} ({given.date[:4]})", f"commit {commit}", *filter(None, known.values()), LICENCE]
    # Asked for by its class: by its name, pybtex would search all installed packages, for every figure.
    bibtex = Writer().to_string(BibliographyData({key: Entry("misc", fields=fields)}))
    csl = json.dumps([item], indent=1, ensure_ascii=False) + "\n"
    return {"cite.bib": bibtex, "cite.json": csl, "credit.txt": f"{title}. {', '.join(source)}.\n"}


def companion() -> str:
    """Return the reference of the companion as a page fragment."""
    known = {"url": publication.address(), "doi": publication.doi()}
    return page("companion.md", author=AUTHOR, version=publication.edition(), year=publication.year(), known=known)


def scoreboard(
    ledger: list[dict[str, Any]], predicted: dict[str, list[dict[str, Any]]], packs: list[dict[str, Any]]
) -> str:
    """Return the verdicts as a page fragment, independent tests first.

    predicted: the ledger of predictions by part of the book; packs: what `claims.json` says of each.
    """
    told = {"claims": len(ledger), "ours": sum(claim["ours"] for claim in ledger), "packs": packs}
    told |= {"tests": verdicts.scoreboard(ledger), "verdicts": list(verdicts.VERDICTS[:-1])}
    told["predicted"] = {part: predictions.total(predictions.counts(rows)) for part, rows in predicted.items()}
    return page("scoreboard.md", **told, predicted_verdicts=predictions.VERDICTS)


def unusual(ledger: list[dict[str, Any]]) -> str:
    """Return the results without a decision, and those that only a measured null decides, as a page fragment."""
    found: dict[str, list] = {"undecided": [], "not tested": [], "differs by its null alone": []}
    for claim in ledger:
        for evidence, result in claim["results"].items():
            if result["verdict"] in found:
                found[result["verdict"]].append((claim, evidence, result))
            elif result["verdict"] == "differs" and result["null"] is not None:
                one = Measurement(claim["id"], result["value"], result["how"], evidence, result["interval"])
                if verdicts.verdict(claims.load_claims()[claim["id"]], evidence, one) != "differs":
                    found["differs by its null alone"].append((claim, evidence, result))
    return page("unusual.md", found=found)


def ledger_table(ledger: list[dict[str, Any]]) -> str:
    """Return the ledger as one sortable, filterable table."""
    measured = [name for name in claims.EVIDENCE if any("value" in claim["results"][name] for claim in ledger)]
    return page("ledger.md", ledger=ledger, shown=measured or list(claims.EVIDENCE[:1]))


def predictions_table(ledger: list[dict[str, Any]]) -> str:
    """Return the ledger of predictions as one sortable, filterable table, under how many came out how, by whose."""
    counts, chance = predictions.counts(ledger), predictions.by_chance(ledger)
    shown = [name for name in claims.EVIDENCE if any("how" in one["results"].get(name, {}) for one in ledger)]
    told = {"counts": counts, "chance": chance, "verdicts": predictions.VERDICTS}
    return page("predictions.md", ledger=ledger, shown=shown or ["grown"], **told)
