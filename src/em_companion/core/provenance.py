"""What made a result: its inputs, commit, versions, hardware. Nothing here names a user, a host or a folder.

Whoever reads a released file or a kept result says so by `note_input`.
"""

import os
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache, wraps
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

from em_companion.core.paths import git

_open: list[dict[str, str]] = []
"""The blocks of `recorded` that are under way, outermost first."""


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


def remembered(function: Callable[..., Any]) -> Callable[..., Any]:
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


@cache
def environment() -> dict[str, Any]:
    """Return commit, dirty flag, package versions and hardware of this process."""
    needed = [re.match(r"[\w.-]+", one)[0] for one in requires("em-companion") if "extra ==" not in one]
    gpus = Path("/proc/driver/nvidia/gpus").glob("*/information")
    return {
        "commit": git("rev-parse", "HEAD") or "unknown",
        "dirty": bool(git("status", "--porcelain")),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("em-companion", *needed)},
        "hardware": {
            "machine": platform.machine(),
            "processor": _line(Path("/proc/cpuinfo"), "model name") or platform.processor() or "unknown",
            "cores": os.cpu_count(),
            "gpu": next((_line(one, "Model") for one in gpus), None),  # importing torch for it would be slow
        },
    }


def _line(path: Path, label: str) -> str | None:
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    found = re.search(rf"^{label}\s*:\s*(.*)", text, re.MULTILINE)
    return found and found[1]


def utc_now() -> str:
    """Return the present time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
