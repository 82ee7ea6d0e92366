"""Run notebooks through papermill, once per key, and keep each NAME.ipynb in step with its NAME.py.

A finished run is a folder `artifacts/notebooks/<profile>/<name>/<key>`, the key being that of `keys.parts`. Its seal is
`run.json`, with the sha256 of every file and of itself: no book or pack is made of a run that was edited or damaged.
"""

import json
import logging
import shutil
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from em_companion.build import keys
from em_companion.core import paths
from em_companion.core.errors import CompanionError
from em_companion.core.files import lock, new_folder, sha256_by_path, sha256_of, write_sealed, write_text
from em_companion.core.paths import NOTEBOOKS, git, relative
from em_companion.models import ADAPTERS

if TYPE_CHECKING:  # slow to import; `status` needs none of them
    from nbformat import NotebookNode

RECORD = "run.json"
KEPT_RUNS = 3
"""Finished runs kept per notebook, profile and seed, so that reverting a change costs nothing."""

OUT_OF_STEP = "notebooks/{0}.ipynb is not in step with notebooks/{0}.py; run 'em-companion sync'."

FILTERS = {"notebook_metadata_filter": "-all", "cell_metadata_filter": "tags,-all"}
PERCENT = {"extension": ".py", "format_name": "percent"} | FILTERS
"""How jupytext writes a script; `notebooks/jupytext.toml` says the same to Jupyter."""

METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def _halves(name: str) -> "tuple[NotebookNode, NotebookNode | None]":
    """Return NAME.py as a notebook and NAME.ipynb, None where there is none that can be read."""
    import jupytext
    import nbformat

    script = jupytext.read(keys.script(name), fmt="py:percent")
    try:
        return script, nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    except (OSError, ValueError):
        return script, None


def _content(notebook: "NotebookNode") -> str:
    """Return a fingerprint of what both halves of a pair hold: cells and their tags."""
    cells = [(one.cell_type, one.source.strip(), sorted(one.metadata.get("tags", []))) for one in notebook.cells]
    return sha256_of(json.dumps(cells))


def paired(name: str) -> "NotebookNode | None":
    """Return NAME.ipynb if it has the cells of NAME.py and no outputs, else None; remember what both held."""
    import nbformat

    path, (_, _, seen) = NOTEBOOKS / f"{name}.ipynb", _remembered(name)
    now = sha256_of(keys.script(name).read_bytes() + (path.read_bytes() if path.is_file() else b""))
    if now == seen:  # the library that reads scripts is slow
        return nbformat.read(path, as_version=4)
    script, pair = _halves(name)
    if pair is None or any(cell.get("outputs") or cell.get("execution_count") for cell in pair.cells):
        return None
    content = _content(pair)
    if content != _content(script):
        return None
    write_text(_memory(name), f"{content} {now}")
    return pair


def sync(name: str) -> str:
    """Bring NAME.py and NAME.ipynb in step and say what was done, "" if nothing.

    Where one of them changed since they last were in step here, the other follows it. Where both did, or nobody knows,
    the script wins and NAME.ipynb is kept aside. Cells that stay keep their ids.
    """
    import jupytext

    (script, pair), path, (before, *_) = _halves(name), NOTEBOOKS / f"{name}.ipynb", _remembered(name)
    said = f"wrote {relative(path)}"
    only_pair = pair is not None and _content(script) == before != _content(pair)
    if only_pair:
        said = f"wrote {relative(keys.script(name))}, since only {path.name} had changed"
        write_text(keys.script(name), jupytext.writes(pair, fmt=PERCENT))
        script, _ = _halves(name)
    elif path.is_file() and (pair is None or _content(pair) not in (_content(script), before)):
        copies = (path.with_name(f"{path.stem}.edited{number or ''}.ipynb") for number in count())
        aside = path.rename(next(copy for copy in copies if not copy.exists()))
        said += f"; what it held is in {relative(aside)}"
    changed = write_text(path, _clean(name, script, pair))
    write_text(_memory(name), _content(script))
    return said if changed or only_pair else ""


def _clean(name: str, notebook: "NotebookNode", pair: "NotebookNode | None") -> str:
    """Return the text of NAME.ipynb: the cells of the script, with the ids that they have in `pair`."""
    import nbformat

    ids = {cell.source.strip(): cell.get("id") for cell in (pair.cells if pair else [])}
    for index, cell in enumerate(notebook.cells):
        # An id is a name for a cell, so it follows the content, and it is the same on every machine.
        cell.id = ids.pop(cell.source.strip(), None) or sha256_of(f"{name}/{index}/{cell.source}")[:8]
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return nbformat.writes(notebook) + "\n"


def _memory(name: str) -> Path:
    """Return the file with fingerprints of a pair that was in step here: of its cells, then maybe of its files."""
    return paths.ARTIFACTS / "pairs" / name


def _remembered(name: str) -> tuple[str, str, str]:
    return (_memory(name).read_text(encoding="utf-8") if _memory(name).is_file() else "").partition(" ")


def folder(name: str, profile: str, found: dict[str, str] | None = None) -> Path:
    """Return the folder of a notebook's result with the parts `found` (default: as they are now), there or not."""
    return paths.ARTIFACTS / "notebooks" / profile / name / keys.key(found or keys.parts(name, profile))


def status(name: str, profile: str) -> dict[str, str]:
    """Return {"notebook", "status", "because"}; status is "current", "stale" or "never run"."""
    now, earlier, state, because = keys.parts(name, profile), _finished(name, profile), "never run", ""
    if (folder(name, profile, now) / "run.json").is_file():
        state = "current"
    elif earlier:
        before = next(iter(earlier.values()))
        labels = [label for label in now | before if before.get(label) != now.get(label)]
        others = [f"{len(labels) - 4} more"] if len(labels) > 4 else []
        state, because = "stale", f"{', '.join(labels[:4] + others)} changed"
    return {"notebook": name, "status": state, "because": because}


def _finished(name: str, profile: str) -> dict[Path, dict[str, str]]:
    """Return the parts of each finished run, by folder, newest first, without those whose record is damaged."""
    found, parts = (paths.ARTIFACTS / "notebooks" / profile / name).glob("*/run.json"), {}
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        with suppress(OSError, ValueError, TypeError, KeyError):
            parts[path.parent] = dict(json.loads(path.read_text(encoding="utf-8"))["parts"])
    return parts


def run(name: str, profile: str, force: bool = False, seed: int | None = None) -> Path:
    """Execute a notebook unless its result is current, and return the result's folder.

    Raises CompanionError when the pair is out of step, a cell fails or the notebook does not finish; nothing
    half-written stays, and an earlier result is left as it was.
    """
    # Taken once, before the run: a file that changes meanwhile makes this result stale, not current.
    found = keys.parts(name, profile, seed)
    target = folder(name, profile, found)
    if not paired(name):
        raise CompanionError(OUT_OF_STEP.format(name))
    with lock(target):
        if (target / "run.json").is_file() and not force:
            return target
        with new_folder(target) as temporary:
            notebook = _execute(name, profile, int(found["seed"]), temporary)
            records = temporary / "records.json"
            if not records.is_file() or not json.loads(records.read_text(encoding="utf-8"))["finished"]:
                raise CompanionError(f"Notebook '{name}' ended without run.finish(), so its results are not complete.")
            # Adapters that were missing may have been made meanwhile, by this run.
            found |= {label: now for label, now in keys.parts(name, profile, seed).items() if label == ADAPTERS}
            record = {"notebook": name, "profile": profile, "seed": int(found["seed"]), "key": keys.key(found)}
            record |= {"seconds": round(notebook.metadata.papermill.duration, 1), "commit": git("rev-parse", "HEAD")}
            record |= {"parts": found, "files": sha256_by_path(temporary, RECORD)}
            write_sealed(temporary / RECORD, record)
    if (known := folder(name, profile, found)) != target:
        shutil.rmtree(known, ignore_errors=True)
        target = target.rename(known)
    same = ("seed", "profile")  # by its settings, so that a change of one takes no room from the profile as it stands
    finished = _finished(name, profile).items()
    alike = [one for one, parts in finished if all(parts.get(part) == found.get(part) for part in same)]
    for old in [one for one in alike if one != target][KEPT_RUNS - 1 :]:
        shutil.rmtree(old, ignore_errors=True)
    return target


# The kernel talks to this process only: notices of its start, and the traceback that it or this process may log when it
# is shut down in the middle of a message, are not for a reader of the build log. Errors of a cell come another way.
QUIET_KERNEL = [
    "--IPKernelApp.log_level=50",
    "--IPKernelApp.logging_config={'loggers': {'tornado.general': {'level': 'CRITICAL'}}}",
]


def _kernel(target: Path) -> type:
    """Return a manager of kernels in this very Python, whatever else is called python3 in the folders of Jupyter."""
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    # Tiny tensors on two cores are up to a hundred times slower when idle OpenMP threads spin.
    environment = {"EM_COMPANION_RUN_FOLDER": str(target), "OMP_WAIT_POLICY": "PASSIVE", "TQDM_DISABLE": "1"}

    class Kernel(AsyncKernelManager):
        kernel_spec = KernelSpec(argv=command, env=environment, language="python", display_name="Python 3")

    return Kernel


def _execute(name: str, profile: str, seed: int, target: Path) -> "NotebookNode":
    """Execute a notebook into `target`; raise CompanionError, with the cell, where it fails or its kernel dies."""
    import nbformat
    import papermill

    logging.getLogger("tornado.general").setLevel(logging.CRITICAL)
    path = target / "notebook.ipynb"
    try:
        notebook = papermill.execute_notebook(
            NOTEBOOKS / f"{name}.ipynb",
            path,
            parameters={"profile": profile, "seed": seed},
            kernel_manager_class=_kernel(target),
            cwd=NOTEBOOKS,
            start_timeout=300,
            progress_bar={"desc": name, "disable": None},  # unless a terminal sees it
            extra_arguments=QUIET_KERNEL,
        )
    except papermill.exceptions.PapermillExecutionError as error:
        reason = f"{error.ename}: {error.evalue}"
        raise CompanionError(f"Notebook '{name}' failed in cell {error.cell_index}: {reason}") from error
    except RuntimeError as error:  # nbclient's word for a kernel that is gone
        cells = enumerate(nbformat.read(path, as_version=4).cells)
        begun = [index for index, cell in cells if cell.metadata.papermill.get("start_time")]
        died = f"died in cell {begun[-1]}, as it does where memory runs out" if begun else "does not start"
        raise CompanionError(f"The kernel of notebook '{name}' {died}.") from error
    for private in ("input_path", "output_path", "environment_variables"):
        notebook.metadata.papermill.pop(private, None)
    write_text(path, nbformat.writes(notebook))
    return notebook
