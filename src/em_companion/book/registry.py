"""The registry of figures and their citations; nothing here draws, so no plotting library is loaded for it.

`data/figures.yml` registers every id; ids never change. The record of a figure is what `figures.save_figure` writes.
"""

from dataclasses import dataclass
from functools import cache

from em_companion.core import paths
from em_companion.core.errors import CompanionError
from em_companion.core.paths import relative
from em_companion.core.schema import Checked, Text, read_registry, text
from em_companion.evidence.claims import Claim, load_claims

FIGURES = paths.DATA / "figures.yml"


@dataclass(frozen=True)
class FigureEntry(Checked):
    """A registered figure: `id`, `title`, the `notebook` that makes it, its counterpart in the `paper` ("" if ours)."""

    id: text("[a-z0-9]+(-[a-z0-9]+)*", "small letters, digits and hyphens, as in fig-x-loss")
    title: Text
    notebook: Text
    paper: str


@cache
def load_figures() -> dict[str, FigureEntry]:
    """Return every registered figure by id; raise CompanionError for a malformed `data/figures.yml`."""
    return read_registry(FIGURES, "figures", FigureEntry)


def registered(figure_id: str, notebook: str) -> FigureEntry:
    """Return the entry of `figure_id`; raise CompanionError unless it is registered for `notebook`."""
    entry = load_figures().get(figure_id)
    if entry is None or entry.notebook != notebook:
        raise CompanionError(
            f"Figure '{figure_id}' is not registered for notebook '{notebook}' in {relative(FIGURES)}."
        )
    return entry


def registered_claim(claim_id: str, notebook: str) -> Claim:
    """Return the claim `claim_id`; raise CompanionError unless it is registered for `notebook`."""
    claim = load_claims().get(claim_id)
    if claim is None or claim.notebook != notebook:
        raise CompanionError(f"Claim '{claim_id}' is not registered for notebook '{notebook}'.")
    return claim
