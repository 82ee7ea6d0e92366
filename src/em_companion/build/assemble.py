"""Assemble the book from finished runs, build it, pass every gate; only then does it replace the last one."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from em_companion.book import registry
from em_companion.book.records import KINDS, MIME, FigureRecord, RunRecord, ValueRecord
from em_companion.build import gates, keys, packs, pages, publication, responses_page, runs
from em_companion.core import profiles, store
from em_companion.core.errors import CompanionError
from em_companion.core.files import (
    lock,
    new_folder,
    read_sealed,
    recover,
    sha256_of,
    write_json,
    write_sealed,
    write_text,
)
from em_companion.core.paths import BOOK, BUILD, HTML, RESULTS, ROOT, SOURCE, git, relative
from em_companion.core.provenance import environment
from em_companion.evidence import claims, predictions, verdicts
from em_companion.evidence.claims import Measurement

STAGING = BUILD / "staging"
PASSED = BUILD / ".passed"
"""What the last site was built from, as `fingerprint` tells it; there only if it passed every gate."""
GENERATED = BOOK / "_generated"
EXTRA = BOOK / "_extra"
REMEASURE = "restore it from git, or measure anew by 'make bench'"
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
    def title(self) -> str:
        return self.source.cells[0].source.splitlines()[0].removeprefix("# ")

    @property
    def code(self) -> str:
        return packs.code_of(self.run)


def build(profile: str, include_responses: bool = False, folders: dict[str, Path] | None = None) -> Path:
    """Build `_build/html` from the current runs of `profile` and return it; the last good build stays on any failure.

    Nothing is rendered where the last site came from the same input and passed every gate. `include_responses`: with
    the response browser's data, which has no licence. `folders`: of the current runs by notebook, if known already.
    """
    with lock(BUILD / "book"), store.writing(HTML):
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
            given = profiles.load(profile)
            publish(site, [*responses_page.grown(given), *(responses_page.GROUPS if include_responses else ())])
            write_text(PASSED, "with responses" if include_responses else now)
    return HTML


def fingerprint() -> str:
    """Return a fingerprint of all that Sphinx reads and of the code that builds and checks."""
    inputs = [ROOT / name for name in ("_config.yml", "_toc.yml", "requirements.lock", "CITATION.cff")]
    inputs += [*BOOK.rglob("*"), *(SOURCE / "build").rglob("*")]
    files = sorted(path for path in inputs if path.is_file() and path.suffix != ".pyc")
    named = [publication.address(), publication.repository(), publication.edition(), *map(relative, files)]
    return sha256_of("\n".join([*named, *(sha256_of(path.read_bytes()) for path in files)]))


def collect(profile: str, folders: dict[str, Path], names: list[str] | None = None) -> list[Page]:
    """Return the current run of every notebook, or of those named, in the order of the book; gates on all of them."""
    _pass([f"No book is built with changed settings; unset {profiles.SET}."] if profiles.changed() else [])
    found, problems, of = [], [], "" if profile == "cpu" else f" --profile {profile}"
    for name in keys.names() if names is None else names:
        folder, source = folders.get(name) or runs.folder(name, profile), runs.paired(name)
        if source is None:
            problems.append(runs.OUT_OF_STEP.format(name))
        elif not (folder / "run.json").is_file():
            state = runs.status(name, profile)
            because = f" ({state['because']})" if state["because"] else ""
            said = state["status"].replace("never run", "not executed")
            problems.append(f"Notebook '{name}' is {said}{because}; run 'em-companion run {name}{of}'.")
        else:
            try:
                run, records = read_sealed(folder / runs.RECORD, "run it again"), RunRecord.read(folder)
                notebook = nbformat.read(folder / "notebook.ipynb", as_version=4)
                found.append(Page(source, folder, notebook, records, run))
            except Exception:  # whatever stands there instead
                again = f"run 'em-companion run {name}{of} --force'"
                problems.append(f"The stored result of '{name}' is damaged or was edited; {again}.")
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
    _pass([f"Value '{name}' is recorded twice." for name, n in Counter(one.name for one in found).items() if n > 1])
    others = [pack for pack in packs.load_all() if pack.profile != profile]
    measured = _all_measured(book, others)
    ledger, predicted = _ledger(book, measured), _predicted(measured)
    by_part = predictions.by_part(predicted)
    told = [*_counts(ledger), *chain.from_iterable(_counts_of_predictions(*one) for one in by_part.items())]
    recorded = {profile: [*found, *told]} | {pack.profile: pack.values for pack in others}
    values = values_by_name(recorded, profile)
    prose = {path: path.read_text(encoding="utf-8") for path in sorted(BOOK.glob("_*.md"))}
    if not any(page.records.unavailable for page in book):
        asked = {relative(path): pages.names_asked_for(text) for path, text in prose.items()}
        for page in book:
            cells = "\n".join(cell.source for cell in page.source.cells if cell.cell_type == "markdown")
            asked[f"notebooks/{page.name}.py"] = pages.names_asked_for(cells)
        _pass(gates.check_prose(asked, values))
    variants = variants_of(book, others)
    badges = [*ledger, *predicted]
    kept = {path for page in book for path in write_notebook(page, values, others, variants, badges)}
    kept |= write_figures(variants, {page.name: page.title for page in book})
    kept |= write_ledger(book, profile, others, values, ledger, by_part)
    write_sealed(EXTRA / "predictions.json", {"profile": profile, "predictions": predicted})
    parts = {GENERATED / f"{part}-predictions.md": pages.predictions_table(own) for part, own in by_part.items()}
    kept |= {EXTRA / "predictions.json", *(_write(path, text) for path, text in parts.items())}
    kept |= {_write(GENERATED / path.name[1:], pages.filled(text, values, badges)) for path, text in prose.items()}
    for folder in (BOOK / "notebooks", BOOK / "figures", GENERATED, EXTRA):
        for path in folder.rglob("*"):
            if path.is_file() and path not in kept:
                path.unlink()


def values_by_name(recorded: Mapping[str, Iterable[ValueRecord]], own: str) -> dict[str, ValueRecord]:
    """Return values, recorded by profile, under the names that prose has for them.

    Those of the build's `own` profile under their own, those of a hub profile under the profile's: what is recorded
    there as "hub.NAME" or "NAME" is {value}`smollm2-135m.NAME`.
    """
    values = {one.name: one for one in recorded[own]}
    for profile, some in recorded.items():
        values |= {f"{profile}.{one.name.removeprefix('hub.')}": one for one in some if one.evidence == "hub"}
    return values


def _write(path: Path, text: str) -> Path:
    write_text(path, text)
    return path


def variants_of(book: list[Page], others: list[packs.Pack]) -> pages.Variants:
    """Return by figure what it was drawn from: the evidence of this build in order, then packs.

    The first evidence is published at the figure's own place below `figures/`, another at ID-EVIDENCE, a pack's at
    ID-PROFILE.
    """
    found, by_name = defaultdict(list), {page.name: page for page in book}
    for page in book:
        for one in page.records.figures:
            place = f"{one.id}-{one.evidence}" if found[one.id] else one.id
            folder = page.folder / "figures" / one.id / one.evidence
            found[one.id].append(pages.Variant(one, place, folder, one.evidence.capitalize()))
    for pack in others:
        for one in pack.figures:
            page = by_name[registry.load_figures()[one.id].notebook]
            folder, place = pack.folder / "figures" / one.id, f"{one.id}-{pack.profile}"
            found[one.id].append(pages.Variant(_of_pack(pack, one, page), place, folder, pack.name, True))
    return found


def write_notebook(
    page: Page,
    values: dict[str, ValueRecord],
    others: list[packs.Pack],
    variants: pages.Variants,
    ledger: list[dict[str, Any]],
) -> list[Path]:
    """Write a notebook as a page: today's prose and code with the outputs of its run, records as the page shows them.

    Beside what the models of this build show stands what `others` measured. To download and run, it is written without
    outputs; where its repository is known, it first installs the companion at this commit.

    Code is folded unless a cell is tagged "show-code". Logs are dropped; a path of this machine is refused.
    """
    notebook = deepcopy(page.source)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = pages.filled(cell.source, values, ledger)
    download = deepcopy(notebook)
    if publication.repository():
        code = pages.page("set_up.txt", repository=publication.repository(), commit=git("rev-parse", "HEAD"))
        download.cells.insert(0, nbformat.v4.new_code_cell(code, id="set-up"))
    for cell, executed in zip(_code(notebook), _code(page.notebook), strict=True):
        tags = _tags(cell)
        tags |= {"remove-cell"} if "parameters" in tags else set() if "show-code" in tags else {"hide-input"}
        cell.metadata = nbformat.from_dict({"tags": sorted(tags)})
        outputs = [one for one in executed.outputs if one.get("name") != "stderr"]
        cell.outputs = [_page_output(one, page, others, variants) for one in outputs]
    notebook.cells.append(nbformat.v4.new_markdown_cell(pages.footer(page.records, variants), id="footer"))
    text = nbformat.writes(notebook)
    _pass([f"Notebook '{page.name}' shows a path of this machine."] if str(ROOT) in text else [])
    name = Path("notebooks") / f"{page.name}.ipynb"
    return [_write(BOOK / name, text), _write(EXTRA / name, nbformat.writes(download))]


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells of a notebook, without the one in which a run was told its parameters."""
    return [one for one in notebook.cells if one.cell_type == "code" and "injected-parameters" not in _tags(one)]


def _tags(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def _page_output(output: NotebookNode, page: Page, others: list[packs.Pack], variants: pages.Variants) -> NotebookNode:
    """Return an output as the page shows it: a record in the book's own look, anything else as it is."""
    data = output.get("data", {})
    kind = next((kind for kind in KINDS if MIME.format(kind=kind) in data), None)
    if kind is None:
        return output
    record = data[MIME.format(kind=kind)]
    if kind == "figure":
        versions = variants[record["id"]]
        own = next(one for one in versions if not one.of_pack and one.record.evidence == record["evidence"])
        beside = [one for one in versions if one.of_pack] if record["evidence"] in OWN else []
        texts = {one.name: pages.figure_directive(one) for one in (own, *beside)}
        shown = {"text/markdown": pages.page("tabs.md", contents=texts) if beside else texts[own.name]}
    else:
        if kind == "measurements" and record and record[0]["evidence"] in OWN:
            claimed = {one["claim"] for one in record}
            record = record + [asdict(one) for pack in others for one in _measured(pack, page) if one.claim in claimed]
        shown = {"text/html": pages.shown(kind, record)}
    return nbformat.v4.new_output("display_data", data=shown | {"text/plain": data["text/plain"]})


def _of_pack(pack: packs.Pack, record: FigureRecord, page: Page) -> FigureRecord:
    """Return the record of a pack's figure with a caption that says which model, judge and code it is of."""
    said = f"{pack.name}, {pack.judge} judge, {pack.source(page.name, page.code)}"
    return replace(record, caption=f"{record.caption} *{said}.*")


def _measured(pack: packs.Pack, page: Page) -> list[Measurement]:
    """Return what a pack measured for the claims and predictions of a page, each saying which code it is of."""
    known = claims.load_claims() | predictions.load_predictions()
    own = [one for one in pack.measurements if known[one.claim].notebook == page.name]
    return [replace(one, how=f"{one.how} ({pack.source(page.name, page.code)})") for one in own]


def write_figures(variants: pages.Variants, titles: Mapping[str, str]) -> set[Path]:
    """Publish every variant below `figures/`, with a page each, and write the gallery and `figures.json`.

    titles: of the pages, by notebook, in the order of the book.
    """
    kept, listed = {EXTRA / "figures.json"}, []
    for one, versions in variants.items():
        for shown in versions:
            target, files = EXTRA / "figures" / shown.place, [path.name for path in shown.folder.iterdir()]
            shutil.copytree(shown.folder, target, dirs_exist_ok=True)
            made = shown.record.status == "made"
            provenance = _json(target / "provenance.json") if made else {}
            cited = pages.citations(provenance, shown.place) if made else {}
            kept |= {target / name for name in files} | {_write(target / name, text) for name, text in cited.items()}
            others = [other for other in versions if other != shown]
            text = pages.figure_page(shown, provenance, cited, others, files)
            kept.add(_write(BOOK / "figures" / shown.place / "index.md", text))
            listing = asdict(registry.load_figures()[one]) | asdict(shown.record) | {"page": f"figures/{shown.place}/"}
            listed.append(listing | ({"provenance": provenance} if made else {}))
    write_json(EXTRA / "figures.json", {"figures": listed})
    return kept | {_write(BOOK / "figures" / "index.md", pages.gallery(variants, titles))}


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _all_measured(book: list[Page], others: list[packs.Pack]) -> list[Measurement]:
    """Return what was measured of claims and predictions, by this build last.

    Of several models of the hub that measured one, the last counts: this build's own, else the one with most layers.
    """
    of_packs = [one for pack in reversed(others) for page in book for one in _measured(pack, page)]
    return of_packs + [one for page in book for one in page.records.measurements]


def _ledger(book: list[Page], measured: list[Measurement]) -> list[dict[str, Any]]:
    """Compute every verdict; see `verdicts.ledger`."""
    gaps = [page.name for page in book if any(gap.evidence == "released" for gap in page.records.unavailable)]
    claimed = [one for one in measured if one.claim in claims.load_claims()]
    odd = [one for page in book for one in page.records.no_number]
    ledger = verdicts.ledger(claimed, gaps, odd)
    _pass(gates.check_claims(ledger, gaps))
    return ledger


def _counts(ledger: list[dict[str, Any]]) -> Iterable[ValueRecord]:
    """Yield, by kind of test and evidence, how many tests have a verdict and how many of them agree with the paper."""
    for kind, by_evidence in verdicts.scoreboard(ledger).items():
        for evidence, count in by_evidence.items():
            tests = sum(count[one] for one in verdicts.MEASURED if one != "not tested")
            agree = count["reproduced"] + count["same direction"]
            for name, number in {"tests": tests, "agree": agree, "reproduced": count["reproduced"]}.items():
                yield ValueRecord(f"scoreboard.{kind}.{evidence}.{name}", evidence, number, "count")


def _predicted(measured: list[Measurement]) -> list[dict[str, Any]]:
    """Compute every verdict on a prediction; raise CompanionError where a locked one has changed without a word."""
    if moved := predictions.changed():
        raise CompanionError(f"Prediction '{moved[0]}' is locked and has changed; say why in its list 'amended'.")
    known = predictions.load_predictions()
    return predictions.ledger(one for one in measured if one.claim in known)


def _counts_of_predictions(part: str, ledger: list[dict[str, Any]]) -> Iterable[ValueRecord]:
    """Yield how many predictions of a part of the book have each verdict, and what chance would support."""
    yield ValueRecord(f"{part}.predictions", "grown", sum(not one["parts"] for one in ledger), "count")
    for verdict, number in predictions.total(predictions.counts(ledger)).items():
        yield ValueRecord(f"{part}.{verdict.replace(' ', '-')}", "grown", number, "count")
    yield ValueRecord(f"{part}.by-chance", "grown", predictions.by_chance(ledger))


def write_ledger(
    book: list[Page],
    profile: str,
    others: list[packs.Pack],
    values: Mapping[str, ValueRecord],
    ledger: list[dict[str, Any]],
    predicted: dict[str, list[dict[str, Any]]],
) -> set[Path]:
    """Write `claims.json`, the ledger, the scoreboard, tolerances and the machine page.

    `values` are all that prose may name; those of packs have no notebook of this build. predicted: predictions by part.
    """
    homes = {value.name: page.name for page in book for value in page.records.values}
    told = [asdict(value) | {"name": name, "notebook": homes.get(name)} for name, value in values.items()]
    told = [{name: given for name, given in one.items() if given is not None} for one in told]
    about = {"profile": profile, "scoreboard": verdicts.scoreboard(ledger), "claims": ledger, "values": told}
    about["packs"] = [_about(pack, book) for pack in others]
    write_json(EXTRA / "claims.json", about)
    measured = RESULTS.glob("benchmarks*.json")
    fragments = {
        "scoreboard": pages.scoreboard(ledger, predicted, about["packs"]),
        "ledger": pages.ledger_table(ledger),
        "unusual": pages.unusual(ledger),
        "tolerances": pages.page("tolerances.md"),
        "pair": pages.page("pair.md", record=next(_answers(book), None)),
        "companion": pages.companion(),
        "machine": pages.page("machine.md", runs=[page.run for page in book], environment=environment()),
        "benchmarks": pages.page("benchmarks.md", kept=[read_sealed(one, REMEASURE) for one in sorted(measured)]),
    }
    return {EXTRA / "claims.json", *(_write(GENERATED / f"{name}.md", text) for name, text in fragments.items())}


def _answers(book: Iterable[Page]) -> Iterator[list[dict[str, Any]]]:
    """Yield the answers of the grown world that pages show, in order."""
    for output in (out for page in book for cell in page.notebook.cells for out in cell.get("outputs", [])):
        if (mime := MIME.format(kind="answers")) in output.get("data", {}):
            yield output.data[mime]


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


def publish(site: Path, groups: Sequence[responses_page.Group]) -> None:
    """Put a checked site in the place of `_build/html`, whole, with responses and the commit that it was built at."""
    with new_folder(HTML) as new:
        shutil.copytree(site, new, dirs_exist_ok=True)
        (new / ".nojekyll").touch()
        if publication.address():
            found = [path.relative_to(new).as_posix() for path in sorted(new.rglob("*.html")) if path.stem != "404"]
            listed = [path for path in found if not path.startswith("_static/")]
            write_text(new / "sitemap.xml", pages.page("sitemap.xml", address=publication.address(), pages=listed))
        write_sealed(new / "claims.json", {"commit": git("rev-parse", "HEAD")} | _json(new / "claims.json"))
        if groups:
            responses_page.export_responses(new / "responses-data", groups)
