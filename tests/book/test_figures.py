"""Figure records: what is written, what is refused, and that the same figure gives the same bytes."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from em_companion.book import figures, registry, theme
from em_companion.core.errors import CompanionError
from em_companion.evidence import directions

ENTRY = registry.FigureEntry("fig-7", "A & B", "s4-3-steering-lora-adapters", "Figure 7")
PROVENANCE = {"commit": "0" * 40, "profile": "cpu", "seed": 0, "date": "2026-01-02T03:04:05+00:00"}


def save(folder, **changes):
    theme.use_theme()
    figure, axes = plt.subplots()
    axes.plot([0, 1], [1, 2])
    given = {"evidence": "released", "caption": "c", "alt": "a", "provenance": PROVENANCE} | changes
    data = given.pop("data", pd.DataFrame({"x": [0, 1], "y": [1, 2]}))
    return figures.save_figure(folder, ENTRY, figure, data, **given)


def test_record_is_complete_and_the_same_each_time(tmp_path):
    save(tmp_path / "one")
    save(tmp_path / "two")
    folder = tmp_path / "one/figures/fig-7/released"
    names = {path.name for path in folder.iterdir()}
    assert names == {"figure.svg", "figure.png", "figure.pdf", "data.csv", "provenance.json", "cite.bib", "cite.json"}
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "two/figures/fig-7/released" / path.name).read_bytes(), path.name
    assert pd.read_csv(folder / "data.csv").equals(pd.DataFrame({"x": [0, 1], "y": [1, 2]}))
    assert b"white" in (folder / "figure.svg").read_bytes() or b"#ffffff" in (folder / "figure.svg").read_bytes()


@pytest.mark.parametrize(
    "changes, saying",
    [
        ({"alt": " "}, "no alt text"),
        ({"caption": ""}, "no caption"),
        ({"evidence": "guessed"}, "unknown evidence"),
        ({"data": pd.DataFrame()}, "plotted numbers"),
        ({"data": pd.DataFrame({"label": ["word " * 30]})}, "without response texts"),
    ],
)
def test_incomplete_figures_are_refused(tmp_path, changes, saying):
    with pytest.raises(CompanionError, match=saying):
        save(tmp_path, **changes)


def test_citation_is_escaped_and_names_evidence_and_commit(tmp_path):
    save(tmp_path)
    folder = tmp_path / "figures/fig-7/released"
    bibtex = (folder / "cite.bib").read_text()
    assert "A \\& B (figure fig-7, released evidence, after Figure 7 of the paper)" in bibtex and "0" * 12 in bibtex
    item = json.loads((folder / "cite.json").read_text())[0]
    assert item["issued"] == {"date-parts": [[2026, 1, 2]]} and "URL" not in item


def test_unregistered_figures_are_refused():
    with pytest.raises(CompanionError, match="not registered"):
        registry.registered("fig-7", "s2-model-organism")


def test_geometry_against_float64_by_hand():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 4, 6))
    for layer in range(4):
        a, b = first[layer], second[layer]
        cosine = sum(a * b) / np.sqrt(sum(a * a) * sum(b * b))
        assert directions.cosines(first, second)[layer] == pytest.approx(cosine)
        assert directions.relative_norm_of_difference(first, second)[layer] == pytest.approx(
            np.sqrt(sum((a - b) ** 2) / sum(a * a))
        )
        assert directions.project_out(first, second)[layer] @ b == pytest.approx(0, abs=1e-12)
    assert directions.cosine_matrix(first)[0, 1] == pytest.approx(directions.cosines(first[:1], first[1:2])[0])
    with pytest.raises(ValueError, match="zero vector"):
        directions.cosines(first, np.zeros_like(first))
