"""What made a result: its inputs, commit, versions, hardware. Nothing here names a user, a host or a folder.

Whoever reads a released file or a kept result says so by `note_input`; `recorded` collects what was read within a
block, and `remembered` is a cache that repeats on every hit what was read for the result it holds.
"""

import os
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache, wraps
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any, TypeVar

from em_companion.core.paths import git

Function = TypeVar("Function", bound=Callable[..., Any])
_open: list[dict[str, str]] = []
"""The blocks of `recorded` that are under way, outermost first."""


# --- inputs -------------------------------------------------------------------------------------------------------


def note_input(name: str, checksum: str) -> None:
    """Record that an input was read, in every `recorded` block under way."""
    for inputs in _open:
        inputs[name] = checksum


@contextmanager
def recorded() -> Iterator[dict[str, str]]:
    """Yield the checksum by name of every input read within the block; it fills as they are read."""
    inputs: dict[str, str] = {}
    _open.append(inputs)
    try:
        yield inputs
    finally:
        # By identity: two blocks that have read the same are equal.
        _open[:] = [one for one in _open if one is not inputs]


def remembered(function: Function) -> Function:
    """Return `function` with a cache over its arguments; a hit also notes the inputs that the result was made from."""

    @cache
    def made(*arguments: Any, **named: Any) -> tuple[Any, dict[str, str]]:
        with recorded() as inputs:
            return function(*arguments, **named), inputs

    @wraps(function)
    def recalled(*arguments: Any, **named: Any) -> Any:
        result, inputs = made(*arguments, **named)
        for name, checksum in inputs.items():
            note_input(name, checksum)
        return result

    recalled.cache_clear = made.cache_clear
    return recalled


# --- circumstances ------------------------------------------------------------------------------------------------


@cache
def environment() -> dict[str, Any]:
    """Return commit, dirty flag, package versions and hardware of this process."""
    return {
        "commit": git("rev-parse", "HEAD") or "unknown",
        "dirty": bool(git("status", "--porcelain")),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _packages()},
        "hardware": {
            "machine": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "gpu": _gpu(),
        },
    }


def utc_now() -> str:
    """Return the present time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _packages() -> list[str]:
    """Return this package and what it asks for, by its own metadata."""
    needed = [one for one in requires("em-companion") or [] if "extra ==" not in one]
    return ["em-companion", *(re.match(r"[\w.-]+", one)[0] for one in needed)]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def _gpu() -> str | None:
    """Return the first GPU's name without importing torch for it: a notebook that needs no model pays nothing."""
    try:
        with open("/proc/driver/nvidia/gpus/0/information", encoding="utf-8") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith("Model")), None)
    except OSError:
        return None
