"""What the shapes of `plots` share: options, places of their rows, marks, panels and the one legend."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import cycle
from textwrap import fill
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from em_companion.book.theme import PALETTE, REPORTED_COLOUR
from em_companion.core.errors import CompanionError

MARKERS, DASHES = "osD^vP<>X*", (":", "--", (0, (1, 4)), "-.")
MEASURE_COLOURS = {"em": PALETTE[3], "coherent": PALETTE[0]}  # of a value drawn without hue
_DRAWN: WeakKeyDictionary[Figure, list[pd.DataFrame]] = WeakKeyDictionary()


@dataclass(kw_only=True)
class Options:
    """What every shape takes, besides title, x_label, y_label, x_limits, y_limits, x_scale and the like of Axes.set.

    An order may map values to the labels shown for them; rows outside it are left out. colours and styles are by hue
    value or label. In a mapping from legend labels, a label that begins with "_" stays out of the legend.
    """

    hue: str | None = None  # column; its groups stand side by side
    low: str | None = None  # columns of the interval, where not <value>_low and <value>_high
    high: str | None = None
    order: Sequence | Mapping | None = None
    hue_order: Sequence | Mapping | None = None
    colours: Mapping = field(default_factory=dict)
    styles: Mapping = field(default_factory=dict)
    label: str = "_"  # in the legend, of a series without hue
    colour: Any = None  # of a series without hue
    reported: Mapping[str, str] = field(default_factory=dict)  # legend label to column of reported values: diamonds
    cloud: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # legend label to table of single runs or controls
    notes: str | None = None  # column of texts beside the marks
    axes: Axes | None = None  # draw here instead of in a new figure
    size: tuple[float, float] | None = None  # of a new figure, inches
    x_ticks: Sequence | Mapping = ()  # a mapping goes from positions to labels
    y_ticks: Sequence | Mapping = ()
    x_lines: Mapping[str, float] = field(default_factory=dict)  # legend label to position of a reference line
    y_lines: Mapping[str, float] = field(default_factory=dict)
    x_bands: Sequence[tuple[float, float]] = ()  # ranges shaded grey
    y_bands: Sequence[tuple[float, float]] = ()
    note: str = ""  # text inside the axes, at the bottom


class Shape:
    """A shape being drawn: its checked rows, groups and axes, and the places of rows on a category axis."""

    def __init__(self, data, value, options, *columns, category=None, horizontal=False, step=0.28, stacked=False):
        known = {one.name for one in fields(Options)}
        self.options = opts = Options(**{name: one for name, one in options.items() if name in known})
        self.settings = {name: one for name, one in options.items() if name not in known}
        self.value, self.category, self.horizontal = value, category, horizontal
        self.bounds = [] if stacked else bounds_of(data, value, opts.low, opts.high)
        self.wanted = [category, opts.hue, *columns, value, *self.bounds, *opts.reported.values(), opts.notes]
        self.table = checked(data, self.wanted).reset_index(drop=True)
        self.names = labels_of(self.table, category, opts.order) if category else {}
        self.groups = labels_of(self.table, opts.hue, opts.hue_order) if opts.hue else {None: opts.label}
        for name, kept in ((category, self.names), (opts.hue, self.groups)):
            self.table = self.table[self.table[name].isin(list(kept))] if name else self.table
        checked(self.table, [])  # an order may have left nothing
        self._place(step, stacked)
        height = np.clip(1.2 + 0.36 * len(self.names) * (0.6 + 0.4 * self.crowd), 2.2, 9) if horizontal else 4.0
        self.axes = opts.axes or plt.subplots(figsize=opts.size or (7.2, height))[1]

    def _place(self, step: float, stacked: bool) -> None:
        """Set places: groups that are there side by side around their category, rows of one slot a little apart."""
        table, hue = self.table, self.options.hue
        category = table[self.category] if self.category else pd.Series(0, index=table.index)
        group = table[hue].map(list(self.groups).index) if hue else pd.Series(0, index=table.index)
        rank = group.groupby(category).rank("dense")
        count = rank.groupby(category).transform("max")
        self.crowd = 1.0 if stacked else count.max()
        self.step = min(step, 0.8 / self.crowd)
        slot = category.map({name: place for place, name in enumerate(self.names or [0])}).astype(float)
        slot += 0.0 if stacked else self.step * (rank - (count + 1) / 2)
        self.slots = dict(zip(zip(category, group, strict=True), slot, strict=True))
        twins = slot.groupby(slot)
        spread = self.step * (twins.cumcount() - (twins.transform("size") - 1) / 2)
        self.places = slot if stacked else slot + 0.35 * spread

    def look(self, option: str, group, default):
        """The look that a mapping among the options gives to a group, by its value or by its label."""
        chosen = getattr(self.options, option)
        return chosen.get(group, chosen.get(self.groups[group], default))

    def series(self) -> Iterator[tuple[pd.DataFrame, dict[str, Any], str, Any]]:
        """Yield the rows of each group, its colour and legend label as one style, its marker and its line style."""
        hue, single = self.options.hue, self.options.colour or MEASURE_COLOURS.get(self.value, PALETTE[0])
        for index, (group, label) in enumerate(self.groups.items()):
            colour = self.look("colours", group, PALETTE[index % len(PALETTE)] if hue else single)
            rows = self.table[self.table[hue] == group] if hue else self.table
            yield rows, {"color": colour, "label": label}, MARKERS[index % 10], self.look("styles", group, "-")

    def mark(self, places, values, marker: str, **style) -> None:
        """Draw markers alone."""
        across = (values, places) if self.horizontal else (places, values)
        self.axes.plot(*across, marker=marker, **{"linestyle": "", "zorder": 3, "markersize": 6} | style)

    def interval(self, places, rows: pd.DataFrame, bounds: Sequence[str], **style) -> None:
        """Draw a bar between the two columns of bounds, if any, where both are known."""
        kept = rows[list(bounds)].notna().all(axis=1) if bounds else []
        draw = self.axes.hlines if self.horizontal else self.axes.vlines
        if any(kept):
            draw(places[kept], rows[bounds[0]][kept], rows[bounds[1]][kept], **style)

    def write(self, places, values, texts, inside: bool = False, **style) -> None:
        """Write texts just beyond values, or on them."""
        away = (0, 0) if inside else (6, 0) if self.horizontal else (0, 3)
        style |= {"va": "center" if inside or self.horizontal else "bottom", "fontsize": 9}
        style |= {"ha": "left" if self.horizontal and not inside else "center", "textcoords": "offset points"}
        for place, value, text in zip(places, values, texts.astype(str), strict=True):
            self.axes.annotate(text, (value, place) if self.horizontal else (place, value), away, **style)

    def extras(self, side: float, colour: Any = None) -> None:
        """Draw the clouds `side` steps beside their slots (all in `colour`, where given) and the reported values."""
        colours = {group: style["color"] for group, (_, style, *_) in zip(self.groups, self.series(), strict=True)}
        middle, hue = list(self.names).index, self.options.hue
        for name, runs in self.options.cloud.items():
            checked(runs, [self.category, self.value])
            runs = runs[runs[self.category].isin(list(self.names))]
            scatter = 0.618 * runs.groupby(self.category).cumcount() % 1 - 0.5
            for group, part in runs.groupby(hue) if hue in runs else [(None, runs)]:
                rank = list(self.groups).index(group) if group in self.groups else 0
                slots = [self.slots.get((one, rank), middle(one)) for one in part[self.category]]
                places = pd.Series(slots, index=part.index) + self.step * (side + 0.3 * scatter[part.index])
                own = {"color": colour or (colours.get(group) if hue in runs else "0.5"), "alpha": 0.6}
                self.interval(places, part, bounds_of(part, self.value), linewidth=0.8, **own)
                self.mark(places, part[self.value], "o", label=name, markeredgewidth=0, markersize=3.5, **own)
        for (name, column), marker in zip(self.options.reported.items(), "D>s", strict=False):
            look = {"color": REPORTED_COLOUR, "markerfacecolor": "white" if colour else "none", "markersize": 6.5}
            self.mark(self.places, self.table[column], marker, label=name, markeredgewidth=1.5, zorder=4, **look)

    def category_ticks(self) -> None:
        """Name the categories on their axis, first at the top or left, and rule the grid across."""
        count, names = len(self.names), list(self.names.values())
        if self.horizontal:
            self.axes.set_yticks(range(count), [wrapped(name, 30) for name in names])
            self.axes.set_ylim(count - 0.5, -0.5)
            self.axes.grid(visible=True, axis="x")
            self.axes.grid(visible=False, axis="y")
            return
        name_ticks(self.axes, range(count), names)
        self.axes.set_xlim(-0.6, count - 0.4)

    def finish(self) -> tuple[Figure, pd.DataFrame]:
        """Apply the options, redraw the legend, and return the figure with all that was drawn on it."""
        opts, axes = self.options, self.axes
        for ticks, set_ticks in ((opts.x_ticks, axes.set_xticks), (opts.y_ticks, axes.set_yticks)):
            if isinstance(ticks, Mapping) and ticks is opts.x_ticks:
                name_ticks(axes, ticks, ticks.values())
            elif len(ticks):
                set_ticks(list(ticks), list(ticks.values()) if isinstance(ticks, Mapping) else None)
        for draw, places in ((axes.axvline, opts.x_lines), (axes.axhline, opts.y_lines)):
            for (label, at), dash in zip(places.items(), cycle(DASHES), strict=False):
                look = {"linestyle": "-", "linewidth": 0.9} if at == 0 else {"linestyle": dash, "linewidth": 1.4}
                draw(at, label=label, color=REPORTED_COLOUR, zorder=1, **look)
        for draw, ranges in ((axes.axvspan, opts.x_bands), (axes.axhspan, opts.y_bands)):
            for start, stop in ranges:
                draw(start, stop, color="0.93", linewidth=0, zorder=0)
        clouds = [runs.filter([*self.wanted, "run"]).assign(cloud=name) for name, runs in opts.cloud.items()]
        return finish(axes, [self.table, *clouds], {"note": opts.note} | self.settings)


def finish(axes: Axes, tables: Iterable[pd.DataFrame], settings: dict[str, Any]) -> tuple[Figure, pd.DataFrame]:
    """Set title, labels and limits of axes, redraw the legend, and return the figure with all that was drawn on it."""
    note, title = settings.pop("note", ""), settings.pop("title", None)
    axes.set(**{name.replace("limits", "lim").replace("_", ""): one for name, one in settings.items()})
    if title is not None:
        axes.set_title(wrapped(title, int(11 * width_of(axes))))
    if note:
        axes.text(0.5, 0.03, note, transform=axes.transAxes, ha="center", va="bottom", color="0.3", fontsize=9.5)
    legend(axes.figure)
    drawn = _DRAWN.setdefault(axes.figure, [])
    drawn.extend(tables)
    return axes.figure, pd.concat(drawn, ignore_index=True) if drawn else pd.DataFrame()


def legend(figure: Figure, columns: int | None = None) -> None:
    """Draw the one legend of a figure above its panels, of all labels in them; call it again after adding some."""
    entries: dict[str, Any] = {}
    for handle, label in (pair for one in figure.axes for pair in zip(*one.get_legend_handles_labels(), strict=True)):
        entries.setdefault(label, handle)
    entries = dict(sorted(entries.items(), key=lambda entry: not isinstance(entry[1], BarContainer)))
    for old in list(figure.legends):
        old.remove()
    if entries:
        most = max(1, min(4, int(12.5 * figure.get_figwidth() / (max(map(len, entries)) + 6))))
        columns = columns or -(-len(entries) // -(-len(entries) // most))
        figure.legend(list(entries.values()), list(entries), loc="outside upper center", ncols=columns, fontsize=10)


def panels(jobs: list[tuple], options: dict[str, Any], by: str, height: float) -> tuple[Figure, pd.DataFrame]:
    """Draw shape(rows, *columns) in a panel of its own for every (key, settings, shape, rows, columns) of jobs."""
    wrap, each, last = min(options.pop("wrap", 3), len(jobs)), options.pop("each", {}), {}
    count, share, size = -(-len(jobs) // wrap), options.pop("share"), options.pop("size", None)
    look = {"sharex": share[0], "sharey": share[1], "squeeze": False}
    look |= {"height_ratios" if wrap == 1 else "width_ratios": options.pop("ratios", None)}
    figure, grid = plt.subplots(count, wrap, figsize=size or (7.2, height * count + 0.9), **look)
    for name in ("x_limits", "y_limits", "x_label", "y_label"):  # common ones are set once all panels are drawn
        last |= {name: options.pop(name)} if name in options else {}
    for axes, (key, settings, shape, rows, columns) in zip(grid.flat, jobs, strict=False):
        own, before = options | settings | each.get(key, {}), len(_DRAWN.setdefault(figure, []))
        if rows.empty:
            finish(axes, [], {name: own[name] for name in ("title", "note") if name in own})
        else:
            shape(rows, *columns, axes=axes, **own)
        _DRAWN[figure][before:] = [_keyed(one, by, key) for one in _DRAWN[figure][before:]]
    _outside(figure, grid, last, [each.get(key, {}) | settings for key, settings, *_ in jobs])
    for spare, above in zip(grid.flat[len(jobs) :], grid.flat[len(jobs) - wrap :], strict=False):
        spare.set_axis_off()
        above.tick_params(labelbottom=True)
    return figure, pd.concat(_DRAWN[figure], ignore_index=True)


def _outside(figure: Figure, grid: np.ndarray, common: dict[str, Any], own: list[dict[str, Any]]) -> None:
    """Set the limits panels have in common, and name a common axis once: on one panel of a line, or on the figure."""
    for name, limits in common.items():
        for axes, settings in zip(grid.flat, own, strict=False) if "limits" in name else ():
            axes.set(**{name.replace("_limits", "lim"): settings.get(name, limits)})
    size = plt.rcParams["axes.labelsize"]
    if common.get("x_label"):
        name = figure.supxlabel if grid.shape[1] > 1 else grid[-1, 0].set_xlabel
        name(common["x_label"], fontsize=size)
    if common.get("y_label"):
        name = figure.supylabel if grid.shape[0] > 1 else grid[0, 0].set_ylabel
        name(common["y_label"], fontsize=size)


def _keyed(drawn: pd.DataFrame, by: str, key) -> pd.DataFrame:
    ends = {f"{key}{end}": f"value{end}" for end in ("", "_low", "_high")} if by == "measure" else {}
    drawn = drawn.drop(columns=by, errors="ignore").rename(columns=ends)
    drawn.insert(0, by, key)
    return drawn


def checked(data: pd.DataFrame, columns: Sequence[str | None]) -> pd.DataFrame:
    """The columns of data that are named, each once; CompanionError where one is missing or there are no rows."""
    wanted = list(dict.fromkeys(name for name in columns if name))
    missing = [name for name in wanted if name not in data]
    if missing:
        raise CompanionError(f"The table to plot has no column '{missing[0]}' (it has {', '.join(map(str, data))}).")
    if data.empty:
        raise CompanionError("The table to plot has no rows.")
    return data[wanted]


def bounds_of(data: pd.DataFrame, value: str, low: str | None = None, high: str | None = None) -> list[str]:
    """The two columns of the interval around value: those named, else `<value>_low`, `<value>_high`, else none."""
    names = [low or f"{value}_low", high or f"{value}_high"]
    return names if low or high or set(names) <= set(data) else []


def labels_of(data: pd.DataFrame, column: str, order: Sequence | Mapping | None) -> dict[Any, str]:
    """The values of a column in order, each with the label shown for it."""
    if order is None:
        order = data[column].dropna().unique()
        order = sorted(order) if pd.api.types.is_numeric_dtype(data[column]) else order
    if isinstance(order, Mapping):
        return {one: str(label) for one, label in order.items()}
    return {one: f"{one:g}" if isinstance(one, float) else str(one) for one in order}


def name_ticks(axes: Axes, places: Iterable, names: Iterable[str]) -> None:
    """Name places along x: level in lines of words where these fit, turned where not."""
    names, places = [str(name) for name in names], list(places)
    room = int(11 * width_of(axes) / len(places))
    turned = max(len(word) for name in names for word in [*name.split(), ""]) > room
    style = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if turned else {"rotation": 0}
    axes.set_xticks(places, [wrapped(name, 24 if turned else room) for name in names], **style)


def wrapped(text: str, width: int) -> str:
    """The text in lines of at most about width characters, its own line breaks kept."""
    return "\n".join(fill(line, max(width, 4)) for line in str(text).split("\n"))


def width_of(axes: Axes) -> float:
    """Width of axes in inches, before the layout is settled."""
    return axes.get_position().width * axes.figure.get_figwidth()
