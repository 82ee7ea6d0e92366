"""Whether the data of a figure hold what is drawn on it.

Every vertex of a line, interval, band or dot must stand in the data: x and y in one row, or one of them alone where the
other axis names its ticks or is none of the data (as for a reference line). Of bars the length counts, of heat maps the
cells. Texts do not count, nor places on a named axis.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

TOLERANCE = 1e-6  # relative


def first_missing(figure: Figure, data: pd.DataFrame) -> list[float]:
    """The first drawn point, or single value, that no row of data holds, in data coordinates; empty if all are held."""
    cells = data.select_dtypes("number").to_numpy(float, na_value=np.nan)
    parts = [part for axes in figure.axes if axes.get_label() != "<colorbar>" for part in _drawn(axes)]
    numbers = np.concatenate([cells, *parts], axis=None)
    ordered, where = np.unique(numbers, return_inverse=True)
    steps = np.diff(ordered, prepend=ordered[:1]) > TOLERANCE * np.abs(ordered) + 1e-12
    codes = np.where(np.isfinite(numbers), np.cumsum(steps)[where], -1)  # one for all numbers that count as the same
    rows, *coded = np.split(codes, np.cumsum([cells.size, *(part.size for part in parts)])[:-1])
    rows = rows.reshape(cells.shape)
    first, second = rows[:, :, None], rows[:, None]
    apart = ~np.eye(rows.shape[1], dtype=bool) & (first >= 0) & (second >= 0)
    held = {1: rows, 2: (first * len(numbers) + second)[apart]}
    for part, code in zip(parts, coded, strict=True):
        code = code.reshape(part.shape) @ [len(numbers), 1][-part.shape[1] :]
        lost = ~np.isin(code, held[part.shape[1]])
        if lost.any():
            return part[lost][0].tolist()
    return []


def _drawn(axes: Axes) -> Iterator[np.ndarray]:
    """Yield the finite numbers drawn, as arrays [points, 1 or 2]: single values, or x with y."""
    bars = [one for one in axes.containers if isinstance(one, BarContainer)]
    vertices = [(line.get_transform(), line.get_xydata()) for line in axes.lines]
    for patch in set(axes.patches).difference(*bars):
        vertices.append((patch.get_data_transform(), patch.get_patch_transform().transform(patch.get_path().vertices)))
    for one in axes.collections:
        vertices += [(one.get_transform(), path.vertices) for path in one.get_paths()]
        vertices.append((one.get_offset_transform(), one.get_offsets()))
    # Ticks with names are written by a function.
    named = [isinstance(axis.get_major_formatter(), FuncFormatter) for axis in (axes.xaxis, axes.yaxis)]
    for transform, points in vertices:
        counts = np.greater(transform.contains_branch_seperately(axes.transData), named)
        points = np.ma.filled(np.ma.asarray(points, float), np.nan)[:, counts]
        if counts.any():
            yield points[np.isfinite(points).all(axis=1)]
    values = [one.datavalues for one in bars]
    values += [one.get_array() for one in axes.collections]
    for one in values:
        if one is not None:
            yield np.ma.masked_invalid(one).compressed()[:, None]
