"""Assemble the book from finished runs, build it, pass every gate; only then does it replace the last one."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from em_companion.book import registry
from em_companion.book.records import KINDS, MIME, FigureRecord, RunRecord, ValueRecord
from em_companion.build import citation, gates, keys, pages, responses_page, runs
from em_companion.core import profiles
from em_companion.core.errors import CompanionError
from em_companion.core.files import lock, new_folder, recover, sha256_of, write_json, write_text
from em_companion.core.paths import BENCHMARKS, BOOK, BUILD, HTML, NOTEBOOKS, ROOT, SOURCE, git, relative
from em_companion.core.provenance import environment
from em_companion.evidence import claims, verdicts

STAGING = BUILD / "staging"
UNPROVEN = BUILD / ".staging-unproven"
PROVEN = BUILD / ".proven"
"""What the site in `_build/html` was built from, as `fingerprint` tells it; not there while a build is at work."""
GENERATED = BOOK / "_generated"
EXTRA = BOOK / "_extra"


class GateError(CompanionError):
    """The book may not be published; holds every problem found."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))


def _pass(problems: list[str]) -> None:
    if problems:
        raise GateError(problems)


@dataclass(frozen=True)
class Page:
    """A notebook as it is now, and its current run: folder, executed notebook, what it recorded, and `run.json`."""

    source: NotebookNode
    folder: Path
    notebook: NotebookNode
    records: RunRecord
    run: dict[str, Any]

    @property
    def name(self) -> str:
        return self.records.notebook


def build(profile: str, include_responses: bool = False) -> Path:
    """Build `_build/html` from the current runs of `profile` and return it; the last good build stays on any failure.

    Nothing is rendered where the last site came from the same input and passed every gate.
    include_responses: publish the response browser's data, which upstream gave no licence for; off by default.
    """
    with lock(BUILD / "book"):
        recover(HTML)
        proven = PROVEN.read_text(encoding="utf-8") if HTML.is_dir() and PROVEN.is_file() else ""
        PROVEN.unlink(missing_ok=True)
        assemble(collect(profile), profile)
        now = fingerprint()
        if include_responses or now != proven:
            with trusted_staging():
                site = render()
                _pass(gates.check_html(site))
            publish(site, include_responses)
        if not include_responses:
            write_text(PROVEN, now)
    return HTML


def fingerprint() -> str:
    """Return a fingerprint of all that Sphinx reads and of the code that builds and checks."""
    inputs = [ROOT / name for name in ("_config.yml", "_toc.yml", "requirements.lock")]
    inputs += [*BOOK.rglob("*"), *(SOURCE / "build").glob("*.py"), *(SOURCE / "build" / "templates").iterdir()]
    files = sorted(path for path in inputs if path.is_file())
    return sha256_of("".join(f"{relative(path)} {sha256_of(path.read_bytes())}\n" for path in files))


# --- collect ------------------------------------------------------------------------------------------------------


def collect(profile: str) -> list[Page]:
    """Return the current run of every notebook, in the order of the book; gates on all of them."""
    seed, found, problems = profiles.load(profile).seed, [], []
    for name in keys.names():
        folder = runs.folder(name, profile, seed)
        if not runs.paired(name):
            problems.append(f"notebooks/{name}.ipynb is not in step with notebooks/{name}.py; run 'em-companion sync'.")
        elif not (folder / "run.json").is_file():
            problems.append(_not_current(**runs.status(name, profile, seed)))
        else:
            try:
                found.append(_read_page(NOTEBOOKS / f"{name}.ipynb", folder))
            except (OSError, ValueError, TypeError):
                problems.append(f"The stored result of '{name}' is damaged; run 'em-companion run {name} --force'.")
    for page in found:
        problems += gates.check_executed(page.name, profile, page.notebook, page.records)
    _pass(problems)
    _pass(gates.check_figures(record for page in found for record in page.records.figures))
    return found


def _not_current(notebook: str, status: str, because: str) -> str:
    what = {"never run": "not executed"}.get(status, status) + (f" ({because})" if because else "")
    return f"Notebook '{notebook}' is {what}; run 'em-companion run {notebook}'."


def _read_page(source: Path, folder: Path) -> Page:
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    notebooks = [nbformat.read(path, as_version=4) for path in (source, folder / "notebook.ipynb")]
    return Page(notebooks[0], folder, notebooks[1], RunRecord.read(folder), run)


# --- assemble -----------------------------------------------------------------------------------------------------


def assemble(book: list[Page], profile: str) -> None:
    """Write all generated input of Sphinx: notebooks, figure pages, ledger, prose; unchanged files keep their time.

    `book/_NAME.md` is prose with numbers from the pages, which becomes `_generated/NAME.md`.
    """
    values = _values(book)
    prose = {path: path.read_text(encoding="utf-8") for path in sorted(BOOK.glob("_*.md"))}
    if not any(page.records.unavailable for page in book):
        asked = {relative(path): pages.names_asked_for(text) for path, text in prose.items()}
        asked |= {f"notebooks/{page.name}.py": pages.names_asked_for(_prose(page.source)) for page in book}
        _pass(gates.check_prose(asked, values))
    kept = {write_notebook(page, values) for page in book}
    kept |= write_figures(book)
    kept |= write_ledger(book, profile)
    kept |= {_write_fragment(path.stem[1:], pages.filled(text, values)) for path, text in prose.items()}
    for folder in (BOOK / "notebooks", BOOK / "figures", GENERATED, EXTRA):
        for path in folder.rglob("*"):
            if path.is_file() and path not in kept:
                path.unlink()
    EXTRA.mkdir(exist_ok=True)


def _values(book: list[Page]) -> dict[str, ValueRecord]:
    """Return what all notebooks recorded, by name; raise GateError for a name that stands twice."""
    found = [value for page in book for value in page.records.values]
    counts = Counter(value.name for value in found)
    _pass([f"Value '{name}' is recorded twice." for name, count in counts.items() if count > 1])
    return {value.name: value for value in found}


def _prose(notebook: NotebookNode) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


# --- notebooks ----------------------------------------------------------------------------------------------------


def write_notebook(page: Page, values: dict[str, ValueRecord]) -> Path:
    """Write a notebook as a page: today's prose and code with the outputs of its run, records as the page shows them.

    Code is folded unless a cell is tagged "show-code". Logs are dropped; a path of this machine is refused.
    """
    notebook = deepcopy(page.source)
    for cell, executed in zip(_code(notebook), _code(page.notebook), strict=True):
        tags = _tags(cell)
        tags |= {"remove-cell"} if "parameters" in tags else set() if "show-code" in tags else {"hide-input"}
        cell.metadata = nbformat.from_dict({"tags": sorted(tags)})
        cell.outputs = [_page_output(one, page.records) for one in executed.outputs if one.get("name") != "stderr"]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = pages.filled(cell.source, values)
    notebook.cells.append(nbformat.v4.new_markdown_cell(pages.footer(page.records), id="footer"))
    path, text = BOOK / "notebooks" / f"{page.name}.ipynb", nbformat.writes(notebook)
    if str(ROOT) in text:
        raise GateError([f"Notebook '{page.name}' shows a path of this machine."])
    write_text(path, text)
    return path


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells of a notebook, without the one in which a run was told its parameters."""
    return [one for one in notebook.cells if one.cell_type == "code" and "injected-parameters" not in _tags(one)]


def _tags(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def _page_output(output: NotebookNode, run: RunRecord) -> NotebookNode:
    """Return an output as the page shows it: a record in the book's own look, anything else as it is."""
    data = output.get("data", {})
    kind = next((kind for kind in KINDS if MIME.format(kind=kind) in data), None)
    if kind is None:
        return output
    record = data[MIME.format(kind=kind)]
    if kind == "figure":
        shown = {"text/markdown": _numbered(FigureRecord(**record), run.figures)}
    else:
        shown = {"text/html": pages.shown(kind, record)}
    return nbformat.v4.new_output("display_data", data=shown | {"text/plain": data["text/plain"]})


def _numbered(record: FigureRecord, figures: list[FigureRecord]) -> str:
    folder = _image_folder(record, next(one for one in figures if one.id == record.id))
    return pages.figure_directive(record, f"/_extra/figures/{folder}/figure.svg", folder.replace("/", "-"))


# --- figures ------------------------------------------------------------------------------------------------------


def _image_folder(record: FigureRecord, first: FigureRecord) -> str:
    """Return where a figure is published: its first evidence has the figure's own address, others a folder in it."""
    return record.id if record == first else f"{record.id}/{record.evidence}"


def write_figures(book: list[Page]) -> set[Path]:
    """Publish every figure's files under `figures/<id>/` and write its page, the gallery and `figures.json`."""
    by_id: dict[str, list[tuple[FigureRecord, Path]]] = defaultdict(list)
    for page in book:
        for record in page.records.figures:
            by_id[record.id].append((record, page.folder / "figures" / record.id / record.evidence))
    kept = {BOOK / "figures" / "index.md", EXTRA / "figures.json"}
    for versions in by_id.values():
        for record, source in versions:
            kept |= _publish_files(source, EXTRA / "figures" / _image_folder(record, versions[0][0]))
        kept.add(_write_figure_page(versions[0][0], [record for record, _ in versions[1:]]))
    first = [versions[0][0] for versions in by_id.values()]
    write_text(BOOK / "figures" / "index.md", pages.gallery(first))
    write_json(EXTRA / "figures.json", {"figures": [_listing(record) for record in first]})
    return kept


def _publish_files(source: Path, target: Path) -> set[Path]:
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        copy = target / path.name
        if not copy.is_file() or copy.read_bytes() != path.read_bytes():
            shutil.copyfile(path, copy)
    cited = citation.files(_provenance(target)) if (source / "provenance.json").is_file() else {}
    for name, text in cited.items():
        write_text(target / name, text)
    return {target / name for name in (*cited, *(path.name for path in source.iterdir()))}


def _provenance(folder: Path) -> citation.Provenance:
    return json.loads((folder / "provenance.json").read_text(encoding="utf-8"))


def _write_figure_page(record: FigureRecord, others: Iterable[FigureRecord]) -> Path:
    path = BOOK / "figures" / record.id / "index.md"
    provenance = _provenance(EXTRA / "figures" / record.id) if record.status == "made" else None
    write_text(path, pages.figure_page(record, provenance, [one.evidence for one in others]))
    return path


def _listing(record: FigureRecord) -> dict[str, Any]:
    listing = asdict(registry.load_figures()[record.id]) | asdict(record) | {"page": f"figures/{record.id}/"}
    return listing | ({"provenance": _provenance(EXTRA / "figures" / record.id)} if record.status == "made" else {})


# --- claims -----------------------------------------------------------------------------------------------------


def write_ledger(book: list[Page], profile: str) -> set[Path]:
    """Compute every verdict and write `claims.json`, the ledger, the scoreboard, tolerances and the machine page."""
    gaps = [page.name for page in book if any(gap.evidence == "released" for gap in page.records.unavailable)]
    ledger = verdicts.ledger((one for page in book for one in page.records.measurements), gaps)
    _pass(gates.check_claims(ledger, gaps))
    values = [_listed(value) | {"notebook": page.name} for page in book for value in page.records.values]
    about = {"profile": profile, "commit": git("rev-parse", "HEAD"), "scoreboard": verdicts_counted(ledger)}
    write_json(EXTRA / "claims.json", about | {"claims": ledger, "values": values})
    fragments = {
        "scoreboard": pages.scoreboard(ledger),
        "ledger": pages.ledger_table(ledger),
        "tolerances": pages.tolerances(),
        "machine": pages.machine([page.run for page in book], environment()),
        "benchmarks": pages.benchmarks(BENCHMARKS),
    }
    return {EXTRA / "claims.json", *(_write_fragment(name, text) for name, text in fragments.items())}


def verdicts_counted(ledger: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return how often each verdict was given, by evidence."""
    given = {name: Counter(row["results"][name]["verdict"] for row in ledger) for name in claims.EVIDENCE}
    return {name: {verdict: counts[verdict] for verdict in verdicts.VERDICTS} for name, counts in given.items()}


def _listed(value: ValueRecord) -> dict[str, Any]:
    """Return a value as `claims.json` lists it, without what it does not have."""
    always = "value" if value.text is None else "text"
    return {key: given for key, given in asdict(value).items() if given is not None or key == always}


def _write_fragment(name: str, text: str) -> Path:
    write_text(GENERATED / f"{name}.md", text)
    return GENERATED / f"{name}.md"


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
    told = os.environ | {"PYTHONWARNINGS": "ignore", "PYTHONUTF8": "1"}
    result = subprocess.run(command, cwd=ROOT, env=told, capture_output=True, encoding="utf-8", errors="replace")
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
