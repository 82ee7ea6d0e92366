"""Run notebooks through papermill, once per key: what a result depends on decides whether it is current.

The key of a notebook covers its code cells (not its prose), the modules of this package that it imports (directly or
through others), its claims and figures in the registries, the profile, the lock file and the Python version; which of
the released files it reads are at hand; if it uses models, the world's lexicon, the chat model's weights and the tables
of `data/results/`; and, if it reads a served judge's answers, what is on record of them.
A finished run is a folder `artifacts/notebooks/<profile>/<name>/<key>`.
"""

import ast
import json
import logging
import os
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jupytext
import nbformat

from em_companion import claims, figure_registry, judge_records, model_store, profiles, released
from em_companion.artifacts import CompanionError, lock, new_folder, read_yaml, sha256_of, write_json, write_text
from em_companion.paths import ARTIFACTS, NOTEBOOKS, RESULTS, ROOT, SOURCE, git, relative
from em_companion.world import FOLDER as WORLD

KEPT_RUNS = 3
"""Finished runs kept per notebook and profile, newest first, so that reverting a change costs nothing."""


def names() -> list[str]:
    """Return the notebooks in the order of `_toc.yml`; raise CompanionError if the two disagree."""
    on_disk = {path.stem for path in NOTEBOOKS.glob("*.py")}
    in_toc = [entry.removeprefix("notebooks/") for entry in toc_entries() if entry.startswith("notebooks/")]
    if odd := sorted(on_disk ^ set(in_toc)):
        raise CompanionError(f"Notebook '{odd[0]}' is not both in notebooks/ and in _toc.yml.")
    return in_toc


def toc_entries() -> list[str]:
    """Return every `file` entry of `_toc.yml`, depth first."""

    def walk(node: Any) -> list[str]:
        if isinstance(node, list):
            return [entry for item in node for entry in walk(item)]
        if not isinstance(node, dict):
            return []
        own = [node[key] for key in ("root", "file") if key in node]
        return own + [entry for key in ("parts", "chapters", "sections") for entry in walk(node.get(key))]

    return walk(read_yaml(ROOT / "_toc.yml"))


# --- pairs --------------------------------------------------------------------------------------------------------


def notebook_of(name: str) -> nbformat.NotebookNode:
    """Return notebook `name` read from its percent script; raise CompanionError for an unknown name."""
    path = NOTEBOOKS / f"{name}.py"
    if Path(name).name != name or not path.is_file():
        raise CompanionError(f"There is no notebook '{name}'; see the file names in {relative(NOTEBOOKS)}/.")
    return jupytext.read(path)


def _comparable(notebook: nbformat.NotebookNode) -> list[tuple]:
    return [(cell.cell_type, cell.source.strip(), sorted(cell.metadata.get("tags", []))) for cell in notebook.cells]


def paired(name: str) -> bool:
    """Tell whether NAME.ipynb has the cells of NAME.py and no outputs."""
    path = NOTEBOOKS / f"{name}.ipynb"
    if not path.is_file():
        return False
    try:
        pair = nbformat.read(path, as_version=4)
    except ValueError:
        return False
    clean = all(not cell.get("outputs") and cell.get("execution_count") is None for cell in pair.cells)
    return clean and _comparable(pair) == _comparable(notebook_of(name))


def sync(name: str) -> bool:
    """Bring NAME.ipynb in step with NAME.py, keeping the ids of cells that stay; tell whether it changed."""
    path, notebook = NOTEBOOKS / f"{name}.ipynb", notebook_of(name)
    if paired(name):
        return False
    ids = _cell_ids(path)
    for index, cell in enumerate(notebook.cells):
        # An id is a name for a cell, so it follows the content, and it is the same on every machine.
        cell.id = ids.get(cell.source.strip()) or sha256_of(f"{name}/{index}/{cell.source}")[:8]
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return write_text(path, nbformat.writes(notebook) + "\n")


def _cell_ids(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        return {cell.source.strip(): cell.id for cell in nbformat.read(path, as_version=4).cells}
    except ValueError:
        return {}


# --- keys ---------------------------------------------------------------------------------------------------------


def parts(name: str, profile: str, seed: int) -> dict[str, str]:
    """Return everything the result of a notebook depends on, each as a label and a fingerprint."""
    trees, chosen = _code_trees(name), profiles.load(profile)
    modules = imported_modules(trees)
    found = {"code cells": sha256_of("\n".join(ast.dump(tree) for tree in trees))}
    found |= {f"module {module}": sha256_of(_module_path(module).read_bytes()) for module in modules}
    found["claims registry"] = _fingerprint([c for c in claims.load_claims().values() if c.notebook == name])
    found["figures registry"] = _fingerprint([f for f in figure_registry.load_figures().values() if f.notebook == name])
    if "world" in modules:
        found["world"] = _contents(WORLD, "*.yml")
    if "model_store" in modules:
        found["models"] = model_store.fingerprint(chosen)
    if any(isinstance(node, ast.Name) and node.id == "RESULTS" for tree in trees for node in ast.walk(tree)):
        found["kept results"] = _contents(RESULTS, "**/*.csv")
    if "served_judge" in modules:
        found["judge records"] = _contents(judge_records.folder(), "**/*.jsonl")
    found["profile"] = _fingerprint([chosen, seed])
    found["python"] = ".".join(map(str, sys.version_info[:2]))
    found["requirements.lock"] = sha256_of((ROOT / "requirements.lock").read_bytes())
    if groups := released_groups(trees):
        found["released data"] = released.availability(groups)
    return found


def _contents(folder: Path, pattern: str) -> str:
    return sha256_of(b"".join(path.read_bytes() for path in sorted(folder.glob(pattern))))


def _code_trees(name: str) -> list[ast.AST]:
    code = [cell.source for cell in notebook_of(name).cells if cell.cell_type == "code"]
    return [_parsed(source, f"A code cell of notebook '{name}'") for source in code]


def key(found: dict[str, str]) -> str:
    """Return the key of a result with these parts, 16 hex digits."""
    return _fingerprint(found)[:16]


def _fingerprint(value: Any) -> str:
    return sha256_of(json.dumps(value, default=lambda item: item.__dict__, sort_keys=True))


def _module_path(module: str) -> Path:
    return SOURCE / f"{module}.py"


def imported_modules(trees: list[ast.AST]) -> list[str]:
    """Return the modules of this package that some code imports, with those they import in turn, sorted."""
    waiting, seen = set().union(*map(_direct_imports, trees)), set()
    while waiting:
        module = waiting.pop()
        seen.add(module)
        waiting |= _direct_imports(_module_tree(module)) - seen
    return sorted(seen)


@cache
def _module_tree(module: str) -> ast.AST:
    return _parsed(_module_path(module).read_text(encoding="utf-8"), relative(_module_path(module)))


def _parsed(source: str, where: str) -> ast.AST:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        shown = (error.text or "").strip()
        raise CompanionError(f"{where} is not valid Python: {error.msg}, at '{shown}'.") from error


def _direct_imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "em_companion":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("em_companion."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("em_companion.")}
    return {module for module in found if _module_path(module).is_file()}


def released_groups(trees: list[ast.AST]) -> set[str]:
    """Return the groups of released files behind every `released.<reader>` that some code names; all for `fetch`."""
    attributes = {
        node.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "released"
    }
    if "fetch" in attributes:
        return {entry["group"] for entry in released.sources().values()}
    return {group for name in attributes for group in getattr(getattr(released, name, None), "groups", ())}


def uses_models(name: str) -> bool:
    """Tell whether a notebook asks for organisms or their responses, so that these can be made before it runs."""
    return "model_store" in imported_modules(_code_trees(name))


# --- runs ---------------------------------------------------------------------------------------------------------


def folder(name: str, profile: str, seed: int, found: dict[str, str] | None = None) -> Path:
    """Return the folder of a notebook's result with the parts `found` (default: as they are now), there or not."""
    return ARTIFACTS / "notebooks" / profile / name / key(found or parts(name, profile, seed))


def is_current(name: str, profile: str, seed: int) -> bool:
    """Tell whether the result of a notebook is there and current."""
    return (folder(name, profile, seed) / "run.json").is_file()


def status(name: str, profile: str, seed: int) -> dict[str, str]:
    """Return {"notebook", "status", "because"}; status is "current", "stale" or "never run"."""
    if is_current(name, profile, seed):
        return {"notebook": name, "status": "current", "because": ""}
    runs = finished_runs(name, profile)
    if not runs:
        return {"notebook": name, "status": "never run", "because": ""}
    try:
        before = json.loads((runs[0] / "run.json").read_text())["parts"]
    except (OSError, ValueError, KeyError, TypeError):
        return {"notebook": name, "status": "stale", "because": "its stored result is damaged"}
    now = parts(name, profile, seed)
    changed = sorted(label for label in before.keys() | now.keys() if before.get(label) != now.get(label))
    return {"notebook": name, "status": "stale", "because": ", ".join(changed) + " changed"}


def finished_runs(name: str, profile: str) -> list[Path]:
    """Return the folders of finished runs, newest first."""
    found = (ARTIFACTS / "notebooks" / profile / name).glob("*/run.json")
    return [path.parent for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]


def run(name: str, profile: str, seed: int, force: bool = False) -> Path:
    """Execute a notebook unless its result is current, and return the result's folder.

    Raises CompanionError when the pair is out of step, a cell fails or the notebook does not finish; nothing
    half-written stays, and an earlier result is left as it was.
    """
    # Taken once, before the run: a file that changes meanwhile makes this result stale, not current.
    found = parts(name, profile, seed)
    target = folder(name, profile, seed, found)
    if not paired(name):
        raise CompanionError(
            f"notebooks/{name}.ipynb is not in step with notebooks/{name}.py; run 'em-companion sync'."
        )
    with lock(target):
        if (target / "run.json").is_file() and not force:
            return target
        with new_folder(target) as temporary:
            notebook = _execute(name, profile, seed, temporary)
            records = (
                json.loads((temporary / "records.json").read_text()) if (temporary / "records.json").is_file() else {}
            )
            if not records.get("finished"):
                raise CompanionError(f"Notebook '{name}' ended without run.finish(), so its results are not complete.")
            seconds = notebook.metadata.papermill.duration
            write_json(temporary / "run.json", _run_record(name, profile, seed, seconds, found))
    for old in finished_runs(name, profile)[KEPT_RUNS:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def _run_record(name: str, profile: str, seed: int, seconds: float, found: dict[str, str]) -> dict[str, Any]:
    return {
        "notebook": name,
        "profile": profile,
        "seed": seed,
        "key": key(found),
        "seconds": round(seconds, 1),
        "commit": git("rev-parse", "HEAD"),
        "parts": found,
    }


# The kernel talks to this process only: notices of its start, and the traceback that it or this process may log when it
# is shut down in the middle of a message, are not for a reader of the build log. Errors of a cell come another way.
QUIET_KERNEL = [
    "--IPKernelApp.log_level=50",
    "--IPKernelApp.logging_config={'loggers': {'tornado.general': {'level': 'CRITICAL'}}}",
]


def _execute(name: str, profile: str, seed: int, target: Path) -> nbformat.NotebookNode:
    import papermill  # slow to import; commands that run nothing should not pay for it

    # Tiny tensors on two cores are up to a hundred times slower when idle OpenMP threads spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["EM_COMPANION_RUN_FOLDER"] = str(target)
    logging.getLogger("tornado.general").setLevel(logging.CRITICAL)
    path = target / "notebook.ipynb"
    try:
        notebook = papermill.execute_notebook(
            NOTEBOOKS / f"{name}.ipynb",
            path,
            parameters={"profile": profile, "seed": seed},
            kernel_name="python3",
            cwd=NOTEBOOKS,
            progress_bar={"desc": name},
            extra_arguments=QUIET_KERNEL,
        )
    except papermill.exceptions.PapermillExecutionError as error:
        raise CompanionError(
            f"Notebook '{name}' failed in cell {error.cell_index}: {error.ename}: {error.evalue}"
        ) from error
    finally:
        os.environ.pop("EM_COMPANION_RUN_FOLDER")
    for private in ("input_path", "output_path", "environment_variables"):
        notebook.metadata.papermill.pop(private, None)
    write_text(path, nbformat.writes(notebook))
    return notebook
