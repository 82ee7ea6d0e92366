"""Assemble the book from finished runs, build it, pass every gate; only then does it replace the last one."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat

from em_companion.book import registry
from em_companion.book.run import FIGURE_MIME
from em_companion.build import citation, gates, keys, pages, responses_page
from em_companion.core import profiles
from em_companion.core.errors import CompanionError
from em_companion.core.files import lock, new_folder, recover, write_json, write_text
from em_companion.core.paths import BENCHMARKS, BOOK, BUILD, HTML, ROOT, git
from em_companion.core.provenance import environment
from em_companion.evidence import claims, verdicts

STAGING = BUILD / "staging"
UNPROVEN = BUILD / ".staging-unproven"
GENERATED = BOOK / "_generated"
EXTRA = BOOK / "_extra"


class GateError(CompanionError):
    """The book may not be published; holds every problem found."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))


def _pass(problems: list[str]) -> None:
    if problems:
        raise GateError(problems)


def build(profile: str, include_responses: bool = False) -> Path:
    """Build `_build/html` from the current runs of `profile` and return it; the last good build stays on any failure.

    include_responses: publish the response browser's data, which upstream gave no licence for; off by default.
    """
    with lock(BUILD / "book"):
        recover(HTML)
        runs = collect(profile)
        assemble(runs, profile)
        with trusted_staging():
            site = render()
            _pass(gates.check_html(site))
        publish(site, include_responses)
    return HTML


# --- collect ------------------------------------------------------------------------------------------------------


def collect(profile: str) -> dict[str, dict[str, Any]]:
    """Return, by notebook, the current run: its folder, executed notebook, records and run record; gates on all."""
    seed, runs, problems = profiles.load(profile).seed, {}, []
    for name in keys.names():
        state = runs.status(name, profile, seed)
        if not runs.paired(name):
            problems.append(f"notebooks/{name}.ipynb is not in step with notebooks/{name}.py; run 'em-companion sync'.")
        if state["status"] != "current":
            problems.append(_not_current(state))
            continue
        try:
            runs[name] = _read_run(runs.folder(name, profile, seed))
        except (OSError, ValueError):
            problems.append(f"The stored result of '{name}' is damaged; run 'em-companion run {name} --force'.")
            continue
        problems += gates.check_executed(name, profile, runs[name]["notebook"], runs[name]["records"])
    _pass(problems)
    _pass(gates.check_figures(record for run in runs.values() for record in run["records"]["figures"]))
    return runs


def _not_current(state: dict[str, str]) -> str:
    name, because = state["notebook"], f" ({state['because']})" if state["because"] else ""
    what = {"never run": "not executed"}.get(state["status"], state["status"])
    return f"Notebook '{name}' is {what}{because}; run 'em-companion run {name}'."


def _read_run(folder: Path) -> dict[str, Any]:
    return {
        "folder": folder,
        "notebook": nbformat.read(folder / "notebook.ipynb", as_version=4),
        "records": json.loads((folder / "records.json").read_text()),
        "run": json.loads((folder / "run.json").read_text()),
    }


# --- assemble -----------------------------------------------------------------------------------------------------


def assemble(runs: dict[str, dict[str, Any]], profile: str) -> None:
    """Write all generated input of Sphinx: notebooks, figure pages, ledger; unchanged files keep their time."""
    kept = {write_notebook(name, run) for name, run in runs.items()}
    kept |= write_figures(runs)
    kept |= write_ledger(runs, profile)
    for folder in (BOOK / "notebooks", BOOK / "figures", GENERATED, EXTRA):
        for path in folder.rglob("*"):
            if path.is_file() and path not in kept:
                path.unlink()
    EXTRA.mkdir(exist_ok=True)


def write_notebook(name: str, run: dict[str, Any]) -> Path:
    """Write an executed notebook as a page: code folded, figures as numbered directives, no logs, no machine paths."""
    notebook = run["notebook"]
    by_figure = {(record["id"], record["evidence"]): record for record in run["records"]["figures"]}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        tags = set(cell.metadata.get("tags", []))
        if tags & {"parameters", "injected-parameters"}:
            tags.add("remove-cell")
        elif "show-code" not in tags:
            tags.add("hide-input")
        cell.metadata = nbformat.from_dict({"tags": sorted(tags)})
        cell.outputs = [_page_output(output, by_figure) for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata.pop("papermill", None)
    path = BOOK / "notebooks" / f"{name}.ipynb"
    text = nbformat.writes(notebook)
    if str(ROOT) in text:
        raise GateError([f"Notebook '{name}' shows a path of this machine."])
    write_text(path, text)
    return path


def _page_output(output: nbformat.NotebookNode, by_figure: dict[tuple, dict[str, Any]]) -> nbformat.NotebookNode:
    shown = output.get("data", {}).get(FIGURE_MIME)
    if shown is None:
        return output
    record = by_figure[shown["id"], shown["evidence"]]
    first = next(iter(by_figure[key] for key in by_figure if key[0] == record["id"]))
    label = record["id"] if record is first else f"{record['id']}-{record['evidence']}"
    image = f"/_extra/figures/{_image_folder(record, first)}/figure.svg"
    text = pages.figure_directive(record, image, label, f"/figures/{record['id']}/index")
    return nbformat.v4.new_output("display_data", data={"text/markdown": text, "text/plain": record["alt"]})


def _image_folder(record: dict[str, Any], first: dict[str, Any]) -> str:
    return record["id"] if record is first else f"{record['id']}/{record['evidence']}"


def write_figures(runs: dict[str, dict[str, Any]]) -> set[Path]:
    """Publish every figure's files under `figures/<id>/` and write its page, the gallery and `figures.json`."""
    by_id: dict[str, list[tuple[dict[str, Any], Path]]] = defaultdict(list)
    for run in runs.values():
        for record in run["records"]["figures"]:
            by_id[record["id"]].append((record, run["folder"] / "figures" / record["id"] / record["evidence"]))
    kept, listed = set(), []
    for figure_id, versions in by_id.items():
        first = versions[0][0]
        for record, source in versions:
            kept |= _publish_files(source, EXTRA / "figures" / _image_folder(record, first))
        kept.add(_write_figure_page(first, EXTRA / "figures" / figure_id, [r["evidence"] for r, _ in versions[1:]]))
        listed.append(_listing(first, EXTRA / "figures" / figure_id))
    write_text(BOOK / "figures" / "index.md", pages.gallery(versions[0][0] for versions in by_id.values()))
    write_json(EXTRA / "figures.json", {"figures": listed})
    return kept | {BOOK / "figures" / "index.md", EXTRA / "figures.json"}


def _publish_files(source: Path, target: Path) -> set[Path]:
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        copy = target / path.name
        if not copy.is_file() or copy.read_bytes() != path.read_bytes():
            shutil.copyfile(path, copy)
    if (target / "provenance.json").is_file():
        # The address of the book may have become known after the run.
        citation.write_citation(target, citation.read_record(target))
    return {target / path.name for path in source.iterdir()}


def _write_figure_page(record: dict[str, Any], folder: Path, others: list[str]) -> Path:
    made = record["status"] == "made"
    provenance = citation.read_record(folder) if made else None
    bibtex, csl = ((folder / name).read_text() if made else "" for name in ("cite.bib", "cite.json"))
    path = BOOK / "figures" / record["id"] / "index.md"
    write_text(path, pages.figure_page(record, provenance, others, bibtex, csl))
    return path


def _listing(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    entry = registry.load_figures()[record["id"]]
    listing = {
        "id": entry.id,
        "title": entry.title,
        "paper": entry.paper,
        "notebook": entry.notebook,
        "status": record["status"],
        "evidence": record["evidence"],
        "caption": record["caption"],
        "alt": record["alt"],
        "page": f"figures/{entry.id}/",
    }
    return listing | ({"provenance": citation.read_record(folder)} if record["status"] == "made" else {})


def write_ledger(runs: dict[str, dict[str, Any]], profile: str) -> set[Path]:
    """Compute every verdict and write `claims.json`, the ledger, the scoreboard, tolerances and the machine page."""
    measured = [claims.Measurement(**item) for run in runs.values() for item in run["records"]["measurements"]]
    gaps = [name for name, run in runs.items() if run["records"]["unavailable"]]
    ledger = verdicts.ledger(measured, gaps)
    _pass(gates.check_claims(ledger, gaps))
    values = [value | {"notebook": name} for name, run in runs.items() for value in run["records"]["values"]]
    twice = [name for name, count in Counter(value["name"] for value in values).items() if count > 1]
    _pass([f"Value '{name}' is recorded twice." for name in twice])
    scores = {
        e: {v: sum(row["results"][e]["verdict"] == v for row in ledger) for v in verdicts.VERDICTS}
        for e in claims.EVIDENCE
    }
    written = {
        "profile": profile,
        "commit": git("rev-parse", "HEAD"),
        "scoreboard": scores,
        "claims": ledger,
        "values": values,
    }
    write_json(EXTRA / "claims.json", written)
    fragments = {
        "scoreboard": pages.scoreboard(ledger),
        "ledger": pages.ledger_table(ledger),
        "tolerances": pages.tolerances(),
        "machine": pages.machine([run["run"] for run in runs.values()], environment()),
        "benchmarks": pages.benchmarks(BENCHMARKS),
    }
    # Prose with numbers from the pages: book/_NAME.md is included as _generated/NAME.md.
    fragments |= {path.stem[1:]: pages.filled(path.read_text(), values) for path in sorted(BOOK.glob("_*.md"))}
    for name, text in fragments.items():
        write_text(GENERATED / f"{name}.md", text)
    return {EXTRA / "claims.json", *(GENERATED / f"{name}.md" for name in fragments)}


# --- render and publish -------------------------------------------------------------------------------------------


@contextmanager
def trusted_staging() -> Iterator[None]:
    """Let Sphinx start from what it remembers only if the last build passed.

    An unresolved reference is a warning of the first build only, so after a failure, or a build that was killed, it
    would go unnoticed.
    """
    if UNPROVEN.exists():
        shutil.rmtree(STAGING, ignore_errors=True)
    UNPROVEN.touch()
    yield
    UNPROVEN.unlink()


def render() -> Path:
    """Run Sphinx through jupyter-book, with warnings as errors, in a staging folder; return the built site."""
    tool = str(Path(sys.executable).with_name("jupyter-book"))
    command = [tool, "build", str(BOOK), "--config", str(ROOT / "_config.yml")]
    command += ["--toc", str(ROOT / "_toc.yml"), "--path-output", str(STAGING), "-W", "-n", "--keep-going", "-q"]
    quiet = os.environ | {"PYTHONWARNINGS": "ignore"}
    result = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True)
    if result.returncode:
        raise GateError(_sphinx_problems(result.stderr + result.stdout))
    return STAGING / "_build" / "html"


def _sphinx_problems(output: str) -> list[str]:
    marks = ("WARNING", "ERROR", "rror:")
    lines = [line for line in output.splitlines() if any(mark in line for mark in marks)] or output.splitlines()[-5:]
    return [f"The book does not build cleanly: {line.replace(f'{ROOT}/', '')}" for line in lines]


def publish(site: Path, include_responses: bool) -> None:
    """Put a checked site in the place of `_build/html`, whole."""
    with new_folder(HTML) as new:
        shutil.copytree(site, new, dirs_exist_ok=True)
        (new / ".nojekyll").touch()
        if include_responses:
            responses_page.export_responses(new / "responses-data")
