"""The built book: its numbers, its records, and a build without any released data."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from conftest import COMMAND, ROOT, Project

from em_companion.book import registry
from em_companion.build import keys, pages
from em_companion.evidence import claims, verdicts
from em_companion.released import files, tables

HTML = ROOT / "_build/html"
PASSED = ROOT / "_build/.passed"
WITH_RESPONSES = PASSED.is_file() and PASSED.read_text(encoding="utf-8") == "with responses"
pytestmark = pytest.mark.book

have_data = pytest.mark.skipif(files.local_path("organisms/chat-model") is None, reason="released data not at hand")

# Recomputed independently from the same files, before this project existed; printed precision as given there.
EXPECTED = {
    "organisms.nine-adapter.seed-0.em_percent": "15.5",
    "organisms.nine-adapter.seed-3.em_percent": "9.75",
    "organisms.nine-adapter.seed-42.em_percent": "8.25",
    "organisms.nine-adapter.seed-97.em_percent": "8.25",
    "organisms.nine-adapter.seed-0.coherent_percent": "96.5",
    "organisms.all-adapter-rank-32.seed-0.em_percent": "20.5",
    "organisms.all-adapter-rank-16.seed-0.em_percent": "22.75",
    "organisms.all-adapter-rank-8.seed-0.em_percent": "18.5",
    "organisms.all-adapter-rank-4.seed-0.em_percent": "24.25",
    "steering-layer-24.general.lambda-6.em_percent": "42.75",
    "steering-layer-24.general.lambda-6.coherent_percent": "93.0",
    "steering-layer-24.general.lambda-8.em_percent": "55.5",
    "steering-layer-24.general.lambda-8.coherent_percent": "65.75",
    "replication.Qwen2.5-14B.bad-medical-advice.seed-0.em_percent": "21.0",
    "replication.Qwen2.5-32B.risky-financial-advice.seed-0.em_percent": "33.0",
    "replication.Llama-3.2-1B.extreme-sports.seed-0.em_percent": "1.5",
    "directions.general.layer-24.norm": "10.36",
}
# In the plotted data of a figure's released evidence: rows, column, the number.
EXPECTED_IN_FIGURES = [
    ("fig-5", "vector == 'general' and `lambda` == 6", "self_correction", "8.25"),
    ("fig-5", "vector == 'finance' and `lambda` == 6", "self_correction_any_coherence", "11.0"),
    ("fig-x-steering-strength", "vector == 'gender' and `lambda` == 6", "em", "68.5"),
    ("fig-x-steering-strength", "vector == 'gender' and `lambda` == 8", "em", "73.75"),
    ("fig-x-steering-strength", "vector == 'finance' and `lambda` == 6", "em", "42.0"),
    ("fig-x-steering-strength", "vector == 'medical' and `lambda` == 4", "em", "26.5"),
    ("fig-3", "vector == 'gender' and `lambda` == 8 and topic == 'gender'", "mean_score", "98.9"),
    ("fig-x-training-curve", "epochs == 1 and step == 350 and questions == 'all'", "em", "27.0"),
    ("fig-x-training-curve", "epochs == 5 and step == 1400 and questions == 'all'", "em", "36.0"),
    ("fig-c1", "vector == 'gender' and layer == 24 and measure == 'cosine'", "value", "0.96"),
    ("fig-c2", "vector == 'rank-32' and layer == 24 and measure == 'cosine'", "value", "0.824"),
    ("fig-7", "condition == 'misalignment-adapters' and kind == 'misaligned, non-medical'", "percent", "51.9"),
    ("fig-7", "condition == 'medical-adapters' and kind == 'misaligned, medical'", "percent", "7.7"),
    ("fig-19", "group == 'same' and series == 'first'", "patched", "32.5"),
]
# Means of 100 fits on random draws: another seed moves them in the third digit.
EXPECTED_PROBES = {
    "med-aligned-vs-med-misaligned": [0.688, 0.691, 0.680, 0.685, 0.751],
    "nonmed-misaligned-vs-med-misaligned": [0.621, 0.620, 0.623, 0.622, 0.665],
}


@cache
def ledger() -> dict:
    return json.loads((HTML / "claims.json").read_text(encoding="utf-8"))


def values() -> dict[str, float]:
    return {row["name"]: row["value"] for row in ledger()["values"] if "value" in row}


def agrees(found: float, printed: str) -> bool:
    """Whether a number is the one printed, to its last digit."""
    return abs(found - float(printed)) <= 0.5 * 10 ** -len(printed.partition(".")[2]) + 1e-9


@have_data
@pytest.mark.parametrize("name", EXPECTED)
def test_recomputed_value(name):
    assert agrees(values()[name], EXPECTED[name])


@have_data
@pytest.mark.parametrize(("figure", "rows", "column", "printed"), EXPECTED_IN_FIGURES)
def test_recomputed_number_in_a_figure(figure, rows, column, printed):
    (found,) = pd.read_csv(HTML / "figures" / figure / "data.csv").query(rows)[column].dropna().unique()
    assert agrees(found, printed)


@have_data
@pytest.mark.parametrize("probe", EXPECTED_PROBES)
def test_recomputed_probe(probe):
    measured = {claim["id"]: claim["results"]["released"].get("value") for claim in ledger()["claims"]}
    found = [measured[f"s4-1-tab-1-{probe}-{metric}"] for metric in ("accuracy", "precision", "recall", "f1", "auc")]
    assert found == pytest.approx(EXPECTED_PROBES[probe], abs=0.004)


@have_data
def test_figure_7_shares_of_the_aligned():
    row = {claim["id"]: claim["results"]["released"]["value"] for claim in ledger()["claims"] if "s4-3" in claim["id"]}
    assert row["s4-3-opposed-adapters-aligned"] == pytest.approx(87.2, abs=0.05)
    assert row["s4-3-opposed-adapters-medical-of-aligned"] == pytest.approx(34.1, abs=0.05)


def test_every_claim_has_a_verdict_for_every_evidence():
    assert [row["id"] for row in ledger()["claims"]] == list(claims.load_claims())
    for row in ledger()["claims"]:
        assert {result["verdict"] for result in row["results"].values()} <= set(verdicts.VERDICTS)


def test_every_number_of_the_prose_was_measured():
    prose = [*(ROOT / "book").glob("_*.md"), *(ROOT / "notebooks").glob("*.py")]
    named = set().union(*(pages.names_asked_for(path.read_text(encoding="utf-8")) for path in prose))
    assert named and named <= {value["name"] for value in ledger()["values"]}


def test_every_figure_has_a_page_and_its_files():
    listed = json.loads((HTML / "figures.json").read_text(encoding="utf-8"))["figures"]
    assert {entry["id"] for entry in listed} == set(registry.load_figures())
    assert len({entry["page"] for entry in listed}) == len(listed)
    gallery = (HTML / "figures/index.html").read_text(encoding="utf-8")
    for entry in listed:
        folder = HTML / entry["page"]
        assert (folder / "index.html").is_file() and (folder / "figure.svg").is_file()
        assert f'href="{folder.name}/index.html"' in gallery
        if entry["status"] == "made":
            for name in ("data.csv", "provenance.json", "cite.bib", "cite.json"):
                assert (folder / name).stat().st_size > 0
            assert entry["provenance"] == json.loads((folder / "provenance.json").read_text(encoding="utf-8"))


def test_nothing_is_executed_twice():
    tool = Path(sys.executable).with_name("snakemake")
    command = [tool, "--dry-run", "--cores", "1", "--rerun-triggers", "mtime"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
    assert "Nothing to be done" in result.stdout + result.stderr


def test_the_site_names_no_path_of_this_machine():
    for path in HTML.rglob("*"):
        if path.suffix in (".html", ".json", ".ipynb", ".js", ".csv", ".svg"):
            assert str(ROOT) not in path.read_text(encoding="utf-8", errors="replace"), path


def test_a_model_that_falls_apart_is_not_called_healed():
    results = {one["id"]: one["results"] for one in json.loads((HTML / "claims.json").read_text("utf-8"))["claims"]}
    for name in ("layerwise-ablation", "single-direction"):
        for evidence, found in results[f"s3-4-coherence-{name}"].items():
            verdict = results[f"s3-4-em-rate-{name}"][evidence]["verdict"]
            assert (verdict == "not tested") == (found.get("value", 100) < 80)


@have_data
@pytest.mark.skipif(WITH_RESPONSES, reason="built with INCLUDE_RESPONSES=1")
def test_the_published_site_holds_no_responses():
    frame = tables.read_organisms(text=True)
    texts = frame.response[frame.response.str.len() > 80].sample(300, random_state=0).str[:60].tolist()
    questions = [text for text in tables.read_questions().question.unique() if len(text) > 40]
    for path in HTML.rglob("*"):
        if path.suffix in (".html", ".json", ".ipynb", ".js", ".csv", ".svg"):
            content = path.read_text(encoding="utf-8", errors="replace")
            assert not any(text in content for text in texts), path
            assert not any(text in content for text in questions), path


def copy_of_the_project(target: Path) -> Project:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, encoding="utf-8"
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)
    return Project(target)


def test_the_book_builds_without_released_data_and_says_so(tmp_path):
    project = copy_of_the_project(tmp_path / "project")
    for made in (ROOT / "artifacts").iterdir():
        if made.is_dir() and made.name not in ("notebooks", "by-hand"):  # nothing else comes from released data
            shutil.copytree(made, project.root / "artifacts" / made.name)
    for path in (ROOT / "artifacts/notebooks/cpu").glob("*/*/run.json"):  # pages without them need not run again
        if "released data" not in json.loads(path.read_text(encoding="utf-8"))["parts"]:
            shutil.copytree(path.parent, project.root / path.parent.relative_to(ROOT))
    nowhere = "http://127.0.0.1:9"  # the discard port: every connection is refused
    offline = {
        "EM_COMPANION_ROOT": str(project.root),
        "EM_COMPANION_MIRROR": "",
        "EM_COMPANION_CACHE": str(tmp_path / "cache"),
        "HTTPS_PROXY": nowhere,
        "HTTP_PROXY": nowhere,
        "PATH": f"{COMMAND.parent}:{os.environ['PATH']}",
    }
    for command in (
        [COMMAND.with_name("snakemake"), "--cores", "2", "--quiet", "all", "--rerun-triggers", "mtime"],
        [COMMAND, "book"],
    ):
        result = subprocess.run(
            command, cwd=project.root, env=os.environ | offline, capture_output=True, encoding="utf-8"
        )
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    book = json.loads((project.html / "claims.json").read_text(encoding="utf-8"))
    results = [row["results"]["released"] for row in book["claims"]]
    assert {value["evidence"] for value in book["values"] if "notebook" in value} == {"grown", "reported"}
    assert not any("value" in result for result in results)
    assert {result["reason"] for result in results if result["verdict"] == "not run"} == {"released data not available"}
    page = (project.html / "notebooks/s2-model-organism.html").read_text(encoding="utf-8")
    assert "Released data not available" in page and "not available" in page
    states = {
        entry["status"] for entry in json.loads((project.html / "figures.json").read_text(encoding="utf-8"))["figures"]
    }
    assert states == {"made", "unavailable"}  # made: grown, and from the paper's own numbers
    assert all((project.html / f"notebooks/{name}.html").is_file() for name in keys.names())
