"""What must hold before a book is published. Each gate returns its problems as sentences; an empty list passes."""

import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from lxml import html
from nbformat import NotebookNode

from em_companion.book import registry
from em_companion.book.records import KINDS, MIME, FigureRecord, RunRecord

LINKS = "//a/@href | //link/@href | //img/@src | //script/@src | //source/@src | //object/@data"


def check_executed(name: str, profile: str, notebook: NotebookNode, records: RunRecord) -> list[str]:
    """A page must come from a run that ended well, under the profile of this build, and show what it recorded."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    errors = [out for out in outputs if out.output_type == "error"]
    shown = {
        kind: [out.data[mime] for out in outputs if (mime := MIME.format(kind=kind)) in out.get("data", {})]
        for kind in KINDS
    }
    told = json.loads(json.dumps(asdict(records)))
    problems = {
        "failed when it was executed": errors,
        "did not finish": not records.finished,
        "shows other figures than it recorded": shown["figure"] != told["figures"],
        "shows other numbers than it recorded": [*chain(*shown["measurements"])] != told["measurements"],
        f"ran under profile '{records.profile}', not '{profile}'": records.profile != profile,
    }
    return [f"Notebook '{name}' {problem}." for problem, found in problems.items() if found]


def check_figures(records: Iterable[FigureRecord]) -> list[str]:
    """Every registered figure has a record (made, waiting or unavailable) with caption and alt text."""
    records = list(records)
    missing = [one for one in registry.load_figures() if one not in {record.id for record in records}]
    bare = [(one.id, part) for one in records for part in ("caption", "alt") if not getattr(one, part).strip()]
    return [
        *(f"Figure '{one}' is registered but no notebook recorded it." for one in missing),
        *(f"Figure '{one}' has no {part}." for one, part in bare),
    ]


def check_prose(asked: Mapping[str, Iterable[str]], known: Container[str]) -> list[str]:
    """Every value that prose asks for, by the file it stands in, was recorded by some notebook."""
    return [
        f"{where} asks for value '{name}', which no notebook recorded."
        for where, names in asked.items()
        for name in sorted(names)
        if name not in known
    ]


def check_claims(ledger: Iterable[dict[str, Any]], without_data: Container[str]) -> list[str]:
    """A claim that released data can test has a measurement, unless its notebook met data that were missing."""
    return [
        f"Claim '{row['id']}' can be tested with released data, but '{row['notebook']}' did not measure it: "
        f"{row['results']['released']['reason']}."
        for row in ledger
        if row["results"]["released"]["verdict"] == "not run" and row["notebook"] not in without_data
    ]


def check_html(site: Path) -> list[str]:
    """No link inside the site is broken (pages, files and anchors), and every picture has alt text."""
    site, problems = site.resolve(), []
    paths = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.relative_to(site).parts]
    pages = {path: html.fromstring(path.read_text(encoding="utf-8")) for path in paths}
    anchors = {path: {"", "top", *page.xpath("//@id | //a/@name")} for path, page in pages.items()}
    for path, page in pages.items():
        bare = [image.get("src", "") for image in page.xpath("//img[not(normalize-space(@alt))]")]
        broken = [link for link in sorted(set(page.xpath(LINKS))) if not _resolves(link, path, site, anchors)]
        found = [f"a picture has no alt text ({image})" for image in bare]
        found += [f"broken link to '{link}'" for link in broken]
        problems += [f"{path.relative_to(site)}: {one}." for one in found]
    return problems


def _resolves(link: str, page: Path, site: Path, anchors: Mapping[Path, Container[str]]) -> bool:
    """Tell whether a link that stands on `page` leads out of the site on purpose, or to something that is there."""
    parts = urlsplit(link)
    if not link or parts.scheme or parts.netloc or link.startswith(("#search", "?")):
        return True
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if target.is_dir():
        target = target / "index.html"
    there = target.is_file() and target.is_relative_to(site)
    return there and (target not in anchors or unquote(parts.fragment) in anchors[target])
