"""The cells of a heat map: the matrix, its numbers, names, frames and contours."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from em_companion.book.drawing import Shape, name_ticks
from em_companion.book.theme import PALETTE
from em_companion.core.errors import CompanionError


def melted(matrix: pd.DataFrame) -> tuple[pd.DataFrame, str, str, str]:
    """A matrix as a long table, and the names of its columns of rows, columns and values."""
    long = matrix.rename_axis(index="row", columns="column").melt(ignore_index=False, value_name="value")
    return long.reset_index(), "row", "column", "value"


def write_numbers(shape: Shape, cells: pd.DataFrame, numbers: str | None) -> None:
    """Write the number of each cell, dark or light against its colour."""
    mesh = shape.axes.collections[-1]
    for (row, column), value in np.ndenumerate(cells.to_numpy(float)):
        if numbers and not np.isnan(value):
            face = mesh.to_rgba(value)
            ink = "0.1" if np.dot(face[:3], (0.3, 0.6, 0.1)) > 0.5 else "white"
            halo = [withStroke(linewidth=2.5, foreground=face)]
            style = {"ha": "center", "va": "center", "fontsize": 9, "color": ink, "zorder": 5, "path_effects": halo}
            shape.axes.text(column + 0.5, row + 0.5, format(value, numbers), **style)


def draw_frames(shape: Shape, columns: Mapping, frame: Mapping[str, tuple]) -> None:
    """Draw a frame around the cell (row, column) of each legend label."""
    for label, (row, column) in frame.items():
        corner = (list(columns).index(column), list(shape.names).index(row))
        look = {"fill": False, "edgecolor": "0.05", "linewidth": 2.4, "zorder": 4}
        shape.axes.add_patch(Rectangle(corner, 1, 1, label=label, **look))


def cell_ticks(shape: Shape, columns: Mapping, upwards: bool) -> None:
    """Name the cells (of more than 16 numbers only some, in equal steps) and put the first row at the top or bottom."""
    ticks = []
    for names in (columns, shape.names):
        numeric = all(str(text).lstrip("-").replace(".", "", 1).isdigit() for text in names.values())
        step = -(-len(names) // 12) if numeric and len(names) > 16 else 1
        ticks.append((np.arange(0, len(names), step) + 0.5, list(names.values())[::step]))
    name_ticks(shape.axes, *ticks[0])
    shape.axes.set_yticks(*ticks[1], rotation=0)
    shape.axes.tick_params(length=0)
    shape.axes.set(xlabel="", ylabel="", ylim=(0, len(shape.names)) if upwards else (len(shape.names), 0))


def cells_of(shape: Shape, column: str, value: str, columns: Mapping) -> pd.DataFrame:
    """The values as a matrix in the order of the labels."""
    if shape.table.duplicated([shape.category, column]).any():
        raise CompanionError(f"A heat map needs one row for each pair of '{shape.category}' and '{column}'.")
    matrix = shape.table.pivot(index=shape.category, columns=column, values=value)
    return matrix.reindex(index=list(shape.names), columns=list(columns)).rename(index=shape.names, columns=columns)


def draw_contours(shape: Shape, column: str, columns: Mapping, contours: Mapping[str, tuple[str, float]]) -> None:
    """Draw the line along which the values of a column reach a level, where they do, for each legend label."""
    for (label, (name, level)), dash in zip(contours.items(), cycle(["-", "--", ":"]), strict=False):
        values = cells_of(shape, column, name, columns).to_numpy(float)
        if np.nanmin(values) < level < np.nanmax(values):
            at = [np.arange(size) + 0.5 for size in values.shape[::-1]]
            drawn = shape.axes.contour(*at, values, levels=[level], colors=[PALETTE[0]], linestyles=dash)
            drawn.set(path_effects=[withStroke(linewidth=3, foreground="white")])
        shape.axes.plot([], [], color=PALETTE[0], linestyle=dash, label=label)
