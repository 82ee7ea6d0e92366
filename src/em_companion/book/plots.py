"""Six shapes for every figure of the book: dots, lines, heat map, bars, paired change, and small multiples of them.

A shape takes a tidy table and names of its columns and returns (figure, data): data holds all rows drawn on the figure.
Intervals stand in `<value>_low` and `<value>_high`, or in the columns low= and high=; where NaN, no bar is drawn.
Every shape takes the options of `drawing.Options`, and raises CompanionError for an empty table or an absent column.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from em_companion.book.drawing import Shape, bounds_of, checked, labels_of, legend, name_ticks, panels
from em_companion.book.theme import PALETTE
from em_companion.core.errors import CompanionError

__all__ = ["bars", "dots", "facets", "heat_map", "legend", "lines", "measures", "paired"]
Drawn = tuple[Figure, pd.DataFrame]
Labels = Sequence | Mapping | None


def dots(data: pd.DataFrame, category: str, value: str, *, horizontal: bool = True, **options) -> Drawn:
    """Draw a dot with its interval per row.

    Columns: category, value (any unit; name it in the axis label), and as options hue, reported, notes. A cloud is
    drawn as small dots with thin intervals, in its group's colour if it has the hue column. Raises CompanionError.
    """
    shape = Shape(data, value, options, category=category, horizontal=horizontal)
    for rows, style, marker, _ in shape.series():
        places = shape.places[rows.index]
        shape.interval(places, rows, shape.bounds, color=style["color"], linewidth=1.7)
        shape.mark(places, rows[value], marker, **style)
        _beyond(shape, rows)
    shape.extras(0.45)
    shape.category_ticks()
    return shape.finish()


def bars(
    data: pd.DataFrame, category: str, value: str, *, stacked: bool = False, horizontal: bool = False,
    totals: str | None = None, **options,
) -> Drawn:  # fmt: skip
    """Draw a bar per row: hue groups side by side with intervals, or stacked without.

    Columns: category, value (any unit), totals (texts beyond the stacks), and as options hue, reported, notes (texts
    beyond the bars, or inside stacked ones that have room). A cloud is drawn in black. Raises CompanionError.
    """
    shape = Shape(data, value, options, totals, category=category, horizontal=horizontal, step=0.8, stacked=stacked)
    ends = pd.Series(0.0, index=list(shape.names))
    draw, start = (shape.axes.barh, "left") if horizontal else (shape.axes.bar, "bottom")
    for rows, style, *_ in shape.series():
        places, starts = shape.places[rows.index], rows[category].map(ends) if stacked else 0.0 * rows[value]
        draw(places, rows[value], 0.9 * shape.step, **{start: starts}, edgecolor="white", linewidth=0.6, **style)
        shape.interval(places, rows, shape.bounds, color="0.1", linewidth=1.2)
        _inside(shape, rows, starts, style["color"]) if stacked else _beyond(shape, rows)
        ends = ends.add(rows.groupby(category)[value].sum(), fill_value=0)
    if totals:
        last = shape.table.drop_duplicates(category)
        shape.write(shape.places[last.index], last[category].map(ends), last[totals])
    shape.extras(0.0, "0.1")
    shape.category_ticks()
    return shape.finish()


def paired(
    data: pd.DataFrame, category: str, before: str, after: str, *, names: Sequence[str] = ("before", "after"), **options
) -> Drawn:
    """Draw the change per row from before (hollow) to after (filled).

    Columns: category, before and after (one unit, each with its own `_low` and `_high` or none), and as options hue.
    names: legend labels of the two marks. Raises CompanionError.
    """
    shape = Shape(data, after, options, before, *bounds_of(data, before), category=category, horizontal=True)
    for rows, style, marker, _ in shape.series():
        places, look = shape.places[rows.index], {"color": style["color"], "linewidth": 1, "alpha": 0.7}
        shape.axes.hlines(places, rows[before], rows[after], color=style["color"], linewidth=2.4)
        shape.interval(places - 0.22 * shape.step, rows, bounds_of(data, before), **look)
        shape.interval(places + 0.22 * shape.step, rows, shape.bounds, **look)
        shape.mark(places, rows[before], marker, color=style["color"], markerfacecolor="white", markersize=6.5)
        shape.mark(places, rows[after], marker, markersize=6.5, **style)
    for name, face in zip(names, ("white", "0.35"), strict=True):
        shape.mark([], [], "o", color="0.35", markerfacecolor=face, label=name)
    shape.category_ticks()
    return shape.finish()


def lines(
    data: pd.DataFrame, x: str, value: str, *, unit: str | None = None, interval: str = "band", markers: bool = False,
    dodge: float = 0.0, **options,
) -> Drawn:  # fmt: skip
    """Draw a value over a numeric x, one line per hue group, or one thin line per unit within it.

    Columns: x, value (any unit), unit, and as options hue. interval: "band", or "bars" with markers. dodge: distance
    between the groups in x. styles: "" for points alone, "steps" for a histogram. A cloud is drawn as grey lines, one
    per unit. Raises CompanionError.
    """
    shape = Shape(data, value, options, x, unit)
    if not pd.api.types.is_numeric_dtype(shape.table[x]):
        raise CompanionError(f"A line needs numbers along x, and the column '{x}' holds other things.")
    if pd.api.types.is_integer_dtype(shape.table[x]):
        shape.axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for index, (rows, style, marker, dashes) in enumerate(shape.series()):
        style |= {"marker": marker if markers or interval == "bars" or not dashes else "", "markersize": 5}
        style |= {"linewidth": 1.2 if unit else 1.8, "alpha": 0.7 if unit else None}
        style |= {"markersize": 4.5, "alpha": 0.75} if not dashes else {}
        style |= {"drawstyle": "steps-post"} if dashes == "steps" else {"linestyle": dashes}
        for _, run in rows.groupby(unit) if unit else [(None, rows)]:
            run = run.sort_values(x)
            at = run[x] + dodge * (index - (len(shape.groups) - 1) / 2)
            shape.axes.plot(at, run[value], **style)
            _spread(shape, at, run, interval, style["color"])
    for name, runs in shape.options.cloud.items():
        for _, run in runs.groupby(unit) if unit in runs else [(None, runs)]:
            shape.axes.plot(run[x], run[value], color="0.78", linewidth=1.1, zorder=1, label=name)
    return shape.finish()


def heat_map(
    data: pd.DataFrame, row: str = "", column: str = "", value: str = "", *, column_order: Labels = None,
    limits: tuple = (None, None), colour_map: str = "cividis", numbers: str | None = ".0f", upwards: bool = False,
    frame: Mapping[str, tuple] | None = None, contours: Mapping[str, tuple[str, float]] | None = None,
    colour_bar: str | None = None, **options,
) -> Drawn:  # fmt: skip
    """Draw a cell per pair of row and column, with its number; where no columns are named, data is the matrix itself.

    limits: values at the ends of the colours. numbers: format, None for none. frame: legend label to the (row, column)
    outlined. contours: legend label to (column of values, level). upwards: first row lowest. colour_bar: label with
    unit. Cell (i, j) spans i to i + 1. Raises CompanionError.
    """
    if not row:
        row, column, value = "row", "column", "value"
        data = data.rename_axis(index=row, columns=column).melt(ignore_index=False, value_name=value).reset_index()
    layers = [name for name, _ in (contours or {}).values()]
    shape = Shape(data, value, options, column, *layers, category=row, horizontal=True)
    columns = labels_of(shape.table, column, column_order)
    cells = _cells(shape, column, value, columns)
    bar = {"cbar": bool(colour_bar), "cbar_kws": {"label": colour_bar, "pad": 0.02}}
    sns.heatmap(cells, ax=shape.axes, vmin=limits[0], vmax=limits[1], cmap=colour_map, **bar)
    _write_numbers(shape, cells, numbers)
    for (label, (name, level)), dash in zip((contours or {}).items(), cycle(["-", "--", ":"]), strict=False):
        _contour(shape, _cells(shape, column, name, columns).to_numpy(), level, label, dash)
    for label, (at_row, at_column) in (frame or {}).items():
        corner = (list(columns).index(at_column), list(shape.names).index(at_row))
        shape.axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="0.05", linewidth=2.4, label=label))
    _cell_ticks(shape)
    shape.axes.set(xlabel="", ylabel="", ylim=(0, len(cells)) if upwards else (len(cells), 0))
    return shape.finish()


def facets(shape: Callable, data: pd.DataFrame, by: str, *columns: str, titles: Labels = None, **options) -> Drawn:
    """Draw a shape once per value of the column `by`, with shared axes; columns: those that the shape takes.

    titles: order of the panels, or dict to their titles; one without rows shows its note alone. Besides the options of
    the shape: wrap (panels in a line), share (x, y), ratios, size, and each (options of a panel, by value of `by`).
    Raises CompanionError.
    """
    checked(data, [by, *columns, options.get("hue")])
    found = labels_of(data, by, titles)
    if shape in (dots, bars, paired):
        options = {"order": list(data[columns[0]].unique())} | options
    jobs = [(key, {"title": title}, shape, data[data[by] == key], columns) for key, title in found.items()]
    return _multiples(jobs, by, data, {"share": (True, True)} | options)


def measures(shape: Callable, data: pd.DataFrame, x: str, values: Mapping[str, str], **options) -> Drawn:
    """Draw a shape once per column of values, a dict to their labels with units; x: category or x column of the shape.

    Options as in `facets`; each is by column of values. The data returned is long, with the columns measure, value,
    value_low and value_high. Raises CompanionError.
    """
    checked(data, [x, *values, options.get("hue")])
    across = options.get("horizontal", shape in (dots, paired))
    place = "x_label" if across else "y_label" if options.get("wrap") == 1 else "title"
    jobs = [(name, {place: label}, shape, data, (x, name)) for name, label in values.items()]
    return _multiples(jobs, "measure", data, {"share": (not across, across)} | options)


def _multiples(jobs: list[tuple], by: str, data: pd.DataFrame, options: dict[str, Any]) -> Drawn:
    shape, columns, hue, label = jobs[0][2], jobs[0][4], options.get("hue"), options.pop("colour_bar", None)
    options = ({"hue_order": list(data[hue].dropna().unique())} if hue else {}) | options
    if shape is heat_map:
        options = {"limits": (data[columns[-1]].min(), data[columns[-1]].max())} | options
    count = data[columns[0]].nunique() * (1 + 0.35 * (data[hue].nunique() - 1 if hue else 0))
    flat = options.get("horizontal", shape in (dots, paired)) or shape is heat_map
    figure, drawn = panels(jobs, options, by, float(np.clip(0.9 + 0.3 * count, 1.8, 6.5)) if flat else 2.7)
    if label:
        figure.colorbar(figure.axes[0].collections[0], ax=figure.axes, label=label)
    return figure, drawn


def _beyond(shape: Shape, rows: pd.DataFrame) -> None:
    if shape.options.notes:
        ends = rows[shape.bounds[1]].fillna(rows[shape.value]) if shape.bounds else rows[shape.value]
        shape.write(shape.places[rows.index], ends, rows[shape.options.notes])


def _inside(shape: Shape, rows: pd.DataFrame, starts: pd.Series, colour: Any) -> None:
    if shape.options.notes:
        room = rows[shape.value] > 0.05 * shape.table.groupby(shape.category)[shape.value].sum().max()
        places, middle = shape.places[rows.index][room], (starts + rows[shape.value] / 2)[room]
        ink = "white" if np.dot(to_rgb(colour), (0.3, 0.6, 0.1)) < 0.5 else "0.1"
        shape.write(places, middle, rows[shape.options.notes][room], inside=True, color=ink)


def _spread(shape: Shape, at: pd.Series, run: pd.DataFrame, interval: str, colour: Any) -> None:
    if shape.bounds and interval == "band":
        low, high = (run[one].astype(float) for one in shape.bounds)
        shape.axes.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
    else:
        shape.interval(at, run, shape.bounds, color=colour, linewidth=1.3)


def _write_numbers(shape: Shape, cells: pd.DataFrame, numbers: str | None) -> None:
    mesh = shape.axes.collections[-1]
    for (row, column), value in np.ndenumerate(cells.to_numpy(float)):
        if numbers and not np.isnan(value):
            face = mesh.to_rgba(value)
            ink = "0.1" if np.dot(face[:3], (0.3, 0.6, 0.1)) > 0.5 else "white"
            halo = [withStroke(linewidth=2.5, foreground=face)]
            style = {"ha": "center", "va": "center", "fontsize": 9, "color": ink, "zorder": 5, "path_effects": halo}
            shape.axes.text(column + 0.5, row + 0.5, format(value, numbers), **style)


def _cell_ticks(shape: Shape) -> None:
    labels = shape.axes.get_xticklabels()
    name_ticks(shape.axes, shape.axes.get_xticks(), [label.get_text() for label in labels])
    plt.setp(shape.axes.get_yticklabels(), rotation=0)
    shape.axes.tick_params(length=0)


def _cells(shape: Shape, column: str, value: str, columns: Mapping) -> pd.DataFrame:
    matrix = shape.table.pivot(index=shape.category, columns=column, values=value)
    return matrix.reindex(index=list(shape.names), columns=list(columns)).rename(index=shape.names, columns=columns)


def _contour(shape: Shape, values: np.ndarray, level: float, label: str, dash: str) -> None:
    if np.nanmin(values) < level < np.nanmax(values):
        at = [np.arange(size) + 0.5 for size in values.shape[::-1]]
        lines = shape.axes.contour(*at, values, levels=[level], colors=[PALETTE[0]], linestyles=dash)
        lines.set(path_effects=[withStroke(linewidth=3, foreground="white")])
    shape.axes.plot([], [], color=PALETTE[0], linestyle=dash, label=label)
