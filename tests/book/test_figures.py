"""The files of a figure: what is written, what is refused, and that the same figure gives the same bytes."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from em_companion.book import figures, registry, theme
from em_companion.book.records import FigureRecord
from em_companion.core.errors import CompanionError

ENTRY = registry.FigureEntry("fig-7", "A & B", "s4-3-steering-lora-adapters", "Figure 7")
DATA = pd.DataFrame({"x": [0, 1], "y": [1, 2], "name": ["one", None]})


def save(folder, data=DATA, evidence="released", caption="c", alt="a", title="Up to 2"):
    theme.use_theme()
    figure, axes = plt.subplots()
    axes.plot([0, 1], [1, 2])
    record = FigureRecord(ENTRY.id, evidence, "made", caption, alt, title)
    return figures.save_figure(
        folder, ENTRY, (figure, data), record, {"commit": "0" * 40, "profile": "cpu", "date": "2026-01-02T03"}
    )


def test_record_is_complete_and_the_same_each_time(tmp_path):
    save(tmp_path / "one")
    save(tmp_path / "two")
    folder = tmp_path / "one/figures/fig-7/released"
    names = {path.name for path in folder.iterdir()}
    assert names == {"figure.svg", "figure.png", "figure.pdf", "data.csv", "provenance.json"}
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "two/figures/fig-7/released" / path.name).read_bytes(), path.name
    assert pd.read_csv(folder / "data.csv").equals(DATA)
    assert "em-companion · released · fig-7 · 0000000 · 2026-01-02" in (folder / "figure.svg").read_text("utf-8")
    assert "Up to 2</text>" in (folder / "figure.svg").read_text("utf-8")
    assert b"white" in (folder / "figure.svg").read_bytes() or b"#ffffff" in (folder / "figure.svg").read_bytes()


@pytest.mark.parametrize(
    "changes, saying",
    [
        ({"alt": " "}, "no alt"),
        ({"title": ""}, "no title"),
        ({"caption": ""}, "no caption"),
        ({"data": pd.DataFrame()}, "plotted numbers"),
        ({"data": DATA[:1]}, "'fig-7' shows 1, 2, which its data do not hold"),
        ({"data": pd.DataFrame({"label": ["word " * 30]})}, "without response texts"),
    ],
)
def test_incomplete_figures_are_refused(tmp_path, changes, saying):
    with pytest.raises(CompanionError, match=saying):
        save(tmp_path, **changes)


@pytest.mark.parametrize(
    "status, evidence, headline",
    [
        ("waiting", "hub", "waiting for the hub"),
        ("unavailable", "released", "released data not available"),
        ("unavailable", "hub", "not measured yet"),
    ],
)
def test_a_box_takes_the_place_of_a_figure(tmp_path, status, evidence, headline):
    record = figures.placeholder(tmp_path, ENTRY, evidence, status, "why")
    assert (record.status, record.caption) == (status, "why") and headline in record.alt
    assert [path.name for path in (tmp_path / "figures/fig-7" / evidence).iterdir()] == ["figure.svg"]


def test_unregistered_figures_are_refused():
    with pytest.raises(CompanionError, match="not registered"):
        registry.registered("Figure", "fig-7", "s2-model-organism")
