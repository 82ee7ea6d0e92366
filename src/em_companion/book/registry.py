"""The registry of figures and their citations; nothing here draws, so no plotting library is loaded for it.

`data/figures.yml` registers every id; ids never change. The record of a figure is what `figures.save_figure` writes.
"""

import re
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from em_companion.core import paths
from em_companion.core.errors import CompanionError
from em_companion.core.files import read_list
from em_companion.core.paths import relative
from em_companion.evidence.claims import Claim, load_claims

FIGURES = paths.DATA / "figures.yml"
FIGURE_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class FigureEntry:
    """A registered figure: `id`, `title`, the `notebook` that makes it, its counterpart in the `paper` ("" if ours)."""

    id: str
    title: str
    notebook: str
    paper: str


@cache
def load_figures() -> dict[str, FigureEntry]:
    """Return every registered figure by id; raise CompanionError for a malformed `data/figures.yml`."""
    where = relative(FIGURES)
    entries = [_parse(entry, where) for entry in read_list(FIGURES, "figures")]
    by_id = {entry.id: entry for entry in entries}
    if len(by_id) != len(entries):
        raise CompanionError(f"{where}: a figure id stands twice.")
    return by_id


def _parse(entry: dict[str, Any], where: str) -> FigureEntry:
    name = entry.get("id", "(no id)")
    if wrong := sorted(map(str, set(entry) ^ {field.name for field in fields(FigureEntry)})):
        raise CompanionError(f"{where} is malformed: figure '{name}' has a missing or unknown key: {', '.join(wrong)}.")
    if odd := [key for key, value in entry.items() if not isinstance(value, str) or not (value or key == "paper")]:
        raise CompanionError(f"{where} is malformed: figure '{name}': '{odd[0]}' must be text.")
    if not FIGURE_ID.fullmatch(name):
        raise CompanionError(f"{where} is malformed: '{name}' is no figure id (small letters, digits, hyphens).")
    return FigureEntry(**entry)


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
