"""Run notebooks through papermill, once per key: what a result depends on decides whether it is current.

The key of a notebook covers its code cells (not its prose), the modules of this package that it imports (directly or
through others), its claims and figures in the registries, the profile, the lock file and the Python version; which of
the released files it reads are at hand; if it uses models, the world's lexicon, the chat model's weights and the tables
of `data/results/`; and, if it reads a served judge's answers, what is on record of them.
A finished run is a folder `artifacts/notebooks/<profile>/<name>/<key>`.
"""

import ast
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jupytext
import nbformat

from em_companion.book import registry
from em_companion.core import profiles
from em_companion.core.errors import CompanionError
from em_companion.core.files import read_yaml, sha256_of
from em_companion.core.paths import NOTEBOOKS, RESULTS, ROOT, SOURCE, relative
from em_companion.evidence import claims
from em_companion.judges import records
from em_companion.models.organism import fingerprint
from em_companion.released import files, tables
from em_companion.world.generator import FOLDER


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


# --- keys ---------------------------------------------------------------------------------------------------------


def parts(name: str, profile: str, seed: int) -> dict[str, str]:
    """Return everything the result of a notebook depends on, each as a label and a fingerprint."""
    trees, chosen = _code_trees(name), profiles.load(profile)
    modules = imported_modules(trees)
    found = {"code cells": sha256_of("\n".join(ast.dump(tree) for tree in trees))}
    found |= {f"module {module}": sha256_of(_module_path(module).read_bytes()) for module in modules}
    found["claims registry"] = _fingerprint([c for c in claims.load_claims().values() if c.notebook == name])
    found["figures registry"] = _fingerprint([f for f in registry.load_figures().values() if f.notebook == name])
    if "world" in modules:
        found["world"] = _contents(FOLDER, "*.yml")
    if "model_store" in modules:
        found["models"] = fingerprint(chosen)
    if any(isinstance(node, ast.Name) and node.id == "RESULTS" for tree in trees for node in ast.walk(tree)):
        found["kept results"] = _contents(RESULTS, "**/*.csv")
    if "served_judge" in modules:
        found["judge records"] = _contents(records.folder(), "**/*.jsonl")
    found["profile"] = _fingerprint([chosen, seed])
    found["python"] = ".".join(map(str, sys.version_info[:2]))
    found["requirements.lock"] = sha256_of((ROOT / "requirements.lock").read_bytes())
    if groups := released_groups(trees):
        found["released data"] = files.availability(groups)
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
        return {entry["group"] for entry in files.sources().values()}
    return {group for name in attributes for group in getattr(getattr(tables, name, None), "groups", ())}


def uses_models(name: str) -> bool:
    """Tell whether a notebook asks for organisms or their responses, so that these can be made before it runs."""
    return "model_store" in imported_modules(_code_trees(name))
