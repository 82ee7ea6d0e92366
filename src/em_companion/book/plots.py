"""Four shapes for every figure of the book, dots, lines, heat map and bars, and small multiples of them.

A shape takes a tidy table and names of its columns and returns (figure, data): data holds all rows drawn on the figure.
Every shape takes the options of `drawing.Options`, and raises CompanionError for an empty table or an absent column.
"""

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D

from em_companion.book import drawing
from em_companion.book.drawing import Drawn, Labels, Shape, checked, labels_of, name_ticks


def dots(
    data: pd.DataFrame, category: str, value: str, *, before: str | None = None, horizontal: bool = True, **options
) -> Drawn:
    """Draw a dot with its interval per row.

    Columns: category, value (any unit; name it in the axis label), before (where a line to the dot of a horizontal row
    starts, as a hollow one), and as options hue, reported, notes. A cloud needs the hue column too.
    """
    shape = Shape(data, value, options, before, category=category, horizontal=horizontal)
    for rows, style, marker, _ in shape.series():
        shape.interval(shape.places, rows, shape.bounds, color=style["color"], linewidth=1.7)
        if before:
            shape.axes.hlines(shape.places[rows.index], rows[before], rows[value], color=style["color"], linewidth=2.4)
            shape.mark(shape.places[rows.index], rows[before], marker, color=style["color"], markerfacecolor="white")
        shape.mark(shape.places[rows.index], rows[value], marker, **style)
        shape.write(rows, shape.options.notes)
    shape.extras(0.45)
    shape.category_ticks()
    return shape.finish()


def bars(
    data: pd.DataFrame, category: str, value: str, *, stacked: bool = False, horizontal: bool = False,
    totals: str | None = None, **options,
) -> Drawn:  # fmt: skip
    """Draw a bar per row: hue groups side by side with intervals, or stacked without.

    Columns: category, value (any unit), totals (texts beyond the stacks), and as options hue, reported, notes (texts
    beyond the bars, or inside stacked ones that have room). A cloud is drawn in black, a bar of 0 as a stroke.
    """
    shape = Shape(data, value, options, totals, category=category, horizontal=horizontal, step=0.8, stacked=stacked)
    ends, notes = pd.Series(0.0, index=list(shape.names)), shape.options.notes
    room = 0.05 * shape.table.groupby(category)[value].sum().max()
    draw, start = (shape.axes.barh, "left") if horizontal else (shape.axes.bar, "bottom")
    rule, flat = shape.axes.vlines if horizontal else shape.axes.hlines, {"linewidth": 3, "clip_on": False, "zorder": 3}
    for rows, style, *_ in shape.series():
        look = {start: rows[category].map(ends) if stacked else 0, "edgecolor": "white", "linewidth": 0.6}
        drawn = draw(shape.places[rows.index], rows[value], 0.9 * shape.step, **look, **style)
        none = shape.places[rows.index[(rows[value] == 0) & (not stacked)]]
        rule(rows[value][none.index], none - 0.45 * shape.step, none + 0.45 * shape.step, color=style["color"], **flat)
        shape.interval(shape.places, rows, shape.bounds, color="0.1", linewidth=1.2)
        if stacked and notes:
            halo = {"path_effects": [withStroke(linewidth=2, foreground="white")], "fontsize": 9}
            texts = rows[notes].where(rows[value] > room, "")
            shape.axes.bar_label(drawn, texts, label_type="center", **halo)
        else:
            shape.write(rows, notes)
        ends = ends.add(rows.groupby(category)[value].sum(), fill_value=0)
    last = shape.table.drop_duplicates(category)
    shape.write(last, totals, last[category].map(ends))
    shape.extras(0.0, "0.1")
    shape.category_ticks()
    return shape.finish()


def lines(
    data: pd.DataFrame, x: str, value: str, *, unit: str | None = None, interval: str = "band", markers: bool = False,
    dodge: float = 0.0, **options,
) -> Drawn:  # fmt: skip
    """Draw a value over a numeric x, one line per hue group, or one thin line per unit within it.

    Columns: x, value (any unit), unit; hue as option. interval: "band", or "bars" with markers, where the value is
    known. dodge: distance of groups in x. styles: "" for points alone, "steps" for a histogram. Cloud: grey lines, one
    per value of a column "run" if it has one.
    """
    shape = Shape(data, value, options, x, unit)
    axes = shape.axes
    if pd.api.types.is_integer_dtype(shape.table[x]):
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    for index, (rows, style, marker, dashes) in enumerate(shape.series()):
        style |= {"marker": marker if markers or interval == "bars" or not dashes else ""}
        style |= {"linewidth": 1.2 if unit else 1.8, "alpha": 0.7 if unit else None, "markersize": 5}
        style |= {"drawstyle": "steps-post"} if dashes == "steps" else {"linestyle": dashes}
        # A transform dodges, so that the numbers drawn stay those of the table.
        move = Affine2D().translate(dodge * (index - (len(shape.groups) - 1) / 2), 0) + axes.transData
        rows = rows.sort_values(x)
        for _, run in rows.groupby(unit) if unit else [(None, rows)]:
            axes.plot(run[x], run[value], transform=move, **style)
            ends = run[shape.bounds].astype(float).where(run[value].notna())
            if shape.bounds and interval == "band":
                look = {"color": style["color"], "alpha": 0.18, "linewidth": 0, "transform": move}
                axes.fill_between(run[x], *ends.to_numpy().T, **look)
            else:
                shape.interval(run[x], ends, shape.bounds, color=style["color"], linewidth=1.3, transform=move)
    for name, runs in shape.options.cloud.items():
        checked(runs, [x, value])
        for _, run in runs.groupby("run") if "run" in runs else [(None, runs)]:
            axes.plot(run[x], run[value], color="0.78", linewidth=1.1, zorder=1, label=name)
    return shape.finish()


def heat_map(
    data: pd.DataFrame, row: str = "", column: str = "", value: str = "", *, column_order: Labels = None,
    limits: tuple = (None, None), colour_map: str = "Blues", numbers: str | None = ".0f", upwards: bool = False,
    frame: Mapping[str, tuple] | None = None, hushed: tuple[str, float] | None = None, colour_bar: str | None = None,
    **options,
) -> Drawn:  # fmt: skip
    """Draw a cell per pair of row and column, with its number; where no columns are named, data is the matrix itself.

    limits: values at the ends of the colours. colour_map: pale at its low end, as the dark theme swaps light and dark.
    numbers: format or None. frame: legend label to the (row, column) framed.
    hushed: (column, level), below which a cell has no number. upwards: first row lowest. colour_bar: label with unit.
    """
    if not row:
        row, column, value = "row", "column", "value"
        data = data.rename_axis(index=row, columns=column).melt(ignore_index=False, value_name=value).reset_index()
    layers = [hushed[0]] if hushed else []
    shape = Shape(data, value, options, column, *layers, category=row, horizontal=True)
    axes, columns = shape.axes, labels_of(shape.table, column, column_order)
    cells = shape.table.pivot(index=row, columns=column).reindex(list(shape.names)).astype(float)
    cells = {name: cells[name].reindex(columns=list(columns)) for name in (value, *layers)}
    look = {"cmap": colour_map, "cbar": bool(colour_bar), "cbar_kws": {"label": colour_bar, "pad": 0.02}}
    look |= {"annot": bool(numbers), "fmt": numbers or "", "annot_kws": {"fontsize": 9}}
    sns.heatmap(cells[value], ax=axes, vmin=limits[0], vmax=limits[1], **look)
    for number in axes.texts if hushed else ():
        across, down = map(int, number.get_position())
        number.set_visible(cells[hushed[0]].iloc[down, across] >= hushed[1])
    down, across = (np.arange(len(one)) + 0.5 for one in (shape.names, columns))
    for label, (framed, beside) in (frame or {}).items():
        corner = (list(columns).index(beside), list(shape.names).index(framed))
        axes.add_patch(Rectangle(corner, 1, 1, label=label, fill=False, edgecolor="0.05", linewidth=2.4, zorder=4))
    name_ticks(axes, across, columns.values())
    axes.set_yticks(down, shape.names.values(), rotation=0)
    axes.tick_params(length=0)
    axes.set(xlabel="", ylabel="", ylim=(0, len(down)) if upwards else (len(down), 0))
    return shape.finish()


def facets(shape: Callable, data: pd.DataFrame, by: str, *columns: str, titles: Labels = None, **options) -> Drawn:
    """Draw a shape once per value of the column `by`, with shared axes; columns: those that the shape takes.

    titles: order of the panels, or dict to their titles; one without rows shows its note alone. Options besides those
    of the shape: wrap (panels in a line), share (x, y), ratios, size, and each (options of a panel, by value of `by`).
    """
    checked(data, [by, *columns, options.get("hue")])
    if shape in (dots, bars):
        options = {"order": labels_of(data, columns[0], None)} | options
    jobs = {
        key: ({"title": title}, data[data[by] == key], columns) for key, title in labels_of(data, by, titles).items()
    }
    return _multiples(shape, jobs, by, data, {"share": (True, True)} | options)


def measures(shape: Callable, data: pd.DataFrame, x: str, values: Mapping[str, str], **options) -> Drawn:
    """Draw a shape once per column of values, a dict to their labels with units; x: category or x column of the shape.

    Options as in `facets`; each is by column of values. The data returned is long, with the columns measure, value,
    value_low and value_high.
    """
    checked(data, [x, *values, options.get("hue")])
    across = options.get("horizontal", shape is dots)
    place = "x_label" if across else "y_label" if options.get("wrap") == 1 else "title"
    jobs = {name: ({place: label}, data, (x, name)) for name, label in values.items()}
    return _multiples(shape, jobs, "measure", data, {"share": (not across, across)} | options)


def _multiples(shape: Callable, jobs: Mapping[Any, tuple], by: str, data: pd.DataFrame, options: dict) -> Drawn:
    """Draw the shape in a panel of its own for each job: its own settings, rows and columns."""
    (_, _, columns), hue = next(iter(jobs.values())), options.get("hue")
    if hue:
        options = {"hue_order": labels_of(data, hue, None)} | options
    wrap, each, share = min(options.pop("wrap", 3), len(jobs)), options.pop("each", {}), options.pop("share")
    count = data[columns[0]].nunique() * (1 + 0.35 * (data[hue].nunique() - 1 if hue else 0))
    flat = options.get("horizontal", shape is dots)
    height = np.clip(0.9 + 0.3 * count, 1.8, 6.5) if flat else 2.7
    look = {"sharex": share[0], "sharey": share[1], "squeeze": False}
    look |= {"height_ratios" if wrap == 1 else "width_ratios": options.pop("ratios", None)}
    above = -(-len(jobs) // wrap)
    figure, grid = plt.subplots(above, wrap, figsize=options.pop("size", (7.2, height * above + 0.9)), **look)
    last = {name: options.pop(name) for name in ("x_limits", "y_limits") if name in options}
    size, drawn = plt.rcParams["axes.labelsize"], drawing.tables_of(figure)
    for name, write in {"x_label": figure.supxlabel, "y_label": figure.supylabel}.items():
        write(options.pop(name, ""), fontsize=size)
    for axes, (key, (settings, rows, columns)) in zip(grid.flat, jobs.items(), strict=False):
        own, before = options | settings | each.get(key, {}), len(drawn)
        if rows.empty:
            drawing.finish(axes, [], own.get("note", ""), own.get("title"))
        else:
            shape(rows, *columns, axes=axes, **own)
        drawn[before:] = [_keyed(one, by, key) for one in drawn[before:]]
    for axes, key in zip(grid.flat, jobs, strict=False):  # common limits, once all that shares an axis is drawn
        axes.set(**{name.replace("_limits", "lim"): each.get(key, {}).get(name, one) for name, one in last.items()})
    for spare, over in zip(grid.flat[len(jobs) :], grid.flat[len(jobs) - wrap :], strict=False):
        spare.set_axis_off()
        over.tick_params(labelbottom=True)
    return figure, pd.concat(drawn, ignore_index=True)


def _keyed(drawn: pd.DataFrame, by: str, key) -> pd.DataFrame:
    ends = {f"{key}{end}": f"value{end}" for end in ("", "_low", "_high")} if by == "measure" else {}
    drawn = drawn.drop(columns=by, errors="ignore").rename(columns=ends)
    drawn.insert(0, by, key)
    return drawn
