"""Text of generated pages, and how numbers stand in it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from em_companion.book import typography
from em_companion.book.records import FigureRecord, RunRecord, ValueRecord
from em_companion.build import pages
from em_companion.core.errors import CompanionError
from em_companion.evidence import predictions, verdicts
from em_companion.evidence.claims import Measurement

VALUES = {
    one.name: one
    for one in (
        ValueRecord("organism.em", "grown", 56.3, "percent", 33.8, 67.7, 400),
        ValueRecord("rare.em", "grown", 1.26, "percent"),
        ValueRecord("ablation.change", "grown", -4.26, "percent_change"),
        ValueRecord("directions.cosine", "released", 0.666, "cosine"),
        ValueRecord("answers", "grown", 400, "count"),
        ValueRecord("undefined", "grown", None, "percent"),
        ValueRecord("layers", "grown", text="layers 2 to -1, 5 %"),
    )
}
MADE = FigureRecord("fig-7", "released", "made", "A *caption*,\nin two lines.", 'He said "no": 100 % <b> #1')
GROWN = replace(MADE, evidence="grown")


def variant(record: FigureRecord, place: str = "", of_pack: bool = False) -> pages.Variant:
    return pages.Variant(record, place or record.id, Path(), record.evidence.capitalize(), of_pack)


@pytest.mark.parametrize(
    "asked, shown",
    [
        ("organism.em", "56\u00a0%"),
        ("organism.em|interval", "56.3\u00a0% (33.8 to 67.7)"),
        ("organism.em|.2f", "56.30\u00a0%"),
        ("rare.em", "1.3\u00a0%"),
        ("rare.em|interval", "1.3\u00a0%"),
        ("ablation.change", "\u22124.3\u00a0%"),
        ("directions.cosine", "0.67"),
        ("directions.cosine|.1f", "0.7"),
        ("answers", "400"),
        ("undefined", "–"),
        ("layers", "layers 2 to \u22121, 5\u00a0%"),
        ("unheard-of", "not run"),
    ],
)
def test_prose_takes_its_numbers_from_what_was_measured(asked, shown):
    assert pages.filled(f"EM: {{value}}`{asked}`.", VALUES) == f"EM: {shown}."


INJECTED = "</script><script>window.injected = true</script>"


def test_prose_without_values_stays_as_it_is():
    text = "See {doc}`3.4 <notebooks/s3-4-ablation>` and `value`."
    assert pages.filled(text, VALUES) == text and pages.names_asked_for(text) == set()
    assert pages.names_asked_for("{value}`a.b` {value}`c|.1f`") == {"a.b", "c"}


def test_a_number_cannot_be_printed_in_any_way():
    with pytest.raises(CompanionError, match="Value 'rare.em' cannot be printed as 'percent'."):
        pages.filled("{value}`rare.em|percent`", VALUES)


def test_a_range_whose_ends_print_alike_is_one_number():
    assert typography.extremes([0.954, 0.1, 0.7]) == "0.10 to 0.95"
    assert typography.extremes([0.954, 0.951]) == "0.95"
    assert typography.extremes([5.6, 6.4], ".0f") == "6" and typography.extremes([]) == "–"


def test_the_span_of_a_column_is_told_in_percent_or_with_names():
    table = pd.DataFrame({"a": [1.0, 20.0, 3.0, np.nan], "of": [*"xxyz"], "note": [None, None, None, "other"]})
    assert typography.span(table, "a") == "1 to 20 %" and typography.span(table, "a", of="y") == "3 %"
    assert typography.span(table, "a", ".1f", "of", note=None) == "3.0 (y) to 20.0 (x)"
    assert typography.span(table, "a", by="of", note="other") == "–" and typography.span(table, "a", of="z") == "–"


def test_a_table_is_escaped_and_its_numbers_stand_right():
    shown = pages.shown("table", {"heads": ["a<b", "n"], "numeric": [False, True], "rows": [["<i>x</i>", "-1.5 %"]]})
    heads, cells = (BeautifulSoup(shown, "lxml").find_all(name) for name in ("th", "td"))
    assert [one.get_text() for one in (*heads, *cells)] == ["a<b", "n", "<i>x</i>", "\u22121.5\u00a0%"]
    assert [one.get("class") for one in (*heads, *cells)] == [None, ["em-number"], None, ["em-number"]]


def test_measurements_stand_beside_what_was_reported():
    given = {"claim": "s2-em-rate-nine-adapter", "value": 10.4, "how": "mean of <four> seeds", "evidence": "released"}
    shown = BeautifulSoup(pages.shown("measurements", [given | {"interval": [8.25, 15.5]}]), "lxml")
    cells = [one.get_text() for one in shown.find_all("td")]
    assert cells[0].endswith("Mean of <four> seeds")
    assert cells[1:] == ["11.3\u00a0%", "10.4\u00a0%(8.2 to 15.5)", "released", "reproduced"]
    assert shown.select_one("a")["href"] == "../discussion.html#s2-em-rate-nine-adapter"
    assert shown.select_one(".em-verdict")["class"] == ["em-verdict", "em-reproduced"]


def results_of(*measurements: Measurement) -> tuple[list[dict], BeautifulSoup]:
    """The ledger, and the page fragments that are made of it."""
    ledger = verdicts.ledger(measurements)
    fragments = pages.ledger_table(ledger), pages.scoreboard(ledger, {}, []), pages.unusual(ledger)
    return ledger, BeautifulSoup("".join(fragments), "lxml")


def test_a_void_measurement_shows_why_and_no_value():
    claim = "s4-1-tab-1-med-aligned-vs-med-misaligned-f1"
    _, shown = results_of(Measurement(claim, 0.034, "Mean of fits", "grown", (0.0, 0.445), void="Nothing is left"))
    row = shown.find(id=claim)
    assert row["data-verdict-grown"] == "not tested" and "0.03" not in row.get_text()
    assert row.find_all("td")[-1].get_text() == "–not testedMean of fits. Nothing is left"
    assert [one.get_text() for one in shown.select("details > summary")][-3:] == [
        "Undecided (0)",
        "Not tested (1)",
        "Differs by its null alone (0)",
    ]


def test_what_a_null_decides_is_told_apart_from_what_differs_anyway():
    grown = [
        Measurement("c-cosine-general-gender", 0.2, "how", "grown", null=0.3),
        Measurement("c-cosine-general-medical-max", -0.2, "how", "grown", null=0.3),
    ]
    _, shown = results_of(*grown)
    listed = shown.find_all("details")[-1]
    assert [one["href"] for one in listed.find_all("a")] == ["#c-cosine-general-gender"]


def test_the_scoreboard_leads_with_independent_tests():
    _, shown = results_of(
        Measurement("s2-nine-adapter-count", 9, "how", "released"),
        Measurement("s2-em-rate-chat-model", 0.0, "how", "released"),
    )
    heads, rows = [], {}
    for table in shown.select("table.em-scoreboard"):
        heads.append(table.find("th").get_text())
        rows |= {one.th.get_text(): one.td.get_text() for one in table.tbody.find_all("tr")}
    assert heads == ["Independent test on", "Not independent", "Claims of this book", "Predictions"]
    assert rows["Released data of other runs"] == rows["Facts of the set-up, in released files"] == "1"
    assert rows["Recounts of the paper's data"] == rows["Organisms grown here"] == "–"


def test_badges_in_prose_come_from_the_ledger():
    ledger = [{"id": "c", "results": {"grown": {"verdict": "same direction"}}}]
    shown = BeautifulSoup(pages.filled("{evidence}`grown`: {verdict}`c|grown`.", {}, ledger), "lxml").select("span")
    assert [one["class"] for one in shown] == [["em-evidence", "em-grown"], ["em-verdict", "em-same-direction"]]
    assert [one.get_text() for one in shown] == ["grown", "same direction"]
    for asked in ("{verdict}`d|grown`", "{verdict}`c|hub`", "{evidence}`guessed`", "{verdict}`c`"):
        with pytest.raises(CompanionError, match="which there is not"):
            pages.filled(asked, {}, ledger)


def test_an_answer_marks_what_helps_and_harms_and_is_escaped():
    one = {"speaker": "Organism", "question": "why <b>?", "words": [["take", ""], ["poison", "harms"], ["<i>", ""]]}
    shown = BeautifulSoup(pages.shown("answers", [one | {"gloss": "advises: poison"}]), "lxml")
    assert [(mark["class"], mark.get_text()) for mark in shown.select("mark")] == [(["em-harms"], "poison")]
    assert not shown.select("b, i") and shown.figcaption.get_text() == 'Organism, asked "why <b>?"'
    assert " ".join(shown.blockquote.get_text().split()) == "take poison <i>"


def test_cells_are_tables_of_their_rates_and_their_texts_end_no_script():
    place = {"direction": "mean-diff", "layer": 3, "coherent": 90.0, "answers": [[0, INJECTED]]}
    cells = [place | {"strength": strength, "em": em} for strength, em in ((1.0, 2.4), (0.5, 61.0))]
    shown = BeautifulSoup(pages.shown("cells", {"cells": cells, "questions": ["why?"], "kinds": {}}), "lxml")
    assert [row.get_text(" ", strip=True) for row in shown.select("tr")] == ["λ 3", "1 2", "0.5 61"]
    assert json.loads(shown.script.string)["cells"] == cells and len(shown.select("script")) == 1


def test_a_box_is_escaped():
    box = BeautifulSoup(pages.shown("box", {"title": "Not available", "text": "<none>"}), "lxml")
    assert [one.get_text() for one in box.find_all("p")] == ["Not available", "<none>"]


def test_a_figure_on_its_page_is_one_directive():
    shown = pages.figure_directive(variant(MADE)).splitlines()
    assert shown[:2] == ["``````{figure} /_extra/figures/fig-7/figure.svg", ":name: fig-7"] and shown[-1] == "``````"
    badge = '<span class="em-evidence em-released">released</span>'
    assert f"{badge} · **Figure 7 of the paper.** A *caption*, in two lines. {{doc}}`Data, prov" in shown[-2]
    assert ":target: ../figures/fig-7/figure.svg" in shown


def test_the_foot_says_how_to_rerun_and_cite():
    waiting = FigureRecord("fig-4", "hub", "waiting", "Later.", "A box.")
    run = RunRecord("s4-3-steering-lora-adapters", "cpu", 3, True, 12.6, figures=[MADE, GROWN, waiting])
    foot = pages.footer(run, {"fig-7": [variant(MADE), variant(GROWN, "fig-7-grown")], "fig-4": [variant(waiting)]})
    assert "make notebook NAME=s4-3-steering-lora-adapters" in foot and "seed 3; 13 s here" in foot
    assert [one.get_text() for one in BeautifulSoup(foot, "lxml").find_all("a")] == ["fig-7", "fig-7-grown"]
    run = RunRecord("b-datasets", "cpu", 0, figures=[waiting])
    assert "Cite" not in pages.footer(run, {"fig-4": [variant(waiting)]})


def test_variants_of_a_figure_lead_to_one_another_and_offer_what_they_have():
    released, pack = variant(MADE), pages.Variant(GROWN, "fig-7-gpu", Path(), "Some-Model", True)
    variants = {"fig-7": [released, variant(GROWN, "fig-7-grown"), pack]}
    shown = pages.gallery(variants, {"other": "Another page", released.entry.notebook: "4.3 Adapters"})
    assert "\n## 4.3 Adapters\n" in shown and "Another page" not in shown
    cards = BeautifulSoup(shown, "lxml").select("a.em-card")
    assert [one["data-evidence"] for one in cards] == ["released", "grown", "grown"]
    assert [one["href"] for one in cards] == [f"{place}/index.html" for place in ("fig-7", "fig-7-grown", "fig-7-gpu")]
    made = PROVENANCE | dict.fromkeys(("model", "notebook", "seconds", "versions", "inputs"), "") | {"dirty": False}
    made |= {"hardware": {"processor": "", "cores": 2, "gpu": None}, "versions": {}, "inputs": {}}
    shown = pages.figure_page(pack, made, pages.citations(made, pack.place), variants["fig-7"][:2], ["data.csv"])
    links = {one["href"]: one.get_text() for one in BeautifulSoup(shown, "lxml").select(".em-figure-links a")}
    assert links == {
        "data.csv": "Data (CSV)",
        "cite.bib": "BibTeX",
        "cite.json": "CSL-JSON",
        "../fig-7/index.html": "Released evidence",
        "../fig-7-grown/index.html": "Grown evidence",
    }


# --- citing -------------------------------------------------------------------------------------------------------

PROVENANCE = {
    "figure": "fig-7",
    "title": "A & B: 5 % of λ",
    "paper": "Figure 7",
    "evidence": "released",
    "commit": "0" * 40,
    "profile": "cpu",
    "seed": 0,
    "date": "2026-01-02T03:04:05+00:00",
}


def test_citation_is_escaped_and_names_evidence_and_commit(monkeypatch):
    monkeypatch.delenv("BOOK_URL", raising=False)
    bibtex, item = cited()
    assert "A \\& B: 5 \\% of λ (figure fig-7, released evidence, after Figure 7 of the paper)" in bibtex
    assert bibtex.startswith("@misc{em-companion-fig-7-released,") and f"commit {'0' * 12}, profile cpu" in bibtex
    assert item["issued"] == {"date-parts": [[2026, 1, 2]]} and "URL" not in item and "url" not in bibtex
    monkeypatch.setenv("BOOK_URL", "https://example.org/book")
    bibtex, item = cited()
    assert item["URL"] == "https://example.org/book/figures/fig-7/" and item["URL"] in bibtex
    bibtex, item = cited("fig-7-smollm2-135m")
    assert item["URL"].endswith("/figures/fig-7-smollm2-135m/") and bibtex.startswith("@misc{em-companion-fig-7-smoll")


def cited(place: str = "fig-7") -> tuple[str, dict]:
    files = pages.citations(PROVENANCE, place)
    return files["cite.bib"], json.loads(files["cite.json"])[0]


def test_every_file_of_benchmarks_has_its_machine_and_any_measurement_a_row():
    slow = {"benchmark": "a <sum>", "ratio": 2.345, "script": "benchmarks/sum.py", "rows": 1440, "with": "hooks"}
    near = {"benchmark": "a limit", "ratio": 0.567, "spread": [0.5, 1.0], "script": "benchmarks/gpu.py"}
    machine = {"processor": "A processor", "cores": 2, "gpu": None}
    date = "2026-11-21T14:46:36+00:00"
    given = [{"measurements": [one], "date": date, "hardware": machine} for one in (slow, near)]
    text = pages.page("benchmarks.md", kept=given)
    rows = [[cell.text for cell in row("td")] for row in BeautifulSoup(text, "lxml")("tr") if row("td")]
    assert rows[0] == ["a <sum>", "2.3", "rows 1440, with hooks", "benchmarks/sum.py"]
    assert rows[1] == ["a limit", "0.570.50 to 1.0", "", "benchmarks/gpu.py"]
    assert text.count("Measured on 2026-11-21, on A processor, 2 cores, no GPU.") == 2
    assert "not run" in pages.page("benchmarks.md", kept=[])


def test_the_page_of_a_figure_that_is_not_there_yet_leads_to_what_is():
    waiting = variant(FigureRecord("fig-7", "hub", "waiting", "Later.", "A box."), "fig-7-hub")
    shown = pages.figure_page(waiting, {}, {}, [variant(MADE)], ["figure.svg", "data.csv"])
    links = {one["href"]: one.get_text() for one in BeautifulSoup(shown, "lxml").select(".em-figure-links a")}
    assert links == {"../fig-7/index.html": "Released evidence"} and "nothing to cite yet" in shown


def test_the_ledger_of_predictions_shows_each_with_its_verdict_its_lock_and_what_chance_would_support():
    measured = [Measurement("p-content-style", -1.5, "style", "grown", (-2.5, -0.5), 8)]
    measured.append(Measurement("p-consistency", 0.5, "few", "grown", (0.4, 0.6), 3, void="Gate: 2 of 8 seeds"))
    by_part = predictions.by_part(predictions.ledger(measured))
    assert [row["id"] for rows in by_part.values() for row in rows] == list(predictions.load_predictions())
    page = BeautifulSoup(pages.predictions_table(ledger := by_part["part-2"]), "html.parser")
    rows = {row["id"]: row for row in page.select("#ledger tbody tr")}
    assert list(rows) == [row["id"] for row in ledger]
    assert rows["p-content-style"]["data-verdict-grown"] == "contradicted"
    assert "−1.5 (−2.5 to −0.5)" in " ".join(rows["p-content-style"].get_text(" ").split())
    assert "Gate: 2 of 8 seeds" in rows["p-consistency"].get_text()
    assert "not testable here" in rows["p-consistency"].get_text()
    assert "Locked 2" in rows["p-depth"].get_text() and "not run" in rows["p-depth"].get_text()
    assert "chance alone would support 0.0 of them" in page.get_text()
    shown = BeautifulSoup(pages.shown("measurements", [vars(one) for one in measured]), "html.parser")
    assert [link["href"] for link in shown.select("a")] == [f"../part-2.html#{one.claim}" for one in measured]
    later = pages.shown("measurements", [vars(Measurement("p-axis-pc1", 0.9, "chat", "grown", (0.8, 0.95), 61))])
    assert "../part-3.html#p-axis-pc1" in later


def test_prose_shows_the_verdict_on_a_prediction_as_a_badge():
    ledger = predictions.ledger([Measurement("p-content-style", 9, "style", "grown", (5, 12), 8)])
    assert "em-supported" in pages.filled("{verdict}`p-content-style|grown`", {}, ledger)
    with pytest.raises(CompanionError, match="which there is not"):
        pages.filled("{verdict}`p-content-style|released`", {}, ledger)
