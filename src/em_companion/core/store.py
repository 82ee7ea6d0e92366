"""What is computed once and kept: folders addressed by everything that decides their content, sealed when whole.

`keep` is the one road for tables and arrays; a trained model is kept in the same way, as a folder in hub layout. The
seal is a `provenance.json`, written last: the key, the parts behind it and the sha256 of every file. A folder is taken
for what its name says only where the seal says so too: same key, made of these parts, and no file more or less.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import safe_open
from safetensors.numpy import save_file

from em_companion.core import paths
from em_companion.core.errors import CompanionError
from em_companion.core.files import lock, new_folder, sha256_by_path, sha256_of, write_json
from em_companion.core.paths import relative
from em_companion.core.provenance import environment, note_input, utc_now

SEAL = "provenance.json"
RESPONSES = "responses.parquet"
READINGS = "readings.safetensors"
DIRECTIONS = "directions.safetensors"
# What a sealed folder is about, one of these files; `sha256` in its provenance is of that one.
PAYLOADS = ("model.safetensors", "adapter_model.safetensors", RESPONSES, DIRECTIONS)
# How the libraries that write a model word it that they could not; torch names its source file.
DISK_TROUBLE = ("No space left", "File too large", "Disk quota exceeded", "inline_container")

Parts = dict[str, Any]


@dataclass(frozen=True)
class Arrays:
    """Arrays by name, and names that go with them, such as those of adapters."""

    arrays: Mapping[str, np.ndarray]
    names: tuple[str, ...] = ()


Content = Mapping[str, pd.DataFrame | Arrays]
"""What a folder holds by file name: tables as `.parquet`, arrays as `.safetensors`."""


def key(parts: Parts) -> str:
    """Return the key of what has these parts, 16 hex digits."""
    return sha256_of(json.dumps(parts, sort_keys=True))[:16]


def versioned(parts: Parts, version: int) -> Parts:
    """Return `parts` with the version of the code that computes, left out while it is 1."""
    return parts | ({"version": version} if version > 1 else {})


def keep(kind: str, version: int, parts: Parts, make: Callable[[], Content], *place: str) -> dict[str, Any]:
    """Return what `make` gives, by file name, kept in `artifacts/KIND/PLACE/.../KEY` and read back from there.

    parts: what decides the content (weights, texts, settings), but for code; version: of the code, raised with every
    change of a number; a fingerprint test per kind fails until it is. Raises CompanionError: damage, a full disk.
    """
    return keep_in(folder(kind, version, parts, *place), versioned(parts, version), make)


def folder(kind: str, version: int, parts: Parts, *place: str) -> Path:
    """Return where `keep` keeps what has these parts."""
    return paths.ARTIFACTS.joinpath(kind, *place, key(versioned(parts, version)))


def keep_in(folder: Path, parts: Parts, make: Callable[[], Content]) -> dict[str, Any]:
    """Return what `make` gives, kept in `folder`; see `keep`."""
    with missing(folder) as absent:
        if absent:
            content = make()
            with new_folder(folder) as new:
                for name, one in content.items():
                    if isinstance(one, Arrays):
                        save_file(dict(one.arrays), new / name, {"names": json.dumps(one.names)})
                    else:
                        one.to_parquet(new / name, index=False)
                seal(new, parts)
    note_input(relative(folder), check(folder)["sha256"])
    return {path.name: _read(path) for path in sorted(folder.iterdir()) if path.suffix in (".parquet", ".safetensors")}


def _read(path: Path) -> pd.DataFrame | Arrays:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    with safe_open(path, "numpy") as file:
        names = json.loads((file.metadata() or {}).get("names", "[]"))
        return Arrays({name: file.get_tensor(name) for name in file.keys()}, tuple(names))


def is_there(folder: Path) -> bool:
    """Tell whether something whole lies in `folder`."""
    return (folder / SEAL).is_file()


@contextmanager
def missing(folder: Path) -> Iterator[bool]:
    """Tell whether `folder` must be made, holding its lock meanwhile: two processes never make the same one.

    Raises CompanionError where the disk is too full to make it.
    """
    if is_there(folder):
        yield False
        return
    with lock(folder), writing(folder):
        yield not is_there(folder)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say in one sentence that `folder` cannot be written for want of space, whichever library met with it."""
    try:
        yield
    except Exception as error:
        if not any(sign in str(error) for sign in DISK_TROUBLE):
            raise
        raise CompanionError(f"{relative(folder)} cannot be written: free some disk space and run it again.") from error


def seal(folder: Path, parts: Parts, **more: Any) -> None:
    """Write `provenance.json` into a finished folder: key, parts, sha256 of every file, commit, versions, date."""
    files = sha256_by_path(folder, SEAL)
    record = {"key": key(parts), "sha256": _payload(files), "files": files, "parts": parts, "date": utc_now()}
    write_json(folder / SEAL, record | more | environment())


def _payload(files: dict[str, str]) -> str:
    return files[next((name for name in PAYLOADS if name in files), next(iter(files)))]


def provenance(folder: Path) -> dict[str, Any]:
    """Return the provenance in a folder; raise CompanionError where it is damaged or of something else."""
    try:
        record = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        keyed = re.fullmatch("[0-9a-f]{16}", folder.name) and record["parts"]
        if record["key"] != (folder.name if keyed else record["key"]) or record["key"] != key(record["parts"]):
            raise ValueError("another key")
        if record["sha256"] != _payload(record["files"]):
            raise ValueError("another payload")
        return record
    except (OSError, ValueError, TypeError, KeyError, AttributeError, StopIteration) as error:
        raise _damaged(folder) from error


def check(folder: Path) -> dict[str, Any]:
    """Return the provenance in a folder; raise CompanionError unless its files are those that were written there."""
    record = provenance(folder)
    if record["files"] != sha256_by_path(folder, SEAL):
        raise _damaged(folder)
    return record


def _damaged(folder: Path) -> CompanionError:
    committed = folder.is_relative_to(paths.COMMITTED)
    way_out = "restore that folder from git" if committed else "delete that folder and it is made again"
    return CompanionError(f"What lies in {relative(folder)} is damaged: {way_out}.")
