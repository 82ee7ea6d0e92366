"""What is drawn must stand in the data: every shape's own data hold it, and no other number passes for it."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from em_companion.book import plots, theme
from em_companion.book.coverage import first_missing

FOUR = pd.DataFrame({"name": list("abab"), "kind": list("xxyy"), "step": range(4)})
CLOUD = FOUR.assign(em=[1.5, 2.5, 3.5, 4.5])
SHAPES = {
    "dots": lambda table: plots.dots(table, "name", "em", hue="kind", x_lines={"limit": 7.25}, cloud={"one": CLOUD}),
    "joined": lambda table: plots.dots(table, "name", "em", before="other", reported={"paper": "reported"}),
    "bars": lambda table: plots.bars(table, "name", "em", hue="kind", y_lines={"_": 0}),
    "stacked": lambda table: plots.bars(table, "name", "em", hue="kind", stacked=True, horizontal=True),
    "bands": lambda table: plots.lines(table, "step", "em", hue="kind", x_bands=[(0.5, 1.5)], y_bands=[(3, 4)]),
    "dodged": lambda table: plots.lines(table, "step", "em", hue="kind", interval="bars", dodge=0.1),
    "steps": lambda table: plots.lines(table, "step", "em", hue="kind", styles={"x": "steps"}, cloud={"one": CLOUD}),
    "heat map": lambda table: plots.heat_map(
        table, "kind", "name", "em", hushed=("other", 50), colour_bar="EM", frame={"best": ("x", "a")}
    ),
    "facets": lambda table: plots.facets(plots.dots, table, "kind", "name", "em", x_lines={"limit": 7.25}),
    "measures": lambda table: plots.measures(
        plots.lines, table, "step", {"em": "EM", "other": "other"}, hue="kind", each={"em": {"y_lines": {"bar": 90}}}
    ),
}  # fmt: skip


VALUES = st.lists(st.integers(1, 9999).map(float), min_size=20, max_size=20, unique=True)


@pytest.mark.parametrize("draw", SHAPES.values(), ids=SHAPES)
@settings(max_examples=4)
@given(values=VALUES, row=st.integers(0, 3), error=st.sampled_from([0.01, -0.01]))
def test_a_shape_returns_all_that_it_drew_and_a_number_less_is_missed(draw, values, row, error):
    theme.use_theme()
    columns = zip(("em", "em_low", "em_high", "other", "reported"), np.reshape(values, (5, 4)), strict=True)
    figure, data = draw(FOUR.assign(**dict(columns)))
    plt.close(figure)
    assert first_missing(figure, data) == []
    assert first_missing(figure, data.replace(values[row], values[row] * (1 + 1e-8))) == []
    assume(not np.isclose(values, values[row] * (1 + error), 1e-5).any())
    assert first_missing(figure, data.replace(values[row], values[row] * (1 + error)))


def test_numbers_in_another_row_do_not_count_where_both_axes_have_numbers():
    theme.use_theme()
    figure, data = plots.lines(FOUR.assign(em=[1.0, 2.0, 3.0, 4.0]), "step", "em")
    assert first_missing(figure, data.assign(em=data.em[::-1].to_numpy())) == [0, 1]
    plt.close(figure)


def test_what_is_drawn_past_the_shapes_counts_too():
    figure, axes = plt.subplots()
    axes.scatter([1, 2], [3, 4])
    axes.plot([0, 1], [0, 1], transform=axes.transAxes)  # a decoration
    data = pd.DataFrame({"x": [1, 2, 0, 1], "y": [3, 4, 0, 1]})
    assert first_missing(figure, data) == []
    assert first_missing(figure, data[1:]) == [1, 3]
    axes.errorbar([0], [0], yerr=[[1], [1]], fmt="none")
    assert first_missing(figure, data) == [0, -1]
    plt.close(figure)
