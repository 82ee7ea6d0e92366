"""Each gate, shown failing: on a small real project for what the build sees, on small pages for what a browser sees."""

import json
import time

import nbformat
import pytest
from bs4 import BeautifulSoup
from conftest import ALT, Project

from em_companion.build import gates
from em_companion.core.files import sha256_by_path, write_sealed


def break_run(built: Project, name: str, change, seal: bool = True) -> None:
    """Change a file of the finished run, as faulty code might have written it, or under its old seal."""
    path = next((built.root / "artifacts/notebooks/cpu/s2-demo").glob(f"*/{name}"))
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    if seal:
        run = json.loads((path.parent / "run.json").read_text(encoding="utf-8"))
        run |= {"files": sha256_by_path(path.parent, "run.json")}
        del run["sha256"]
        write_sealed(path.parent / "run.json", run)


def test_book_builds_and_says_where(built):
    result = built.run("book")
    assert result.returncode == 0, result.stderr
    page = (built.html / "notebooks/s2-demo.html").read_text(encoding="utf-8")
    assert "50.0\u00a0%" in page and "&lt;script&gt;alert(1)" in page and "<script>alert(1)" not in page
    record = json.loads((built.html / "figures/fig-x-line/provenance.json").read_text(encoding="utf-8"))
    assert {
        "commit",
        "dirty",
        "notebook",
        "seed",
        "profile",
        "model",
        "versions",
        "hardware",
        "seconds",
        "date",
        "inputs",
    } <= set(record)
    gallery = (built.html / "figures/index.html").read_text(encoding="utf-8")
    for place, alt in {"fig-x-line": ALT, "fig-x-line-grown": "The same line."}.items():
        for name in ("index.html", "figure.svg", "figure.png", "figure.pdf", "data.csv", "cite.bib", "cite.json"):
            assert (built.html / "figures" / place / name).stat().st_size > 0
        assert f'href="{place}/index.html"' in gallery and f'href="../figures/{place}/index.html"' in page
        own = (built.html / "figures" / place / "index.html").read_text(encoding="utf-8")
        for shown in (own, page):
            assert f"Up to 50 %. {alt}" in [one["alt"] for one in BeautifulSoup(shown, "lxml").select("img.em-figure")]
    ledger = json.loads((built.html / "claims.json").read_text(encoding="utf-8"))
    assert ledger["claims"][0]["results"]["released"]["verdict"] == "reproduced"
    assert set(ledger) == {"profile", "commit", "scoreboard", "claims", "packs", "values", "sha256"}
    value = {"name": "demo.em", "value": 50.0, "unit": "percent", "low": 0.0, "high": 100.0, "n": 2}
    own = [one for one in ledger["values"] if "notebook" in one]
    assert own == [value | {"evidence": "released", "notebook": "s2-demo"}]
    counts = {one["name"]: one["value"] for one in ledger["values"] if "notebook" not in one}
    assert counts["scoreboard.own.released.tests"] + counts["scoreboard.independent.released.tests"] > 0


def keeps_last_good_build(built: Project, saying: str) -> None:
    before = (built.html / "index.html").read_bytes()
    built.fails("book", saying=saying)
    assert (built.html / "index.html").read_bytes() == before
    assert not list((built.root / "_build").glob(".html.*"))


def test_stale_notebook(built):
    built.edit("notebooks/s2-demo.py", "rate.value]})\n    figure", "rate.value + 0.0]})\n    figure")
    assert built.run("sync").returncode == 0
    keeps_last_good_build(built, "Notebook 's2-demo' is stale (its cells changed)")


def test_prose_does_not_make_a_notebook_stale(built):
    built.edit("notebooks/s2-demo.py", "# A small page", "# A page with another title")
    assert built.run("sync").returncode == 0
    assert "current" in built.run("status").stdout
    assert built.run("book").returncode == 0
    assert "A page with another title" in (built.html / "notebooks/s2-demo.html").read_text(encoding="utf-8")


def test_nothing_changed_builds_nothing_unless_the_last_build_failed(built):
    def site() -> int:
        result = built.run("book")
        assert result.returncode == 0, result.stderr
        return built.html.stat().st_ino  # a new site is a new folder

    first = built.html.stat().st_ino
    assert site() == first
    built.edit("book/index.md", 'href="claims.json"', 'href="clams.json"')
    keeps_last_good_build(built, "broken link to 'clams.json'")
    built.edit("book/index.md", 'href="clams.json"', 'href="claims.json"')
    second = site()  # as before, but what Sphinx remembers has not passed
    assert second != first and site() == second


def test_value_that_nobody_recorded(built):
    built.write("book/_numbers.md", "It is {value}`demo.ems`.\n")
    keeps_last_good_build(built, "book/_numbers.md asks for value 'demo.ems', which no notebook recorded.")
    gap = {"unavailable": [{"evidence": "released", "why": "no network"}]}
    break_run(built, "records.json", lambda text: json.dumps(json.loads(text) | gap))
    assert built.run("book").returncode == 0
    assert (built.root / "book/_generated/numbers.md").read_text(encoding="utf-8") == "It is not run.\n"


def test_never_executed(project):
    project.fails("book", saying="Notebook 's2-demo' is not executed")


def test_failing_cell_leaves_the_last_result(built):
    built.edit("notebooks/s2-demo.py", "run.finish()", "run.finish()\nraise ValueError('broken on purpose')")
    assert built.run("sync").returncode == 0
    built.fails("run", "s2-demo", saying="failed in cell 6: ValueError: broken on purpose")
    runs = list((built.root / "artifacts/notebooks/cpu/s2-demo").glob("*/run.json"))
    assert len(runs) == 1
    keeps_last_good_build(built, "is stale")


def test_failed_notebook_that_papermill_wrote(built):
    def fail(text: str) -> str:
        notebook = nbformat.reads(text, as_version=4)
        notebook.cells[-1].outputs = [nbformat.v4.new_output("error", ename="E", evalue="e", traceback=[])]
        return nbformat.writes(notebook)

    break_run(built, "notebook.ipynb", fail)
    keeps_last_good_build(built, "Notebook 's2-demo' failed")


def test_missing_alt_text(built):
    for name in ("records.json", "notebook.ipynb"):
        break_run(built, name, lambda text: text.replace('"alt": "The same line."', '"alt": " "'))
    keeps_last_good_build(built, "Figure 'fig-x-line' has no alt.")


def test_claim_without_measurement(built):
    claims = (built.root / "data/claims.yml").read_text(encoding="utf-8")
    built.write("data/claims.yml", claims + claims.removeprefix("claims:\n").replace("s2-", "s9-"))
    keeps_last_good_build(built, "Claim 's9-rate' can be tested with released data")


RECORDS = {
    "Notebook 's2-demo' shows other figures than it recorded.": lambda records: records | {"figures": []},
    "Notebook 's2-demo' shows other numbers than it recorded.": lambda records: records | {"measurements": []},
    "Value 'demo.em' is recorded twice.": lambda records: records | {"values": 2 * records["values"]},
    "ran under profile 'gpu', not 'cpu'": lambda records: records | {"profile": "gpu"},
}


@pytest.mark.parametrize("saying", RECORDS)
def test_records_that_do_not_go_with_the_page_or_the_build(built, saying):
    break_run(built, "records.json", lambda text: json.dumps(RECORDS[saying](json.loads(text))))
    keeps_last_good_build(built, saying)


def test_unresolved_reference(built):
    built.edit("book/index.md", "# Front", "# Front\n\n{doc}`nowhere`")
    keeps_last_good_build(built, "nowhere")
    keeps_last_good_build(built, "nowhere")  # Sphinx warns once; the gate must not forget


def test_unresolved_reference_after_a_build_was_killed_in_sphinx(built):
    built.write(
        "book/index.md", (built.root / "book/index.md").read_text(encoding="utf-8") + "\nSee {doc}`no-such-page`.\n"
    )
    page, before = built.root / "_build/staging/_build/html/index.html", time.time()
    built.kill("book", once=lambda: page.stat().st_mtime >= before)
    keeps_last_good_build(built, "no-such-page")


@pytest.mark.parametrize("seal", [True, False])
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
@pytest.mark.parametrize("name", ["notebook.ipynb", "records.json"])
def test_damaged_result(built, name, text, seal):
    break_run(built, name, lambda _: text, seal)
    keeps_last_good_build(built, "The stored result of 's2-demo' is damaged or was edited; run 'em-companion run")


@pytest.mark.parametrize("name", ["records.json", "figures/fig-x-line/released/data.csv", "run.json"])
def test_a_result_that_was_edited(built, name):
    break_run(built, name, lambda text: text.replace("50.0", "51.0").replace('"commit": "', '"commit": "f'), seal=False)
    keeps_last_good_build(built, "is damaged or was edited; run 'em-companion run s2-demo --force'.")


@pytest.mark.parametrize(
    "key, old, new, saying",
    [
        (
            "data/claims.yml",
            "relation: equals",
            "relation: resembles",
            "data/claims.yml, 's2-rate': 'relation' must be",
        ),
        ("data/claims.yml", "claims:", "claims: [", "data/claims.yml is malformed"),
        (
            "data/figures.yml",
            "title: A line",
            "heading: A line",
            "'fig-x-line': it has a missing or unknown key: heading",
        ),
        ("data/profiles/cpu.yml", "seed: 0", "sede: 0", "cpu.yml: the file has a missing or unknown key: sede, seed"),
        ("_toc.yml", "root: index", "root: [", "_toc.yml is malformed: line"),
        (
            "data/figures.yml",
            "figures:",
            "figures:\n  - {id: fig-x-new, title: T, notebook: s9, paper: ''}",
            "Figure 'fig-x-new' is registered but no notebook recorded it",
        ),
        ("notebooks/s2-demo.py", "A small page", "Another title", "not in step with notebooks/s2-demo.py"),
    ],
)
def test_a_file_that_is_malformed_or_out_of_step(built, key, old, new, saying):
    built.edit(key, old, new)
    keeps_last_good_build(built, saying)


# --- pages ----------------------------------------------------------------------------------------------------------


def site(tmp_path, body: str):
    (tmp_path / "index.html").write_text(f"<html><body>{body}</body></html>", encoding="utf-8")
    (tmp_path / "other.html").write_text("<html><body><h1 id='here'>x</h1></body></html>", encoding="utf-8")
    return gates.check_html(tmp_path)


@pytest.mark.parametrize(
    "body",
    [
        "<a href='other.html#here'>x</a>",
        "<a href='https://example.org/x'>x</a>",
        "<a href='#top'>x</a>",
        "<img src='other.html' alt='x'>",
    ],
)
def test_sound_page(tmp_path, body):
    assert site(tmp_path, body) == []


@pytest.mark.parametrize(
    "body, saying",
    [
        ("<a href='gone.html'>x</a>", "broken link to 'gone.html'"),
        ("<a href='other.html#gone'>x</a>", "broken link to 'other.html#gone'"),
        ("<a href='../outside.html'>x</a>", "broken link"),
        ("<img src='other.html'>", "no alt text"),
        ("<img src='other.html' alt=' '>", "no alt text"),
        ("<script src='gone.js'></script>", "broken link to 'gone.js'"),
    ],
)
def test_broken_page(tmp_path, body, saying):
    assert any(saying in problem for problem in site(tmp_path, body))
