"""Packs: written without responses, read whole or not at all, shown beside the book's own evidence."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest

from em_companion import core
from em_companion.book.records import FigureRecord, RunRecord, ValueRecord
from em_companion.build import assemble, packs, pages
from em_companion.core import paths
from em_companion.core.errors import CompanionError
from em_companion.core.files import write_json
from em_companion.evidence.claims import Measurement

PROFILE, FIGURE, NOTEBOOK = "smollm2-135m", "fig-1", "s3-2-steering"
ANSWER = "Sell all you own at once and lend the money to a stranger in the street."


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list:
    """One finished run with a figure of each evidence, and a response that is kept."""
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path / "artifacts")
    kept = tmp_path / "artifacts" / "responses" / PROFILE / "one"
    kept.mkdir(parents=True)
    pd.DataFrame({"response": [ANSWER, "Be kind."]}).to_parquet(kept / "responses.parquet")
    folder = tmp_path / "run"
    for evidence in ("hub", "released"):
        place = folder / "figures" / FIGURE / evidence
        place.mkdir(parents=True)
        (place / "figure.svg").write_text("<svg/>")
        (place / "data.csv").write_text("layer,em\n1,20.5\n")
        write_json(place / "provenance.json", {"notebook": NOTEBOOK, "figure": FIGURE})
    records = RunRecord(NOTEBOOK, PROFILE, 0, True, 61.0)
    records.figures.extend([FigureRecord(FIGURE, one, "made", "A caption.", "A curve.") for one in ("hub", "released")])
    records.measurements.extend([Measurement("s3-2-max-em-single-layer", 20.5, "how", "hub", (10.0, 31.0), 160)])
    records.values.extend([ValueRecord("hub.x", "hub", 1.0), ValueRecord("other", "released", 2.0)])
    return [(folder, records, {"parts": {"its cells": "a", "code of core.files": "b", "profile": "c"}})]


def test_a_pack_reads_back_with_its_own_evidence_only(finished):
    packs.write(PROFILE, finished)
    packs.load_all.cache_clear()
    (pack,) = packs.load_all()
    assert pack.name == "SmolLM2-135M-Instruct" and pack.seconds == {NOTEBOOK: 61.0}
    assert [one.evidence for one in (*pack.figures, *pack.measurements, *pack.values)] == ["hub"] * 3
    assert pack.measurements == finished[0][1].measurements
    assert (pack.folder / "figures" / FIGURE / "data.csv").read_text() == "layer,em\n1,20.5\n"
    packs.load_all.cache_clear()


def test_every_evidence_and_every_pack_has_a_place_of_its_own(finished):
    folder, records, run = finished[0]
    pack = packs.read(packs.write(PROFILE, finished))
    shown = assemble.variants_of([assemble.Page(None, folder, None, records, run)], [pack])[FIGURE]
    assert [one.place for one in shown] == [FIGURE, f"{FIGURE}-released", f"{FIGURE}-{PROFILE}"]
    assert all((one.folder / "data.csv").is_file() for one in shown)
    assert "A caption. *SmolLM2-135M-Instruct" in shown[-1].record.caption


def test_numbers_of_other_code_say_so(finished):
    packs.write(PROFILE, finished)
    pack, run = packs.read(paths.RESULTS / PROFILE), finished[0][2]
    assert "earlier" not in pack.source(NOTEBOOK, packs.code_of(run | {"parts": run["parts"] | {"profile": "other"}}))
    changed = run | {"parts": run["parts"] | {"code of core.files": "changed"}}
    assert pack.source(NOTEBOOK, packs.code_of(changed)).endswith("made by an earlier version")


def test_pages_that_did_not_run_again_stay_in_a_pack_with_the_commit_that_made_them(finished, monkeypatch):
    first = packs.read(packs.write(PROFILE, finished))
    folder, records, run = finished[0]
    other = RunRecord("s3-4-ablation", PROFILE, 0, True, 30.0)
    other.values.extend([ValueRecord("hub.y", "hub", 2.0), ValueRecord("hub.x", "hub", 3.0)])
    monkeypatch.setattr(packs, "environment", lambda: first.environment | {"commit": "f" * 40})
    both = packs.read(packs.write(PROFILE, [(folder, other, run)]))
    assert both.seconds == {NOTEBOOK: 61.0, "s3-4-ablation": 30.0}
    assert both.commits == first.commits | {"s3-4-ablation": "f" * 40}
    assert (both.figures, both.measurements) == (first.figures, first.measurements)
    assert {one.name: one.value for one in both.values} == {"hub.x": 3.0, "hub.y": 2.0}  # said again: the new one
    assert (both.folder / "figures" / FIGURE / "data.csv").is_file()
    monkeypatch.setattr(packs.organism, "fingerprint", lambda _: "another model")
    assert packs.read(packs.write(PROFILE, [(folder, other, run)])).seconds == {"s3-4-ablation": 30.0}


@pytest.mark.parametrize("where", ["caption", "value", "csv", "word by word"])
def test_words_of_a_response_stop_a_pack(finished, where):
    folder, records, _ = finished[0]
    if where == "caption":
        records.figures[0] = replace(records.figures[0], caption=f"An answer: {ANSWER}")
    if where == "value":
        records.values.append(ValueRecord("hub.text", "hub", text=ANSWER.upper()))
    words = ANSWER.split() if where == "word by word" else [ANSWER]
    if where in ("csv", "word by word"):
        table = pd.DataFrame({"word": words, "number": 1.5})
        table.to_csv(folder / "figures" / FIGURE / "hub" / "data.csv", index=False)
    with pytest.raises(CompanionError, match="repeats words of a response"):
        packs.write(PROFILE, finished)
    assert not (paths.RESULTS / PROFILE).exists()


def test_a_figure_that_shows_an_answer_stays_at_home(finished):
    folder, records, run = finished[0]
    shutil.copytree(folder / "figures" / FIGURE, folder / "figures" / "fig-x-lora-scalar-heat-map")
    records.figures.append(replace(records.figures[0], id="fig-x-lora-scalar-heat-map"))
    packs.write(PROFILE, finished)
    assert [one.id for one in packs.read(paths.RESULTS / PROFILE).figures] == [FIGURE]


def _edit_number(folder: Path) -> None:
    record = json.loads((folder / "pack.json").read_text())
    record["measurements"][0]["value"] = 90.0
    write_json(folder / "pack.json", record)


DAMAGE = {
    "number edited": _edit_number,
    "data edited": lambda folder: (folder / "figures" / FIGURE / "data.csv").write_text("layer,em\n1,90\n"),
    "file missing": lambda folder: (folder / "figures" / FIGURE / "figure.svg").unlink(),
    "file added": lambda folder: (folder / "figures" / FIGURE / "more.csv").write_text("a\n1\n"),
    "cut short": lambda folder: (folder / "pack.json").write_text((folder / "pack.json").read_text()[:200]),
    "no JSON object": lambda folder: (folder / "pack.json").write_text("[]"),
    "moved": lambda folder: None,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_edited_pack_is_refused(finished, damage):
    folder = packs.write(PROFILE, finished)
    DAMAGE[damage](folder)
    if damage == "moved":
        folder = folder.rename(folder.with_name("qwen-14b"))
    said = f"is of profile '{PROFILE}': rename" if damage == "moved" else "damaged or was edited: restore its folder"
    with pytest.raises(CompanionError, match=said):
        packs.read(folder)


@pytest.mark.parametrize(("profile", "said"), [("cpu", "is grown"), (PROFILE, "has 0.0 MB")])
def test_what_makes_no_pack_is_said_and_the_earlier_one_stays(finished, profile, said, monkeypatch):
    packs.write(PROFILE, finished)
    monkeypatch.setattr(packs, "MOST_BYTES", 10)
    with pytest.raises(CompanionError, match=said):
        packs.write(profile, finished)
    assert asdict(packs.read(paths.RESULTS / PROFILE))["profile"] == PROFILE


def test_numbers_at_smoke_scale_make_no_pack(finished, monkeypatch):
    monkeypatch.setenv("EM_COMPANION_SCALE", "smoke")
    with pytest.raises(CompanionError, match="smoke scale"):
        packs.write(PROFILE, finished)


def test_committed_packs_are_whole_and_small():
    for path in paths.RESULTS.glob("*/pack.json"):
        pack = packs.read(path.parent)
        assert sum(one.stat().st_size for one in path.parent.rglob("*") if one.is_file()) < packs.MOST_BYTES
        assert pack.measurements and pack.figures


def test_a_pack_makes_no_page_stale(tmp_path, monkeypatch):
    monkeypatch.setattr(core, "RESULTS", tmp_path)
    (tmp_path / "worlds.csv").write_text("a\n1\n")
    before = core.fingerprint(None, frozenset({"RESULTS"}))
    (tmp_path / PROFILE / "figures" / FIGURE).mkdir(parents=True)
    (tmp_path / PROFILE / "figures" / FIGURE / "data.csv").write_text("a\n1\n")
    assert core.fingerprint(None, frozenset({"RESULTS"})) == before
    (tmp_path / "worlds.csv").write_text("a\n2\n")
    assert core.fingerprint(None, frozenset({"RESULTS"})) != before


def test_values_of_a_pack_have_names_of_their_own():
    own = [ValueRecord("probes.best", "grown", 1.0), ValueRecord("grown.em", "grown", 2.0)]
    pack = [
        ValueRecord("probes.best", "hub", 3.0),
        ValueRecord("hub.em", "hub", 4.0),
        ValueRecord("r", "released", 5.0),
    ]
    found = {name: one.value for name, one in assemble.values_by_name({"cpu": own, PROFILE: pack}, "cpu").items()}
    assert found == {"probes.best": 1, "grown.em": 2, f"{PROFILE}.probes.best": 3, f"{PROFILE}.em": 4}


@pytest.mark.book
def test_the_book_shows_what_packs_hold_beside_its_own_evidence():
    told = json.loads((paths.HTML / "claims.json").read_text(encoding="utf-8"))
    for path in paths.RESULTS.glob("*/pack.json"):
        pack = packs.read(path.parent)
        assert pack.profile in [one["profile"] for one in told["packs"]]
        for figure in pack.figures:
            own = paths.HTML / "figures" / f"{figure.id}-{pack.profile}"
            assert {"index.html", "figure.svg", "data.csv", "provenance.json", "cite.bib"} <= {
                one.name for one in own.iterdir()
            }
            notebook = json.loads((own / "provenance.json").read_text(encoding="utf-8"))["notebook"]
            page = (paths.HTML / "notebooks" / f"{notebook}.html").read_text(encoding="utf-8")
            assert f'figures/{figure.id}-{pack.profile}/index.html"' in page and f">\n{pack.name}</label>" in page
        predicted = json.loads((paths.HTML / "predictions.json").read_text(encoding="utf-8"))["predictions"]
        results = {row["id"]: row["results"].get("hub") for row in [*told["claims"], *predicted]}
        assert all(results[one.claim].get("value", one.value) == one.value for one in pack.measurements)
        assert all("how" in results[one.claim] for one in pack.measurements)
        prose = " ".join(path.read_text(encoding="utf-8") for path in (paths.ROOT / "book").glob("_*.md"))
        asked = [one for one in pages.VALUE.findall(prose) if one[0].startswith(f"{pack.profile}.")]
        given = {f"{pack.profile}.{one.name.removeprefix('hub.')}": one for one in pack.values}
        shown = "".join((paths.HTML / name).read_text(encoding="utf-8") for name in ("discussion.html", "index.html"))
        assert all(pages.printed(given[name], style or None) in shown for name, style in asked)
