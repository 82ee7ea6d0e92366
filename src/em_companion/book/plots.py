"""Six shapes for every figure of the book: dots, lines, heat map, bars, paired change, and small multiples of them.

A shape takes a tidy table and names of its columns and returns (figure, data): data holds all rows drawn on the figure.
Intervals stand in `<value>_low` and `<value>_high`, or in the columns low= and high=; where NaN, no bar is drawn.
Every shape takes the options of `drawing.Options`, and raises CompanionError for an empty table or an absent column.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from em_companion.book.cells import cell_ticks, cells_of, draw_contours, draw_frames, melted, write_numbers
from em_companion.book.drawing import Shape, bounds_of, checked, labels_of, legend, panels
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

    Columns: x, value (any unit), unit; hue as option. interval: "band", or "bars" with markers. dodge: distance of
    groups in x. styles: "" for points alone, "steps" for a histogram. Cloud: grey lines, one per value of a column
    "run" if it has one. Raises CompanionError.
    """
    shape = Shape(data, value, options, x, unit)
    _number_axis(shape, x)
    for index, (rows, style, marker, dashes) in enumerate(shape.series()):
        style |= {"marker": marker if markers or interval == "bars" or not dashes else ""}
        style |= {"linewidth": 1.2 if unit else 1.8, "alpha": 0.7 if unit else None, "markersize": 5}
        style |= {"drawstyle": "steps-post"} if dashes == "steps" else {"linestyle": dashes}
        shift = dodge * (index - (len(shape.groups) - 1) / 2)
        for _, run in rows.sort_values(x).groupby(unit) if unit else [(None, rows.sort_values(x))]:
            shape.axes.plot(run[x] + shift, run[value], **style)
            _spread(shape, run[x] + shift, run, interval, style["color"])
    for name, runs in shape.options.cloud.items():
        checked(runs, [x, value])
        for _, run in runs.groupby("run") if "run" in runs else [(None, runs)]:
            shape.axes.plot(run[x], run[value], color="0.78", linewidth=1.1, zorder=1, label=name)
    return shape.finish()


def heat_map(
    data: pd.DataFrame, row: str = "", column: str = "", value: str = "", *, column_order: Labels = None,
    limits: tuple = (None, None), colour_map: str = "cividis", numbers: str | None = ".0f", upwards: bool = False,
    frame: Mapping[str, tuple] | None = None, contours: Mapping[str, tuple[str, float]] | None = None,
    colour_bar: str | None = None, **options,
) -> Drawn:  # fmt: skip
    """Draw a cell per pair of row and column, with its number; where no columns are named, data is the matrix itself.

    limits: values at the ends of the colours. numbers: format or None. frame: legend label to the (row, column) framed.
    contours: legend label to (column, level). upwards: first row lowest. colour_bar: label with unit. The first cell
    spans 0 to 1. Raises CompanionError.
    """
    if not row:
        data, row, column, value = melted(data)
    layers = [name for name, _ in (contours or {}).values()]
    shape = Shape(data, value, options, column, *layers, category=row, horizontal=True)
    columns = labels_of(shape.table, column, column_order)
    cells = cells_of(shape, column, value, columns)
    look = {"cmap": colour_map, "cbar": bool(colour_bar), "cbar_kws": {"label": colour_bar, "pad": 0.02}}
    sns.heatmap(cells, ax=shape.axes, vmin=limits[0], vmax=limits[1], **look)
    write_numbers(shape, cells, numbers)
    draw_contours(shape, column, columns, contours or {})
    draw_frames(shape, columns, frame or {})
    cell_ticks(shape, columns, upwards)
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
        options = {"order": labels_of(data, columns[0], None)} | options
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
    options = ({"hue_order": labels_of(data, hue, None)} if hue else {}) | options
    if shape is heat_map:
        options = {"limits": (data[columns[-1]].min(), data[columns[-1]].max())} | options
    count = data[columns[0]].nunique() * (1 + 0.35 * (data[hue].nunique() - 1 if hue else 0))
    flat = options.get("horizontal", shape in (dots, paired)) or shape is heat_map
    figure, drawn = panels(jobs, options, by, float(np.clip(0.9 + 0.3 * count, 1.8, 6.5)) if flat else 2.7)
    if label:
        image = next(axes.collections[0] for axes in figure.axes if axes.collections)
        figure.colorbar(image, ax=figure.axes, label=label)
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


def _number_axis(shape: Shape, x: str) -> None:
    if not pd.api.types.is_numeric_dtype(shape.table[x]):
        raise CompanionError(f"A line needs numbers along x, and the column '{x}' holds other things.")
    if pd.api.types.is_integer_dtype(shape.table[x]):
        shape.axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _spread(shape: Shape, at: pd.Series, run: pd.DataFrame, interval: str, colour: Any) -> None:
    if shape.bounds and interval == "band":
        low, high = (run[one].astype(float) for one in shape.bounds)
        shape.axes.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
    else:
        shape.interval(at, run, shape.bounds, color=colour, linewidth=1.3)
