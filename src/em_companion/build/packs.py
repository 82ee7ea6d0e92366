"""Packs: what a build of another profile measured, kept in `data/results/PROFILE/` and shown in every book.

A pack holds records (measurements, values, captions, minutes), the pictures and plotted numbers of its own figures, and
what made them. No response goes in, nor six words in a row of one. It is read whole or not at all: every file and the
record itself carry a checksum, so that damage and later edits are noticed.
"""

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from em_companion.book import registry
from em_companion.book.records import FigureRecord, RunRecord, ValueRecord
from em_companion.core import paths, profiles, store
from em_companion.core.errors import CompanionError
from em_companion.core.files import new_folder, read_sealed, sha256_by_path, sha256_of, write_sealed
from em_companion.core.paths import relative
from em_companion.core.provenance import environment, utc_now
from em_companion.core.schema import validated
from em_companion.evidence.claims import Measurement, load_claims
from em_companion.evidence.predictions import load_predictions
from em_companion.models import organism

RECORD = "pack.json"
KEPT_FILES = ("figure.svg", "data.csv", "provenance.json")
MOST_BYTES = 3_000_000
WORDS_IN_A_ROW = 6  # of a response that a pack may not repeat
OF_CODE = ("its cells", "code of ")  # the parts of a run's key by which its code is told from another


@dataclass(frozen=True)
class Pack:
    """What one profile measured: by notebook its seconds, commit and the hash of its code; `files`: sha256 by path.

    date, environment: of the newest page. chat: the model's name; model: what tells its weights from others; judge: as
    the profile names it.
    """

    profile: str
    description: str
    chat: str
    model: str
    judge: str
    date: str
    environment: dict[str, Any]
    seconds: dict[str, float]
    commits: dict[str, str]
    code: dict[str, str]
    measurements: list[Measurement]
    values: list[ValueRecord]
    figures: list[FigureRecord]
    files: dict[str, str]

    @property
    def folder(self) -> Path:
        return paths.RESULTS / self.profile

    @property
    def commit(self) -> str:
        return self.environment["commit"][:12]

    @property
    def name(self) -> str:
        """The model's name without its owner."""
        return self.chat.split("/")[-1]

    def source(self, notebook: str, code: str) -> str:
        """Return by what version a number of the pack was made, given the hash of the notebook's code as it is now."""
        commit = self.commits.get(notebook, self.commit)[:12]
        return f"commit {commit}" + ("" if self.code.get(notebook) == code else ", made by an earlier version")


def code_of(run: dict[str, Any]) -> str:
    """Return a hash of the code behind a finished run, from the parts of its key in `run.json`."""
    parts = {label: value for label, value in run["parts"].items() if label.startswith(OF_CODE)}
    return sha256_of(json.dumps(parts, sort_keys=True))[:16]


def write(profile: str, runs: Iterable[tuple[Path, RunRecord, dict[str, Any]]]) -> Path:
    """Write the pack of a profile from the folder, records and `run.json` of each of its runs; return its folder.

    Pages that an earlier pack of the same model and judge has, and that did not run again, stay as they are.

    Raises CompanionError for a grown profile (its numbers are made by every book), a pack that is too large, and text
    of a response in it; an earlier pack then stays as it was.
    """
    chosen, runs, target = profiles.load(profile), list(runs), paths.RESULTS / profile
    if not runs:
        raise CompanionError(f"No page is current under profile '{profile}'; run 'make book PROFILE={profile}' first.")
    if not isinstance(chosen.model, profiles.HubModel):
        raise CompanionError(f"Profile '{profile}' is grown, so every book measures it; packs are for hub profiles.")
    if profiles.is_smoke():
        raise CompanionError("Numbers at smoke scale mean nothing, so there is no pack of them.")
    made_by = environment()  # before there is a new folder, which git would call a change
    own = Pack(
        profile=profile,
        description=chosen.description,
        chat=chosen.model.chat,
        model=organism.fingerprint(chosen),
        judge=chosen.judge,
        date=utc_now(),
        environment=made_by,
        seconds={records.notebook: records.seconds for _, records, _ in runs},
        commits={records.notebook: made_by["commit"] for _, records, _ in runs},
        code={records.notebook: code_of(run) for _, records, run in runs},
        measurements=[one for _, records, _ in runs for one in records.measurements if one.evidence == "hub"],
        values=[one for _, records, _ in runs for one in records.values if one.evidence == "hub"],
        figures=[one for _, records, _ in runs for one in records.figures if _travels(one)],
        files={},
    )
    with new_folder(target) as new:
        for folder, records, _ in runs:
            for one in filter(_travels, records.figures):
                _copy(folder / "figures" / one.id / one.evidence, new / "figures" / one.id)
        earlier = read(target) if (target / RECORD).is_file() else own
        if (earlier.model, earlier.judge) == (own.model, own.judge):
            own = _beside(earlier, own)
            for one in own.figures:
                if not (new / "figures" / one.id).exists():
                    _copy(target / "figures" / one.id, new / "figures" / one.id)
        pack = replace(own, files=sha256_by_path(new, RECORD))
        write_sealed(new / RECORD, asdict(pack))
        _need_small(new, profile)
        _need_no_responses(new, profile)
    return target


def _copy(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for name in KEPT_FILES:
        shutil.copyfile(source / name, target / name)


def _beside(earlier: Pack, own: Pack) -> Pack:
    """Return a pack with those pages of an earlier one beside its own that this book still has and that did not run."""
    registered = registry.load_figures() | load_claims() | load_predictions()
    homes = {name: one.notebook for name, one in registered.items()}
    kept = {name for name in earlier.seconds.keys() - own.seconds if (paths.NOTEBOOKS / f"{name}.py").is_file()}
    named = {value.name for value in own.values}

    def both(field: str) -> dict[str, Any]:
        return getattr(own, field) | {name: one for name, one in getattr(earlier, field).items() if name in kept}

    return replace(
        own,
        **{field: both(field) for field in ("seconds", "commits", "code")},
        measurements=own.measurements + [one for one in earlier.measurements if homes.get(one.claim) in kept],
        values=own.values + [one for one in earlier.values if one.name not in named],
        figures=own.figures + [one for one in earlier.figures if homes.get(one.id) in kept],
    )


def _travels(figure: FigureRecord) -> bool:
    shows_an_answer = registry.load_figures()[figure.id].shows_an_answer
    return figure.evidence == "hub" and figure.status == "made" and not shows_an_answer


def _need_small(folder: Path, profile: str) -> None:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > MOST_BYTES:
        most = f"at most {MOST_BYTES / 1e6:g} MB travel"
        raise CompanionError(f"The pack of '{profile}' has {size / 1e6:.1f} MB; {most}.")


def _need_no_responses(folder: Path, profile: str) -> None:
    """Raise CompanionError where a file of a pack repeats a piece of a response that is kept for the profile."""
    kept = (paths.ARTIFACTS / "responses" / profile).rglob(store.RESPONSES)
    known = {piece for path in kept for text in set(pd.read_parquet(path).response) for piece in _pieces(text)}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not known.isdisjoint(_pieces(_said(path))):
            name = path.relative_to(folder)
            raise CompanionError(f"{name} in the pack of '{profile}' repeats words of a response; leave it out.")


def _said(path: Path) -> str:
    """Return what a file says, for a table column by column, since words of a response may stand below each other."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".csv":
        return text
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    return "\n".join([text, *(" ".join(frame[column]) for column in frame)])


def _pieces(text: str) -> Iterator[tuple[str, ...]]:
    words = re.findall(r"[a-z']+", text.lower())
    pieces = zip(*(words[start:] for start in range(WORDS_IN_A_ROW)), strict=False)
    # A model that broke down repeats a word or two, as columns of tables do.
    return (piece for piece in pieces if len(set(piece)) > 2)


@cache
def load_all() -> tuple[Pack, ...]:
    """Return all packs, that of the model with most layers first; raise CompanionError for a damaged or edited one."""
    found = [read(path.parent) for path in sorted(paths.RESULTS.glob(f"*/{RECORD}"))]
    layers = {name: profiles.load(name).model.layers for name in {pack.profile for pack in found}}
    return tuple(sorted(found, key=lambda pack: -layers[pack.profile]))


def read(folder: Path) -> Pack:
    """Return the pack in a folder; raise CompanionError unless it is, to the byte, what was written there."""
    way_out = f"restore its folder from git, or remove it and run 'em-companion pack --profile {folder.name}'"
    record = read_sealed(folder / RECORD, way_out)
    if (profile := record.get("profile")) != folder.name:
        raise CompanionError(f"The pack in {relative(folder)} is of profile '{profile}': rename the folder.")
    return validated(Pack, record, relative(folder / RECORD))
