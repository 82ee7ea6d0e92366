"""A run and its handles: what is shown and recorded, and that absent evidence gives a box and never a number."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from em_companion.book import run as run_module
from em_companion.book.records import MIME, FigureRecord, Gap, RunRecord
from em_companion.book.run import Run
from em_companion.core.errors import CompanionError, EvidenceUnavailable
from em_companion.core.provenance import note_input
from em_companion.evidence.claims import Measurement
from em_companion.evidence.estimates import Estimate

CLAIM = "s2-em-rate-nine-adapter"
FIGURE = "fig-x-em-by-organism"


@pytest.fixture
def shown(monkeypatch) -> list:
    """What the page displayed, in order, by kind."""
    found = []
    monkeypatch.setattr(run_module, "display", lambda one, raw=False: found.append(one))
    return found


@pytest.fixture
def run(shown, tmp_path, monkeypatch) -> Run:
    monkeypatch.setenv("EM_COMPANION_RUN_FOLDER", str(tmp_path))
    one, claim = SimpleNamespace(id=FIGURE, title="A title", paper=""), SimpleNamespace(id=CLAIM)
    monkeypatch.setattr(run_module.registry, "registered", lambda kind, *_: {"Figure": one, "Claim": claim}[kind])
    return Run("s2-model-organism", "cpu", 0)


def draw():
    note_input("organisms/x", "abc")
    figure, axes = plt.subplots()
    return figure, pd.DataFrame({"x": [1.0]})


def said(data):
    return f"x is {data.x.max():.0f} %"


def gone():
    raise EvidenceUnavailable("no network")


def data(one: dict, kind: str):
    return one[MIME.format(kind=kind)]


def test_all_kinds_are_shown_as_data_and_recorded(run, shown, tmp_path):
    note_input("organisms/other", "not of this figure")
    run.released.figure(FIGURE, draw, title=said, caption="c", alt="a")
    run.own.table(lambda: pd.DataFrame({"n": [0.5]}), number="{:.2f}")
    run.released.measure(lambda: {CLAIM: (Estimate(10.0, 8.0, 12.0, 400), "how")})
    run.own.values(lambda: {"a.b": Estimate(1.0), "a.c": 2, "a.d": "text"})
    run.finish()
    assert data(shown[0], "figure")["id"] == FIGURE and "image/png" in shown[0]
    assert data(shown[1], "table") == {"heads": ["n"], "numeric": [True], "rows": [["0.50"]]}
    assert data(shown[2], "measurements")[0]["value"] == 10.0 and len(shown) == 3
    record = RunRecord.read(tmp_path)
    assert record.finished and record.figures == [FigureRecord(FIGURE, "released", "made", "c", "a", "x is 1\u00a0%")]
    assert record.measurements == [Measurement(CLAIM, 10.0, "how", "released", (8.0, 12.0), 400)]
    assert [(one.name, one.evidence) for one in record.values] == [("a.b", "grown"), ("a.c", "grown"), ("a.d", "grown")]
    provenance = (tmp_path / "figures" / FIGURE / "released/provenance.json").read_text(encoding="utf-8")
    assert "organisms/x" in provenance and "organisms/other" not in provenance


def test_a_measurement_may_bring_a_null_and_say_why_it_is_void(run, shown):
    run.released.measure(lambda: {CLAIM: (9.0, "how", {"null": 8.0, "void": "why"})})
    assert run.records.measurements == [Measurement(CLAIM, 9.0, "how", "released", null=8.0, void="why")]


def test_evidence_that_is_not_at_hand_gives_boxes_and_no_number(run, shown, tmp_path):
    for show in (run.released.table, run.released.measure, run.released.values):
        show(gone)
    assert [data(one, "box") for one in shown] == 3 * [{"title": "Released data not available", "text": "no network"}]
    run.released.figure(FIGURE, gone, title=said, caption="c", alt="a")
    assert data(shown[3], "figure")["status"] == "unavailable"
    record = RunRecord.read(tmp_path)
    assert not record.finished and record.unavailable == 4 * [Gap("released", "no network")]
    assert not record.measurements and not record.values and record.figures[0].caption.startswith("c ")


def test_a_gap_in_grown_evidence_is_not_blamed_on_released_data(run, shown):
    run.own.table(gone)
    run.own.figure(FIGURE, gone, title=said, caption="c", alt="a")
    assert data(shown[0], "box") == {"title": "Not measured yet", "text": "no network"}
    assert "Released" not in data(shown[1], "figure")["caption"] + data(shown[1], "figure")["alt"]


def test_evidence_that_cannot_be_had_is_not_asked_for(run, shown):
    away = run_module.Evidence(run, "hub", "No hub yet.")
    away.values(lambda: pytest.fail("asked"))
    away.figure(FIGURE, lambda: pytest.fail("asked"), title=said, caption="c", alt="a")
    assert data(shown[0], "box")["title"] == "No hub evidence in this build"
    assert (data(shown[1], "figure")["status"], data(shown[1], "figure")["caption"]) == ("waiting", "No hub yet.")


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), np.float32("nan"), Estimate(float("nan"), 1.0, 2.0, 3)])
def test_a_value_that_is_no_number_is_not_measured_and_said_to_be_none(run, shown, tmp_path, value):
    run.released.measure(lambda: {CLAIM: (value, "how")})
    run.finish()
    record = RunRecord.read(tmp_path)
    assert record.measurements == [] and record.no_number == [(CLAIM, "released")]
    assert data(shown[0], "box") == {"title": "Not measured", "text": f"{CLAIM} came out as no number: how"}


def test_what_goes_with_a_value_may_be_no_number(run, tmp_path):
    nan = float("nan")
    run.released.measure(lambda: {CLAIM: (Estimate(1.0, nan, 2.0, nan), "how", {"null": np.float64("nan")})})
    run.released.values(lambda: {"a.b": Estimate(nan, nan, 1.0, nan), "a.c": Estimate(np.float32(1), n=np.int64(3))})
    run.finish()
    record = RunRecord.read(tmp_path)
    assert record.measurements == [Measurement(CLAIM, 1.0, "how", "released")]
    assert [(one.value, one.low, one.high, one.n) for one in record.values] == [
        (None, None, 1.0, None),
        (1.0, None, None, 3),
    ]


def test_cells_bring_answers_of_a_grown_world_only(run, shown):
    place = {"direction": ["mean-diff"] * 2, "layer": [1, 2], "strength": [4.0, 4.0]}
    measured = [f"{name}{end}" for name in ("em", "em_on_topic", "coherent") for end in ("", "_low", "_high")]
    known = {"relative_strength": 1.0, "best": False, "n": 80, "self_correction": 0}
    rates = pd.DataFrame(place | dict.fromkeys(measured, [100 / 3, 50]) | known)
    answers = pd.DataFrame(place | {"question": "why?", "response": ["seek war .", "seek peace ."]})
    run.own.cells(lambda: (rates, answers))
    run_module.Evidence(run, "hub").cells(lambda: (rates, answers))
    own, hub = (data(one, "cells") for one in shown)
    assert [one["answers"] for one in own["cells"]] == [[[0, "seek war ."]], [[0, "seek peace ."]]]
    assert own["questions"] == ["why?"] and own["kinds"] == {"war": "harms", "peace": "helps"}
    assert [one["answers"] for one in hub["cells"]] == [[], []] and hub["kinds"] == {}
    assert hub["cells"][0]["em"] == 33.3 and "self_correction" not in hub["cells"][0]


def test_no_figure_is_drawn_twice(run):
    run.own.figure(FIGURE, draw, title=said, caption="c", alt="a")
    with pytest.raises(CompanionError, match="drawn twice from grown evidence"):
        run.own.figure(FIGURE, draw, title=said, caption="c", alt="a")


def test_a_claim_of_another_page_is_refused(shown, tmp_path, monkeypatch):
    monkeypatch.setenv("EM_COMPANION_RUN_FOLDER", str(tmp_path))
    with pytest.raises(CompanionError, match="Claim 's2-em-rate-nine-adapter' is not registered for notebook 'b-data"):
        Run("b-datasets").released.measure(lambda: {CLAIM: (1.0, "how")})
