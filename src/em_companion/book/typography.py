"""How numbers stand in text."""

import re
from collections.abc import Iterable

GLUED = re.compile(r"(?<=\d) (?=%)")
MINUS = re.compile(r"(?<![\w.)])-(?=\d)")


def typography(text: str) -> str:
    """Return text with true minus signs and percent signs that stay with their number."""
    return MINUS.sub("\u2212", GLUED.sub("\u00a0", text))


def extremes(values: Iterable[float], pattern: str = ".2f") -> str:
    """Return the lowest and the highest of `values` as text, one number where both print alike; "–" of none."""
    ends = sorted(values)
    return " to ".join(dict.fromkeys(f"{end:{pattern}}" for end in (ends[0], ends[-1]))) if ends else "–"
