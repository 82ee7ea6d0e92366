"""The registry of figures and their citations; nothing here draws, so no plotting library is loaded for it.

`data/figures.yml` registers every id; ids never change. The record of a figure is what `figures.save_figure` writes.
"""

import json
from pathlib import Path
from typing import Any

from em_companion.core.files import write_json, write_text
from em_companion.core.paths import book_url

COMPANION = "The executable companion to 'Convergent Linear Representations of Emergent Misalignment'"
AUTHOR = "The executable companion contributors"


# --- citing -------------------------------------------------------------------------------------------------------


def permalink(figure_id: str) -> str:
    """Return the figure's address in the published book, or its path in the book when no address is known."""
    return f"{book_url()}figures/{figure_id}/"


def write_citation(folder: Path, record: dict[str, Any]) -> None:
    """Write `cite.bib` and `cite.json` beside a figure from its provenance."""
    write_text(folder / "cite.bib", bibtex(record))
    write_json(folder / "cite.json", [csl(record)])


def _citation_title(record: dict[str, Any]) -> str:
    counterpart = f", after {record['paper']} of the paper" if record["paper"] else ""
    return f"{record['title']} (figure {record['figure']}, {record['evidence']} evidence{counterpart})"


def csl(record: dict[str, Any]) -> dict[str, Any]:
    """Return the CSL-JSON item of a figure."""
    year, month, day = (int(part) for part in record["date"][:10].split("-"))
    item = {
        "id": _key(record),
        "type": "figure",
        "title": _citation_title(record),
        "author": [{"literal": AUTHOR}],
        "container-title": COMPANION,
        "issued": {"date-parts": [[year, month, day]]},
        "version": record["commit"][:12],
        "note": f"profile {record['profile']}, seed {record['seed']}",
    }
    return item | ({"URL": permalink(record["figure"])} if book_url() else {})


def bibtex(record: dict[str, Any]) -> str:
    """Return the BibTeX entry of a figure."""
    fields = {
        "title": "{" + _latex(_citation_title(record)) + "}",
        "author": "{" + AUTHOR + "}",
        "year": record["date"][:4],
        "howpublished": _latex(COMPANION),
        "note": _latex(f"commit {record['commit'][:12]}, profile {record['profile']}, seed {record['seed']}"),
    }
    if book_url():
        fields["url"] = permalink(record["figure"])
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@misc{{{_key(record)},", *lines, "}"]) + "\n"


def _key(record: dict[str, Any]) -> str:
    return f"em-companion-{record['figure']}-{record['evidence']}"


def _latex(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "&%$#_{}" else letter for letter in text)


def read_record(folder: Path) -> dict[str, Any]:
    """Return the provenance of the record in `folder`."""
    return json.loads((folder / "provenance.json").read_text())
