"""Assemble the book from finished runs, build it, pass every gate; only then does it replace the last one."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from em_companion.book import registry
from em_companion.book.records import KINDS, MIME, FigureRecord, RunRecord, ValueRecord
from em_companion.build import gates, keys, packs, pages, responses_page, runs
from em_companion.core.errors import CompanionError
from em_companion.core.files import lock, new_folder, recover, sha256_of, write_json, write_text
from em_companion.core.paths import BOOK, BUILD, HTML, RESULTS, ROOT, SOURCE, git, relative
from em_companion.core.provenance import environment
from em_companion.evidence import claims, verdicts
from em_companion.evidence.claims import Measurement

STAGING = BUILD / "staging"
PASSED = BUILD / ".passed"
"""What the last site was built from, as `fingerprint` tells it; there only if it passed every gate."""
GENERATED = BOOK / "_generated"
EXTRA = BOOK / "_extra"
OWN = ("grown", "hub")
"""Evidence of a build's own models, beside which that of packs is shown."""


def _pass(problems: list[str]) -> None:
    if problems:
        raise CompanionError("\n".join(problems))


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

    @property
    def code(self) -> str:
        return packs.code_of(self.run)


def build(profile: str, include_responses: bool = False, folders: dict[str, Path] | None = None) -> Path:
    """Build `_build/html` from the current runs of `profile` and return it; the last good build stays on any failure.

    Nothing is rendered where the last site came from the same input and passed every gate. `include_responses`: with
    the response browser's data, which has no licence. `folders`: of the current runs by notebook, if known already.
    """
    with lock(BUILD / "book"):
        recover(HTML)
        assemble(collect(profile, folders or {}), profile)
        now, passed = fingerprint(), PASSED.read_text(encoding="utf-8") if PASSED.is_file() else ""
        if include_responses or now != passed or not HTML.is_dir():
            # An unresolved reference is a warning of the first build only: what Sphinx remembers must have passed.
            if not passed:
                shutil.rmtree(STAGING, ignore_errors=True)
            PASSED.unlink(missing_ok=True)
            site = render()
            _pass(gates.check_html(site))
            publish(site, include_responses)
            write_text(PASSED, "with responses" if include_responses else now)
    return HTML


def fingerprint() -> str:
    """Return a fingerprint of all that Sphinx reads and of the code that builds and checks."""
    inputs = [ROOT / name for name in ("_config.yml", "_toc.yml", "requirements.lock")]
    inputs += [*BOOK.rglob("*"), *(SOURCE / "build").glob("*.py"), *(SOURCE / "build" / "templates").iterdir()]
    files = sorted(path for path in inputs if path.is_file())
    return sha256_of("".join(f"{relative(path)} {sha256_of(path.read_bytes())}\n" for path in files))


def collect(profile: str, folders: dict[str, Path], names: list[str] | None = None) -> list[Page]:
    """Return the current run of every notebook, or of those named, in the order of the book; gates on all of them."""
    found, problems = [], []
    for name in keys.names() if names is None else names:
        folder, source = folders.get(name) or runs.folder(name, profile), runs.paired(name)
        if source is None:
            problems.append(runs.OUT_OF_STEP.format(name))
        elif not (folder / "run.json").is_file():
            state = runs.status(name, profile)
            because = f" ({state['because']})" if state["because"] else ""
            said = state["status"].replace("never run", "not executed")
            problems.append(f"Notebook '{name}' is {said}{because}; run 'em-companion run {name}'.")
        else:
            try:
                run = _json(folder / "run.json")
                notebook = nbformat.read(folder / "notebook.ipynb", as_version=4)
                found.append(Page(source, folder, notebook, RunRecord.read(folder), run))
            except (OSError, ValueError, TypeError):
                problems.append(f"The stored result of '{name}' is damaged; run 'em-companion run {name} --force'.")
    for page in found:
        problems += gates.check_executed(page.name, profile, page.notebook, page.records)
    _pass(problems)
    if names is None:
        _pass(gates.check_figures(record for page in found for record in page.records.figures))
    return found


def assemble(book: list[Page], profile: str) -> None:
    """Write all generated input of Sphinx: notebooks, figure pages, ledger, prose; unchanged files keep their time.

    `book/_NAME.md` is prose with numbers from the pages, which becomes `_generated/NAME.md`.
    """
    found = [value for page in book for value in page.records.values]
    values = {value.name: value for value in found}
    _pass([f"Value '{name}' is recorded twice." for name, n in Counter(one.name for one in found).items() if n > 1])
    prose = {path: path.read_text(encoding="utf-8") for path in sorted(BOOK.glob("_*.md"))}
    if not any(page.records.unavailable for page in book):
        asked = {relative(path): pages.names_asked_for(text) for path, text in prose.items()}
        for page in book:
            cells = "\n".join(cell.source for cell in page.source.cells if cell.cell_type == "markdown")
            asked[f"notebooks/{page.name}.py"] = pages.names_asked_for(cells)
        _pass(gates.check_prose(asked, values))
    others = [pack for pack in packs.load_all() if pack.profile != profile]
    kept = {write_notebook(page, values, others) for page in book}
    kept |= write_figures(book) | write_figures_of_packs(book, others)
    kept |= write_ledger(book, profile, others)
    kept |= {_write(GENERATED / path.name[1:], pages.filled(text, values)) for path, text in prose.items()}
    for folder in (BOOK / "notebooks", BOOK / "figures", GENERATED, EXTRA):
        for path in folder.rglob("*"):
            if path.is_file() and path not in kept:
                path.unlink()


def _write(path: Path, text: str) -> Path:
    write_text(path, text)
    return path


def write_notebook(page: Page, values: dict[str, ValueRecord], others: list[packs.Pack]) -> Path:
    """Write a notebook as a page: today's prose and code with the outputs of its run, records as the page shows them.

    Beside what the models of this build show stands what `others` measured.

    Code is folded unless a cell is tagged "show-code". Logs are dropped; a path of this machine is refused.
    """
    notebook = deepcopy(page.source)
    for cell, executed in zip(_code(notebook), _code(page.notebook), strict=True):
        tags = _tags(cell)
        tags |= {"remove-cell"} if "parameters" in tags else set() if "show-code" in tags else {"hide-input"}
        cell.metadata = nbformat.from_dict({"tags": sorted(tags)})
        cell.outputs = [_page_output(one, page, others) for one in executed.outputs if one.get("name") != "stderr"]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = pages.filled(cell.source, values)
    notebook.cells.append(nbformat.v4.new_markdown_cell(pages.footer(page.records), id="footer"))
    text = nbformat.writes(notebook)
    _pass([f"Notebook '{page.name}' shows a path of this machine."] if str(ROOT) in text else [])
    return _write(BOOK / "notebooks" / f"{page.name}.ipynb", text)


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells of a notebook, without the one in which a run was told its parameters."""
    return [one for one in notebook.cells if one.cell_type == "code" and "injected-parameters" not in _tags(one)]


def _tags(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def _page_output(output: NotebookNode, page: Page, others: list[packs.Pack]) -> NotebookNode:
    """Return an output as the page shows it: a record in the book's own look, anything else as it is."""
    data = output.get("data", {})
    kind = next((kind for kind in KINDS if MIME.format(kind=kind) in data), None)
    if kind is None:
        return output
    record = data[MIME.format(kind=kind)]
    if kind == "figure":
        drawn = FigureRecord(**record)
        folder = _image_folder(drawn, next(one for one in page.records.figures if one.id == drawn.id))
        text = pages.figure_directive(drawn, f"/_extra/figures/{folder}/figure.svg", folder.replace("/", "-"))
        drawn_too = [pack for pack in others if pack.figure(drawn.id)] if drawn.evidence in OWN else []
        variants = {pack.name: _directive_of_pack(pack, drawn.id, page) for pack in drawn_too}
        shown = {"text/markdown": pages.tabs({drawn.evidence.capitalize(): text} | variants) if variants else text}
    else:
        if kind == "measurements" and record and record[0]["evidence"] in OWN:
            claimed = {one["claim"] for one in record}
            record = record + [asdict(one) for pack in others for one in _measured(pack, page) if one.claim in claimed]
        shown = {"text/html": pages.shown(kind, record)}
    return nbformat.v4.new_output("display_data", data=shown | {"text/plain": data["text/plain"]})


def _directive_of_pack(pack: packs.Pack, figure: str, page: Page) -> str:
    record, image = _of_pack(pack, pack.figure(figure), page), f"/_extra/figures/{figure}-{pack.profile}/figure.svg"
    return pages.figure_directive(record, image, "", f"{figure}-{pack.profile}")


def _of_pack(pack: packs.Pack, record: FigureRecord, page: Page) -> FigureRecord:
    """Return the record of a pack's figure with a caption that says which model, judge and code it is of."""
    said = f"{pack.name}, {pack.judge} judge, {pack.source(page.name, page.code)}"
    return replace(record, caption=f"{record.caption} *{said}.*")


def _measured(pack: packs.Pack, page: Page) -> list[Measurement]:
    """Return what a pack measured for the claims of a page, each saying which code it is of."""
    own = [one for one in pack.measurements if claims.load_claims()[one.claim].notebook == page.name]
    return [replace(one, how=f"{one.how} ({pack.source(page.name, page.code)})") for one in own]


def _image_folder(record: FigureRecord, first: FigureRecord) -> str:
    """Return where a figure is published: its first evidence has the figure's own address, others a folder in it."""
    return record.id if record == first else f"{record.id}/{record.evidence}"


def write_figures(book: list[Page]) -> set[Path]:
    """Publish every figure's files under `figures/<id>/` and write its page, the gallery and `figures.json`."""
    by_id: dict[str, list[tuple[FigureRecord, Path]]] = defaultdict(list)
    for page in book:
        for record in page.records.figures:
            by_id[record.id].append((record, page.folder / "figures" / record.id / record.evidence))
    kept, listed = {EXTRA / "figures.json"}, []
    for one, versions in by_id.items():
        first, *others = (record for record, _ in versions)
        for record, source in reversed(versions):  # the first one last, whose provenance and citations its page shows
            target = EXTRA / "figures" / _image_folder(record, first)
            shutil.copytree(source, target, dirs_exist_ok=True)
            kept |= {target / path.name for path in source.iterdir()}
            provenance = _json(source / "provenance.json") if record.status == "made" else {}
            cited = pages.citations(provenance) if record.status == "made" else {}
            kept |= {_write(target / name, text) for name, text in cited.items()}
        page = pages.figure_page(first, provenance, cited, [record.evidence for record in others], one)
        kept.add(_write(BOOK / "figures" / one / "index.md", page))
        listing = asdict(registry.load_figures()[one]) | asdict(first) | {"page": f"figures/{one}/"}
        listed.append(listing | ({"provenance": provenance} if first.status == "made" else {}))
    write_json(EXTRA / "figures.json", {"figures": listed})
    gallery = pages.gallery([versions[0][0] for versions in by_id.values()])
    return kept | {_write(BOOK / "figures" / "index.md", gallery)}


def write_figures_of_packs(book: list[Page], others: list[packs.Pack]) -> set[Path]:
    """Publish the figures of packs under `figures/<id>-<profile>/`, each with a page of its own."""
    kept, by_name = set(), {page.name: page for page in book}
    for pack in others:
        for record in pack.figures:
            place, source = f"{record.id}-{pack.profile}", pack.folder / "figures" / record.id
            shutil.copytree(source, EXTRA / "figures" / place, dirs_exist_ok=True)
            provenance = _json(source / "provenance.json")
            cited = pages.citations(provenance)
            kept |= {EXTRA / "figures" / place / path.name for path in source.iterdir()}
            kept |= {_write(EXTRA / "figures" / place / name, text) for name, text in cited.items()}
            page = by_name[provenance["notebook"]]
            text = pages.figure_page(_of_pack(pack, record, page), provenance, cited, [], place)
            kept.add(_write(BOOK / "figures" / place / "index.md", text))
    return kept


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_ledger(book: list[Page], profile: str, others: list[packs.Pack]) -> set[Path]:
    """Compute every verdict and write `claims.json`, the ledger, the scoreboard, tolerances and the machine page.

    Of several models of the hub that measured a claim, this build's own counts, else the one with most layers.
    """
    gaps = [page.name for page in book if any(gap.evidence == "released" for gap in page.records.unavailable)]
    measured = [one for pack in reversed(others) for page in book for one in _measured(pack, page)]
    measured += [one for page in book for one in page.records.measurements]
    ledger = verdicts.ledger(measured, gaps)
    _pass(gates.check_claims(ledger, gaps))
    values = [asdict(value) | {"notebook": page.name} for page in book for value in page.records.values]
    values = [{name: given for name, given in one.items() if given is not None} for one in values]
    about = {"profile": profile, "scoreboard": verdicts.scoreboard(ledger), "claims": ledger, "values": values}
    about["packs"] = [_about(pack, book) for pack in others]
    write_json(EXTRA / "claims.json", about)
    fragments = {
        "scoreboard": pages.scoreboard(ledger, about["packs"]),
        "ledger": pages.ledger_table(ledger),
        "unusual": pages.unusual(ledger),
        "tolerances": pages.page("tolerances.md"),
        "machine": pages.page("machine.md", runs=[page.run for page in book], environment=environment()),
        "benchmarks": pages.page(
            "benchmarks.md", kept=[_json(one) for one in sorted(RESULTS.glob("benchmarks*.json"))]
        ),
    }
    return {EXTRA / "claims.json", *(_write(GENERATED / f"{name}.md", text) for name, text in fragments.items())}


def _about(pack: packs.Pack, book: list[Page]) -> dict[str, Any]:
    """Return what `claims.json` says of a pack; current: whether it was made by the code of this book."""
    told = {name: getattr(pack, name) for name in ("profile", "chat", "model", "judge", "date", "commit")}
    told |= {"minutes": round(sum(pack.seconds.values()) / 60), "hardware": pack.environment["hardware"]}
    return told | {"current": all(pack.code.get(page.name) == page.code for page in book)}


def render() -> Path:
    """Run Sphinx through jupyter-book, with warnings as errors, in a staging folder; return the built site."""
    tool = str(Path(sys.executable).with_name("jupyter-book"))
    command = [tool, "build", str(BOOK), "--config", str(ROOT / "_config.yml")]
    command += ["--toc", str(ROOT / "_toc.yml"), "--path-output", str(STAGING), "-W", "-n", "--keep-going", "-q"]
    told = os.environ | {"PYTHONWARNINGS": "ignore", "PYTHONUTF8": "1"}
    result = subprocess.run(command, cwd=ROOT, env=told, capture_output=True, encoding="utf-8", errors="replace")
    if result.returncode:
        said = (result.stderr + result.stdout).replace(f"{ROOT}/", "").splitlines()
        marks = ("WARNING", "ERROR", "rror:")
        lines = [line for line in said if any(mark in line for mark in marks)] or said[-5:]
        _pass([f"The book does not build cleanly: {line}" for line in lines])
    return STAGING / "_build" / "html"


def publish(site: Path, include_responses: bool) -> None:
    """Put a checked site in the place of `_build/html`, whole, with the commit that it was built at."""
    with new_folder(HTML) as new:
        shutil.copytree(site, new, dirs_exist_ok=True)
        (new / ".nojekyll").touch()
        write_json(new / "claims.json", {"commit": git("rev-parse", "HEAD")} | _json(new / "claims.json"))
        if include_responses:
            responses_page.export_responses(new / "responses-data")
