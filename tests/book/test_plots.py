"""The shapes draw what the table says, name what is wrong with it, and return the numbers they drew."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color

from em_companion.book import plots, theme
from em_companion.core.errors import CompanionError

RATES = pd.DataFrame(
    {
        "organism": ["a", "a", "b", "b"],
        "data": ["sport", "medical", "sport", "medical"],
        "step": [0, 10, 20, 30],
        "em": [10.0, 20.0, 30.0, 40.0],
        "em_low": [5.0, 15.0, np.nan, 35.0],
        "em_high": [15.0, 25.0, np.nan, 45.0],
        "coherent": [99.0, 98.0, 97.0, 96.0],
        "reported_em": [11.0, np.nan, np.nan, np.nan],
        "text": ["one", "two", "three", "four"],
    }
)
SHAPES = {
    "dots": lambda table: plots.dots(table, "organism", "em", hue="data"),
    "bars": lambda table: plots.bars(table, "organism", "em", hue="data"),
    "joined": lambda table: plots.dots(table, "organism", "coherent", before="em", hue="data"),
    "lines": lambda table: plots.lines(table, "step", "em", hue="data"),
    "heat map": lambda table: plots.heat_map(table, "organism", "data", "em"),
    "facets": lambda table: plots.facets(plots.dots, table, "data", "organism", "em"),
    "measures": lambda table: plots.measures(plots.dots, table, "organism", {"em": "EM (%)"}, hue="data"),
}


@pytest.fixture(autouse=True)
def themed():
    theme.use_theme()
    yield
    plt.close("all")


def marks(axes):
    """The drawn points of each series of axes, by label."""
    return {line.get_label(): line.get_xydata() for line in axes.lines if len(line.get_xydata())}


def segments(axes):
    return [segment for one in axes.collections for segment in one.get_segments()]


def legend_of(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("draw", SHAPES.values(), ids=SHAPES)
def test_every_shape_returns_the_numbers_it_drew(draw):
    figure, data = draw(RATES)
    figure.draw_without_rendering()
    assert len(data) == len(RATES)
    assert "text" not in data
    assert set(RATES.em) <= set(data.get("em", data.get("value")))


@pytest.mark.parametrize("draw", SHAPES.values(), ids=SHAPES)
def test_every_shape_says_what_is_wrong_with_a_table(draw):
    with pytest.raises(CompanionError, match="no rows"):
        draw(RATES.iloc[:0])
    with pytest.raises(CompanionError, match="no column 'em'"):
        draw(RATES.drop(columns="em"))


def test_dots_stand_at_their_values_and_draw_known_intervals_only():
    figure, _ = plots.dots(RATES, "organism", "em", hue="data")
    drawn = marks(figure.axes[0])
    assert list(drawn["sport"][:, 0]) == [10, 30]
    assert (drawn["sport"][:, 1] < drawn["medical"][:, 1]).all()
    assert sorted(tuple(segment[:, 0]) for segment in segments(figure.axes[0])) == [(5, 15), (15, 25), (35, 45)]


def test_vertical_dots_have_their_values_upwards():
    figure, _ = plots.dots(RATES, "text", "em", horizontal=False)
    assert [list(points[:, 1]) for points in marks(figure.axes[0]).values()] == [[10, 20, 30, 40]]


def test_an_order_renames_sorts_and_leaves_out():
    figure, data = plots.dots(RATES, "text", "em", order={"four": "last", "one": "first"})
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["last", "first"]
    assert sorted(data.text) == ["four", "one"]


def test_an_order_that_leaves_nothing_is_an_error():
    with pytest.raises(CompanionError, match="no rows"):
        plots.dots(RATES, "text", "em", order=["five"])


def test_groups_keep_the_colour_given_to_their_label():
    figure, _ = plots.bars(RATES, "organism", "em", hue="data", colours={"medical": "red", "sport": "blue"})
    for bars, colour in zip(figure.axes[0].containers, ("blue", "red"), strict=True):
        assert all(same_color(bar.get_facecolor(), colour) for bar in bars)


def test_rows_of_one_slot_stand_apart():
    figure, _ = plots.dots(RATES.assign(organism="a"), "organism", "em")
    (points,) = marks(figure.axes[0]).values()
    assert len(set(points[:, 1])) == len(RATES)


def test_reported_values_runs_and_reference_lines_are_in_the_one_legend():
    cloud = {"one seed": RATES.assign(em=RATES.em + 1)}
    figure, data = plots.dots(
        RATES, "organism", "em", hue="data", reported={"reported": "reported_em"}, cloud=cloud, x_lines={"limit": 50}
    )
    assert legend_of(figure) == ["sport", "medical", "one seed", "reported", "limit"]
    assert list(marks(figure.axes[0])["reported"][0]) == [11, marks(figure.axes[0])["sport"][0][1]]
    assert data.cloud.eq("one seed").sum() == len(RATES)


def test_a_label_with_an_underscore_stays_out_of_the_legend():
    figure, _ = plots.lines(RATES, "step", "em", y_lines={"_": 0})
    assert not figure.legends


def test_stacked_bars_stand_on_one_another():
    figure, _ = plots.bars(RATES, "organism", "em", hue="data", stacked=True, notes="text", totals="organism")
    tops = [bar.get_y() + bar.get_height() for bar in figure.axes[0].containers[-1]]
    assert tops == [30, 70]
    assert {text.get_text() for text in figure.axes[0].texts} == {"one", "two", "three", "four", "a", "b"}


@pytest.mark.parametrize("horizontal", [False, True])
def test_a_bar_of_nothing_can_be_seen(horizontal):
    table = RATES.assign(em=[0.0, 20.0, 30.0, 0.0])
    figure, _ = plots.bars(table, "organism", "em", hue="data", horizontal=horizontal)
    strokes = [path for one in figure.axes[0].collections for path in one.get_paths()]
    flat = [path.vertices[:, int(not horizontal)] for path in strokes]
    assert sum((ends == 0).all() for ends in flat) == 2


def test_lines_run_in_order_of_x_with_bands_or_bars():
    shuffled = RATES.iloc[[2, 0, 3, 1]]
    figure, _ = plots.lines(shuffled, "step", "em", label="all")
    assert list(marks(figure.axes[0])["all"][:, 0]) == [0, 10, 20, 30]
    figure, _ = plots.lines(shuffled, "step", "em", interval="bars")
    assert len(segments(figure.axes[0])) == 3


@pytest.mark.parametrize("interval", ["band", "bars"])
def test_lines_have_no_interval_where_the_value_is_unknown(interval):
    table = RATES.assign(em=[np.nan, 20, 30, 40])
    figure, _ = plots.lines(table, "step", "em", interval=interval)
    (drawn,) = figure.axes[0].collections
    edges = np.concatenate(drawn.get_segments() if interval == "bars" else [one.vertices for one in drawn.get_paths()])
    assert edges[:, 0].min() == 10


@pytest.mark.parametrize("ticks", [[1, 10, 30], {1: "one", 10: "ten", 30: "thirty"}])
def test_ticks_may_have_names(ticks):
    figure, _ = plots.lines(RATES, "step", "em", x_ticks=ticks)
    assert list(figure.axes[0].get_xticks()) == [1, 10, 30]
    assert isinstance(ticks, list) or [one.get_text() for one in figure.axes[0].get_xticklabels()] == [*ticks.values()]


def test_units_and_runs_are_lines_of_their_own():
    controls = {"random": RATES.assign(run=[0, 0, 1, 1])}
    figure, _ = plots.lines(RATES, "step", "em", unit="organism", label="seeds", cloud=controls)
    assert [line.get_label() for line in figure.axes[0].lines] == ["seeds", "seeds", "random", "random"]
    assert legend_of(figure) == ["seeds", "random"]


def test_the_numbers_of_a_heat_map_can_be_read_on_its_colours():
    figure, _ = plots.heat_map(RATES, "organism", "data", "em", limits=(0, 40), colour_map="Greys")
    inks = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert (inks["10"], inks["40"]) == (".15", "w")


def test_a_heat_map_takes_a_matrix_and_frames_a_cell():
    matrix = RATES.pivot(index="organism", columns="data", values="em")
    figure, data = plots.heat_map(matrix, frame={"best": ("b", "sport")}, colour_bar="EM rate (%)")
    (frame,) = figure.axes[0].patches
    assert frame.get_xy() == (1, 1)
    assert legend_of(figure) == ["best"]
    assert len(figure.axes) == 2
    assert set(data) == {"row", "column", "value"}


def test_a_heat_map_has_one_value_per_cell():
    with pytest.raises(ValueError, match="duplicate entries"):
        plots.heat_map(pd.concat([RATES, RATES]), "organism", "data", "em")


def test_cells_are_hushed_by_another_column():
    figure, data = plots.heat_map(RATES, "organism", "data", "em", hushed=("coherent", 97.5))
    shown = [float(one.get_text()) for one in figure.axes[0].texts if one.get_visible()]
    assert sorted(shown) == sorted(round(one) for one in RATES.em[RATES.coherent >= 97.5]) and len(shown) < len(RATES)
    assert "coherent" in data


def test_a_dot_may_be_joined_to_what_was_before():
    figure, _ = plots.dots(RATES, "text", "coherent", before="em")
    assert [tuple(one[:, 0]) for one in segments(figure.axes[0])] == list(zip(RATES.em, RATES.coherent, strict=True))


def test_facets_share_axes_legend_and_labels():
    figure, data = plots.facets(
        plots.lines, RATES, "organism", "step", "em", hue="data", x_label="step", y_label="EM rate (%)",
        y_limits=(0, None), titles={"a": "First", "b": "Second", "c": "Third"}, each={"c": {"note": "not at hand"}},
    )  # fmt: skip
    first, second, third = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["First", "Second", "Third"]
    assert first.get_ylim() == second.get_ylim() and first.get_ylim()[0] == 0 and first.get_ylim()[1] > 40
    assert [text.get_text() for text in third.texts] == ["not at hand"]
    assert legend_of(figure) == ["sport", "medical"]
    assert (figure.get_supxlabel(), figure.get_supylabel()) == ("step", "EM rate (%)")
    assert list(data.columns[:1]) == ["organism"]


def test_measures_return_a_long_table():
    figure, data = plots.measures(plots.dots, RATES, "text", {"em": "EM rate (%)", "coherent": "coherent (%)"})
    assert [axes.get_xlabel() for axes in figure.axes] == ["EM rate (%)", "coherent (%)"]
    assert list(data.groupby("measure").value.max()[["em", "coherent"]]) == [40, 99]


def test_shapes_can_be_put_together_in_one_figure():
    figure, (left, right) = plt.subplots(1, 2)
    plots.dots(RATES, "organism", "em", hue="data", axes=left)
    same, data = plots.lines(RATES, "step", "coherent", hue="data", axes=right, y_label="coherent (%)")
    assert same is figure
    assert legend_of(figure) == ["sport", "medical"]
    assert data.em.notna().sum() == data.coherent.notna().sum() == len(RATES)


def test_an_unknown_option_is_refused():
    with pytest.raises(AttributeError, match="tilte"):
        plots.dots(RATES, "organism", "em", tilte="EM rate")
