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
    """What every shape takes, besides title, x_label, y_label, x_limits, y_limits, x_scale and the like of Axes.set.

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
    x_ticks: Sequence | Mapping = ()  # a mapping goes from positions to labels
    x_lines: Mapping[str, float] = field(default_factory=dict)  # legend label to position of a reference line
    y_lines: Mapping[str, float] = field(default_factory=dict)
    x_bands: Sequence[tuple[float, float]] = ()  # ranges shaded grey
    y_bands: Sequence[tuple[float, float]] = ()


class Shape:
    """A shape being drawn: its checked rows, groups and axes, and the places of rows on a category axis."""

    def __init__(self, data, value, options, *columns, category=None, horizontal=False, step=0.28, stacked=False):
        known = {one.name for one in fields(Options)} & set(options)
        self.options = opts = Options(**{name: options[name] for name in known})
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
        height = 4.0
        if category:
            crowd = self._place(step, stacked)
            height = np.clip(1.2 + 0.36 * len(self.names) * (0.6 + 0.4 * crowd), 2.2, 9) if horizontal else height
        self.axes = opts.axes or plt.subplots(figsize=opts.size or (7.2, height))[1]
        # A scale brings ticks of its own, so it comes before those that are asked for.
        scales = [name for name in self.settings if name.endswith("_scale")]
        self.axes.set(**{name.replace("_", ""): self.settings.pop(name) for name in scales})

    def _place(self, step: float, stacked: bool) -> float:
        """Set places, groups side by side around their category and rows of one slot a little apart; how many stand so.

        Only the groups that a category has count.
        """
        category, hue = self.table[self.category], self.options.hue
        group = self.table[hue].map(list(self.groups).index) if hue else 0 * category.index.to_series()
        rank = group.groupby(category).rank("dense")
        count = rank.groupby(category).transform("max")
        crowd = 1.0 if stacked else count.max()
        self.step = min(step, 0.8 / crowd)
        slot = category.map({name: place for place, name in enumerate(self.names)}).astype(float)
        slot += 0.0 if stacked else self.step * (rank - (count + 1) / 2)
        self.slots = dict(zip(zip(category, group, strict=True), slot, strict=True))
        twins = slot.groupby(slot)
        apart = twins.cumcount() - (twins.transform("size") - 1) / 2
        self.places = slot if stacked else slot + 0.35 * self.step * apart
        return crowd

    def series(self) -> Iterator[tuple[pd.DataFrame, dict[str, Any], str, Any]]:
        """Yield the rows of each group, its colour and legend label as one style, its marker and its line style."""
        opts, single = self.options, self.options.colour or MEASURE_COLOURS.get(self.value, PALETTE[0])
        for index, (group, label) in enumerate(self.groups.items()):
            colour = opts.colours.get(group, PALETTE[index % len(PALETTE)] if opts.hue else single)
            rows = self.table[self.table[opts.hue] == group] if opts.hue else self.table
            yield rows, {"color": colour, "label": label}, MARKERS[index % 10], opts.styles.get(group, "-")

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
        ranks, middle, hue = list(self.groups), list(self.names).index, self.options.hue
        for name, runs in self.options.cloud.items():
            checked(runs, [self.category, self.value])
            runs = runs[runs[self.category].isin(list(self.names))]
            scatter = 0.618 * runs.groupby(self.category).cumcount() % 1 - 0.5
            for group, part in runs.groupby(hue) if hue in runs else [(None, runs)]:
                rank = ranks.index(group) if group in ranks else 0
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
        else:
            name_ticks(self.axes, range(count), names)
            self.axes.set_xlim(-0.6, count - 0.4)

    def finish(self) -> Drawn:
        """Apply the options, redraw the legend, and return the figure with all that was drawn on it."""
        opts, axes = self.options, self.axes
        if isinstance(opts.x_ticks, Mapping):
            name_ticks(axes, opts.x_ticks, opts.x_ticks.values())
        elif len(opts.x_ticks):
            axes.set_xticks(opts.x_ticks)
        for draw, places in ((axes.axvline, opts.x_lines), (axes.axhline, opts.y_lines)):
            for (label, at), dash in zip(places.items(), cycle(DASHES), strict=False):
                look = {"linestyle": "-", "linewidth": 0.9} if at == 0 else {"linestyle": dash, "linewidth": 1.4}
                draw(at, label=label, color=REPORTED_COLOUR, zorder=1, **look)
        for draw, ranges in ((axes.axvspan, opts.x_bands), (axes.axhspan, opts.y_bands)):
            for start, stop in ranges:
                draw(start, stop, color="0.93", linewidth=0, zorder=0)
        clouds = [runs.filter([*self.wanted, "run"]).assign(cloud=name) for name, runs in opts.cloud.items()]
        return finish(axes, [self.table, *clouds], **self.settings)


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
    """Draw the one legend of a figure above its panels, of all labels in them; call it again after adding some."""
    entries: dict[str, Any] = {}
    for handle, label in (pair for one in figure.axes for pair in zip(*one.get_legend_handles_labels(), strict=True)):
        entries.setdefault(label, handle)
    entries = dict(sorted(entries.items(), key=lambda entry: not isinstance(entry[1], BarContainer)))
    for old in list(figure.legends):
        old.remove()
    if entries:
        most = max(1, min(4, int(12.5 * figure.get_figwidth() / (max(map(len, entries)) + 6))))
        columns = -(-len(entries) // -(-len(entries) // most))
        figure.legend(list(entries.values()), list(entries), loc="outside upper center", ncols=columns, fontsize=10)


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
