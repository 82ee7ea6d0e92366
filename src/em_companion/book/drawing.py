"""What the shapes of `plots` share: options, places of their rows, marks, ticks and the one legend."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import cycle
from textwrap import fill
from typing import Any

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
Drawn = tuple[Figure, pd.DataFrame]
Labels = Sequence | Mapping | None


@dataclass(kw_only=True)
class Options:
    """What every shape takes, besides title, x_label, y_limits, y_scale and the like of Axes.set.

    An order may map values to the labels shown for them; rows outside it are left out. colours and styles are by hue
    value. In a mapping from legend labels, a label that begins with "_" stays out of the legend.
    """

    hue: str | None = None  # column; its groups stand side by side
    low: str | None = None  # columns of the interval, where not <value>_low and <value>_high
    high: str | None = None
    order: Labels = None
    hue_order: Labels = None
    colours: Mapping = field(default_factory=dict)
    styles: Mapping = field(default_factory=dict)
    label: str = "_"  # in the legend, of a series without hue
    colour: Any = None  # of a series without hue
    reported: Mapping[str, str] = field(default_factory=dict)  # legend label to column of reported values: diamonds
    cloud: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # legend label to table of single runs or controls
    notes: str | None = None  # column of texts beside the marks
    axes: Axes | None = None  # draw here instead of in a new figure
    size: tuple[float, float] | None = None  # of a new figure, inches
    x_lines: Mapping[str, float] = field(default_factory=dict)  # legend label to position of a reference line
    y_lines: Mapping[str, float] = field(default_factory=dict)
    x_bands: Sequence[tuple[float, float]] = ()  # ranges shaded grey
    y_bands: Sequence[tuple[float, float]] = ()


class Shape:
    """A shape being drawn: its checked rows, groups and axes, and the places of rows on a category axis."""

    def __init__(self, data, value, options, *columns, category=None, horizontal=False, step=0.28, stacked=False):
        known = [one.name for one in fields(Options) if one.name in options]
        self.options = opts = Options(**{name: options.pop(name) for name in known})
        self.settings, self.value, self.category, self.horizontal = options, value, category, horizontal
        self.columns, self.references = (category or columns[0], value), []  # rows of reference lines, to be added
        self.bounds = [] if stacked else bounds_of(data, value, opts.low, opts.high)
        self.wanted = [category, opts.hue, *columns, value, *self.bounds, *opts.reported.values(), opts.notes]
        self.table = checked(data, self.wanted).reset_index(drop=True)
        self.names = labels_of(self.table, category, opts.order) if category else {}
        self.groups = labels_of(self.table, opts.hue, opts.hue_order) if opts.hue else {None: opts.label}
        for name, kept in ((category, self.names), (opts.hue, self.groups)):
            self.table = self.table[self.table[name].isin(list(kept))] if name else self.table
        checked(self.table, [])  # an order may have left nothing
        single = opts.colour or MEASURE_COLOURS.get(value, PALETTE[0])
        self.colours = dict(zip(self.groups, cycle(PALETTE if opts.hue else [single]), strict=False)) | opts.colours
        height = 4.0
        if category:
            crowd = self._place(step, stacked)
            height = np.clip(1.2 + 0.36 * len(self.names) * (0.6 + 0.4 * crowd), 2.2, 9) if horizontal else height
        self.axes = opts.axes or plt.subplots(figsize=opts.size or (7.2, height))[1]

    def _place(self, step: float, stacked: bool) -> float:
        """Set places, the groups that a category has side by side around it; how many stand so."""
        category, hue = self.table[self.category], self.options.hue
        group = self.table[hue].map(list(self.groups).index) if hue else category.groupby(category).cumcount()
        rank = group.groupby(category).rank("dense")
        count = rank.groupby(category).transform("max")
        crowd = 1 if stacked else count.max()
        self.step = min(step, 0.8 / crowd)
        self.places = category.map(list(self.names).index) + (0 if stacked else self.step * (rank - (count + 1) / 2))
        return crowd

    def series(self) -> Iterator[tuple[pd.DataFrame, dict[str, Any], str, Any]]:
        """Yield the rows of each group, its colour and legend label as one style, its marker and its line style."""
        hue = self.options.hue
        for (group, label), marker in zip(self.groups.items(), cycle(MARKERS), strict=False):
            rows = self.table[self.table[hue] == group] if hue else self.table
            yield rows, {"color": self.colours[group], "label": label}, marker, self.options.styles.get(group, "-")

    def mark(self, places, values, marker: str, **style) -> None:
        """Draw markers alone."""
        across = (values, places) if self.horizontal else (places, values)
        self.axes.plot(*across, marker=marker, **{"linestyle": "", "zorder": 3, "markersize": 6} | style)

    def interval(self, places: pd.Series, rows: pd.DataFrame, bounds: list[str], **style) -> None:
        """Draw a bar between the two columns of bounds, if any, where both are known."""
        rows = rows.dropna(subset=bounds) if bounds else rows[:0]
        if len(rows):
            draw = self.axes.hlines if self.horizontal else self.axes.vlines
            draw(places[rows.index], rows[bounds[0]], rows[bounds[1]], **style)

    def write(self, rows: pd.DataFrame, column: str | None, ends: pd.Series | None = None) -> None:
        """Write the texts of a column, if any, just beyond ends: else of the marks with their intervals."""
        ends = rows[[self.value, *self.bounds]].max(axis=1) if ends is None else ends
        away, ha, va = ((6, 0), "left", "center") if self.horizontal else ((0, 3), "center", "bottom")
        for index, text in rows[column].items() if column else ():
            at = (self.places[index], ends[index])[:: -1 if self.horizontal else 1]
            self.axes.annotate(text, at, away, textcoords="offset points", ha=ha, va=va, fontsize=9)

    def extras(self, side: float, colour: Any = None) -> None:
        """Draw the clouds `side` steps beside their slots (all in `colour`, where given) and the reported values."""
        keys = [name for name in (self.category, self.options.hue) if name]
        slots = dict(zip(self.table[keys].itertuples(index=False, name=None), self.places, strict=True))
        for name, runs in self.options.cloud.items():
            checked(runs, [*keys, self.value])
            slot = pd.Series(map(slots.get, runs[keys].itertuples(index=False, name=None)), runs.index, float)
            places = slot + self.step * (side + 0.3 * (0.618 * runs.groupby(keys).cumcount() % 1 - 0.5))
            for group, part in runs.groupby(keys[1]) if keys[1:] else [(None, runs)]:
                own = {"color": colour or (self.colours[group] if keys[1:] else "0.5"), "alpha": 0.6, "label": name}
                self.interval(places, part, bounds_of(part, self.value), linewidth=0.8, **own | {"label": "_"})
                self.mark(places[part.index], part[self.value], "o", markeredgewidth=0, markersize=3.5, **own)
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
        else:
            name_ticks(self.axes, range(count), names)
            self.axes.set_xlim(-0.6, count - 0.4)

    def finish(self) -> Drawn:
        """Apply the options, redraw the legend, and return the figure with all that was drawn on it.

        Where reference lines and bands lie is told in rows of their own, with a column "reference".
        """
        opts, axes = self.options, self.axes
        if isinstance(ticks := self.settings.get("x_ticks"), Mapping):  # from positions to labels
            name_ticks(axes, ticks, self.settings.pop("x_ticks").values())
        (across, up), references = self.columns[:: -1 if self.horizontal else 1], self.references
        for draw, shade, lines, bands, column in (
            (axes.axvline, axes.axvspan, opts.x_lines, opts.x_bands, across),
            (axes.axhline, axes.axhspan, opts.y_lines, opts.y_bands, up),
        ):
            for (label, at), dash in zip(lines.items(), cycle(DASHES), strict=False):
                look = {"linestyle": "-", "linewidth": 0.9} if at == 0 else {"linestyle": dash, "linewidth": 1.4}
                draw(at, label=label, color=REPORTED_COLOUR, zorder=1, **look)
                references.append({"reference": label.lstrip("_") or "line", column: at})
            for ends in bands:
                shade(*ends, color="0.93", linewidth=0, zorder=0)
                references += [{"reference": "end of a band", column: end} for end in ends]
        clouds = [runs.filter([*self.wanted, "run"]).assign(cloud=name) for name, runs in opts.cloud.items()]
        return finish(axes, [self.table, *clouds, pd.DataFrame(references)], **self.settings)


def finish(axes: Axes, tables: list[pd.DataFrame], note: str = "", title: str | None = None, **settings) -> Drawn:
    """Set title, labels, limits and a note at the bottom of axes, redraw the legend, and return all that was drawn."""
    axes.set(**{name.replace("limits", "lim").replace("_", ""): one for name, one in settings.items()})
    if title is not None:
        axes.set_title(wrapped(title, int(11 * width_of(axes))))
    if note:
        axes.text(0.5, 0.03, note, transform=axes.transAxes, ha="center", va="bottom", color="0.3", fontsize=9.5)
    legend(axes.figure)
    drawn = tables_of(axes.figure)
    drawn.extend(tables)
    return axes.figure, pd.concat(drawn, ignore_index=True) if drawn else pd.DataFrame()


def tables_of(figure: Figure) -> list[pd.DataFrame]:
    """The tables drawn on a figure, a list to add to."""
    return vars(figure).setdefault("drawn_tables", [])


def legend(figure: Figure) -> None:
    """Draw the one legend of a figure above its panels anew, of all labels in them, bars first."""
    pairs = [pair for one in figure.axes for pair in zip(*one.get_legend_handles_labels(), strict=True)]
    entries: dict[str, Any] = {}
    for handle, label in sorted(pairs, key=lambda pair: not isinstance(pair[0], BarContainer)):
        entries.setdefault(label, handle)
    for old in list(figure.legends):
        old.remove()
    if entries:
        most = max(1, min(4, int(12.5 * figure.get_figwidth() / (max(map(len, entries)) + 6))))
        figure.legend(entries.values(), entries, loc="outside upper center", ncols=most, fontsize=10)


def checked(data: pd.DataFrame, columns: Sequence[str | None]) -> pd.DataFrame:
    """The columns of data that are named, each once; CompanionError where one is missing or there are no rows."""
    wanted = list(dict.fromkeys(name for name in columns if name))
    if missing := [name for name in wanted if name not in data]:
        raise CompanionError(f"The table to plot has no column '{missing[0]}' (it has {', '.join(map(str, data))}).")
    if data.empty:
        raise CompanionError("The table to plot has no rows.")
    return data[wanted]


def bounds_of(data: pd.DataFrame, value: str, low: str | None = None, high: str | None = None) -> list[str]:
    """The two columns of the interval around value: those named, else `<value>_low`, `<value>_high`, else none."""
    names = [low or f"{value}_low", high or f"{value}_high"]
    return names if low or high or set(names) <= set(data) else []


def labels_of(data: pd.DataFrame, column: str, order: Labels) -> dict[Any, str]:
    """The values of a column in order, each with the label shown for it."""
    if isinstance(order, Mapping):
        return {one: str(label) for one, label in order.items()}
    if order is None:
        order = data[column].dropna().unique()
        order = sorted(order) if pd.api.types.is_numeric_dtype(data[column]) else order
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
