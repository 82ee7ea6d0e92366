"""Everything of a profile that is made before its notebooks run: base model, chat model, organisms, responses."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from em_companion.core import paths, store
from em_companion.core.errors import CompanionError
from em_companion.core.paths import relative
from em_companion.core.profiles import GrownModel, Profile
from em_companion.experiments import responses
from em_companion.models import growing
from em_companion.models.organism import organisms_of

Row = dict[str, Any]


def grow(profile: Profile, names: Collection[str] = ()) -> list[Row]:
    """Make what is missing of `names` (default: everything) and return name, folder and "made" or "there" of each.

    Raises CompanionError for an unknown name, before anything is made, and for a damaged folder.
    """
    makers = _makers(profile)
    if unknown := [name for name in names if name not in makers]:
        known = ", ".join(makers)
        raise CompanionError(f"Profile '{profile.name}' has no model '{unknown[0]}'; choose one of: {known}.")
    return [_made(name, makers[name]) for name in names or makers]


def from_nothing(profile: Profile) -> list[Row]:
    """Grow the committed base and chat model of a profile anew, replacing each once the new one is whole."""
    target = paths.COMMITTED / profile.name
    growing.grow_from_nothing(profile, target)
    return [{"name": stage, "status": "made", "folder": relative(target / stage)} for stage in ("base", "chat")]


def _makers(profile: Profile) -> dict[str, Callable[[], Path | str]]:
    """Return, by name and in the order of their making, functions that make a model if it is missing."""
    base = growing.base if isinstance(profile.model, GrownModel) else growing.chat
    makers = {"base": lambda: base(profile), "chat": lambda: growing.chat(profile)}
    for organism in organisms_of(profile):
        makers[organism.name] = lambda organism=organism: responses.prepare(profile, organism)
    return makers


def _made(name: str, make: Callable[[], Path | str]) -> Row:
    there = {path.parent for path in (paths.ARTIFACTS / "organisms").rglob("provenance.json")}
    place = make()
    if not isinstance(place, Path):
        return {"name": name, "status": "hub", "folder": place}
    store.check(place)
    made = place not in there and not place.is_relative_to(paths.COMMITTED)
    return {"name": name, "status": "made" if made else "there", "folder": relative(place)}
