"""How to cite a figure, from its provenance: BibTeX and CSL-JSON."""

import json
from typing import Any

from pybtex.database import BibliographyData, Entry
from pybtex.database.output.bibtex import Writer

from em_companion.core.paths import book_url

COMPANION = "The executable companion to 'Convergent Linear Representations of Emergent Misalignment'"
AUTHOR = "The executable companion contributors"

Provenance = dict[str, Any]
"""What `figures.save_figure` writes beside a figure."""


def permalink(figure_id: str) -> str:
    """Return the figure's address in the published book, or its path in the book when no address is known."""
    return f"{book_url()}figures/{figure_id}/"


def files(provenance: Provenance) -> dict[str, str]:
    """Return the citations of a figure by the name of their file: `cite.bib` and `cite.json`."""
    item = json.dumps([csl(provenance)], indent=1, ensure_ascii=False)
    return {"cite.bib": bibtex(provenance), "cite.json": item + "\n"}


def csl(provenance: Provenance) -> dict[str, Any]:
    """Return the CSL-JSON item of a figure."""
    item = {
        "id": _key(provenance),
        "type": "figure",
        "title": _title(provenance),
        "author": [{"literal": AUTHOR}],
        "container-title": COMPANION,
        "issued": {"date-parts": [[int(part) for part in provenance["date"][:10].split("-")]]},
        "version": provenance["commit"][:12],
        "note": _parameters(provenance),
    }
    return item | ({"URL": permalink(provenance["figure"])} if book_url() else {})


def bibtex(provenance: Provenance) -> str:
    """Return the BibTeX entry of a figure."""
    fields = {
        "title": f"{{{_title(provenance)}}}",
        "author": f"{{{AUTHOR}}}",
        "year": provenance["date"][:4],
        "howpublished": COMPANION,
        "note": f"commit {provenance['commit'][:12]}, {_parameters(provenance)}",
    }
    address = {"url": permalink(provenance["figure"])} if book_url() else {}
    # Asked for by its class: by its name, pybtex would search all installed packages, for every figure.
    return Writer().to_string(BibliographyData({_key(provenance): Entry("misc", fields=fields | address)}))


def _title(provenance: Provenance) -> str:
    counterpart = f", after {provenance['paper']} of the paper" if provenance["paper"] else ""
    return f"{provenance['title']} (figure {provenance['figure']}, {provenance['evidence']} evidence{counterpart})"


def _parameters(provenance: Provenance) -> str:
    return f"profile {provenance['profile']}, seed {provenance['seed']}"


def _key(provenance: Provenance) -> str:
    return f"em-companion-{provenance['figure']}-{provenance['evidence']}"
