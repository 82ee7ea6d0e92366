"""Importing the package leaves the process as it was, and loading or training takes back what it changed."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

from conftest import ROOT
from transformers.utils import logging

from em_companion.models import loading

MODULES = sorted(
    ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
    for path in Path(ROOT / "src" / "em_companion").rglob("*.py")
    if path.name != "__init__.py"
)
FOREIGN = ("torch", "transformers", "peft", "sklearn.linear_model", "matplotlib.pyplot", "pandas", "IPython.display")
FOREIGN += ("sphinx.application",)
STATE = """
import importlib, json, logging, os, sys, warnings
from huggingface_hub.utils import are_progress_bars_disabled
from transformers.utils import logging as theirs
from tqdm import tqdm

def state():
    bars = [theirs.is_progress_bar_enabled(), are_progress_bars_disabled(), theirs.get_verbosity()]
    loggers = [logging.root.level, len(logging.root.handlers), logging.root.manager.disable, tqdm.monitor_interval]
    return [*bars, *loggers, hasattr(object, "save"), *map(str, warnings.filters)]

foreign, modules = json.loads(sys.argv[1])
for name in foreign:
    importlib.import_module(name)
before, changed = state(), []
if child := os.fork():  # each order in a process of its own, both with what was imported so far
    os.waitpid(child, 0)
else:
    modules.reverse()
for name in modules:
    importlib.import_module(name)
    if state() != before:
        changed.append(name)
        before = state()
print(json.dumps([modules[0], changed]), flush=True)
"""


def test_importing_the_modules_together_in_either_order_changes_nothing():
    given = json.dumps([FOREIGN, MODULES])
    result = subprocess.run([sys.executable, "-c", STATE, given], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert list(map(json.loads, result.stdout.splitlines())) == [[MODULES[-1], []], [MODULES[0], []]]


def test_quiet_takes_back_what_it_changed():
    for before in (True, False):
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()
        filters = list(warnings.filters)
        with loading.quiet():
            assert not logging.is_progress_bar_enabled() and warnings.filters != filters
        assert logging.is_progress_bar_enabled() == before and warnings.filters == filters
    logging.enable_progress_bar()
