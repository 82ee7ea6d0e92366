"""How numbers stand in text."""

import re
from collections.abc import Iterable

import pandas as pd

GLUED = re.compile(r"(?<=\d) (?=%)")
MINUS = re.compile(r"(?<![\w.)])-(?=\d)")


def typography(text: str) -> str:
    """Return text with true minus signs and percent signs that stay with their number."""
    return MINUS.sub("\u2212", GLUED.sub("\u00a0", text))


def extremes(values: Iterable[float], pattern: str = ".2f") -> str:
    """Return the lowest and the highest of `values` as text, one number where both print alike; "–" of none."""
    ends = sorted(values)
    return " to ".join(dict.fromkeys(f"{end:{pattern}}" for end in (ends[0], ends[-1]))) if ends else "–"


def span(table: pd.DataFrame, column: str = "value", pattern: str = ".0f", by: str = "", **where: object) -> str:
    """Return the lowest and the highest of a column as text, of the rows that have the values of `where`.

    by: of the highest of each group by a column, with the names of the two. The pattern ".0f" is one of percent.
    """
    wanted = pd.Series(True, table.index)
    for name, one in where.items():
        wanted &= table[name].isna() if one is None else table[name] == one
    rows, unit = table[wanted].dropna(subset=column), " %" if pattern == ".0f" else ""
    if not by:
        return extremes(rows[column], pattern) + unit * (len(rows) > 0)
    highest = rows.groupby(by)[column].max().sort_values()
    ends = dict.fromkeys([*highest.index[:1], *highest.index[-1:]])
    return " to ".join(f"{highest[name]:{pattern}}{unit} ({name})" for name in ends) or "–"
