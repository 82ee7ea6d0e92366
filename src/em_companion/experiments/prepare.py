"""Everything of a profile that is made before its notebooks run: base model, chat model, organisms, responses."""

import shutil
from collections.abc import Collection
from pathlib import Path

from em_companion.core import paths, store
from em_companion.core.errors import CompanionError
from em_companion.core.files import new_folder
from em_companion.core.paths import relative
from em_companion.core.profiles import GrownModel, Profile
from em_companion.experiments.responses import responses
from em_companion.models import asking, growing
from em_companion.models.organism import Organism, adapter_parts, organisms_of


def grow(profile: Profile, names: Collection[str] = ()) -> list[dict[str, str]]:
    """Make what is missing of `names` (default: everything) and return name, folder and "made" or "there" of each.

    Raises CompanionError for an unknown name, before anything is made, and for a damaged folder.
    """
    organisms = {organism.name: organism for organism in organisms_of(profile)}
    known = [*(["base"] if isinstance(profile.model, GrownModel) else []), "chat", *organisms]
    if unknown := [name for name in names if name not in known]:
        choice = ", ".join(known)
        raise CompanionError(f"Profile '{profile.name}' has no model '{unknown[0]}'; choose one of: {choice}.")
    rows = []
    for name in names or known:
        there = {path.parent for path in (paths.ARTIFACTS / "organisms").rglob("provenance.json")}
        place, status = _made(profile, name, organisms.get(name)), "hub"
        if store.is_there(place):
            store.check(place)
            status = "there" if place in there or place.is_relative_to(paths.COMMITTED) else "made"
        rows.append({"name": name, "status": status, "folder": relative(place)})
    return rows


def _made(profile: Profile, name: str, organism: Organism | None) -> Path:
    """Make a model, and an organism's responses to every question set, if missing; return its folder."""
    if organism is None:
        return growing.base(profile) if name == "base" else growing.chat(profile)
    found = growing.adapter(profile, organism) or growing.chat(profile)
    for question_set in asking.question_sets(profile):
        responses(profile, organism, question_set)
    return found


def from_nothing(profile: Profile) -> list[dict[str, str]]:
    """Grow the committed base and chat model of a profile anew, replacing each once the new one is whole."""
    target = paths.COMMITTED / profile.name
    growing.grow_from_nothing(profile, target)
    return [{"name": stage, "status": "made", "folder": relative(target / stage)} for stage in ("base", "chat")]


def further_seeds(profile: Profile) -> list[Organism]:
    """Return the organisms of rank-1 recipes whose seed is not the first of theirs."""
    rank_one = [one for one in organisms_of(profile)[1:] if profile.recipes[one.recipe].rank == 1]
    return [one for one in rank_one if one.seed != profile.seeds_of(one.recipe, one.data)[0]]


def commit(profile: Profile, organism: Organism) -> None:
    """Put an organism's adapter among the models of the repository, so that no build trains it."""
    kept = growing.adapter(profile, organism)
    if not kept.is_relative_to(paths.COMMITTED):
        with new_folder(paths.COMMITTED / profile.name / "adapters" / kept.name) as folder:
            for file in store.check(kept)["files"]:
                shutil.copy(kept / file, folder)
            store.seal(folder, adapter_parts(profile, organism))
