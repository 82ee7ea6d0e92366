"""Run notebooks through papermill, once per key: what a result depends on decides whether it is current.

The key of a notebook covers its code cells (not its prose), the modules of this package that it imports (directly or
through others), its claims and figures in the registries, the profile, the lock file and the Python version; which of
the released files it reads are at hand; if it uses models, the world's lexicon, the chat model's weights and the tables
of `data/results/`; and, if it reads a served judge's answers, what is on record of them.
A finished run is a folder `artifacts/notebooks/<profile>/<name>/<key>`.
"""

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import nbformat

from em_companion.build import keys
from em_companion.core import paths
from em_companion.core.errors import CompanionError
from em_companion.core.files import lock, new_folder, sha256_of, write_json, write_text
from em_companion.core.paths import NOTEBOOKS, git

KEPT_RUNS = 3
"""Finished runs kept per notebook and profile, newest first, so that reverting a change costs nothing."""


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
    return clean and _comparable(pair) == _comparable(keys.notebook_of(name))


def sync(name: str) -> bool:
    """Bring NAME.ipynb in step with NAME.py, keeping the ids of cells that stay; tell whether it changed."""
    path, notebook = NOTEBOOKS / f"{name}.ipynb", keys.notebook_of(name)
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


# --- runs ---------------------------------------------------------------------------------------------------------


def folder(name: str, profile: str, seed: int, found: dict[str, str] | None = None) -> Path:
    """Return the folder of a notebook's result with the parts `found` (default: as they are now), there or not."""
    return paths.ARTIFACTS / "notebooks" / profile / name / keys.key(found or keys.parts(name, profile, seed))


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
    now = keys.parts(name, profile, seed)
    changed = sorted(label for label in before.keys() | now.keys() if before.get(label) != now.get(label))
    return {"notebook": name, "status": "stale", "because": ", ".join(changed) + " changed"}


def finished_runs(name: str, profile: str) -> list[Path]:
    """Return the folders of finished runs, newest first."""
    found = (paths.ARTIFACTS / "notebooks" / profile / name).glob("*/run.json")
    return [path.parent for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]


def run(name: str, profile: str, seed: int, force: bool = False) -> Path:
    """Execute a notebook unless its result is current, and return the result's folder.

    Raises CompanionError when the pair is out of step, a cell fails or the notebook does not finish; nothing
    half-written stays, and an earlier result is left as it was.
    """
    # Taken once, before the run: a file that changes meanwhile makes this result stale, not current.
    found = keys.parts(name, profile, seed)
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
        "key": keys.key(found),
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
