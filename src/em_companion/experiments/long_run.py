"""Experiments that take too long for a page: scripts of `experiments/` that keep their rows one by one in a table.

A table and its parts (`NAME.csv`, `NAME-PART.csv`) lie in `data/results`, with their provenance in `NAME.json`. What is
stopped goes on where it was.
"""

import time
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

import pandas as pd

from em_companion.core.errors import CompanionError, EvidenceUnavailable
from em_companion.core.files import write_json, write_text
from em_companion.core.paths import RESULTS
from em_companion.core.provenance import environment, recorded, utc_now
from em_companion.evidence import predictions

KEYS = ["arm", "seed"]
"""What tells the rows of one run from those of another."""


def path_of(name: str, part: str = "") -> Path:
    """Return the file of a table, or of one part of it, there or not."""
    return RESULTS / f"{name}{f'-{part}' if part else ''}.csv"


def read(path: Path) -> pd.DataFrame:
    """Return a table, indexed by arm and seed; raise EvidenceUnavailable where it is not there."""
    if not path.is_file():
        raise EvidenceUnavailable(f"'{path.name}' is not measured yet; run its script in the folder experiments.")
    return pd.read_csv(path).set_index(KEYS).sort_index()


def table(name: str, part: str = "", seeded: bool = True) -> cached_property:
    """Return a property of a class that is a table, or one part of it, read once; by arm alone if not `seeded`."""
    return cached_property(lambda _: read(path_of(name, part)).droplevel([] if seeded else "seed"))


def measure(rows: pd.DataFrame, arm: str, column: str, least: int = 2) -> pd.Series:
    """Return a measure of an arm by seed, of `rows` as `read`; raise EvidenceUnavailable below `least` seeds."""
    seeds = (rows.index.get_level_values("arm") == arm).sum()
    if seeds < least:
        raise EvidenceUnavailable(f"Arm '{arm}' has {seeds} of {least} seeds so far; let its script go on.")
    return rows.loc[arm, column]


def add(path: Path, rows: pd.DataFrame) -> None:
    """Add the rows of a run to a table, in place of those of the same arm and seed."""
    if path.is_file():
        old = pd.read_csv(path)
        new = set(rows[KEYS].apply(tuple, axis=1))
        rows = pd.concat([old[~old[KEYS].apply(tuple, axis=1).isin(new)], rows], ignore_index=True)
    write_text(path, rows.to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def record(name: str, arm: str, seed: int, rows: pd.DataFrame, part: str = "") -> None:
    """Add what was measured of an arm and seed to a table, or to one part of it; see `add`."""
    keyed = rows.assign(arm=arm, seed=seed)
    add(path_of(name, part), keyed[[*KEYS, *(column for column in rows.columns if column not in KEYS)]])


def carry_out(
    name: str, script: str, planned: Iterable[tuple[str, int]], run: Callable[[str, int], None], notebook: str = ""
) -> None:
    """Call `run` for every planned arm and seed that the table `name` has not; say how far it is and what is left.

    `run` adds to the parts of the table first and to the table itself last. Raises CompanionError while a prediction of
    the notebook, `name` unless another one is given, is not locked.
    """
    path, code = path_of(name), environment()  # as it is now, and not when the run ends
    known = predictions.load_predictions().values()
    if open_ := [one.id for one in known if one.notebook == (notebook or name) and one.id not in predictions.locks()]:
        raise CompanionError(f"Lock '{open_[0]}' first: 'em-companion predictions lock'.")
    done = set(pd.read_csv(path)[KEYS].apply(tuple, axis=1)) if path.is_file() else set()
    todo, started = [one for one in planned if one not in done], time.monotonic()
    with recorded() as inputs:
        for number, (arm, seed) in enumerate(todo, start=1):
            run(arm, seed)
            minutes = (time.monotonic() - started) / 60
            left = minutes / number * (len(todo) - number)
            print(f"{utc_now()} {arm}, seed {seed}: {number} of {len(todo)}, about {left:.0f} minutes left", flush=True)
            told = {"script": script, "rows": len(done) + number, "inputs": inputs, "date": utc_now()} | code
            write_json(path.with_suffix(".json"), told)
