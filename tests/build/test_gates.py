"""Each gate, shown failing: on a small real project for what the build sees, on small pages for what a browser sees."""

import json
import os
import signal
import subprocess
import time

import nbformat
import pytest
from bs4 import BeautifulSoup
from conftest import COMMAND, Project

from em_companion.build import gates


def break_run(built: Project, name: str, change) -> None:
    """Change a file of the finished run, as a crash or a careless hand might."""
    path = next((built.root / "artifacts/notebooks/cpu/s2-demo").glob(f"*/{name}"))
    path.write_text(change(path.read_text()))


def test_book_builds_and_says_where(built):
    result = built.run("book")
    assert result.returncode == 0, result.stderr
    page = (built.html / "notebooks/s2-demo.html").read_text()
    assert "50.0\u00a0%" in page and "&lt;script&gt;alert(1)" in page and "<script>alert(1)" not in page
    record = json.loads((built.html / "figures/fig-x-line/provenance.json").read_text())
    assert {
        "commit",
        "dirty",
        "notebook",
        "parameters",
        "seed",
        "profile",
        "model",
        "versions",
        "hardware",
        "seconds",
        "date",
        "inputs",
    } <= set(record)
    for name in ("index.html", "figure.svg", "figure.png", "figure.pdf", "data.csv", "cite.bib", "cite.json"):
        assert (built.html / "figures/fig-x-line" / name).stat().st_size > 0
    ledger = json.loads((built.html / "claims.json").read_text())
    assert ledger["claims"][0]["results"]["released"]["verdict"] == "reproduced"
    assert ledger["values"][0] == {
        "name": "demo.em_percent",
        "value": 50.0,
        "unit": "percent",
        "notebook": "s2-demo",
        "evidence": "released",
    }


def test_any_alt_text_reaches_the_page_as_text(project):
    alt = """'Quoted' and "double": 100 % #1, a \\\\ and <b>bold</b> `code`"""
    project.edit("notebooks/s2-demo.py", 'alt="A rising line."', f"alt={alt!r}")
    for command in (["sync"], ["run", "s2-demo"], ["book"]):
        result = project.run(*command)
        assert result.returncode == 0, result.stderr
    for page in ("notebooks/s2-demo.html", "figures/fig-x-line/index.html"):
        soup = BeautifulSoup((project.html / page).read_text(), "lxml")
        assert soup.select_one("img.em-figure")["alt"] == alt


def keeps_last_good_build(built: Project, saying: str) -> None:
    before = (built.html / "index.html").read_bytes()
    built.fails("book", saying=saying)
    assert (built.html / "index.html").read_bytes() == before
    assert not list((built.root / "_build").glob(".html.*"))


def test_stale_notebook(built):
    built.edit("notebooks/s2-demo.py", "rate.percent]})\n    figure", "rate.percent + 0.0]})\n    figure")
    assert built.run("sync").returncode == 0
    keeps_last_good_build(built, "Notebook 's2-demo' is stale (code cells changed)")


def test_prose_does_not_make_a_notebook_stale(built):
    built.edit("notebooks/s2-demo.py", "# A small page", "# A page with another title")
    assert built.run("sync").returncode == 0
    assert "current" in built.run("status").stdout


def test_unpaired_notebook(built):
    built.edit("notebooks/s2-demo.py", "# A small page", "# A page with another title")
    keeps_last_good_build(built, "not in step with notebooks/s2-demo.py")


def test_never_executed(project):
    project.fails("book", saying="Notebook 's2-demo' is not executed")


def test_failing_cell_leaves_the_last_result(built):
    built.edit("notebooks/s2-demo.py", "run.finish()", "run.finish()\nraise ValueError('broken on purpose')")
    assert built.run("sync").returncode == 0
    built.fails("run", "s2-demo", saying="failed in cell 6: ValueError: broken on purpose")
    runs = list((built.root / "artifacts/notebooks/cpu/s2-demo").glob("*/run.json"))
    assert len(runs) == 1
    keeps_last_good_build(built, "is stale")


def test_notebook_without_finish(project):
    project.edit("notebooks/s2-demo.py", "run.finish()", "pass")
    assert project.run("sync").returncode == 0
    project.fails("run", "s2-demo", saying="ended without run.finish()")


def test_failed_notebook_that_papermill_wrote(built):
    def fail(text: str) -> str:
        notebook = nbformat.reads(text, as_version=4)
        notebook.cells[-1].outputs = [nbformat.v4.new_output("error", ename="E", evalue="e", traceback=[])]
        return nbformat.writes(notebook)

    break_run(built, "notebook.ipynb", fail)
    keeps_last_good_build(built, "Notebook 's2-demo' failed")


def test_other_profile(built):
    break_run(built, "records.json", lambda text: text.replace('"profile": "cpu"', '"profile": "gpu"'))
    keeps_last_good_build(built, "ran under profile 'gpu', not 'cpu'")


def test_missing_alt_text(built):
    break_run(built, "records.json", lambda text: text.replace('"A rising line."', '" "'))
    keeps_last_good_build(built, "Figure 'fig-x-line' has no alt.")


def test_alt_text_and_caption_are_required_when_drawn(project):
    project.edit("notebooks/s2-demo.py", 'alt="A rising line."', 'alt=""')
    assert project.run("sync").returncode == 0
    project.fails("run", "s2-demo", saying="has no alt text")


def test_figure_without_record(built):
    break_run(built, "records.json", lambda text: json.dumps(json.loads(text) | {"figures": []}))
    keeps_last_good_build(built, "Figure 'fig-x-line' is registered but no notebook recorded it")


def test_claim_without_measurement(built):
    break_run(built, "records.json", lambda text: json.dumps(json.loads(text) | {"measurements": []}))
    keeps_last_good_build(built, "Claim 's2-rate' can be tested with released data")


def test_unresolved_reference(built):
    built.edit("book/index.md", "# Front", "# Front\n\n{doc}`nowhere`")
    keeps_last_good_build(built, "nowhere")
    keeps_last_good_build(built, "nowhere")  # Sphinx warns once; the gate must not forget


def test_unresolved_reference_after_a_build_was_killed_in_sphinx(built):
    built.write("book/index.md", (built.root / "book/index.md").read_text() + "\nSee {doc}`no-such-page`.\n")
    page, before = built.root / "_build/staging/_build/html/index.html", time.time()
    environment = os.environ | {"EM_COMPANION_ROOT": str(built.root), "EM_COMPANION_MIRROR": ""}
    process = subprocess.Popen(
        [COMMAND, "book"], env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )
    while process.poll() is None and page.stat().st_mtime < before:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    keeps_last_good_build(built, "no-such-page")


@pytest.mark.parametrize("name", ["notebook.ipynb", "records.json"])
def test_damaged_result(built, name):
    break_run(built, name, lambda text: text[:100])
    keeps_last_good_build(built, "The stored result of 's2-demo' is damaged")


def test_broken_internal_link(built):
    built.edit("book/index.md", 'href="claims.json"', 'href="clams.json"')
    keeps_last_good_build(built, "broken link to 'clams.json'")


@pytest.mark.parametrize(
    "key, old, new, saying",
    [
        ("data/claims.yml", "relation: equals", "relation: resembles", "claim 's2-rate': unknown relation 'resembles'"),
        ("data/claims.yml", "    unit: percent\n", "", "claim 's2-rate' has a missing or unknown key: unit"),
        ("data/claims.yml", "claims:", "claims: [", "data/claims.yml is malformed"),
        ("data/figures.yml", "title: A line", "heading: A line", "data/figures.yml is malformed"),
        ("data/figures.yml", "figures:", "- figures", "data/figures.yml is malformed"),
        ("data/figures.yml", "title: A line", "title: 5", "'title' must be text"),
        ("data/figures.yml", "id: fig-x-line", "id: ../fig-x-line", "no figure id"),
        ("data/claims.yml", "evidence: [released]", "evidence: 5", "'evidence' must be a list"),
        ("data/claims.yml", "unit: percent", "unit: [percent]", "'unit' must be text"),
        ("data/claims.yml", "reported: 50", 'reported: "eleven"', "values must be numbers"),
        ("data/claims.yml", "sample_size: 400", "sample_size: many", "'sample_size' belongs to"),
        ("data/claims.yml", 'section: "2"', 'section: ""', "no text may be empty"),
        ("data/profiles/cpu.yml", "seed:", "\tseed: [", "data/profiles/cpu.yml is malformed"),
        ("_toc.yml", "root: index", "root: [", "_toc.yml is malformed: line"),
        ("data/profiles/cpu.yml", "seed: 0", "sede: 0", "data/profiles/cpu.yml: missing or unknown key: sede, seed"),
    ],
)
def test_malformed_registry(built, key, old, new, saying):
    built.edit(key, old, new)
    keeps_last_good_build(built, saying)


# --- pages ----------------------------------------------------------------------------------------------------------


def site(tmp_path, body: str):
    (tmp_path / "index.html").write_text(f"<html><body>{body}</body></html>")
    (tmp_path / "other.html").write_text("<html><body><h1 id='here'>x</h1></body></html>")
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
