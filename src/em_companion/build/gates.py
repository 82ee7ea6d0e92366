"""What must hold before a book is published. Each gate returns its problems as sentences; an empty list passes."""

from collections.abc import Container, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
from bs4 import BeautifulSoup

from em_companion.book import registry
from em_companion.book.records import FigureRecord, RunRecord
from em_companion.evidence import verdicts


def check_executed(name: str, profile: str, notebook: nbformat.NotebookNode, records: RunRecord) -> list[str]:
    """A page must come from a run that ended well, under the profile of this build."""
    problems = []
    papermill = notebook.metadata.get("papermill", {})
    errors = [out for cell in notebook.cells for out in cell.get("outputs", []) if out.output_type == "error"]
    if papermill.get("exception") or errors:
        problems.append(f"Notebook '{name}' failed when it was executed.")
    if not records.finished:
        problems.append(f"Notebook '{name}' did not finish.")
    if records.profile != profile or papermill.get("parameters", {}).get("profile") != profile:
        problems.append(f"Notebook '{name}' ran under profile '{records.profile}', not '{profile}'.")
    return problems


def check_figures(records: Iterable[FigureRecord]) -> list[str]:
    """Every registered figure has a record (made, waiting or unavailable) with caption and alt text."""
    found = {record.id: record for record in records}
    missing = [one for one in registry.load_figures() if one not in found]
    problems = [f"Figure '{one}' is registered but no notebook recorded it." for one in missing]
    for one in found.values():
        texts = {"caption": one.caption, "alt": one.alt}
        problems += [f"Figure '{one.id}' has no {part}." for part, text in texts.items() if not text.strip()]
    return problems


def check_prose(asked: Mapping[str, Iterable[str]], known: Container[str]) -> list[str]:
    """Every value that prose asks for, by the file it stands in, was recorded by some notebook."""
    return [
        f"{where} asks for value '{name}', which no notebook recorded."
        for where, names in asked.items()
        for name in sorted(names)
        if name not in known
    ]


def check_claims(ledger: Iterable[dict[str, Any]], without_data: Iterable[str]) -> list[str]:
    """A claim that released data can test has a measurement, unless its notebook met data that were missing."""
    problems, gaps = [], set(without_data)
    for row in ledger:
        for evidence, result in row["results"].items():
            if result.get("verdict") not in verdicts.VERDICTS:
                problems.append(f"Claim '{row['id']}' has no verdict for {evidence} evidence.")
        if row["results"]["released"]["verdict"] == "not run" and row["notebook"] not in gaps:
            problems.append(
                f"Claim '{row['id']}' can be tested with released data, but '{row['notebook']}' did not measure it."
            )
    return problems


# --- the built pages ----------------------------------------------------------------------------------------------


def check_html(site: Path) -> list[str]:
    """No link inside the site is broken (pages, files and anchors), and every picture has alt text."""
    problems = []
    for page in sorted(site.rglob("*.html")):
        if "_static" in page.relative_to(site).parts:
            continue
        soup, where = _soup(page), page.relative_to(site)
        problems += [
            f"{where}: a picture has no alt text ({image.get('src', '')})."
            for image in soup.find_all("img")
            if not image.get("alt", "").strip()
        ]
        problems += [
            f"{where}: broken link to '{link}'." for link in sorted(_links(soup)) if not _resolves(site, page, link)
        ]
    return problems


@cache
def _soup_of(path: str, stamp: float) -> BeautifulSoup:
    return BeautifulSoup(Path(path).read_text(encoding="utf-8"), "lxml")


def _soup(page: Path) -> BeautifulSoup:
    return _soup_of(str(page), page.stat().st_mtime)


def _links(soup: BeautifulSoup) -> set[str]:
    wanted = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src", "object": "data"}
    found = {tag.get(attribute) for name, attribute in wanted.items() for tag in soup.find_all(name)}
    return {link for link in found if link and _is_internal(link)}


def _is_internal(link: str) -> bool:
    parts = urlsplit(link)
    return not parts.scheme and not parts.netloc and not link.startswith(("#search", "?"))


def _resolves(site: Path, page: Path, link: str) -> bool:
    parts = urlsplit(link)
    target = page if not parts.path else (page.parent / unquote(parts.path)).resolve()
    if target.is_dir():
        target = target / "index.html"
    if not target.is_file() or not target.is_relative_to(site.resolve()):
        return False
    if not parts.fragment or target.suffix != ".html":
        return True
    return unquote(parts.fragment) in _anchors(str(target), target.stat().st_mtime)


@cache
def _anchors(path: str, stamp: float) -> frozenset[str]:
    soup = _soup_of(path, stamp)
    return (
        frozenset(tag.get("id") for tag in soup.find_all(id=True))
        | {tag.get("name") for tag in soup.find_all("a", attrs={"name": True})}
        | {"", "top"}
    )
