"""Write results so that a reader never meets half of one: a temporary name first, then a rename."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from em_companion.core.errors import CompanionError
from em_companion.core.paths import relative


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # ten times as fast where libyaml is there
    """A loader that refuses a key that stands twice: YAML would keep the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for number, key in enumerate(keys) if key.value in {one.value for one in keys[:number]}]:
            raise yaml.constructor.ConstructorError(None, None, f"'{twice[0].value}' stands twice", twice[0].start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """Return what a YAML file of the project holds; raise CompanionError, with the line, where it cannot be read."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
    except UnicodeError as error:
        raise CompanionError(f"{relative(path)} is malformed: it is not text in UTF-8.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # such as a date that does not exist
        mark = getattr(error, "problem_mark", None)
        problem = f"line {mark.line + 1}: {error.problem}" if mark else str(error).splitlines()[0].rstrip(".")
        raise CompanionError(f"{relative(path)} is malformed: {problem}.") from error
    except OSError as error:
        raise CompanionError(f"{relative(path)} cannot be read: {error.strerror}.") from error


def sha256_of(data: bytes | str) -> str:
    """Return the hex sha256 of bytes or of text in UTF-8."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def sha256_of_files(folder: Path, pattern: str, without: str = "") -> str:
    """Return the hex sha256 of names and contents of the files below `folder` that match `pattern` and not `without`.

    Both are glob patterns; the second is of names and by default of none.
    """
    found = sorted(path for path in folder.glob(pattern) if path.is_file() and not fnmatch(path.name, without))
    return sha256_of("".join(f"{path.relative_to(folder)} {sha256_of(path.read_bytes())}\n" for path in found))


def sha256_by_path(folder: Path, without: str) -> dict[str, str]:
    """Return the hex sha256 of every file below `folder`, by its path there, but for the file `without`."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / without)
    return {str(path.relative_to(folder)): sha256_of(path.read_bytes()) for path in found}


def digest_of(record: dict[str, Any]) -> str:
    """Return the hex sha256 of a record as JSON, whatever the order of its keys."""
    return sha256_of(json.dumps(record, sort_keys=True, ensure_ascii=False))


def write_text(path: Path, text: str) -> bool:
    """Write `text` atomically unless the file already holds it (so its time stamp stays); tell whether it changed."""
    if path.is_file() and path.read_bytes() == text.encode():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(text.encode())
    temporary.replace(path)
    return True


def write_json(path: Path, value: Any) -> bool:
    """Write `value` as indented JSON, atomically; NaN is refused because no other program could read it."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_sealed(path: Path, record: dict[str, Any]) -> None:
    """Write a record as `write_json` does, with its own sha256, by which `read_sealed` tells an edit."""
    write_json(path, record | {"sha256": digest_of(record)})


def read_sealed(path: Path, way_out: str) -> dict[str, Any]:
    """Return a record that `write_sealed` wrote; raise CompanionError, with the way out, where it is another one now.

    Where it has `files`, the sha256 by path of what lies beside it, these must be as they were, too.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        same = record.pop("sha256") == digest_of(record)
        if same and ("files" not in record or record["files"] == sha256_by_path(path.parent, path.name)):
            return record
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass  # no such record
    raise CompanionError(f"{relative(path)} is damaged or was edited: {way_out}.")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `target` when the block ends well and vanishes when it does not."""
    temporary, old = (target.with_name(f".{target.name}.{end}") for end in (os.getpid(), "old"))
    recover(target)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if target.exists():
            target.rename(old)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def recover(target: Path) -> None:
    """Clear up after a process that was killed: bring back a folder caught between names, drop half-written ones."""
    old = target.with_name(f".{target.name}.old")
    if old.exists() and not target.exists():
        old.rename(target)
    for leftover in target.parent.glob(f".{target.name}.*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def lock(target: Path) -> Iterator[None]:
    """Hold the lock beside `target`, so that two processes do not build the same thing at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        yield
