"""What a notebook's result depends on: labels in plain words, each with a fingerprint.

Code counts as syntax trees, without comments and docstrings: a notebook's cells and the modules they import. A room
with inputs besides code says so by `fingerprint(profile, named)`; `named`: all names that code outside it mentions.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from em_companion.book import registry
from em_companion.core import profiles
from em_companion.core.errors import CompanionError
from em_companion.core.files import read_yaml, sha256_of
from em_companion.core.paths import NOTEBOOKS, ROOT, SOURCE, relative
from em_companion.core.schema import validated
from em_companion.evidence import claims, predictions

PACKAGE = __package__.split(".")[0]
CELL = re.compile(r"^# %%(?=\s|$)(.*)\n", re.MULTILINE)

load_profile = cache(profiles.load)


def names() -> list[str]:
    """Return the notebooks in the order of `_toc.yml`; raise CompanionError if the two disagree."""
    on_disk = {path.stem for path in NOTEBOOKS.glob("*.py")}
    in_toc = [entry.removeprefix("notebooks/") for entry in toc_entries() if entry.startswith("notebooks/")]
    if odd := sorted(on_disk ^ set(in_toc)):
        raise CompanionError(f"Notebook '{odd[0]}' is not both in notebooks/ and in _toc.yml.")
    return in_toc


def toc_entries() -> list[str]:
    """Return every `file` entry of `_toc.yml`, depth first; raise CompanionError where it is no table of contents."""

    def walk(node: Any) -> Iterator[str]:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if key == "file":
                yield value
            elif isinstance(value, dict | list):
                yield from walk(value)

    return validated(
        list[str], list(walk(validated(dict[str, Any], read_yaml(ROOT / "_toc.yml"), "_toc.yml"))), "_toc.yml"
    )


def script(name: str) -> Path:
    """Return the percent script of notebook `name`; raise CompanionError for an unknown name."""
    path = NOTEBOOKS / f"{name}.py"
    if Path(name).name != name or not path.is_file():
        raise CompanionError(f"There is no notebook '{name}'; see the file names in {relative(NOTEBOOKS)}/.")
    return path


def parts(name: str, profile: str, seed: int | None = None) -> dict[str, str]:
    """Return all that a notebook's result depends on, label and fingerprint; `seed` is by default the profile's."""
    chosen, cells = load_profile(profile), code_cells(name)
    modules = closure(cells)
    found = {"its cells": sha256_of("\n".join(cell.tree for cell in cells))}
    found |= {f"code of {module}": sha256_of(code.tree) for module, code in modules.items()}
    for room in sorted({module.split(".")[0] for module in modules}):
        if fingerprint := getattr(import_module(f"{PACKAGE}.{room}"), "fingerprint", None):
            outside = [code for module, code in modules.items() if module.split(".")[0] != room]
            found |= fingerprint(chosen, frozenset().union(*(code.names for code in [*cells, *outside])))
    # What a run takes from the registry: its own claims, or all of them; their wording is no part of it.
    of_all = any("load_claims" in cell.names for cell in cells)
    taken = [one for one in claims.load_claims().values() if of_all or one.notebook == name]
    found["its claims"] = _fingerprint([(one.id, one.unit, one.reported) for one in taken])
    if own := [one for one in predictions.load_predictions().values() if one.notebook == name]:
        found["its predictions"] = _fingerprint(own)
    found["its figures"] = _fingerprint([one for one in registry.load_figures().values() if one.notebook == name])
    found["profile"] = _fingerprint(chosen)
    found["seed"] = str(chosen.seed if seed is None else seed)
    found["Python"] = ".".join(map(str, sys.version_info[:2]))
    found["requirements.lock"] = sha256_of((ROOT / "requirements.lock").read_bytes())
    return found


def key(found: dict[str, str]) -> str:
    """Return the key of a result with these parts, 16 hex digits."""
    return _fingerprint(found)[:16]


def _fingerprint(value: Any) -> str:
    return sha256_of(json.dumps(value, default=lambda item: item.__dict__, sort_keys=True))


def uses_models(name: str) -> bool:
    """Tell whether a notebook asks for organisms or their responses, so that these can be made before it runs."""
    return any(module.startswith("models.") for module in closure(code_cells(name)))


@dataclass(frozen=True)
class Code:
    """Some code: its syntax tree as text, the modules of this package that it imports, the names that it mentions."""

    tree: str
    imports: frozenset[str]
    names: frozenset[str]


def code_cells(name: str) -> list[Code]:
    """Return the code cells of a notebook; the library that reads whole notebooks is slow."""
    _, *found = CELL.split(script(name).read_text(encoding="utf-8"))
    code = [source for head, source in zip(found[::2], found[1::2], strict=True) if "[markdown]" not in head]
    return [_code(source, f"A code cell of notebook '{name}'") for source in code]


def closure(cells: list[Code]) -> dict[str, Code]:
    """Return the modules that some code imports and those that they import in turn, by name such as "core.files"."""
    waiting, found = set().union(*(cell.imports for cell in cells)), {}
    while waiting:
        module = waiting.pop()
        found[module] = _module(_path(module))
        waiting |= found[module].imports - found.keys()
    return dict(sorted(found.items()))


def _path(module: str) -> Path | None:
    stem = SOURCE.joinpath(*module.split("."))
    return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)


@cache
def _module(path: Path) -> Code:
    return _code(path.read_text(encoding="utf-8"), relative(path))


@cache
def _code(source: str, where: str) -> Code:
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        shown = (error.text or "").strip()
        raise CompanionError(f"{where} is not valid Python: {error.msg}, at '{shown}'.") from error
    nodes = list(ast.walk(tree))
    imported = {module for node in nodes for module in _imported(node)}
    named = {getattr(node, "id", None) or getattr(node, "attr", None) for node in nodes}
    named |= {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    shown = tree.body[-1:]  # a cell shows a text that comes last; any other that stands alone is a docstring
    for node in nodes:
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [one for one in body if one in shown or not _is_text(one)]
    return Code(ast.dump(tree), frozenset(imported), frozenset(named - {None}))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _imported(node: ast.AST) -> Iterator[str]:
    """Yield the modules of this package that a node imports, and the rooms that they lie in."""
    prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else []:
        package, *steps = (prefix + alias.name).split(".")
        if package == PACKAGE:
            yield from filter(_path, (".".join(steps[:end]) for end in range(1, len(steps) + 1)))
